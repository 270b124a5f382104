"""betman probe: scores against scikit-learn and scenes with known answers."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import TINY, names, walk, write_recording
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score
from sklearn.preprocessing import StandardScaler

from lisbet.cli import main
from lisbet.core.yaml_files import read_yaml, write_yaml
from lisbet.models.multitask import ModelConfig, MultiTaskModel
from lisbet.probing.compare import Examples, compare, means, recording_accuracy, splits
from lisbet.probing.features import averaged
from lisbet.probing.scores import folds, score

PATHS = ["m/model_config.yml", "m/weights/weights_last.pt"]
FRAMES = 400


def scene(number):
    """Tracks of two animals, and the frames in which they are near each other."""
    tracks = walk(FRAMES, names(), number)
    apart = np.linalg.norm(tracks[:, 0].mean(1) - tracks[:, 1].mean(1), axis=-1)
    return tracks, apart < np.quantile(apart, 0.3)


def events(near):
    """Annotations of csv_events, from a frame to the last of each stretch."""
    changes = np.flatnonzero(np.diff(np.concatenate([[0], near, [0]])))
    lines = [f"near,{a / 30},{b / 30}" for a, b in changes.reshape(-1, 2)]
    return "\n".join(["behavior,start_time,end_time", *lines]) + "\n"


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A network with random weights, and four recordings in which `near` follows from distance."""
    monkeypatch.chdir(tmp_path)
    for number in range(4):
        folder = tmp_path / "data" / f"r{number}"
        tracks, near = scene(number)
        write_recording(folder, tracks, names())
        (folder / "annotations.csv").write_text(events(near))
    config = {
        "model_id": "m",
        "backbone": {"type": "transformer", "feature_dim": 12, "embedding_dim": 8,
                     "hidden_dim": 16, "num_heads": 2, "num_layers": 1, "max_length": 12},
        "input_features": names().model_dump(mode="json"),
        "out_heads": {"embedding": {"output_token_idx": -6}},
        "window_size": 12, "window_offset": 5,
    }  # fmt: skip
    (tmp_path / "m" / "weights").mkdir(parents=True)
    write_yaml(tmp_path / "m/model_config.yml", config)
    torch.save(MultiTaskModel(ModelConfig(**config)).state_dict(), PATHS[1])
    return tmp_path


def probe(*words):
    main(["probe", "--annot_format=csv_events", *words, "data", *PATHS])
    return read_yaml(Path("probes/m/probe_report.yml"))


def test_distances_find_a_behaviour_that_follows_from_them(place, capsys):
    report = probe("--front=point0", "--back=point2")
    assert report["recordings"] == ["r0", "r1", "r2", "r3"]
    assert report["folds"] == 4
    precision = report["average_precision"]
    assert precision["distances"]["near"]["mean"] > 0.8
    assert precision["kinematics, averaged"]["near"]["mean"] > 0.8
    assert set(precision) == {
        "raw pose", "distances", "kinematics of the frame", "kinematics, averaged",
        "untrained network", "untrained network, averaged", "embedding", "embedding, averaged",
        "embedding and kinematics",
    }  # fmt: skip
    assert report["present"]["near"] == pytest.approx(0.3, abs=0.02)
    said = capsys.readouterr().out
    assert "The embedding is not better than the best features made by hand" in said
    assert "±" in said
    assert (place / "probes/m/probe_scores.png").read_bytes().startswith(b"\x89PNG")
    table = pd.read_csv("probes/m/probe_scores.csv")
    assert len(table) == 9 * 4
    assert table["average_precision"].between(0, 1).all()
    again = probe("--front=point0", "--back=point2", "--overwrite")
    assert again == report


def confidence_of(c, values, labels, fit, test):
    """What a logistic regression that is fitted to some recordings says of another."""
    scaler = StandardScaler().fit(np.concatenate([values[i] for i in fit]))
    fitted = LogisticRegression(C=c, class_weight="balanced", tol=1e-8, max_iter=5000).fit(
        scaler.transform(np.concatenate([values[i] for i in fit])),
        np.concatenate([labels[i] for i in fit])[:, 0],
    )
    return fitted.predict_proba(scaler.transform(values[test]))[:, 1]


def precision_of(c, values, labels, fit, test):
    confidence = confidence_of(c, values, labels, fit, test)
    return average_precision_score(labels[test][:, 0], confidence)


def recordings_that_differ(seed, features=12):
    """Labels, and features of which all but four say something else in each recording."""
    rng = np.random.default_rng(seed)
    labels = {f"r{n}": rng.random((300, 1)) < 0.3 for n in range(4)}
    values = {}
    for record_id, own in labels.items():
        misleading = rng.normal(0, 2, features)
        misleading[:4] = 0.5
        values[record_id] = own * misleading + rng.normal(0, 1, (300, features))
    return values, labels


def test_scores_are_those_of_scikit_learn():
    values, labels = recordings_that_differ(1)
    found = compare(Examples({"x": values}, labels, ("a",)), [(0, 0, ["r1"])])
    fit = ["r0", "r2", "r3"]
    inner = {
        c: np.mean(
            [precision_of(c, values, labels, [i for i in fit if i != out], out) for out in fit]
        )
        for c in (1e-4, 1e-3, 1e-2, 1e-1, 1)
    }
    best = max(inner, key=inner.get)
    assert best == 1e-2
    expected = precision_of(best, values, labels, fit, "r1")
    assert found["average_precision"].item() == pytest.approx(expected, abs=1e-4)
    assert means(found)["x"]["a"] == pytest.approx(expected, abs=1e-4)


