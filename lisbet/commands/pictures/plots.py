"""Pictures of runs and of embeddings."""

import math
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from lisbet.commands.applying.result_files import EMBEDDING_FILES, find_results
from lisbet.commands.applying.sidecar import model_of_tables
from lisbet.commands.pictures.history_page import RunHistory, charts, page
from lisbet.core import drawing
from lisbet.core.config import Dataset
from lisbet.core.errors import DataError, ModelError
from lisbet.core.storage.files import require_writable, write_text
from lisbet.core.storage.results import require_result_files
from lisbet.options import DataOptions, PlotEmbeddingsOptions, PlotHistoryOptions
from lisbet.training.logging.events import EVENTS, read_events
from lisbet.training.logging.history import HISTORY, read_history

PAGE, SEVERAL = ".html", "training_histories"
SHOWN_FRAMES = 3000
"""Frames in a picture of embeddings; more take minutes to lay out and hide each other."""


def plot_history(options: PlotHistoryOptions) -> None:
    """Draw losses and scores per epoch: a picture, and a page."""
    if options.output_path is not None:
        drawing.require_picture(options.output_path, (*drawing.PICTURES, PAGE))
    folders = options.run_path
    paths = _history_paths(options)
    _require_targets(paths, overwrite=options.overwrite)
    names = [folder.name for folder in folders]
    if len(set(names)) < len(names):  # of several places
        names = [str(folder) for folder in folders]
    runs = [RunHistory(name, rows_of(folder)) for name, folder in zip(names, folders, strict=True)]
    for path in paths:
        if path.suffix.lower() == PAGE:
            write_text(path, page(runs), overwrite=options.overwrite)
            print(f"page written to {path}")
        else:
            figure = _history_of(runs[0]) if len(runs) == 1 else _histories(runs)
            _save(figure, path, overwrite=options.overwrite)


def _history_paths(options: PlotHistoryOptions) -> list[Path]:
    """Return the files to write: the one that was asked for, or a picture and a page."""
    if options.output_path is not None:
        return [options.output_path]
    folders = options.run_path
    one = len(folders) == 1
    place = folders[0] / "training_history" if one else folders[0].parent / SEVERAL
    return [place.with_name(place.name + end) for end in (".png", PAGE)]


def _require_targets(paths: list[Path], *, overwrite: bool) -> None:
    """Refuse before anything is drawn what must not be replaced or cannot be written."""
    for path in paths:
        require_result_files([path], root=path.parent, overwrite=overwrite)
        require_writable(path.parent)


def rows_of(folder: Path) -> list[dict[str, float]]:
    """Return the rows of a run's epochs: of its history, or else of its events.

    Raises
    ------
    ModelError
        If there are neither.
    """
    if not (folder / HISTORY).is_file() and (folder / EVENTS).is_file():
        ends = [row for row in read_events(folder / EVENTS) if "epoch/epoch" in row]
        rows = [
            {
                name.removeprefix("epoch/"): math.nan if value is None else float(value)
                for name, value in row.items()
                if name.startswith("epoch/")
            }
            for row in ends
        ]
        if rows:
            return rows
        raise ModelError(f"{folder / EVENTS} holds no finished epoch yet")
    if not (folder / HISTORY).is_file():
        runs = sorted(
            {path.parent.name for name in (HISTORY, EVENTS) for path in folder.glob(f"*/{name}")}
        )
        hint = f"runs in it: {', '.join(runs)}" if runs else "expected a folder models/RUN"
        raise ModelError(f"{folder} is not a run with {HISTORY} or {EVENTS}; {hint}")
    return read_history(folder / HISTORY)


def _history_of(run: RunHistory) -> Figure:
    """Draw one run: all losses, and all scores."""
    columns = {name: np.array([row[name] for row in run.rows]) for name in run.rows[0]}
    epochs = columns["epoch"] + 1
    figure = Figure(figsize=(10, 4.5), layout="constrained")
    losses, scores = figure.subplots(1, 2)
    tasks = [name.removesuffix("_train_loss") for name in columns if name.endswith("_train_loss")]
    for number, task in enumerate(tasks):
        for part, style in (("train", ":"), ("dev", "-")):
            for name, values in columns.items():
                if not name.startswith(f"{task}_{part}_"):
                    continue
                score = name.removeprefix(f"{task}_{part}_")
                axes, label = (losses, f"{task}, {part}") if score == "loss" else (scores, None)
                axes.plot(epochs, values, style, color=f"C{number}", label=label, marker=".", ms=4)
    losses.set(title=f"{run.name}: losses", xlabel="epoch", ylabel="loss")
    scores.set(title="scores", xlabel="epoch", ylabel="accuracy, F1 or R²", ylim=(0, 1))
    for axes in (losses, scores):
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.grid(alpha=0.3)
    figure.legend(loc="outside lower center", ncols=max(len(tasks), 2), fontsize=8)
    return figure


