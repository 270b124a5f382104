"""Apply a model to recordings."""

import logging
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from accelerate import Accelerator, PartialState
from rich.console import Console
from rich.progress import track

from lisbet import model_dir
from lisbet.allocator import keep_freed_memory
from lisbet.config import Features, Window
from lisbet.core.files import require_writable, write_file
from lisbet.core.results import require_result_files
from lisbet.data.bank import Plan, gather
from lisbet.data.load import find_sources, ordered, summary
from lisbet.data.readers import READERS
from lisbet.data.recordings import Recordings, load_share
from lisbet.errors import ConfigError, DataError, ModelError
from lisbet.models.multitask import ModelConfig, MultiTaskModel
from lisbet.options import AnnotateOptions, EmbeddingOptions, InferenceOptions
from lisbet.processes.together import together

log = logging.getLogger(__name__)

EMBEDDINGS = "features_lisbet_embedding.csv"
ANNOTATIONS = "machineAnnotation_lisbet.csv"
SUPERVISED = ("multiclass", "multilabel")


def compute_embeddings(options: EmbeddingOptions) -> None:
    """Write the embedding of every frame of every recording."""
    with together(sharded=False) as accelerator:
        config = model_dir.read_config(options.model_path)
        if model_dir.EMBEDDING not in config.out_heads:
            raise ModelError(
                f"{options.model_path} has the heads {', '.join(config.out_heads)}, but no "
                "embedding; make an embedder of it with betman export_embedder"
            )
        folder = options.output_path / "embeddings"
        results = Results(folder, EMBEDDINGS, options.overwrite, accelerator)
        results.require_before_reading(options)
        config, model = model_dir.load_model(options.model_path, options.weights_path)
        bank = load_bank(options, config.input_features, config.window)
        results.require_writable(bank.ids)
        for record_id, values in outputs(
            model, model_dir.EMBEDDING, bank, config.window, options, accelerator
        ):
            results.write(record_id, pd.DataFrame(values))
        accelerator.wait_for_everyone()
        accelerator.print(f"embeddings of {len(bank)} recordings written to {folder}")


