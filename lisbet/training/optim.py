"""The optimizer and its schedule."""

import inspect
import math
import sys
from dataclasses import dataclass

import torch
from torch import nn

from lisbet.options import OptimizationOptions

WARMUP_START = 0.01
"""Fraction of the peak learning rate at the first step."""
FIRST_CYCLE, CYCLE_GROWTH = 10, 2
"""Length of the first cosine cycle in epochs, and how much longer each next one is."""


@dataclass(frozen=True)
class Schedule:
    """The learning rate of each step: a closed form, so that there is no state to save.

    Linear warm-up, then, with ``restarts``, cosine annealing with warm restarts (Loshchilov &
    Hutter, arXiv:1608.03983, T_0 = 10 epochs, T_mult = 2, eta_min = 0), or, with ``cosine``, one
    half of a cosine that ends at zero with the last step.

    Parameters
    ----------
    kind : {"restarts", "cosine"}
        What follows the warm-up.
    steps_per_epoch : int
        Optimizer steps in one epoch.
    epochs : int
        Epochs of the run.
    warmup : int
        Steps of the warm-up; 0 starts at the peak.
    """

    kind: str
    steps_per_epoch: int
    epochs: int
    warmup: int

    @classmethod
    def of(cls, options: OptimizationOptions, steps_per_epoch: int) -> "Schedule":
        """Return the schedule that the options ask for."""
        warmup = options.warmup_epochs * steps_per_epoch
        if options.warmup_share is not None:
            warmup = round(options.warmup_share * options.epochs * steps_per_epoch)
        return cls(options.schedule, steps_per_epoch, options.epochs, warmup)

    def factor(self, step: int) -> float:
        """Return the learning rate of a step, counted from 0, as a fraction of the peak."""
        if step < self.warmup:
            return WARMUP_START + (1 - WARMUP_START) * step / self.warmup
        position, cycle = step - self.warmup, FIRST_CYCLE * self.steps_per_epoch
        if self.kind == "cosine":
            cycle = max(1, self.epochs * self.steps_per_epoch - self.warmup)
            position = min(position, cycle)
        else:
            while position >= cycle:
                position -= cycle
                cycle *= CYCLE_GROWTH
        return (1 + math.cos(math.pi * position / cycle)) / 2


class EagerAdamW(torch.optim.AdamW):
    """AdamW whose methods do not load torch's compiler.

    PyTorch hides the methods of optimizers from the compiler at their first call, and imports it
    for that: more than a second of processor time, for what is never used here. Without those
    decorators, these are the same methods; hooks and the profiler see them as usual.
    """

    add_param_group = inspect.unwrap(torch.optim.Optimizer.add_param_group)
    state_dict = inspect.unwrap(torch.optim.Optimizer.state_dict)
    load_state_dict = inspect.unwrap(torch.optim.Optimizer.load_state_dict)
    zero_grad = inspect.unwrap(torch.optim.Optimizer.zero_grad)
    step = torch.no_grad()(inspect.unwrap(torch.optim.AdamW.step))


def make_optimizer(
    model: nn.Module, learning_rate: float, weight_decay: float
) -> torch.optim.Optimizer:
    """Return AdamW over the weights that are trained, all of which it changes in one kernel."""
    kind = torch.optim.AdamW if "torch._dynamo" in sys.modules else EagerAdamW
    trained = [weight for weight in model.parameters() if weight.requires_grad]
    return kind(trained, lr=learning_rate, weight_decay=weight_decay, fused=True)


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Set the learning rate of the next step."""
    for group in optimizer.param_groups:
        group["lr"] = rate


def learning_rate_of(optimizer: torch.optim.Optimizer) -> float:
    """Return the learning rate that was set last."""
    return float(optimizer.param_groups[0]["lr"])
