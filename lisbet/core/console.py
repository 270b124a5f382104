"""Progress on the terminal of the person who typed the command, and nowhere else."""

import sys
from collections.abc import Iterable
from typing import TypeVar

import rich.progress
from rich.console import Console

Item = TypeVar("Item")


def stderr_console(*, quiet: bool = False) -> Console:
    """Return a console for the standard error, which is a terminal only where that is one.

    Rich would take FORCE_COLOR, which notebooks set for their shell cells, for a terminal: a file
    or a cell would then be filled with progress bars.
    """
    return Console(
        file=sys.stderr, force_terminal=sys.stderr.isatty(), quiet=quiet, highlight=False
    )


def track(items: Iterable[Item], what: str, total: int, *, shown: bool = True) -> Iterable[Item]:
    """Yield items, and show on a terminal how many of them are done.

    Parameters
    ----------
    items : iterable
        What is worked on.
    what : str
        What they are, next to the bar.
    total : int
        How many there are.
    shown : bool
        Whether this process shows progress.
    """
    console = stderr_console()
    return rich.progress.track(
        items, what, total, console=console, transient=True,
        disable=not (shown and console.is_terminal),
    )  # fmt: skip
