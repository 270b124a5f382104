"""Published models, from a stand-in of the hub on loopback and from a copied folder."""

import pytest
from conftest import TINY, write_dataset
from hub_server import Repository, running

from lisbet.cli import main
from lisbet.core.storage.write_log import LOG
from lisbet.models import model_dir

NAME = "lisbet32x4-calms21U-embedder"


@pytest.fixture
def model(tmp_path, monkeypatch):
    """A model directory as a lab would publish it."""
    monkeypatch.chdir(tmp_path)
    data = write_dataset(tmp_path / "data", [30, 40])
    main(["train_model", *TINY, "--task_ids=warp", "--epochs=1", "--run_id=own", str(data)])
    main(["export_embedder", "models/own/model_config.yml", "models/own/weights/weights_last.pt"])
    return tmp_path / "models" / "own-embedder"


@pytest.fixture
def hub(model, monkeypatch):
    repository = Repository()
    repository.files.update(
        {
            str(file.relative_to(model)): file.read_bytes()
            for file in model.rglob("*")
            if file.is_file()
        }
        | {"README.md": b"# A model", "run.py": b"import os"}
    )
    with running() as server:
        server.repositories[f"gchindemi/{NAME}"] = repository
        monkeypatch.setenv("HF_ENDPOINT", server.address)
        yield server


def fails(*words, capsys) -> str:
    with pytest.raises(SystemExit) as caught:
        main(["fetch_model", *map(str, words)])
    assert caught.value.code == 2
    return capsys.readouterr().err


def test_a_model_from_the_hub_is_ready_to_use(hub, tmp_path, capsys):
    main(["fetch_model", NAME])
    folder = tmp_path / "models" / NAME
    files = sorted(str(f.relative_to(folder)) for f in folder.rglob("*") if f.is_file())
    assert files == [LOG, "README.md", "model_config.yml", "weights/weights_last.pt",
                     "weights/weights_last.safetensors"]  # fmt: skip
    main(["compute_embeddings", "data", f"models/{NAME}/model_config.yml",
          f"models/{NAME}/weights/weights_last.pt"])  # fmt: skip
    assert "exists already" in fails(NAME, capsys=capsys)
    main(["fetch_model", f"gchindemi/{NAME}", "--overwrite", "--revision=main"])


def test_a_model_from_a_copied_folder(model, tmp_path, capsys):
    main(["fetch_model", "some/name", f"--source={model}"])
    folder = tmp_path / "models" / "name"
    model_dir.load_model(folder / "model_config.yml", folder / model_dir.WEIGHTS_LAST)
    assert "no model directory" in fails("some/other", "--source=data", capsys=capsys)
    (model / "weights" / "weights_last.pt").write_bytes(b"damaged")
    assert "cannot be read as weights" in fails("some/other", f"--source={model}", capsys=capsys)
    assert not (tmp_path / "models" / "other").exists()


def test_what_is_not_there(hub, tmp_path, capsys, monkeypatch):
    assert "did you mean" in fails("lisbet32x4-calms21U", capsys=capsys)
    assert "no model 'some/name'" in fails("some/name", capsys=capsys)
    assert "no revision 'v0'" in fails(NAME, "--revision=v0", capsys=capsys)
    files = hub.repositories[f"gchindemi/{NAME}"].files
    files.clear()
    files["README.md"] = b"# No model"
    assert "holds no model_config.yml" in fails(NAME, capsys=capsys)
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    assert "--source=FOLDER" in fails(NAME, capsys=capsys)
    assert not (tmp_path / "models" / NAME).exists()
