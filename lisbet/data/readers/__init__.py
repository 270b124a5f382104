"""Formats of recordings: one file is one format.

A module holds ``READER``: a RecordingReader, which reads the tracking files of one recording, or a
DatasetReader, which reads a whole dataset.
"""

from lisbet.core.config import Dataset
from lisbet.core.registry import Registry
from lisbet.data.files.limits import require_memory, require_regular
from lisbet.data.readers._peek import Peek
from lisbet.data.readers._reader import DatasetReader, Kind, RecordingReader, only

READERS: Registry[RecordingReader | DatasetReader] = Registry(
    "data format", __name__, "READER", "lisbet.readers", (RecordingReader, DatasetReader)
)


def dataset_reader(dataset: Dataset) -> DatasetReader | None:
    """Return the reader of a dataset as a whole; None for a folder of recordings."""
    names = READERS if dataset.format == "auto" else [dataset.format]
    for name in names:
        reader = READERS[name]
        if isinstance(reader, DatasetReader) and (
            dataset.format != "auto" or reader.recognises(dataset.path)
        ):
            return reader
    return None


def recording_reader(name: str) -> RecordingReader:
    """Return the reader of the tracking files of a format that is not one of whole datasets."""
    reader = READERS[name]
    assert isinstance(reader, RecordingReader)
    return reader


__all__ = [
    "READERS",
    "DatasetReader",
    "Kind",
    "Peek",
    "RecordingReader",
    "dataset_reader",
    "only",
    "recording_reader",
    "require_memory",
    "require_regular",
]
