"""Tracking: one row for each step wherever it goes, however often a run is stopped or killed."""

import errno
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import yaml
from conftest import TINY, write_dataset
from wandb_server import WandbServer

from lisbet.cli import main
from lisbet.core.errors import StoppedError
from lisbet.training.checkpoint.directory import CheckpointDirectory
from lisbet.training.loggers._wandb_files import files_of, history, records
from lisbet.training.logging.events import Events, read_events
from lisbet.training.logging.history import read_history

LINE = ["train_model", *TINY, "--warmup_epochs=0", "--train_sample=0.5", "--log_every=2",
        "--checkpoint_every=3steps", "--save_history", "--run_id=a"]  # fmt: skip
KEY = "0" * 40


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder with recordings, and no login."""
    write_dataset(tmp_path / "data", [90, 90, 90, 90])
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setenv("WANDB__DISABLE_STATS", "true")
    return tmp_path


def train(*words: str, code: int = 0) -> None:
    given = {word.partition("=")[0] for word in words}
    line = [*(word for word in LINE if word.partition("=")[0] not in given), *words, "data"]
    if not code:
        return main(line)
    with pytest.raises(SystemExit) as caught:
        main(line)
    assert caught.value.code == code
    return None


def stop_after(monkeypatch, step: int) -> None:
    """Let the next run be stopped, as by a signal, after a step."""
    from lisbet.training.trainer import Trainer

    train_step = Trainer.train_step

    def then_stop(trainer):
        train_step(trainer)
        if trainer.step >= step:
            trainer.stop.reason = "a test"

    monkeypatch.setattr(Trainer, "train_step", then_stop)


def kill_after(monkeypatch, step: int) -> None:
    """Let the next run end at a step without a last checkpoint, as by a kill."""
    from lisbet.training.trainer import Trainer

    made = Trainer.train_step

    def train_step(trainer):
        if trainer.step == step:
            raise StoppedError("killed")
        made(trainer)

    monkeypatch.setattr(Trainer, "train_step", train_step)


def interrupted(monkeypatch, *words: str) -> None:
    """Train in three pieces: one stopped, one killed past its checkpoint, and the rest."""
    with monkeypatch.context() as patched:
        stop_after(patched, 7)
        train("--epochs=3", "--resume", *words, code=75)
    with monkeypatch.context() as patched:
        kill_after(patched, 14)  # steps 12 and 13 are repeated
        train("--epochs=3", "--resume", *words, code=75)
    train("--epochs=3", "--resume", *words)


def steps_of(rows: list[dict]) -> list[int]:
    return [row["step"] for row in rows]


WALL = {"time", "windows_per_second", "step_s", "rank_skew_s", "data_share", "memory_mb"}


def reproducible(rows: list[dict]) -> list[dict]:
    return [{key: value for key, value in row.items() if key not in WALL} for row in rows]


def test_events_of_an_interrupted_run_are_those_of_a_whole_one(place, monkeypatch):
    train("--epochs=3", "--run_id=whole", "--embedding_every=2")
    interrupted(monkeypatch, "--embedding_every=2")
    whole, ours = (read_events(place / "models" / run / "events.jsonl") for run in ("whole", "a"))
    assert len(whole) > 10
    assert steps_of(whole) == sorted(set(steps_of(whole)))
    assert reproducible(ours) == reproducible(whole)
    last = whole[-1]
    for row in read_history(place / "models" / "whole" / "training_history.csv"):
        (event,) = [e for e in whole if e.get("epoch/epoch") == row["epoch"]]
        assert {name: event[f"epoch/{name}"] for name in row} == row
    assert {"windows_per_second", "data_share", "memory_mb", "rank_skew_s"} <= last.keys()
    cards = [(place / "models" / run / "README.md").read_text() for run in ("whole", "a")]
    assert cards[0].replace("whole", "a") == cards[1].replace("whole", "a")
    assert "betman export_embedder models/a/model_config.yml" in cards[1]
    assert "pictures/embeddings.png" in cards[1]


def test_rows_of_steps_make_up_the_epoch(place):
    train("--epochs=1", "--log_every=1")
    rows = read_events(place / "models/a/events.jsonl")
    (epoch,) = read_history(place / "models/a/training_history.csv")
    for name in ("train_loss", "cons_train_accuracy", "gradient_norm"):
        mean = np.mean([row[name] for row in rows])
        assert mean == pytest.approx(epoch[name], rel=1e-4), name
        assert len({row[name] for row in rows}) > 1


def test_wandb_offline_is_one_run_over_three_pieces(place, monkeypatch, capsys):
    interrupted(monkeypatch, "--wandb", "--embedding_every=3", "--wandb_tags=mice,test")
    run = place / "models" / "a"
    name = yaml.safe_load((run / "run_config.yml").read_text())["tracking"]["wandb_id"]
    files = files_of(run, name)
    assert len(files) == 3
    assert len(list((run / "wandb").glob("offline-run-*"))) == 3  # no other id
    said = [
        record.run for path in files for record in records(path)
        if record.WhichOneof("record_type") == "run"
    ]  # fmt: skip
    assert {entry.run_id for entry in said} == {name}
    assert {entry.display_name for entry in said} == {"a"}
    assert set(said[0].tags) == {"mice", "test"}
    config = {item.key: json.loads(item.value_json) for item in said[0].config.update}
    assert config["options"]["batch_size"] == 16
    assert config["data"]["fingerprint"]
    rows = [row for path in files for row in history(path)]
    events = read_events(run / "events.jsonl")
    assert [row["_step"] for row in rows] == steps_of(events)
    assert [row["train_loss"] for row in rows] == [row["train_loss"] for row in events]
    assert rows[-1]["embeddings/_type"] == "image-file"
    told = capsys.readouterr().err
    assert "offline" in told
    assert "wandb sync" in told


def test_wandb_survives_kills(place):
    """Two processes killed by SIGKILL at any point, and a third that ends: one run, each step."""

    def last_step() -> int:
        there = CheckpointDirectory(Path("models/a")).published()
        return max((int(folder.name[5:]) for folder in there), default=0)

    def written() -> int:
        files = Path("models/a/wandb").glob("offline-run-*/*.wandb")
        return sum(file.stat().st_size > 1000 for file in files)

    for number in range(2):
        begun = last_step()
        command = [sys.executable, "-m", "lisbet", *LINE, "--epochs=400", "--resume", "--wandb",
                   "--wandb_mode=offline", "data"]  # fmt: skip
        with subprocess.Popen(command, cwd=place, stderr=subprocess.DEVNULL) as process:
            for _ in range(1200):
                if last_step() >= begun + 12 and written() > number:
                    break
                time.sleep(0.05)
            process.kill()
        assert process.returncode == -9
    epochs = last_step() // 6 + 2
    train(f"--epochs={epochs}", "--resume", "--wandb", "--wandb_mode=offline")
    run = place / "models" / "a"
    (name,) = {path.name.split("-")[3] for path in (run / "wandb").glob("offline-run-*")}
    files = files_of(run, name)
    assert len(files) == 3
    steps = [row["_step"] for path in files for row in history(path)]
    assert steps == steps_of(read_events(run / "events.jsonl"))


def test_the_model_directory_is_an_artifact(place):
    train("--epochs=1", "--wandb", "--wandb_mode=offline", "--wandb_artifact")
    run = place / "models" / "a"
    (path,) = (run / "wandb").rglob("*.wandb")
    (artifact,) = [
        record.request.log_artifact.artifact if record.WhichOneof("record_type") == "request"
        else record.artifact for record in records(path)
        if record.WhichOneof("record_type") == "artifact"
        or record.request.WhichOneof("request_type") == "log_artifact"
    ]  # fmt: skip
    held = {entry.path for entry in artifact.manifest.contents}
    assert {"model_config.yml", "run_config.yml", "README.md", "events.jsonl",
            "weights/weights_last.pt"} <= held  # fmt: skip
    assert not any(name.startswith(("checkpoints", "wandb")) for name in held)
    assert (artifact.name, artifact.type) == ("a", "model")


def test_wandb_sync_makes_one_curve_of_the_pieces(place, monkeypatch):
    interrupted(monkeypatch, "--wandb")
    server = WandbServer()
    folders = sorted(map(str, (place / "models/a/wandb").glob("offline-run-*")))
    done = subprocess.run(
        [Path(sys.executable).with_name("wandb"), "sync", *folders],
        input="y\n",  # newer releases ask; --yes is unknown to older ones
        env={**os.environ, "WANDB_BASE_URL": server.url, "WANDB_API_KEY": KEY},
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    server.die()
    assert done.returncode == 0, done.stderr
    events = read_events(place / "models/a/events.jsonl")
    assert [row["_step"] for row in server.rows] == steps_of(events), done.stderr
    assert len({variables["name"] for variables in server.upserts}) == 1


def test_wandb_online_goes_on_where_the_server_is(place, monkeypatch):
    server = WandbServer()
    monkeypatch.setenv("WANDB_BASE_URL", server.url)
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    interrupted(monkeypatch, "--wandb")
    server.die()
    events = read_events(place / "models/a/events.jsonl")
    assert [row["_step"] for row in server.rows] == steps_of(events)
    assert [row["train_loss"] for row in server.rows] == [row["train_loss"] for row in events]


# W&B's program is ended where it would hold this process up, and W&B does not wait for it.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.parametrize("mode", ["refuses", "delays", "dies"])
def test_a_bad_server_does_not_end_training(mode, place, monkeypatch, capsys):
    from lisbet.training.loggers import wandb as wandb_tracker

    monkeypatch.setattr(wandb_tracker, "INIT_S", 2.0)
    monkeypatch.setattr(wandb_tracker, "FINISH_S", 15.0)
    server = WandbServer("works" if mode == "dies" else mode)
    monkeypatch.setenv("WANDB_BASE_URL", server.url)
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    if mode == "dies":
        from lisbet.training.trainer import Trainer

        made = Trainer.train_step

        def train_step(trainer):
            if trainer.step == 5:
                for _ in range(200):  # until the run is known there
                    if server.upserts:
                        break
                    time.sleep(0.1)
                server.die()
            made(trainer)

        monkeypatch.setattr(Trainer, "train_step", train_step)
    train("--epochs=1", "--wandb")
    if mode != "dies":
        server.die()
    run = place / "models" / "a"
    assert (run / "weights" / "weights_last.pt").exists()
    assert json.loads((run / "status.json").read_text())["state"] == "finished"
    assert server.asked
    rows = [row["_step"] for path in (run / "wandb").rglob("*.wandb") for row in history(path)]
    assert rows == steps_of(read_events(run / "events.jsonl"))
    assert "wandb sync" in capsys.readouterr().err


def test_without_the_switch_nothing_is_imported(place):
    code = (
        "import sys; from lisbet.cli import main\n"
        f"main({[*LINE, '--epochs=1', 'data']!r})\n"
        "assert not {'wandb', 'tensorboard'} & sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=place, timeout=120)


def test_tensorboard_hides_repeated_steps(place, monkeypatch):
    event_accumulator = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator"
    )
    interrupted(monkeypatch, "--tensorboard")
    run = place / "models" / "a"
    shown = event_accumulator.EventAccumulator(str(run / "tensorboard"))
    shown.Reload()
    found = [(event.step, event.value) for event in shown.Scalars("train_loss")]
    events = read_events(run / "events.jsonl")
    assert found == [(row["step"], pytest.approx(row["train_loss"])) for row in events]
    assert "embeddings" in shown.Tags()["images"]


def test_a_line_that_was_cut_off_is_made_good(tmp_path):
    events = Events(tmp_path / "events.jsonl")
    for step in (2, 4, 6):
        events.append({"step": step, "loss": float("nan")})
    with events.path.open("a") as stream:
        stream.write('{"step": 8, "lo')
    assert steps_of(events.cut(4, 0)) == [2, 4]
    events.append({"step": 6})
    assert [json.loads(line)["step"] for line in events.path.read_text().splitlines()] == [2, 4, 6]


@pytest.mark.parametrize("how", ["stop", "continue"])
def test_a_record_that_cannot_be_written(how, place, monkeypatch, capsys):
    def refuse(self, row):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.path))

    monkeypatch.setattr(Events, "append", refuse)
    train("--epochs=1", f"--on_save_error={how}", code=2 if how == "stop" else 0)
    said = capsys.readouterr().err
    assert said.count("events.jsonl") == 1
    assert "No space left" in said
    state = json.loads((place / "models/a/status.json").read_text())["state"]
    assert state == ("failed" if how == "stop" else "finished")


def test_options_that_mean_nothing_are_refused(place, capsys):
    train("--wandb_project=x", code=2)
    assert "--wandb_project needs --wandb" in capsys.readouterr().err
    train("--log_every=0", code=2)
    train("--wandb", "--wandb_mode=sometimes", code=2)
    assert not (place / "models").exists()
