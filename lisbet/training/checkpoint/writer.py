"""Write checkpoints: the whole state of a run, published complete or not at all; read it back."""

import json
import logging
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch.distributed as dist
from accelerate.utils import broadcast_object_list, gather_object
from pydantic import ConfigDict
from torch import Tensor

from lisbet.core.config import Config
from lisbet.core.errors import ModelError
from lisbet.core.json_types import JsonDict
from lisbet.core.storage.files import sync
from lisbet.core.storage.subfolders import remove_temporary, replace_folder, temporary_folder
from lisbet.core.storage.write_log import WriteLog
from lisbet.models.model_dir import save_tensors
from lisbet.options import CheckpointOptions
from lisbet.training.checkpoint import restricted
from lisbet.training.checkpoint.directory import CheckpointDirectory, reason_of
from lisbet.training.checkpoint.manifest import (
    FORMAT,
    MANIFEST,
    SEAL,
    File,
    Manifest,
    describe,
)
from lisbet.training.strategies import Strategy
from lisbet.training.strategies.base import WriteState

log = logging.getLogger(__name__)

PROGRESS, METRICS = "progress.json", "metrics.pt"


class TrainingState(Config):
    """State of a run besides model and optimizer.

    Attributes
    ----------
    step : int
        Optimizer steps done.
    history : tuple of dict
        A row for each finished epoch.
    hashes : tuple
        Rows of sample_hashes.csv.
    skipped : int
        Steps that were skipped because they were not finite.
    scaler : dict
        State of the fp16 gradient scaler.
    run : dict
        What run_config.yml holds: options, versions, data.
    conditioning : dict or None
        Of the input, see `lisbet.training.conditioning`.
    """

    model_config = ConfigDict(ser_json_inf_nan="constants")

    step: int
    history: tuple[dict[str, int | float], ...]
    hashes: tuple[tuple[int, int, str], ...]
    skipped: int
    scaler: JsonDict
    run: JsonDict
    conditioning: JsonDict | None = None


