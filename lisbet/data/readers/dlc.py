"""DeepLabCut tables, CSV or HDF5: one for all animals, or one for each animal.

Lightning Pose writes the same CSV files.
"""

import logging
import re
from pathlib import Path

import xarray as xr

from lisbet.core.errors import DataError
from lisbet.data.files.text_tables import decode, lines_of
from lisbet.data.readers._layouts.dlc_csv import first_cell, header_of, read_csv
from lisbet.data.readers._layouts.dlc_hdf5 import PANDAS, levels_of, read_hdf5
from lisbet.data.readers._layouts.dlc_table import LEVELS, is_lightning_pose, to_dataset
from lisbet.data.readers._peek import HDF5, Peek
from lisbet.data.readers._reader import Kind, RecordingReader

log = logging.getLogger(__name__)

TABLE = Kind("DeepLabCut table")
SAME_LAYOUT = Kind("table in DeepLabCut's layout", general=True)
SKELETON = Kind("DeepLabCut skeleton", usable=False, advice="lengths and angles, no positions")
LABELLED = Kind(
    "labelled frames of DeepLabCut", usable=False, advice="training data, not tracks of a video"
)
FLAT = Kind(
    "table without DeepLabCut's header rows", usable=False,
    advice=f"it needs the rows {', '.join(LEVELS)}",
)  # fmt: skip
BONES = {"length", "orientation", "likelihood"}


def _recognise(peek: Peek) -> Kind | None:
    if peek.is_hdf5:
        return _of_hdf5(peek)
    if peek.is_classic_netcdf or not peek.start or b"\0\0" in peek.start[:64]:
        return None
    lines = lines_of(decode(peek.start).lstrip())
    if first_cell(lines[0]) in LEVELS:
        return _of_rows(peek.lines, peek.path.name)
    if len(lines) > 1 and set(re.split("[,;\t]", lines[1].lower().strip())) - {""} == BONES:
        return SKELETON
    flat = re.findall(r"\w[_.](x|y|p|likelihood)\b", lines[0].lower())
    return FLAT if {"x", "y"} <= set(flat) else None


def _of_rows(lines: list[str], name: str) -> Kind | None:
    try:
        levels, separator, taken = header_of(lines, name)
    except DataError:
        return None
    if not {"bodyparts", "coords"} <= levels.keys():
        return None
    first_name = next(iter(levels.values()), [""])[:1]
    row = lines[taken].split(separator)[0].strip() if len(lines) > taken else "0"
    if first_name == [""] or re.match("[^0-9 ]+[/\\\\]|labeled-data", row):
        return LABELLED
    return SAME_LAYOUT if is_lightning_pose(levels) else TABLE


def _of_hdf5(peek: Peek) -> Kind | None:
    if not any(kind in PANDAS for kind in peek.hdf5_root.values()):
        return None
    try:
        levels, numbered = levels_of(peek.path)
    except Exception:  # damaged, which is said when it is read
        return TABLE
    cells = {cell.lower() for row in levels.values() for cell in row}
    if {"length", "orientation"} <= cells:
        return SKELETON
    if not {"bodyparts", "coords"} <= levels.keys():
        return Kind("table of pandas", usable=False, advice="no DeepLabCut body parts in it")
    return TABLE if numbered else LABELLED


def _read(files: list[Path], *, head: bool = False) -> xr.Dataset:
    parts = [_one(file, head=head) for file in files]
    if len(parts) == 1:
        return parts[0]
    for file, part in zip(files, parts, strict=True):
        if part.sizes["individuals"] > 1:
            raise DataError(
                f"{file.name} holds several individuals, next to {len(files) - 1} other tracking "
                "files; expected one file, or one for each individual. Leave one, or choose it "
                "with --tracking_pattern"
            )
    lengths = {file.name: part.sizes["time"] for file, part in zip(files, parts, strict=True)}
    if len(set(lengths.values())) > 1:
        listed = ", ".join(f"{name}: {frames} frames" for name, frames in lengths.items())
        raise DataError(
            f"the files of one recording differ in length ({listed}); expected one file for each "
            "individual of one video. If they are different videos, pass --flat, or give each a "
            "folder of its own"
        )
    names = individual_names([file.stem for file in files])
    renamed = [
        part.assign_coords(individuals=[name]) for part, name in zip(parts, names, strict=True)
    ]
    log.info("%s: one individual for each file: %s", files[0].parent, ", ".join(names))
    keypoints = list(dict.fromkeys(k for part in parts for k in part["keypoints"].values.tolist()))
    whole = [part.reindex(keypoints=keypoints) for part in renamed]
    return xr.concat(whole, dim="individuals", join="exact")


def _one(file: Path, *, head: bool) -> xr.Dataset:
    with file.open("rb") as stream:
        hdf5 = stream.read(len(HDF5)) == HDF5
    try:
        table = read_hdf5(file, head=head) if hdf5 else read_csv(file, head=head)
    except DataError:
        raise
    except Exception as error:  # a damaged file makes the libraries raise almost anything
        log.debug("%s", file, exc_info=True)
        what = "an HDF5 file of DeepLabCut" if hdf5 else "a DeepLabCut table"
        raise DataError(
            f"{file.name} cannot be read as dlc: it is damaged, or not {what}; copy or export it "
            "again"
        ) from error
    return to_dataset(table, file.name, head=head)


def _head(files: list[Path]) -> xr.Dataset:
    return _read(files, head=True)


def individual_names(stems: list[str]) -> list[str]:
    """Name the animals by the words in which their files' names differ.

    Examples
    --------
    >>> individual_names(["tracking_black_day1", "tracking_white_day1"])
    ['black', 'white']
    """
    words = [re.split(r"[_\-. ]+", re.split("DLC", stem)[0] or stem) for stem in stems]
    shared = set.intersection(*map(set, words))
    names = ["_".join(word for word in own if word and word not in shared) for own in words]
    unique = all(names) and len(set(names)) == len(names)
    return names if unique else stems


READER = RecordingReader(
    patterns=("*dlc*shuffle*.csv", "*tracking*.csv"),
    recognise=_recognise,
    read=_read,
    head=_head,
    several=True,
)
