"""Permute the spatial axes, the same way in all frames; for views from above only."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import numpy as np

from lisbet.augment._augmentation import Augmentation
from lisbet.augment._permutations import check_permutable, permutations
from lisbet.core.config import Features, Window

if TYPE_CHECKING:
    from torch import Tensor


class AllPermAx(Augmentation):
    """For data in which the orientation of the coordinate system means nothing."""

    geometric: ClassVar[bool] = True

    def check(self, features: Features, window: Window) -> None:
        """Refuse a single axis."""
        del window
        check_permutable(self.name, "space", features)

    def columns(self, features: Features) -> int:
        """Return one: which permutation."""
        del features
        return 1

    def change(self, windows: Tensor, hit: np.ndarray, uniform: np.ndarray) -> Tensor:
        """Return the windows with their axes permuted."""
        from lisbet.core.transfer import to_device

        orders = permutations(uniform[:, 0], windows.shape[-1])
        # Few orders, and whole columns are copied faster than single numbers.
        for order in np.unique(orders, axis=0):
            rows = to_device(hit[(orders == order).all(axis=1)], windows.device)
            own = windows.index_select(0, rows)
            for axis, source in enumerate(order.tolist()):
                windows.select(-1, axis).index_copy_(0, rows, own.select(-1, source))
        return windows


AUGMENTATION = AllPermAx
