"""Measure a run and log it, see `lisbet.training.logging`."""

import logging
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import psutil
import torch

from lisbet.core.json_types import JsonDict
from lisbet.distributed import environment
from lisbet.options import TrainOptions
from lisbet.training.inputs import TrainingInputs
from lisbet.training.loggers import Logger, Start, start_loggers
from lisbet.training.logging.events import EVENTS, Events
from lisbet.training.logging.status import FAILED, FINISHED, RUNNING, STOPPED, Status
from lisbet.training.scores import Scores
from lisbet.training.stopping import ProcessFlags

log = logging.getLogger(__name__)

Result = TypeVar("Result")


class MetricsLogger:
    """Logs a run to its folder, and to W&B and TensorBoard if the options say so.

    All processes measure; the main process writes. Values are read from the device only when a row
    is written.

    Parameters
    ----------
    options : TrainOptions
        The options of the command.
    inputs : TrainingInputs
        Recordings, tasks and network configuration.
    config : dict
        Contents of run_config.yml.
    is_main_process : bool
        Whether this process writes.
    """

    def __init__(
        self,
        options: TrainOptions,
        inputs: TrainingInputs,
        config: JsonDict,
        *,
        is_main_process: bool,
    ) -> None:
        self.options, self.inputs, self.config = options, inputs, config
        self.is_main_process = is_main_process
        self.steps_per_epoch = inputs.train.steps
        self.windows = options.batch_size * len(inputs.tasks)
        self.events = Events(inputs.folder / EVENTS)
        self.status: Status | None = None
        self._loggers: list[Logger] = []
        self._process = psutil.Process()
        self._warned: set[str] = set()
        self.data_s = 0.0
        """Time since the last row that this process spent on drawing batches."""
        self.local_s = 0.0
        """The same, before it communicates with the others: drawing batches and forward passes."""
        self._since = time.monotonic()
        self._steps = 0

    def start(self, step: int, finished: int, *, resumed: bool) -> None:
        """Start, or resume after a step and a number of finished epochs."""
        self._restart_clock()
        if not self.is_main_process:
            return
        rows = self._tolerant(lambda: self.events.cut(step, finished)) or []
        facts = {
            "run_id": self.inputs.config.model_id,
            "epochs": self.options.epochs,
            "processes": environment.count(),
            "slurm_job": os.environ.get("SLURM_JOB_ID"),
        }
        self.status = Status(
            self.inputs.folder, facts | {"steps": self.steps_per_epoch}, resumed=resumed
        )
        self._set_status(RUNNING, step=step, epoch=finished)
        start = Start(self.inputs.folder, self.config, step, resumed, rows)
        self._loggers = start_loggers(self.options, start)

    # Measuring ------------------------------------------------------------------------------------

    def is_due(self, step: int) -> bool:
        """Whether a row is due after so many steps; an epoch's last one comes with its scores."""
        return step % self.options.log_every == 0 and step % self.steps_per_epoch != 0

    def count_step(self) -> None:
        """Count a step."""
        self._steps += 1

    def measure(self, scores: Scores, flags: ProcessFlags) -> dict[str, float]:
        """Return the metrics since the last row, over all processes. All must call it.

        The next row counts from the next `Scores.mark`, or `Scores.reset`.
        """
        steps = max(self._steps, 1)
        counts = scores.since_mark()  # waits for the device, so that the clock is right
        spent = max(time.monotonic() - self._since, 1e-9)
        own = [spent / steps, self.local_s / steps, self.data_s / spent,
               float(self._process.memory_info().rss)]  # fmt: skip
        if torch.cuda.is_available():
            own.append(float(torch.cuda.max_memory_allocated()))
        table = flags.gather(torch.cat([counts, torch.tensor(own, dtype=torch.float64)]))
        self._restart_clock()
        if not self.is_main_process:
            return {}
        step_s, local_s, data_share, rss, *device = table[:, len(counts) :].T
        row = scores.of_counts(table[:, : len(counts)].sum(0), "train")
        row |= {
            "windows_per_second": self.windows / step_s.mean().item(),
            "step_s": step_s.mean().item(),
            "rank_skew_s": (local_s.max() - local_s.min()).item(),
            "data_share": data_share.mean().item(),
            "memory_mb": rss.max().item() / 2**20,
        }
        if device:
            row["device_memory_mb"] = device[0].max().item() / 2**20
        return row

    def _restart_clock(self) -> None:
        self._since, self.data_s, self.local_s = time.monotonic(), 0.0, 0.0
        self._steps = 0

    # Writing --------------------------------------------------------------------------------------

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
        self._set_status(RUNNING, epoch=int(row["epoch"]) + 1, scores=dict(row))
        self._restart_clock()

    def _row(self, step: int, values: dict[str, float], pictures: dict[str, Path]) -> None:
        if not self.is_main_process:
            return
        row = {
            "step": step,
            "epoch": step / self.steps_per_epoch,
            "time": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        } | values
        self._tolerant(lambda: self.events.append(row))
        for logger in self._loggers:
            logger.log(row, pictures)
        self._set_status(RUNNING, step=step)

    def sync(self) -> None:
        """Sync the rows so far to disk, before a checkpoint of the same step is published."""
        if self.is_main_process:
            self._tolerant(self.events.sync)

    def finish(self, error: BaseException | None = None) -> None:
        """End the log, with the error that ended the run if there is one; never raises."""
        state, code = FINISHED, 0
        if error is not None:
            code = getattr(error, "exit_code", 1)
            state = STOPPED if code == 75 else FAILED
        for logger in self._loggers:
            try:
                logger.finish(code)
            except Exception as problem:
                log.warning("a logger could not be closed: %s", problem)
        if self.status is not None and self.status.is_there():
            try:
                self.status.update(state, message=str(error or "").split("\n")[0])
            except OSError as problem:
                if error is None and not self._continues:
                    raise
                log.warning("%s could not be written: %s", self.status.path, problem.strerror)

    def _set_status(self, state: str, **values: Any) -> None:
        if (status := self.status) is not None:
            self._tolerant(lambda: status.update(state, **values))

    @property
    def _continues(self) -> bool:
        return self.options.on_save_error == "continue"

    def _tolerant(self, write: Callable[[], Result]) -> Result | None:
        """Write; with --on_save_error=continue, training continues if that fails."""
        try:
            return write()
        except OSError as error:
            if not self._continues:
                raise
            message = f"{error.filename}: {error.strerror}"
            if message not in self._warned:  # a full disk stays full: one warning is enough
                self._warned.add(message)
                log.warning("%s; training continues without this record", message)
            return None
