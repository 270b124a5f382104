"""Tasks on annotations, models that start from others, and what evaluates and applies them."""

import csv
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import TINY, betman, names, walk, write_dataset, write_recording
from matplotlib.image import imread
from torch.nn import functional as F

from lisbet.cli import main, parse
from lisbet.core.yaml_files import read_yaml
from lisbet.distributed.failure_watch import distributed_session
from lisbet.models import model_dir
from lisbet.tasks import TASKS
from lisbet.tasks.multiclass import Multiclass
from lisbet.tasks.multilabel import Multilabel
from lisbet.training.inputs import TrainingInputs
from lisbet.training.strategies import strategy_of

EVENTS = "behavior,start_time,end_time\n"


@pytest.fixture
def annotated(tmp_path, monkeypatch):
    """Three recordings whose behaviour `right` is: the first animal is in the right half."""
    features = names()
    for number in range(3):
        tracks = walk(150, features, number)
        tracks[:, 0] += 60 * np.sign(np.sin(np.arange(150) / 12 + number))[:, None, None]
        place = tmp_path / "data" / f"r{number}"
        write_recording(place, tracks, features)
        is_right = tracks[:, 0, :, 0].mean(axis=1) > 50
        edges = np.flatnonzero(np.diff(np.r_[0, is_right.astype(int), 0]))
        rows = [f"right,{a / 30},{b / 30}\n" for a, b in edges.reshape(-1, 2)]
        (place / "annotations.csv").write_text(EVENTS + "".join(rows))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def train(*words, data="data"):
    main(["train_model", *TINY, "--annot_format=csv-events", *words, str(data)])


def model(run_id):
    folder = Path("models") / run_id
    return [str(folder / "model_config.yml"), str(folder / model_dir.WEIGHTS_LAST)]


def history(run_id):
    with open(f"models/{run_id}/training_history.csv") as stream:
        return [{k: float(v) for k, v in row.items()} for row in csv.DictReader(stream)]


def fails(*words, capsys) -> str:
    with pytest.raises(SystemExit) as caught:
        main([str(word) for word in words])
    assert caught.value.code == 2
    return capsys.readouterr().err


def setup_of(*words, data="data"):
    line = ["train_model", *TINY, "--annot_format=csv_events", *words, str(data)]
    return TrainingInputs.from_options(parse(line).options, torch.device("cpu"))


LEARN = ("--epochs=25", "--learning_rate=1e-2", "--warmup_epochs=0", "--save_history")


def test_behaviours_are_learned_annotated_and_evaluated(annotated, capsys):
    train("--task_ids=multiclass,multilabel,warp", "--run_id=a", *LEARN)
    last = history("a")[-1]
    assert last["multiclass_train_f1"] > 0.9
    assert last["multilabel_train_f1"] > 0.9
    config = read_yaml(Path(model("a")[0]))
    assert config["behaviors"] == {"multiclass": ["right", "other"], "multilabel": ["right"]}
    assert config["out_heads"]["multiclass"] == {
        "output_token_idx": -1, "input_dim": 8, "num_classes": 2, "hidden_dim": 16,
    }  # fmt: skip

    main(["annotate_behavior", "data", *model("a"), "--task=multiclass"])
    for number in range(3):
        table = pd.read_csv(f"annotations/r{number}/machineAnnotation_lisbet.csv", index_col=0)
        assert list(table.columns) == ["right", "other"]
        assert len(table) == 150
        assert (table.sum(axis=1) == 1).all()

    main(["evaluate_model", "data", *model("a"), "--task=multiclass", "--annot_format=csv_events"])
    report = read_yaml(Path("evaluations/a/evaluation_report.yml"))
    assert report["macro_f1"] > 0.9
    assert report["frames"] == 450
    assert set(report["classes"]) == {"right", "other"}
    confusion = pd.read_csv("evaluations/a/confusion_matrix.csv", index_col=0)
    assert confusion.to_numpy().sum() == 450
    assert imread("evaluations/a/confusion_matrix.png").std() > 0.05
    assert "macro_f1" in capsys.readouterr().out

    main(["evaluate_model", "data", *model("a"), "--task=multilabel", "--annot_format=csv_events",
          "--overwrite"])  # fmt: skip
    report = read_yaml(Path("evaluations/a/evaluation_report.yml"))
    assert report["classes"]["right"]["average_precision"] > 0.9


