"""Write the weights of a checkpoint, however it is sharded, to one file: on one process."""

import json
import logging
from pathlib import Path

import torch
from torch import Tensor

from lisbet.core.errors import LisbetError, ModelError, OutputError
from lisbet.core.json_types import JsonDict
from lisbet.core.storage.files import require_file_target
from lisbet.core.storage.lock import locked
from lisbet.core.yaml_files import read_yaml
from lisbet.models import model_dir
from lisbet.models.backbones import BACKBONES
from lisbet.models.multitask import ModelConfig, outline, require_fitting
from lisbet.options import ConsolidateOptions
from lisbet.training.checkpoint.directory import CheckpointDirectory, require_loadable
from lisbet.training.checkpoint.manifest import Manifest, verified
from lisbet.training.checkpoint.restricted import unreadable
from lisbet.training.checkpoint.writer import PROGRESS
from lisbet.training.conditioning import Conditioning
from lisbet.training.strategies import BY_FORM

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
    weights = _published(config, folder, read_weights_of(folder, manifest))
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


def _published(config: ModelConfig, folder: Path, weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the weights of the network that takes recordings as they are prepared."""
    state = json.loads((folder / PROGRESS).read_text("utf-8")).get("conditioning")
    if state is None:
        return weights
    layer = BACKBONES[config.backbone["type"]].input_layer
    assert layer is not None
    return Conditioning.from_state(state).folded_weights(weights, layer)


def _require_same_run(run: Path, model_id: str, folder: Path) -> None:
    """Refuse a checkpoint that another run wrote, wherever it is now.

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
    own: JsonDict = {"options": {"run_id": model_id}}
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
        weights = BY_FORM[manifest.form].read_weights(folder)
    except (LisbetError, OSError):
        raise
    except Exception as error:  # a damaged file makes the unpicklers raise almost anything
        raise unreadable(folder, error) from error
    if not all(isinstance(value, Tensor) for value in weights.values()):
        raise ModelError(f"{folder} does not hold the weights of a model, but other values")
    return weights


def _chosen(run: Path, wanted: Path | None) -> Path:
    """Return the checkpoint to read: a path, a name in the run, or the newest."""
    directory = CheckpointDirectory(run)
    published = directory.published()
    if wanted is not None:
        inside = directory.path / wanted
        folder = inside if inside.is_dir() else wanted
        if not folder.is_dir():
            names = ", ".join(path.name for path in published) or "none"
            raise ModelError(f"no checkpoint {wanted}; those in {directory.path}: {names}")
        return folder
    if not published:
        raise ModelError(f"{run} has no checkpoint in {directory.path}")
    return published[0]
