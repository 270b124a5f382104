"""Errors that a user can fix: one clear message, no traceback, exit code 2."""

import difflib
from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pydantic import ValidationError


MOST_PROBLEMS = 10
"""Problems of one file that a message names."""


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
    """A run was asked to stop and can be resumed with --resume.

    No Exception: what collects the problems of recordings must not collect it.
    """

    exit_code = 75
    """EX_TEMPFAIL of sysexits.h."""


class ReportedError(LisbetError):
    """Another process of this run failed first; its message is the one to read."""

    def __init__(self, exit_code: int) -> None:
        super().__init__("another process of this run failed")
        self.exit_code = exit_code


def shortened(text: str, longest: int = 500) -> str:
    """Return text for a message, without its end if it is very long."""
    return text if len(text) <= longest else text[: longest - 1] + "…"


def counted(count: int, noun: str) -> str:
    """Return a number with its noun, in the plural unless it is 1.

    Examples
    --------
    >>> counted(1, "recording"), counted(3, "recording")
    ('1 recording', '3 recordings')
    """
    return f"{count} {noun}{'' if count == 1 else 's'}"


def unknown(kind: str, word: str, known: Iterable[str]) -> str:
    """Build the message for an unknown `kind`: the nearest known one, and all of them.

    Examples
    --------
    >>> unknown("task", "ordr", ["cons", "order"])
    "no task 'ordr': did you mean 'order'? Known: cons, order"
    >>> unknown("data format", "deeplabcut", ["dlc", "sleap"])
    "no data format 'deeplabcut': did you mean 'dlc'? Known: dlc, sleap"
    """
    names = sorted(known)
    lower = {name.lower(): name for name in names}
    word = shortened(word, 80)
    near = difflib.get_close_matches(word.lower(), lower, n=1, cutoff=0.6) or [
        name for name in lower if _abbreviates(name, word.lower())
    ]
    hint = f"did you mean {lower[near[0]]!r}? " if near else ""
    return f"no {kind} {word!r}: {hint}Known: {', '.join(names)}"


def _abbreviates(name: str, word: str) -> bool:
    """Whether a name of at least three letters is made of letters of a word, in their order."""
    letters = iter(word)
    return len(name) >= 3 and name[0] == word[:1] and all(letter in letters for letter in name)


def first_message(error: "ValidationError") -> str:
    """Return the problems of a configuration, one line each, with the place of each."""
    lines = []
    for problem in error.errors(include_input=False)[:MOST_PROBLEMS]:
        place = ".".join(map(str, problem["loc"]))
        text = str(problem.get("ctx", {}).get("error", problem["msg"]))
        lines.append(shortened(f"{place}: {text}" if place else text))
    if (more := error.error_count() - len(lines)) > 0:
        lines.append(f"and {more} more problems")
    return "\n  ".join(lines)
