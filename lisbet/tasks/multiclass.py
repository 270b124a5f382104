"""One behaviour in each frame: which?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from lisbet.core.errors import DataError
from lisbet.core.json_types import JsonDict
from lisbet.data.bank import Bank
from lisbet.tasks._counts import decisions, macro_f1
from lisbet.tasks._supervised import SupervisedTask

if TYPE_CHECKING:
    import pandas as pd

OTHER = "other"
"""Class of the frames without a behaviour, added where there are any."""


class Multiclass(SupervisedTask):
    """Cross-entropy with balanced class weights, macro F1."""

    def name_classes(self, bank: Bank) -> tuple[str, ...]:
        """Return the behaviours, and `other` if some frame has none; no frame may have two."""
        for number, record_id in enumerate(bank.ids):
            assert bank.labels is not None
            active = bank.labels[bank.recording(number)]
            double = np.flatnonzero(active.sum(axis=1) > 1)
            if len(double):
                both = " and ".join(np.array(bank.behaviors)[active[double[0]]])
                raise DataError(
                    f"task 'multiclass' takes one behaviour at a time, but in {record_id} frame "
                    f"{double[0]} has {both} ({len(double)} frames have several); "
                    "use task 'multilabel'"
                )
        idle = not bank.active().any(axis=1).all()
        classes = (*bank.behaviors, *((OTHER,) if idle and OTHER not in bank.behaviors else ()))
        if len(classes) < 2:
            raise DataError(f"task 'multiclass' needs two classes, but there is only {classes[0]}")
        return classes

    @staticmethod
    def decide(logits: np.ndarray) -> np.ndarray:
        """Return one True in each row of (frames, classes): the largest logit."""
        return np.eye(logits.shape[1], dtype=bool)[logits.argmax(axis=1)]

    @staticmethod
    def probabilities(logits: np.ndarray) -> np.ndarray:
        """Return the softmax of (frames, classes): the classes of a frame add up to 1."""
        return torch.from_numpy(logits).softmax(dim=1).numpy()

    @staticmethod
    def true_classes(annotated: np.ndarray, classes: Sequence[str]) -> np.ndarray:
        """Return the class of each frame; one without behaviour is `other`, if there is that class.

        Raises
        ------
        DataError
            If a frame does not have exactly one class.
        """
        truth = annotated.copy()
        if OTHER in classes:
            truth[~annotated.any(axis=1), list(classes).index(OTHER)] = True
        if (bad := np.flatnonzero(truth.sum(axis=1) != 1)).size:
            raise DataError(
                f"{len(bad)} frames do not have exactly one of the classes {', '.join(classes)} "
                f"(the first is frame {bad[0]} counted over all recordings)"
            )
        return truth

    @staticmethod
    def report(
        truth: np.ndarray, logits: np.ndarray, classes: Sequence[str], ignore: int | None
    ) -> tuple[JsonDict, pd.DataFrame]:
        """Score one class per frame; the confusion has true classes (rows) and predicted ones.

        Frames whose true class is ignored are left out everywhere. Predicting the ignored class in
        another frame is a mistake like any other.
        """
        import pandas as pd
        from sklearn.metrics import confusion_matrix

        from lisbet.tasks import _frame_scores

        actual = truth.argmax(axis=1)
        scored = np.ones(len(actual), dtype=bool) if ignore is None else actual != ignore
        if not scored.any():
            raise DataError("no frame is left to score")
        actual, logits, truth = actual[scored], logits[scored].astype(np.float64), truth[scored]
        probability = Multiclass.probabilities(logits)
        shown = [number for number in range(len(classes)) if number != ignore]
        decided = Multiclass.decide(logits)
        predicted = decided.argmax(axis=1)
        matrix = confusion_matrix(actual, predicted, labels=range(len(classes)))
        confusion = pd.DataFrame(matrix, index=list(classes), columns=list(classes)).iloc[shown]
        report = {"accuracy": float((actual == predicted).mean())}
        names = [classes[number] for number in shown]
        columns = truth[:, shown], decided[:, shown], probability[:, shown]
        return report | _frame_scores.scores_of(*columns, names, exclusive=True), confusion

    def targets(self, active: np.ndarray) -> np.ndarray:
        """Return the number of the class of each frame: (frames,), int64."""
        idle = self.classes.index(OTHER) if OTHER in self.classes else 0
        return np.where(active.any(axis=1), active.argmax(axis=1), idle).astype(np.int64)

    def weigh(self, bank: Bank) -> np.ndarray:
        """Return n / (classes · frames of the class); 1 where the class never comes up."""
        counts = np.bincount(self.targets(bank.active()), minlength=len(self.classes))
        balanced = counts.sum() / (len(self.classes) * np.maximum(counts, 1))
        return np.where(counts > 0, balanced, 1.0)

    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the weighted cross-entropy of logits (B, classes) and labels (B,).

        Divided by B, not by the sum of the weights: so the mean over shares of a batch is the mean
        over the batch.
        """
        weights = torch.tensor(self._weights, device=logits.device)
        return F.cross_entropy(logits.float(), labels, weight=weights, reduction="none").mean()

    def count(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Count decisions in logits (B, classes) and labels (B,)."""
        numbers = torch.arange(len(self.classes), device=logits.device)
        return decisions(logits.argmax(dim=-1)[:, None] == numbers, labels[:, None] == numbers)

    def score_of(self, counts: Tensor) -> float:
        """Return the macro F1 of the classes that were predicted or true."""
        return macro_f1(counts, skip_absent=True)


TASK = Multiclass
