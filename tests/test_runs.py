"""betman runs: true also of runs that were killed."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from conftest import TINY, write_dataset

from lisbet.cli import main
from lisbet.commands.machine.run_record import STATES, RunRecord
from lisbet.commands.machine.runs import describe, state_of
from lisbet.training.trainer import Trainer

HERE = {"state": "running", "host": socket.gethostname(), "beat_s": 1.0}


def listed(place, capsys) -> dict[str, dict]:
    capsys.readouterr()
    main(["runs", "--json", str(place)])
    return {run["run_id"]: run for run in json.loads(capsys.readouterr().out)}


def test_a_killed_run_is_not_running(tmp_path, capsys):
    write_dataset(tmp_path / "data", [90, 90])
    job = subprocess.Popen(
        [sys.executable, "-m", "lisbet", "train_model", *TINY, "--epochs=5000", "--run_id=killed",
         "data"], cwd=tmp_path, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    run = tmp_path / "models" / "killed"
    for _ in range(3000):
        if list(run.glob("checkpoints/step_*/manifest.json")):
            break
        assert job.poll() is None
        time.sleep(0.1)
    assert listed(tmp_path / "models", capsys)["killed"]["state"] == "running"
    os.kill(job.pid, signal.SIGKILL)
    job.wait()
    found = listed(tmp_path / "models", capsys)["killed"]
    assert found["state"] == "killed"
    assert found["resumable"]
    assert found["epochs"] == 5000
    assert found["starts"] == 1
    assert found["pid"] == job.pid
    assert found["processes"] == 1
    steps = [int(folder.name[len("step_") :]) for folder in run.glob("checkpoints/step_*")
             if (folder / "manifest.json").is_file()]  # fmt: skip
    assert found["checkpoint_step"] == max(steps)
    assert found["steps_per_epoch"] == 12  # of 16 windows, 180 frames


def test_states_of_runs(tmp_path, monkeypatch, capsys):
    write_dataset(tmp_path / "data", [90, 90])
    monkeypatch.chdir(tmp_path)
    main(["train_model", *TINY, "--epochs=2", "--run_id=done", "data"])
    train_step = Trainer.train_step

    def then_stop(trainer):
        train_step(trainer)
        if trainer.step == 2:
            trainer.stop.reason = "a test"

    monkeypatch.setattr(Trainer, "train_step", then_stop)
    with pytest.raises(SystemExit):
        main(["train_model", *TINY, "--epochs=2", "--run_id=stopped", "data"])
    (tmp_path / "models" / "older").mkdir()
    (tmp_path / "models" / "older" / "run_config.yml").write_text("options: {}\n")
    runs = listed("models", capsys)
    assert {name: run["state"] for name, run in runs.items()} == {
        "done": "finished", "stopped": "stopped", "older": "unknown"
    }  # fmt: skip
    assert (runs["done"]["epoch"], runs["done"]["resumable"]) == (2, False)
    assert runs["stopped"]["resumable"]
    assert "stopped by" in runs["stopped"]["detail"]
    assert runs["done"]["scores"]["cons_train_accuracy"] > 0
    assert all(list(run) == list(RunRecord.model_fields) for run in runs.values())
    assert runs["done"]["path"] == "models/done"
    assert runs["older"]["epoch"] is None
    main(["runs"])
    table = capsys.readouterr().out
    assert "finished" in table
    assert "2/2" in table
    main(["runs", "models/done"])
    assert "stopped" not in capsys.readouterr().out


def test_another_process_of_the_same_number_is_not_the_run():
    own = {"pid": os.getpid(), "pid_started": psutil.Process().create_time()}
    assert state_of(HERE | own) == "running"
    assert state_of(HERE | own | {"pid_started": own["pid_started"] - 100}) == "killed"
    now = time.strftime("%Y-%m-%dT%H:%M:%S%z")
    there = HERE | {"host": "elsewhere", "updated": now}
    assert state_of(there) == "running"
    assert state_of(there | {"updated": "2020-01-01T00:00:00+0000"}) == "silent"


def test_a_folder_that_is_not_there(tmp_path, capsys):
    with pytest.raises(SystemExit) as caught:
        main(["runs", str(tmp_path / "none")])
    assert caught.value.code == 2
    assert "no such folder" in capsys.readouterr().err
    main(["runs", str(tmp_path)])
    assert "no runs in" in capsys.readouterr().out


def rows_of(section: str) -> dict[str, list[str]]:
    """The rows of the table of a section of docs/runs.md, by their first cell."""
    page = (Path(__file__).parents[1] / "docs" / "runs.md").read_text("utf-8")
    text = page.partition(f"## {section}\n")[2].partition("\n## ")[0]
    lines = [line for line in text.splitlines() if line.startswith("| `")]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return {first.strip("`"): others for first, *others in cells}


def test_the_page_has_the_states_and_the_fields():
    assert rows_of("States") == {
        name: [state.meaning, state.action] for name, state in STATES.items()
    }
    schema = RunRecord.model_json_schema()["properties"]
    fields = rows_of("JSON")
    assert list(fields) == list(schema)
    words = {"text": "string", "whole number": "integer", "number, s": "number",
             "true or false": "boolean", "object of numbers": "object"}  # fmt: skip
    for name, (value, meaning) in fields.items():
        assert meaning == schema[name]["description"]
        kinds = [one.get("type") for one in schema[name].get("anyOf", [schema[name]])]
        assert kinds[0] == words[value.removesuffix(" or null")], name
        assert ("null" in kinds) == value.endswith(" or null"), name


@pytest.mark.parametrize(
    ("status", "state"),
    [
        ({"state": "running"}, "unknown"),  # when?
        ({"state": "running", "host": "elsewhere", "updated": "yesterday"}, "unknown"),
        ({"state": "dreaming"}, "unknown"),
        ({"state": "failed", "scores": {"loss": float("nan")}, "message": "no"}, "failed"),
        ({"state": "failed", "epoch": "many"}, "unknown"),
    ],
)
def test_a_status_of_any_content_is_told_in_json(status, state, tmp_path, capsys):
    folder = tmp_path / "models" / "a"
    folder.mkdir(parents=True)
    (folder / "run_config.yml").write_text("options: {}\n")
    (folder / "status.json").write_text(json.dumps(status))
    main(["runs", "--json", str(tmp_path / "models")])

    def refuse(word):
        raise AssertionError(f"{word} is no JSON")

    (run,) = json.loads(capsys.readouterr().out, parse_constant=refuse)
    assert run["state"] == state
    assert run["action"] == STATES[state].action
    if state == "failed":
        assert run["scores"] == {"loss": None}
        assert run["detail"] == "no"
    assert describe(folder).state == state
