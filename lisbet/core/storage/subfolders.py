"""Folders below one whose log notes them, such as the checkpoints of a run; see `files`."""

import os
from pathlib import Path

from lisbet.core.json_types import JsonDict
from lisbet.core.storage.files import temporary_name
from lisbet.core.storage.folders import remove_tree
from lisbet.core.storage.rename import exchange, rename_new
from lisbet.core.storage.write_log import NEW, OLD, WriteLog


def temporary_folder(path: Path, root: Path) -> Path:
    """Make an empty folder next to one that will be written, noted in the root's log."""
    folder = temporary_name(path, NEW)
    notes = WriteLog(root)
    notes.make_folders(path.parent)
    notes.add_temporary(folder)
    folder.mkdir()
    return folder


def replace_folder(new: Path, path: Path, root: Path) -> None:
    """Give a finished folder below `root` its name; one of the same name goes in one step.

    Both were written by this program, as its caller knows.
    """
    if not os.path.lexists(path):
        rename_new(new, path)
        return
    if not exchange(new, path):
        old = temporary_name(path, OLD)
        WriteLog(root).add_temporary(old)
        rename_new(path, old)
        rename_new(new, path)
        new = old
    remove_tree(new)


def rename_folder(folder: Path, new: Path, root: Path) -> None:
    """Give a folder below `root` a name that nothing has; its files stay ours under the new one."""
    old, name = (path.relative_to(root).as_posix() for path in (folder, new))
    notes = WriteLog(root)
    lines: list[JsonDict] = [
        {"folder": name + other.removeprefix(old)}
        for other in sorted(notes.known.folders)
        if other == old or other.startswith(f"{old}/")
    ]
    for file, entries in notes.known.files.items():
        if file.startswith(f"{old}/"):
            lines += [{"file": name + file.removeprefix(old), "size": size} for size, _ in entries]
    notes.add_many(lines)
    rename_new(folder, new)


def remove_temporary(folder: Path, root: Path) -> None:
    """Remove a folder that `temporary_folder` made and that was not finished."""
    if folder.relative_to(root).as_posix() in WriteLog(root).known.temporary:
        remove_tree(folder)


def remove_folder(folder: Path, root: Path) -> bool:
    """Remove a folder below `root` in which everything is ours; return whether it was.

    It is renamed first, so that a crash on the way leaves nothing that looks whole.
    """
    notes = WriteLog(root)
    name = folder.relative_to(root).as_posix()
    if name not in notes.known.folders or list(notes.foreign(folder)):
        return False
    temporary = temporary_name(folder, NEW)
    notes.add_temporary(temporary)
    rename_new(folder, temporary)
    remove_tree(temporary)
    return True


def _target_of(temporary: Path) -> Path:
    """Return what a temporary name was made for."""
    return temporary.with_name(temporary.name[1:].rsplit(".", 2)[0])


def remove_temporaries(root: Path) -> None:
    """Remove what interrupted writes left below a folder, and bring back what was being replaced.

    The caller holds the lock of the folder.
    """
    for name in sorted(WriteLog(root).known.temporary):
        path = root / name
        if not os.path.lexists(path):
            continue
        target = _target_of(path)
        if path.name.endswith(OLD) and not os.path.lexists(target):
            rename_new(path, target)
        elif path.is_dir() and not path.is_symlink():
            remove_tree(path)
        else:
            path.unlink()
