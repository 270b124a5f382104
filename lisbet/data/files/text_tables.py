"""Text of tables that spreadsheets and other programs wrote: encodings, separators, blank rows."""

import codecs
import re

SEPARATORS = ",;\t|"
UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


def encoding_of(raw: bytes) -> str:
    """Return the encoding of a table: UTF-8, UTF-16, or the one of Windows in Western Europe.

    Parameters
    ----------
    raw : bytes
        Its content, or the beginning of it.
    """
    if raw.startswith(UTF16):
        return "utf-16"
    start = raw[:64]
    if len(start) > 3 and b"\0" in start:  # UTF-16 without a mark: every other byte is 0
        return "utf-16-le" if start[1::2].count(0) >= start[::2].count(0) else "utf-16-be"
    for encoding in ("utf-8-sig", "cp1252"):
        try:
            raw.decode(encoding)
        except UnicodeDecodeError:
            continue
        return encoding
    return "latin-1"


def decode(raw: bytes) -> str:
    """Return the text of a table, without a byte order mark; see `encoding_of`."""
    return raw.decode(encoding_of(raw), errors="replace")


def lines_of(text: str) -> list[str]:
    """Return the lines of a text; the last one is empty if the text ends with an end of line."""
    return text.replace("\r\n", "\n").replace("\r", "\n").split("\n")


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
