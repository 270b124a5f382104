"""Formats of annotation files: one file is one format.

A module holds ``READER``: which files belong to it, and how one is read.
"""

from lisbet.core.registry import Registry
from lisbet.data.labels._labels import Choice, LabelReader, Labels

LABEL_READERS: Registry[LabelReader] = Registry(
    "annotation format", __name__, "READER", "lisbet.annotations", LabelReader
)

__all__ = ["LABEL_READERS", "Choice", "LabelReader", "Labels"]
