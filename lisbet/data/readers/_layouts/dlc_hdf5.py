"""DeepLabCut tables that pandas wrote to HDF5, in its formats "table" and "fixed".

The names of the columns are pickles there, which pandas and PyTables load without any restriction:
a file of somebody else could run code. So the file is read with h5py, and its pickles by an
unpickler that admits lists and texts only.
"""

import io
import pickle
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np

from lisbet.core.errors import DataError
from lisbet.data.files.hdf5 import check_hdf5
from lisbet.data.files.limits import require_regular
from lisbet.data.readers._layouts.dlc_table import LEVELS, Table, columns_of

if TYPE_CHECKING:
    import h5py

PANDAS = ("frame_table", "frame")
SAFE = {("pandas.core.indexes.frozen", "FrozenList"): list}
"""Classes in the pickles of pandas, and what is made of them."""
FIRST_ROWS = 2


class _Names(pickle.Unpickler):
    """Unpickles lists, tuples, dicts, numbers and texts, and nothing else."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in SAFE:
            raise pickle.UnpicklingError(f"it names {module}.{name}")
        return SAFE[module, name]

    def persistent_load(self, pid: object) -> NoReturn:
        raise pickle.UnpicklingError(f"it refers to the object {pid}")


def read_hdf5(file: Path, *, head: bool = False) -> Table:
    """Read a table; with `head`, only its first rows.

    Raises
    ------
    DataError
        If it holds no table, or several, or objects that are no texts.
    OSError
        If the file is damaged.
    """
    import h5py

    require_regular(file)
    check_hdf5(file, everywhere=True)
    with h5py.File(file, "r") as root:
        group = _group(root, file.name)
        levels, frames, values = _content(group, file.name, FIRST_ROWS if head else None)
    return Table(columns_of(levels, file.name), frames, values)


def levels_of(file: Path) -> tuple[dict[str, list[str]], bool]:
    """Return the cells of the header rows of a table, and whether its rows have frame numbers."""
    import h5py

    with h5py.File(file, "r") as root:
        levels, frames, _ = _content(_group(root, file.name), file.name, FIRST_ROWS)
    return levels, frames.dtype.kind in "iuf"


def _group(root: "h5py.Group", name: str) -> Any:
    found = [key for key in root if _text(root[key].attrs.get("pandas_type", "")) in PANDAS]
    if len(found) != 1:
        what = f"the tables {', '.join(found)}" if found else "no table of pandas"
        raise DataError(
            f"{name} holds {what}; expected one table of DeepLabCut. Export the file again"
        )
    return root[found[0]]


def _content(
    group: "h5py.Group", name: str, rows: int | None
) -> tuple[dict[str, list[str]], np.ndarray, np.ndarray]:
    """Return header cells by level, frame numbers and values, (rows, columns)."""
    table = _text(group.attrs["pandas_type"]) == "frame_table"
    level_names, columns, parts, frames = (_of_table if table else _of_fixed)(group, name, rows)
    if len(set(columns)) < len(columns) or any(len(c) != len(level_names) for c in columns):
        raise DataError(f"{name}: two columns have the same names, or some no names; export again")
    place = {column: number for number, column in enumerate(columns)}
    values = np.full((len(frames), len(columns)), np.nan)
    for labels, block in parts:
        if np.asarray(block).dtype.kind not in "fiu":
            raise DataError(f"{name} holds {block.dtype} in its columns; expected numbers")
        values[:, [place[label] for label in labels]] = block
    levels = {
        level: [column[number] for column in columns] for number, level in enumerate(level_names)
    }
    return levels, frames, values


Label = tuple[str, ...]
Content = tuple[list[str], list[Label], list[tuple[list[Label], np.ndarray]], np.ndarray]


def _of_table(group: "h5py.Group", name: str, rows: int | None) -> Content:
    """Read pandas' format "table": rows of a compound type."""
    ((_, labels),) = _unpickled(group.attrs["non_index_axes"], name)
    columns = [_label(label) for label in labels]
    names = _unpickled(group.attrs["info"], name).get(1, {}).get("names") if "info" in group.attrs \
        else None  # fmt: skip
    stored = group["table"]
    content = stored[:rows]
    parts = []
    for field in stored.dtype.names:
        if field.startswith("values_block_"):
            own = [_label(label) for label in _unpickled(stored.attrs[f"{field}_kind"], name)]
            parts.append((own, np.asarray(content[field]).reshape(len(content), len(own))))
    return _level_names(names, columns), columns, parts, np.asarray(content["index"])


def _of_fixed(group: "h5py.Group", _name: str, rows: int | None) -> Content:
    """Read pandas' format "fixed": an array for each block of columns."""
    names, columns = _fixed_labels(group, "axis0")
    parts = []
    for number in range(int(group.attrs["nblocks"])):
        _, own = _fixed_labels(group, f"block{number}_items")
        parts.append((own, np.asarray(group[f"block{number}_values"][:rows])))
    if "axis1" not in group:  # an index of several levels: labelled frames
        return _level_names(names, columns), columns, parts, np.full(len(parts[0][1]), "", "U1")
    return _level_names(names, columns), columns, parts, np.asarray(group["axis1"][:rows])


def _fixed_labels(group: "h5py.Group", axis: str) -> tuple[list[str], list[Label]]:
    names, levels = [], []
    for number in range(int(group.attrs.get(f"{axis}_nlevels", 0))):
        level = group[f"{axis}_level{number}"]
        if level.dtype.kind != "S":
            raise DataError(f"{level.name} holds names that are no plain texts; export the CSV")
        texts = [_text(text) for text in level[:].tolist()]
        levels.append([texts[at] for at in group[f"{axis}_label{number}"][:].tolist()])
        names.append(_text(level.attrs.get("name", "")))
    return names, list(zip(*levels, strict=True))


def _level_names(names: list[Any] | None, columns: list[Label]) -> list[str]:
    """Return the names of the levels; those of DeepLabCut, by their number, if it has none."""
    found = [str(level) for level in names or ()]
    if found and set(found) <= set(LEVELS):
        return found
    count = len(columns[0]) if columns else 0
    usual = {4: LEVELS, 3: (LEVELS[0], *LEVELS[2:])}
    return list(usual.get(count, tuple(found) or tuple(map(str, range(count)))))


def _label(label: object) -> Label:
    return tuple(map(str, label)) if isinstance(label, tuple | list) else (str(label),)


def _unpickled(raw: Any, name: str) -> Any:
    """Load a pickle that consists of lists and texts.

    Raises
    ------
    DataError
        If it has anything else in it.
    """
    try:
        return _Names(io.BytesIO(bytes(raw)), encoding="utf-8").load()
    except Exception as error:
        raise DataError(
            f"{name}: the names of its columns cannot be read safely ({error}); expected texts. "
            "Write the table as a CSV file instead"
        ) from error


def _text(raw: object) -> str:
    return raw.decode(errors="replace") if isinstance(raw, bytes) else str(raw)
