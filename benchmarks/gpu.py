"""What one GPU does: the same samples and losses as the CPU, windows per second, one whole run.

    python benchmarks/gpu.py [--out gpu] [--minutes 8] [--parts rates,equality,…] [--tiny]

Prints a report and writes it to OUT/gpu.md, with all numbers in OUT/gpu.json. Parts, each in
processes of its own, so that one that fails leaves the others:

* rates       the card itself: bf16 matrix product, copy, attention of the network's shapes by
              back end
* equality    samples of CPU and GPU compared bit by bit, losses and weights after 20 steps
* speed       windows per second of a training step, over batch size, precision and mode:
              eager (as betman runs), compile (torch.compile), graph (forward, backward and
              optimizer replayed as one CUDA graph)
* train       betman train_model for three epochs of 400,000 windows each, stopped and resumed
* strategies  the same command with each launch file that one GPU can show
* published   the published tool (PyPI lisbet 0.4.3), if --published names a Python that has it

Needs torch 2.10 or later and a CUDA device. With --tiny everything is made small, so that it also
runs on a CPU, in about a minute; the numbers then say nothing.
"""

import argparse
import dataclasses
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr

NETWORK = ["--emb_dim=64", "--num_layers=8", "--num_heads=8", "--hidden_dim=256"]
"""The network of the specification's example."""
AUGMENTATION = "all_perm_id:p=0.5,all_perm_ax:p=0.7,blk_perm_id:p=0.3:frac=0.2"
SPECIFIED_S = 720
"""Seconds for an epoch on an RTX A5500, as the specification says."""
EPOCH_WINDOWS = 1_200_000
PARTS = ("rates", "equality", "speed-bf16", "train", "strategies", "speed-TF32", "speed-float32",
         "published")  # fmt: skip
MODES = ("eager", "compile", "graph")


@dataclass(frozen=True)
class Sizes:
    """How large everything is.

    Parameters
    ----------
    frames : int
        Frames of all recordings of the run that is timed as a whole; one window of each of four
        tasks for each of them.
    window : int
        Frames of a window.
    batches : tuple of int
        Windows of each task in a batch.
    network : list of str
        Options of the network.
    product : int
        Rows and columns of the matrices of the matrix product.
    seconds : float
        How long a cell of a table is timed, at least one step.
    """

    frames: int = EPOCH_WINDOWS // 4
    window: int = 200
    batches: tuple[int, ...] = (32, 128, 512, 2048, 8192)
    compiled: tuple[int, ...] = (512,)
    network: list[str] = field(default_factory=lambda: NETWORK)
    product: int = 8192
    seconds: float = 1.0
    recordings: int = 40


TINY = Sizes(
    frames=2000, window=12, batches=(4, 8), compiled=(8,), product=64, seconds=0.01, recordings=40,
    network=["--emb_dim=8", "--num_layers=1", "--num_heads=2", "--hidden_dim=16"],
)  # fmt: skip


def sizes_of(asked: argparse.Namespace) -> Sizes:
    """Return how large everything is, as the options say."""
    sizes = TINY if asked.tiny else Sizes()
    if asked.batches is None:
        return sizes
    return dataclasses.replace(sizes, batches=tuple(map(int, asked.batches.split(","))))


