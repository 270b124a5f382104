"""Temporal shift: is a part of the group taken from a later moment?"""

from typing import ClassVar

import numpy as np

from lisbet.core.config import Window
from lisbet.data.bank import Bank, WindowIndex
from lisbet.data.rng import pick
from lisbet.tasks._task import SelfSupervisedTask

MAX_DELAY = 60
"""Largest delay, in frames (2 s at 30 fps), as in the published tool."""


class Shift(SelfSupervisedTask):
    """Label 1: individuals k… are taken from a later moment of the recording (delay > 0)."""

    columns: ClassVar[int] = 3

    def sample(
        self, uniform: np.ndarray, bank: Bank, window: Window
    ) -> tuple[WindowIndex, np.ndarray]:
        """Draw a window, and a moment close to it for the other individuals."""
        del window
        record, frame = bank.draw(uniform[:, 0])
        earliest = np.maximum(frame - MAX_DELAY, 0)
        latest = np.minimum(frame + MAX_DELAY, bank.lengths[record]) - 1
        moment = earliest + pick(uniform[:, 1], latest - earliest + 1)
        individuals = len(bank.features.individuals)
        split = 1 + pick(uniform[:, 2], individuals - 1)
        index = WindowIndex.mixed((record, frame), (record, moment), split, individuals)
        return index, (moment > frame).astype(np.float32)


TASK = Shift
