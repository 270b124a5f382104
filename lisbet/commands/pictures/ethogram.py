"""``betman plot_ethogram``: when each behaviour happens, and tables of bouts."""

import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from lisbet.commands.applying.class_tables import ClassTables, read_class_tables
from lisbet.commands.pictures.annotated import Annotated, read_annotated, some
from lisbet.commands.pictures.bouts import (
    behavior_rows,
    probabilities,
    transition_counts,
    transition_rows,
)
from lisbet.commands.pictures.timelines import Source, Span, numbers_figure, timeline_figure
from lisbet.core import drawing
from lisbet.core.errors import ConfigError, DataError, counted, unknown
from lisbet.core.storage.files import require_writable, write_file
from lisbet.core.storage.results import require_result_files
from lisbet.options import PlotEthogramOptions

log = logging.getLogger(__name__)

FOLDER, ETHOGRAM, BEHAVIORS, TRANSITIONS = "ethograms", "ethogram", "behaviors", "transitions"
POOLED = "_all_recordings"
TIME_TOLERANCE = 1e-6
"""Frames by which the end of what is drawn may be rounded."""


def plot_ethogram(options: PlotEthogramOptions) -> None:
    """Write ethograms/: timelines, tables of bouts and of transitions, and pictures of these."""
    folder = options.output_path / FOLDER
    require_writable(folder)
    tables = [
        folder / f"{name}{end}.csv" for name in (BEHAVIORS, TRANSITIONS) for end in ("", POOLED)
    ]
    pictures = [folder / f"{name}.{options.format}" for name in (BEHAVIORS, TRANSITIONS)]
    require_result_files([*tables, *pictures], root=folder, overwrite=options.overwrite)
    sources, ids, rates = _sources(options)
    spans = {i: _span(i, len(sources[0].active[i]), rates[i], options) for i in ids}
    timelines = {i: folder / i / f"{ETHOGRAM}.{options.format}" for i in ids}
    require_result_files(list(timelines.values()), root=folder, overwrite=options.overwrite)
    if options.compact:
        _require_no_overlap(sources, ids)
    unit = "frames" if None in rates.values() else "s"
    _write_tables(folder, sources, spans, unit)
    title = _title(ids, spans, options)
    drawing.save(_numbers(sources, spans, unit, title), pictures[0], root=folder, overwrite=True)
    drawing.save(_transitions(sources, spans, title), pictures[1], root=folder, overwrite=True)
    for record_id, path in timelines.items():
        figure = timeline_figure(record_id, sources, spans[record_id], compact=options.compact)
        drawing.save(figure, path, root=folder, overwrite=True)
    print(f"ethograms of {counted(len(ids), 'recording')} and tables of bouts written to {folder}")


def _sources(
    options: PlotEthogramOptions,
) -> tuple[list[Source], list[str], dict[str, float | None]]:
    """Read everything; return what is drawn, of which recordings, and their frame rates."""
    read = [read_class_tables(path, options.table) for path in options.results_path]
    ids = _common([table.active for table in read], options.results_path, options.recordings)
    lengths = {i: len(read[0].active[i]) for i in ids}
    for table, path in zip(read, options.results_path, strict=True):
        _require_lengths(table.active, lengths, path, options.results_path[0])
    wanted: dict[str, int | None] | None = {**lengths}
    if not read:
        wanted = None if options.recordings is None else dict.fromkeys(options.recordings)
    annotated = [read_annotated(path, wanted, options, "rows") for path in options.labels]
    if annotated and not read:
        ids = _common([a.active for a in annotated], options.labels, options.recordings)
        lengths = {i: len(annotated[0].active[i]) for i in ids}
        for own, path in zip(annotated, options.labels, strict=True):
            _require_lengths(own.active, lengths, path, options.labels[0])
    rates = annotated[0].fps if annotated else dict.fromkeys(ids, options.fps)
    names = options.names or _names(annotated, read, options)
    found: list[Annotated | ClassTables] = [*annotated, *read]
    sources = [Source(name, one.names, one.active) for name, one in zip(names, found, strict=True)]
    return _chosen(sources, options.behaviors), ids, {i: rates[i] for i in ids}


def _common(
    found: list[dict[str, np.ndarray]], paths: tuple[Path, ...], asked: tuple[str, ...] | None
) -> list[str]:
    """Return the recordings that were asked for, or those that all folders have."""
    if not found:
        return []
    for own, path in zip(found, paths, strict=True):
        for record_id in asked or ():
            if record_id not in own:
                raise ConfigError(f"--recordings: {path}: {unknown('recording', record_id, own)}")
    if asked is not None:
        return list(dict.fromkeys(asked))
    everywhere = sorted(set(found[0]).intersection(*found[1:]))
    if not everywhere:
        listed = "; ".join(
            f"{path} has {some(sorted(own))}" for own, path in zip(found, paths, strict=True)
        )
        raise DataError(f"no recording is in all folders: {listed}")
    if left := sorted(set().union(*found).difference(everywhere)):
        log.warning(
            "not drawn, as not all folders have them: %s (%s)",
            some(left), counted(len(left), "recording"),
        )  # fmt: skip
    return everywhere


def _require_lengths(
    active: dict[str, np.ndarray], lengths: dict[str, int], path: Path, first: Path
) -> None:
    for record_id, frames in lengths.items():
        if len(active[record_id]) != frames:
            raise DataError(
                f"{record_id} has {counted(len(active[record_id]), 'frame')} in {path}, but "
                f"{frames} in {first}; expected tables of the same recording"
            )


