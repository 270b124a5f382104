"""Checkpoints and weights from others: nothing in them is run, and one error names the file."""

import hashlib
import json
import os
import pickle
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from conftest import TINY, betman, write_dataset

from lisbet.cli import main
from lisbet.core.errors import ModelError
from lisbet.core.storage.write_log import WriteLog
from lisbet.models import model_dir
from lisbet.training.checkpoint import restricted
from lisbet.training.checkpoint.directory import CheckpointDirectory
from lisbet.training.checkpoint.manifest import Manifest, describe
from lisbet.training.strategies import sharded

LINE = ["train_model", *TINY, "--epochs=2", "--task_ids=cons", "--train_sample=0.2"]
FORMS = ["whole", "sharded", "deepspeed"]


class Code:
    """Makes a folder when it is unpickled without restrictions."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.marker),)


def plain(content: Any, path: Path) -> None:
    path.write_bytes(pickle.dumps(content))


def old_pickle(content: Any, path: Path) -> None:
    path.write_bytes(pickle.dumps(content, protocol=0))


def zipped(content: Any, path: Path) -> None:
    with path.open("wb") as stream:
        torch.save(content, stream)


def legacy(content: Any, path: Path) -> None:
    torch.save(content, path, _use_new_zipfile_serialization=False)


WRITERS: list[Callable[[Any, Path], None]] = [zipped, legacy, plain, old_pickle]


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """A folder with recordings and a run for each form of checkpoint.

    The shards are those of torch for the state of one process, which takes no launcher.
    """
    place = tmp_path_factory.mktemp("untrusted")
    write_dataset(place / "data", [60, 80, 50])
    with pytest.MonkeyPatch.context() as patched:
        patched.chdir(place)
        main([*LINE, "--run_id=whole", "data"])
    shutil.copytree(place / "models" / "whole", place / "models" / "sharded")
    checkpoint = CheckpointDirectory(place / "models" / "sharded").published()[0]
    state = torch.load(checkpoint / "state.pt", weights_only=True)
    sharded.write(state, checkpoint / "sharded", None, 0)
    (checkpoint / "state.pt").unlink()
    progress = checkpoint / "progress.json"
    progress.write_text(progress.read_text().replace('"run_id":"whole"', '"run_id":"sharded"'))
    for name in (model_dir.RUN_CONFIG, model_dir.MODEL_CONFIG):
        config = place / "models" / "sharded" / name
        config.write_text(config.read_text().replace("_id: whole", "_id: sharded"))
        WriteLog(config.parent).add(config)
    paths = (path for path in checkpoint.rglob("*") if path.is_file())
    files = {path.relative_to(checkpoint).as_posix(): {}
             for path in paths if not path.name.startswith("manifest")}  # fmt: skip
    seal(checkpoint, form="sharded", files=files)
    return place


@pytest.fixture(scope="module")
def deepspeed(place) -> None:
    """Add a run of DeepSpeed, for real."""
    said = betman(*LINE, "--launch=deepspeed_zero3", "--num_processes=1", "--run_id=deepspeed",
                  "data", cwd=place)  # fmt: skip
    assert said.returncode == 0, said.stderr


@pytest.fixture
def here(place, tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").symlink_to(place / "data")
    return tmp_path


@pytest.fixture
def copy(place, here, request) -> Callable[[str], Path]:
    """Copies a run anew; returns its newest checkpoint, the only one."""

    def fresh(form: str) -> Path:
        if form == "deepspeed":
            request.getfixturevalue(form)
        run = Path("models") / form
        shutil.rmtree(run, ignore_errors=True)
        shutil.copytree(place / "models" / form, run)
        newest, *others = CheckpointDirectory(run).published()
        for folder in others:
            shutil.rmtree(folder)
        return newest

    return fresh


def seal(checkpoint: Path, **changes: Any) -> None:
    """Make the manifest anew, as somebody who changes a checkpoint would."""
    content = json.loads((checkpoint / "manifest.json").read_text()) | changes
    for name in content["files"]:
        if (checkpoint / name).is_file():
            content["files"][name] = describe(checkpoint / name).model_dump()
    text = json.dumps(content).encode()
    (checkpoint / "manifest.json").write_bytes(text)
    (checkpoint / "manifest.sha256").write_text(hashlib.sha256(text).hexdigest())


def refused(capsys, *words: object) -> str:
    with pytest.raises(SystemExit) as caught:
        main([str(word) for word in words])
    said = capsys.readouterr()
    assert caught.value.code == 2, said
    assert "Traceback" not in said.err
    return said.out + said.err


def every_way(capsys, checkpoint: Path) -> Iterator[str]:
    """Give what each command says that loads the checkpoint and must refuse it."""
    run = checkpoint.parents[1]
    yield refused(capsys, "consolidate_checkpoint", run)
    yield refused(capsys, "verify_checkpoint", run)
    yield refused(capsys, *LINE, f"--run_id={run.name}", "--resume", "data")


def pickles(checkpoint: Path) -> list[str]:
    return [name for name in Manifest.read(checkpoint).files
            if name.endswith((".pt", ".metadata"))]  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
def test_no_code_in_any_file_of_a_checkpoint_is_run(form, copy, here, capsys):
    marker = here / "ran"
    names = pickles(copy(form))
    assert len(names) == {"whole": 2, "sharded": 2, "deepspeed": 3}[form]
    for name in names:
        for write in WRITERS:
            checkpoint = copy(form)
            write({"model": Code(marker), "module": {"a": Code(marker)}}, checkpoint / name)
            seal(checkpoint)
            for said in every_way(capsys, checkpoint):
                assert f"{checkpoint / name} cannot be loaded" in said
                assert not marker.exists()


def test_no_code_in_the_plain_values_of_a_shard_is_run(copy, here, capsys):
    """Torch itself loads these without restrictions."""
    marker, checkpoint = here / "ran", copy("sharded")
    shard = checkpoint / "sharded" / "__0_0.distcp"
    metadata = pickle.loads((checkpoint / sharded.METADATA).read_bytes())
    offset = shard.stat().st_size
    with shard.open("ab") as stream:
        torch.save(Code(marker), stream)
    (index,) = (key for key in metadata.storage_data if key.fqn == "optimizer.param_groups.0.lr")
    metadata.storage_data[index].offset = offset
    metadata.storage_data[index].length = shard.stat().st_size - offset
    plain(metadata, checkpoint / sharded.METADATA)
    seal(checkpoint)
    for said in every_way(capsys, checkpoint):
        assert f"{shard} cannot be loaded (it names posix.mkdir)" in said
    # Also where nobody has checked it before.
    state = {"optimizer": {"param_groups": [{"lr": 1.0}]}}
    with pytest.raises(ModelError, match="Weights only load failed"):
        sharded.read(state, checkpoint, alone=True)
    assert not marker.exists()


def test_the_block_holds_for_those_who_ask_for_code(tmp_path, monkeypatch):
    """Even with what would switch torch's restrictions off."""
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    torch.save(Code(tmp_path / "ran"), tmp_path / "file")
    with pytest.raises(pickle.UnpicklingError), restricted.weights_only(deepspeed=True):
        torch.load(tmp_path / "file", weights_only=False)
    assert not (tmp_path / "ran").exists()
    assert os.environ["TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"] == "1"
    assert "TORCH_FORCE_WEIGHTS_ONLY_LOAD" not in os.environ


