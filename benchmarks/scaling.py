"""How a step scales: measured for 1 and 2 processes here, predicted for 8 and 64 GPUs.

Each process has one core, as a GPU is one device. Strong scaling keeps the global batch, weak
scaling keeps the windows of each process. Bytes are those that the loopback interface carried. The
prediction is arithmetic with the assumptions that it prints; what of it can be measured here stands
beside it.

    python benchmarks/scaling.py [--batch_size 16] [--steps 6] [--tflops 40] …
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

SPEC = ["--emb_dim=64", "--num_layers=8", "--num_heads=8", "--hidden_dim=256"]
"""The network of the README's training example for CalMS21."""


def main() -> None:
    """Measure, predict, and print both."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batch_size", type=int, default=16, help="windows of each task in a step")
    parser.add_argument("--steps", type=int, default=6, help="steps that are timed")
    parser.add_argument("--tflops", type=float, default=40, help="of one GPU, as reached")
    parser.add_argument("--overhead_ms", type=float, default=15, help="host time of a GPU's step")
    parser.add_argument("--node_gb_s", type=float, default=200, help="all-reduce within a node")
    parser.add_argument("--net_gb_s", type=float, default=20, help="all-reduce between nodes")
    parser.add_argument("--latency_us", type=float, default=20, help="of one hop of the ring")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.worker:
        work(asked)
        return
    with tempfile.TemporaryDirectory() as place:
        betman = [sys.executable, "-m", "lisbet", "fetch_dataset", "SampleData"]
        subprocess.run(betman, cwd=place, check=True, stdout=subprocess.DEVNULL)
        size = asked.batch_size
        runs = {
            "1 process": measure(1, size, asked.steps, place),
            "2 processes, same batch": measure(2, size, asked.steps, place),
            "2 processes, twice the batch": measure(2, 2 * size, asked.steps, place),
        }
    report(runs, size)
    predict(runs, asked)


def report(runs: dict[str, dict[str, Any]], size: int) -> None:
    """Print what was measured."""
    one = runs["1 process"]
    print(f"{one['parameters']} parameters, W 200, {one['features']} features, 4 tasks, one core "
          f"for each process, {size} windows of each task in a batch; medians\n")  # fmt: skip
    print("| run | step, s | of it communication, s | bytes per step and process | efficiency |")
    print("|---|---|---|---|---|")
    for name, run in runs.items():
        weak = "twice" in name
        efficiency = one["step"] / run["step"] / (1 if weak or name == "1 process" else 2)
        print(f"| {name} | {run['step']:.3f} | {run['wait']:.3f} | {run['bytes']:,.0f} | "
              f"{efficiency:.0%} |")  # fmt: skip


def predict(runs: dict[str, dict[str, Any]], asked: argparse.Namespace) -> None:
    """Print what the arithmetic says, here and for GPUs."""
    one, two = runs["1 process"], runs["2 processes, same batch"]
    gradient = 4 * one["parameters"]
    rate = one["flop"] / one["step"]
    said_bytes = ring_bytes(gradient, 2)
    said_step = one["flop"] / 2 / rate + said_bytes / two["bandwidth"]
    print(f"\nFLOP of a step: {one['flop'] / 1e9:.1f} G (forward and backward, as PyTorch counts, "
          "and the products of the attention)")  # fmt: skip
    print(f"\n| checked here, 2 processes | predicted | measured |\n|---|---|---|\n"
          f"| bytes per step and process | {said_bytes:,.0f} | {two['bytes']:,.0f} |\n"
          f"| step, s | {said_step:.3f} | {two['step']:.3f} |")  # fmt: skip
    print(f"\nAssumed for GPUs: {asked.tflops:g} TFLOP/s reached, {asked.overhead_ms:g} ms of host "
          f"time in a step, all-reduce at {asked.node_gb_s:g} GB/s within a node and "
          f"{asked.net_gb_s:g} GB/s between nodes, {asked.latency_us:g} µs for each hop of a ring, "
          "nothing overlaps.\n")  # fmt: skip
    print(
        "| devices | global batch | step, ms | of it communication, ms | windows/s | efficiency |"
    )
    print("|---|---|---|---|---|---|")
    flop = one["flop"] / (4 * asked.batch_size)
    for batch in (128, 1024, 8192):
        alone = 0.0
        for devices in (1, 8, 64):
            if batch % devices:
                continue
            compute = 4 * batch / devices * flop / (asked.tflops * 1e12) + asked.overhead_ms / 1e3
            speed = (asked.node_gb_s if devices <= 8 else asked.net_gb_s) * 1e9
            sent = ring_bytes(gradient, devices) / speed
            sent += 2 * (devices - 1) * asked.latency_us / 1e6
            step = compute + sent
            windows = 4 * batch / step
            alone = alone or windows
            print(f"| {devices} | {batch} | {1e3 * step:.2f} | {1e3 * sent:.2f} | {windows:,.0f} | "
                  f"{windows / alone / devices:.0%} |")  # fmt: skip


def ring_bytes(gradient: int, processes: int) -> float:
    """Return the bytes that each process sends in a ring all-reduce (Patarasuk & Yuan, 2009)."""
    return 2 * (processes - 1) / processes * gradient


def measure(processes: int, batch_size: int, steps: int, place: str) -> dict[str, Any]:
    """Run workers and return what the first one found."""
    with tempfile.NamedTemporaryFile(suffix=".json") as out:
        subprocess.run(
            [sys.executable, "-m", "torch.distributed.run", f"--nproc_per_node={processes}",
             __file__, f"--worker={out.name}", f"--batch_size={batch_size}", f"--steps={steps}"],
            cwd=place, check=True, env={**os.environ, "OMP_NUM_THREADS": "1"},
        )  # fmt: skip
        found: dict[str, Any] = json.loads(Path(out.name).read_text())
    return found


def work(asked: argparse.Namespace) -> None:
    """Time the steps of real training: sampling, forward, backward, exchange, optimizer."""
    from torch.utils.flop_counter import FlopCounterMode

    from lisbet.cli import parse
    from lisbet.distributed.failure_watch import distributed_session
    from lisbet.training.datasets.batching import Batching
    from lisbet.training.evaluate import forward
    from lisbet.training.inputs import TrainingInputs
    from lisbet.training.optim import make_optimizer
    from lisbet.training.scores import Scores
    from lisbet.training.strategies import strategy_of
    from lisbet.training.train import build

    words = ["train_model", *SPEC, f"--batch_size={asked.batch_size}", "datasets/SampleData"]
    options = parse(words).options  # type: ignore[union-attr]
    with distributed_session() as accelerator:
        torch.set_num_threads(1)
        inputs = TrainingInputs.from_options(options, accelerator.device)
        batching = Batching.of(asked.batch_size, accelerator.num_processes, None)
        (rows,) = batching.micro_batches(accelerator.process_index)
        network = build(inputs, options)
        scores = Scores(inputs.tasks, accelerator.device)
        strategy = strategy_of(accelerator)
        strategy.prepare(network, make_optimizer(network, 1e-4, 0.01), batching, None)
        model, optimizer = strategy.model, strategy.optimizer

        def step(number: int) -> None:
            batch = inputs.train.batch(0, number, rows)
            accelerator.backward(scores.losses_of(forward(model, batch), batch).sum())
            optimizer.step()
            optimizer.zero_grad()

        with FlopCounterMode(display=False) as counter:
            step(0)
        times, before = [], 0
        for number in range(1, asked.steps + 1):
            accelerator.wait_for_everyone()
            before = before or loopback_bytes()
            started = time.perf_counter()
            step(number)
            times.append(time.perf_counter() - started)
        carried = (loopback_bytes() - before) / asked.steps / accelerator.num_processes
        parameters = sum(weight.numel() for weight in network.parameters())
        wait = exchange_seconds(accelerator, parameters)
        found = {
            "step": statistics.median(times),
            "wait": wait,
            "bytes": carried if accelerator.num_processes > 1 else 0,
            "bandwidth": ring_bytes(4 * parameters, 2) / wait if wait else 0,
            "parameters": parameters,
            "features": inputs.config.input_features.size,
            "flop": counter.get_total_flops() * accelerator.num_processes
            + attention_flop(inputs, 4 * asked.batch_size),
        }
        if accelerator.is_main_process:
            Path(asked.worker).write_text(json.dumps(found))


def exchange_seconds(accelerator: Any, parameters: int) -> float:
    """Return the time of an all-reduce of so many numbers; 0 on one process."""
    import torch.distributed as dist

    if not dist.is_initialized():
        return 0.0
    gradient, times = torch.zeros(parameters), []
    for _ in range(5):
        accelerator.wait_for_everyone()
        started = time.perf_counter()
        dist.all_reduce(gradient)
        times.append(time.perf_counter() - started)
    return statistics.median(times)


def attention_flop(inputs: Any, windows: int) -> float:
    """Return what PyTorch does not count on a CPU: queries by keys, weights by values.

    Each takes 2 W² E, in every layer and window; backward takes twice as much as forward.
    """
    sizes, length = inputs.config.backbone, inputs.config.window_size
    return 3 * 2 * 2 * length**2 * sizes["embedding_dim"] * sizes["num_layers"] * windows


def loopback_bytes() -> int:
    """Return the bytes that the loopback interface has carried since the machine started."""
    lines = Path("/proc/net/dev").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.strip().startswith("lo:"))


if __name__ == "__main__":
    main()
