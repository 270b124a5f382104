"""Which files of a folder this program wrote: only those may be replaced or removed.

Every folder that results are written to holds ``.lisbet.jsonl``, a line of JSON for each file and
folder, with size and SHA-256. The line is written before the file takes its name, so that a
crash leaves no file of ours that is not recognised. Lines are only ever appended, so that several
processes may write at the same time. A file that was changed since is no longer ours.
"""

import contextlib
import hashlib
import json
import os
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, TypeGuard

from lisbet import __version__
from lisbet.core.json_types import JsonDict

LOG = ".lisbet.jsonl"
OLD, NEW = ".replaced", ".partial"
"""Ends of the names of what is being replaced, and of what is not finished yet."""


@dataclass
class _Known:
    """The contents of a log."""

    kind: str | None = None
    complete: bool = False
    files: dict[str, list[tuple[int | None, str | None]]] = field(default_factory=dict)
    folders: set[str] = field(default_factory=set)
    temporary: set[str] = field(default_factory=set)
    published: set[str] = field(default_factory=set)

    def add(self, line: Any) -> None:
        """Take in a line; one that a later release wrote is passed over."""
        if not isinstance(line, dict):
            return
        if isinstance(line.get("kind"), str):
            self.kind = line["kind"]
        self.complete |= line.get("complete") is True
        if _is_inside(name := line.get("file")):
            self.files.setdefault(name, []).append((line.get("size"), line.get("sha256")))
        if _is_inside(name := line.get("folder")):
            self.folders.add(name)
        if _is_inside(name := line.get("published")):
            self.published.add(name)
        if _is_inside(name := line.get("temporary")) and _TEMPORARY.fullmatch(Path(name).name):
            self.temporary.add(name)


_TEMPORARY = re.compile(r"\..+\.[0-9a-f]{16}\.(partial|replaced)")


def _is_inside(name: object) -> TypeGuard[str]:
    """Whether a name of a log, which may be somebody else's, is one of a file in its folder."""
    if not isinstance(name, str) or not name or "\0" in name:
        return False
    path = PurePosixPath(name)
    return not path.is_absolute() and ".." not in path.parts and path.as_posix() == name


class WriteLog:
    """The log of a folder.

    Parameters
    ----------
    root : Path
        The folder. It need not exist, nor have a log, to be asked.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.path = root / LOG
        self._known = _Known()
        self._file: tuple[int, int] | None = None
        """Device and inode of the log that was read."""
        self._read = 0
        """Bytes of it that were read: lines are only ever appended."""

    # What it says ---------------------------------------------------------------------------------

    @property
    def known(self) -> _Known:
        """The current contents of the log; empty if there is none or it cannot be read."""
        try:
            status = self.path.lstat()
            if not stat.S_ISREG(status.st_mode):
                return _Known()
            file = (status.st_dev, status.st_ino)
            if file != self._file or status.st_size < self._read:
                self._known, self._file, self._read = _Known(), file, 0
            if status.st_size != self._read:
                with self.path.open("rb") as stream:
                    stream.seek(self._read)
                    lines, newline, _ = stream.read().rpartition(b"\n")
                self._read += len(lines + newline)
                for line in lines.split(b"\n"):
                    with contextlib.suppress(ValueError):  # cut off by a crash
                        self._known.add(json.loads(line))
        except OSError:
            return _Known()
        return self._known

    @property
    def kind(self) -> str | None:
        """What the folder is, such as "run", "model" or "dataset"; None if it is not ours."""
        return self.known.kind

    def owns(self, path: Path) -> bool:
        """Whether a file below the folder is there as this program wrote it."""
        name = self._name(path)
        if name == LOG:
            return self.kind is not None
        try:
            status = path.lstat()
        except OSError:
            return False
        if not stat.S_ISREG(status.st_mode):
            return False
        for size, digest in self.known.files.get(name, ()):
            if size in (None, status.st_size) and digest in (None, hash_of(path)):
                return True
        return False

    def foreign(self, folder: Path | None = None) -> list[Path]:
        """Return what is not ours in the root, or a folder below it.

        Returns
        -------
        list of Path
            Files, links, and folders as a whole.
        """
        return list(self._foreign(self.root if folder is None else folder))

    def _foreign(self, folder: Path) -> Iterator[Path]:
        known = self.known
        parents = {str(up) for name in known.files for up in Path(name).parents}
        with os.scandir(folder) as entries:
            paths = sorted((Path(entry.path), entry.is_dir(follow_symlinks=False))
                           for entry in entries)  # fmt: skip
        for path, is_folder in paths:
            name = self._name(path)
            if name in known.temporary or self.owns(path):
                continue
            if is_folder and (name in known.folders or name in parents):
                yield from self._foreign(path)
            else:
                yield path

    def _name(self, path: Path) -> str:
        return path.relative_to(self.root).as_posix()

    # What is added --------------------------------------------------------------------------------

    def begin(self, kind: str) -> None:
        """Begin the log of a folder, unless it has one."""
        if not self._has_begun() and self.kind is None:
            self._append({"kind": kind, "lisbet": __version__}, durable=False)

    def _has_begun(self) -> bool:
        """Whether the first line names the kind; a log of thousands of files is long to read."""
        if self.path.is_symlink():
            return False
        try:
            with self.path.open("rb") as stream:
                first = json.loads(stream.readline(4096))
        except (OSError, ValueError):
            return False
        return isinstance(first, dict) and isinstance(first.get("kind"), str)

    def add(self, path: Path, *, size: int | None = None, sha256: str | None = None) -> None:
        """Note a file that is about to be written; without a size, one that grows."""
        line: JsonDict = {"file": self._name(path)}
        line |= {} if size is None else {"size": size}
        self._append(line | ({} if sha256 is None else {"sha256": sha256}))

    def add_many(self, lines: list[JsonDict]) -> None:
        """Note several things at once."""
        if lines:
            self._append(*lines)

    def add_temporary(self, path: Path) -> None:
        """Note a name under which something is about to be written that is not finished."""
        self._append({"temporary": self._name(path)}, durable=False)

    def add_published(self, path: Path) -> None:
        """Note that a folder whose files were noted before has its name now."""
        self._append({"published": self._name(path)}, durable=False)

    def make_folders(self, folder: Path) -> None:
        """Make a folder below the root, and note those on the way that were not there."""
        absent = []
        while folder != self.root and not folder.is_dir():
            absent.append(folder)
            folder = folder.parent
        for path in reversed(absent):
            self._append({"folder": self._name(path)}, durable=False)
            path.mkdir(exist_ok=True)

    def complete(self) -> None:
        """Note that everything that belongs into the folder is there."""
        self._append({"complete": True})

    def _append(self, *lines: JsonDict, durable: bool = True) -> None:
        """Append lines.

        Those of files must be on the disk before the files are; the others are with the next ones,
        and without them only an empty folder or a temporary file would not be recognised.
        """
        text = "".join(json.dumps(line) + "\n" for line in lines)
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0)
        try:
            handle = os.open(self.path, flags, 0o666)
            try:
                end = os.fstat(handle).st_size
                if end and os.pread(handle, 1, end - 1) != b"\n":  # a crash cut the last line off
                    text = "\n" + text
                data = text.encode()
                while data:
                    data = data[os.write(handle, data) :]
                if durable:
                    os.fsync(handle)
            finally:
                os.close(handle)
        except OSError as error:
            error.filename = error.filename or str(self.path)
            raise


def hash_of(path: Path) -> str:
    """Return the SHA-256 of a file."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
