"""Permute the individuals, the same way in all frames."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from lisbet.augment._augmentation import Augmentation
from lisbet.augment._permutations import check_permutable, permutations, permute_individuals
from lisbet.config import Features, Window

if TYPE_CHECKING:
    from torch import Tensor


class AllPermId(Augmentation):
    """For data in which the labels of the individuals mean nothing."""

    def check(self, features: Features, window: Window) -> None:
        """Refuse a single individual."""
        del window
        check_permutable(self.name, "individuals", features)

    def columns(self, features: Features) -> int:
        """Return one: which permutation."""
        del features
        return 1

    def change(self, windows: Tensor, uniform: np.ndarray) -> Tensor:
        """Return the windows with their individuals permuted."""
        import torch

        order = permutations(uniform[:, 0], windows.shape[2])[:, None]
        return permute_individuals(windows, torch.from_numpy(order).to(windows.device))


AUGMENTATION = AllPermId
