"""What a command costs before it does anything: processor time, time, modules.

    python benchmarks/startup.py [--before PATH] [--rounds 3]

Every command runs on small simulated data, in a process of its own. Processor time is that of the
process and of all that it starts; modules are those that the process itself has imported. With
--before, a checkout of an earlier version takes turns with this one, and ratios are printed.
"""

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

NETWORK = ["--emb_dim=8", "--num_layers=1", "--num_heads=2", "--hidden_dim=16",
           "--window_size=12", "--batch_size=64", "--train_sample=0.001"]  # fmt: skip
MODEL = ["models/m/model_config.yml", "models/m/weights/weights_last.pt"]
EMBEDDER = ["models/m-embedder/model_config.yml", "models/m-embedder/weights/weights_last.pt"]
TRAIN = ["train_model", *NETWORK, "--epochs=1"]
COMMANDS = {
    "--help": ["--help"],
    "train_model --dry_run": [*TRAIN, "--dry_run", "data"],
    "train_model, one step": [*TRAIN, "--run_id={run}", "data"],
    "the same, --launch=ddp, 2 processes": [*TRAIN, "--run_id={run}", "--launch=ddp",
                                            "--num_processes=2", "data"],
    "the same, --launch=deepspeed_zero2": [*TRAIN, "--run_id={run}", "--launch=deepspeed_zero2",
                                           "--num_processes=2", "data"],
    "compute_embeddings": ["compute_embeddings", "--output_path={run}", "data", *EMBEDDER],
    "export_embedder": ["export_embedder", "--overwrite", *MODEL],
    "dataset_info": ["dataset_info", "data"],
    "convert_dataset": ["convert_dataset", "--workers=1", "data", "{run}.zarr"],
    "runs": ["runs", "models"],
    "plot_history": ["plot_history", "--overwrite", "models/m"],
}  # fmt: skip
PROGRAM = """
import sys
from lisbet.cli import main
try:
    main(sys.argv[1:])
finally:
    print("modules", len(sys.modules), file=sys.stderr)
"""


def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--before", type=Path, help="checkout of an earlier version")
    parser.add_argument("--rounds", type=int, default=3)
    asked = parser.parse_args()
    here = Path(__file__).resolve().parents[1]
    versions = [here] if asked.before is None else [asked.before.resolve(), here]
    found: dict[tuple[str, Path], list[dict[str, float]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        make_data(place)
        run([*TRAIN, "--save_history", "--run_id=m", "data"], here, place)
        run(["export_embedder", *MODEL], here, place)
        for number in range(asked.rounds):
            for name, words in COMMANDS.items():
                for side, version in enumerate(versions):
                    words_now = [word.format(run=f"r{side}-{number}-{len(name)}") for word in words]
                    found.setdefault((name, version), []).append(run(words_now, version, place))
    report(found, versions)


def make_data(place: Path) -> None:
    """Write two recordings of 1000 frames."""
    import numpy as np
    import xarray as xr

    from lisbet.data.hub._simulate import INDIVIDUALS, KEYPOINTS, simulate

    for number, recording in enumerate(simulate([1000, 1000], seed=1)):
        folder = place / "data" / f"r{number}"
        folder.mkdir(parents=True)
        axes = ("time", "space", "keypoints", "individuals")
        xr.Dataset(
            {"position": (axes, recording.position)},
            coords={"time": np.arange(1000) / 30, "space": ["x", "y"],
                    "keypoints": list(KEYPOINTS), "individuals": list(INDIVIDUALS)},
            attrs={"fps": 30.0},
        ).to_netcdf(folder / "tracking.nc")  # fmt: skip


def run(words: list[str], version: Path, place: Path) -> dict[str, float]:
    """Run a command of a version; return what it took."""
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *words], cwd=place, capture_output=True, text=True,
        check=False, env={**os.environ, "PYTHONPATH": str(version)},
    )  # fmt: skip
    spent, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        sys.exit(f"betman {' '.join(words)}\n{done.stderr[-1500:]}")
    counted = [line.split()[1] for line in done.stderr.splitlines() if line.startswith("modules ")]
    return {
        "cpu": after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime,
        "wall": spent,
        "modules": float(counted[-1]),
    }


def report(found: dict[tuple[str, Path], list[dict[str, float]]], versions: list[Path]) -> None:
    """Print a row for each command."""

    def median(name: str, version: Path, what: str) -> float:
        return statistics.median(row[what] for row in found[name, version])

    units = {"cpu": "processor time, s", "wall": "time, s", "modules": "modules"}
    two = len(versions) > 1
    heads = [f"{unit}{', before' if two else ''} | {unit} now | ratio" if two else unit
             for unit in units.values()]  # fmt: skip
    print("| command | " + " | ".join(heads) + " |")
    print("|---" * (1 + len(units) * (3 if two else 1)) + "|")
    for name in COMMANDS:
        cells = []
        for what in units:
            values = [median(name, version, what) for version in versions]
            cells += [f"{value:.0f}" if what == "modules" else f"{value:.2f}" for value in values]
            cells += [f"{values[1] / values[0]:.2f}"] if two else []
        print(f"| {name} | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
