"""The folder ``checkpoints/`` of a run: which checkpoints it has, and which one is valid."""

import logging
import re
from pathlib import Path

from lisbet.core.errors import ModelError
from lisbet.core.storage.subfolders import remove_folder, rename_folder
from lisbet.training.checkpoint import restricted
from lisbet.training.checkpoint.manifest import CHECKPOINTS, Manifest, verified

log = logging.getLogger(__name__)

PUBLISHED = re.compile(r"step_[0-9]{8,}")


class CheckpointDirectory:
    """The checkpoints of a run.

    Parameters
    ----------
    run : Path
        The model directory.
    """

    def __init__(self, run: Path) -> None:
        self.run, self.path = run, run / CHECKPOINTS

    def path_of(self, step: int) -> Path:
        """Return the path of the checkpoint of a step."""
        return self.path / f"step_{step:08}"

    @staticmethod
    def step_of(folder: Path) -> int:
        """Return the step of a published checkpoint."""
        return int(folder.name.removeprefix("step_"))

    def published(self) -> list[Path]:
        """Return the published checkpoints, the newest first."""
        folders = (
            path
            for path in self.path.glob("step_*")
            if PUBLISHED.fullmatch(path.name) and path.is_dir()
        )
        return sorted(folders, key=self.step_of, reverse=True)

    def newest_valid(self, up_to: int | None = None) -> Path | None:
        """Return the newest checkpoint whose files are as they were written, or None without any.

        Damaged ones are named in warnings.

        Parameters
        ----------
        up_to : int, optional
            Only checkpoints of this step or before.

        Raises
        ------
        ModelError
            If there are checkpoints, but all are damaged; or if the newest undamaged one holds
            anything else than tensors and plain values.
        """
        damaged = []
        for folder in self.published():
            try:
                manifest = verified(folder)
            except ModelError as error:
                log.warning("%s", error)
                damaged.append(folder)
                continue
            if up_to is not None and manifest.step > up_to:
                continue
            if damaged:
                log.warning("resuming from the checkpoint before it: %s", folder)
            # Not a reason to use an older one: a failing disk does not do this.
            require_loadable(folder, manifest)
            return folder
        if damaged:
            raise ModelError(
                f"all {len(damaged)} checkpoints of {self.run} are damaged; betman "
                f"verify_checkpoint {self.run} lists the damage. To start again, use another "
                "--run_id, or --overwrite"
            )
        return None

    def set_aside_newer(self, than: Path) -> None:
        """Rename newer checkpoints, which are damaged: the run will write those steps again."""
        for folder in self.published():
            if self.step_of(folder) > self.step_of(than):
                ends = ("", *(f"_{n}" for n in range(1000)))
                names = (folder.with_name(f"damaged_{folder.name}{end}") for end in ends)
                free = next(path for path in names if not path.exists())
                rename_folder(folder, free, self.run)

    def remove_old(self, keep: int) -> None:
        """Remove all checkpoints but the newest; one with files of others stays."""
        for old in self.published()[keep:]:
            try:
                if not remove_folder(old, self.run):
                    log.warning("%s is kept: it contains files that betman did not write", old)
            except OSError as error:  # the new checkpoint is published all the same
                log.warning("an old checkpoint could not be removed: %s", reason_of(error))


def require_loadable(folder: Path, manifest: Manifest) -> None:
    """Check every pickle of a checkpoint whose files are as in its manifest.

    Tensors are not read, only what describes them.

    Raises
    ------
    ModelError
        Naming the first file that holds anything but tensors and plain values, or that would be
        read though it is not in the manifest.
    """
    from lisbet.training.strategies import BY_FORM  # they read checkpoints, too

    restricted.require_listed(folder, manifest, "progress.json", "metrics.pt")
    BY_FORM[manifest.form].require_loadable(folder, manifest)
    restricted.check_pickles(folder, manifest)


def reason_of(error: OSError) -> str:
    """Return the file and the reason of an operating system error."""
    where = f"{error.filename}: " if error.filename else ""
    return where + (error.strerror or str(error))
