"""Parts of a batch script that users write in the words of SLURM, and their checks."""

import difflib
import re
import shlex
from collections.abc import Callable
from typing import Annotated, Self

from pydantic import AfterValidator, Field

from lisbet.core.config import AS_TEXT, Config, from_text
from lisbet.core.option_values import Hours

SIGNAL_S = 120
"""How long before its time limit SLURM sends a job the signal to save: --signal of train.sbatch."""
EARLY_S = 60
"""How much earlier than asked for the signal may come, by the manual page of sbatch."""
FULL_TIME = re.compile(r"(?:(\d+)-)?(\d+)(?::(\d\d))?(?::(\d\d))?", re.ASCII)
NAMES = (
    "account acctg-freq array batch bb bbf begin chdir cluster-constraint clusters comment "
    "constraint container container-id contiguous core-spec cores-per-socket cpu-freq cpus- "
    "per-gpu cpus-per-task deadline delay-boot dependency distribution error exclude "
    "exclusive export export-file extra extra-node-info get-user-env gid gpu-bind gpu-freq "
    "gpus gpus-per-node gpus-per-socket gpus-per-task gres gres-flags hint hold ignore-pbs "
    "input job-name kill-on-invalid-dep licenses mail-type mail-user mcs-label mem mem-bind "
    "mem-per-cpu mem-per-gpu mincpus network nice no-kill no-requeue nodefile nodelist nodes "
    "ntasks ntasks-per-core ntasks-per-gpu ntasks-per-node ntasks-per-socket oom-kill-step "
    "open-mode output overcommit oversubscribe parsable partition power prefer priority "
    "profile propagate qos quiet reboot requeue reservation resv-ports segment signal "
    "sockets-per-node spread-job stepmgr switches test-only thread-spec threads-per-core time "
    "time-min tmp tres-bind tres-per-task uid use-min-nodes verbose wait wait-all-nodes wckey "
    "wrap "
)
KNOWN = frozenset(NAMES.split())
"""The options of sbatch 22.05, and what later releases have added."""
OWN = {
    "array": "--seeds", "nodes": "--nodes", "gpus-per-node": "--gpus_per_node or --gres",
    "gpus": "--gpus_per_node or --gres", "gpus-per-task": "--gpus_per_node or --gres",
    "gres": "--gres", "cpus-per-task": "--cpus_per_task", "mem": "--mem", "time": "--time",
    "partition": "--partition", "account": "--account", "qos": "--qos",
    "job-name": "--job_name", "constraint": "--constraint",
    "ntasks": "--processes_per_node", "ntasks-per-node": "--processes_per_node",
    "output": "--job_name, after which the log is named",
}  # fmt: skip
"""Options of sbatch that an option of betman sets, by its name."""
FIXED = {
    "signal": "it saves the run before the time limit",
    "requeue": "it resumes the run", "no-requeue": "it resumes the run",
    "open-mode": "a requeued job goes on in the same log",
    "wrap": "it is a script already",
}  # fmt: skip
"""Options of sbatch that the script needs as they are, and why."""


class Gres(Config):
    """Generic resources of each node, in the words of SLURM."""

    text: str
    gpus: int | None = Field(None, ge=1)

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read ``NAME[:TYPE][:COUNT]``, several separated by commas; count the GPUs.

        Examples
        --------
        >>> [Gres.parse(text).gpus for text in ("gpu:a100:4", "gpu:2,nvme:100", "nvme")]
        [4, 2, None]
        """
        gpus = None
        for item in text.split(","):
            found = re.fullmatch(
                r"([A-Za-z]\w*)(?::([A-Za-z][\w.-]*))?(?::(\d+[kKmMgGtT]?))?", item, re.ASCII
            )
            if found is None:
                raise ValueError(f"expected NAME, NAME:COUNT or NAME:TYPE:COUNT, got {item!r}")
            if found[1] == "gpu":
                count = found[3] or "1"
                if not count.isdecimal() or not int(count):
                    raise ValueError(f"expected a number of GPUs from 1, got {item!r}")
                gpus = (gpus or 0) + int(count)
        return cls(text=text, gpus=gpus)

    def __str__(self) -> str:
        return self.text


class SbatchOptions(Config):
    """Further options of sbatch: pairs of a name and a value, empty where it takes none."""

    values: tuple[tuple[str, str], ...] = ()

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read words as they would be typed after ``sbatch``.

        Examples
        --------
        >>> SbatchOptions.parse("--exclusive --comment='two words'").values
        (('exclusive', ''), ('comment', 'two words'))
        """
        try:
            words = shlex.split(text)
        except ValueError as error:
            raise ValueError(f"a quote is not closed ({error})") from error
        return cls(values=tuple(_sbatch_option(word) for word in words))

    def __str__(self) -> str:
        return shlex.join(
            f"--{name}={value}" if value else f"--{name}" for name, value in self.values
        )

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the options."""
        return tuple(name for name, _ in self.values)

    @property
    def doubtful(self) -> dict[str, list[str]]:
        """Options that no known release of sbatch has, and similar names."""
        return {
            name: difflib.get_close_matches(name, KNOWN, n=1)
            for name in self.names
            if name not in KNOWN
        }


def _sbatch_option(word: str) -> tuple[str, str]:
    """Read one option; refuse what the script sets itself."""
    found = re.fullmatch(r"--([a-z][a-z0-9-]*)(?:=(.+))?", word, re.ASCII | re.DOTALL)
    if found is None:
        raise ValueError(
            f"expected options of sbatch such as --exclusive or --nodelist=n1, got {word!r}; "
            "write the long form, with = before a value"
        )
    name, value = found[1], found[2] or ""
    if name in OWN:
        raise ValueError(f"the script sets --{name} itself; use {OWN[name]} of slurm_script")
    if name in FIXED:
        raise ValueError(f"the script sets --{name} itself: {FIXED[name]}")
    if not value.isprintable() or re.search(r"['\"\\#]", value):
        raise ValueError(f"--{name}: quotes, backslashes, # and line breaks cannot be used")
    return name, value


def directive(name: str, value: str) -> str:
    """Return a line of #SBATCH; a value with spaces stands in quotes, which sbatch removes."""
    quoted = f'"{value}"' if " " in value else value
    return f"#SBATCH --{name}={quoted}\n" if value else f"#SBATCH --{name}\n"


