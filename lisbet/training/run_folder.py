"""The folder of a run: may it be written, resumed or replaced, and what is left in it of others.

With ``--overwrite`` the earlier model is kept as ``models/.RUN.replaced`` until the new one has
weights, and takes its place again if the new one fails before. One process at a time writes a run:
the first process of a run holds its lock.
"""

import logging
import math
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from accelerate.utils import broadcast_object_list
from torch import Tensor

from lisbet.core.errors import ModelError, OutputError
from lisbet.core.json_types import JsonDict
from lisbet.core.storage.files import require_writable, write_file
from lisbet.core.storage.folders import (
    contents,
    kept,
    recover,
    remove_kept,
    require_folder_target,
    restore_kept,
    write_folder,
)
from lisbet.core.storage.lock import Lock, require_unlocked
from lisbet.core.storage.subfolders import remove_temporaries
from lisbet.core.storage.write_log import WriteLog
from lisbet.core.yaml_files import write_yaml
from lisbet.distributed import environment
from lisbet.models import model_dir
from lisbet.models.multitask import ModelConfig
from lisbet.options import TrainOptions
from lisbet.training.checkpoint.directory import CheckpointDirectory
from lisbet.training.checkpoint.manifest import CHECKPOINTS
from lisbet.training.logging.events import EVENTS
from lisbet.training.logging.history import HISTORY, write_history
from lisbet.training.logging.status import FINISHED, STATUS, read_status

log = logging.getLogger(__name__)

RUN, MODEL = "run", "model"
"""Kinds of folders, as their logs name them: a training run; an exported or fetched model."""
WRITTEN = (f"{model_dir.WEIGHTS}/*.pt", f"{CHECKPOINTS}/step_*", HISTORY, EVENTS, STATUS,
           model_dir.MODEL_CONFIG, model_dir.RUN_CONFIG, "sample_hashes.csv", "pictures/*.png",
           "README.md")  # fmt: skip
"""Names that training writes into its folder."""
MAY_BE_OTHERS = "README.md"
"""If it was not written by betman, it is kept, and no model card is written."""


def folder_of(options: TrainOptions, run_id: str) -> Path:
    """Return the model directory of a run."""
    return options.output_path / "models" / run_id


def with_run_id(options: TrainOptions) -> TrainOptions:
    """Name a run that the user did not name by its start, the same on all processes."""
    # They start within a second or two of each other: one names it for all.
    (run_id,) = broadcast_object_list([options.run_id or time.strftime("%Y%m%d%H%M%S")])
    return options.model_copy(update={"run_id": run_id})


def check(options: TrainOptions, run_id: str) -> tuple[Path, bool]:
    """Return the folder of a run and whether it resumes from a checkpoint; nothing is written.

    Raises
    ------
    LisbetError
        If something is there that must not be written to, resumed or replaced.
    """
    folder = folder_of(options, run_id)
    resuming = bool(CheckpointDirectory(folder).published())
    if options.debug_step is not None:
        if not (folder / model_dir.RUN_CONFIG).is_file():
            raise ModelError(f"{folder} is no run whose steps --debug_step could repeat")
        return folder, resuming
    require_writable(folder.parent)
    if not os.path.lexists(folder):
        return folder, False
    if options.resume:
        return folder, _can_resume(folder)
    if not options.overwrite:
        replaceable = WriteLog(folder).kind in (RUN, MODEL) and not folder.is_symlink()
        hint = ", or replace it with --overwrite" if replaceable else ""
        raise OutputError(f"{folder} exists already; choose another --run_id{hint}")
    require_folder_target(folder, _replaces(options))
    require_own_names(folder)
    if os.path.lexists(kept(folder)) and WriteLog(kept(folder)).kind is None:
        raise OutputError(
            f"{kept(folder)} was not written by betman, and is where the earlier model is kept "
            "until the new one has weights; move it away"
        )
    return folder, False


def _replaces(options: TrainOptions) -> frozenset[str]:
    return frozenset({RUN, MODEL} if options.overwrite else {RUN} if options.resume else ())


def _can_resume(folder: Path) -> bool:
    """Whether a folder that exists has a checkpoint; what is no run is refused."""
    if not folder.is_dir():
        what = "a link that leads nowhere" if folder.is_symlink() else "a file"
        raise OutputError(f"{folder} is {what}; expected a run to resume, or nothing")
    if CheckpointDirectory(folder).published() and (folder / model_dir.RUN_CONFIG).is_file():
        require_own_names(folder)
        return True
    kind = WriteLog(folder).kind
    if kind != RUN:
        what = f"a {kind} that betman wrote, not a run" if kind == MODEL else contents(folder)
        raise OutputError(
            f"{folder} is not a run that --resume could continue: it is {what}. Nothing was "
            "changed; choose another --run_id"
        )
    require_own_names(folder)
    return False


def require_own_names(folder: Path) -> None:
    """Refuse a run in whose folder others have files of the names that training writes.

    Raises
    ------
    OutputError
        Naming them.
    """
    notes = WriteLog(folder)
    if notes.kind is None:  # a run of an earlier release, or copied without its log: see `adopt`
        return
    foreign = {path.relative_to(folder) for path in notes.foreign()}
    taken = sorted(
        str(path)
        for path in foreign
        if (path.as_posix() != MAY_BE_OTHERS and any(map(path.match, WRITTEN)))
        or path.as_posix() in (model_dir.WEIGHTS, CHECKPOINTS, "pictures")
    )  # fmt: skip
    if taken:
        raise OutputError(
            f"{folder} holds files that betman did not write, or that were changed since, under "
            f"names that training writes: {', '.join(taken)}. Nothing was changed; move them "
            "away, or choose another --run_id"
        )


