"""States in the form of torch distributed checkpoint: one file of each process, and metadata.

Importing what it needs takes a second, so that this module is imported only where a state has, or
is to have, this form.
"""

import copy
import math
import pickle
import warnings
from pathlib import Path, PurePosixPath
from typing import IO, Any, cast

import torch
import torch.distributed.checkpoint.metadata as dcp
from torch import Tensor
from torch.distributed import ProcessGroup
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.filesystem import FileSystemReader, FileSystemWriter, _StorageInfo
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_state_dict,
    set_model_state_dict,
    set_state_dict,
)
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save
from torch.distributed.checkpoint.utils import _create_file_view
from torch.serialization import _get_layout

from lisbet.training.checkpoint import restricted
from lisbet.training.checkpoint.manifest import SHARDED, Manifest
from lisbet.training.checkpoint.restricted import refusal

METADATA = f"{SHARDED}/.metadata"

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
    """Raise ValueError unless all of it is in the files of the checkpoint."""
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


def check(folder: Path, manifest: Manifest) -> None:
    """Check that the shards hold nothing but tensors and plain values; tensors are not read.

    Raises
    ------
    ModelError
        Naming the first file that holds anything else.
    """
    metadata = read_metadata(folder, manifest)
    by_file: dict[str, list[_StorageInfo]] = {}
    for place in metadata.storage_data.values():
        by_file.setdefault(place.relative_path, []).append(place)
    with restricted.weights_only():
        for name, places in by_file.items():
            path = folder / SHARDED / name
            with path.open("rb") as stream:
                for place in places:
                    part = _create_file_view(stream, place.offset, place.length)
                    restricted.check_pickle(cast(IO[bytes], part), path)


def read_weights(folder: Path) -> dict[str, Tensor]:
    """Read the weights only, one by one: the optimizer's state is twice as large."""
    reader = Reader(folder)
    prefix = "model."
    weights = {}
    for key, entry in reader.read_metadata().state_dict_metadata.items():
        if key.startswith(prefix) and isinstance(entry, dcp.TensorStorageMetadata):
            part = {key: torch.empty(entry.size, dtype=entry.properties.dtype)}
            read(part, folder, alone=True)
            weights[key.removeprefix(prefix)] = part[key]
    return weights


def copied(model: Any, optimizer: Any) -> dict[str, Any]:
    """Copy this process's part of the state of a model and its optimizer to the host."""
    options = StateDictOptions(cpu_offload=True)
    if not optimizer.state:  # no step was made; asked for its state, torch would make one
        return copy.deepcopy({"model": get_model_state_dict(model, options=options)})
    weights, states = get_state_dict(model, optimizer, options=options)
    # On a CPU nothing was offloaded: what is here are the tensors that training changes.
    return copy.deepcopy({"model": weights, "optimizer": states})


class _Writer(FileSystemWriter):
    """Remembers which files this process has written; not every PyTorch returns that of all."""

    names: tuple[str, ...] = ()

    def write_data(self, index: Any, planner: Any) -> Any:
        """Write the part of this process."""
        done = super().write_data(index, planner)
        self.names = tuple(sorted({part.storage_data.relative_path for part in done.wait()}))
        return done


def write(state: dict[str, Any], folder: Path, group: ProcessGroup | None, rank: int) -> list[str]:
    """Write a state with the other processes; return the names of the files of this one."""
    writer = _Writer(folder)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # that it writes on a single process
            save(state, storage_writer=writer, process_group=group, no_dist=group is None)
    except CheckpointException as error:  # the failures of all processes, by number
        causes = [cause for cause, _ in error.failures.values()]
        raise next((c for c in causes if isinstance(c, OSError)), error) from error
    return [*writer.names, *([".metadata"] if rank == 0 else [])]


def read(state: dict[str, Any], folder: Path, *, alone: bool) -> None:
    """Fill the tensors of a state from the shards of a checkpoint; nothing in them is run.

    Parameters
    ----------
    state : dict
        Names and tensors, of which a process may have a part.
    folder : Path
        The checkpoint, see `manifest`.
    alone : bool
        Whether this process reads without others.

    Raises
    ------
    ModelError
        If they are not the state of such a model.
    """
    try:
        with restricted.weights_only(), warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # that it reads on a single process
            load(state, storage_reader=Reader(folder), no_dist=alone)
    except CheckpointException as error:
        raise restricted.unreadable(folder, error) from error


def load_state(
    model: Any, optimizer: Any, folder: Path, whole: dict[str, Any] | None, *, alone: bool
) -> None:
    """Load the state of a model and its optimizer, of which a process may have a part.

    Parameters
    ----------
    model, optimizer
        What to load into.
    folder : Path
        The checkpoint.
    whole : dict, optional
        The state, if it was kept in one file; else it is read from the shards.
    alone : bool
        Whether this process reads without others.
    """
    if whole is not None:
        options = StateDictOptions(full_state_dict=True, cpu_offload=True)
        state = whole
        if "optimizer" not in state:
            set_model_state_dict(model, state["model"], options=options)
            return
    else:
        options = StateDictOptions()
        weights, states = get_state_dict(model, optimizer, options=options)
        state = {"model": weights, "optimizer": states}
        read(state, folder, alone=alone)
    set_state_dict(
        model,
        optimizer,
        model_state_dict=state["model"],
        optim_state_dict=state["optimizer"],
        options=options,
    )
