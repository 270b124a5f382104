"""The two tools that interchange.py compares, and the recordings that both of them read."""

import contextlib
import io
import json
import logging
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import xarray as xr

from lisbet.cli import main as betman

DRIVER = """
import contextlib, io, json, os, sys, traceback
from importlib.metadata import entry_points
(point,) = entry_points(group="console_scripts", name="betman")
main, answers = point.load(), os.fdopen(os.dup(1), "w")
for line in sys.stdin:
    sys.argv, text, code = ["betman", *json.loads(line)], io.StringIO(), 0
    with contextlib.redirect_stdout(text), contextlib.redirect_stderr(text):
        try:
            code = main() or 0
        except SystemExit as end:
            code = end.code or 0
        except BaseException:
            code = traceback.print_exc() or 1
    print(json.dumps([code, text.getvalue()]), file=answers, flush=True)
"""
"""Runs in the environment of the published tool: a command for each line of its input."""
SCALE = (100, 80)
BEHAVIORS = ("rest", "run", "groom")

Run = Callable[..., str]


class RefusedError(Exception):
    """A tool ended with an error."""


def write_recordings(
    folder: Path, lengths: tuple[int, ...], *, missing: float, kind: str = "int32"
) -> None:
    """Write random walks of two animals with annotations, as the NetCDF 3 that both tools read.

    Parameters
    ----------
    folder : Path
        Gets a folder for each recording.
    lengths : tuple of int
        Frames of each.
    missing : float
        Share of the points that are missing.
    kind : str
        Type of the annotations, which are 0 and 1.
    """
    for number, frames in enumerate(lengths):
        rng = np.random.default_rng(number)
        position = rng.normal(size=(frames, 2, 3, 2)).cumsum(0).transpose(0, 1, 3, 2)
        position = (position - position.min()) / np.ptp(position) * np.reshape(SCALE, (2, 1))
        position[rng.random(position.shape[:2]) < missing] = np.nan
        position = position.transpose(0, 2, 3, 1)
        seconds = {"time": np.arange(frames) / 30}
        tracking = xr.Dataset(
            {"position": (("time", "space", "keypoints", "individuals"), position),
             "confidence": (("time", "keypoints", "individuals"), np.ones(position[:, 0].shape))},
            coords={**seconds, "space": ["x", "y"], "keypoints": ["nose", "neck", "tail"],
                    "individuals": ["a", "b"]},
            attrs={"fps": 30.0, "time_unit": "seconds", "ds_type": "poses",
                   "source_software": "DeepLabCut"},
        )  # fmt: skip
        shown = rng.integers(3, size=frames // 10 + 1).repeat(10)[:frames, None] == np.arange(3)
        labels = xr.Dataset(
            {"target_cls": (("time", "behaviors", "annotators"), shown[..., None].astype(kind))},
            coords={**seconds, "behaviors": list(BEHAVIORS), "annotators": ["somebody"]},
            attrs={"fps": 30.0},
        )
        place = folder / f"r{number}"
        place.mkdir(parents=True)
        for name, dataset in (("tracking", tracking), ("annotations", labels)):
            dataset.to_netcdf(place / f"{name}.nc", engine="scipy", format="NETCDF3_64BIT")


def own_tool(*words: str) -> str:
    """Run a command of this package; return what it printed."""
    said, code = io.StringIO(), 0
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        try:
            betman(list(words))
        except SystemExit as end:
            code = int(end.code or 0)
    logging.getLogger("lisbet").handlers = []  # of a stream that is gone
    if code:
        raise RefusedError(last_line(said.getvalue()))
    return said.getvalue()


@contextlib.contextmanager
def published_tool(python: Path) -> Iterator[Run]:
    """Start the published tool, which runs commands as `own_tool` does."""
    variables = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    with tempfile.TemporaryFile("w+") as noise:
        job = subprocess.Popen(
            [python, "-c", DRIVER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=noise,
            text=True, env={**variables, "OMP_NUM_THREADS": "1"},
        )  # fmt: skip
        assert job.stdin is not None
        assert job.stdout is not None

        def run(*words: str) -> str:
            print(json.dumps(words), file=job.stdin, flush=True)
            answer = job.stdout.readline()
            if not answer:
                noise.seek(0)
                sys.exit(f"the published tool ended at {words}\n{noise.read()[-2000:]}")
            code, said = json.loads(answer)
            if code:
                raise RefusedError(last_line(said))
            return str(said)

        yield run
        job.stdin.close()
        job.wait()


def last_line(said: str) -> str:
    """Return the last line that was printed, for the table."""
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    return (lines or ["no message"])[-1][:150].replace("|", "/")
