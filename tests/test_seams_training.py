"""Features of training that meet: the network's weights under a compiler, frozen, and held out."""

import shutil
from pathlib import Path

import pytest
import torch
import yaml
from accelerate.state import AcceleratorState
from conftest import TINY, betman, weight_changes, write_dataset

from lisbet.cli import main
from lisbet.training.checkpoint.directory import CheckpointDirectory

WEIGHTS = "weights/weights_last.pt"
RUN = ["train_model", *TINY, "--warmup_epochs=0", "--save_history"]


@pytest.fixture
def place(dataset, tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def fails(*words, capsys) -> str:
    with pytest.raises(SystemExit) as caught:
        main([str(word) for word in words])
    assert caught.value.code == 2
    said = capsys.readouterr().err
    assert "Traceback" not in said
    return said


def weights_of(run: str) -> dict[str, torch.Tensor]:
    return torch.load(Path("models", run, WEIGHTS), weights_only=True)


# No recording is held out -------------------------------------------------------------------------


def test_best_weights_where_no_recording_is_held_out(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for name in ("one", "two"):
        write_dataset(Path(name), [60])
    said = fails(*RUN, "--dev_ratio=0.5", "--save_weights=best", "--run_id=a", "one,two",
                 capsys=capsys)  # fmt: skip
    assert "--save_weights=best needs held-out recordings" in said
    assert "one, two" in said
    write_dataset(Path("three"), [60, 50, 40, 40])
    said = fails(*RUN, "--dev_ratio=0.5", "--save_weights=best", "--data_filter=r0", "--run_id=a",
                 "one,three", capsys=capsys)  # fmt: skip
    assert "a single recording that passes --data_filter" in said
    # Held out, but none of what the task is trained on:
    said = fails(*RUN, "--dev_ratio=0.5", "--save_weights=best", "--task_ids=order",
                 "--task_data=order:[0]", "--run_id=a", "one,three", capsys=capsys)  # fmt: skip
    assert "task 'order', dev part: no recordings" in said
    assert not Path("models").exists()
    main([*RUN, "--dev_ratio=0.5", "--save_weights=best", "--epochs=1", "--run_id=b", "one,three"])
    assert Path("models/b/weights/weights_best.pt").is_file()


# Frozen layers ------------------------------------------------------------------------------------


def test_a_backbone_is_frozen_only_if_all_of_it_was_loaded(place, capsys):
    main([*RUN, "--epochs=1", "--run_id=one", "data"])
    deeper = [word for word in RUN if word != "--num_layers=1"]
    deeper += ["--epochs=1", "--num_layers=2", f"--load_backbone_weights=models/one/{WEIGHTS}"]
    capsys.readouterr()
    said = fails(*deeper, "--freeze_backbone_weights", "--run_id=two", "data", capsys=capsys)
    assert "--freeze_backbone_weights" in said
    assert "layers.1." in said
    assert "layers.0." not in said
    assert not Path("models/two").exists()
    said = fails(*deeper, "--freeze_backbone_weights", "--run_id=two", "none", capsys=capsys)
    assert "layers.1." in said  # before recordings are looked for
    main([*deeper, "--run_id=three", "data"])  # what is not there is trained
    main([*RUN, "--epochs=1", "--freeze_backbone_weights", "--run_id=control", "data"])


# A network that Accelerate compiles ---------------------------------------------------------------


@pytest.fixture
def dynamo(monkeypatch):
    """Return what makes the next runs of this process compile as ACCELERATE_DYNAMO_* says."""

    def use(**environment: str) -> None:
        for name, value in environment.items():
            monkeypatch.setenv(f"ACCELERATE_DYNAMO_{name.upper()}", value)
        AcceleratorState._reset_state(reset_partial_state=True)

    yield use
    AcceleratorState._reset_state(reset_partial_state=True)


def test_weights_of_a_compiled_network_have_plain_names(place, dynamo):
    dynamo(backend="eager")
    main([*RUN, "--epochs=1", "--embedding_every=1", "--run_id=compiled", "data"])
    dynamo(backend="no")
    main([*RUN, "--epochs=1", "--run_id=plain", "data"])
    compiled, plain = weights_of("compiled"), weights_of("plain")
    assert compiled.keys() == plain.keys()
    for name, value in plain.items():
        torch.testing.assert_close(compiled[name], value, rtol=0, atol=1e-6)
    main(["export_embedder", "models/compiled/model_config.yml", f"models/compiled/{WEIGHTS}"])
    main([*RUN, "--epochs=1", f"--load_backbone_weights=models/compiled/{WEIGHTS}",
          "--freeze_backbone_weights", "--run_id=next", "data"])  # fmt: skip


@pytest.mark.parametrize("first", ["eager", "no"])
def test_compiled_and_plain_runs_resume_each_other(place, dynamo, first):
    main([*RUN, "--epochs=2", "--run_id=whole", "data"])
    dynamo(backend=first)
    main([*RUN, "--epochs=1", "--run_id=a", "data"])
    dynamo(backend={"eager": "no", "no": "eager"}[first])
    main([*RUN, "--epochs=2", "--run_id=a", "--resume", "data"])
    expected, found = weights_of("whole"), weights_of("a")
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=0, atol=1e-6)


def test_a_compiled_run_makes_the_same_model_and_is_resumed_without_compiling(place):
    if shutil.which("g++") is None:
        pytest.skip("torch.compile needs a C++ compiler on a CPU, and there is no g++")
    line = [*RUN, "--task_ids=cons,warp"]
    main([*line, "--epochs=2", "--run_id=plain", "data"])
    done = betman(*line, "--epochs=1", "--run_id=compiled", "--compile", "data", cwd=place,
                  real=True)  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "not compiled" not in done.stderr
    main([*line, "--epochs=2", "--run_id=compiled", "--resume", "data"])
    for name, _, change in weight_changes(weights_of("plain"), weights_of("compiled")):
        assert change.abs().max() < 1e-5, name


def test_where_nothing_can_be_compiled_training_goes_on_and_says_why(place):
    done = betman(*RUN, "--epochs=1", "--run_id=a", "--compile", "data", cwd=place,
                  CXX="/nonexistent", PATH="/nonexistent",
                  TORCHINDUCTOR_CACHE_DIR=str(place / "cache"))  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "--compile: the network is not compiled" in done.stderr
    assert "/nonexistent" in done.stderr  # the reason
    main([*RUN, "--epochs=1", "--run_id=b", "data"])
    for name, _, change in weight_changes(weights_of("b"), weights_of("a")):
        assert change.abs().max() < 1e-6, name


def test_two_processes_with_a_compiler(place):
    settings = {"compute_environment": "LOCAL_MACHINE", "distributed_type": "MULTI_GPU",
                "mixed_precision": "no", "num_machines": 1, "num_processes": 2,
                "dynamo_config": {"dynamo_backend": "EAGER"}}  # fmt: skip
    Path("dynamo.yaml").write_text(yaml.safe_dump(settings))
    done = betman(*RUN, "--epochs=1", "--launch=dynamo.yaml", "--run_id=two", "data", cwd=place,
                  real=True)  # fmt: skip
    assert done.returncode == 0, done.stderr
    main([*RUN, "--epochs=1", "--run_id=one", "data"])
    two, one = weights_of("two"), weights_of("one")
    for name, _, change in weight_changes(one, two):
        assert change.abs().max() < 1e-4, name
    (newest,) = CheckpointDirectory(Path("models/two")).published()
    saved = torch.load(newest / "state.pt", weights_only=True)
    assert saved["model"].keys() == one.keys()


def test_regional_compilation_is_refused(place, dynamo, capsys):
    dynamo(backend="eager", use_regional_compilation="true")
    said = fails(*RUN, "--epochs=1", "--run_id=a", "data", capsys=capsys)
    assert "regional compilation" in said
    assert not Path("models").exists()
