"""Windows of recordings that are not in memory: only the frames that they cover are read."""

from dataclasses import replace

import numpy as np

from lisbet.core.config import Window
from lisbet.data.bank import Bank, WindowIndex
from lisbet.data.reading import part_of
from lisbet.data.record import Record


def excerpt(records: list[Record], index: WindowIndex, window: Window) -> tuple[Bank, WindowIndex]:
    """Read the frames that windows cover: `gather` makes of them what it makes of a whole bank.

    Parameters
    ----------
    records : list of Record
        The recordings that `index` numbers, in memory or in a store.
    index : WindowIndex
        Whole windows, see `WindowIndex.plain`; they may have a speed.
    window : Window
        Size, and offset of the target frame.

    Returns
    -------
    bank : Bank
        A recording for each stretch of frames that some windows cover, without labels.
    index : WindowIndex
        The same windows in it.
    """
    number, target = index.record[:, 0, 0], index.frame[:, 0, 0]
    count = np.full(len(target), float(window.size))
    after = np.full(len(target), float(window.offset))
    if index.speed is not None:
        count, after = np.round(index.speed * count), np.round(index.speed * after)
    length = np.array([records[n].frames for n in number])
    last = target + after.astype(np.int64)
    first = np.maximum(0, last - count.astype(np.int64) + 1)
    end = np.minimum(length, last + 1)

    stretches: list[list[int]] = []
    """Recording, first frame and end of each; windows that overlap share one."""
    place = np.empty(len(target), np.int64)
    for sample in np.lexsort((first, number)).tolist():
        own = [int(number[sample]), int(first[sample]), int(end[sample])]
        if stretches and stretches[-1][0] == own[0] and own[1] <= stretches[-1][2]:
            stretches[-1][2] = max(stretches[-1][2], own[2])
        else:
            stretches.append(own)
        place[sample] = len(stretches) - 1
    parts = [replace(part_of(records[n], a, b), labels=None) for n, a, b in stretches]
    starts = np.array([begin for _, begin, _ in stretches])
    moved = WindowIndex.plain(place, target - starts[place])
    return Bank.from_records(parts), replace(moved, speed=index.speed)
