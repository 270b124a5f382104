"""Write files and folders whole or not at all, and never over anything of somebody else.

Everything is written under a temporary name, synced, and renamed. What is there already is
replaced only if this program wrote it (see `write_log`) and the caller asked for it; what else
is in a replaced folder moves into the new one. Nothing else in the package removes or renames
files, or opens existing ones for writing.

Symbolic links: folders above a target are followed. A target that is itself a link is written into
where it leads to a folder (a run that resumes), and is never replaced.
"""

import errno
import os
import secrets
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from lisbet.core.errors import OutputError
from lisbet.core.storage.rename import rename_new
from lisbet.core.storage.write_log import NEW, WriteLog, hash_of

_NOFOLLOW = getattr(os, "O_NOFOLLOW", 0)
_NO_LINKS = {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EXDEV,
             errno.EACCES}  # fmt: skip
"""What file systems answer that cannot make a hard link."""


@contextmanager
def write_file(
    path: Path,
    *,
    root: Path | None = None,
    overwrite: bool = False,
    notes: WriteLog | None = None,
) -> Iterator[Path]:
    """Write a file under a temporary name; it takes its own when the block ends without an error.

    Parameters
    ----------
    path : Path
        The file.
    root : Path, optional
        The folder whose log notes the file, which contains it at any depth; default: its own.
    overwrite : bool
        Whether a file that this program wrote is replaced.
    notes : WriteLog, optional
        The log of `root`, for a caller that writes many files.

    Yields
    ------
    Path
        Where to write. On an error it is removed, and `path` stays as it was.

    Raises
    ------
    OutputError
        If there is something else at `path`, or a file of ours that is not to be replaced.
    """
    root = path.parent if root is None else root
    notes = notes or WriteLog(root)
    require_file_target(path, root=root, overwrite=overwrite, notes=notes)
    with naming_file(path):
        root.mkdir(parents=True, exist_ok=True)
        notes.begin("outputs")
        notes.make_folders(path.parent)
        temporary = temporary_name(path, NEW)
        notes.add_temporary(temporary)
        try:
            yield temporary
            sync(temporary)
            notes.add(path, size=temporary.stat().st_size, sha256=hash_of(temporary))
            _take_name(temporary, path, notes)
            sync(path.parent)
        finally:
            temporary.unlink(missing_ok=True)


def _take_name(temporary: Path, path: Path, notes: WriteLog) -> None:
    """Rename a finished file; what came to its place meanwhile is replaced only if it is ours."""
    try:
        rename_new(temporary, path)
    except FileExistsError:
        require_file_target(path, root=notes.root, overwrite=True, notes=notes)
        os.replace(temporary, path)


def write_text(path: Path, text: str, *, root: Path | None = None, overwrite: bool = False) -> None:
    """Write a text file, in UTF-8; see `write_file`."""
    with write_file(path, root=root, overwrite=overwrite) as temporary:
        temporary.write_text(text, "utf-8")


def rewrite_text(path: Path, text: str, root: Path) -> None:
    """Replace a file that `claim` noted; for one that changes so often that hashes are no use."""
    temporary = path.with_name(f".{path.name}{NEW}")
    with naming_file(path):
        handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | _NOFOLLOW, 0o666)
        with os.fdopen(handle, "w", encoding="utf-8") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        require_file_target(path, root=root, overwrite=True)
        os.replace(temporary, path)
        sync(path.parent)


def claim(path: Path, root: Path) -> None:
    """Note a file that this process is going to append to or to rewrite many times.

    Raises
    ------
    OutputError
        If there is one that this program did not write.
    """
    notes = WriteLog(root)
    temporary = path.with_name(f".{path.name}{NEW}")
    name, other = (p.relative_to(root).as_posix() for p in (path, temporary))
    if (None, None) in notes.known.files.get(name, ()):
        return
    require_file_target(path, root=root, overwrite=True)
    require_file_target(temporary, root=root, overwrite=True)
    notes.make_folders(path.parent)
    notes.add_many([{"file": name}, {"file": other}])


def append_text(path: Path, text: str, root: Path) -> None:
    """Append to a file of ours, which is made if there is none, and wait until it is on the disk.

    Raises
    ------
    OutputError
        If there is one that this program did not write.
    """
    claim(path, root)
    with naming_file(path):
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | _NOFOLLOW, 0o666)
        with os.fdopen(handle, "w", encoding="utf-8") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())


