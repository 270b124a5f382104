"""The GPU benchmark's training steps: time, waiting, kernels, CUDA graphs."""

import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from gpu_common import Keep, Sizes, made_trainer, seconds_of, wait

MODES = ("eager", "compile", "compile, graphs", "graph")


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
                if mode.startswith("compile") and batch not in sizes.compiled:
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
    if mode == "compile, graphs":
        trainer.strategy.model = torch.compile(trainer.strategy.model, mode="reduce-overhead")

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
        "micro_batches": len(trainer.micro_batches),
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
