"""Save the whole state of a run, published or not at all, and take it up again."""

import json
import logging
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch.distributed as dist
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list, gather_object
from pydantic import ConfigDict
from torch import Tensor

from lisbet.core.config import Config
from lisbet.core.errors import ModelError
from lisbet.core.storage.files import sync
from lisbet.core.storage.subfolders import (
    remove_folder,
    remove_temporary,
    replace_folder,
    temporary_folder,
)
from lisbet.core.storage.write_log import WriteLog
from lisbet.models.model_dir import save_tensors
from lisbet.training.checkpoint import restricted
from lisbet.training.checkpoint.manifest import (
    CHECKPOINTS,
    FORMAT,
    MANIFEST,
    SEAL,
    WHOLE,
    File,
    Manifest,
    describe,
    published_checkpoints,
)
from lisbet.training.strategies import strategy

log = logging.getLogger(__name__)

PROGRESS, METRICS = "progress.json", "metrics.pt"


class Progress(Config):
    """How far a run is, beside its weights.

    Attributes
    ----------
    step : int
        Optimiser steps done.
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
    """

    model_config = ConfigDict(ser_json_inf_nan="constants")

    step: int
    history: tuple[dict[str, int | float], ...]
    hashes: tuple[tuple[int, int, str], ...]
    skipped: int
    scaler: dict[str, Any]
    run: dict[str, Any]


