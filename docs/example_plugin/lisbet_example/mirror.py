"""An augmentation: exchange left and right."""

import numpy as np
from torch import Tensor

from lisbet.augment import PointAugmentation, present
from lisbet.core.config import Features


class Mirror(PointAugmentation):
    """Mirror windows about the middle of the first axis; coordinates lie in [0, 1]."""

    geometric = True

    def columns(self, features: Features) -> int:
        """Return how many random numbers a sample needs, besides the one for its probability."""
        return 0

    def change_all(self, windows: Tensor, uniform: np.ndarray) -> Tensor:
        """Mirror windows (B, W, individuals, keypoints, space); missing points stay zero."""
        points = present(windows)
        mirrored = windows.clone()
        mirrored[..., 0] = 1 - mirrored[..., 0]
        return mirrored * points
