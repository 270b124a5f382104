"""Writes a store to an address, where nothing can be renamed.

Only keys of a store of ours are written, replaced or removed: those of its ``zarr.json``, which
bears its mark, and of its arrays. The ``zarr.json`` is one key, written in one step:

* A new store has the mark of an unfinished one until everything else is written.
* A store that replaces another is written next to it, under ``NAME.partial-TOKEN``. When it is
  complete, the old one gets the mark of an unfinished one, which says where the complete one is;
  then the new one is copied over it, its mark last, and the copy next to it is removed.
* Recordings are added as new keys. Readers take sizes from the ``zarr.json`` of the store, which
  is replaced last.

Each mark of what is not finished names its process. One that finds another's in the place of its
own stops.
"""

import hashlib
import json
import logging
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import zarr

from lisbet.core.errors import LisbetError, OutputError
from lisbet.core.json_types import JsonDict
from lisbet.core.storage.lock import LockedError, describe, has_ended, this_holder
from lisbet.data.zarr.destination import Destination
from lisbet.data.zarr.prefix import Prefix
from lisbet.data.zarr.store import (
    MARK,
    METADATA,
    POSITION,
    UNFINISHED,
    VERSION,
    Store,
    finished_metadata,
    shard_of,
    write_metadata,
)

log = logging.getLogger(__name__)

_ACTIVE: set[str] = set()
"""Tokens of the conversions of this process that run."""


