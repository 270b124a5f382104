"""Group consistency: do all individuals of a window come from one recording?"""

from typing import ClassVar

import numpy as np

from lisbet.core.config import Window
from lisbet.core.errors import DataError
from lisbet.data.bank import Bank, WindowIndex
from lisbet.data.rng import pick
from lisbet.tasks._task import SelfSupervisedTask


class Cons(SelfSupervisedTask):
    """Label 1: individuals k… of the window come from another recording."""

    columns: ClassVar[int] = 4
    min_recordings: ClassVar[int] = 2

    def check(self, bank: Bank) -> None:
        """Refuse a single recording: there is no other one to take individuals from."""
        super().check(bank)
        if len(bank) < self.min_recordings:
            raise DataError(
                f"individuals are exchanged between recordings, but there is only {len(bank)} "
                f"({', '.join(bank.ids)})"
            )

    def sample(
        self, uniform: np.ndarray, bank: Bank, window: Window
    ) -> tuple[WindowIndex, np.ndarray]:
        """Draw a window; with probability ½ take some individuals from another recording."""
        del window
        record, frame = bank.draw(uniform[:, 0])
        inconsistent = uniform[:, 1] < 0.5
        individuals = len(bank.features.individuals)
        split = 1 + pick(uniform[:, 2], individuals - 1)
        other = other_recording(uniform[:, 3], record, bank)
        second = tuple(
            np.where(inconsistent, theirs, own)
            for theirs, own in zip(other, (record, frame), strict=True)
        )
        index = WindowIndex.mixed((record, frame), (second[0], second[1]), split, individuals)
        return index, inconsistent.astype(np.float32)


def other_recording(
    uniform: np.ndarray, record: np.ndarray, bank: Bank
) -> tuple[np.ndarray, np.ndarray]:
    """Draw frames, uniform over all frames of all recordings but one.

    Drawing again until it is another recording has the same distribution; this takes one number.
    """
    lengths = bank.lengths[record]
    number = pick(uniform, bank.frames - lengths)
    first = bank.ends[record] - lengths
    return bank.locate(np.where(number >= first, number + lengths, number))


TASK = Cons
