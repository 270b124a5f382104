"""How an option is declared, the types that read its text, and what many commands take."""

import glob
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import (
    BeforeValidator,
    Field,
    InstanceOf,
    PlainSerializer,
    ValidationInfo,
    field_validator,
    model_validator,
)

from lisbet import augment
from lisbet.augment import Augmentation
from lisbet.core.config import (
    AS_TEXT,
    WORDS_AS_TEXT,
    Config,
    DataPath,
    Hours,
    Interval,
    Renames,
    Scale,
    Selection,
    Settings,
    Size,
    TaskData,
    Words,
    from_text,
)
from lisbet.core.errors import ConfigError, unknown
from lisbet.core.option_text import join_paths, split_paths, split_words
from lisbet.core.registry import Registry

TASK_NAMES: Registry[Any] = Registry("task", "lisbet.tasks", "TASK")
BACKBONE_NAMES: Registry[Any] = Registry("backbone", "lisbet.models.backbones", "BACKBONE")
READER_NAMES: Registry[Any] = Registry("data format", "lisbet.data.readers", "READER")
LABEL_READER_NAMES: Registry[Any] = Registry("annotation format", "lisbet.data.labels", "READER")
BASE = "-base"
"""A backbone's default sizes are its preset <backbone>-base."""
PRESETS = [f"{name}{BASE}" for name in BACKBONE_NAMES]


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


def positional(
    description: str, *, known: Iterable[str] = (), default: Any = ..., many: bool = False
) -> Any:
    """Declare a word that is given by its place; one cannot do without it if it has no default.

    `many` lets the last one take all words that are left.
    """
    extra: dict[str, Any] = {"positional": True, "known": known, "many": many}
    return Field(default, description=description, json_schema_extra=extra)


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
PATHS_AS_TEXT = PlainSerializer(join_paths, return_type=str)
Paths = Annotated[tuple[Path, ...], BeforeValidator(split_paths), PATHS_AS_TEXT]
DataPaths = Annotated[tuple[DataPath, ...], BeforeValidator(split_paths), PATHS_AS_TEXT]
TaskDataText = Annotated[TaskData, from_text(TaskData), AS_TEXT]
Augmentations = Annotated[
    tuple[InstanceOf[Augmentation], ...],
    BeforeValidator(lambda raw: augment.parse(raw) if isinstance(raw, str) else raw),
    PlainSerializer(augment.as_text, return_type=str),
]
IntervalText = Annotated[Interval, from_text(Interval), AS_TEXT]
SizeText = Annotated[Size, from_text(Size), AS_TEXT]
HoursText = Annotated[Hours, from_text(Hours), AS_TEXT]
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

    @field_validator("*", mode="before")
    @classmethod
    def _paths_are_paths(cls, raw: Any, info: ValidationInfo) -> Any:
        """Refuse an empty path, which would mean this folder: mostly a variable that is not set."""
        annotation = cls.model_fields[info.field_name or ""].annotation
        if isinstance(raw, str) and Path in (annotation, *get_args(annotation)):
            if not raw:
                raise ValueError("the path is empty; write . for this folder")
            if "\0" in raw:
                raise ValueError("a path cannot hold a NUL character")
        return raw


class LaunchOptions(Options):
    """On which devices and machines a command runs."""

    launch: str | None = option(
        None,
        "start it on several devices: the name of a launch configuration, see betman "
        "launch_configs, or the path of one",
        group="devices",
    )
    num_processes: int | None = option(
        None,
        "processes over all machines; default: one for each visible GPU, or what your own launch "
        "file says",
        group="devices",
        ge=1,
    )
    num_machines: int | None = option(None, "number of machines", group="devices", ge=1)
    machine_rank: int | None = option(None, "number of this machine, from 0", group="devices", ge=0)
    main_process_ip: str | None = option(
        None, "address of machine 0, as the others see it", group="devices"
    )
    main_process_port: int | None = option(
        None, "a port that is free on machine 0", group="devices", ge=1, le=65535
    )

    @model_validator(mode="after")
    def _machines_are_told(self) -> Self:
        given = [
            name
            for name in LaunchOptions.model_fields
            if name not in Options.model_fields and getattr(self, name) is not None
        ]
        if given and self.launch is None:
            raise ConfigError(f"--{given[0]} needs --launch, see betman launch_configs")
        if self.num_machines not in (None, 1):
            told = (self.machine_rank, self.main_process_ip)
            if None in told:
                raise ConfigError(
                    "--num_machines needs --machine_rank and --main_process_ip on each machine"
                )
        if (self.machine_rank or 0) >= (self.num_machines or 1):
            raise ConfigError(
                f"--machine_rank={self.machine_rank} of {self.num_machines or 1} machines; they "
                "are numbered from 0"
            )
        return self


