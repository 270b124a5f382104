"""Keep passwords and tokens out of what is written and shown."""

import os
import re
from typing import Any

HIDDEN = "***"
SECRET_NAMES = re.compile(
    r"(TOKEN|SECRET|PASSWORD|PASSWD|API_?KEY|(SECRET|ACCESS|PRIVATE)_KEY(_ID)?)$"
)
"""Environment variables whose values are secrets, by the end of their names."""
SHORTEST = 8
"""Characters of a secret; a shorter value, such as "1", would be found everywhere."""
# A Path keeps one of the two slashes. A port is not a password. Other addresses than those of the
# web may have a name before the @ that is part of the address: abfs://container@account.
_USER = re.compile(
    r"\b(?:(?P<web>(?:https?|ftp):/{1,2})[^/\s@]*@"
    r"|(?P<any>(?!file:)[a-z][a-z0-9+.-]+:/{1,2})[^/\s@:]+:(?!\d+(?:/|$))[^\s@]*@)",
    re.I,
)
_HEADER = re.compile(r"\b(Basic|Bearer)\s+[\w.~+/=-]{8,}")
_QUERY = re.compile(
    r"([?&;](?:[\w.-]*(?:token|secret|passw|signature|credential|key)[\w.-]*|sig)=)[^&;\s'\"]+",
    re.I,
)


def redacted(text: str) -> str:
    """Return text without passwords and tokens.

    What is before the @ of an address is left out, so that it is still an address; signatures
    in one, and the values of environment variables that are named as secrets, become ``***``.

    Examples
    --------
    >>> redacted("s3://key:secret@bucket/mice.zarr and https://host:80/?token=abc&x=1")
    's3://bucket/mice.zarr and https://host:80/?token=***&x=1'
    """
    for name, value in os.environ.items():
        if SECRET_NAMES.search(name.upper()) and len(value) >= SHORTEST and value in text:
            text = text.replace(value, HIDDEN)
    text = _HEADER.sub(rf"\1 {HIDDEN}", text)
    return _QUERY.sub(rf"\1{HIDDEN}", _USER.sub(_scheme, text))


def _scheme(found: re.Match[str]) -> str:
    return found["web"] or found["any"]


def redacted_values(values: Any) -> Any:
    """Return the same mappings, lists and values with all text in them redacted."""
    if isinstance(values, str):
        return redacted(values)
    if isinstance(values, dict):
        return {redacted_values(key): redacted_values(value) for key, value in values.items()}
    if isinstance(values, list | tuple):
        return type(values)(redacted_values(value) for value in values)
    return values
