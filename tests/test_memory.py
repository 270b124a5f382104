"""How much memory may be taken: what is free, within the limits of a job or container."""

import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from lisbet.distributed.memory import available_memory

MB, GB = 2**20, 2**30


@pytest.fixture
def free(monkeypatch) -> int:
    """A machine with 64 GB free, and a process that takes 1 GB of them."""
    memory = psutil.virtual_memory()._replace(available=64 * GB)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: memory)
    own = psutil.Process().memory_info()._replace(rss=GB)
    monkeypatch.setattr(psutil.Process, "memory_info", lambda self: own)
    return 64 * GB


def tree(root: Path, own: str, files: dict[str, object]) -> dict[str, Path]:
    """Write a tree of control groups, and which of them a process is in."""
    for name, content in files.items():
        path = root / "cgroup" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{content}\n")
    (root / "self").write_text(own)
    (root / "cgroup").mkdir(exist_ok=True)
    return {"cgroups": root / "cgroup", "own_cgroup": root / "self"}


STAT = f"anon {GB}\nfile {3 * GB}\ninactive_anon 5\ninactive_file {GB}\nactive_file {2 * GB}"


def test_no_limit_is_what_the_machine_has_free(tmp_path, free):
    unlimited = tree(tmp_path, "0::/user.slice\n", {"user.slice/memory.max": "max",
                                                    "user.slice/memory.current": GB})  # fmt: skip
    assert available_memory(**unlimited, environment={}) == free
    assert available_memory(tmp_path / "none", tmp_path / "none", {}) == free


def test_the_group_of_a_slurm_step_or_any_of_its_parents(tmp_path, free):
    """SLURM limits the job, and the groups of steps and tasks below it may be unlimited."""
    job = "system.slice/slurmstepd.scope/job_7"
    where = tree(tmp_path, f"0::/{job}/step_0/user/task_0\n", {
        "system.slice/memory.max": "max", "system.slice/memory.current": 30 * GB,
        f"{job}/memory.max": 16 * GB, f"{job}/memory.current": 6 * GB, f"{job}/memory.stat": STAT,
        f"{job}/step_0/memory.max": 20 * GB, f"{job}/step_0/memory.current": 6 * GB,
        f"{job}/step_0/user/task_0/memory.max": "max",
        f"{job}/step_0/user/task_0/memory.current": 2 * GB,
    })  # fmt: skip
    assert available_memory(**where, environment={}) == 11 * GB


def test_a_container_sees_its_own_group_as_the_root(tmp_path, free):
    """docker run -m 4g; without a namespace of its own, the path is the host's."""
    files = {"memory.max": 4 * GB, "memory.current": GB, "memory.stat": "inactive_file 0"}
    for own in ("0::/\n", "0::/docker/abc\n", "0::/../..\n"):
        assert available_memory(**tree(tmp_path, own, files), environment={}) == 3 * GB


def test_version_1(tmp_path, free):
    job = "memory/slurm/uid_1000/job_7"
    own = "12:devices:/slurm\n9:cpu,memory:/slurm/uid_1000/job_7/step_0\n1:name=systemd:/x\n0::/y\n"
    where = tree(tmp_path, own, {
        "memory/memory.limit_in_bytes": 9223372036854771712,
        "memory/memory.usage_in_bytes": 50 * GB,
        f"{job}/memory.limit_in_bytes": 8 * GB, f"{job}/memory.usage_in_bytes": 3 * GB,
        f"{job}/memory.stat": f"inactive_file 7\ntotal_inactive_file {GB}",
        f"{job}/step_0/memory.limit_in_bytes": 9223372036854771712,
        f"{job}/step_0/memory.usage_in_bytes": 2 * GB,
    })  # fmt: skip
    assert available_memory(**where, environment={}) == 6 * GB


def test_a_group_that_is_over_its_limit_has_nothing_left(tmp_path, free):
    files = {"memory.max": 4 * GB, "memory.current": 5 * GB, "memory.stat": "inactive_file 10"}
    assert available_memory(**tree(tmp_path, "0::/\n", files), environment={}) == 0


@pytest.mark.parametrize("content", ["", "-1", "words", "99999999999999999999999999"])
def test_files_that_make_no_sense_are_no_limit(tmp_path, free, content):
    files = {"memory.max": content, "memory.current": GB, "memory.stat": "a\nb c d\n"}
    assert available_memory(**tree(tmp_path, "0::/\nwords\n", files), environment={}) == free


@pytest.mark.parametrize(
    ("environment", "left"),
    [
        ({"SLURM_MEM_PER_NODE": "8192"}, 7 * GB),
        ({"SLURM_MEM_PER_NODE": "0"}, 64 * GB),
        ({"SLURM_MEM_PER_CPU": "2048", "SLURM_CPUS_ON_NODE": "4"}, 7 * GB),
        ({"SLURM_MEM_PER_CPU": "2048"}, 64 * GB),
    ],
)
def test_memory_of_a_slurm_job_without_control_groups(tmp_path, free, environment, left):
    nowhere = tmp_path / "none"
    assert available_memory(nowhere, nowhere, environment) == left


def test_limit_of_the_address_space():
    """`ulimit -v`, in a process of its own, as a limit cannot always be raised again."""
    line = (
        "import psutil, resource\n"
        "from lisbet.distributed.memory import available_memory\n"
        "limit = psutil.Process().memory_info().vms + 100 * 2**20\n"
        "resource.setrlimit(resource.RLIMIT_AS, (limit, limit))\n"
        "print(available_memory())"
    )
    done = subprocess.run([sys.executable, "-c", line], capture_output=True, text=True, check=True)
    assert 90 * MB < int(done.stdout) <= 100 * MB


def test_only_one_place_asks_how_much_memory_is_free():
    package = Path(__file__).parents[1] / "lisbet"
    askers = [str(file.relative_to(package)) for file in package.rglob("*.py")
              if "virtual_memory" in file.read_text()]  # fmt: skip
    assert sorted(askers) == [
        "commands/machine/doctor.py",
        "distributed/memory.py",
    ]  # the doctor names the total, too
