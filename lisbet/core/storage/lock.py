"""One writer at a time: a lock file next to what is written, also on shared file systems.

The lock of ``models/mice`` is ``models/.mice.lock``. It names the process that holds it, which
refreshes its time stamp as long as it lives. A lock is stale if its process is gone, or, where that
cannot be seen (another machine, a container), if its time stamp does not change.
"""

import contextlib
import errno
import json
import os
import re
import secrets
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lisbet.core.errors import OutputError
from lisbet.core.json_types import JsonDict

BEAT_S = 5.0
"""Time between two refreshes of the time stamp of a lock that is held."""
WATCH_S = 30.0
"""A lock of another machine whose time stamp has not changed for so long is stale."""
LOCK = ".lock"
NO_LINKS = {errno.EPERM, errno.EMLINK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP}
"""What a file system answers that has no hard links."""


class LockedError(OutputError):
    """Another process writes there."""


class Lock:
    """The lock of a file or folder that is going to be written.

    Parameters
    ----------
    target : Path
        What is written. It need not exist.
    """

    def __init__(self, target: Path) -> None:
        self.target = target
        self.path = target.with_name(f".{target.name}{LOCK}")
        self.token = secrets.token_hex(8)
        self._made: list[Path] = []
        self._over = threading.Event()
        self._beats: threading.Thread | None = None

    def acquire(self) -> None:
        """Take the lock; one that is stale is taken over.

        Raises
        ------
        LockedError
            Naming the process that holds it.
        """
        folder = self.path.parent
        while not folder.exists():
            self._made.append(folder)
            folder = folder.parent
        self.path.parent.mkdir(parents=True, exist_ok=True)
        while not self._create():
            holder = read_holder(self.path)
            if holder is None:
                if not os.path.lexists(self.path):
                    continue  # it was released meanwhile
                raise LockedError(
                    f"{self.path} is not a lock of betman; move it away, it is where the lock "
                    f"of {self.target.name} is made"
                )
            if not _is_stale(self.path, holder):
                raise LockedError(
                    f"{self.target} is being written by {describe(holder)}; wait until it has "
                    "ended, or stop it, or choose another name"
                )
            self._break(holder["token"])
        self._remove_leftovers()
        self._over.clear()
        self._beats = threading.Thread(target=self._refresh, name="lock", daemon=True)
        self._beats.start()

    def require_held(self) -> None:
        """Refuse to continue if another process has taken the lock over.

        That happens to a process that was suspended, or cut off from its file system.

        Raises
        ------
        LockedError
            Naming the process that has it.
        """
        holder = read_holder(self.path)
        if holder is None or holder.get("token") != self.token:
            who = describe(holder) if holder else "nobody; its lock was removed"
            raise LockedError(
                f"this process does not hold the lock of {self.target} any more, but {who}: it "
                "was suspended or cut off for too long. What it had saved is kept"
            )

    def release(self) -> None:
        """Let go of the lock, if it is still held."""
        self._over.set()
        if self._beats is not None:
            self._beats.join()
        holder = read_holder(self.path)
        if holder is not None and holder.get("token") == self.token:
            with contextlib.suppress(OSError):
                self.path.unlink()
        with contextlib.suppress(OSError):  # nothing was written into them
            for folder in self._made:
                folder.rmdir()

    def _create(self) -> bool:
        """Create the lock with its content in one step; return False if there is one."""
        whole = self.path.with_name(f"{self.path.name}.{self.token}")
        content = json.dumps(this_holder(self.token)).encode()
        with _naming(self.path):
            try:
                _write_new(whole, content)
                os.link(whole, self.path)
            except FileExistsError:
                return False
            except FileNotFoundError:  # another process took it for a leftover
                return self._create()
            except OSError as error:
                if error.errno not in NO_LINKS:
                    raise
                try:
                    _write_new(self.path, content)
                except FileExistsError:
                    return False
            finally:
                whole.unlink(missing_ok=True)
        return True

    def _remove_leftovers(self) -> None:
        """Remove what processes left that were killed while they took the lock."""
        for path in self.path.parent.iterdir():
            start, _, token = path.name.rpartition(".")
            if start == self.path.name and re.fullmatch("[0-9a-f]{16}", token):
                holder = read_holder(path)
                if holder is None or _is_dead_here(holder):  # None: killed before it wrote
                    path.unlink(missing_ok=True)

    def _break(self, token: str) -> None:
        """Remove a stale lock, unless another process was faster and it is a new one by now."""
        moved = self.path.with_name(f"{self.path.name}.{self.token}")
        try:
            os.rename(self.path, moved)
        except FileNotFoundError:
            return
        found = read_holder(moved)
        if found is not None and found.get("token") != token:
            with contextlib.suppress(OSError):
                os.link(moved, self.path)
        moved.unlink(missing_ok=True)

    def _refresh(self) -> None:
        while not self._over.wait(BEAT_S):
            with contextlib.suppress(OSError):
                os.utime(self.path)


