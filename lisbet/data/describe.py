"""What is in a dataset, read recording by recording: memory does not grow with it."""

import os
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np

from lisbet.core.address import is_address
from lisbet.core.config import Features
from lisbet.core.errors import DataError, counted
from lisbet.core.option_values import Scale
from lisbet.core.redact import redacted
from lisbet.data.annotations import warn_of_behaviors
from lisbet.data.files.sources import SHOWN, Source, find_sources
from lisbet.data.files.versions import FileChoice
from lisbet.data.load import load_records, ordered, report, unprepared
from lisbet.data.preparation.gaps import with_confidence, without_gaps
from lisbet.data.preparation.majority import Usual, read_usual
from lisbet.data.preparation.outliers import outlier_note
from lisbet.data.read import read_all
from lisbet.data.readers import dataset_reader
from lisbet.data.reading import each
from lisbet.data.record import Record
from lisbet.distributed.memory import available_memory
from lisbet.options import DataOptions, DatasetInfoOptions

BARS, WIDTH = 8, 40
"""Lines and length of the histogram."""
UNSURE = 0.6
"""Points of less confidence are often left out; their share is shown."""


def dataset_info(options: DatasetInfoOptions) -> None:
    """Print what is in the files of a dataset: coordinates before they are scaled."""
    dataset, sources = options.dataset, list[Source]()
    if dataset_reader(dataset) is None:
        sources = find_sources(dataset, options.filters, FileChoice.of(options))
    found = Found(options, _usual(options, sources))
    problems = {}
    for name, record in _records(options, sources):
        if isinstance(record, str):
            problems[name] = record
            continue
        try:
            found.take(record)
        except DataError as error:
            problems[name] = str(error)
    if found.features is not None:
        print(redacted(found.text()))
        warn_of_behaviors(name for name, count in found.behaviors.items() if not count)
    if not is_address(options.data_path):
        print(f"on disk:     {_size(_bytes_below(options))}")
    if problems:
        total = len(problems) + len(found.lengths)
        raise DataError(report(str(options.data_path), problems, total))


def _usual(options: DatasetInfoOptions, sources: list[Source]) -> Usual | None:
    """Return the names that most recordings of a folder have; a store has one set of names."""
    dataset = options.dataset
    if dataset_reader(dataset) is not None:
        return None
    files = [source.files for source in sources if source.problem is None]
    # As the files say it: nothing is selected or renamed.
    return read_usual(files, dataset.model_copy(update={"annotations": None}), DataOptions())


def _records(
    options: DatasetInfoOptions, sources: list[Source]
) -> Iterator[tuple[str, Record | str]]:
    dataset = options.dataset
    if (reader := dataset_reader(dataset)) is not None:
        if not reader.prepared:
            yield from ((record.id, record) for record in unprepared(reader, dataset, options))
            return
        records = load_records(dataset, options)
        for number, position in each(records):
            yield records[number].id, records[number].with_position(position)
        return
    outcomes: Iterable[Record | str] = read_all(sources, dataset, options, prepared=False)
    yield from zip((source.id for source in sources), outcomes, strict=True)


