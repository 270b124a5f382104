"""Any number of behaviours in each frame: which?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from lisbet.core.errors import ConfigError
from lisbet.core.json_types import JsonDict
from lisbet.data.bank import Bank
from lisbet.tasks._counts import decisions, macro_f1
from lisbet.tasks._supervised import SupervisedTask

if TYPE_CHECKING:
    import pandas as pd


class Multilabel(SupervisedTask):
    """Binary cross-entropy for each behaviour, positives weighted n / (2 · positives), macro F1."""

    takes_threshold: ClassVar[bool] = True

    def name_classes(self, bank: Bank) -> tuple[str, ...]:
        """Return the behaviours."""
        return bank.behaviors

    @staticmethod
    def decide(logits: np.ndarray) -> np.ndarray:
        """Return the behaviours with a positive logit: (frames, classes), bool."""
        return logits > 0

    @staticmethod
    def probabilities(logits: np.ndarray) -> np.ndarray:
        """Return the logistic function of (frames, classes): each class by itself."""
        return torch.from_numpy(logits).sigmoid().numpy()

    @staticmethod
    def report(
        truth: np.ndarray, logits: np.ndarray, classes: Sequence[str], ignore: int | None
    ) -> tuple[JsonDict, pd.DataFrame]:
        """Score any number of classes per frame; the column of an ignored class is left out.

        The accuracy is the fraction of right answers over all frames and classes, and the confusion
        counts the four outcomes of each class.
        """
        import pandas as pd
        from sklearn.metrics import confusion_matrix

        from lisbet.tasks import _frame_scores

        shown = [number for number in range(len(classes)) if number != ignore]
        if not shown:
            raise ConfigError("--ignore_index leaves no class to score")
        decided = Multilabel.decide(logits)
        counts = {
            classes[n]: confusion_matrix(truth[:, n], decided[:, n], labels=[True, False]).ravel()
            for n in shown
        }
        columns = ["true positive", "false negative", "false positive", "true negative"]
        confusion = pd.DataFrame.from_dict(counts, orient="index", columns=columns)
        report = {"accuracy": float((truth[:, shown] == decided[:, shown]).mean())}
        names = [classes[number] for number in shown]
        scored = truth[:, shown], decided[:, shown], logits[:, shown]
        return report | _frame_scores.scores_of(*scored, names, exclusive=False), confusion

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
