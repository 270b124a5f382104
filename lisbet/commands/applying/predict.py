"""Apply a model to recordings."""

import logging
import sys
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Self, TypeVar

import numpy as np
import pandas as pd
import torch
from accelerate import Accelerator, PartialState
from rich.console import Console
from rich.progress import track

from lisbet.commands.applying.result_tables import ANNOTATIONS, EMBEDDINGS
from lisbet.commands.applying.sidecar import SIDECAR, ResultModel, require_one_model
from lisbet.core.allocator import keep_freed_memory
from lisbet.core.config import Window
from lisbet.core.errors import DataError, ModelError, OutputError, counted
from lisbet.core.storage import write_log
from lisbet.core.storage.files import require_writable, write_file
from lisbet.core.storage.results import require_result_files
from lisbet.data.bank import WindowIndex, gather
from lisbet.data.files.sources import find_sources
from lisbet.data.files.versions import FileChoice
from lisbet.data.inference import Recordings, load_share
from lisbet.data.load import ordered, summary
from lisbet.data.preparation.compatibility import preparation_of, require_same_preparation
from lisbet.data.readers import dataset_reader
from lisbet.distributed.failure_watch import distributed_session
from lisbet.models import model_dir
from lisbet.models.multitask import ModelConfig, MultiTaskModel
from lisbet.options import AnnotateOptions, EmbeddingOptions, InferenceOptions
from lisbet.options._preparation import NAMES, described, plain, with_preparation
from lisbet.tasks import TASKS, SupervisedTask

log = logging.getLogger(__name__)

Given = TypeVar("Given", bound=InferenceOptions)

MOST_PENDING = 2
"""Tables that wait to be written while the next recording is computed."""


def compute_embeddings(options: EmbeddingOptions) -> None:
    """Write the embedding of every frame of every recording."""
    with ExitStack() as session:
        accelerator = session.enter_context(distributed_session(sharded=False))
        config = model_dir.read_config(options.model_path)
        if model_dir.EMBEDDING not in config.out_heads:
            raise ModelError(
                f"{options.model_path} has the heads {', '.join(config.out_heads)}, but no "
                "embedding; make an embedder of it with betman export_embedder"
            )
        options = prepared_as(options, config)
        folder = options.output_path / "embeddings"
        results = Results(folder, EMBEDDINGS, options.overwrite, accelerator)
        session.enter_context(results)
        results.require_before_reading(options, config)
        config, model = model_dir.load_model(options.model_path, options.weights_path)
        bank = load_bank(options, config)
        results.begin(bank, options)
        for record_id, values in outputs(
            model, model_dir.EMBEDDING, bank, config.window, options, accelerator
        ):
            results.write(record_id, pd.DataFrame(values))
        results.wait()
        accelerator.wait_for_everyone()
        results.finish()
        accelerator.print(f"embeddings of {counted(len(bank), 'recording')} written to {folder}")


def annotate_behavior(options: AnnotateOptions) -> None:
    """Write the behaviours of every frame of every recording."""
    with ExitStack() as session:
        accelerator = session.enter_context(distributed_session(sharded=False))
        config = model_dir.read_config(options.model_path)
        task = supervised_head(config, options.task)
        options = prepared_as(options, config)
        folder = options.output_path / "annotations"
        results = Results(folder, ANNOTATIONS, options.overwrite, accelerator)
        session.enter_context(results)
        results.require_before_reading(options, config)
        config, model = model_dir.load_model(options.model_path, options.weights_path)
        columns, decide = class_names(config, task), supervised_task(task).decide
        bank = load_bank(options, config)
        results.begin(bank, options)
        for record_id, logits in outputs(model, task, bank, config.window, options, accelerator):
            table = pd.DataFrame(decide(logits).astype(int), columns=columns)
            results.write(record_id, table)
        results.wait()
        accelerator.wait_for_everyone()
        results.finish()
        accelerator.print(f"annotations of {counted(len(bank), 'recording')} written to {folder}")


