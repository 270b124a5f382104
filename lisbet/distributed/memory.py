"""How much memory this process may take: what is free, within the limits of its job or container.

psutil, like ``free``, reads /proc/meminfo, which knows nothing of limits: of a SLURM job
(``--mem``), of a container (``docker run -m``), of ``ulimit -v``. A process that takes more than
its limit is killed without a message.
"""

import os
from collections.abc import Iterator, Mapping
from pathlib import Path

import psutil

from lisbet.distributed.cgroups import CGROUPS, OWN_CGROUP, own_groups, text_of


def available_memory(
    cgroups: Path = CGROUPS,
    own_cgroup: Path = OWN_CGROUP,
    environment: Mapping[str, str] = os.environ,
) -> int:
    """Return the memory that this process can still take without being killed, in bytes.

    The least of: what the machine has free; what is left of the limit of each control group that
    this process is in, file caches counted as free; what is left of SLURM's memory of the job on
    this node; what is left of the address space (``ulimit -v``).

    Parameters
    ----------
    cgroups, own_cgroup : Path
        Where the control groups are mounted, and the file that names those of this process.
    environment : mapping
        Where SLURM's variables are looked up.
    """
    process = psutil.Process().memory_info()
    bounds = [int(psutil.virtual_memory().available), *_left_in_cgroups(cgroups, own_cgroup)]
    if (job := _slurm_memory(environment)) is not None:
        bounds.append(job - process.rss)
    if (address_space := _address_space()) is not None:
        bounds.append(address_space - process.vms)
    return max(0, min(bounds))


def _left_in_cgroups(cgroups: Path, own_cgroup: Path) -> Iterator[int]:
    """Yield what is left of each limit: of this process's groups and of all their parents."""
    for folder, version in own_groups("memory", cgroups, own_cgroup):
        names = (
            ("memory.max", "memory.current", "inactive_file")
            if version == 2
            else ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
        )
        if (left := _left(folder, *names)) is not None:
            yield left


def _left(folder: Path, limit: str, usage: str, cache: str) -> int | None:
    """Return what is left of the limit of one control group; None without a limit."""
    most, used = _number(text_of(folder / limit)), _number(text_of(folder / usage))
    if most is None or used is None:
        return None
    fields = dict(line.split(maxsplit=1) for line in text_of(folder / "memory.stat").splitlines()
                  if " " in line)  # fmt: skip
    # The kernel gives up cached files before it kills; those in use recently may be needed.
    return most - used + min(used, _number(fields.get(cache, "")) or 0)


def _slurm_memory(environment: Mapping[str, str]) -> int | None:
    """Return the memory of the SLURM job on this node; 0 there means all of the node's."""
    whole = _number(environment.get("SLURM_MEM_PER_NODE", ""))
    core = _number(environment.get("SLURM_MEM_PER_CPU", ""))
    cores = _number(environment.get("SLURM_CPUS_ON_NODE", ""))
    megabytes = whole or (core or 0) * (cores or 0)
    return megabytes * 2**20 if megabytes else None


def _address_space() -> int | None:
    """Return the limit of the address space of this process, in bytes."""
    try:
        import resource
    except ImportError:  # not on Windows
        return None
    soft, _ = resource.getrlimit(resource.RLIMIT_AS)
    return None if soft == resource.RLIM_INFINITY else soft


def _number(text: str) -> int | None:
    return int(text) if text.strip().isdecimal() else None