@contextmanager
def locked(target: Path) -> Iterator[Lock]:
    """Hold the lock of a file or folder in a block.

    Raises
    ------
    LockedError
        If another process holds it.
    """
    lock = Lock(target)
    lock.acquire()
    try:
        yield lock
    finally:
        lock.release()


def require_unlocked(target: Path) -> None:
    """Raise what `Lock.acquire` would, without writing anything.

    Raises
    ------
    LockedError
        If a process that lives holds the lock.
    """
    path = Lock(target).path
    holder = read_holder(path)
    if holder is not None and not _is_stale(path, holder):
        raise LockedError(f"{target} is being written by {describe(holder)}")


def this_holder(token: str) -> JsonDict:
    """Describe this process as the holder of a lock; for locks that are not files."""
    return {"token": token} | _this_process()


def has_ended(holder: JsonDict) -> bool | None:
    """Whether the process of a lock has ended; None if that cannot be seen from this machine."""
    if _was_requeued(holder):
        return True
    return not _lives(holder) if _same_machine(holder) else None


def read_holder(path: Path) -> JsonDict | None:
    """Return the holder of a lock; None if there is no lock, or it is not one of betman."""
    try:
        holder = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return None
    if not isinstance(holder, dict) or not isinstance(holder.get("token"), str):
        return None
    return holder


def describe(holder: JsonDict) -> str:
    """Name the holder of a lock: process, machine, and since when."""
    return f"process {holder.get('pid')} on {holder.get('host')} since {holder.get('since')}"


def _is_stale(path: Path, holder: JsonDict) -> bool:
    """Whether the process that made a lock is gone."""
    ended = has_ended(holder)
    return _stands_still(path, holder["token"]) if ended is None else ended


def _was_requeued(holder: JsonDict) -> bool:
    """Whether this is the same job again: the batch system starts it only after it has ended."""
    own = _this_process()
    job, restart = holder.get("job"), holder.get("restart")
    return bool(own["job"]) and job == own["job"] and restart != own["restart"]


def _same_machine(holder: JsonDict) -> bool:
    """Whether the process of a lock can be seen from here."""
    own = _this_process()
    return all(holder.get(name) == own[name] for name in ("host", "boot", "pid_namespace"))


def _is_dead_here(holder: JsonDict) -> bool:
    return _same_machine(holder) and not _lives(holder)


def _lives(holder: JsonDict) -> bool:
    import psutil

    try:
        process = psutil.Process(int(holder["pid"]))
        same = abs(process.create_time() - float(holder["started"])) < 1
        return same and process.status() != psutil.STATUS_ZOMBIE
    except (psutil.Error, KeyError, TypeError, ValueError):
        return False


def _stands_still(path: Path, token: str) -> bool:
    """Watch the time stamp of a lock; return whether it was not refreshed meanwhile."""
    first = _time_stamp(path)
    print(
        f"betman: {path} was made on another machine; waiting up to {WATCH_S:.0f} s to see "
        "whether its process still runs",
        file=sys.stderr,
    )
    end = time.monotonic() + WATCH_S
    while time.monotonic() < end:
        time.sleep(min(1.0, WATCH_S))
        holder = read_holder(path)
        if holder is None or holder["token"] != token:
            return True  # released or taken over; the caller looks again
        if _time_stamp(path) != first:
            return False
    return True


def _time_stamp(path: Path) -> int:
    """Return when a file was changed; opened, so that a network file system asks its server."""
    try:
        with path.open("rb") as stream:
            return os.fstat(stream.fileno()).st_mtime_ns
    except OSError:
        return -1


def _this_process() -> JsonDict:
    import psutil

    return {
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "started": psutil.Process().create_time(),
        "boot": _content("/proc/sys/kernel/random/boot_id"),
        "pid_namespace": _link("/proc/self/ns/pid"),
        "job": _job(),
        "restart": os.environ.get("SLURM_RESTART_COUNT", "0"),
        "since": time.strftime("%Y-%m-%d %H:%M:%S%z"),
    }


def _job() -> str:
    """Name the job of the batch system that this process belongs to; empty outside of one."""
    parts = [os.environ.get(name, "") for name in ("SLURM_CLUSTER_NAME", "SLURM_JOB_ID")]
    return "/".join(parts) if parts[1] else ""


def _content(path: str) -> str:
    try:
        return Path(path).read_text("ascii").strip()
    except OSError:
        return ""


def _link(path: str) -> str:
    try:
        return os.readlink(path)
    except OSError:
        return ""


def _write_new(path: Path, content: bytes) -> None:
    handle = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666)
    try:
        os.write(handle, content)
    finally:
        os.close(handle)


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Let an error of the system name a file."""
    try:
        yield
    except OSError as error:
        error.filename = error.filename or str(path)
        raise
