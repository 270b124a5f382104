"""Permute the individuals, the same way in all frames."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import numpy as np

from lisbet.augment._augmentation import Augmentation
from lisbet.augment._permutations import check_permutable, permutations
from lisbet.core.config import Features, Window

if TYPE_CHECKING:
    from torch import Tensor


class AllPermId(Augmentation):
    """For data in which the labels of the individuals mean nothing."""

    geometric: ClassVar[bool] = True

    def check(self, features: Features, window: Window) -> None:
        """Refuse a single individual."""
        del window
        check_permutable(self.name, "individuals", features)

    def columns(self, features: Features) -> int:
        """Return one: which permutation."""
        del features
        return 1

    def change(self, windows: Tensor, hit: np.ndarray, uniform: np.ndarray) -> Tensor:
        """Return the windows with their individuals permuted."""
        import torch

        from lisbet.core.transfer import to_device

        batch, frames, individuals = windows.shape[:3]
        order = np.tile(np.arange(individuals, dtype=np.int32), (batch, 1))
        order[hit] = permutations(uniform[:, 0], individuals)
        # One pass over all windows: putting back those that are hit takes longer than reading all.
        on = windows.device
        end = batch * frames * individuals
        first = torch.arange(0, end, individuals, dtype=torch.int32, device=on)
        rows = first.view(batch, frames, 1) + to_device(order, on)[:, None]
        flat = windows.reshape(batch * frames * individuals, -1)
        return flat.index_select(0, rows.view(-1)).view(windows.shape)


AUGMENTATION = AllPermId
