"""The options of the commands from embeddings to motifs."""

import glob
from pathlib import Path
from typing import Literal, Self

from pydantic import field_validator, model_validator

from lisbet.core.config import Words
from lisbet.core.errors import ConfigError
from lisbet.options._base import (
    LABEL_READER_NAMES,
    AnnotationFormat,
    Options,
    option,
    positional,
)


class TableOptions(Options):
    """Which tables of results are read, and where new ones are written."""

    data_filter: Words | None = option(
        None,
        "use only recordings whose id, or a folder in it, matches one of these names or patterns, "
        "such as mouse1, day1/mouse1 or 'mouse1*'",
        affects="data",
        group="data",
    )
    filter_match: Literal["name", "substring"] = option(
        "name",
        "how --data_filter compares: whole names, or any part of an id as the published tool does, "
        "where mouse1 also matches mouse10",
        affects="data",
        group="data",
    )
    annot_format: AnnotationFormat = option(
        "movement",
        "accepted because the published tool has it; no annotations are read, so it has no effect",
        affects="nothing",
        group="data",
        known=LABEL_READER_NAMES,
    )
    output_path: Path = option(
        Path("."), "folder that contains the folder of results", affects="nothing", group="output"
    )
    overwrite: bool = option(
        False, "replace results that betman wrote before", affects="nothing", group="output"
    )

    @property
    def filters(self) -> tuple[str, ...] | None:
        """Patterns of which an id must match one; None keeps all recordings."""
        if self.data_filter is None or self.filter_match == "name":
            return self.data_filter
        return tuple(f"*{glob.escape(word)}*" for word in self.data_filter)


class StateRangeOptions(TableOptions):
    """Which numbers of hidden states are meant."""

    min_n_components: int = option(2, "smallest number of hidden states", affects="data", ge=1)
    max_n_components: int = option(32, "largest number of hidden states", affects="data", ge=1)

    @model_validator(mode="after")
    def _range_is_not_empty(self) -> Self:
        if self.min_n_components > self.max_n_components:
            raise ConfigError(
                f"--min_n_components={self.min_n_components} is more than "
                f"--max_n_components={self.max_n_components}"
            )
        return self

    @property
    def numbers(self) -> range:
        """The numbers of hidden states."""
        return range(self.min_n_components, self.max_n_components + 1)


class SegmentOptions(StateRangeOptions):
    """Divide recordings into motifs: fit hidden Markov models to embeddings.

    Fits one model for each number of hidden states, and writes for each
    annotations/<recording>/machineAnnotation_hmm<states>.csv, one row for each frame, one column of
    0 and 1 for each motif, and annotations/model_hmm<states>.joblib, history_hmm<states>.csv and
    metrics_hmm<states>.yaml. annotations/metrics_hmm.csv compares them. The same command fits only
    what is missing.

    Examples
    --------
    betman segment_motifs --max_n_components=12 --hmm_seed=1 embeddings
    """

    data_path: Path = positional("folder of embeddings that compute_embeddings wrote")
    num_iter: int = option(
        10,
        "largest number of iterations of expectation maximization for each model",
        affects="model",
        ge=1,
    )
    fit_frac: float | None = option(
        None,
        "fraction of the recordings, drawn at random, that the models are fitted to; all are "
        "divided into motifs; default: all",
        affects="model",
        gt=0,
        le=1,
        allow_inf_nan=False,
    )
    n_jobs: int = option(
        -1,
        "number of models that are fitted at the same time, one thread each; -1: as many as there "
        "are cores",
        affects="nothing",
        group="devices",
    )
    hmm_seed: int | None = option(
        None,
        "seed of the models and of --fit_frac; default: another one at each start",
        affects="model",
        ge=0,
        lt=2**32,
    )
    pretrained_path: Path | None = option(
        None,
        "folder of model_hmm<states>.joblib from an earlier segment_motifs, to use instead of "
        "fitting models",
        affects="model",
    )

    @field_validator("n_jobs")
    @classmethod
    def _some_jobs(cls, n_jobs: int) -> int:
        if n_jobs == 0:
            raise ConfigError(
                "--n_jobs=0: expected 1 or more, or -1 for as many as there are cores"
            )
        return n_jobs

    @model_validator(mode="after")
    def _nothing_is_fitted_with_pretrained_models(self) -> Self:
        if self.pretrained_path is not None and self.fit_frac is not None:
            raise ConfigError(
                "--fit_frac chooses what models are fitted to, and with --pretrained_path none is "
                "fitted; pass one of them"
            )
        return self


