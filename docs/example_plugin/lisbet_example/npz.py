"""A reader of datasets: one .npz file with an array of each recording, scaled to [0, 1]."""

from pathlib import Path

import numpy as np

from lisbet.core.config import DataPath, Features
from lisbet.core.errors import DataError
from lisbet.data.readers import DatasetReader
from lisbet.data.record import Record

NAMES = ("individuals", "keypoints", "space")


def recognises(path: DataPath) -> bool:
    """Recognise a dataset by its name; addresses such as s3://… are texts, and not read here."""
    return isinstance(path, Path) and path.suffix == ".npz" and path.is_file()


def read(path: DataPath, annotated: bool) -> list[Record]:
    """Read all recordings: the arrays that are not names of individuals, keypoints and axes."""
    if annotated:
        raise DataError(f"{path}: .npz datasets have no annotations; leave --annot_format out")
    with np.load(path, allow_pickle=False) as arrays:
        if lacking := [name for name in NAMES if name not in arrays]:
            raise DataError(f"{path} lacks {', '.join(lacking)}; expected their names")
        features = Features(**{name: tuple(map(str, arrays[name])) for name in NAMES})
        records = {name: arrays[name] for name in arrays if name not in NAMES}
    for name, position in records.items():
        if position.shape[1:] != features.shape:
            raise DataError(
                f"{path}: {name} has the shape {position.shape}; expected (frames, "
                f"{', '.join(map(str, features.shape))})"
            )
    return [
        Record.in_memory(name, position.astype(np.float32), features)
        for name, position in records.items()
    ]


READER = DatasetReader(recognises=recognises, read=read)