class RemoteDestination(Destination):
    """An address, such as ``s3://lab/mice.zarr``.

    Parameters
    ----------
    target : Path
        The address.
    """

    def __init__(self, target: Path) -> None:
        super().__init__(target)
        self.token = secrets.token_hex(4)
        self.there = Prefix(self.place)
        self.work = self.there
        """Where keys are written."""
        self._root: bytes | None = None
        """The zarr.json at the address, as it was found."""
        self._request = ""
        self._first_shard = 0
        self._begun = False
        self._complete_copy: str | None = None
        """Where the complete store is that is being copied to the address."""
        self._name = _digest(self.there.address.encode())
        """Names the address in the stores that are written for it; it may hold a password."""

    # Order ----------------------------------------------------------------------------------------

    @contextmanager
    def held(self) -> Iterator[str | None]:
        """Put in order what an earlier process left; see `Destination.held`."""
        _ACTIVE.add(self.token)
        try:
            done = self._recover()
            self._root = self.there.root()
            yield done
        except LisbetError:
            raise
        except Exception as error:  # of the network, of an account, of a library
            words = " ".join(str(error).split()) or type(error).__name__
            words += " (pip install 'lisbet[remote]')" if isinstance(error, ImportError) else ""
            what = "written" if self._begun else "reached"
            raise OutputError(f"{self.place} cannot be {what}: {words}.{self._state()}") from error
        finally:
            _ACTIVE.discard(self.token)

    def _state(self) -> str:
        """Say what is left after an error; the store may be out of reach, so nothing is read."""
        if self._complete_copy is not None:
            return (
                f" The complete new store is at {self._complete_copy}; give the same command again "
                "to finish"
            )
        if self._begun and self._complete_before():
            return " The store that was there is as it was; give the same command again"
        return " Give the same command again"

    def _complete_before(self) -> bool:
        return self._root is not None and _format(_attributes(self._root)) == MARK

    def store_attributes(self) -> JsonDict | None:
        """Return the attributes of the store; None if none is complete."""
        found = self.there.attributes()
        return None if _format(found) == UNFINISHED else found

    def require_target(self) -> None:
        """Refuse an address that holds anything but a store of ours, or nothing.

        Raises
        ------
        OutputError
            Naming what is there.
        """
        if not self.there.has_parent:
            raise OutputError(
                f"{self.place} is all of a bucket; expected a name in it, such as "
                f"{self.place.rstrip('/')}/mice.zarr"
            )
        if _format(self.there.attributes()) in (MARK, UNFINISHED):
            return
        if keys := self.there.keys():
            more = f" and {len(keys) - 5} more" if len(keys) > 5 else ""
            raise OutputError(
                f"{self.place} is not a store that betman convert_dataset wrote: it holds "
                f"{', '.join(keys[:5])}{more}. Nothing is written or removed there; choose another "
                "place to write to"
            )

    def _recover(self) -> str | None:
        """Finish what an earlier process had complete, and remove what it had not.

        Returns
        -------
        str or None
            The request of the store that was finished.
        """
        self.require_target()
        root = self.there.root()
        attributes = _attributes(root)
        self._require_ended(_holder(attributes))
        done = None
        copied = self.there.sibling(str(attributes.get("copied_from"))).address
        for prefix in sorted(self.there.siblings(), key=lambda other: other.address != copied):
            found = prefix.attributes() or {}
            staged = found.get("staged") or found
            if staged.get("for") != self._name:
                continue  # not ours
            holder = _holder(staged)
            self._require_ended(holder)
            there_is_one = root is not None and _format(_attributes(root)) == MARK
            if _format(found) == MARK and (
                not there_is_one or staged.get("replaces") == _digest(root or b"")
            ):
                log.warning("%s: finishing an interrupted replacement", self.place)
                self._publish(prefix, root)
                root, done = self.there.root(), staged.get("request")
            elif has_ended(holder) is not None:
                prefix.remove_store(mark=self._mark())
            else:
                log.warning(
                    "%s was left by %s; if it has ended, remove this prefix",
                    prefix.address, describe(holder),
                )  # fmt: skip
        return done

    def _require_ended(self, holder: JsonDict) -> None:
        """Refuse to continue if a process that is visible from here still writes."""
        if has_ended(holder) is not False:
            return
        if holder.get("pid") != os.getpid() or holder.get("token") in _ACTIVE:
            raise LockedError(
                f"{self.place} is being written by {describe(holder)}; wait until it has ended, or "
                "stop it, or choose another place"
            )

    # Writing --------------------------------------------------------------------------------------

    def begin(self, request: JsonDict, old: Store | None) -> list[JsonDict]:
        """Write the mark of an unfinished store; see `Destination.begin`."""
        self._request = request_of(request)
        holder = _holder(_attributes(self._root))
        if holder and has_ended(holder) is None:
            log.warning(
                "%s was being written by %s, which cannot be seen from here; it is taken over",
                self.place, describe(holder),
            )  # fmt: skip
        if old is not None:
            array = old.group[POSITION]
            self._first_shard = -(-array.shape[0] // array.shards[0])
            assert self._root is not None
            self.there.write(METADATA, _with(self._root, appending=this_holder(self.token)))
        elif self._complete_before():
            self.work = self.there.sibling(self.token)
            self.work.write(METADATA, self._mark())
        else:
            self.there.write(METADATA, self._mark())
            self.there.remove([key for key in self.there.own_keys() if key != METADATA])
        self._begun = True
        self.group = zarr.open_group(
            self.work.address, mode="r+", zarr_format=3, use_consolidated=False
        )
        return []

    def note(self, line: JsonDict, shard: int) -> None:
        """Do nothing: a conversion to an address cannot be continued."""

    def require_held(self) -> None:
        """Refuse to continue if another process replaced the mark of this one."""
        holder = _holder(self.work.attributes() or {})
        if holder.get("token") != self.token:
            self._begun = False  # what is there belongs to the other one
            who = describe(holder) if holder else "another process, which has ended"
            raise LockedError(
                f"{self.place} was taken over by {who}; this conversion stops, and changes "
                "nothing there any more"
            )

    def finish(self, attributes: JsonDict) -> None:
        """Write the mark of a complete store; see `Destination.finish`."""
        self.require_held()
        if self.work is self.there:
            write_metadata(self.group, finished_metadata(self.group, attributes))
        else:
            assert self._root is not None
            staged = {"for": self._name, "request": self._request, "replaces": _digest(self._root),
                      "process": this_holder(self.token)}  # fmt: skip
            content = finished_metadata(self.group, attributes | {"staged": staged})
            write_metadata(self.group, content)
            self._publish(self.work, self._root)
        self._begun = False

    def _publish(self, source: Prefix, expected: bytes | None) -> None:
        """Copy a complete store to the address, and remove it where it was."""
        self._complete_copy = source.address
        content = source.root()
        assert content is not None
        if self.there.root() != expected:
            raise LockedError(
                f"{self.place} was written by another process meanwhile; it stays as it is. The "
                f"store of this conversion is at {source.address} until the next conversion to "
                "this place; copy it, if you need it"
            )
        token = source.address.removeprefix(self.there.sibling("").address)
        self.there.write(METADATA, self._mark(copied_from=token))
        keys = [key for key in source.own_keys() if key != METADATA]
        self.there.remove(sorted(set(self.there.own_keys()) - {*keys, METADATA}))
        for key in keys:
            self._require_mark()
            self.there.copy(key, source)
        self._require_mark()
        self.there.write(METADATA, _without(content, "staged"))
        self._complete_copy = None
        try:
            source.remove_store(mark=self._mark())
        except Exception as error:  # of the network, of a library
            log.warning(
                "%s is complete, but %s next to it was not removed (%s); the next conversion to "
                "this place removes it", self.place, source.address, error,
            )  # fmt: skip

    def _require_mark(self) -> None:
        if _holder(self.there.attributes() or {}).get("token") != self.token:
            raise LockedError(f"{self.place} was taken over by another process; this one stops")

    def give_up(self, *, keep: bool) -> bool:
        """Remove what this process wrote, if the store can be reached; nothing is kept."""
        del keep  # a conversion to an address cannot be continued
        if not self._begun:
            return False
        with suppress(Exception):
            self.require_held()
            if self.work is not self.there or not self._complete_before():
                self.work.remove_store(mark=None)
            else:
                assert self._root is not None
                self.there.remove([
                    key for key in self.there.own_keys()
                    if (number := shard_of(key)) is not None and number >= self._first_shard
                ])  # fmt: skip
                self.there.write(METADATA, _without(self._root, "appending"))
        return False

    def _mark(self, **more: str) -> bytes:
        """Return the zarr.json of an unfinished store."""
        attributes = {"format": UNFINISHED, "version": VERSION, "for": self._name,
                      "process": this_holder(self.token), "request": self._request}  # fmt: skip
        group = {"zarr_format": 3, "node_type": "group", "attributes": attributes | more}
        return json.dumps(group).encode()


def request_of(request: JsonDict) -> str:
    """Return a hash of what the contents of a store follow from."""
    return _digest(json.dumps(request, sort_keys=True).encode())


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _format(attributes: JsonDict | None) -> Any:
    return (attributes or {}).get("format")


def _attributes(content: bytes | None) -> JsonDict:
    return {} if content is None else json.loads(content)["attributes"]


def _holder(attributes: JsonDict) -> JsonDict:
    """Return the process that writes a store, by its mark; empty if none does."""
    holder = attributes.get("appending") or attributes.get("process")
    return holder if isinstance(holder, dict) else {}


def _with(content: bytes, **attributes: Any) -> bytes:
    group = json.loads(content)
    group["attributes"] |= attributes
    return json.dumps(group).encode()


def _without(content: bytes, name: str) -> bytes:
    group = json.loads(content)
    group["attributes"].pop(name, None)
    return json.dumps(group).encode()
