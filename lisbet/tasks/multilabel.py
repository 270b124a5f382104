"""Any number of behaviours in each frame: which?"""

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from lisbet.data.bank import Bank
from lisbet.tasks._counts import decisions, macro_f1
from lisbet.tasks._supervised import SupervisedTask


class Multilabel(SupervisedTask):
    """Binary cross-entropy for each behaviour, positives weighted n / (2 · positives), macro F1."""

    def name_classes(self, bank: Bank) -> tuple[str, ...]:
        """Return the behaviours."""
        return bank.behaviors

    def targets(self, active: np.ndarray) -> np.ndarray:
        """Return 0 or 1 for each behaviour: (frames, classes), float32."""
        return active.astype(np.float32)

    def weigh(self, bank: Bank) -> np.ndarray:
        """Return n / (2 · positives); 1 where a behaviour never comes up."""
        active = bank.active()
        positives = active.sum(axis=0)
        return np.where(positives > 0, len(active) / (2 * np.maximum(positives, 1)), 1.0)

    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the weighted binary cross-entropy of logits and labels (B, classes)."""
        weights = torch.tensor(self._weights, device=logits.device)
        return F.binary_cross_entropy_with_logits(logits.float(), labels, pos_weight=weights)

    def count(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Count decisions in logits and labels (B, classes)."""
        return decisions(logits > 0, labels > 0.5)

    def score_of(self, counts: Tensor) -> float:
        """Return the macro F1 of all behaviours."""
        return macro_f1(counts, skip_absent=False)


TASK = Multilabel
