"""What training costs as the work grows: batch, window, animals, keypoints, recordings, network.

    python benchmarks/growth.py [--out growth.png] [--seconds 1] [--axes batch,window,…] [--tiny]

One number at a time is changed; the others stay as in the first row. A point is a training step on
random tracks in memory: windows of four tasks are drawn, forward, backward, optimizer. Prints the
windows per second, the time of a step and the one that its floating-point operations would take
at the rate of the axis' first row, and the share of drawing windows; and draws them. With --tiny
everything is small, and the numbers say nothing.
"""

import argparse
import os
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter
from torch.utils.flop_counter import FlopCounterMode

from lisbet.core import drawing
from lisbet.core.allocator import keep_freed_memory
from lisbet.core.config import Features, Window
from lisbet.data.bank import Bank
from lisbet.data.record import Record
from lisbet.data.tracks import InMemory
from lisbet.models.backbones.transformer import TransformerConfig
from lisbet.models.multitask import ModelConfig, MultiTaskModel
from lisbet.tasks import TASKS
from lisbet.training.datasets.sampler import Sampler
from lisbet.training.evaluate import forward
from lisbet.training.measure import seconds_of, unfused
from lisbet.training.optim import make_optimizer

NAMES = ("cons", "order", "shift", "warp")
MOST_ROWS = 256
"""Windows of each task in one forward pass; larger batches are accumulated."""
FRAMES = 300_000
"""Frames of all recordings; each has at least SHORTEST."""
SHORTEST = 20


@dataclass(frozen=True)
class Work:
    """How much work a training step is."""

    batch: int = 32
    window: int = 60
    individuals: int = 2
    keypoints: int = 7
    recordings: int = 10
    network: tuple[int, int] = (16, 2)
    """Embedding and layers."""


AXES: dict[str, tuple[tuple[object, ...], Work]] = {
    "batch": ((8, 32, 128, 512, 2048, 4096), Work()),
    "window": ((50, 100, 200, 400, 800), Work(batch=8)),
    "individuals": ((2, 4, 8), Work()),
    "keypoints": ((7, 14, 28, 40), Work()),
    "recordings": ((10, 100, 1000, 10_000, 100_000), Work()),
    "network": (((16, 2), (32, 4), (64, 8), (256, 8), (512, 16), (1024, 8)), Work(batch=4)),
}


@dataclass(frozen=True)
class Point:
    """A step of a training: seconds, those of drawing its windows, operations, weights."""

    value: object
    step_s: float
    sampling_s: float
    flop: float
    windows: int
    parameters: int