def test_losses_and_weights_are_those_of_the_specification(annotated):
    setup = setup_of("--task_ids=multiclass,multilabel", "--run_id=a")
    bank = setup.train.banks["multiclass"]
    active = bank.active()[:, 0]
    n, positives = len(active), active.sum()
    logits = torch.randn(16, 2)
    labels = torch.arange(16) % 2
    weight = torch.tensor([n / (2 * positives), n / (2 * (n - positives))])
    expected = (
        sum(
            weight[y] * F.cross_entropy(row[None], y[None])
            for row, y in zip(logits, labels, strict=True)
        )
        / 16
    )
    torch.testing.assert_close(setup.tasks["multiclass"].loss(logits, labels), expected.float())
    halves = [setup.tasks["multiclass"].loss(logits[i::2], labels[i::2]) for i in range(2)]
    torch.testing.assert_close(sum(halves) / 2, expected.float())
    yes = (torch.rand(16, 1) < 0.5).float()
    expected = F.binary_cross_entropy_with_logits(
        logits[:, :1], yes, pos_weight=torch.tensor([n / (2 * positives)])
    )
    torch.testing.assert_close(setup.tasks["multilabel"].loss(logits[:, :1], yes), expected)


def test_a_sample_is_the_window_of_its_frame_with_the_label_of_its_frame(annotated):
    setup = setup_of("--task_ids=multiclass", "--window_offset=3")
    windows, labels = setup.train.batch(0, 0, slice(0, 16))["multiclass"]
    bank = setup.train.banks["multiclass"]
    rows = bank.tracks.flatten(1)
    targets = windows[:, -4].flatten(1)
    for target, label in zip(targets, labels, strict=True):
        (row,) = torch.nonzero((rows == target).all(1))
        assert label == (0 if bank.labels[row.item(), 0] else 1)


