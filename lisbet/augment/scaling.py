"""Enlarge or shrink a window about the middle of the arena."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np
from pydantic import Field

from lisbet.augment._augmentation import PointAugmentation, present
from lisbet.core.config import Features

if TYPE_CHECKING:
    from torch import Tensor

CENTRE = 0.5


class Scaling(PointAugmentation):
    """Multiply all coordinates of a window by one random factor, about the middle.

    For animals of other sizes, and cameras at other heights.

    Parameters
    ----------
    max_factor : float
        The factor lies between 1/max_factor and max_factor; its logarithm is uniform.
    mode : {"truncate", "none"}
        Whether coordinates that leave [0, 1] are clamped.
    """

    geometric: ClassVar[bool] = True

    max_factor: float = Field(1.2, gt=1, le=10)
    mode: Literal["truncate", "none"] = "truncate"

    def columns(self, features: Features) -> int:
        """Return one for the factor."""
        del features
        return 1

    def change_all(self, windows: Tensor, uniform: np.ndarray) -> Tensor:
        """Return the windows scaled; missing points and padding stay zero."""
        from lisbet.core.transfer import to_device

        points = present(windows)
        factor = np.power(self.max_factor, 2 * uniform[:, 0] - 1).astype(np.float32)
        scaled = (windows - CENTRE) * to_device(factor, windows.device)[:, None, None, None, None]
        scaled = scaled + CENTRE
        if self.mode == "truncate":
            scaled = scaled.clamp(0, 1)
        return scaled * points


AUGMENTATION = Scaling
