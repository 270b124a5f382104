"""Windows of prepared recordings, for training loops of one's own."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from lisbet.core.config import Window
from lisbet.data.bank import Bank, WindowIndex, gather
from lisbet.data.record import Record


class WindowDataset(Dataset[tuple[Tensor, Tensor]]):
    """The window of every frame of some recordings, and what was annotated in that frame.

    All tracks are in memory, once; a window is cut out when it is asked for, and a batch at once
    when a `DataLoader` asks for one. Workers of a loader do not make it faster.

    Parameters
    ----------
    records : sequence of Record
        Prepared recordings with the same features.
    window : Window
        Size, and offset of the frame that a window describes.
    fps_scaling : float
        Frames of the recordings for each frame of the window.

    Examples
    --------
    >>> windows = recordings.windows(window_size=60, window_offset=29)  # doctest: +SKIP
    >>> loader = torch.utils.data.DataLoader(windows, 128, shuffle=True)  # doctest: +SKIP
    """

    def __init__(self, records: Sequence[Record], window: Window, fps_scaling: float = 1.0) -> None:
        self.bank = Bank.from_records(list(records))
        self.window, self.fps_scaling = window, fps_scaling

    def __len__(self) -> int:
        """Return the number of frames of all recordings."""
        return self.bank.frames

    def __getitem__(self, number: int) -> tuple[Tensor, Tensor]:
        """Return the window of a frame: (window, features), float32, and its behaviours, bool."""
        return self.__getitems__([number])[0]

    def __getitems__(self, numbers: Sequence[int]) -> list[tuple[Tensor, Tensor]]:
        """Return the windows of several frames, which a `DataLoader` calls for a batch."""
        windows, active = self.batch(np.asarray(numbers))
        return list(zip(windows, active, strict=True))

    def batch(self, numbers: np.ndarray) -> tuple[Tensor, Tensor]:
        """Return the windows of frames, counted over all recordings.

        Parameters
        ----------
        numbers : ndarray
            (batch,), int; negative ones count from the end.

        Returns
        -------
        windows : Tensor
            (batch, window, features), float32: features are (individuals, keypoints, space) in C
            order; frames outside a recording and missing points are 0.
        active : Tensor
            (batch, behaviours), bool; no behaviours if annotations were not read.

        Raises
        ------
        IndexError
            If a number is not that of a frame.
        """
        wrong = numbers[(numbers < -len(self)) | (numbers >= len(self))]
        if len(wrong):
            raise IndexError(f"window {wrong[0]} of {len(self)}")
        record, frame = self.bank.locate(numbers % len(self))
        index = WindowIndex.plain(record, frame)
        if self.fps_scaling != 1:
            index = replace(index, speed=np.full(len(frame), self.fps_scaling))
        windows = gather(self.bank, index, self.window).flatten(start_dim=2)
        labels = self.bank.labels
        rows = self.bank.starts[record] + frame
        active = np.zeros((len(rows), 0), dtype=bool) if labels is None else labels[rows]
        return windows, torch.from_numpy(active)
