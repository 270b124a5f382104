"""CalMS21 (Sun et al., 2021, arXiv:2104.02710): pairs of mice seen from above.

Every archive holds JSON files of two levels, group (annotator, or one name) and sequence; each
sequence has keypoints (frames, 2 mice, 2 axes, 7), scores (frames, 2, 7) and, where a person has
annotated it, annotations (frames,) that number the behaviours of metadata.vocab.
"""

import logging
from fnmatch import fnmatch
from pathlib import Path

from lisbet.core.errors import DataError
from lisbet.core.json_types import JsonDict
from lisbet.data.hub._archives import open_archive, sequences
from lisbet.data.hub._download import RemoteFile, bring, remove_download, require_space
from lisbet.data.hub._sequence import (
    FPS,
    IMAGE_PX,
    INDIVIDUALS,
    KEYPOINTS,
    SOURCE,
    behaviors_of,
    tracks_of,
)
from lisbet.data.hub._write import (
    publish_dataset,
    recording_folder,
    write_annotations,
    write_tracks,
)
from lisbet.options import FetchOptions

log = logging.getLogger(__name__)

UNPACKED_PER_BYTE = 0.6
"""Size of the recordings for each byte of JSON: 8 of about 18 bytes for a number, and slack."""

ARCHIVES = {
    "unlabeled_videos": "35ab3acdeb231a3fe1536e38ad223b2e",
    "task1_classic_classification": "8a02654fddae28614ee24a6a082261b8",
    "task2_annotation_styles": "c97e87e13e77ffb80c073e05c05a4683",
    "task3_new_behaviors": "df59df02d069bab1cfc376cdc1a3925b",
}
RECORD = "https://data.caltech.edu/records/s0vdx-0k302/files"


def unlabeled(options: FetchOptions) -> Path:
    """Bring the videos without annotations; return their folder."""
    return _fetch("unlabeled_videos", "calms21_unlabeled_videos_*.json", options)


def task1(options: FetchOptions) -> Path:
    """Bring task 1, classic classification; return its folder."""
    return _fetch("task1_classic_classification", "calms21_task1_*.json", options)


def task2(options: FetchOptions) -> Path:
    """Bring task 2, styles of annotation; return its folder."""
    return _fetch("task2_annotation_styles", "calms21_task2_*.json", options)


def task3(options: FetchOptions) -> Path:
    """Bring task 3, new behaviours; return its folder."""
    return _fetch("task3_new_behaviors", "calms21_task3_*.json", options)


def _fetch(name: str, pattern: str, options: FetchOptions) -> Path:
    file = RemoteFile(f"{name}.zip", f"{RECORD}/{name}.zip?download=1", ARCHIVES[name])
    root = options.download_path / "datasets" / "CalMS21"
    provenance = {"dataset": f"CalMS21/{name}", "files": {file.name: file.md5}}

    def write(folder: Path) -> None:
        archive_path = bring(file, root / ".downloads", options.source)
        with open_archive(archive_path) as archive:
            members = [
                info for info in archive.infolist() if fnmatch(Path(info.filename).name, pattern)
            ]
            if not members:
                raise DataError(f"{archive_path} holds no {pattern}; has its layout changed?")
            unpacked = sum(info.file_size for info in members)
            require_space(folder, int(UNPACKED_PER_BYTE * unpacked), f"CalMS21/{name}")
            for info in members:
                where = f"{archive_path.name}/{info.filename}"
                with archive.open(info) as stream:
                    for _, sequence, value in sequences(stream, where):
                        _convert(folder, sequence, value, where)
                log.info("%s is converted", where)

    folder = publish_dataset(root / name, provenance, write, overwrite=options.overwrite)
    remove_download(file, root / ".downloads")  # what it held is in the folder now
    return folder


def _convert(folder: Path, sequence: str, value: JsonDict, where: str) -> None:
    """Write one sequence as a recording."""
    place = f"{where}, {sequence}"
    position, scores = tracks_of(value, place)
    target = recording_folder(folder, sequence)
    write_tracks(
        target,
        position.transpose(0, 2, 3, 1),
        individuals=INDIVIDUALS,
        keypoints=KEYPOINTS,
        fps=FPS,
        image_size_px=IMAGE_PX,
        source=SOURCE,
        confidence=scores.transpose(0, 2, 1),
    )
    if "annotations" in value:
        active, behaviors = behaviors_of(value, len(position), place)
        annotator = str(value.get("metadata", {}).get("annotator-id", "unknown"))
        write_annotations(
            target, active, behaviors=behaviors, annotator=annotator, fps=FPS, source=SOURCE
        )
