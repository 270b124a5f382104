"""DeepLabCut CSV files: one for all animals, or one for each animal."""

import re
import tempfile
from pathlib import Path

import xarray as xr

from lisbet.data.limits import LINE_BYTES, require_csv
from lisbet.data.readers._reader import Reader, plural
from lisbet.errors import DataError

HEAD_LINES = 6
"""Up to four lines of names, and frames."""


def _read(files: list[Path]) -> xr.Dataset:
    from movement.io import load_poses  # takes a second to import

    for file in files:
        require_csv(file, text=False)
    parts = [plural(load_poses.from_dlc_file(file)) for file in files]
    if len(parts) == 1:
        return parts[0]
    if any(part.sizes["individuals"] > 1 for part in parts):
        listed = ", ".join(file.name for file in files)
        raise DataError(f"{len(files)} tracking files of several animals ({listed}); leave one")
    lengths = {file.name: part.sizes["time"] for file, part in zip(files, parts, strict=True)}
    if len(set(lengths.values())) > 1:
        raise DataError(f"the files of one recording differ in length: {lengths} frames")
    names = _individuals([file.stem for file in files])
    renamed = [
        part.assign_coords(individuals=[name]) for part, name in zip(parts, names, strict=True)
    ]
    return xr.concat(renamed, dim="individuals", join="exact")


def _head(files: list[Path]) -> xr.Dataset:
    with tempfile.TemporaryDirectory() as folder:
        heads = [Path(folder, file.name) for file in files]
        for file, head in zip(files, heads, strict=True):
            with file.open("rb") as stream:
                lines = [stream.readline(LINE_BYTES + 1) for _ in range(HEAD_LINES)]
            head.write_bytes(b"".join(lines))
        return _read(heads)


def _individuals(stems: list[str]) -> list[str]:
    """Name the animals by the words in which their files' names differ.

    Examples
    --------
    >>> _individuals(["tracking_black_day1", "tracking_white_day1"])
    ['black', 'white']
    """
    words = [re.split(r"[_\-. ]+", re.split("DLC", stem)[0] or stem) for stem in stems]
    shared = set.intersection(*map(set, words))
    names = ["_".join(word for word in own if word and word not in shared) for own in words]
    unique = all(names) and len(set(names)) == len(names)
    return names if unique else stems


READER = Reader(patterns=("*dlc*shuffle*.csv", "*tracking*.csv"), read=_read, head=_head)
