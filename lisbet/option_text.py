"""Read and write the text of options: lists of words and paths, numbers."""

import os
from decimal import Decimal
from typing import Any


def split_words(raw: Any) -> Any:
    """Split comma-separated text into a tuple of words; leave anything else as it is."""
    if not isinstance(raw, str):
        return raw
    words = tuple(word.strip() for word in raw.split(","))
    if "" in words:
        raise ValueError(f"an item is empty in {raw!r}; separate items by single commas")
    return words


MOST_COMMAS = 8
"""A name with more commas is not recognised in a list of paths."""


def split_paths(raw: Any) -> Any:
    """Split comma-separated text into a tuple of paths; leave anything else as it is.

    Raises
    ------
    ValueError
        If there is a file or folder with a comma in its name, where the list would be split.
    """
    words = split_words(raw)
    if not isinstance(raw, str):
        return words
    parts = raw.split(",")
    for first in range(len(parts)):
        for last in range(first + 2, min(first + MOST_COMMAS + 1, len(parts)) + 1):
            name = ",".join(parts[first:last])
            if os.path.exists(name):
                require_no_comma(name)
    return words


def require_no_comma(path: Any) -> Any:
    """Return a path if it can stand in a comma-separated list.

    Raises
    ------
    ValueError
        If there is a comma in it.
    """
    if "," in str(path):
        raise ValueError(
            f"the path {str(path)!r} has a comma, and commas separate paths; rename it, or give a "
            "link to it that has none"
        )
    return path


def plain_number(value: float) -> str:
    """Write a number without an exponent, in as few digits as give it back.

    Examples
    --------
    >>> plain_number(1e6), plain_number(0.00001), plain_number(1.5)
    ('1000000', '0.00001', '1.5')
    """
    text = format(Decimal(repr(value)), "f")
    return text.rstrip("0").rstrip(".") if "." in text else text
