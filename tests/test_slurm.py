"""The shipped batch scripts, unchanged, on a real SLURM cluster of two nodes."""

import os
import signal
import sys
import time
from pathlib import Path

import pytest
from conftest import TINY, betman, write_dataset
from slurm_cluster import Cluster, missing
from test_distributed import apart, done, weights
from test_resume import fingerprint

from lisbet.training.checkpoint.directory import CheckpointDirectory

SCRIPTS = Path(__file__).parents[1] / "launch" / "slurm"
TRAIN, ARRAY, PREPROCESS = (SCRIPTS / f"{name}.sbatch" for name in ("train", "array", "preprocess"))
LINE = [*TINY, "--epochs=1", "--warmup_epochs=0", "--dev_ratio=0.5", "--dev_sample=0.3",
        "--save_history", "--hash_samples"]  # fmt: skip
LONG = [*LINE, "--epochs=12", "--checkpoint_every=7steps"]
LONG.remove("--epochs=1")
ENDLESS = [*LONG, "--epochs=4000"]
ENDLESS.remove("--epochs=12")
SMALL = ["--gpus-per-node=0", "--cpus-per-task=1"]
slow = pytest.mark.slurm


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    if reason := missing():
        pytest.skip(f"no SLURM cluster here: {reason}")
    with Cluster(tmp_path_factory.mktemp("slurm")) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    place = tmp_path_factory.mktemp("jobs")
    write_dataset(place / "data", [160, 160, 160, 160])
    return place


@pytest.fixture(scope="module")
def one(place) -> Path:
    done(betman("train_model", *LINE, "--run_id=one", "data", cwd=place, real=True))
    return place / "models" / "one"


@pytest.fixture(scope="module")
def whole(place) -> Path:
    """A long run that nothing interrupted; another number of threads would round otherwise."""
    done(
        betman(
            "train_model",
            *LONG,
            "--run_id=whole",
            "data",
            cwd=place,
            real=True,
            OMP_NUM_THREADS="1",
        )
    )
    return place / "models" / "whole"


def until_saved(run: Path, log: Path) -> None:
    """Wait until a run has a checkpoint."""
    for _ in range(3000):
        if CheckpointDirectory(run).published():
            return
        time.sleep(0.1)
    raise AssertionError(f"{run} has no checkpoint\n{log.read_text() if log.exists() else ''}")


def start(cluster: Cluster, place: Path, name: str, *words: str, options=LONG, **more: str):
    """Submit the shipped script; return the job's number and its log."""
    number = cluster.submit(*SMALL, f"--job-name={name}", *words, str(TRAIN), *options,
                            f"--run_id={name}", "data", cwd=place, **more)  # fmt: skip
    return number, place / f"{name}-{number}.out"


@pytest.mark.parametrize("each", [1, pytest.param(2, marks=slow)])
def test_two_nodes_train_the_same_model_as_one_process(each, cluster, place, one):
    number, log = start(cluster, place, f"nodes{each}", "--nodes=2", options=LINE,
                        PROCESSES_PER_NODE=str(each))  # fmt: skip
    cluster.wait(number, "COMPLETED", log=log)
    run = place / "models" / f"nodes{each}"
    assert apart(weights(one), weights(run)) < 1e-5
    assert (run / "sample_hashes.csv").read_bytes() == (one / "sample_hashes.csv").read_bytes()
    assert log.read_text().count("model written to") == 1
    assert f"count: {2 * each}" in (run / "run_config.yml").read_text()


@slow
def test_a_warned_job_saves_goes_back_to_the_queue_and_comes_to_the_same_end(cluster, place):
    number, log = start(cluster, place, "untouched", "--nodes=2")
    cluster.wait(number, "COMPLETED", log=log)
    number, log = start(cluster, place, "warned", "--nodes=2")
    until_saved(place / "models" / "warned", log)
    cluster.run("scancel", "--batch", "--signal=USR1", number)
    ended = cluster.wait(number, "COMPLETED", log=log)
    assert ended["Restarts"] == "1"
    said = log.read_text()
    assert "USR1: the run is told to save and to leave" in said
    assert "stopped by" in said
    assert "back to the queue" in said
    assert "start 1, on n[1-2]" in said
    assert fingerprint(place / "models/warned") == fingerprint(place / "models/untouched")


@slow
def test_a_job_that_is_preempted_goes_on(cluster, place, whole):
    number, log = start(cluster, place, "preempted", "--partition=low")
    until_saved(place / "models" / "preempted", log)
    urgent = cluster.submit("--partition=high", "--nodes=2", "--exclusive", "--wrap=sleep 2",
                            cwd=place)  # fmt: skip
    cluster.wait(urgent, "COMPLETED")
    assert cluster.wait(number, "COMPLETED", log=log)["Restarts"] == "1"
    assert "stopped by SIG" in log.read_text()
    assert fingerprint(place / "models" / "preempted") == fingerprint(whole)


@slow
def test_the_time_limit_saves_and_requeues(cluster, place, whole):
    """SLURM counts limits in minutes, and warns up to one earlier than it is told to."""
    number, log = start(cluster, place, "limited", "--time=2", "--signal=B:USR1@45",
                        options=ENDLESS)  # fmt: skip
    cluster.wait(number, "RUNNING", log=log)
    cluster.wait(number, "PENDING", log=log)
    assert "not finished (code 75): back to the queue" in log.read_text()
    assert CheckpointDirectory(place / "models" / "limited").published()
    cluster.run("scancel", number)


