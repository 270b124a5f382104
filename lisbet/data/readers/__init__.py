"""Formats of tracking files: one file is one format.

A module holds ``READER``: which files belong to it, and how those of one folder are read.
"""

from lisbet.data.readers._reader import Reader
from lisbet.registry import Registry

READERS: Registry[Reader] = Registry("data format", __name__, "READER")

__all__ = ["READERS", "Reader"]