def test_good_shards_are_taken(copy, here, capsys):
    checkpoint = copy("sharded")
    expected = torch.load(checkpoint.parents[1] / model_dir.WEIGHTS_LAST, weights_only=True)
    main(["consolidate_checkpoint", "models/sharded"])
    found = torch.load(checkpoint.parents[1] / model_dir.WEIGHTS_LAST, weights_only=True)
    assert all(torch.equal(value, found[key]) for key, value in expected.items())
    main([*LINE[:-3], "--epochs=3", *LINE[-2:], "--run_id=sharded", "--resume", "data"])
    assert len(CheckpointDirectory(checkpoint.parents[1]).published()) == 2
    capsys.readouterr()


def test_good_shards_of_deepspeed_are_taken(copy, capsys):
    checkpoint = copy("deepspeed")
    main(["verify_checkpoint", "models/deepspeed"])
    assert f"--resume would use {checkpoint.name}" in capsys.readouterr().out


# Files that are not part of the checkpoint --------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["../../../secret.pt", "/etc/passwd", "a/../../../secret.pt", "", ".", "a//b", "x\ny"]
)
def test_a_manifest_names_files_of_its_checkpoint_only(name, copy, here, capsys):
    (here / "secret.pt").write_bytes(b"")
    checkpoint = copy("whole")
    files = json.loads((checkpoint / "manifest.json").read_text())["files"]
    seal(checkpoint, files=files | {name: {"size": 0, "sha256": hashlib.sha256(b"").hexdigest()}})
    said = refused(capsys, "consolidate_checkpoint", "models/whole")
    assert "is not the path of a file in the checkpoint" in said
    assert "manifest.json" in said