def main() -> None:
    """Run all parts and report; or one part, in a process of its own."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("gpu"), help="folder of the report")
    parser.add_argument("--minutes", type=float, default=8, help="no part starts later")
    parser.add_argument("--parts", default=",".join(PARTS))
    parser.add_argument("--batches", help="windows of each task in a batch, comma separated")
    parser.add_argument("--published", default=None, help="a Python that has lisbet 0.4.3")
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    parser.add_argument("--place", type=Path, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.worker:
        work(asked)
        return
    if unknown := set(asked.parts.split(",")) - set(PARTS):
        parser.error(f"--parts: unknown {', '.join(sorted(unknown))}; known are {', '.join(PARTS)}")
    if not (torch.cuda.is_available() or asked.tiny):
        parser.error("no CUDA device; --tiny tries everything on the CPU")
    asked.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as place:
        found = run_parts(asked, Path(place))
    (asked.out / "gpu.json").write_text(json.dumps(found, indent=1))
    text = report(found)
    (asked.out / "gpu.md").write_text(text)
    print(text)
    if found["errors"]:
        sys.exit(f"failed: {', '.join(found['errors'])}")


def run_parts(asked: argparse.Namespace, place: Path) -> dict[str, Any]:
    """Run the parts one after the other; return what they found, and the errors by part."""
    started = time.monotonic()
    sizes = sizes_of(asked)
    make_recordings(place / "data", sizes.frames, sizes.recordings)
    make_recordings(place / "few", max(sizes.frames // 10, 200), sizes.recordings // 2)
    found: dict[str, Any] = {"machine": machine(), "errors": {}}
    for worker in asked.parts.split(","):
        left = 60 * asked.minutes - (time.monotonic() - started)
        if left < 10:
            found["errors"][worker] = "not started: --minutes is over"
            continue
        words = [sys.executable, __file__, f"--worker={worker}", f"--place={place}"]
        words += ["--tiny"] * asked.tiny
        words += [f"--batches={asked.batches}"] * (asked.batches is not None)
        words += [f"--published={asked.published}"] * (asked.published is not None)
        print(f"{worker} …", file=sys.stderr, flush=True)
        began = time.monotonic()
        try:
            done = subprocess.run(words, capture_output=True, text=True, timeout=left, check=False)
            said, code = done.stdout + done.stderr, done.returncode
        except subprocess.TimeoutExpired as error:
            said, code = f"{error.stdout}\n{error.stderr}", 124
        lines = place / f"{worker}.jsonl"  # what was found before a failure counts
        if lines.is_file():
            for line in lines.read_text().splitlines():
                found.setdefault(worker.partition("-")[0], []).append(json.loads(line))
        if code:
            found["errors"][worker] = f"exit code {code}: {said[-2000:]}"
        print(f"{worker}: {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)
    found["seconds"] = time.monotonic() - started
    return found


def work(asked: argparse.Namespace) -> None:
    """Run one part; each finding is a line of a file."""
    name, _, precision = asked.worker.partition("-")
    sizes = sizes_of(asked)
    place = asked.place.resolve()
    os.chdir(place)
    with (place / f"{asked.worker}.jsonl").open("w") as stream:

        def keep(**finding: Any) -> None:
            stream.write(json.dumps(finding) + "\n")
            stream.flush()

        if name == "speed":
            speed(sizes, precision, keep)
        elif name == "published":
            published(sizes, asked.published, keep)
        else:
            {"rates": rates, "equality": equality, "train": train, "strategies": strategies}[name](
                sizes, keep
            )


Keep = Callable[..., None]


# Data and runs ------------------------------------------------------------------------------------


def make_recordings(folder: Path, frames: int, count: int) -> None:
    """Write simulated recordings of two mice, with the keypoints of CalMS21."""
    from lisbet.data.hub._simulate import FPS, INDIVIDUALS, KEYPOINTS, simulate

    simulated = simulate([frames // count] * count, seed=1)
    for number, recording in enumerate(simulated):
        (folder / f"r{number:02}").mkdir(parents=True)
        xr.Dataset(
            {"position": (("time", "space", "keypoints", "individuals"), recording.position)},
            coords={
                "time": np.arange(len(recording.position)) / FPS,
                "space": ["x", "y"],
                "keypoints": list(KEYPOINTS),
                "individuals": list(INDIVIDUALS),
            },
            attrs={"fps": float(FPS)},
        ).to_netcdf(folder / f"r{number:02}" / "tracking.nc")


def options_of(sizes: Sizes, batch: int, *words: str, data: str = "few") -> Any:
    """Return the checked options of a training run."""
    from lisbet.cli import parse

    words = (*sizes.network, f"--window_size={sizes.window}", f"--batch_size={batch}", *words, data)
    return parse(["train_model", *words]).options  # type: ignore[union-attr]


def made_trainer(sizes: Sizes, accelerator: Any, batch: int, *words: str) -> Any:
    """Build a run as train_model does, short of its folder."""
    from lisbet.training.run_folder import with_run_id
    from lisbet.training.stopping import StopSignal
    from lisbet.training.train import make_trainer

    options = with_run_id(options_of(sizes, batch, f"--data_augmentation={AUGMENTATION}", *words))
    trainer, _, _ = make_trainer(accelerator, options, StopSignal())
    trainer.set_train_mode()
    return trainer


def device() -> torch.device:
    """Return the device that is measured."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def wait() -> None:
    """Wait for the device."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def seconds_of(call: Callable[[], Any], least: float) -> float:
    """Return the seconds of a call: the median of batches of calls, after a warm-up."""
    for _ in range(3):
        call()
    wait()
    began = time.perf_counter()
    call()
    wait()
    once = max(time.perf_counter() - began, 1e-6)
    count = max(1, round(least / once / 5))
    times = []
    for _ in range(5):
        began = time.perf_counter()
        for _ in range(count):
            call()
        wait()
        times.append((time.perf_counter() - began) / count)
    return statistics.median(times)


# Parts --------------------------------------------------------------------------------------------


def machine() -> dict[str, Any]:
    """Describe device and software."""
    facts: dict[str, Any] = {
        "python": sys.version.split()[0],
        "torch": torch.__version__,
        "cpu_cores": len(os.sched_getaffinity(0)),
        "device": "CPU",
    }
    if torch.cuda.is_available():
        properties = torch.cuda.get_device_properties(0)
        facts |= {
            "device": properties.name,
            "memory_gb": properties.total_memory / 1e9,
            "cuda": torch.version.cuda,
        }
    return facts


def rates(sizes: Sizes, keep: Keep) -> None:
    """Measure the card: matrix product, copy, and the attention of the network by back end."""
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.nn.functional import scaled_dot_product_attention

    on = device()
    size = sizes.product
    a, b = (torch.randn(size, size, device=on, dtype=torch.bfloat16) for _ in "ab")
    keep(what="bf16 matrix product, TFLOP/s",
         value=2 * size**3 / seconds_of(lambda: a @ b, sizes.seconds) / 1e12)  # fmt: skip
    source = torch.randn(size * size, device=on)
    target = torch.empty_like(source)
    copied = seconds_of(lambda: target.copy_(source), sizes.seconds)
    keep(what="copy on the device, GB/s, read and written", value=8 * size**2 / copied / 1e9)
    heads, width = (2, 4) if sizes.product == TINY.product else (8, 8)
    windows = 4 * sizes.batches[min(1, len(sizes.batches) - 1)]
    for dtype in (torch.float32, torch.bfloat16):
        for backend in (SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION,
                        SDPBackend.CUDNN_ATTENTION, SDPBackend.MATH):  # fmt: skip
            q, k, v = (
                torch.randn(windows, heads, sizes.window, width, device=on, dtype=dtype,
                            requires_grad=True)
                for _ in "qkv"
            )  # fmt: skip
            grad = torch.randn_like(q)

            def call(q: Any = q, k: Any = k, v: Any = v, grad: Any = grad,
                     backend: Any = backend) -> None:  # fmt: skip
                with sdpa_kernel(backend):
                    scaled_dot_product_attention(q, k, v).backward(grad)

            try:
                ms = 1e3 * seconds_of(call, sizes.seconds / 4)
            except RuntimeError:
                continue  # this back end does not do it
            keep(what=f"attention of {windows} windows, {backend.name}, {dtype}, ms", value=ms)


def equality(sizes: Sizes, keep: Keep) -> None:
    """Compare CPU and GPU: samples bit by bit, losses and weights over 20 steps, in float32."""
    from lisbet.distributed.failure_watch import distributed_session
    from lisbet.training.evaluate import forward
    from lisbet.training.inputs import TrainingInputs
    from lisbet.training.optim import make_optimizer
    from lisbet.training.run_folder import with_run_id
    from lisbet.training.scores import Scores
    from lisbet.training.train import build

    options = with_run_id(
        options_of(sizes, sizes.batches[0], f"--data_augmentation={AUGMENTATION}")
    )
    with distributed_session("no"):
        pass  # reading recordings asks for the number of processes
    sides = []
    for on in (torch.device("cpu"), device()):
        setup = TrainingInputs.from_options(options, on)
        torch.manual_seed(1)
        model = build(setup, options).to(on)
        optimizer = make_optimizer(model, 1e-4, 0.01)
        sides.append((setup, model, optimizer, Scores(setup.tasks, on)))
    same, losses = True, []
    rows = slice(0, sizes.batches[0])
    for step in range(20):
        pair = []
        for setup, model, optimizer, scores in sides:
            batch = setup.train.batch(0, step, rows)
            loss = scores.losses_of(forward(model, batch), batch)
            loss.sum().backward()
            optimizer.step()
            optimizer.zero_grad()
            pair.append((batch, loss.detach().cpu()))
        for task, (windows, labels) in pair[0][0].items():
            theirs = pair[1][0][task]
            same &= torch.equal(windows.cpu(), theirs[0].cpu())
            same &= torch.equal(labels.cpu(), theirs[1].cpu())
        losses.append(float(((pair[0][1] - pair[1][1]).abs() / pair[0][1]).max()))
    keep(what="samples of 20 steps are bit by bit the same", value=same)
    keep(what="largest relative difference of a loss, first step", value=losses[0])
    keep(what="largest relative difference of a loss, 20 steps", value=max(losses))
    if torch.cuda.is_available():
        keep(
            what="operations of a training step that wait for the GPU", value=waits_of_a_step(sizes)
        )


def waits_of_a_step(sizes: Sizes) -> str:
    """Return what in a training step makes this process wait for the GPU, or "none"."""
    import warnings

    from lisbet.distributed.failure_watch import distributed_session

    with distributed_session("no") as accelerator:
        trainer = made_trainer(sizes, accelerator, sizes.batches[0])
        for _ in range(2):
            trainer.train_step()
        torch.cuda.set_sync_debug_mode("warn")
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            trainer.train_step()
        torch.cuda.set_sync_debug_mode("default")
    places = [f"{Path(w.filename).name}:{w.lineno}" for w in caught if "synchron" in str(w.message)]
    return ", ".join(dict.fromkeys(places)) or "none"


def speed(sizes: Sizes, precision: str, keep: Keep) -> None:
    """Time training steps, over batch size and mode, in one precision."""
    from lisbet.distributed.failure_watch import distributed_session

    torch.backends.cuda.matmul.allow_tf32 = precision == "TF32"  # as --tf32 does
    with distributed_session("bf16" if precision == "bf16" else "no") as accelerator:
        for mode in MODES:
            for batch in sizes.batches:
                facts = {"precision": precision, "mode": mode, "batch": batch}
                if mode == "compile" and batch not in sizes.compiled:
                    continue  # each shape is compiled for up to a minute
                try:
                    if torch.cuda.is_available():
                        torch.cuda.empty_cache()
                        torch.cuda.reset_peak_memory_stats()
                    trainer = made_trainer(sizes, accelerator, batch)
                    facts |= timed(trainer, mode, sizes)
                    del trainer
                except Exception as error:
                    traceback.print_exc()
                    facts["error"] = f"{type(error).__name__}: {error}".splitlines()[0][:200]
                keep(**facts)


def timed(trainer: Any, mode: str, sizes: Sizes) -> dict[str, Any]:
    """Return what a training step of a mode costs."""
    began = time.perf_counter()
    if mode == "compile":
        trainer.strategy.model = torch.compile(trainer.strategy.model)  # as --compile does

    def step() -> None:
        trainer.step %= trainer.steps_per_epoch
        trainer.train_step()

    if mode == "graph":
        step = graphed(trainer)
    step()
    wait()
    facts: dict[str, Any] = {"first_step_s": time.perf_counter() - began}
    spent = seconds_of(step, sizes.seconds)
    windows = 4 * trainer.options.batch_size
    facts |= {
        "step_ms": 1e3 * spent,
        "windows_per_s": windows / spent,
        "passes": len(trainer.micro_batches),
    }
    if torch.cuda.is_available():
        facts["memory_gb"] = torch.cuda.max_memory_allocated() / 1e9
        facts["not_in_kernels"] = 1 - kernel_seconds(step) / spent
    facts["flop_per_window"] = flop_of(trainer) / windows
    return facts


def kernel_seconds(step: Callable[[], None], steps: int = 3) -> float:
    """Return the seconds of a step in which the device ran a kernel or a copy."""
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CUDA]) as profiled:
        for _ in range(steps):
            step()
        wait()
    spans = sorted(
        (event.time_range.start, event.time_range.end)
        for event in profiled.events()
        if event.device_type == torch.autograd.DeviceType.CUDA
    )
    busy, until = 0.0, 0.0
    for start, end in spans:
        busy += max(0.0, end - max(start, until))
        until = max(until, end)
    return busy / 1e6 / steps


def flop_of(trainer: Any) -> float:
    """Return the floating-point operations of a step: matrix products of forward and backward.

    A multiply and an add count as two; backward counts as twice the forward.
    """
    sizes = trainer.inputs.config.backbone
    frames, width = trainer.inputs.config.window.size, sizes["embedding_dim"]
    layer = 2 * width * (4 * width + 2 * sizes["hidden_dim"]) + 4 * frames * width
    forward = frames * (sizes["num_layers"] * layer + 2 * width * sizes["feature_dim"])
    return 3.0 * forward * 4 * trainer.options.batch_size


def graphed(trainer: Any) -> Callable[[], None]:
    """Capture forward, backward and optimizer of one pass as a CUDA graph; return the step."""
    from lisbet.training.evaluate import forward

    if not torch.cuda.is_available():
        raise RuntimeError("needs a CUDA device")
    if len(trainer.micro_batches) > 1:
        raise RuntimeError("the batch does not fit in one micro-batch")
    optimizer = torch.optim.AdamW(
        trainer.strategy.network.parameters(),
        lr=torch.tensor(1e-4, device="cuda"),
        capturable=True,
        fused=True,
    )
    static = trainer.sampler.batch(0, 0, trainer.micro_batches[0])

    def compute() -> None:
        with trainer.accelerator.autocast():
            losses = trainer.scores.losses_of(forward(trainer.strategy.network, static), static)
        losses.sum().backward()
        optimizer.step()

    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            compute()
            optimizer.zero_grad(set_to_none=False)
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        compute()
        optimizer.zero_grad(set_to_none=False)
    number = 0

    def step() -> None:
        nonlocal number
        number = (number + 1) % trainer.steps_per_epoch
        fresh = trainer.sampler.batch(0, number, trainer.micro_batches[0])
        for task, pair in static.items():
            for old, new in zip(pair, fresh[task], strict=True):
                old.copy_(new)
        graph.replay()

    return step


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


def published(sizes: Sizes, python: str | None, keep: Keep) -> None:
    """Time an epoch of the published tool, if there is a Python that has it."""
    if python is None:
        return
    began = time.monotonic()
    done = subprocess.run(
        [python, "-m", "lisbet.cli", "train_model", "few", *sizes.network, "--epochs=1",
         f"--window_size={sizes.window}", "--batch_size=128"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        raise RuntimeError(done.stderr[-1500:])
    keep(what="seconds of the published tool for the small dataset", value=time.monotonic() - began)


# Report -------------------------------------------------------------------------------------------


def report(found: dict[str, Any]) -> str:
    """Return the tables as Markdown."""
    lines = [", ".join(f"{key} {shown(value)}" for key, value in found["machine"].items()), ""]
    for part in ("rates", "equality", "train", "published"):
        if rows := found.get(part):
            lines += [f"| {part} | |", "|---|---|"]
            lines += [f"| {row['what']} | {shown(row['value'])} |" for row in rows]
            lines.append("")
    lines += speed_table(found)
    if rows := found.get("strategies"):
        lines += ["| strategy | windows/s | memory, GB | train loss | seconds with start-up |",
                  "|---|---|---|---|---|"]  # fmt: skip
        for row in rows:
            cells = [
                row.get(key) for key in ("windows_per_s", "memory_gb", "train_loss", "seconds")
            ]
            failed = f"failed: {row.get('error', '').splitlines()[-1:]}"
            lines.append(f"| {row['what']} | " + " | ".join(
                [failed, "", "", ""] if "error" in row else map(shown, cells)) + " |")  # fmt: skip
        lines.append("")
    for part, error in found["errors"].items():
        lines += [f"{part} failed:", "```", error, "```", ""]
    lines.append(f"{found['seconds']:.0f} s in all")
    return "\n".join(lines) + "\n"


def speed_table(found: dict[str, Any]) -> list[str]:
    """Return the table of training steps, and what they mean for the specification's epoch."""
    rows = found.get("speed", [])
    if not rows:
        return []
    peak = {row["what"]: row["value"] for row in found.get("rates", [])}
    product = peak.get("bf16 matrix product, TFLOP/s")
    lines = [
        "| precision | mode | batch for each task | micro-batches | step, ms | windows/s | "
        "not in kernels | TFLOP/s | of the bf16 rate | memory, GB | first step, s |",
        "|" + "---|" * 11,
    ]
    for row in rows:
        start = f"| {row['precision']} | {row['mode']} | {row['batch']} | "
        if "error" in row:
            lines.append(f"{start}| | {row['error']} | | | | | |")
            continue
        rate = row["windows_per_s"] * row["flop_per_window"] / 1e12
        share = f"{rate / product:.1%}" if product else ""
        kernels = f"{row['not_in_kernels']:.0%}" if "not_in_kernels" in row else ""
        lines.append(
            f"{start}{row['micro_batches']} | {row['step_ms']:.2f} | {row['windows_per_s']:,.0f} | "
            f"{kernels} | {rate:.2f} | {share} | {row.get('memory_gb', 0):.2f} | "
            f"{row['first_step_s']:.1f} |"
        )
    if not (best := max(row.get("windows_per_s", 0) for row in rows)):
        return [*lines, ""]
    epoch = f"{EPOCH_WINDOWS:,} windows at the best rate: {EPOCH_WINDOWS / best:.1f} s"
    return [*lines, "", f"An epoch of {epoch}; the specification says {SPECIFIED_S} s.", ""]


def shown(value: Any) -> str:
    """Return a number as a table shows it."""
    if isinstance(value, bool) or not isinstance(value, float):
        return str(value)
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


if __name__ == "__main__":
    main()
