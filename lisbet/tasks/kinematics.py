"""Kinematics: where the animals of a window are and how they move, from its middle frame."""

import logging
from typing import ClassVar

import numpy as np
import torch
from pydantic import PrivateAttr
from torch import Tensor
from torch.nn import functional as F

from lisbet.core.config import Features, Window
from lisbet.core.errors import DataError
from lisbet.core.json_types import JsonDict
from lisbet.data.bank import Bank, WindowIndex
from lisbet.data.kinematics import (
    AROUND,
    body_axis,
    described,
    described_names,
    kinematics,
    quantity_names,
)
from lisbet.models.heads import AnyHeadConfig, FrameHeadConfig
from lisbet.tasks._task import Task

log = logging.getLogger(__name__)

LARGEST_ERROR = 100.0
"""Errors count for the score up to so many standard deviations."""
UNIT = 2.0**-12
"""Squared errors are counted in this unit: integers add up to the same in any order."""
DIGITS = 4
"""Decimal digits of the standardisation; more would only differ between machines."""


class Kinematics(Task):
    """Predict standardised distances, speeds and headings, as "task programming" does.

    After Sun et al. (https://arxiv.org/abs/2011.13917): what a person would compute from tracks by
    hand is a target that costs nothing. See `lisbet.data.kinematics` for the quantities.

    Parameters
    ----------
    front, back : str, optional
        Keypoints that the heading of an animal follows from; default: guessed from their names.
    """

    columns: ClassVar[int] = 1
    score: ClassVar[str] = "r2"
    around: ClassVar[Window | None] = AROUND

    front: str | None = None
    back: str | None = None

    _features: Features | None = PrivateAttr(default=None)
    _axis: tuple[int, int] | None = PrivateAttr(default=None)
    _mean: Tensor | None = PrivateAttr(default=None)
    _std: Tensor | None = PrivateAttr(default=None)

    @property
    def chance(self) -> float | None:
        """R² of the mean."""
        return 0.0

    def check(self, bank: Bank) -> None:
        """Refuse recordings of fewer than two individuals."""
        individuals = bank.features.individuals
        if len(individuals) < 2:
            raise DataError(
                f"kinematics needs at least 2 individuals, but the recordings have "
                f"{len(individuals)} ({', '.join(individuals)}); see --select_coords"
            )
        body_axis(bank.features, self.front, self.back)

    def fit(self, whole: Bank, train: Bank) -> None:
        """Choose the quantities that these recordings allow."""
        del train
        self._features = whole.features
        self._axis = body_axis(whole.features, self.front, self.back)
        keypoints = whole.features.keypoints
        if self._axis is None:
            log.warning(
                "kinematics: the names of the keypoints (%s) do not tell front and back of an "
                "animal, so headings and distances of fronts and backs are left out; pass "
                "--set kinematics.front=…,kinematics.back=…",
                ", ".join(keypoints),
            )
        else:
            front, back = (keypoints[number] for number in self._axis)
            log.info("kinematics: animals head from %s to %s", back, front)

    @property
    def names(self) -> list[str]:
        """Names of the targets; known once `fit` was called."""
        assert self._features is not None
        individuals = self._features.individuals
        return described_names(quantity_names(individuals, heading=self._axis is not None))

    def sample(
        self, uniform: np.ndarray, bank: Bank, window: Window
    ) -> tuple[WindowIndex, np.ndarray]:
        """Draw frames; `measure` makes their labels."""
        del window
        return WindowIndex.plain(*bank.draw(uniform[:, 0])), np.zeros(len(uniform), np.float32)

    def standardise(self, around: Tensor) -> None:
        """Set mean and standard deviation of each target from examples, see `measure`."""
        targets = described(kinematics(around.cpu().double(), self._axis)).numpy()
        mean, std = (_of_columns(function, targets) for function in (np.nanmean, np.nanstd))
        std = np.where(np.nan_to_num(std) > 0, std, 1)
        self._mean, self._std = (
            torch.tensor([float(f"{number:.{DIGITS}g}") for number in np.nan_to_num(values)])
            for values in (mean, std)
        )

    @property
    def standardisation(self) -> JsonDict:
        """Names, means and standard deviations of the targets."""
        assert self._mean is not None
        assert self._std is not None
        mean, std = (
            [float(f"{n:.{DIGITS}g}") for n in v.tolist()] for v in (self._mean, self._std)
        )
        return {"names": self.names, "mean": mean, "std": std}

    def measure(self, around: Tensor) -> Tensor:
        """Return the targets of the middle frames: (B, targets), NaN where points are missing."""
        assert self._mean is not None
        assert self._std is not None
        targets = described(kinematics(around, self._axis))
        if self._mean.device != targets.device:  # once: a copy at each step would wait for it
            self._mean, self._std = self._mean.to(targets.device), self._std.to(targets.device)
        return (targets - self._mean) / self._std

    def head(self, embedding_dim: int, hidden_dim: int | None, window: Window) -> AnyHeadConfig:
        """Return a linear frame head with an output for each target, whatever `hidden_dim` is.

        What a linear map of the embedding gives, linear classifiers of behaviour can use, too.
        """
        del hidden_dim
        return FrameHeadConfig(
            output_token_idx=window.output_token,
            input_dim=embedding_dim,
            num_classes=len(self.names),
            hidden_dim=None,
        )

    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the smooth L1 loss of predictions and labels (B, targets); missing ones count 0.

        The sum is divided by the number of all targets, so that the parts of a batch add up.
        """
        there = labels.isfinite()
        errors = F.smooth_l1_loss(logits.float(), torch.where(there, labels, 0), reduction="none")
        return (errors * there).mean()

    @property
    def score_counts(self) -> int:
        """Two: the sums of squared errors and of squared labels."""
        return 2

    def count(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Sum squared errors and squared labels, in units of `UNIT`."""
        there = labels.isfinite()
        error = torch.where(there, logits.float() - labels, 0)
        size = torch.where(there, labels, 0)
        parts = [part.clamp(-LARGEST_ERROR, LARGEST_ERROR).square() for part in (error, size)]
        return torch.stack([(part.double() / UNIT).round().long().sum() for part in parts])

    def score_of(self, counts: Tensor) -> float:
        """Return the share of the variance that is predicted, R²; 0 if that is negative."""
        error, size = counts.tolist()
        return max(0.0, 1 - error / max(size, 1))


def _of_columns(function: object, targets: np.ndarray) -> np.ndarray:
    """Apply a function to each column; NaN for one that has no value."""
    there = np.isfinite(targets).any(axis=0)
    answer = np.full(targets.shape[1], np.nan)
    answer[there] = function(targets[:, there], axis=0)  # type: ignore[operator]
    return answer


TASK = Kinematics
