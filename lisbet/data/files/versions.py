"""Several tracking files in one folder: versions of one video, several videos, or individuals.

Nothing is guessed: what the names do not decide is an error that names the options that do.
"""

import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from lisbet.core.errors import DataError
from lisbet.options import DataOptions

NETWORKS = "resnet|mob|eff|dlcrnet|hrnet|dekr|rtm|ctd|cspnext|animaltokenpose"
SCORERS = (
    re.compile(rf"^(.+?)[_\-. ]?(?:DLC|DeepCut)_(?i:{NETWORKS}).*$"),
    re.compile(r"^(.+?)[_\-. ]?(?:DLC|DeepCut)_.+$"),
    re.compile(r"^(.+?)_superanimal_.+$"),
)
"""DeepLabCut puts the name of its network behind that of the video: mouse1DLC_resnet50_…"""
ENDINGS = re.compile(r"\.(analysis|predictions|predicted|tracks|tracking|slp|csv)$", re.IGNORECASE)
"""What programs put between the name of a video and the last ending."""
WORD = re.compile(r"[_\-. ]+")
VERSIONS = frozenset(
    (
        *("el", "sk", "bx", "bpt", "full", "skeleton", "shuffle", "snapshot", "labeled"),
        *("filtered", "ekf", "kalman", "median", "interpolated", "smooth", "smoothed", "raw"),
        *("orig", "original", "unfiltered", "predictions", "before", "after", "adapt", "best"),
        *("annotated", "clean", "cleaned", "copy", "backup", "corrected", "final", "fixed"),
        *("labelled", "new", "old", "proofread"),
    )
)
"""Words that distinguish versions of the tracks of one video."""
NOT_INDIVIDUALS = VERSIONS | frozenset(
    (
        *("day", "morning", "afternoon", "evening", "night", "session", "trial", "video"),
        *("baseline", "habituation", "pre", "post", "test", "train", "training"),
        *("cam", "camera", "top", "bottom", "side", "front", "back", "left", "right"),
    )
)
"""Words that distinguish videos, or views of one."""
INDIVIDUALS_PATTERN = "*tracking*"
"""Names of files with one individual each."""


@dataclass(frozen=True)
class FileChoice:
    """Which tracking files of a folder are used, and as what.

    Parameters
    ----------
    pattern : str, optional
        Only files whose name fits this shell pattern.
    flat : bool
        Each file is a recording of its own.
    per_individual : bool
        Each file holds one individual of one recording.
    """

    pattern: str | None = None
    flat: bool = False
    per_individual: bool = False

    @classmethod
    def of(cls, options: DataOptions) -> "FileChoice":
        """Return the choice that the options of a command make."""
        return cls(options.tracking_pattern, options.flat, options.file_per_individual)

    def allows(self, name: str) -> bool:
        """Whether a file of this name may be used."""
        return self.pattern is None or fnmatchcase(name, self.pattern)


def video_of(file: Path) -> str:
    """Return the name of the video from which a tracking file was made.

    Examples
    --------
    >>> video_of(Path("m1_day2DLC_resnet50_socialOct1shuffle1_200000_filtered.csv"))
    'm1_day2'
    >>> video_of(Path("m1_tracking_filtered.csv")), video_of(Path("m1.analysis.h5"))
    ('m1_tracking', 'm1')
    """
    stem = _bare(file)
    if found := _scored(stem):
        return found[1]
    words = re.split(f"({WORD.pattern})", stem)
    while len(words) > 2 and (words[-1].lower() in VERSIONS or not words[-1]):
        del words[-2:]
    return "".join(words)


def names_video(file: Path, video: str) -> bool:
    """Whether the name of a file has the name of a video in it, as words of its own.

    Examples
    --------
    >>> names_video(Path("annotations_m1.csv"), "m1"), names_video(Path("m10_boris.csv"), "m1")
    (True, False)
    """
    if not video:
        return True
    return bool(re.search(rf"(?<![^\W_]){re.escape(video)}(?![^\W_])", file.stem))


