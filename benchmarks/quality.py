"""How good the embedding is: linear probes of models against features made by hand.

    python benchmarks/quality.py [--data mice=../shared/data/mouse_pair_nc:boris,…] [--out quality]
        [--folds 3] [--windows 400000] [--variants social,…] [--published VENV] [--workers 2]

For each fold, models are trained on the tracks of all other recordings, without annotations. Then
linear classifiers are fitted to annotated frames of those recordings, on embeddings and on features
made by hand, and scored on the fold. Each fold has a seed of its own. Prints the average precision
of each behaviour, mean and standard deviation over the folds, and writes OUT.csv with all scores
and OUT.png. The published tool is trained twice: on as many windows as the first variant, and as
long as the first variant took. With --tiny everything is small, and the numbers say nothing.
"""

import argparse
import math
import os
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import xarray as xr
from matplotlib.figure import Figure

from lisbet.core import drawing
from lisbet.core.config import Dataset
from lisbet.data.inference import Recordings
from lisbet.data.kinematics import body_axis, described_names, quantity_names
from lisbet.data.load import load_records
from lisbet.data.record import Record
from lisbet.models import model_dir
from lisbet.models.multitask import MultiTaskModel
from lisbet.options import ProbeOptions
from lisbet.probing.compare import MEAN, Examples, compare, means, present, splits, spread
from lisbet.probing.features import (
    AVERAGED,
    CONTROLS,
    SMOOTHED,
    averaged,
    controls_of,
    embeddings_of,
    strides,
)

SHARED = Path("../shared/data")
DATA = f"mice={SHARED / 'mouse_pair_nc'}:boris,rats={SHARED / 'rat_pair'}:movement"
SIZES = ["--window_size=60", "--emb_dim=64", "--num_layers=2", "--num_heads=4", "--hidden_dim=128"]
SETTINGS = ("embedding_dim=64", "num_layers=2", "num_heads=4", "hidden_dim=128")
UNTRAINED, PUBLISHED = "untrained network", "published tool"
EQUAL_TIME = "published tool, as long"
SEVEN = "seven quantities, averaged"
"""Of pairs: the best control without the distances between fronts and backs of the animals."""
OF_ENDS = tuple(f"log distance of {what}" for what in ("fronts", "backs", "front and back"))
HAND_MADE = (*CONTROLS[:-1], SEVEN, CONTROLS[-1])
FOUR = "--task_ids=cons,order,shift,warp"
SMALL = "--batch_size=32"
WITH_SCALING = (
    "all_perm_id:p=0.5,reflection:p=0.5,rotation:mode=none,translation:mode=none,scaling:mode=none"
)
VARIANTS = {
    "social": ["--preset=social"],
    "embedding of 32": ["--preset=social", "--emb_dim=32"],
    "no noise": ["--preset=social", "--embedding_noise=0"],
    "no conditioning": ["--preset=social", "--condition_input=false"],
    "with scaling": ["--preset=social", f"--data_augmentation={WITH_SCALING}"],
    "no augmentation": ["--preset=social", "--data_augmentation="],
    "window ends at the frame": ["--preset=social", "--window_offset=0"],
    "default learning rate": ["--preset=social", "--learning_rate=1e-4"],
    "kinematics and four tasks": ["--preset=social", f"{FOUR},kinematics"],
    "four tasks with the rest of social": ["--preset=social", FOUR],
    "weight decay of 0.1": ["--preset=social", "--weight_decay=0.1"],
    "batches of 128": ["--preset=social", "--batch_size=128"],
    "four tasks": [FOUR, SMALL, *SIZES],
    PUBLISHED: [FOUR, SMALL, "--window_size=60", *(f"--set=backbone.{size}" for size in SETTINGS)],
}
VARIANTS[EQUAL_TIME] = VARIANTS[PUBLISHED]
"""Options of train_model, by name."""
MOST_FRAMES = 60_000


