"""Permute the individuals within one block of frames."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from pydantic import Field

from lisbet.augment._augmentation import Augmentation
from lisbet.augment._permutations import check_permutable, permutations
from lisbet.core.config import Features, Window
from lisbet.core.errors import ConfigError

if TYPE_CHECKING:
    from torch import Tensor


class BlkPermId(Augmentation):
    """Confuse identities for a while, as trackers do.

    Parameters
    ----------
    frac : float
        Length of the block as a share of the window. Its start is uniform in 1-block … W-1 and
        the block is clipped to the window, so that every frame is hit equally often.
    """

    frac: float = Field(0.5, gt=0, le=1)

    def check(self, features: Features, window: Window) -> None:
        """Refuse a single individual, or a block of no frames."""
        check_permutable(self.name, "individuals", features)
        if int(self.frac * window.size) < 1:
            raise ConfigError(
                f"{self.name}: frac={self.frac:g} of {window.size} frames is no whole frame; "
                f"use at least {1 / window.size:.3g}"
            )

    def columns(self, features: Features) -> int:
        """Return two: which permutation, and where the block starts."""
        del features
        return 2

    def change(self, windows: Tensor, hit: np.ndarray, uniform: np.ndarray) -> Tensor:
        """Return the windows with the individuals of a block permuted."""
        from lisbet.core.transfer import to_device

        frames, individuals = windows.shape[1:3]
        block = int(self.frac * frames)
        start = 1 - block + np.floor(uniform[:, 1] * (frames + block - 1)).astype(np.int64)
        time = start[:, None] + np.arange(block)
        inside = (time >= 0) & (time < frames)
        orders = permutations(uniform[:, 0], individuals).repeat(inside.sum(axis=1), axis=0)
        # Rows of the individuals of the frames inside: where they go, and where they come from.
        first = individuals * (hit[:, None] * frames + time)[inside][:, None]
        rows = np.stack([first + np.arange(individuals), first + orders]).reshape(2, -1)
        target, source = to_device(rows, windows.device)
        flat = windows.view(len(windows) * frames * individuals, -1)
        flat.index_copy_(0, target, flat.index_select(0, source))
        return windows


AUGMENTATION = BlkPermId
