"""What one GPU does: the same samples and losses as the CPU, windows per second, one whole run.

    python benchmarks/gpu.py [--out gpu] [--minutes 8] [--parts rates,equality,…] [--tiny]

Prints a report and writes it to OUT/gpu.md, with all numbers in OUT/gpu.json. Parts, each in
processes of its own, so that one that fails leaves the others:

* rates       the card itself: bf16 matrix product, copy, attention of the network's shapes by
              back end
* equality    samples of CPU and GPU compared bit by bit, losses and weights after 20 steps
* speed       windows per second of a training step, over batch size, precision and mode:
              eager (as betman runs), compile (torch.compile), "compile, graphs" (its forward and
              backward replayed as CUDA graphs), graph (forward, backward and optimizer replayed
              as one CUDA graph, without torch.compile)
* train       betman train_model for three epochs of 400,000 windows each, stopped and resumed
* strategies  the same command with each launch file that one GPU can show
* published   the published tool (PyPI lisbet 0.4.3), if --published names an environment that has
              it, see benchmarks/published.py

Needs torch 2.10 or later and a CUDA device. With --tiny everything is made small, so that it also
runs on a CPU, in about a minute; the numbers then say nothing.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from gpu_common import (
    AUGMENTATION,
    TINY,
    Keep,
    Sizes,
    device,
    make_recordings,
    options_of,
    seconds_of,
    sizes_of,
)
from gpu_report import report
from gpu_runs import published, strategies, train
from gpu_steps import speed, waits_of_a_step

PARTS = ("rates", "equality", "speed-bf16", "train", "strategies", "speed-TF32", "speed-float32",
         "published")  # fmt: skip


def main() -> None:
    """Run all parts and report; or one part, in a process of its own."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("gpu"), help="folder of the report")
    parser.add_argument("--minutes", type=float, default=8, help="no part starts later")
    parser.add_argument("--parts", default=",".join(PARTS))
    parser.add_argument("--batches", help="windows of each task in a batch, comma separated")
    parser.add_argument(
        "--published", default=None, help="a virtual environment that has lisbet 0.4.3"
    )
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


if __name__ == "__main__":
    main()
