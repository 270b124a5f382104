"""The training loop: train, one step, evaluate, save, log, resume."""

import logging
import time
from pathlib import Path

import torch
from accelerate.utils import broadcast_object_list
from torch import Tensor, nn

from lisbet.core.errors import StoppedError
from lisbet.core.json_types import JsonDict
from lisbet.core.storage.lock import Lock
from lisbet.distributed.start import mixed_precision_of
from lisbet.options import TrainOptions
from lisbet.training import run_folder
from lisbet.training.checkpoint.directory import CheckpointDirectory
from lisbet.training.checkpoint.manifest import Manifest
from lisbet.training.checkpoint.resume import require_same_model, require_same_run
from lisbet.training.checkpoint.writer import Checkpoints, TrainingState, read_state
from lisbet.training.conditioning import Conditioning
from lisbet.training.datasets.batch_buffer import BatchBuffer
from lisbet.training.datasets.batching import Batching
from lisbet.training.datasets.sample_hashes import HASHES, SampleHashes
from lisbet.training.evaluate import evaluate, forward
from lisbet.training.inputs import TrainingInputs
from lisbet.training.loggers import agent_identity
from lisbet.training.logging.metrics import MetricsLogger
from lisbet.training.logging.pictures import draw
from lisbet.training.logging.probing import probe
from lisbet.training.logging.progress import ProgressReporter
from lisbet.training.nonfinite import NonFiniteCheck
from lisbet.training.optim import Schedule, learning_rate_of, set_learning_rate
from lisbet.training.scores import Scores
from lisbet.training.stopping import ProcessFlags, StopSignal
from lisbet.training.strategies import Strategy

log = logging.getLogger(__name__)

FIRST_MESSAGE_S = 0.5
"""Head start that the process which received the signal has to print its message."""


