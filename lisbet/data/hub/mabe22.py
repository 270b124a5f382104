"""MABe22 mouse triplets (Sun et al., 2022, arXiv:2207.10553): three mice seen from above."""

from pathlib import Path
from typing import Any

import numpy as np

from lisbet.core.errors import DataError
from lisbet.core.json_types import JsonDict
from lisbet.data.hub._archives import read_pickled_npy
from lisbet.data.hub._download import RemoteFile, bring, remove_download
from lisbet.data.hub._write import (
    publish_dataset,
    recording_folder,
    write_annotations,
    write_tracks,
)
from lisbet.options import FetchOptions

INDIVIDUALS = ("mouse0", "mouse1", "mouse2")
KEYPOINTS = (
    "nose", "left_ear", "right_ear", "neck", "left_forepaw", "right_forepaw", "center_back",
    "left_hindpaw", "right_hindpaw", "tail_base", "tail_middle", "tail_tip",
)  # fmt: skip
FPS = 30.0
IMAGE_PX = (850.0, 850.0)
SOURCE = "MABe22"
DISCRETE = "Discrete"

RECORDS = "https://data.caltech.edu/records"
TRAIN = RemoteFile(
    "mouse_triplet_train.npy",
    f"{RECORDS}/rdsa8-rde65/files/mouse_triplet_train.npy?download=1",
    "76a48f3a1679a219a0e7e8a87871cc74",
)
TEST = RemoteFile(
    "mouse_triplet_test.npy",
    f"{RECORDS}/8kdn3-95j37/files/mouse_triplet_test.npy?download=1",
    "20dc132300118a64aac665dd68153b20",
)
TEST_LABELS = RemoteFile(
    "mouse_triplets_test_labels.npy",
    f"{RECORDS}/rdsa8-rde65/files/mouse_triplets_test_labels.npy?download=1",
    "5a54f2d29a13a256aabbefc61a633176",
)


def triplets(options: FetchOptions) -> Path:
    """Bring the mouse triplets, train and test; return their folder."""
    root = options.download_path / "datasets" / "MABe22"
    files = (TRAIN, TEST, TEST_LABELS)
    provenance = {
        "dataset": "MABe22/mouse_triplets",
        "files": {file.name: file.md5 for file in files},
    }

    def write(folder: Path) -> None:
        train, test, labels = (bring(file, root / ".downloads", options.source) for file in files)
        _convert(folder / "train", read_pickled_npy(train), train.name, None)
        _convert(folder / "test", read_pickled_npy(test), test.name, read_pickled_npy(labels))

    folder = publish_dataset(
        root / "mouse_triplets", provenance, write, overwrite=options.overwrite
    )
    for file in files:
        remove_download(file, root / ".downloads")
    return folder


def _convert(folder: Path, content: JsonDict, where: str, labels: Any) -> None:
    """Write every sequence of a file as a recording."""
    sequences = _item(content, "sequences", where)
    vocabulary = tuple(map(str, content.get("vocabulary", ())))
    for sequence, value in sequences.items():
        place = f"{where}, {sequence}"
        position = np.asarray(_item(value, "keypoints", place))
        if position.shape[1:] != (3, 12, 2):
            raise DataError(
                f"{place}: keypoints have shape {position.shape}, not (frames, 3, 12, 2)"
            )
        target = recording_folder(folder, str(sequence))
        write_tracks(
            target,
            position.transpose(0, 3, 2, 1),
            individuals=INDIVIDUALS,
            keypoints=KEYPOINTS,
            fps=FPS,
            image_size_px=IMAGE_PX,
            source=SOURCE,
        )
        if labels is not None:
            active, behaviors = _test_labels(labels, sequence, len(position), place)
        elif value.get("annotations") is not None:
            active = np.asarray(value["annotations"]).T > 0
            behaviors = vocabulary
        else:
            continue
        if active.shape != (len(position), len(behaviors)):
            raise DataError(
                f"{place}: annotations have shape {active.T.shape}, not "
                f"({len(behaviors)} behaviours, {len(position)} frames)"
            )
        write_annotations(
            target, active, behaviors=behaviors, annotator="unknown", fps=FPS, source=SOURCE
        )


def _test_labels(
    labels: Any, sequence: str, frames: int, place: str
) -> tuple[np.ndarray, tuple[str, ...]]:
    """Return the discrete labels of a sequence of the test set: (frames, behaviours) and names."""
    where = TEST_LABELS.name
    array = np.asarray(_item(labels, "label_array", where))
    kinds = list(_item(labels, "task_type", where))
    names = list(_item(labels, "vocabulary", where))
    span = _item(_item(labels, "frame_number_map", where), sequence, where)
    first, last = int(span[0]), int(span[1])
    if last - first != frames:
        raise DataError(f"{place}: {frames} frames, but {where} labels {last - first}")
    chosen = [number for number, kind in enumerate(kinds) if kind == DISCRETE]
    return array[chosen, first:last].T > 0, tuple(str(names[number]) for number in chosen)


def _item(mapping: Any, key: Any, where: str) -> Any:
    if not isinstance(mapping, dict) or key not in mapping:
        found = ", ".join(map(str, list(mapping)[:8])) if isinstance(mapping, dict) else "no keys"
        raise DataError(f"{where}: no key {key!r} (found: {found}); has its layout changed?")
    return mapping[key]
