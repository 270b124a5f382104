"""Where the numbers of a run go: a file in its folder always, W&B and TensorBoard when asked for.

Only the first process tracks. A row belongs to a step, and there is one row for a step. After a
kill, a run goes on from its newest checkpoint and repeats the steps since then; each tracker drops
what it has already:

* events.jsonl is cut after the checkpoint's step when the run goes on. It is on the disk before a
  checkpoint is published, so that nothing before the checkpoint is ever missing.
* W&B is asked for the last step that it has (its server online, its own files offline), and only
  later rows are sent; those that it lacks are taken from events.jsonl. So a run is seen live, and
  still no step comes twice and none is lost. Holding rows back until a checkpoint is published
  would show a run late, and lose the rows that a kill finds between the two.
* TensorBoard hides what was written after the step at which a run went on (`purge_step`).
"""

import importlib.util
import os
import secrets
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from lisbet.core.errors import ConfigError
from lisbet.core.yaml_files import read_yaml
from lisbet.options import TrainOptions

Values = dict[str, float]
"""Numbers of a step, by name; those of a finished epoch are named ``epoch/…``."""


@dataclass(frozen=True)
class Start:
    """What a tracker is told when a run starts or goes on.

    Parameters
    ----------
    folder : Path
        The model directory.
    config : dict
        What run_config.yml holds.
    step : int
        Steps that are done.
    resumed : bool
        Whether the run is resumed.
    rows : list of dict
        What events.jsonl holds of those steps.
    """

    folder: Path
    config: dict[str, Any]
    step: int = 0
    resumed: bool = False
    rows: list[dict[str, Any]] = field(default_factory=list)

    @property
    def run_id(self) -> str:
        """Name of the run."""
        return str(self.config["options"]["run_id"])


class Tracker(Protocol):
    """Takes the numbers of a run."""

    def log(self, row: dict[str, Any], pictures: dict[str, Path]) -> None:
        """Take the row of a step, with its ``step``, and the pictures that go with it."""

    def finish(self, code: int) -> None:
        """End, in bounded time; the code is what the program will exit with."""


def others(options: TrainOptions, start: Start) -> list[Tracker]:
    """Start the trackers that were asked for; their libraries are imported here and only then."""
    trackers: list[Tracker] = []
    if options.wandb:
        from lisbet.training.logging.wandb_tracker import WandbTracker

        trackers.append(WandbTracker(options, start))
    if options.tensorboard:
        from lisbet.training.logging.tensorboard_tracker import TensorBoardTracker

        trackers.append(TensorBoardTracker(start))
    return trackers


def identity(options: TrainOptions, folder: Path) -> dict[str, Any]:
    """Return what run_config.yml and each checkpoint keep: the id of the run on W&B.

    The folder's own is kept by a run that was killed before its first checkpoint. A new run takes
    WANDB_RUN_ID; under the agent of a sweep, so does one that is resumed.
    """
    if not options.wandb:
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


def require_installed(options: TrainOptions) -> None:
    """Refuse trackers that are not installed, before any work.

    Raises
    ------
    ConfigError
        With the command that installs them.
    """
    for name, asked in (("wandb", options.wandb), ("tensorboard", options.tensorboard)):
        if asked and importlib.util.find_spec(name) is None:
            raise ConfigError(
                f"--{name} needs a package that is not installed: pip install 'lisbet[{name}]', or "
                "leave the option out; events.jsonl has the same numbers"
            )
