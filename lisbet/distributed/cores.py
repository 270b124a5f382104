"""How many cores this process may use, and how its threads wait for each other. Needs no torch."""

import os
from collections.abc import Iterator, Mapping, MutableMapping
from pathlib import Path

from lisbet.distributed.cgroups import CGROUPS, OWN_CGROUP, own_groups, text_of

SPIN_COUNT = "5000"
"""How often a waiting thread of GNU OpenMP looks before it sleeps; see benchmarks/contention.py."""
WAITING = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")
"""Environment variables of GNU OpenMP that say how threads wait."""


def let_threads_sleep(environment: MutableMapping[str, str] = os.environ) -> None:
    """Let threads that wait for others sleep soon, unless the user has chosen how they wait.

    GNU OpenMP, which PyTorch computes with, lets them spin for milliseconds by default. Alone on a
    machine that gains a little; with other processes it takes the cores that they, and the
    threads that are waited for, need. OpenMP reads the variables when torch is imported.
    """
    if not any(name in environment for name in WAITING):
        environment["GOMP_SPINCOUNT"] = SPIN_COUNT


def cores(
    cgroups: Path = CGROUPS,
    own_cgroup: Path = OWN_CGROUP,
    environment: Mapping[str, str] = os.environ,
) -> int:
    """Return the cores that the processes of this run may use on this machine, at least 1.

    The least of: those that this process is bound to; the CPU time that its control groups may take
    (``docker run --cpus``, rounded down); those of the SLURM job on this node.

    Parameters
    ----------
    cgroups, own_cgroup : Path
        Where the control groups are mounted, and the file that names those of this process.
    environment : mapping
        Where SLURM's variables are looked up.
    """
    bound = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    bounds = [bound or 1, *map(int, _quotas(cgroups, own_cgroup))]
    job = environment.get("SLURM_CPUS_ON_NODE", "")
    if job.isdecimal():
        bounds.append(int(job))
    return max(1, min(bounds))


def _quotas(cgroups: Path, own_cgroup: Path) -> Iterator[float]:
    """Yield how many cores' time each control group may take, where it is limited."""
    for folder, version in own_groups("cpu", cgroups, own_cgroup):
        if version == 2:
            words = text_of(folder / "cpu.max").split()
        else:
            names = ("cpu.cfs_quota_us", "cpu.cfs_period_us")
            words = [text_of(folder / name).strip() for name in names]
        if len(words) == 2 and all(word.isdecimal() for word in words) and int(words[1]):
            yield int(words[0]) / int(words[1])
