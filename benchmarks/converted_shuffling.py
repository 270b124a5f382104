"""What blocks of recordings draw, compared with uniform sampling, and whether it matters."""

import os
import statistics
import subprocess
import sys
from pathlib import Path

import numpy as np
from converted_data import BATCH, FEATURES, MB, moving, write_store

from lisbet.data.bank import Bank
from lisbet.data.zarr.store import Store

SECTION = 1000
"""Frames; recordings are longer, so that the place of a window within its recording counts too."""


def shuffle(place: Path) -> None:
    """How far what is drawn is from uniform sampling."""
    lengths = np.random.default_rng(0).integers(2, 12, 400) * SECTION
    write_store(place / "data.zarr", lengths)
    records = Store.open(place / "data.zarr").records()
    size = int(lengths.sum()) * FEATURES.size * 4
    print(f"400 recordings of 2000 to 11000 frames ({size / MB:.0f} MB), five epochs\n")
    print("Total variation: half of the summed difference between how often each recording (or "
          "each section of 1000 frames) was drawn and its share of the frames.\n")  # fmt: skip
    print("| sampling | recordings in memory | recordings, one epoch | five epochs | "
          "sections, one epoch | five epochs | recordings in a batch of 128 |")  # fmt: skip
    print("|---|---|---|---|---|---|---|")
    whole = Bank.outline(records)
    ways: list[tuple[str, Bank]] = [("uniform", whole)]
    ways += [(f"moving, {share:.0%} of the data", moving(records, int(share * size)))
             for share in (0.4, 0.2, 0.1, 0.05)]  # fmt: skip
    for name, bank in ways:
        recordings, sections, seen, there = distances(bank, whole)
        far = " | ".join(f"{value:.3f}" for value in (*recordings, *sections))
        print(f"| {name} | {there:.0f} | {far} | {seen:.1f} |")


def distances(
    bank: Bank, whole: Bank
) -> tuple[tuple[float, float], tuple[float, float], float, float]:
    numbers = {record_id: n for n, record_id in enumerate(whole.ids)}
    first_section = np.cumsum(whole.lengths // SECTION) - whole.lengths // SECTION
    steps = -(-whole.frames // BATCH)
    rng, counts = np.random.default_rng(1), np.zeros(whole.frames // SECTION)
    after, seen, there = [], [], []
    known: dict[int, np.ndarray] = {}
    for epoch in range(5):
        for step in range(steps):
            here = bank.at(epoch, step, steps)
            if id(here) not in known:
                known = {id(here): np.array([numbers[record_id] for record_id in here.ids])}
            record, frame = here.draw(rng.random(BATCH))
            drawn = known[id(here)][record]
            np.add.at(counts, first_section[drawn] + frame // SECTION, 1)
            seen.append(len(np.unique(drawn)))
            there.append(len(here))
        after.append(counts / counts.sum())
    sections = [float(np.abs(share - 1 / len(share)).sum() / 2) for share in after]
    of_recordings = [np.add.reduceat(share, first_section) for share in after]
    even = whole.lengths / whole.frames
    recordings = [float(np.abs(share - even).sum() / 2) for share in of_recordings]
    return (
        (recordings[0], recordings[-1]), (sections[0], sections[-1]),
        statistics.mean(seen), statistics.mean(there),
    )  # fmt: skip


def learning(place: Path) -> None:
    """Accuracy on held-out recordings of SampleData, sampled uniformly and by the moving bank."""
    from lisbet.training.logging.history import read_history

    os.chdir(place)
    run = [sys.executable, "-m", "lisbet"]
    quiet = {"check": True, "capture_output": True}
    subprocess.run([*run, "fetch_dataset", "SampleData"], **quiet)  # type: ignore[call-overload]
    subprocess.run([*run, "convert_dataset", "datasets/SampleData", "data.zarr"], **quiet)  # type: ignore[call-overload]
    line = [*run, "train_model", "--data_format=zarr", "--epochs=5", "--window_size=60",
            "--num_layers=2", "--learning_rate=1e-3", "--warmup_epochs=1", "--train_sample=0.2",
            "--dev_ratio=0.2", "--dev_sample=0.2", "--save_history"]  # fmt: skip
    print("SampleData, settings of the demo, held-out loss (and accuracies), 3 seeds\n")
    print("| sampling | seed | epoch 1 | epoch 3 | epoch 5 | cons | order | shift | warp |")
    print("|---|---|---|---|---|---|---|---|---|")
    for seed in (1, 2, 3):
        for name, memory in (("uniform", "all"), ("moving", "7.5MB")):
            run_id = f"{name}{seed}"
            subprocess.run([*line, f"--seed={seed}", f"--bank_memory={memory}",
                            f"--run_id={run_id}", "data.zarr"], **quiet)  # type: ignore[call-overload]  # fmt: skip
            rows = read_history(Path("models", run_id, "training_history.csv"))
            losses = " | ".join(f"{rows[n]['dev_loss']:.3f}" for n in (0, 2, 4))
            scores = " | ".join(f"{rows[-1][f'{task}_dev_accuracy']:.3f}"
                                for task in ("cons", "order", "shift", "warp"))  # fmt: skip
            print(f"| {name} | {seed} | {losses} | {scores} |", flush=True)
