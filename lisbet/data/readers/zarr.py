"""Converted datasets: one Zarr store of many recordings, see `lisbet.data.zarr.store`."""

from lisbet.core.address import is_address
from lisbet.core.config import DataPath
from lisbet.data.readers._reader import DatasetReader
from lisbet.data.record import Record


def _recognises(path: DataPath) -> bool:
    return is_address(path) or (path / "zarr.json").is_file()


def _read(path: DataPath, annotated: bool) -> list[Record]:
    from lisbet.data.zarr.store import Store  # takes half a second to import

    return Store.open(path).records(annotated=annotated)


READER = DatasetReader(recognises=_recognises, read=_read)
