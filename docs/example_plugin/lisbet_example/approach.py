"""A self-supervised task: are the first two individuals closer at the end than at the start?"""

from typing import ClassVar

import numpy as np

from lisbet.core.config import Window
from lisbet.data.bank import Bank, WindowIndex, gather
from lisbet.tasks import SelfSupervisedTask


class Approach(SelfSupervisedTask):
    """Label 1: their distance in the last frame of the window is smaller than in the first."""

    columns: ClassVar[int] = 1  # one random number per sample: which frame

    def sample(
        self, uniform: np.ndarray, bank: Bank, window: Window
    ) -> tuple[WindowIndex, np.ndarray]:
        """Draw a frame for each sample, and compare the two distances."""
        record, frame = bank.draw(uniform[:, 0])
        index = WindowIndex.plain(record, frame)
        windows = gather(bank, index, window).cpu().numpy()  # (B, W, individuals, keypoints, space)
        centre = windows.mean(axis=3)
        distance = np.linalg.norm(centre[:, :, 0] - centre[:, :, 1], axis=-1)
        return index, (distance[:, -1] < distance[:, 0]).astype(np.float32)
