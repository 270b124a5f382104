"""The folder of a run: what is resumed or replaced, and that nothing of others is ever lost."""

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import yaml
from conftest import TINY, write_dataset

from lisbet.cli import main
from lisbet.core.storage import lock as lock_module
from lisbet.core.storage.folders import write_folder
from lisbet.core.storage.write_log import LOG, WriteLog
from lisbet.models import model_dir
from lisbet.training.checkpoint.directory import CheckpointDirectory

TRAIN = ["train_model", *TINY, "--epochs=2", "--warmup_epochs=0", "--train_sample=0.2",
         "--dev_ratio=0.5", "--save_history", "data"]  # fmt: skip
WEIGHTS = f"models/a/{model_dir.WEIGHTS_LAST}"


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    """A place with a finished run, a."""
    place = tmp_path_factory.mktemp("finished")
    write_dataset(place / "data", [40, 50, 45, 40])
    before = Path.cwd()
    os.chdir(place)
    try:
        main([*TRAIN, "--run_id=a", "--save_weights=all"])
    finally:
        os.chdir(before)
    return place


@pytest.fixture
def here(finished, tmp_path, monkeypatch) -> Path:
    """A copy of that place, which is the working folder."""
    shutil.copytree(finished, tmp_path / "here", symlinks=True)
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "here"


def snapshot(folder: Path) -> dict[str, object]:
    """What stands in a folder: kind, content and time of change of everything."""
    found: dict[str, object] = {}
    for path in sorted(folder.rglob("*")):
        status = path.lstat()
        content = os.readlink(path) if path.is_symlink() else (
            path.read_bytes() if path.is_file() else "")  # fmt: skip
        found[str(path.relative_to(folder))] = (status.st_mode, content)
    return found


def refused(capsys, *words: str) -> str:
    capsys.readouterr()
    with pytest.raises(SystemExit) as caught:
        main([*words])
    said = capsys.readouterr().err
    assert caught.value.code == 2, said
    assert said.count("betman: error") == 1
    assert "Traceback" not in said
    return said


def fetched(folder: Path) -> None:
    with write_folder(folder, "model") as new:
        shutil.copy("models/a/model_config.yml", new)


def plain(folder: Path) -> None:
    (folder / "videos").mkdir(parents=True)
    (folder / "videos" / "day1.avi").write_bytes(b"frames")


def group(folder: Path) -> None:
    shutil.copytree("models/a", folder / "pilot1")


OTHERS = {
    "plain data": plain,
    "an empty folder": lambda folder: folder.mkdir(),
    "a group of runs": group,
    "a fetched model": fetched,
    "a file": lambda folder: folder.write_text("theirs"),
    "a link to a file": lambda folder: folder.symlink_to(Path("data/r0/tracking.nc").absolute()),
    "a link to plain data": lambda folder: folder.symlink_to(Path("data").absolute()),
    "a dangling link": lambda folder: folder.symlink_to("nowhere"),
    "a loop of links": lambda folder: folder.symlink_to(folder.name),
    "a model without a log": lambda folder: (
        shutil.copytree("models/a", folder), (folder / LOG).unlink(),
        shutil.rmtree(folder / "checkpoints"),
    ),
}  # fmt: skip


@pytest.mark.parametrize("flag", ["", "--resume", "--overwrite"])
@pytest.mark.parametrize("what", OTHERS)
def test_what_is_no_run_is_neither_resumed_nor_replaced(what, flag, here, capsys):
    OTHERS[what](Path("models/pilot"))
    before = snapshot(here)
    if what == "a fetched model" and flag == "--overwrite":
        main([*TRAIN, "--run_id=pilot", flag])  # it is a model, and betman wrote it
        return
    said = refused(capsys, *TRAIN, "--run_id=pilot", *filter(None, [flag]))
    assert "models/pilot" in said
    assert snapshot(here) == before


