"""Whether losses and gradients are still numbers, found without waiting for the device."""

import torch
from torch import Tensor

GRADIENT = "the gradient"
LOOK_EVERY = 20
"""Steps between two looks at what a GPU has found; on a CPU every step is looked at."""


class Health:
    """Remembers the first step at which a loss or the gradient left the numbers.

    Parameters
    ----------
    tasks : list of str
        Names of the losses, in order.
    device : torch.device
        Where the losses are.
    """

    def __init__(self, tasks: list[str], device: torch.device) -> None:
        self.names = [*tasks, GRADIENT]
        self.every = 1 if device.type == "cpu" else LOOK_EVERY
        self._first = torch.full((len(self.names),), -1, device=device)

    def losses(self, step: int, values: Tensor) -> None:
        """Take in the losses (tasks,) of a pass."""
        self._take(slice(0, -1), step, values.detach())

    def gradient(self, step: int, norm: Tensor) -> None:
        """Take in the norm of a step's gradient, a scalar."""
        self._take(slice(-1, None), step, norm.detach())

    def _take(self, part: slice, step: int, values: Tensor) -> None:
        known = self._first[part]
        bad = (known < 0) & ~values.isfinite().reshape(known.shape).to(known.device)
        self._first[part] = torch.where(bad, step, known)

    def first(self) -> tuple[int, list[str]] | None:
        """Return the first bad step and what was bad in it, or None. Waits for the device."""
        steps = self._first.tolist()
        if not (bad := [step for step in steps if step >= 0]):
            return None
        return min(bad), [n for n, step in zip(self.names, steps, strict=True) if step == min(bad)]
