"""Any number of behaviours in each frame: which?"""

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from torchmetrics import Metric
from torchmetrics.classification import BinaryF1Score, MultilabelF1Score

from lisbet.data.bank import Bank
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

    def metric(self) -> Metric:
        """Return the macro F1."""
        if len(self.classes) == 1:
            return BinaryF1Score(validate_args=False)
        return MultilabelF1Score(len(self.classes), average="macro", validate_args=False)

    def update(self, metric: Metric, logits: Tensor, labels: Tensor) -> None:
        """Take in logits and labels (B, classes)."""
        metric.update((logits > 0).int(), labels.int())


TASK = Multilabel
