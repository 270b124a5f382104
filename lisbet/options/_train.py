"""The options of training."""

import itertools
from typing import Literal, Self

from pydantic import model_validator

from lisbet.core.config import Dataset
from lisbet.core.errors import ConfigError, unknown
from lisbet.core.json_types import JsonDict
from lisbet.core.option_values import TaskData
from lisbet.options._base import (
    LABEL_READER_NAMES,
    READER_NAMES,
    AnnotationFormats,
    DataFormats,
    DataPaths,
    LaunchOptions,
    SizeText,
    TaskDataText,
    option,
    positional,
)
from lisbet.options._model import ModelOptions, OptimizationOptions
from lisbet.options._outputs import CheckpointOptions, TrackingOptions
from lisbet.options._recordings import DataOptions
from lisbet.options._split import SplitOptions

PUBLISHED, SOCIAL = "published", "social"
VALUES: dict[str, JsonDict] = {
    PUBLISHED: {},
    SOCIAL: {
        "task_ids": "kinematics",
        "data_augmentation": "all_perm_id:p=0.5,reflection:p=0.5,rotation:mode=none,"
        "translation:mode=none",
        "window_size": "60",
        "emb_dim": "64",
        "num_layers": "2",
        "num_heads": "4",
        "hidden_dim": "128",
        "condition_input": "true",
        "batch_size": "32",
        "learning_rate": "2e-3",
        "schedule": "cosine",
        "warmup_share": "0.03",
        "clip_grad_norm": "1",
        "embedding_noise": "0.5",
    },
}
"""By name, as they would be typed. `published` are the defaults."""
OF_TRANSFORMER = ("num_heads", "num_layers", "hidden_dim", "condition_input")
"""Not used where another backbone is asked for."""


class TrainingOptions(
    TrackingOptions, CheckpointOptions, OptimizationOptions, SplitOptions, ModelOptions, DataOptions
):
    """What is trained, on which recordings, and how; not on which devices."""

    data_path: DataPaths = positional(
        "folder of recordings, in which every folder with a tracking file is one; or several, "
        "comma separated",
        affects="files",
    )
    data_format: DataFormats = option(
        ("auto",),
        "format of the tracking files: one, or one per data path; auto: detected from the files",
        affects="files",
        group="data",
        known=READER_NAMES,
    )
    annot_format: AnnotationFormats = option(
        ("movement",),
        "format of the annotations next to the tracking files, for supervised tasks: one, or one "
        "per data path",
        affects="model",
        group="data",
        known=LABEL_READER_NAMES,
    )
    bank_memory: SizeText | None = option(
        None,
        "maximum memory per process for recordings, such as 8GB; larger datasets are read in "
        "parts. all: keep everything in memory. default: everything if it takes at most half of "
        "the free memory, else 2GB or that half, whichever is less. A resumed run keeps its value",
        affects="model",
        group="data",
    )
    preset: Literal["published", "social"] = option(
        PUBLISHED,
        "values of options that are used together; options that are given take precedence: "
        "published (the defaults, as the published tool trains), or social (embeddings of social "
        "behaviour, see docs/embeddings.md)",
        affects="model",
        group="tasks",
    )
    task_data: TaskDataText = option(
        TaskData(),
        "data paths on which each task is trained, numbered from 0: "
        "'multiclass:[0],order:[0,1]'; default: all",
        affects="model",
        group="tasks",
    )

    @model_validator(mode="before")
    @classmethod
    def _filled_in(cls, given: JsonDict) -> JsonDict:
        return with_preset(given)

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
    def _window_covers_two_frames(self) -> Self:
        self.window.require_two_frames(self.fps_scaling)
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


def with_preset(given: JsonDict) -> JsonDict:
    """Fill in the values of the preset where no others are given.

    The window of a preset is centred on the frame that it describes, whatever its size.
    """
    preset = VALUES.get(str(given.get("preset", PUBLISHED)), {})
    if not preset:
        return given
    values = dict(preset)
    if "warmup_epochs" in given:
        values.pop("warmup_share")
    if not str(given.get("backbone_preset", "transformer")).startswith("transformer"):
        values = {name: value for name, value in values.items() if name not in OF_TRANSFORMER}
    size = str(given.get("window_size", values["window_size"]))
    if size.isdecimal():
        values["window_offset"] = str(max(int(size) // 2 - 1, 0))
    return values | given
