"""Models that the published tool trained, and what it computed with them.

tests/fixtures/published was made by `python benchmarks/interchange.py --fixtures`; that tool is not
needed here.
"""

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.metrics import f1_score

from lisbet.cli import main
from lisbet.core.yaml_files import read_yaml
from lisbet.data.labels.movement import READER
from lisbet.models import model_dir

PUBLISHED = Path(__file__).parent / "fixtures" / "published"
MODELS = sorted(path.name for path in PUBLISHED.iterdir() if path.name != "data")
(RECORD,) = (path.name for path in (PUBLISHED / "data").iterdir())
SCALE = "--data_scale=100x80"
"""That of benchmarks/interchange.py."""
EMBEDDINGS, ANNOTATIONS = "features_lisbet_embedding.csv", "machineAnnotation_lisbet.csv"


@pytest.fixture(params=MODELS)
def model(request, tmp_path, monkeypatch) -> str:
    """Name of a model of the published tool; the folder of the test holds it and the recording."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(PUBLISHED / "data", "data")
    shutil.copytree(PUBLISHED / request.param, request.param)
    return request.param


def words(folder: str) -> list[str]:
    return [f"{folder}/model_config.yml", f"{folder}/weights/weights_last.pt"]


def test_the_fixtures_are_there_and_small():
    assert {name.split("-")[0] for name in MODELS} == {"transformer", "lstm", "tcn"}
    assert {name.split("-")[1] for name in MODELS} == {"multiclass", "multilabel"}
    size = sum(path.stat().st_size for path in PUBLISHED.rglob("*") if path.is_file())
    assert size < 100_000


def test_our_embedder_and_embeddings_are_those_of_the_published_tool(model):
    main(["export_embedder", *words(model)])
    config = read_yaml(Path(f"{model}/model_config.yml"))
    exported = f"models/{config['model_id']}-embedder"
    theirs = read_yaml(Path(f"{model}/embedder/model_config.yml"))
    own = read_yaml(Path(f"{exported}/model_config.yml"))
    assert {key: own[key] for key in theirs} == theirs
    if (weights := Path(f"{model}/embedder/weights/weights_last.pt")).is_file():
        one = torch.load(weights, weights_only=True)
        other = torch.load(f"{exported}/weights/weights_last.pt", weights_only=True)
        assert one.keys() == other.keys()
        assert all(torch.equal(value, other[key]) for key, value in one.items())
    main(["compute_embeddings", SCALE, "data", *words(exported)])
    tables = [
        pd.read_csv(path, index_col=0)
        for path in (f"embeddings/{RECORD}/{EMBEDDINGS}", PUBLISHED / model / EMBEDDINGS)
    ]
    assert list(tables[0].columns) == list(tables[1].columns)
    np.testing.assert_allclose(tables[0], tables[1], atol=1e-5)


def test_our_annotations_and_scores_are_those_of_the_published_tool(model):
    main(["annotate_behavior", SCALE, "data", *words(model)])
    own = Path(f"annotations/{RECORD}/{ANNOTATIONS}").read_text()
    assert own == (PUBLISHED / model / ANNOTATIONS).read_text()
    main(["evaluate_model", SCALE, "data", *words(model)])
    (report,) = Path("evaluations").rglob("evaluation_report.yml")
    scores = [row["f1"] or 0 for row in read_yaml(report)["classes"].values()]
    seen = pd.read_csv(PUBLISHED / model / ANNOTATIONS, index_col=0).to_numpy()
    truth = READER.read(Path(f"data/{RECORD}/annotations.nc"), len(seen), None).active
    expected = f1_score(truth.astype(int), seen, average=None, zero_division=0)
    np.testing.assert_allclose(scores, expected, atol=1e-6)
    if "multiclass" in model:  # its scores of multilabel are not those of its annotations
        theirs = read_yaml(PUBLISHED / model / "evaluation_report.yml")["per_class"]["f1"]
        np.testing.assert_allclose(scores, theirs, atol=1e-6)


def test_a_threshold_gives_the_annotations_of_the_published_tool(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (name,) = (name for name in MODELS if "multilabel" in name)
    (above,) = (PUBLISHED / name).glob("above_*.csv")
    threshold = above.stem.removeprefix("above_")
    expected = pd.read_csv(above, index_col=0).to_numpy()
    half = pd.read_csv(PUBLISHED / name / ANNOTATIONS, index_col=0).to_numpy()
    assert 0 < expected.sum() < half.sum()
    shutil.copytree(PUBLISHED / name, name)
    shutil.copytree(PUBLISHED / "data", "data")
    main(["annotate_behavior", SCALE, f"--threshold={threshold}", "data", *words(name)])
    own = Path(f"annotations/{RECORD}/{ANNOTATIONS}")
    np.testing.assert_array_equal(pd.read_csv(own, index_col=0), expected)
    noted = read_yaml(Path("annotations/model.yml"))["settings"]
    assert noted == {"threshold": float(threshold)}
    half_words = ["annotate_behavior", SCALE, "--threshold=0.5", "--task=multilabel"]
    main([*half_words, "--output_path=half", "data", *words(name)])
    assert "settings" not in read_yaml(Path("half/annotations/model.yml"))  # as without them
    main(["evaluate_model", SCALE, f"--threshold={threshold}", "data", *words(name)])
    (report,) = Path("evaluations").rglob("evaluation_report.yml")
    scores = [row["f1"] or 0 for row in read_yaml(report)["classes"].values()]
    truth = READER.read(Path(f"data/{RECORD}/annotations.nc"), len(expected), None).active
    np.testing.assert_allclose(
        scores, f1_score(truth.astype(int), expected, average=None, zero_division=0), atol=1e-6
    )
    assert read_yaml(report)["threshold"] == float(threshold)


def test_embeddings_of_the_published_tool_are_read(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    place = Path("embeddings") / RECORD
    place.mkdir(parents=True)
    shutil.copy(PUBLISHED / MODELS[0] / EMBEDDINGS, place)
    main(["plot_embeddings", "embeddings", "--output_path=drawn.png"])
    assert Path("drawn.png").read_bytes().startswith(b"\x89PNG")


def test_model_info_of_a_published_model(model, capsys):
    main(["model_info", f"{model}/model_config.yml"])
    said = capsys.readouterr().out
    weights = model_dir.read_weights(Path(f"{model}/weights/weights_last.pt"))
    assert f"parameters:  {sum(value.numel() for value in weights.values())} " in said
