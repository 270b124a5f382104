"""Training from one command: what it writes, what it refuses, and that it repeats itself."""

import csv
import json
import math
import os
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from conftest import TINY, betman, names, walk, write_dataset, write_recording
from torch.optim.lr_scheduler import CosineAnnealingWarmRestarts

from lisbet.cli import main, parse
from lisbet.core.errors import ConfigError, DataError
from lisbet.models import model_dir
from lisbet.training.datasets.batching import Batching
from lisbet.training.datasets.sampler import split
from lisbet.training.logging.status import read_status
from lisbet.training.optim import EagerAdamW, Schedule

GOLDEN = Path(__file__).parent / "golden_losses.json"


def train(*words, data, cwd, monkeypatch):
    monkeypatch.chdir(cwd)
    main(["train_model", *TINY, *map(str, words), str(data)])


def history(folder: Path) -> list[dict[str, float]]:
    with (folder / "training_history.csv").open() as stream:
        return [{key: float(value) for key, value in row.items()} for row in csv.DictReader(stream)]


def files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_what_a_run_leaves(dataset, tmp_path, monkeypatch, capsys):
    train("--run_id=a", "--epochs=2", "--dev_ratio=0.5", "--save_history", "-v",
          data=dataset, cwd=tmp_path, monkeypatch=monkeypatch)  # fmt: skip
    folder = tmp_path / "models" / "a"
    checkpoints = [file for file in files(folder) if file.startswith("checkpoints/")]
    assert [file for file in files(folder) if file not in checkpoints] == [
        ".lisbet.jsonl", "README.md", "events.jsonl", "model_config.yml", "run_config.yml",
        "status.json", "training_history.csv", "weights/weights_last.pt",
    ]  # fmt: skip
    assert len({Path(file).parent for file in checkpoints}) == 2
    config = yaml.safe_load((folder / "model_config.yml").read_text())
    assert config == {
        "model_id": "a",
        "backbone": {
            "type": "transformer", "feature_dim": 12, "embedding_dim": 8, "hidden_dim": 16,
            "num_heads": 2, "num_layers": 1, "max_length": 12,
        },
        "input_features": {
            "individuals": ["mouse0", "mouse1"],
            "keypoints": ["point0", "point1", "point2"],
            "space": ["x", "y"],
        },
        "out_heads": {
            task: {"input_dim": 8, "hidden_dim": 16, "num_classes": 1}
            for task in ("cons", "order", "shift", "warp")
        },
        "window_size": 12,
        "window_offset": 0,
        "preparation": {"data_scale": "minmax", "fps": 30.0},
    }  # fmt: skip
    weights = torch.load(folder / "weights" / "weights_last.pt", weights_only=True)
    assert {str(value.dtype) for value in weights.values()} == {"torch.float32"}
    assert {value.device.type for value in weights.values()} == {"cpu"}
    run = yaml.safe_load((folder / "run_config.yml").read_text())
    assert run["options"]["task_ids"] == "cons,order,shift,warp"
    assert set(run["data"]["split"]["train"]) | set(run["data"]["split"]["dev"]) == {
        "r0", "r1", "r2", "r3",
    }  # fmt: skip
    assert run["data"]["preparation"]["r0"][0].startswith("scaled from")
    rows = history(folder)
    assert [row["epoch"] for row in rows] == [0, 1]
    for row in rows:
        for part in ("train", "dev"):
            total = sum(
                row[f"{task}_{part}_loss"] for task in run["options"]["task_ids"].split(",")
            )
            assert row[f"{part}_loss"] == pytest.approx(total, rel=1e-5)
            assert 0 <= row[f"warp_{part}_accuracy"] <= 1
    said = capsys.readouterr()
    assert "4 recordings, 198 frames" in said.err
    assert "epoch 2/2" in said.err
    assert "model written to models/a" in said.out


