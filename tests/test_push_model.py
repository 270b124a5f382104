"""Publishing models on a stand-in of the hub on loopback, and what must never be published."""

import re
import shutil
from pathlib import Path

import hub_server
import pytest
import torch
import yaml
from conftest import TINY, write_dataset
from huggingface_hub import constants

from lisbet.cli import main
from lisbet.core.storage.write_log import LOG
from lisbet.core.yaml_files import read_yaml, write_yaml

NAME = "my-lab/mice"
# The client of the hub calls its library for HTTP in a way that this one warns of.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """A run, and its embedder."""
    place = tmp_path_factory.mktemp("made")
    write_dataset(place / "data", [30, 40])
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        main(["train_model", *TINY, "--task_ids=warp", "--epochs=1", "--run_id=own",
              "--save_history", "data"])  # fmt: skip
        model = ["models/own/model_config.yml", "models/own/weights/weights_last.pt"]
        main(["export_embedder", *model])
    return place


@pytest.fixture
def hub(made, tmp_path, monkeypatch):
    shutil.copytree(made / "models", tmp_path / "models")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_TOKEN", hub_server.TOKEN)
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no-token"))
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)  # another server, another protocol
    with hub_server.running() as server:
        monkeypatch.setenv("HF_ENDPOINT", server.address)
        yield server
        assert {path for path in server.unknown if "agent-harnesses" not in path} == set()


def push(*words: str) -> None:
    main(["push_model", *words])


def fails(*words: str, capsys) -> str:
    capsys.readouterr()
    with pytest.raises(SystemExit) as caught:
        push(*words)
    assert caught.value.code == 2
    return capsys.readouterr().err


def contents(folder: Path) -> dict[str, bytes]:
    return {
        str(file.relative_to(folder)): file.read_bytes()
        for file in folder.rglob("*")
        if file.is_file() and file.name != LOG
    }


def test_what_was_pushed_is_fetched_byte_by_byte(hub, tmp_path):
    push("models/own-embedder", NAME, "--message=First", "--license=cc-by-4.0")
    (commit,) = hub.repositories[NAME].commits
    assert commit["lines"][0]["value"]["summary"] == "First"
    own = contents(tmp_path / "models" / "own-embedder")
    assert own.keys() == {"model_config.yml", "weights/weights_last.pt",
                          "weights/weights_last.safetensors"}  # fmt: skip
    pushed = dict(hub.repositories[NAME].files)
    card = pushed.pop("README.md").decode()
    assert pushed == own
    head = yaml.safe_load(card.split("---")[1])
    assert head["license"] == "cc-by-4.0"
    assert head["library_name"] == "lisbet"
    assert {"lisbet", "pose-estimation", "animal-behaviour"} <= set(head["tags"])
    assert "mouse0, mouse1" in card
    main(["fetch_model", NAME])
    assert contents(tmp_path / "models" / "mice") == own | {"README.md": card.encode()}


def test_only_the_model_of_a_run_is_uploaded(hub, tmp_path):
    run = tmp_path / "models" / "own"
    (run / "wandb").mkdir()
    (run / "wandb" / "run.wandb").write_bytes(b"x")
    (run / "thesis.md").write_text("a draft")
    shutil.copy(run / "weights" / "weights_last.pt", run / "weights" / "weights_epoch0.pt")
    push("models/own", NAME)
    assert hub.repositories[NAME].files.keys() == {
        "model_config.yml", "weights/weights_last.pt", "README.md"
    }  # fmt: skip
    push("models/own", NAME, "--weights=weights_epoch0.pt", "--revision=first-epoch")
    assert "weights/weights_epoch0.pt" in hub.repositories[NAME].branches["first-epoch"]
    assert "weights/weights_epoch0.pt" not in hub.repositories[NAME].files
    assert len(hub.repositories[NAME].commits) == 2


def test_a_dry_run_asks_the_hub_nothing(hub, tmp_path, capsys, monkeypatch):
    monkeypatch.delenv("HF_TOKEN")
    push("models/own", NAME, "--dry_run", "--run_config")
    said = capsys.readouterr().out
    sizes = dict(re.findall(r"([\d,]+) bytes  (\S+)", said))
    sizes = {name: int(size.replace(",", "")) for size, name in sizes.items()}
    for name in ("model_config.yml", "weights/weights_last.pt", "run_config.yml", "README.md"):
        assert sizes[name] == (tmp_path / "models" / "own" / name).stat().st_size, name
    assert "nothing was uploaded" in said
    assert hub.requests == []


def test_a_repository_is_only_added_to(hub, tmp_path, capsys):
    repository = hub.repositories[NAME] = hub_server.Repository()
    repository.files.update({"model_config.yml": b"old", "notes.txt": b"keep"})
    push("models/own-embedder", NAME)
    assert repository.files["notes.txt"] == b"keep"
    assert repository.files["model_config.yml"] != b"old"
    assert len(repository.commits) == 1
    assert "exists already and is public" in fails("models/own", NAME, "--private", capsys=capsys)
    other = hub.repositories["my-lab/other"] = hub_server.Repository()
    other.files["pytorch_model.bin"] = b"another model"
    assert "it is no LISBET model" in fails("models/own", "my-lab/other", capsys=capsys)
    assert other.commits == []
    push("models/own", "my-lab/secret", "--private")
    assert hub.repositories["my-lab/secret"].private


