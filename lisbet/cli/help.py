"""The pages of ``betman --help`` and ``betman COMMAND --help``, made from the options."""

import inspect
import textwrap

from pydantic_core import PydanticUndefined

from lisbet import __version__
from lisbet.cli.commands import COMMANDS, Command, choices
from lisbet.options import extra_of, typed

WIDTH = 80


def overview() -> str:
    """Return the page that lists the commands."""
    lines = [
        f"betman {__version__}: train LISBET models of social behaviour and apply them",
        "",
        "usage: betman COMMAND [options]",
        "",
        "commands:",
    ]
    wide = max(map(len, COMMANDS))
    for name, command in COMMANDS.items():
        indent = f"{'':{wide + 4}}"
        lines.append(
            textwrap.fill(
                command.summary,
                WIDTH,
                initial_indent=f"  {name:{wide}}  ",
                subsequent_indent=indent,
            )
        )
    lines += ["", "betman COMMAND --help explains a command; betman --version prints the version."]
    return "\n".join(lines)


def page(command: Command) -> str:
    """Return the help of one command: usage, options with defaults and units, examples."""
    text = inspect.getdoc(command.options) or ""
    description, _, examples = text.partition("Examples\n--------\n")
    lines = [f"usage: betman {command.name} [options] {command.places}".rstrip()]
    for paragraph in description.strip().split("\n\n"):
        lines += ["", textwrap.fill(" ".join(paragraph.split()), WIDTH)]
    groups: dict[str, list[str]] = {}
    for name, field in command.fields.items():
        said = extra_of(field)
        title = "positional" if "positional" in said else said["group"]
        groups.setdefault(title, []).append(_entry(command, name))
    for title in sorted(groups, key=lambda title: (title != "positional", title == "output")):
        lines += ["", f"{title}:", *groups[title]]
    if examples:
        lines += ["", "examples:", textwrap.indent(examples.strip(), "  ")]
    return "\n".join(lines)


def _entry(command: Command, name: str) -> str:
    field = command.fields[name]
    unit = extra_of(field).get("unit")
    notes = [str(unit)] if unit else []
    if words := list(choices(field.annotation)):
        notes.append(" or ".join(words))
    if known := list(extra_of(field)["known"]):
        notes.append(f"known: {', '.join(known)}")
    default = None if command.is_switch(name) else field.default
    if default not in (PydanticUndefined, None) and _plain(default):
        notes.append(f"default: {_plain(default)}")
    text = (field.description or "") + (f" ({'; '.join(notes)})" if notes else "")
    head = name.upper() if name in command.positionals else f"--{typed(name)}"
    body = textwrap.wrap(text, WIDTH - 24)
    first = f"  {head:20}  {body[0]}" if len(head) <= 20 else f"  {head}\n{'':24}{body[0]}"
    return "\n".join([first, *(f"{'':24}{line}" for line in body[1:])])


def _plain(default: object) -> str:
    return ",".join(default) if isinstance(default, tuple) else str(default)
