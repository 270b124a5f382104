"""``betman benchmark``: how fast this machine trains."""

import platform
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import astuple
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object

from lisbet.commands.machine.estimate import as_new_run, number
from lisbet.core.errors import counted
from lisbet.data.hub import sample_data
from lisbet.distributed.cores import cores
from lisbet.distributed.failure_watch import distributed_session
from lisbet.distributed.start import mixed_precision_of
from lisbet.options import BenchmarkOptions
from lisbet.training.measure import StepTimes, flop_of, matrix_product, measure_step
from lisbet.training.stopping import StopSignal
from lisbet.training.train import make_trainer, set_up

SIMULATED_FRAMES = (2000, 3000, 4000)
"""Frames of the simulated recordings; how many there are does not change the time of a step."""


def benchmark(options: BenchmarkOptions) -> None:
    """Measure on all processes, and print what the slowest one of each part took."""
    set_up(options)
    session = distributed_session(options.mixed_precision, compiled=options.compile)
    with session as accelerator, with_recordings(options) as options:
        trainer, description, _ = make_trainer(accelerator, as_new_run(options), StopSignal())
        flop = flop_of(trainer.inputs)
        half = {"bf16": torch.bfloat16, "fp16": torch.float16}
        dtype = half.get(mixed_precision_of(accelerator), torch.float32)
        own = measure_step(trainer, options.seconds)
        product = matrix_product(accelerator.device, dtype, options.seconds)
        found = gather_object([(own, product)])
        rows = [astuple(one) for one, _ in found]
        times = StepTimes(*(max(column) for column in zip(*rows, strict=True)))
        windows = options.batch_size * len(trainer.inputs.tasks)
        total = sum(one for _, one in found)
        name = str(dtype).removeprefix("torch.")
        lines, line = report(times, windows, flop, total, name)
        accelerator.print(f"{description}\n\n{lines}\n\n{machine(accelerator)}: {line}")


@contextmanager
def with_recordings(options: BenchmarkOptions) -> Iterator[BenchmarkOptions]:
    """Return options with simulated recordings, if none are given, while the block runs."""
    if options.data_path:
        yield options
        return
    with tempfile.TemporaryDirectory() as folder:
        sample_data.write(Path(folder), list(SIMULATED_FRAMES))
        yield options.model_copy(update={"data_path": (Path(folder),)})


def report(
    times: StepTimes, windows: int, flop: float, product: float, dtype: str
) -> tuple[str, str]:
    """Return a table, and the line that compares machines.

    Parameters
    ----------
    times : StepTimes
        Of the slowest process.
    windows : int
        Windows of a step, over all processes and tasks.
    flop : float
        Floating-point operations of a window, forward and backward.
    product : float
        Floating-point operations per second of a matrix product, over all devices.
    dtype : str
        Its type.
    """
    parts = {
        "sampling": times.sampling,
        "forward pass": times.forward,
        "forward, backward and optimizer": times.compute,
        "training step": times.step,
    }
    lines = [
        f"{name:32} {1e3 * spent:10.2f} ms {windows / spent:14,.0f} windows/s"
        for name, spent in parts.items()
    ]
    rate = windows * flop / times.step
    lines += [
        f"{'sampling, of a step':32} {times.sampling / times.step:10.1%}",
        f"{'not in network or optimizer':32} {1 - times.compute / times.step:10.1%}",
        f"{'training step':32} {number(rate):>10}FLOP/s",
        f"{f'matrix product, {dtype}':32} {number(product):>10}FLOP/s",
    ]
    line = (
        f"{windows / times.step:,.0f} windows/s, {number(rate)}FLOP/s, "
        f"{rate / product:.1%} of the matrix product"
    )
    return "\n".join(lines), line


def machine(accelerator: Accelerator) -> str:
    """Name this machine and its devices."""
    device = f"CPU with {counted(cores(), 'core')}"
    if accelerator.device.type == "cuda":
        device = torch.cuda.get_device_name(accelerator.device)
    processes = accelerator.num_processes
    count = "" if processes == 1 else f"{processes} processes, "
    return f"{platform.node()}, {count}{device}, torch {torch.__version__}"
