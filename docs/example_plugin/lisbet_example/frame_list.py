"""A reader of annotations: text files named behaviours*.txt with lines such as `chase: 10-24`."""

from pathlib import Path

import numpy as np

from lisbet.core.errors import DataError
from lisbet.data.labels import Choice, LabelReader, Labels


def events(file: Path) -> list[tuple[str, int, int]]:
    """Return behaviour, first frame and last frame of each line."""
    found = []
    for number, line in enumerate(file.read_text("utf-8").splitlines(), 1):
        try:
            name, frames = line.split(":")
            first, last = map(int, frames.split("-"))
        except ValueError as error:
            raise DataError(
                f"{file.name}, line {number}: expected BEHAVIOUR: FIRST-LAST, got {line!r}"
            ) from error
        found.append((name.strip(), first, last))
    return found


def read(
    file: Path,
    frames: int,
    fps: float | None,
    start_s: float = 0.0,
    *,
    choice: Choice = Choice(),
) -> Labels:
    """Return which behaviours were seen in each frame."""
    rows = events(file)
    behaviors = tuple(sorted({name for name, _, _ in rows}))
    active = np.zeros((frames, len(behaviors)), dtype=bool)
    for name, first, last in rows:
        if last >= frames:
            raise DataError(f"{file.name}: {name} ends in frame {last}, after the last frame")
        active[first : last + 1, behaviors.index(name)] = True
    return Labels(behaviors, active)


READER = LabelReader(patterns=("behaviours*.txt",), read=read, events=True, title="frame list")
