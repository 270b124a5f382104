"""The contracts of plug-ins: built-in ones keep them, and those of an installed package do, too."""

import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import h5py
import numpy as np
import pandas as pd
import pytest
import torch
from conftest import betman, write_dataset

from lisbet import contracts
from lisbet.augment import AUGMENTATIONS
from lisbet.cli import main
from lisbet.core.errors import ConfigError
from lisbet.core.registry import Registry, installed
from lisbet.data.bank import WindowIndex, gather
from lisbet.data.labels import LABEL_READERS
from lisbet.data.readers import READERS
from lisbet.models.backbones import BACKBONES
from lisbet.tasks import TASKS, SelfSupervisedTask, Task
from lisbet.training.datasets.sampler import Sampler
from lisbet.training.loggers import LOGGERS

EXAMPLE = Path(__file__).parents[1] / "docs" / "example_plugin"
KINDS = {
    "lisbet.tasks": TASKS, "lisbet.backbones": BACKBONES, "lisbet.readers": READERS,
    "lisbet.annotations": LABEL_READERS, "lisbet.augmentations": AUGMENTATIONS,
    "lisbet.loggers": LOGGERS,
}  # fmt: skip

# Built-in plug-ins ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", TASKS)
def test_tasks(name):
    contracts.check_task(TASKS[name])


@pytest.mark.parametrize("name", BACKBONES)
def test_backbones(name):
    contracts.check_backbone(BACKBONES[name], num_layers=2)


PARAMETERS = {
    "blk_perm_id": {"frac": 0.3, "p": 0.5}, "kp_ablation": {"pB": 0.4, "p": 0.5},
    "gauss_jitter": {"sigma": 0.1, "p": 0.5},
}  # fmt: skip


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_augmentations(name):
    contracts.check_augmentation(AUGMENTATIONS[name], **PARAMETERS.get(name, {"p": 0.5}))


def write_dlc(file: Path) -> None:
    """Two keypoints of one animal over four frames."""
    names = ["scorer", *["net"] * 6], ["bodyparts", *["nose"] * 3, *["tail"] * 3]
    lines = [*(",".join(row) for row in names), "coords,x,y,likelihood,x,y,likelihood"]
    lines += [f"{n},{n},1,0.9,{n},2,0.8" for n in range(4)]
    file.write_text("\n".join(lines) + "\n")


def write_sleap(file: Path) -> None:
    with h5py.File(file, "w") as root:
        root["tracks"] = np.arange(2 * 2 * 3 * 5, dtype=float).reshape(2, 2, 3, 5)
        root["node_names"] = [b"nose", b"neck", b"tail"]
        root["track_names"] = [b"a", b"b"]


def test_readers_of_recordings(tmp_path):
    write_dataset(tmp_path / "data", [20])
    dlc, sleap = tmp_path / "videoDLC_shuffle1.csv", tmp_path / "video.sleap.h5"
    write_dlc(dlc)
    write_sleap(sleap)
    (movement,) = (tmp_path / "data").rglob("*.nc")
    files = {"movement": movement, "dlc": dlc, "sleap": sleap}
    elsewhere = {"anipose", "calms21", "lightningpose", "mars", "nwb"}  # tests/test_more_readers.py
    assert {*files, *elsewhere, "auto", "zarr"} == set(READERS.own)
    for name, file in files.items():
        own = contracts.check_recording_reader(READERS[name], [file])
        assert contracts.check_recording_reader(READERS["auto"], [file]).digest == own.digest
    record = contracts.check_recording_reader(READERS["dlc"], [dlc])
    assert record.position[:, 0, 1].tolist() == [[n, 2.0] for n in range(4)]