LAUNCH_OPTIONS = LaunchOptions.model_fields.keys() - Options.model_fields.keys()
"""Names of the options that the launcher takes and the processes do not see."""


class DataOptions(Options):
    """How recordings are found and prepared."""

    data_filter: Words | None = option(
        None,
        "use only recordings of which the id, or a folder in it, has one of these names or "
        "patterns, such as mouse1, day1/mouse1 or 'mouse1*'",
        group="data",
    )
    filter_match: Literal["name", "substring"] = option(
        "name",
        "what --data_filter compares: whole names, or, as the published tool does, any part of an "
        "id, so that mouse1 is also in mouse10",
        group="data",
    )
    tracking_pattern: str | None = option(
        None,
        "use only tracking files whose name fits this shell pattern, such as '*_filtered.csv'",
        group="data",
    )
    flat: bool = option(
        False,
        "take each tracking file of a folder as a recording of its own, named by its video; "
        "default: a folder is one recording",
        group="data",
    )
    file_per_individual: bool = option(
        False,
        "take the DeepLabCut files of a folder as one recording, each with one individual, named "
        "by the words in which the file names differ",
        group="data",
    )
    data_scale: ScaleText | None = option(
        None,
        "size of the video, WIDTHxHEIGHT[xDEPTH]; or minmax for the minimum and maximum of each "
        "recording, robust for its percentiles 0.5 and 99.5 and a quarter more on each side, with "
        "one factor for all axes (points beyond are missing); default: the file's image_size_px "
        "where it has one, else minmax",
        group="data",
        unit="pixels",
    )
    outside: Literal["error", "missing"] = option(
        "error",
        "what points outside the stated size of the video are: an error, or missing points",
        group="data",
    )
    min_confidence: float | None = option(
        None,
        "points of which the tracker is less sure than this are missing; default: all are used",
        group="data",
        ge=0,
        le=1,
        allow_inf_nan=False,
    )
    max_gap: int = option(
        0,
        "fill in points that are missing for at most so many frames in a row, on a line from the "
        "last position to the next",
        group="data",
        unit="frames",
        ge=0,
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
    subject: str | None = option(
        None,
        "use only the events of this subject, where annotations name subjects; default: all",
        group="data",
        min_length=1,
    )
    event_slack: int = option(
        1,
        "an event of the annotations may end so long after the last frame; others are errors",
        group="data",
        unit="frames",
        ge=0,
    )
    fps_override: bool = option(
        False,
        "--fps replaces the frame rate that files state, which is an error else",
        group="data",
    )
    time_gaps: Literal["error", "missing"] = option(
        "error",
        "what frames that are left out of the times of a file are: an error, or missing frames, "
        "which are added",
        group="data",
    )
    fps_scaling: float = option(
        1.0,
        "frames of these recordings for each frame that the model sees: 2 for recordings of twice "
        "the frame rate",
        group="data",
        ge=0.01,
        le=100,
    )

    @model_validator(mode="after")
    def _files_are_one_thing(self) -> Self:
        if self.flat and self.file_per_individual:
            raise ConfigError(
                "--flat takes each file as a recording, --file_per_individual as one individual of "
                "a recording; pass one of them"
            )
        return self

    @model_validator(mode="after")
    def _options_that_need_others(self) -> Self:
        if self.fps_override and self.fps is None:
            raise ConfigError("--fps_override needs --fps, the frame rate to use")
        return self

    @property
    def of_times(self) -> dict[str, Any]:
        """The options that decide when frames were recorded, by name."""
        return {name: getattr(self, name) for name in ("fps", "fps_override", "time_gaps")}

    @property
    def filters(self) -> tuple[str, ...] | None:
        """Patterns of which an id must match one; None keeps all recordings."""
        if self.data_filter is None or self.filter_match == "name":
            return self.data_filter
        return tuple(f"*{glob.escape(word)}*" for word in self.data_filter)


PREPARING = (
    "data_scale", "outside", "min_confidence", "max_gap", "select_coords", "rename_coords", "fps",
    "fps_override", "time_gaps",
)  # fmt: skip
"""Options of which the values of prepared recordings follow."""
