"""The options of every command: one class is a command's signature, its help and its checks.

A field's type reads the text of the command line, its constraints refuse what cannot be, and its
description is what ``--help`` prints. Nothing here imports torch.
"""

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, field_validator, model_validator

from lisbet.config import (
    AS_TEXT,
    Config,
    Renames,
    Scale,
    Selection,
    Settings,
    Window,
    Words,
    from_text,
)
from lisbet.errors import ConfigError, unknown
from lisbet.registry import Registry

TASK_NAMES: Registry[Any] = Registry("task", "lisbet.tasks", "TASK")
BACKBONE_NAMES: Registry[Any] = Registry("backbone", "lisbet.models.backbones", "BACKBONE")
READER_NAMES: Registry[Any] = Registry("data format", "lisbet.data.readers", "READER")
BASE = "-base"
"""A backbone's default sizes are its preset <backbone>-base."""
DATASETS = {"SampleData": "lisbet.data.hub.sample_data:fetch"}
"""Datasets by the name that users type, and the function that brings each."""


def option(
    default: Any, description: str, *, group: str = "options", unit: str = "", **constraints: Any
) -> Any:
    """Declare an option of a command."""
    extra: dict[str, Any] = {"group": group, "unit": unit}
    return Field(default, description=description, json_schema_extra=extra, **constraints)


def positional(description: str) -> Any:
    """Declare a word that a command cannot do without, given by its place."""
    return Field(description=description, json_schema_extra={"positional": True})


def _known_format(raw: Any) -> Any:
    return READER_NAMES.require(raw.lower()) if isinstance(raw, str) else raw


def _known_preset(raw: Any) -> Any:
    presets = [f"{name}{BASE}" for name in BACKBONE_NAMES]
    if raw not in presets:
        raise ConfigError(unknown("backbone preset", str(raw), presets))
    return raw


DataFormat = Annotated[str, BeforeValidator(_known_format)]
ScaleText = Annotated[Scale, from_text(Scale), AS_TEXT]
SelectionText = Annotated[Selection, from_text(Selection), AS_TEXT]
SettingsText = Annotated[Settings, from_text(Settings), AS_TEXT]
Preset = Annotated[str, BeforeValidator(_known_preset)]
RenamesText = Annotated[Renames, from_text(Renames), AS_TEXT]


class Options(Config):
    """What every command takes."""

    verbose: int = option(
        0, "say more: -v explains the run, -vv adds details and tracebacks", group="output", ge=0
    )


class DataOptions(Options):
    """How recordings are found and prepared."""

    data_format: DataFormat = option(
        "movement", "format of the tracking files: movement, DLC or SLEAP", group="data"
    )
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
    select_coords: SelectionText | None = option(
        None, "keep these, in this order: 'INDIVIDUALS;AXES;KEYPOINTS', * for all", group="data"
    )
    rename_coords: RenamesText | None = option(
        None, "rename, after selecting: 'old:new,…;*;old:new', * for none", group="data"
    )


class TrainOptions(DataOptions):
    """Train a model on recordings.

    Examples
    --------
    betman train_model -v --run_id=mice --epochs=20 --dev_ratio=0.2 --save_history datasets/mice
    """

    data_path: Path = positional("folder of recordings: every folder in it with a tracking file")

    task_ids: Words = option(
        ("cons", "order", "shift", "warp"), "tasks to train, comma separated", group="tasks"
    )
    window_size: int = option(200, "length of a window", group="tasks", unit="frames", ge=2)
    window_offset: int = option(
        0, "frames of the window that lie after the one it describes", group="tasks", unit="frames"
    )

    backbone_preset: Preset = option(
        "transformer-base", "kind and sizes of the backbone", group="model"
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

    epochs: int = option(10, "number of epochs", group="training", ge=1)
    batch_size: int = option(
        128, "windows of each task in one step, over all devices", group="training", ge=1
    )
    learning_rate: float = option(
        1e-4, "peak learning rate of AdamW", group="training", gt=0, allow_inf_nan=False
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

    run_id: str | None = option(
        None, "name of the model; default: the time of the start, YYYYmmddHHMMSS", group="output"
    )
    output_path: Path = option(Path("."), "folder that holds models/", group="output")
    save_history: bool = option(False, "write training_history.csv", group="output")
    overwrite: bool = option(False, "replace an earlier model of this run_id", group="output")

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

    @field_validator("run_id")
    @classmethod
    def _run_id_is_a_name(cls, run_id: str | None) -> str | None:
        return None if run_id is None else require_name(run_id)

    @model_validator(mode="after")
    def _window_is_possible(self) -> Self:
        self.window  # noqa: B018 - building it is the check
        return self

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


def require_name(name: str) -> str:
    """Return `name` if it can be the name of one folder."""
    plain = name.replace("-", "").replace("_", "").replace(".", "")
    if not plain.isalnum() or name.startswith("."):
        raise ValueError(
            f"{name!r} is not a plain name; use letters, digits, '-', '_' and '.', "
            "and --output_path for the folder"
        )
    return name


class ExportOptions(Options):
    """Export the embedding model: the trained network without its task heads.

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
    batch_size: int = option(128, "windows that pass the network at once", ge=1)


class EmbeddingOptions(InferenceOptions):
    """Compute the embedding of every frame of every recording.

    Writes embeddings/<recording>/features_lisbet_embedding.csv, one row for each frame.

    Examples
    --------
    betman compute_embeddings datasets/mice models/mice-embedder/model_config.yml \
models/mice-embedder/weights/weights_last.pt
    """

    output_path: Path = option(Path("."), "folder that holds embeddings/", group="output")


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

    dataset_id: str = positional("name of the dataset")
    download_path: Path = option(Path("."), "folder that holds datasets/", group="output")

    @field_validator("dataset_id")
    @classmethod
    def _known_dataset(cls, name: str) -> str:
        names = {known.lower(): known for known in DATASETS}
        if name.lower() not in names:
            raise ConfigError(unknown("dataset", name, DATASETS))
        return names[name.lower()]


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
    labels: Path | None = option(
        None, "folder of the recordings, with annotations to colour by (annotations*.nc)"
    )
    seed: int = option(1991, "seed of the layout", ge=0)
    output_path: Path | None = option(
        None, "picture to write; default: embeddings.png in the embeddings' folder", group="output"
    )
