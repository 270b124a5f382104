"""Which checkpoint a run resumes from, and whether it is still the same run."""

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from accelerate.utils import broadcast_object_list

from lisbet.core.errors import ConfigError, DataError, LisbetError, ModelError, OutputError
from lisbet.core.json_types import JsonDict
from lisbet.core.option_values import Size
from lisbet.core.yaml_files import read_yaml
from lisbet.models import model_dir
from lisbet.models.multitask import ModelConfig
from lisbet.options import TrainOptions, VerifyOptions, affecting
from lisbet.training import run_folder
from lisbet.training.checkpoint.consolidate import read_weights_of
from lisbet.training.checkpoint.directory import CheckpointDirectory
from lisbet.training.checkpoint.manifest import Manifest
from lisbet.training.checkpoint.writer import read_state
from lisbet.training.datasets.batching import Batching

log = logging.getLogger(__name__)


def newest_valid(
    directory: CheckpointDirectory, accelerator: Accelerator, *, up_to: int | None = None
) -> Path | None:
    """Return the newest valid checkpoint, the same on all processes, or None without any.

    The main process looks for it; see `CheckpointDirectory.newest_valid`.
    """
    chosen: list[Any] = [None]
    if accelerator.is_main_process:
        try:
            chosen = [directory.newest_valid(up_to)]
        except ModelError as error:
            chosen = [error]
    broadcast_object_list(chosen)
    if isinstance(chosen[0], ModelError):
        raise chosen[0]
    return None if chosen[0] is None else Path(chosen[0])


def require_same_run(begun: JsonDict, run: JsonDict, folder: Path) -> None:
    """Refuse to resume with options or recordings that would make another model.

    Parameters
    ----------
    begun, run : dict
        What run_config.yml held when the run began, and what it would hold now.
    folder : Path
        The model directory, to name it.

    Raises
    ------
    ConfigError
        With the list of options that differ.
    DataError
        If the recordings are not the ones that the run began with.
    """
    now = run["options"]
    before = {name: value for name, value in _defaults().items() if name in now} | begun["options"]
    ignored = affecting(TrainOptions, "run", "nothing")
    compared_by_recordings = affecting(TrainOptions, "data", "files")
    changed = {
        name: f"  --{name}: was {before.get(name)!r}, is {now.get(name)!r}"
        for name in sorted(before.keys() | now.keys())
        if name not in ignored and before.get(name) != now.get(name)
    }
    differing = [line for name, line in changed.items() if name not in compared_by_recordings]
    prepared = [line for name, line in changed.items() if name in compared_by_recordings]
    follows = now["schedule"] == "cosine" or now["warmup_share"] is not None
    if follows and now["epochs"] != before["epochs"]:
        differing.append(
            f"  --epochs: was {before['epochs']}, is {now['epochs']}: the learning rate depends on "
            "it, by --schedule=cosine or --warmup_share"
        )
    if now["save_weights"] == "best" != before["save_weights"]:
        differing.append("  --save_weights: the best epoch so far was not kept")
    if differing:
        raise ConfigError(
            f"{folder} was trained with other options; use those, or another --run_id:\n"
            + "\n".join(differing)
        )
    if begun["data"]["fingerprint"] != run["data"]["fingerprint"]:
        raise DataError(
            f"the recordings are not those that {folder} was trained on: their fingerprint was "
            f"{begun['data']['fingerprint'][:12]}, is {run['data']['fingerprint'][:12]}; "
            "restore them, or start a new run with another --run_id" + "\n".join(["", *prepared])
        )
    for name, was in begun["versions"].items():
        if (is_now := run["versions"].get(name)) != was:
            log.warning(
                "%s was %s, is %s: results may differ in the last digits", name, was, is_now
            )


def require_same_model(config: ModelConfig, folder: Path) -> None:
    """Refuse to resume a run whose tasks had other outputs: a task was changed since it began.

    Parameters
    ----------
    config : ModelConfig
        The model that would be trained now.
    folder : Path
        The model directory, which holds the configuration that the run began with.

    Raises
    ------
    ModelError
        With the tasks that differ, or if the configuration is damaged.
    """
    path = folder / model_dir.MODEL_CONFIG
    if not path.is_file():
        return
    before, now = (one.model_dump(mode="json") for one in (model_dir.read_config(path), config))
    differing = [
        f"  {task}: {change}"
        for task in sorted(before["out_heads"].keys() | now["out_heads"].keys())
        for change in _changes(_outputs(before, task), _outputs(now, task))
    ]
    if differing:
        raise ModelError(
            f"{folder} began with other outputs of its tasks than this version of lisbet, or of a "
            "plugin, gives them; resume it with the version that it began with, or train a new "
            "model with another --run_id:\n" + "\n".join(differing)
        )