def test_mixed_with_self_supervised_tasks_on_several_datasets(annotated):
    write_dataset(annotated / "unlabelled", [60, 70, 80])
    train("--task_ids=multiclass,order", "--task_data=multiclass:[0],order:[0,1]", "--epochs=1",
          "--run_id=a", "--save_history", "--dev_ratio=0.34",
          data="data,unlabelled")  # fmt: skip
    run = read_yaml(Path("models/a/run_config.yml"))
    assert {i.split("/")[0] for i in run["data"]["split"]["train"]} == {"data", "unlabelled"}
    assert len(run["data"]["split"]["dev"]) == 2, "one recording held out of each dataset"
    setup = setup_of("--task_ids=multiclass,order", "--task_data=multiclass:[0]", "--run_id=b",
                     data="data,unlabelled")  # fmt: skip
    assert setup.train.banks["multiclass"].frames == 450
    assert setup.train.banks["order"].frames == 450 + 210
    assert setup.train.steps == -(-450 // 16)


def test_starting_from_another_backbone(annotated, caplog, capsys):
    train("--task_ids=order,warp", "--run_id=pre", "--epochs=2")
    train("--task_ids=multilabel", "--run_id=frozen", "--epochs=2", "--freeze_backbone_weights",
          f"--load_backbone_weights={model('pre')[1]}")  # fmt: skip
    said = capsys.readouterr().err
    assert "17 of 17 tensors of the backbone are from" in said
    assert "heads are never taken: order, warp" in said
    pre, frozen = (torch.load(model(name)[1], weights_only=True) for name in ("pre", "frozen"))
    for key, value in frozen.items():
        if key.startswith("backbone."):
            assert torch.equal(value, pre[key])
    train("--task_ids=multilabel", "--run_id=tuned", "--epochs=2",
          f"--load_backbone_weights={model('pre')[1]}")  # fmt: skip
    tuned = torch.load(model("tuned")[1], weights_only=True)
    assert not torch.equal(
        tuned["backbone.frame_embedder.weight"], pre["backbone.frame_embedder.weight"]
    )


def test_freezing_without_loading_is_a_warning(annotated, capsys):
    train("--task_ids=multilabel", "--run_id=a", "--epochs=1", "--freeze_backbone_weights")
    assert "the frozen backbone has random weights" in capsys.readouterr().err


def test_weights_that_do_not_fit(annotated, capsys):
    train("--task_ids=warp", "--run_id=pre", "--epochs=1")
    path = f"--load_backbone_weights={model('pre')[1]}"
    command = ["train_model", *TINY, "--task_ids=warp", "--run_id=x", path]
    said = fails(*command, "--set=backbone.embedding_dim=16", "data", capsys=capsys)
    assert "does not fit the backbone" in said
    assert "frame_embedder.weight has shape (8, 12) instead of (16, 12)" in said
    said = fails(
        "train_model",
        "--task_ids=warp",
        "--run_id=x",
        path,
        "--backbone_preset=tcn-base",
        "data",
        capsys=capsys,
    )
    assert "none of the backbone's tensors" in said
    assert not (annotated / "models" / "x").exists()
    said = fails(*command[:-1], "--load_backbone_weights=nowhere.pt", "data", capsys=capsys)
    assert "no such file" in said


def test_which_weights_are_kept(annotated):
    train("--task_ids=warp", "--run_id=all", "--epochs=3", "--save_weights=all")
    kept = sorted(path.name for path in (annotated / "models/all/weights").iterdir())
    assert kept == [f"weights_epoch{n}.pt" for n in range(3)] + ["weights_last.pt"]
    train("--task_ids=warp,multilabel", "--run_id=best", "--save_weights=best", "--dev_ratio=0.34",
          "--epochs=6", "--learning_rate=0.05", "--warmup_epochs=0", "--save_history")  # fmt: skip
    kept = sorted(path.name for path in (annotated / "models/best/weights").iterdir())
    assert kept == ["weights_best.pt", "weights_last.pt"]
    # The best weights are those of the epoch with the lowest held-out loss: score them again.
    rows = history("best")
    lowest = min(rows, key=lambda row: row["dev_loss"])
    setup = setup_of("--task_ids=warp,multilabel", "--dev_ratio=0.34", "--run_id=again")
    from lisbet.training.evaluate import evaluate

    _, best = model_dir.load_model(
        annotated / "models/best/model_config.yml",
        annotated / "models/best/weights/weights_best.pt",
    )
    found = evaluate(best, setup.dev, [slice(0, 16)], lambda: False)
    assert found["dev_loss"] == pytest.approx(lowest["dev_loss"], rel=1e-5)


def test_a_dry_run_says_everything_and_writes_nothing(annotated, capsys):
    before = sorted(annotated.rglob("*"))
    train("--task_ids=multiclass", "--run_id=a", "--dry_run")
    said = capsys.readouterr().out
    for part in ("run_id: a", "3 recordings, 450 frames", "classes right, other", "dry run"):
        assert part in said
    assert sorted(annotated.rglob("*")) == before


def test_the_run_config_is_resolved(annotated):
    main(["train_model", "--task_ids=warp", "--run_id=a", "--epochs=1", "--window_size=8",
          "--backbone_preset=lstm-base", "--set=backbone.num_layers=1", "data"])  # fmt: skip
    resolved = read_yaml(Path("models/a/run_config.yml"))["options"]
    sizes = [resolved[name] for name in ("emb_dim", "num_layers", "num_heads", "hidden_dim")]
    assert sizes == [32, 1, None, 64]
    assert resolved["mixed_precision"] == "no"


def test_a_single_recording_of_several_datasets_is_trained_on(annotated, capsys):
    write_dataset(annotated / "single", [60])
    train("--task_ids=warp", "--run_id=a", "--epochs=1", "--dev_ratio=0.34", data="data,single")
    assert "single has a single recording" in capsys.readouterr().err
    assert len(read_yaml(Path("models/a/run_config.yml"))["data"]["split"]["dev"]) == 1


def test_evaluations_do_not_remove_each_other(annotated):
    train("--task_ids=multilabel", "--run_id=a", "--epochs=1")
    kept = annotated / "evaluations" / "a" / "mine"
    kept.parent.mkdir(parents=True)
    kept.touch()
    main(["evaluate_model", "data", *model("a"), "--annot_format=csv_events"])
    assert kept.exists()


def test_inference_puts_names_in_the_models_order(annotated):
    train("--task_ids=multilabel", "--run_id=a", "--epochs=1", "--data_scale=minmax")
    main(["annotate_behavior", "data", *model("a")])
    swapped = names().model_copy(update={"individuals": ("mouse1", "mouse0")})
    tracks = walk(150, names(), 7)
    for folder, features, values in (
        ("plain", names(), tracks), ("swapped", swapped, tracks[:, ::-1]),
    ):  # fmt: skip
        write_recording(annotated / folder / "r", values, features)
        main(["annotate_behavior", folder, *model("a"), f"--output_path=out_{folder}"])
    one, other = (
        Path(f"out_{name}/annotations/r/machineAnnotation_lisbet.csv").read_text()
        for name in ("plain", "swapped")
    )
    assert one == other


def test_a_run_is_repeated_from_its_run_config(annotated):
    train("--task_ids=multilabel,warp", "--run_id=007", "--epochs=2", "--dev_ratio=0.34",
          "--data_augmentation=all_perm_id:p=0.5", "--select_coords=*;x,y;*")  # fmt: skip
    main(["train_model", "--config=models/007/run_config.yml", "--run_id=again"])
    one, other = (torch.load(model(name)[1], weights_only=True) for name in ("007", "again"))
    assert all(torch.equal(one[key], other[key]) for key in one)
    (annotated / "more.yml").write_text("epochs: 1\nseed: 3\ndata_path: data\n")
    options = parse(["train_model", "--config=more.yml", "--seed=4"]).options
    assert (options.epochs, options.seed) == (1, 4)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("epoch: 3\n", "did you mean 'epochs'"),
        ("epochs: many\n", "--epochs=many"),
        ("- 1\n", "no mapping"),
        ("options: 3\n", "'options' is no mapping"),
        ("a: [\n", "is not YAML"),
    ],
)
def test_option_files_that_cannot_be_read(annotated, text, message, capsys):
    (annotated / "c.yml").write_text(text)
    assert message in fails("train_model", "--config=c.yml", "data", capsys=capsys)
    assert "no such file" in fails("train_model", "--config=d.yml", "data", capsys=capsys)


