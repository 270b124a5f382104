"""What an augmentation has to offer."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from pydantic import Field

from lisbet.core.config import Config, Features, Window

if TYPE_CHECKING:
    from torch import Tensor


class Augmentation(Config):
    """A change of training windows. Its fields are its parameters.

    Parameters
    ----------
    p : float
        Probability with which a sample is changed.

    Attributes
    ----------
    geometric : bool
        Whether it changes all frames of a sample alike, as another camera or other names of the
        individuals would. Labels that are computed from tracks then follow the change; they do not
        follow noise.
    """

    geometric: ClassVar[bool] = False

    p: float = Field(1.0, ge=0, le=1)

    @property
    def framewise(self) -> bool:
        """Whether the change of a frame does not depend on the other frames of its window."""
        return self.geometric

    @property
    def name(self) -> str:
        """Its name on the command line."""
        from lisbet.augment import AUGMENTATIONS

        return AUGMENTATIONS.name_of(type(self))

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
    def change(self, windows: Tensor, hit: np.ndarray, uniform: np.ndarray) -> Tensor:
        """Change some of the windows.

        Parameters
        ----------
        windows : Tensor
            (B, W, individuals, keypoints, space), float32. May be written to.
        hit : ndarray
            (H,), int64: which to change, at least one.
        uniform : ndarray
            (H, columns), in [0, 1). The only source of randomness.

        Returns
        -------
        Tensor
            All windows, like `windows`.
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
        hit = np.flatnonzero(uniform[:, 0] < self.p)
        return self.change(windows, hit, uniform[hit, 1:]) if len(hit) else windows


class PointAugmentation(Augmentation):
    """A change that looks at the windows it hits only."""

    @abstractmethod
    def change_all(self, windows: Tensor, uniform: np.ndarray) -> Tensor:
        """Change each of the windows (H, W, individuals, keypoints, space)."""

    def change(self, windows: Tensor, hit: np.ndarray, uniform: np.ndarray) -> Tensor:
        """Take the windows out that are hit, change them, and put them back."""
        from lisbet.core.transfer import to_device

        if len(hit) == len(windows):
            return self.change_all(windows, uniform)
        rows = to_device(hit, windows.device)
        changed = self.change_all(windows.index_select(0, rows), uniform)
        return windows.index_copy_(0, rows, changed)


def present(windows: Tensor) -> Tensor:
    """Return which points are there, (…, 1): a missing point, or padding, is zero on every axis."""
    return (windows != 0).any(dim=-1, keepdim=True)
