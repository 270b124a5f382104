"""Recordings: read, prepare, keep, and take windows of them."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lisbet.data.opened import OpenDataset, WindowDataset
    from lisbet.data.opened import open_dataset as open  # noqa: A004

__all__ = ["OpenDataset", "WindowDataset", "open"]


def __getattr__(name: str) -> Any:
    """Import what notebooks use when it is used: commands start faster without."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from lisbet.data import opened

    return getattr(opened, "open_dataset" if name == "open" else name)
