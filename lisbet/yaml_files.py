"""Read and write mappings as YAML."""

from pathlib import Path
from typing import Any

import yaml

from lisbet.errors import ConfigError


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a YAML file that holds a mapping.

    Raises
    ------
    ConfigError
        If it is missing, is no YAML, or holds something else.
    """
    if path.is_dir():
        raise ConfigError(f"{path} is a folder; expected a file in it, such as model_config.yml")
    if not path.is_file():
        raise ConfigError(f"{path}: no such file")
    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(raw, dict) or not all(isinstance(key, str) for key in raw):
        raise ConfigError(f"{path} holds no mapping of names to values")
    return raw


def write_yaml(path: Path, values: dict[str, Any]) -> None:
    """Write a mapping as YAML, in its own order."""
    fast = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
    text = yaml.dump(values, Dumper=fast, sort_keys=False, allow_unicode=True)
    path.write_text(text, encoding="utf-8")
