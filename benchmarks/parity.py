"""The same command on other strategies: how far are the weights apart after 20 steps?

Every row is a run of its own, started as a user would, on the same simulated recordings. The
weights are compared with those of one process. Left out is the bias of the attention's keys: it
does not change what the network answers, its gradient is zero but for rounding, and Adam makes
steps of rounding.

    python benchmarks/parity.py [--tasks cons,order,shift,warp] [--bf16]
"""

import argparse
import hashlib
import subprocess
import sys
import tempfile
from pathlib import Path

import torch

STEPS = 20
NETWORK = ["--emb_dim=32", "--num_layers=2", "--num_heads=4", "--hidden_dim=64"]
TRAINING = ["--window_size=60", "--batch_size=32", "--epochs=1", "--warmup_epochs=0",
            "--hash_samples"]  # fmt: skip
WAYS = {
    "one process": [],
    "one process, 2 micro-batches": ["--micro_batch_size=16"],
    "DDP, 2 processes": ["--launch=ddp", "--num_processes=2"],
    "DDP, 2 processes, 2 micro-batches": [
        "--launch=ddp",
        "--num_processes=2",
        "--micro_batch_size=8",
    ],
    "ZeRO-1, 2 processes": ["--launch=deepspeed_zero1", "--num_processes=2"],
    "ZeRO-2, 2 processes": ["--launch=deepspeed_zero2", "--num_processes=2"],
    "ZeRO-3, 2 processes": ["--launch=deepspeed_zero3", "--num_processes=2"],
    "FSDP2, 2 processes": ["--launch=fsdp", "--num_processes=2"],
}


def main() -> None:
    """Run every way and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tasks", default="cons,order,shift,warp")
    parser.add_argument("--learning_rate", type=float, default=1e-4)
    parser.add_argument("--bf16", action="store_true", help="train in mixed precision")
    asked = parser.parse_args()
    more = [f"--task_ids={asked.tasks}", f"--learning_rate={asked.learning_rate:g}"]
    more += [*(["--mixed_precision=bf16"] if asked.bf16 else [])]
    with tempfile.TemporaryDirectory() as place:
        cwd = Path(place)
        betman(cwd, "fetch_dataset", "SampleData")
        print(
            f"{STEPS} steps, tasks {asked.tasks}, learning rate {asked.learning_rate:g}, "
            f"bf16 {asked.bf16}\n"
        )
        print("| strategy | worst tensor | worst single weight | same samples |\n|---|---|---|---|")
        first = None
        for number, (name, words) in enumerate(WAYS.items()):
            share = f"--train_sample={sample_share(cwd)}"
            betman(cwd, "train_model", f"--run_id=r{number}", *NETWORK, *TRAINING, *more, share,
                   *words, "datasets/SampleData")  # fmt: skip
            run = cwd / "models" / f"r{number}"
            weights = torch.load(run / "weights" / "weights_last.pt", weights_only=True)
            drawn = hashlib.sha256((run / "sample_hashes.csv").read_bytes()).hexdigest()
            first = first or (weights, drawn)
            tensor, weight = difference(first[0], weights)
            print(f"| {name} | {tensor:.1e} | {weight:.1e} | {drawn == first[1]} |", flush=True)


def sample_share(cwd: Path) -> float:
    """Return the --train_sample that makes an epoch of STEPS steps."""
    import xarray as xr

    files = sorted((cwd / "datasets").rglob("*.nc"))
    frames = 0
    for file in files:
        with xr.open_dataset(file) as recording:
            frames += recording.sizes["time"] if "position" in recording else 0
    return STEPS / -(-frames // 32)


def difference(one: dict, other: dict) -> tuple[float, float]:
    """Return how far two state dicts are apart: the worst tensor, and the worst single weight.

    A tensor counts by the norm of its change relative to its own, a single weight by its change
    relative to the largest weight of its tensor.
    """
    tensors, weights = [], []
    for key, value in one.items():
        change = other[key] - value
        if key.endswith("in_proj_bias"):
            third = len(value) // 3
            change[third : 2 * third] = 0
        tensors.append(float(change.norm() / value.norm()))
        weights.append(float(change.abs().max() / value.abs().max()))
    return max(tensors), max(weights)


def betman(cwd: Path, *words: str) -> None:
    """Run betman, or stop with what it said."""
    done = subprocess.run(
        [sys.executable, "-m", "lisbet", *words], cwd=cwd, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    if done.returncode:
        sys.exit(f"betman {' '.join(words)}\n{done.stdout}{done.stderr}")


if __name__ == "__main__":
    main()
