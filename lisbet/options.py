"""The options of every command: one class is a command's signature, its help and its checks.

A field's type reads the text of the command line, its constraints refuse what cannot be, and its
description is what ``--help`` prints. Nothing here imports torch.
"""

import itertools
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BeforeValidator,
    Field,
    InstanceOf,
    PlainSerializer,
    field_validator,
    model_validator,
)

from lisbet import augment
from lisbet.augment import Augmentation
from lisbet.config import (
    AS_TEXT,
    WORDS_AS_TEXT,
    Config,
    Dataset,
    Renames,
    Scale,
    Selection,
    Settings,
    TaskData,
    Window,
    Words,
    from_text,
    require_name,
    split_words,
)
from lisbet.errors import ConfigError, unknown
from lisbet.registry import Registry

TASK_NAMES: Registry[Any] = Registry("task", "lisbet.tasks", "TASK")
BACKBONE_NAMES: Registry[Any] = Registry("backbone", "lisbet.models.backbones", "BACKBONE")
READER_NAMES: Registry[Any] = Registry("data format", "lisbet.data.readers", "READER")
LABEL_READER_NAMES: Registry[Any] = Registry("annotation format", "lisbet.data.labels", "READER")
BASE = "-base"
"""A backbone's default sizes are its preset <backbone>-base."""
PRESETS = [f"{name}{BASE}" for name in BACKBONE_NAMES]
DATASETS = {
    "SampleData": "lisbet.data.hub.sample_data:simulated",
    "CalMS21_Unlabeled": "lisbet.data.hub.calms21:unlabeled",
    "CalMS21_Task1": "lisbet.data.hub.calms21:task1",
    "CalMS21_Task2": "lisbet.data.hub.calms21:task2",
    "CalMS21_Task3": "lisbet.data.hub.calms21:task3",
    "MABe22_MouseTriplets": "lisbet.data.hub.mabe22:triplets",
}
"""Datasets by the name that users type, and the function that brings each."""
PUBLISHED_MODELS = {
    name: f"gchindemi/{name}"
    for name in ("lisbet32x4-calms21U-embedder", "lisbet32x4-calms21UftT1-classifier")
}
"""Models by the name that users type, and their repositories on the Hugging Face hub."""


def option(
    default: Any,
    description: str,
    *,
    group: str = "options",
    unit: str = "",
    bare: str | None = None,
    known: Iterable[str] = (),
    **constraints: Any,
) -> Any:
    """Declare an option of a command.

    `bare` is what it means without a value, and `known` the words that it takes, for the help.
    """
    extra: dict[str, Any] = {"group": group, "unit": unit, "bare": bare, "known": known}
    return Field(default, description=description, json_schema_extra=extra, **constraints)


def positional(description: str, *, known: Iterable[str] = ()) -> Any:
    """Declare a word that a command cannot do without, given by its place."""
    extra: dict[str, Any] = {"positional": True, "known": known}
    return Field(description=description, json_schema_extra=extra)


def _known_format(raw: Any) -> Any:
    return READER_NAMES.require(raw.lower()) if isinstance(raw, str) else raw


def _known_formats(names: Registry[Any]) -> Any:
    def read(raw: Any) -> Any:
        words = split_words(raw)
        if not isinstance(words, tuple):
            return words
        return tuple(names.require(word.lower().replace("-", "_")) for word in words)

    return BeforeValidator(read)


def _known_preset(raw: Any) -> Any:
    if raw not in PRESETS:
        raise ConfigError(unknown("backbone preset", str(raw), PRESETS))
    return raw