class Results:
    """The tables that a command writes, one for each recording.

    Parameters
    ----------
    folder : Path
        Holds a folder for each recording; its log notes the tables.
    name : str
        Name of the tables.
    overwrite : bool
        Whether tables that betman wrote before are replaced.
    accelerator : Accelerator
        Only the main process checks, and notes the model in `SIDECAR`; if it fails, all processes
        end.
    """

    def __init__(self, folder: Path, name: str, overwrite: bool, accelerator: Accelerator) -> None:
        self.model: ResultModel | None = None
        """What writes the tables, once it is known."""
        self.folder, self.name, self.overwrite = folder, name, overwrite
        self.is_main_process = accelerator.is_main_process
        self.notes = write_log.WriteLog(folder)
        self._writer = ThreadPoolExecutor(1, "write results")
        self._pending: deque[Future[None]] = deque()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._writer.shutdown(cancel_futures=True)

    def require_before_reading(self, options: InferenceOptions, config: ModelConfig) -> None:
        """Check what can be checked before weights and recordings are read.

        Raises
        ------
        OutputError
            If the folder cannot be written, or there are tables that must not be replaced, or of
            another model.
        """
        require_writable(self.folder)
        if self.is_main_process and options.weights_path.is_file():
            self.model = ResultModel.of(config.model_id, options.weights_path)
            if not options.override_preparation and config.preparation is not None:
                remembered = {"preparation": plain(config.preparation)}
                self.model = self.model.model_copy(update=remembered)
        # The ids of a Zarr store stand in the store; they are checked when it was opened.
        if self.is_main_process and dataset_reader(options.dataset) is None:
            sources = find_sources(options.dataset, options.filters, FileChoice.of(options))
            self.require_writable([source.id for source in sources])
        elif self.model is not None and not self.overwrite:
            require_one_model(self.folder, self.model, self.name, (), overwrite=False)

    def require_writable(self, record_ids: Sequence[str]) -> tuple[str, ...]:
        """Check the places of the tables of these recordings.

        Returns
        -------
        tuple of str
            Recordings whose tables are of another model, and are going to be replaced.

        Raises
        ------
        OutputError
            If there are tables that must not be replaced, or of another model.
        """
        if self.is_main_process:
            paths = [self.folder / record_id / self.name for record_id in record_ids]
            require_result_files(paths, root=self.folder, overwrite=self.overwrite)
            if self.model is not None:
                return require_one_model(
                    self.folder, self.model, self.name, record_ids, overwrite=self.overwrite
                )
        return ()

    def begin(self, bank: Recordings, options: InferenceOptions) -> None:
        """Check once more, now that the recordings are known, and note the model.

        Raises
        ------
        OutputError
            See `require_writable`.
        """
        if not self.is_main_process:
            return
        assert self.model is not None
        if self.model.preparation is None:
            applied = preparation_of(list(bank.records), options)
            applied.pop("fps", None)  # a fact about these recordings
            self.model = self.model.model_copy(update={"preparation": plain(applied)})
        replaced = self.require_writable(bank.ids)
        self.model = self.model.model_copy(update={"unfinished": replaced})
        self.model.write(self.folder)

    def finish(self) -> None:
        """Note that all tables are written, where those of another model were replaced."""
        if self.is_main_process and self.model is not None and self.model.unfinished:
            self.model = self.model.model_copy(update={"unfinished": ()})
            self.model.write(self.folder)

    def write(self, record_id: str, table: pd.DataFrame) -> None:
        """Write the table of a recording while this thread goes on; see `wait`.

        At most `MOST_PENDING` tables wait in memory.

        Raises
        ------
        LisbetError, OSError
            If an earlier table could not be written.
        """
        while len(self._pending) >= MOST_PENDING:
            self._pending.popleft().result()
        self._pending.append(self._writer.submit(self._write, record_id, table))

    def wait(self) -> None:
        """Wait until all tables are written.

        Raises
        ------
        LisbetError, OSError
            If one could not be written.
        """
        while self._pending:
            self._pending.popleft().result()

    def _write(self, record_id: str, table: pd.DataFrame) -> None:
        """Write a table.

        It replaces one of ours: nothing was there when `require_writable` checked, so that another
        process of this command wrote it meanwhile; or it was to be replaced.
        """
        found = None if self.model is None else ResultModel.read(self.folder / SIDECAR)
        if self.model is not None and found is not None and not found.is_same(self.model):
            raise OutputError(
                f"another command writes results into {self.folder} at the same time, "
                f"{self.model.difference(found)}; choose another --output_path for one of them"
            )
        path = self.folder / record_id / self.name
        with write_file(path, root=self.folder, overwrite=True, notes=self.notes) as temporary:
            table.to_csv(temporary)