def test_mixed_precision(annotated):
    command = ["train_model", *TINY, "--task_ids=warp", "--epochs=1", "-v", "data"]
    done = betman(*command, "--run_id=bf16", "--mixed_precision=bf16", cwd=annotated)
    assert "mixed precision bf16" in done.stderr
    weights = torch.load(model("bf16")[1], weights_only=True)
    assert {value.dtype for value in weights.values()} == {torch.float32}
    if not torch.cuda.is_available():
        done = betman(*command, "--run_id=x", "--mixed_precision=fp16", cwd=annotated)
        assert done.returncode == 2
        assert "needs a GPU" in done.stderr
        done = betman(*command[:-1], "--run_id=x", "--mixed_precision", "data", cwd=annotated)
        assert "mixed precision no" in done.stderr


def test_clipping_shortens_the_gradient(annotated):
    """To the given norm if it is longer, and not at all otherwise."""
    layer = torch.nn.Linear(2, 1, bias=False)
    with distributed_session("no") as accelerator:
        for clip, left in ((1.0, [0.6, 0.8]), (10.0, [3.0, 4.0]), (None, [3.0, 4.0])):
            layer.weight.grad = torch.tensor([[3.0, 4.0]])
            strategy = strategy_of(accelerator)
            strategy.model = layer
            assert strategy.clip_gradient(clip) == 5
            torch.testing.assert_close(layer.weight.grad, torch.tensor([left]))
    common = ("--task_ids=warp", "--epochs=2", "--learning_rate=1e-2", "--warmup_epochs=0")
    train(*common, "--run_id=free")
    train(*common, "--run_id=long", "--clip_grad_norm=1e6")
    train(*common, "--run_id=clipped", "--clip_grad_norm=1e-9")
    free, long, clipped = (
        torch.load(model(name)[1], weights_only=True) for name in ("free", "long", "clipped")
    )
    assert all(torch.equal(value, long[key]) for key, value in free.items())
    # Adam divides by the gradient's size, but for an epsilon of 1e-8: then it hardly moves.
    key = "task_heads.warp.logits.linear1.weight"
    assert (clipped[key] - free[key]).abs().max() > 1e-3


