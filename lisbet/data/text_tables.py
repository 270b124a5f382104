"""Text of tables that spreadsheets and other programs wrote: encodings, separators, blank rows."""

import codecs
import logging
import re

log = logging.getLogger(__name__)

SEPARATORS = ",;\t|"
LINE_END = re.compile("\r\n|\r|\n")
UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


def decode(raw: bytes, name: str) -> str:
    """Decode the bytes of a table: UTF-8, UTF-16, or Windows' Western European encoding.

    Parameters
    ----------
    raw : bytes
        Its content, or the beginning of it.
    name : str
        Name of the file, for messages.

    Returns
    -------
    str
        Without a byte order mark.
    """
    if raw.startswith(UTF16):
        return raw.decode("utf-16", errors="replace")
    start = raw[:64]
    if len(start) > 3 and b"\0" in start:  # UTF-16 without a mark: every other byte is 0
        little = start[1::2].count(0) >= start[::2].count(0)
        return raw.decode("utf-16-le" if little else "utf-16-be", errors="replace")
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        log.info("%s is not UTF-8; read as Windows-1252 (Western European)", name)
    try:
        return raw.decode("cp1252")
    except UnicodeDecodeError:
        return raw.decode("latin-1")


def separator_after(line: str, label: str) -> str | None:
    """Return the separator between the first cell of a line, which is known, and the next one.

    Examples
    --------
    >>> separator_after("scorer;net;net", "scorer")
    ';'
    """
    found = re.match(rf'\s*"?\s*{re.escape(label)}\s*"?\s*([{re.escape(SEPARATORS)}])', line, re.I)
    return found[1] if found else None


def is_blank(line: str) -> bool:
    """Whether a line has no cell with anything in it."""
    return not line.strip(SEPARATORS + '" \t')
