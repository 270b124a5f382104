"""Measures a run and tells its trackers; see `lisbet.training.logging` for where it goes."""

import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import torch

from lisbet.options import TrainOptions
from lisbet.training.logging import Start, Tracker, others
from lisbet.training.logging.events import EVENTS, Events
from lisbet.training.logging.status import FAILED, FINISHED, RUNNING, STOPPED, Status
from lisbet.training.scores import Scores
from lisbet.training.setup import Setup
from lisbet.training.stopping import Agreement

log = logging.getLogger(__name__)


class Tracking:
    """The local record of a run, and W&B and TensorBoard where they were asked for.

    All processes measure; the first one writes. Numbers are read from the device only where a row
    is written.

    Parameters
    ----------
    options : TrainOptions
        What was asked for.
    setup : Setup
        Recordings, tasks and network.
    config : dict
        What run_config.yml holds.
    speaks : bool
        Whether this process is the one that writes.
    """

    def __init__(
        self, options: TrainOptions, setup: Setup, config: dict[str, Any], *, speaks: bool
    ) -> None:
        self.options, self.setup, self.config, self.speaks = options, setup, config, speaks
        self.steps = setup.train.steps
        self.windows = options.batch_size * len(setup.tasks)
        self.events = Events(setup.folder / EVENTS)
        self.status: Status | None = None
        self._trackers: list[Tracker] = []
        self._process = psutil.Process()
        self._told: set[str] = set()
        self.waited_s = 0.0
        """Time since the last row in which this process made windows instead of training."""
        self.alone_s = 0.0
        """The same, of what it does before it meets the others: windows and forward passes."""
        self._since = time.monotonic()
        self._counted = 0

    def start(self, step: int, finished: int, *, again: bool) -> None:
        """Begin, or go on after a step and a number of finished epochs."""
        self._restart_clock()
        if not self.speaks:
            return
        rows = self._tolerant(lambda: self.events.cut(step, finished)) or []
        facts = {"run_id": self.setup.config.model_id, "epochs": self.options.epochs}
        self.status = Status(self.setup.folder, facts | {"steps": self.steps}, again=again)
        self._say(RUNNING, step=step, epoch=finished)
        start = Start(self.setup.folder, self.config, step, again, rows)
        self._trackers = others(self.options, start)

    # Measuring ------------------------------------------------------------------------------------

    def is_due(self, step: int) -> bool:
        """Whether a row is due after so many steps; an epoch's last one comes with its scores."""
        return step % self.options.log_every == 0 and step % self.steps != 0

    def count(self) -> None:
        """Count a step."""
        self._counted += 1

    def measure(self, scores: Scores, agreement: Agreement) -> dict[str, float]:
        """Return the numbers since the last row, over all processes. All must call it.

        The next row counts from the next `Scores.mark`, or `Scores.reset`.
        """
        counted = max(self._counted, 1)
        counts = scores.since_mark()  # waits for the device, so that the clock is right
        spent = max(time.monotonic() - self._since, 1e-9)
        own = [spent / counted, self.alone_s / counted, self.waited_s / spent,
               float(self._process.memory_info().rss)]  # fmt: skip
        if torch.cuda.is_available():
            own.append(float(torch.cuda.max_memory_allocated()))
        table = agreement.gather(torch.cat([counts, torch.tensor(own, dtype=torch.float64)]))
        self._restart_clock()
        if not self.speaks:
            return {}
        step_s, alone_s, waiting, rss, *device = table[:, len(counts) :].T
        row = scores.of_counts(table[:, : len(counts)].sum(0), "train")
        row |= {
            "windows_per_second": self.windows / step_s.mean().item(),
            "step_s": step_s.mean().item(),
            "rank_skew_s": (alone_s.max() - alone_s.min()).item(),
            "data_share": waiting.mean().item(),
            "memory_mb": rss.max().item() / 2**20,
        }
        if device:
            row["device_memory_mb"] = device[0].max().item() / 2**20
        return row

    def _restart_clock(self) -> None:
        self._since, self.waited_s, self.alone_s = time.monotonic(), 0.0, 0.0
        self._counted = 0

    # Telling --------------------------------------------------------------------------------------

    def log(self, step: int, measured: dict[str, float]) -> None:
        """Write the row of a step within an epoch."""
        self._row(step, measured, {})

    def log_epoch(
        self,
        step: int,
        measured: dict[str, float],
        row: dict[str, float],
        pictures: dict[str, Path],
    ) -> None:
        """Write the row of an epoch's last step, with the epoch's line of the history."""
        finished = {f"epoch/{name}": value for name, value in row.items()}
        self._row(step, measured | finished, pictures)
        self._say(RUNNING, epoch=int(row["epoch"]) + 1, scores=dict(row))
        self._restart_clock()

    def _row(self, step: int, values: dict[str, float], pictures: dict[str, Path]) -> None:
        if not self.speaks:
            return
        row = {
            "step": step,
            "epoch": step / self.steps,
            "time": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        } | values
        self._tolerant(lambda: self.events.append(row))
        for tracker in self._trackers:
            tracker.log(row, pictures)
        self._say(RUNNING, step=step)

    def sync(self) -> None:
        """Bring the rows so far to the disk, before a checkpoint says that they are done."""
        if self.speaks:
            self._tolerant(self.events.sync)

    def finish(self, error: BaseException | None = None) -> None:
        """End well, or with what ended the run; never fails."""
        state, code = FINISHED, 0
        if error is not None:
            code = getattr(error, "exit_code", 1)
            state = STOPPED if code == 75 else FAILED
        for tracker in self._trackers:
            try:
                tracker.finish(code)
            except Exception as problem:
                log.warning("a tracker did not end well: %s", problem)
        if self.status is not None and self.status.is_there():
            try:
                self.status.say(state, message=str(error or "").split("\n")[0])
            except OSError as problem:
                if error is None and not self._goes_on:
                    raise
                log.warning("%s could not be written: %s", self.status.path, problem.strerror)

    def _say(self, state: str, **values: Any) -> None:
        if (status := self.status) is not None:
            self._tolerant(lambda: status.say(state, **values))

    @property
    def _goes_on(self) -> bool:
        return self.options.on_save_error == "continue"

    def _tolerant(self, write: Callable[[], Any]) -> Any:
        """Write; where the user said so, training goes on without what could not be."""
        try:
            return write()
        except OSError as error:
            if not self._goes_on:
                raise
            said = f"{error.filename}: {error.strerror}"
            if said not in self._told:  # a full disk stays full: once is enough
                self._told.add(said)
                log.warning("%s; training goes on without this record", said)
            return None
