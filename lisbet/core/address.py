"""Paths and addresses of data, such as ``datasets/mice.zarr`` and ``s3://lab/mice.zarr``."""

import re
from pathlib import Path

from lisbet.core.errors import ConfigError
from lisbet.core.redact import redacted

_ADDRESS = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):(/+)(.*)", re.DOTALL)
_CHAIN = re.compile(r"[^/]*::[^/]*:/")
_LOCAL = ("file", "local")
_PUBLIC = ("http", "https")
"""Schemes whose addresses may hold a user and a password."""


def parse_data_path(raw: object) -> object:
    """Read the path or address of a dataset as a user writes it.

    Parameters
    ----------
    raw : str or Path
        The text. Anything else is returned as it is.

    Returns
    -------
    Path
        A local path, also for ``file:///path``; an address as `place_of` takes it.

    Raises
    ------
    ConfigError
        If it is empty, or an address that cannot be used.
    """
    if not isinstance(raw, str | Path):
        return raw
    text = str(raw)
    if not text.strip():
        raise ConfigError("a path is empty; expected a folder or an address such as s3://lab/mice")
    if "\0" in text:
        raise ConfigError(f"{text!r} contains a NUL character and cannot be a path")
    if _CHAIN.match(text):
        raise ConfigError(f"{text}: chained addresses are not supported; give the last one alone")
    if (match := _ADDRESS.fullmatch(text)) is None:
        return Path(raw)
    scheme, slashes, rest = match[1].lower(), match[2], match[3]
    if scheme in _LOCAL:
        return _local_path(text, slashes, rest)
    from fsspec.registry import known_implementations, registry

    if scheme not in known_implementations and scheme not in registry:
        raise ConfigError(
            f"{text}: {scheme!r} is no kind of address that fsspec knows, such as s3 or gs. A "
            "local path of this form must be given in full, from /"
        )
    if scheme not in _PUBLIC and redacted(text) != text:
        raise ConfigError(
            f"{redacted(text)} is given with a password or key; leave them out of the address, and "
            "set them in the environment, such as AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
        )
    if ".." in rest.split("/"):
        raise ConfigError(f"{text}: an address cannot contain '..'")
    return Path(f"{scheme}://{rest}")


def _local_path(text: str, slashes: str, rest: str) -> Path:
    """Return the path of ``file:/path``, ``file:///path`` or ``file://localhost/path``."""
    if len(slashes) == 2:
        host, _, rest = rest.partition("/")
        if host.lower() != "localhost":
            raise ConfigError(
                f"{text} names the machine {host!r}; expected file:///path with three slashes, "
                "or the path alone"
            )
    return Path("/", rest.lstrip("/"))


def place_of(path: Path) -> str:
    """Return a path as the libraries take it: of an address, a Path keeps one slash only."""
    return re.sub(r"^([a-z][a-z0-9+.-]+):/(?=[^/])", r"\1://", str(path))


def is_address(path: Path) -> bool:
    """Whether a path is the address of a remote store."""
    return "://" in place_of(path)