class Checkpoints:
    """Writes the checkpoints of a run.

    The state is copied at the step boundary, and written by a thread while training goes on: one
    file by the first process, shards by all, whose threads agree on every stage over a process
    group of their own.

    Parameters
    ----------
    accelerator : Accelerator
        The processes.
    model, optimizer
        As `strategy.prepare` gave them.
    run : Path
        The model directory.
    keep : int
        How many checkpoints there may be.
    go_on : bool
        Whether training goes on when one cannot be written.
    """

    def __init__(
        self,
        accelerator: Accelerator,
        model: Any,
        optimizer: Any,
        run: Path,
        keep: int,
        *,
        go_on: bool,
    ) -> None:
        self.accelerator, self.model, self.optimizer = accelerator, model, optimizer
        self.run, self.keep, self.go_on = run, keep, go_on
        self.saved: tuple[int, int] | None = None
        """Step and epoch of the last good checkpoint, as far as this process knows."""
        self._tried: tuple[int, int] | None = None
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._writing: Future | None = None
        self._writes = strategy.state_form(accelerator) != WHOLE
        self._group = None
        if self._writes and accelerator.num_processes > 1:
            self._group = dist.new_group(backend="gloo")

    def save(self, progress: Progress, metrics: dict[str, Tensor]) -> None:
        """Save the state after a step. All processes must call it.

        Raises
        ------
        OSError
            If it cannot be written, unless training goes on. Earlier checkpoints stay.
        """
        started = time.perf_counter()
        self.wait()
        self._tried = progress.step, len(progress.history)
        counts = gather_object([metrics])
        target = self.run / CHECKPOINTS / f"step_{progress.step:08}"
        write = strategy.snapshot(self.accelerator, self.model, self.optimizer)
        if self._writes or self.accelerator.is_main_process:
            self._writing = self._writer.submit(self._write, target, write, progress, counts)
        held = time.perf_counter() - started
        log.info("checkpoint %s held training up for %.3f s", target.name, held)

    def holds(self, step: int, epoch: int) -> bool:
        """Whether this state is saved, or was tried to be."""
        return (step, epoch) in (self._tried, self.saved)

    def wait(self) -> None:
        """Wait until the last checkpoint is published; raise what kept it from being so."""
        if self._writing is not None:
            writing, self._writing = self._writing, None
            self._guard(writing.result)

    def last(self) -> tuple[int, int] | None:
        """Wait, and return step and epoch of the last good checkpoint. All must call it."""
        self.wait()
        (saved,) = broadcast_object_list([self.saved])  # nobody ends before the first one has saved
        return saved

    def poll(self) -> None:
        """Raise what kept the last checkpoint from being published, if it is known by now."""
        if self._writing is not None and self._writing.done():
            self.wait()

    def _guard(self, save: Callable[[], None]) -> None:
        try:
            save()
            self.saved = self._tried
        except OSError as error:
            if not self.go_on:
                raise
            if self.accelerator.is_main_process:
                log.warning("no checkpoint was written: %s; training goes on, earlier ones stay",
                            _reason(error))  # fmt: skip

    def _write(
        self,
        target: Path,
        write: Callable[[Path, Any], list[str]],
        progress: Progress,
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
            own.update((name, _synced(beside / name)) for name in sorted(names))

        made: list[Path] = []
        stage(lambda: made.append(temporary_folder(target, self.run)), by_first=True)
        beside: Path = next(filter(None, self._gathered(made[0] if made else None)))
        stage(lambda: names.extend(write(beside, self._group)))
        stage(lambda: names.extend(_write_progress(beside, progress, counts)), by_first=True)
        stage(hash_own)
        files = {name: file for part in self._gathered(own) for name, file in part.items()}
        stage(lambda: self._publish(beside, target, progress.step, files), by_first=True)
        log.info("checkpoint %s was written in %.3f s", target.name, time.perf_counter() - started)

    def _gathered(self, own: Any) -> list[Any]:
        """Return what every process that writes has at this stage."""
        if self._group is None:
            return [own]
        parts = [None] * self.accelerator.num_processes
        dist.all_gather_object(parts, own, group=self._group)
        return parts

    def _publish(self, beside: Path, target: Path, step: int, files: dict[str, File]) -> None:
        """Give the finished folder its name, and only then remove older ones."""
        manifest = Manifest(
            format=FORMAT,
            form=strategy.state_form(self.accelerator),
            strategy=strategy.name(self.accelerator),
            processes=self.accelerator.num_processes,
            step=step,
            files=files,
        )
        manifest.write(beside)
        for folder in {beside, *((beside / name).parent for name in files)}:
            sync(folder)
        self._note(target, files)
        # There is one of the same step after scoring that a stop had cut off.
        replace_folder(beside, target, self.run)
        WriteLog(self.run).add_published(target)
        sync(target.parent)
        sync(target.parent.parent)
        for old in published_checkpoints(self.run)[self.keep :]:
            try:
                if not remove_folder(old, self.run):
                    log.warning("%s stays: it holds files that betman did not write", old)
            except OSError as error:  # the new one is there all the same
                log.warning("an old checkpoint stays: %s", _reason(error))

    def _note(self, target: Path, files: dict[str, File]) -> None:
        """Note the files of a finished checkpoint under the name that it is about to get."""
        place = target.relative_to(self.run)
        folders = {place / up for name in files for up in Path(name).parents}
        lines: list[dict[str, Any]] = [{"folder": path.as_posix()} for path in sorted(folders)]
        lines += [
            {"file": (place / name).as_posix(), "size": file.size} for name, file in files.items()
        ]
        lines += [{"file": (place / name).as_posix()} for name in (MANIFEST, SEAL)]
        WriteLog(self.run).add_many(lines)


def read_progress(folder: Path) -> tuple[Progress, list[dict[str, Tensor]]]:
    """Read how far the run of a verified checkpoint was, and the counts of each process."""
    path = folder / PROGRESS
    try:
        progress = Progress(**json.loads(path.read_text("utf-8")))
    except (ValueError, TypeError, RecursionError) as error:  # also those of JSON and of pydantic
        raise ModelError(f"{path} does not say how far a run was: {error}") from error
    return progress, list(restricted.load_file(folder / METRICS))


def _write_progress(folder: Path, progress: Progress, counts: list) -> list[str]:
    (folder / PROGRESS).write_text(progress.model_dump_json(), "utf-8")
    save_tensors(counts, folder / METRICS)
    return [PROGRESS, METRICS]


def _reason(error: OSError) -> str:
    where = f"{error.filename}: " if error.filename else ""
    return where + (error.strerror or str(error))


def _synced(path: Path) -> File:
    sync(path)
    return describe(path)