def test_the_metrics_are_over_every_batch(dataset, tmp_path, monkeypatch):
    """Counted again here, from the samplers and the weights that a run of no progress leaves."""
    train("--run_id=a", "--learning_rate=1e-30", "--dev_ratio=0.5", "--save_history", "--epochs=1",
          data=dataset, cwd=tmp_path, monkeypatch=monkeypatch)  # fmt: skip
    from lisbet.cli import parse
    from lisbet.training.inputs import TrainingInputs

    folder = tmp_path / "models" / "a"
    line = ["train_model", *TINY, "--run_id=b", "--dev_ratio=0.5", str(dataset)]
    setup = TrainingInputs.from_options(parse(line).options, torch.device("cpu"))
    _, model = model_dir.load_model(folder / "model_config.yml", folder / model_dir.WEIGHTS_LAST)
    (row,) = history(folder)
    for sampler in setup.samplers:
        right, losses = {task: [] for task in setup.tasks}, {task: [] for task in setup.tasks}
        for step in range(sampler.steps):
            batch = sampler.batch(0, step, slice(0, 16))
            with torch.no_grad():
                logits = model({task: windows for task, (windows, _) in batch.items()})
            for task, (_, labels) in batch.items():
                answer = logits[task][:, 0]
                right[task] += ((answer > 0) == (labels == 1)).tolist()
                losses[task] += torch.nn.functional.binary_cross_entropy_with_logits(
                    answer, labels, reduction="none"
                ).tolist()
        assert sampler.steps > 1
        for task in setup.tasks:
            expected = np.mean(right[task])
            assert row[f"{task}_{sampler.part}_accuracy"] == pytest.approx(expected)
            loss = row[f"{task}_{sampler.part}_loss"]
            assert loss == pytest.approx(np.mean(losses[task]), rel=1e-4)


def test_same_command_same_weights(dataset, tmp_path, monkeypatch):
    for name in ("a", "b"):
        train(f"--run_id={name}", "--epochs=2", data=dataset, cwd=tmp_path, monkeypatch=monkeypatch)
    one, other = (
        torch.load(tmp_path / "models" / name / model_dir.WEIGHTS_LAST, weights_only=True)
        for name in ("a", "b")
    )
    assert all(torch.equal(one[key], other[key]) for key in one)
    train("--run_id=c", "--epochs=2", "--seed=5", data=dataset, cwd=tmp_path,
          monkeypatch=monkeypatch)  # fmt: skip
    third = torch.load(tmp_path / "models/c" / model_dir.WEIGHTS_LAST, weights_only=True)
    assert not torch.equal(one["backbone.frame_embedder.weight"],
                           third["backbone.frame_embedder.weight"])  # fmt: skip


def test_the_losses_are_as_they_always_were(tmp_path, monkeypatch):
    """A golden trace: a change here changes every model.

    Only where that is meant, LISBET_NEW_GOLDEN=1 writes it anew.
    """
    data = write_dataset(tmp_path / "data", [300, 200, 250])
    train("--run_id=a", "--epochs=4", "--learning_rate=3e-3", "--warmup_epochs=1",
          "--dev_ratio=0.3",
          "--task_ids=order,shift,warp", "--save_history",
          data=data, cwd=tmp_path, monkeypatch=monkeypatch)  # fmt: skip
    found = {
        key: [row[key] for row in history(tmp_path / "models" / "a")]
        for key in ("train_loss", "dev_loss", "learning_rate")
    }
    if os.environ.get("LISBET_NEW_GOLDEN"):
        GOLDEN.write_text(json.dumps(found, indent=1) + "\n")
    golden = json.loads(GOLDEN.read_text())
    assert found.keys() == golden.keys()
    for key, values in golden.items():
        # Other processors and numbers of threads round differently, which the epochs amplify.
        np.testing.assert_allclose(found[key][:3], values[:3], rtol=1e-4)
        np.testing.assert_allclose(found[key], values, rtol=1e-3)