def supervised_head(config: ModelConfig, wanted: str | None) -> str:
    """Return the supervised head to use.

    Raises
    ------
    ModelError
        If the model has none, not the wanted one, or several and none is wanted.
    """
    names = [name for name in config.out_heads if name in TASKS and TASKS[name].supervised]
    if wanted in names or (wanted is None and len(names) == 1):
        return wanted or names[0]
    have = f"its heads are {', '.join(config.out_heads)}"
    if not names:
        raise ModelError(
            f"model {config.model_id!r} was not trained to recognise behaviours: {have}. Train one "
            "with a supervised task, such as --task_ids=multiclass"
        )
    if wanted is not None:
        raise ModelError(f"model {config.model_id!r} has no head --task={wanted}; {have}")
    raise ModelError(
        f"model {config.model_id!r} has several supervised heads; choose one with --task: "
        f"{' or '.join(names)}"
    )


def supervised_task(name: str) -> type[SupervisedTask]:
    """Return the supervised task of a head."""
    task = TASKS[name]
    assert issubclass(task, SupervisedTask)
    return task


def class_names(config: ModelConfig, task: str) -> list[str]:
    """Name the classes of a head; those of models from elsewhere are numbered."""
    count = config.out_heads[task].num_classes  # type: ignore[union-attr]
    names = config.behaviors.get(task, ())
    return list(names) if len(names) == count else [str(number) for number in range(count)]


def prepared_as(options: Given, config: ModelConfig) -> Given:
    """Return options with which recordings are prepared as the model expects it.

    Raises
    ------
    ConfigError
        If an option contradicts it.
    """
    reader = dataset_reader(options.dataset)
    return with_preparation(
        options,
        config.preparation,
        model_id=config.model_id,
        override=options.override_preparation,
        converted=reader is not None and reader.prepared,
    )


def load_bank(options: InferenceOptions, config: ModelConfig) -> Recordings:
    """Check the recordings, which must have the features that the model knows, in any order.

    The tracks are read when a model is applied to them, see `outputs`. All processes must call it.

    Raises
    ------
    DataError
        If they cannot be read, differ from the model's features, or were prepared otherwise than
        those that it was trained on.
    """
    expected, window = config.input_features, config.window
    window.require_two_frames(options.fps_scaling)
    state = PartialState()
    try:
        records, own = load_share(
            options.dataset, options, state.process_index, state.num_processes
        )
    except DataError as error:
        raise DataError(f"{error}{_taken_names(config)}") from error
    if expected.same_names(records[0].features):
        records = [ordered(record, expected) for record in records]
    if differences := expected.differences(records[0].features):
        raise DataError(
            f"{options.data_path} does not fit {options.model_path}: "
            f"{'; '.join(differences)}; see --select_coords and --rename_coords"
        )
    if config.preparation is not None and not options.override_preparation:
        require_same_preparation(
            records, options, config.preparation, model_id=config.model_id, window=window
        )
    log.info("%s", summary(records))
    return Recordings.share(records, own)


def _taken_names(config: ModelConfig) -> str:
    """Say that recordings are selected and renamed as those of the model, where they are."""
    preparation = config.preparation or {}
    taken = {name: preparation[name] for name in NAMES if name in preparation}
    if not taken:
        return ""
    listed = " ".join(f"--{name}='{described(name, values)}'" for name, values in taken.items())
    return (
        f"\n{config.model_id} was trained with {listed}, which these recordings are prepared with, "
        "too, unless others are given with --override_preparation"
    )


@torch.inference_mode()
def outputs(
    model: MultiTaskModel,
    head: str,
    bank: Recordings,
    window: Window,
    options: InferenceOptions,
    accelerator: Accelerator,
) -> Iterator[tuple[str, np.ndarray]]:
    """Run a head over every frame of the recordings that are this process's share.

    Yields
    ------
    record_id : str
    values : ndarray
        (frames, classes or embedding), float32. Frame f is described by the window ending at f.
    """
    keep_freed_memory()
    accelerator.wait_for_everyone()  # nobody writes before all have checked their recordings
    model = model.to(accelerator.device).eval()
    console = Console(file=sys.stderr)
    recordings = track(
        bank.each(), "recordings", len(bank.own), console=console, transient=True,
        disable=not (console.is_terminal and accelerator.is_main_process),
    )  # fmt: skip
    for number, recording in recordings:
        parts = []
        length, size = recording.frames, options.batch_size
        for start in range(0, length, size):
            frame = np.arange(start, min(start + size, length))
            index = WindowIndex.plain(np.zeros_like(frame), frame)
            if options.fps_scaling != 1:
                index = replace(index, speed=np.full(len(frame), options.fps_scaling))
            windows = gather(recording, index, window).to(accelerator.device)
            parts.append(model({head: windows})[head].float().cpu())
        yield bank.ids[number], torch.cat(parts).numpy()