def test_links_that_lead_out_of_a_checkpoint(copy, here, capsys):
    checkpoint = copy("whole")
    (checkpoint / "state.pt").rename(here / "elsewhere.pt")
    (checkpoint / "state.pt").symlink_to(here / "elsewhere.pt")
    for said in every_way(capsys, checkpoint):
        assert "link that leads out" in said or "verify_checkpoint models/whole says how" in said


@pytest.mark.parametrize(
    "changes", [{"form": "zip"}, {"step": -1}, {"processes": 0}, {"files": {}}, {"format": "x"}]
)
def test_odd_manifests(changes, copy, capsys):
    checkpoint = copy("whole")
    seal(checkpoint, **changes)
    said = refused(capsys, "consolidate_checkpoint", "models/whole")
    assert "manifest" in said


def test_files_that_the_manifest_does_not_list_are_not_loaded(copy, here, capsys):
    checkpoint = copy("deepspeed")
    extra = checkpoint / "deepspeed" / "zero_pp_rank_1_mp_rank_00_optim_states.pt"
    torch.save(Code(here / "ran"), extra)
    for said in every_way(capsys, checkpoint):
        assert f"{extra} is not in the manifest" in said
    # A shard that nothing refers to is left alone; one that the metadata refers to is refused.
    checkpoint = copy("sharded")
    extra = checkpoint / "sharded" / "__9_9.distcp"
    shutil.copyfile(checkpoint / "sharded" / "__0_0.distcp", extra)
    main(["consolidate_checkpoint", "models/sharded"])
    capsys.readouterr()
    for path in ("__9_9.distcp", "../../../secret", "/etc/passwd"):
        metadata = pickle.loads((checkpoint / sharded.METADATA).read_bytes())
        for place in metadata.storage_data.values():
            place.relative_path = path
        plain(metadata, checkpoint / sharded.METADATA)
        seal(checkpoint)
        for said in every_way(capsys, checkpoint):
            assert f"it leads to {path}, which is not in the manifest" in said


def test_metadata_that_describes_more_than_there_is(copy, here, capsys):
    checkpoint = copy("sharded")
    metadata = pickle.loads((checkpoint / sharded.METADATA).read_bytes())
    entry = next(v for k, v in metadata.state_dict_metadata.items() if k.startswith("model."))
    entry.size = torch.Size([10**6, 10**6])
    plain(metadata, checkpoint / sharded.METADATA)
    seal(checkpoint)
    for said in every_way(capsys, checkpoint):
        assert "bytes of tensors, but the shards have" in said


def test_progress_that_is_none(copy, capsys):
    for text in ("", "[]", "{}", '{"step": "x"}', "[" * 100_000):
        checkpoint = copy("whole")
        (checkpoint / "progress.json").write_text(text)
        seal(checkpoint)
        said = refused(capsys, *LINE, "--run_id=whole", "--resume", "data")
        assert "progress.json does not contain the state of a run" in said


# Weights ------------------------------------------------------------------------------------------


def test_no_code_in_weights_is_run(copy, here, capsys):
    run = copy("whole").parents[1]
    weights, marker = run / model_dir.WEIGHTS_LAST, here / "ran"
    config, applied = run / model_dir.MODEL_CONFIG, here / "applied.yml"
    heads = yaml.safe_load(config.read_text())
    head = heads["out_heads"]["cons"] | {"num_classes": 2, "output_token_idx": -1}
    heads["out_heads"] |= {"embedding": {"output_token_idx": -1}, "multiclass": head}
    applied.write_text(yaml.safe_dump(heads))
    for write in WRITERS:
        for content in (Code(marker), {"backbone.layer_norm.weight": Code(marker)}):
            write(content, weights)
            for words in (
                ["export_embedder", config, weights],
                ["compute_embeddings", "data", applied, weights],
                ["evaluate_model", "data", applied, weights],
                ["annotate_behavior", "data", applied, weights],
                ["fetch_model", "someone/else", f"--source={run}"],
                [*LINE, f"--load_backbone_weights={weights}", "--run_id=b", "data"],
            ):
                said = refused(capsys, *words)
                assert "weights_last.pt cannot be read as weights" in said
    assert not marker.exists()
    assert sorted(path.name for path in (here / "models").iterdir()) == ["whole"]