def test_readers_of_datasets(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_dataset(tmp_path / "data", [20, 30])
    main(["convert_dataset", "--workers=1", "data", "data.zarr"])
    records = contracts.check_dataset_reader(READERS["zarr"], Path("data.zarr"))
    assert [record.frames for record in records] == [20, 30]


def test_readers_of_annotations(tmp_path):
    files = {name: tmp_path / name for name in LABEL_READERS.own}
    for folder in files.values():
        folder.mkdir()
    events = files["csv_events"] / "annotations.csv"
    events.write_text("behavior,start_time,end_time\ngroom,0.5,1.0\n")
    boris = files["boris"] / "events_boris.csv"
    pd.DataFrame({
        "Observation id": "o", "Subject": "a", "Behavior": ["groom", "groom"],
        "Behavior type": ["START", "STOP"], "Time": [0.5, 1.0], "Media duration (s)": 2.0,
        "FPS": 10.0, "Media file name": "v.mp4",
    }).to_csv(boris, index=False)  # fmt: skip
    write_dataset(files["movement"], [20])
    expected = np.zeros(20, dtype=bool)
    expected[5:10] = True  # half a second to one second, at 10 frames per second
    for name, file in (("csv_events", events), ("boris", boris)):
        labels = contracts.check_annotation_reader(LABEL_READERS[name], file, 20, 10.0)
        assert labels.behaviors == ("groom",)
        assert labels.active[:, 0].tolist() == expected.tolist()


def test_loggers(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    for name in LOGGERS.own:
        folder = tmp_path / name
        folder.mkdir()
        contracts.check_logger(LOGGERS[name], folder)
        assert any(folder.iterdir())


def test_a_contract_notices_a_task_that_is_not_one():
    class Random(TASKS["order"]):
        def sample(self, uniform, bank, window):
            return super().sample(np.random.default_rng().random(uniform.shape), bank, window)

    with pytest.raises(AssertionError, match="not a function of `uniform`"):
        contracts.check_task(Random)

    class Short(TASKS["order"]):
        columns = 1

    with pytest.raises(AssertionError, match="columns is 1, and it may need more"):
        contracts.check_task(Short)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"recognise": lambda peek: True}, "must return a Kind or None, not True"),
        ({"read": lambda files: None}, "must return an xarray.Dataset"),
    ],
)
def test_a_contract_notices_a_reader_that_is_not_one(tmp_path, changes, message):
    file = tmp_path / "videoDLC_shuffle1.csv"
    write_dlc(file)
    with pytest.raises(AssertionError, match=message):
        contracts.check_recording_reader(replace(READERS["dlc"], **changes), [file])


def test_the_task_of_the_page_on_extending():
    """It is as the page shows it, and trained windows are played backwards where the label is 1."""
    page = (EXAMPLE.parent / "extending.md").read_text("utf-8")
    code = page[page.index("class Reverse(") :].partition("```")[0]
    names = {"SelfSupervisedTask": SelfSupervisedTask, "ClassVar": ClassVar, "np": np,
             "WindowIndex": WindowIndex, "torch": torch, "__name__": "page"}  # fmt: skip
    exec(code, names)
    contracts.check_task(names["Reverse"])
    task, bank, window = names["Reverse"](), contracts.example_bank(), contracts.WINDOW
    sampler = Sampler("train", {"reverse": task}, {"reverse": bank}, window, 1, 16, 1.0, 1.0, (),
                      torch.device("cpu"))  # fmt: skip
    windows, labels = sampler.batch(0, 0, slice(0, 16))["reverse"]
    index, _ = sampler.draw("reverse", 0, range(1), slice(0, 16))
    forwards = gather(bank, index, window)
    assert {*labels.tolist()} == {0.0, 1.0}
    for own, plain, label in zip(windows, forwards, labels, strict=True):
        assert torch.equal(own, plain.flip(0) if label else plain)


# Plug-ins of an installed package ---------------------------------------------------------------


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    """The example package, installed by pip into a folder of its own."""
    place = tmp_path_factory.mktemp("plugins")
    shutil.copytree(EXAMPLE, place / "source")
    subprocess.run(
        [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index",
         "--no-build-isolation", "--disable-pip-version-check", f"--target={place / 'site'}",
         str(place / "source")],
        check=True,
    )  # fmt: skip
    return place / "site"


@pytest.fixture
def example(site, monkeypatch) -> Path:
    """The same, on the path of this process."""
    monkeypatch.syspath_prepend(site)
    installed.cache_clear()
    yield site
    installed.cache_clear()
    for name in [name for name in sys.modules if name.partition(".")[0] == "lisbet_example"]:
        del sys.modules[name]


def test_plugins_of_a_package_keep_the_contracts(site, example):
    found = {group: list(installed(group)) for group in KINDS}
    assert found == {
        "lisbet.tasks": ["approach"], "lisbet.backbones": ["gru"],
        "lisbet.readers": ["long_csv", "npz"], "lisbet.annotations": ["frame_list"],
        "lisbet.augmentations": ["mirror"], "lisbet.loggers": ["loss_csv"],
    }  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-c", os.devnull,
         str(site.parent / "source" / "tests")],
        env=os.environ | {"PYTHONPATH": str(site)}, check=False, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout


