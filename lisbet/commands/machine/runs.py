"""``betman runs``: a table of runs, true also of those that were killed."""

import json
import socket
import sys
import time
from datetime import datetime
from pathlib import Path

import psutil
from rich.console import Console
from rich.table import Table
from rich.text import Text

from lisbet.core.errors import ModelError
from lisbet.core.json_types import JsonDict
from lisbet.options import RunsOptions
from lisbet.training.logging.status import FINISHED, RUNNING, read_status

SILENT_S, SILENT_BEATS = 600.0, 5.0
"""A run on another machine without an update for so many seconds, and so many times its usual
pause, counts as killed."""
COLOURS = {
    "running": "green", "finished": "blue", "stopped": "yellow", "killed": "red",
    "failed": "red", "silent": "magenta", "unknown": "dim",
}  # fmt: skip
PIPED_WIDTH = 200


def runs(options: RunsOptions) -> None:
    """Print the runs of a folder, the newest first."""
    place = options.models_path
    if not place.is_dir():
        raise ModelError(f"{place}: no such folder; expected one that holds runs, such as models/")
    folders = [place] if (place / "run_config.yml").is_file() else sorted(place.iterdir())
    found = [
        describe(folder)
        for folder in folders
        if (folder / "run_config.yml").is_file() and not folder.name.startswith(".")
    ]
    found.sort(key=lambda run: run["started"] or "", reverse=True)
    if options.json:
        print(json.dumps(found, indent=1))
    elif not found:
        print(f"no runs in {place}")
    else:
        width = None if sys.stdout.isatty() else PIPED_WIDTH
        Console(width=width, highlight=False, markup=False).print(table(found))


def describe(folder: Path) -> JsonDict:
    """Return what is known of a run.

    Returns
    -------
    dict
        run_id, state, detail, epoch, epochs, step, scores, started, updated, seconds, starts, host
        and whether it is resumable; None where an older run does not say.
    """
    status = read_status(folder)
    state = state_of(status)
    seconds = status.get("seconds")
    if state == RUNNING and seconds is not None:
        seconds += max(0.0, time.time() - _seconds(status["updated"]))
    has_checkpoint = any(folder.glob("checkpoints/step_*/manifest.json"))
    return {
        "run_id": folder.name,
        "state": state,
        "detail": status.get("message", ""),
        "epoch": status.get("epoch"),
        "epochs": status.get("epochs"),
        "step": status.get("step"),
        "scores": status.get("scores", {}),
        "started": status.get("started"),
        "updated": status.get("updated"),
        "seconds": seconds,
        "starts": status.get("starts"),
        "host": status.get("host"),
        "resumable": has_checkpoint and state not in (RUNNING, FINISHED),
    }


def state_of(status: JsonDict) -> str:
    """Return the state of a run: the one of its last update, unless its process is gone.

    A run that was killed says it still runs. On its own machine its process tells; on another,
    only its silence does.
    """
    state = str(status.get("state", "unknown"))
    if state != RUNNING:
        return state
    if status.get("host") == socket.gethostname():
        return RUNNING if _lives(status) else "killed"
    quiet = time.time() - _seconds(status["updated"])
    patience = max(SILENT_S, SILENT_BEATS * float(status.get("beat_s", 0)))
    return RUNNING if quiet < patience else "silent"


def _lives(status: JsonDict) -> bool:
    """Whether the process is there, and not another one that was given its number."""
    try:
        process = psutil.Process(int(status["pid"]))
        same = abs(process.create_time() - float(status["pid_started"])) < 1
        return same and process.status() != psutil.STATUS_ZOMBIE
    except (psutil.Error, KeyError, ValueError):
        return False


def table(found: list[JsonDict]) -> Table:
    """Lay runs out for a terminal."""
    shown = Table(box=None, pad_edge=False, header_style="bold")
    for name, settings in (
        ("run", {"overflow": "fold"}), ("state", {"no_wrap": True}),
        ("epoch", {"justify": "right", "no_wrap": True}), ("scores", {}),
        ("started", {"no_wrap": True}), ("duration", {"justify": "right", "no_wrap": True}),
        ("resume", {"no_wrap": True}),
    ):  # fmt: skip
        shown.add_column(name, **settings)
    for run in found:
        epoch = "" if run["epoch"] is None else f"{run['epoch']}/{run['epochs']}"
        started = (run["started"] or "")[:16].replace("T", " ")
        shown.add_row(
            run["run_id"],
            Text(run["state"], style=COLOURS.get(run["state"], "")),
            epoch,
            scores(run["scores"]),
            started,
            _clock(run["seconds"]),
            "yes" if run["resumable"] else "",
        )
    return shown


def scores(row: dict[str, float]) -> str:
    """Pick what a person compares: the held-out scores of each task, or those of training."""
    part = "dev" if "dev_loss" in row else "train"
    return " ".join(
        f"{name.split('_')[0]} {value:.3f}"
        for name, value in row.items()
        if f"_{part}_" in name and not name.endswith("_loss") and value is not None
    )


def _seconds(text: str) -> float:
    return datetime.strptime(text, "%Y-%m-%dT%H:%M:%S%z").timestamp()


def _clock(seconds: float | None) -> str:
    if seconds is None:
        return ""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    return (f"{days}d " if days else "") + f"{hours}:{minutes:02}:{seconds:02}"
