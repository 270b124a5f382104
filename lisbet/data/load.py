"""Find, read and prepare the recordings of a dataset, in parallel, with one report of problems."""

import logging
import multiprocessing
import multiprocessing.connection
import os
import signal
import threading
from collections import Counter, deque
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path

import numpy as np

from lisbet.core.config import Dataset, Features, Selection
from lisbet.core.errors import DataError
from lisbet.data.annotations import (
    annotation_file,
    check_frame_rate,
    choice_of,
    reported,
    warn_of_empty,
)
from lisbet.data.files.find import NAMED, look_into
from lisbet.data.files.folders import require_own_files, walk_folders
from lisbet.data.files.ids import check_folders, check_ids
from lisbet.data.files.versions import FileChoice
from lisbet.data.labels import LABEL_READERS, LabelReader, Labels
from lisbet.data.preparation.majority import usual_features
from lisbet.data.preparation.prepare import prepare, selected
from lisbet.data.preparation.time_axis import require_same_rate
from lisbet.data.readers import DatasetReader, dataset_reader, recording_reader
from lisbet.data.readers._peek import Peek
from lisbet.data.readers.auto import format_of
from lisbet.data.record import Record, from_dataset
from lisbet.data.tracks import Stored
from lisbet.distributed import environment
from lisbet.options import DataOptions, affecting

log = logging.getLogger(__name__)

BYTES_PER_WORKER = 32 * 2**20
"""A further process pays off from about this much to read; starting one takes over a second."""

NOT_FOR_STORES = {*affecting(DataOptions, "data", "files")} - {"filter_match"}
"""Options that were applied when a dataset was converted; filters also choose from a store."""

SHOWN = 20
"""At most so many recordings are named in one report."""


@dataclass(frozen=True)
class Source:
    """Where one recording is.

    Parameters
    ----------
    id : str
        Its id.
    files : tuple of Path
        Its tracking files; several, if each holds one individual.
    video : str
        Name of its video, where it shares its folder with recordings of others, else empty.
    problem : str, optional
        Why it is not clear which of the files to read.
    """

    id: str
    files: tuple[Path, ...]
    video: str = ""
    problem: str | None = None

    @property
    def bytes(self) -> int:
        """Size of the files."""
        return sum(file.stat().st_size for file in self.files if file.exists())


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
    """Read a dataset that was prepared when it was converted."""
    defaults = DataOptions.model_fields
    given = [name for name in NOT_FOR_STORES if getattr(options, name) != defaults[name].default]
    if given:
        raise DataError(
            f"{dataset.path} holds prepared recordings, so --{', --'.join(given)} cannot apply; "
            "leave it out here, and pass it to betman convert_dataset"
        )
    records = reader.read(dataset.path, dataset.annotations is not None)
    kept = [record for record in records if _passes(record.id, options.filters)]
    if not kept:
        raise _none_passes(dataset, [record.id for record in records], options.filters)
    warn_of_empty(kept)
    return kept


def _none_passes(dataset: Dataset, ids: list[str], words: tuple[str, ...] | None) -> DataError:
    return DataError(
        f"none of the {len(ids)} recordings in {dataset.path} passes "
        f"--data_filter={','.join(words or ())}; they are named like {', '.join(ids[:5])}. It "
        "compares whole names; write '*word*' (or --filter_match=substring) for a part of a name"
    )


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
    """Put all recordings in the usual order; say which differ from most, and how."""
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