def test_paths_and_secrets_stay_here(hub, tmp_path, capsys, monkeypatch):
    run = tmp_path / "models" / "own"
    config = read_yaml(run / "run_config.yml")
    config["options"]["data_path"] = "/home/jane/secret-project/data"
    write_yaml(run / "run_config.yml", config)
    said = fails("models/own", NAME, "--run_config", capsys=capsys)
    assert "paths of this machine" in said
    assert "data_path" in said
    config["options"]["data_path"] = "data"
    config["options"]["wandb_note"] = "hf_abcdefghijklmnopqrstuvwxyz012345"
    write_yaml(run / "run_config.yml", config)
    said = fails("models/own", NAME, "--run_config", capsys=capsys)
    assert "seems to hold a password or token" in said
    assert "hf_abc" not in said
    assert hub.repositories == {}
    card = (run / "README.md").read_text()
    assert "/own-embedder/" in card
    (run / "README.md").write_text(card + "key: s3cr3t-value-of-mine")
    monkeypatch.setenv("MY_API_KEY", "s3cr3t-value-of-mine")
    assert "README.md, line" in fails("models/own", NAME, capsys=capsys)


def test_our_card_is_published_without_paths_and_pictures(made, hub, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    main(["train_model", *TINY, "--task_ids=warp", "--epochs=1", "--run_id=there",
          "--embedding_every=1", str(made / "data")])  # fmt: skip
    own = (tmp_path / "models" / "there" / "README.md").read_text()
    assert str(made) in own
    assert "](pictures/" in own
    push("models/there", NAME)
    card = hub.repositories[NAME].files["README.md"].decode()
    assert str(made.parent) not in card
    assert "pictures/" not in card
    assert "Recordings in `data`" in card
    assert "https://github.com/BelloneLab/lisbet" in card


def test_a_readme_of_the_user_is_left_as_it_is(hub, tmp_path, capsys):
    readme = tmp_path / "models" / "own-embedder" / "README.md"
    readme.write_text("---\ntags:\n- mine\nlicense: mit\n---\n# Ours\n\nSee /usr/share/doc/x\n")
    push("models/own-embedder", NAME)
    card = hub.repositories[NAME].files["README.md"].decode()
    head = yaml.safe_load(card.split("---")[1])
    assert head["license"] == "mit"
    assert head["tags"][:2] == ["mine", "lisbet"]
    assert card.endswith("---\n# Ours\n\nSee /usr/share/doc/x\n")
    readme.write_text("---\ntags: [\n---\n")
    assert "its header" in fails("models/own-embedder", NAME, capsys=capsys)


def test_models_that_do_not_fit_are_not_published(hub, tmp_path, capsys):
    folder = tmp_path / "models" / "own-embedder"
    weights = folder / "weights" / "weights_last.pt"
    content = torch.load(weights, weights_only=True)
    key = next(iter(content))
    torch.save(content | {key: content[key] + 1}, weights)
    assert "the same weights in two formats" in fails("models/own-embedder", NAME, capsys=capsys)
    torch.save({"other": content[key]}, weights)
    assert "does not fit the model" in fails("models/own-embedder", NAME, capsys=capsys)
    weights.unlink()
    weights.symlink_to(tmp_path / "models" / "own" / "weights" / "weights_last.pt")
    assert "a link" in fails("models/own-embedder", NAME, capsys=capsys)
    assert "no model's folder" in fails("models", NAME, capsys=capsys)
    assert "weights_last.pt" in fails("models/own", NAME, "--weights=x.pt", capsys=capsys)
    assert hub.requests == []


def test_what_the_hub_refuses(hub, tmp_path, capsys, monkeypatch):
    assert "may not write to other/mice" in fails("models/own", "other/mice", capsys=capsys)
    said = fails("models/own", NAME, "--license=not-a-licence", capsys=capsys)
    assert "license" in said
    assert "was made and may be empty" in said
    hub.fails_at = "/objects/"
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda seconds: None)
    assert "500" in fails("models/own", NAME, capsys=capsys)
    assert hub.repositories[NAME].commits == []
    hub.fails_at = "/commit/"
    assert "the hub refuses the upload" in fails("models/own", NAME, capsys=capsys)
    assert hub.repositories[NAME].commits == []
    hub.fails_at = ""
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    assert "does not accept the login" in fails("models/own", NAME, capsys=capsys)
    monkeypatch.delenv("HF_TOKEN")
    assert "hf auth login" in fails("models/own", NAME, capsys=capsys)
    monkeypatch.setenv("HF_TOKEN", hub_server.TOKEN)
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    assert "cannot be reached" in fails("models/own", NAME, capsys=capsys)
    for wrong in ("mice", "a/b/c", "lab/../x", "lab/.x", "lab/m--x"):
        assert "ORGANISATION/NAME" in fails("models/own", wrong, capsys=capsys)
