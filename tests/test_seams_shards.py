"""Each process of a checkpoint knows its files: a folder's listing may be out of date."""

import io
import os
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from lisbet.options import CheckpointOptions
from lisbet.training.checkpoint.directory import CheckpointDirectory
from lisbet.training.checkpoint.manifest import DEEPSPEED, SHARDED, WHOLE, hash_of
from lisbet.training.checkpoint.writer import Checkpoints, TrainingState
from lisbet.training.strategies import BY_FORM, deepspeed, sharded

STATE = TrainingState(step=3, history=(), hashes=(), skipped=0, scaler={}, run={})


class Listed(AssertionError):
    pass


def listed(*args, **kwargs):
    raise Listed


def prepared(monkeypatch, form: str):
    """A strategy of this form with a small network and its optimizer, on one process."""
    model = torch.nn.Linear(3, 2)
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    content = {
        f"deepspeed/{name}": io.BytesIO(name.encode())
        for name in ("mp_rank_00_model_states.pt", "zero_pp_rank_0_mp_rank_00_optim_states.pt")
    }
    monkeypatch.setattr(deepspeed, "_saved_files", lambda _: content)
    plugin = SimpleNamespace(zero_stage=1)
    accelerator = SimpleNamespace(
        is_main_process=True, num_processes=1, process_index=0, is_fsdp2=True,
        state=SimpleNamespace(deepspeed_plugin=plugin),
    )  # fmt: skip
    strategy = BY_FORM[form](accelerator)
    strategy.model, strategy.optimizer = model, SimpleNamespace(optimizer=optimizer)
    return strategy


@pytest.mark.parametrize("form", BY_FORM)
def test_no_process_lists_the_folder(form, tmp_path, monkeypatch):
    strategy = prepared(monkeypatch, form)
    checkpoints = Checkpoints(strategy, CheckpointDirectory(tmp_path), CheckpointOptions())
    found = {}
    target = tmp_path / "checkpoints" / "step_00000003"
    with monkeypatch.context() as patched:
        patched.setattr(checkpoints, "_publish", lambda *given: found.update(given[-1]))
        for place, name in (
            (Path, "rglob"), (Path, "glob"), (Path, "iterdir"), (os, "scandir"), (os, "listdir"),
        ):  # fmt: skip
            patched.setattr(place, name, listed)
        checkpoints._write(target, strategy.copy_state(), STATE, [{}])
    (temporary,) = target.parent.iterdir()
    there = {
        path.relative_to(temporary).as_posix(): hash_of(path)
        for path in temporary.rglob("*")
        if path.is_file()
    }
    assert {name: file.sha256 for name, file in found.items()} == there
    assert len(there) == {WHOLE: 3, SHARDED: 4, DEEPSPEED: 4}[form]


def test_each_process_names_its_own_shards(tmp_path):
    """The first one also wrote the metadata."""
    state = {"model": {name: torch.ones(4) for name in "abc"}, "step": 3}
    named = sharded.write(state, tmp_path / "first", None, 0)
    assert sorted(named) == sorted(path.name for path in (tmp_path / "first").iterdir())
    assert ".metadata" in named
    assert len(named) == 2
    named = sharded.write(state, tmp_path / "other", None, 1)
    assert {*named, ".metadata"} == {path.name for path in (tmp_path / "other").iterdir()}
    assert ".metadata" not in named
