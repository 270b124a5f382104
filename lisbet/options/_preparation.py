"""How the recordings of a model were prepared, and whether the options of another command agree.

A preparation is a mapping: for each option of `PREPARATION` that was set or resolved, its values,
as they are printed. There are several values where a model was trained on datasets that were
prepared differently.
"""

from typing import Annotated, Any, TypeVar

from pydantic import BeforeValidator, PlainSerializer, ValidationError

from lisbet.core.errors import ConfigError, first_message
from lisbet.core.json_types import JsonDict
from lisbet.options._recordings import DataOptions

PREPARATION: tuple[str, ...] = tuple(
    name
    for name in ("data_scale", "outside", "min_confidence", "max_gap", "select_coords",
                 "rename_coords", "fps", "fps_scaling", "time_gaps")
    if name in DataOptions.model_fields
)  # fmt: skip
"""Options that change what a model sees of a recording."""
NAMES = ("select_coords", "rename_coords")
"""Those of them that follow from the names in the files; the names themselves are compared, too."""
RATES = ("fps", "fps_scaling")
IMAGE_SIZE = "image_size_px"
"""Stands for the scale of recordings that were divided by the size that their own files state."""
MINMAX = "minmax"
MOST_VALUES = 10_000

Values = tuple[Any, ...]
Inference = TypeVar("Inference", bound=DataOptions)


def default_of(name: str) -> Any:
    """Return the default of an option, as it is printed."""
    return DataOptions.model_fields[name].default


def printed(name: str, value: object) -> Any:
    """Return the value of an option in its one printed form.

    Raises
    ------
    ValueError
        If it is no value of this option.
    """
    if value is None or (name == "data_scale" and value == IMAGE_SIZE):
        return value
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise ValueError(f"{name}: expected text or a number, got {str(value)[:80]!r}")
    try:
        options = DataOptions(**{name: str(value)})
    except ValidationError as error:
        raise ValueError(first_message(error)) from error
    return options.model_dump(mode="json", include={name})[name]


def _read(raw: object) -> object:
    if not isinstance(raw, dict):
        return raw
    read = {}
    for name, values in raw.items():
        values = tuple(values) if isinstance(values, list | tuple) else (values,)
        if not 0 < len(values) <= MOST_VALUES:
            raise ValueError(f"{name} has {len(values)} values; expected 1 to {MOST_VALUES}")
        known = name in PREPARATION
        read[name] = tuple(printed(name, value) if known else value for value in values)
    return read


def plain(preparation: dict[str, Values]) -> JsonDict:
    """Return a preparation as it is written to YAML: lists only where there are several values."""
    return {
        name: values[0] if len(values) == 1 else list(values)
        for name, values in preparation.items()
    }


Preparation = Annotated[dict[str, Values], BeforeValidator(_read), PlainSerializer(plain)]
"""Options of `PREPARATION`; keys of later releases are kept as they are."""


def with_preparation(
    options: Inference,
    preparation: dict[str, Values] | None,
    *,
    model_id: str,
    override: bool,
    converted: bool,
) -> Inference:
    """Return options with which recordings are prepared as those that a model was trained on.

    Parameters
    ----------
    options : DataOptions
        As they were given; those that were not given take the model's values.
    preparation : dict or None
        The model's. None for models that do not state it: the options stay as they are.
    model_id : str
        Name of the model, for messages.
    override : bool
        Whether options that were given replace the model's values, instead of being refused where
        they contradict them.
    converted : bool
        Whether the recordings were prepared when they were converted: then only the option
        ``fps_scaling`` applies.

    Raises
    ------
    ConfigError
        Naming each option that contradicts the model, with both values.
    """
    if preparation is None:
        return options
    problems = _unknown(preparation)
    printed_options = options.model_dump(mode="json", include=set(PREPARATION))
    updates: JsonDict = {}
    for name in PREPARATION:
        known = preparation.get(name, (default_of(name),))
        if name == "fps" or (converted and name != "fps_scaling"):
            continue
        if name in options.model_fields_set:
            if name not in RATES and not _agrees(name, printed_options[name], preparation):
                problems.append(
                    f"--{name}={printed_options[name]}, but {model_id} was trained with "
                    f"{described(name, known)}"
                )
        elif len(known) == 1 and known[0] != IMAGE_SIZE:
            updates[name] = getattr(DataOptions(**{name: known[0]}), name)
        elif not _agrees(name, default_of(name), preparation):
            problems.append(
                f"{model_id} was trained with several values of --{name}: "
                f"{described(name, known)}; give the one that fits these recordings"
            )
    if problems and not override:
        raise ConfigError("\n".join([*problems, WAY_OUT]))
    return options.model_copy(update=updates)


WAY_OUT = (
    "Leave the option out to prepare these recordings as the model expects it, or pass "
    "--override_preparation to use what you give"
)


def _unknown(preparation: dict[str, Values]) -> list[str]:
    unknown = [name for name in preparation if name not in PREPARATION]
    return [
        f"the model's recordings were prepared with {', '.join(unknown)}, which this release of "
        "betman does not know; update it"
    ] * bool(unknown)


def _agrees(name: str, value: object, preparation: dict[str, Values]) -> bool:
    """Whether a value of an option, as it is printed, is one that the model was trained with."""
    if name not in preparation:
        if name in NAMES or name == "outside":  # these change no number: they are checked, or lead
            return True  # to missing points where there would be an error
        return bool(value == default_of(name))
    known = preparation[name]
    if name == "data_scale" and IMAGE_SIZE in known:
        # Without the option, each file's own size; a given size replaces it.
        return value is None or value in known or str(value)[0].isdigit()
    if name == "data_scale" and value is None:
        return False
    return value in known


def stored_differences(preparation: dict[str, Values], stored: dict[str, Values]) -> list[str]:
    """Say in what converted recordings were prepared otherwise than those of a model.

    Parameters
    ----------
    preparation, stored : dict
        The model's, and that of the recordings.
    """
    found = []
    for name in PREPARATION:
        values = stored.get(name, (default_of(name),))
        if name in RATES or (name in NAMES and name not in stored):
            continue
        if not all(_agrees(name, value, preparation) for value in values):
            known = preparation.get(name, (default_of(name),))
            found.append(f"{name} {described(name, values)} instead of {described(name, known)}")
    return found


def described(name: str, values: Values) -> str:
    """Name the values of an option in a message."""
    words = [
        "the size that each file states (image_size_px)" if value == IMAGE_SIZE and
        name == "data_scale" else "none" if value is None else str(value) for value in values
    ]  # fmt: skip
    return " and ".join(words)
