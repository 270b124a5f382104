"""Bouts: runs of frames in which a behaviour is annotated, as tables."""

from pathlib import Path

import numpy as np
import pandas as pd

from lisbet.commands.applying.result_tables import ResultTable
from lisbet.commands.pictures.bouts import bouts_of


def bout_table(
    active: np.ndarray, behaviors: tuple[str, ...], fps: float, start_s: float = 0.0
) -> pd.DataFrame:
    """Find the bouts of each behaviour.

    Parameters
    ----------
    active : ndarray
        (frames, behaviours), bool.
    behaviors : tuple of str
        Their names.
    fps : float
        Frames per second.
    start_s : float
        Time of the first frame, in seconds.

    Returns
    -------
    DataFrame
        One row for each bout, by start: behavior, first_frame, last_frame, start_s, end_s,
        duration_s. A frame lasts until the next one begins.
    """
    found = [bouts_of(own) for own in active.T]
    first, end = np.concatenate(found).T if found else np.zeros((2, 0), dtype=int)
    names = np.repeat(np.array(behaviors, dtype=object), [len(own) for own in found])
    table = pd.DataFrame(
        {
            "behavior": names,
            "first_frame": first,
            "last_frame": end - 1,
            "start_s": start_s + first / fps,
            "end_s": start_s + end / fps,
            "duration_s": (end - first) / fps,
        }
    )
    return table.sort_values("first_frame", kind="stable", ignore_index=True)


def write_bouts(bouts: pd.DataFrame, path: Path) -> None:
    """Write a table of bouts."""
    bouts.to_csv(path, index=False)


def write_boris(bouts: pd.DataFrame, table: ResultTable, path: Path) -> None:
    """Write bouts as BORIS does: the columns of its tabular events, a row for start and stop.

    The columns Code and Modifier make it a table that BORIS imports into an observation, once it
    is saved as XLSX or ODS.
    """
    starts = bouts.assign(kind="START", time=bouts["start_s"], image=bouts["first_frame"])
    stops = bouts.assign(kind="STOP", time=bouts["end_s"], image=bouts["last_frame"])
    events = pd.concat([starts, stops]).sort_values("time", kind="stable")
    fps = table.fps or 1.0
    pd.DataFrame(
        {
            "Observation id": table.recording,
            "Media file name": table.recording,
            "Total length": len(table.values) / fps,
            "FPS": fps,
            "Subject": "",
            "Behavior": events["behavior"],
            "Code": events["behavior"],
            "Modifier": "",
            "Behavior type": events["kind"],
            "Time": events["time"],
            "Image index": events["image"],
            "Comment": f"annotated by {table.model}",
        }
    ).to_csv(path, index=False)
