"""The tables that applying a model leaves: write one in any of the formats, and read them."""

import tempfile
import zipfile
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from lisbet.commands.applying.result_files import EMBEDDING_FILES, SUFFIXES, find_results
from lisbet.commands.applying.sidecar import model_of_tables
from lisbet.core.errors import ConfigError, DataError

if TYPE_CHECKING:
    import xarray as xr

FRAME, TIME = "frame", "time_s"


@dataclass(frozen=True, eq=False)
class ResultTable:
    """Numbers for each frame of a recording.

    Parameters
    ----------
    values : ndarray
        (frames, columns).
    columns : tuple of str
        Their names.
    recording : str
        Id of the recording.
    model : str
        Name of the model.
    fps : float or None
        Frames per second, where they are known.
    start_s : float
        Time of the first frame in the video, in seconds.
    """

    values: np.ndarray
    columns: tuple[str, ...]
    recording: str
    model: str
    fps: float | None = None
    start_s: float = 0.0

    @cached_property
    def time_s(self) -> np.ndarray | None:
        """(frames,): time of each frame in the video, in seconds; None if it is not known."""
        frames = np.arange(len(self.values))
        return None if self.fps is None else self.start_s + frames / self.fps

    @property
    def about(self) -> dict[Hashable, Any]:
        """What the file says of itself."""
        about: dict[Hashable, Any] = {"recording": self.recording, "model": self.model}
        return about if self.fps is None else about | {"fps": self.fps}

    def frame(self) -> pd.DataFrame:
        """Return the values as a table, with the time of each frame where it is known."""
        index = pd.RangeIndex(len(self.values), name=FRAME)
        table = pd.DataFrame(self.values, index=index, columns=list(self.columns))
        if self.time_s is not None:
            table.insert(0, TIME, self.time_s)
        table.attrs = dict(self.about)
        return table

    def dataset(self, name: str) -> "xr.Dataset":
        """Return the values as a variable (time, column) of a dataset."""
        import xarray as xr

        times = np.arange(len(self.values)) if self.time_s is None else self.time_s
        unit = "frames" if self.time_s is None else "seconds"
        return xr.Dataset(
            {name: (("time", "column"), self.values)},
            coords={"time": times, "column": np.array(self.columns, dtype=object)},
            attrs={**self.about, "time_unit": unit},
        )


def _write_csv(table: ResultTable, name: str, path: Path) -> None:
    del name  # columns without times: the layout that other programs read
    pd.DataFrame(table.values, columns=list(table.columns)).to_csv(path)


def _read_csv(path: Path) -> pd.DataFrame:
    return pd.read_csv(path, index_col=0)


def _write_parquet(table: ResultTable, name: str, path: Path) -> None:
    del name
    table.frame().to_parquet(path, engine="pyarrow")


def _read_parquet(path: Path) -> pd.DataFrame:
    return pd.read_parquet(path, engine="pyarrow").drop(columns=TIME, errors="ignore")


def _write_npz(table: ResultTable, name: str, path: Path) -> None:
    arrays: dict[str, Any] = {name: table.values, "columns": np.array(table.columns, dtype=np.str_)}
    if table.time_s is not None:
        arrays[TIME] = table.time_s
    arrays |= {str(key): np.array(value) for key, value in table.about.items()}
    with path.open("wb") as stream:
        np.savez(stream, **arrays)


def _read_npz(path: Path) -> pd.DataFrame:
    with np.load(path, allow_pickle=False) as file:
        (name,) = [key for key in file.files if file[key].ndim == 2]
        return pd.DataFrame(file[name], columns=list(file["columns"]))


def _write_zarr(table: ResultTable, name: str, path: Path) -> None:
    # A store in a zip file cannot replace what it wrote before, which xarray does.
    with tempfile.TemporaryDirectory() as folder, zipfile.ZipFile(path, "w") as file:
        table.dataset(name).to_zarr(folder, zarr_format=3, consolidated=False)
        for entry in sorted(Path(folder).rglob("*")):
            if entry.is_file():
                file.write(entry, entry.relative_to(folder).as_posix())


def _read_zarr(path: Path) -> pd.DataFrame:
    import xarray as xr
    from zarr.storage import ZipStore

    with (
        ZipStore(path, mode="r") as store,
        xr.open_zarr(store, consolidated=False) as dataset,
    ):
        (name,) = dataset.data_vars
        return pd.DataFrame(
            dataset[name].to_numpy(), columns=list(map(str, dataset["column"].values))
        )


@dataclass(frozen=True)
class TableFormat:
    """A file format of tables."""

    write: Callable[[ResultTable, str, Path], None]
    read: Callable[[Path], pd.DataFrame]
    needs: str = ""
    """Package that must be installed, which is also the name of the extra that has it."""


FORMATS = {
    "csv": TableFormat(_write_csv, _read_csv),
    "parquet": TableFormat(_write_parquet, _read_parquet, needs="pyarrow"),
    "npz": TableFormat(_write_npz, _read_npz),
    "zarr": TableFormat(_write_zarr, _read_zarr),
}


def require_format(name: str) -> TableFormat:
    """Return a format that can be written here.

    Raises
    ------
    ConfigError
        If a package is missing.
    """
    chosen = FORMATS[name]
    if chosen.needs and find_spec(chosen.needs) is None:
        raise ConfigError(
            f"--format={name} needs {chosen.needs}: pip install 'lisbet[{name}]', or choose "
            f"another format: {', '.join(key for key, own in FORMATS.items() if not own.needs)}"
        )
    return chosen


def read_table(path: Path) -> pd.DataFrame:
    """Read a table of numbers, without the times of its frames.

    Raises
    ------
    DataError
        If it is no such table.
    """
    (name,) = (name for name, suffix in SUFFIXES.items() if path.name.endswith(suffix))
    require_format(name)
    try:
        table = FORMATS[name].read(path)
        return table.astype(float)
    except Exception as error:  # a damaged file makes the libraries raise almost anything
        raise DataError(f"{path} is no table of numbers: {error}") from error


def read_embeddings(folder: Path) -> dict[str, np.ndarray]:
    """Read what compute_embeddings wrote, in any of its formats.

    Returns
    -------
    dict of ndarray
        By record id: (frames, embedding), float64.

    Raises
    ------
    DataError
        If there is none, or they are of several models.
    """
    files = {record_id: own[0] for record_id, own in find_results(folder, EMBEDDING_FILES).items()}
    if not files:
        raise DataError(f"{folder} holds no {EMBEDDING_FILES[0]}; see betman compute_embeddings")
    model_of_tables(list(files.values()))
    read: dict[str, np.ndarray] = {}
    first, width = next(iter(files.values())), None
    for record_id, file in files.items():
        read[record_id] = values = read_table(file).to_numpy()
        width = values.shape[1] if width is None else width
        if values.shape[1] != width:
            raise DataError(
                f"{file} has {values.shape[1]} columns, {first} has {width}: they are of "
                "different models"
            )
    return read
