"""Temporal order: does the later part of a window really come later?"""

from typing import ClassVar, Literal

import numpy as np

from lisbet.core.config import Window
from lisbet.data.bank import Bank, WindowIndex
from lisbet.data.rng import pick
from lisbet.tasks._task import SelfSupervisedTask


class Order(SelfSupervisedTask):
    """Label 1: the window's second part comes from the same recording, not before the first.

    Parameters
    ----------
    negatives : {"strict", "simple"}
        Where the second part comes from for label 0: not after the first one in the same recording
        (strict), or that, or any other recording (simple).
    """

    columns: ClassVar[int] = 4
    negatives: Literal["strict", "simple"] = "strict"

    def sample(
        self, uniform: np.ndarray, bank: Bank, window: Window
    ) -> tuple[WindowIndex, np.ndarray]:
        """Draw the end of a first window, of a second one, and where the second takes over."""
        record, frame = bank.draw(uniform[:, 0])
        ordered = uniform[:, 1] < 0.5
        later = frame + pick(uniform[:, 2], bank.lengths[record] - frame)
        if self.negatives == "strict":
            wrong_record, wrong_frame = record, pick(uniform[:, 2], frame + 1)
        else:
            wrong_record, wrong_frame = _not_later(uniform[:, 2], record, frame, bank)
        index = WindowIndex(
            record=np.stack([record, np.where(ordered, record, wrong_record)], 1)[..., None],
            frame=np.stack([frame, np.where(ordered, later, wrong_frame)], 1)[..., None],
            cut=1 + pick(uniform[:, 3], window.size - 1),
        )
        return index, ordered.astype(np.float32)


def _not_later(
    uniform: np.ndarray, record: np.ndarray, frame: np.ndarray, bank: Bank
) -> tuple[np.ndarray, np.ndarray]:
    """Draw from all frames but those of the same recording that come later."""
    later = bank.lengths[record] - frame - 1
    number = pick(uniform, bank.frames - later)
    first_later = bank.ends[record] - later
    return bank.locate(np.where(number >= first_later, number + later, number))


TASK = Order
