"""Read and write the text of options: lists of words and paths, numbers."""

import os
import re
from collections.abc import Iterable
from decimal import Decimal


def split_words(raw: object) -> object:
    """Split comma-separated text into a tuple of words; leave anything else as it is."""
    return words_of(raw) if isinstance(raw, str) else raw


def words_of(text: str) -> tuple[str, ...]:
    """Split comma-separated text.

    Raises
    ------
    ValueError
        If an item is empty.
    """
    words = tuple(word.strip() for word in text.split(","))
    if "" in words:
        raise ValueError(f"an item is empty in {text!r}; separate items by single commas")
    return words


MOST_COMMAS = 8
"""A name with more commas is not recognised in a list of paths."""


def split_paths(raw: object) -> object:
    r"""Split comma-separated text into a tuple of paths; leave anything else as it is.

    A comma that belongs to a path is written ``\,``, and a backslash in front of a comma ``\\``.

    Raises
    ------
    ValueError
        If an item is empty, or there is a file or folder with a comma in its name where the list
        would be split.

    Examples
    --------
    >>> split_paths(r"mice,rats\, young")
    ('mice', 'rats, young')
    """
    if not isinstance(raw, str):
        return raw
    words, separated = [""], re.split(r"(\\*),", raw)
    for place, part in enumerate(separated):
        if place % 2 == 0:
            words[-1] += part
        else:
            words[-1] += part[: len(part) // 2]
            if len(part) % 2:
                words[-1] += ","
            else:
                words.append("")
    paths = tuple(word.strip() for word in words)
    if "" in paths:
        raise ValueError(f"an item is empty in {raw!r}; separate items by single commas")
    _require_escaped(words)
    return paths


def _require_escaped(words: list[str]) -> None:
    """Refuse to split where there is a file or folder of that name with its comma."""
    for first in range(len(words)):
        for last in range(first + 2, min(first + MOST_COMMAS + 1, len(words)) + 1):
            name = ",".join(words[first:last])
            if os.path.exists(name):
                raise ValueError(
                    f"the path {name!r} has a comma, and commas separate paths; write it as "
                    f"'{join_paths([name])}', in quotes, or rename it"
                )


def join_paths(paths: Iterable[object]) -> str:
    r"""Write paths as `split_paths` reads them.

    Examples
    --------
    >>> print(join_paths(["mice", "rats, young"]))
    mice,rats\, young
    """
    words = [re.sub(r"(\\*),", lambda found: found[1] * 2 + "\\,", str(path)) for path in paths]
    ends = [word[len(word.rstrip("\\")) :] for word in words[:-1]]
    return ",".join(word + end for word, end in zip(words, [*ends, ""], strict=True))


def plain_number(value: float) -> str:
    """Write a number without an exponent, in as few digits as give it back.

    Examples
    --------
    >>> plain_number(1e6), plain_number(0.00001), plain_number(1.5)
    ('1000000', '0.00001', '1.5')
    """
    text = format(Decimal(repr(value)), "f")
    return text.rstrip("0").rstrip(".") if "." in text else text