def seconds_of(time: str) -> int | None:
    """Return the seconds of a time limit as sbatch reads it; None for no limit.

    The formats are those of the manual page of sbatch: minutes, minutes:seconds,
    hours:minutes:seconds, days-hours, days-hours:minutes and days-hours:minutes:seconds.

    Examples
    --------
    >>> [seconds_of(text) for text in ("90", "10:30", "04:00:00", "1-12", "0-00:05", "0")]
    [5400, 630, 14400, 129600, 300, None]
    """
    found = FULL_TIME.fullmatch(time)
    assert found is not None, time
    days, *parts = (None if part is None else int(part) for part in found.groups())
    first, second, third = parts
    if days is not None:
        seconds = 86400 * days + 3600 * (first or 0) + 60 * (second or 0) + (third or 0)
    elif third is not None:
        seconds = 3600 * (first or 0) + 60 * (second or 0) + third
    else:
        seconds = 60 * (first or 0) + (second or 0)
    return seconds or None


def time_warning(time: str, max_time: Hours | None) -> str:
    """Return what is wrong with --max_time under a time limit; empty if nothing is.

    Parameters
    ----------
    time : str
        Time limit of the job.
    max_time : Hours, optional
        How long the run trains before it saves and leaves.
    """
    limit = seconds_of(time)
    if max_time is None or limit is None:
        return ""
    most = (limit - SIGNAL_S - EARLY_S) // 60
    if 60 * most >= max_time.seconds:
        return ""
    what = "is not shorter than" if max_time.seconds >= limit else "leaves no margin below"
    advice = "leave --max_time out"
    if most > 0:
        advice += f", or give at most --max_time={Hours(minutes=most)}"
    return (
        f"--max_time={max_time} {what} the job's --time={time}: starting and saving take time as "
        f"well. SLURM's signal, {SIGNAL_S} s before the limit, will come first and save the run; "
        f"{advice}"
    )


def _lines(text: str) -> str:
    """Refuse text that cannot stand in a script as lines of its own."""
    if not all(line.replace("\t", " ").isprintable() for line in text.split("\n")):
        raise ValueError("expected lines of a shell script, without control characters")
    return text


def _matching(pattern: str, how: str) -> Callable[[str], str]:
    def check(text: str) -> str:
        if not (re.fullmatch(pattern, text, re.ASCII) and text.isprintable()):
            raise ValueError(f"expected {how}")
        return text

    return check


GresText = Annotated[Gres, from_text(Gres), AS_TEXT]
SbatchText = Annotated[SbatchOptions, from_text(SbatchOptions), AS_TEXT]
ShellLines = Annotated[str, AfterValidator(_lines)]
MailAddress = Annotated[
    str,
    AfterValidator(_matching(r"[\w.+-]+@[\w-]+(\.[\w-]+)*", "one address such as me@lab.org")),
]
Time = Annotated[
    str,
    AfterValidator(
        _matching(r"\d+|\d+:\d\d(:\d\d)?|\d+-\d+(:\d\d){0,2}", "MINUTES, HH:MM:SS or DAYS-HH:MM:SS")
    ),
]
Word = Annotated[
    str, AfterValidator(_matching(r"[^\s#'\"\\]+", "one word, without spaces and quotes"))
]
"""What can stand in a line of #SBATCH."""
Name = Annotated[
    str,
    AfterValidator(
        _matching(
            r"[^\s#'\"\\/%]+",
            "one word, without spaces, quotes, / and %: a file has its name",
        )
    ),
]
"""What can also stand in the name of a log."""
