"""``betman runs``: a table of runs, true also of those that were killed."""

import socket
import sys
import time
from datetime import datetime
from pathlib import Path
from typing import cast

import psutil
from pydantic import TypeAdapter
from rich.console import Console
from rich.table import Table
from rich.text import Text

from lisbet.commands.machine.run_record import STATES, RunRecord, StateName
from lisbet.core.errors import ModelError
from lisbet.core.json_types import JsonDict
from lisbet.options import RunsOptions
from lisbet.training.logging.status import FINISHED, RUNNING, read_status

SILENT_S, SILENT_BEATS = 600.0, 5.0
"""A run on another machine without an update for so many seconds, and so many times its usual
pause, counts as killed."""
UNKNOWN: StateName = "unknown"
LIST = TypeAdapter(list[RunRecord])
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
    found.sort(key=lambda run: run.started or "", reverse=True)
    if options.json:
        print(LIST.dump_json(found, indent=1).decode())
    elif not found:
        print(f"no runs in {place}")
    else:
        width = None if sys.stdout.isatty() else PIPED_WIDTH
        Console(width=width, highlight=False, markup=False).print(table(found))


def describe(folder: Path) -> RunRecord:
    """Return what is known of a run; a status that cannot be read leaves its state unknown."""
    status = read_status(folder)
    try:
        return _record(folder, status)
    except (ValueError, TypeError, KeyError) as error:  # not as betman writes it
        problem = f"status.json cannot be read: {str(error).splitlines()[0]}"
        return _record(folder, {"message": problem})


def _record(folder: Path, status: JsonDict) -> RunRecord:
    state = state_of(status)
    seconds = status.get("seconds")
    if state == RUNNING and seconds is not None:
        seconds += max(0.0, time.time() - _seconds(status["updated"]))
    names = (path.parent.name for path in folder.glob("checkpoints/step_*/manifest.json"))
    steps = (name.removeprefix("step_") for name in names)
    saved = max((int(step) for step in steps if step.isdecimal()), default=None)
    same = ("epoch", "epochs", "step", "started", "updated", "starts", "host", "pid", "processes",
             "slurm_job")  # fmt: skip
    return RunRecord(
        run_id=folder.name,
        path=str(folder),
        state=state,
        detail=status.get("message", ""),
        action=STATES[state].action,
        resumable=saved is not None and state not in (RUNNING, FINISHED),
        steps_per_epoch=status.get("steps"),
        checkpoint_step=saved,
        scores=status.get("scores", {}),
        seconds=seconds,
        **{name: status.get(name) for name in same},
    )


def state_of(status: JsonDict) -> StateName:
    """Return the state of a run: the one of its last update, unless its process is gone.

    A run that was killed says it still runs. On its own machine its process tells; on another,
    only its silence does.
    """
    state = str(status.get("state", UNKNOWN))
    if state != RUNNING:
        return cast(StateName, state) if state in STATES else UNKNOWN
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


def table(found: list[RunRecord]) -> Table:
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
        epoch = "" if run.epoch is None else f"{run.epoch}/{run.epochs}"
        started = (run.started or "")[:16].replace("T", " ")
        shown.add_row(
            run.run_id,
            Text(run.state, style=STATES[run.state].colour),
            epoch,
            scores(run.scores),
            started,
            _clock(run.seconds),
            "yes" if run.resumable else "",
        )
    return shown


def scores(row: dict[str, float | None]) -> str:
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
