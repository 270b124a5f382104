"""Rename in one step: swap two names, or take a name only if nothing has it."""

import ctypes
import errno
import os
import sys
from collections.abc import Callable
from pathlib import Path

AT_FDCWD = -100
LINUX_NOREPLACE, LINUX_EXCHANGE = 1, 2
"""Flags of renameat2(2)."""
MACOS_SWAP, MACOS_EXCLUSIVE = 2, 4
"""Flags of renamex_np(2)."""
UNSUPPORTED = {errno.ENOSYS, errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP}
"""What a kernel or a file system (NFS, for one) answers that does not know the call."""


def exchange(one: Path, other: Path) -> bool:
    """Swap the names of two files or folders in one step.

    Returns
    -------
    bool
        False, and nothing is changed, where the system or the file system cannot do it.

    Raises
    ------
    OSError
        If it can, but the names cannot be swapped.
    """
    return _flagged(one, other, LINUX_EXCHANGE, MACOS_SWAP)


def rename_new(source: Path, target: Path) -> None:
    """Rename, unless something has the new name already.

    Raises
    ------
    FileExistsError
        If it has, even if it is an empty folder or a dangling link.
    """
    if _flagged(source, target, LINUX_NOREPLACE, MACOS_EXCLUSIVE):
        return
    if os.path.lexists(target):
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(target))
    os.rename(source, target)


def _flagged(one: Path, other: Path, linux: int, macos: int) -> bool:
    """Call the system's rename with a flag; return whether it knows the flag."""
    call = _system_call(linux, macos)
    if call is None:
        return False
    if call(os.fsencode(one), os.fsencode(other)) == 0:
        return True
    code = ctypes.get_errno()
    if code in UNSUPPORTED:
        return False
    raise OSError(code, os.strerror(code), str(one), None, str(other))


def _system_call(linux: int, macos: int) -> Callable[[bytes, bytes], int] | None:
    """Return the C function that renames with flags, if this system has one."""
    if sys.platform == "win32":
        return None
    library = ctypes.CDLL(None, use_errno=True)
    if sys.platform == "darwin":
        swap = getattr(library, "renamex_np", None)
        return None if swap is None else lambda one, other: swap(one, other, macos)
    flagged = getattr(library, "renameat2", None)
    if flagged is None:
        return None
    return lambda one, other: flagged(AT_FDCWD, one, AT_FDCWD, other, linux)
