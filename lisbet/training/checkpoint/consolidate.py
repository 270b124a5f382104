"""From a checkpoint, however it was sharded, to the documented weights: on one process."""

import contextlib
import json
import logging
import os
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lisbet.core.errors import LisbetError, ModelError, OutputError
from lisbet.core.storage.files import require_file_target
from lisbet.core.storage.lock import locked
from lisbet.core.yaml_files import read_yaml
from lisbet.distributed import environment
from lisbet.models import model_dir
from lisbet.models.multitask import outline, require_fitting
from lisbet.options import ConsolidateOptions
from lisbet.training.checkpoint.manifest import (
    CHECKPOINTS,
    DEEPSPEED,
    SHARDED,
    STATE_FILE,
    WHOLE,
    Manifest,
    published_checkpoints,
    verified,
)
from lisbet.training.checkpoint.restricted import (
    load_file,
    require_loadable,
    unreadable,
    weights_only,
)
from lisbet.training.checkpoint.writer import PROGRESS

log = logging.getLogger(__name__)

SAME = ("run_id", "seed", "task_ids", "batch_size", "learning_rate")
"""Options that are the same in all checkpoints of a run."""


def consolidate_checkpoint(options: ConsolidateOptions) -> None:
    """Write weights/weights_last.pt from a checkpoint of the run."""
    run = options.model_path
    config = model_dir.read_config(run / model_dir.MODEL_CONFIG)
    path = run / model_dir.WEIGHTS_LAST
    if path.is_symlink() or not path.is_file():
        require_file_target(path, root=run, overwrite=options.overwrite)
    folder = _chosen(run, options.checkpoint)
    manifest = verified(folder)
    log.info("%s: step %d, by %s", folder, manifest.step, manifest.strategy)
    _require_same_run(run, config.model_id, folder)
    weights = read_weights_of(folder, manifest)
    require_fitting(outline(config), weights, str(folder))
    if path.is_file():
        if _same_weights(path, weights):
            print(f"the weights of step {manifest.step} are in {path} already")
            return
        if not options.overwrite:
            raise OutputError(
                f"{path} exists and holds other weights than those of step {manifest.step} in "
                f"{folder}; replace it with --overwrite, or move it away"
            )
    require_file_target(path, root=run, overwrite=options.overwrite)
    with locked(run):
        model_dir.save_weights(path, weights, root=run, overwrite=options.overwrite)
    print(f"weights of step {manifest.step} written to {path}")


def _require_same_run(run: Path, model_id: str, folder: Path) -> None:
    """Refuse a checkpoint that another run wrote, wherever it lies now.

    Raises
    ------
    ModelError
        Naming both runs.
    """
    path = folder / PROGRESS
    try:
        other = json.loads(path.read_text("utf-8"))["run"]
        options, recordings = dict(other["options"]), other["data"]["fingerprint"]
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise ModelError(f"{path} does not say which run wrote the checkpoint: {error}") from error
    own: dict[str, Any] = {"options": {"run_id": model_id}}
    if (run / model_dir.RUN_CONFIG).is_file():
        own = read_yaml(run / model_dir.RUN_CONFIG)
        own["options"] = dict(own.get("options") or {}) | {"run_id": model_id}
    differing = [
        f"its {name} is {options.get(name)!r}, not {value!r}"
        for name, value in own["options"].items()
        if name in SAME and options.get(name) != value
    ]
    if recordings != own.get("data", {}).get("fingerprint", recordings):
        differing.append("it was trained on other recordings")
    if differing:
        raise ModelError(
            f"{folder} is a checkpoint of another run than {run}: {'; '.join(differing)}. Give "
            "the folder of the run that wrote it"
        )


def _same_weights(path: Path, weights: dict[str, Tensor]) -> bool:
    """Whether a file holds these weights, as float32; not if it cannot be read."""
    try:
        found = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        return found.keys() == weights.keys() and all(
            torch.equal(value, weights[key].to("cpu", torch.float32))
            for key, value in found.items()
        )
    except Exception:  # a damaged file makes the unpickler raise almost anything
        return False


def read_weights_of(folder: Path, manifest: Manifest) -> dict[str, Tensor]:
    """Read the weights of a checkpoint that was verified, without the optimizer's state.

    Nothing in the files is run, see `restricted`.

    Raises
    ------
    ModelError
        Naming the file that holds anything but tensors and plain values.
    """
    require_loadable(folder, manifest)
    try:
        weights = _READERS[manifest.form](folder)
    except (LisbetError, OSError):
        raise
    except Exception as error:  # a damaged file makes the unpicklers raise almost anything
        raise unreadable(folder, error) from error
    if not all(isinstance(value, Tensor) for value in weights.values()):
        raise ModelError(f"{folder} does not hold the weights of a model, but other values")
    return weights


def _chosen(run: Path, wanted: Path | None) -> Path:
    """Return the folder of the checkpoint to use: a path, a name in the run, or the newest."""
    if wanted is not None:
        inside = run / CHECKPOINTS / wanted
        folder = inside if inside.is_dir() else wanted
        if not folder.is_dir():
            names = ", ".join(path.name for path in published_checkpoints(run)) or "none"
            raise ModelError(f"no checkpoint {wanted}; in {run / CHECKPOINTS} there is: {names}")
        return folder
    if not (there := published_checkpoints(run)):
        raise ModelError(f"{run} has no checkpoint in {run / CHECKPOINTS}")
    return there[0]


def _whole(folder: Path) -> dict[str, Tensor]:
    return dict(load_file(folder / STATE_FILE, mmap=True)["model"])


def _sharded(folder: Path) -> dict[str, Tensor]:
    from lisbet.training.strategies import sharded  # takes a second to import

    return sharded.read_weights(folder)


def _deepspeed(folder: Path) -> dict[str, Tensor]:
    """Read the weights that ZeRO-1 and 2 keep whole, and that ZeRO-3 keeps in pieces."""
    whole = folder / DEEPSPEED / "mp_rank_00_model_states.pt"
    if whole.exists():
        return dict(load_file(whole, mmap=True)["module"])
    environment.require_deepspeed()
    os.environ.setdefault("DS_ACCELERATOR", "cpu")  # it is only to read
    from deepspeed.utils.zero_to_fp32 import get_fp32_state_dict_from_zero_checkpoint

    with (
        open(os.devnull, "w") as quiet,
        contextlib.redirect_stdout(quiet),
        contextlib.redirect_stderr(quiet),
        weights_only(deepspeed=True),
    ):
        pieces = get_fp32_state_dict_from_zero_checkpoint(
            str(folder), tag=DEEPSPEED, lazy_mode=True
        )
    return {key: piece.contiguous() for key, piece in pieces.items()}


_READERS = {WHOLE: _whole, SHARDED: _sharded, DEEPSPEED: _deepspeed}
