"""The forward pass of a batch, and scores of a model on held-out recordings."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from lisbet.training.conditioning import Conditioning
from lisbet.training.datasets.sampler import Batch, Sampler
from lisbet.training.scores import Scores


def forward(
    model: nn.Module,
    batch: Batch,
    conditioning: Conditioning | None = None,
    noise: dict[str, Tensor] | None = None,
) -> dict[str, Tensor]:
    """Return the logits of each task: one forward pass, as DDP needs all heads to take part.

    `noise`, by task (batch, embedding), is added to the embeddings.
    """
    windows = {name: windows for name, (windows, _) in batch.items()}
    if conditioning is not None:
        windows = {name: conditioning.apply(own) for name, own in windows.items()}
    logits: dict[str, Tensor] = model(windows, noise) if noise else model(windows)
    return logits


@torch.no_grad()
def evaluate(
    model: nn.Module,
    dev: Sampler,
    micro_batches: list[slice],
    stop: Callable[[], bool],
    conditioning: Conditioning | None = None,
) -> dict[str, float] | None:
    """Score the model on the held-out recordings: the same windows after every epoch.

    Returns
    -------
    dict or None
        The columns of the history; None if a stop was requested before the end.
    """
    model.eval()
    scores = Scores(dev.tasks, dev.device)
    for step in range(dev.steps):
        if stop():
            return None
        for rows in micro_batches:
            batch = dev.batch(0, step, rows)
            logits = forward(model, batch, conditioning)
            scores.update(scores.losses_of(logits, batch), logits, batch)
    return scores.compute("dev")
