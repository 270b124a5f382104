"""Folders of recordings: each is seen once, also where symbolic links lead to it again."""

import logging
import os
from collections import deque
from collections.abc import Iterable, Iterator
from pathlib import Path

from lisbet.core.errors import DataError

log = logging.getLogger(__name__)


def walk_folders(top: Path) -> Iterator[tuple[Path, list[str], list[str]]]:
    """Yield each folder below a folder once, with the names of its folders and of its files.

    Symbolic links to folders are followed after all others, so that a folder that also lies below
    `top` itself keeps its own name. Hidden folders are left out.

    Raises
    ------
    DataError
        If a link leads to a folder above it.
    """
    seen: dict[Path, Path] = {}
    folders, links = [top], deque[Path]()
    while folders or links:
        folder = folders.pop() if folders else links.popleft()
        place = folder.resolve()
        if place in seen:
            log.warning(
                "%s is left out: it is the folder %s, which is used already", folder, seen[place]
            )
            continue
        seen[place] = folder
        subfolders, names = _contents(folder)
        yield folder, subfolders, names
        linked = [name for name in subfolders if Path(folder, name).is_symlink()]
        _refuse_loops(folder, linked)
        links.extend(Path(folder, name) for name in linked)
        plain = [Path(folder, name) for name in subfolders if name not in linked]
        folders.extend(reversed(plain))  # the first one is the next one


def _contents(folder: Path) -> tuple[list[str], list[str]]:
    """List the folders, without hidden ones, and the files in a folder."""
    subfolders, names = [], []
    try:
        with os.scandir(folder) as entries:
            for entry in sorted(entries, key=lambda entry: entry.name):
                if not entry.is_dir():
                    names.append(entry.name)
                elif not entry.name.startswith("."):
                    subfolders.append(entry.name)
    except OSError as error:
        log.warning("%s is left out: it cannot be read (%s)", folder, error.strerror)
    return subfolders, names


def _refuse_loops(folder: Path, links: Iterable[str]) -> None:
    """Refuse links to a folder above: everything would be found again below them."""
    for name in links:
        link = Path(folder, name)
        if folder.resolve().is_relative_to(link.resolve()):
            raise DataError(
                f"{link} is a link to {link.resolve()}, a folder above it, so that recordings "
                "would be found many times. Remove the link, or move it elsewhere"
            )


def require_own_files(recordings: Iterable[tuple[str, tuple[Path, ...]]], where: Path) -> None:
    """Check that no file is a tracking file of two recordings.

    Parameters
    ----------
    recordings : iterable of (str, tuple of Path)
        Id and tracking files of each recording.
    where : Path
        The data folder.

    Raises
    ------
    DataError
        Naming both recordings and the file.
    """
    owners: dict[Path, str] = {}
    for record_id, files in recordings:
        for file in files:
            other = owners.setdefault(file.resolve(), record_id)
            if other != record_id:
                raise DataError(
                    f"{where}: the recordings {other} and {record_id} have the same tracking file, "
                    f"{file.resolve()}, by symbolic links; expected each recording once. Remove "
                    "one of them, or leave it out with --data_filter"
                )
