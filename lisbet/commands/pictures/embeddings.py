"""``betman plot_embeddings``: the embedding of frames in two dimensions."""

import importlib.util
from pathlib import Path

import numpy as np

from lisbet.commands.applying.class_tables import read_class_tables
from lisbet.commands.applying.result_files import EMBEDDING_FILES, find_results
from lisbet.commands.applying.result_tables import read_embeddings
from lisbet.commands.applying.sidecar import model_of_tables
from lisbet.commands.pictures.annotated import read_annotated, some
from lisbet.core import drawing
from lisbet.core.errors import ConfigError, DataError, counted, unknown
from lisbet.core.storage.files import require_writable
from lisbet.core.storage.results import require_result_files
from lisbet.options import PlotEmbeddingsOptions

FEWEST_FRAMES = 10
PERPLEXITY, NEIGHBORS, MIN_DIST = 30.0, 15, 0.1
"""Of t-SNE and UMAP: what their authors and libraries propose."""


def plot_embeddings(options: PlotEmbeddingsOptions) -> None:
    """Draw embeddings in two dimensions, coloured by what is known of the frames."""
    path = options.picture_path(options.embeddings_path / "embeddings")
    drawing.require_picture(path)
    _require_method(options.method)
    if options.embeddings_path.is_dir():
        require_result_files([path], root=path.parent, overwrite=options.overwrite)
        require_writable(path.parent)
    embeddings = read_embeddings(options.embeddings_path)
    groups, what, neutral = _groups(options, {i: len(values) for i, values in embeddings.items()})
    everything = np.concatenate(list(embeddings.values()))
    if len(everything) < FEWEST_FRAMES:
        raise DataError(f"{len(everything)} frames are too few for a picture of embeddings")
    rng = np.random.default_rng(options.seed)
    count = min(options.max_frames, len(everything))
    chosen = np.sort(rng.choice(len(everything), count, replace=False))
    names = np.concatenate([groups[record_id] for record_id in embeddings])[chosen]
    plane, title, axes_labels = layout(everything, chosen, options.method, options.seed)
    shown = f"{count:,} of {len(everything):,} frames, seed {options.seed}, by {what}"
    lines = [shown, title]
    if (model := model_of_tables(_tables(options.embeddings_path))) is not None:
        lines.insert(0, str(model))
        print(f"embeddings of {model}")
    figure = drawing.scatter_figure(plane, names, "\n".join(lines), axes_labels, neutral)
    drawing.save(figure, path, overwrite=options.overwrite)
    print(f"picture written to {path}")


def _require_method(method: str) -> None:
    """Refuse UMAP where it is not installed.

    Raises
    ------
    ConfigError
        Saying how to install it.
    """
    if method == "umap" and importlib.util.find_spec("umap") is None:
        raise ConfigError(
            "--method=umap needs umap-learn, which is not installed: pip install 'lisbet[umap]'; "
            "or use --method=tsne or pca"
        )


def layout(
    everything: np.ndarray, chosen: np.ndarray, method: str, seed: int
) -> tuple[np.ndarray, str, tuple[str, str]]:
    """Lay embeddings out in the plane.

    Parameters
    ----------
    everything : ndarray
        (frames, embedding).
    chosen : ndarray
        (n,): the frames to lay out. Principal components are those of all frames.
    method : {"pca", "tsne", "umap"}
        How.
    seed : int
        Of the random numbers of t-SNE and UMAP.

    Returns
    -------
    plane : ndarray
        (n, 2).
    title : str
        What was done, with its settings.
    axes_labels : tuple of str
        Names of the two axes.
    """
    values = everything[chosen].astype(np.float32)
    if method == "pca":
        return _principal_components(everything, chosen)
    if method == "tsne":
        from sklearn.manifold import TSNE  # takes a second to import

        perplexity = min(PERPLEXITY, (len(values) - 1) / 3)
        found = TSNE(perplexity=perplexity, init="pca", random_state=seed % 2**32)
        title = f"t-SNE of these frames' embeddings, perplexity {perplexity:g}"
        return found.fit_transform(values), title, ("t-SNE 1", "t-SNE 2")
    from umap import UMAP  # takes many seconds to import

    neighbors = min(NEIGHBORS, len(values) - 1)
    umap = UMAP(
        n_neighbors=neighbors, min_dist=MIN_DIST, random_state=seed % 2**32, n_jobs=1,
        init="spectral" if len(values) > 3 * NEIGHBORS else "random",
    )  # fmt: skip
    title = f"UMAP of these frames' embeddings, {neighbors} neighbours, distance {MIN_DIST:g}"
    return np.asarray(umap.fit_transform(values)), title, ("UMAP 1", "UMAP 2")


