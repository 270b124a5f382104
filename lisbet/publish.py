"""Publish files and folders whole or not at all.

Everything is written beside its place, synced, and renamed; only then is anything old removed. A
reader, or a process that starts after a crash, finds the old version or the new one.
"""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lisbet.errors import OutputError


@contextmanager
def published(path: Path) -> Iterator[Path]:
    """Write a file under another name; it takes its own when the block ends well.

    Yields
    ------
    Path
        Where to write. On an error it is removed, and `path` stays as it was.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        yield beside
        sync(beside)
        os.replace(beside, path)
        sync(path.parent)
    except OSError as error:
        error.filename = error.filename or str(path)  # a full disk does not say for which file
        raise
    finally:
        beside.unlink(missing_ok=True)


@contextmanager
def published_folder(path: Path, *, replaced: Path | None = None) -> Iterator[Path]:
    """Fill a folder under another name; it takes its own when the block ends well.

    Parameters
    ----------
    path : Path
        The folder to publish.
    replaced : Path, optional
        Where a folder that is there already goes; default: it is removed, last of all.

    Yields
    ------
    Path
        An empty folder to fill. On an error it is removed, and `path` stays as it was.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=".partial", dir=path.parent))
    beside.chmod(0o777 & ~_umask())  # mkdtemp makes a private one
    try:
        yield beside
        publish_folder(beside, path, replaced=replaced)
    except OSError as error:
        error.filename = error.filename or str(path)
        raise
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def publish_folder(beside: Path, path: Path, *, replaced: Path | None = None) -> None:
    """Give a folder that is complete its name; see `published_folder`."""
    for folder, _, names in os.walk(beside, topdown=False):
        for name in names:
            sync(Path(folder, name))
        sync(Path(folder))
    if path.exists():
        old = replaced or beside.with_suffix(".old")
        os.rename(path, old)
        os.rename(beside, path)
        if replaced is None:
            shutil.rmtree(old)
    else:
        os.rename(beside, path)
    sync(path.parent)


def sync(path: Path) -> None:
    """Wait until a file or folder is on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def require_writable(folder: Path) -> None:
    """Refuse a folder that cannot be written to, without leaving a trace.

    Raises
    ------
    OutputError
        Naming the folder, or the nearest one above it that exists, and the reason.
    """
    there = folder.absolute()
    while not there.exists() and there != there.parent:
        there = there.parent
    try:
        with tempfile.TemporaryFile(dir=there):
            pass
    except OSError as error:
        raise OutputError(
            f"cannot write to {folder}: {there}: {error.strerror}; choose another --output_path"
        ) from error


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
