"""The signals that ask a run to save and stop. Needs no torch."""

import signal
from collections.abc import Callable
from types import FrameType
from typing import Any

NAMES = ("SIGTERM", "SIGINT", "SIGUSR1", "SIGUSR2", "SIGHUP")
"""SIGUSR1 and SIGUSR2 come from queues (SLURM, submitit), SIGHUP from a terminal that closes."""


def install(handler: Callable[[int, FrameType | None], None]) -> dict[int, Any]:
    """Let a handler take all signals that ask for a stop.

    A SIGHUP that is ignored stays ignored: ``nohup`` started this process.

    Returns
    -------
    dict
        The previous handlers, by signal number, for `restore`.
    """
    numbers = [getattr(signal, name) for name in NAMES if hasattr(signal, name)]
    if signal.getsignal(signal.SIGHUP) == signal.SIG_IGN:
        numbers.remove(signal.SIGHUP)
    return {number: signal.signal(number, handler) for number in numbers}


def restore(previous: dict[int, Any]) -> None:
    """Install the handlers again that `install` returned."""
    for number, handler in previous.items():
        signal.signal(number, handler)
