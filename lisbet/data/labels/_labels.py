"""What an annotation format has to offer."""

from collections.abc import Callable
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

import numpy as np


@dataclass(frozen=True)
class Labels:
    """The behaviours of one recording, frame by frame.

    Parameters
    ----------
    behaviors : tuple of str
        Names of the behaviours.
    active : ndarray
        (frames, behaviours), bool.
    """

    behaviors: tuple[str, ...]
    active: np.ndarray


@dataclass(frozen=True)
class LabelReader:
    """A format of annotation files.

    Parameters
    ----------
    patterns : tuple of str
        Names of its files, as shell patterns; letter case does not matter.
    read : callable
        Reads one file. Raises DataError, OSError or ValueError when it cannot be read.
    """

    patterns: tuple[str, ...]
    read: Callable[[Path], Labels]

    def find(self, folder: Path) -> list[Path]:
        """List the annotation files of a recording's folder."""
        return [
            file
            for file in sorted(folder.iterdir())
            if any(fnmatch(file.name.lower(), pattern) for pattern in self.patterns)
        ]
