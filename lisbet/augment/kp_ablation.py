"""Lose keypoints for a whole window."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from pydantic import Field

from lisbet.augment._augmentation import PointAugmentation
from lisbet.core.config import Features

if TYPE_CHECKING:
    from torch import Tensor


class KpAblation(PointAugmentation):
    """Missing points, as of a tracker that loses them.

    Parameters
    ----------
    pB : float
        Probability with which each keypoint of each individual is missing (0) in the window.
    """

    pB: float = Field(ge=0, le=1)  # noqa: N815 - the name users know

    def columns(self, features: Features) -> int:
        """Return one for each keypoint of each individual."""
        individuals, keypoints, _ = features.shape
        return individuals * keypoints

    def change_all(self, windows: Tensor, uniform: np.ndarray) -> Tensor:
        """Return the windows without the lost points."""
        from lisbet.core.transfer import to_device

        kept = to_device(uniform >= self.pB, windows.device)
        return windows * kept.view(-1, 1, *windows.shape[2:4], 1)


AUGMENTATION = KpAblation
