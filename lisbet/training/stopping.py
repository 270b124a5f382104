"""When to stop or save: signals and the time limit, and flags that all processes agree on."""

import os
import signal
import sys
import time
from types import FrameType, TracebackType
from typing import Any, Self

import torch
import torch.distributed as dist

from lisbet.core.errors import StoppedError
from lisbet.core.option_values import Hours
from lisbet.distributed import stop_signals

UNTOUCHED = "nothing was written"

SAME_INTERRUPT_S = 1.0
"""A terminal and a launcher send the same interrupt; a later one is a second interrupt."""


class StopSignal:
    """Requests to stop after the current step: a signal, or a time limit.

    A second interrupt ends the process at once.

    Parameters
    ----------
    max_time : Hours, optional
        Time limit, counted from here.

    Attributes
    ----------
    reason : str
        What requested the stop, for messages; empty if nothing has.
    running : bool
        Whether training has begun. Before, a signal stops at once: nothing was written yet.
    """

    def __init__(self, max_time: Hours | None = None) -> None:
        self.max_time = max_time
        self.reason = ""
        self.running = False
        self._started = time.monotonic()
        self._interrupted: float | None = None
        self._previous: dict[int, Any] = {}

    def is_requested(self) -> bool:
        """Whether this process was asked to stop, or its time is over."""
        limit = self.max_time
        if limit is not None and time.monotonic() - self._started > limit.seconds:
            self.reason = f"--max_time={limit}"
        return bool(self.reason)

    def __enter__(self) -> Self:
        self._previous = stop_signals.install(self._receive)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        stop_signals.restore(self._previous)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        del frame
        now = time.monotonic()
        if number == signal.SIGINT:
            if self._interrupted is not None and now - self._interrupted > SAME_INTERRUPT_S:
                print("betman: error: interrupted", file=sys.stderr, flush=True)
                os._exit(128 + number)  # without waiting for a checkpoint that is being written
            self._interrupted = now if self._interrupted is None else self._interrupted
        self.reason = signal.Signals(number).name
        if not self.running:
            raise StoppedError(f"stopped by {self.reason} before the first step; {UNTOUCHED}")


class ProcessFlags:
    """All-reduce of flags between the processes, over the CPU: no process waits for its GPU."""

    def __init__(self) -> None:
        several = dist.is_initialized() and dist.get_world_size() > 1
        self._group = dist.new_group(backend="gloo") if several else None

    def any(self, *flags: bool) -> list[bool]:
        """Return which flags are set on any process. All must call it."""
        if self._group is None:
            return list(flags)
        table = torch.tensor(flags, dtype=torch.int32)
        dist.all_reduce(table, dist.ReduceOp.MAX, group=self._group)
        return [bool(flag) for flag in table.tolist()]

    def gather(self, values: torch.Tensor) -> torch.Tensor:
        """Return the values (n,) of all processes: (processes, n), on the CPU. All must call it."""
        if self._group is None:
            return values[None]
        table = [torch.empty_like(values) for _ in range(dist.get_world_size())]
        dist.all_gather(table, values, group=self._group)
        return torch.stack(table)