def test_batches_do_not_depend_on_how_they_are_shared_out(dataset):
    from lisbet.cli import parse
    from lisbet.training.inputs import TrainingInputs

    line = ["train_model", *TINY, str(dataset)]
    sampler = TrainingInputs.from_options(parse(line).options, torch.device("cpu")).train
    whole = sampler.batch(3, 1, slice(0, 16))
    for processes, micro in ((2, None), (2, 2), (4, 1)):
        shared = Batching.of(16, processes, micro)
        parts = [
            sampler.batch(3, 1, rows)
            for rank in range(processes)
            for rows in shared.micro_batches(rank)
        ]
        for task, (windows, labels) in whole.items():
            assert torch.equal(torch.cat([part[task][0] for part in parts]), windows)
            assert torch.equal(torch.cat([part[task][1] for part in parts]), labels)
    assert not torch.equal(whole["warp"][0], sampler.batch(4, 1, slice(0, 16))["warp"][0])
    assert not torch.equal(whole["warp"][0], sampler.batch(3, 2, slice(0, 16))["warp"][0])


def test_a_batch_that_does_not_divide():
    with pytest.raises(ConfigError, match="nearest that do: 8, 16"):
        Batching.of(15, 8, None)
    with pytest.raises(ConfigError, match="nearest that do: 8"):
        Batching.of(3, 8, None)


def test_the_schedule_is_that_of_torch():
    steps, warmup = 7, 5
    weight = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([weight], lr=1.0)
    theirs = CosineAnnealingWarmRestarts(optimizer, T_0=10, T_mult=2)
    ours = Schedule("restarts", steps, 100, warmup * steps)
    for epoch in range(35):
        for step in range(steps):
            theirs.step(epoch + step / steps)
            found = ours.factor((warmup + epoch) * steps + step)
            assert found == pytest.approx(optimizer.param_groups[0]["lr"], abs=1e-9)
    assert ours.factor(0) == 0.01
    assert ours.factor(35 * steps // 14) == pytest.approx(0.01 + 0.99 * 17 / 35)
    assert Schedule("restarts", steps, 100, 0).factor(0) == 1


def test_one_cosine_ends_at_zero():
    """4 epochs of 25 steps, of which 3 % warm up: 97 steps from the peak to zero."""
    options = parse(["train_model", "--schedule=cosine", "--warmup_share=0.03", "--epochs=4",
                     "data"]).options  # fmt: skip
    schedule = Schedule.of(options, 25)
    assert schedule.warmup == 3
    assert [schedule.factor(n) for n in (0, 1, 3)] == pytest.approx([0.01, 0.34, 1.0])
    assert schedule.factor(3 + 48) + schedule.factor(3 + 49) == pytest.approx(1)  # about the middle
    assert schedule.factor(99) == pytest.approx((1 - math.cos(math.pi / 97)) / 2)
    assert schedule.factor(100) == 0


def test_a_run_whose_rate_depends_on_its_length_is_not_extended(dataset, tmp_path, monkeypatch,
                                                                capsys):  # fmt: skip
    monkeypatch.chdir(tmp_path)
    line = ["train_model", *TINY, "--schedule=cosine", "--task_ids=order", "--run_id=a",
            "--resume", str(dataset)]  # fmt: skip
    main([*line, "--epochs=2"])
    capsys.readouterr()
    with pytest.raises(SystemExit):
        main([*line, "--epochs=3"])
    assert "--epochs: was 2, is 3: the learning rate depends on it" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main([*line, "--epochs=2", "--warmup_share=0.1", "--warmup_epochs=1"])
    assert "both set the warm-up" in capsys.readouterr().err


def test_the_split_is_by_recording():
    ids = tuple(f"r{n}" for n in range(10))
    train_ids, dev_ids = split(ids, 0.3, seed=1)
    assert len(dev_ids) == 3
    assert sorted(train_ids + dev_ids) == sorted(ids)
    assert split(ids, 0.3, seed=1)[1] == dev_ids
    assert any(split(ids, 0.3, seed=seed)[1] != dev_ids for seed in range(2, 5))
    assert split(ids, None, seed=1) == (ids, ())
    assert len(split(ids, 0.01, seed=1)[1]) == 1
    with pytest.raises(DataError, match="leaves none to train on"):
        split(ids, 1.0, seed=1)


def test_linear_heads_and_other_backbones(dataset, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    common = ["train_model", "--window_size=12", "--epochs=1", "--batch_size=32", str(dataset)]
    main([*common, "--run_id=lstm", "--backbone_preset=lstm-base", "--head_type=linear"])
    main([*common, "--run_id=tcn", "--backbone_preset=tcn-base",
          "--set=backbone.kernel_size=2,backbone.dilation_base=2,"
          "order.negatives=simple"])  # fmt: skip
    for name in ("lstm", "tcn"):
        folder = tmp_path / "models" / name
        config, _ = model_dir.load_model(
            folder / "model_config.yml", folder / model_dir.WEIGHTS_LAST
        )
        assert config.backbone["type"] == name
        assert config.out_heads["cons"].hidden_dim == (None if name == "lstm" else 64)
    assert config.backbone["kernel_size"] == 2


# Bad input: one message, exit code 2, nothing written -------------------------------------------


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--set=backbone.num_heads=3"], "num_heads (3) must divide the embedding's size (8"),
        (["--set=backbone.kernel_size=3"], "a transformer has no setting kernel_size; it has"),
        (["--set=order.negatives=easy"], "task 'order': negatives"),
        (["--set=order.size=3"], "task 'order' has no setting size; it has negatives"),
        (["--data_filter=r0"], "there is only 1 (r0)"),
        (["--dev_ratio=1"], "leaves none to train on"),
        (["--dev_ratio=0.1"], "dev part"),
        (["--select_coords=mouse0;*;*"], "at least 2 individuals"),
        (["--data_scale=50x50"], "said to be 50"),
        (["--output_path=data/r0/tracking.nc"], "choose another --output_path"),
        (["--output_path=/proc/nowhere"], "choose another --output_path"),
        (["--data_format=DLC"], "1 of movement"),
    ],
)
def test_refused_before_anything_is_written(words, message, tmp_path, monkeypatch, capsys):
    write_dataset(tmp_path / "data", [30, 40, 50])
    before = files(tmp_path)
    if "--data_format=DLC" in words:
        message = "3 of movement"
    with pytest.raises(SystemExit) as caught:
        train(*words, data=tmp_path / "data", cwd=tmp_path, monkeypatch=monkeypatch)
    said = capsys.readouterr().err
    assert caught.value.code == 2
    assert message in said
    assert said.count("betman: error") == 1
    assert files(tmp_path) == before
    assert not (tmp_path / "models").exists()


