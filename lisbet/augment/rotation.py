"""Rotate a window about the middle of the arena."""

from __future__ import annotations

from functools import reduce
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np
from pydantic import Field

from lisbet.augment._augmentation import PointAugmentation, present
from lisbet.core.config import Features, Window
from lisbet.core.errors import ConfigError

if TYPE_CHECKING:
    from torch import Tensor

CENTRE = 0.5


class Rotation(PointAugmentation):
    """For arenas that look the same from every side.

    Parameters
    ----------
    max_angle : float
        The angle is uniform in ±max_angle, in degrees; in three dimensions about a random axis.
    mode : {"truncate", "rescale", "none"}
        What happens to coordinates that leave [0, 1]: they are clamped; the window is shrunk
        about the middle until all fit; nothing.
    """

    geometric: ClassVar[bool] = True

    max_angle: float = Field(180.0, ge=0, le=180)
    mode: Literal["truncate", "rescale", "none"] = "truncate"

    @property
    def framewise(self) -> bool:
        """Whether a window is not shrunk until all of its frames fit."""
        return self.mode != "rescale"

    def check(self, features: Features, window: Window) -> None:
        """Refuse anything but two or three dimensions."""
        del window
        if len(features.space) not in (2, 3):
            raise ConfigError(f"{self.name} needs 2 or 3 axes, not {', '.join(features.space)}")

    def columns(self, features: Features) -> int:
        """Return one for the angle, and in three dimensions two for the axis."""
        return 1 if len(features.space) == 2 else 3

    def change_all(self, windows: Tensor, uniform: np.ndarray) -> Tensor:
        """Return the windows rotated; missing points and padding stay zero."""
        import torch

        from lisbet.core.transfer import to_device

        angle = np.radians(self.max_angle) * (2 * uniform[:, 0] - 1)
        flat = windows.shape[-1] == 2
        matrix = plane_rotation(angle) if flat else axis_rotation(angle, uniform[:, 1:])
        # Element by element, not a matrix product: that may run in lower precision on a GPU.
        entries = to_device(matrix.astype(np.float32), windows.device)
        entries = entries[..., None, None, None]  # (B, row, column, W, individuals, keypoints)
        centred = (windows - CENTRE).unbind(-1)
        turned = torch.stack(
            [
                reduce(torch.add, (entries[:, row, k] * x for k, x in enumerate(centred)))
                for row in range(len(centred))
            ],
            dim=-1,
        )
        there = present(windows)
        if self.mode == "rescale":
            reach = (turned.abs() * there).flatten(1).amax(1).clamp(min=CENTRE)
            turned = turned * (CENTRE / reach).view(-1, 1, 1, 1, 1)
        placed = turned + CENTRE
        if self.mode != "none":
            placed = placed.clamp(0, 1)  # after rescaling, only what rounding left outside
        return placed * there


def plane_rotation(angle: np.ndarray) -> np.ndarray:
    """Return rotation matrices (B, 2, 2) of angles in radians (B,)."""
    cos, sin = np.cos(angle), np.sin(angle)
    return np.stack([np.stack([cos, -sin], -1), np.stack([sin, cos], -1)], 1)


def axis_rotation(angle: np.ndarray, uniform: np.ndarray) -> np.ndarray:
    """Return rotation matrices (B, 3, 3) about axes uniform on the sphere, after Rodrigues."""
    height, around = 2 * uniform[:, 0] - 1, 2 * np.pi * uniform[:, 1]
    side = np.sqrt(1 - height**2)
    x, y, z = side * np.cos(around), side * np.sin(around), height
    zero = np.zeros_like(x)
    cross = np.array([[zero, -z, y], [z, zero, -x], [-y, x, zero]]).transpose(2, 0, 1)
    sin, cos = np.sin(angle)[:, None, None], np.cos(angle)[:, None, None]
    return np.eye(3) + sin * cross + (1 - cos) * (cross @ cross)


AUGMENTATION = Rotation
