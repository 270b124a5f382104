"""From a checkpoint, however it was sharded, to the documented weights: on one process."""

import contextlib
import io
import logging
from pathlib import Path

import torch
from torch import Tensor
from torch.distributed.checkpoint.filesystem import FileSystemReader
from torch.distributed.checkpoint.metadata import TensorStorageMetadata
from torch.distributed.checkpoint.state_dict_loader import load

from lisbet import model_dir
from lisbet.errors import ModelError
from lisbet.models.multitask import MultiTaskModel, require_fitting
from lisbet.options import ConsolidateOptions
from lisbet.processes import environment
from lisbet.training.manifest import CHECKPOINTS, Manifest, published_checkpoints, verified
from lisbet.training.strategy import DEEPSPEED, SHARDED, STATE_FILE, WHOLE

log = logging.getLogger(__name__)


def consolidate_checkpoint(options: ConsolidateOptions) -> None:
    """Write weights/weights_last.pt from a checkpoint of the run."""
    run = options.model_path
    config = model_dir.read_config(run / model_dir.MODEL_CONFIG)
    folder = _chosen(run, options.checkpoint)
    manifest = verified(folder)
    log.info("%s: step %d, by %s", folder, manifest.step, manifest.strategy)
    weights = read_weights_of(folder, manifest)
    require_fitting(MultiTaskModel(config).to("meta"), weights, str(folder))
    model_dir.save_weights(run / model_dir.WEIGHTS_LAST, weights)
    print(f"weights of step {manifest.step} written to {run / model_dir.WEIGHTS_LAST}")


def read_weights_of(folder: Path, manifest: Manifest) -> dict[str, Tensor]:
    """Read the weights of a checkpoint that was verified, without the optimizer's state."""
    return _READERS[manifest.form](folder)


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
    state = torch.load(folder / STATE_FILE, map_location="cpu", weights_only=True, mmap=True)
    return dict(state["model"])


def _sharded(folder: Path) -> dict[str, Tensor]:
    """Read the weights only: the optimizer's state is twice as large and stays on the disk."""
    reader = FileSystemReader(folder / SHARDED)
    prefix = "model."
    weights = {
        key: torch.empty(entry.size, dtype=entry.properties.dtype)
        for key, entry in reader.read_metadata().state_dict_metadata.items()
        if key.startswith(prefix) and isinstance(entry, TensorStorageMetadata)
    }
    load(weights, storage_reader=reader, no_dist=True)
    return {key.removeprefix(prefix): value for key, value in weights.items()}


def _deepspeed(folder: Path) -> dict[str, Tensor]:
    """Read the float32 weights that DeepSpeed keeps in its optimizer's shards."""
    environment.require_deepspeed()
    from deepspeed.utils.zero_to_fp32 import get_fp32_state_dict_from_zero_checkpoint

    with contextlib.redirect_stdout(io.StringIO()):
        weights: dict[str, Tensor] = get_fp32_state_dict_from_zero_checkpoint(
            str(folder), tag=DEEPSPEED
        )
    return weights


_READERS = {WHOLE: _whole, SHARDED: _sharded, DEEPSPEED: _deepspeed}