def test_a_model_is_trained_with_plugins_of_a_package(site, tmp_path):
    path = f"{site}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"

    def run(*words: str) -> str:
        done = betman(*words, cwd=tmp_path, real=True, PYTHONPATH=path)
        assert done.returncode == 0, done.stderr
        return done.stdout + done.stderr

    assert (
        "known: cons, kinematics, multiclass, multilabel, order, shift, warp, approach"
        in " ".join(run("train_model", "--help").split())
    )
    run("fetch_dataset", "Circles")
    line = ["train_model", "--run_id=a", "--backbone_preset=gru-base", "--emb_dim=8",
            "--task_ids=approach,multilabel", "--window_size=20", "--batch_size=16",
            "--data_format=long_csv", "--annot_format=frame_list", "--loggers=loss_csv",
            "--data_augmentation=mirror:p=0.5", "--log_every=5", "--resume",
            "datasets/Circles"]  # fmt: skip
    run(*line, "--epochs=1")
    run(*line, "--epochs=2")
    steps = (tmp_path / "models" / "a" / "losses.csv").read_text().splitlines()[1:]
    assert len(steps) == len({row.split(",")[0] for row in steps}) > 4
    model = ["models/a/model_config.yml", "models/a/weights/weights_last.pt"]
    run("annotate_behavior", "datasets/Circles", *model)
    table = pd.read_csv(
        tmp_path / "annotations" / "circles0" / "machineAnnotation_lisbet.csv", index_col=0
    )
    assert table.shape == (200, 1)
    versions = (tmp_path / "models" / "a" / "run_config.yml").read_text()
    assert "lisbet-example: '0.1'" in versions
    card = (tmp_path / "models" / "a" / "README.md").read_text()
    assert "| plug-ins | lisbet-example 0.1 |" in card

    rng = np.random.default_rng(0)
    np.savez(
        tmp_path / "set.npz",
        individuals=["a", "b"],
        keypoints=["nose", "tail"],
        space=["x", "y"],
        one=rng.random((200, 2, 2, 2)),
        two=rng.random((90, 2, 2, 2)),
    )
    assert "2 recordings, 290 frames" in run("dataset_info", "set.npz")


# Packages that are wrong ------------------------------------------------------------------------


@pytest.fixture
def package(tmp_path, monkeypatch):
    """Make a package with one entry point, as pip would install it."""

    def make(name: str, group: str, point: str, code: str) -> None:
        site = tmp_path / name
        info = site / f"{name}-1.0.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[{group}]\n{point} = {name}_module:PLUGIN\n")
        (site / f"{name}_module.py").write_text(code)
        monkeypatch.syspath_prepend(site)
        installed.cache_clear()

    yield make
    installed.cache_clear()


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("import no_such_module", "'odd' of the installed package wrong cannot be imported"),
        ("1/0", "ZeroDivisionError"),
        ("OTHER = 3", "has no attribute 'PLUGIN'"),
        ("class PLUGIN: pass", r"\(wrong_module:PLUGIN\) is not a Task"),
        ("from lisbet.tasks import Task\nclass PLUGIN(Task):\n    columns = 1",
         "is incomplete: it lacks count, head, loss, sample, score_counts, score_of"),
    ],
)  # fmt: skip
def test_what_a_plugin_lacks_is_said(code, message, package):
    package("wrong", "lisbet.tasks", "odd", code)
    assert "odd" in list(TASKS)
    sys.modules.pop("wrong_module", None)
    with pytest.raises(ConfigError, match=message):
        TASKS["odd"]
    with pytest.raises(
        ConfigError, match="no task 'even'.* install that package in this environment"
    ):
        TASKS["even"]
    assert TASKS["cons"]  # the others can be used


def test_names_are_used_once(package):
    package("one", "lisbet.tasks", "cons", "PLUGIN = 1")
    with pytest.raises(ConfigError, match="one has a task named 'cons', as betman itself has"):
        TASKS["cons"]
    package("two", "lisbet.tasks", "cons", "PLUGIN = 1")
    with pytest.raises(ConfigError, match="two installed packages have a plug-in 'cons'"):
        list(TASKS)


def test_a_registry_without_other_packages():
    registry = Registry("task", "lisbet.tasks", "TASK", "lisbet.no_such_group", Task)
    assert list(registry) == [
        "cons",
        "kinematics",
        "multiclass",
        "multilabel",
        "order",
        "shift",
        "warp",
    ]
    assert registry.name_of(registry["warp"]) == "warp"