DataFormat = Annotated[str, BeforeValidator(_known_format)]
DataFormats = Annotated[tuple[str, ...], _known_formats(READER_NAMES), WORDS_AS_TEXT]
AnnotationFormats = Annotated[tuple[str, ...], _known_formats(LABEL_READER_NAMES), WORDS_AS_TEXT]
AnnotationFormat = Annotated[
    str, BeforeValidator(lambda raw: LABEL_READER_NAMES.require(raw.lower().replace("-", "_")))
]
Paths = Annotated[tuple[Path, ...], BeforeValidator(split_words), WORDS_AS_TEXT]
TaskDataText = Annotated[TaskData, from_text(TaskData), AS_TEXT]
Augmentations = Annotated[
    tuple[InstanceOf[Augmentation], ...],
    BeforeValidator(lambda raw: augment.parse(raw) if isinstance(raw, str) else raw),
    PlainSerializer(augment.as_text, return_type=str),
]
ScaleText = Annotated[Scale, from_text(Scale), AS_TEXT]
SelectionText = Annotated[Selection, from_text(Selection), AS_TEXT]
SettingsText = Annotated[Settings, from_text(Settings), AS_TEXT]
Preset = Annotated[str, BeforeValidator(_known_preset)]
RenamesText = Annotated[Renames, from_text(Renames), AS_TEXT]


class Options(Config):
    """What every command takes."""

    verbose: int = option(
        0,
        "say more: -v explains the run, -vv adds details and tracebacks",
        group="output",
        bare="1",
        ge=0,
    )


class DataOptions(Options):
    """How recordings are found and prepared."""

    data_filter: Words | None = option(
        None, "use only recordings whose id contains one of these words", group="data"
    )
    data_scale: ScaleText | None = option(
        None,
        "size of the video, WIDTHxHEIGHT[xDEPTH], or minmax for the minimum and maximum of each "
        "recording; default: the file's image_size_px where it has one, else minmax",
        group="data",
        unit="pixels",
    )
    outside: Literal["error", "missing"] = option(
        "error",
        "what points outside the stated size of the video are: an error, or missing points",
        group="data",
    )
    select_coords: SelectionText | None = option(
        None, "keep these, in this order: 'INDIVIDUALS;AXES;KEYPOINTS', * for all", group="data"
    )
    rename_coords: RenamesText | None = option(
        None, "rename, after selecting: 'old:new,…;*;old:new', * for none", group="data"
    )
    fps: float | None = option(
        None,
        "frame rate of recordings that do not tell theirs; annotations in seconds need it",
        group="data",
        unit="frames per second",
        gt=0,
        allow_inf_nan=False,
    )
    fps_scaling: float = option(
        1.0,
        "frames of these recordings for each frame that the model sees: 2 for recordings of twice "
        "the frame rate",
        group="data",
        ge=0.01,
        le=100,
    )


