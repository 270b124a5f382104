"""Permute the spatial axes, the same way in all frames; for views from above only."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from lisbet.augment._augmentation import Augmentation
from lisbet.augment._permutations import check_permutable, permutations
from lisbet.config import Features, Window

if TYPE_CHECKING:
    from torch import Tensor


class AllPermAx(Augmentation):
    """For data in which the orientation of the coordinate system means nothing."""

    def check(self, features: Features, window: Window) -> None:
        """Refuse a single axis."""
        del window
        check_permutable(self.name, "space", features)

    def columns(self, features: Features) -> int:
        """Return one: which permutation."""
        del features
        return 1

    def change(self, windows: Tensor, uniform: np.ndarray) -> Tensor:
        """Return the windows with their axes permuted."""
        import torch

        orders = permutations(uniform[:, 0], windows.shape[-1])
        # There are at most five; whole columns are copied faster than single numbers.
        changed = torch.empty_like(windows)
        for order in np.unique(orders, axis=0):
            rows = torch.from_numpy(np.flatnonzero((orders == order).all(axis=1)))
            own = windows if len(rows) == len(windows) else windows[rows.to(windows.device)]
            permuted = torch.stack([own[..., axis] for axis in order.tolist()], dim=-1)
            if len(rows) == len(windows):
                return permuted
            changed[rows.to(windows.device)] = permuted
        return changed


AUGMENTATION = AllPermAx
