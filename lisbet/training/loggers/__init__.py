"""Loggers, to which the metrics of a run are sent besides the files in its folder.

One file is one logger. A module holds ``LOGGER``, a class with the methods of Logger that is called
with the options of the command and a Start.

Only the main process logs. A row belongs to a step, and each step has one row. A resumed run
repeats the steps since its newest checkpoint; each logger drops the rows that it already has:

* events.jsonl is cut after the checkpoint's step when the run resumes. It is on disk before a
  checkpoint is published, so that no row before the checkpoint is ever missing.
* W&B is asked for the last step that it has (its server online, its own files offline), and only
  later rows are sent; those that it lacks are taken from events.jsonl. So a run is shown live, and
  still no step is sent twice and none is lost. Holding rows back until a checkpoint is published
  would show a run late, and lose the rows that a kill finds between the two.
* TensorBoard hides what was written after the step at which a run was resumed (`purge_step`).
"""

import importlib.util
import os
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, runtime_checkable

from lisbet.core.errors import ConfigError
from lisbet.core.json_types import JsonDict
from lisbet.core.registry import Registry
from lisbet.core.yaml_files import read_yaml
from lisbet.options import TrainOptions

Values = dict[str, float]
"""Numbers of a step, by name; those of a finished epoch are named ``epoch/…``."""


@dataclass(frozen=True)
class Start:
    """What a logger needs to know when a run starts or is resumed.

    Parameters
    ----------
    folder : Path
        The model directory.
    config : dict
        Contents of run_config.yml.
    step : int
        Steps that are done.
    resumed : bool
        Whether the run is resumed.
    rows : list of dict
        Rows of events.jsonl for those steps.
    """

    folder: Path
    config: JsonDict
    step: int = 0
    resumed: bool = False
    rows: list[JsonDict] = field(default_factory=list)

    @property
    def run_id(self) -> str:
        """Name of the run."""
        return str(self.config["options"]["run_id"])


@runtime_checkable
class Logger(Protocol):
    """Receives the metrics of a run, on the main process."""

    def log(self, row: JsonDict, pictures: dict[str, Path]) -> None:
        """Log the row of a step, with its ``step``, and its pictures: PNG files by name."""

    def finish(self, code: int) -> None:
        """Close the logger, in bounded time; `code` is the exit code of the program."""


LOGGERS: Registry[Callable[[TrainOptions, Start], Logger]] = Registry(
    "logger", __name__, "LOGGER", "lisbet.loggers", object
)


def chosen(options: TrainOptions) -> list[str]:
    """Return the names of the loggers that the options choose."""
    flags = {"wandb": options.wandb, "tensorboard": options.tensorboard}
    return list(
        dict.fromkeys([*(name for name, on in flags.items() if on), *(options.loggers or ())])
    )


def start_loggers(options: TrainOptions, start: Start) -> list[Logger]:
    """Start the loggers that the options choose; only now are their libraries imported."""
    return [LOGGERS[name](options, start) for name in chosen(options)]


def identity(options: TrainOptions, folder: Path) -> JsonDict:
    """Return what run_config.yml and each checkpoint store: the id of the run on W&B.

    A run that was killed before its first checkpoint keeps the id in its folder. A new run takes
    WANDB_RUN_ID; under the agent of a sweep, so does one that is resumed.
    """
    if "wandb" not in chosen(options):
        return {}
    from lisbet.models.model_dir import RUN_CONFIG  # needs torch, which reading events does not

    known = read_yaml(folder / RUN_CONFIG) if (folder / RUN_CONFIG).is_file() else {}
    before = known.get("tracking") if options.resume else None
    wanted = os.environ.get("WANDB_RUN_ID") or secrets.token_hex(4)
    return {"tracking": {"wandb_id": wanted} | (before or {}) | agent_identity()}


def agent_identity() -> dict[str, str]:
    """Return the id that the agent of a W&B sweep gave this run; empty without one.

    ``wandb.init`` takes it, whatever id it is called with.
    """
    given = os.environ.get("WANDB_RUN_ID")
    return {"wandb_id": given} if given and os.environ.get("WANDB_SWEEP_ID") else {}


def require_available(options: TrainOptions) -> None:
    """Refuse loggers whose package is not installed or cannot be used, before any work.

    Raises
    ------
    ConfigError
        With the command that installs it.
    """
    for name in chosen(options):
        if name not in LOGGERS.own:
            LOGGERS[name]  # it is imported
        elif importlib.util.find_spec(name) is None:
            raise ConfigError(
                f"--{name} needs a package that is not installed: pip install 'lisbet[{name}]', or "
                "leave the option out; events.jsonl has the same numbers"
            )
