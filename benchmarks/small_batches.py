"""How much faster small batches are made for several steps at once.

    python benchmarks/small_batches.py DATA [--seconds 0.5] [--options=--preset=social]

For several batch sizes, prints how many windows are made in a second on one core, step by step and
as training makes them (`lisbet.training.datasets.batch_buffer`), both in turns within one run, and
the ratio: the median of the rounds, with the smallest and largest.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from dataclasses import replace

import torch

from lisbet.cli import parse
from lisbet.core.allocator import keep_freed_memory
from lisbet.training.datasets.batch_buffer import BatchBuffer
from lisbet.training.inputs import TrainingInputs

SIZES = (8, 16, 32, 64, 128)
ROUNDS = 5


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", help="folder of recordings")
    parser.add_argument("--seconds", type=float, default=0.5, help="per way, size and round")
    parser.add_argument("--options", default="--preset=social", help="of train_model")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    keep_freed_memory()
    options = parse(["train_model", *asked.options.split(), asked.data]).options
    sampler = TrainingInputs.from_options(options, torch.device("cpu")).train
    size = options.emb_dim
    print(f"{asked.options}, window of {sampler.window.size} frames, "
          f"{next(iter(sampler.banks.values())).features.size} features, one core, {ROUNDS} rounds "
          f"of {asked.seconds:g} s\n")  # fmt: skip
    print(
        "| batch | step by step, windows/s | several steps, windows/s | ratio |\n|---|---|---|---|"
    )
    for batch in SIZES:
        own, rows = replace(sampler, batch_size=batch), slice(0, batch)
        noise = options.embedding_noise
        buffer = BatchBuffer(own, noise, size)

        def alone(step: int, own=own, rows=rows, noise=noise) -> None:
            own.batch(0, step, rows)
            own.noise(0, range(step, step + 1), rows, noise, size)

        def together(step: int, buffer=buffer, rows=rows) -> None:
            buffer.batch(0, step, rows)

        rates: dict[str, list[float]] = {"alone": [], "together": []}
        for _ in range(ROUNDS):
            rates["alone"].append(rate(alone, own.steps, batch, asked.seconds))
            rates["together"].append(rate(together, own.steps, batch, asked.seconds))
        ratios = [b / a for a, b in zip(rates["alone"], rates["together"], strict=True)]
        one, other = (statistics.median(rates[way]) for way in ("alone", "together"))
        print(f"| {batch} | {one:,.0f} | {other:,.0f} | {statistics.median(ratios):.2f} "
              f"({min(ratios):.2f} to {max(ratios):.2f}) |")  # fmt: skip


def rate(make: Callable[[int], None], steps: int, batch: int, seconds: float) -> float:
    """Return windows per second: whole passes over the steps that are made together."""
    done, started = 0, time.perf_counter()
    while (spent := time.perf_counter() - started) < seconds or done % SIZES[-1]:
        make((done // batch) % steps)
        done += batch
    return done / spent


if __name__ == "__main__":
    main()
