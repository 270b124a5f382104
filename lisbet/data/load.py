"""Find, read and prepare the recordings of a dataset, in parallel, with one report of problems."""

import logging
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from lisbet.core.config import Dataset, Features
from lisbet.core.errors import DataError, counted
from lisbet.core.option_values import Selection
from lisbet.data.annotations import (
    warn_of_empty,
)
from lisbet.data.files.ids import check_ids
from lisbet.data.files.sources import SHOWN, Source, find_sources, none_passes, passes
from lisbet.data.files.versions import FileChoice
from lisbet.data.preparation.majority import usual_features
from lisbet.data.preparation.prepare import prepare, selected
from lisbet.data.preparation.time_axis import require_same_rate
from lisbet.data.read import read_all
from lisbet.data.readers import DatasetReader, dataset_reader
from lisbet.data.record import Record
from lisbet.data.tracks import Stored
from lisbet.options import DataOptions, affecting

log = logging.getLogger(__name__)

NOT_FOR_STORES = {*affecting(DataOptions, "data", "files")} - {"filter_match"}
"""Options that were applied when a dataset was converted; filters also choose from a store."""
OF_FILES = (
    "tracking_pattern", "flat", "file_per_individual", "time_gaps", "subject", "event_slack",
)  # fmt: skip
"""Options of tracking files and their annotations, which a dataset in one file does not have."""


def load_records(dataset: Dataset, options: DataOptions) -> list[Record]:
    """Read and prepare every recording below a folder.

    Parameters
    ----------
    dataset : Dataset
        Folder of recordings. Every folder in it that holds tracking files is one.
    options : DataOptions
        Filter, selection, new names and scale.

    Returns
    -------
    list of Record
        Sorted by id; all have the same features, in the order of the first.

    Raises
    ------
    DataError
        If there are none or some cannot be used. One message names each of them and why.
    """
    if (reader := dataset_reader(dataset)) is not None:
        return _load_whole(reader, dataset, options)
    sources = find_sources(dataset, options.filters, FileChoice.of(options))
    return accepted(dataset, sources, list(read_all(sources, dataset, options)))


def accepted(dataset: Dataset, sources: list[Source], outcomes: list[Record | str]) -> list[Record]:
    """Return the recordings that were read, with the same features and behaviours.

    Raises
    ------
    DataError
        If some cannot be used. One message names each of them and why.
    """
    problems = {
        source.id: outcome
        for source, outcome in zip(sources, outcomes, strict=True)
        if isinstance(outcome, str)
    }
    records = [outcome for outcome in outcomes if isinstance(outcome, Record)]
    records, disagreements = _agreed(records)
    if problems | disagreements:
        raise DataError(report(str(dataset.path), problems | disagreements, len(sources)))
    warn_of_empty(records)
    for record in records[:SHOWN]:
        log.info("%s: %s", record.id, "; ".join(record.steps))
    if len(records) > SHOWN:
        log.info("and so on, of %d recordings", len(records))
    return records


def _load_whole(reader: DatasetReader, dataset: Dataset, options: DataOptions) -> list[Record]:
    """Read a dataset, and prepare its recordings unless they were when it was converted."""
    if not reader.prepared:
        records = list(unprepared(reader, dataset, options))
        outcomes = [_prepared(record, options) for record in records]
        sources = [Source(record.id, ()) for record in records]
        return accepted(dataset, sources, outcomes)
    defaults = DataOptions.model_fields
    given = [name for name in NOT_FOR_STORES if getattr(options, name) != defaults[name].default]
    if given:
        raise DataError(
            f"{dataset.path} holds prepared recordings, so --{', --'.join(given)} cannot apply; "
            "leave it out here, and pass it to betman convert_dataset"
        )
    kept = _chosen(reader, dataset, options)
    warn_of_empty(kept)
    return kept


def unprepared(reader: DatasetReader, dataset: Dataset, options: DataOptions) -> Iterator[Record]:
    """Yield the recordings of a dataset whose reader does not prepare them, in pixels.

    Raises
    ------
    DataError
        If an option cannot apply to them.
    """
    defaults = DataOptions.model_fields
    if given := [name for name in OF_FILES if getattr(options, name) != defaults[name].default]:
        raise DataError(
            f"{dataset.path} is not a folder of tracking files, so --{', --'.join(given)} cannot "
            "apply; leave it out"
        )
    for record in _chosen(reader, dataset, options):
        if options.fps is None:
            yield record
            continue
        if record.fps is not None and not options.fps_override:
            require_same_rate(options.fps, record.fps, record.id)
        yield replace(record, fps=options.fps)


def _chosen(reader: DatasetReader, dataset: Dataset, options: DataOptions) -> list[Record]:
    """Return the recordings of a dataset that pass --data_filter."""
    records = reader.read(dataset.path, dataset.annotations is not None)
    kept = [record for record in records if passes(record.id, options.filters)]
    if not kept:
        raise none_passes(dataset, [record.id for record in records], options.filters)
    return kept


