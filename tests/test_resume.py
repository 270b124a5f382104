"""What --resume takes, refuses and repairs, in one process."""

import json
import os
import shutil
import signal
from pathlib import Path

import pytest
import torch
import yaml
from conftest import betman, hurt, write_dataset
from resumable import STOPPED, fingerprint, last_step, short

from lisbet.cli import main
from lisbet.core.errors import ModelError
from lisbet.core.storage.write_log import LOG
from lisbet.data import kinematics
from lisbet.models import model_dir
from lisbet.training.checkpoint import manifest
from lisbet.training.checkpoint.directory import CheckpointDirectory
from lisbet.training.datasets.batch_buffer import BatchBuffer


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    place = tmp_path_factory.mktemp("resume")
    write_dataset(place / "data", [160, 160, 160, 160])
    return place


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
    progress = json.loads((CheckpointDirectory(here).published()[0] / "progress.json").read_text())
    assert len(progress["history"]) == 2


def test_harmless_options_are_taken(here, capsys):
    main([*short(3), "--save_weights=all", "--keep_checkpoints=1", "--run_id=short", "--resume",
          "data"])  # fmt: skip
    assert len((here / "training_history.csv").read_text().splitlines()) == 4
    assert len(CheckpointDirectory(here).published()) == 1
    options = yaml.safe_load((here / "run_config.yml").read_text())["options"]
    assert (options["epochs"], options["keep_checkpoints"]) == (3, 1)
    capsys.readouterr()


def test_changed_recordings_are_noticed(here, tmp_path, capsys):
    (tmp_path / "data").unlink()
    write_dataset(tmp_path / "data", [160, 160, 160, 161])
    said = refused(capsys, *short(3), "--run_id=short", "--resume", "data")
    assert "the recordings are not those" in said


def test_changed_targets_of_a_task_are_noticed(here, monkeypatch, capsys):
    words = ["--task_ids=kinematics", "--set=kinematics.front=point0,kinematics.back=point1",
             "--run_id=spans", "data"]  # fmt: skip
    with monkeypatch.context() as earlier:
        earlier.setattr(kinematics, "SPANS", (15, 31))
        main([*short(), *words])
    before = fingerprint(here.parent / "spans")
    for more in ((), ("--dry_run",)):
        said = refused(capsys, *short(3), *words, "--resume", *more)
        assert "models/spans began with other outputs" in said
        assert "kinematics: num_classes was 55, is 77" in said  # 11 quantities: 5 and 7 of each
        assert "kinematics: other targets" in said
    assert fingerprint(here.parent / "spans") == before
    (here.parent / "spans" / model_dir.MODEL_CONFIG).write_text("out_heads: 3\n")
    said = refused(capsys, *short(3), *words, "--resume", "--dry_run")
    assert model_dir.MODEL_CONFIG in said


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
    newest, before = CheckpointDirectory(here).published()
    file = newest / name
    hurt(file, damage)
    expected = torch.load(here / model_dir.WEIGHTS_LAST, weights_only=True)
    (here / model_dir.WEIGHTS_LAST).unlink()
    with pytest.raises(SystemExit) as caught:
        main(["verify_checkpoint", str(here)])
    assert caught.value.code == 2
    said = capsys.readouterr()
    assert f"--resume would use {before.name}" in said.out
    assert f"damaged: {newest.name}" in said.err
    main([*short(), "--run_id=short", "--resume", "data"])
    said = capsys.readouterr().err
    assert newest.name in said
    assert (
        f"resuming from the checkpoint before it: {Path('models/short/checkpoints') / before.name}"
        in said
    )
    found = torch.load(here / model_dir.WEIGHTS_LAST, weights_only=True)
    assert all(torch.equal(value, found[key]) for key, value in expected.items())
    assert (here / "checkpoints" / f"damaged_{newest.name}").is_dir()


def test_nothing_good_is_not_silently_started_anew(here, capsys):
    for folder in CheckpointDirectory(here).published():
        (folder / "state.pt").write_bytes(b"")
    said = refused(capsys, *short(3), "--run_id=short", "--resume", "data")
    assert "all 2 checkpoints" in said


