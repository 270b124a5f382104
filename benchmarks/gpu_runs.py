"""The GPU benchmark's whole runs: betman, its strategies, the published tool."""

import json
import signal
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from gpu_common import AUGMENTATION, EPOCH_WINDOWS, TINY, Keep, Sizes
from published import TASKS, write_recordings

from lisbet.options import BACKBONE_SIZES


def betman(*words: str, stop_at: str | None = None) -> float:
    """Run betman in the current folder; return its seconds.

    With `stop_at` it is stopped by SIGTERM as soon as there is a file of that name, and must then
    exit with 75, or with 0 if it was faster.
    """
    began = time.monotonic()
    job = subprocess.Popen(
        [sys.executable, "-m", "lisbet", *words], stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        text=True,
    )  # fmt: skip
    try:
        if stop_at is not None:
            while job.poll() is None and not Path(stop_at).exists():
                time.sleep(0.05)
            job.send_signal(signal.SIGTERM)
        said, _ = job.communicate(timeout=400)
    finally:
        job.kill()
    if job.returncode not in ((0, 75) if stop_at is not None else (0,)):
        raise RuntimeError(f"betman {' '.join(words)}: exit code {job.returncode}\n{said[-1500:]}")
    return time.monotonic() - began


def train(sizes: Sizes, keep: Keep) -> None:
    """Train three epochs through betman, stopped in the second one and resumed."""
    tiny = sizes.product == TINY.product
    words = ["train_model", *sizes.network, f"--window_size={sizes.window}", "--epochs=3",
             "--warmup_epochs=0", "--save_history", "--dev_ratio=0.1", "--mixed_precision",
             f"--batch_size={32 if tiny else 512}", f"--data_augmentation={AUGMENTATION}",
             "--log_every=20", "--train_sample=0.3333", *["--compile"][tiny:], "data"]  # fmt: skip
    spent = betman(*words, "--run_id=parts", stop_at="models/parts/training_history.csv")
    keep(what="seconds of betman until it was stopped by SIGTERM, in the second epoch", value=spent)
    spent = betman(*words, "--run_id=parts", "--resume")
    keep(what="seconds of betman from its resume to the end of the third epoch", value=spent)
    events = events_of("parts")
    rate = statistics.median(event["windows_per_second"] for event in events)
    keep(what="windows per second, median of the rows of events.jsonl", value=rate)
    keep(what=f"seconds for {EPOCH_WINDOWS} windows at that rate", value=EPOCH_WINDOWS / rate)
    keep(what="share of a step that waits for windows",
         value=statistics.median(event["data_share"] for event in events))  # fmt: skip
    if "device_memory_mb" in events[-1]:
        keep(what="memory of the device, GB", value=events[-1]["device_memory_mb"] / 1e3)
    resumed = history("parts")
    for column in ("train_loss", "dev_loss"):
        keep(what=f"{column} after each epoch",
             value=", ".join(f"{row[column]:.4f}" for row in resumed))  # fmt: skip
    spent = betman(*words, "--run_id=whole")
    keep(what="seconds of betman for three epochs without a stop", value=spent)
    rows = history("whole")
    for column in ("train_loss", "dev_loss"):
        worst = max(abs(a[column] / b[column] - 1) for a, b in zip(rows, resumed, strict=True))
        keep(what=f"{column}, stopped and resumed or not: largest relative difference", value=worst)


def events_of(run_id: str) -> list[dict[str, Any]]:
    """Read the rows of a run."""
    text = Path("models", run_id, "events.jsonl").read_text()
    return [json.loads(line) for line in text.splitlines()]


def history(run_id: str) -> list[dict[str, float]]:
    """Read the history of a run."""
    import csv

    with open(f"models/{run_id}/training_history.csv", newline="") as stream:
        return [{key: float(value) for key, value in row.items()} for row in csv.DictReader(stream)]


def strategies(sizes: Sizes, keep: Keep) -> None:
    """Train a few steps with each launch file, on one device."""
    batch = 8 if sizes.product == TINY.product else 512
    words = ["train_model", *sizes.network, f"--window_size={sizes.window}", "--epochs=1",
             "--warmup_epochs=0", "--save_history", f"--batch_size={batch}", "--log_every=10",
             f"--data_augmentation={AUGMENTATION}", "few"]  # fmt: skip
    ways = {
        "FSDP2, bf16": ["--launch=fsdp", "--num_processes=1", "--mixed_precision=bf16"],
        "DeepSpeed ZeRO-2, bf16": ["--launch=deepspeed_zero2", "--num_processes=1",
                                   "--mixed_precision=bf16"],
        "DeepSpeed ZeRO-3, bf16": ["--launch=deepspeed_zero3", "--num_processes=1",
                                   "--mixed_precision=bf16"],
        "one process, bf16": ["--mixed_precision=bf16"],
        "one process, fp16": ["--mixed_precision=fp16"],
        "one process, float32": [],
        "one process, TF32": ["--tf32"],
        "DDP, bf16": ["--launch=ddp", "--num_processes=1", "--mixed_precision=bf16"],
    }  # fmt: skip
    for number, (way, more) in enumerate(ways.items()):
        try:
            spent = betman(*words, *more, f"--run_id=s{number}", "-vv")
        except RuntimeError as error:
            keep(what=way, error=str(error)[-1200:])
            continue
        events = events_of(f"s{number}")
        keep(
            what=way,
            seconds=spent,
            windows_per_s=max(event["windows_per_second"] for event in events),
            memory_gb=events[-1].get("device_memory_mb", 0) / 1e3,
            train_loss=history(f"s{number}")[-1]["train_loss"],
        )


def published(sizes: Sizes, environment: str | None, keep: Keep) -> None:
    """Time an epoch of the published tool, if there is an environment that has it."""
    if environment is None:
        return
    write_recordings("netcdf3", sizes.frames)
    settings = []
    for word in sizes.network:
        name, _, value = word.removeprefix("--").partition("=")
        settings += ["--set", f"backbone.{BACKBONE_SIZES[name]}={value}"]
    began = time.monotonic()
    done = subprocess.run(
        [Path(environment, "bin", "betman"), "train_model", TASKS, "--data_format=movement",
         *settings, "--epochs=1", f"--window_size={sizes.window}", "--batch_size=128", "netcdf3"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        raise RuntimeError(done.stderr[-1500:])
    keep(what="seconds of the published tool for the small dataset", value=time.monotonic() - began)
