"""One process of a run fails: all end, within seconds, with its message and never with a hang.

Every process sends a sign of life to the store of the rendezvous and listens to its neighbour. Who
fails first leaves its message there; the others end without one of their own.
"""

import json
import os
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch.distributed as dist
from accelerate import Accelerator

from lisbet.core.errors import ConfigError, LisbetError, ProcessError, ReportedError, StoppedError
from lisbet.core.redact import redacted
from lisbet.distributed.start import start

TICK_S = 1.0
"""Time between two signs of life."""
SILENCE = 20
"""A neighbour silent for so many ticks is gone."""
GRACE_S = 2.0
"""Time that the first to fail has to print its message before the others end."""
SETTLE_S = 0.2
FAILED, ALIVE = "failed", "alive/{}"


@contextmanager
def distributed_session(
    mixed_precision: str | None = None, *, sharded: bool = True, compiled: bool = False
) -> Iterator[Accelerator]:
    """Start, and run a block on all processes so that a failure on one ends it on all.

    Parameters
    ----------
    mixed_precision, sharded, compiled
        See `start`.

    Yields
    ------
    Accelerator
        What holds the processes together.

    Raises
    ------
    ReportedError
        On a process that fails after another has: that one's message is the one to read.
    """
    try:
        accelerator = start(mixed_precision, sharded=sharded, compiled=compiled)
    except ConfigError as error:
        if int(os.environ.get("LOCAL_RANK", 0)):
            time.sleep(GRACE_S)
            raise ReportedError(error.exit_code) from error  # the first of each machine prints it
        raise
    if accelerator.num_processes == 1:
        yield accelerator
        accelerator.end_training()
        return
    store: Any = dist.distributed_c10d._get_default_store()
    watch = Watch(store.clone())  # a connection of its own: the other may be waiting
    watch.start()
    try:
        yield accelerator
        accelerator.wait_for_everyone()
    except BaseException as error:
        lost = _lost_contact(error)
        if lost:  # the end of another one; give it, or its neighbour, time to say more
            time.sleep(GRACE_S)
        reported = watch.report(ProcessError(LOST) if lost else error)
        if reported is not None:
            time.sleep(GRACE_S)
            raise ReportedError(reported) from error
        if watch.rank == 0 and os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True":
            time.sleep(2 * TICK_S)  # the store, with the message, ends with this process
        if lost:
            raise ProcessError(LOST) from error
        raise
    finally:
        watch.stop()
    # Gloo's thread needs the interpreter's lock to let go of the last collective; a process group
    # that is taken apart meanwhile waits for that thread, with the lock held, for ever.
    time.sleep(SETTLE_S)
    accelerator.end_training()


LOST = (
    "lost contact with another process of this run: it was killed or its machine failed; look at "
    "the end of its log, and for 'out of memory' in the system's log"
)


class Watch(threading.Thread):
    """Sends signs of life, and ends this process when another has failed or fallen silent."""

    def __init__(self, store: Any) -> None:
        super().__init__(name="watch", daemon=True)
        self.store = store
        self.rank, self.size = dist.get_rank(), dist.get_world_size()
        self.over = threading.Event()
        self.first: dict | None = None
        """The failure that was heard of, before the store may be gone."""

    def run(self) -> None:
        """Watch until the block is over, or another process is."""
        if (first := self._watch()) is not None:
            self._end(first)

    def _watch(self) -> dict | None:
        """Return the failure that ends the run, or None when the block is over."""
        neighbour = ALIVE.format((self.rank + 1) % self.size)
        heard, silent = b"", 0
        for tick in range(sys.maxsize):
            if self.over.wait(TICK_S):
                return None
            try:
                self.store.set(ALIVE.format(self.rank), str(tick))
                if self.store.check([FAILED]):
                    self.first = dict(json.loads(self.store.get(FAILED)))
                    return self.first
                sign = self.store.get(neighbour) if self.store.check([neighbour]) else b""
            except RuntimeError:  # the store went with the process, or launcher, that kept it
                return {"rank": 0, "host": "?", "code": 1, "text": LOST}
            # Ticks, not seconds: a job that was suspended as a whole has lost nobody.
            heard, silent = sign, silent + 1 if heard and sign == heard else 0
            if silent == SILENCE:
                text = f"process {(self.rank + 1) % self.size} fell silent. {LOST}"
                self._set_failed(1, text)
        return None

    def report(self, error: BaseException) -> int | None:
        """Report a failure to the others; return the exit code of one that was reported before."""
        try:
            first: dict | None = self._set_failed(
                _exit_code(error), str(error) or type(error).__name__
            )
        except RuntimeError:  # the store is gone
            first = self.first
        return None if first is None or first["rank"] == self.rank else int(first["code"])

    def stop(self) -> None:
        """Stop watching: the block is over, or its failure is reported."""
        self.over.set()
        self.join(TICK_S)

    def _set_failed(self, code: int, text: str) -> dict:
        host = socket.gethostname()
        own = {"rank": self.rank, "host": host, "code": code, "text": redacted(text)}
        return dict(json.loads(self.store.compare_set(FAILED, "", json.dumps(own))))

    def _end(self, first: dict) -> None:
        """End this process, which may wait for one that will never come."""
        if self.over.wait(2 * GRACE_S):
            return  # it noticed by itself
        elsewhere = first["host"] != socket.gethostname()
        if first["rank"] == self.rank:  # found out here, while the main thread waits
            print(f"betman: error: {first['text']}", file=sys.stderr)
        elif elsewhere and int(os.environ.get("LOCAL_RANK", 0)) == 0:  # this log lacks the message
            where = f"process {first['rank']} on {first['host']}"
            print(f"betman: error: {where}: {first['text']}", file=sys.stderr)
        sys.stderr.flush()
        os._exit(first["code"])


def _exit_code(error: BaseException) -> int:
    if isinstance(error, LisbetError | StoppedError):
        return error.exit_code
    if isinstance(error, KeyboardInterrupt):
        return 130
    return 2 if isinstance(error, OSError) else 1


def _lost_contact(error: BaseException) -> bool:
    """Whether an error is what remains of another process."""
    cause = error.__cause__ if isinstance(error, LisbetError) else error
    if isinstance(cause, dist.DistError):
        return True
    words = ("connection closed by peer", "connection reset", "broken pipe", "timed out waiting")
    return isinstance(cause, RuntimeError) and any(word in str(cause).lower() for word in words)