class PrototypeOptions(StateRangeOptions):
    """Select the motifs that recur in models with different numbers of hidden states.

    Writes prototypes/<recording>/machineAnnotation_hmm<method>_<min>_<max>.csv, one row for each
    frame, one column of 0 and 1 for each prototype;
    prototypes/prototypes_hmm<method>_<min>_<max>.csv, what is known about each; and
    info_hmm<method>_<min>_<max>.npz, distances and clusters.

    Examples
    --------
    betman select_prototypes --max_n_components=12 --fps=25 annotations
    """

    data_path: Path = positional("folder of annotations that segment_motifs wrote")
    min_n_components: int = option(6, "smallest number of hidden states", affects="data", ge=1)
    method: Literal["min", "best"] = option(
        "best",
        "which motif stands for a cluster: that of the model with the fewest states (min), or that "
        "with the highest silhouette (best)",
        affects="data",
    )
    frame_threshold: float = option(
        0.05, "smallest fraction of the frames that a motif must have", affects="data", ge=0, le=1
    )
    bout_threshold: float = option(
        0.5,
        "smallest mean duration of a motif's bouts",
        unit="seconds",
        affects="data",
        ge=0,
        allow_inf_nan=False,
    )
    distance_threshold: float = option(
        0.6,
        "largest Jaccard distance of a motif from its nearest neighbour, from 0 to 1",
        affects="data",
        ge=0,
        le=1,
    )
    fps: float = option(
        30,
        "frame rate of the recordings, for durations",
        unit="frames per second",
        affects="data",
        gt=0,
        allow_inf_nan=False,
    )


class ReduceOptions(TableOptions):
    """Reduce embeddings to few dimensions, for pictures.

    Writes embeddings/<recording>/features_<method>_dimred.csv, one row for each frame; <method> is
    umap<dimensions>d<neighbours> or pca<dimensions>d. UMAP needs pip install 'lisbet[umap]'.

    Examples
    --------
    betman reduce_dimensions --method=pca --num_dims=3 embeddings
    """

    data_path: Path = positional("folder of embeddings that compute_embeddings wrote")
    method: Literal["umap", "pca"] = option(
        "umap",
        "UMAP, which keeps neighbours together, or principal components, which are fast and keep "
        "distances",
        affects="data",
    )
    num_dims: int = option(2, "number of dimensions", affects="data", ge=1)
    num_neighbors: int = option(
        60, "number of neighbours of each frame that UMAP keeps together", affects="data", ge=2
    )
    sample_size: int | None = option(
        None,
        "number of recordings, drawn at random, that are used and written; default: all",
        affects="data",
        ge=1,
    )
    sample_seed: int | None = option(
        None,
        "seed of --sample_size and --fit_frames; default: another one at each start",
        affects="data",
        ge=0,
    )
    fit_frames: int | None = option(
        None,
        "number of frames, drawn at random, that UMAP is fitted to, the others being placed among "
        "them; default: all",
        affects="data",
        ge=2,
    )
    umap_seed: int | None = option(
        None,
        "seed of UMAP, which then uses one core; default: another one at each start",
        affects="data",
        ge=0,
        lt=2**32,
    )

    @model_validator(mode="after")
    def _options_of_umap(self) -> Self:
        if self.method == "pca":
            for name in ("num_neighbors", "fit_frames", "umap_seed"):
                if getattr(self, name) != type(self).model_fields[name].default:
                    raise ConfigError(f"--{name} is for --method=umap, not for pca")
        return self