def _histories(runs: list[RunHistory]) -> Figure:
    """Lay several runs over each other: a colour for each run, a chart for each number."""
    drawn = {title: parts for title, parts in charts(runs).items() if len(parts) == 2}
    columns = min(3, len(drawn))
    lines = -(-len(drawn) // columns)
    figure = Figure(figsize=(4.2 * columns, 3.2 * lines + 0.5), layout="constrained")
    places = figure.subplots(lines, columns, squeeze=False).ravel()
    for axes, (title, parts) in zip(places, drawn.items(), strict=False):
        for number, run in enumerate(runs):
            for part, column in parts.items():
                if curve := run.curve(column):
                    style = ":" if part == "train" else "-"
                    label = f"{run.name}, {part}"
                    axes.plot(*zip(*curve, strict=True), style, color=f"C{number % 10}",
                              label=label, marker=".", ms=4)  # fmt: skip
        axes.set(title=title, xlabel="epoch")
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.grid(alpha=0.3)
    for axes in places[len(drawn) :]:
        axes.set_axis_off()
    handles, labels = places[0].get_legend_handles_labels()
    figure.legend(
        handles, labels, loc="outside lower center", ncols=min(4, len(labels)), fontsize=8
    )
    return figure


def plot_embeddings(options: PlotEmbeddingsOptions) -> None:
    """Draw embeddings in two dimensions, coloured by behaviour where annotations are given."""
    from lisbet.commands.applying.result_tables import (
        read_embeddings,  # plot_history needs no pandas
    )

    path = options.output_path or options.embeddings_path / "embeddings.png"
    drawing.require_picture(path)
    if options.embeddings_path.is_dir():
        _require_targets([path], overwrite=options.overwrite)
    embeddings = read_embeddings(options.embeddings_path)
    groups = {
        record_id: np.full(len(values), record_id) for record_id, values in embeddings.items()
    }
    if options.labels is not None:
        groups = _behaviors(options, embeddings)
    everything = np.concatenate(list(embeddings.values()))
    chosen = np.linspace(0, len(everything) - 1, min(SHOWN_FRAMES, len(everything))).astype(int)
    names = np.concatenate(list(groups.values()))[chosen]
    figure = Figure(figsize=(7, 6), layout="constrained")
    drawing.scatter(figure.subplots(), _layout(everything[chosen], options.seed), names)
    what = "behaviour" if options.labels is not None else "recording"
    title = f"{len(chosen)} of {len(everything)} frames, t-SNE of the embeddings, by {what}"
    if (model := model_of_tables(_tables(options.embeddings_path))) is not None:
        title += f"\n{model}"
        print(f"embeddings of {model}")
    figure.suptitle(title, size=10)
    _save(figure, path, overwrite=options.overwrite)


def _tables(folder: Path) -> list[Path]:
    """Return the tables of embeddings of a folder, one of each recording."""
    return [own[0] for own in find_results(folder, EMBEDDING_FILES).values()]


def _layout(values: np.ndarray, seed: int) -> np.ndarray:
    """Lay embeddings (frames, embedding) out in the plane: (frames, 2)."""
    from sklearn.manifold import TSNE  # takes a second to import

    if len(values) < 10:
        raise DataError(f"{len(values)} frames are too few for a picture of embeddings")
    perplexity = min(30.0, (len(values) - 1) / 3)
    plane: np.ndarray = TSNE(
        perplexity=perplexity, init="pca", random_state=seed % 2**32
    ).fit_transform(values.astype(np.float32))
    return plane


def _some(ids: list[str]) -> str:
    """Name the first few of many recordings."""
    return ", ".join([*ids[:3], *["…"] * (len(ids) > 3)])


def _behaviors(
    options: PlotEmbeddingsOptions, embeddings: dict[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """Name the behaviour of each frame of each recording."""
    from lisbet.data.files.sources import find_sources  # needs what reads tracking files
    from lisbet.data.load import load_records
    from lisbet.data.readers import dataset_reader

    assert options.labels is not None
    dataset = Dataset(
        path=options.labels, format=options.data_format, annotations=options.annot_format
    )
    ids = tuple(embeddings)
    if dataset_reader(dataset) is None:
        sources = sorted(source.id for source in find_sources(dataset))
        if strangers := sorted(set(ids).difference(sources)):
            raise DataError(
                f"the embeddings are of {_some(strangers)}, but the recordings in "
                f"{options.labels} are {_some(sources)}; give the folder of the same recordings "
                "with --labels"
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
    labels = {record.id: record.labels for record in records}
    groups = {}
    for record_id, values in embeddings.items():
        own = labels.get(record_id)
        if own is None or len(own.active) != len(values):
            there = "no such recording" if own is None else f"{len(own.active)} frames"
            raise DataError(
                f"{options.labels}: {record_id} has {len(values)} embeddings, but {there}"
            )
        names = np.array([*own.behaviors, "none"])
        number = np.where(
            own.active.any(1), own.active.argmax(1) if own.behaviors else 0, len(own.behaviors)
        )
        groups[record_id] = names[number]
    return groups


def _save(figure: Figure, path: Path, *, overwrite: bool) -> None:
    drawing.save(figure, path, overwrite=overwrite)
    print(f"picture written to {path}")
