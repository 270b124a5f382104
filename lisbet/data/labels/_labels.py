"""What an annotation format has to offer."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from fnmatch import fnmatch
from pathlib import Path
from typing import Protocol

import numpy as np

from lisbet.core.errors import DataError

SLACK_FRAMES = 1
"""An event may end so much after the last frame: videos are timed to the end of a frame."""


@dataclass(frozen=True)
class Labels:
    """The behaviours of one recording, frame by frame.

    Parameters
    ----------
    behaviors : tuple of str
        Names of the behaviours.
    active : ndarray
        (frames, behaviours), bool.
    listed : bool
        Whether the file names every behaviour, also those that never come up.
    fps : float or None
        Frame rate that the annotation file states.
    warnings, notes : tuple of str
        What a user should know of how the file was read, always or with --verbose.
    """

    behaviors: tuple[str, ...]
    active: np.ndarray
    listed: bool = True
    fps: float | None = None
    warnings: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def warned(self, text: str) -> "Labels":
        """Return the labels with one more warning."""
        return replace(self, warnings=(*self.warnings, text))

    def over(self, behaviors: tuple[str, ...]) -> "Labels":
        """Return the labels over other behaviours, among which all own ones are."""
        active = np.zeros((len(self.active), len(behaviors)), dtype=bool)
        for number, name in enumerate(self.behaviors):
            active[:, behaviors.index(name)] = self.active[:, number]
        return replace(self, behaviors=behaviors, active=active)


@dataclass(frozen=True)
class Choice:
    """Which events of an annotation file are meant, and how far they may reach.

    Parameters
    ----------
    recording : tuple of str
        Names that the recording's video may have, without extension: the most certain first.
    subject : str, optional
        Only events of this subject.
    slack : int
        An event may end so many frames after the last one.
    shared : bool
        Whether the file may hold the events of other recordings only.
    """

    recording: tuple[str, ...] = ()
    subject: str | None = None
    slack: int = SLACK_FRAMES
    shared: bool = False


ALL = Choice()
"""Every event."""


class ReadLabels(Protocol):
    """Reads the annotations of a recording with so many frames."""

    def __call__(
        self,
        file: Path,
        frames: int,
        fps: float | None,
        start_s: float = 0.0,
        *,
        choice: Choice = ALL,
    ) -> Labels:
        """Return the behaviours of each frame; `fps` is None if unknown."""


class ReadNames(Protocol):
    """Reads the names of behaviours."""

    def __call__(self, file: Path, *, choice: Choice = ALL) -> tuple[str, ...]:
        """Return the behaviours that a file names."""


@dataclass(frozen=True)
class LabelReader:
    """A format of annotation files.

    Parameters
    ----------
    patterns : tuple of str
        Names of its files, as shell patterns; letter case does not matter.
    read : callable
        ``read(file, frames, fps, start_s=0.0, choice=…)`` reads one file of a recording with so
        many frames, at so many per second (None if unknown), of which the first is at `start_s`
        seconds of the video. Raises DataError, OSError or ValueError when it cannot.
    events : bool
        Whether files list what happened, so that a behaviour that never did is not in them. Else
        they name every behaviour, and all files must name the same.
    names : callable, optional
        ``names(file, choice=…)`` returns the behaviours that a file names, without regard to its
        frames; default: the whole recording is read for them.
    frame_rate : callable, optional
        ``frame_rate(file)`` returns the frame rate that a file states, or None.
    recognises : callable, optional
        ``recognises(file)`` says whether a file is of this format, from its content.
    chooses : bool
        Whether a file may hold events of several videos, of which the recording's are read.
    title : str
        What such a file is, for messages.
    """

    patterns: tuple[str, ...]
    read: ReadLabels
    events: bool = False
    names: ReadNames | None = None
    frame_rate: Callable[[Path], float | None] | None = None
    recognises: Callable[[Path], bool] | None = None
    chooses: bool = False
    title: str = "annotations"

    def find(self, folder: Path) -> list[Path]:
        """List the files of a recording's folder that are named as annotation files."""
        return [
            file
            for file in sorted(folder.iterdir())
            if any(fnmatch(file.name.lower(), pattern) for pattern in self.patterns)
        ]


def same_name(one: str, other: str) -> bool:
    """Whether two names are the same, whatever their letter case."""
    return one.casefold() == other.casefold()


def require_subject(subject: str, found: list[str], file: Path) -> None:
    """Check that an annotation file names a subject.

    Raises
    ------
    DataError
        If it does not; the message lists those that it names.
    """
    if found and subject not in found:
        there = ", ".join(name or "(no subject)" for name in found)
        raise DataError(
            f"{file.name}: no events of --subject={subject}; there are events of {there}. Give "
            "one of these, or exclude the recording with --data_filter"
        )