class TrainOptions(DataOptions):
    """Train a model on recordings.

    Examples
    --------
    betman train_model -v --run_id=mice --epochs=20 --dev_ratio=0.2 --save_history datasets/mice
    """

    data_path: Paths = positional(
        "folder of recordings: every folder in it with a tracking file; or several, comma separated"
    )
    data_format: DataFormats = option(
        ("movement",),
        "format of the tracking files: one, or one for each data path",
        group="data",
        known=READER_NAMES,
    )
    annot_format: AnnotationFormats = option(
        ("movement",),
        "format of the annotations beside them, for supervised tasks: one, or one for each data "
        "path",
        group="data",
        known=LABEL_READER_NAMES,
    )

    task_ids: Words = option(
        ("cons", "order", "shift", "warp"),
        "tasks to train, comma separated",
        group="tasks",
        known=TASK_NAMES,
    )
    task_data: TaskDataText = option(
        TaskData(),
        "which data paths a task is trained on, numbered from 0: 'multiclass:[0],order:[0,1]'; "
        "default: all",
        group="tasks",
    )
    data_augmentation: Augmentations = option(
        (),
        "changes of training windows, in this order: "
        "'all_perm_id:p=0.5,blk_perm_id:p=0.3:frac=0.2'",
        group="tasks",
        known=augment.AUGMENTATIONS,
    )
    window_size: int = option(200, "length of a window", group="tasks", unit="frames", ge=2)
    window_offset: int = option(
        0,
        "frames of the window that lie after the one it describes",
        group="tasks",
        unit="frames",
        ge=0,
    )

    backbone_preset: Preset = option(
        "transformer-base", "kind and sizes of the backbone", group="model", known=PRESETS
    )
    emb_dim: int | None = option(None, "size of the embedding (preset: 32)", group="model", ge=1)
    num_layers: int | None = option(None, "number of layers", group="model", ge=1)
    num_heads: int | None = option(
        None, "attention heads of a transformer; must divide emb_dim", group="model", ge=1
    )
    hidden_dim: int | None = option(None, "size of the hidden layers", group="model", ge=1)
    head_type: Literal["mlp", "linear"] = option("mlp", "kind of the task heads", group="model")

    set: SettingsText = option(
        Settings(),
        "settings of backbone and tasks, 'backbone.kernel_size=4,order.negatives=simple'",
        group="model",
    )

    load_backbone_weights: Path | None = option(
        None, "weights whose backbone the new model starts from", group="model"
    )
    freeze_backbone_weights: bool = option(
        False, "train the heads only, and leave the backbone as it is", group="model"
    )

    epochs: int = option(10, "number of epochs", group="training", ge=1)
    batch_size: int = option(
        128, "windows of each task in one step, over all devices", group="training", ge=1
    )
    learning_rate: float = option(
        1e-4, "peak learning rate of AdamW", group="training", gt=0, le=1000
    )
    weight_decay: float = option(
        0.01, "weight decay of AdamW", group="training", ge=0, allow_inf_nan=False
    )
    warmup_epochs: int = option(
        5, "epochs over which the learning rate rises to its peak", group="training", ge=0
    )
    clip_grad_norm: float | None = option(
        None, "largest norm of the gradient; longer ones are shortened", group="training", gt=0
    )
    train_sample: float = option(
        1.0, "share of the training frames that is drawn in one epoch", group="training", gt=0, le=1
    )
    dev_ratio: float | None = option(
        None, "share of the recordings that is held out and scored", group="training", gt=0, le=1
    )
    dev_sample: float = option(
        1.0, "share of the held-out frames that is scored", group="training", gt=0, le=1
    )
    seed: int = option(1991, "seed of weights, samples and split", group="training", ge=0, lt=2**63)

    mixed_precision: Literal["no", "bf16", "fp16", "best"] | None = option(
        None,
        "arithmetic of the network; without a value the best of the device",
        group="training",
        bare="best",
    )

    run_id: str | None = option(
        None, "name of the model; default: the time of the start, YYYYmmddHHMMSS", group="output"
    )
    output_path: Path = option(Path("."), "folder that holds models/", group="output")
    save_history: bool = option(False, "write training_history.csv", group="output")
    save_weights: Literal["last", "all", "best"] = option(
        "last",
        "which weights to keep: the last; also those of every epoch; or also those of the lowest "
        "held-out loss",
        group="output",
    )
    overwrite: bool = option(False, "replace an earlier model of this run_id", group="output")
    dry_run: bool = option(
        False, "read and check everything, say what would be done, write nothing", group="output"
    )
    config: Path | None = option(
        None,
        "file of options, such as the run_config.yml of an earlier run; the command line wins",
        group="output",
    )

    @field_validator("task_ids")
    @classmethod
    def _known_tasks(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(names)) < len(names):
            raise ValueError(f"{','.join(names)!r} names a task twice")
        return tuple(TASK_NAMES.require(name) for name in names)

    @model_validator(mode="after")
    def _settings_belong_to_something(self) -> Self:
        for owner in self.set.by_owner():
            if owner != "backbone" and owner not in self.task_ids:
                raise ConfigError(unknown("part", owner, ("backbone", *self.task_ids)))
        return self

    @model_validator(mode="after")
    def _datasets_and_tasks_match(self) -> Self:
        places = [dataset.path.resolve() for dataset in self.datasets]
        for one, other in itertools.permutations(range(len(places)), 2):
            if places[one].is_relative_to(places[other]):
                raise ConfigError(
                    f"the data paths {self.data_path[one]} and {self.data_path[other]} overlap; "
                    "a recording would count twice"
                )
        for task, numbers in self.task_data.datasets.items():
            if task not in self.task_ids:
                raise ConfigError(f"--task_data: {unknown('task', task, self.task_ids)}")
            if missing := [n for n in numbers if n >= len(self.data_path)]:
                raise ConfigError(
                    f"--task_data: {task} names dataset {missing[0]}, but there are only "
                    f"{len(self.data_path)}, numbered 0 to {len(self.data_path) - 1}"
                )
        if self.save_weights == "best" and self.dev_ratio is None:
            raise ConfigError("--save_weights=best needs held-out recordings; pass --dev_ratio")
        return self

    @field_validator("run_id")
    @classmethod
    def _run_id_is_a_name(cls, run_id: str | None) -> str | None:
        return None if run_id is None else require_name(run_id)

    @model_validator(mode="after")
    def _window_is_possible(self) -> Self:
        slowest = 0.5 if "warp" in self.task_ids else 1.0
        if round(slowest * self.fps_scaling * self.window.size) < 2:
            raise ConfigError(
                f"--fps_scaling={self.fps_scaling:g} leaves less than two frames of a recording "
                f"for a window of {self.window_size}; use larger values"
            )
        return self

    @property
    def datasets(self) -> tuple[Dataset, ...]:
        """The folders of recordings, with the formats of their files."""
        count = len(self.data_path)
        formats = _for_each("data_format", self.data_format, count)
        annotations = _for_each("annot_format", self.annot_format, count)
        return tuple(
            Dataset(path=path, format=own, annotations=labels)
            for path, own, labels in zip(self.data_path, formats, annotations, strict=True)
        )

    def datasets_of(self, task: str) -> tuple[int, ...]:
        """Return the numbers of the datasets that a task is trained on."""
        return self.task_data.datasets.get(task, tuple(range(len(self.data_path))))

    @property
    def window(self) -> Window:
        """The window of every sample."""
        return Window(size=self.window_size, offset=self.window_offset)

    @property
    def backbone(self) -> str:
        """Name of the backbone."""
        return self.backbone_preset.removesuffix(BASE)

    @property
    def backbone_settings(self) -> dict[str, Any]:
        """What the user changes in the preset, by the names of the backbone's configuration."""
        short = {
            "embedding_dim": self.emb_dim,
            "num_layers": self.num_layers,
            "num_heads": self.num_heads,
            "hidden_dim": self.hidden_dim,
        }
        given = {name: value for name, value in short.items() if value is not None}
        return given | self.set.by_owner().get("backbone", {})


