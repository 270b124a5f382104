"""betman reduce_dimensions: embeddings in few dimensions, by UMAP or principal components."""

import importlib.util
import warnings
from typing import Any

import numpy as np
import pandas as pd

from lisbet.commands.applying.result_files import EMBEDDING_FILES
from lisbet.commands.motifs.tables import (
    Embeddings,
    find_tables,
    read_embeddings,
    require_no_others,
)
from lisbet.core.errors import ConfigError, DataError, counted
from lisbet.core.storage.files import require_writable, write_file
from lisbet.core.storage.results import require_result_files
from lisbet.core.storage.write_log import WriteLog
from lisbet.options import ReduceOptions


def reduce_dimensions(options: ReduceOptions) -> None:
    """Write embeddings/<recording>/features_<method>_dimred.csv."""
    if options.method == "umap" and importlib.util.find_spec("umap") is None:
        raise ConfigError(
            "--method=umap needs umap-learn: pip install 'lisbet[umap]', or use --method=pca"
        )
    folder = options.output_path / "embeddings"
    name = table_name(options)
    require_writable(folder)
    rng = np.random.default_rng(options.sample_seed)
    ids = drawn(options, rng)
    paths = [folder / record_id / name for record_id in ids]
    require_result_files(paths, root=folder, overwrite=options.overwrite)
    require_no_others(folder, name, ids)
    data = read_embeddings(options.data_path, ids)
    _require_dimensions(data, options)
    if options.method == "pca":
        reduced = principal_components(data.all, options.num_dims)
    else:
        reduced = umap(data.all, options, rng)
    notes = WriteLog(folder)
    ends = np.cumsum(data.lengths)[:-1]
    for path, values in zip(paths, np.split(reduced, ends), strict=True):
        with write_file(path, root=folder, overwrite=options.overwrite, notes=notes) as temporary:
            pd.DataFrame(values.astype(np.float32)).to_csv(temporary)
    print(f"{name} of {counted(len(ids), 'recording')} written to {folder}")


def table_name(options: ReduceOptions) -> str:
    """Return the name of the tables, which tells with what they were made."""
    if options.method == "pca":
        return f"features_pca{options.num_dims}d_dimred.csv"
    return f"features_umap{options.num_dims}d{options.num_neighbors}_dimred.csv"


def drawn(options: ReduceOptions, rng: np.random.Generator) -> list[str]:
    """Return the ids of the recordings that are used, sorted.

    Raises
    ------
    ConfigError
        If more are to be drawn than there are.
    """
    ids = find_tables(options.data_path, EMBEDDING_FILES, options.filters, "compute_embeddings")
    if options.sample_size is None:
        return ids
    if options.sample_size > len(ids):
        raise ConfigError(
            f"--sample_size={options.sample_size}: there are only "
            f"{counted(len(ids), 'recording')} in {options.data_path}"
        )
    return sorted(rng.choice(ids, options.sample_size, replace=False).tolist())


def _require_dimensions(data: Embeddings, options: ReduceOptions) -> None:
    """Refuse more dimensions or neighbours than the embeddings have."""
    if options.num_dims > data.width:
        raise ConfigError(
            f"--num_dims={options.num_dims}: the embeddings have only {data.width} dimensions"
        )
    fitted = min(options.fit_frames or len(data.all), len(data.all))
    if options.method == "umap" and fitted <= max(options.num_neighbors, options.num_dims + 1):
        raise DataError(
            f"{counted(fitted, 'frame')} are too few for --num_neighbors={options.num_neighbors} "
            f"and --num_dims={options.num_dims}; expected more than "
            f"{max(options.num_neighbors, options.num_dims + 1)}"
        )
    if options.method == "pca" and options.num_dims > len(data.all):
        raise DataError(
            f"{counted(len(data.all), 'frame')} have fewer than {options.num_dims} dimensions"
        )


def principal_components(values: np.ndarray, count: int) -> np.ndarray:
    """Return the first principal components of frames: (frames, count)."""
    from sklearn.decomposition import PCA

    model = PCA(count, svd_solver="covariance_eigh")
    reduced: np.ndarray = model.fit_transform(values.astype(float))
    shares = ", ".join(f"{share:.1%}" for share in model.explained_variance_ratio_)
    print(f"variance explained by each component: {shares}")
    return reduced


def umap(values: np.ndarray, options: ReduceOptions, rng: np.random.Generator) -> np.ndarray:
    """Return frames in a plane, or more dimensions, that keeps their neighbours: (frames, dims)."""
    from umap import UMAP

    model: Any = UMAP(
        n_components=options.num_dims,
        n_neighbors=options.num_neighbors,
        random_state=options.umap_seed,
        n_jobs=-1 if options.umap_seed is None else 1,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of numba, and that a seed needs one thread
        if options.fit_frames is None or options.fit_frames >= len(values):
            return np.asarray(model.fit_transform(values))
        chosen = np.sort(rng.choice(len(values), options.fit_frames, replace=False))
        model.fit(values[chosen])
        reduced = np.asarray(model.transform(values))
        reduced[chosen] = model.embedding_
        return reduced
