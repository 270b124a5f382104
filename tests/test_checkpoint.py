"""Checkpoints: what damage is noticed, and what is made of a whole one."""

import shutil
from pathlib import Path

import pytest
import torch
from conftest import TINY, hurt, names, write_dataset

from lisbet.cli import main
from lisbet.distributed import memory_policy
from lisbet.models import model_dir
from lisbet.models.multitask import MultiTaskModel
from lisbet.training.checkpoint.directory import CheckpointDirectory
from lisbet.training.checkpoint.manifest import Manifest, verified
from lisbet.training.datasets.batching import Batching, activation_bytes


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    place = tmp_path_factory.mktemp("trained")
    data = write_dataset(place / "data", [60, 80, 50])
    with pytest.MonkeyPatch.context() as patched:
        patched.chdir(place)
        main(["train_model", *TINY, "--epochs=3", "--run_id=a", str(data)])
    return place


@pytest.fixture
def run(trained, tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(trained / "models" / "a", tmp_path / "models" / "a")
    return tmp_path / "models" / "a"


def refused(capsys, *words) -> str:
    with pytest.raises(SystemExit) as caught:
        main(["consolidate_checkpoint", *map(str, words)])
    assert caught.value.code == 2
    return capsys.readouterr().err


def test_the_last_checkpoints_are_kept_and_say_what_they_are(run):
    newest, before = CheckpointDirectory(run).published()
    manifest = verified(newest)
    assert (manifest.form, manifest.strategy, manifest.processes) == ("whole", "one process", 1)
    assert manifest.step - Manifest.read(before).step == manifest.step // 3
    assert not list(run.rglob("*.partial"))


def test_the_weights_come_back(run, capsys):
    last = run / model_dir.WEIGHTS_LAST
    expected = torch.load(last, weights_only=True)
    last.unlink()
    main(["consolidate_checkpoint", str(run)])
    found = torch.load(last, weights_only=True)
    assert all(torch.equal(value, found[key]) for key, value in expected.items())
    older = CheckpointDirectory(run).published()[1].name
    assert "--overwrite" in refused(capsys, run, f"--checkpoint={older}")
    main(["consolidate_checkpoint", str(run), f"--checkpoint={older}", "--overwrite"])
    assert not all(torch.equal(v, found[k]) for k, v in torch.load(last, weights_only=True).items())
    capsys.readouterr()


@pytest.mark.parametrize("name", ["state.pt", "manifest.json", "manifest.sha256"])
@pytest.mark.parametrize("damage", ["missing", "cut", "flipped"])
def test_damage_is_named(name, damage, run, capsys):
    file = CheckpointDirectory(run).published()[0] / name
    before = (run / model_dir.WEIGHTS_LAST).read_bytes()
    hurt(file, damage)
    said = refused(capsys, run)
    assert "manifest" in said if name != "state.pt" else name in said
    assert str(file.parent.name) in said
    assert (run / model_dir.WEIGHTS_LAST).read_bytes() == before


def test_what_is_no_checkpoint(run, capsys):
    assert "checkpoints: step_" in refused(capsys, run, "--checkpoint=step_1")
    assert "no finished checkpoint" in refused(capsys, run, f"--checkpoint={run / 'weights'}")
    shutil.rmtree(run / "checkpoints")
    assert "has no checkpoint" in refused(capsys, run)
    assert "no such file" in refused(capsys, run / "nowhere")


def test_a_checkpoint_of_another_network(run, capsys):
    config = run / model_dir.MODEL_CONFIG
    config.write_text(config.read_text().replace("hidden_dim: 16", "hidden_dim: 8"))
    assert "does not fit the model" in refused(capsys, run)


# How the batch is shared out --------------------------------------------------------------------


def test_every_row_is_taken_once():
    for processes, micro in ((1, None), (1, 4), (2, None), (2, 3), (4, 1)):
        shared = Batching.of(24, processes, micro)
        rows = [n for rank in range(processes) for part in shared.micro_batches(rank)
                for n in range(part.start, part.stop)]  # fmt: skip
        assert rows == list(range(24))
        assert shared.gradient_accumulation_steps * shared.micro_batch_size * processes == 24


def test_as_many_as_fit_in_half_of_the_memory(run, monkeypatch):
    model = MultiTaskModel(model_dir.read_config(run / model_dir.MODEL_CONFIG))
    shape = (12, *names().shape)
    row = {task: (torch.rand(1, *shape), torch.zeros(1)) for task in ("cons", "warp")}
    rows = {task: (torch.rand(16, *shape), torch.zeros(16)) for task in ("cons", "warp")}
    kept = activation_bytes(model, row)
    # What is kept grows with the batch, but for what does not depend on it.
    assert 15 * kept < activation_bytes(model, rows) <= 16 * kept
    whole = Batching.of(32, 1, None)
    for free, micro in ((1e12, 32), (2 * 16 * kept, 16), (2 * 15 * kept, 8), (0, 1)):
        monkeypatch.setattr(memory_policy, "free_bytes", lambda _, free=free: int(free))
        assert whole.fitted(model, row, torch.device("cpu")).micro_batch_size == micro
