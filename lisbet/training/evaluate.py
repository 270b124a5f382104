"""Answer batches, and score a model on held-out recordings."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from lisbet.training.datasets.sampler import Batch, Sampler
from lisbet.training.scores import Scores


def forward(model: nn.Module, batch: Batch) -> dict[str, Tensor]:
    """Answer a batch: one forward for all tasks, as DDP cannot reduce heads that sat out."""
    answers: dict[str, Tensor] = model({name: windows for name, (windows, _) in batch.items()})
    return answers


@torch.no_grad()
def evaluate(
    model: nn.Module, dev: Sampler, passes: list[slice], stop: Callable[[], bool]
) -> dict[str, float] | None:
    """Score the model on the held-out recordings: the same windows after every epoch.

    Returns
    -------
    dict or None
        The columns of the history; None if a stop was asked for on the way.
    """
    model.eval()
    scores = Scores(dev.tasks, dev.device)
    for step in range(dev.steps):
        if stop():
            return None
        for rows in passes:
            batch = dev.batch(0, step, rows)
            logits = forward(model, batch)
            scores.take(scores.losses_of(logits, batch), logits, batch)
    return scores.compute("dev")
