"""The options of what is done with a trained model."""

from pathlib import Path
from typing import Any, Literal

from lisbet.core.config import DataPath, Dataset
from lisbet.options._base import (
    LABEL_READER_NAMES,
    READER_NAMES,
    AnnotationFormat,
    DataFormat,
    LaunchOptions,
    Options,
    option,
    positional,
)
from lisbet.options._recordings import DataOptions
from lisbet.options.commands.pictures import FORMAT_HELP, PictureFormat


def named_model() -> Any:
    """Declare the model that a command takes."""
    return positional("the model: its folder, its model_config.yml, or ORG/NAME on the hub")


def named_weights() -> Any:
    """Declare its weights, which may be left out."""
    return positional(
        "its weights, a .pt or .safetensors file; default: weights/weights_last.pt in its folder",
        default=Path("weights/weights_last.pt"),
    )


class ExportOptions(Options):
    """Export the embedding model: the network without its task heads.

    Examples
    --------
    betman export_embedder models/mice
    betman export_embedder models/mice/model_config.yml models/mice/weights/weights_epoch9.pt
    """

    model_path: Path = named_model()
    weights_path: Path = named_weights()
    output_path: Path = option(
        Path("."), "folder that contains models/", affects="nothing", group="output"
    )
    overwrite: bool = option(False, "replace an earlier export", affects="nothing", group="output")


class InferenceOptions(DataOptions):
    """What applying a model to recordings takes."""

    data_path: DataPath = positional(
        "folder of recordings: every folder in it with a tracking file"
    )
    model_path: Path = named_model()
    weights_path: Path = named_weights()
    data_format: DataFormat = option(
        "auto",
        "format of the tracking files; auto: detected from the files",
        affects="files",
        group="data",
        known=READER_NAMES,
    )
    batch_size: int = option(128, "number of windows in one forward pass", affects="nothing", ge=1)
    mixed_precision: Literal["no", "bf16"] = option(
        "no",
        "compute in float32, or matrix products and attention in bfloat16, which changes results "
        "in the third digit",
        affects="nothing",
    )
    override_preparation: bool = option(
        False,
        "let --data_scale and other options given here replace the values that the model was "
        "trained with, instead of raising an error",
        affects="nothing",
        group="data",
    )

    @property
    def uses_bf16(self) -> bool:
        """Whether matrix products and attention are computed in bfloat16."""
        return self.mixed_precision == "bf16"

    @property
    def dataset(self) -> Dataset:
        """The folder of recordings, with the format of its files."""
        return Dataset(path=self.data_path, format=self.data_format)


def decision_threshold() -> Any:
    """Declare the probability above which a behaviour is seen."""
    return option(
        None,
        "probability (0-1) above which a behaviour is seen, for a model of several behaviours at a "
        "time (multilabel); default: 0.5",
        affects="nothing",
        gt=0,
        lt=1,
    )


TableFormat = Literal["csv", "parquet", "npz", "zarr"]


def table_format() -> Any:
    """Declare the format of tables."""
    return option(
        "csv",
        "format of the tables: csv; or, with the times of the frames, parquet (pip install "
        "lisbet[parquet]), npz (NumPy), or zarr (xarray, a .zarr.zip file)",
        affects="nothing",
        group="output",
    )


class EmbeddingOptions(InferenceOptions, LaunchOptions):
    """Compute the embedding of every frame of every recording.

    Writes embeddings/<recording>/features_lisbet_embedding.csv, one row for each frame; or another
    --format, which holds the times of the frames, too.

    Examples
    --------
    betman compute_embeddings datasets/mice models/mice-embedder
    betman compute_embeddings --format=parquet datasets/mice models/mice-embedder
    """

    format: TableFormat = table_format()
    output_path: Path = option(
        Path("."), "folder that contains embeddings/", affects="nothing", group="output"
    )
    overwrite: bool = option(
        False, "replace results that betman wrote before", affects="nothing", group="output"
    )


class AnnotateOptions(InferenceOptions, LaunchOptions):
    """Annotate the behaviour in every frame of every recording.

    Writes annotations/<recording>/machineAnnotation_lisbet.csv, one row for each frame, one column
    of 0 and 1 for each class; and more files on request.

    Examples
    --------
    betman annotate_behavior datasets/mice models/mice
    betman annotate_behavior --probabilities --bouts --fps=30 datasets/mice models/mice
    """

    task: str | None = option(
        None, "supervised head to use, for a model that has several", affects="nothing"
    )
    threshold: float | None = decision_threshold()
    format: TableFormat = table_format()
    probabilities: bool = option(
        False,
        "write machineAnnotation_lisbet_probabilities, too: the probability of each class",
        affects="nothing",
        group="output",
    )
    bouts: bool = option(
        False,
        "write bouts.csv, too: behaviour, start, end and duration in seconds of each bout",
        affects="nothing",
        group="output",
    )
    boris: bool = option(
        False,
        "write boris_events.csv, too: the bouts as BORIS exports and imports them",
        affects="nothing",
        group="output",
    )
    output_path: Path = option(
        Path("."), "folder that contains annotations/", affects="nothing", group="output"
    )
    overwrite: bool = option(
        False, "replace results that betman wrote before", affects="nothing", group="output"
    )


