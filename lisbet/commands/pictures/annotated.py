"""The annotations of recordings, for pictures."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lisbet.core.config import Dataset
from lisbet.core.errors import ConfigError, DataError, counted, unknown
from lisbet.options import DataOptions, LabelOptions


@dataclass(frozen=True)
class Annotated:
    """The annotations of several recordings.

    Parameters
    ----------
    names : tuple of str
        The behaviours.
    active : dict of ndarray
        By recording: (frames, behaviours), bool.
    fps : dict
        Frame rate of each recording; None where it is not known.
    """

    names: tuple[str, ...]
    active: dict[str, np.ndarray]
    fps: dict[str, float | None]


def read_annotated(
    folder: Path, lengths: dict[str, int | None] | None, options: LabelOptions, what: str
) -> Annotated:
    """Read the annotations of recordings.

    Parameters
    ----------
    folder : Path
        The recordings.
    lengths : dict or None
        Number of frames of each recording that is needed, or None where any number will do; None
        instead of all means every recording.
    options : LabelOptions
        How to read them.
    what : str
        What has these lengths, for messages.

    Raises
    ------
    DataError
        If a recording is missing, has no annotations, or another number of frames.
    """
    from lisbet.data.files.sources import find_sources  # needs what reads tracking files
    from lisbet.data.load import load_records
    from lisbet.data.readers import dataset_reader

    dataset = Dataset(path=folder, format=options.data_format, annotations=options.annot_format)
    ids = None if lengths is None else tuple(lengths)
    if ids is not None and dataset_reader(dataset) is None:
        sources = sorted(source.id for source in find_sources(dataset))
        strangers = sorted(set(ids).difference(sources))
        if strangers and lengths and lengths[strangers[0]] is None:
            missing = unknown("recording", strangers[0], sources)
            raise ConfigError(f"--recordings: {folder}: {missing}")
        if strangers:
            raise DataError(
                f"the {what} are of {some(strangers)}, but the recordings in {folder} are "
                f"{some(sources)}; give the folder of the same recordings with --labels"
            )
    records = load_records(
        dataset,
        DataOptions(
            data_filter=ids,  # others may be unreadable
            fps=options.fps,
            subject=options.subject,
            event_slack=options.event_slack,
        ),
    )
    found = {record.id: record for record in records if record.labels is not None}
    for record_id, frames in (lengths or {}).items():
        labels = found[record_id].labels if record_id in found else None
        if labels is None:
            raise DataError(f"{folder}: {record_id} has no annotations")
        if frames not in (None, len(labels.active)):
            there = counted(len(labels.active), "frame")
            raise DataError(f"{folder}: {record_id} has {frames} {what}, but {there}")
    if not found:
        raise DataError(f"{folder}: no recording has annotations in {options.annot_format} format")
    chosen = [record for record in found.values() if lengths is None or record.id in lengths]
    first = chosen[0].labels
    assert first is not None
    return Annotated(
        first.behaviors,
        {record.id: record.labels.active for record in chosen if record.labels is not None},
        {record.id: record.fps for record in chosen},
    )


def some(ids: list[str]) -> str:
    """Name the first few of many recordings."""
    return ", ".join([*ids[:3], *["…"] * (len(ids) > 3)])