def remove_file(path: Path, root: Path) -> None:
    """Remove a file, if this program wrote it; leave it alone otherwise."""
    if WriteLog(root).owns(path):
        path.unlink(missing_ok=True)


def require_file_target(
    path: Path, *, root: Path | None = None, overwrite: bool, notes: WriteLog | None = None
) -> None:
    """Refuse to write a file over something that must not be replaced.

    `notes` is the log of `root`, for a caller that asks about many files.

    Raises
    ------
    OutputError
        Naming what is there.
    """
    try:
        status = path.lstat()
    except FileNotFoundError:
        _require_folders_above(path)
        return
    except NotADirectoryError:
        _require_folders_above(path)
        raise
    except OSError as error:
        raise OutputError(f"{path} cannot be written: {error.strerror}") from error
    if stat.S_ISLNK(status.st_mode):
        raise OutputError(
            f"{path} is a symbolic link, and links are not replaced; remove it, or choose another "
            "place"
        )
    if not stat.S_ISREG(status.st_mode):
        what = "a folder" if stat.S_ISDIR(status.st_mode) else "not a regular file"
        raise OutputError(f"{path} is {what}; expected the name of a file to write")
    if not overwrite:
        raise OutputError(f"{path} exists already; replace it with --overwrite, or move it away")
    notes = notes or WriteLog(path.parent if root is None else root)
    if not notes.owns(path):
        raise OutputError(
            f"{path} was not written by betman, or was changed since; it is not replaced. Move it "
            "away, or choose another place"
        )


def _require_folders_above(path: Path) -> None:
    """Refuse a path where a file, or a link that leads nowhere, is in place of a folder."""
    for folder in path.parents:
        if folder.is_dir():
            return
        if os.path.lexists(folder):
            what = "a link that leads nowhere" if folder.is_symlink() else "a file"
            raise OutputError(
                f"{path} cannot be written: {folder} is {what}; expected a folder. Remove it, or "
                "choose another place"
            )


def copy_files(
    source: Path, target: Path, names: Iterable[str], *, linked: Callable[[str], bool]
) -> None:
    """Copy files of a folder into a new one.

    Parameters
    ----------
    source, target : Path
        The folders.
    names : iterable of str
        Names relative to the folder.
    linked : callable
        Whether a file, given its name, never changes: it is linked where the file system can.
    """
    for name in names:
        path = target / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if linked(name):
            try:
                os.link(source / name, path)
                continue
            except OSError as error:
                if error.errno not in _NO_LINKS:
                    raise
        shutil.copy2(source / name, path)


def temporary_name(path: Path, end: str) -> Path:
    """Return an unused name next to a path, for what is not finished or is replaced."""
    return path.with_name(f".{path.name}.{secrets.token_hex(8)}{end}")


def sync(path: Path) -> None:
    """Wait until a file or folder is on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        # Some network and FUSE file systems cannot sync a folder, and do not need to.
        if error.errno not in (errno.EINVAL, errno.ENOTSUP) or not path.is_dir():
            error.filename = error.filename or str(path)
            raise
    finally:
        os.close(handle)


def sync_tree(folder: Path) -> None:
    """Wait until a folder and everything in it is on the disk."""
    for place, _, names in os.walk(folder, topdown=False):
        for name in names:
            sync(Path(place, name))
        sync(Path(place))


def require_writable(folder: Path) -> None:
    """Refuse a folder that cannot be written to, without leaving a trace.

    Raises
    ------
    OutputError
        Naming the folder, or the nearest one above it that exists, and the reason.
    """
    there = folder.absolute()
    while not os.path.lexists(there) and there != there.parent:
        there = there.parent
    try:
        with tempfile.TemporaryFile(dir=there):
            pass
    except OSError as error:
        raise OutputError(
            f"cannot write to {folder}: {there}: {error.strerror}; choose another --output_path"
        ) from error


@contextmanager
def naming_file(path: Path) -> Iterator[None]:
    """Let an error of the system name the file: the error of a full disk does not name it."""
    try:
        yield
    except OSError as error:
        error.filename = error.filename or str(path)
        raise
