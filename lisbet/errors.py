"""Errors that a user can mend: one clear message, no traceback, exit code 2."""

import difflib
from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pydantic import ValidationError


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


class ProcessError(LisbetError):
    """The processes of a run do not find each other, or one of them is gone."""

    exit_code = 1


class StoppedError(BaseException):
    """A run was asked to stop and can go on with --resume.

    No Exception: what collects the problems of recordings must not collect it.
    """

    exit_code = 75
    """EX_TEMPFAIL of sysexits.h."""


class ToldError(LisbetError):
    """Another process of this run failed first; its message is the one to read."""

    def __init__(self, exit_code: int) -> None:
        super().__init__("another process of this run failed")
        self.exit_code = exit_code


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


def first_message(error: "ValidationError") -> str:
    """Return the problems of a configuration, one line each, with the place of each."""
    lines = []
    for problem in error.errors():
        place = ".".join(map(str, problem["loc"]))
        text = str(problem.get("ctx", {}).get("error", problem["msg"]))
        lines.append(f"{place}: {text}" if place else text)
    return "\n  ".join(lines)
