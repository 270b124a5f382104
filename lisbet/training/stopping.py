"""When to stop or save: what any process was told, agreed by all at the same step."""

import os
import signal
import sys
import time
from types import FrameType, TracebackType
from typing import Any, Self

import torch
import torch.distributed as dist

from lisbet.core.errors import StoppedError
from lisbet.distributed import stop_signals

UNTOUCHED = "nothing was written"

TWICE_S = 1.0
"""A terminal and a launcher send the same interrupt; later ones are meant as a second one."""


class Stops:
    """Takes signals as wishes to stop at the next step; a second interrupt stops at once.

    Attributes
    ----------
    reason : str
        What asked for the stop, for people; empty while nothing has.
    running : bool
        Whether there are steps to wait for. Before, a signal stops at once: nothing is written yet.
    """

    def __init__(self) -> None:
        self.reason = ""
        self.running = False
        self._interrupted: float | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        self._before = stop_signals.install(self._take)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        stop_signals.restore(self._before)

    def _take(self, number: int, frame: FrameType | None) -> None:
        del frame
        now = time.monotonic()
        if number == signal.SIGINT:
            if self._interrupted is not None and now - self._interrupted > TWICE_S:
                print("betman: error: interrupted", file=sys.stderr, flush=True)
                os._exit(128 + number)  # not even a checkpoint that is being written is waited for
            self._interrupted = now if self._interrupted is None else self._interrupted
        self.reason = signal.Signals(number).name
        if not self.running:
            raise StoppedError(f"stopped by {self.reason} before the first step; {UNTOUCHED}")


class Agreement:
    """Lets processes agree on flags, without waiting for their devices."""

    def __init__(self) -> None:
        several = dist.is_initialized() and dist.get_world_size() > 1
        self._group = dist.new_group(backend="gloo") if several else None

    def any(self, *flags: bool) -> list[bool]:
        """Return which flags are up on any process. All must call it."""
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