@dataclass(frozen=True)
class Work:
    """A model to train: on which data, without which recordings, and how."""

    data: str
    path: Path
    annotations: str
    variant: str
    seed: int
    held_out: tuple[str, ...]

    @property
    def run_id(self) -> str:
        """Name of the model."""
        return f"{self.data}-{self.seed}-{self.variant.replace(',', '').replace(' ', '_')}"


def main() -> None:
    """Train, probe, print the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", default=DATA, help="name=path:format of annotations, …")
    parser.add_argument("--out", type=Path, default=Path("quality"))
    parser.add_argument("--folds", type=int, default=3)
    parser.add_argument("--scored", type=int, help="of these folds, how many; default: all")
    parser.add_argument("--windows", type=int, default=400_000, help="on which a model is trained")
    parser.add_argument("--variants", default="social,four tasks")
    parser.add_argument("--published", type=Path, help="environment of benchmarks/published.py")
    parser.add_argument("--workers", type=int, default=2, help="models at a time, a core each")
    parser.add_argument("--recordings", default="", help="FIRST:LAST: use only some of each data")
    parser.add_argument("--tiny", action="store_true")
    asked = parser.parse_args()
    out = asked.out.resolve()
    data = [one.partition("=")[::2] for one in asked.data.split(",")]
    data = [(name, *rest.rpartition(":")[::2]) for name, rest in data]
    tables = []
    with tempfile.TemporaryDirectory() as place:
        for name, path, annotations in data:
            tables.append(scores_of(asked, name, Path(path).resolve(), annotations, Path(place)))
    scores = pd.concat(tables)
    scores.to_csv(out.with_suffix(".csv"), index=False)
    drawing.save(figure(scores), out.with_suffix(".png"), overwrite=True)


def scores_of(
    asked: argparse.Namespace, name: str, path: Path, annotations: str, place: Path
) -> pd.DataFrame:
    """Train and probe all variants on one dataset; print its table."""
    options = ProbeOptions(
        data_path=path, model_path=place, weights_path=place, annot_format=annotations
    )
    dataset = Dataset(path=path, format="auto", annotations=annotations)
    records = [record for record in load_records(dataset, options) if record.labels is not None]
    first, _, last = asked.recordings.partition(":")
    records = records[int(first or 0) : int(last) if last else None]
    ids = [record.id for record in records]
    folds = [
        (seed, 0, held_out)
        for seed, (_, _, held_out) in enumerate(splits(ids, min(asked.folds, len(ids)), [0]))
    ][: asked.scored]
    variants = asked.variants.split(",")
    work = [
        Work(name, path, annotations, variant, seed, tuple(held_out))
        for seed, _, held_out in folds
        for variant in variants
    ]
    with ThreadPoolExecutor(asked.workers) as pool:
        trained = list(pool.map(lambda one: train(one, place, asked, records), work))
        if PUBLISHED in variants:
            took = {(w.variant, w.seed): t[1] for w, t in zip(work, trained, strict=True)}
            shorter = [replace(w, variant=EQUAL_TIME) for w in work if w.variant == PUBLISHED]
            shares = [took[variants[0], w.seed] / took[PUBLISHED, w.seed] for w in shorter]
            work += shorter
            trained += pool.map(lambda w, x: train(w, place, asked, records, x), shorter, shares)
    notes = training_notes(work, trained)
    bank = Recordings.share(records, list(range(len(records))))
    used, every = strides(bank.frames, 2000 if asked.tiny else MOST_FRAMES)
    controls = controls_by_recording(bank, used)
    parts = []
    for seed, number, held_out in folds:
        own = [one for one in work if one.seed == seed]
        examples = with_embeddings(bank, controls, own, place, (used, every), asked.workers)
        parts.append(compare(examples, [(seed, number, held_out)]))
    scores = pd.concat(parts).assign(data=name)
    print(f"\n### {name}: {len(ids)} recordings, {bank.frames:,} frames, {len(folds)} folds of "
          f"{min(asked.folds, len(ids))}\n")  # fmt: skip
    print(markdown(scores, notes), flush=True)
    return scores


def training_notes(work: list[Work], trained: list[tuple[int, float, int]]) -> dict[str, str]:
    """Say for each variant how long training took, and on how many windows; means over folds."""
    notes = {}
    for variant in dict.fromkeys(one.variant for one in work):
        own = [t for one, t in zip(work, trained, strict=True) if one.variant == variant]
        windows, minutes, cores = np.mean(own, axis=0)
        plural = "s" if cores > 1 else ""
        notes[variant] = f"{windows:,.0f} windows, {minutes:.1f} min of {cores:.0f} core{plural}"
    return notes


def train(
    work: Work, place: Path, asked: argparse.Namespace, records: list[Record], share: float = 1.0
) -> tuple[int, float, int]:
    """Train one model on a share of the windows; return their number, the minutes, the cores."""
    own = [record for record in records if record.id not in work.held_out]
    words = list(VARIANTS[work.variant])
    tasks = next((word.count(",") + 1 for word in words if word.startswith("--task_ids")), 1)
    windows = round(share * (2000 if asked.tiny else asked.windows))
    share = windows / tasks / sum(record.frames for record in own)
    epochs = max(1, math.ceil(share))
    words += [f"--epochs={epochs}", f"--train_sample={share / epochs}", f"--seed={work.seed}",
              f"--run_id={work.run_id}", f"--output_path={place}"]  # fmt: skip
    threads = max(1, len(os.sched_getaffinity(0)) // asked.workers)
    command = [sys.executable, "-m", "lisbet"]
    environment = {**os.environ}
    if work.variant in (PUBLISHED, EQUAL_TIME):
        environment.pop("PYTHONPATH", None)
        command = [str(asked.published.resolve() / "bin" / "betman")]
        folder = place / f"{work.run_id}-recordings"
        write_netcdf3(folder, own)
        words += ["--data_format=movement", "--data_scale=1x1", str(folder)]
    else:
        names = ",".join(record.id for record in own)
        words += [f"--data_filter={names}", str(work.path)]
    began = time.monotonic()
    done = subprocess.run(
        [*command, "train_model", *words], capture_output=True, text=True, check=False,
        env={**environment, "OMP_NUM_THREADS": str(threads)},
    )  # fmt: skip
    if done.returncode:
        sys.exit(f"{' '.join(words)}: {done.stderr[-2000:]}")
    minutes = (time.monotonic() - began) / 60
    return windows, minutes, threads


def write_netcdf3(folder: Path, records: list[Record]) -> None:
    """Write recordings as they are prepared, in the format that the published tool reads."""
    for record in records:
        names = record.features
        dataset = xr.Dataset(
            {"position": (("time", "space", "keypoints", "individuals"),
                          record.position.transpose(0, 3, 2, 1).astype(np.float64))},
            coords={"time": np.arange(record.frames) / (record.fps or 30),
                    "space": list(names.space), "keypoints": list(names.keypoints),
                    "individuals": list(names.individuals)},
            attrs={"fps": float(record.fps or 30), "time_unit": "seconds", "ds_type": "poses",
                   "source_software": "DeepLabCut"},
        )  # fmt: skip
        confidence = np.ones(dataset["position"].isel(space=0).shape)
        dataset["confidence"] = (("time", "keypoints", "individuals"), confidence)
        (folder / record.id).mkdir(parents=True)
        path = folder / record.id / "tracking.nc"
        dataset.to_netcdf(path, engine="scipy", format="NETCDF3_64BIT")


def controls_by_recording(bank: Recordings, used: int) -> dict[str, dict[str, np.ndarray]]:
    """Return the features without a network, by recording, of each frame that is `used`."""
    axis = body_axis(bank.features)
    quantities = quantity_names(bank.features.individuals, heading=axis is not None)
    names = described_names(quantities)
    seven = [number for number, name in enumerate(names) if not name.startswith(OF_ENDS)]
    found = {}
    for number, recording in bank.each():
        frames = np.arange(0, recording.frames, used)
        own = controls_of(recording.tracks[recording.recording(0)], axis, frames)
        found[bank.ids[number]] = {**own, SEVEN: own[SMOOTHED][:, seven]}
    return found


@torch.inference_mode()
def with_embeddings(
    bank: Recordings,
    controls: dict[str, dict[str, np.ndarray]],
    work: list[Work],
    place: Path,
    every: tuple[int, int],
    workers: int,
) -> Examples:
    """Add the embeddings of the models of one fold, and of a network that was not trained."""
    features: dict[str, dict[str, np.ndarray]] = {}
    for record_id, found in controls.items():
        for name in HAND_MADE:
            if name in found:
                features.setdefault(name, {})[record_id] = found[name]
    torch.manual_seed(work[0].seed)
    for number, one in enumerate(work):
        folder = place / "models" / one.run_id
        config, network = model_dir.load_model(
            folder / model_dir.MODEL_CONFIG, folder / model_dir.WEIGHTS_LAST
        )
        networks = {one.variant: network}
        if number == 0:
            networks[UNTRAINED] = MultiTaskModel(config).eval()
        jobs = [(name, net, n, rec) for n, rec in bank.each() for name, net in networks.items()]
        with ThreadPoolExecutor(workers) as pool:
            values = pool.map(
                lambda job, w=config.window: embeddings_of(job[1], job[3], w, every=every[1]), jobs
            )
            for (name, _, n, recording), value in zip(jobs, values, strict=True):
                places = np.arange(0, recording.frames, every[0]) // every[1]
                features.setdefault(name, {})[bank.ids[n]] = value[places]
                smooth = features.setdefault(f"{name}{AVERAGED}", {})
                smooth[bank.ids[n]] = averaged(value, every[1])[places]
    first = work[0].variant
    features[f"{first} and kinematics"] = {
        record_id: np.concatenate(
            [features[f"{first}{AVERAGED}"][record_id], controls[record_id][SMOOTHED]], axis=1
        )
        for record_id in controls
    }
    labels = {
        bank.ids[n]: bank.records[n].labels.active[:: every[0]]  # type: ignore[union-attr]
        for n, r in bank.each()
    }
    return Examples(features, labels, bank.behaviors)


def markdown(scores: pd.DataFrame, notes: dict[str, str]) -> str:
    """Return the table of one dataset."""
    mean, deviation, share = means(scores), spread(scores), present(scores)
    columns = [name for name in share if name != MEAN or len(share) > 2]
    lines = [f"| features | {' | '.join(columns)} | training |", "|---" * (len(columns) + 2) + "|"]
    several = len(scores[["seed", "fold"]].drop_duplicates()) > 1
    for name, own in mean.items():
        errors = [f" ± {deviation[name][c]:.3f}" if several else "" for c in columns]
        cells = [f"{own[c]:.3f}{error}" for c, error in zip(columns, errors, strict=True)]
        lines.append(f"| {name} | {' | '.join(cells)} | {notes.get(name, '')} |")
    lines.append(f"| (share of the frames) | {' | '.join(f'{share[c]:.3f}' for c in columns)} | |")
    return "\n".join(lines)


@drawing.styled
def figure(scores: pd.DataFrame) -> Figure:
    """Draw the mean average precision of all features, a panel for each dataset."""
    names = scores["data"].unique()
    across = min(3, len(names))
    lines = -(-len(names) // across)
    picture = Figure(figsize=(drawing.WIDTH_IN, 3.2 * lines), layout="constrained")
    panels = picture.subplots(lines, across, sharey=True, squeeze=False).ravel()
    for axes in panels[len(names) :]:
        axes.set_axis_off()
    for axes, name in zip(panels, names, strict=False):
        own = scores[scores["data"] == name]
        mean, deviation = means(own), spread(own)
        values, errors = ([of[n][MEAN] for n in mean] for of in (mean, deviation))
        colours = [drawing.NEUTRAL if n in HAND_MADE else drawing.ACCENT for n in mean]
        axes.barh(range(len(mean)), values, xerr=errors, color=colours, error_kw={"lw": 0.8})
        axes.set_yticks(range(len(mean)), mean)
        axes.set(title=name, xlabel="mean average precision", xlim=(0, None))
    panels[0].invert_yaxis()
    return picture


if __name__ == "__main__":
    main()
