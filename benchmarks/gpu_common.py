"""Sizes, recordings and trainers that the parts of the GPU benchmark share."""

import argparse
import dataclasses
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr

NETWORK = ["--emb_dim=64", "--num_layers=8", "--num_heads=8", "--hidden_dim=256"]
"""The network of the specification's example."""


AUGMENTATION = "all_perm_id:p=0.5,all_perm_ax:p=0.7,blk_perm_id:p=0.3:frac=0.2"


SPECIFIED_S = 720
"""Seconds for an epoch on an RTX A5500, as the specification says."""


EPOCH_WINDOWS = 1_200_000


@dataclass(frozen=True)
class Sizes:
    """How large everything is.

    Parameters
    ----------
    frames : int
        Frames of all recordings of the run that is timed as a whole; one window of each of four
        tasks for each of them.
    window : int
        Frames of a window.
    batches : tuple of int
        Windows of each task in a batch.
    network : list of str
        Options of the network.
    product : int
        Rows and columns of the matrices of the matrix product.
    seconds : float
        How long a cell of a table is timed, at least one step.
    """

    frames: int = EPOCH_WINDOWS // 4
    window: int = 200
    batches: tuple[int, ...] = (32, 128, 512, 2048, 8192)
    compiled: tuple[int, ...] = (32, 512)
    network: list[str] = field(default_factory=lambda: NETWORK)
    product: int = 8192
    seconds: float = 1.0
    recordings: int = 40


TINY = Sizes(
    frames=2000, window=12, batches=(4, 8), compiled=(8,), product=64, seconds=0.01, recordings=40,
    network=["--emb_dim=8", "--num_layers=1", "--num_heads=2", "--hidden_dim=16"],
)  # fmt: skip


def sizes_of(asked: argparse.Namespace) -> Sizes:
    """Return how large everything is, as the options say."""
    sizes = TINY if asked.tiny else Sizes()
    if asked.batches is None:
        return sizes
    return dataclasses.replace(sizes, batches=tuple(map(int, asked.batches.split(","))))


Keep = Callable[..., None]


def make_recordings(folder: Path, frames: int, count: int) -> None:
    """Write simulated recordings of two mice, with the keypoints of CalMS21."""
    from lisbet.data.hub._simulate import FPS, INDIVIDUALS, KEYPOINTS, simulate

    simulated = simulate([frames // count] * count, seed=1)
    for number, recording in enumerate(simulated):
        (folder / f"r{number:02}").mkdir(parents=True)
        xr.Dataset(
            {"position": (("time", "space", "keypoints", "individuals"), recording.position)},
            coords={
                "time": np.arange(len(recording.position)) / FPS,
                "space": ["x", "y"],
                "keypoints": list(KEYPOINTS),
                "individuals": list(INDIVIDUALS),
            },
            attrs={"fps": float(FPS)},
        ).to_netcdf(folder / f"r{number:02}" / "tracking.nc")


def options_of(sizes: Sizes, batch: int, *words: str, data: str = "few") -> Any:
    """Return the checked options of a training run."""
    from lisbet.cli import parse

    words = (*sizes.network, f"--window_size={sizes.window}", f"--batch_size={batch}", *words, data)
    return parse(["train_model", *words]).options  # type: ignore[union-attr]


def made_trainer(sizes: Sizes, accelerator: Any, batch: int, *words: str) -> Any:
    """Build a run as train_model does, short of its folder."""
    from lisbet.training.run_folder import with_run_id
    from lisbet.training.stopping import StopSignal
    from lisbet.training.train import make_trainer

    options = with_run_id(options_of(sizes, batch, f"--data_augmentation={AUGMENTATION}", *words))
    trainer, _, _ = make_trainer(accelerator, options, StopSignal())
    trainer.set_train_mode()
    return trainer


def device() -> torch.device:
    """Return the device that is measured."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def wait() -> None:
    """Wait for the device."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def seconds_of(call: Callable[[], Any], least: float) -> float:
    """Return the seconds of a call: the median of batches of calls, after a warm-up."""
    for _ in range(3):
        call()
    wait()
    began = time.perf_counter()
    call()
    wait()
    once = max(time.perf_counter() - began, 1e-6)
    count = max(1, round(least / once / 5))
    times = []
    for _ in range(5):
        began = time.perf_counter()
        for _ in range(count):
            call()
        wait()
        times.append((time.perf_counter() - began) / count)
    return statistics.median(times)
