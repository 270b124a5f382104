"""Read the tables of embeddings and of motifs, one for each recording."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from lisbet.commands.applying.result_files import EMBEDDING_FILES, find_results, motif_table
from lisbet.commands.applying.result_tables import read_table
from lisbet.commands.applying.sidecar import ResultModel, model_of_tables
from lisbet.core.errors import DataError, OutputError
from lisbet.data.files.ids import check_ids
from lisbet.data.files.sources import passes

SHOWN = 5
"""Recordings that are named in a message."""


@dataclass(frozen=True)
class Embeddings:
    """The embeddings of recordings.

    Parameters
    ----------
    ids : tuple of str
        Ids of the recordings, sorted: the order in which a file system lists folders must not
        change what is computed.
    all : ndarray
        (frames, embedding) of all recordings, one after the other, float32.
    lengths : tuple of int
        Frames of each.
    model : ResultModel, optional
        The model that computed them, as far as is known.
    """

    ids: tuple[str, ...]
    all: np.ndarray
    lengths: tuple[int, ...]
    model: ResultModel | None

    @property
    def values(self) -> list[np.ndarray]:
        """The frames of each recording: views of `all`."""
        return np.split(self.all, np.cumsum(self.lengths)[:-1])

    @property
    def width(self) -> int:
        """Number of values of a frame."""
        return int(self.all.shape[1])

    def digest(self) -> str:
        """Return the SHA-256 of ids and values."""
        digest = hashlib.sha256()
        for record_id, values in zip(self.ids, self.values, strict=True):
            digest.update(f"{record_id}\n{values.shape}\n".encode())
            digest.update(np.ascontiguousarray(values).data)
        return digest.hexdigest()


def find_tables(
    folder: Path, names: tuple[str, ...], filters: tuple[str, ...] | None, command: str
) -> list[str]:
    """Return the ids of the recordings that have a table of one of these names, sorted.

    Parameters
    ----------
    folder : Path
        Holds a folder for each recording.
    names : tuple of str
        Names of the tables.
    filters : tuple of str, optional
        Patterns of which an id must match one.
    command : str
        The command that writes them.

    Raises
    ------
    DataError
        If there is none, or none passes.
    """
    if not folder.is_dir():
        raise DataError(f"{folder} is no folder; expected the one that betman {command} wrote")
    ids = list(find_results(folder, names))
    if not ids:
        raise DataError(f"{folder} holds no {names[0]}; see betman {command}")
    kept = [record_id for record_id in ids if passes(record_id, filters)]
    if not kept:
        raise DataError(
            f"none of the {len(ids)} recordings in {folder} passes --data_filter="
            f"{','.join(filters or ())}; they are named like {', '.join(ids[:SHOWN])}. It compares "
            "whole names; write '*word*' (or --filter_match=substring) for a part of a name"
        )
    if kept == ["."]:
        raise DataError(
            f"{folder} is the folder of one recording; give the folder above it, which holds a "
            "folder for each recording"
        )
    check_ids(kept, folder)
    return kept


def read_embeddings(folder: Path, record_ids: Sequence[str]) -> Embeddings:
    """Read what compute_embeddings wrote, of the recordings that `find_tables` has found.

    Raises
    ------
    DataError
        If a table cannot be read, has values that are missing, or differs from the others in its
        number of columns; or if they are of several models.
    """
    found = find_results(folder, EMBEDDING_FILES)
    files = [found[record_id][0] for record_id in record_ids]
    model = model_of_tables(files)
    read: list[np.ndarray] = []
    for file in files:
        values = _read_numbers(file)
        if values.shape[1] != (width := (read or [values])[0].shape[1]):
            raise DataError(
                f"{file} has {values.shape[1]} columns, {files[0]} has {width}: they are of "
                "different models; compute them with one model, or choose some with --data_filter"
            )
        read.append(values)
    together = read[0] if len(read) == 1 else np.concatenate(read)
    return Embeddings(tuple(record_ids), together, tuple(map(len, read)), model)


def _read_numbers(file: Path) -> np.ndarray:
    """Read a table of finite numbers: (frames, columns), float32."""
    if file.suffix != ".csv":
        table = read_table(file)
        return _finite(file, table.to_numpy(np.float32), list(table.columns))
    try:
        names = pd.read_csv(file, nrows=0).columns
        kinds = dict.fromkeys(names[1:], np.float32)
        table = pd.read_csv(file, index_col=0, dtype=kinds)
    except (ValueError, pd.errors.ParserError) as error:
        raise DataError(f"{file} is no table of numbers: {error}") from error
    if not len(names) or not names[0].startswith("Unnamed"):
        raise DataError(
            f"{file} has no column of frame numbers: expected a first column without a name, as "
            "betman compute_embeddings writes it"
        )
    return _finite(file, table.to_numpy(np.float32), list(names[1:]))


def _finite(file: Path, values: np.ndarray, names: list[str]) -> np.ndarray:
    """Return a table as an array in C order, if all its numbers are finite."""
    values = np.ascontiguousarray(values)
    if not values.size:
        raise DataError(f"{file} has {values.shape[0]} rows of {values.shape[1]} numbers")
    if not (finite := np.isfinite(values)).all():
        row, column = np.argwhere(~finite)[0]
        raise DataError(
            f"{file}: {values[row, column]} in frame {row}, column {names[column]!s}, and "
            f"{(~finite).sum() - 1} more values are not finite; compute the embeddings again, or "
            "leave the recording out with --data_filter"
        )
    return values


def read_motifs(folder: Path, record_ids: Sequence[str], n_states: int) -> list[np.ndarray]:
    """Read the motifs of one number of states.

    Returns
    -------
    list of ndarray
        (frames, states) of each recording, bool.

    Raises
    ------
    DataError
        If a table is missing, has another number of motifs, or anything but one 1 in each row.
    """
    read = []
    for record_id in record_ids:
        file = folder / record_id / motif_table(n_states)
        if not file.is_file():
            raise DataError(
                f"{file} is missing; give betman segment_motifs again, or choose other "
                "--min_n_components and --max_n_components"
            )
        try:
            table = pd.read_csv(file, index_col=0)
            values = table.to_numpy(float)
        except (ValueError, pd.errors.ParserError) as error:
            raise DataError(f"{file} is no table of numbers: {error}") from error
        if list(table.columns) != motif_names(n_states):
            raise DataError(
                f"{file} has the columns {', '.join(map(str, table.columns[:SHOWN]))}; expected "
                f"Motif_0 to Motif_{n_states - 1}"
            )
        active = values == 1
        wrong = (active.sum(axis=1) != 1) | ((values != 0) != active).any(axis=1)
        if wrong.any():
            raise DataError(
                f"{file}: frame {np.flatnonzero(wrong)[0]} does not have exactly one motif; "
                "expected one 1 and otherwise 0 in each row"
            )
        read.append(active)
    return read


def motif_names(n_states: int) -> list[str]:
    """Return the columns of a table of motifs."""
    return [f"Motif_{number}" for number in range(n_states)]


def require_no_others(folder: Path, name: str, record_ids: Sequence[str]) -> None:
    """Refuse to write tables next to those of recordings that are not among these.

    Raises
    ------
    OutputError
        Naming recordings whose tables would stay.
    """
    left = sorted(set(find_results(folder, (name,))).difference(record_ids))
    if left:
        more = f" and {len(left) - SHOWN} more" if len(left) > SHOWN else ""
        raise OutputError(
            f"{folder} holds {name} of other recordings ({', '.join(left[:SHOWN])}{more}), which "
            "would stay next to the new ones; choose another --output_path, or include these "
            "recordings"
        )
