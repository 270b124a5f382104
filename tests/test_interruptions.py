"""Runs that are stopped or killed, or meet a bad disk or sample, end with the same model."""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import forking_python, thorough_but, weight_changes, workers, write_dataset
from resumable import (
    LINE,
    STOPPED,
    fingerprint,
    finish,
    last_step,
    start,
    wait_for_step,
    weights,
)

from lisbet.cli import main
from lisbet.training.checkpoint.directory import CheckpointDirectory


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    place = tmp_path_factory.mktemp("interruptions")
    write_dataset(place / "data", [160, 160, 160, 160])
    return place


WAYS = {
    "one": ["--epochs=12"],
    "ddp": ["--launch=ddp", "--num_processes=2", "--epochs=6"],
    "deepspeed_zero2": ["--launch=deepspeed_zero2", "--num_processes=2", "--epochs=6"],
    "fsdp": ["--launch=fsdp", "--num_processes=2", "--epochs=6"],
}
TIMES = (1, 2, 3) if os.environ.get("LISBET_ALL_CRASHES") else (2,)
"""How often a run is interrupted; the suite takes one of these."""


@pytest.mark.parametrize("times", TIMES)
@pytest.mark.parametrize("name", ["one", *thorough_but("fsdp", ["ddp", "deepspeed_zero2", "fsdp"])])
def test_interrupted_runs_come_to_the_same_end(name, times, place):
    """Told to stop, or killed, at random steps in the middle of epochs."""
    words, run_id = WAYS[name], f"{name}-{times}"
    launched, steps = name != "one", 120 if name != "one" else 240
    run, whole = place / "models" / run_id, place / "models" / f"{name}-whole"
    if not whole.exists():
        finish(place, whole.name, *words)
    rng = random.Random(run_id)
    kinds = rng.sample([signal.SIGTERM, signal.SIGUSR1, signal.SIGKILL], times)
    told = []
    for number, after in zip(
        kinds, sorted(rng.sample(range(1, steps * 3 // 4), times)), strict=True
    ):
        job = start(place, run_id, "--resume", *words)
        wait_for_step(run, max(after, last_step(run) + 1), job)
        time.sleep(rng.random() / 20)
        # Any one of the processes, or what started them.
        by_launcher = not launched or number == signal.SIGTERM
        target = job.pid if by_launcher else rng.choice(workers(job, run_id))
        os.kill(target, number)
        _, said = job.communicate(timeout=120)
        if number == signal.SIGKILL:
            assert job.returncode in (1, -signal.SIGKILL), said
        else:
            assert job.returncode == STOPPED, said
            assert said.count("stopped by") == 1, said
            assert "--resume" in said
        assert "Traceback" not in said
        told.append((number.name, last_step(run)))
        assert told[-1][1] < steps
    print(f"{name}: " + ", ".join(f"{kind} left step {step}" for kind, step in told))
    finish(place, run_id, "--resume", *words)
    assert fingerprint(run) == fingerprint(whole)
    # And once more, there is nothing left to do.
    if not launched:
        finish(place, run_id, "--resume", *words)
        assert fingerprint(run) == fingerprint(whole)


@pytest.mark.parametrize("name", thorough_but("deepspeed_zero2", ["deepspeed_zero2", "fsdp"]))
def test_every_damaged_shard_is_noticed(name, place, capsys):
    """A flipped byte in any file: weights, optimizer, scores, progress, manifest."""
    run = place / "models" / f"{name}-damaged"
    if not (place / "models" / f"{name}-whole").exists():
        finish(place, f"{name}-whole", *WAYS[name])
    shutil.copytree(place / "models" / f"{name}-whole", run, dirs_exist_ok=True)
    newest, before = CheckpointDirectory(run).published()
    files = [path for path in sorted(newest.rglob("*")) if path.is_file()]
    assert len(files) >= 7
    for file in files:
        content = bytearray(file.read_bytes())
        for place_of in (0, len(content) // 2, len(content) - 1):
            content[place_of] ^= 1
            file.write_bytes(content)
            with pytest.raises(SystemExit) as caught:
                main(["verify_checkpoint", str(run)])
            assert caught.value.code == 2
            said = capsys.readouterr()
            assert f"damaged: {newest.name};" in said.err
            assert f"--resume would use {before.name}" in said.out
            if not file.name.startswith("manifest"):
                name_in = file.relative_to(newest).as_posix()
                assert f"is damaged: another hash than when it was written {name_in}" in said.out
            content[place_of] ^= 1
        file.write_bytes(content)
    main(["verify_checkpoint", str(run)])
    capsys.readouterr()


@pytest.mark.parametrize(
    "ways",
    [
        (["--launch=ddp", "--num_processes=2"], [], ["--launch=ddp", "--num_processes=2"]),
        (["--launch=fsdp", "--num_processes=2"], [], ["--launch=ddp", "--num_processes=2"]),
        ([], ["--launch=fsdp", "--num_processes=2"], []),
    ],
    ids=["2-1-2", "sharded-1-2", "1-sharded-1"],
)
def test_other_numbers_of_processes_go_on(ways, place):
    run_id = "-".join(way[0].removeprefix("--launch=") if way else "one" for way in ways)
    if not (place / "models" / "reference").exists():
        finish(place, "reference", "--epochs=6", "--learning_rate=1e-5")
    run = place / "models" / run_id
    for number, words in enumerate(ways):
        finish(place, run_id, f"--epochs={2 * (number + 1)}", *words, "--learning_rate=1e-5",
               "--resume")  # fmt: skip
    reference = place / "models" / "reference"
    name = "sample_hashes.csv"
    assert (run / name).read_bytes() == (reference / name).read_bytes()
    for key, value, change in weight_changes(weights(reference), weights(run)):
        assert change.norm() <= 1e-6 * value.norm().clamp_min(1e-3), key


def test_deepspeed_cannot_change_its_processes(place):
    finish(place, "zero", "--epochs=1", "--launch=deepspeed_zero1", "--num_processes=2")
    job = start(place, "zero", "--epochs=2", "--resume")
    _, said = job.communicate(timeout=120)
    assert job.returncode == 2
    assert "DeepSpeed ZeRO-1 with 2 processes" in said
    assert "consolidate_checkpoint" in said


SLOW_OR_BROKEN_DISK = """
import time
import lisbet.training.checkpoint.writer as checkpoint
write = checkpoint._write_state
def patched(folder, progress, counts):
    {what}
    return write(folder, progress, counts)
checkpoint._write_state = patched
"""
BAD_SAMPLES = """
import os
from lisbet.training.datasets.batch_buffer import BatchBuffer
drawn = BatchBuffer.batch
def patched(self, epoch, step, rows):
    batch, noise = drawn(self, epoch, step, rows)
    due = epoch * self.sampler.steps + step in (3, 25)
    if due and os.environ.get("RANK") == "1":
        windows, labels = batch["warp"]
        batch["warp"] = (windows * float("inf"), labels)
    return batch, noise
BatchBuffer.batch = patched
"""


def on_two(strategy: str) -> list[str]:
    return [f"--launch={strategy}", "--num_processes=2"]


def broken_disk(what: str) -> str:
    return SLOW_OR_BROKEN_DISK.format(what=what)


def test_nobody_leaves_before_a_slow_disk_has_everything(place):
    slow = broken_disk("time.sleep(5 if progress.step > 7 else 0)")
    job = start(place, "slow", "--epochs=2", *on_two("ddp"), patch=slow)
    run = place / "models" / "slow"
    wait_for_step(run, 7, job)
    os.kill(workers(job, "slow")[-1], signal.SIGUSR1)
    _, said = job.communicate(timeout=120)
    step = int(said.split("after step ")[1].split(",")[0])
    assert f"after step {step}, saved in" in said
    assert last_step(run) == step


@pytest.mark.parametrize("launch", thorough_but("fsdp", ["fsdp", "deepspeed_zero1"]))
def test_a_sharded_checkpoint_that_cannot_be_written(launch, place):
    full = "if progress.step == 14: raise OSError(28, 'No space left on device', str(folder))"
    disk, run_id = broken_disk(full), f"no-space-{launch}"
    words = ["--epochs=2", *on_two(launch)]
    job = start(place, run_id, *words, "--on_save_error=continue", patch=disk)
    _, said = job.communicate(timeout=120)
    assert job.returncode == 0, said
    assert said.count("no checkpoint was written: ") == 1
    assert "No space left on device; training continues" in said
    if launch == "fsdp":
        job = start(place, f"{run_id}-stops", *words, patch=disk)
        _, said = job.communicate(timeout=120)
        assert said.count("betman: error") == 1
        assert "No space left on device (free some space" in said
        assert last_step(place / "models" / f"{run_id}-stops") == 7


@pytest.mark.parametrize("launch", ["ddp", "deepspeed_zero2"])
def test_bad_steps_are_left_out_by_all_alike(launch, place):
    """The samples of one process give an infinite loss: no process makes that step."""
    words, bad = ["--epochs=2", "--skip_nonfinite=2", "--micro_batch_size=4"], BAD_SAMPLES
    job = start(place, f"bad-{launch}", *words, *on_two(launch), patch=bad)
    _, said = job.communicate(timeout=120)
    assert job.returncode == 0, said
    assert said.count("step 3 is skipped") == said.count("step 25 is skipped") == 1
    found = weights(place / "models" / f"bad-{launch}")
    assert all(bool(value.isfinite().all()) for value in found.values())
    history = (place / "models" / f"bad-{launch}" / "training_history.csv").read_text()
    assert "nan" not in history
    assert "inf" not in history
    if launch != "ddp":  # the same steps are left out on every strategy
        if not (place / "models" / "bad-ddp").exists():
            start(place, "bad-ddp", *words, *on_two("ddp"), patch=bad).communicate(timeout=120)
        for key, value, change in weight_changes(weights(place / "models" / "bad-ddp"), found):
            assert change.norm() <= 1e-3 * value.norm().clamp_min(1e-3), key


def test_a_single_process_is_not_left_behind_by_its_launcher(place):
    job = start(place, "single", "--launch=cpu")
    wait_for_step(place / "models" / "single", 7, job)
    job.send_signal(signal.SIGTERM)
    _, said = job.communicate(timeout=60)
    assert job.returncode == STOPPED
    assert "stopped by SIGTERM" in said


def test_an_interrupt_stops_and_a_second_one_leaves_at_once(place):
    """Two at once are one: a terminal and a launcher send the same."""
    code = (
        "import os, signal, time\n"
        "from lisbet.training.stopping import StopSignal\n"
        "with StopSignal() as stops:\n"
        "    stops.running = True\n"
        "    os.kill(os.getpid(), signal.SIGINT)\n"
        "    os.kill(os.getpid(), signal.SIGINT)\n"
        "    print(stops.reason, flush=True)\n"
        "    time.sleep(1.1)\n"
        "    os.kill(os.getpid(), signal.SIGINT)\n"
        "    print('still here')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 130
    assert done.stdout == "SIGINT\n"
    assert "interrupted" in done.stderr


def test_a_signal_before_the_first_step_writes_nothing(place):
    job = start(place, "early", python=sys.executable)
    time.sleep(1)  # while it imports or reads
    job.send_signal(signal.SIGTERM)
    _, said = job.communicate(timeout=60)
    assert job.returncode in (STOPPED, -signal.SIGTERM), said
    assert "Traceback" not in said
    assert not (place / "models" / "early").exists()


def test_torchrun_starts_it_again(place):
    """A process that is killed: with --max-restarts, the run goes on by itself."""
    finish(place, "restarted-whole", "--epochs=6", *on_two("ddp"))
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node=2",
               "--max-restarts=2", "-m", "lisbet", *LINE, "--epochs=6", "--run_id=restarted",
               "--resume", "data"]  # fmt: skip
    job = subprocess.Popen(command, cwd=place, stderr=subprocess.PIPE, text=True,
                           env=os.environ | {"PYTHON_EXEC": forking_python()})  # fmt: skip
    run = place / "models" / "restarted"
    wait_for_step(run, 20, job)
    os.kill(workers(job, "restarted")[0], signal.SIGKILL)
    _, said = job.communicate(timeout=120)
    assert job.returncode == 0, said
    assert fingerprint(run) == fingerprint(place / "models" / "restarted-whole")


def test_max_time_stops_by_itself(place, monkeypatch, capsys):
    from lisbet.core.option_values import Hours

    monkeypatch.chdir(place)
    monkeypatch.setattr(Hours, "seconds", property(lambda _: 0.5))
    with pytest.raises(SystemExit) as caught:
        main([*LINE, "--epochs=100000", "--max_time=0:01", "--run_id=limited", "data"])
    assert caught.value.code == STOPPED
    said = capsys.readouterr().err
    assert "stopped by --max_time=0:01" in said or "nothing was written" in said