@slow
def test_a_crash_on_one_node_ends_the_job(cluster, place):
    number, log = start(cluster, place, "crashed", "--nodes=2", "--time=10",
                        options=ENDLESS)  # fmt: skip
    until_saved(place / "models" / "crashed", log)
    victim = process_of(number, rank=1)
    os.kill(victim, signal.SIGKILL)
    started = time.monotonic()
    ended = cluster.wait(number, "FAILED")
    assert time.monotonic() - started < 30
    assert (ended["Restarts"], ended["ExitCode"]) == ("0", "1:0")
    assert "was ended by signal SIGKILL" in log.read_text()
    assert "failed with code 1" in log.read_text()


def process_of(number: str, rank: int) -> int:
    """Return the process of a job that trains as this rank."""
    for entry in Path("/proc").iterdir():
        try:
            words = (entry / "environ").read_bytes().split(b"\0")
        except (OSError, ValueError):
            continue
        if {f"RANK={rank}".encode(), f"SLURM_JOB_ID={number}".encode()} <= set(words):
            return int(entry.name)
    raise AssertionError(f"job {number} has no rank {rank}")


@slow
def test_an_array_trains_one_run_for_each_setting(cluster, place):
    number = cluster.submit(*SMALL, "--array=0-1", str(ARRAY), *LINE, "data", cwd=place,
                            TRAIN_SBATCH=str(TRAIN))  # fmt: skip
    for element in (0, 1):
        cluster.wait(f"{number}_{element}", "COMPLETED",
                     log=place / f"lisbet-{number}_{element}.out")  # fmt: skip
    first, second = (weights(place / "models" / f"seed{seed}") for seed in (1, 2))
    assert apart(first, second) > 1e-3


@slow
def test_data_are_made_on_a_node_without_gpu(cluster, place):
    number = cluster.submit("--cpus-per-task=1", str(PREPROCESS), "fetch_dataset", "SampleData",
                            cwd=place)  # fmt: skip
    cluster.wait(number, "COMPLETED")
    assert len(list((place / "datasets" / "SampleData").rglob("tracking.nc"))) == 20


@slow
def test_a_mistake_is_not_repeated(cluster, place):
    number, log = start(cluster, place, "mistake", options=["--epochs=0"])
    ended = cluster.wait(number, "FAILED")
    assert (ended["Restarts"], ended["ExitCode"]) == ("0", "2:0")
    assert "--epochs=0" in log.read_text()


def test_the_nodes_of_a_job_are_tested(cluster, place):
    """By the script of a training run, and in an allocation."""
    number, log = start(cluster, place, "tested", "--nodes=2", TEST_NODES="yes")
    cluster.wait(number, "COMPLETED", log=log)
    said = log.read_text()
    assert "2 processes on 2 machines found each other" in said
    # Each machine has one interface beside lo, which has this address.
    for rank, (node, end) in enumerate((("n1", "a"), ("n2", "b"))):
        assert f"process {rank}: {node}  CPU, {cluster.tag}{end} 10.78.0.{rank + 1}\n" in said
    assert "the sums are right" in said
    assert "other names on each machine" in said
    assert not (place / "models" / "tested").exists()
    number = cluster.submit(*SMALL, "--nodes=2", "--job-name=allocated", "--wrap",
                            f"{sys.executable} -m lisbet doctor --nodes", cwd=place)  # fmt: skip
    log = place / f"slurm-{number}.out"
    cluster.wait(number, "COMPLETED", log=log)
    assert "2 processes on 2 machines found each other" in log.read_text()


@slow
def test_a_wrong_interface_is_named_and_the_job_not_repeated(cluster, place):
    """Gloo would wait for the address of lo until its time limit."""
    number, log = start(cluster, place, "wrong", "--nodes=2", TEST_NODES="yes",
                        GLOO_SOCKET_IFNAME="lo")  # fmt: skip
    ended = cluster.wait(number, "FAILED", log=None)
    assert (ended["Restarts"], ended["ExitCode"]) == ("0", "1:0")
    said = log.read_text()
    assert "GLOO_SOCKET_IFNAME=lo names an interface of n1 that other machines do not reach" in said
    assert f"export GLOO_SOCKET_IFNAME={cluster.tag}b" in said  # that of n2


@slow
def test_a_node_without_a_process_is_named(cluster, place):
    number = cluster.submit(*SMALL, "--nodes=2", "--job-name=lone", "--wrap",
                            "srun --ntasks-per-node=1 sh -c 'test $SLURM_NODEID = 1 && sleep 100; "
                            f"exec {sys.executable} -m lisbet doctor --nodes'",
                            cwd=place, LISBET_RENDEZVOUS_S="5")  # fmt: skip
    cluster.wait(number, "FAILED")
    said = (place / f"slurm-{number}.out").read_text()
    assert "process 1 of n2 did not answer within 5 s; there were those of n1" in said


@slow
def test_all_options_of_the_script_are_accepted(cluster, place):
    """sbatch reads each line, and the node has what it asks for."""
    words = ["slurm_script", *LINE, "--run_id=options", "--gres=gpu:2", "--processes_per_node=1",
             "--cpus_per_task=1", "--mail=me@lab.org", "--launch=cpu",
             "--sbatch=--exclusive --comment='two words' --nodelist=n2",
             "--setup=export MARK='from set up'; echo \"gpus $SLURM_GPUS_ON_NODE $MARK\"",
             "data"]  # fmt: skip
    printed = done(betman(*words, cwd=place, real=True))
    (place / "options.sbatch").write_text(printed.stdout)
    number = cluster.submit("options.sbatch", cwd=place)
    log = place / f"lisbet-{number}.out"
    ended = cluster.wait(number, "COMPLETED", log=log)
    assert ended["NodeList"] == "n2"
    assert "gpus 2 from set up\n" in log.read_text()
    assert "Comment=two words" in cluster.run("scontrol", "show", "job", number)
