"""Losses and gradients that are infinite or NaN: found without waiting for the device, reported."""

import math
from typing import TYPE_CHECKING

import torch
from accelerate.utils import gather_object
from torch import Tensor

from lisbet.core.errors import DataError
from lisbet.training import run_folder
from lisbet.training.stopping import ProcessFlags

if TYPE_CHECKING:
    from lisbet.training.trainer import Trainer

GRADIENT = "the gradient"
CHECK_EVERY = 20
"""Steps between two checks of what a GPU has found; on a CPU every step is checked."""


class NonFiniteCheck:
    """Finds the first step with a non-finite loss or gradient, and which steps to skip.

    Without permission to skip steps, the first such step is remembered on the device, which
    `is_bad` and `require_finite` read. With it, all processes agree at once on each loss.

    Parameters
    ----------
    tasks : list of str
        Names of the losses, in order.
    device : torch.device
        Where the losses are.
    flags : ProcessFlags
        Lets the processes agree.
    allowed : int
        How many steps may be skipped.
    scaled : bool
        Whether the loss is scaled (fp16): the scaler then skips steps with a non-finite gradient
        itself and lowers its scale.
    """

    def __init__(
        self,
        tasks: list[str],
        device: torch.device,
        flags: ProcessFlags,
        *,
        allowed: int,
        scaled: bool,
    ) -> None:
        self.names = [*tasks, GRADIENT]
        self.flags, self.allowed, self.scaled = flags, allowed, scaled
        self.every = 1 if device.type == "cpu" else CHECK_EVERY
        self._first = torch.full((len(self.names),), -1, device=device)

    def check_losses(self, step: int, losses: Tensor) -> bool:
        """Check the losses (tasks,) of a micro-batch; return whether the step must be skipped."""
        if self.allowed:
            return self.flags.any(not bool(losses.isfinite().all()))[0]
        self._remember(slice(0, -1), step, losses)
        return False

    def check_gradient(self, step: int, norm: Tensor) -> bool:
        """Check the gradient's norm, a scalar; return whether the step must be skipped."""
        if not self.counts(norm):
            return False
        if self.allowed and self.flags.any(not bool(norm.isfinite()))[0]:
            return True
        self._remember(slice(-1, None), step, norm)
        return False

    def counts(self, norm: Tensor) -> bool:
        """Whether a norm counts: with a scaled loss, an infinite one is part of its search."""
        return not self.scaled or bool(norm.isfinite())

    def _remember(self, part: slice, step: int, values: Tensor) -> None:
        known = self._first[part]
        values = values.detach()
        bad = (known < 0) & ~values.isfinite().reshape(known.shape).to(known.device)
        self._first[part] = torch.where(bad, step, known)

    def first(self) -> tuple[int, list[str]] | None:
        """Return the first bad step and what was bad in it, or None. Waits for the device."""
        steps = self._first.tolist()
        if not (bad := [step for step in steps if step >= 0]):
            return None
        return min(bad), [n for n, step in zip(self.names, steps, strict=True) if step == min(bad)]

    def is_bad(self, step: int) -> bool:
        """Whether something bad was found on this process, at the steps where that is checked."""
        return step % self.every == 0 and self.first() is not None

    def require_finite(self, trainer: "Trainer") -> None:
        """Raise on all processes if a loss or gradient so far was not finite on any.

        All processes must call it.

        Raises
        ------
        DataError
            See `error`.
        """
        first = self.first()
        rows = f"{trainer.micro_batches[0].start} to {trainer.micro_batches[-1].stop - 1}"
        own = None if first is None else (*first, rows)
        if found := [one for one in gather_object([own]) if one is not None]:
            step = min(number for number, _, _ in found)
            found = [one for one in found if one[0] == step]
            losses = [one for one in found if one[1] != [GRADIENT]] or found
            what = sorted({name for _, names, _ in losses for name in names})
            raise self.error(trainer, step, what, ", ".join(rows for _, _, rows in losses))

    @staticmethod
    def error(trainer: "Trainer", step: int, what: list[str], rows: str) -> DataError:
        """Build the error for a non-finite loss or gradient, naming the last good checkpoint."""
        epoch = step // trainer.steps_per_epoch
        saved = trainer.checkpoints.last()
        left = f"checkpoint step_{saved[0]:08} is good" if saved else "no checkpoint was written"
        known = [row for row in trainer.history if math.isfinite(row["train_loss"])]
        if not saved and not known:
            left = "no model was written"
            if failed := run_folder.failed_folder(trainer.folder):
                left += f"; the files of this run are in {failed}: use --run_id={failed.name}"
        return DataError(
            f"epoch {epoch + 1}, step {step}: {', '.join(what)} is infinite or NaN, among the "
            f"samples {rows} of the batch. Try a smaller --learning_rate or --clip_grad_norm=1 "
            f"({left}). --debug_step={step} repeats the step from a checkpoint and prints the loss "
            "of each sample; --skip_nonfinite=N skips up to N such steps"
        )