def _prepared(record: Record, options: DataOptions) -> Record | str:
    """Return a recording as the network will see it, or why that is not possible."""
    try:
        return prepare(record, **options.of_preparation)
    except DataError as error:
        return str(error)


def agree(records: list[Record], datasets: tuple[Dataset, ...]) -> list[Record]:
    """Give the recordings of several datasets the same features and behaviours.

    Raises
    ------
    DataError
        If their names differ, or two recordings have the same id.
    """
    check_ids([record.id for record in records], ", ".join(str(d.path) for d in datasets))
    agreed, problems = _agreed(records)
    if problems:
        paths = ", ".join(str(dataset.path) for dataset in datasets)
        raise DataError(report(paths, problems, len(records)))
    return agreed


def _agreed(records: list[Record]) -> tuple[list[Record], dict[str, str]]:
    """Put all recordings in the usual order; return which differ from most, and how."""
    if not records:
        return records, {}
    usual = usual_features([record.features for record in records])
    problems = _differing_behaviors(records)
    agreed = []
    for record in records:
        try:
            agreed.append(ordered(record, usual.features, usual.holders))
        except DataError as error:
            problems[record.id] = str(error)
    return _with_all_behaviors(agreed), problems


def report(where: str, problems: dict[str, str], total: int) -> str:
    """Tell what is wrong with which recordings, in one message."""
    lines = [f"{len(problems)} of {total} recordings in {where} cannot be used:"]
    lines += [f"  {record_id}: {why}" for record_id, why in list(problems.items())[:SHOWN]]
    if len(problems) > SHOWN:
        lines.append(f"  … and {len(problems) - SHOWN} more")
    lines.append("Fix or remove these recordings, or exclude them with --data_filter.")
    return "\n".join(lines)


def summary(records: list[Record]) -> str:
    """Describe a dataset in a few lines: size, names, frame rates and missing points."""
    features = records[0].features
    frames = [record.frames for record in records]
    missing = np.average([record.missing for record in records], weights=frames)
    rates = sorted({f"{record.fps:g}" if record.fps else "unknown" for record in records})
    return "\n".join(
        (
            f"{counted(len(records), 'recording')}, {sum(frames)} frames "
            f"(shortest {min(frames)}, longest {max(frames)}), fps {', '.join(rates)}",
            f"individuals: {', '.join(features.individuals)}",
            f"keypoints:   {', '.join(features.keypoints)}",
            f"axes:        {', '.join(features.space)}",
            f"missing:     {missing:.1%} of the points",
            *_behavior_summary(records),
        )
    )


def _behavior_summary(records: list[Record]) -> list[str]:
    labelled = [record.labels for record in records if record.labels is not None]
    if not labelled:
        return []
    shares = np.concatenate([labels.active for labels in labelled]).mean(axis=0)
    parts = (
        f"{name} {share:.1%}" for name, share in zip(labelled[0].behaviors, shares, strict=True)
    )
    return [f"behaviours:  {', '.join(parts)} of the frames"]


def _differing_behaviors(records: list[Record]) -> dict[str, str]:
    """Say which recordings name other behaviours than most; lists of events need not name all."""
    listed = {r.id: r.labels.behaviors for r in records if r.labels and r.labels.listed}
    if not listed:
        return {}
    usual, count = Counter(listed.values()).most_common(1)[0]
    have = f"{count} of {len(listed)} recordings {'has' if count == 1 else 'have'}"
    return {
        record_id: f"behaviours are {', '.join(own)}; {have} {', '.join(usual)}"
        for record_id, own in listed.items()
        if own != usual
    }


def _with_all_behaviors(records: list[Record]) -> list[Record]:
    """Give all annotated recordings the same behaviours, in the same order."""
    seen = dict.fromkeys(name for r in records if r.labels for name in r.labels.behaviors)
    all_listed = all(record.labels.listed for record in records if record.labels)
    names = tuple(seen) if all_listed else tuple(sorted(seen))
    return [
        replace(record, labels=record.labels.over(names)) if record.labels else record
        for record in records
    ]


def ordered(record: Record, usual: Features, holders: str = "expected") -> Record:
    """Return the recording with its axes in the usual order, if it has the usual names.

    `holders` says in the message who has these names: such as "18 of 20 recordings have".

    Raises
    ------
    DataError
        If it has other names.
    """
    if record.features is usual or record.features == usual:
        return record
    differing = []
    for axis in Features.model_fields:
        mine, expected = getattr(record.features, axis), getattr(usual, axis)
        if set(mine) != set(expected):
            differing.append(f"{axis} are {', '.join(mine)}; {holders} {', '.join(expected)}")
    if differing:
        raise DataError("; ".join(differing) + " (see --select_coords and --rename_coords)")
    selection = Selection(**usual.model_dump())
    if isinstance(record.tracks, Stored):  # it stays in its store
        steps = (*record.steps, f"selected {selection}")
        tracks = record.tracks.reordered(usual)
        return replace(record, tracks=tracks, features=usual, steps=steps)
    return selected(record, selection)
