"""What the tests share: small recordings, real ones where there are any, and a way to run."""

import atexit
import contextlib
import logging
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch
import xarray as xr
from fork_server import ForkServer

from lisbet.core.config import Features
from lisbet.data.bank import Bank
from lisbet.data.record import Record

SHARED = Path(__file__).parents[2] / "shared"
TINY = [
    "--emb_dim=8",
    "--num_layers=1",
    "--num_heads=2",
    "--hidden_dim=16",
    "--window_size=12",
    "--batch_size=16",
]


@pytest.fixture(autouse=True)
def _logging_as_in_a_new_process() -> None:
    """A command that ran in this process has set the log up for itself."""
    logger = logging.getLogger("lisbet")
    logger.handlers, logger.propagate = [], True
    logger.setLevel(logging.NOTSET)


def child_processes() -> set[int]:
    """The pids of the direct children of this process."""
    try:
        tasks = Path("/proc/self/task").iterdir()
        return {int(pid) for task in tasks for pid in (task / "children").read_text().split()}
    except OSError:  # not on Linux, or a thread has just ended
        return {child.pid for child in psutil.Process().children()}


@pytest.fixture(autouse=True)
def _no_process_is_left() -> Iterator[None]:
    """Kill what a test has started and not waited for: it failed, or ran into its time limit."""
    before = child_processes()
    yield
    if (wandb := sys.modules.get("wandb")) and "WANDB_SERVICE" in os.environ:
        with contextlib.suppress(Exception):  # its program may have ended
            wandb.teardown()  # the next test, and whatever it starts, would look for that program
        os.environ.pop("WANDB_SERVICE", None)
    for pid in child_processes() - before:
        with contextlib.suppress(psutil.NoSuchProcess):
            process = psutil.Process(pid)
            helpers = ("multiprocessing", "fork_server")
            if any(name in word for word in process.cmdline() for name in helpers):
                continue  # they end with this process
            for one in [*process.children(recursive=True), process]:
                with contextlib.suppress(psutil.NoSuchProcess):
                    one.kill()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say how long each file took: the sum over its tests, whichever worker ran them."""
    seconds: Counter[str] = Counter()
    tests: Counter[str] = Counter()
    for reports in terminalreporter.stats.values():
        for report in reports:
            if isinstance(report, pytest.TestReport):
                file = report.nodeid.partition("::")[0]
                seconds[file] += report.duration
                tests[file] += report.when == "call"
    if len(seconds) < 2:
        return
    terminalreporter.section("seconds and tests of each file")
    for file, spent in seconds.most_common():
        terminalreporter.write_line(f"{spent:7.1f} {tests[file]:5} {file}")
    terminalreporter.write_line(f"{sum(seconds.values()):7.1f} {sum(tests.values()):5} together")


@pytest.fixture
def real() -> Path:
    """Folder of real recordings, beside the project."""
    folder = SHARED / "data"
    if not folder.is_dir():
        pytest.skip(f"the real recordings are not here: {folder}")
    return folder


@pytest.fixture
def spec() -> Path:
    folder = SHARED / "spec"
    if not folder.is_dir():
        pytest.skip(f"the specification is not here: {folder}")
    return folder


def names(individuals: int = 2, keypoints: int = 3, space: int = 2) -> Features:
    return Features(
        individuals=tuple(f"mouse{n}" for n in range(individuals)),
        keypoints=tuple(f"point{n}" for n in range(keypoints)),
        space=("x", "y", "z")[:space],
    )


def walk(frames: int, features: Features, seed: int) -> np.ndarray:
    """A random walk in pixels, (frames, individuals, keypoints, space), inside 100x100."""
    rng = np.random.default_rng(seed)
    steps = rng.normal(0, 1, (frames, *features.shape)).cumsum(axis=0)
    low, high = steps.min(), steps.max()
    return 1 + 98 * (steps - low) / (high - low)


def make_bank(lengths: list[int], features: Features | None = None) -> Bank:
    features = features or names()
    return Bank.from_records(
        [
            Record.in_memory(
                f"r{n}", (walk(length, features, n) / 100).astype(np.float32), features
            )
            for n, length in enumerate(lengths)
        ]
    )


def write_recording(
    folder: Path,
    position: np.ndarray,
    features: Features,
    *,
    singular: bool = False,
    format: str = "NETCDF4",
    name: str = "tracking.nc",
    **attributes: object,
) -> Path:
    """Write a movement file; position (frames, individuals, keypoints, space)."""
    folder.mkdir(parents=True, exist_ok=True)
    individuals, keypoints = (
        ("individual", "keypoint") if singular else ("individuals", "keypoints")
    )
    dataset = xr.Dataset(
        {"position": (("time", "space", keypoints, individuals), position.transpose(0, 3, 2, 1))},
        coords={
            "time": np.arange(len(position)) / 30,
            "space": list(features.space),
            keypoints: list(features.keypoints),
            individuals: list(features.individuals),
        },
        attrs={"fps": 30.0, **attributes},
    )
    dataset.to_netcdf(folder / name, format=format)
    return folder / name


def write_dataset(folder: Path, lengths: list[int], features: Features | None = None) -> Path:
    features = features or names()
    for number, length in enumerate(lengths):
        write_recording(folder / f"r{number}", walk(length, features, number), features)
    return folder


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    """Four small recordings, one shorter than a window."""
    return write_dataset(tmp_path / "data", [60, 80, 8, 50])


READ_WHEN_NEEDED = {"LISBET_RENDEZVOUS_S", "OMP_NUM_THREADS", "TEST_PATCH"}
"""Environment variables that a forked process follows; torch reads others when it is loaded."""


servers: list[ForkServer] = []


def forking_python() -> str:
    """A Python that starts in milliseconds, see fork_server; where it cannot, the usual one."""
    if not servers or servers[-1].process.poll() is not None:
        try:
            servers.append(ForkServer())
        except RuntimeError:
            return sys.executable
        atexit.register(servers[-1].close)
    return str(servers[-1].python)


def betman(
    *words: object, cwd: Path, real: bool = False, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run betman in a process of its own: a forked one, or with `real` as a user does."""
    real = real or not environment.keys() <= READ_WHEN_NEEDED
    return subprocess.run(
        [sys.executable if real else forking_python(), "-m", "lisbet", *map(str, words)],
        cwd=cwd,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def weight_changes(
    one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]
) -> Iterator[tuple[str, torch.Tensor, torch.Tensor]]:
    """Each weight's name, value and change; that of the keys' biases counts as 0.

    Attention is the same for any bias of the keys, so the bias has no gradient; only rounding
    moves it, and AdamW makes steps of full size of that.
    """
    assert one.keys() == other.keys()
    for name, value in one.items():
        change = other[name] - value
        if name.endswith("in_proj_bias"):
            third = len(value) // 3
            change[third : 2 * third] = 0
        yield name, value, change


def workers(job: subprocess.Popen, run_id: str) -> list[int]:
    """Return the processes that train, oldest first: those of the run, without the launcher."""
    word = f"--run_id={run_id}"
    for _ in range(100):
        found = [
            process.pid
            for process in psutil.process_iter(["cmdline"])
            if word in (process.info["cmdline"] or ()) and process.pid != job.pid
        ]
        if len(found) >= 2:
            return sorted(found)
        time.sleep(0.1)
    raise AssertionError("the launcher has no processes")


def thorough_but(quick: object, cases: list) -> list:
    """Let `make test` take one of several cases, and `make test-all` all of them."""
    return [
        case if case == quick
        else pytest.param(*(case if isinstance(case, tuple) else (case,)),
                          marks=pytest.mark.thorough)
        for case in cases
    ]  # fmt: skip


def hurt(file: Path, damage: str) -> None:
    """Damage a file: "missing", "cut" by its last byte, or one bit of it "flipped"."""
    content = bytearray(file.read_bytes())
    if damage == "missing":
        file.unlink()
    elif damage == "cut":
        file.write_bytes(content[:-1])
    else:
        content[len(content) // 2] ^= 1
        file.write_bytes(content)