@contextmanager
def writing(options: TrainOptions) -> Iterator[Lock | None]:
    """Let one process at a time write a run: the first process of a run holds its lock.

    What a killed process left is removed or brought back first.

    Raises
    ------
    LisbetError
        If another process writes it, or it may not be written.
    """
    assert options.run_id is not None
    folder = folder_of(options, options.run_id)
    if environment.rank() or options.debug_step is not None:
        yield None
        return
    check(options, options.run_id)
    if options.dry_run:
        require_unlocked(folder)
        yield None
        return
    lock = Lock(folder)
    lock.acquire()
    try:
        recover(folder)
        if WriteLog(folder).kind == RUN:
            remove_temporaries(folder)
        if has_weights(folder):
            remove_kept(folder)
        yield lock
    finally:
        lock.release()


def is_finished(folder: Path, epochs: int) -> bool:
    """Whether a run without checkpoints has come to its end; called with ``--resume``.

    Raises
    ------
    OutputError
        If it has weights that starting again would lose.
    """
    if not has_weights(folder):
        return False
    status = read_status(folder)
    finished = status.get("state") == FINISHED
    if finished and isinstance(done := status.get("epoch"), int) and done >= epochs:
        return True
    had_checkpoint = bool(WriteLog(folder).known.published)
    if finished or had_checkpoint:
        raise OutputError(
            f"{folder} has weights but no checkpoint to resume from: its checkpoints were removed. "
            "Nothing was changed. Choose another --run_id and start from its weights with "
            "--load_backbone_weights, or train it again with --overwrite instead of --resume"
        )
    log.warning("%s has no checkpoint yet; the run starts again", folder)
    return False


def has_weights(folder: Path) -> bool:
    """Whether there are weights in a model directory."""
    return any((folder / model_dir.WEIGHTS).glob("*.pt"))


def create(options: TrainOptions, folder: Path, config: ModelConfig, run: JsonDict) -> None:
    """Write the folder of a run with its configurations.

    An earlier model there is kept as ``.RUN.replaced`` until `remove_kept`.
    """
    keep_old = has_weights(folder)
    with write_folder(folder, RUN, replaces=_replaces(options), keep_old=keep_old) as new:
        write_yaml(
            new / model_dir.MODEL_CONFIG, config.model_dump(mode="json", exclude_defaults=True)
        )
        write_yaml(new / model_dir.RUN_CONFIG, run)
    if keep_old:
        log.info("the earlier model is kept as %s until this one has weights", kept(folder))


def update_config(folder: Path, run: JsonDict) -> None:
    """Replace run_config.yml, for a run that resumes with other options."""
    with write_file(folder / model_dir.RUN_CONFIG, root=folder, overwrite=True) as temporary:
        write_yaml(temporary, run)


def failed_folder(folder: Path) -> Path | None:
    """Return where the record of a run goes that fails before it has weights or a checkpoint.

    None if it stays where it is, as there is no earlier model whose name it has taken.
    """
    if has_weights(folder) or CheckpointDirectory(folder).published():
        return None
    if WriteLog(kept(folder)).kind is None:
        return None
    names = (f"{folder.name}.failed", *(f"{folder.name}.failed{n}" for n in range(2, 1000)))
    places = (folder.with_name(name) for name in names)
    return next(place for place in places if not os.path.lexists(place))


def restore_earlier_model(folder: Path) -> None:
    """Give an earlier model its name again after a run failed that was to replace it."""
    failed = failed_folder(folder)
    if failed is not None:
        restore_kept(folder, failed)
        log.warning("the earlier model is %s again; the failed run is %s", folder, failed)


def adopt(folder: Path) -> None:
    """Begin the log of a run that has none: one of an earlier release, or copied without it.

    Called after its checkpoint was found whole and to be of this run: what has the names that
    training writes is its own.
    """
    notes = WriteLog(folder)
    if notes.kind is not None:
        return
    notes.begin(RUN)
    lines: list[JsonDict] = []
    for pattern in WRITTEN:
        for path in sorted(folder.glob(pattern)):
            lines += _lines(folder, path)
    notes.add_many(lines)


def _lines(folder: Path, path: Path) -> Iterator[JsonDict]:
    """Return the lines of the log about a file, or a folder and everything in it."""
    for up in reversed(path.relative_to(folder).parents[:-1]):
        yield {"folder": up.as_posix()}
    for one in [path, *(path.rglob("*") if path.is_dir() else ())]:
        name = one.relative_to(folder).as_posix()
        if one.is_dir():
            yield {"folder": name}
        elif one.is_file() and not one.is_symlink():
            yield {"file": name, "size": one.stat().st_size}


def save_weights(
    folder: Path, weights: dict[str, Tensor], history: list[dict[str, float]], options: TrainOptions
) -> None:
    """Publish the weights of an epoch, and the history so far."""
    row = history[-1]
    weights_folder = (folder / model_dir.WEIGHTS_LAST).parent
    if options.save_weights == "all":
        path = weights_folder / f"weights_epoch{len(history) - 1}.pt"
        model_dir.save_weights(path, weights, root=folder, overwrite=True)
    if options.save_weights == "best":
        best = min(history, key=lambda row: (math.isnan(row["dev_loss"]), row["dev_loss"]))
        if row is best:
            path = weights_folder / "weights_best.pt"
            model_dir.save_weights(path, weights, root=folder, overwrite=True)
    model_dir.save_weights(folder / model_dir.WEIGHTS_LAST, weights, root=folder, overwrite=True)
    remove_kept(folder)
    if options.save_history:
        write_history(folder / HISTORY, history)
