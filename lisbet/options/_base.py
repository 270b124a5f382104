"""How an option is declared, the types that parse its text, and the options of all commands."""

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
from pydantic.fields import FieldInfo

from lisbet import augment
from lisbet.augment import Augmentation
from lisbet.core.config import AS_TEXT, WORDS_AS_TEXT, Config, DataPath, from_text
from lisbet.core.errors import ConfigError, unknown
from lisbet.core.json_types import JsonDict
from lisbet.core.option_text import join_paths, split_paths, split_words
from lisbet.core.option_values import (
    Hours,
    Interval,
    Renames,
    Scale,
    Selection,
    Settings,
    Size,
    TaskData,
)
from lisbet.core.registry import Registry

TASK_NAMES: Registry[Any] = Registry("task", "lisbet.tasks", "TASK", "lisbet.tasks")
BACKBONE_NAMES: Registry[Any] = Registry(
    "backbone", "lisbet.models.backbones", "BACKBONE", "lisbet.backbones"
)
READER_NAMES: Registry[Any] = Registry(
    "data format", "lisbet.data.readers", "READER", "lisbet.readers"
)
LABEL_READER_NAMES: Registry[Any] = Registry(
    "annotation format", "lisbet.data.labels", "READER", "lisbet.annotations"
)
LOGGER_NAMES: Registry[Any] = Registry(
    "logger", "lisbet.training.loggers", "LOGGER", "lisbet.loggers"
)
BASE = "-base"
"""A backbone's default sizes are its preset <backbone>-base."""
PRESETS = [f"{name}{BASE}" for name in BACKBONE_NAMES]


Effect = Literal["model", "data", "files", "run", "nothing"]
"""What an option of a training run affects.

* ``model``: the trained model. A resumed run must have the same value.
* ``data``: the values of prepared recordings. A resumed run compares the recordings themselves; a
  converted dataset stores the option.
* ``files``: which files are read. A resumed run compares the recordings themselves.
* ``run``: how the run is computed, saved or recorded. It may change when a run is resumed.
* ``nothing``: only this start of the command; run_config.yml does not have it.

Commands that do not train use ``data``, ``files`` and ``run`` in the same sense.
"""


def option(
    default: object,
    description: str,
    *,
    affects: Effect,
    group: str = "options",
    unit: str = "",
    bare: str | None = None,
    known: Iterable[str] = (),
    **constraints: Any,
) -> Any:
    """Declare an option of a command.

    Parameters
    ----------
    default : object
        Its value when it is not given.
    description : str
        Its text in ``--help``.
    affects : str
        See `Effect`.
    group : str
        Heading under which ``--help`` lists it.
    unit : str
        Unit of its value, for the help.
    bare : str, optional
        What the option means without a value, as text.
    known : iterable of str
        Values to list in the help.
    **constraints
        Limits of the value, as `pydantic.Field` takes them.
    """
    extra: JsonDict = {
        "affects": affects, "group": group, "unit": unit, "bare": bare, "known": known,
    }  # fmt: skip
    return Field(default, description=description, json_schema_extra=extra, **constraints)


def positional(
    description: str,
    *,
    affects: Effect = "nothing",
    known: Iterable[str] = (),
    default: object = ...,
    many: bool = False,
) -> Any:
    """Declare a positional argument; it is required if it has no default.

    With `many`, the last one takes all remaining words. For the rest see `option`.
    """
    extra: JsonDict = {
        "affects": affects, "positional": True, "known": known, "many": many,
    }  # fmt: skip
    return Field(default, description=description, json_schema_extra=extra)


def extra_of(field: FieldInfo) -> JsonDict:
    """Return what an option declares besides its type and default."""
    return field.json_schema_extra if isinstance(field.json_schema_extra, dict) else {}


def typed(name: str) -> str:
    """Return how an option is typed: a field `from_` is ``--from``, a word that Python reserves."""
    return name.removesuffix("_")


def affecting(kind: type[Config], *effects: Effect) -> tuple[str, ...]:
    """Return the names of the options of a command that have one of these effects."""
    return tuple(
        name for name, field in kind.model_fields.items() if extra_of(field)["affects"] in effects
    )


def _known_format(raw: object) -> object:
    return READER_NAMES.require(raw.lower().replace("-", "_")) if isinstance(raw, str) else raw


def _known_formats(names: Registry[Any]) -> Any:
    def read(raw: object) -> object:
        words = split_words(raw)
        if not isinstance(words, tuple):
            return words
        return tuple(names.require(word.lower().replace("-", "_")) for word in words)

    return BeforeValidator(read)


def _known_preset(raw: object) -> object:
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
    """The options of every command."""

    verbose: int = option(
        0,
        "print more: -v explains each step, -vv adds details and tracebacks",
        affects="run",
        group="output",
        bare="1",
        ge=0,
    )

    @field_validator("*", mode="before")
    @classmethod
    def _paths_are_valid(cls, raw: object, info: ValidationInfo) -> object:
        """Refuse an empty path, which would mean this folder: usually an unset variable."""
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
        "run on several devices: name of a launch configuration (betman launch_configs lists "
        "them), or path of a launch file",
        affects="nothing",
        group="devices",
    )
    num_processes: int | None = option(
        None,
        "number of processes on all machines together; default: one per visible GPU, or what your "
        "own launch file says",
        affects="nothing",
        group="devices",
        ge=1,
    )
    num_machines: int | None = option(
        None, "number of machines", affects="nothing", group="devices", ge=1
    )
    machine_rank: int | None = option(
        None, "rank of this machine, from 0", affects="nothing", group="devices", ge=0
    )
    main_process_ip: str | None = option(
        None,
        "address of machine 0, reachable from the others",
        affects="nothing",
        group="devices",
    )
    main_process_port: int | None = option(
        None, "free port on machine 0", affects="nothing", group="devices", ge=1, le=65535
    )

    @model_validator(mode="after")
    def _machines_are_given(self) -> Self:
        given = [name for name in LAUNCH_OPTIONS if getattr(self, name) is not None]
        if given and self.launch is None:
            raise ConfigError(f"--{given[0]} needs --launch, see betman launch_configs")
        if self.num_machines not in (None, 1) and None in (
            self.machine_rank,
            self.main_process_ip,
        ):
            raise ConfigError(
                "--num_machines needs --machine_rank and --main_process_ip on each machine"
            )
        if (self.machine_rank or 0) >= (self.num_machines or 1):
            raise ConfigError(
                f"--machine_rank={self.machine_rank} of {self.num_machines or 1} machines; they "
                "are numbered from 0"
            )
        return self


LAUNCH_OPTIONS = tuple(
    name for name in LaunchOptions.model_fields if name not in Options.model_fields
)
"""Names of the options that the launcher takes and the processes do not see."""
