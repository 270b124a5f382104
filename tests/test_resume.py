"""Runs that are stopped, killed or damaged go on to the very same model."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import yaml
from conftest import TINY, betman, forking_python, hurt, thorough_but, write_dataset

from lisbet import model_dir
from lisbet.cli import main
from lisbet.core.write_log import LOG
from lisbet.training.manifest import Manifest, published_checkpoints
from lisbet.training.sampler import Sampler

LINE = ["train_model", *TINY, "--epochs=12", "--warmup_epochs=1", "--dev_ratio=0.5",
        "--dev_sample=0.3", "--save_history", "--hash_samples",
        "--checkpoint_every=7steps"]  # fmt: skip
STOPPED = 75


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    place = tmp_path_factory.mktemp("resume")
    write_dataset(place / "data", [160, 160, 160, 160])
    return place


def start(place: Path, run_id: str, *words: str, python: str = sys.executable) -> subprocess.Popen:
    return subprocess.Popen(
        [python, "-m", "lisbet", *LINE, *words, f"--run_id={run_id}", "data"],
        cwd=place, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def finish(place: Path, run_id: str, *words: str) -> str:
    job = start(place, run_id, *words, python=forking_python())
    out, said = job.communicate(timeout=300)
    assert job.returncode == 0, said
    return out + said


def last_step(run: Path) -> int:
    there = published_checkpoints(run)
    return int(there[0].name.removeprefix("step_")) if there else 0


def wait_for_step(run: Path, step: int, job: subprocess.Popen) -> None:
    """Wait for a checkpoint of that step or a later one."""
    for _ in range(3000):
        if last_step(run) >= step:
            return
        assert job.poll() is None, job.communicate()
        time.sleep(0.01)
    raise AssertionError(f"{run} does not come to step {step}")


def fingerprint(run: Path) -> dict[str, str]:
    """Hashes of the final weights, of the saved state of every process, and the history."""
    newest = published_checkpoints(run)[0]
    files = Manifest.read(newest).files
    found = {
        name: file.sha256
        for name, file in files.items()
        if name not in ("progress.json", "sharded/.metadata")
    }
    for name in (model_dir.WEIGHTS_LAST, "training_history.csv", "sample_hashes.csv"):
        found[name] = (run / name).read_bytes().hex()
    return found | {"step": newest.name}


WAYS = {
    "one": [],
    "ddp": ["--launch=ddp", "--num_processes=2"],
    "deepspeed_zero2": ["--launch=deepspeed_zero2", "--num_processes=2"],
    "fsdp": ["--launch=fsdp", "--num_processes=2"],
}
TIMES = (1, 2, 3) if os.environ.get("LISBET_ALL_CRASHES") else (2,)
"""How often a run is interrupted; the suite takes one of these."""


@pytest.mark.parametrize("times", TIMES)
@pytest.mark.parametrize("name", ["one", *thorough_but("fsdp", ["ddp", "deepspeed_zero2", "fsdp"])])
def test_interrupted_runs_come_to_the_same_end(name, times, place):
    """Told to stop, or killed, at random steps in the middle of epochs."""
    words, run_id = WAYS[name], f"{name}-{times}"
    run, whole = place / "models" / run_id, place / "models" / f"{name}-whole"
    if not whole.exists():
        finish(place, whole.name, *words)
    rng = random.Random(run_id)
    kinds = rng.sample([signal.SIGTERM, signal.SIGUSR1, signal.SIGKILL], times)
    told = []
    for number, after in zip(kinds, sorted(rng.sample(range(1, 180), times)), strict=True):
        job = start(place, run_id, "--resume", *words)
        wait_for_step(run, max(after, last_step(run) + 1), job)
        time.sleep(rng.random() / 20)
        # Any one of the processes, or what started them.
        by_launcher = not words or number == signal.SIGTERM
        target = job.pid if by_launcher else rng.choice(children(job))
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
        assert told[-1][1] < 240
    print(f"{name}: " + ", ".join(f"{kind} left step {step}" for kind, step in told))
    finish(place, run_id, "--resume", *words)
    assert fingerprint(run) == fingerprint(whole)
    # And once more, there is nothing left to do.
    if not words:
        finish(place, run_id, "--resume", *words)
        assert fingerprint(run) == fingerprint(whole)


@pytest.mark.parametrize("name", thorough_but("deepspeed_zero2", ["deepspeed_zero2", "fsdp"]))
def test_every_damaged_shard_is_noticed(name, place, capsys):
    """A flipped byte in any file: weights, optimizer, scores, progress, manifest."""
    run = place / "models" / f"{name}-damaged"
    if not (place / "models" / f"{name}-whole").exists():
        finish(place, f"{name}-whole", *WAYS[name])
    shutil.copytree(place / "models" / f"{name}-whole", run, dirs_exist_ok=True)
    newest, before = published_checkpoints(run)
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
            assert f"--resume would take {before.name}" in said.out
            if not file.name.startswith("manifest"):
                name_in = file.relative_to(newest).as_posix()
                assert f"is damaged: another hash than when it was written {name_in}" in said.out
            content[place_of] ^= 1
        file.write_bytes(content)
    main(["verify_checkpoint", str(run)])
    capsys.readouterr()


def children(job: subprocess.Popen) -> list[int]:
    for _ in range(100):
        found = Path(f"/proc/{job.pid}/task/{job.pid}/children").read_text().split()
        if len(found) >= 2:
            return [int(pid) for pid in found]
        time.sleep(0.1)
    raise AssertionError("the launcher has no processes")


def weights(run: Path) -> dict[str, torch.Tensor]:
    return torch.load(run / model_dir.WEIGHTS_LAST, weights_only=True)


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
        finish(place, "reference", "--learning_rate=1e-5")
    run = place / "models" / run_id
    for number, words in enumerate(ways):
        epochs = f"--epochs={4 * (number + 1)}"
        line = [word for word in LINE if "epochs=12" not in word]
        done = betman(*line, epochs, *words, "--learning_rate=1e-5", f"--run_id={run_id}",
                      "--resume", "data", cwd=place)  # fmt: skip
        assert done.returncode == 0, done.stderr
    reference = place / "models" / "reference"
    name = "sample_hashes.csv"
    assert (run / name).read_bytes() == (reference / name).read_bytes()
    ours, theirs = weights(run), weights(reference)
    for key, value in theirs.items():
        change = ours[key] - value
        if key.endswith("in_proj_bias"):  # the keys' third moves by rounding alone
            change[8:16] = 0
        assert change.norm() <= 1e-6 * value.norm().clamp_min(1e-3), key


def test_deepspeed_cannot_change_its_processes(place):
    words = ["--epochs=1", "--launch=deepspeed_zero1", "--num_processes=2"]
    line = [word for word in LINE if "epochs=12" not in word]
    assert betman(*line, *words, "--run_id=zero", "data", cwd=place).returncode == 0
    said = betman(*line, "--epochs=2", "--resume", "--run_id=zero", "data", cwd=place)
    assert said.returncode == 2
    assert "DeepSpeed ZeRO-1 with 2 processes" in said.stderr
    assert "consolidate_checkpoint" in said.stderr


SLOW_OR_BROKEN_DISK = """
import time
import lisbet.training.checkpoint as checkpoint
write = checkpoint._write_progress
def patched(folder, progress, counts):
    {what}
    return write(folder, progress, counts)