def test_a_whole_run_is_verified(here, capsys):
    main(["verify_checkpoint", str(here)])
    said = capsys.readouterr().out
    assert said.count("tensors of weights can be loaded") == 2
    assert f"--resume would use {CheckpointDirectory(here).published()[0].name}" in said


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
    from lisbet.training import trainer as module

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
    newest = CheckpointDirectory(here).published()[0]
    newest.rename(newest.with_name(f".{newest.name}.old"))
    main([*short(), "--run_id=short", "--resume", "data"])
    assert CheckpointDirectory(here).published()[0] == newest
    capsys.readouterr()


# Numbers ----------------------------------------------------------------------------------------


def break_loss(monkeypatch, *steps: int) -> None:
    """Make the loss of warp infinite in some steps: a sample that breaks it."""
    drawn = BatchBuffer.batch

    def broken(self, epoch, step, rows):
        batch, noise = drawn(self, epoch, step, rows)
        if epoch * self.sampler.steps + step in steps:
            windows, labels = batch["warp"]
            batch["warp"] = (windows * float("inf"), labels)
        return batch, noise

    monkeypatch.setattr(BatchBuffer, "batch", broken)


def test_a_step_that_is_not_finite_stops_the_run(here, monkeypatch, capsys):
    break_loss(monkeypatch, 25)
    said = refused(capsys, *short(), "--run_id=bad", "data")
    assert "epoch 2, step 25: " in said
    assert "warp" in said
    assert "--debug_step=25" in said
    newest = CheckpointDirectory(here.parent / "bad").published()[0]
    assert newest.name == "step_00000021"
    good = torch.load(newest / "state.pt", weights_only=True)["model"]
    assert all(bool(value.isfinite().all()) for value in good.values())


def test_some_steps_may_be_left_out(here, monkeypatch, capsys):
    break_loss(monkeypatch, 3, 25)
    main([*short(), "--run_id=spared", "--skip_nonfinite=2", "data"])
    said = capsys.readouterr().err
    assert "step 3 is skipped" in said
    assert "step 25 is skipped" in said
    found = torch.load(here.parent / "spared" / model_dir.WEIGHTS_LAST, weights_only=True)
    assert all(bool(value.isfinite().all()) for value in found.values())
    break_loss(monkeypatch, 3, 25)
    assert "--skip_nonfinite=N" in refused(capsys, *short(), "--run_id=spared2",
                                          "--skip_nonfinite=1", "data")  # fmt: skip


# Disks ------------------------------------------------------------------------------------------


def full_disk(monkeypatch, *, after: int) -> None:
    """Let every state after some be refused, as a full disk does."""
    from lisbet.training.strategies import replicated

    save, calls = replicated.save_tensors, []

    def refuse(content, path):
        if path.name == "state.pt":
            calls.append(path)
            if len(calls) > after:
                raise OSError(28, "No space left on device", str(path))
        save(content, path)

    monkeypatch.setattr(replicated, "save_tensors", refuse)


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
    assert "training continues" in said
    assert last_step(here.parent / "on") == 14
    expected = torch.load(here / model_dir.WEIGHTS_LAST, weights_only=True)
    found = torch.load(here.parent / "on" / model_dir.WEIGHTS_LAST, weights_only=True)
    assert all(torch.equal(value, found[key]) for key, value in expected.items())


# Formats ----------------------------------------------------------------------------------------


def test_a_manifest_of_an_earlier_format_is_migrated(here, monkeypatch):
    """A later version, which writes strategies in capitals, reads checkpoints of this one."""
    folder = CheckpointDirectory(here).published()[0]
    before = manifest.Manifest.read(folder)

    def renamed(content: dict) -> dict:
        return content | {"format": 2, "strategy": content["strategy"].upper()}

    monkeypatch.setattr(manifest, "FORMAT", 2)
    with pytest.raises(ModelError, match="has format 1, and this version of betman reads formats"):
        manifest.Manifest.read(folder)
    monkeypatch.setitem(manifest.MIGRATIONS, 1, renamed)
    after = manifest.Manifest.read(folder)
    assert (after.format, after.strategy) == (2, before.strategy.upper())
    assert after.files == before.files
