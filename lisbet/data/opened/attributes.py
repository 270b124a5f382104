"""What a prepared dataset says of its preparation, so that it is not prepared twice."""

import json
from dataclasses import replace

import xarray as xr

from lisbet.core.errors import DataError
from lisbet.core.json_types import JsonDict
from lisbet.data.record import Record

PREPARED_WITH, STEPS = "lisbet_preparation", "preparation"
"""Attributes: options as JSON, and what was done."""


def attributes(record: Record, preparation: JsonDict) -> JsonDict:
    """Return the attributes of a recording that was prepared with these options."""
    return {PREPARED_WITH: json.dumps(preparation), STEPS: list(record.steps)}


def is_prepared(dataset: xr.Dataset) -> bool:
    """Whether a dataset is one that `lisbet.data.open` has prepared."""
    return PREPARED_WITH in dataset.attrs


def restored(record: Record, dataset: xr.Dataset) -> Record:
    """Return a recording with what the attributes of its dataset say.

    Raises
    ------
    DataError
        If they cannot be read.
    """
    steps = dataset.attrs.get(STEPS, ())
    try:
        options = json.loads(str(dataset.attrs[PREPARED_WITH]))
    except ValueError as error:
        raise DataError(f"the attribute {PREPARED_WITH} cannot be read: {error}") from error
    if not isinstance(options, dict):
        raise DataError(f"the attribute {PREPARED_WITH} is no JSON object")
    steps = (steps,) if isinstance(steps, str) else tuple(map(str, steps))
    return replace(record, prepared_with=options, steps=(*steps, *record.steps))
