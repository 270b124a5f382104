"""Find the annotation file of a recording, and report how it was read."""

import logging
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from lisbet.core.errors import DataError
from lisbet.data.labels import LABEL_READERS, Choice, LabelReader, Labels
from lisbet.data.record import Record
from lisbet.options import DataOptions

log = logging.getLogger(__name__)

TRACKER = re.compile(r"(?<=.)(DLC|DeepCut)")
"""DeepLabCut puts this, and the name of its network, after the name of the video."""
SLEAP = re.compile(r"^.*\.\d{3}_(.+)\.analysis$")
"""SLEAP names an analysis file PROJECT.000_VIDEO.analysis.h5."""
ENDINGS = (".analysis", ".predictions", "_tracking", ".tracking")
FPS_TOLERANCE = 0.01
"""Two frame rates that differ by less are taken for the same."""
SHOWN = 5
"""So many warnings about the annotations of single recordings are shown; --verbose shows all."""
SPREADSHEETS = (".xlsx", ".xls", ".ods")


def video_names(tracking: Sequence[Path]) -> tuple[str, ...]:
    """Return the names that the video of some tracking files may have, without extension.

    Examples
    --------
    >>> video_names([Path("rec1/m1DLC_resnet50_miceshuffle1_200000.csv")])
    ('m1', 'rec1')
    """
    folders = [file.resolve().parent.name for file in tracking]
    return tuple(dict.fromkeys([*_stems(tracking), *folders]))


def _stems(tracking: Sequence[Path]) -> list[str]:
    """Return the names that the video may have, from the name of each tracking file."""
    names = []
    for file in tracking:
        name = file.stem
        if found := TRACKER.search(name):
            name = name[: found.start()]
        elif match := SLEAP.match(name):
            name = match[1]
        else:
            for ending in ENDINGS:
                name = name.removesuffix(ending)
        names += [name, name.rstrip("_-. ")]
    return list(filter(None, dict.fromkeys(names)))


def choice_of(
    tracking: tuple[Path, ...], options: DataOptions, file: Path, video: str = ""
) -> Choice:
    """Return which events of an annotation file are meant for a recording.

    Parameters
    ----------
    tracking : tuple of Path
        The tracking files of the recording.
    options : DataOptions
        Subject, and how far events may reach.
    file : Path
        The annotation file.
    video : str
        Name of the recording's video, if it shares its folder with other recordings.
    """
    recording = (video,) if video else video_names(tracking)
    shared = bool(video) and not _named_as(file, [video])
    return Choice(recording, options.subject, options.event_slack, shared)


def find_annotations(annotations: str, tracking: tuple[Path, ...], video: str = "") -> list[Path]:
    """Return the annotation files of a recording: one, where it is clear which.

    Files are taken by their names; else by their content. Of several, those that are recognised by
    their content are left, and of these the one that is named as the tracking file's video. In a
    folder of several recordings, a file must be named as the video, or hold the events of several
    videos.

    Parameters
    ----------
    annotations : str
        Their format.
    tracking : tuple of Path
        The tracking files of the recording.
    video : str
        Name of its video, if it shares its folder with other recordings.
    """
    reader = LABEL_READERS[annotations]
    folder = tracking[0].parent
    names = [video] if video else _stems(tracking)
    files = [file for file in reader.find(folder) if file not in tracking]
    if not files:
        files = [file for file in _others(folder, tracking) if _recognised(reader, file)]
    if len(files) > 1:
        files = [file for file in files if _recognised(reader, file)] or files
    named = [file for file in files if _named_as(file, names)]
    if video and not reader.chooses:
        return named
    return named if named and (video or len(files) > 1) else files


