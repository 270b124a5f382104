"""Time the operation by which processes add up their gradients."""

import statistics
import time
from dataclasses import dataclass

import torch
import torch.distributed as dist

from lisbet.core.errors import ProcessError

SMALL = 8
"""Bytes whose time is the latency."""
SIZES = (2**10, 2**15, 2**20, 2**25)
LARGE = 2**28
"""Bytes; on GPUs only."""
BLOCKS = 5
"""A time is the median of so many blocks of calls."""
SECONDS = 1.0
"""How long each size is measured, approximately."""
MOST_CALLS = 200


@dataclass(frozen=True)
class Reduction:
    """Time of an all-reduce.

    Parameters
    ----------
    size : int
        Bytes that each process has.
    seconds : float
        Until all have the sum.
    processes : int
        How many they are.
    """

    size: int
    seconds: float
    processes: int

    @property
    def algorithm_bandwidth(self) -> float:
        """Bytes per second: size by time."""
        return self.size / self.seconds

    @property
    def bus_bandwidth(self) -> float:
        """Bytes per second that a link carries, if each process has one.

        Whatever the algorithm, each process must send and receive 2 (n - 1) / n of its bytes for
        an all-reduce of n processes; the definition is that of NVIDIA's nccl-tests
        (doc/PERFORMANCE.md), whose figures this can be compared to.
        """
        return self.algorithm_bandwidth * 2 * (self.processes - 1) / self.processes


def check_sum(device: torch.device) -> None:
    """Add up a number of each process, and compare to the sum that must come out.

    Raises
    ------
    ProcessError
        If it is another one.
    """
    size = dist.get_world_size()
    values = torch.full((1024,), float(dist.get_rank() + 1), device=device)
    dist.all_reduce(values)
    expected = size * (size + 1) / 2
    if not bool((values == expected).all()):
        raise ProcessError(
            f"an all-reduce of the numbers 1 to {size} gave {values[0].item():g} instead of "
            f"{expected:g}: this network or driver changes data; NCCL_DEBUG=INFO says which "
            "way it went"
        )


def measure(device: torch.device) -> list[Reduction]:
    """Time all-reduces of several sizes; the first one is the latency. All processes take part."""
    sizes = (SMALL, *SIZES) if device.type == "cpu" else (SMALL, *SIZES, LARGE)
    return [Reduction(size, _seconds(size, device), dist.get_world_size()) for size in sizes]


def _seconds(size: int, device: torch.device) -> float:
    values = torch.zeros(size // 4, device=device)
    dist.all_reduce(values)
    once = _timed(values, 1)
    calls = torch.tensor([max(1, min(MOST_CALLS, round(SECONDS / BLOCKS / max(once, 1e-9))))])
    calls = calls.to(device)
    dist.broadcast(calls, src=0)  # the same number on all
    return statistics.median(_timed(values, int(calls)) for _ in range(BLOCKS))


def _timed(values: torch.Tensor, calls: int) -> float:
    _wait(values.device)
    began = time.perf_counter()
    for _ in range(calls):
        dist.all_reduce(values)
    _wait(values.device)
    return (time.perf_counter() - began) / calls


def _wait(device: torch.device) -> None:
    if device.type != "cpu":
        torch.accelerator.synchronize(device)
