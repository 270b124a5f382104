"""What a user can type or hand over, at its worst: our errors come out, and nothing else."""

import json
import os
import random
import resource
import signal
import traceback
from pathlib import Path

import h5py
import numpy as np
import pytest
import yaml
from conftest import names, walk, write_recording
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lisbet import augment
from lisbet.cli.argv import normalise
from lisbet.cli.commands import COMMANDS
from lisbet.core.config import Dataset
from lisbet.core.errors import LisbetError
from lisbet.core.option_values import (
    Hours,
    Interval,
    Renames,
    Scale,
    Selection,
    Settings,
    TaskData,
)
from lisbet.data.load import load_records
from lisbet.options import DataOptions

WORDS = st.text(alphabet="abxyz019,:;=*.[]-+eE _é\n\0", max_size=30) | st.text(max_size=20)
ALMOST = {
    Selection: ["a,b;x,y;*", "*;*;nose"],
    Renames: ["a:b;*;x:y,z:w"],
    Scale: ["1024x570", "minmax", "1x2x3"],
    TaskData: ["cons:[0],order:[0,1]"],
    Settings: ["backbone.kernel_size=4,order.negatives=simple"],
    Interval: ["1ep", "500steps", "10min"],
    Hours: ["23:50", "0:01"],
}


@pytest.mark.parametrize("kind", ALMOST, ids=lambda kind: kind.__name__)
@given(data=st.data())
@settings(max_examples=150, deadline=None)
def test_text_is_read_or_refused_and_reads_back(kind, data):
    text = data.draw(WORDS | mutated(ALMOST[kind]))
    try:
        value = kind.parse(text)
    except (ValueError, LisbetError):
        return
    assert kind.parse(str(value)) == value


@given(data=st.data())
@settings(max_examples=150, deadline=None)
def test_augmentations_are_read_or_refused(data):
    text = data.draw(WORDS | mutated(["all_perm_id:p=0.5,blk_perm_id:p=0.3:frac=0.2",
                                      "gauss_jitter:sigma=0.1", "rotation:mode=none"]))  # fmt: skip
    try:
        value = augment.parse(text)
    except (ValueError, LisbetError):
        return
    assert augment.parse(augment.as_text(value)) == value or not value


@st.composite
def mutated(draw, texts: list[str]) -> str:
    """A right text with a few characters removed, doubled or replaced."""
    text = draw(st.sampled_from(texts))
    for _ in range(draw(st.integers(0, 3))):
        place = draw(st.integers(0, len(text)))
        middle = draw(st.sampled_from(["", ",", ":", ";", "=", "9", "-", ".", "x", "*", text[:3]]))
        text = text[:place] + middle + text[place + draw(st.integers(0, 2)) :]
    return text


@given(words=st.lists(WORDS | st.sampled_from(
    ["--epochs", "--epochs=3", "-v", "--launch=ddp", "--resume", "data", "--set", "--", "-",
     "--checkpoint_every=1ep", "--seed=1e5", "--no_resume", "--task_ids=cons,", "--config=x"]
), max_size=6))  # fmt: skip
@settings(max_examples=300, deadline=None)
def test_any_command_line_is_checked_or_refused(words):
    command = COMMANDS["train_model"]
    try:
        pairs = [word[2:].partition("=") for word in normalise(words, command)]
        command.check({name: value for name, _, value in pairs})
    except LisbetError:
        pass
    except OSError as error:  # a file that --config names
        assert error.filename


KEYS = st.sampled_from(["options", "epochs", "data_path", "task_ids", "seed"]) | st.text(max_size=5)
YAML = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=8,
)


