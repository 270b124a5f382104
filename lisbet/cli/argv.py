"""Rewrite a command line so that Fire can read it in one way only.

Fire takes the word after a bare switch for its value, calls the command before it complains of an
unknown option, lets stray words fill the next parameter, and guesses types. So every word becomes
``--option=text`` here, or is refused.
"""

import difflib
import keyword

from lisbet.cli.commands import Command, choices
from lisbet.core.errors import ConfigError
from lisbet.options import typed

YES_NO = {"true": "True", "false": "False"}


def normalise(words: list[str], command: Command) -> list[str]:
    """Turn the words after a command's name into ``--option=text``, one for each option.

    Parameters
    ----------
    words : list of str
        What the user typed after the command's name.
    command : Command
        Says which options exist, which are switches, and which words go by their place.

    Raises
    ------
    ConfigError
        On an unknown option, a missing value, a stray word, or something given twice.
    """
    given: dict[str, str] = {}
    loose: list[str] = []
    verbosity = 0
    rest = list(words)
    while rest:
        word = rest.pop(0)
        if word.startswith("-v") and set(word[1:]) == {"v"}:
            verbosity += len(word) - 1
        elif word.startswith("--"):
            name, equals, value = word[2:].partition("=")
            name, negated = _option(name, command, has_value=bool(equals))
            if not equals:
                value = str(not negated) if command.is_switch(name) else ""
                if not value and command.bare(name) is not None:
                    value = _bare_value(command, name, rest)
                value = value or _value(name, rest)
                if command.is_switch(name) and rest and rest[0].lower() in YES_NO:
                    value = YES_NO[rest.pop(0).lower()]
            _set(given, name, value)
        elif word.startswith("-") and word != "-":
            raise ConfigError(f"no option {word!r}; options are written --name, see --help")
        else:
            loose.append(word)
    open_places = [name for name in command.positionals if name not in given]
    if command.takes_many and len(loose) > len(open_places) > 0:
        last = len(open_places) - 1
        loose[last:] = [",".join(loose[last:])]
    if len(loose) > len(open_places):
        stray = loose[len(open_places)]
        takes = command.places or "no paths"
        raise ConfigError(f"unexpected word {stray!r}; {command.name} takes {takes}")
    for name, word in zip(open_places, loose, strict=False):
        _set(given, name, word)
    if verbosity:
        _set(given, "verbose", str(verbosity))
    return [f"--{name}={value}" for name, value in given.items()]


def _option(name: str, command: Command, *, has_value: bool) -> tuple[str, bool]:
    """Return the option that `name` means, and whether it is written as ``--no_…``."""
    name = name.replace("-", "_")
    if name in command.fields:
        return name, False
    if keyword.iskeyword(name) and f"{name}_" in command.fields:
        return f"{name}_", False
    positive = name.removeprefix("no_")
    if positive in command.fields and command.is_switch(positive) and not has_value:
        return positive, True
    near = difflib.get_close_matches(name, map(typed, command.fields), n=1)
    hint = f"; did you mean --{near[0]}?" if near else "."
    raise ConfigError(
        f"{command.name} has no option --{name}{hint} See betman {command.name} --help"
    )


def _bare_value(command: Command, name: str, rest: list[str]) -> str:
    """Take the next word if it can be this option's value, else what it means without one."""
    words = list(choices(command.fields[name].annotation))
    fits = bool(rest) and (rest[0] in words or (not words and rest[0].isdigit()))
    return rest.pop(0) if fits else str(command.bare(name))


def _value(name: str, rest: list[str]) -> str:
    if not rest or rest[0].startswith("--"):
        raise ConfigError(f"--{typed(name)} needs a value: --{typed(name)}=…")
    return rest.pop(0)


def _set(given: dict[str, str], name: str, value: str) -> None:
    if any(
        "\ud800" <= character <= "\udfff" for character in value
    ):  # from bytes that are no UTF-8
        raise ConfigError(f"{name}: {value!r} is not UTF-8 text; rename the file, or give a link")
    if name in given:
        raise ConfigError(f"{typed(name)} is given twice: {given[name]!r} and {value!r}")
    given[name] = value
