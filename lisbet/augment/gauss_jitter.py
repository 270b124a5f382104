"""Add Gaussian noise to the coordinates."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from pydantic import Field

from lisbet.augment._augmentation import PointAugmentation, present
from lisbet.core.config import Features

if TYPE_CHECKING:
    from torch import Tensor

# SplitMix64: Steele, Lea & Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014.
GOLDEN = 0x9E3779B97F4A7C15 - 2**64  # torch's integers are signed; they wrap as unsigned ones do
MIX = ((30, 0xBF58476D1CE4E5B9 - 2**64), (27, 0x94D049BB133111EB - 2**64), (31, 1))


class GaussJitter(PointAugmentation):
    """Noise as of an unsteady tracker.

    Parameters
    ----------
    sigma : float
        Standard deviation, in scaled coordinates. Results are clamped to [0, 1]; missing points
        and padding stay zero.
    """

    sigma: float = Field(0.01, ge=0, allow_inf_nan=False)

    def columns(self, features: Features) -> int:
        """Return one: the key of the sample's noise."""
        del features
        return 1

    def change_all(self, windows: Tensor, uniform: np.ndarray) -> Tensor:
        """Return the windows with noise on every point that is there."""
        from lisbet.core.transfer import to_device

        keys = to_device((uniform[:, 0] * 2.0**53).astype(np.int64), windows.device)
        noise = normals(keys, windows[0].numel()).view(windows.shape)
        noisy = (windows + self.sigma * noise).clamp_(0, 1)
        return noisy.mul_(present(windows))


def normals(keys: Tensor, count: int) -> Tensor:
    """Draw standard normal numbers, a pure function of a key and a place.

    Bulk noise is made where the windows are. Bits are the same on every device; the numbers made
    from them (Box & Muller) agree to rounding.

    Parameters
    ----------
    keys : Tensor
        (B,), int64.
    count : int
        Numbers for each key.

    Returns
    -------
    Tensor
        (B, count), float32.
    """
    import torch

    bits = keys[:, None] + GOLDEN * torch.arange(1, (count + 1) // 2 + 1, device=keys.device)
    for shift, factor in MIX:
        bits = (bits ^ ((bits >> shift) & (2 ** (64 - shift) - 1))) * factor
    positive = (((bits >> 40) & 0xFFFFFF) + 1).float() * 2.0**-24  # in (0, 1]
    angle = (bits & 0xFFFFFF).float() * (2 * torch.pi * 2.0**-24)
    radius = (-2 * positive.log()).sqrt()
    return torch.cat([radius * angle.cos(), radius * angle.sin()], dim=1)[:, :count]


AUGMENTATION = GaussJitter
