"""The interface of a task."""

from abc import abstractmethod
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from lisbet.core.config import Config, Window
from lisbet.core.errors import DataError
from lisbet.core.json_types import JsonDict
from lisbet.data.bank import Bank, WindowIndex
from lisbet.models.heads import AnyHeadConfig, WindowHeadConfig
from lisbet.tasks._counts import accuracy


class Task(Config):
    """A task that the network is trained on. Its fields are its settings (``--set``).

    Attributes
    ----------
    columns : int
        Random numbers that one sample takes.
    score : str
        Name of the score.
    supervised : bool
        Whether its labels are annotations; it is then given recordings that have some.
    min_recordings : int
        How many recordings it needs to make samples of.
    transforms : bool
        Whether it also changes windows in a way that a WindowIndex cannot express, see `transform`.
    slowest : float
        Smallest speed, relative to the recording, at which it plays a window.
    around : Window or None
        Frames around the described one that its labels are computed from, see `measure`; None if
        `sample` makes the labels.
    """

    columns: ClassVar[int]
    score: ClassVar[str]
    supervised: ClassVar[bool] = False
    min_recordings: ClassVar[int] = 1
    transforms: ClassVar[bool] = False
    slowest: ClassVar[float] = 1.0
    around: ClassVar[Window | None] = None

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of what the head tells apart, where they have names."""
        return ()

    @property
    def chance(self) -> float | None:
        """Score of guesses that do not look at the tracks, where it is known; after `fit`."""
        return None

    def fit(self, whole: Bank, train: Bank) -> None:
        """Take from the recordings what the task has to know before its head is built.

        Parameters
        ----------
        whole : Bank
            All recordings of the task.
        train : Bank
            Those to train on.
        """

    def check(self, bank: Bank) -> None:
        """Refuse recordings that the task cannot make samples of.

        Raises
        ------
        DataError
            Saying what is missing.
        """

    @abstractmethod
    def sample(
        self, uniform: np.ndarray, bank: Bank, window: Window
    ) -> tuple[WindowIndex, np.ndarray]:
        """Choose the frames and the label of each sample.

        Parameters
        ----------
        uniform : ndarray
            (B, columns), in [0, 1). The only source of randomness.
        bank : Bank
            The recordings to draw from.
        window : Window
            The window of every sample.

        Returns
        -------
        index : WindowIndex
            What `gather` cuts the windows by.
        labels : ndarray
            (B,), float32 of 0 and 1 for window tasks.
        """

    def transform(self, windows: Tensor, uniform: np.ndarray) -> Tensor:
        """Change the windows of the samples, before augmentation; called if `transforms` is true.

        Parameters
        ----------
        windows : Tensor
            (B, W, individuals, keypoints, space), float32, as `sample` has chosen them, on the
            device that the run computes on. Missing points, and frames before the start or after
            the end of a recording, are 0.
        uniform : ndarray
            (B, columns), the numbers that `sample` was given. Their first columns may have been
            used there.

        Returns
        -------
        Tensor
            Windows of the same shape, type and device. Those that were given may be changed in
            place. Points that are 0 in all coordinates are missing for the network.
        """
        del uniform
        return windows

    def standardise(self, around: Tensor) -> None:
        """Set what `measure` needs to know of the recordings, from examples; after `fit`.

        Parameters
        ----------
        around : Tensor
            Like that of `measure`, of some thousand samples to train on.
        """

    @property
    def standardisation(self) -> JsonDict:
        """What model_config.yml keeps to undo the scaling of the labels; nothing by default."""
        return {}

    def measure(self, around: Tensor) -> Tensor:
        """Return the labels of samples; called if `around` is set, after geometric augmentation.

        Parameters
        ----------
        around : Tensor
            (B, frames, individuals, keypoints, space), float32: the frames `around` the described
            one. Missing points, and frames outside the recording, are 0.

        Returns
        -------
        Tensor
            (B, …), on the same device.
        """
        raise NotImplementedError

    @abstractmethod
    def head(self, embedding_dim: int, hidden_dim: int | None, window: Window) -> AnyHeadConfig:
        """Return the head that answers this task; `hidden_dim` None asks for a linear one."""

    @abstractmethod
    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the mean loss of a batch, a scalar."""

    @property
    @abstractmethod
    def score_counts(self) -> int:
        """How many counts the score follows from."""

    @abstractmethod
    def count(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return what a batch adds to the counts of the score: (score_counts,), int64.

        It must not wait for the device, as reading a number from it would.
        """

    @abstractmethod
    def score_of(self, counts: Tensor) -> float:
        """Return the score from its counts (score_counts,), summed over batches and processes."""


class SelfSupervisedTask(Task):
    """A yes-or-no question about a window, with labels that cost nothing."""

    score: ClassVar[str] = "accuracy"

    @property
    def chance(self) -> float | None:
        """One half: yes and no are equally frequent."""
        return 0.5

    def check(self, bank: Bank) -> None:
        """Refuse recordings of fewer than two individuals: all these tasks are about a group."""
        individuals = bank.features.individuals
        if len(individuals) < 2:
            raise DataError(
                f"self-supervised tasks need at least 2 individuals, but the recordings have "
                f"{len(individuals)} ({', '.join(individuals)}); see --select_coords"
            )

    def head(self, embedding_dim: int, hidden_dim: int | None, window: Window) -> AnyHeadConfig:
        """Return a window head with one logit."""
        del window
        return WindowHeadConfig(input_dim=embedding_dim, hidden_dim=hidden_dim, num_classes=1)

    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the binary cross-entropy of logits (B, 1) and labels (B,)."""
        return F.binary_cross_entropy_with_logits(logits.squeeze(-1).float(), labels)

    @property
    def score_counts(self) -> int:
        """Two: right answers, and all answers."""
        return 2

    def count(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Count right answers in logits (B, 1) and labels (B,)."""
        right = (logits.squeeze(-1) > 0) == (labels > 0.5)
        return torch.stack([right.sum(), torch.full_like(right, True).sum()])

    def score_of(self, counts: Tensor) -> float:
        """Return the accuracy of yes and no."""
        return accuracy(counts)
