"""Pictures of runs and of embeddings."""

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lisbet.config import Dataset
from lisbet.data.load import load_records
from lisbet.errors import ConfigError, DataError
from lisbet.options import DataOptions, PlotEmbeddingsOptions, PlotHistoryOptions
from lisbet.predict import read_embeddings
from lisbet.publish import published
from lisbet.training.history import HISTORY, read_history

DPI = 110
SHOWN_FRAMES = 3000
"""Frames in a picture of embeddings; more take minutes to lay out and hide each other."""


def plot_history(options: PlotHistoryOptions) -> None:
    """Draw losses and scores per epoch."""
    source = options.run_path / HISTORY
    rows = read_history(source)
    columns = {name: np.array([row[name] for row in rows]) for name in rows[0]}
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
    losses.set(title=f"{options.run_path.name}: losses", xlabel="epoch", ylabel="loss")
    scores.set(title="scores", xlabel="epoch", ylabel="accuracy or F1", ylim=(0, 1))
    for axes in (losses, scores):
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.grid(alpha=0.3)
    figure.legend(loc="outside lower center", ncols=max(len(tasks), 2), fontsize=8)
    _save(figure, options.output_path or options.run_path / "training_history.png")


def plot_embeddings(options: PlotEmbeddingsOptions) -> None:
    """Draw embeddings in two dimensions, coloured by behaviour where annotations are given."""
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
    _scatter(figure.subplots(), _layout(everything[chosen], options.seed), names)
    what = "behaviour" if options.labels is not None else "recording"
    figure.suptitle(
        f"{len(chosen)} of {len(everything)} frames, t-SNE of the embeddings, by {what}", size=10
    )
    _save(figure, options.output_path or options.embeddings_path / "embeddings.png")


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


def _behaviors(
    options: PlotEmbeddingsOptions, embeddings: dict[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """Name the behaviour of each frame of each recording."""
    assert options.labels is not None
    dataset = Dataset(
        path=options.labels, format=options.data_format, annotations=options.annot_format
    )
    words = tuple(embeddings)  # ids are among their own words, so others may be unreadable
    records = load_records(dataset, DataOptions(data_filter=words, fps=options.fps))
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


def _scatter(axes: Axes, plane: np.ndarray, names: np.ndarray) -> None:
    for number, name in enumerate(np.unique(names)):
        own = plane[names == name]
        axes.scatter(
            own[:, 0], own[:, 1], s=5, alpha=0.6, linewidths=0, label=name, color=f"C{number % 10}"
        )
    if len(np.unique(names)) <= 20:
        axes.legend(markerscale=3, fontsize=8)
    axes.set(xticks=[], yticks=[])


def _save(figure: Figure, path: Path) -> None:
    if path.suffix.lower() not in (".png", ".pdf", ".svg"):
        raise ConfigError(f"--output_path={path}: expected a name ending in .png, .pdf or .svg")
    with published(path) as beside:
        figure.savefig(beside, dpi=DPI, format=path.suffix[1:].lower())
    print(f"picture written to {path}")
