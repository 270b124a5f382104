"""Kinematic labels: against loops, under augmentation, and as a task that is trained on."""

import numpy as np
import pytest
import reference
import torch
import yaml
from conftest import TINY, make_bank, names, walk, write_dataset

from lisbet import augment, contracts
from lisbet.cli import main
from lisbet.core.config import Features, Window
from lisbet.core.errors import ConfigError, DataError
from lisbet.data import kinematics
from lisbet.data.bank import WindowIndex, gather
from lisbet.tasks.kinematics import Kinematics

AXIS = (0, 2)


def tracks_of(individuals=2, frames=90, seed=0, missing=0.2):
    tracks = walk(frames, names(individuals), seed) / 100
    tracks[np.random.default_rng(seed).random(tracks.shape[:3]) < missing] = 0
    return np.nan_to_num(tracks)


@pytest.mark.parametrize("individuals", [1, 2, 3])
@pytest.mark.parametrize("axis", [AXIS, None])
def test_quantities_are_those_of_loops(individuals, axis):
    tracks = tracks_of(individuals)
    found = kinematics.kinematics(torch.from_numpy(tracks), axis)
    labels = [str(n) for n in range(individuals)]
    assert found.shape[1] == len(kinematics.quantity_names(tuple(labels), heading=axis is not None))
    np.testing.assert_allclose(found, reference.kinematics(tracks, axis), rtol=1e-9)


@pytest.mark.parametrize("frames", [1, 3, 4, 5])
def test_recordings_shorter_than_a_step(frames):
    found = kinematics.kinematics(torch.from_numpy(tracks_of(frames=frames, missing=0)), AXIS)
    assert found.shape == (frames, 11)
    np.testing.assert_allclose(
        found, reference.kinematics(tracks_of(frames=frames, missing=0), AXIS)
    )


def test_averages_are_those_of_loops():
    tracks = tracks_of(missing=0.5)
    bank = make_bank([90])
    bank.tracks[1:-1] = torch.from_numpy(tracks)
    series = reference.kinematics(bank.tracks[1:-1].numpy().astype(float), AXIS)
    frames = np.array([0, 3, 40, 61, 89])
    around = gather(bank, WindowIndex.plain(np.zeros(5, int), frames), kinematics.AROUND)
    found = kinematics.described(kinematics.kinematics(around.double(), AXIS))
    for row, frame in zip(found, frames, strict=True):
        np.testing.assert_allclose(row, reference.described(series, frame), rtol=1e-4, atol=1e-5)


def test_names_tell_the_quantities_in_their_order():
    series = kinematics.quantity_names(("a", "b"), heading=True)
    assert series == [
        "log speed a", "log speed b", "log distance of centres a-b", "log nearest distance a-b",
        "approach a-b", "facing a->b", "facing b->a", "log distance of fronts a-b",
        "log distance of backs a-b", "log distance of front and back a->b",
        "log distance of front and back b->a",
    ]  # fmt: skip
    assert len(kinematics.described_names(series)) == 7 * 11


def test_a_known_scene():
    """Two animals of one length, 0.3 apart; the first walks towards the second at 0.01 a frame."""
    tracks = np.zeros((9, 2, 2, 2))
    for frame in range(9):
        tracks[frame, 0] = [[0.30 + 0.01 * frame, 0.5], [0.20 + 0.01 * frame, 0.5]]  # nose, tail
        tracks[frame, 1] = [[0.64, 0.5], [0.54, 0.5]]
    row = kinematics.kinematics(torch.from_numpy(tracks), (0, 1))[4].exp()
    assert row[0].item() == pytest.approx(0.01 + 0.0005)
    assert row[1].item() == pytest.approx(0.0005)
    assert row[2].item() == pytest.approx(0.30 + 0.005)  # centres at 0.29 and 0.59
    assert row[3].item() == pytest.approx(0.20 + 0.005)  # nose at 0.34, tail at 0.54
    assert row[7:].tolist() == pytest.approx([0.305, 0.305, 0.205, 0.405])  # nose to tail: 0.2, 0.4
    approach, *facing = kinematics.kinematics(torch.from_numpy(tracks), (0, 1))[4, 4:7].tolist()
    assert np.sinh(approach) * 0.0005 == pytest.approx(0.01)
    assert facing == pytest.approx([1, -1])


@pytest.mark.parametrize(
    ("keypoints", "axis"),
    [
        (("nose", "leftear", "rightear", "neck", "lefthip", "righthip", "tail"), (0, 6)),
        (("tail_base", "Snout"), (1, 0)),
        (("top", "body", "tail", "tail-m", "tail-e"), (0, 2)),
        (("head", "thorax", "abdomen"), (0, 2)),
        (("1", "2", "3"), None),
        (("nose", "ear"), None),
        (("tail",), None),
    ],
)
def test_front_and_back_are_guessed_from_names(keypoints, axis):
    features = Features(individuals=("a", "b"), keypoints=keypoints, space=("x", "y"))
    assert kinematics.body_axis(features) == axis


def test_front_and_back_are_set():
    features = Features(individuals=("a", "b"), keypoints=("1", "2"), space=("x", "y"))
    assert kinematics.body_axis(features, "2", "1") == (1, 0)
    with pytest.raises(ConfigError, match="'3'"):
        kinematics.body_axis(features, "3")
    with pytest.raises(ConfigError, match="'2' would be both the front and the back"):
        kinematics.body_axis(features, "2", "2")
    features = Features(individuals=("a", "b"), keypoints=("nose", "tail"), space=("x", "y"))
    with pytest.raises(ConfigError, match="'nose' would be both"):
        kinematics.body_axis(features, back="nose")


