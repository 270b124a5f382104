"""Write, replace and remove folders; see `files` for the rule."""

import errno
import logging
import os
import re
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lisbet.core.errors import OutputError
from lisbet.core.json_types import JsonDict
from lisbet.core.storage.files import naming_file, sync, sync_tree, temporary_name
from lisbet.core.storage.rename import exchange, rename_new
from lisbet.core.storage.write_log import LOG, NEW, OLD, WriteLog, hash_of

log = logging.getLogger(__name__)

SHOWN = 5
"""Things that are named in a message, of more that were found."""


@contextmanager
def write_folder(
    path: Path, kind: str, *, replaces: frozenset[str] = frozenset(), keep_old: bool = False
) -> Iterator[Path]:
    """Fill a folder under a temporary name; it takes its own when the block ends without an error.

    The caller holds the lock of `path`.

    Parameters
    ----------
    path : Path
        The folder to write.
    kind : str
        What it is; its log says so.
    replaces : set of str
        Kinds of folders of ours that are replaced.
    keep_old : bool
        Whether the folder that is replaced is kept, see `kept`, until `remove_kept`.

    Yields
    ------
    Path
        An empty folder to fill. On an error it is removed, and `path` stays as it was.

    Raises
    ------
    OutputError
        If there is something at `path` that must not be replaced.
    """
    require_folder_target(path, replaces)
    with naming_file(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        new = new_folder(path, kind)
        try:
            yield new
            _note_all(new, WriteLog(new))
            publish_folder(new, path, replaces, keep_old=keep_old)
        finally:
            remove_unfinished(new)


def new_folder(path: Path, kind: str) -> Path:
    """Make an empty folder next to `path` that takes its name with `publish_folder`."""
    new = temporary_name(path, NEW)
    new.mkdir()
    WriteLog(new).begin(kind)
    return new


def publish_folder(
    new: Path, path: Path, replaces: frozenset[str] = frozenset(), *, keep_old: bool = False
) -> None:
    """Give a folder that `new_folder` made, and whose log notes its files, its name.

    Raises
    ------
    OutputError
        If there is something at `path` that must not be replaced; see `write_folder`.
    """
    require_folder_target(path, replaces)
    sync_tree(new)
    WriteLog(new).complete()
    if not os.path.lexists(path):
        rename_new(new, path)
    else:
        require_folder_target(path, replaces)
        _replace(new, path, keep_old=keep_old)
    sync(path.parent)


def unfinished_folders(path: Path, kind: str) -> list[Path]:
    """Return folders that `new_folder` made for `path` and that were not finished.

    The caller holds the lock of `path`, so that no process is filling them now.
    """
    logs = ((folder, WriteLog(folder)) for folder in _named_after(path, NEW))
    return [folder for folder, log in logs if log.kind == kind and not log.known.complete]


def remove_unfinished(folder: Path) -> None:
    """Remove a folder that `new_folder` made and that was not finished."""
    notes = WriteLog(folder)
    if folder.exists() and notes.kind is not None and not notes.known.complete:
        remove_tree(folder)


def kept(path: Path) -> Path:
    """Return where the folder is kept that another one of the same name replaces."""
    return path.with_name(f".{path.name}{OLD}")


def remove_kept(path: Path) -> None:
    """Remove the folder that another one has replaced, see `kept`.

    It is renamed first: `recover` finishes a removal that was interrupted.
    """
    if WriteLog(kept(path)).kind is not None:
        old = temporary_name(path, OLD)
        rename_new(kept(path), old)
        remove_own(old)


def restore_kept(path: Path, failed: Path) -> None:
    """Undo a replacement: the folder that was kept takes its name again.

    The caller holds the lock of `path`.

    Parameters
    ----------
    path : Path
        The folder that replaced it.
    failed : Path
        A name that nothing has, for the one that replaced it.
    """
    if exchange(kept(path), path):
        rename_new(kept(path), failed)
    else:
        rename_new(path, failed)
        rename_new(kept(path), path)
    move_foreign(failed, path)
    sync(path.parent)


def _note_all(folder: Path, notes: WriteLog) -> None:
    """Note all files and folders of a folder that was filled."""
    lines: list[JsonDict] = []
    for place, folders, names in os.walk(folder):
        here = Path(place).relative_to(folder)
        lines += [{"folder": (here / name).as_posix()} for name in sorted(folders)]
        for name in sorted(names):
            file = Path(place, name)
            if file != notes.path:
                lines.append({
                    "file": file.relative_to(folder).as_posix(), "size": file.stat().st_size,
                    "sha256": hash_of(file),
                })  # fmt: skip
    notes.add_many(lines)


def _replace(new: Path, path: Path, *, keep_old: bool) -> None:
    """Give a finished folder the name of one that is there, which is then removed or kept."""
    WriteLog(path).complete()  # `recover`, after a crash, does not take it for an unfinished one
    old = kept(path)
    keep_old = keep_old and not os.path.lexists(old)
    if keep_old:
        rename_new(new, old)
        if not exchange(old, path):
            rename_new(old, new)
            rename_new(path, old)
            rename_new(new, path)
    elif exchange(new, path):
        old = new
    else:
        old = temporary_name(path, OLD)
        rename_new(path, old)
        rename_new(new, path)
    sync(path.parent)
    move_foreign(old, path)
    if not keep_old:
        remove_own(old)


def move_foreign(source: Path, target: Path) -> None:
    """Move what is not ours from a folder that is replaced into the one that replaces it."""
    for path in WriteLog(source).foreign():
        place = target / path.relative_to(source)
        place.parent.mkdir(parents=True, exist_ok=True)
        for name in (place, *(place.with_name(f"{place.name}.kept{n}") for n in range(1, 1000))):
            try:
                rename_new(path, name)
            except FileExistsError:
                continue
            if name != place:
                log.warning("%s is not betman's and is kept as %s", place, name)
            break


def remove_own(folder: Path) -> None:
    """Remove what this program wrote in a folder, and the folder if nothing else is in it."""
    notes = WriteLog(folder)
    if notes.kind is None:
        return
    folders: list[Path] = []
    for place, names, files in os.walk(folder):
        here = Path(place)
        for name in list(names):
            path = here / name
            if path.relative_to(folder).as_posix() in notes.known.temporary:
                names.remove(name)
                remove_tree(path)
        for name in files:
            path = here / name
            if path != notes.path and (
                path.relative_to(folder).as_posix() in notes.known.temporary or notes.owns(path)
            ):
                path.unlink(missing_ok=True)
        folders.append(here)
    for path in reversed(folders[1:]):
        if path.relative_to(folder).as_posix() in notes.known.folders:
            _remove_if_empty(path)
    if [path.name for path in folder.iterdir()] == [LOG]:
        notes.path.unlink()
        folder.rmdir()


def require_folder_target(path: Path, replaces: frozenset[str] = frozenset()) -> None:
    """Refuse to write a folder where something is that must not be replaced.

    Parameters
    ----------
    path : Path
        The folder to write.
    replaces : set of str
        Kinds of folders of ours that may be replaced.

    Raises
    ------
    OutputError
        Naming what is there.
    """
    try:
        status = path.lstat()
    except FileNotFoundError:
        return
    except OSError as error:
        raise OutputError(f"{path} cannot be written: {error.strerror}") from error
    if not replaces:
        raise OutputError(f"{path} exists already; choose another name, or move it away")
    if stat.S_ISLNK(status.st_mode):
        raise OutputError(
            f"{path} is a symbolic link, and what a link leads to is not replaced; remove the "
            "link, or choose another name"
        )
    if not stat.S_ISDIR(status.st_mode):
        raise OutputError(f"{path} is a file, which is not replaced; choose another name")
    kind = WriteLog(path).kind
    if kind not in replaces:
        raise OutputError(
            f"{path} is not replaced: it is {'a ' + kind if kind else contents(path)}, not "
            f"a {' or '.join(sorted(replaces))} that betman wrote. Choose another name, or move it "
            "away"
        )


def contents(folder: Path) -> str:
    """Describe a folder by what is in it, for a message."""
    try:
        names = sorted(path.name for path in folder.iterdir())
    except OSError as error:
        return f"a folder that cannot be read ({error.strerror})"
    if not names:
        return "an empty folder"
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return f"a folder that holds {', '.join(names[:SHOWN])}{more}"


# After a crash ------------------------------------------------------------------------------------


def recover(path: Path, resumable: frozenset[str] = frozenset()) -> None:
    """Finish or undo what a process was doing to a folder when it was killed.

    The caller holds the lock of `path`, so that no process is doing it now.

    Parameters
    ----------
    path : Path
        The folder.
    resumable : set of str
        Kinds of unfinished folders that stay, see `unfinished_folders`.
    """
    if not path.parent.is_dir():
        return
    for folder in (*_named_after(path, NEW), *_named_after(path, OLD)):
        _remove_if_empty_or_new(folder)
    left = {end: [p for p in _named_after(path, end) if WriteLog(p).kind] for end in (OLD, NEW)}
    new = [folder for folder in left[NEW] if WriteLog(folder).known.complete]
    if not os.path.lexists(path):  # between the two renames of a file system that has no exchange
        for folder in [*new, *left[OLD], *([kept(path)] if WriteLog(kept(path)).kind else [])]:
            rename_new(folder, path)
            break
    for folder in [*left[NEW], *left[OLD]]:
        if folder.exists():
            notes = WriteLog(folder)
            if notes.known.complete:
                if WriteLog(path).kind:
                    move_foreign(folder, path)
                    remove_own(folder)
            elif notes.kind not in resumable:
                remove_tree(folder)
    if path.is_dir() and WriteLog(kept(path)).kind:
        move_foreign(kept(path), path)


def _remove_if_empty_or_new(folder: Path) -> None:
    """Remove a folder whose process was killed before its first note, or at its removal's end."""
    notes = WriteLog(folder)
    inside = os.listdir(folder)
    if notes.kind is None and inside in ([], [LOG]) and not notes.path.is_symlink():
        if inside and notes.path.stat().st_size:
            return
        notes.path.unlink(missing_ok=True)
        folder.rmdir()


def interrupted(path: Path) -> list[Path]:
    """Return the complete folders next to a missing one that `recover` can restore."""
    if os.path.lexists(path) or not path.parent.is_dir():
        return []
    left = [*_named_after(path, NEW), *_named_after(path, OLD), kept(path)]
    return [folder for folder in left if WriteLog(folder).known.complete]


def remove_unfinished_part(path: Path) -> None:
    """Remove a folder inside one that this process is filling, see `write_folder`."""
    inside = [up for up in path.parents if up.name.endswith(NEW) and WriteLog(up).kind]
    if not inside or WriteLog(inside[0]).known.complete:
        raise ValueError(f"{path} is not in a folder that is being written")
    remove_tree(path)


def _named_after(path: Path, end: str) -> list[Path]:
    """Return the temporary folders next to a folder that were made for it."""
    name = re.compile(re.escape(f".{path.name}.") + "[0-9a-f]{16}" + re.escape(end))
    return [
        other
        for other in sorted(path.parent.iterdir())
        if name.fullmatch(other.name) and other.is_dir() and not other.is_symlink()
    ]


def remove_tree(folder: Path) -> None:
    """Remove a folder that this process, or one that was killed, was writing."""
    shutil.rmtree(folder, ignore_errors=True)


def _remove_if_empty(folder: Path) -> None:
    try:
        folder.rmdir()
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOENT):
            raise
