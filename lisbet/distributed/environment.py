"""Rank and process count, from the variables of the launcher. Needs no torch."""

import importlib.util
import itertools
import os
import re
import sys

from lisbet.core.errors import ConfigError, ProcessError
from lisbet.distributed.cores import cores

FIRST_PORT, PORTS = 20000, 20000
"""A job's rendezvous port follows from its number, among these."""


RENDEZVOUS_S = 300
"""How long processes wait for each other at the start; LISBET_RENDEZVOUS_S sets another time."""

IMAGES = ("APPTAINER_CONTAINER", "SINGULARITY_CONTAINER")
"""Variables with the path of the image, which these programs set in a container."""

CHECKLIST = """Check that
  - the command was started on every machine, each with its own --machine_rank from 0
  - --main_process_ip is the address of machine 0, reachable from the others (a firewall?)
  - --main_process_port and --num_processes are the same on all machines, and the port is free"""


def require_supported_system() -> None:
    """Refuse Windows, where folders, signals and shared memory work otherwise.

    Raises
    ------
    ConfigError
        With what to use instead.
    """
    if sys.platform == "win32":
        raise ConfigError(
            "betman runs on Linux and macOS, not on Windows; install WSL2 (wsl --install) and run "
            "betman in it"
        )


def rank() -> int:
    """Return the number of this process among all, from 0."""
    slurm = os.environ["SLURM_PROCID"] if _in_slurm_step() else "0"
    return int(os.environ.get("RANK", slurm))


def count() -> int:
    """Return the number of processes of the run, over all machines."""
    return int(os.environ.get("WORLD_SIZE", 1))


def local_count() -> int:
    """Return the number of processes of the run on this machine."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", 1))


def threads() -> int:
    """Return the cores for each process of the run on this machine, at least 1."""
    own = os.environ.get("SLURM_CPUS_PER_TASK", "")
    if _in_slurm_step() and local_count() > 1 and own.isdecimal():
        return max(1, min(cores(), int(own)))  # srun gives each task cores of its own
    return max(1, cores() // local_count())


def adopt_slurm() -> bool:
    """Take the tasks of ``srun`` for the processes of a run, if no launcher came between.

    Returns
    -------
    bool
        Whether this process is one of several such tasks.
    """
    if "RANK" in os.environ or not _in_slurm_step():
        return False
    env = os.environ
    job, step = int(env["SLURM_JOB_ID"]), int(env["SLURM_STEP_ID"])
    env["RANK"], env["LOCAL_RANK"] = env["SLURM_PROCID"], env["SLURM_LOCALID"]
    env["WORLD_SIZE"] = env["SLURM_STEP_NUM_TASKS"]
    per_node = env.get("SLURM_STEP_TASKS_PER_NODE", "1")
    env["LOCAL_WORLD_SIZE"] = re.split(r"[(,]", per_node)[0]
    env.setdefault("MASTER_ADDR", first_host(env["SLURM_STEP_NODELIST"]))
    env.setdefault("MASTER_PORT", str(FIRST_PORT + (7 * job + step) % PORTS))
    return True


def leave_others() -> None:
    """Forget the other processes of a launcher, for what is done by one alone."""
    for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE"):
        os.environ.pop(name, None)


def slurm_machines() -> tuple[int, int, str, int] | None:
    """Return number of machines, this one's, the first one's name and a port, in a SLURM step."""
    env = os.environ
    if int(env.get("SLURM_STEP_NUM_NODES", 1)) < 2 or "SLURM_NODEID" not in env:
        return None
    port = FIRST_PORT + (7 * int(env["SLURM_JOB_ID"]) + int(env["SLURM_STEP_ID"])) % PORTS
    host = first_host(env["SLURM_STEP_NODELIST"])
    return int(env["SLURM_STEP_NUM_NODES"]), int(env["SLURM_NODEID"]), host, port


def require_one_launcher() -> None:
    """Refuse a launcher in each of several tasks of a machine: they would write the same run."""
    env = os.environ
    tasks, nodes = (int(env.get(f"SLURM_STEP_NUM_{name}", 1)) for name in ("TASKS", "NODES"))
    if "RANK" not in env and tasks > nodes:
        raise ConfigError(
            f"srun started {tasks} tasks on {nodes} machines, and --launch would start processes "
            "in each; use srun --ntasks-per-node=1 with --launch, or several tasks without it"
        )


def first_host(nodes: str) -> str:
    """Return the first name of a SLURM host list; ``scontrol`` is absent inside containers.

    Examples
    --------
    >>> first_host("gpu-[003-010,12],login"), first_host("n1,n2"), first_host("r[1-2]n[3,4]-ib")
    ('gpu-003', 'n1', 'r1n3-ib')
    """
    first = re.match(r"(?:[^,\[]|\[[^\]]*\])*", nodes)
    assert first is not None
    return re.sub(r"\[([^\],-]+)[^\]]*\]", r"\1", first[0])


def hosts_of(nodes: str) -> list[str]:
    """Return all names of a SLURM host list.

    Examples
    --------
    >>> hosts_of("gpu-[009-010,12],login"), hosts_of("r[1-2]n[3,4]")
    (['gpu-009', 'gpu-010', 'gpu-12', 'login'], ['r1n3', 'r1n4', 'r2n3', 'r2n4'])
    """
    found = []
    for item in re.findall(r"(?:[^,\[]|\[[^\]]*\])+", nodes):
        parts = [
            _numbers(part[1:-1]) if part.startswith("[") else [part]
            for part in re.findall(r"\[[^\]]*\]|[^\[]+", item)
        ]
        found += ["".join(words) for words in itertools.product(*parts)]
    return found


def _numbers(text: str) -> list[str]:
    """Return the numbers of a list such as ``001-003,7``, with their zeros."""
    found = []
    for item in text.split(","):
        first, _, last = item.partition("-")
        found += [f"{number:0{len(first)}}" for number in range(int(first), int(last or first) + 1)]
    return found


def require_deepspeed() -> None:
    """Raise an error that says how to install DeepSpeed where it is missing."""
    if importlib.util.find_spec("deepspeed") is None:
        image = next((os.environ[name] for name in IMAGES if os.environ.get(name)), None)
        if image is not None:
            raise ConfigError(
                f"DeepSpeed is not in the image {image}; use --launch=fsdp, or an image in which "
                "lisbet[deepspeed] is installed, see containers/README.md"
            )
        raise ConfigError(
            "DeepSpeed is not installed; install it with pip install 'lisbet[deepspeed]' "
            "(DS_BUILD_OPS=0 in the environment avoids compiling), or use --launch=fsdp"
        )


def patience_s() -> int:
    """Return how many seconds processes wait for each other at the start."""
    return int(os.environ.get("LISBET_RENDEZVOUS_S", RENDEZVOUS_S))


def not_found(processes: int, where: str, error: Exception) -> ProcessError:
    """Return the error of processes that did not find each other: what to look at."""
    reason = (str(error).splitlines() or [type(error).__name__])[0]
    return ProcessError(
        f"the {processes} processes of this run did not find each other within {patience_s()} s; "
        f"{where}. {CHECKLIST}\n  ({reason})"
    )


def _in_slurm_step() -> bool:
    """Whether srun started this process with others; a batch script itself is not in a step."""
    return int(os.environ.get("SLURM_STEP_NUM_TASKS", 1)) > 1 and "SLURM_PROCID" in os.environ
