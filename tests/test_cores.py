"""How many cores a run may use, and how its threads wait."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import TINY, betman
from test_memory import tree

from lisbet.distributed import environment
from lisbet.distributed.cores import cores, let_threads_sleep

BOUND = len(os.sched_getaffinity(0))


def limited(root: Path, own: str, files: dict[str, object], **variables: str) -> int:
    return cores(**tree(root, own, files), environment=variables)


def test_cores_without_any_limit_are_those_the_process_is_bound_to(tmp_path):
    assert limited(tmp_path, "0::/a\n", {"a/cpu.max": "max 100000"}) == BOUND
    assert cores(tmp_path / "none", tmp_path / "none", {}) == BOUND


@pytest.mark.parametrize(("quota", "expected"), [("100000", 1), ("199999", 1), ("50000", 1)])
def test_the_cpu_time_of_a_container(quota, expected, tmp_path):
    assert limited(tmp_path / "2", "0::/\n", {"cpu.max": f"{quota} 100000"}) == expected
    files = {"cpu/cpu.cfs_quota_us": quota, "cpu/cpu.cfs_period_us": "100000"}
    assert limited(tmp_path / "1", "4:cpu,cpuacct:/\n", files) == expected


def test_a_limit_of_a_parent_group_holds(tmp_path):
    files = {"a/cpu.max": "100000 100000", "a/b/cpu.max": "max 100000"}
    assert limited(tmp_path, "0::/a/b\n", files) == 1


def test_more_time_than_cores_and_damaged_files_change_nothing(tmp_path):
    assert limited(tmp_path / "a", "0::/\n", {"cpu.max": f"{(BOUND + 3) * 100000} 100000"}) == BOUND
    assert limited(tmp_path / "b", "0::/\n", {"cpu.max": "lots"}) == BOUND
    unlimited = {"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}
    assert limited(tmp_path / "c", "4:cpu:/\n", unlimited) == BOUND


def test_a_slurm_job_has_the_cores_that_slurm_says(tmp_path):
    assert limited(tmp_path, "0::/\n", {}, SLURM_CPUS_ON_NODE="1") == 1
    assert limited(tmp_path, "0::/\n", {}, SLURM_CPUS_ON_NODE="64") == BOUND


@pytest.mark.skipif(BOUND < 2, reason="one core can not be left out of one")
def test_cores_that_a_process_is_bound_to():
    code = ("import os; os.sched_setaffinity(0, [min(os.sched_getaffinity(0))]);"
            "from lisbet.distributed.cores import cores; print(cores())")  # fmt: skip
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60,
                          check=True)  # fmt: skip
    assert done.stdout.strip() == "1"


def test_processes_of_a_machine_share_its_cores(monkeypatch):
    for name in [name for name in os.environ if name.startswith("SLURM_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    assert environment.threads() == max(1, BOUND // 2)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", str(4 * BOUND))
    assert environment.threads() == 1
    for name, value in {"STEP_NUM_TASKS": "2", "PROCID": "0", "CPUS_PER_TASK": "1"}.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    assert environment.threads() == 1


@pytest.mark.parametrize("name", ["OMP_WAIT_POLICY", "GOMP_SPINCOUNT"])
def test_what_the_user_has_said_about_waiting_holds(name):
    said = {name: "7"}
    let_threads_sleep(said)
    assert said == {name: "7"}


STARTS = {
    "python -m lisbet": ["-m", "lisbet", "train_model"],
    "betman": ["-c", "import sys; from lisbet.cli import main; main(sys.argv[1:])", "train_model"],
    "--launch": ["-m", "lisbet", "train_model", "--launch=ddp", "--num_processes=1"],
    "accelerate launch": ["-m", "accelerate.commands.launch", "--cpu", "--num_processes=1",
                          "--num_machines=1", "--mixed_precision=no", "--dynamo_backend=no",
                          "-m", "lisbet", "train_model"],
    "torchrun": ["-m", "torch.distributed.run", "--nproc_per_node=1", "-m", "lisbet",
                 "train_model"],
}  # fmt: skip


@pytest.mark.parametrize("start", STARTS)
@pytest.mark.skipif(sys.platform != "linux", reason="only GNU OpenMP prints what it follows")
def test_openmp_of_each_start_lets_its_threads_sleep_soon(start, dataset, tmp_path):
    """What OpenMP itself prints when torch loads it, in the process that trains."""
    variables = {name: value for name, value in os.environ.items()
                 if not name.startswith(("OMP_", "GOMP_", "KMP_"))}  # fmt: skip
    done = subprocess.run(
        [sys.executable, *STARTS[start], *TINY, "--epochs=1", "--dry_run", str(dataset)],
        cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False,
        env=variables | {"OMP_DISPLAY_ENV": "verbose"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = [line.split("'")[1] for line in done.stderr.splitlines() if "GOMP_SPINCOUNT" in line]
    if not found:
        pytest.skip("this torch does not compute with GNU OpenMP")
    assert found[-1] == "5000"


@pytest.fixture
def other(dataset, tmp_path):
    """Start another run with so many threads, and wait until its process is there."""
    started = []

    def start(threads: int, *words: str) -> subprocess.Popen:
        line = ["train_model", *TINY, "--epochs=100000", *words, str(dataset)]
        started.append(subprocess.Popen(
            [sys.executable, "-m", "lisbet", *line], cwd=tmp_path, stderr=subprocess.DEVNULL,
            env={**os.environ, "OMP_NUM_THREADS": str(threads)},
        ))  # fmt: skip
        return started[-1]

    yield start
    for job in started:
        job.kill()
        job.wait()


@pytest.mark.parametrize("launch", [[], ["--launch=ddp", "--num_processes=1"]])
def test_another_run_on_the_same_cores_is_named(launch, other, dataset, tmp_path):
    first = other(BOUND, "--run_id=first")
    line = ["train_model", *TINY, "--epochs=1", "--run_id=second", *launch, str(dataset)]
    done = subprocess.run(
        [sys.executable, "-m", "lisbet", *line], cwd=tmp_path, capture_output=True, text=True,
        timeout=120, check=False,
        env={name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (said,) = [line for line in done.stderr.splitlines() if "another training run" in line]
    assert f"process {first.pid}" in said or f", {first.pid}" in said
    assert "OMP_NUM_THREADS=" in said


def test_who_has_shared_the_cores_out_is_not_warned(other, dataset, tmp_path):
    other(1, "--run_id=first")
    done = betman("train_model", *TINY, "--epochs=1", "--run_id=second", str(dataset),
                  cwd=tmp_path, OMP_NUM_THREADS="1")  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "another training run" not in done.stderr
