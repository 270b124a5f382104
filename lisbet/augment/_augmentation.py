"""What an augmentation has to offer."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING

import numpy as np
from pydantic import Field

from lisbet.config import Config, Features, Window

if TYPE_CHECKING:
    from torch import Tensor


class Augmentation(Config):
    """A change of training windows. Its fields are its parameters.

    Parameters
    ----------
    p : float
        Probability with which a sample is changed.
    """

    p: float = Field(1.0, ge=0, le=1)

    @property
    def name(self) -> str:
        """What a user calls it: the name of its file."""
        return type(self).__module__.rpartition(".")[2]

    def check(self, features: Features, window: Window) -> None:
        """Refuse data that cannot be changed so.

        Raises
        ------
        ConfigError
            Saying why.
        """

    @abstractmethod
    def columns(self, features: Features) -> int:
        """Return how many random numbers the change of one sample takes."""

    @abstractmethod
    def change(self, windows: Tensor, uniform: np.ndarray) -> Tensor:
        """Return changed windows.

        Parameters
        ----------
        windows : Tensor
            (B, W, individuals, keypoints, space), float32. May be written to.
        uniform : ndarray
            (B, columns), in [0, 1). The only source of randomness.
        """

    def apply(self, windows: Tensor, uniform: np.ndarray) -> Tensor:
        """Change each window with probability p.

        Parameters
        ----------
        windows : Tensor
            (B, W, individuals, keypoints, space), float32. May be written to.
        uniform : ndarray
            (B, 1 + columns), in [0, 1). The first column decides.
        """
        import torch

        hit = np.flatnonzero(uniform[:, 0] < self.p)
        if len(hit) == len(windows):
            return self.change(windows, uniform[:, 1:])
        if len(hit) == 0:
            return windows
        rows = torch.from_numpy(hit).to(windows.device)
        changed = self.change(windows.index_select(0, rows), uniform[hit, 1:])
        return windows.index_copy_(0, rows, changed)


def present(windows: Tensor) -> Tensor:
    """Return which points are there, (…, 1): a missing point, or padding, is zero on every axis."""
    return (windows != 0).any(dim=-1, keepdim=True)
