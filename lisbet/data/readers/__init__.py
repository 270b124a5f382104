"""Formats of tracking files: one file is one format.

A module holds ``READER``: which files belong to it, and how those of one recording are read.
"""

from collections.abc import Callable

from lisbet.core.address import is_address
from lisbet.core.config import Dataset
from lisbet.core.registry import Registry
from lisbet.data.readers._reader import Reader
from lisbet.data.record import Record

READERS: Registry[Reader] = Registry("data format", __name__, "READER")


def whole_reader(dataset: Dataset) -> Callable[..., list[Record]] | None:
    """Return what reads a dataset as a whole; None for a folder of recordings."""
    if dataset.format != "auto":
        return READERS[dataset.format].whole
    stored = is_address(dataset.path) or (dataset.path / "zarr.json").is_file()
    return READERS["zarr"].whole if stored else None


__all__ = ["READERS", "Reader", "whole_reader"]
