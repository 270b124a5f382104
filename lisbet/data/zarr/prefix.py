"""The keys below an address, of which only those of a store of ours are changed."""

import json
from functools import cached_property
from typing import Any

from lisbet.core.json_types import JsonDict
from lisbet.data.zarr.store import METADATA, is_own_key, sibling_of


class Prefix:
    """The keys below an address.

    Parameters
    ----------
    address : str
        The address, such as ``s3://lab/mice.zarr``.
    """

    def __init__(self, address: str) -> None:
        self.address = address.rstrip("/")

    @cached_property
    def _opened(self) -> tuple[Any, str]:
        from fsspec.core import url_to_fs

        files, path = url_to_fs(self.address)
        return files, path.rstrip("/")

    @property
    def _files(self) -> Any:
        return self._opened[0]

    def _path(self, key: str) -> str:
        return f"{self._opened[1]}/{key}"

    @property
    def has_parent(self) -> bool:
        """Whether the address names something in a bucket, and not all of it."""
        files, path = self._opened
        return bool(path.strip("/")) and (files.root_marker == "/" or "/" in path)

    def keys(self) -> list[str]:
        """Return all keys, relative to the prefix."""
        files, path = self._opened
        files.invalidate_cache()  # what others wrote meanwhile counts
        try:
            found = files.find(path)
        except FileNotFoundError:
            return []
        return sorted(name.removeprefix(path).lstrip("/") or "(an object of this name)"
                      for name in found)  # fmt: skip

    def own_keys(self) -> list[str]:
        """Return the keys that belong to a store of ours."""
        return [key for key in self.keys() if is_own_key(key)]

    def root(self) -> bytes | None:
        """Return the ``zarr.json`` of the prefix; None if there is none."""
        try:
            content = self._files.cat_file(self._path(METADATA))
        except FileNotFoundError:
            return None
        return bytes(content)

    def attributes(self) -> JsonDict | None:
        """Return the attributes of a group; None if there is no ``zarr.json``."""
        content = self.root()
        if content is None:
            return None
        try:
            attributes = json.loads(content)["attributes"]
        except (ValueError, KeyError, TypeError):
            return {}
        return attributes if isinstance(attributes, dict) else {}

    def write(self, key: str, content: bytes) -> None:
        """Write a key, in one step."""
        self._files.pipe_file(self._path(key), content)

    def copy(self, key: str, source: "Prefix") -> None:
        """Copy a key from another prefix of the same file system."""
        self._files.cp_file(source._path(key), self._path(key))

    def remove(self, keys: list[str]) -> None:
        """Remove keys; one that is gone already is no error."""
        for key in keys:
            try:
                self._files.rm_file(self._path(key))
            except FileNotFoundError:
                continue

    def remove_store(self, *, mark: bytes | None) -> None:
        """Remove the keys of a store of ours, its mark last.

        Parameters
        ----------
        mark : bytes, optional
            A ``zarr.json`` that says that it is unfinished, which replaces a complete one first.
        """
        if mark is not None:
            self.write(METADATA, mark)
        self.remove([key for key in self.own_keys() if key != METADATA])
        self.remove([METADATA])

    def sibling(self, token: str) -> "Prefix":
        """Return the prefix next to this one that a new store is written to."""
        return Prefix(sibling_of(self.address, token))

    def siblings(self) -> list["Prefix"]:
        """Return the prefixes next to this one that `sibling` made, of this and other processes."""
        files, path = self._opened
        files.invalidate_cache()
        try:
            found = files.ls(path.rpartition("/")[0], detail=False)
        except FileNotFoundError:
            return []
        start = sibling_of(path, "")
        names = sorted(name.rstrip("/") for name in found)
        return [self.sibling(name.removeprefix(start)) for name in names
                if name.startswith(start)]  # fmt: skip
