"""A run between two steps: all that it knows, what a step does, and how an epoch ends."""

import logging
import math
import time
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list, gather_object
from torch import Tensor, nn

from lisbet.core.errors import DataError, StoppedError
from lisbet.core.storage.folders import remove_kept
from lisbet.core.storage.lock import Lock
from lisbet.distributed.start import mixed_precision_of
from lisbet.models import model_dir
from lisbet.models.multitask import MultiTaskModel
from lisbet.options import TrainOptions
from lisbet.training import run_folder
from lisbet.training.checkpoint.manifest import Manifest
from lisbet.training.checkpoint.resume import (
    require_same_run,
    require_same_strategy,
    set_newer_aside,
)
from lisbet.training.checkpoint.writer import Checkpoints, Progress, read_progress
from lisbet.training.datasets.batching import Batching
from lisbet.training.datasets.sample_hashes import HASHES, SampleHashes
from lisbet.training.datasets.sampler import Batch
from lisbet.training.evaluate import evaluate, forward
from lisbet.training.logging import agent_identity
from lisbet.training.logging.history import HISTORY, write_history
from lisbet.training.logging.pictures import draw
from lisbet.training.logging.progress import Reporter
from lisbet.training.logging.tracking import Tracking
from lisbet.training.nonfinite import GRADIENT, Health
from lisbet.training.optim import rate_factor
from lisbet.training.scores import Scores
from lisbet.training.setup import Setup
from lisbet.training.stopping import Agreement, Stops
from lisbet.training.strategies import strategy

log = logging.getLogger(__name__)

SPEAK_FIRST_S = 0.5
"""The process that was told to stop is the first to say so."""


