"""model.yml next to results: which model wrote the tables of a folder, so that none are mixed."""

import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from pydantic import Field

from lisbet import __version__
from lisbet.commands.applying.result_files import find_results
from lisbet.core.config import Config
from lisbet.core.errors import ConfigError, DataError, OutputError
from lisbet.core.json_types import JsonDict
from lisbet.core.storage.files import require_file_target, write_file
from lisbet.core.storage.write_log import LOG, hash_of
from lisbet.core.yaml_files import read_config, write_yaml

SIDECAR = "model.yml"
SHOWN = 5
"""Recordings that are named in a message."""


class ResultModel(Config):
    """What the sidecar of a folder of results holds.

    Parameters
    ----------
    model_id : str
        Name of the model.
    weights_sha256 : str
        SHA-256 of its file of weights.
    preparation : dict
        How the recordings were prepared; None where that is not known yet.
    settings : dict
        Options that the results depend on, where they are not the defaults.
    betman : str
        Version of the release that wrote it.
    unfinished : tuple of str
        Recordings whose tables are being replaced, and may still be of another model.
    """

    model_id: str
    weights_sha256: str
    preparation: JsonDict | None = None
    settings: JsonDict = Field(default_factory=dict)
    betman: str = __version__
    unfinished: tuple[str, ...] = ()

    @classmethod
    def of(cls, model_id: str, weights_path: Path, settings: JsonDict) -> "ResultModel":
        """Describe a model by its name and file of weights, and how it is applied."""
        return cls(model_id=model_id, weights_sha256=hash_of(weights_path), settings=settings)

    @classmethod
    def read(cls, path: Path) -> "ResultModel | None":
        """Read a sidecar; None where there is none.

        Raises
        ------
        DataError
            If it cannot be read as one.
        """
        try:
            return read_config(path, cls)
        except ConfigError as error:
            raise DataError(
                f"{path} does not say which model wrote the results next to it: {error}. Move it "
                "away together with these results, or choose another folder"
            ) from error

    def is_same(self, other: "ResultModel") -> bool:
        """Whether results of both may stand in one folder, as far as is known."""
        same = (self.model_id, self.weights_sha256) == (other.model_id, other.weights_sha256)
        known = None not in (self.preparation, other.preparation)
        return (
            same
            and self.settings == other.settings
            and (not known or self.preparation == other.preparation)
        )

    def difference(self, other: "ResultModel") -> str:
        """Say what `other` is that this is not."""
        if (self.model_id, self.weights_sha256) != (other.model_id, other.weights_sha256):
            return f"of {other}, not of {self}"
        mine, theirs = (own.settings | (own.preparation or {}) for own in (self, other))
        names = [name for name in mine | theirs if mine.get(name) != theirs.get(name)]
        listed = "; ".join(
            f"{name} {_value(theirs.get(name))} instead of {_value(mine.get(name))}"
            for name in names
        )
        return f"of {self} with other options: {listed}"

    def __str__(self) -> str:
        return f"model {self.model_id} (weights {self.weights_sha256[:12]})"

    def write(self, folder: Path) -> None:
        """Write the sidecar of a folder, in place of an earlier one of ours."""
        values = self.model_dump(mode="json")
        for name in ("settings", "unfinished"):
            if not values[name]:
                del values[name]
        with write_file(folder / SIDECAR, root=folder, overwrite=True) as temporary:
            write_yaml(temporary, values)


def _value(value: object) -> str:
    return "default" if value is None else str(value)


def require_one_model(
    folder: Path,
    model: ResultModel,
    names: Sequence[str],
    known: Sequence[str],
    record_ids: Sequence[str],
    *,
    overwrite: bool,
) -> tuple[str, ...]:
    """Refuse to write results of a model next to those of another one.

    Parameters
    ----------
    folder : Path
        Where the results go.
    model : ResultModel
        What is going to write them.
    names : sequence of str
        Names of the files that are going to be written for each recording.
    known : sequence of str
        Names of all files that such results may have.
    record_ids : sequence of str
        Recordings whose results are going to be written.
    overwrite : bool
        Whether files are replaced.

    Returns
    -------
    tuple of str
        Recordings whose results are of another model until they are replaced.

    Raises
    ------
    OutputError
        Naming both models, and the results that would stay.
    """
    found = ResultModel.read(folder / SIDECAR)
    if found is not None:
        require_file_target(folder / SIDECAR, root=folder, overwrite=True)
    there = find_results(folder, known)
    if found is not None and found.is_same(model):
        others = tuple(record_id for record_id in found.unfinished if record_id in there)
        what = "unfinished: a command that was to replace results of another model was interrupted"
    else:
        others = tuple(there)
        what = "without a model.yml that says of which model they are"
        if found is not None:
            what = model.difference(found)
    if not others:
        return ()
    replaced = set(record_ids)
    left = [
        record_id
        for record_id in others
        if record_id not in replaced or any(path.name not in names for path in there[record_id])
    ]
    if overwrite and not left:
        return others
    advice = (
        f"--overwrite would replace only some of them: files of {_some(left)} would stay. "
        "Choose another --output_path, or include these recordings and files"
        if overwrite
        else "choose another --output_path, or replace all of them with --overwrite"
    )
    raise OutputError(
        f"{folder} holds results of other recordings or runs, {what} ({_some(others)}); {advice}"
    )


def model_of_tables(files: Sequence[Path]) -> ResultModel | None:
    """Return the model that wrote tables; None where there is no sidecar, as in earlier releases.

    Raises
    ------
    DataError
        If they are of several models, or being replaced by those of another one.
    """
    sidecars: dict[Path, ResultModel | None] = {}
    models: list[tuple[Path, ResultModel | None]] = []
    for file in files:
        model = None
        for folder in file.absolute().parents:
            if folder not in sidecars:
                sidecars[folder] = _read_ours(folder)
            if (model := sidecars[folder]) is not None:
                break
        if model is not None and model.unfinished:
            raise DataError(
                f"results in {folder} are being replaced by those of {model}, or that was "
                "interrupted; give the command with --overwrite again"
            )
        models.append((file, model))
    first = models[0][1]
    for file, model in models[1:]:
        if (model is None) != (first is None) or (model and first and not first.is_same(model)):
            raise DataError(
                f"{file} is of {model or 'a model that is not stated'}, {files[0]} is of "
                f"{first or 'a model that is not stated'}"
                + (f" ({first.difference(model)})" if model and first else "")
                + "; results of several models cannot be mixed: give the folder of one of them"
            )
    return first


def _read_ours(folder: Path) -> ResultModel | None:
    """Read a sidecar; a model.yml of another program, in a folder that is not ours, is ignored."""
    try:
        return ResultModel.read(folder / SIDECAR)
    except DataError:
        if os.path.lexists(folder / LOG):
            raise
        return None


def _some(ids: Iterable[str]) -> str:
    listed = list(ids)
    more = f" and {len(listed) - SHOWN} more" if len(listed) > SHOWN else ""
    return ", ".join(listed[:SHOWN]) + more
