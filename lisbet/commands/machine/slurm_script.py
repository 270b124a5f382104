"""A batch script for SLURM: the shipped one, filled in after its options were checked."""

import math
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from lisbet import __version__
from lisbet.commands.machine.job_warnings import warnings_of
from lisbet.commands.machine.launch import ALONE, FOLDERS, Launch
from lisbet.core.errors import ConfigError
from lisbet.core.json_types import JsonDict
from lisbet.core.option_text import join_paths
from lisbet.core.redact import redacted
from lisbet.options import SlurmScriptOptions, TrainingOptions, TrainOptions
from lisbet.options.commands.sbatch import directive

if TYPE_CHECKING:
    from lisbet.commands.machine.estimate import Estimate

TEMPLATE = "slurm/train.sbatch"
MAIL_TYPE = "END,FAIL,REQUEUE"
SETUP = "  :\n"
"""The place of the lines of --setup in the script."""
SEED = '"$SLURM_ARRAY_TASK_ID"'
"""A job array over seeds is numbered by them."""
MARGIN = 1.5
"""How much more than estimated a job asks for."""
START_MIN = 15
"""Minutes of a job besides training: start-up, reading, and saving before the limit."""
GPU_HOST_BYTES = 3 * 2**30
"""Host memory that a process with a GPU takes for CUDA and its libraries, as an upper bound."""


def slurm_script(options: SlurmScriptOptions) -> None:
    """Print the script.

    Raises
    ------
    LisbetError
        If train_model would refuse the options, or the recordings where they are here.
    """
    train = _of_training(options)
    if (found := _check(options, train)) is not None:
        options = _with_estimate(options, found)
    _warn(options, train)
    path = next(folder / TEMPLATE for folder in FOLDERS if folder.is_dir())
    text = path.read_text("utf-8")
    title = f"# Written by betman slurm_script, lisbet {__version__}; submit it with sbatch.\n"
    text = re.sub(r"(?<=\n)#(?! What to change).*?\n(?=#SBATCH)", title, text, count=1, flags=re.S)
    print(_filled(text, _directives(options), _variables(options, train)), end="")


def _of_training(options: SlurmScriptOptions) -> TrainOptions:
    """Return those that train_model takes, as they were given; a file of options is resolved."""
    given = {
        name: getattr(options, name)
        for name in options.model_fields_set & TrainingOptions.model_fields.keys() - {"config"}
    }
    return TrainOptions(**given | {"resume": True})


def _check(options: SlurmScriptOptions, train: TrainOptions) -> "Estimate | None":
    """Check as train_model would; estimate the run if its recordings are on this machine."""
    launch = Launch.find(options.launch)
    if options.processes > 1 and launch.settings["distributed_type"] == ALONE:
        raise ConfigError(
            f"--launch={options.launch} is for one process, and {options.nodes} nodes with "
            f"{options.gpus} GPUs are for {options.processes}; use --launch=ddp"
        )
    _check_setup(options.setup)
    import torch

    from lisbet.commands.machine.estimate import estimate_of
    from lisbet.training.datasets.batching import Batching
    from lisbet.training.inputs import TrainingInputs, check_without_recordings

    Batching.of(train.batch_size, options.processes, train.micro_batch_size)
    check_without_recordings(train)
    absent = [str(path) for path in train.data_path if not path.exists()]
    found = None
    if not absent:
        inputs = TrainingInputs.from_options(train, torch.device("cpu"))
        micro = train.micro_batch_size or train.batch_size
        found = estimate_of(options, inputs, options.processes, micro)
    for name in ("container", "venv"):
        path: Path | None = getattr(options, name)
        absent += [str(path)] if path is not None and not path.exists() else []
    for path_ in absent:
        print(f"betman: note: {redacted(path_)} is not here; the job needs it", file=sys.stderr)
    return found


def _warn(options: SlurmScriptOptions, train: TrainOptions) -> None:
    for text in warnings_of(options, train, Launch.find(options.launch)):
        print(f"betman: warning: {redacted(text)}", file=sys.stderr)


def _check_setup(lines: str) -> None:
    """Refuse lines that the shell cannot read by themselves: what follows would be taken along."""
    said = subprocess.run(
        ["bash", "-n"], input=f"{lines}\n", text=True, capture_output=True, check=False
    )
    wrong = said.stderr.strip().splitlines()
    if lines.rstrip().endswith("\\"):
        wrong = ["it ends with a backslash"]
    if said.returncode or wrong:  # an open here-document is a warning only
        raise ConfigError(
            f"--setup={lines}: expected complete lines of the shell, such as 'module load "
            f"apptainer'; bash says: {wrong[0] if wrong else f'code {said.returncode}'}"
        )