@dataclass
class Found:
    """What was seen so far."""

    options: DatasetInfoOptions
    usual: Usual | None = None
    features: Features | None = None
    lengths: list[int] = field(default_factory=list)
    hours: float = 0.0
    rates: Counter[str] = field(default_factory=Counter)
    behaviors: Counter[str] = field(default_factory=Counter)
    annotated: int = 0
    stretched: list[str] = field(default_factory=list)
    unsure: int = 0
    rated: int = 0

    def take(self, record: Record) -> None:
        """Count a recording.

        Raises
        ------
        DataError
            If its names are not those of most.
        """
        if record.confidence is not None:
            self.unsure += int((record.confidence < UNSURE).sum())
            self.rated += record.confidence.size
        if self.options.data_format != "zarr":
            record = with_confidence(record, self.options.min_confidence)
            record = without_gaps(record, self.options.max_gap)
        usual = self.usual or Usual(record.features, 1, 1)
        record = ordered(record, self.features or usual.features, usual.holders)
        if self.features is None:
            self.features = record.features
            self.missing = np.zeros(record.features.shape[:2])
            self.low = np.full(record.features.shape[2], np.inf)
            self.high = -self.low
        position = record.position
        flat = position.reshape(-1, position.shape[-1])
        self.low = np.fmin(self.low, np.fmin.reduce(flat))
        self.high = np.fmax(self.high, np.fmax.reduce(flat))
        self.missing += np.isnan(position).any(axis=-1).sum(axis=0)
        self.lengths.append(record.frames)
        self.stretched += [f"{record.id}: {note}" for note in self._notes(record)]
        self.rates[f"{record.fps:g}" if record.fps else "unknown"] += 1
        self.hours += record.frames / record.fps / 3600 if record.fps else 0
        if record.labels is not None:
            self.annotated += record.frames
            counts = record.labels.active.sum(axis=0).tolist()
            self.behaviors.update(dict(zip(record.labels.behaviors, counts, strict=True)))

    def text(self) -> str:
        """Describe the dataset."""
        assert self.features is not None
        frames = sum(self.lengths)
        hours = f", {self.hours:.1f} hours" if self.hours else ""
        need = (frames + len(self.lengths) + 1) * self.features.size * 4
        free = available_memory()
        lines = [
            f"{counted(len(self.lengths), 'recording')}, {frames} frames{hours}, fps "
            + ", ".join(f"{rate} ({count})" for rate, count in self.rates.most_common()),
            f"individuals: {', '.join(self.features.individuals)}",
            f"axes:        {', '.join(self._ranges())}",
            *self._scaling(),
            *self._confidence(),
            "keypoints, and the share of the frames that lack them, by individual:",
            *self._missing(frames),
            "frames of a recording:",
            *histogram(self.lengths),
        ]
        if self.annotated:
            lines += ["behaviours, and the share of the frames that have them:"]
            lines += [f"  {name}  {n / self.annotated:.1%}" for name, n in self.behaviors.items()]
        lines += [f"in memory:   {_size(need)} when trained on whole, of {_size(free)} free here"]
        return "\n".join(lines)

    def _notes(self, record: Record) -> tuple[str, ...]:
        """Say what outliers do to the range that a recording would be scaled by."""
        scale = self.options.data_scale or Scale(size=record.image_size_px)
        by_range = scale.size is None and not scale.robust
        return outlier_note(record) if by_range and self.options.data_format != "zarr" else ()

    def _scaling(self) -> Iterator[str]:
        if not self.stretched:
            return
        yield "outliers:    they set the range that minmax scales by:"
        yield from (f"  {note}" for note in self.stretched[:SHOWN])
        if len(self.stretched) > SHOWN:
            yield f"  … and {len(self.stretched) - SHOWN} more"
        yield (
            "  give the size of the video, --data_scale=WIDTHxHEIGHT with --outside=missing, or "
            "use --data_scale=robust"
        )

    def _confidence(self) -> Iterator[str]:
        if self.rated:
            minimum = self.options.min_confidence
            share = f"{self.unsure / self.rated:.1%} of the points are below {UNSURE:g}"
            used = "none, all are used" if minimum is None else f"{minimum:g}"
            yield f"confidence:  {share}; --min_confidence: {used}"

    def _ranges(self) -> Iterator[str]:
        assert self.features is not None
        for name, low, high in zip(self.features.space, self.low, self.high, strict=True):
            yield f"{name} from {low:.5g} to {high:.5g}"

    def _missing(self, frames: int) -> Iterator[str]:
        assert self.features is not None
        wide = max(map(len, self.features.keypoints))
        for number, name in enumerate(self.features.keypoints):
            shares = (f"{count / frames:6.1%}" for count in self.missing[:, number])
            yield f"  {name:{wide}}  {'  '.join(shares)}"


def histogram(lengths: list[int]) -> Iterator[str]:
    r"""Draw how many recordings are how long, in steps of equal ratio.

    Examples
    --------
    >>> print(*histogram([10, 10, 10]), sep="\n")
             10  ████████████████████████████████████████ 3
    """
    low, high = min(lengths), max(lengths)
    edges = np.unique(np.geomspace(low, high + 1, BARS + 1).round().astype(int))
    counts = np.histogram(lengths, bins=edges)[0] if len(edges) > 1 else np.array([len(lengths)])
    for number, count in enumerate(counts):
        last = edges[number + 1] - 1 if len(edges) > 1 else low
        name = f"{edges[number]} to {last}" if last > edges[number] else f"{last}"
        bar = "█" * int(np.ceil(WIDTH * count / counts.max()))
        yield f"{name:>11}  {bar} {count}" if bar else f"{name:>11}  0"


def _bytes_below(options: DatasetInfoOptions) -> int:
    if os.path.isfile(options.data_path):
        return os.path.getsize(options.data_path)
    walk = os.walk(options.data_path, followlinks=True)
    return sum(os.path.getsize(os.path.join(at, name)) for at, _, names in walk for name in names)


def _size(count: float) -> str:
    for unit in ("bytes", "KB", "MB"):
        if count < 1024:
            return f"{count:.3g} {unit}"
        count /= 1024
    return f"{count:.1f} GB"
