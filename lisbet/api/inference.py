"""Apply the heads of a model to recordings."""

import logging
import math
from collections.abc import Iterator
from dataclasses import replace
from typing import TypeVar

import numpy as np
import torch
from accelerate import PartialState

from lisbet.core.allocator import keep_freed_memory
from lisbet.core.config import Window
from lisbet.core.console import track
from lisbet.core.errors import ConfigError, DataError, ModelError
from lisbet.data.bank import WindowIndex, gather
from lisbet.data.inference import Recordings, load_share
from lisbet.data.load import ordered, summary
from lisbet.data.preparation.compatibility import require_same_preparation
from lisbet.data.readers import dataset_reader
from lisbet.data.record import Record
from lisbet.models.multitask import ModelConfig, MultiTaskModel
from lisbet.options import InferenceOptions
from lisbet.options._preparation import NAMES, described, with_preparation
from lisbet.tasks import TASKS, SupervisedTask

log = logging.getLogger(__name__)

Given = TypeVar("Given", bound=InferenceOptions)


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


def require_threshold(task: str, threshold: float | None) -> None:
    """Refuse a threshold for a head whose classes exclude each other.

    Raises
    ------
    ConfigError
        Saying why.
    """
    if threshold is not None and not supervised_task(task).takes_threshold:
        raise ConfigError(
            f"--threshold={threshold:g}: {task} gives each frame its most likely class, so no "
            "threshold applies; leave it out, or use --probabilities of annotate_behavior"
        )


def thresholded(logits: np.ndarray, threshold: float | None) -> np.ndarray:
    """Return logits (frames, classes) that are positive where a probability is above a threshold.

    The probability is the logistic function of a logit; the threshold's logit is subtracted.
    """
    if threshold is None:
        return logits
    return logits - np.float32(math.log(threshold / (1 - threshold)))


def class_names(config: ModelConfig, task: str) -> list[str]:
    """Name the classes of a head; those of models from elsewhere are numbered."""
    count = config.out_heads[task].num_classes  # type: ignore[union-attr]
    names = config.behaviors.get(task, ())
    return list(names) if len(names) == count else [str(number) for number in range(count)]


def prepared_as(options: Given, config: ModelConfig, *, converted: bool | None = None) -> Given:
    """Return options with which recordings are prepared as the model expects it.

    Parameters
    ----------
    options : InferenceOptions
        As they were given.
    config : ModelConfig
        Of the model.
    converted : bool, optional
        Whether the recordings are prepared already; default: whether the data path is a converted
        dataset.

    Raises
    ------
    ConfigError
        If an option contradicts it.
    """
    return with_preparation(
        options,
        config.preparation,
        model_id=config.model_id,
        override=options.override_preparation,
        converted=is_converted(options) if converted is None else converted,
    )


def is_converted(options: InferenceOptions) -> bool:
    """Whether the data path is a dataset whose recordings are prepared already."""
    reader = dataset_reader(options.dataset)
    return reader is not None and reader.prepared


def load_bank(options: InferenceOptions, config: ModelConfig) -> Recordings:
    """Check the recordings, which must have the features that the model knows, in any order.

    The tracks are read when a model is applied to them, see `outputs`. All processes must call it.

    Raises
    ------
    DataError
        If they cannot be read, differ from the model's features, or were prepared otherwise than
        those that it was trained on.
    """
    config.window.require_two_frames(options.fps_scaling)
    state = PartialState()
    try:
        records, own = load_share(
            options.dataset, options, state.process_index, state.num_processes
        )
    except DataError as error:
        raise DataError(f"{error}{_taken_names(config)}") from error
    records = fitting(records, options, config)
    log.info("%s", summary(records))
    return Recordings.share(records, own)


def fitting(records: list[Record], options: InferenceOptions, config: ModelConfig) -> list[Record]:
    """Return recordings with their features in the order that the model knows.

    Raises
    ------
    DataError
        If they differ from the model's features, or were prepared otherwise than those that it was
        trained on.
    """
    expected = config.input_features
    if expected.same_names(records[0].features):
        records = [ordered(record, expected) for record in records]
    if differences := expected.differences(records[0].features):
        raise DataError(
            f"{options.data_path} does not fit {options.model_path}: "
            f"{'; '.join(differences)}; see --select_coords and --rename_coords"
        )
    if config.preparation is not None and not options.override_preparation:
        require_same_preparation(
            records, options, config.preparation, model_id=config.model_id, window=config.window
        )
    return records


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
    *,
    device: torch.device,
    batch_size: int = 128,
    fps_scaling: float = 1.0,
    bf16: bool = False,
    progress: bool = False,
) -> Iterator[tuple[int, np.ndarray]]:
    """Run a head over every frame of the recordings that are this process's share.

    Batches do not reach across recordings, so that what a recording gives does not depend on the
    others, nor on the number of processes.

    Parameters
    ----------
    model : MultiTaskModel
        The network, which is moved to `device`.
    head : str
        One of its heads.
    bank : Recordings
        See `load_bank`.
    window : Window
        Of the model.
    device : torch.device
        Where the network computes.
    batch_size : int
        Windows in one forward pass.
    fps_scaling : float
        Frames of the recordings for each frame of the window.
    bf16 : bool
        Whether matrix products and attention are computed in bfloat16.
    progress : bool
        Whether progress is shown on a terminal.

    Yields
    ------
    number : int
        Of the recording in the bank.
    values : ndarray
        (frames, classes or embedding), float32. Frame f is described by its window, see `Window`.
    """
    keep_freed_memory()
    model = model.to(device).eval()
    recordings = track(bank.each(), "recordings", len(bank.own), shown=progress)
    for number, recording in recordings:
        parts = []
        for start in range(0, recording.frames, batch_size):
            frame = np.arange(start, min(start + batch_size, recording.frames))
            index = WindowIndex.plain(np.zeros_like(frame), frame)
            if fps_scaling != 1:
                index = replace(index, speed=np.full(len(frame), fps_scaling))
            windows = gather(recording, index, window).to(device)
            with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
                parts.append(model({head: windows})[head].float().cpu())
        yield number, torch.cat(parts).numpy()
