"""How many labels a model needs: trained on from the preset `social`, and from scratch.

    python benchmarks/label_efficiency.py [--data ../shared/data/rat_pair:movement] [--seeds 3]
        [--shares 1,5,25,100] [--out label_efficiency] [--workers 2]

A third of the recordings is held out. The tracks of the others, without annotations, train a model
with --preset=social. Then a classifier of behaviours is trained on the annotations of 1, 5, 25 and
100 % of the frames of each of these recordings, a piece at a random place: from the weights of that
model, all of which are trained on, and from random ones. Both see as many labelled windows. Prints
the scores on the held-out recordings, mean and standard deviation over the seeds, and draws them.
With --tiny everything is small, and the numbers say nothing.
"""

import argparse
import math
import os
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import xarray as xr
from matplotlib.figure import Figure

from lisbet.core import drawing
from lisbet.core.config import Dataset
from lisbet.core.yaml_files import read_yaml
from lisbet.data.load import load_records
from lisbet.data.record import Record
from lisbet.models import model_dir
from lisbet.options import ProbeOptions
from lisbet.probing.scores import folds

PRETRAINED, SCRATCH = "from --preset=social", "from scratch"
SCORES = ("f1", "average_precision")
"""Means over the behaviours, without the class of frames that show none."""


@dataclass(frozen=True)
class Run:
    """A model to train and evaluate."""

    share: float
    start: str
    seed: int

    @property
    def run_id(self) -> str:
        """Name of the model."""
        return (
            f"{'pretrained' if self.start == PRETRAINED else 'scratch'}-{self.share:g}-{self.seed}"
        )