def _names(
    annotated: list[Annotated], read: list[ClassTables], options: PlotEthogramOptions
) -> tuple[str, ...]:
    """Name what is drawn: after models and annotators, or where these are the same, folders."""
    human = ["annotated"] if len(annotated) == 1 else [f"annotated: {p}" for p in options.labels]
    paths = list(map(str, options.results_path))
    models = [
        str(path) if table.model is None else table.model.model_id
        for table, path in zip(read, paths, strict=True)
    ]
    names = [*human, *(models if len(set(models)) == len(models) else paths)]
    if len(set(names)) < len(names):
        raise ConfigError("a folder is given twice; leave one out, or tell them apart with --names")
    return tuple(names)


def _chosen(sources: list[Source], behaviors: tuple[str, ...] | None) -> list[Source]:
    """Return the sources with the behaviours that were asked for."""
    if behaviors is None:
        return sources
    known = {name for source in sources for name in source.behaviors}
    for name in behaviors:
        if name not in known:
            raise ConfigError(f"--behaviors: {unknown('behaviour', name, known)}")
    chosen = [source.only(tuple(dict.fromkeys(behaviors))) for source in sources]
    for own, source in zip(chosen, sources, strict=True):
        if not own.behaviors:
            raise ConfigError(
                f"--behaviors names nothing of {source.name}, which has "
                f"{some(list(source.behaviors))}"
            )
    return chosen


def _span(record_id: str, frames: int, fps: float | None, options: PlotEthogramOptions) -> Span:
    """Return which frames of a recording are drawn."""
    start, end = options.from_, options.to
    if start is None and end is None:
        return Span(0, frames, fps)
    if fps is None:
        raise ConfigError(
            f"--from and --to are in seconds, but the frame rate of {record_id} is not known; give "
            "it with --fps, or the recordings with --labels"
        )
    for name, value in (("from", start), ("to", end)):
        if value is not None and (
            value * fps > frames + TIME_TOLERANCE
            or (name == "from" and round(value * fps) >= frames)
        ):
            raise ConfigError(
                f"--{name}={value:g}: {record_id} ends at {frames / fps:g} s; choose a part of it, "
                "or other recordings with --recordings"
            )
    first = 0 if start is None else round(start * fps)
    last = frames if end is None else min(frames, round(end * fps))
    if last <= first:
        raise ConfigError(
            f"--from={start or 0:g} and --to={end:g} are in the same frame of {record_id}, which "
            f"has {fps:g} frames per second"
        )
    return Span(first, last, fps)


def _require_no_overlap(sources: list[Source], ids: list[str]) -> None:
    for source in sources:
        for record_id in ids:
            double = np.flatnonzero(source.active[record_id].sum(axis=1) > 1)
            if len(double):
                frame = source.active[record_id][double[0]]
                both = " and ".join(np.array(source.behaviors)[frame])
                raise ConfigError(
                    f"--compact: one lane cannot show behaviours that overlap: {source.name}, "
                    f"{record_id}, frame {double[0]} has {both} ({counted(len(double), 'frame')} "
                    "have several); leave --compact out"
                )


def _parts(source: Source, spans: dict[str, Span]) -> list[np.ndarray]:
    return [source.active[i][span.first : span.end] for i, span in spans.items()]


def _rows(source: Source, spans: dict[str, Span], unit: str) -> pd.DataFrame:
    rates = [(span.fps or 1.0) if unit == "s" else 1.0 for span in spans.values()]
    return behavior_rows(source.behaviors, _parts(source, spans), rates, unit)


def _counts(source: Source, spans: dict[str, Span]) -> np.ndarray:
    counts: np.ndarray = np.sum([transition_counts(part) for part in _parts(source, spans)], axis=0)
    return counts


def _write_tables(folder: Path, sources: list[Source], spans: dict[str, Span], unit: str) -> None:
    """Write the tables, of each recording and over all of them."""
    makers: dict[str, Callable[[Source, dict[str, Span]], pd.DataFrame]] = {
        BEHAVIORS: lambda source, part: _rows(source, part, unit),
        TRANSITIONS: lambda source, part: transition_rows(source.behaviors, _counts(source, part)),
    }
    for name, make in makers.items():
        each = [
            make(source, {i: span}).assign(recording=i, source=source.name)
            for i, span in spans.items()
            for source in sources
        ]
        pooled = [make(source, spans).assign(source=source.name) for source in sources]
        for end, tables, first in (
            ("", each, ["recording", "source"]), (POOLED, pooled, ["source"]),
        ):  # fmt: skip
            table = pd.concat(tables, ignore_index=True)
            table = table[[*first, *(column for column in table if column not in first)]]
            with write_file(folder / f"{name}{end}.csv", root=folder, overwrite=True) as temporary:
                table.to_csv(temporary, index=False)


def _title(ids: list[str], spans: dict[str, Span], options: PlotEthogramOptions) -> str:
    if len(ids) == 1:
        return f"{ids[0]}: {spans[ids[0]]}"
    frames = sum(span.end - span.first for span in spans.values())
    limits = [("from", options.from_), ("to", options.to)]
    part = " ".join(f"{word} {value:g} s" for word, value in limits if value is not None)
    return f"{len(ids)} recordings together, {frames:,} frames{part and f', {part} of each'}"


def _numbers(sources: list[Source], spans: dict[str, Span], unit: str, title: str) -> Figure:
    tables = [(source, _rows(source, spans, unit)) for source in sources]
    return numbers_figure(tables, unit, title)


def _transitions(sources: list[Source], spans: dict[str, Span], title: str) -> Figure:
    names = [list(source.behaviors) for source in sources]
    return drawing.matrix_figure(
        [probabilities(_counts(source, spans)) for source in sources], None, names, names,
        [source.name for source in sources],
        f"{title}: what begins next (probability)", ("next bout", "bout"), per_line=2,
    )  # fmt: skip
