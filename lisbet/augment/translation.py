"""Move a window within the arena."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np
from pydantic import Field

from lisbet.augment._augmentation import PointAugmentation, present
from lisbet.core.config import Features

if TYPE_CHECKING:
    from torch import Tensor


class Translation(PointAugmentation):
    """Add one random vector to all points of a window.

    Parameters
    ----------
    max_shift : float
        The shift along each axis is uniform in ±max_shift, as a fraction of the arena.
    mode : {"truncate", "none"}
        Whether coordinates that leave [0, 1] are clamped.
    """

    geometric: ClassVar[bool] = True

    max_shift: float = Field(0.1, gt=0, le=1)
    mode: Literal["truncate", "none"] = "truncate"

    def columns(self, features: Features) -> int:
        """Return one for each axis."""
        return len(features.space)

    def change_all(self, windows: Tensor, uniform: np.ndarray) -> Tensor:
        """Return the windows moved; missing points and padding stay zero."""
        from lisbet.core.transfer import to_device

        points = present(windows)
        shift = (self.max_shift * (2 * uniform - 1)).astype(np.float32)
        moved = windows + to_device(shift, windows.device)[:, None, None, None, :]
        if self.mode == "truncate":
            moved = moved.clamp(0, 1)
        return moved * points


AUGMENTATION = Translation