def test_the_task_needs_two_individuals():
    with pytest.raises(DataError, match="at least 2 individuals"):
        Kinematics().check(make_bank([9, 9], names(individuals=1)))


def test_the_task_keeps_its_contract():
    contracts.check_task(Kinematics)
    contracts.check_task(Kinematics, front="neck", back="tail")


def fitted(bank):
    task = Kinematics(front="point0", back="point2")
    task.fit(bank, bank)
    record, frame = bank.draw(np.random.default_rng(0).random(500))
    around = gather(bank, WindowIndex.plain(record, frame), task.around)
    task.standardise(around)
    return task, around


def test_labels_are_standardised():
    bank = make_bank([400, 300])
    task, around = fitted(bank)
    labels = task.measure(around).numpy()
    np.testing.assert_allclose(np.nanmean(labels, 0), 0, atol=1e-2)
    np.testing.assert_allclose(np.nanstd(labels, 0), 1, atol=1e-2)
    assert task.standardisation["names"] == task.names
    assert len(task.names) == len(task.standardisation["mean"]) == labels.shape[1]


@pytest.mark.parametrize("text", ["rotation:mode=none", "reflection", "translation:mode=none"])
def test_rigid_motions_leave_the_labels(text):
    (augmentation,) = augment.parse(text)
    assert augmentation.geometric
    bank = make_bank([200])
    task, around = fitted(bank)
    uniform = np.random.default_rng(1).random(
        (len(around), 1 + augmentation.columns(bank.features))
    )
    moved = augmentation.apply(around.clone(), uniform)
    assert not torch.allclose(moved, around)
    torch.testing.assert_close(
        task.measure(moved), task.measure(around), rtol=0, atol=5e-2, equal_nan=True
    )


def test_exchanged_animals_exchange_their_labels():
    (augmentation,) = augment.parse("all_perm_id")
    bank = make_bank([200])
    _, around = fitted(bank)
    exchanged = augmentation.apply(around.clone(), np.full((len(around), 2), 0.3))
    quantities = kinematics.kinematics(around, (0, 2))
    found = kinematics.kinematics(exchanged, (0, 2))
    order = [1, 0, 2, 3, 4, 6, 5, 7, 8, 10, 9]
    torch.testing.assert_close(found, quantities[..., order], equal_nan=True)


def test_noise_is_not_in_the_labels_but_geometry_is(tmp_path):
    kinds = {augment.AUGMENTATIONS.name_of(kind): kind.geometric for kind in
             (augment.AUGMENTATIONS[name] for name in augment.AUGMENTATIONS)}  # fmt: skip
    assert kinds == {
        "all_perm_ax": True, "all_perm_id": True, "blk_perm_id": False, "gauss_jitter": False,
        "kp_ablation": False, "reflection": True, "rotation": True, "scaling": True,
        "translation": True,
    }  # fmt: skip


def test_the_loss_of_parts_adds_up_and_missing_labels_count_nothing():
    bank = make_bank([200])
    task, around = fitted(bank)
    labels = task.measure(around[:40])
    labels[3, :5] = torch.nan
    logits = torch.randn(40, labels.shape[1], requires_grad=True)
    whole = task.loss(logits, labels)
    parts = (task.loss(logits[:20], labels[:20]) + task.loss(logits[20:], labels[20:])) / 2
    torch.testing.assert_close(whole, parts)
    (gradient,) = torch.autograd.grad(whole, logits)
    assert (gradient[3, :5] == 0).all()
    assert (gradient[3, 5:] != 0).any()
    counts = task.count(logits.detach(), labels)
    there = labels.isfinite()
    error = ((logits - labels)[there] ** 2).sum() / (labels[there] ** 2).sum()
    assert task.score_of(counts) == pytest.approx(max(0, 1 - error.item()), abs=1e-3)
    assert task.score_of(task.count(labels.nan_to_num(), labels)) == 1


def test_training_learns_them_and_keeps_their_scale(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_dataset(tmp_path / "data", [300, 200])
    main(["train_model", *TINY, "--task_ids=kinematics", "--set",
          "kinematics.front=point0,kinematics.back=point1",
          "--epochs=6", "--learning_rate=1e-2", "--schedule=cosine", "--warmup_epochs=0",
          "--save_history", "--run_id=a", "data"])  # fmt: skip
    config = yaml.safe_load((tmp_path / "models/a/model_config.yml").read_text())
    scale = config["targets"]["kinematics"]
    assert len(scale["names"]) == config["out_heads"]["kinematics"]["num_classes"] == 77
    history = (tmp_path / "models/a/training_history.csv").read_text().splitlines()
    column = history[0].split(",").index("kinematics_train_r2")
    scores = [float(line.split(",")[column]) for line in history[1:]]
    assert scores[-1] > max(0.2, scores[0])
    main(["export_embedder", "models/a/model_config.yml", "models/a/weights/weights_last.pt"])
    exported = yaml.safe_load((tmp_path / "models/a-embedder/model_config.yml").read_text())
    assert "targets" not in exported


def test_windows_and_labels_are_of_the_same_frames(tmp_path):
    """A window of the size of what is measured, without augmentation, gives its own labels."""
    bank = make_bank([300])
    task, _ = fitted(bank)
    window = Window(size=kinematics.AROUND.size, offset=kinematics.AROUND.offset)
    index, _ = task.sample(np.random.default_rng(0).random((20, 1)), bank, window)
    torch.testing.assert_close(gather(bank, index, window), gather(bank, index, task.around))
