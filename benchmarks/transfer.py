"""Does self-supervised training help to recognise a behaviour in a recording never seen?

    python benchmarks/transfer.py DATA [--seeds 3] [--quick]

DATA is a folder with the recordings DLC1, DLC2 and DLC3 (movement files, BORIS annotations of
`interact`; video 1600x1200). A backbone is trained without labels on DLC1 and DLC2, then a frame
head on their labels, with the backbone frozen or trained along; beside them the same network is
trained on the labels from scratch, with as many supervised windows, and with as many windows in
all. Each is scored on DLC3. Prints macro F1 and average precision of `interact` as a Markdown
table: the mean over the seeds, with the smallest and largest.
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import yaml

NETWORK = "--window_size=60 --emb_dim=32 --num_layers=2 --num_heads=4 --hidden_dim=128".split()  # noqa: SIM905
DATA = ["--data_scale=1600x1200", "--outside=missing"]
SUPERVISED = ["--task_ids=multilabel", "--annot_format=boris", "--data_filter=DLC1,DLC2"]
RATE = ["--learning_rate=1e-3", "--warmup_epochs=1"]
PRETRAIN_EPOCHS, TUNE_EPOCHS, TASKS = 4, 6, 4
SAMPLE = 0.5


def betman(folder: Path, *words: object) -> None:
    """Run a command; show what it said if it fails."""
    done = subprocess.run(
        [sys.executable, "-m", "lisbet", *map(str, words)],
        cwd=folder, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        sys.exit(done.stderr)


def train(folder: Path, data: Path, run_id: str, seed: int, epochs: int, *words: str) -> None:
    """Train one model."""
    betman(
        folder, "train_model", *NETWORK, *DATA, *RATE, f"--run_id={run_id}", f"--seed={seed}",
        f"--epochs={epochs}", f"--train_sample={SAMPLE}", *words, data,
    )  # fmt: skip


def score(folder: Path, data: Path, run_id: str) -> tuple[float, float]:
    """Score a model on DLC3: F1 and average precision of `interact`."""
    model = folder / "models" / run_id
    betman(
        folder, "evaluate_model", *DATA, "--annot_format=boris", "--data_filter=DLC3",
        data, model / "model_config.yml", model / "weights" / "weights_last.pt",
    )  # fmt: skip
    report = yaml.safe_load((folder / "evaluations" / run_id / "evaluation_report.yml").read_text())
    return report["macro_f1"], report["mean_average_precision"]


def main() -> None:
    """Train, score, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="one epoch each: tests the script")
    arguments = parser.parse_args()
    data = arguments.data.resolve()
    pretrain, tune = (1, 1) if arguments.quick else (PRETRAIN_EPOCHS, TUNE_EPOCHS)
    results: dict[str, list[tuple[float, float]]] = {}
    for seed in range(arguments.seeds):
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            train(folder, data, "pretrained", seed, pretrain, "--data_filter=DLC1,DLC2")
            start = f"--load_backbone_weights={folder}/models/pretrained/weights/weights_last.pt"
            runs = {
                "pretrained, backbone frozen": (tune, [start, "--freeze_backbone_weights"]),
                "pretrained, all trained": (tune, [start]),
                "from scratch, as many labelled windows": (tune, []),
                "from scratch, as many windows in all": (tune + TASKS * pretrain, []),
            }
            for number, (title, (epochs, words)) in enumerate(runs.items()):
                train(folder, data, f"run{number}", seed, epochs, *SUPERVISED, *words)
                results.setdefault(title, []).append(score(folder, data, f"run{number}"))
    print(f"{arguments.seeds} seeds, W 60, {pretrain} + {tune} epochs, trained on DLC1 and DLC2, "
          "scored on DLC3\n")  # fmt: skip
    print("| model | F1 | average precision |\n|---|---|---|")
    for title, scores in results.items():
        cells = [
            f"{statistics.mean(values):.3f} ({min(values):.3f} to {max(values):.3f})"
            for values in zip(*scores, strict=True)
        ]
        print(f"| {title} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