def annotation_file(annotations: str, tracking: tuple[Path, ...], video: str = "") -> Path:
    """Return the annotation file of a recording; for the parameters see `find_annotations`.

    Raises
    ------
    DataError
        If there is none, or more than one; the message names files of other formats.
    """
    reader = LABEL_READERS[annotations]
    files = find_annotations(annotations, tracking, video)
    if len(files) == 1:
        _require_format(annotations, files[0])
        return files[0]
    if not files and (hints := list(_hints(annotations, tracking))):
        raise DataError(f"no annotations for --annot_format={annotations}. {'; '.join(hints)}")
    found = ", ".join(file.name for file in files) or "none"
    raise DataError(
        f"expected one annotation file ({' or '.join(reader.patterns)}, --annot_format="
        f"{annotations}), found {found}"
        + (f"; its name must contain that of the video, {video!r}" if video else "")
    )


def _require_format(annotations: str, file: Path) -> None:
    """Refuse a table that only has the name of the format, and is one of another."""
    if file.suffix.lower() == ".nc" or _recognised(LABEL_READERS[annotations], file):
        return
    for name, reader in LABEL_READERS.items():
        if _recognised(reader, file):
            raise DataError(
                f"{file.name} looks like {reader.title}, not like --annot_format={annotations}: "
                f"use --annot_format={name}"
            )


def _hints(annotations: str, tracking: tuple[Path, ...]) -> Iterator[str]:
    """Name the files in a recording's folder that hold annotations of other formats."""
    others = _others(tracking[0].parent, tracking)
    if any(_recognised(LABEL_READERS[annotations], file) for file in others):
        return  # there are some of the right format, but of other recordings
    for file in others:
        for name, reader in LABEL_READERS.items():
            if _recognised(reader, file):
                yield f"{file.name} looks like {reader.title}: use --annot_format={name}"
        if file.suffix.lower() in SPREADSHEETS:
            yield f"{file.name} is a spreadsheet: save it as CSV or TSV"


def _others(folder: Path, tracking: tuple[Path, ...]) -> list[Path]:
    return [file for file in sorted(folder.iterdir()) if file.is_file() and file not in tracking]


def _recognised(reader: LabelReader, file: Path) -> bool:
    return reader.recognises is not None and reader.recognises(file)


def _named_as(file: Path, names: list[str]) -> bool:
    """Whether the name of an annotation file contains that of a video as whole words."""
    own = file.stem.casefold()
    return any(
        re.search(rf"(^|[^a-z0-9]){re.escape(name.casefold())}([^a-z0-9]|$)", own)
        for name in names
        if name
    )


def check_frame_rate(labels: Labels, fps: float | None, file: Path) -> Labels:
    """Add a warning if an annotation file states another frame rate than the recording."""
    if labels.fps is None or fps is None or abs(labels.fps / fps - 1) <= FPS_TOLERANCE:
        return labels
    return labels.warned(
        f"{file.name} states {labels.fps:g} frames per second, but the recording has {fps:g}; "
        "check that they belong to the same video"
    )


def reported(outcomes: Iterable[Record | str]) -> Iterator[Record | str]:
    """Log what is to be known of the annotations of recordings that were read."""
    count = 0
    for outcome in outcomes:
        if isinstance(outcome, Record) and outcome.labels is not None:
            for text in outcome.labels.notes:
                log.info("%s: %s", outcome.id, text)
            for text in outcome.labels.warnings:
                count += 1
                log.log(logging.WARNING if count <= SHOWN else logging.INFO, "%s: %s",
                        outcome.id, text)  # fmt: skip
        yield outcome
    if count > SHOWN:
        log.warning("%d more such warnings; --verbose shows them", count - SHOWN)


def warn_of_empty(records: list[Record]) -> None:
    """Log a warning for behaviours that are on no frame of any recording."""
    labelled = [record.labels for record in records if record.labels is not None]
    if labelled:
        counts = np.sum([labels.active.sum(axis=0) for labels in labelled], axis=0).tolist()
        behaviors = labelled[0].behaviors
        warn_of_behaviors(name for name, n in zip(behaviors, counts, strict=True) if not n)


def warn_of_behaviors(empty: Iterable[str]) -> None:
    """Log a warning for behaviours that are on no frame."""
    if names := ", ".join(map(repr, empty)):
        log.warning("annotated on no frame of any recording: %s", names)
