"""What the tests of convert_dataset's targets share."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from conftest import names, walk, write_dataset

from lisbet.cli import main
from lisbet.core.config import Dataset
from lisbet.core.errors import DataError
from lisbet.data.load import load_records
from lisbet.data.zarr import store
from lisbet.options import DataOptions

ALL = bool(os.environ.get("LISBET_ALL_CRASHES"))
"""Take every point of failure; without it, the suite takes some, spread over all."""
NEW = [30, 25, 20]
"""Frames of the recordings of a store."""
OLD = {"--append": [30, 25], "--overwrite": [25, 40]}
"""Frames of those of an earlier store, which is added to, or replaced by one of other frames."""


def make_place(tmp_path: Path, monkeypatch) -> Path:
    """Make recordings, and those of earlier stores, in a folder to which the test changes."""
    write_dataset(tmp_path / "data", NEW)
    write_dataset(tmp_path / "--overwrite", OLD["--overwrite"])
    for name in ("r0", "r1"):
        shutil.copytree(tmp_path / "data" / name, tmp_path / "--append" / name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(store, "SHARD_BYTES", 1024)
    monkeypatch.setattr(store, "CHUNK_BYTES", 1024)
    return tmp_path


def convert(target: object, *words: str, data: str = "data") -> None:
    main(["convert_dataset", "--workers=1", *words, data, str(target)])


def refused(capsys, target: object, *words: str, data: str = "data") -> str:
    capsys.readouterr()
    with pytest.raises(SystemExit) as caught:
        convert(target, *words, data=data)
    assert caught.value.code == 2
    said = capsys.readouterr().err
    assert said.count("betman: error") == 1, said
    assert "Traceback" not in said
    return said


def lengths(path: object) -> list[int] | None:
    """Frames of the recordings of a store, all of which can be read; None if there is none."""
    dataset = Dataset(path=Path(str(path)), format="zarr")
    try:
        records = load_records(dataset, DataOptions())
    except DataError:
        return None
    for number, record in enumerate(records):
        expected = walk(record.frames, names(), number)
        low, high = (f(expected, axis=(0, 1, 2)) for f in (np.min, np.max))
        np.testing.assert_allclose(
            np.asarray(record.position), (expected - low) / (high - low), atol=1e-5
        )
    return [record.frames for record in records]


def chosen(count: int, most: int) -> range:
    """Return the numbers of the calls that are to fail, of so many."""
    return range(1, count + 1, 1 if ALL else max(1, -(-count // most)))