def _outputs(config: JsonDict, task: str) -> JsonDict:
    """Return the settings of a head, and the names of its targets if they have any."""
    names = config.get("targets", {}).get(task, {}).get("names")
    return {**config["out_heads"].get(task, {}), **({"targets": names} if names else {})}


def _changes(before: JsonDict, now: JsonDict) -> Iterator[str]:
    for name in sorted(before.keys() | now.keys()):
        was, is_now = before.get(name), now.get(name)
        if was != is_now:
            lists = isinstance(was, list) and isinstance(is_now, list)
            yield f"other {name}" if lists else f"{name} was {was!r}, is {is_now!r}"


def _defaults() -> JsonDict:
    """Return the defaults of all options: runs of earlier versions lack the later options."""
    return TrainOptions(data_path=(Path(),)).model_dump(mode="json")


def remembered_bank_memory(folder: Path) -> Size | None:
    """Return the ``bank_memory`` that a run began with, as its run_config.yml says.

    Samples follow from it, so a resumed run keeps it, however much memory is free.
    """
    if not (folder / model_dir.RUN_CONFIG).is_file():
        return None
    try:
        return Size.parse(read_yaml(folder / model_dir.RUN_CONFIG)["options"]["bank_memory"])
    except (LisbetError, AttributeError, KeyError, TypeError, ValueError):
        return None  # damaged, or of an earlier version: `require_same_run` compares the rest


def finished_without_checkpoint(run: Path, config: JsonDict, epochs: int) -> bool:
    """Whether a run that has no checkpoint is finished; if not, it may start again.

    Raises
    ------
    LisbetError
        If it has weights that starting again would lose, or that are of a run with other options.
    """
    if not run_folder.has_weights(run):
        return False
    if not (run / model_dir.RUN_CONFIG).is_file():
        raise OutputError(
            f"{run} has weights but neither a checkpoint nor {model_dir.RUN_CONFIG}; choose "
            "another --run_id"
        )
    require_same_run(read_yaml(run / model_dir.RUN_CONFIG), config, run)
    return run_folder.is_finished(run, epochs)


def same_micro_batches(batching: Batching, checkpoint: Path | None) -> Batching:
    """Divide batches as before if the process count is the same: sums are then rounded alike."""
    if checkpoint is None:
        return batching
    before = read_state(checkpoint)[0].run["processes"]
    if before["count"] != batching.processes:
        return batching
    return Batching.of(batching.batch_size, batching.processes, before["micro_batch_size"])


def verify_checkpoint(options: VerifyOptions) -> None:
    """Print for each checkpoint of a run whether it is undamaged, and which one --resume uses."""
    run = options.model_path
    if not run.is_dir():
        raise ModelError(f"{run}: no such folder; expected a run, models/RUN")
    if not (published := CheckpointDirectory(run).published()):
        raise ModelError(f"{run} has no checkpoints; --resume would start it from the beginning")
    chosen, damaged = None, []
    for folder in published:
        try:
            manifest = Manifest.read(folder)
            wrong = manifest.problems(folder)
            print(f"{folder.name}: step {manifest.step}, {manifest.strategy}")
            for name, file in manifest.files.items():
                print(f"  {wrong.get(name, 'ok'):10} {name} ({file.size} bytes)")
            if not wrong:
                count = len(read_weights_of(folder, manifest))
                print(f"  {'ok':10} {count} tensors of weights can be loaded")
                chosen = chosen or folder
                continue
        except ModelError as error:
            print(f"{folder.name}: {error}")
        damaged.append(folder.name)
    if chosen is None:
        raise ModelError(f"none of the checkpoints of {run} can be used (see the messages above)")
    print(f"--resume would use {chosen.name}")
    if damaged:
        raise ModelError(f"damaged: {', '.join(damaged)}; the others are as they were written")