def test_inference_at_another_frame_rate(annotated):
    """A model applied to recordings of twice the rate sees what it would at its own."""
    train("--task_ids=multilabel", "--run_id=a", "--epochs=1")
    main(["export_embedder", *model("a")])
    features = names()
    for name, step in (("slow", 1), ("fast", 2)):
        tracks = walk(40, features, 9)
        frames = np.arange(0, 39 + 1e-9, 1 / step)
        fine = np.stack(
            [np.interp(frames, np.arange(40), c) for c in tracks.reshape(40, -1).T], axis=1
        )
        write_recording(annotated / name / "r", fine.reshape(-1, *features.shape), features)
        main(["compute_embeddings", name, *model("a-embedder"), f"--output_path=out_{name}",
              "--data_scale=200x200", f"--fps_scaling={step}",
              "--override_preparation"])  # fmt: skip
    slow, fast = (
        pd.read_csv(f"out_{name}/embeddings/r/features_lisbet_embedding.csv", index_col=0)
        for name in ("slow", "fast")
    )
    assert (len(slow), len(fast)) == (40, 79)
    # 24 frames at twice the rate span 11.5 of the model's, not 11: near, not equal.
    near = np.abs(fast.to_numpy()[::2][12:] - slow.to_numpy()[12:]).mean()
    far = np.abs(fast.to_numpy()[12:40] - slow.to_numpy()[12:]).mean()
    assert near < far / 2


# What is refused ---------------------------------------------------------------------------------


def test_overlapping_behaviours_are_refused_for_multiclass_only(annotated, capsys):
    file = annotated / "data" / "r1" / "annotations.csv"
    file.write_text(EVENTS + "left,0.1,0.5\nright,0.4,0.9\n")
    command = ["train_model", *TINY, "--annot_format=csv_events", "--epochs=1", "--run_id=a"]
    said = fails(*command, "--task_ids=multiclass", "data", capsys=capsys)
    assert "in r1 frame 12 has left and right (3 frames have several)" in said
    main([*command, "--task_ids=multilabel", "data"])


def test_a_supervised_task_without_annotations(annotated, capsys):
    (annotated / "data" / "r1" / "annotations.csv").unlink()
    said = fails("train_model", *TINY, "--annot_format=csv_events", "--task_ids=multiclass", "data",
                 capsys=capsys)  # fmt: skip
    assert "r1: expected one annotation file" in said
    for number in (0, 2):
        (annotated / "data" / f"r{number}" / "annotations.csv").write_text(EVENTS)
    (annotated / "data" / "r1" / "annotations.csv").write_text(EVENTS)
    said = fails("train_model", *TINY, "--annot_format=csv_events", "--task_ids=multilabel", "data",
                 capsys=capsys)  # fmt: skip
    assert "name no behaviour" in said