def _for_each(name: str, given: tuple[str, ...], count: int) -> tuple[str, ...]:
    """Repeat a single value for each data path."""
    if len(given) not in (1, count):
        raise ConfigError(f"--{name} has {len(given)} values for {count} data paths")
    return given * count if len(given) == 1 else given


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

    data_path: Path = positional("folder of recordings: every folder in it with a tracking file")
    model_path: Path = positional("the model's model_config.yml")
    weights_path: Path = positional("its weights, such as weights/weights_last.pt")
    data_format: DataFormat = option(
        "movement", "format of the tracking files", group="data", known=READER_NAMES
    )
    batch_size: int = option(128, "windows that pass the network at once", ge=1)

    @property
    def dataset(self) -> Dataset:
        """The folder of recordings, with the format of its files."""
        return Dataset(path=self.data_path, format=self.data_format)


class EmbeddingOptions(InferenceOptions):
    """Compute the embedding of every frame of every recording.

    Writes embeddings/<recording>/features_lisbet_embedding.csv, one row for each frame.

    Examples
    --------
    betman compute_embeddings datasets/mice models/mice-embedder/model_config.yml \
models/mice-embedder/weights/weights_last.pt
    """

    output_path: Path = option(Path("."), "folder that holds embeddings/", group="output")


class AnnotateOptions(InferenceOptions):
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
    ignore_index: int | None = option(
        None,
        "number of a class, from 0, that does not count: for multiclass its frames are left out, "
        "for multilabel its column",
        ge=0,
    )
    output_path: Path = option(Path("."), "folder that holds evaluations/", group="output")

    @property
    def dataset(self) -> Dataset:
        """The folder of recordings, with the formats of its files."""
        return Dataset(path=self.data_path, format=self.data_format, annotations=self.annot_format)


