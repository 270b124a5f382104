"""Converted datasets: one Zarr store of many recordings, see `lisbet.data.zarr.store`."""

from pathlib import Path

from lisbet.data.readers._peek import Peek
from lisbet.data.readers._reader import Reader
from lisbet.data.record import Record


def _read(path: Path, *, annotated: bool) -> list[Record]:
    from lisbet.data.zarr.store import Store  # takes half a second to import

    return Store.open(path).records(annotated=annotated)


def _recognise(peek: Peek) -> None:
    """Recognise no file: a store is a folder."""


READER = Reader(patterns=(), recognise=_recognise, whole=_read)
