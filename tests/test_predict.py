"""Export, embeddings, description: what is made of a trained model."""

import numpy as np
import pandas as pd
import pytest
import reference
import torch
import yaml
from conftest import TINY, names, write_dataset

from lisbet.cli import main
from lisbet.core.config import Dataset
from lisbet.data.load import load_records
from lisbet.models import model_dir
from lisbet.options import DataOptions

MODEL = ("models/a/model_config.yml", "models/a/weights/weights_last.pt")
EMBEDDER = ("models/a-embedder/model_config.yml", "models/a-embedder/weights/weights_last.pt")


@pytest.fixture
def trained(dataset, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    main(["train_model", *TINY, "--window_offset=3", "--epochs=1", "--run_id=a", str(dataset)])
    return tmp_path


def fails(*words, capsys) -> str:
    with pytest.raises(SystemExit) as caught:
        main(list(words))
    assert caught.value.code == 2
    return capsys.readouterr().err


def test_the_embedder_is_the_same_network_with_one_head(trained):
    main(["export_embedder", *MODEL])
    config = yaml.safe_load((trained / EMBEDDER[0]).read_text())
    assert config["out_heads"] == {"embedding": {"output_token_idx": -4}}
    assert config["model_id"] == "a-embedder"
    assert config["backbone"] == yaml.safe_load((trained / MODEL[0]).read_text())["backbone"]
    kept = torch.load(trained / EMBEDDER[1], weights_only=True)
    whole = torch.load(trained / MODEL[1], weights_only=True)
    assert kept.keys() == {key for key in whole if key.startswith("backbone.")}
    assert all(torch.equal(kept[key], whole[key]) for key in kept)


def test_export_elsewhere_and_not_over_an_earlier_one(trained, capsys):
    main(["export_embedder", *MODEL, "--output_path=elsewhere"])
    assert (trained / "elsewhere" / EMBEDDER[0]).is_file()
    assert "exists already" in fails("export_embedder", *MODEL, "--output_path=elsewhere",
                                     capsys=capsys)  # fmt: skip
    main(["export_embedder", *MODEL, "--output_path=elsewhere", "--overwrite"])


def test_embeddings_are_those_of_each_frame_by_itself(trained, dataset):
    main(["export_embedder", *MODEL])
    main(["compute_embeddings", str(dataset), *EMBEDDER, "--batch_size=7"])
    _, model = model_dir.load_model(*(trained / part for part in EMBEDDER))
    records = load_records(Dataset(path=dataset, format="movement"), DataOptions())
    assert len(records) == 4
    for record in records:
        table = pd.read_csv(
            trained / "embeddings" / record.id / "features_lisbet_embedding.csv", index_col=0
        )
        assert list(table.columns) == [str(n) for n in range(8)]
        assert list(table.index) == list(range(record.frames))
        windows = np.stack(
            [reference.window(record.position, f, 12, 3) for f in range(record.frames)]
        )
        with torch.no_grad():
            expected = model({"embedding": torch.from_numpy(windows)})["embedding"]
        np.testing.assert_allclose(table.to_numpy(), expected.numpy(), atol=1e-5)


def test_recordings_that_the_model_does_not_know(trained, tmp_path, capsys):
    main(["export_embedder", *MODEL])
    other = write_dataset(tmp_path / "other", [20], names(keypoints=2))
    said = fails("compute_embeddings", str(other), *EMBEDDER, capsys=capsys)
    assert "keypoints are point0, point1 instead of point0, point1, point2" in said
    assert not (trained / "embeddings").exists()


def test_a_model_without_an_embedding_head(trained, dataset, capsys):
    said = fails("compute_embeddings", str(dataset), *MODEL, capsys=capsys)
    assert "betman export_embedder" in said


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda config, weights: config.unlink(), "no such file"),
        (lambda config, weights: weights.unlink(), "no such file"),
        (lambda config, weights: config.write_text("a: [1"), "is not YAML"),
        (lambda config, weights: config.write_text("just words"), "no mapping"),
        (lambda config, weights: config.write_text("model_id: a"), "does not describe a model"),
        (lambda config, weights: weights.write_bytes(weights.read_bytes()[:900]), "cannot be read"),
        (lambda config, weights: weights.write_text("text"), "cannot be read"),
        (lambda config, weights: torch.save([1], weights), "does not hold a state dict"),
        (
            lambda config, weights: config.write_text(
                config.read_text().replace("embedding_dim: 8", "embedding_dim: 16")
            ),
            "does not fit",
        ),
    ],
)
def test_damaged_models(trained, damage, message, capsys):
    damage(trained / MODEL[0], trained / MODEL[1])
    assert message in fails("export_embedder", *MODEL, capsys=capsys)
    assert not (trained / "models" / "a-embedder").exists()


def test_model_info(trained, capsys):
    main(["model_info", MODEL[0]])
    said = capsys.readouterr().out
    for part in ("transformer", "cons, order, shift, warp", "12 frames, offset 3", "mouse0, mouse1",
                 "weights/weights_last.pt"):  # fmt: skip
        assert part in said
    weights = torch.load(trained / MODEL[1], weights_only=True)
    assert f"parameters:  {sum(value.numel() for value in weights.values())} " in said


def test_model_info_of_nothing(tmp_path, capsys):
    assert "no such file" in fails("model_info", str(tmp_path / "none.yml"), capsys=capsys)
