"""Ids of recordings: they are used as paths below output folders, so they are checked first."""

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from lisbet.core.errors import DataError

PART_BYTES = 255
"""Longest name of a file or folder on the usual file systems, in bytes of UTF-8."""
ID_BYTES = 2048
"""Longest id, in bytes of UTF-8: with an output folder in front it must stay below 4096."""
NOT_PRINTED = {"Cc", "Cs", "Zl", "Zp"}
"""Unicode categories that no id may have: control characters, undecodable bytes, line ends."""


def check_ids(ids: Sequence[str], where: object) -> None:
    """Check that every recording id is a relative path that stays below the folder it is put in.

    Parameters
    ----------
    ids : sequence of str
        Ids of all recordings of a dataset, or of several datasets.
    where : object
        The folder or store that they come from, for the message.

    Raises
    ------
    DataError
        Naming the first id that cannot be used, or that two recordings have.
    """
    for record_id in ids:
        if problem := _problem(record_id):
            raise DataError(
                f"{where}: a recording has the id {_shortened(record_id)}, which {problem}; "
                "expected a relative path such as 'mouse1' or 'day1/mouse1'. Rename the recording "
                "(in a store: where it was converted, and convert it again)"
            )
    repeated = [record_id for record_id, count in Counter(ids).items() if count > 1]
    if repeated:
        raise DataError(
            f"{where}: {ids.count(repeated[0])} recordings have the id {_shortened(repeated[0])}; "
            "expected a different id for each recording. Rename all but one of them"
        )


def check_folders(recordings: Iterable[tuple[str, Path]], where: Path) -> None:
    """Check the ids of recordings that are folders below a data folder.

    A recording in the data folder itself has that folder's name as its id, which one of its
    subfolders may have, too.

    Parameters
    ----------
    recordings : iterable of (str, Path)
        Id and folder of each recording.
    where : Path
        The data folder.

    Raises
    ------
    DataError
        Naming both folders that have the same id, or an id that cannot be used.
    """
    folders: dict[str, Path] = {}
    for record_id, folder in recordings:
        other = folders.setdefault(record_id, folder)
        if other != folder:
            raise DataError(
                f"{where}: the recordings in {other} and in {folder} would both have the id "
                f"{record_id!r}; expected a different id for each recording. Move the files of "
                f"{other} into a folder of their own below it, or rename {folder}"
            )
    check_ids(list(folders), where)


def _problem(record_id: str) -> str | None:
    """Return why an id cannot be used; None if it can."""
    if not record_id:
        return "is empty"
    if bad := [char for char in record_id if unicodedata.category(char) in NOT_PRINTED]:
        return f"contains the control character or undecodable byte {bad[0]!r}"
    if "\\" in record_id:
        return "contains a backslash"
    if record_id.startswith("/") or re.match("[A-Za-z]:(/|$)", record_id):
        return "is an absolute path"
    parts = record_id.split("/")
    if "" in parts:
        return "has an empty part"
    if found := {".", ".."} & set(parts):
        return f"has the part {max(found)!r}"
    longest = max(len(part.encode()) for part in parts)
    if longest > PART_BYTES:
        return f"has a part of {longest} bytes (at most {PART_BYTES})"
    if (size := len(record_id.encode())) > ID_BYTES:
        return f"has {size} bytes (at most {ID_BYTES})"
    return None


def _shortened(record_id: str) -> str:
    text = repr(record_id)
    return text if len(text) <= 100 else f"{text[:80]}… ({len(record_id)} characters)"