def test_a_finished_run_without_checkpoints_is_finished(here, capsys):
    """Its checkpoints were removed to save space."""
    shutil.rmtree("models/a/checkpoints")
    before = snapshot(here)
    main([*TRAIN, "--run_id=a", "--save_weights=all", "--resume"])
    assert "models/a is finished" in capsys.readouterr().out
    assert snapshot(here) == before
    longer = [word for word in TRAIN if word != "--epochs=2"]
    said = refused(capsys, *longer, "--epochs=3", "--run_id=a", "--resume")
    assert "its checkpoints were removed" in said
    said = refused(capsys, *TRAIN, "--seed=8", "--run_id=a", "--resume")
    assert "--seed: was 1991, is 8" in said
    Path("models/a/weights/weights_last.pt").unlink()  # weights_epoch0.pt and 1 are there
    Path("models/a/status.json").unlink()
    before = snapshot(here)
    assert "its checkpoints were removed" in refused(capsys, *TRAIN, "--run_id=a", "--resume")
    assert snapshot(here) == before


def test_a_run_that_never_had_a_checkpoint_starts_anew(here, monkeypatch, capsys):
    from lisbet.training import trainer as module

    def interrupted(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(module.Trainer, "save", interrupted)
        with pytest.raises(SystemExit):
            main([*TRAIN, "--run_id=b"])
    assert Path("models/b/weights/weights_last.pt").exists()
    Path("models/b/notes.txt").write_text("mine")
    main([*TRAIN, "--run_id=b", "--resume"])
    assert "starts again" in capsys.readouterr().err
    assert len(CheckpointDirectory(Path("models/b")).published()) == 2
    assert Path("models/b/notes.txt").read_text() == "mine"
    assert sorted(os.listdir("models")) == ["a", "b"]


FOREIGN = ("notes.txt", ".git/HEAD", "thesis.tex", "weights/mine.txt", "checkpoints/notes.txt",
           "figures/one.png")  # fmt: skip


@pytest.mark.parametrize("flag", ["--resume", "--overwrite"])
def test_what_is_not_ours_survives(flag, here):
    for name in FOREIGN:
        path = Path("models/a", name)
        path.parent.mkdir(exist_ok=True)
        path.write_text(name)
    Path("models/a/link").symlink_to("/nowhere")
    epochs = "--epochs=3" if flag == "--resume" else "--epochs=1"
    words = [word for word in TRAIN if word != "--epochs=2"]
    main([*words, epochs, "--save_weights=all", "--run_id=a", flag])
    for name in FOREIGN:
        assert Path("models/a", name).read_text() == name
    assert os.readlink("models/a/link") == "/nowhere"
    assert (
        len(Path("models/a/training_history.csv").read_text().splitlines()) == int(epochs[-1]) + 1
    )
    if flag == "--overwrite":
        assert not Path("models/a/weights/weights_epoch1.pt").exists()
    assert os.listdir("models") == ["a"]


def test_a_checkpoint_with_a_file_of_others_stays(here, caplog):
    old = CheckpointDirectory(Path("models/a")).published()[-1]
    (old / "notes.txt").write_text("mine")
    words = [word for word in TRAIN if word != "--epochs=2"]
    main([*words, "--epochs=4", "--save_weights=all", "--run_id=a", "--resume"])
    left = CheckpointDirectory(Path("models/a")).published()
    assert left[-1].name == old.name
    assert len(left) == 3
    assert (Path("models/a/checkpoints") / old.name / "notes.txt").read_text() == "mine"


@pytest.mark.parametrize("flag", ["--resume", "--overwrite"])
@pytest.mark.parametrize("name", ["weights/weights_last.pt", "training_history.csv"])
def test_a_file_that_was_changed_is_not_written_over(name, flag, here, capsys):
    """Weights of somebody else under the name that training writes, found before training."""
    Path("models/a", name).write_bytes(b"theirs")
    before = snapshot(here)
    said = refused(capsys, *TRAIN, "--save_weights=all", "--run_id=a", flag)
    assert name in said
    assert snapshot(here) == before


def test_a_readme_of_somebody_else_is_kept(here, capsys):
    Path("models/a/README.md").write_text("my notes")
    main([*TRAIN, "--run_id=a", "--overwrite"])
    assert Path("models/a/README.md").read_text() == "my notes"
    assert "no model card was written" in capsys.readouterr().err


def test_the_options_of_a_run_do_not_replace_it(here, capsys):
    main([*TRAIN, "--run_id=a", "--overwrite"])
    config = Path("models/a/run_config.yml")
    content = yaml.safe_load(config.read_text())
    assert "overwrite" not in content["options"]
    before = Path(WEIGHTS).read_bytes()
    content["options"]["overwrite"] = True  # as earlier releases wrote it
    Path("old.yml").write_text(yaml.safe_dump(content))
    for path in (config, "old.yml"):
        assert "exists already" in refused(capsys, "train_model", f"--config={path}")
    assert Path(WEIGHTS).read_bytes() == before


def test_a_run_without_its_log_is_resumed_and_then_known(here, capsys):
    """Copied with ``cp models/a/* elsewhere``, or of an earlier release."""
    Path("models/a", LOG).unlink()
    words = [word for word in TRAIN if word != "--epochs=2"]
    assert "not replaced" in refused(capsys, *words, "--epochs=1", "--run_id=a", "--overwrite")
    main([*words, "--epochs=4", "--save_weights=all", "--run_id=a", "--resume"])
    assert len(CheckpointDirectory(Path("models/a")).published()) == 2
    main([*words, "--epochs=1", "--run_id=a", "--overwrite"])
    assert WriteLog(Path("models/a")).foreign() == []


@pytest.mark.parametrize("flag", ["--resume", "--overwrite"])
def test_a_link_to_a_run(flag, here, capsys, tmp_path):
    """It is followed by a run that resumes; what it leads to is not replaced."""
    Path("models/a").rename(tmp_path / "disk")
    Path("models/a").symlink_to(tmp_path / "disk")
    words = [word for word in TRAIN if word != "--epochs=2"]
    words = [*words, "--epochs=3", "--save_weights=all", "--run_id=a", flag]
    if flag == "--overwrite":
        assert "symbolic link" in refused(capsys, *words)
    else:
        main(words)
        assert (tmp_path / "disk/weights/weights_epoch2.pt").exists()
    assert Path("models/a").is_symlink()


def test_the_folder_of_models_may_be_a_link(here, tmp_path):
    Path("models").rename(tmp_path / "disk")
    Path("models").symlink_to(tmp_path / "disk")
    main([*TRAIN, "--run_id=a", "--overwrite"])
    assert sorted(os.listdir(tmp_path / "disk")) == ["a"]
    assert Path("models").is_symlink()


def test_what_stands_where_the_earlier_model_would_be_kept(here, capsys):
    plain(Path("models/.a.replaced"))
    before = snapshot(here)
    said = refused(capsys, *TRAIN, "--run_id=a", "--overwrite")
    assert "models/.a.replaced was not written by betman" in said
    assert snapshot(here) == before


@pytest.mark.parametrize("command", ["--dry_run", "slurm_script"])
def test_what_only_looks_writes_nothing(command, here, capsys):
    """Not even what a killed process left is put in order."""
    run = Path("models/a")
    newest = CheckpointDirectory(run).published()[0]
    WriteLog(run).add_temporary(newest.with_name(f".{newest.name}.0123456789abcdef.replaced"))
    newest.rename(newest.with_name(f".{newest.name}.0123456789abcdef.replaced"))
    WriteLog(run).add_temporary(run / ".x.0123456789abcdef.partial")
    (run / ".x.0123456789abcdef.partial").write_text("half")
    shutil.copytree(run, "models/.a.0123456789abcdef.replaced")
    before = snapshot(here)
    words = [*TRAIN, "--save_weights=all", "--run_id=a", "--resume"]
    if command == "--dry_run":
        main([*words, command])
    else:
        words.remove("--resume")
        main(["slurm_script", *words[1:]])
    assert snapshot(here) == before
    main([*words, *(["--resume"] if command != "--dry_run" else [])])
    assert CheckpointDirectory(run).published()[0].name == newest.name
    assert not list(Path("models").rglob("*.partial"))
    assert os.listdir("models") == ["a"]
    capsys.readouterr()


# Two at once


def test_a_second_start_is_told_who_writes(here, capsys):
    before = snapshot(here / "models")
    with lock_module.locked(Path("models/a")):
        for flag in ("--resume", "--overwrite"):
            said = refused(capsys, *TRAIN, "--save_weights=all", "--run_id=a", flag)
            assert f"models/a is being written by process {os.getpid()} on " in said
            said = refused(capsys, *TRAIN, "--run_id=a", flag, "--dry_run")
            assert "is being written by" in said
    assert snapshot(here / "models") == before


def test_two_starts_of_a_name_with_other_seeds(here):
    """One of them trains, whole; the other one is refused."""
    base = [sys.executable, "-m", "lisbet", *TRAIN, "--hash_samples", "--run_id=b"]
    jobs = [
        subprocess.Popen([*base, f"--seed={seed}"], stderr=subprocess.PIPE, text=True)
        for seed in (1, 7)
    ]
    said = [job.communicate(timeout=300)[1] for job in jobs]
    codes = [job.returncode for job in jobs]
    assert sorted(codes) == [0, 2], said
    assert "models/b" in said[codes.index(2)]
    seed = yaml.safe_load(Path("models/b/run_config.yml").read_text())["options"]["seed"]
    assert seed == (1, 7)[codes.index(0)]
    lines = Path("models/b/events.jsonl").read_text().splitlines()
    steps = [json.loads(line)["step"] for line in lines]
    assert len(set(steps)) == len(steps)


def test_a_run_whose_lock_was_taken_over_stops(here, monkeypatch, capsys):
    from lisbet.training import trainer as module

    train = module.Trainer.train_epoch

    def taken_over(self, *words):
        holder = {"token": "theirs"} | lock_module._this_process() | {"host": "other", "pid": 5}
        Path("models/.b.lock").write_text(json.dumps(holder))
        return train(self, *words)

    monkeypatch.setattr(module.Trainer, "train_epoch", taken_over)
    said = refused(capsys, *TRAIN, "--run_id=b")
    assert "process 5 on other" in said
    assert Path("models/.b.lock").exists()


def test_a_killed_start_does_not_hold_up_the_next(here):
    command = [sys.executable, "-m", "lisbet", *TRAIN, "--run_id=b", "--resume"]
    command[command.index("--epochs=2")] = "--epochs=100000"
    job = subprocess.Popen(command)
    for _ in range(3000):
        if (
            Path("models/b/checkpoints").exists()
            and CheckpointDirectory(Path("models/b")).published()
        ):
            break
        time.sleep(0.02)
    job.kill()
    job.wait()
    assert Path("models/.b.lock").exists()
    step = CheckpointDirectory(Path("models/b")).published()[0].name
    main([*(word for word in TRAIN if word != "--epochs=2"), "--epochs=3", "--run_id=b",
          "--resume", "--dry_run"])  # fmt: skip
    main([word for word in command[3:] if not word.startswith("--epochs")] + ["--epochs=1"])
    assert CheckpointDirectory(Path("models/b")).published()[0].name >= step
    assert not Path("models/.b.lock").exists()


def test_weights_of_the_earlier_model_are_there_until_there_are_new_ones(here, monkeypatch):
    """A kill at any time finds one model or the other; the next start loses neither."""
    before = Path(WEIGHTS).read_bytes()

    class KilledError(BaseException):
        pass

    from lisbet.training import train, trainer

    def killed(*_):
        raise KilledError

    with monkeypatch.context() as patched:
        patched.setattr(train.run_folder, "restore_earlier_model", lambda folder: None)
        patched.setattr(trainer.Trainer, "train_epoch", killed)
        for flag in ("--overwrite", "--overwrite", "--resume"):
            with pytest.raises(KilledError):
                main([*TRAIN, "--seed=2", "--run_id=a", flag])
            assert Path("models/.a.replaced", model_dir.WEIGHTS_LAST).read_bytes() == before
    main([*TRAIN, "--seed=2", "--run_id=a", "--resume"])
    assert os.listdir("models") == ["a"]
    new = torch.load(WEIGHTS, weights_only=True)
    assert Path(WEIGHTS).read_bytes() != before
    assert new
