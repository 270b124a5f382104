"""Read and write mappings as YAML; what is read may be from anybody."""

import os
import re
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import ValidationError
from yaml.events import (
    AliasEvent,
    CollectionEndEvent,
    CollectionStartEvent,
    NodeEvent,
    ScalarEvent,
)

from lisbet.core.config import Config
from lisbet.core.errors import ConfigError, first_message
from lisbet.core.json_types import JsonDict

ConfigT = TypeVar("ConfigT", bound=Config)
LARGEST = 64 * 2**20
"""Bytes of a file; run_config.yml takes about 150 for each recording."""
MOST_VALUES = 2_000_000
"""Values in a file, with those that an alias repeats; reading them takes 1 GB of memory."""
DEEPEST = 100
"""Lists and mappings that may lie in each other."""
NUMBER = re.compile(r"[-+0-9a-fA-FxX_.:]*")
LONGEST_NUMBER = 400
_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class _TextLoader(_LOADER):  # type: ignore[misc]
    """Reads unquoted words as text, except null: `no` stays `no`, `007` stays `007`."""

    yaml_implicit_resolvers = {  # noqa: RUF012
        first: [(tag, pattern) for tag, pattern in pairs if tag == "tag:yaml.org,2002:null"]
        for first, pairs in _LOADER.yaml_implicit_resolvers.items()
    }


def read_yaml(path: Path, *, largest: int = LARGEST, as_text: bool = False) -> JsonDict:
    """Read a YAML file that holds a mapping, in bounded time and memory.

    Parameters
    ----------
    path : Path
        The file.
    largest : int
        How many bytes it may have.
    as_text : bool
        Whether values are left as the text in the file, not read as numbers, booleans
        or dates; null and empty values are None.

    Raises
    ------
    ConfigError
        If it is missing, is no YAML, holds something else, or is too large for what it is to be.
    """
    if path.is_dir():
        raise ConfigError(f"{path} is a folder; expected a file in it, such as model_config.yml")
    if not path.is_file():
        raise ConfigError(f"{path}: no such file")
    if (size := path.stat().st_size) > largest:
        raise ConfigError(f"{path} has {size} bytes; expected YAML of at most {largest}")
    try:
        text = path.read_text(encoding="utf-8")
        _require_bounded(text, as_text=as_text)
        raw = (_TextLoader if as_text else _LOADER)(text).get_single_data()
    except (yaml.YAMLError, ValueError, TypeError, OverflowError) as error:
        reason = " ".join(str(error).split())[:500]
        raise ConfigError(f"{path} is not YAML: {reason}") from error
    if not isinstance(raw, dict) or not all(isinstance(key, str) for key in raw):
        raise ConfigError(f"{path} holds no mapping of names to values")
    return raw


def read_config(path: Path, kind: type[ConfigT]) -> ConfigT | None:
    """Read a YAML file that holds one of our configurations; None where there is no file.

    Raises
    ------
    ConfigError
        If it cannot be read, or holds something else.
    """
    if not os.path.lexists(path):
        return None
    try:
        return kind(**read_yaml(path))
    except ValidationError as error:
        raise ConfigError(first_message(error)) from error


def _require_bounded(text: str, *, as_text: bool) -> None:
    """Raise ValueError if the text describes more than it could reasonably be meant to.

    Long numbers take long to read, but not where they stay text.
    """
    sizes: dict[str, int] = {}
    """Values below each anchor, with those that aliases in it repeat."""
    open_nodes: list[tuple[str | None, int]] = []
    total = 0
    for event in yaml.parse(text, Loader=_LOADER):
        if isinstance(event, CollectionStartEvent):
            open_nodes.append((event.anchor, total))
            if len(open_nodes) > DEEPEST:
                raise ValueError(f"more than {DEEPEST} lists and mappings lie in each other")
        elif isinstance(event, CollectionEndEvent):
            anchor, before = open_nodes.pop()
            if anchor is not None:
                sizes[anchor] = total - before
        elif isinstance(event, AliasEvent):
            if any(anchor == event.anchor for anchor, _ in open_nodes):
                raise ValueError(f"*{event.anchor} contains itself")
            total += sizes.get(event.anchor or "", 0)
        elif isinstance(event, ScalarEvent):
            if event.anchor is not None:
                sizes[event.anchor] = 1
            is_long = not as_text and len(event.value) > LONGEST_NUMBER
            if is_long and NUMBER.fullmatch(event.value):
                raise ValueError(f"a number has {len(event.value)} characters")
        total += isinstance(event, NodeEvent)
        if total > MOST_VALUES:
            raise ValueError(f"it holds more than {MOST_VALUES} values")


def write_yaml(path: Path, values: JsonDict) -> None:
    """Write a mapping as YAML, in its own order."""
    fast = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
    text = yaml.dump(values, Dumper=fast, sort_keys=False, allow_unicode=True)
    path.write_text(text, encoding="utf-8")