def _belong_to_parent() -> None:
    """Leave interrupts to the process that reads with others, and end when it does, even killed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    assert parent is not None

    def follow() -> None:
        multiprocessing.connection.wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=follow, daemon=True).start()


def find_sources(
    dataset: Dataset, words: tuple[str, ...] | None = None, choice: FileChoice | None = None
) -> list[Source]:
    """List the recordings below a folder, sorted by id.

    Parameters
    ----------
    dataset : Dataset
        The folder, and the format of its files.
    words : tuple of str, optional
        Use only recordings whose id contains one of these.
    choice : FileChoice, optional
        Which files of a folder are used, and as what.

    Raises
    ------
    DataError
        If the folder is missing, holds no recording of this format (and filter), or leads into
        itself, or if an id cannot be used.
    """
    data_path, choice = dataset.path, choice or FileChoice()
    if not data_path.is_dir():
        what = "is not a folder" if data_path.exists() else "does not exist"
        raise DataError(f"{data_path} {what}; expected a folder of recordings")
    sources, others, unused, left_out = [], Counter[str](), list[str](), list[str]()
    for folder, subfolders, names in walk_folders(data_path):
        if "zarr.json" in names:  # a converted dataset: its files are no recordings
            subfolders.clear()
            continue
        found = look_into(folder, names, dataset.format, choice)
        place = folder.relative_to(data_path).as_posix()
        folder_id = data_path.resolve().name if place == "." else place
        for video, files, problem in found.recordings:
            record_id = folder_id if not video else video if place == "." else f"{place}/{video}"
            sources.append(Source(record_id, files, video, problem))
        if not found.recordings:
            others.update(found.others)
            unused += [str(Path(place, name)) for name in found.unused]
            if found.unusable:
                left_out.append(f"{folder}: {', '.join(found.unusable)}")
            elif names and not subfolders:
                log.info("%s holds no %s tracking file", folder, dataset.format)
    if not sources:
        raise _no_recordings(dataset, choice, others, unused)
    for text in left_out[:SHOWN]:
        log.warning("left out: %s", text)
    kept = [source for source in sources if _passes(source.id, words)]
    if not kept:
        raise _none_passes(dataset, [source.id for source in sources], words)
    check_folders([(source.id, source.files[0].parent) for source in kept], data_path)
    check_ids([source.id for source in kept], data_path)
    require_own_files([(source.id, source.files) for source in kept], data_path)
    return sorted(kept, key=lambda source: source.id)


def _no_recordings(
    dataset: Dataset, choice: FileChoice, others: Counter[str], unused: list[str]
) -> DataError:
    """Build the error for a folder without recordings, naming what is in it."""
    others["zarr"] = int((dataset.path / "zarr.json").exists())
    formats = ", ".join(f"{count} of {name}" for name, count in others.items() if count)
    hint = f" Folders in other formats were found: {formats}; see --data_format." if formats else ""
    if unused:
        more = f" and {len(unused) - NAMED} more" if len(unused) > NAMED else ""
        hint += f" Found {', '.join(unused[:NAMED])}{more}."
    wanted = f"named like {choice.pattern} " if choice.pattern else ""
    wanted_format = "any format" if dataset.format == "auto" else f"the format {dataset.format}"
    return DataError(
        f"{dataset.path} holds no recordings: no file {wanted}in it or below is recognised as a "
        f"tracking file of {wanted_format}.{hint}"
    )


def summary(records: list[Record]) -> str:
    """Describe a dataset in a few lines: size, names, frame rates and missing points."""
    features = records[0].features
    frames = [record.frames for record in records]
    missing = np.average([record.missing for record in records], weights=frames)
    rates = sorted({f"{record.fps:g}" if record.fps else "unknown" for record in records})
    return "\n".join(
        (
            f"{len(records)} recordings, {sum(frames)} frames "
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


def _passes(record_id: str, words: tuple[str, ...] | None) -> bool:
    """Whether an id matches a pattern, or folders in it do: mouse1 is in day1/mouse1/left."""
    if words is None:
        return True
    parts = record_id.split("/")
    for word in words:
        count = word.count("/") + 1
        inner = ("/".join(parts[n : n + count]) for n in range(len(parts) - count + 1))
        if word == record_id or any(fnmatchcase(part, word) for part in (record_id, *inner)):
            return True
    return False


def read_all(
    sources: list[Source],
    dataset: Dataset,
    options: DataOptions,
    workers: int | None = None,
    *,
    prepared: bool = True,
) -> Iterator[Record | str]:
    """Read and prepare recordings in order, each one as a Record or as what is wrong with it.

    Parameters
    ----------
    sources : list of Source
        What to read.
    dataset, options
        How.
    workers : int, optional
        Processes to read with; default: as many as pay off. At most so many recordings, and two
        more, are in memory and not yet taken.
    prepared : bool
        Whether they are prepared for a bank, or left as they are, in pixels.
    """
    yield from reported(_read_all(sources, dataset, options, workers, prepared=prepared))


def _read_all(
    sources: list[Source],
    dataset: Dataset,
    options: DataOptions,
    workers: int | None,
    *,
    prepared: bool,
) -> Iterator[Record | str]:
    if workers is None:
        total = sum(source.bytes for source in sources)
        workers = min(environment.threads(), len(sources), total // BYTES_PER_WORKER)
    if workers < 2:
        yield from (read_one(source, dataset, options, prepared) for source in sources)
        return
    # Not forked: a forked copy of a process whose libraries hold locks can wait for ever.
    context = multiprocessing.get_context("spawn")
    try:
        with ProcessPoolExecutor(workers, context, _belong_to_parent) as pool:
            pending: deque[Future[Record | str]] = deque()
            for source in sources:
                pending.append(pool.submit(read_one, source, dataset, options, prepared))
                if len(pending) > workers + 1:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
    except BrokenProcessPool as error:
        raise DataError(
            f"a process that read {sources[0].files[0].parent.parent} died; "
            "was there enough memory?"
        ) from error


def read_one(
    source: Source, dataset: Dataset, options: DataOptions, prepared: bool = True
) -> Record | str:
    """Read and prepare one recording, or say why that cannot be done."""
    if source.problem is not None:
        return source.problem
    try:
        raw = recording_reader(dataset.format).read(list(source.files))
        record = from_dataset(source.id, source.files[0], raw, **options.of_times)
        if prepared:
            record = prepare(
                record,
                select=options.select_coords,
                rename=options.rename_coords,
                scale=options.data_scale,
                outside=options.outside,
                min_confidence=options.min_confidence,
                max_gap=options.max_gap,
            )
        if dataset.annotations is not None:
            record = replace(
                record, labels=_read_labels(source, record, dataset.annotations, options)
            )
        return record
    except DataError as error:
        return str(error)
    except Exception as error:  # a damaged file makes the libraries raise almost anything
        log.debug("%s", source.files[0], exc_info=True)
        text = " ".join(str(error).split()) or type(error).__name__
        names = ", ".join(file.name for file in source.files)
        return f"{names} cannot be read as {_format_name(source, dataset)}: {text}"


def _format_name(source: Source, dataset: Dataset) -> str:
    if dataset.format != "auto":
        return dataset.format
    return format_of(Peek(source.files[0]))[0] or "a tracking file"


def _read_labels(source: Source, record: Record, annotations: str, options: DataOptions) -> Labels:
    """Read the annotations next to a recording's tracking file."""
    reader = LABEL_READERS[annotations]
    file = annotation_file(annotations, source.files, source.video)
    choice = choice_of(source.files, options, file, source.video)
    try:
        start_s = _start_of(record, reader, file)
        labels = reader.read(file, record.frames, record.fps, choice=choice, start_s=start_s)
    except DataError:
        raise
    except Exception as error:  # a damaged file makes the libraries raise almost anything
        text = " ".join(str(error).split())
        raise DataError(f"{file.name} cannot be read as {annotations}: {text}") from error
    if len(labels.active) != record.frames:
        raise DataError(
            f"{file.name} has {len(labels.active)} frames, the recording {record.frames}"
        )
    if options.fps is not None and labels.fps is not None and not options.fps_override:
        require_same_rate(options.fps, labels.fps, file.name)
    if not options.fps_override:
        labels = check_frame_rate(labels, record.fps, file)
    return replace(labels, listed=not reader.events)


def _start_of(record: Record, reader: LabelReader, file: Path) -> float:
    """Return the time of a recording's first frame, in seconds, for its annotations.

    Raises
    ------
    DataError
        If it is not known.
    """
    if not reader.events:
        return 0.0  # they are given frame by frame
    if record.start_s is None:
        raise DataError(
            "the recording begins with a later frame of the video, and its frame rate is not "
            f"known, so that the seconds of {file.name} have no place in it; pass --fps"
        )
    return record.start_s


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