class Trainer:
    """Trains a model, on one of the processes of a run.

    Parameters
    ----------
    options : TrainOptions
        The options of the command.
    inputs : TrainingInputs
        Recordings, tasks and network configuration.
    batching : Batching
        How the global batch is divided.
    strategy : Strategy
        Has prepared the network and its optimizer.
    config : dict
        Contents of run_config.yml.
    stop : StopSignal
        Requests to stop.
    """

    def __init__(
        self,
        options: TrainOptions,
        inputs: TrainingInputs,
        batching: Batching,
        strategy: Strategy,
        config: JsonDict,
        stop: StopSignal,
    ) -> None:
        self.options, self.inputs, self.config = options, inputs, config
        self.strategy, self.stop = strategy, stop
        self.accelerator = accelerator = strategy.accelerator
        self.is_main_process = bool(accelerator.is_main_process)
        self.micro_batches = batching.micro_batches(accelerator.process_index)
        self.sampler, self.folder = inputs.train, inputs.folder
        size = inputs.config.backbone_config.embedding_dim
        self.buffer = BatchBuffer(self.sampler, options.embedding_noise, size)
        self.conditioning = inputs.conditioning
        self.steps_per_epoch = self.sampler.steps
        self.schedule = Schedule.of(options, self.steps_per_epoch)
        self.lock: Lock | None = None
        """The lock of the run's folder, on the main process."""
        self.step, self.skipped = 0, 0
        self.history: list[dict[str, float]] = []
        self.hashes = SampleHashes() if options.hash_samples else None
        self.flags = ProcessFlags()
        self.scores = Scores(inputs.tasks, accelerator.device)
        self.nonfinite = NonFiniteCheck(
            list(inputs.tasks),
            accelerator.device,
            self.flags,
            allowed=options.skip_nonfinite,
            scaled=mixed_precision_of(accelerator) == "fp16",
        )
        self.checkpoints = Checkpoints(strategy, CheckpointDirectory(inputs.folder), options)
        self.logger = MetricsLogger(options, inputs, config, is_main_process=self.is_main_process)
        self.reporter = ProgressReporter(
            options.epochs,
            self.steps_per_epoch,
            options.batch_size * len(inputs.tasks),
            prints=self.is_main_process and not options.quiet,
        )
        self._uses_dropout = any(
            isinstance(module, nn.Dropout) and module.p > 0 for module in strategy.network.modules()
        )

    @property
    def epoch(self) -> int:
        """The current epoch, from 0: the number of finished epochs."""
        return len(self.history)

    # The loop -------------------------------------------------------------------------------------

    def train(self) -> None:
        """Train until all epochs are finished.

        Raises
        ------
        StoppedError
            If a signal or the time limit stopped the run, after it was saved.
        DataError
            If a loss, the gradient or a weight is not finite.
        """
        while self.epoch < self.options.epochs:
            self.train_epoch()
            self.finish_epoch()
        self.save()  # also the last step, so that the run can be extended
        self.checkpoints.wait()

    def train_epoch(self) -> None:
        """Train the remaining steps of the epoch; save and stop after any step where it is due."""
        self.set_train_mode()
        first = self.epoch * self.steps_per_epoch
        last = first + self.steps_per_epoch
        with self.reporter.epoch(self.epoch, self.step - first) as count_step:
            while self.step < last:
                self.train_step()
                count_step()
                if self.logger.is_due(self.step):
                    self.logger.log(self.step, self.measure())
                    self.scores.mark()
                if self.step < last:  # the last step is followed by evaluation
                    self._check_and_save()

    def train_step(self) -> None:
        """Make one optimizer step on one global batch, of which this process takes its part."""
        epoch, step = divmod(self.step, self.steps_per_epoch)
        set_learning_rate(self.strategy.optimizer, self.learning_rate(self.step))
        self.seed_dropout()
        skip = False
        for rows in self.micro_batches:
            started = time.monotonic()
            batch, noise = self.buffer.batch(epoch, step, rows)
            self.logger.data_s += time.monotonic() - started
            if self.hashes is not None:
                self.hashes.add(epoch, step, rows, batch)
            with self.accelerator.accumulate(self.strategy.model):
                logits = forward(self.strategy.model, batch, self.conditioning, noise)
                losses = self.scores.losses_of(logits, batch)
                self.logger.local_s += time.monotonic() - started
                bad = self.nonfinite.check_losses(self.step, losses)
                skip |= bad
                if not bad:
                    self.scores.update(losses, logits, batch)
                if not bad or self.strategy.skips_nonfinite:
                    self.accelerator.backward(losses.sum())
                if self.accelerator.sync_gradients and not skip:
                    norm = self.strategy.clip_gradient(self.options.clip_grad_norm)
                    skip = self.nonfinite.check_gradient(self.step, norm)
                    if self.nonfinite.counts(norm) and not skip:
                        self.scores.update_norm(norm)
                if not skip:
                    self.strategy.optimizer.step()
                    self.strategy.optimizer.zero_grad()
        if skip:
            self._skip_step()
        self.step += 1
        self.logger.count_step()

    def set_train_mode(self) -> None:
        """Put the network into training mode; a frozen backbone stays in evaluation mode."""
        self.strategy.model.train()
        self.strategy.network.backbone.train(not self.options.freeze_backbone_weights)

    def learning_rate(self, step: int) -> float:
        """Return the learning rate of a step."""
        return self.options.learning_rate * self.schedule.factor(step)

    def seed_dropout(self) -> None:
        """Make dropout a function of the step, so that a resumed run drops the same values."""
        if self._uses_dropout:
            number = (self.options.seed << 24) + (self.step << 8) + self.accelerator.process_index
            torch.manual_seed(number % 2**63)

    def _skip_step(self) -> None:
        self.strategy.optimizer.zero_grad()
        self.skipped += 1
        if self.is_main_process:
            log.warning("step %d is skipped: its loss or gradient is not finite", self.step)
        if self.skipped > self.options.skip_nonfinite:
            raise self.nonfinite.error(
                self, self.step, ["a loss or the gradient"], f"0 to {self.options.batch_size - 1}"
            )

    def measure(self) -> dict[str, float]:
        """Return the metrics since the last row of the log. All processes must call it."""
        rate = learning_rate_of(self.strategy.optimizer)
        return {"learning_rate": rate} | self.logger.measure(self.scores, self.flags)

    # End of an epoch ------------------------------------------------------------------------------

    def finish_epoch(self) -> None:
        """Evaluate, publish weights and history, log, and save if it is due."""
        self.nonfinite.require_finite(self)
        first_step = self.epoch * self.steps_per_epoch
        steps = range(first_step, first_step + self.steps_per_epoch)
        row = {
            "epoch": self.epoch,
            "learning_rate": self.learning_rate(first_step),
            "learning_rate_max": max(map(self.learning_rate, steps)),
        }
        row |= self.scores.compute("train")
        measured = self.measure()
        row |= self.evaluate()
        self.scores.reset()
        self.history.append(row)
        weights = self.published_weights()
        self._publish(weights)
        measured |= self._probe(weights)
        self.logger.log_epoch(self.step, measured, row, self._pictures(weights))
        stop, save = self.flags.any(self.stop.is_requested(), self._save_is_due())
        if save or stop:
            self.save()
        if stop and self.epoch < self.options.epochs:
            self._stop()
        self.reporter.finished(self.epoch - 1, row)

    def evaluate(self) -> dict[str, float]:
        """Score the held-out recordings; save and stop if that is requested meanwhile.

        Returns
        -------
        dict
            Columns of the history; empty if nothing is held out.
        """
        if self.inputs.dev is None:
            return {}
        scores = evaluate(
            self.strategy.model,
            self.inputs.dev,
            self.micro_batches,
            lambda: self.flags.any(self.stop.is_requested())[0],
            self.conditioning,
        )
        if scores is None:  # the resumed run evaluates again
            self.save()
            self._stop()
        assert scores is not None
        return scores

    def published_weights(self) -> dict[str, Tensor]:
        """Return the weights of the network that takes recordings as they are prepared.

        They are complete on the main process. All processes must call it.
        """
        weights = self.strategy.full_weights()
        if self.conditioning is None or not weights:
            return weights
        layer = self.strategy.network.backbone.input_layer
        assert layer is not None
        return self.conditioning.folded_weights(weights, layer)

    def _publish(self, weights: dict[str, Tensor]) -> None:
        (finite,) = broadcast_object_list([all(bool(w.isfinite().all()) for w in weights.values())])
        if not finite:
            rows = f"0 to {self.options.batch_size - 1}"
            raise self.nonfinite.error(self, self.step - 1, ["a weight"], rows)
        if self.is_main_process:
            run_folder.save_weights(self.folder, weights, self.history, self.options)
        if self.hashes is not None:
            hashes = self.hashes.collected()
            if self.is_main_process:
                self.hashes.write(self.folder / HASHES, hashes)

    def _pictures(self, weights: dict[str, Tensor]) -> dict[str, Path]:
        """Draw the pictures of an epoch, if they are due."""
        every, done = self.options.picture_every, self.epoch
        if not self.is_main_process or not every or (done % every and done < self.options.epochs):
            return {}
        return draw(self.inputs, weights, self.accelerator.device)

    def _probe(self, weights: dict[str, Tensor]) -> dict[str, float]:
        """Score the embedding by a linear probe, if that is due."""
        every, done = self.options.probe_every, self.epoch
        if not self.is_main_process or not every or (done % every and done < self.options.epochs):
            return {}
        return probe(self.inputs, weights, self.accelerator.device)

    # Saving, stopping, resuming -------------------------------------------------------------------

    def _check_and_save(self) -> None:
        """Between two steps: raise if a loss was not finite, save or stop where that is due."""
        bad = self.nonfinite.is_bad(self.step)
        self.checkpoints.poll()
        bad, stop, save = self.flags.any(bad, self.stop.is_requested(), self._save_is_due())
        if bad or save or stop:
            self.nonfinite.require_finite(self)
        if save or stop:
            self.save()
        if stop:
            self._stop()

    def _save_is_due(self) -> bool:
        return self.checkpoints.is_due(self.step, self.steps_per_epoch)

    def save(self) -> None:
        """Save a checkpoint of this step, if there is none yet. All processes must call it."""
        self.checkpoints.restart_interval()
        if self.checkpoints.contains(self.step, self.epoch):
            return
        state = self.state_dict()
        self.logger.sync()
        if self.lock is not None:
            self.lock.require_held()
        self.checkpoints.save(state, self.scores.state_dict())

    def state_dict(self) -> TrainingState:
        """Return the state of the run besides model, optimizer and scores.

        All processes must call it.
        """
        hashed = () if self.hashes is None else tuple(self.hashes.collected())
        scaler = self.accelerator.scaler
        return TrainingState(
            step=self.step,
            history=tuple(self.history),
            hashes=hashed,
            skipped=self.skipped,
            scaler={} if scaler is None else scaler.state_dict(),
            run=self.config,
            conditioning=None if self.conditioning is None else self.conditioning.state_dict(),
        )

    def load_state_dict(self, state: TrainingState) -> None:
        """Continue from a state that `state_dict` returned."""
        self.step, self.skipped = state.step, state.skipped
        self.history = list(state.history)
        if "tracking" in self.config:  # one run of W&B, however often this one is interrupted
            self.config["tracking"] |= state.run.get("tracking", {}) | agent_identity()
        if self.hashes is not None:
            self.hashes.rows = list(state.hashes)
        if state.conditioning is not None:  # on another device it would be rounded otherwise
            self.conditioning = Conditioning.from_state(state.conditioning)
        if state.scaler:
            self.accelerator.scaler.load_state_dict(state.scaler)

    def load_checkpoint(self, folder: Path) -> None:
        """Resume from a checkpoint. All processes must call it.

        Raises
        ------
        LisbetError
            If it is of another run, or of a strategy that this one cannot resume from.
        """
        manifest = Manifest.read(folder)
        state, scores = read_state(folder)
        require_same_run(state.run, self.config, self.folder)
        require_same_model(self.inputs.config, self.folder)
        self.strategy.require_resumable(manifest)
        self.strategy.load_state(folder, manifest.form)
        self.scores.load_state_dict(
            scores, self.accelerator.process_index, self.accelerator.num_processes
        )
        self.load_state_dict(state)
        self.checkpoints.saved = self.step, self.epoch
        if self.is_main_process:
            log.info("resuming from %s", folder)
            if self.options.debug_step is None:
                run_folder.adopt(self.folder)
                CheckpointDirectory(self.folder).set_aside_newer(folder)
        self.accelerator.wait_for_everyone()

    def _stop(self) -> None:
        saved = self.checkpoints.last()
        if not self.stop.reason:
            time.sleep(FIRST_MESSAGE_S)
        reason = self.stop.reason or "another process"
        what = "saved"
        if saved != (self.step, self.epoch):
            what = "which could not be saved" + (f"; saved is step {saved[0]}" if saved else "")
        instead = " instead of --overwrite" if self.options.overwrite else ""
        raise StoppedError(
            f"stopped by {reason} after step {self.step}, {what} in {self.folder}; to continue, "
            f"give the same command with --resume{instead}"
        )