class InfoOptions(Options):
    """Describe a model: its window, features, network and size.

    Examples
    --------
    betman model_info models/mice/model_config.yml
    """

    model_path: Path = positional("the model's model_config.yml")


class FetchOptions(Options):
    """Bring a dataset into the datasets folder.

    Examples
    --------
    betman fetch_dataset SampleData
    """

    dataset_id: str = positional("name of the dataset", known=DATASETS)
    download_path: Path = option(Path("."), "folder that holds datasets/", group="output")
    source: str | None = option(
        None,
        "where the dataset's files lie, if not with their authors: a file or folder that was "
        "copied here, or an address; LISBET_MIRROR in the environment sets one for all",
    )

    @field_validator("dataset_id")
    @classmethod
    def _known_dataset(cls, name: str) -> str:
        names = {known.lower(): known for known in DATASETS}
        if name.lower() not in names:
            raise ConfigError(unknown("dataset", name, DATASETS))
        return names[name.lower()]


class FetchModelOptions(Options):
    """Bring a published model into the models folder.

    Examples
    --------
    betman fetch_model lisbet32x4-calms21U-embedder
    """

    model_id: str = positional(
        "name of a published model, or ORGANISATION/NAME on the Hugging Face hub",
        known=PUBLISHED_MODELS,
    )
    revision: str | None = option(None, "tag, branch or commit of the model; default: the newest")
    source: Path | None = option(
        None,
        "folder of the model that was copied here; HF_ENDPOINT in the environment sets a mirror",
    )
    output_path: Path = option(Path("."), "folder that holds models/", group="output")
    overwrite: bool = option(False, "replace an earlier model of this name", group="output")

    @field_validator("model_id")
    @classmethod
    def _known_or_with_an_organisation(cls, name: str) -> str:
        if name not in PUBLISHED_MODELS and name.count("/") != 1:
            raise ConfigError(
                f"{unknown('published model', name, PUBLISHED_MODELS)}; others are named "
                "ORGANISATION/NAME"
            )
        return name


class PlotHistoryOptions(Options):
    """Draw the losses and scores of a run over its epochs.

    Examples
    --------
    betman plot_history models/mice
    """

    run_path: Path = positional("folder of the run, with its training_history.csv")
    output_path: Path | None = option(
        None, "picture to write; default: training_history.png in the run's folder", group="output"
    )


class PlotEmbeddingsOptions(Options):
    """Draw embeddings in two dimensions, coloured by behaviour or by recording.

    Examples
    --------
    betman plot_embeddings --labels=datasets/SampleData embeddings
    """

    embeddings_path: Path = positional("folder that compute_embeddings wrote")
    labels: Path | None = option(None, "folder of the recordings, with annotations to colour by")
    data_format: DataFormat = option(
        "movement", "format of their tracking files", known=READER_NAMES
    )
    fps: float | None = option(
        None, "frame rate of recordings that do not tell theirs", unit="frames per second", gt=0
    )
    annot_format: AnnotationFormat = option(
        "movement", "format of the annotations", known=LABEL_READER_NAMES
    )
    seed: int = option(1991, "seed of the layout", ge=0)
    output_path: Path | None = option(
        None, "picture to write; default: embeddings.png in the embeddings' folder", group="output"
    )
