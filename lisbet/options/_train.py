"""The options of training."""

import itertools
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import (
    field_validator,
    model_validator,
)

from lisbet import augment
from lisbet.core.config import (
    Dataset,
    Interval,
    Settings,
    TaskData,
    Window,
    Words,
    require_name,
)
from lisbet.core.errors import ConfigError, unknown
from lisbet.options._base import (
    BASE,
    LABEL_READER_NAMES,
    PRESETS,
    READER_NAMES,
    TASK_NAMES,
    AnnotationFormats,
    Augmentations,
    DataFormats,
    DataOptions,
    DataPaths,
    HoursText,
    IntervalText,
    LaunchOptions,
    Preset,
    SettingsText,
    SizeText,
    TaskDataText,
    option,
    positional,
)
from lisbet.options._split import SplitOptions


class TrainingOptions(SplitOptions, DataOptions):
    """What is trained on what, and how; not where."""

    data_path: DataPaths = positional(
        "folder of recordings: every folder in it with a tracking file; or several, comma separated"
    )
    data_format: DataFormats = option(
        ("auto",),
        "format of the tracking files: one, or one for each data path; auto: found by looking into "
        "them",
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

    bank_memory: SizeText | None = option(
        None,
        "memory for recordings, such as 8GB: if they take more, they are brought in turn, in that "
        "much for each process; all: never; default: if they take over half of what is free, 2GB "
        "or that half, whichever is less; a resumed run keeps what it began with",
        group="data",
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
    micro_batch_size: int | None = option(
        None,
        "windows of each task that one device takes at a time; default: as many as fit in half of "
        "its free memory",
        group="training",
        ge=1,
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
        None,
        "largest norm of the gradient; longer ones are shortened",
        group="training",
        gt=0,
        allow_inf_nan=False,
    )
    train_sample: float = option(
        1.0, "share of the training frames that is drawn in one epoch", group="training", gt=0, le=1
    )
    seed: int = option(1991, "seed of weights, samples and split", group="training", ge=0, lt=2**63)

    mixed_precision: Literal["no", "bf16", "fp16", "best"] | None = option(
        None,
        "arithmetic of the network; without a value the best of the device",
        group="training",
        bare="best",
    )
    tf32: bool = option(
        False,
        "let NVIDIA GPUs round float32 matrix products to TF32: faster, about three digits",
        group="training",
    )
    compile: bool = option(
        False,
        "compile the network with torch.compile: faster steps on a GPU, after a first one that "
        "takes up to a minute",
        group="training",
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
    resume: bool = option(
        False,
        "go on from the newest checkpoint of --run_id; start where there is none yet",
        group="interruptions",
    )
    checkpoint_every: IntervalText = option(
        Interval(count=1, unit="ep"),
        "how often everything is saved: 1ep, 500steps or 10min",
        group="interruptions",
    )
    keep_checkpoints: int = option(
        2, "how many checkpoints to keep, the newest", group="interruptions", ge=1
    )
    max_time: HoursText | None = option(
        None,
        "save and stop after this time, HH:MM, before a queue does it",
        group="interruptions",
    )
    on_save_error: Literal["stop", "continue"] = option(
        "stop", "what a checkpoint that cannot be written is", group="interruptions"
    )
    skip_nonfinite: int = option(
        0,
        "steps that may be left out because a loss or gradient is infinite or no number",
        group="interruptions",
        ge=0,
    )
    debug_step: int | None = option(
        None,
        "repeat this step of --run_id from a checkpoint before it, print each sample, write "
        "nothing",
        group="interruptions",
        ge=0,
    )
    hash_samples: bool = option(
        False,
        "write sample_hashes.csv: what was drawn in each step, to compare runs",
        group="output",
    )
    log_every: int = option(
        50,
        "steps between two lines of events.jsonl, and of W&B and TensorBoard",
        group="tracking",
        ge=1,
    )
    embedding_every: int | None = option(
        None,
        "epochs between two pictures of the embeddings, and of the confusion of supervised tasks; "
        "0 for none; default: 10 with --wandb or --tensorboard, else none",
        group="tracking",
        ge=0,
    )
    tensorboard: bool = option(False, "write what TensorBoard shows", group="tracking")
    wandb: bool = option(False, "track the run with Weights & Biases", group="tracking")
    wandb_project: str | None = option(
        None, "its project (default: WANDB_PROJECT, or lisbet)", group="tracking"
    )
    wandb_entity: str | None = option(
        None, "its team or user (default: WANDB_ENTITY)", group="tracking"
    )
    wandb_group: str | None = option(
        None, "group of runs (default: WANDB_RUN_GROUP)", group="tracking"
    )
    wandb_tags: Words | None = option(None, "tags, comma separated", group="tracking")
    wandb_notes: str | None = option(None, "notes on the run", group="tracking")
    wandb_mode: Literal["online", "offline"] | None = option(
        None,
        "whether to send at once, or to write files for wandb sync; default: WANDB_MODE, or online "
        "where there are a login and a network",
        group="tracking",
    )
    wandb_artifact: bool = option(
        False, "upload the model directory at the end, as an artifact", group="tracking"
    )
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
        return self

    @model_validator(mode="after")
    def _best_weights_can_be_found(self) -> Self:
        if self.save_weights == "best" and not self.holds_out:
            raise ConfigError(
                "--save_weights=best needs held-out recordings; pass --dev_ratio or "
                "--dev_recordings"
            )
        return self

    @model_validator(mode="after")
    def _can_go_on(self) -> Self:
        for name, given in (("resume", self.resume), ("debug_step", self.debug_step is not None)):
            if given and self.run_id is None:
                raise ConfigError(f"--{name} needs --run_id, to know which run is meant")
        if self.resume and self.overwrite:
            raise ConfigError("--resume keeps what --overwrite replaces; pass one of them")
        return self

    @model_validator(mode="after")
    def _wandb_is_meant(self) -> Self:
        for name in type(self).model_fields:
            if name.startswith("wandb_") and getattr(self, name) and not self.wandb:
                raise ConfigError(f"--{name} needs --wandb")
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
    def picture_every(self) -> int:
        """Epochs between two pictures, 0 for none."""
        default = 10 if self.wandb or self.tensorboard else 0
        return default if self.embedding_every is None else self.embedding_every

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


class TrainOptions(TrainingOptions, LaunchOptions):
    """Train a model on recordings.

    Examples
    --------
    betman train_model -v --run_id=mice --epochs=20 --dev_ratio=0.2 --save_history datasets/mice
    """


def _for_each(name: str, given: tuple[str, ...], count: int) -> tuple[str, ...]:
    """Repeat a single value for each data path."""
    if len(given) not in (1, count):
        raise ConfigError(f"--{name} has {len(given)} values for {count} data paths")
    return given * count if len(given) == 1 else given