def test_a_model_that_cannot_annotate(annotated, capsys):
    train("--task_ids=warp", "--run_id=a", "--epochs=1")
    said = fails("annotate_behavior", "data", *model("a"), capsys=capsys)
    assert "was not trained to recognise behaviours" in said
    said = fails("annotate_behavior", "data", *model("a"), "--task=multilabel", capsys=capsys)
    assert "was not trained to recognise behaviours" in said


def test_evaluations_that_cannot_be(annotated, capsys):
    train("--task_ids=multilabel", "--run_id=a", "--epochs=1")
    common = ["evaluate_model", "data", *model("a"), "--annot_format=csv_events"]
    said = fails(*common, "--ignore_index=1", capsys=capsys)
    assert "only 1 classes" in said
    file = annotated / "data" / "r1" / "annotations.csv"
    file.write_text(EVENTS + "jump,0.1,0.5\n")
    assert "the annotations name jump" in fails(*common, capsys=capsys)
    assert not (annotated / "evaluations").exists()


# The figures of a report, counted by hand --------------------------------------------------------


def test_a_multiclass_report_counted_by_hand():
    actual = np.array([0, 0, 0, 1, 1, 2, 2, 2])
    predicted = np.array([0, 1, 2, 1, 1, 2, 0, 2])
    logits = np.eye(3)[predicted] * 4
    report, confusion = Multiclass.report(
        np.eye(3, dtype=bool)[actual], logits, ["a", "b", "c"], None
    )
    assert report["accuracy"] == 5 / 8
    assert report["classes"]["a"]["precision"] == 1 / 2
    assert report["classes"]["a"]["recall"] == pytest.approx(1 / 3)
    assert report["classes"]["b"]["f1"] == pytest.approx(2 * (2 / 3) / (1 + 2 / 3))
    means = np.mean([report["classes"][name]["f1"] for name in "abc"])
    assert report["macro_f1"] == pytest.approx(means)
    assert confusion.to_numpy().tolist() == [[1, 1, 1], [0, 2, 0], [1, 0, 2]]
    # Class c does not count: its frames are gone, and calling an `a` a `c` is still a mistake.
    report, confusion = Multiclass.report(np.eye(3, dtype=bool)[actual], logits, ["a", "b", "c"], 2)
    assert report["accuracy"] == 3 / 5
    assert set(report["classes"]) == {"a", "b"}
    assert report["classes"]["a"]["precision"] == 1
    assert report["classes"]["a"]["recall"] == pytest.approx(1 / 3)
    assert confusion.to_numpy().tolist() == [[1, 1, 1], [0, 2, 0]]
    assert list(confusion.index) == ["a", "b"]


def test_a_multilabel_report_counted_by_hand():
    truth = np.array([[1, 0], [1, 1], [0, 0], [0, 1]], bool)
    logits = np.array([[1, -1], [-1, 2], [2, -1], [-3, 1]], float)
    report, confusion = Multilabel.report(truth, logits, ["a", "b"], None)
    assert report["accuracy"] == 6 / 8
    assert report["classes"]["a"]["f1"] == 0.5
    assert report["classes"]["b"]["average_precision"] == 1
    assert confusion.loc["a"].tolist() == [1, 1, 1, 1]
    report, confusion = Multilabel.report(truth, logits, ["a", "b"], 0)
    assert report["accuracy"] == 1
    assert report["macro_f1"] == 1
    assert list(confusion.index) == ["b"]


def test_means_over_classes_that_never_come_up_are_undefined():
    truth = np.array([[1, 0, 0], [0, 1, 0]], bool)
    report, _ = Multiclass.report(truth, truth * 5.0, ["a", "b", "c"], None)
    assert report["macro_f1"] is None
    assert "where it is defined is 1.000" in report["undefined"]["macro_f1"]
    assert report["classes"]["c"]["average_precision"] is None


def test_supervised_tasks_are_marked_so():
    assert {name for name, task in TASKS.items() if task.supervised} == {"multiclass", "multilabel"}
