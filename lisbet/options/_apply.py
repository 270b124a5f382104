"""The options of what is done with a trained model."""

from pathlib import Path
from typing import Literal

from lisbet.core.config import DataPath, Dataset
from lisbet.options._base import (
    LABEL_READER_NAMES,
    READER_NAMES,
    AnnotationFormat,
    DataFormat,
    DataOptions,
    LaunchOptions,
    Options,
    option,
    positional,
)


class ExportOptions(Options):
    """Export the embedding model: the network without its task heads.

    Examples
    --------
    betman export_embedder models/mice/model_config.yml models/mice/weights/weights_last.pt
    """

    model_path: Path = positional("the model's model_config.yml")
    weights_path: Path = positional("its weights, such as weights/weights_last.pt")
    output_path: Path = option(Path("."), "folder that holds models/", group="output")
    overwrite: bool = option(False, "replace an earlier export", group="output")


class InferenceOptions(DataOptions):
    """What applying a model to recordings takes."""

    data_path: DataPath = positional(
        "folder of recordings: every folder in it with a tracking file"
    )
    model_path: Path = positional("the model's model_config.yml")
    weights_path: Path = positional("its weights, such as weights/weights_last.pt")
    data_format: DataFormat = option(
        "auto",
        "format of the tracking files; auto: found by looking into them",
        group="data",
        known=READER_NAMES,
    )
    batch_size: int = option(128, "windows that pass the network at once", ge=1)
    override_preparation: bool = option(
        False,
        "let --data_scale and the other options given here replace those that the model was "
        "trained with, instead of refusing them",
        group="data",
    )

    @property
    def dataset(self) -> Dataset:
        """The folder of recordings, with the format of its files."""
        return Dataset(path=self.data_path, format=self.data_format)


class EmbeddingOptions(InferenceOptions, LaunchOptions):
    """Compute the embedding of every frame of every recording.

    Writes embeddings/<recording>/features_lisbet_embedding.csv, one row for each frame.

    Examples
    --------
    betman compute_embeddings datasets/mice models/mice-embedder/model_config.yml \
models/mice-embedder/weights/weights_last.pt
    """

    output_path: Path = option(Path("."), "folder that holds embeddings/", group="output")
    overwrite: bool = option(False, "replace results that betman wrote before", group="output")


class AnnotateOptions(InferenceOptions, LaunchOptions):
    """Annotate the behaviour in every frame of every recording.

    Writes annotations/<recording>/machineAnnotation_lisbet.csv, one row for each frame, one column
    of 0 and 1 for each class.

    Examples
    --------
    betman annotate_behavior datasets/mice models/mice/model_config.yml \
models/mice/weights/weights_last.pt
    """

    task: Literal["multiclass", "multilabel"] | None = option(
        None, "head to use, for a model that has both"
    )
    output_path: Path = option(Path("."), "folder that holds annotations/", group="output")
    overwrite: bool = option(False, "replace results that betman wrote before", group="output")


class EvaluateOptions(InferenceOptions):
    """Compare a model with annotations.

    Writes evaluations/<model_id>/: evaluation_report.yml, confusion_matrix.csv and .png.

    Examples
    --------
    betman evaluate_model --annot_format=boris datasets/test models/mice/model_config.yml \
models/mice/weights/weights_last.pt
    """

    annot_format: AnnotationFormat = option(
        "movement", "format of the annotations", group="data", known=LABEL_READER_NAMES
    )
    task: Literal["multiclass", "multilabel"] | None = option(
        None, "head to evaluate, for a model that has both"
    )
    split: Literal["all", "train", "dev"] = option(
        "all",
        "score all recordings, or those that the model was trained on (train) or that were held "
        "out (dev), as the run_config.yml beside the model says",
        group="data",
    )
    ignore_index: int | None = option(
        None,
        "number of a class, from 0, that does not count: for multiclass its frames are left out, "
        "for multilabel its column",
        ge=0,
    )
    output_path: Path = option(Path("."), "folder that holds evaluations/", group="output")
    overwrite: bool = option(False, "replace results that betman wrote before", group="output")

    @property
    def dataset(self) -> Dataset:
        """The folder of recordings, with the formats of its files."""
        return Dataset(path=self.data_path, format=self.data_format, annotations=self.annot_format)


class ConsolidateOptions(Options):
    """Make weights/weights_last.pt of a checkpoint, whatever number of processes wrote it.

    Needs neither a GPU nor the processes that trained the model.

    Examples
    --------
    betman consolidate_checkpoint models/mice
    """

    model_path: Path = positional("the model's folder, models/RUN")
    checkpoint: Path | None = option(
        None, "the checkpoint: a folder, or the name of one in checkpoints/; default: the newest"
    )
    overwrite: bool = option(False, "replace weights that betman wrote before", group="output")


class VerifyOptions(Options):
    """Check the checkpoints of a run, file by file, and say which one a resume would take.

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
    betman model_info models/mice/model_config.yml
    """

    model_path: Path = positional("the model's model_config.yml")


class PlotEmbeddingsOptions(Options):
    """Draw embeddings in two dimensions, coloured by behaviour or by recording.

    Examples
    --------
    betman plot_embeddings --labels=datasets/SampleData embeddings
    """

    embeddings_path: Path = positional("folder that compute_embeddings wrote")
    labels: Path | None = option(None, "folder of the recordings, with annotations to colour by")
    data_format: DataFormat = option(
        "auto",
        "format of their tracking files; auto: found by looking into them",
        known=READER_NAMES,
    )
    fps: float | None = option(
        None,
        "frame rate of recordings that do not tell theirs",
        unit="frames per second",
        gt=0,
        allow_inf_nan=False,
    )
    annot_format: AnnotationFormat = option(
        "movement", "format of the annotations", known=LABEL_READER_NAMES
    )
    subject: str | None = option(
        None, "use only the events of this subject; default: all", min_length=1
    )
    event_slack: int = option(
        1, "an event may end so long after the last frame", unit="frames", ge=0
    )
    seed: int = option(1991, "seed of the layout", ge=0)
    output_path: Path | None = option(
        None, "picture to write; default: embeddings.png in the embeddings' folder", group="output"
    )
    overwrite: bool = option(False, "replace results that betman wrote before", group="output")
