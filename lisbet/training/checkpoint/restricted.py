"""Read checkpoints that somebody else may have written, without running what is in them.

A pickle can name any function, and loading it calls that function. The hashes of a manifest do not
help: whoever writes a checkpoint also writes its manifest. So every pickle of a checkpoint is read
by an unpickler that knows only the classes that torch and DeepSpeed write there: torch's own
``weights_only`` unpickler, with the few classes of DeepSpeed's shards added, and for the
``.metadata`` of torch distributed checkpoint, which torch reads without any restriction, one of
ours (see `sharded`). There is no option to read anything else.
"""

import contextlib
import importlib.util
import os
import pickle
import re
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import torch

from lisbet.core.errors import ModelError
from lisbet.training.checkpoint.manifest import DEEPSPEED, Manifest

FORCE, FORCE_NOT = "TORCH_FORCE_WEIGHTS_ONLY_LOAD", "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"
"""Environment variables of torch.load; torch refuses to load when both are set."""


@contextlib.contextmanager
def weights_only(*, deepspeed: bool = False) -> Iterator[None]:
    """Let every `torch.load` in this block, also those of torch and DeepSpeed, run no code.

    Parameters
    ----------
    deepspeed : bool
        Whether to admit the classes in DeepSpeed's shards as well.
    """
    before = {name: os.environ.pop(name, None) for name in (FORCE, FORCE_NOT)}
    classes = _deepspeed_classes() if deepspeed else []
    os.environ[FORCE] = "1"
    try:
        with torch.serialization.safe_globals(classes):
            yield
    finally:
        del os.environ[FORCE]
        os.environ |= {name: value for name, value in before.items() if value is not None}


def _deepspeed_classes() -> list[Any]:
    """Return the classes in DeepSpeed's shards; none where it is not installed."""
    if importlib.util.find_spec("deepspeed") is None:
        return []
    if not torch.accelerator.is_available():
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
    from deepspeed.runtime.fp16.loss_scaler import DynamicLossScaler, LossScaler
    from deepspeed.runtime.zero.config import ZeroStageEnum
    from deepspeed.utils.tensor_fragment import fragment_address

    return [DynamicLossScaler, LossScaler, ZeroStageEnum, fragment_address]


def load_file(path: Path, *, mmap: bool = False) -> Any:
    """Load a file of `torch.save` that holds tensors and plain values, on the CPU.

    Raises
    ------
    ModelError
        If it holds anything else, or is damaged.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # of pickles that it then refuses
            return torch.load(path, map_location="cpu", weights_only=True, mmap=mmap)
    except OSError:
        raise
    except Exception as error:  # a damaged file makes the unpickler raise almost anything
        raise refusal(path, error) from error


def require_listed(folder: Path, manifest: Manifest, *names: str) -> None:
    """Raise ModelError unless these files are in the manifest of a checkpoint."""
    for name in names:
        if name not in manifest.files:
            raise ModelError(f"{folder}: {name} is not in the manifest; the checkpoint is damaged")


def check_pickles(folder: Path, manifest: Manifest) -> None:
    """Unpickle each file of `torch.save` of a checkpoint, without reading the tensors.

    Raises
    ------
    ModelError
        Naming the first that holds anything but tensors and plain values.
    """
    installed = importlib.util.find_spec("deepspeed") is not None
    with weights_only(deepspeed=manifest.form == DEEPSPEED):
        for name in manifest.files:
            # Without DeepSpeed nobody can load its optimizer's shards.
            if name.endswith(".pt") and (installed or not name.endswith("optim_states.pt")):
                check_pickle(folder / name, folder / name)


def check_pickle(content: Path | IO[bytes], path: Path) -> None:
    """Unpickle a path or stream, without reading the tensors; `path` names it in errors."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # of pickles that it then refuses
            torch.load(content, map_location="meta", weights_only=True)
    except OSError:
        raise
    except Exception as error:  # a damaged file makes the unpickler raise almost anything
        raise refusal(path, error) from error


def unreadable(folder: Path, error: BaseException) -> ModelError:
    """Build the error for a checkpoint whose parts can be loaded, but are not those of a model."""
    failures = getattr(error, "failures", {})  # of torch distributed checkpoint, by process
    cause = next(iter(failures.values()))[0] if failures else error
    return ModelError(
        f"{folder} cannot be read as the state of a model ({type(cause).__name__}: "
        f"{str(cause).partition(chr(10))[0][:200]}); use another checkpoint"
    )


def refusal(path: Path, error: Exception) -> ModelError:
    """Build the error for a file that holds something else than it should."""
    named = re.search(r"GLOBAL (\S+) (?:was not|whose)|names (\S+)$", str(error), re.MULTILINE)
    reason = f"it names {named[1] or named[2]}" if named else str(error).partition("\n")[0][:200]
    if isinstance(error, pickle.UnpicklingError) and not named:
        reason = "its pickle is not one that torch writes"
    return ModelError(
        f"{path} cannot be loaded ({reason}): it is damaged, or holds something else than tensors "
        "and plain values, such as code, which is never run. Use a file from a source you trust"
    )
