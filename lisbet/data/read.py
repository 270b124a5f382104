"""Read and prepare recordings, in parallel processes where there is much to read."""

import logging
import multiprocessing
import multiprocessing.connection
import os
import signal
import threading
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from pathlib import Path

from lisbet.core.config import Dataset
from lisbet.core.errors import DataError
from lisbet.data.annotations import annotation_file, check_frame_rate, choice_of, reported
from lisbet.data.files.sources import Source
from lisbet.data.labels import LABEL_READERS, LabelReader, Labels
from lisbet.data.preparation.prepare import prepare
from lisbet.data.preparation.time_axis import require_same_rate
from lisbet.data.readers import recording_reader
from lisbet.data.readers._peek import Peek
from lisbet.data.readers.auto import format_of
from lisbet.data.record import Record, from_dataset
from lisbet.distributed import environment
from lisbet.options import DataOptions

log = logging.getLogger(__name__)

BYTES_PER_WORKER = 32 * 2**20
"""A further process pays off from about this much to read; starting one takes over a second."""


def _belong_to_parent() -> None:
    """Leave interrupts to the process that reads with others, and end when it does, even killed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    assert parent is not None

    def follow() -> None:
        multiprocessing.connection.wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=follow, daemon=True).start()


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
    """Read and prepare one recording, or return why that is not possible."""
    if source.problem is not None:
        return source.problem
    try:
        raw = recording_reader(dataset.format).read(list(source.files))
        record = from_dataset(source.id, source.files[0], raw, **options.of_reading)
        if prepared:
            record = prepare(record, **options.of_preparing)
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
