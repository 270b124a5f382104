"""The manifest of a checkpoint: every file with its size and SHA-256, to detect damage.

``models/RUN/checkpoints/step_00001200/`` contains the state in one of the forms of
`lisbet.training.strategies`, the progress of the run, and a manifest of both.
"""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Literal, Self

from pydantic import Field, ValidationError, field_validator

from lisbet.core.config import Config
from lisbet.core.errors import ModelError, first_message
from lisbet.core.json_types import JsonDict
from lisbet.core.storage.files import sync

CHECKPOINTS = "checkpoints"
MANIFEST, SEAL = "manifest.json", "manifest.sha256"
FORMAT = 1
"""Version of the manifest and of the files that it lists."""
MIGRATIONS: dict[int, Callable[[JsonDict], JsonDict]] = {}
"""By version, what turns a manifest of that version into one of the next."""
WHOLE, SHARDED, DEEPSPEED = "whole", "sharded", "deepspeed"
"""Forms of a state, see `lisbet.training.strategies`; two are in folders of these names."""
STATE_FILE = "state.pt"
"""Name of the file of a whole state."""
LARGEST = 64 * 2**20
"""Bytes that a manifest may have; an entry for a file takes about 150."""


class File(Config):
    """A file of a checkpoint."""

    size: int = Field(ge=0)
    sha256: str


class Manifest(Config):
    """What a checkpoint is and holds.

    Attributes
    ----------
    format : int
        Version of this layout.
    form : str
        "whole", "sharded" or "deepspeed", see `lisbet.training.strategies`.
    strategy : str
        Name of the strategy that wrote it, for messages.
    processes : int
        How many processes wrote it.
    step : int
        Optimizer steps done.
    files : dict of File
        Every other file, by its path in the checkpoint.
    """

    format: int
    form: Literal["whole", "sharded", "deepspeed"]
    strategy: str
    processes: int = Field(ge=1)
    step: int = Field(ge=0)
    files: dict[str, File]

    @field_validator("files")
    @classmethod
    def _files_lie_in_the_checkpoint(cls, files: dict[str, File]) -> dict[str, File]:
        for name in files:
            path = PurePosixPath(name)
            outside = path.is_absolute() or ".." in path.parts or PureWindowsPath(name).drive
            if (
                outside
                or not path.parts
                or "\\" in name
                or not name.isprintable()
                or path.as_posix() != name
            ):
                raise ValueError(f"{name!r} is not the path of a file in the checkpoint")
        return files

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Read and check the manifest of a checkpoint, without looking at the other files.

        Raises
        ------
        ModelError
            If the checkpoint is unfinished, damaged, or of a later release.
        """
        place = folder / MANIFEST
        if not place.is_file():
            raise ModelError(
                f"{folder} is no finished checkpoint: it has no {MANIFEST}. See what there is "
                f"in {folder.parent}"
            )
        if place.stat().st_size > LARGEST:
            raise ModelError(f"{place} has more than {LARGEST} bytes: it is not a manifest")
        text = place.read_bytes()
        seal = folder / SEAL
        if not seal.is_file() or seal.read_text("ascii", "replace") != _sha256(text):
            raise ModelError(f"{place} is damaged: it does not have the hash in {SEAL}")
        try:
            content = dict(json.loads(text))
            version = int(content["format"])
        except (ValueError, TypeError, LookupError, RecursionError) as error:
            raise ModelError(f"{place} is not a manifest: it does not state its format") from error
        while version in MIGRATIONS:
            content = MIGRATIONS[version](content)
            version = content["format"]
        if version != FORMAT:
            raise ModelError(
                f"{place} has format {version}, and this version of betman reads formats up to "
                f"{FORMAT}; resume the run with the version that wrote it, or a later one"
            )
        try:
            return cls(**content)
        except ValidationError as error:
            raise ModelError(f"{place}: {first_message(error)}") from error

    def write(self, folder: Path) -> None:
        """Write the manifest and its seal, the last files of a checkpoint."""
        text = self.model_dump_json(indent=1).encode()
        for name, content in ((MANIFEST, text), (SEAL, _sha256(text).encode())):
            (folder / name).write_bytes(content)
            sync(folder / name)

    def problems(self, folder: Path) -> dict[str, str]:
        """Say of each file of the checkpoint that is not as it was written, what is wrong."""
        wrong = {}
        inside = folder.resolve()
        for name, file in self.files.items():
            path = folder / name
            if not path.is_file():
                wrong[name] = "is missing"
            elif not path.resolve().is_relative_to(inside):
                wrong[name] = "is a link that leads out of the checkpoint"
            elif (size := path.stat().st_size) != file.size:
                wrong[name] = f"has {size} bytes instead of {file.size}"
            elif hash_of(path) != file.sha256:
                wrong[name] = "is damaged: another hash than when it was written"
        return wrong


def verified(folder: Path) -> Manifest:
    """Read a checkpoint's manifest and compare every file with it.

    Raises
    ------
    ModelError
        Naming each file that is missing, cut off or changed.
    """
    manifest = Manifest.read(folder)
    if wrong := manifest.problems(folder):
        lines = "".join(f"\n  {name} {why}" for name, why in wrong.items())
        raise ModelError(f"the checkpoint {folder} cannot be used:{lines}")
    return manifest


def describe(path: Path) -> File:
    """Return the size and hash of a file."""
    return File(size=path.stat().st_size, sha256=hash_of(path))


def hash_of(path: Path) -> str:
    """Return the SHA-256 of a file."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
