"""What evaluate_model scores: held-out recordings, baselines, and scores that are undefined."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import TINY, names, walk, write_recording
from sklearn.metrics import average_precision_score, f1_score, precision_recall_fscore_support

from lisbet.cli import main
from lisbet.core.errors import ConfigError
from lisbet.core.yaml_files import read_yaml, write_yaml
from lisbet.data.record import Record
from lisbet.models import model_dir
from lisbet.models.multitask import ModelConfig, MultiTaskModel
from lisbet.tasks.multiclass import Multiclass
from lisbet.tasks.multilabel import Multilabel
from lisbet.training.datasets.run_split import RunSplit

REPORT = Path("evaluations/m/evaluation_report.yml")
PATHS = ["m/model_config.yml", "m/weights/weights_last.pt"]


@pytest.fixture
def place(tmp_path, monkeypatch) -> Path:
    """A model that was never trained, and three recordings of 40 frames, the first 10 of run."""
    monkeypatch.chdir(tmp_path)
    for number in range(3):
        folder = tmp_path / "data" / f"r{number}"
        write_recording(folder, walk(40, names(), number), names())
        (folder / "annotations.csv").write_text(f"behavior,start_time,end_time\nrun,0,{10 / 30}\n")
    config = {
        "model_id": "m",
        "backbone": {"type": "transformer", "feature_dim": 12, "embedding_dim": 8,
                     "hidden_dim": 16, "num_heads": 2, "num_layers": 1, "max_length": 12},
        "input_features": names().model_dump(mode="json"),
        "out_heads": {"multiclass": {"output_token_idx": -1, "input_dim": 8, "hidden_dim": 16,
                                     "num_classes": 2}},
        "behaviors": {"multiclass": ["run", "other"]},
        "window_size": 12, "window_offset": 0,
    }  # fmt: skip
    (tmp_path / "m" / "weights").mkdir(parents=True)
    write_yaml(tmp_path / "m/model_config.yml", config)
    torch.save(MultiTaskModel(ModelConfig(**config)).state_dict(), PATHS[1])
    return tmp_path


def write_run(split: dict, **more: object) -> None:
    content = {"options": {"data_path": "data"}, "data": {"split": split, **more}}
    write_yaml(Path("m/run_config.yml"), content)


def evaluate(*words: str, data: str = "data") -> dict:
    main(["evaluate_model", "--annot_format=csv_events", "--overwrite", *words, data, *PATHS])
    return read_yaml(REPORT)


def fails(*words: str, capsys) -> str:
    with pytest.raises(SystemExit) as caught:
        evaluate(*words)
    assert caught.value.code == 2
    return capsys.readouterr().err


def test_which_recordings_were_in_training(place, capsys):
    report = evaluate()
    assert (report["split"], report["in_training"]) == ("all", None)
    assert "there is no run_config.yml next to the model" in capsys.readouterr().out
    write_run({"train": ["r0", "r2"], "dev": ["r1"]})
    report = evaluate()
    assert report["recordings"] == ["r0", "r1", "r2"]
    assert report["in_training"] == ["r0", "r2"]
    said = capsys.readouterr().out
    assert "2 of these 3 recordings have the ids of recordings that the model was trained" in said
    assert "--split=dev scores what was held out" in said
    report = evaluate("--split=dev")
    assert (report["recordings"], report["in_training"], report["frames"]) == (["r1"], [], 40)
    report = evaluate("--split=train")
    assert report["recordings"] == report["in_training"] == ["r0", "r2"]
    (place / "data").rename(place / "other")
    for number in range(3):
        (place / f"other/r{number}").rename(place / f"other/new{number}")
    assert evaluate(data="other")["in_training"] == []
    assert "None of these recordings has the id" in capsys.readouterr().out


def test_parts_of_recordings(place):
    """Of the last 8 frames of r0 none is run, of frames 5 to 8 of r1 all are."""
    frames = {"train": {f"r{n}": [0, 32] for n in range(3)}, "dev": {"r0": [32, 40], "r1": [5, 9]}}
    write_run({"train": ["r0", "r1", "r2"], "dev": ["r0", "r1"]}, split_frames=frames)
    report = evaluate("--split=dev")
    assert (report["frames"], report["classes"]["run"]["frames"]) == (8 + 4, 4)
    assert report["in_training"] == []
    assert evaluate("--split=train")["frames"] == 96
    assert evaluate()["in_training"] == ["r0", "r1", "r2"]
    record = Record.in_memory("r0", walk(40, names(), 0), names())
    split = RunSplit.read(Path(PATHS[0]))
    assert split is not None
    (part,) = split.choose((record,), "dev", Path("data"))
    assert np.array_equal(part.position, record.position[32:])  # nothing of the training part


@pytest.mark.parametrize(
    ("run", "said"),
    [
        (None, "there is no run_config.yml next to m/model_config.yml"),
        ({"train": ["r0", "r1"]}, "none were held out"),
        (
            {"train": ["r0"], "dev": ["a", "b"]},
            r"none of the 3 recordings of data (r0, r1, r2) is ",
        ),
        ({"train": ["r0"], "dev": 3}, "does not say which recordings were in training: data.split"),
        ({"train": ["r0"], "dev": ["r1"]}, "frames 30 to 49 of it are in the dev part"),
    ],
)
def test_splits_that_are_not_known(run, said, place, capsys):
    if run is not None:
        write_run(run, split_frames={"dev": {"r1": [30, 50]}})
    assert said in fails("--split=dev", capsys=capsys)
    assert not Path("evaluations").exists()


def test_ids_of_several_datasets(tmp_path):
    """Their ids begin with the name of the folder, numbered where two folders have one name."""

    def split(paths: str, *ids: str) -> RunSplit:
        run = {"options": {"data_path": paths}, "data": {"split": {"train": list(ids)}}}
        write_yaml(tmp_path / "run_config.yml", run)
        found = RunSplit.read(tmp_path / "model_config.yml")
        assert found is not None
        return found

    two = split("x/mice,rats", "mice/r0", "mice/day1/r1", "rats/r0")
    assert two.find("r0", Path("rats")) == ["rats/r0"]
    assert two.find("r0", Path("elsewhere/mice")) == ["mice/r0"]
    assert two.find("r0", Path("new")) == ["mice/r0", "rats/r0"]
    assert two.find("mice/r0", Path(".")) == ["mice/r0"]
    assert two.find("r1", Path("x/mice/day1")) == ["mice/day1/r1"]
    assert two.find("0", Path("mice")) == []
    alike = split("x/mice,y/mice", "0-mice/r0", "1-mice/r0")
    assert alike.find("r0", Path("y/mice")) == ["1-mice/r0"]
    record = Record.in_memory("r0", np.zeros((9, *names().shape)), names())
    with pytest.raises(ConfigError, match="r0 of new may be any of mice/r0, rats/r0"):
        two.choose((record,), "train", Path("new"))


# Baselines and undefined scores, compared with scikit-learn ---------------------------------------


def one_hot(numbers: np.ndarray, classes: int) -> np.ndarray:
    return np.eye(classes, dtype=bool)[numbers]


def test_baselines_are_what_scikit_learn_counts():
    rng = np.random.default_rng(0)
    actual = rng.choice(3, 400, p=[0.2, 0.7, 0.1])
    truth = one_hot(actual, 3)
    report, _ = Multiclass.report(truth, rng.normal(size=(400, 3)), ["a", "b", "c"], None)
    majority, chance = report["baselines"]["majority"], report["baselines"]["chance"]
    always = np.full(400, np.bincount(actual).argmax())
    assert majority["accuracy"] == pytest.approx((always == actual).mean())
    assert majority["macro_f1"] == pytest.approx(f1_score(actual, always, average="macro"))
    assert majority["mean_average_precision"] == pytest.approx(
        np.mean([average_precision_score(column, np.ones(400)) for column in truth.T])
    )
    guesses = [rng.permutation(actual) for _ in range(300)]
    assert chance["accuracy"] == pytest.approx(np.mean([(g == actual).mean() for g in guesses]),
                                               abs=0.01)  # fmt: skip
    assert chance["macro_f1"] == pytest.approx(
        np.mean([f1_score(actual, guess, average="macro") for guess in guesses]), abs=0.01
    )
    report, _ = Multilabel.report(truth, rng.normal(size=(400, 3)), ["a", "b", "c"], None)
    majority, chance = report["baselines"]["majority"], report["baselines"]["chance"]
    always = np.tile(truth.mean(axis=0) > 0.5, (400, 1))
    assert majority["accuracy"] == pytest.approx((always == truth).mean())
    assert majority["macro_f1"] == pytest.approx(f1_score(truth, always, average="macro"))
    guesses = [rng.permuted(truth, axis=0) for _ in range(300)]
    assert chance["accuracy"] == pytest.approx(np.mean([(g == truth).mean() for g in guesses]),
                                               abs=0.01)  # fmt: skip


def test_scores_without_a_value_are_undefined():
    """Class c is never true, b is never predicted; scikit-learn says which scores have no value."""
    actual, predicted = np.array([0, 0, 1, 1, 0]), np.array([0, 2, 0, 0, 0])
    truth, logits = one_hot(actual, 3), one_hot(predicted, 3) * 4.0
    report, _ = Multiclass.report(truth, logits, ["a", "b", "c"], None)
    precision, recall, f1, _ = precision_recall_fscore_support(
        actual, predicted, labels=[0, 1, 2], zero_division=math.nan
    )
    for number, name in enumerate("abc"):
        found = report["classes"][name]
        for score, expected in (("precision", precision), ("recall", recall)):
            value = math.nan if found[score] is None else found[score]
            assert value == pytest.approx(expected[number], nan_ok=True)
    assert [report["classes"][name]["f1"] for name in "ab"] == pytest.approx(f1[:2])
    assert report["undefined"]["classes"] == {
        "b": {"precision": "'b' is never predicted"},
        "c": dict.fromkeys(("f1", "recall", "average_precision"),
                           "no scored frame is annotated 'c'"),
    }  # fmt: skip
    assert report["macro_precision"] is report["macro_recall"] is report["macro_f1"] is None
    assert report["undefined"]["macro_f1"] == (
        "no scored frame is annotated 'c' (the mean over those of the 3 classes where it is "
        f"defined is {(f1[0] + f1[1]) / 2:.3f})"
    )
    assert report["baselines"]["majority"]["macro_f1"] is None
    assert report["baselines"]["majority"]["accuracy"] == 0.6


def test_a_single_class_left_is_not_a_perfect_score(place, capsys):
    truth = one_hot(np.array([0, 1, 0]), 2)
    report, _ = Multiclass.report(truth, truth * 4.0, ["run", "other"], 1)
    assert report["accuracy"] == report["macro_recall"] == 1
    for name in ("macro_f1", "macro_precision", "mean_average_precision"):
        assert report[name] is None
        assert report["undefined"][name] == "every scored frame is annotated 'run'"
    report = evaluate("--ignore_index=1")  # in a file, and for people
    assert report["macro_f1"] is None
    assert "every scored frame is annotated 'run'" in report["undefined"]["macro_f1"]
    said = capsys.readouterr().out
    assert "macro_f1 is undefined: every scored frame is annotated 'run'" in said
    row = next(line for line in said.splitlines() if line.startswith("macro_f1 "))
    assert row.split() == ["macro_f1", "-", "-", "-"]
    assert "majority" in said


def test_a_run_is_evaluated_on_what_it_held_out(place):
    main(["train_model", *TINY, "--annot_format=csv_events", "--task_ids=multiclass", "--run_id=m",
          "--epochs=1", "--warmup_epochs=0", "--train_sample=0.2", "--dev_ratio=0.25",
          "--dev_split=time", "data"])  # fmt: skip
    model = [f"models/m/{name}" for name in (model_dir.MODEL_CONFIG, model_dir.WEIGHTS_LAST)]
    main(["evaluate_model", "--annot_format=csv_events", "--split=dev", "data", *model])
    assert read_yaml(REPORT)["frames"] == 30