class Checkpoints:
    """Writes the checkpoints of a run.

    The state is copied at the step boundary, and written by a thread while training continues: one
    file by the main process, shards by all processes, whose threads agree on every stage over a
    process group of their own.

    Parameters
    ----------
    strategy : Strategy
        Holds model and optimizer.
    directory : CheckpointDirectory
        Where to write.
    settings : CheckpointOptions
        How often to save, how many to keep, and what to do when one cannot be written.
    """

    def __init__(
        self, strategy: Strategy, directory: CheckpointDirectory, settings: CheckpointOptions
    ) -> None:
        self.strategy, self.directory, self.settings = strategy, directory, settings
        self.accelerator = strategy.accelerator
        self.run = directory.run
        self.saved: tuple[int, int] | None = None
        """Step and epoch of the last good checkpoint, as far as this process knows."""
        self._tried: tuple[int, int] | None = None
        self._interval_started = time.monotonic()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._writing: Future | None = None
        self._group = None
        if strategy.writes_on_all and self.accelerator.num_processes > 1:
            self._group = dist.new_group(backend="gloo")

    def is_due(self, step: int, steps_per_epoch: int) -> bool:
        """Whether a checkpoint is due after a step, by ``--checkpoint_every``.

        With an interval in minutes, the clock of the main process decides.
        """
        every = self.settings.checkpoint_every
        if every.unit == "min":
            spent = time.monotonic() - self._interval_started
            return bool(self.accelerator.is_main_process) and spent > 60 * every.count
        return step % (every.count * (steps_per_epoch if every.unit == "ep" else 1)) == 0

    def restart_interval(self) -> None:
        """Count the minutes to the next checkpoint from now."""
        self._interval_started = time.monotonic()

    def save(self, state: TrainingState, scores: dict[str, Tensor]) -> None:
        """Save the state after a step. All processes must call it.

        Raises
        ------
        OSError
            If it cannot be written, unless training is to continue. Earlier checkpoints are kept.
        """
        started = time.perf_counter()
        self.wait()
        self._tried = state.step, len(state.history)
        counts = gather_object([scores])
        target = self.directory.path_of(state.step)
        write = self.strategy.copy_state()
        if self.strategy.writes_on_all or self.accelerator.is_main_process:
            self._writing = self._thread.submit(self._write, target, write, state, counts)
        blocked = time.perf_counter() - started
        log.info("checkpoint %s blocked training for %.3f s", target.name, blocked)

    def contains(self, step: int, epoch: int) -> bool:
        """Whether this state is saved, or saving it was tried."""
        return (step, epoch) in (self._tried, self.saved)

    def wait(self) -> None:
        """Wait until the last checkpoint is published; raise the error if that failed."""
        if self._writing is not None:
            writing, self._writing = self._writing, None
            self._guard(writing.result)

    def last(self) -> tuple[int, int] | None:
        """Wait, and return step and epoch of the last good checkpoint. All must call it."""
        self.wait()
        (saved,) = broadcast_object_list([self.saved])  # nobody ends before the first one has saved
        return saved

    def poll(self) -> None:
        """Raise the error of the last checkpoint, if writing it has failed by now."""
        if self._writing is not None and self._writing.done():
            self.wait()

    def _guard(self, save: Callable[[], None]) -> None:
        try:
            save()
            self.saved = self._tried
        except OSError as error:
            if self.settings.on_save_error == "stop":
                raise
            if self.accelerator.is_main_process:
                log.warning(
                    "no checkpoint was written: %s; training continues, earlier checkpoints are "
                    "kept",
                    reason_of(error),
                )

    def _write(
        self,
        target: Path,
        write: WriteState,
        state: TrainingState,
        counts: list,
    ) -> None:
        """Write the parts of all processes, in stages that end on all if they fail on one.

        Each process hashes the files that it wrote itself. Nobody lists the folder: a network file
        system may show an older listing.
        """
        started = time.perf_counter()
        accelerator = self.accelerator
        own: dict[str, File] = {}
        names: list[str] = []

        def stage(work: Callable[[], Any], *, by_first: bool = False) -> None:
            failure = None
            try:
                if accelerator.is_main_process or not by_first:
                    work()
            except OSError as error:
                reason = error.strerror or str(error)
                failure = error.errno or 0, reason, str(error.filename or target)
            if failed := [said for said in self._gathered(failure) if said]:
                if accelerator.is_main_process and made:
                    remove_temporary(made[0], self.run)
                raise OSError(*failed[0])

        def hash_own() -> None:
            own.update((name, _synced(folder / name)) for name in sorted(names))

        made: list[Path] = []
        stage(lambda: made.append(temporary_folder(target, self.run)), by_first=True)
        folder: Path = next(filter(None, self._gathered(made[0] if made else None)))
        stage(lambda: names.extend(write(folder, self._group)))
        stage(lambda: names.extend(_write_state(folder, state, counts)), by_first=True)
        stage(hash_own)
        files = {name: file for part in self._gathered(own) for name, file in part.items()}
        stage(lambda: self._publish(folder, target, state.step, files), by_first=True)
        log.info("checkpoint %s was written in %.3f s", target.name, time.perf_counter() - started)

    def _gathered(self, own: Any) -> list[Any]:
        """Return what every process that writes has at this stage."""
        if self._group is None:
            return [own]
        parts = [None] * self.accelerator.num_processes
        dist.all_gather_object(parts, own, group=self._group)
        return parts

    def _publish(self, folder: Path, target: Path, step: int, files: dict[str, File]) -> None:
        """Give the complete temporary folder its name, and only then remove older ones."""
        manifest = Manifest(
            format=FORMAT,
            form=self.strategy.form,
            strategy=self.strategy.name,
            processes=self.accelerator.num_processes,
            step=step,
            files=files,
        )
        manifest.write(folder)
        for path in {folder, *((folder / name).parent for name in files)}:
            sync(path)
        self._note(target, files)
        # The same step is saved again if its evaluation had been interrupted.
        replace_folder(folder, target, self.run)
        WriteLog(self.run).add_published(target)
        sync(target.parent)
        sync(target.parent.parent)
        self.directory.remove_old(self.settings.keep_checkpoints)

    def _note(self, target: Path, files: dict[str, File]) -> None:
        """Note the files of a finished checkpoint under the name that it is about to get."""
        place = target.relative_to(self.run)
        folders = {place / up for name in files for up in Path(name).parents}
        lines: list[JsonDict] = [{"folder": path.as_posix()} for path in sorted(folders)]
        lines += [
            {"file": (place / name).as_posix(), "size": file.size} for name, file in files.items()
        ]
        lines += [{"file": (place / name).as_posix()} for name in (MANIFEST, SEAL)]
        WriteLog(self.run).add_many(lines)


def read_state(folder: Path) -> tuple[TrainingState, list[dict[str, Tensor]]]:
    """Read how far the run of a verified checkpoint was, and the counts of each process."""
    path = folder / PROGRESS
    try:
        state = TrainingState(**json.loads(path.read_text("utf-8")))
    except (ValueError, TypeError, RecursionError) as error:  # also those of JSON and of pydantic
        raise ModelError(f"{path} does not contain the state of a run: {error}") from error
    return state, list(restricted.load_file(folder / METRICS))


def _write_state(folder: Path, state: TrainingState, counts: list) -> list[str]:
    (folder / PROGRESS).write_text(state.model_dump_json(), "utf-8")
    save_tensors(counts, folder / METRICS)
    return [PROGRESS, METRICS]


def _synced(path: Path) -> File:
    sync(path)
    return describe(path)
