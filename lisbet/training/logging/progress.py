"""Progress of a run: a bar on a terminal, plain lines elsewhere."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from lisbet.core.console import stderr_console
from lisbet.distributed import environment

LINE_EVERY_S = 30.0
"""Seconds between two lines within an epoch, where there is no terminal."""


class ProgressReporter:
    """Shows the progress of a run, on the main process.

    Parameters
    ----------
    epochs, steps : int
        Length of the run, and steps of one epoch.
    windows : int
        Windows in one step, of all tasks.
    prints : bool
        Whether anything is shown, on this process.
    """

    def __init__(self, epochs: int, steps: int, windows: int, *, prints: bool) -> None:
        self.epochs, self.steps, self.windows = epochs, steps, windows
        self.console = stderr_console(quiet=not prints)
        self.started = time.monotonic()
        self.speed, self.finished_here = 0.0, 0

    @contextmanager
    def epoch(self, epoch: int, done: int = 0) -> Iterator["Ticker"]:
        """Show the steps of one epoch, of which some may be done; call the ticker after each."""
        ticker = Ticker(self, epoch, done)
        with ticker.progress:
            yield ticker
        self.speed = ticker.rate()

    def finished(self, epoch: int, row: dict[str, float]) -> None:
        """Print the line of a finished epoch."""
        spent = time.monotonic() - self.started
        self.finished_here += 1
        left = spent / self.finished_here * (self.epochs - epoch - 1)
        self.print(
            f"epoch {epoch + 1}/{self.epochs}  {_scores(row)}  "
            f"{self.speed:.0f} windows/s  {_clock(left)} left"
        )

    def print(self, line: str) -> None:
        """Print a line; without a terminal, with time and rank like a log."""
        if self.console.is_terminal:
            self.console.print(line)  # wrapped between words
            return
        line = f"{time.strftime('%Y-%m-%d %H:%M:%S')} \\[rank {environment.rank()}] {line}"
        self.console.print(line, soft_wrap=True)


class Ticker:
    """Counts the steps of one epoch."""

    def __init__(self, reporter: ProgressReporter, epoch: int, done: int) -> None:
        self.reporter, self.name = reporter, f"epoch {epoch + 1}/{reporter.epochs}"
        self.progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]:.0f} windows/s"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=reporter.console,
            transient=True,
            disable=not reporter.console.is_terminal,
        )
        self.bar = self.progress.add_task(self.name, total=reporter.steps, completed=done, rate=0.0)
        self.done = self.before = done
        self.started = self.printed = time.monotonic()

    def rate(self) -> float:
        """Return the windows per second since the epoch began."""
        done = self.done - self.before
        return done * self.reporter.windows / max(time.monotonic() - self.started, 1e-9)

    def __call__(self) -> None:
        """Count a step."""
        self.done += 1
        self.progress.update(self.bar, advance=1, rate=self.rate())
        console = self.reporter.console
        if not console.is_terminal and time.monotonic() - self.printed > LINE_EVERY_S:
            self.printed = time.monotonic()
            self.reporter.print(
                f"{self.name}  step {self.done}/{self.reporter.steps}  {self.rate():.0f} windows/s"
            )


def _scores(row: dict[str, float]) -> str:
    """Pick the numbers of an epoch that a person watches: total losses, and scores by task."""
    shown = []
    for part in ("train", "dev"):
        if f"{part}_loss" in row:
            shown.append(f"{part}: loss {row[f'{part}_loss']:.3f}")
            shown += [
                f"{name.split('_')[0]} {value:.3f}"
                for name, value in row.items()
                if f"_{part}_" in name and not name.endswith("_loss")
            ]
    return " ".join(shown)


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}"