def _with_estimate(options: SlurmScriptOptions, found: "Estimate") -> SlurmScriptOptions:
    """Use the estimated time where none is given, and print what else the job needs."""
    node = options.processes // options.nodes
    host = found.host(on_gpu=options.gpus > 0)
    gigabytes = math.ceil(MARGIN * node * (host + GPU_HOST_BYTES * bool(options.gpus)) / 2**30)
    notes = [] if options.mem else [f"--mem={gigabytes}G is estimated to be enough"]
    if options.rate is None:
        notes.append("pass --rate=WINDOWS_PER_SECOND, see betman benchmark, to estimate --time")
    elif "time" not in options.model_fields_set:
        minutes = START_MIN + math.ceil(MARGIN * found.seconds(options.rate) / 60)
        options = options.model_copy(update={"time": f"{minutes // 60:02}:{minutes % 60:02}:00"})
        notes.append(f"--time={options.time} is estimated")
    for note in notes:
        print(f"betman: note: {note}", file=sys.stderr)
    return options


def _directives(options: SlurmScriptOptions) -> dict[str, str | None]:
    """Return the lines of #SBATCH: those of the script that change, and further ones."""
    gres = options.gres
    of_gres = gres is not None and gres.gpus is not None
    found: dict[str, str | None] = {
        "job-name": options.job_name,
        "nodes": str(options.nodes),
        # Clusters without GPUs do not know the word.
        "gpus-per-node": str(options.gpus) if options.gpus and not of_gres else None,
        "cpus-per-task": str(options.cpus_per_task),
        "time": options.time,
    }
    for name in ("gres", "mem", "partition", "account", "qos", "constraint"):
        if (value := getattr(options, name)) is not None:
            found[name] = str(value)
    if options.mail is not None:
        found |= {"mail-user": options.mail, "mail-type": MAIL_TYPE}
    found |= dict(options.sbatch.values)
    if options.seeds:
        found |= {"array": ",".join(map(str, options.seeds)), "output": "%x-%A_%a.out"}
    return found


def _variables(options: SlurmScriptOptions, train: TrainOptions) -> dict[str, str]:
    """Return what the variables of the script are set to, quoted for the shell."""
    words = train.model_dump(mode="json", exclude_unset=True, exclude={"resume", "data_path"})
    more = {"data_path": join_paths(train.data_path), "setup": options.setup,
            "sbatch": str(options.sbatch)}  # fmt: skip
    _refuse_secrets(words | more)
    if options.seeds:
        words.pop("run_id")
    lines = [shlex.quote(f"--{name}={value}") for name, value in words.items() if value is not None]
    if options.seeds:
        lines += [f"--seed={SEED}", f"--run_id={shlex.quote(f'{options.run_id}-seed')}{SEED}"]
    lines.append(shlex.quote(_as_word(join_paths(train.data_path))))
    found = {"TRAIN": "(\n" + "".join(f"  {line}\n" for line in lines) + ")"}
    if options.setup.strip():
        found[SETUP] = f"  :  # from --setup\n{options.setup.strip()}\n"
    for name in ("container", "venv", "bind", "processes_per_node", "launch"):
        if (value := getattr(options, name)) is not None:
            text = str(value) if name == "bind" else _as_word(str(value))
            found[name.upper()] = _quoted(text)
    return found


def _quoted(text: str) -> str:
    """Quote text for the shell in any case: a plain word such as env looks like a command."""
    quoted = shlex.quote(text)
    return f"'{text}'" if quoted == text else quoted


def _as_word(path: str) -> str:
    """Return a path that no program takes for an option."""
    return f"./{path}" if path.startswith("-") else path


def _refuse_secrets(words: JsonDict) -> None:
    """Raise ConfigError if a script, which many may read, would hold a password or token."""
    for name, value in words.items():
        if redacted(str(value)) != str(value):
            raise ConfigError(
                f"--{name} holds a password or token, which would stand in the script; leave it "
                "out, and set it in the environment of the job, such as AWS_SECRET_ACCESS_KEY"
            )


def _filled(text: str, directives: dict[str, str | None], variables: dict[str, str]) -> str:
    """Put values in their places; those for which the script has no line go before the others."""
    more = []
    for name, value in directives.items():
        line = directive(name, value) if value is not None else ""
        text, found = _replaced(rf"^#SBATCH --{name}=.*\n", line, text)
        more += [] if found else [line]
    text = text.replace("#SBATCH", "".join(more) + "#SBATCH", 1)
    # All at once: a value may hold what looks like the line of another variable.
    left = dict(variables)

    def filled(found: re.Match[str]) -> str:
        if found[0] == SETUP:
            return left.pop(SETUP, SETUP)
        return f"{found[1]}={left.pop(found[1])}" if found[1] in left else found[0]

    place = r'^(\w+)=("\$\{\1:-[^}]*\}"|\(\))|^' + re.escape(SETUP)
    text = re.sub(place, filled, text, flags=re.MULTILINE)
    assert not left, f"{TEMPLATE} has no variable {', '.join(left)}"
    return text


def _replaced(pattern: str, new: str, text: str) -> tuple[str, int]:
    """Replace a pattern by text that is taken as it is; return how often it was found."""
    return re.subn(pattern, lambda _: new, text, flags=re.MULTILINE)
