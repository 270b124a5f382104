"""Which names most recordings of a dataset have, before any of them is written."""

import logging
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path

from lisbet.core.config import Dataset, Features
from lisbet.data.annotations import annotation_file, choice_of
from lisbet.data.labels import LABEL_READERS
from lisbet.data.preparation.prepare import renamed, selected
from lisbet.data.readers import recording_reader
from lisbet.data.record import from_dataset
from lisbet.options import DataOptions

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Usual:
    """What most recordings of a dataset have.

    Parameters
    ----------
    features : Features
        Names along the axes, in the order that is most frequent.
    count, total : int
        How many recordings have these names, in any order, and how many there are.
    behaviors : tuple of str
        Annotated behaviours.
    """

    features: Features
    count: int
    total: int
    behaviors: tuple[str, ...] = ()

    @property
    def holders(self) -> str:
        """Say how many recordings have the names, as the beginning of a sentence."""
        return f"{self.count} of {self.total} recordings {'has' if self.count == 1 else 'have'}"


def usual_features(found: list[Features]) -> Usual:
    """Return the names that most recordings have; the first ones if there are as many of others.

    Examples
    --------
    >>> one = Features(individuals=("a", "b"), keypoints=("nose",), space=("x", "y"))
    >>> other = one.model_copy(update={"keypoints": ("tail",)})
    >>> usual_features([one, other, other]).holders
    '2 of 3 recordings have'
    """
    names = Counter(_unordered(features) for features in found)
    most, count = names.most_common(1)[0]
    orders = Counter(features for features in found if _unordered(features) == most)
    return Usual(orders.most_common(1)[0][0], count, len(found))


def _unordered(features: Features) -> tuple[frozenset[str], ...]:
    return tuple(frozenset(getattr(features, axis)) for axis in Features.model_fields)


def read_usual(
    folders: list[tuple[Path, ...]],
    dataset: Dataset,
    options: DataOptions,
    videos: list[str] | None = None,
) -> Usual | None:
    """Read the names of all recordings, and return those that most have.

    Only the first frames are read, and of annotations all.

    Parameters
    ----------
    folders : list of tuple of Path
        The tracking files of each recording.
    dataset : Dataset
        Formats of the files.
    options : DataOptions
        What is selected and renamed.
    videos : list of str, optional
        Names of the videos of recordings that share a folder; empty for those that do not.

    Returns
    -------
    Usual or None
        None if no recording can be read.
    """
    features: list[Features] = []
    listed: Counter[tuple[str, ...]] = Counter()
    events: set[str] = set()
    for files, video in zip(folders, videos or [""] * len(folders), strict=True):
        try:
            features.append(_features(files, dataset, options))
            if dataset.annotations is not None:
                names = _behaviors(files, dataset, options, video)
                if LABEL_READERS[dataset.annotations].events:
                    events.update(names)
                else:
                    listed[names] += 1
        except Exception:  # a damaged one is reported when all of it is read
            log.debug("%s", files[0], exc_info=True)
    if not features:
        return None
    behaviors = listed.most_common(1)[0][0] if listed else tuple(sorted(events))
    return replace(usual_features(features), behaviors=behaviors)


def _features(files: tuple[Path, ...], dataset: Dataset, options: DataOptions) -> Features:
    """Return the names of a recording once it is prepared."""
    head = recording_reader(dataset.format).read_head(list(files))
    record = from_dataset("", files[0], head, **options.of_reading)
    record = record.with_position(record.tracks.read(0, 1))
    if options.select_coords is not None:
        record = selected(record, options.select_coords)
    if options.rename_coords is not None:
        record = renamed(record, options.rename_coords)
    return record.features


def _behaviors(
    files: tuple[Path, ...], dataset: Dataset, options: DataOptions, video: str
) -> tuple[str, ...]:
    """Return the behaviours that the annotations of a recording name."""
    assert dataset.annotations is not None
    reader = LABEL_READERS[dataset.annotations]
    file = annotation_file(dataset.annotations, files, video)
    choice = choice_of(files, options, file, video)
    if reader.names is not None:
        return reader.names(file, choice=choice)
    raw = recording_reader(dataset.format).read(list(files))
    record = from_dataset("", files[0], raw, **options.of_reading)
    return reader.read(file, record.frames, record.fps, choice=choice).behaviors
