"""Read checkpoints that somebody else may have written, without running what is in them.

A pickle can name any function, and loading it calls that function. The hashes of a manifest do not
help: whoever writes a checkpoint also writes its manifest. So every pickle of a checkpoint is read
by an unpickler that knows only the classes that torch and DeepSpeed write there: torch's own
``weights_only`` unpickler, with the few classes of DeepSpeed's shards added, and for the
``.metadata`` of torch distributed checkpoint, which torch reads without any restriction, one of
ours. There is no option to read anything else.
"""

import contextlib
import importlib.util
import math
import os
import pickle
import re
import warnings
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any, cast

import torch
import torch.distributed.checkpoint.metadata as dcp
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.filesystem import FileSystemReader, _StorageInfo
from torch.distributed.checkpoint.utils import _create_file_view
from torch.serialization import _get_layout

from lisbet.errors import ModelError
from lisbet.training.manifest import DEEPSPEED, SHARDED, STATE_FILE, WHOLE, Manifest

METADATA = f"{SHARDED}/.metadata"
FORCE, FORCE_NOT = "TORCH_FORCE_WEIGHTS_ONLY_LOAD", "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"
"""Environment variables of torch.load; torch refuses to load when both are set."""
CLASSES: dict[tuple[str, str], Any] = {
    **{
        (dcp.__name__, kind.__name__): kind
        for kind in (
            dcp.BytesStorageMetadata,
            dcp.ChunkStorageMetadata,
            dcp.Metadata,
            dcp.MetadataIndex,
            dcp.StorageMeta,
            dcp.TensorProperties,
            dcp.TensorStorageMetadata,
            dcp._MEM_FORMAT_ENCODING,
        )
    },
    (FileSystemReader.__module__, "_StorageInfo"): _StorageInfo,
    ("torch.serialization", "_get_layout"): _get_layout,
    ("torch", "Size"): torch.Size,
    # The path under which it was written; it is not used, so the file system does not matter.
    **{
        (module, kind): PurePosixPath
        for module in ("pathlib", "pathlib._local")
        for kind in ("PosixPath", "WindowsPath", "PurePosixPath", "PureWindowsPath")
    },
    **{
        ("torch", name): value
        for name, value in vars(torch).items()
        if isinstance(value, torch.dtype)
    },
}
"""What the metadata of torch distributed checkpoint consists of, by module and name."""


class _MetadataUnpickler(pickle.Unpickler):
    """Unpickles the metadata of torch distributed checkpoint and nothing else."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in CLASSES:
            raise pickle.UnpicklingError(f"it names {module}.{name}")
        return CLASSES[module, name]


class Reader(FileSystemReader):
    """Reads a sharded state of which nothing but tensors and plain values is admitted.

    Parameters
    ----------
    folder : Path
        The checkpoint, see `manifest`.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__(folder / SHARDED)
        self._folder = folder

    # Without **kwargs: torch then does not look for the metadata of single ranks.
    def read_metadata(self) -> dcp.Metadata:
        """Read the metadata; each process does, see `read_metadata`."""
        return read_metadata(self._folder, Manifest.read(self._folder))


def read_metadata(folder: Path, manifest: Manifest) -> dcp.Metadata:
    """Read what a sharded state holds: names, sizes, and the files in which they are.

    Raises
    ------
    ModelError
        If it holds anything else, or leads to files that are not part of the checkpoint.
    """
    path = folder / METADATA
    try:
        with path.open("rb") as stream:
            metadata = _MetadataUnpickler(stream).load()
        _require_plausible(metadata, manifest)
    except OSError:
        raise
    except Exception as error:  # a damaged file makes the unpickler raise almost anything
        raise refusal(path, error) from error
    metadata.storage_meta = dcp.StorageMeta()
    return cast(dcp.Metadata, metadata)


def _require_plausible(metadata: Any, manifest: Manifest) -> None:
    """Raise ValueError unless all of it lies in the files of the checkpoint."""
    if not isinstance(metadata, dcp.Metadata):
        raise ValueError(f"it is a {type(metadata).__name__}, not the metadata of a checkpoint")
    for index, place in metadata.storage_data.items():
        name = f"{SHARDED}/{place.relative_path}"
        if not isinstance(index, dcp.MetadataIndex) or not isinstance(place, _StorageInfo):
            raise ValueError("its table of files is damaged")
        if name not in manifest.files:
            raise ValueError(f"it leads to {place.relative_path}, which is not in the manifest")
        if place.transform_descriptors or not (
            0 <= place.offset <= place.offset + place.length <= manifest.files[name].size
        ):
            raise ValueError(f"its entry for {index.fqn} does not fit {place.relative_path}")
    shards = sum(
        file.size for name, file in manifest.files.items() if name.startswith(f"{SHARDED}/")
    )
    tensors = [
        entry
        for entry in metadata.state_dict_metadata.values()
        if isinstance(entry, dcp.TensorStorageMetadata)
    ]
    if any(length < 0 for entry in tensors for length in entry.size):
        raise ValueError("it describes a tensor of negative size")
    size = sum(math.prod(entry.size) * entry.properties.dtype.itemsize for entry in tensors)
    if size > shards:
        raise ValueError(f"it describes {size} bytes of tensors, but the shards have {shards}")


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


def require_loadable(folder: Path, manifest: Manifest) -> None:
    """Check every pickle of a checkpoint whose files are as in its manifest.

    Tensors are not read, only what describes them.

    Raises
    ------
    ModelError
        Naming the first file that holds anything but tensors and plain values, or that would be
        read though it is not in the manifest.
    """
    needed = {WHOLE: [STATE_FILE], SHARDED: [METADATA], DEEPSPEED: []}[manifest.form]
    for name in ("progress.json", "metrics.pt", *needed):
        if name not in manifest.files:
            raise ModelError(f"{folder}: {name} is not in the manifest; the checkpoint is damaged")
    for path in (folder / DEEPSPEED).glob("**/*.pt"):  # DeepSpeed takes all that is there
        if path.relative_to(folder).as_posix() not in manifest.files:
            raise ModelError(f"{path} is not in the manifest: it is not part of the checkpoint")
    if manifest.form == SHARDED:
        _check_shards(folder, read_metadata(folder, manifest))
    installed = importlib.util.find_spec("deepspeed") is not None
    with weights_only(deepspeed=manifest.form == DEEPSPEED):
        for name in manifest.files:
            # Without DeepSpeed nobody can load its optimizer's shards.
            if name.endswith(".pt") and (installed or not name.endswith("optim_states.pt")):
                _check_pickle(folder / name, folder / name)


def _check_shards(folder: Path, metadata: dcp.Metadata) -> None:
    by_file: dict[str, list[_StorageInfo]] = {}
    for place in metadata.storage_data.values():
        by_file.setdefault(place.relative_path, []).append(place)
    with weights_only():
        for name, places in by_file.items():
            path = folder / SHARDED / name
            with path.open("rb") as stream:
                for place in places:
                    part = _create_file_view(stream, place.offset, place.length)
                    _check_pickle(part, path)


def _check_pickle(content: Any, path: Path) -> None:
    """Unpickle without reading the tensors."""
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
    cause = (
        next(iter(error.failures.values()))[0] if isinstance(error, CheckpointException) else error
    )
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
