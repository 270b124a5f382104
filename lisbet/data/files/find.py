"""Look into the files of a folder: which of them are tracking files, and which are not used."""

import logging
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from lisbet.core.errors import DataError
from lisbet.data.files.versions import FileChoice, arranged
from lisbet.data.readers import recording_reader
from lisbet.data.readers._peek import Peek
from lisbet.data.readers._reader import Kind
from lisbet.data.readers.auto import format_of, formats

log = logging.getLogger(__name__)

MEDIA = frozenset(
    f".{ending}"
    for ending in (
        *("avi", "m4v", "mkv", "mov", "mp3", "mp4", "mpeg", "mpg", "wav", "webm", "wmv"),
        *("bmp", "gif", "jpeg", "jpg", "pdf", "png", "svg", "tif", "tiff"),
        *("gz", "json", "npy", "npz", "pickle", "pkl", "pt", "py", "tar", "yaml", "yml", "zip"),
    )
)
"""Endings of files that are skipped, unless an installed format documents such names."""
NAMED = 10
"""At most so many files are named in one message."""


@dataclass
class Folder:
    """What is in a folder.

    Parameters
    ----------
    recordings : list of (str, tuple of Path, str or None)
        Name of the video, or "" where the recording is the folder; its files; what is wrong.
    others : set of str
        Formats of tracking files that were not asked for.
    unused : list of str
        Names of the other files, and what they are.
    unusable : list of str
        Those of them that hold tracks, but cannot be read or do not fit the pattern.
    skipped : Counter of str
        Endings of files that are not looked into.
    """

    recordings: list[tuple[str, tuple[Path, ...], str | None]] = field(default_factory=list)
    others: set[str] = field(default_factory=set)
    unused: list[str] = field(default_factory=list)
    unusable: list[str] = field(default_factory=list)
    skipped: Counter[str] = field(default_factory=Counter)


def _is_media(name: str) -> bool:
    """Whether a file is skipped by its ending, and no installed format documents its name."""
    return Path(name).suffix.lower() in MEDIA and not any(
        reader.matches(name) for _, reader in formats()
    )


def look_into(folder: Path, names: list[str], wanted: str, choice: FileChoice) -> Folder:
    """Find the recordings among the files of a folder.

    Parameters
    ----------
    folder : Path
        The folder.
    names : list of str
        Names of its files.
    wanted : str
        Format, or "auto" for any.
    choice : FileChoice
        Which files are used, and as what.
    """
    found, candidates = Folder(), dict[str, list[Path]]()
    certain, spare = set(), dict[str, list[Path]]()
    for name in sorted(names):
        if name.startswith("."):
            continue
        if _is_media(name):
            found.skipped[Path(name).suffix.lower()] += 1
            continue
        path = Path(folder, name)
        own, kind = _kind(path, wanted)
        if kind is None:
            found.unused.append(name)
        elif not kind.usable or own is None:
            found.unused.append(f"{name} ({kind})")
            if kind.matters and wanted in ("auto", own):
                found.unusable.append(f"{name} ({kind})")
        elif wanted not in ("auto", own):
            found.others.add(own)
            found.unused.append(f"{name} ({kind})")
        elif not choice.allows(name):
            found.unused.append(f"{name} ({kind}; not {choice.pattern})")
            found.unusable.append(found.unused[-1])
        elif kind.spare:
            spare.setdefault(own, []).append(path)
        else:
            candidates.setdefault(own, []).append(path)
            certain.update([own] if kind.certain else [])
    if not candidates:
        candidates, spare = spare, {}
        certain = set(candidates)
    found.unused += [f"{file.name} (left out)" for files in spare.values() for file in files]
    if certain:  # where some are recognised, a name such as tracking_notes.csv tells nothing
        for own in candidates.keys() - certain:
            found.unused += [f"{file.name} (unreadable {own} file)" for file in candidates.pop(own)]
    _arrange(found, candidates, choice)
    used = {file.name for _, files, _ in found.recordings for file in files}
    found.unused += [
        f"{f.name} (left out)" for files in candidates.values() for f in files if f.name not in used
    ]
    if found.recordings and found.unused:
        log.info("%s: read %s; not used: %s", folder, ", ".join(sorted(used)),
                 ", ".join(found.unused[:NAMED]))  # fmt: skip
    return found


def _kind(path: Path, wanted: str) -> tuple[str | None, Kind | None]:
    """Return format and kind of a file; the wanted format comes first if it can read the file.

    A file with a documented name of the wanted format is of this format.
    """
    peek = Peek(path)
    own, kind = format_of(peek)
    if own != wanted != "auto":
        reader = recording_reader(wanted)
        wanted_kind = None if own is None else reader.recognise(peek)
        if wanted_kind is not None and wanted_kind.usable:
            return wanted, wanted_kind
        if reader.matches(path.name):
            return wanted, Kind(f"{wanted} file by its name")
    return own, kind


def _arrange(found: Folder, candidates: dict[str, list[Path]], choice: FileChoice) -> None:
    if len(candidates) > 1:
        files = [file for own in candidates.values() for file in own]
        listed = "; ".join(
            f"{name}: {', '.join(file.name for file in own)}" for name, own in candidates.items()
        )
        problem = (
            f"tracking files of {len(candidates)} formats in one folder ({listed}); expected one. "
            f"Choose with --data_format={' or '.join(candidates)}, or with --tracking_pattern"
        )
        found.recordings.append(("", tuple(files), problem))
        return
    for name, own in candidates.items():
        reader = recording_reader(name)
        documented = [file for file in own if reader.matches(file.name)]
        plain = choice == FileChoice()
        if plain and not reader.several and len(documented) == 1 < len(own):
            log.warning("%s: only %s is read, by its name; not %s. See --tracking_pattern and "
                        "--flat", own[0].parent, documented[0].name,
                        ", ".join(f.name for f in own if f not in documented))  # fmt: skip
            own = documented
        try:
            arrangement = arranged(own, choice, several=reader.several)
        except DataError as error:
            found.recordings.append(("", tuple(own), str(error)))
            continue
        found.recordings += [(video, files, None) for video, files in arrangement]
