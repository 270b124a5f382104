"""Which checkpoint a run goes on from, and whether it is still the same run."""

import logging
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from accelerate.utils import broadcast_object_list

from lisbet.core.config import Size
from lisbet.core.errors import ConfigError, DataError, LisbetError, ModelError, OutputError
from lisbet.core.storage.subfolders import rename_folder
from lisbet.core.yaml_files import read_yaml
from lisbet.models import model_dir
from lisbet.options import TrainOptions, VerifyOptions, affecting
from lisbet.training import run_folder
from lisbet.training.checkpoint.consolidate import read_weights_of
from lisbet.training.checkpoint.manifest import (
    DEEPSPEED,
    MANIFEST,
    Manifest,
    published_checkpoints,
    verified,
)
from lisbet.training.checkpoint.restricted import require_loadable
from lisbet.training.checkpoint.writer import read_progress
from lisbet.training.datasets.batching import Batching
from lisbet.training.strategies import strategy

log = logging.getLogger(__name__)


def newest_good(run: Path, accelerator: Accelerator, *, up_to: int | None = None) -> Path | None:
    """Return the newest checkpoint that is whole, the same on all processes, or None without any.

    Damaged ones are named.

    Parameters
    ----------
    run : Path
        The model directory.
    accelerator : Accelerator
        The processes; the first one looks.
    up_to : int, optional
        Only those of this step or before.

    Raises
    ------
    ModelError
        If there are some, but all are damaged.
    """
    chosen: list[Any] = [None]
    if accelerator.is_main_process:
        try:
            chosen = [_newest_good(run, up_to)]
        except ModelError as error:
            chosen = [error]
    broadcast_object_list(chosen)
    if isinstance(chosen[0], ModelError):
        raise chosen[0]
    return None if chosen[0] is None else Path(chosen[0])


def _newest_good(run: Path, up_to: int | None) -> Path | None:
    there = published_checkpoints(run)
    damaged = []
    for folder in there:
        try:
            manifest = verified(folder)
        except ModelError as error:
            log.warning("%s", error)
            damaged.append(folder)
            continue
        if up_to is not None and manifest.step > up_to:
            continue
        if damaged:
            log.warning("going on from the one before: %s", folder)
        # Not a reason to take another one: this is not damage that a disk does.
        require_loadable(folder, manifest)
        return folder
    if damaged:
        raise ModelError(
            f"all {len(damaged)} checkpoints of {run} are damaged; betman verify_checkpoint {run} "
            "says how. To start anew, use another --run_id or --overwrite"
        )
    return None


def set_newer_aside(run: Path, taken: Path) -> None:
    """Rename the checkpoints that were passed over as damaged: the run will write them anew."""
    for folder in published_checkpoints(run):
        if int(folder.name[5:]) > int(taken.name[5:]):
            names = (f"damaged_{folder.name}{end}" for end in ("", *(f"_{n}" for n in range(1000))))
            free = next(path for n in names if not (path := folder.with_name(n)).exists())
            rename_folder(folder, free, run)


def require_same_run(begun: dict[str, Any], run: dict[str, Any], folder: Path) -> None:
    """Refuse to go on with options or recordings that would make another model.

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
            "bring them back, or start anew with another --run_id" + "\n".join(["", *prepared])
        )
    for name, was in begun["versions"].items():
        if (is_now := run["versions"].get(name)) != was:
            log.warning(
                "%s was %s, is %s: results may differ in the last digits", name, was, is_now
            )


def _defaults() -> dict[str, Any]:
    """Return the defaults of all options: what runs of earlier releases had for newer ones."""
    return TrainOptions(data_path=(Path(),)).model_dump(mode="json")


def require_same_strategy(manifest: Manifest, accelerator: Accelerator) -> None:
    """Refuse a state that this strategy cannot read.

    Raises
    ------
    ConfigError
        With the way out.
    """
    now = strategy.name(accelerator), accelerator.num_processes
    was = manifest.strategy, manifest.processes
    if DEEPSPEED in (manifest.form, strategy.state_form(accelerator)) and now != was:
        raise ConfigError(
            f"the checkpoint is of {was[0]} with {was[1]} processes, and DeepSpeed cannot go on "
            f"from it with {now[0]} and {now[1]} processes. Go on as before; or make weights of it "
            "with betman consolidate_checkpoint and start a new run from them with "
            "--load_backbone_weights"
        )


def remembered_bank_memory(folder: Path) -> Size | None:
    """Return the ``bank_memory`` that a run began with, as its run_config.yml says.

    Samples follow from it, so a run keeps it, however much memory is free where it goes on.
    """
    if not (folder / model_dir.RUN_CONFIG).is_file():
        return None
    try:
        return Size.parse(read_yaml(folder / model_dir.RUN_CONFIG)["options"]["bank_memory"])
    except (LisbetError, AttributeError, KeyError, TypeError, ValueError):
        return None  # damaged, or of an earlier release: `require_same_run` compares what there is


def finished_without_checkpoint(run: Path, config: dict[str, Any], epochs: int) -> bool:
    """Whether a run that has no checkpoint is finished; if not, it may start anew.

    Raises
    ------
    LisbetError
        If it has weights that starting anew would lose, or that are of a run with other options.
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


def same_passes(batching: Batching, checkpoint: Path | None) -> Batching:
    """Share batches out as before, where there are as many processes: then sums round alike."""
    if checkpoint is None:
        return batching
    before = read_progress(checkpoint)[0].run["processes"]
    if before["count"] != batching.processes:
        return batching
    return Batching.of(batching.batch_size, batching.processes, before["micro_batch_size"])


def verify_checkpoint(options: VerifyOptions) -> None:
    """Print for each checkpoint of a run whether it is whole, and which one a resume would take."""
    run = options.model_path
    if not run.is_dir():
        raise ModelError(f"{run}: no such folder; expected a run, models/RUN")
    if not (there := published_checkpoints(run)):
        raise ModelError(f"{run} has no checkpoints; a run with --resume would start anew")
    chosen, damaged = None, []
    for folder in there:
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
        raise ModelError(f"none of the checkpoints of {run} can be used ({MANIFEST} says why)")
    print(f"--resume would take {chosen.name}")
    if damaged:
        raise ModelError(f"damaged: {', '.join(damaged)}; the others are as they were written")