def arranged(
    files: Sequence[Path], choice: FileChoice, *, several: bool
) -> list[tuple[str, tuple[Path, ...]]]:
    """Group the tracking files of a folder into recordings.

    Parameters
    ----------
    files : sequence of Path
        Files of one format, at least one.
    choice : FileChoice
        What the user said about them; its pattern was applied already.
    several : bool
        Whether the format has files for one individual each.

    Returns
    -------
    list of (str, tuple of Path)
        Name of the video, which is empty where the recording is the folder, and files.

    Raises
    ------
    DataError
        If it is not clear what they are.
    """
    files = without_copies(files)
    videos: dict[str, list[Path]] = defaultdict(list)
    for file in files:
        videos[video_of(file)].append(file)
    if choice.per_individual and several:
        return [("", tuple(files))]
    for video, versions in videos.items():
        if len(versions) > 1:
            raise DataError(
                f"{len(versions)} tracking files in one folder ({_listed(versions)}) are versions "
                f"of the tracks of one video, {video!r}; expected one for each video. Choose it "
                f"with --tracking_pattern, such as --tracking_pattern='*{_unlike(versions)}', or "
                "move the others to another folder"
            )
    if choice.flat:
        return [(video, tuple(versions)) for video, versions in videos.items()]
    if len(files) == 1 or (several and are_individuals(files)):
        return [("", tuple(files))]
    more = ", --file_per_individual if each holds one individual of one video" if several else ""
    raise DataError(
        f"{len(files)} tracking files in one folder ({_listed(files)}); expected one, and "
        "it is not clear whether they are different videos. Pass --flat if each is a recording of "
        f"its own{more}, or choose one with --tracking_pattern"
    )


def without_copies(files: Sequence[Path]) -> list[Path]:
    """Leave out HDF5 files next to a CSV file of the same name: DeepLabCut writes both."""
    tables = {file.stem for file in files if file.suffix.lower() == ".csv"}
    hdf5 = {".h5", ".hdf5", ".hdf"}
    return [f for f in files if f.suffix.lower() not in hdf5 or f.stem not in tables]


def are_individuals(files: Sequence[Path]) -> bool:
    """Whether the names of files mean that each holds one individual of one video.

    They do if the names have "tracking" in them and differ in one word, which is no date, number
    or version, and has no digits: those may be different videos.

    Examples
    --------
    >>> are_individuals([Path("black_tracking.csv"), Path("white_tracking.csv")])
    True
    >>> are_individuals([Path("tracking_day1.csv"), Path("tracking_day2.csv")])
    False
    """
    stems = [_bare(file) for file in files]
    if any(_scored(s) or not fnmatchcase(s.lower(), INDIVIDUALS_PATTERN) for s in stems):
        return False
    names = [WORD.split(stem) for stem in stems]
    if len({len(words) for words in names}) > 1:
        return False
    differing = [words for words in zip(*names, strict=True) if len(set(words)) > 1]
    if len(differing) != 1 or len(set(differing[0])) < len(names):
        return False
    return not any(
        word.lower() in NOT_INDIVIDUALS or "tracking" in word.lower() or re.search(r"\d", word)
        for word in differing[0]
    )


def _scored(stem: str) -> re.Match[str] | None:
    """Match a name that DeepLabCut gave, with that of the video as the first group."""
    return next((found for scorer in SCORERS if (found := scorer.match(stem))), None)


def _bare(file: Path) -> str:
    stem = file.stem
    while found := ENDINGS.search(stem):
        stem = stem[: found.start()]
    return stem


def _listed(files: Sequence[Path]) -> str:
    return ", ".join(file.name for file in files)


def _unlike(files: Sequence[Path]) -> str:
    """Return the end of the first name that no other one has."""
    first, *others = (file.name for file in files)
    for length in range(1, len(first) + 1):
        if not any(other.endswith(first[-length:]) for other in others):
            start = max(first.rfind("_", 0, len(first) - length + 1), 0)
            return first[start:]
    return first
