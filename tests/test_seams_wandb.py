"""W&B gives a run its id: under the agent of a sweep, from the environment, or by itself."""

import contextlib
import os
from pathlib import Path

import psutil
import pytest
import yaml
from test_tracking import interrupted, place, steps_of, stop_after, train  # noqa: F401

from lisbet.cli import parse
from lisbet.training.loggers import _wandb_files as wandb_files
from lisbet.training.loggers import identity
from lisbet.training.logging import events

RUN = Path("models/a")


def recorded_id() -> str:
    return yaml.safe_load((RUN / "run_config.yml").read_text())["tracking"]["wandb_id"]


def require_each_step_once(run_id: str, files: int) -> None:
    paths = wandb_files.files_of(RUN, run_id)
    assert len(paths) == files
    assert len(list((RUN / "wandb").glob("offline-run-*/*.wandb"))) == files  # none of another id
    steps = [row["_step"] for path in paths for row in wandb_files.history(path)]
    assert steps == steps_of(events.read_events(RUN / "events.jsonl"))
    assert recorded_id() == run_id


def test_a_run_of_a_sweep_keeps_the_id_of_its_agent(place, monkeypatch, capsys):  # noqa: F811
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SWEEP_ID", "shfz89oo")
    monkeypatch.setenv("WANDB_RUN_ID", "vnfoctm9")
    interrupted(monkeypatch, "--wandb")
    require_each_step_once("vnfoctm9", files=3)
    assert "wandb sync --include-online" in capsys.readouterr().err


def test_another_agent_that_resumes_a_run_gets_all_of_it(place, monkeypatch):  # noqa: F811
    """The rows of the earlier id are sent again to the new one, each once."""
    monkeypatch.setenv("WANDB_MODE", "offline")
    with monkeypatch.context() as patched:
        stop_after(patched, 4)
        train("--epochs=2", "--resume", "--wandb", code=75)
    first = recorded_id()
    monkeypatch.setenv("WANDB_SWEEP_ID", "shfz89oo")
    monkeypatch.setenv("WANDB_RUN_ID", "second01")
    train("--epochs=2", "--resume", "--wandb")
    assert recorded_id() == "second01" != first
    (path,) = wandb_files.files_of(RUN, "second01")
    steps = [row["_step"] for row in wandb_files.history(path)]
    assert steps == steps_of(events.read_events(RUN / "events.jsonl"))


def test_the_id_of_the_environment_is_for_new_runs(place, monkeypatch):  # noqa: F811
    monkeypatch.setenv("WANDB_RUN_ID", "chosen")
    options = parse(["train_model", "--wandb", "--run_id=a", "--resume", "data"]).options
    assert identity(options, RUN) == {"tracking": {"wandb_id": "chosen"}}
    RUN.mkdir(parents=True)
    (RUN / "run_config.yml").write_text("tracking: {wandb_id: recorded}")
    assert identity(options, RUN) == {"tracking": {"wandb_id": "recorded"}}
    monkeypatch.setenv("WANDB_SWEEP_ID", "shfz89oo")
    assert identity(options, RUN) == {"tracking": {"wandb_id": "chosen"}}
    monkeypatch.delenv("WANDB_RUN_ID")
    assert identity(options, RUN) == {"tracking": {"wandb_id": "recorded"}}


def test_an_id_that_wandb_chooses_by_itself_is_recorded(place, monkeypatch):  # noqa: F811
    """As under SageMaker: the id is known only after the start."""
    import wandb

    made = wandb.init

    def init(**words):
        return made(**words | {"id": "its-own"})

    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setattr(wandb, "init", init)
    with monkeypatch.context() as patched:
        stop_after(patched, 4)
        train("--epochs=2", "--resume", "--wandb", code=75)
    train("--epochs=2", "--resume", "--wandb")
    require_each_step_once("its-own", files=2)


@pytest.mark.parametrize("known", [True, False])
def test_another_service_is_started_when_that_of_the_environment_has_ended(
    place,  # noqa: F811
    monkeypatch,
    known,
):
    """A service ends with the program that started it; WANDB_SERVICE may name it all the same."""
    import wandb

    monkeypatch.setenv("WANDB_MODE", "offline")
    train("--epochs=1", "--resume", "--wandb")
    address = os.environ["WANDB_SERVICE"]
    for child in psutil.Process().children(recursive=True):
        if "wandb-core" in child.name():
            child.kill()
            child.wait(10)
    if not known:  # as in a process that inherits the variable
        with contextlib.suppress(Exception):
            wandb.teardown()
        os.environ["WANDB_SERVICE"] = address
    train("--epochs=2", "--resume", "--wandb")
    require_each_step_once(recorded_id(), files=2)


@pytest.mark.parametrize("run_id", ["a[b]c", "a*"])
def test_an_id_is_no_pattern(run_id, tmp_path):
    folder = tmp_path / "wandb" / f"offline-run-1-{run_id}"
    folder.mkdir(parents=True)
    path = folder / f"run-{run_id}.wandb"
    path.touch()
    (tmp_path / "wandb" / "offline-run-2-abc").mkdir()
    (tmp_path / "wandb" / "offline-run-2-abc" / "run-abc.wandb").touch()
    assert wandb_files.files_of(tmp_path, run_id) == [path]