def annotate_behavior(options: AnnotateOptions) -> None:
    """Write the behaviours of every frame of every recording."""
    with together(sharded=False) as accelerator:
        config = model_dir.read_config(options.model_path)
        task = supervised_head(config, options.task)
        folder = options.output_path / "annotations"
        results = Results(folder, ANNOTATIONS, options.overwrite, accelerator)
        results.require_before_reading(options)
        config, model = model_dir.load_model(options.model_path, options.weights_path)
        columns = class_names(config, task)
        bank = load_bank(options, config.input_features, config.window)
        results.require_writable(bank.ids)
        for record_id, logits in outputs(model, task, bank, config.window, options, accelerator):
            table = pd.DataFrame(decide(logits, task).astype(int), columns=columns)
            results.write(record_id, table)
        accelerator.wait_for_everyone()
        accelerator.print(f"annotations of {len(bank)} recordings written to {folder}")


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
        Only the main process checks; if it fails, all processes end.
    """

    def __init__(self, folder: Path, name: str, overwrite: bool, accelerator: Accelerator) -> None:
        self.folder, self.name, self.overwrite = folder, name, overwrite
        self.is_main_process = accelerator.is_main_process

    def require_before_reading(self, options: InferenceOptions) -> None:
        """Check what can be checked before weights and recordings are read.

        Raises
        ------
        OutputError
            If the folder cannot be written, or there are tables that must not be replaced.
        """
        require_writable(self.folder)
        # The ids of a Zarr store stand in the store; they are checked when it was opened.
        if self.is_main_process and READERS[options.data_format].whole is None:
            sources = find_sources(options.dataset, options.filters)
            self.require_writable([source.id for source in sources])

    def require_writable(self, record_ids: Sequence[str]) -> None:
        """Check the places of the tables of these recordings.

        Raises
        ------
        OutputError
            If there are tables that must not be replaced.
        """
        if self.is_main_process:
            paths = [self.folder / record_id / self.name for record_id in record_ids]
            require_result_files(paths, root=self.folder, overwrite=self.overwrite)

    def write(self, record_id: str, table: pd.DataFrame) -> None:
        """Write the table of a recording.

        It replaces one of ours: nothing was there when `require_writable` checked, so that another
        process of this command wrote it meanwhile; or it was to be replaced.
        """
        path = self.folder / record_id / self.name
        with write_file(path, root=self.folder, overwrite=True) as temporary:
            table.to_csv(temporary)


def supervised_head(config: ModelConfig, wanted: str | None) -> str:
    """Return the supervised head to use.

    Raises
    ------
    ModelError
        If the model has none, not the wanted one, or both and none is wanted.
    """
    there = [name for name in config.out_heads if name in SUPERVISED]
    if wanted is None and len(there) == 1:
        return there[0]
    if wanted in there:
        return str(wanted)
    have = ", ".join(config.out_heads)
    asked = f"no {wanted} head" if wanted else "no single supervised head, see --task"
    raise ModelError(f"{config.model_id} has {asked}; its heads are {have}")


def class_names(config: ModelConfig, task: str) -> list[str]:
    """Name the classes of a head; those of models from elsewhere are numbered."""
    count = config.out_heads[task].num_classes  # type: ignore[union-attr]
    names = config.behaviors.get(task, ())
    return list(names) if len(names) == count else [str(number) for number in range(count)]


def decide(logits: np.ndarray, task: str) -> np.ndarray:
    """Turn logits (frames, classes) into yes or no: one class of each frame, or any number."""
    if task == "multiclass":
        return np.eye(logits.shape[1], dtype=bool)[logits.argmax(axis=1)]
    return logits > 0


def load_bank(options: InferenceOptions, expected: Features, window: Window) -> Recordings:
    """Check the recordings, which must have the features that the model knows, in any order.

    The tracks are read when a model is applied to them, see `outputs`. All processes must call it.

    Raises
    ------
    DataError
        If they cannot be read or differ from the model's features.
    """
    if round(options.fps_scaling * window.size) < 2:
        raise ConfigError(
            f"--fps_scaling={options.fps_scaling:g} leaves less than two frames of a recording for "
            f"a window of {window.size}"
        )
    state = PartialState()
    records, own = load_share(options.dataset, options, state.process_index, state.num_processes)
    if expected.same_names(records[0].features):
        records = [ordered(record, expected) for record in records]
    if differences := expected.differences(records[0].features):
        raise DataError(
            f"{options.data_path} does not fit {options.model_path}: "
            f"{'; '.join(differences)}; see --select_coords and --rename_coords"
        )
    log.info("%s", summary(records))
    return Recordings.share(records, own)


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
            plan = Plan.plain(np.zeros_like(frame), frame)
            if options.fps_scaling != 1:
                plan = replace(plan, speed=np.full(len(frame), options.fps_scaling))
            windows = gather(recording, plan, window).to(accelerator.device)
            parts.append(model({head: windows})[head].float().cpu())
        yield bank.ids[number], torch.cat(parts).numpy()


def read_embeddings(folder: Path) -> dict[str, np.ndarray]:
    """Read what compute_embeddings wrote.

    Returns
    -------
    dict of ndarray
        By record id: (frames, embedding).

    Raises
    ------
    DataError
        If there is none.
    """
    files = sorted(folder.rglob(EMBEDDINGS)) if folder.is_dir() else []
    if not files:
        raise DataError(f"{folder} holds no {EMBEDDINGS}; see betman compute_embeddings")
    read = {}
    for file in files:
        try:
            values = pd.read_csv(file, index_col=0).to_numpy(dtype=float)
        except (ValueError, pd.errors.ParserError) as error:
            raise DataError(f"{file} is no table of numbers: {error}") from error
        read[file.parent.relative_to(folder).as_posix()] = values
        if values.shape[1] != (width := next(iter(read.values())).shape[1]):
            raise DataError(
                f"{file} has {values.shape[1]} columns, {files[0]} has {width}: they are of "
                "different models"
            )
    return read
