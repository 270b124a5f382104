"""Refuses targets of ``convert_dataset`` that must not be written to, before any work."""

import os
from pathlib import Path

from lisbet.core.errors import OutputError
from lisbet.core.storage.files import require_writable
from lisbet.core.storage.folders import contents, require_folder_target
from lisbet.data.files.sources import Source
from lisbet.data.zarr.destination import KIND, LocalDestination
from lisbet.data.zarr.store import MARK

LONGEST_NAME = 200
"""Bytes of a name; temporary names are longer, and file systems take 255."""


def require_local_target(target: Path, data_path: Path, sources: list[Source]) -> None:
    """Refuse a local target that is not a new folder or a store of ours, apart from the source.

    Parameters
    ----------
    target : Path
        Where the store is to be written.
    data_path : Path
        The folder of recordings.
    sources : list of Source
        The recordings; their folders may lie elsewhere, behind links.

    Raises
    ------
    OutputError
        Naming what is wrong with the target.
    """
    place = f"the target {target}"
    if target.name in ("", "..") or any(ord(character) < 32 for character in str(target)):
        raise OutputError(f"{str(target)!r} is not the name of a store; expected one such as "
                          "datasets/mice.zarr")  # fmt: skip
    if len(os.fsencode(target.name)) > LONGEST_NAME:
        raise OutputError(f"{place}: its name is longer than {LONGEST_NAME} bytes")
    require_writable(target.parent)
    if os.path.lexists(target):
        own = frozenset({KIND})
        attributes = LocalDestination(target).store_attributes() or {}
        if target.is_symlink() or not target.is_dir():
            require_folder_target(target, own)
        if _identity(target) in _identities(Path.cwd()):
            raise OutputError(f"{place} is the folder that the command runs in, or one above it")
    folders = {data_path, *(file.parent for source in sources for file in source.files)}
    above_target = _identities(target)
    for folder in sorted(folders):
        if _identity(folder) in above_target:
            raise OutputError(
                f"{place} is, or is in, the folder {folder} of the recordings; choose a place "
                "outside of it"
            )
        if _identity(target) in _identities(folder):
            raise OutputError(
                f"{place} is a folder that the recordings in {folder} lie in; choose a place "
                "outside of it"
            )
    if os.path.lexists(target) and attributes.get("format") != MARK:
        raise OutputError(
            f"{place} is {contents(target)}, not a store that betman convert_dataset wrote; it is "
            "not replaced. Choose another place to write to, or move it away"
        )


def _identity(path: Path) -> tuple[int, int] | None:
    """Return the identity of a folder, equal for all paths that lead to it, or None."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _identities(path: Path) -> set[tuple[int, int]]:
    """Return the identities of a folder and those above it, through links."""
    real = path.resolve()
    return {found for up in (real, *real.parents) if (found := _identity(up)) is not None}