class LabelledOptions(InferenceOptions):
    """What comparing a model with annotations takes."""

    annot_format: AnnotationFormat = option(
        "movement",
        "format of the annotations",
        affects="data",
        group="data",
        known=LABEL_READER_NAMES,
    )

    @property
    def dataset(self) -> Dataset:
        """The folder of recordings, with the formats of its files."""
        return Dataset(path=self.data_path, format=self.data_format, annotations=self.annot_format)


class EvaluateOptions(LabelledOptions):
    """Compare a model with annotations.

    Writes evaluations/<model_id>/: evaluation_report.yml, confusion_matrix.csv and .png.

    Examples
    --------
    betman evaluate_model --annot_format=boris datasets/test models/mice
    """

    task: str | None = option(
        None, "supervised head to evaluate, for a model that has several", affects="nothing"
    )
    threshold: float | None = decision_threshold()
    split: Literal["all", "train", "dev"] = option(
        "all",
        "which recordings to score: all; those that the model was trained on (train); or those "
        "that were held out (dev), according to the run_config.yml next to the model",
        affects="nothing",
        group="data",
    )
    ignore_index: int | None = option(
        None,
        "number of a class, from 0, to ignore: for multiclass its frames are not scored, for "
        "multilabel its column is not",
        affects="nothing",
        ge=0,
    )
    output_path: Path = option(
        Path("."), "folder that contains evaluations/", affects="nothing", group="output"
    )
    format: PictureFormat = option("png", FORMAT_HELP, affects="nothing", group="output")
    overwrite: bool = option(
        False, "replace results that betman wrote before", affects="nothing", group="output"
    )


class ProbeOptions(LabelledOptions):
    """Measure how much of the annotated behaviour can be read off the embedding of a model.

    A linear classifier is fitted to the embeddings of some recordings and scored on the others, and
    so are features made by hand. Writes probes/<model_id>/: probe_report.yml, probe_scores.csv and
    .png.

    Examples
    --------
    betman probe --annot_format=boris datasets/mice models/mice
    """

    folds: int = option(
        5,
        "number of parts that the recordings are divided into; each is scored by a classifier that "
        "is fitted to the others. Of fewer recordings, each is a part",
        affects="nothing",
        ge=2,
    )
    seeds: int = option(
        1, "how often recordings are divided into folds anew", affects="nothing", ge=1
    )
    seed: int = option(
        1991, "seed of the folds and of the untrained network", affects="nothing", ge=0
    )
    max_frames: int = option(
        20_000,
        "number of frames, evenly spread over all recordings, that are used for fitting and "
        "scoring",
        affects="nothing",
        ge=100,
    )
    front: str | None = option(
        None,
        "keypoint at the front of an animal, for the headings among the features made by hand; "
        "default: guessed from the names",
        affects="nothing",
    )
    back: str | None = option(None, "keypoint at the back of an animal", affects="nothing")
    output_path: Path = option(
        Path("."), "folder that contains probes/", affects="nothing", group="output"
    )
    format: PictureFormat = option("png", FORMAT_HELP, affects="nothing", group="output")
    overwrite: bool = option(
        False, "replace results that betman wrote before", affects="nothing", group="output"
    )


class ConsolidateOptions(Options):
    """Make weights/weights_last.pt of a checkpoint, whatever number of processes wrote it.

    Needs neither a GPU nor the processes that trained the model.

    Examples
    --------
    betman consolidate_checkpoint models/mice
    """

    model_path: Path = positional("the model's folder, models/RUN")
    checkpoint: Path | None = option(
        None,
        "checkpoint to read: a folder, or a name in checkpoints/; default: the newest",
        affects="nothing",
    )
    overwrite: bool = option(
        False, "replace weights that betman wrote before", affects="nothing", group="output"
    )


class VerifyOptions(Options):
    """Check the checkpoints of a run, file by file, and say which one --resume uses.

    Examples
    --------
    betman verify_checkpoint models/mice
    """

    model_path: Path = positional("the model's folder, models/RUN")


class LaunchConfigsOptions(Options):
    """List the launch configurations: what there is, for how many devices, and when to use which.

    Examples
    --------
    betman launch_configs
    """


class InfoOptions(Options):
    """Describe a model: its window, features, network and size.

    Examples
    --------
    betman model_info models/mice
    """

    model_path: Path = named_model()