class Run:
    """Everything that changes while a model is trained.

    Parameters
    ----------
    accelerator : Accelerator
        The processes.
    options : TrainOptions
        What was asked for.
    setup : Setup
        Recordings, tasks and network.
    batching : Batching
        How batches are shared out.
    bare, model : Module
        The network, and as the strategy prepared it.
    optimizer : Optimizer
        As the strategy prepared it.
    config : dict
        What run_config.yml holds.
    started : float
        When the process began, by `time.monotonic`.
    """

    def __init__(
        self,
        accelerator: Accelerator,
        options: TrainOptions,
        setup: Setup,
        batching: Batching,
        bare: MultiTaskModel,
        model: nn.Module,
        optimizer: Any,
        config: dict[str, Any],
        started: float,
    ) -> None:
        self.accelerator, self.options, self.setup = accelerator, options, setup
        self.bare, self.model, self.optimizer, self.config = bare, model, optimizer, config
        self.speaks = accelerator.is_main_process
        self.passes = batching.rows(accelerator.process_index)
        self.train, self.folder = setup.train, setup.folder
        self.checkpoints = Checkpoints(
            accelerator, model, optimizer, setup.folder, options.keep_checkpoints,
            go_on=options.on_save_error == "continue",
        )  # fmt: skip
        self.reporter = Reporter(
            options.epochs, self.train.steps, options.batch_size * len(setup.tasks),
            speaks=self.speaks,
        )  # fmt: skip
        self.started = self.saved = started
        self.lock: Lock | None = None
        """The lock of the run, on the process that holds it."""
        self.step, self.skipped = 0, 0
        self.history: list[dict[str, float]] = []
        self.hashes = SampleHashes() if options.hash_samples else None
        self.scores = Scores(setup.tasks, accelerator.device)
        self.health = Health(list(setup.tasks), accelerator.device)
        self.scaled = mixed_precision_of(accelerator) == "fp16"
        self.drops_bad_steps = strategy.drops_bad_steps(accelerator)
        self.tracking = Tracking(options, setup, config, speaks=self.speaks)
        self.random = any(isinstance(m, nn.Dropout) and m.p > 0 for m in bare.modules())

    @property
    def epoch(self) -> int:
        """The epoch that is not finished yet, from 0."""
        return len(self.history)

    # Training -------------------------------------------------------------------------------------

    def train_epoch(self, agreement: Agreement, stops: Stops) -> None:
        """Train what is left of an epoch; save and stop at any step where that is due."""
        self.model.train()
        self.bare.backbone.train(not self.options.freeze_backbone_weights)
        first = self.epoch * self.train.steps
        with self.reporter.epoch(self.epoch, self.step - first) as tick:
            while self.step < first + self.train.steps:
                self.make_step(agreement)
                tick()
                if self.tracking.is_due(self.step):
                    self.tracking.log(self.step, self.measure(agreement))
                    self.scores.mark()
                if self.step < first + self.train.steps:  # the last one is followed by scoring
                    self.between_steps(agreement, stops)

    def make_step(self, agreement: Agreement) -> None:
        """Draw a batch, answer it, go back, change the weights."""
        epoch, step = divmod(self.step, self.train.steps)
        strategy.set_learning_rate(self.optimizer, self.learning_rate())
        self.seed_dropout()
        bad = False
        for rows in self.passes:
            asked = time.monotonic()
            batch = self.train.batch(epoch, step, rows)
            self.tracking.waited_s += time.monotonic() - asked
            if self.hashes is not None:
                self.hashes.add(epoch, step, rows, batch)
            with self.accelerator.accumulate(self.model):
                bad |= self._pass(batch, agreement, asked)
                if self.accelerator.sync_gradients and not bad:
                    norm = strategy.gradient_norm(
                        self.accelerator, self.model, self.options.clip_grad_norm
                    )
                    bad |= self._look_at(norm, agreement)
                if not bad:
                    self.optimizer.step()
                    self.optimizer.zero_grad()
        if bad:
            self._skip()
        self.step += 1
        self.tracking.count()

    def measure(self, agreement: Agreement) -> dict[str, float]:
        """Return the numbers since the last row of the events. All processes must call it."""
        rate = strategy.learning_rate(self.optimizer)
        return {"learning_rate": rate} | self.tracking.measure(self.scores, agreement)

    def _pass(self, batch: Batch, agreement: Agreement, asked: float) -> bool:
        """Answer a part of the batch and go back; return whether it must be left out."""
        logits = forward(self.model, batch)
        losses = self.scores.losses_of(logits, batch)
        self.tracking.alone_s += time.monotonic() - asked
        bad = False
        if self.options.skip_nonfinite:
            (bad,) = agreement.any(not bool(losses.isfinite().all()))
        else:
            self.health.losses(self.step, losses)
        if not bad:
            self.scores.take(losses, logits, batch)
        if not bad or self.drops_bad_steps:
            self.accelerator.backward(losses.sum())
        return bad

    def _look_at(self, norm: Tensor, agreement: Agreement) -> bool:
        """Take in the gradient's norm; return whether the step must be left out."""
        if self.scaled and not norm.isfinite():
            return False  # fp16's scaler leaves the step out and lowers its scale
        if self.options.skip_nonfinite and agreement.any(not bool(norm.isfinite()))[0]:
            return True
        self.health.gradient(self.step, norm)
        self.scores.take_norm(norm)
        return False

    def _skip(self) -> None:
        self.optimizer.zero_grad()
        self.skipped += 1
        if self.speaks:
            log.warning("step %d is left out: its loss or gradient is not finite", self.step)
        if self.skipped > self.options.skip_nonfinite:
            raise self._not_finite(
                self.step, ["a loss or the gradient"], f"0 to {self.options.batch_size - 1}"
            )

    def learning_rate(self) -> float:
        """Return the learning rate of the next step."""
        factor = rate_factor(self.step, self.train.steps, self.options.warmup_epochs)
        return self.options.learning_rate * factor

    def seed_dropout(self) -> None:
        """Make what dropout drops a function of the step, so that a resume drops the same."""
        if self.random:
            number = (self.options.seed << 24) + (self.step << 8) + self.accelerator.process_index
            torch.manual_seed(number % 2**63)

    # Between steps --------------------------------------------------------------------------------

    def between_steps(self, agreement: Agreement, stops: Stops) -> None:
        """Stop where a number is none, save where it is due, leave where that was asked for."""
        looks = self.step % self.health.every == 0
        bad = looks and self.health.first() is not None
        self.checkpoints.poll()
        bad, stop, save = agreement.any(bad, self._stop_is_due(stops), self._save_is_due())
        if bad or save or stop:
            self._require_finite()
        if save or stop:
            self.save()
        if stop:
            self._leave(stops)

    def save(self) -> None:
        """Save a checkpoint of this step, if there is none yet."""
        self.saved = time.monotonic()
        if self.checkpoints.holds(self.step, self.epoch):
            return
        hashed = () if self.hashes is None else tuple(self.hashes.collected())
        scaler = self.accelerator.scaler
        progress = Progress(
            step=self.step,
            history=tuple(self.history),
            hashes=hashed,
            skipped=self.skipped,
            scaler={} if scaler is None else scaler.state_dict(),
            run=self.config,
        )
        self.tracking.sync()
        if self.lock is not None:
            self.lock.require_held()
        self.checkpoints.save(progress, self.scores.state())

    def take_up(self, folder: Path) -> None:
        """Go on from a checkpoint.

        Raises
        ------
        LisbetError
            If it is of another run, or of a strategy that this one cannot go on from.
        """
        manifest = Manifest.read(folder)
        progress, counts = read_progress(folder)
        require_same_run(progress.run, self.config, self.folder)
        require_same_strategy(manifest, self.accelerator)
        strategy.load_state(self.accelerator, self.model, self.optimizer, folder, manifest.form)
        self.scores.load(counts, self.accelerator.process_index, self.accelerator.num_processes)
        self.step, self.skipped = progress.step, progress.skipped
        self.history = list(progress.history)
        if "tracking" in self.config:  # one run of W&B, however often this one is interrupted
            self.config["tracking"] |= progress.run.get("tracking", {}) | agent_identity()
        self.checkpoints.saved = self.step, self.epoch
        if self.hashes is not None:
            self.hashes.rows = list(progress.hashes)
        if progress.scaler:
            self.accelerator.scaler.load_state_dict(progress.scaler)
        if self.speaks:
            log.info("going on from %s", folder)
            if self.options.debug_step is None:
                run_folder.adopt(self.folder)
                set_newer_aside(self.folder, folder)
        self.accelerator.wait_for_everyone()

    def _stop_is_due(self, stops: Stops) -> bool:
        limit = self.options.max_time
        if limit is not None and time.monotonic() - self.started > limit.seconds:
            stops.reason = f"--max_time={limit}"
        return bool(stops.reason)

    def _save_is_due(self) -> bool:
        every = self.options.checkpoint_every
        if every.unit == "min":
            return self.speaks and time.monotonic() - self.saved > 60 * every.count
        whole = every.count * (self.train.steps if every.unit == "ep" else 1)
        return self.step % whole == 0

    def _leave(self, stops: Stops) -> None:
        saved = self.checkpoints.last()
        if not stops.reason:
            time.sleep(SPEAK_FIRST_S)
        reason = stops.reason or "another process"
        what = "saved"
        if saved != (self.step, self.epoch):
            what = "which could not be saved" + (f"; saved is step {saved[0]}" if saved else "")
        instead = " instead of --overwrite" if self.options.overwrite else ""
        raise StoppedError(
            f"stopped by {reason} after step {self.step}, {what} in {self.folder}; the same "
            f"command with --resume{instead} goes on from there"
        )

    # Epochs ---------------------------------------------------------------------------------------

    def finish_epoch(self, agreement: Agreement, stops: Stops) -> None:
        """Score the held-out recordings, publish weights and history, save if that is due."""
        self._require_finite()
        row = {"epoch": self.epoch, "learning_rate": self._rate_at_start()}
        row |= self.scores.compute("train")
        measured = self.measure(agreement)
        if self.setup.dev is not None:
            dev = evaluate(
                self.model,
                self.setup.dev,
                self.passes,
                lambda: agreement.any(self._stop_is_due(stops))[0],
            )
            if dev is None:  # scored again after the resume
                self.save()
                self._leave(stops)
            else:
                row |= dev
        self.scores.reset()
        self.history.append(row)
        weights = strategy.full_weights(self.accelerator, self.model)
        self._publish(weights)
        self.tracking.log_epoch(self.step, measured, row, self._pictures(weights))
        stop, save = agreement.any(self._stop_is_due(stops), self._save_is_due())
        if save or stop:
            self.save()
        if stop and self.epoch < self.options.epochs:
            self._leave(stops)
        self.reporter.finished(self.epoch - 1, row)

    def finish(self) -> None:
        """End a run: its last step is saved, too, so that it can be made longer."""
        self.save()
        self.checkpoints.wait()

    def _pictures(self, weights: dict[str, Tensor]) -> dict[str, Path]:
        """Draw the pictures of an epoch, if they are due."""
        every, done = self.options.picture_every, self.epoch
        if not self.speaks or not every or (done % every and done < self.options.epochs):
            return {}
        return draw(self.setup, weights, self.accelerator.device)

    def _rate_at_start(self) -> float:
        step = self.epoch * self.train.steps
        factor = rate_factor(step, self.train.steps, self.options.warmup_epochs)
        return self.options.learning_rate * factor

    def _publish(self, weights: dict[str, Tensor]) -> None:
        (fine,) = broadcast_object_list([all(bool(w.isfinite().all()) for w in weights.values())])
        if not fine:
            raise self._not_finite(
                self.step - 1, ["a weight"], f"0 to {self.options.batch_size - 1}"
            )
        if self.speaks:
            save_weights(self.folder, weights, self.history, self.options)
        if self.hashes is not None:
            rows = self.hashes.collected()
            if self.speaks:
                self.hashes.write(self.folder / HASHES, rows)

    def _require_finite(self) -> None:
        """Stop, all alike, if a loss or gradient of a step so far was not finite."""
        first = self.health.first()
        own = None if first is None else (*first, self._rows())
        if found := [one for one in gather_object([own]) if one is not None]:
            step = min(number for number, _, _ in found)
            found = [one for one in found if one[0] == step]
            lost = [one for one in found if one[1] != [GRADIENT]] or found
            what = sorted({name for _, names, _ in lost for name in names})
            raise self._not_finite(step, what, ", ".join(rows for _, _, rows in lost))

    def _rows(self) -> str:
        """Name the samples of a batch that this process takes."""
        return f"{self.passes[0].start} to {self.passes[-1].stop - 1}"

    def _not_finite(self, step: int, what: list[str], rows: str) -> DataError:
        """Say what left the numbers and what is left of the run."""
        epoch = step // self.train.steps
        saved = self.checkpoints.last()
        left = f"checkpoint step_{saved[0]:08} is good" if saved else "no checkpoint was written"
        known = [row["train_loss"] for row in self.history if math.isfinite(row["train_loss"])]
        if not saved and not known:
            left = "no model was written"
            if failed := run_folder.failed_folder(self.folder):
                left += f"; the record of this run is {failed}, name it with --run_id={failed.name}"
        return DataError(
            f"epoch {epoch + 1}, step {step}: {', '.join(what)} is infinite or no number, among "
            f"the samples {rows} of the batch. Try a smaller --learning_rate or "
            f"--clip_grad_norm=1 ({left}). --debug_step={step} repeats the step from a checkpoint "
            "and prints each sample; --skip_nonfinite=N leaves up to N such steps out"
        )


def save_weights(
    folder: Path, weights: dict[str, Tensor], history: list[dict[str, float]], options: TrainOptions
) -> None:
    """Publish the weights of an epoch, and the history so far."""
    row = history[-1]
    place = (folder / model_dir.WEIGHTS_LAST).parent
    if options.save_weights == "all":
        model_dir.save_weights(
            place / f"weights_epoch{len(history) - 1}.pt", weights, root=folder, overwrite=True
        )
    best = min(history, key=lambda row: (math.isnan(row["dev_loss"]), row["dev_loss"])) \
        if options.save_weights == "best" else None  # fmt: skip
    if row is best:
        model_dir.save_weights(place / "weights_best.pt", weights, root=folder, overwrite=True)
    model_dir.save_weights(folder / model_dir.WEIGHTS_LAST, weights, root=folder, overwrite=True)
    remove_kept(folder)
    if options.save_history:
        write_history(folder / HISTORY, history)
