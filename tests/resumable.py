"""Runs that tests interrupt: how to start one, wait for it, and compare what it leaves."""

import os
import subprocess
import time
from pathlib import Path

import torch
from conftest import TINY, forking_python

from lisbet.models import model_dir
from lisbet.training.checkpoint.directory import CheckpointDirectory
from lisbet.training.checkpoint.manifest import Manifest

LINE = ["train_model", *TINY, "--warmup_epochs=1", "--dev_ratio=0.5",
        "--dev_sample=0.3", "--save_history", "--hash_samples",
        "--checkpoint_every=7steps"]  # fmt: skip
STOPPED = 75


def short(epochs: int = 2) -> list[str]:
    return [*LINE, f"--epochs={epochs}"]


def start(
    place: Path, run_id: str, *words: str, python: str | None = None, patch: str = ""
) -> subprocess.Popen:
    """Start a run; the code in `patch` runs first in each of its processes."""
    environment = dict(os.environ)
    if patch:
        script = place / f"{run_id}.py"
        script.write_text(patch)
        environment["TEST_PATCH"] = str(script)
    epochs = () if any(word.startswith("--epochs") for word in words) else ("--epochs=12",)
    return subprocess.Popen(
        [python or forking_python(), "-m", "lisbet", *LINE, *epochs, *words, f"--run_id={run_id}",
         "data"],
        cwd=place, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def finish(place: Path, run_id: str, *words: str) -> str:
    job = start(place, run_id, *words)
    out, said = job.communicate(timeout=300)
    assert job.returncode == 0, said
    return out + said


def last_step(run: Path) -> int:
    there = CheckpointDirectory(run).published()
    return int(there[0].name.removeprefix("step_")) if there else 0


def wait_for_step(run: Path, step: int, job: subprocess.Popen) -> None:
    """Wait for a checkpoint of that step or a later one."""
    for _ in range(3000):
        if last_step(run) >= step:
            return
        assert job.poll() is None, job.communicate()
        time.sleep(0.01)
    raise AssertionError(f"{run} does not come to step {step}")


def fingerprint(run: Path) -> dict[str, str]:
    """Hashes of the final weights, of the saved state of every process, and the history."""
    newest = CheckpointDirectory(run).published()[0]
    files = Manifest.read(newest).files
    found = {
        name: file.sha256
        for name, file in files.items()
        if name not in ("progress.json", "sharded/.metadata")
    }
    for name in (model_dir.WEIGHTS_LAST, "training_history.csv", "sample_hashes.csv"):
        found[name] = (run / name).read_bytes().hex()
    return found | {"step": newest.name}


def weights(run: Path) -> dict[str, torch.Tensor]:
    return torch.load(run / model_dir.WEIGHTS_LAST, weights_only=True)
