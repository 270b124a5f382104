"""Speed: is the window played faster than it was recorded?"""

from typing import ClassVar

import numpy as np

from lisbet.core.config import Window
from lisbet.data.bank import Bank, WindowIndex
from lisbet.tasks._task import SelfSupervisedTask

SLOWEST, FASTEST = 0.5, 1.5


class Warp(SelfSupervisedTask):
    """Label 1: the window holds more frames than its size, so that it looks fast (speed > 1)."""

    columns: ClassVar[int] = 2
    slowest: ClassVar[float] = SLOWEST

    def sample(
        self, uniform: np.ndarray, bank: Bank, window: Window
    ) -> tuple[WindowIndex, np.ndarray]:
        """Draw a window and its speed."""
        del window
        record, frame = bank.draw(uniform[:, 0])
        speed = SLOWEST + (FASTEST - SLOWEST) * uniform[:, 1]
        index = WindowIndex(record[:, None, None], frame[:, None, None], speed=speed)
        return index, (speed > 1).astype(np.float32)


TASK = Warp