@given(content=YAML.map(yaml.safe_dump) | st.text(max_size=60) | st.sampled_from(
    ["a: &a [*a]", "!!python/object/apply:os.system [true]", "a: 1\na: 2", "\t", "%", "- a\nb: c",
     "options: {epochs: [1, {}]}", "options: !!binary aGk="]
))  # fmt: skip
@settings(
    max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_any_config_file_is_read_or_refused(content, tmp_path):
    path = tmp_path / "config.yml"
    path.write_text(content, encoding="utf-8", errors="surrogatepass")
    try:
        COMMANDS["train_model"].check({"config": str(path), "data_path": "data"})
    except LisbetError as error:
        assert str(error)


# Files ------------------------------------------------------------------------------------------


def movement(folder: Path, format: str) -> tuple[Path, Dataset]:
    features = names()
    path = write_recording(folder / "r", walk(30, features, 0), features, format=format)
    return path, Dataset(path=folder, format="movement")


def dlc(folder: Path) -> tuple[Path, Dataset]:
    (folder / "r").mkdir(parents=True)
    path = folder / "r" / "tracking.csv"
    head = ["scorer" + ",s" * 6, "bodyparts,nose,nose,nose,tail,tail,tail",
            "coords,x,y,likelihood,x,y,likelihood"]  # fmt: skip
    rows = [f"{n},{n + 1},{n + 2},0.9,{n + 3},{n + 4},0.8" for n in range(20)]
    path.write_text("\n".join(head + rows) + "\n")
    return path, Dataset(path=folder, format="dlc")


def sleap(folder: Path) -> tuple[Path, Dataset]:
    (folder / "r").mkdir(parents=True)
    path = folder / "r" / "SLEAP.analysis.h5"
    with h5py.File(path, "w") as file:
        file["tracks"] = walk(30, names(), 1).transpose(1, 3, 2, 0)
        file["track_names"] = np.array([b"a", b"b"])
        file["node_names"] = np.array([b"p", b"q", b"r"])
        file["track_occupancy"] = np.ones((30, 2))
        file["point_scores"] = np.ones((2, 3, 30))
        file["instance_scores"] = file["tracking_scores"] = np.ones((2, 30))
        file["video_path"] = "v.mp4"
        file["labels_path"] = ""
        file["provenance"] = json.dumps({})
        file["edge_inds"] = np.zeros((0, 2))
        file["edge_names"] = np.zeros((0, 2))
        file["video_ind"] = 0
    return path, Dataset(path=folder, format="sleap")


def events(folder: Path) -> tuple[Path, Dataset]:
    movement(folder, "NETCDF4")
    path = folder / "r" / "annotations.csv"
    path.write_text("behavior,start_time,end_time\nrest,0.1,0.5\nrun,0.6,0.9\n")
    return path, Dataset(path=folder, format="movement", annotations="csv_events")


def boris(folder: Path) -> tuple[Path, Dataset]:
    movement(folder, "NETCDF4")
    path = folder / "r" / "boris.csv"
    path.write_text(
        "Observation id,FPS,Behavior,Behavior type,Time\n"
        "o,30,rest,START,0.1\no,30,rest,STOP,0.5\no,30,run,START,0.6\no,30,run,STOP,0.9\n"
    )
    return path, Dataset(path=folder, format="movement", annotations="boris")


KINDS = {
    "netcdf4": lambda folder: movement(folder, "NETCDF4"),
    "netcdf3": lambda folder: movement(folder, "NETCDF3_64BIT"),
    "dlc": dlc,
    "sleap": sleap,
    "csv_events": events,
    "boris": boris,
}
TRIES = 40
SLOW = {"sleap": 15}
MEMORY = 6 * 2**30
SECONDS = 20


def damaged(content: bytes, rng: random.Random) -> bytes:
    """Flip, cut, double, overwrite: as disks, transfers and editors do."""
    found = bytearray(content)
    for _ in range(rng.choice([1, 1, 2, 8, 40])):
        place = rng.randrange(max(1, len(found)))
        match rng.randrange(6):
            case 0:
                del found[place:]
            case 1:
                found[place:place] = found[place : place + rng.randrange(64)]
            case 2:
                found[place : place + 4] = rng.choice([b"\xff" * 4, b"\0" * 4, b"\x7f\xff\xff\xff"])
            case 3:
                found[place : place + 1] = rng.choice([b"-", b",", b"\n", b"e", b"9" * 20, b'"'])
            case _:
                if found:
                    found[place % len(found)] ^= 1 << rng.randrange(8)
    return bytes(found)


def alone(work) -> tuple[int, str]:
    """Run in a child with little memory and time; return its exit status and what it wrote."""
    read, write = os.pipe()
    child = os.fork()
    if not child:
        os.close(read)
        code = 0
        try:
            limit = (MEMORY, MEMORY)
            resource.setrlimit(resource.RLIMIT_AS, limit)
            signal.alarm(SECONDS)
            work()
        except LisbetError:
            code = 2
        except BaseException:
            os.write(write, traceback.format_exc().encode()[-3000:])
            code = 99
        os._exit(code)
    os.close(write)
    said = b"".join(iter(lambda: os.read(read, 4096), b""))
    os.close(read)
    return os.waitpid(child, 0)[1], said.decode()


@pytest.mark.parametrize("kind", KINDS)
def test_damaged_files_are_read_or_refused(kind, tmp_path):
    path, dataset = KINDS[kind](tmp_path)
    whole = path.read_bytes()
    status, said = alone(lambda: load_records(dataset, DataOptions()))
    assert status == 0, said
    outcomes = {0: 0, 2 << 8: 0}
    for number in range(SLOW.get(kind, TRIES)):
        path.write_bytes(damaged(whole, random.Random(f"{kind}{number}")))
        status, said = alone(lambda: load_records(dataset, DataOptions()))
        assert status in outcomes, (number, status, said)
        outcomes[status] += 1
    assert min(outcomes.values()) > 0, outcomes


def test_nothing_on_a_default_path_is_a_pickle():
    """Weights are loaded as tensors only, YAML as plain values, and pickles by name only."""
    import lisbet

    calls = {"pickle.load": [], "torch.load(": [], "yaml.load(": [], "allow_pickle=True": []}
    for file in Path(lisbet.__file__).parent.rglob("*.py"):
        text = file.read_text()
        for call, found in calls.items():
            found += [file.name] * text.count(call)
        assert text.count("torch.load(") == text.count("weights_only=True"), file
    assert calls["pickle.load"] == []
    assert calls["yaml.load("] == []
    # The authors of MABe22 publish pickled arrays; what is not an array in them is refused.
    assert set(calls["allow_pickle=True"]) <= {"mabe22.py"}
