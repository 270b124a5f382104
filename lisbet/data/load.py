"""Find, read and prepare the recordings of a dataset, in parallel, with one report of problems."""

import logging
import multiprocessing
import os
from collections import Counter
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lisbet.config import Features, Selection
from lisbet.data.prepare import prepare, selected
from lisbet.data.readers import READERS
from lisbet.data.record import Record, from_dataset
from lisbet.errors import DataError
from lisbet.options import DataOptions

log = logging.getLogger(__name__)

BYTES_PER_WORKER = 32 * 2**20
"""A further process pays off from about this much to read; starting one takes over a second."""

SHOWN = 20
"""At most so many recordings are named in one report."""


@dataclass(frozen=True)
class Source:
    """Where one recording lies: its id and its tracking files."""

    id: str
    files: tuple[Path, ...]

    @property
    def bytes(self) -> int:
        """Size of the files."""
        return sum(file.stat().st_size for file in self.files)


def load_records(data_path: Path, options: DataOptions) -> list[Record]:
    """Read and prepare every recording below a folder.

    Parameters
    ----------
    data_path : Path
        Folder of recordings. Every folder in it that holds tracking files is one.
    options : DataOptions
        Format, filter, selection, new names and scale.

    Returns
    -------
    list of Record
        Sorted by id; all have the same features, in the order of the first.

    Raises
    ------
    DataError
        If there are none or some cannot be used. One message names each of them and why.
    """
    sources = find_sources(data_path, options)
    outcomes = list(_read_all(sources, options))
    problems = {
        source.id: outcome
        for source, outcome in zip(sources, outcomes, strict=True)
        if isinstance(outcome, str)
    }
    records = [outcome for outcome in outcomes if isinstance(outcome, Record)]
    if records:
        usual = Counter(record.features for record in records).most_common(1)[0][0]
        for number, record in enumerate(records):
            try:
                records[number] = _ordered(record, usual)
            except DataError as error:
                problems[record.id] = str(error)
    if problems:
        raise DataError(report(data_path, problems, len(sources)))
    return records


def report(data_path: Path, problems: dict[str, str], total: int) -> str:
    """Tell what is wrong with which recordings, in one message."""
    lines = [f"{len(problems)} of {total} recordings in {data_path} cannot be used:"]
    lines += [f"  {record_id}: {why}" for record_id, why in list(problems.items())[:SHOWN]]
    if len(problems) > SHOWN:
        lines.append(f"  … and {len(problems) - SHOWN} more")
    lines.append("Mend or remove them, or choose others with --data_filter.")
    return "\n".join(lines)


def find_sources(data_path: Path, options: DataOptions) -> list[Source]:
    """List the recordings below a folder, sorted by id.

    Raises
    ------
    DataError
        If the folder is missing or holds no recording of this format (and filter).
    """
    if not data_path.is_dir():
        what = "is not a folder" if data_path.exists() else "does not exist"
        raise DataError(f"{data_path} {what}; expected a folder of recordings")
    reader = READERS[options.data_format]
    sources, others = [], Counter[str]()
    for folder, subfolders, names in os.walk(data_path, followlinks=True):
        subfolders[:] = sorted(name for name in subfolders if not name.startswith("."))
        files = tuple(Path(folder, name) for name in sorted(names) if reader.matches(name))
        if files:
            record_id = Path(folder).relative_to(data_path).as_posix()
            record_id = data_path.resolve().name if record_id == "." else record_id
            sources.append(Source(record_id, files))
        else:
            others.update(fitting_formats(names))
            if names and not subfolders:
                log.info("%s holds no %s tracking file", folder, options.data_format)
    if not sources:
        found = ", ".join(f"{count} of {name}" for name, count in others.items())
        hint = f" Folders in other formats were found: {found}; see --data_format." if found else ""
        raise DataError(
            f"{data_path} holds no recordings: no folder in it has a file named "
            f"{' or '.join(reader.patterns)} (format {options.data_format}).{hint}"
        )
    kept = [source for source in sources if _passes(source.id, options.data_filter)]
    if not kept:
        some = ", ".join(source.id for source in sources[:5])
        raise DataError(
            f"none of the {len(sources)} recordings in {data_path} passes "
            f"--data_filter={','.join(options.data_filter or ())}; they are named like {some}"
        )
    return sorted(kept, key=lambda source: source.id)


def fitting_formats(names: Iterable[str]) -> list[str]:
    """Name the formats that have a file among these."""
    names = list(names)
    return [known for known, reader in READERS.items() if any(map(reader.matches, names))]


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
        )
    )


def _passes(record_id: str, words: tuple[str, ...] | None) -> bool:
    return words is None or any(word in record_id for word in words)


def _read_all(sources: list[Source], options: DataOptions) -> Iterable[Record | str]:
    total = sum(source.bytes for source in sources)
    workers = min(os.cpu_count() or 1, len(sources), total // BYTES_PER_WORKER)
    if workers < 2:
        return (_read_one(source, options) for source in sources)
    # Not forked: a forked copy of a process whose libraries hold locks can wait for ever.
    context = multiprocessing.get_context("spawn")
    try:
        with ProcessPoolExecutor(workers, mp_context=context) as pool:
            return list(pool.map(_read_one, sources, [options] * len(sources)))
    except BrokenProcessPool as error:
        raise DataError(
            f"a process that read {sources[0].files[0].parent.parent} died; "
            "was there enough memory?"
        ) from error


def _read_one(source: Source, options: DataOptions) -> Record | str:
    """Read and prepare one recording, or say why that cannot be done."""
    try:
        dataset = READERS[options.data_format].read(list(source.files))
        return prepare(
            from_dataset(source.id, source.files[0], dataset),
            select=options.select_coords,
            rename=options.rename_coords,
            scale=options.data_scale,
        )
    except DataError as error:
        return str(error)
    except Exception as error:  # a damaged file makes the libraries raise almost anything
        log.debug("%s", source.files[0], exc_info=True)
        text = " ".join(str(error).split()) or type(error).__name__
        return f"{source.files[0].name} cannot be read as {options.data_format}: {text}"


def _ordered(record: Record, usual: Features) -> Record:
    """Return the recording with its axes in the usual order, if it has the usual names."""
    if record.features == usual:
        return record
    differing = []
    for axis in Features.model_fields:
        mine, expected = getattr(record.features, axis), getattr(usual, axis)
        if set(mine) != set(expected):
            differing.append(f"{axis} are {', '.join(mine)}; most have {', '.join(expected)}")
    if differing:
        raise DataError("; ".join(differing) + " (see --select_coords and --rename_coords)")
    return selected(record, Selection(**usual.model_dump()))
