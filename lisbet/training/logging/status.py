"""status.json: the state of a run, as of its last update."""

import json
import os
import socket
import time
from pathlib import Path
from typing import Any, Final

import psutil

from lisbet.core.json_types import JsonDict
from lisbet.core.storage.files import claim, rewrite_text

STATUS = "status.json"
RUNNING: Final = "running"
STOPPED: Final = "stopped"
FINISHED: Final = "finished"
FAILED: Final = "failed"
BEAT_S = 5.0
"""Seconds between two updates of the status of a running run."""


class Status:
    """Keeps the status of a run on the disk.

    Parameters
    ----------
    folder : Path
        The model directory.
    facts : dict
        What stays: number of epochs, steps of an epoch.
    resumed : bool
        Whether the run was begun before: it then keeps the time of its first start.
    """

    def __init__(self, folder: Path, facts: JsonDict, *, resumed: bool) -> None:
        before = read_status(folder) if resumed else {}
        process = psutil.Process()
        self.path = folder / STATUS
        self._here = time.monotonic()
        self._before = float(before.get("seconds", 0.0))
        self._said = -BEAT_S
        self._beats = self._here, 0.0
        self.values = facts | {
            "started": before.get("started", _now()),
            "starts": int(before.get("starts", 0)) + 1,
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "pid_started": process.create_time(),
        }

    def is_there(self) -> bool:
        """Whether the folder is still this run's: one that came to nothing is removed."""
        own = ("pid", "pid_started", "host")
        there = read_status(self.path.parent)
        return all(there.get(name) == self.values[name] for name in own)

    def update(self, state: str, **values: Any) -> None:
        """Publish the state; that it still runs only now and then.

        Raises
        ------
        OSError
            If it cannot be written.
        """
        now = time.monotonic()
        last, interval = self._beats
        self._beats = now, max(interval, now - last)
        self.values |= values
        if state == RUNNING and now - self._said < BEAT_S and "scores" not in values:
            return
        self._said = now
        content = self.values | {
            "state": state,
            "updated": _now(),
            "beat_s": round(self._beats[1], 1),
            "seconds": round(self._before + now - self._here, 1),
        }
        folder = self.path.parent
        claim(self.path, folder)
        rewrite_text(self.path, json.dumps(content, indent=1) + "\n", folder)


def read_status(folder: Path) -> JsonDict:
    """Return the status of a run; empty if there is none or it cannot be read."""
    try:
        status = json.loads((folder / STATUS).read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return status if isinstance(status, dict) else {}


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S%z")
