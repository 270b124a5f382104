"""Where a converted dataset is written: a local folder, or an address (see `remote`).

A store appears, or replaces an earlier one, when it is complete. Of what is there, only the files
of a store that betman wrote are replaced.
"""

import logging
import os
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import zarr

from lisbet.core.address import place_of
from lisbet.core.json_types import JsonDict
from lisbet.core.storage.files import copy_files, require_writable, sync
from lisbet.core.storage.folders import (
    new_folder,
    publish_folder,
    recover,
    remove_unfinished,
    unfinished_folders,
)
from lisbet.core.storage.lock import Lock, locked
from lisbet.core.storage.write_log import WriteLog, hash_of
from lisbet.data.zarr.journal import Journal
from lisbet.data.zarr.store import (
    LABELS,
    MARK,
    METADATA,
    POSITION,
    Store,
    finished_metadata,
    is_own_key,
    shard_of,
    write_metadata,
)
from lisbet.data.zarr.types import ZarrGroup

log = logging.getLogger(__name__)

KIND = "store"
"""Kind of the folder in its log of written files."""


class Destination(ABC):
    """Where a store is written.

    Parameters
    ----------
    target : Path
        Its path or address.
    """

    group: ZarrGroup
    """The Zarr group to write into; from `begin` on."""

    def __init__(self, target: Path) -> None:
        self.target = target
        self.place = place_of(target)

    @abstractmethod
    def held(self) -> AbstractContextManager[str | None]:
        """Hold the destination in a block, after what an earlier process left is put in order.

        Yields
        ------
        str or None
            The request of an earlier process, if its store was complete and has its name now.

        Raises
        ------
        OutputError
            If another process writes there.
        """

    @abstractmethod
    def store_attributes(self) -> JsonDict | None:
        """Return the attributes of what is there; None if nothing is, {} if it is no store."""

    @abstractmethod
    def begin(self, request: JsonDict, old: Store | None) -> list[JsonDict]:
        """Begin to write a store, or continue an interrupted conversion.

        Parameters
        ----------
        request : dict
            What the contents follow from.
        old : Store, optional
            The store to add to.

        Returns
        -------
        list of dict
            What was noted by an interrupted conversion that is continued.
        """

    @abstractmethod
    def note(self, line: JsonDict, shard: int) -> None:
        """Note that a shard is written."""

    @abstractmethod
    def require_held(self) -> None:
        """Refuse to continue if another process has taken the destination over."""

    @abstractmethod
    def finish(self, attributes: JsonDict) -> None:
        """Complete the store, and let it take the place of an earlier one."""

    @abstractmethod
    def give_up(self, *, keep: bool) -> bool:
        """Remove what was written, or keep it for the same command; return whether it is kept."""


class LocalDestination(Destination):
    """A folder, filled under a temporary name next to it."""

    _lock: Lock
    folder: Path
    """The folder that is filled."""
    _others: list[Path]

    @contextmanager
    def held(self) -> Iterator[str | None]:
        """Hold the lock of the folder; see `Destination.held`."""
        require_writable(self.target.parent)
        with locked(self.target) as self._lock:
            recover(self.target, frozenset({KIND}))
            if WriteLog(self.target).kind == KIND:
                Journal(self.target).remove()
            yield None

    def store_attributes(self) -> JsonDict | None:
        """Return the attributes of the folder that is there; see `Destination.store_attributes`."""
        if not os.path.lexists(self.target):
            return None
        try:
            group = zarr.open_group(str(self.target), mode="r", zarr_format=3)
            attributes = dict(group.attrs)
        except Exception:  # a damaged store makes the libraries raise almost anything
            attributes = {}
        return {"format": MARK} if WriteLog(self.target).kind == KIND else attributes

    def begin(self, request: JsonDict, old: Store | None) -> list[JsonDict]:
        """Make a folder, or continue in one that was not finished; see `Destination.begin`."""
        self._others, lines = unfinished_folders(self.target, KIND), []
        for folder in self._others:
            lines = Journal(folder).lines()
            # The first shard is noted after all arrays are made.
            if len(lines) > 1 and lines[0] == request:
                self.folder = folder
                self._others.remove(folder)
                break
        else:
            lines = []
            self.folder = new_folder(self.target, KIND)
            if old is None:
                zarr.create_group(str(self.folder), zarr_format=3)
            else:
                copy_files(
                    self.target, self.folder, own_files(self.target),
                    linked=lambda name: shard_of(name) is not None,
                )  # fmt: skip
            Journal(self.folder).note(request)
        self.group = _opened(self.folder)
        return lines[1:]

    def note(self, line: JsonDict, shard: int) -> None:
        """Sync a shard, and note it in the journal."""
        for name in (POSITION, LABELS):
            if name in self.group:
                zeros = "0" * (self.group[name].ndim - 1)
                sync(self.folder.joinpath(name, "c", str(shard), *zeros))
        Journal(self.folder).note(line)

    def require_held(self) -> None:
        """Refuse to continue without the lock."""
        self._lock.require_held()

    def finish(self, attributes: JsonDict) -> None:
        """Give the folder its name; an earlier store is removed last."""
        self.require_held()
        write_metadata(self.group, finished_metadata(self.group, attributes))
        note_own_files(self.folder)
        if os.path.lexists(self.target):
            adopt(self.target)
        publish_folder(self.folder, self.target, frozenset({KIND}))
        Journal(self.target).remove()
        for folder in self._others:
            remove_unfinished(folder)

    def give_up(self, *, keep: bool) -> bool:
        """Remove the folder that is filled, or keep it."""
        if not keep:
            remove_unfinished(self.folder)
        return keep


def own_files(folder: Path) -> list[str]:
    """Return the names of the files in a store's folder that belong to a store of ours."""
    names = []
    for place, _, files in os.walk(folder):
        here = Path(place).relative_to(folder)
        names += [(here / name).as_posix() for name in files]
    return sorted(name for name in names if is_own_key(name))


def note_own_files(folder: Path) -> None:
    """Note the files of a store in the log of its folder.

    Chunks are noted by name: hashing 100 GB takes too long, and a damaged one is still ours.
    """
    notes = WriteLog(folder)
    names = own_files(folder)
    parents = {str(up) for name in names for up in Path(name).parents} - {"."}
    lines: list[JsonDict] = [{"folder": name} for name in sorted(parents)]
    for name in names:
        line: JsonDict = {"file": name}
        if name.endswith(METADATA):
            line["size"] = (folder / name).stat().st_size
            line["sha256"] = hash_of(folder / name)
        lines.append(line)
    notes.add_many(lines)


def adopt(folder: Path) -> None:
    """Give a store that is recognised by its mark a log, if version 0.1, which had none, wrote it.

    The caller has found the mark.
    """
    notes = WriteLog(folder)
    if notes.kind != KIND or not notes.known.complete:
        notes.add_many([{"kind": KIND}])  # also where another command has begun a log since
        note_own_files(folder)
        notes.complete()


def _opened(folder: Path) -> ZarrGroup:
    """Open a group for writing, with the metadata of each array itself."""
    return zarr.open_group(str(folder), mode="r+", zarr_format=3, use_consolidated=False)
