"""How recordings were prepared, found from the recordings themselves; compare it with a model's."""

from collections.abc import Iterable

from lisbet.core.config import Window
from lisbet.core.errors import DataError
from lisbet.core.json_types import JsonDict
from lisbet.data.record import Record
from lisbet.data.tracks import Stored
from lisbet.options import DataOptions
from lisbet.options._preparation import (
    IMAGE_SIZE,
    MINMAX,
    NAMES,
    PREPARATION,
    RATES,
    Values,
    default_of,
    printed,
    stored_differences,
)

RATE_TOLERANCE = 0.01
"""Frame rates that differ by at most this share are the same: 29.97 and 30."""
DIVIDED = "divided by "
"""How the step begins that `prepare.scaled` notes."""
SHOWN = 5


def preparation_of(records: list[Record], options: DataOptions) -> dict[str, Values]:
    """Return how the recordings of one dataset were prepared.

    Parameters
    ----------
    records : list of Record
        Prepared with these options, or when they were converted.
    options : DataOptions
        What was asked for.

    Returns
    -------
    dict
        By option: its values, where it is not the default. ``data_scale`` is always there.

    Raises
    ------
    DataError
        If what a store states of its preparation cannot be read.
    """
    stored = options_of_stored(records[0])
    asked = options.model_dump(mode="json", include=set(PREPARATION)) if stored is None else stored
    found: dict[str, Values] = {}
    for name in PREPARATION:
        if name in RATES:
            continue
        try:
            value = printed(name, asked.get(name, default_of(name)))
        except ValueError as error:
            raise DataError(f"the store's preparation cannot be read: {error}") from error
        if value != default_of(name):
            found[name] = (value,)
    found.setdefault("data_scale", tuple(sorted({scale_of(record) for record in records})))
    if rates := distinct_rates(record.fps for record in records):
        found["fps"] = rates
    if options.fps_scaling != 1:
        found["fps_scaling"] = (options.fps_scaling,)
    return found


def options_of_stored(record: Record) -> JsonDict | None:
    """Return the options that a recording was prepared with when it was converted or opened.

    None if it was read from files by this command.
    """
    if record.prepared_with is not None:
        return record.prepared_with
    store = record.tracks.store if isinstance(record.tracks, Stored) else None
    group = getattr(store, "group", None)
    return None if group is None else dict(group.attrs["preparation"])


def scale_of(record: Record) -> str:
    """Say how a recording was scaled for which no scale was given."""
    divided = any(step.startswith(DIVIDED) for step in record.steps)
    return IMAGE_SIZE if divided else MINMAX


def _with_sizes(scales: Values, records: list[Record]) -> Values:
    """Replace "each file's own size" by these sizes."""
    if IMAGE_SIZE not in scales:
        return scales
    sizes = {
        step.removeprefix(DIVIDED)
        for record in records
        for step in record.steps
        if step.startswith(DIVIDED)
    }
    return tuple(scale for scale in scales if scale != IMAGE_SIZE) + tuple(sorted(sizes))


def distinct_rates(rates: Iterable[float | None]) -> tuple[float, ...]:
    """Return the frame rates that are known, sorted, and of those that are nearly equal one."""
    distinct: list[float] = []
    for rate in sorted(float(rate) for rate in rates if rate):
        if not distinct or not same_rate(rate, distinct[-1]):
            distinct.append(rate)
    return tuple(distinct)


def same_rate(one: float, other: float) -> bool:
    """Whether two frame rates are the same, up to `RATE_TOLERANCE`."""
    return abs(one - other) <= RATE_TOLERANCE * max(one, other)


def merged(parts: list[dict[str, Values]]) -> dict[str, Values]:
    """Return the preparation of several datasets: all values of options where they differ.

    Where the selection or the new names differ, none is remembered: each dataset needs its own,
    and the resulting names are compared with those that the model knows.
    """
    together: dict[str, Values] = {}
    for name in PREPARATION:
        values = [part.get(name, (default_of(name),)) for part in parts]
        if all(name not in part for part in parts) or (name in NAMES and len(set(values)) > 1):
            continue
        if name == "fps":
            together[name] = distinct_rates(rate for own in values for rate in own)
        else:
            together[name] = tuple(dict.fromkeys(value for own in values for value in own))
    return together