def main() -> None:
    """Train, evaluate, print the table, draw it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", default="../shared/data/rat_pair:movement", help="path:format")
    parser.add_argument("--shares", default="1,5,25,100", help="per cent")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--pretraining", type=int, default=400_000, help="windows without labels")
    parser.add_argument("--windows", type=int, default=40_000, help="windows with labels")
    parser.add_argument("--test_frames", type=int, default=4000, help="of each held-out recording")
    parser.add_argument("--workers", type=int, default=2, help="models at a time, a core each")
    parser.add_argument("--out", type=Path, default=Path("label_efficiency"))
    parser.add_argument("--tiny", action="store_true")
    asked = parser.parse_args()
    if asked.tiny:
        asked.pretraining = asked.windows = 1000
    path, _, annotations = asked.data.rpartition(":")
    records = labelled(Path(path), annotations)
    ids = [record.id for record in records]
    held_out = folds(ids, min(3, len(ids)), seed=0)[0]
    train = [record for record in records if record.id not in held_out]
    out, shares = asked.out.resolve(), [float(word) for word in asked.shares.split(",")]
    with tempfile.TemporaryDirectory() as place:
        os.chdir(place)
        for share in {*shares, 100.0}:
            write(Path(f"train-{share:g}"), train, pieces(train, share))
        test = [record for record in records if record.id in held_out]
        write(Path("test"), test, [slice(0, min(r.frames, asked.test_frames)) for r in test])
        frames = sum(record.frames for record in train)
        betman("train_model", "--preset=social", *length(asked.pretraining, frames),
               "--run_id=social", "train-100", threads=asked.workers)  # fmt: skip
        runs = [
            Run(share, start, seed)
            for share in shares for start in (PRETRAINED, SCRATCH) for seed in range(asked.seeds)
        ]  # fmt: skip
        with ThreadPoolExecutor(asked.workers) as pool:
            found = list(pool.map(lambda run: scores_of(run, train, asked.windows), runs))
    print(f"{len(train)} recordings of {frames:,} frames, {len(held_out)} held out; "
          f"{asked.pretraining:,} windows without labels, {asked.windows:,} with; "
          f"{asked.seeds} seeds\n")  # fmt: skip
    table = {(run.share, run.start): [] for run in runs}
    for run, scores in zip(runs, found, strict=True):
        table[run.share, run.start].append([scores[name] for name in SCORES])
    print(f"| labelled frames | training | {' | '.join(SCORES)} |\n|---|---|---|---|")
    for (share, start), rows in table.items():
        mean, std = np.mean(rows, axis=0), np.std(rows, axis=0)
        cells = [f"{m:.3f} ± {s:.3f}" for m, s in zip(mean, std, strict=True)]
        print(f"| {share:g} % | {start} | {' | '.join(cells)} |")
    drawing.save(figure(table, shares), out.with_suffix(".png"), overwrite=True)


def labelled(path: Path, annotations: str) -> list[Record]:
    """Read the recordings that have annotations."""
    options = ProbeOptions(
        data_path=path, model_path=path, weights_path=path, annot_format=annotations
    )
    dataset = Dataset(path=path.resolve(), format="auto", annotations=annotations)
    return [record for record in load_records(dataset, options) if record.labels is not None]


def pieces(records: list[Record], share: float) -> list[slice]:
    """Choose a piece of each recording at random, so that all behaviours come up in some.

    `share` is the length of the pieces in per cent of the recordings.
    """
    for seed in range(1000):
        rng = np.random.default_rng(seed)
        chosen = []
        for record in records:
            length = math.ceil(record.frames * share / 100)
            start = int(rng.integers(record.frames - length + 1))
            chosen.append(slice(start, start + length))
        parts = [r.labels.active[own] for r, own in zip(records, chosen, strict=True) if r.labels]
        if np.concatenate(parts).any(axis=0).all():
            return chosen
    sys.exit(f"{share:g} % of the frames are too few: some behaviour never comes up")


def write(folder: Path, records: list[Record], parts: list[slice]) -> None:
    """Write pieces of recordings, as they are prepared, and their annotations."""
    for record, part in zip(records, parts, strict=True):
        position = record.position[part]
        frames, fps, names = len(position), record.fps or 30.0, record.features
        dataset = xr.Dataset(
            {"position": (("time", "individuals", "keypoints", "space"), position)},
            coords={"time": np.arange(frames) / fps, "individuals": list(names.individuals),
                    "keypoints": list(names.keypoints), "space": list(names.space)},
            attrs={"fps": fps, "time_unit": "seconds"},
        )  # fmt: skip
        (folder / record.id).mkdir(parents=True)
        dataset.to_netcdf(folder / record.id / "tracking.nc")
        assert record.labels is not None
        lines = ["behavior,start_time,end_time"]
        for name, active in zip(record.labels.behaviors, record.labels.active[part].T, strict=True):
            changes = np.flatnonzero(np.diff(np.concatenate([[0], active, [0]])))
            lines += [f"{name},{a / fps},{b / fps}" for a, b in changes.reshape(-1, 2)]
        (folder / record.id / "annotations.csv").write_text("\n".join(lines) + "\n")


def length(windows: int, frames: int) -> list[str]:
    """Return the options that train on so many windows."""
    epochs = max(1, math.ceil(windows / frames))
    return [f"--epochs={epochs}", f"--train_sample={windows / frames / epochs}", "--data_scale=1x1"]


def scores_of(run: Run, train: list[Record], windows: int) -> dict[str, float]:
    """Train a classifier; return its scores on the held-out recordings."""
    frames = sum(math.ceil(record.frames * run.share / 100) for record in train)
    start = []
    if run.start == PRETRAINED:
        start = [f"--load_backbone_weights=models/social/{model_dir.WEIGHTS_LAST}"]
    betman("train_model", "--preset=social", "--task_ids=multiclass", "--annot_format=csv_events",
           *length(windows, frames), *start, f"--seed={run.seed}", f"--run_id={run.run_id}",
           f"train-{run.share:g}")  # fmt: skip
    folder = Path("models", run.run_id)
    betman("evaluate_model", "--annot_format=csv_events", "test", str(folder / "model_config.yml"),
           str(folder / model_dir.WEIGHTS_LAST))  # fmt: skip
    report = read_yaml(Path("evaluations", run.run_id, "evaluation_report.yml"))
    behaviors = [scores for name, scores in report["classes"].items() if name != "other"]
    return {
        name: float(np.mean([own[name] for own in behaviors if own[name] is not None]))
        for name in SCORES
    }


def betman(*words: str, threads: int = 1) -> None:
    """Run betman, or end with what it says."""
    done = subprocess.run(
        [sys.executable, "-m", "lisbet", *words], capture_output=True, text=True, check=False,
        env=os.environ | {"OMP_NUM_THREADS": str(threads)},
    )  # fmt: skip
    if done.returncode:
        sys.exit(f"betman {' '.join(words)}: {done.stderr[-2000:]}")


@drawing.styled
def figure(table: dict[tuple[float, str], list[list[float]]], shares: list[float]) -> Figure:
    """Draw the scores over the share of labelled frames."""
    picture = Figure(figsize=(drawing.WIDTH_IN, 3), layout="constrained")
    panels = picture.subplots(1, len(SCORES), sharey=True)
    blue, orange = drawing.PALETTE[:2]
    styles = {PRETRAINED: (blue, "o-"), SCRATCH: (orange, "s--")}
    for number, (axes, name) in enumerate(zip(panels, SCORES, strict=True)):
        for start, (colour, style) in styles.items():
            rows = [np.array(table[share, start])[:, number] for share in shares]
            axes.errorbar(shares, [own.mean() for own in rows], [own.std() for own in rows],
                          fmt=style, color=colour, capsize=3, label=start)  # fmt: skip
        axes.set_xscale("log")
        axes.set_xticks(shares, [f"{share:g} %" for share in shares])
        axes.minorticks_off()
        axes.set(title=name.replace("_", " "), xlabel="labelled frames")
    panels[0].set_ylabel("held-out recordings")
    picture.legend(
        *panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=len(styles)
    )
    return picture


if __name__ == "__main__":
    main()
