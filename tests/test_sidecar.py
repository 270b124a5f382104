"""Results say which model wrote them, and those of several models are never mixed."""

import hashlib
import shutil
from pathlib import Path

import pytest
import yaml
from conftest import names, walk, write_dataset, write_recording
from test_preparation import TABLE, embed, make_embedder, place, refused

from lisbet import __version__
from lisbet.cli import main
from lisbet.commands.applying import predict
from lisbet.commands.applying.sidecar import SIDECAR, ResultModel
from lisbet.core import drawing

__all__ = ["place", "refused"]
SCALE = {"data_scale": "100x100"}


@pytest.fixture
def model(place) -> list[str]:
    write_dataset(Path("data"), [20, 20])
    write_dataset(Path("more"), [20, 20, 20])
    return make_embedder("a", SCALE)


@pytest.fixture
def other(model) -> list[str]:
    """An embedder of the same name and other weights."""
    folder = Path(shutil.move("models/a", "models/first"))
    paths = make_embedder("a", SCALE, seed=1)
    shutil.move("models/a", "models/other")
    shutil.move(folder, "models/a")
    return [path.replace("/a/", "/other/") for path in paths]


def contents(folder: str = "embeddings") -> dict[str, bytes]:
    return {str(p): p.read_bytes() for p in Path(folder).rglob("*")
            if p.is_file() and p.name != ".lisbet.jsonl"}  # fmt: skip


def test_the_model_stands_beside_its_results(model):
    embed(model)
    assert yaml.safe_load(Path("embeddings/model.yml").read_text()) == {
        "model_id": "a",
        "weights_sha256": hashlib.sha256(Path(model[1]).read_bytes()).hexdigest(),
        "preparation": SCALE,
        "betman": __version__,
    }
    assert {Path(name).parent.name for name in contents()} == {"embeddings", "r0", "r1"}
    embed(model, "--data_filter=r2", data="more")  # further recordings, by the same model
    embed(model, "--overwrite")


def test_results_of_another_model_are_not_added_nor_replaced_in_part(model, other, refused,
                                                                     monkeypatch):  # fmt: skip
    embed(model, data="more")
    before = contents()
    monkeypatch.setattr(predict, "load_bank", None)  # refused before recordings are read
    for words in (["data"], ["--data_filter=r2", "more"], ["--overwrite", "data"]):
        said = refused("compute_embeddings", *words, *other)
        assert ("r2 would stay" in said) == ("--overwrite" in words)
    write_recording(Path("new/r7"), walk(20, names(), 7), names())
    said = refused("compute_embeddings", "new", *other)
    for weights in (model[1], other[1]):
        assert hashlib.sha256(Path(weights).read_bytes()).hexdigest()[:12] in said
    assert contents() == before
    monkeypatch.undo()


def test_all_results_may_be_replaced_by_those_of_another_model(model, other, refused,
                                                               monkeypatch):  # fmt: skip
    embed(model)
    write = predict.Results.write

    def stop_at_the_second(self, record_id, table):
        if record_id == "r1":
            raise OSError(28, "No space left on device", "r1")
        write(self, record_id, table)

    with monkeypatch.context() as patched:
        patched.setattr(predict.Results, "write", stop_at_the_second)
        refused("compute_embeddings", "--overwrite", "data", *other)
    assert "interrupted" in refused("plot_embeddings", "embeddings")
    assert "r0, r1" in refused("compute_embeddings", "--data_filter=r2", "more", *other)
    embed(other, "--overwrite")
    assert "unfinished" not in Path("embeddings", SIDECAR).read_text()
    embed(other, "--data_filter=r2", data="more")
    main(["plot_embeddings", "embeddings"])


def test_tables_of_which_the_model_is_not_known(model, refused):
    embed(model)
    Path("embeddings", SIDECAR).unlink()  # as earlier releases wrote them
    main(["plot_embeddings", "embeddings"])
    said = refused("compute_embeddings", "--data_filter=r2", "more", *model)
    assert "without a model.yml" in said
    embed(model, "--overwrite")
    assert Path("embeddings", SIDECAR).is_file()


def test_one_model_with_another_preparation(model, refused):
    embed(model)
    forced = ["--data_filter=r2", "--data_scale=300x300", "--override_preparation"]
    said = refused("compute_embeddings", *forced, "more", *model)
    assert "data_scale 100x100 instead of 300x300" in said
    published = make_embedder("published", None)
    embed(published, out="p")
    said = refused("compute_embeddings", "--data_filter=r2", "--data_scale=300x300", "more",
                   *published, "--output_path=p")  # fmt: skip
    assert "300x300" in said
    assert "minmax" in said
    assert not Path("p", TABLE.format("r2")).exists()


def test_pictures_are_of_one_model(model, other, refused, monkeypatch, capsys):
    for out, paths in (("both/one", model), ("both/two", other), ("copies/one", model)):
        embed(paths, out=out)
    said = refused("plot_embeddings", "both")
    assert "several models cannot be mixed" in said
    shutil.copytree("copies/one", "copies/two")
    titles = []
    monkeypatch.setattr(
        drawing, "save", lambda figure, *_, **__: titles.append(figure.get_suptitle())
    )
    main(["plot_embeddings", "copies"])
    main(["plot_embeddings", "both/two/embeddings"])
    assert [title.splitlines()[0] for title in titles] == [
        f"model a (weights {hashlib.sha256(Path(paths[1]).read_bytes()).hexdigest()[:12]})"
        for paths in (model, other)
    ]
    assert "embeddings of model a" in capsys.readouterr().out
    Path("copies/two/embeddings", SIDECAR).unlink()
    assert "not stated" in refused("plot_embeddings", "copies")


def test_a_file_of_somebody_else_in_the_place_of_the_sidecar(model, refused):
    Path("embeddings").mkdir()
    Path("embeddings", SIDECAR).write_text("theirs: 1")
    before = contents()
    assert SIDECAR in refused("compute_embeddings", "data", *model)
    assert contents() == before
    Path(SIDECAR).write_text("{")  # above the folder, and of another program
    shutil.rmtree("embeddings")
    embed(model)
    Path("embeddings", SIDECAR).unlink()
    main(["plot_embeddings", "embeddings"])
    text = ResultModel(model_id="b", weights_sha256="0" * 64).model_dump(mode="json")
    Path("embeddings", SIDECAR).write_text(yaml.safe_dump(text))
    assert "not written by betman" in refused("compute_embeddings", "more", "--overwrite", *model)


def test_tables_of_another_precision_are_not_mixed(model, refused):
    embed(model)
    assert "settings" not in yaml.safe_load(Path("embeddings", SIDECAR).read_text())
    said = refused(
        "compute_embeddings", "--data_filter=r2", "--mixed_precision=bf16", "more", *model
    )
    assert "mixed_precision bf16 instead of default" in said or (
        "mixed_precision default instead of bf16" in said
    )
    main(["compute_embeddings", "more", "--mixed_precision=bf16", "--output_path=bf16", *model])
    noted = yaml.safe_load(Path("bf16/embeddings", SIDECAR).read_text())
    assert noted["settings"] == {"mixed_precision": "bf16"}


def test_two_models_at_once(model, other, refused, monkeypatch):
    """Another command that found the folder empty, too, is noticed before the next table."""
    outputs = predict.outputs

    def then_another(*words, **settings):
        ResultModel.of("a", Path(other[1]), {}).write(Path("embeddings"))
        yield from outputs(*words, **settings)

    monkeypatch.setattr(predict, "outputs", then_another)
    said = refused("compute_embeddings", "data", *model)
    assert "at the same time" in said
    assert not Path(TABLE.format("r0")).exists()
