"""Types of zarr."""

from typing import Any

ZarrGroup = Any
"""A `zarr.Group`, whose members have the type "array or group" for zarr."""
