"""Errors that a user can mend: one clear message, no traceback, exit code 2."""

import difflib
from collections.abc import Iterable


class LisbetError(Exception):
    """Base of every error that is reported to the user in one message."""

    exit_code = 2


class ConfigError(LisbetError):
    """An option, or a combination of options, cannot be used."""


class DataError(LisbetError):
    """Recordings cannot be read, or do not fit what is asked of them."""


class ModelError(LisbetError):
    """A model directory, its configuration or its weights cannot be used."""


class OutputError(LisbetError):
    """Results cannot be written where they are asked for."""


def unknown(kind: str, word: str, known: Iterable[str]) -> str:
    """Say that `word` is no known `kind`, which is nearest, and what there is.

    Examples
    --------
    >>> unknown("task", "ordr", ["cons", "order"])
    "no task 'ordr': did you mean 'order'? Known: cons, order"
    """
    names = sorted(known)
    lower = {name.lower(): name for name in names}
    near = difflib.get_close_matches(word.lower(), lower, n=1, cutoff=0.6)
    hint = f"did you mean {lower[near[0]]!r}? " if near else ""
    return f"no {kind} {word!r}: {hint}Known: {', '.join(names)}"