def require_same_preparation(
    records: list[Record],
    options: DataOptions,
    preparation: dict[str, Values],
    *,
    model_id: str,
    window: Window,
) -> None:
    """Refuse recordings that were prepared otherwise than those that a model was trained on.

    Parameters
    ----------
    records : list of Record
        What the model is applied to.
    options : DataOptions
        What they were prepared with, see `with_preparation`.
    preparation : dict
        The model's.
    model_id : str
        Name of the model, for messages.
    window : Window
        The model's.

    Raises
    ------
    DataError
        Naming both values.
    """
    force = "or pass --override_preparation to use them as they are"
    if options_of_stored(records[0]) is not None:
        stored = preparation_of(records, options)
        if IMAGE_SIZE not in preparation.get("data_scale", ()):
            stored |= {"data_scale": _with_sizes(stored["data_scale"], records)}
        if differences := stored_differences(preparation, stored):
            raise DataError(
                f"the recordings were converted with another preparation than {model_id} was "
                f"trained with: {'; '.join(differences)}. Convert them again with betman "
                f"convert_dataset and the model's values, {force}"
            )
    elif options.data_scale is None and "data_scale" in preparation:
        known = preparation["data_scale"]
        if strange := [r.id for r in records if scale_of(r) not in known and IMAGE_SIZE in known]:
            raise DataError(
                f"{_some(strange)}: the file does not state the size of the video (image_size_px), "
                f"and {model_id} was trained on coordinates that were divided by it; give the size "
                f"with --data_scale=WIDTHxHEIGHT, {force}"
            )
    _require_same_rate(records, options, preparation, model_id, window)


def _require_same_rate(
    records: list[Record],
    options: DataOptions,
    preparation: dict[str, Values],
    model_id: str,
    window: Window,
) -> None:
    """Refuse recordings whose windows would span another time than those of training."""
    scalings = preparation.get("fps_scaling", (1.0,))
    seen = distinct_rates(
        rate / scaling for rate in preparation.get("fps", ()) for scaling in scalings
    )
    if not seen:
        if options.fps_scaling not in scalings:
            raise DataError(
                f"--fps_scaling={options.fps_scaling:g}, but {model_id} was trained with "
                f"{' and '.join(f'{scaling:g}' for scaling in scalings)}, on recordings of unknown "
                "frame rate; leave it out, or pass --override_preparation to use it"
            )
        return
    for record in records:
        if record.fps is None:
            if options.fps_scaling not in scalings:
                raise DataError(
                    f"--fps_scaling={options.fps_scaling:g}, but {model_id} was trained with "
                    f"{' and '.join(f'{scaling:g}' for scaling in scalings)}, and the frame rate "
                    f"of {record.id} is unknown; give it with --fps, or pass "
                    "--override_preparation to use what you give"
                )
            continue
        rate = record.fps / options.fps_scaling
        if not any(same_rate(rate, known) for known in seen):
            raise DataError(
                f"{record.id} has {record.fps:g} frames per second"
                + (f" ({rate:g} with --fps_scaling={options.fps_scaling:g})"
                   if options.fps_scaling != 1 else "")
                + f", but {model_id} was trained at {' and '.join(f'{r:g}' for r in seen)}: its "
                f"window of {window.size} frames would span {window.size / rate:.3g} s instead of "
                f"{window.size / seen[0]:.3g} s. Pass --fps_scaling={record.fps / seen[0]:.6g}, or "
                "--override_preparation to use the recordings as they are"
            )  # fmt: skip


def _some(ids: list[str]) -> str:
    more = f" and {len(ids) - SHOWN} more" if len(ids) > SHOWN else ""
    return ", ".join(ids[:SHOWN]) + more
