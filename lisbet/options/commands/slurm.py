"""The options of a batch script for SLURM."""

import re
from pathlib import Path
from typing import Annotated, Self

from pydantic import AfterValidator, BeforeValidator, model_validator

from lisbet.core.config import WORDS_AS_TEXT
from lisbet.core.errors import ConfigError
from lisbet.core.option_text import split_words
from lisbet.options._base import option
from lisbet.options._train import TrainingOptions


def _written(pattern: str, how: str) -> AfterValidator:
    """Refuse text that does not match a pattern; the message describes the pattern."""

    def check(text: str) -> str:
        if not (re.fullmatch(pattern, text, re.ASCII) and text.isprintable()):
            raise ValueError(f"expected {how}")
        return text

    return AfterValidator(check)


Time = Annotated[
    str,
    _written(r"\d+|\d+:\d\d(:\d\d)?|\d+-\d+(:\d\d){0,2}", "MINUTES, HH:MM:SS or DAYS-HH:MM:SS"),
]
Word = Annotated[str, _written(r"[^\s#'\"\\]+", "one word, without spaces and quotes")]
"""What can stand in a line of #SBATCH."""
Name = Annotated[
    str,
    _written(r"[^\s#'\"\\/%]+", "one word, without spaces, quotes, / and %: a file has its name"),
]
"""What can also stand in the name of a log."""
Seeds = Annotated[
    tuple[int, ...],
    BeforeValidator(lambda raw: () if raw == "" else split_words(raw)),
    WORDS_AS_TEXT,
]


class SlurmScriptOptions(TrainingOptions):
    """Print a batch script for SLURM that trains a model.

    All options of train_model are checked as train_model would, also on the recordings where they
    are here. The job saves a checkpoint before its time limit, is requeued, and resumes.

    Examples
    --------
    betman slurm_script --nodes=2 --gpus_per_node=4 --time=12:00:00 --container=lisbet.sif \
--run_id=mice --epochs=50 --batch_size=1024 datasets/mice > mice.sbatch && sbatch mice.sbatch

    betman slurm_script --seeds=1,2,3 --venv=.venv --run_id=mice datasets/mice > mice.sbatch
    """

    nodes: int = option(1, "number of nodes", affects="nothing", group="job", ge=1)
    gpus_per_node: int = option(
        1, "GPUs per node; 0 trains on CPUs", affects="nothing", group="job", ge=0
    )
    processes_per_node: int | None = option(
        None,
        "processes per node; default: one per GPU, or one",
        affects="nothing",
        group="job",
        ge=1,
    )
    cpus_per_task: int = option(8, "CPU cores per node", affects="nothing", group="job", ge=1)
    mem: Word | None = option(None, "memory per node, such as 32G", affects="nothing", group="job")
    time: Time = option(
        "04:00:00",
        "time limit, in a format of sbatch; default with --rate: what the run is estimated to take",
        affects="nothing",
        group="job",
    )
    rate: float | None = option(
        None,
        "windows per second that one process trains on those nodes, as betman benchmark prints it "
        "there; see betman estimate",
        affects="nothing",
        group="job",
        gt=0,
    )
    partition: Word | None = option(None, "SLURM partition", affects="nothing", group="job")
    account: Word | None = option(None, "SLURM account to charge", affects="nothing", group="job")
    qos: Word | None = option(None, "quality of service", affects="nothing", group="job")
    job_name: Name = option(
        "lisbet", "name of the job and of its log file", affects="nothing", group="job"
    )
    seeds: Seeds = option(
        (),
        "submit a job array: one run per seed, named RUN_ID-seedN",
        affects="nothing",
        group="job",
    )
    container: Path | None = option(
        None,
        "Apptainer image that contains betman; default: betman is on PATH",
        affects="nothing",
        group="job",
    )
    bind: str | None = option(
        None,
        "folders to mount in the container besides the working directory",
        affects="nothing",
        group="job",
    )
    venv: Path | None = option(
        None, "virtual environment that contains betman", affects="nothing", group="job"
    )
    launch: str = option(
        "ddp",
        "launch configuration for several processes: a name from betman launch_configs, or a path",
        affects="nothing",
        group="job",
    )

    @model_validator(mode="after")
    def _is_a_job(self) -> Self:
        if self.run_id is None:
            raise ConfigError(
                "--run_id is missing: the job resumes after an interruption, and needs the name "
                "of the run"
            )
        if self.container and self.venv:
            raise ConfigError("betman is in the --container or in the --venv; pass one of them")
        if self.bind and not self.container:
            raise ConfigError("--bind needs --container")
        if self.seeds and "seed" in self.model_fields_set:
            raise ConfigError("--seeds and --seed both give the seed; pass one of them")
        if not all(0 <= seed < 2**31 for seed in self.seeds):
            raise ConfigError(f"--seeds={','.join(map(str, self.seeds))}: SLURM counts from 0")
        for name in ("overwrite", "dry_run", "debug_step"):
            if getattr(self, name) not in (False, None):
                raise ConfigError(
                    f"--{name} cannot be used in a job that resumes itself; use train_model"
                )
        return self

    @property
    def processes(self) -> int:
        """Processes over all nodes."""
        return self.nodes * (self.processes_per_node or self.gpus_per_node or 1)
