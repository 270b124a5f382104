"""Other training runs on this machine that compute on the same cores."""

import contextlib
import logging
import os

import psutil

from lisbet.distributed.launch_file import LAUNCHED

log = logging.getLogger(__name__)

MEETING = ("MASTER_ADDR", "MASTER_PORT", "SLURM_JOB_ID", "SLURM_STEP_ID")
"""Environment variables that the processes of one run have in common."""


def warn_of_other_runs(cores: int) -> None:
    """Warn if other runs compute on the cores that this one is going to use, all of them.

    Runs of the same user are looked for among the processes of this machine; those on other cores
    do not count. Whoever has set OMP_NUM_THREADS has shared the cores out already.

    Parameters
    ----------
    cores : int
        The cores that this run may use.
    """
    if os.environ.get("OMP_NUM_THREADS"):
        return
    own = psutil.Process()
    others = []
    for process in psutil.process_iter(["pid", "cmdline", "uids"]):
        with contextlib.suppress(psutil.Error, OSError, ValueError):
            if process.pid != own.pid and _competes(process, own):
                others.append(process.pid)
    if others:
        pids = ", ".join(map(str, sorted(others)))
        log.warning(
            "another training run of betman (process %s) computes on the %d cores that this one "
            "uses, which makes both slower: give each its share of the cores, such as "
            "OMP_NUM_THREADS=%d, or wait for the other one",
            pids,
            cores,
            max(1, cores // (len(others) + 1)),
        )


def _competes(process: psutil.Process, own: psutil.Process) -> bool:
    """Whether a process trains another model on the cores of this one."""
    words = process.info["cmdline"] or []
    if "train_model" not in words or process.info["uids"] != own.uids():
        return False
    environment = process.environ()
    launches = any(word.startswith("--launch") for word in words) and LAUNCHED not in environment
    meeting = {name: os.environ[name] for name in MEETING if name in os.environ}
    same_run = bool(meeting) and all(environment.get(n) == value for n, value in meeting.items())
    parents = {parent.pid for parent in own.parents()}
    if launches or same_run or process.pid in parents:
        return False
    affinity = process.cpu_affinity() if hasattr(process, "cpu_affinity") else []
    return not affinity or bool(set(affinity) & set(own.cpu_affinity()))
