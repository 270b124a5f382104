"""Weights as .safetensors beside .pt: the same tensors, taken by every command."""

import shutil
from pathlib import Path

import pandas as pd
import pytest
import torch
from conftest import TINY, write_dataset
from safetensors.torch import load_file, save_file

from lisbet.cli import main
from lisbet.core.errors import ModelError
from lisbet.models import model_dir
from lisbet.models.locate import model_files

CONFIG = "models/m-embedder/model_config.yml"
PT = "models/m-embedder/weights/weights_last.pt"
SAFE = "models/m-embedder/weights/weights_last.safetensors"
TABLE = "embeddings/r0/features_lisbet_embedding.csv"


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    place = tmp_path_factory.mktemp("made")
    write_dataset(place / "data", [30, 40])
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        main(["train_model", *TINY, "--task_ids=warp", "--epochs=1", "--run_id=m", "data"])
        main(["export_embedder", "models/m/model_config.yml", "models/m/weights/weights_last.pt"])
    return place


@pytest.fixture
def place(made, tmp_path, monkeypatch) -> Path:
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_both_files_hold_the_same_tensors(place):
    one, other = torch.load(PT, weights_only=True), load_file(SAFE)
    assert one.keys() == other.keys()
    assert all(torch.equal(value, other[key]) for key, value in one.items())
    assert {value.dtype for value in other.values()} == {torch.float32}


def test_commands_take_either_file(place, capsys):
    main(["compute_embeddings", "data", CONFIG, PT])
    expected = pd.read_csv(TABLE, index_col=0)
    main(["compute_embeddings", "data", CONFIG, SAFE, "--output_path=named"])
    pd.testing.assert_frame_equal(pd.read_csv(f"named/{TABLE}", index_col=0), expected)
    Path(PT).unlink()
    main(["compute_embeddings", "data", CONFIG, PT, "--output_path=missing"])
    pd.testing.assert_frame_equal(pd.read_csv(f"missing/{TABLE}", index_col=0), expected)
    main(["train_model", *TINY, "--task_ids=warp", "--epochs=1", "--run_id=second",
          f"--load_backbone_weights={SAFE}", "data"])  # fmt: skip
    assert f"are from {SAFE}" in capsys.readouterr().err


def test_an_embedder_of_safetensors_has_a_pt_for_the_published_tool(place):
    weights = torch.load("models/m/weights/weights_last.pt", weights_only=True)
    save_file(weights, "models/m/weights/other.safetensors")
    main(["export_embedder", "models/m/model_config.yml", "models/m/weights/other.safetensors",
          "--output_path=again"])  # fmt: skip
    folder = Path("again/models/m-embedder/weights")
    assert sorted(path.name for path in folder.iterdir()) == ["other.pt", "other.safetensors"]
    own = torch.load(folder / "other.pt", weights_only=True)
    assert all(torch.equal(value, weights[key]) for key, value in own.items())


def test_damaged_and_different_files_are_refused(place):
    content = Path(SAFE).read_bytes()
    Path(SAFE).write_bytes(content[:-4])
    with pytest.raises(ModelError, match="cannot be read as weights"):
        model_dir.read_weights(Path(SAFE))
    huge = (2**62).to_bytes(8, "little") + content[8:]
    Path(SAFE).write_bytes(huge)
    with pytest.raises(ModelError, match="cannot be read as weights"):
        model_dir.read_weights(Path(SAFE))
    save_file({"numbers": torch.arange(3)}, SAFE)
    with pytest.raises(ModelError, match="numbers is not a plain tensor"):
        model_dir.read_weights(Path(SAFE))
    weights = torch.load(PT, weights_only=True)
    key = sorted(weights)[1]
    save_file(weights | {key: weights[key] + 1e-3}, SAFE)
    with pytest.raises(ModelError, match=key):
        model_dir.require_same_weights(Path(PT), Path(SAFE))


def test_which_weights_a_folder_means(place):
    folder = Path("models/m-embedder")
    assert model_files(folder, None) == (folder / "model_config.yml", Path(PT))
    Path(PT).rename(folder / "weights" / "a.pt")
    Path(SAFE).unlink()
    assert model_files(folder, None)[1].name == "a.pt"
    shutil.copy(folder / "weights" / "a.pt", folder / "weights" / "b.pt")
    with pytest.raises(ModelError, match=r"a\.pt, b\.pt"):
        model_files(folder, None)
    named = Path("elsewhere.pt")
    assert model_files(folder / "model_config.yml", named)[1] == named