def test_an_existing_run_is_kept_unless_it_is_to_be_replaced(
    dataset, tmp_path, monkeypatch, capsys
):
    train("--run_id=a", "--epochs=1", data=dataset, cwd=tmp_path, monkeypatch=monkeypatch)
    weights = tmp_path / "models" / "a" / model_dir.WEIGHTS_LAST
    before = weights.read_bytes()
    with pytest.raises(SystemExit) as caught:
        train("--run_id=a", data=dataset, cwd=tmp_path, monkeypatch=monkeypatch)
    assert caught.value.code == 2
    assert "models/a exists already" in capsys.readouterr().err
    assert weights.read_bytes() == before
    train("--run_id=a", "--epochs=1", "--seed=3", "--overwrite",
          data=dataset, cwd=tmp_path, monkeypatch=monkeypatch)  # fmt: skip
    assert weights.read_bytes() != before
    assert [path.name for path in (tmp_path / "models").iterdir()] == ["a"]


def test_an_overwrite_that_is_interrupted_leaves_the_earlier_model(dataset, tmp_path, monkeypatch):
    train("--run_id=a", "--epochs=1", data=dataset, cwd=tmp_path, monkeypatch=monkeypatch)
    models = tmp_path / "models"
    before = (models / "a" / model_dir.WEIGHTS_LAST).read_bytes()

    def interrupted(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(model_dir, "save_weights", interrupted)
        for failed in ("a.failed", "a.failed2"):
            with pytest.raises(SystemExit) as caught:
                train("--run_id=a", "--epochs=1", "--overwrite",
                      data=dataset, cwd=tmp_path, monkeypatch=monkeypatch)  # fmt: skip
            assert caught.value.code == 130
            assert (models / "a" / model_dir.WEIGHTS_LAST).read_bytes() == before
            assert read_status(models / failed)["state"] == "failed"
    train("--run_id=a", "--epochs=1", "--overwrite",
          data=dataset, cwd=tmp_path, monkeypatch=monkeypatch)  # fmt: skip
    assert {path.name for path in models.iterdir()} == {"a", "a.failed", "a.failed2"}


def fill(path: Path) -> None:
    """Write to a file until the disk is full."""
    handle = os.open(path, os.O_CREAT | os.O_WRONLY)
    with pytest.raises(OSError, match="No space left"):
        while os.write(handle, bytes(1024)):
            pass
    os.close(handle)


def test_a_full_disk_keeps_the_earlier_model(dataset, tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=200k", "tmpfs", str(disk)],
        capture_output=True, check=False,
    )  # fmt: skip
    if mounted.returncode:
        pytest.skip("mounting a small disk needs root")
    try:
        command = ["train_model", *TINY, "--run_id=a", "--epochs=1", dataset]
        assert betman(*command, cwd=disk).returncode == 0
        weights = disk / "models" / "a" / model_dir.WEIGHTS_LAST
        before = weights.read_bytes()
        fill(disk / "filler")
        done = betman(*command, "--overwrite", cwd=disk)
        assert done.returncode == 2
        assert "No space left on device" in done.stderr
        assert "free some space" in done.stderr
        assert "Traceback" not in done.stderr
        assert weights.read_bytes() == before
        kept = [file for file in files(disk / "models") if "checkpoints" not in file]
        assert kept == [f"a/{name}" for name in (".lisbet.jsonl", "README.md", "events.jsonl",
                        "model_config.yml", "run_config.yml", "status.json",
                        "weights/weights_last.pt")]  # fmt: skip
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_a_run_that_diverges_leaves_no_broken_model(dataset, tmp_path, monkeypatch, capsys):
    train("--run_id=a", "--epochs=1", data=dataset, cwd=tmp_path, monkeypatch=monkeypatch)
    weights = tmp_path / "models" / "a" / model_dir.WEIGHTS_LAST
    before = weights.read_bytes()
    capsys.readouterr()
    monkeypatch.setattr(torch.nn.functional, "binary_cross_entropy_with_logits", infinite)
    for run_id, record in (("a", "a.failed"), ("b", "b")):
        with pytest.raises(SystemExit) as caught:
            train(f"--run_id={run_id}", "--overwrite", data=dataset, cwd=tmp_path,
                  monkeypatch=monkeypatch)  # fmt: skip
        assert caught.value.code == 2
        said = capsys.readouterr().err
        assert "no model was written" in said
        assert ("--run_id=a.failed" in said) == (run_id == "a")
        assert read_status(tmp_path / "models" / record)["state"] == "failed"
        train(f"--run_id={record}", "--debug_step=0", data=dataset, cwd=tmp_path,
              monkeypatch=monkeypatch)  # fmt: skip
        assert "step 0: epoch 1" in capsys.readouterr().out
    assert weights.read_bytes() == before
    assert {path.name for path in (tmp_path / "models").iterdir()} == {"a", "a.failed", "b"}


def infinite(logits, labels, **_):
    """A loss that has left the numbers, with its graph."""
    return (logits * labels).sum() * float("inf")


def test_any_seed_that_is_accepted_works(dataset, tmp_path, monkeypatch):
    train("--run_id=a", "--epochs=1", "--seed=5000000000", data=dataset, cwd=tmp_path,
          monkeypatch=monkeypatch)  # fmt: skip
    assert (tmp_path / "models" / "a" / model_dir.WEIGHTS_LAST).exists()


def test_other_models_are_left_alone(dataset, tmp_path, monkeypatch):
    for run_id in ("a.replaced", "a", "a"):
        train(f"--run_id={run_id}", "--epochs=1", "--overwrite", data=dataset, cwd=tmp_path,
              monkeypatch=monkeypatch)  # fmt: skip
    assert {path.name for path in (tmp_path / "models").iterdir()} == {"a", "a.replaced"}


def test_recordings_shorter_than_the_window_train(tmp_path, monkeypatch):
    data = write_dataset(tmp_path / "data", [3, 1, 5])
    train("--run_id=a", "--epochs=2", "--save_history", "--window_offset=5",
          data=data, cwd=tmp_path, monkeypatch=monkeypatch)  # fmt: skip
    assert all(np.isfinite(list(row.values())).all() for row in history(tmp_path / "models/a"))


def test_missing_points_never_reach_the_network(tmp_path, monkeypatch):
    features = names()
    for number in range(3):
        tracks = walk(40, features, number)
        tracks[np.random.default_rng(number).random(tracks.shape[:3]) < 0.3] = np.nan
        write_recording(tmp_path / "data" / str(number), tracks, features)
    train("--run_id=a", "--epochs=2", "--save_history", data=tmp_path / "data", cwd=tmp_path,
          monkeypatch=monkeypatch)  # fmt: skip
    assert all(np.isfinite(list(row.values())).all() for row in history(tmp_path / "models/a"))


# Real recordings ---------------------------------------------------------------------------------


def test_real_mice_train_four_tasks_and_the_losses_fall(real, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    main(["train_model", "--run_id=a", "--emb_dim=16", "--num_layers=2", "--num_heads=2",
          "--hidden_dim=32", "--window_size=60", "--learning_rate=3e-3", "--warmup_epochs=0",
          "--epochs=2", "--train_sample=0.15", "--save_history",
          str(real / "mouse_pair_nc")])  # fmt: skip
    first, last = history(tmp_path / "models" / "a")
    for task in ("cons", "order", "shift", "warp"):
        assert last[f"{task}_train_loss"] < first[f"{task}_train_loss"]


def test_the_optimizer_is_that_of_pytorch():
    """The same weights bit for bit, after loading its state too; its hooks are called."""
    calls, found = [], []
    for kind in (EagerAdamW, torch.optim.AdamW):
        weights = [torch.nn.Parameter(torch.arange(6.0).reshape(2, 3)) for _ in range(2)]
        first, second = (kind([w], lr=0.1, weight_decay=0.1, fused=True) for w in weights)
        second.register_step_post_hook(lambda *_, kind=kind: calls.append(kind))
        for number in range(3):
            weights[0].grad = weights[1].grad = torch.full((2, 3), 0.5 - number)
            (first if number < 2 else second).step()
            first.zero_grad()
            assert weights[0].grad is None
            with torch.no_grad():
                weights[1].copy_(weights[0])
            second.load_state_dict(first.state_dict())
            weights[0], weights[1] = weights
        found.append(weights[1].detach())
    assert torch.equal(*found)
    assert calls == [EagerAdamW, torch.optim.AdamW]


@pytest.mark.parametrize(
    ("folder", "format", "features"),
    [("mouse_triplet_nc", "movement", 72), ("fly_pair_sleap", "SLEAP", 52),
     ("mouse_social_defeat_dlc", "DLC", 56)],
)  # fmt: skip
def test_other_real_recordings_train(real, folder, format, features, tmp_path, monkeypatch):
    train("--run_id=a", "--epochs=1", "--task_ids=order,shift,warp", "--train_sample=0.3",
          f"--data_format={format}", "--save_history",
          data=real / folder, cwd=tmp_path, monkeypatch=monkeypatch)  # fmt: skip
    config = model_dir.read_config(tmp_path / "models" / "a" / "model_config.yml")
    assert config.input_features.size == features
    assert np.isfinite(list(history(tmp_path / "models/a")[0].values())).all()
