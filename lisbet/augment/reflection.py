"""Mirror a window about the middle of the arena."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import numpy as np

from lisbet.augment._augmentation import PointAugmentation, present
from lisbet.core.config import Features

if TYPE_CHECKING:
    from torch import Tensor


class Reflection(PointAugmentation):
    """Exchange left and right; with `rotation` every mirror line comes up.

    For animals that are as likely to turn left as right.
    """

    geometric: ClassVar[bool] = True

    def columns(self, features: Features) -> int:
        """Return zero: a window is mirrored or not."""
        del features
        return 0

    def change_all(self, windows: Tensor, uniform: np.ndarray) -> Tensor:
        """Return the windows with x replaced by 1 - x; missing points and padding stay zero."""
        del uniform
        points = present(windows)
        mirrored = windows.clone()
        mirrored[..., 0] = 1 - mirrored[..., 0]
        return mirrored * points


AUGMENTATION = Reflection
