"""Tasks that learn what a person has annotated."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from pydantic import PrivateAttr

from lisbet.core.config import Window
from lisbet.core.errors import DataError
from lisbet.core.json_types import JsonDict
from lisbet.data.bank import Bank, WindowIndex
from lisbet.models.heads import AnyHeadConfig, FrameHeadConfig
from lisbet.tasks._task import Task

if TYPE_CHECKING:
    import pandas as pd


class SupervisedTask(Task):
    """Name the behaviours of the frame that a window describes.

    Attributes
    ----------
    takes_threshold : bool
        Whether each class is decided by itself, where its probability is above a threshold.
    """

    columns: ClassVar[int] = 1
    score: ClassVar[str] = "f1"
    supervised: ClassVar[bool] = True
    takes_threshold: ClassVar[bool] = False

    _classes: tuple[str, ...] = PrivateAttr(default=())
    _weights: tuple[float, ...] = PrivateAttr(default=())
    _chance: float | None = PrivateAttr(default=None)

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes, in the order of the logits; known once `fit` was called."""
        return self._classes

    def fit(self, whole: Bank, train: Bank) -> None:
        """Take the classes from all recordings, and their weights from those to train on."""
        if not whole.behaviors:
            raise DataError("the annotations name no behaviour")
        self._classes = self.name_classes(whole)
        self._weights = tuple(self.weigh(train).tolist())
        self._chance = self._chance_of(train)

    @property
    def chance(self) -> float | None:
        """Macro F1 of guessing each class as often as it is in the training recordings.

        A guess is right with the frequency p of its class, so precision, recall and F1 are p.
        """
        return self._chance

    def _chance_of(self, train: Bank) -> float | None:
        if not set(train.behaviors) <= set(self._classes):
            return None  # classes that are not the annotated behaviours
        active = train.active()
        annotated = np.zeros((len(active), len(self._classes)), dtype=bool)
        for number, name in enumerate(train.behaviors):
            annotated[:, self._classes.index(name)] = active[:, number]
        return float(self.true_classes(annotated, self._classes).mean())

    @abstractmethod
    def name_classes(self, bank: Bank) -> tuple[str, ...]:
        """Return the classes, or refuse annotations that the task cannot learn from."""

    @abstractmethod
    def weigh(self, bank: Bank) -> np.ndarray:
        """Return a weight for each class, which balances rare ones: (classes,)."""

    @abstractmethod
    def targets(self, active: np.ndarray) -> np.ndarray:
        """Turn behaviours (frames, behaviours) into labels (frames, …)."""

    @staticmethod
    @abstractmethod
    def decide(logits: np.ndarray) -> np.ndarray:
        """Return what the task predicts from logits (frames, classes): same shape, bool."""

    @staticmethod
    @abstractmethod
    def probabilities(logits: np.ndarray) -> np.ndarray:
        """Return the probability of each class from logits (frames, classes): same shape."""

    @staticmethod
    def true_classes(annotated: np.ndarray, classes: Sequence[str]) -> np.ndarray:
        """Return the right answers for annotated frames (frames, classes), bool, of any task.

        Raises
        ------
        DataError
            If the annotations do not fit the task.
        """
        del classes
        return annotated

    @staticmethod
    @abstractmethod
    def report(
        truth: np.ndarray, logits: np.ndarray, classes: Sequence[str], ignore: int | None
    ) -> tuple[JsonDict, pd.DataFrame]:
        """Score predictions.

        Parameters
        ----------
        truth : ndarray
            (frames, classes), bool, see `true_classes`.
        logits : ndarray
            (frames, classes).
        classes : sequence of str
            Names.
        ignore : int or None
            Index of a class that is not scored.

        Returns
        -------
        report : dict
            ``accuracy``; the means over all classes, which are None if the score of a class is;
            ``baselines``, ``classes``, with the scores of each, and ``undefined``: why scores are
            None, by their names, and for each class. See `lisbet.tasks._frame_scores`.
        confusion : DataFrame
            Counts of frames, with one row per class.

        Raises
        ------
        LisbetError
            If nothing is left to score.
        """

    @property
    def score_counts(self) -> int:
        """Three for each class, see `decisions`."""
        return 3 * len(self.classes)

    def head(self, embedding_dim: int, hidden_dim: int | None, window: Window) -> AnyHeadConfig:
        """Return a frame head with a logit for each class."""
        return FrameHeadConfig(
            output_token_idx=window.output_token,
            input_dim=embedding_dim,
            num_classes=len(self.classes),
            hidden_dim=hidden_dim,
        )

    def sample(
        self, uniform: np.ndarray, bank: Bank, window: Window
    ) -> tuple[WindowIndex, np.ndarray]:
        """Draw frames; their labels are what was seen in them."""
        del window
        record, frame = bank.draw(uniform[:, 0])
        assert bank.labels is not None
        return WindowIndex.plain(record, frame), self.targets(
            bank.labels[bank.starts[record] + frame]
        )
