"""Scores as functions of counts, which add up over batches and processes."""

import torch
from torch import Tensor


def decisions(predicted: Tensor, true: Tensor) -> Tensor:
    """Count true positives, false positives and false negatives of each class.

    Nothing here waits for a GPU.

    Parameters
    ----------
    predicted, true : Tensor
        (B, classes), bool.

    Returns
    -------
    Tensor
        (3 · classes,), int64: the true positives of all classes, their false positives, their
        false negatives.
    """
    return torch.cat(
        [(predicted & true).sum(0), (predicted & ~true).sum(0), (~predicted & true).sum(0)]
    )


def macro_f1(counts: Tensor, *, skip_absent: bool) -> float:
    """Return the mean over the classes of F1 = 2·tp / (2·tp + fp + fn); 0 where that is 0/0.

    Parameters
    ----------
    counts : Tensor
        (3 · classes,), see `decisions`.
    skip_absent : bool
        Whether classes that were neither predicted nor true are left out of the mean.
    """
    hits, false, missed = counts.double().view(3, -1)
    parts = 2 * hits + false + missed
    scores = 2 * hits / parts.clamp(min=1)
    if skip_absent and parts.any():
        scores = scores[parts > 0]
    return float(scores.mean())


def accuracy(counts: Tensor) -> float:
    """Return the share of right answers; 0 without any.

    Parameters
    ----------
    counts : Tensor
        (2,): right answers, and all answers.
    """
    right, answers = counts.tolist()
    return right / max(answers, 1)