checkpoint._write_progress = patched
"""
BAD_SAMPLES = """
import os
from lisbet.training.sampler import Sampler
drawn = Sampler.batch
def patched(self, epoch, step, rows):
    batch = drawn(self, epoch, step, rows)
    due = self.part == "train" and epoch * self.steps + step in {steps}
    if due and os.environ["RANK"] == "1":
        windows, labels = batch["warp"]
        batch["warp"] = (windows * float("inf"), labels)
    return batch
Sampler.batch = patched
"""
CALL = "import sys\nfrom lisbet.cli import main\nmain(sys.argv[1:])\n"


def patched(place: Path, what: str, launch: str, *words: str) -> subprocess.Popen:
    """Start two processes in which something is not what it should be."""
    script = place / f"{words[0].removeprefix('--run_id=')}.py"
    script.write_text(what + CALL)
    file = Path(__file__).parents[1] / "launch" / f"{launch}.yaml"
    return subprocess.Popen(
        [sys.executable, "-m", "accelerate.commands.accelerate_cli", "launch", "--config_file",
         file, "--num_processes=2", script, *short(), *words, "data"],
        cwd=place, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def broken_disk(what: str) -> str:
    return SLOW_OR_BROKEN_DISK.format(what=what)


def test_nobody_leaves_before_a_slow_disk_has_everything(place):
    slow = broken_disk("time.sleep(5 if progress.step > 7 else 0)")
    job = patched(place, slow, "ddp", "--run_id=slow")
    run = place / "models" / "slow"
    wait_for_step(run, 7, job)
    os.kill(children(job)[-1], signal.SIGUSR1)
    _, said = job.communicate(timeout=120)
    step = int(said.split("after step ")[1].split(",")[0])
    assert f"after step {step}, saved in" in said
    assert last_step(run) == step


@pytest.mark.parametrize("launch", thorough_but("fsdp", ["fsdp", "deepspeed_zero1"]))
def test_a_sharded_checkpoint_that_cannot_be_written(launch, place):
    full = "if progress.step == 14: raise OSError(28, 'No space left on device', str(folder))"
    disk, run_id = broken_disk(full), f"no-space-{launch}"
    job = patched(place, disk, launch, f"--run_id={run_id}", "--on_save_error=continue")
    _, said = job.communicate(timeout=120)
    assert job.returncode == 0, said
    assert said.count("no checkpoint was written: ") == 1
    assert "No space left on device; training goes on" in said
    if launch == "fsdp":
        job = patched(place, disk, launch, f"--run_id={run_id}-stops")
        _, said = job.communicate(timeout=120)
        assert said.count("betman: error") == 1
        assert "No space left on device (free some space" in said
        assert last_step(place / "models" / f"{run_id}-stops") == 7


@pytest.mark.parametrize("launch", ["ddp", "deepspeed_zero2"])
def test_bad_steps_are_left_out_by_all_alike(launch, place):
    """The samples of one process give an infinite loss: no process makes that step."""
    words = ["--skip_nonfinite=2", "--micro_batch_size=4"]
    job = patched(
        place, BAD_SAMPLES.format(steps=(3, 25)), launch, f"--run_id=bad-{launch}", *words
    )
    _, said = job.communicate(timeout=120)
    assert job.returncode == 0, said
    assert said.count("step 3 is left out") == said.count("step 25 is left out") == 1
    found = weights(place / "models" / f"bad-{launch}")
    assert all(bool(value.isfinite().all()) for value in found.values())
    history = (place / "models" / f"bad-{launch}" / "training_history.csv").read_text()
    assert "nan" not in history
    assert "inf" not in history
    if launch != "ddp":  # the same steps are left out on every strategy
        if not (place / "models" / "bad-ddp").exists():
            bad = BAD_SAMPLES.format(steps=(3, 25))
            patched(place, bad, "ddp", "--run_id=bad-ddp", *words).communicate(timeout=120)
        for key, value in weights(place / "models" / "bad-ddp").items():
            change = found[key] - value
            if key.endswith("in_proj_bias"):
                change[8:16] = 0
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
        "from lisbet.training.signals import Stops\n"
        "with Stops() as stops:\n"
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
    job = start(place, "early")
    time.sleep(1)  # while it imports or reads
    job.send_signal(signal.SIGTERM)
    _, said = job.communicate(timeout=60)
    assert job.returncode in (STOPPED, -signal.SIGTERM), said
    assert "Traceback" not in said
    assert not (place / "models" / "early").exists()


def test_torchrun_starts_it_again(place):
    """A process that is killed: with --max-restarts, the run goes on by itself."""
    finish(place, "restarted-whole", "--launch=ddp", "--num_processes=2")
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node=2",
               "--max-restarts=2", "-m", "lisbet", *LINE, "--run_id=restarted", "--resume",
               "data"]  # fmt: skip
    job = subprocess.Popen(command, cwd=place, stderr=subprocess.PIPE, text=True)
    run = place / "models" / "restarted"
    wait_for_step(run, 20, job)
    os.kill(children(job)[0], signal.SIGKILL)
    _, said = job.communicate(timeout=120)
    assert job.returncode == 0, said
    assert fingerprint(run) == fingerprint(place / "models" / "restarted-whole")


def test_max_time_stops_by_itself(place, monkeypatch, capsys):
    from lisbet.config import Hours

    monkeypatch.chdir(place)
    monkeypatch.setattr(Hours, "seconds", property(lambda _: 0.5))
    line = [word for word in LINE if "epochs=12" not in word]
    with pytest.raises(SystemExit) as caught:
        main([*line, "--epochs=100000", "--max_time=0:01", "--run_id=limited", "data"])
    assert caught.value.code == STOPPED
    said = capsys.readouterr().err
    assert "stopped by --max_time=0:01" in said or "nothing was written" in said


# In this process: quick ------------------------------------------------------------------------


@pytest.fixture
def here(place, tmp_path, monkeypatch) -> Path:
    """A finished run of two epochs, in a folder of its own."""
    if not (place / "models" / "short").exists():
        done = betman(*short(), "--run_id=short", "data", cwd=place)
        assert done.returncode == 0, done.stderr
    shutil.copytree(place / "models" / "short", tmp_path / "models" / "short")
    (tmp_path / "data").symlink_to(place / "data")
    monkeypatch.chdir(tmp_path)
    return tmp_path / "models" / "short"


def short(epochs: int = 2) -> list[str]:
    return [*(word for word in LINE if "epochs=12" not in word), f"--epochs={epochs}"]


def refused(capsys, *words: str) -> str:
    with pytest.raises(SystemExit) as caught:
        main(list(words))
    assert caught.value.code == 2
    said = capsys.readouterr().err
    assert said.count("betman: error") == 1
    return said


def test_changed_options_are_listed(here, capsys):
    said = refused(capsys, *short(3), "--seed=7", "--weight_decay=0.1", "--run_id=short",
                   "--resume", "data")  # fmt: skip
    assert "--seed: was 1991, is 7" in said
    assert "--weight_decay: was 0.01, is 0.1" in said
    assert "epochs" not in said
    progress = json.loads((published_checkpoints(here)[0] / "progress.json").read_text())
    assert len(progress["history"]) == 2


def test_harmless_options_are_taken(here, capsys):
    main([*short(3), "--save_weights=all", "--keep_checkpoints=1", "--run_id=short", "--resume",
          "data"])  # fmt: skip
    assert len((here / "training_history.csv").read_text().splitlines()) == 4
    assert len(published_checkpoints(here)) == 1
    options = yaml.safe_load((here / "run_config.yml").read_text())["options"]
    assert (options["epochs"], options["keep_checkpoints"]) == (3, 1)
    capsys.readouterr()


def test_changed_recordings_are_noticed(here, tmp_path, capsys):
    (tmp_path / "data").unlink()
    write_dataset(tmp_path / "data", [160, 160, 160, 161])
    said = refused(capsys, *short(3), "--run_id=short", "--resume", "data")
    assert "the recordings are not those" in said


def test_resume_without_a_beginning_starts(here, capsys):
    main([*short(1), "--run_id=fresh", "--resume", "data"])
    assert "model written to models/fresh" in capsys.readouterr().out
    assert "--resume needs --run_id" in refused(capsys, *short(), "--resume", "data")
    both = refused(capsys, *short(), "--run_id=short", "--resume", "--overwrite", "data")
    assert "pass one of them" in both
    # Its checkpoints were removed to save space: it is finished, and its weights stay.
    shutil.rmtree(here / "checkpoints")
    said = refused(capsys, *short(), "--seed=8", "--run_id=short", "--resume", "data")
    assert "--seed: was 1991, is 8" in said
    expected = (here / model_dir.WEIGHTS_LAST).read_bytes()
    main([*short(), "--run_id=short", "--resume", "data"])
    assert "models/short is finished" in capsys.readouterr().out
    assert (here / model_dir.WEIGHTS_LAST).read_bytes() == expected
    assert not (here / "checkpoints").exists()
    (here / model_dir.RUN_CONFIG).unlink()
    said = refused(capsys, *short(), "--run_id=short", "--resume", "data")
    assert "has weights but neither a checkpoint nor" in said


@pytest.mark.parametrize("name", ["state.pt", "metrics.pt", "progress.json", "manifest.json",
                                  "manifest.sha256"])  # fmt: skip
@pytest.mark.parametrize("damage", ["missing", "cut", "flipped"])
def test_a_damaged_checkpoint_is_skipped(name, damage, here, capsys):
    newest, before = published_checkpoints(here)
    file = newest / name
    hurt(file, damage)
    expected = torch.load(here / model_dir.WEIGHTS_LAST, weights_only=True)
    (here / model_dir.WEIGHTS_LAST).unlink()
    with pytest.raises(SystemExit) as caught:
        main(["verify_checkpoint", str(here)])
    assert caught.value.code == 2
    said = capsys.readouterr()
    assert f"--resume would take {before.name}" in said.out
    assert f"damaged: {newest.name}" in said.err
    main([*short(), "--run_id=short", "--resume", "data"])
    said = capsys.readouterr().err
    assert newest.name in said
    assert f"going on from the one before: {Path('models/short/checkpoints') / before.name}" in said
    found = torch.load(here / model_dir.WEIGHTS_LAST, weights_only=True)
    assert all(torch.equal(value, found[key]) for key, value in expected.items())
    assert (here / "checkpoints" / f"damaged_{newest.name}").is_dir()


def test_nothing_good_is_not_silently_started_anew(here, capsys):
    for folder in published_checkpoints(here):
        (folder / "state.pt").write_bytes(b"")
    said = refused(capsys, *short(3), "--run_id=short", "--resume", "data")
    assert "all 2 checkpoints" in said


def test_a_whole_run_is_verified(here, capsys):
    main(["verify_checkpoint", str(here)])
    said = capsys.readouterr().out
    assert said.count("tensors of weights can be loaded") == 2
    assert f"--resume would take {published_checkpoints(here)[0].name}" in said


def test_a_step_can_be_repeated(here, capsys):
    before = {path: path.read_bytes() for path in here.rglob("*") if path.is_file()}
    main([*short(), "--run_id=short", "--debug_step=25", "data"])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("step 25: epoch 2, batch 5")
    samples = [line.split() for line in lines if line.startswith(("cons ", "warp "))]
    assert [int(words[1]) for words in samples] == [*range(16), *range(16)]
    assert {path: path.read_bytes() for path in here.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("keep", [1, 2])
def test_a_stop_while_scoring(keep, here, monkeypatch, capsys):
    """The epoch is scored after the resume, and the checkpoint of that step is made anew."""
    from lisbet.training import run as module

    score, calls = module.evaluate, []

    def stopped(*words):
        calls.append(words)
        if len(calls) == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        return score(*words)

    words = [f"--keep_checkpoints={keep}", "--run_id=scoring", "--resume", "data"]
    with monkeypatch.context() as patched:
        patched.setattr(module, "evaluate", stopped)
        with pytest.raises(SystemExit) as caught:
            main([*short(), *words])
    assert caught.value.code == STOPPED
    run = here.parent / "scoring"
    assert last_step(run) == last_step(here)
    assert len((run / "training_history.csv").read_text().splitlines()) == 2
    for _ in range(2):
        main([*short(), *words])
        assert fingerprint(run) == fingerprint(here)
    assert [path.name for path in run.rglob(".*")] == [LOG]
    capsys.readouterr()


def test_a_checkpoint_that_was_being_replaced_comes_back(here, capsys):
    newest = published_checkpoints(here)[0]
    newest.rename(newest.with_name(f".{newest.name}.old"))
    main([*short(), "--run_id=short", "--resume", "data"])
    assert published_checkpoints(here)[0] == newest
    capsys.readouterr()


# Numbers ----------------------------------------------------------------------------------------


def break_loss(monkeypatch, *steps: int) -> None:
    """Make the loss of warp infinite in some steps: a sample that breaks it."""
    drawn = Sampler.batch

    def broken(self, epoch, step, rows):
        batch = drawn(self, epoch, step, rows)
        if self.part == "train" and epoch * self.steps + step in steps:
            windows, labels = batch["warp"]
            batch["warp"] = (windows * float("inf"), labels)
        return batch

    monkeypatch.setattr(Sampler, "batch", broken)


def test_a_step_that_is_not_finite_stops_the_run(here, monkeypatch, capsys):
    break_loss(monkeypatch, 25)
    said = refused(capsys, *short(), "--run_id=bad", "data")
    assert "epoch 2, step 25: " in said
    assert "warp" in said
    assert "--debug_step=25" in said
    newest = published_checkpoints(here.parent / "bad")[0]
    assert newest.name == "step_00000021"
    good = torch.load(newest / "state.pt", weights_only=True)["model"]
    assert all(bool(value.isfinite().all()) for value in good.values())


def test_some_steps_may_be_left_out(here, monkeypatch, capsys):
    break_loss(monkeypatch, 3, 25)
    main([*short(), "--run_id=spared", "--skip_nonfinite=2", "data"])
    said = capsys.readouterr().err
    assert "step 3 is left out" in said
    assert "step 25 is left out" in said
    found = torch.load(here.parent / "spared" / model_dir.WEIGHTS_LAST, weights_only=True)
    assert all(bool(value.isfinite().all()) for value in found.values())
    break_loss(monkeypatch, 3, 25)
    assert "--skip_nonfinite=N" in refused(capsys, *short(), "--run_id=spared2",
                                          "--skip_nonfinite=1", "data")  # fmt: skip


# Disks ------------------------------------------------------------------------------------------


def full_disk(monkeypatch, *, after: int) -> None:
    """Let every state after some be refused, as a full disk does."""
    from lisbet.training import strategy

    save, calls = strategy.save_tensors, []

    def refuse(content, path):
        if path.name == "state.pt":
            calls.append(path)
            if len(calls) > after:
                raise OSError(28, "No space left on device", str(path))
        save(content, path)

    monkeypatch.setattr(strategy, "save_tensors", refuse)


def test_a_checkpoint_that_cannot_be_written(here, monkeypatch, capsys):
    full_disk(monkeypatch, after=2)
    said = refused(capsys, *short(), "--run_id=full", "data")
    assert "No space left on device" in said
    assert "state.pt" in said
    assert last_step(here.parent / "full") == 14
    assert [path.name for path in (here.parent / "full").rglob(".*")] == [LOG]


def test_training_can_go_on_without(here, monkeypatch, capsys):
    full_disk(monkeypatch, after=2)
    main([*short(), "--run_id=on", "--on_save_error=continue", "data"])
    said = capsys.readouterr().err
    assert "no checkpoint was written" in said
    assert "training goes on" in said
    assert last_step(here.parent / "on") == 14
    expected = torch.load(here / model_dir.WEIGHTS_LAST, weights_only=True)
    found = torch.load(here.parent / "on" / model_dir.WEIGHTS_LAST, weights_only=True)
    assert all(torch.equal(value, found[key]) for key, value in expected.items())