def _principal_components(
    everything: np.ndarray, chosen: np.ndarray
) -> tuple[np.ndarray, str, tuple[str, str]]:
    from sklearn.decomposition import PCA  # takes a second to import

    found = PCA(min(2, everything.shape[1]), svd_solver="full").fit(everything)
    plane = np.zeros((len(chosen), 2))
    plane[:, : found.n_components_] = found.transform(everything[chosen])
    shares = [*found.explained_variance_ratio_, 0.0][:2]
    labels = [f"component {n} ({share:.0%} of the variance)" for n, share in enumerate(shares, 1)]
    return plane, "principal components of all frames' embeddings", (labels[0], labels[1])


def _groups(
    options: PlotEmbeddingsOptions, lengths: dict[str, int]
) -> tuple[dict[str, np.ndarray], str, tuple[str, ...]]:
    """Name the group of each frame of each recording; say what they are, and which are grey."""
    by = options.color_by
    if by == "recording" or (by is None and options.labels is options.motifs is None):
        return {i: np.full(frames, i) for i, frames in lengths.items()}, "recording", ()
    names, active = _columns(options, lengths)
    if by in (None, "behavior", "motif"):
        kind = "behaviour" if options.labels is not None else "motif"
        return _mixed(names, active), kind, drawing.NO_BEHAVIORS
    if by not in names:
        raise ConfigError(f"--color_by: {unknown('column', str(by), [*names, 'recording'])}")
    words, number = np.array([f"not {by}", by]), names.index(by)
    groups = {i: words[own[:, number].astype(int)] for i, own in active.items()}
    return groups, str(by), (f"not {by}",)


def _columns(
    options: PlotEmbeddingsOptions, lengths: dict[str, int]
) -> tuple[tuple[str, ...], dict[str, np.ndarray]]:
    """Read the behaviours or motifs of the frames: names, and (frames, names) by recording."""
    if options.labels is not None:
        annotated = read_annotated(options.labels, {**lengths}, options, "embeddings")
        return annotated.names, annotated.active
    assert options.motifs is not None
    tables = read_class_tables(options.motifs)
    if missing := sorted(set(lengths).difference(tables.active)):
        raise DataError(
            f"{options.motifs} has no table of {some(missing)}, of which there are embeddings; it "
            f"has tables of {some(sorted(tables.active))}"
        )
    for record_id, frames in lengths.items():
        if (there := len(tables.active[record_id])) != frames:
            raise DataError(
                f"{options.motifs}: {record_id} has {frames} embeddings, but "
                f"{counted(there, 'frame')}"
            )
    return tables.names, {record_id: tables.active[record_id] for record_id in lengths}


def _mixed(names: tuple[str, ...], active: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Name what is in each frame of each recording; see `drawing.mixtures`."""
    words = drawing.mixtures(names, np.concatenate(list(active.values())))
    ends = np.cumsum([len(own) for own in active.values()])
    return dict(zip(active, np.split(words, ends[:-1]), strict=True))


def _tables(folder: Path) -> list[Path]:
    """Return the tables of embeddings of a folder, one of each recording."""
    return [own[0] for own in find_results(folder, EMBEDDING_FILES).values()]
