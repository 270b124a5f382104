"""What a command may import: modules are counted, not seconds."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import TINY, write_dataset

HEAVY = {
    "accelerate", "deepspeed", "h5py", "hmmlearn", "huggingface_hub", "matplotlib", "movement",
    "netCDF4", "pandas", "requests", "scipy", "sklearn", "sympy", "tensorboard", "torch",
    "torch._dynamo",
    "torch.distributed.checkpoint", "torch.distributed.fsdp", "torch.distributed.tensor",
    "torchmetrics", "wandb", "xarray", "zarr",
}  # fmt: skip
READING = {"h5py", "netCDF4", "pandas", "xarray"}
"""What reading recordings needs."""
PROGRAM = """
import json, sys
from lisbet.cli import main
try:
    main(sys.argv[1:])
finally:
    heavy = json.load(open("heavy.json"))
    json.dump([name for name in heavy if name in sys.modules], open("found.json", "w"))
"""
EMBEDDER = ["models/m-embedder/model_config.yml", "models/m-embedder/weights/weights_last.pt"]
MODEL = ["models/m/model_config.yml", "models/m/weights/weights_last.pt"]
COMMANDS = {
    "--help": ([], set()),
    "launch_configs": ([], set()),
    "runs": (["models"], set()),
    "plot_history": (["models/m", "--overwrite"], {"matplotlib"}),
    "dataset_info": (["data"], READING),
    "convert_dataset": (["data", "data.zarr"], {*READING, "zarr"}),
    # It checks the recordings as train_model does.
    "slurm_script": (["data", "--run_id=m2", "--time=1:00:00"], {*READING, "torch", "accelerate"}),
    "train_model": ([*TINY, "--epochs=1", "data"], {*READING, "torch", "accelerate"}),
    "export_embedder": ([*MODEL, "--overwrite"], {"torch"}),
    "model_info": ([MODEL[0]], {"torch"}),
    "compute_embeddings": (["data", *EMBEDDER], {*READING, "torch", "accelerate"}),
}


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("imports")
    write_dataset(folder / "data", [60, 80, 50])
    (folder / "heavy.json").write_text(json.dumps(sorted(HEAVY)))
    assert modules_of(["train_model", *TINY, "--epochs=1", "--save_history", "--run_id=m", "data"],
                      folder)  # fmt: skip
    assert modules_of(["export_embedder", *MODEL], folder)
    return folder


def modules_of(words: list[str], folder: Path) -> set[str]:
    """Run a command in a process of its own; return which heavy modules it has imported."""
    found = folder / "found.json"
    found.unlink(missing_ok=True)
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *words], cwd=folder, capture_output=True, text=True,
        timeout=120, check=False, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return set(json.loads(found.read_text()))


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_imports_only_what_it_needs(command, place):
    words, allowed = COMMANDS[command]
    found = modules_of([command, *words], place)
    assert found <= allowed


def test_the_count_sees_what_is_imported(place):
    assert {"torch", "accelerate"} <= modules_of(
        ["train_model", *TINY, "--epochs=1", "data"], place
    )