def test_one_recording_is_fitted_without_choosing():
    values, labels = recordings_that_differ(0)
    (found,) = score(values["r0"], labels["r0"], np.zeros(300), values["r1"], labels["r1"])
    expected = precision_of(1, values, labels, ["r0"], "r1")
    assert found.average_precision == pytest.approx(expected, abs=2e-3)


def test_a_behaviour_of_one_recording_is_fitted_without_choosing():
    values, labels = recordings_that_differ(0)
    labels["r0"][:] = False
    fit, own = (np.concatenate([of["r0"], of["r2"]]) for of in (values, labels))
    numbers = np.repeat([0, 1], 300)
    (found,) = score(fit, own, numbers, values["r1"], labels["r1"])
    expected = precision_of(1, values, labels, ["r0", "r2"], "r1")
    assert found.average_precision == pytest.approx(expected, abs=2e-3)


def test_missing_values_are_filled_and_rare_behaviours_left_out():
    rng = np.random.default_rng(0)
    labels = np.stack([rng.random(200) < 0.5, np.arange(200) == 3], axis=1)
    values = labels[:, :1] + rng.normal(0, 0.1, (200, 2))
    values[::3] = np.nan
    frequent, rare = score(values, labels, np.zeros(200), values, labels)
    assert frequent.average_precision > 0.8
    assert rare is None


def test_every_recording_is_held_out_once():
    ids = [f"r{n}" for n in range(7)]
    for seed in range(3):
        parts = folds(ids, 3, seed)
        assert sorted(i for part in parts for i in part) == ids
        assert max(map(len, parts)) - min(map(len, parts)) <= 1
    assert [held_out for _, _, held_out in splits(ids, 7, [0])] != [[i] for i in ids]  # shuffled


def test_averages_are_of_the_frames_there_are():
    values = np.random.default_rng(0).normal(size=(80, 3)).astype(np.float32)
    found = averaged(values)
    assert found.shape == (80, 9)
    np.testing.assert_array_equal(found[:, :3], values)
    np.testing.assert_allclose(found[40, 3:6], values[33:48].mean(0), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(found[2, 3:6], values[:10].mean(0), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(found[79, 6:], values[49:].mean(0), rtol=1e-5, atol=1e-6)


def test_features_of_a_recording_give_it_away():
    rng = np.random.default_rng(0)
    same = {f"r{n}": rng.normal(size=(200, 3)) for n in range(4)}
    shifted = {f"r{n}": rng.normal(size=(200, 3)) + 5 * n for n in range(4)}
    assert recording_accuracy(same) < 0.4
    assert recording_accuracy(shifted) > 0.9


def fails(*words, capsys):
    with pytest.raises(SystemExit) as caught:
        probe(*words)
    assert caught.value.code == 2
    return capsys.readouterr().err


def test_what_cannot_be_probed_is_refused(place, capsys):
    assert "keypoint 'head'" in fails("--front=head", capsys=capsys)
    said = fails("--data_filter=r1", capsys=capsys)
    assert "1 recording with annotations" in said
    assert "at least 2 are needed" in said
    assert not (place / "probes").exists()


def test_a_behaviour_in_one_recording_only_is_refused(place, capsys):
    for number in range(1, 4):
        (place / "data" / f"r{number}" / "annotations.csv").write_text(
            "behavior,start_time,end_time\nother,0,0.1\n"
        )
    assert "no behaviour can be scored" in fails(capsys=capsys)
    assert not list((place).glob("probes/**/*.yml"))


def test_labels_that_were_in_training_are_warned_of(place, capsys):
    content = {"options": {"data_path": "data"}, "data": {"split": {"train": ["r0"], "dev": []}}}
    write_yaml(Path("m/run_config.yml"), content)
    report = probe()
    assert report["in_training"] == ["r0"]
    assert "note: the model was trained on the tracks, not the annotations, of 1" in (
        capsys.readouterr().out
    )


def test_results_of_another_model_are_not_replaced(place, capsys):
    probe()
    assert "--overwrite" in fails(capsys=capsys)


# While training -----------------------------------------------------------------------------------

TRAIN = ["train_model", *TINY, "--task_ids=kinematics", "--annot_format=csv_events",
         "--set", "kinematics.front=point0,kinematics.back=point2"]  # fmt: skip


def test_probes_while_training_are_logged(place):
    main([*TRAIN, "--epochs=4", "--probe_every=2", "--dev_recordings=r3", "--run_id=a", "data"])
    rows = [json.loads(line) for line in Path("models/a/events.jsonl").read_text().splitlines()]
    found = {row["epoch"]: row["probe/near"] for row in rows if "probe/near" in row}
    assert list(found) == [2, 4]
    assert all(0 <= value <= 1 for value in found.values())
    main([*TRAIN, "--epochs=4", "--dev_recordings=r3", "--run_id=b", "data"])
    one, other = (
        torch.load(f"models/{run}/weights/weights_last.pt", weights_only=True) for run in "ab"
    )
    assert all(torch.equal(one[name], other[name]) for name in one)  # a probe changes nothing


def test_training_that_cannot_be_probed_is_refused(place, capsys):
    for words, message in (
        ([], "--probe_every scores held-out recordings"),
        (
            ["--dev_recordings=r3", "--annot_format=movement"],
            "r0: no annotations for --annot_format=movement",
        ),
    ):
        given = [word for word in TRAIN if not word.startswith("--annot")] if words else TRAIN
        with pytest.raises(SystemExit) as caught:
            main([*given, "--epochs=1", "--probe_every=1", "--run_id=a", *words, "data"])
        assert caught.value.code == 2
        assert message in capsys.readouterr().err
    assert not Path("models").exists()