def main() -> None:
    """Measure all axes; print the table and draw it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("growth.png"))
    parser.add_argument("--seconds", type=float, default=1.0, help="for each point")
    parser.add_argument("--axes", default=",".join(AXES))
    parser.add_argument("--tiny", action="store_true")
    asked = parser.parse_args()
    keep_freed_memory()
    print(f"{len(os.sched_getaffinity(0))} cores, torch {torch.__version__}\n")
    print("| what grows | value | weights | windows/s | step, ms | by its operations, ms | ratio | "
          "GFLOP/s | drawing windows |\n" + "|---" * 9 + "|")  # fmt: skip
    found = {}
    for axis in asked.axes.split(","):
        values, work = AXES[axis]
        if asked.tiny:
            values, work = values[:2], replace(work, batch=2, window=8)
        points: list[Point] = []
        for value in values:
            points.append(measure(value, replace(work, **{axis: value}), asked.seconds))
            print(line(axis, points), flush=True)
        found[axis] = points
    drawing.save(figure(found), asked.out, overwrite=True)


def measure(value: object, work: Work, seconds: float) -> Point:
    """Measure a training step."""
    torch.manual_seed(0)
    sampler = sampler_of(work)
    width, layers = work.network
    network = MultiTaskModel(config_of(sampler, width, layers))
    optimizer = make_optimizer(network, 1e-4, 0.01)
    parts = [slice(a, min(a + MOST_ROWS, work.batch)) for a in range(0, work.batch, MOST_ROWS)]

    def draw() -> None:
        for rows in parts:
            sampler.batch(0, 0, rows)

    def compute(rows: slice) -> None:
        batch = sampler.batch(0, 0, rows)
        logits = forward(network, batch)
        losses = [task.loss(logits[name], batch[name][1]) for name, task in sampler.tasks.items()]
        torch.stack(losses).sum().backward()

    def step() -> None:
        for rows in parts:
            compute(rows)
        optimizer.step()
        optimizer.zero_grad()

    counter = FlopCounterMode(display=False)
    with unfused(), counter:
        compute(slice(0, 1))
    optimizer.zero_grad()
    drawn, spent = seconds_of((draw, step), seconds, torch.device("cpu"))
    weights = sum(weight.numel() for weight in network.parameters())
    flop = float(counter.get_total_flops() * work.batch)
    return Point(value, spent, drawn, flop, len(NAMES) * work.batch, weights)


def sampler_of(work: Work) -> Sampler:
    """Make recordings of random tracks, and what draws from them."""
    rng = np.random.default_rng(0)
    features = Features(
        individuals=tuple(f"i{n}" for n in range(work.individuals)),
        keypoints=tuple(f"k{n}" for n in range(work.keypoints)),
        space=("x", "y"),
    )
    frames = max(SHORTEST, FRAMES // work.recordings)
    shape = (frames, *features.shape)
    tracks = rng.random(shape, dtype=np.float32)  # of all recordings: their values do not matter
    records = [Record(f"r{n}", InMemory(tracks), features, fps=30) for n in range(work.recordings)]
    bank = Bank.from_records(records)
    tasks = {name: TASKS[name]() for name in NAMES}
    return Sampler(
        "train", tasks, dict.fromkeys(NAMES, bank), Window(size=work.window), 1, work.batch, 1.0,
        1.0, (), torch.device("cpu"),
    )  # fmt: skip


def config_of(sampler: Sampler, width: int, layers: int) -> ModelConfig:
    """Return the configuration of a network for these windows."""
    features = next(iter(sampler.banks.values())).features
    sizes = TransformerConfig(
        feature_dim=features.size, embedding_dim=width, hidden_dim=4 * width,
        num_heads=max(2, width // 16), num_layers=layers, max_length=sampler.window.size,
    )  # fmt: skip
    return ModelConfig(
        model_id="growth",
        backbone={"type": "transformer", **sizes.model_dump()},
        input_features=features,
        out_heads={
            name: task.head(width, 4 * width, sampler.window)
            for name, task in sampler.tasks.items()
        },
        window_size=sampler.window.size,
        window_offset=0,
    )


def by_operations(points: list[Point]) -> list[float]:
    """Return the seconds of each step at the operations per second of the first."""
    return [points[0].step_s * point.flop / points[0].flop for point in points]


def line(axis: str, points: list[Point]) -> str:
    """Return a row of the table."""
    point, expected = points[-1], by_operations(points)[-1]
    value = "{} × {}".format(*point.value) if isinstance(point.value, tuple) else point.value
    return (
        f"| {axis} | {value} | {point.parameters:,} | {point.windows / point.step_s:,.0f} | "
        f"{1e3 * point.step_s:,.1f} | {1e3 * expected:,.1f} | {point.step_s / expected:.2f} | "
        f"{point.flop / point.step_s / 1e9:.1f} | {point.sampling_s / point.step_s:.1%} |"
    )


@drawing.styled
def figure(found: dict[str, list[Point]]) -> Figure:
    """Draw the time of a step over each axis, and the time by its operations."""
    picture = Figure(figsize=(drawing.WIDTH_IN, 5), layout="constrained")
    panels = picture.subplots(2, -(-len(found) // 2), squeeze=False).flat
    for axes, (axis, points) in zip(panels, found.items(), strict=False):
        where = [
            point.parameters if isinstance(point.value, tuple) else point.value for point in points
        ]
        axes.loglog(where, [point.step_s for point in points], "o-", label="measured")
        axes.loglog(where, by_operations(points), "s--", label="by its operations")
        axes.loglog(where, [point.sampling_s for point in points], "^:", label="drawing windows")
        axes.set(title=axis, xlabel="weights" if axis == "network" else axis,
                 ylabel="seconds of a step")  # fmt: skip
        if axis != "network":
            axes.set_xticks(where, [f"{value:,}" for value in where])
        for side in (axes.xaxis, axes.yaxis):
            side.set_minor_formatter(NullFormatter())
    picture.legend(
        *picture.axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3
    )
    return picture


if __name__ == "__main__":
    main()
