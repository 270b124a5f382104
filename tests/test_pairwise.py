"""Any two options of train_model work together, or are refused with a message.

`combinations.py` has the options, and what must be refused. Prints a table of what was run with

    python -m pytest tests/test_pairwise.py -m pairwise -s
"""

import csv
import hashlib
import re
import shutil
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from combinations import (
    BACKBONES,
    CONVERTED,
    PARAMETERS,
    RECORDINGS,
    STRATEGIES,
    Combination,
    Data,
    all_pairs,
    expected_refusals,
    refused,
    sample,
    trained,
)
from conftest import names, walk, write_recording
from forked_runs import Ended, ForkedRuns
from test_readers import write_dlc

from lisbet.training.logging.status import FINISHED, read_status

pytestmark = pytest.mark.pairwise
TRAINED, REFUSED = trained(), refused()
WEIGHTS = "weights/weights_last.pt"


def cases(combinations: list[Combination], in_sample: int) -> list:
    """Mark those that are not in a sample, which `make test` runs."""
    chosen = sample(combinations, in_sample)
    return [
        pytest.param(one, id=str(n), marks=() if n in chosen else pytest.mark.thorough)
        for n, one in enumerate(combinations)
    ]


# Datasets and models that the runs start from -----------------------------------------------------


class Place:
    """A folder with the datasets, a model of each backbone, and the folders of the runs."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.runs, self.count = folder, ForkedRuns(), 0
        self.refusals: Counter[str] = Counter()
        self.examples: dict[str, str] = {}
        self.seconds: list[float] = []

    def data(self, data: Data) -> None:
        """Make a dataset, if it is not there yet."""
        path = self.folder / data.path
        if path.exists():
            return
        if data.format in CONVERTED:
            self.data(Data("movement", data.name))
            storage = {"zarr": "float32"}.get(data.format, data.format)
            words = ["--workers=1", f"--storage={storage}", "--annot_format=csv_events"]
            self.betman("convert_dataset", *words, f"movement/{data.name}", data.path)
            return
        count, frames = RECORDINGS[data.name]
        for number in range(count):
            tracks, recording = walk(frames, names(), number), path / f"r{number:02}"
            if data.format == "dlc":
                write_dlc(recording / "tracking.csv", tracks, names(), multi=True)
            else:
                write_recording(recording, tracks, names())
            events = [f"{behavior},{start / 30:.4f},{(start + frames / 4) / 30:.4f}\n"
                      for start, behavior in ((1, "sniff"), (frames / 2, "chase"))]  # fmt: skip
            text = "behavior,start_time,end_time\n" + "".join(events)
            (recording / "annotations.csv").write_text(text)

    def model(self, backbone: str) -> Path:
        """Return a trained model, of another seed and task."""
        folder = self.folder / "models" / backbone
        if not folder.exists():
            self.data(Data("movement", "few"))
            self.betman("train_model", *BACKBONES[backbone], "--task_ids=shift", "--epochs=1",
                        "--seed=7", f"--run_id={backbone}", "movement/few")  # fmt: skip
        return folder

    def betman(self, *words: str) -> None:
        """Run a command that makes something that all runs use."""
        ended = self.runs.run(list(words), self.folder)
        assert ended.code == 0, ended.output

    def prepared(self, combination: Combination) -> Path:
        """Return the folder of a run, in which all that it reads is there."""
        for data in combination.data:
            self.data(data)
        if "loaded" in combination.values["backbone_weights"]:
            self.model(combination.values["backbone"])
        self.count += 1
        cwd = self.folder / f"run{self.count}"
        cwd.mkdir()
        if combination.values["start"] in ("overwrite", "exists", "overwrite and resume"):
            shutil.copytree(self.model("transformer"), cwd / "models" / "a")
        return cwd

    def start(self, combination: Combination, cwd: Path, *more: str, strategy: str = "",
              stop_after: int | None = None) -> Ended:  # fmt: skip
        """Run the command of a combination, under its own strategy or another one."""
        strategy = strategy or combination.values["strategy"]
        processes, environment = STRATEGIES[strategy]
        if combination.has(compiler="eager"):
            environment = environment | {"ACCELERATE_DYNAMO_BACKEND": "EAGER"}
        return self.runs.run([*combination.words(".."), *more], cwd, processes=processes,
                             environment=environment, stop_after=stop_after)  # fmt: skip

    def completed(self, combination: Combination, cwd: Path) -> Ended:
        """Run a combination to its end: the last command, after what comes before it."""
        start = combination.values["start"]
        if start.startswith("interrupted"):
            first = self.start(combination, cwd, stop_after=1)
            if first.code != 75:
                return first
            assert "after step 1, saved" in first.output
        strategy = ""
        if start == "interrupted, other strategy":
            alone = combination.has(strategy="one process")
            strategy = "DDP, 2 processes" if alone else "one process"
        options = {"new": [], "exists": [], "overwrite": ["--overwrite"],
                   "overwrite and resume": ["--overwrite", "--resume"],
                   }.get(start, ["--resume"])  # fmt: skip
        return self.start(combination, cwd, *options, strategy=strategy)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    place = Place(tmp_path_factory.mktemp("pairwise"))
    yield place
    place.runs.close()
    print(f"\n{len(place.seconds)} combinations trained, {sum(place.seconds):.0f} s; "
          f"{place.refusals.total()} refused:\n")  # fmt: skip
    print("| times | message |\n|---|---|")
    for reason, times in place.refusals.most_common():
        print(f"| {times} | {place.examples[reason]} |")


# What a run leaves --------------------------------------------------------------------------------


def leftovers(cwd: Path) -> list[str]:
    """Return what a run must not leave: temporary files, locks, copies of earlier models."""
    ours = (".metadata", ".lisbet.jsonl")
    found = [path for path in cwd.rglob("*") if path.name[0] == "." and path.name not in ours]
    found += [path for path in cwd.rglob("*") if path.suffix in (".partial", ".lock")]
    return sorted(str(path.relative_to(cwd)) for path in set(found)) + sorted(
        path.name for path in Path("/dev/shm").glob("lisbet-*")
    )


def written(cwd: Path) -> dict[str, int]:
    """Return when each file of a run was written last, and that there is each folder."""
    return {
        str(path): path.stat().st_mtime_ns if path.is_file() else 0
        for path in cwd.rglob("*")
        if path.parent != cwd or not path.name.startswith("output")
    }


def hashes(model: Path) -> dict[str, str]:
    """Hash what does not depend on when and where a model was trained."""
    files = [*model.glob("weights/*.pt"), *model.glob("*.csv"), *model.glob("pictures/*.png")]
    return {
        str(path.relative_to(model)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(files)
    }


def expected_files(combination: Combination) -> set[str]:
    """Return files that a model must have, as its options say."""
    has = combination.has
    files = {WEIGHTS, "training_history.csv", "events.jsonl", "status.json", "README.md",
             "run_config.yml", "model_config.yml"}  # fmt: skip
    files |= {"sample_hashes.csv"} if has(hash_samples="yes") else set()
    files |= {"weights/weights_best.pt"} if has(save_weights="best") else set()
    if has(save_weights="all"):
        files |= {f"weights/weights_epoch{n}.pt" for n in range(2)}
    tracked = not has(tracking="none")
    if has(pictures="each epoch") or (has(pictures="default") and tracked):
        files |= {"pictures/embeddings.png"}
        for task in ("multiclass", "multilabel"):
            if has(tasks=task) or (task == "multiclass" and has(tasks="mixed")):
                files |= {f"pictures/confusion_{task}.png"}
    return files


def check_model(combination: Combination, model: Path, place: Place) -> None:
    """Check a finished model."""
    assert read_status(model)["state"] == FINISHED
    files = {str(path.relative_to(model)) for path in model.rglob("*") if path.is_file()}
    expected = expected_files(combination)
    assert expected <= files
    optional = {name for name in files if name.startswith(("weights/", "pictures/"))}
    assert optional <= expected
    weights = torch.load(model / WEIGHTS, weights_only=True)
    for name, value in weights.items():
        assert value.dtype == torch.float32, name
        assert value.isfinite().all(), name
        assert not name.startswith(("_orig_mod.", "module."))
    with (model / "training_history.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert [row["epoch"] for row in rows] == ["0", "1"]
    assert all(np.isfinite(float(row["train_loss"])) for row in rows)
    assert ("dev_loss" in rows[0]) == combination.has(dev_split="0.5")
    if combination.has(hash_samples="yes"):
        with (model / "sample_hashes.csv").open() as stream:
            steps = [(row["epoch"], row["step"]) for row in csv.DictReader(stream)]
        assert list(dict.fromkeys(steps)) == [("0", "0"), ("0", "1"), ("1", "0"), ("1", "1")]
    for tracker, pattern in (("tensorboard", "tensorboard/*tfevents*"), ("wandb", "**/*.wandb")):
        assert bool(list(model.glob(pattern))) == combination.has(tracking=tracker)
    if combination.has(backbone_weights="loaded, frozen"):
        source = torch.load(place.model(combination.values["backbone"]) / WEIGHTS)
        frozen = {name for name in source if name.startswith("backbone.")}
        assert frozen
        assert all(torch.equal(weights[name], source[name]) for name in frozen)


# The tests ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("combination", cases(TRAINED, 3))
def test_options_that_work_together(combination, place):
    print(f"\n{combination}")
    started = time.monotonic()
    cwd = place.prepared(combination)
    ended = place.completed(combination, cwd)
    assert ended.code == 0, ended.output
    assert "Traceback" not in ended.output
    assert leftovers(cwd) == []
    check_model(combination, cwd / "models" / "a", place)
    if combination.values["start"] in ("interrupted", "overwrite"):
        untouched = Combination(combination.values | {"start": "new"})
        other = place.prepared(untouched)
        assert place.completed(untouched, other).code == 0
        assert hashes(cwd / "models" / "a") == hashes(other / "models" / "a")
    place.seconds.append(time.monotonic() - started)


@pytest.mark.parametrize("combination", cases(REFUSED, 8))
def test_options_that_are_refused(combination, place):
    print(f"\n{combination}")
    cwd = place.prepared(combination)
    before = written(cwd)
    ended = place.completed(combination, cwd)
    assert ended.code == 2, ended.output
    assert "Traceback" not in ended.output
    assert ended.output.count("betman: error: ") == 1, ended.output
    (pattern,) = expected_refusals(combination)
    message = ended.output.split("betman: error: ")[1].split("\n[rank")[0].strip()
    assert re.search(pattern, message), message
    assert leftovers(cwd) == []
    if "DeepSpeed cannot resume" not in pattern:  # or else the first one of two commands wrote
        assert written(cwd) == before
    place.refusals[pattern] += 1
    place.examples.setdefault(pattern, message)


def test_each_pair_of_values_is_in_a_combination_that_trains_unless_it_is_refused():
    assert all(expected_refusals(one) == [] for one in TRAINED)
    assert all(len(expected_refusals(one)) == 1 for one in REFUSED)
    together = set().union(*(one.pairs for one in TRAINED))
    refused_pairs = all_pairs() - together
    for pair in refused_pairs:  # no dataset is as small as the smallest memory
        assert expected_refusals(Combination(dict(pair))) or ("bank_memory", "too small") in pair
    for pair in refused_pairs - set().union(*(one.pairs for one in REFUSED)):
        reasons = len(expected_refusals(Combination(dict(pair))))
        assert reasons + (("bank_memory", "too small") in pair) > 1, pair
    assert len(together) > 1400
    for name, values in PARAMETERS.items():
        for value in values:
            assert any(one.has(**{name: value}) for one in (*TRAINED, *REFUSED)), (name, value)
