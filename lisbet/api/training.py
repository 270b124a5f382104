"""Train a model from Python."""

import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from accelerate.state import AcceleratorState, GradientState

from lisbet.api.model import Model, load_model
from lisbet.api.settings import checked
from lisbet.core.errors import ConfigError
from lisbet.distributed import environment
from lisbet.options import LAUNCH_OPTIONS, TrainOptions
from lisbet.training import run_folder
from lisbet.training.train import train_model


def train(data_path: str | Path | Sequence[str | Path], **settings: Any) -> Model:
    """Train a model in this process, as ``betman train_model`` does.

    The model directory is written to models/<run_id> below ``output_path``. Nothing is printed
    unless ``quiet=False`` is given. An interrupt saves a checkpoint, and ``resume=True`` resumes
    from it. For several devices use the command.

    Parameters
    ----------
    data_path : str, Path, or a sequence of them
        Folders of recordings.
    **settings
        The options of ``betman train_model``, as text or as values: ``preset="social"``,
        ``epochs=20``.

    Returns
    -------
    Model
        With the weights of the last epoch.

    Raises
    ------
    LisbetError
        If something cannot be used; nothing was written then. Also if training diverges.
    StoppedError
        If a signal or ``max_time`` stopped the run, after it was saved.

    Examples
    --------
    >>> model = lisbet.train("datasets/mice", preset="social", run_id="mice")  # doctest: +SKIP
    """
    if given := [name for name in LAUNCH_OPTIONS if name in settings]:
        raise ConfigError(
            f"{given[0]}: lisbet.train trains in this process; start several with betman "
            "train_model --launch"
        )
    paths = [data_path] if isinstance(data_path, str | Path) else list(data_path)
    options = checked(
        TrainOptions, data_path=tuple(map(Path, paths)), **({"quiet": True} | settings)
    )
    if options.dry_run or options.debug_step is not None:
        raise ConfigError("dry_run and debug_step print what they find; use betman train_model")
    if threading.current_thread() is not threading.main_thread():
        raise ConfigError(
            "lisbet.train must be called in the main thread, where signals arrive that stop and "
            "save a run"
        )
    options = run_folder.with_run_id(options)
    assert options.run_id is not None
    with _as_before():
        train_model(options)
    return load_model(options.output_path / "models" / options.run_id)


@contextmanager
def _as_before() -> Iterator[None]:
    """Undo what training sets for its process: environment, threads, random state, Accelerate."""
    variables, threads = dict(os.environ), torch.get_num_threads()
    tf32 = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    alone = environment.count() == 1
    if alone:
        _forget_accelerator()
    try:
        with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
            yield
    finally:
        os.environ.clear()
        os.environ.update(variables)
        torch.set_num_threads(threads)
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = tf32
        if alone:
            _forget_accelerator()


def _forget_accelerator() -> None:
    """Let the next Accelerator of this process choose device and precision anew."""
    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()
