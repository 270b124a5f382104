"""Prepared recordings as a mapping of xarray datasets, and their windows."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from pydantic import ValidationError

from lisbet.core.config import Dataset, Features, Window
from lisbet.core.errors import ConfigError, first_message, unknown
from lisbet.core.json_types import JsonDict
from lisbet.data.load import load_records
from lisbet.data.opened.attributes import attributes
from lisbet.data.opened.windows import WindowDataset
from lisbet.data.preparation.compatibility import options_of_stored
from lisbet.data.record import Record
from lisbet.options import DatasetInfoOptions
from lisbet.options._preparation import PREPARATION

__all__ = ["OpenDataset", "WindowDataset", "open_dataset"]


def open_dataset(path: str | Path, **settings: Any) -> "OpenDataset":
    """Read and prepare the recordings of a folder, or open a converted dataset.

    Parameters
    ----------
    path : str or Path
        Folder of recordings, in which every folder with a tracking file is one; or a dataset that
        ``betman convert_dataset`` wrote, whose tracks are read when they are used.
    **settings
        The options that say how recordings are read and prepared, such as ``data_format``,
        ``annot_format`` (default: annotations are not read), ``data_filter``, ``data_scale``,
        ``select_coords``, ``rename_coords``, ``fps`` or ``max_gap``, as text or as values.

    Returns
    -------
    OpenDataset

    Raises
    ------
    LisbetError
        If there are no recordings, or some cannot be used. One message names each of them.

    Examples
    --------
    >>> recordings = lisbet.data.open("datasets/mice", annot_format="boris")  # doctest: +SKIP
    >>> recordings["session1"].position.sel(keypoints="nose").plot()  # doctest: +SKIP
    """
    if strange := [name for name in settings if name not in DatasetInfoOptions.model_fields]:
        raise ConfigError(unknown("setting", strange[0], DatasetInfoOptions.model_fields))
    try:
        options = DatasetInfoOptions(data_path=Path(path), **settings)
    except ValidationError as error:
        raise ConfigError(first_message(error)) from error
    records = tuple(load_records(options.dataset, options))
    asked = options.model_dump(mode="json", include=set(PREPARATION))
    return OpenDataset(records, options.dataset, options_of_stored(records[0]) or asked)


@dataclass(frozen=True, eq=False)
class OpenDataset(Mapping[str, xr.Dataset]):
    """Prepared recordings, by id.

    Parameters
    ----------
    records : tuple of Record
        The recordings, which have the same features.
    source : Dataset
        Where they are from.
    preparation : dict
        Options that they were prepared with.
    """

    records: tuple[Record, ...] = field(repr=False)
    source: Dataset
    preparation: JsonDict = field(repr=False)

    @cached_property
    def _by_id(self) -> dict[str, Record]:
        return {record.id: record for record in self.records}

    @property
    def features(self) -> Features:
        """Names of individuals, keypoints and axes of space."""
        return self.records[0].features

    @property
    def behaviors(self) -> tuple[str, ...]:
        """Names of the annotated behaviours; none if annotations were not read."""
        labels = self.records[0].labels
        return () if labels is None else labels.behaviors

    def __len__(self) -> int:
        return len(self.records)

    def __iter__(self) -> Iterator[str]:
        return iter(self._by_id)

    def __getitem__(self, record_id: str) -> xr.Dataset:
        """Return a recording as a dataset of movement.

        Its variables are ``position`` (time, individuals, keypoints, space), float32 in [0, 1], NaN
        for missing points, and where annotations were read, ``behavior`` (time, behaviors), bool.
        The coordinate time is in seconds where the frame rate is known, else in frames. Its
        attributes say how it was prepared, so that `Model.embed` does not do that again.
        """
        if record_id not in self._by_id:
            raise KeyError(unknown("recording", str(record_id), self._by_id))
        record = self._by_id[record_id]
        frames = np.arange(record.frames)
        fps = record.fps
        times = frames if fps is None else (record.start_s or 0.0) + frames / fps
        names = {axis: list(own) for axis, own in record.features.model_dump().items()}
        prepared = attributes(record, self.preparation)
        variables: dict[str, Any] = {"position": (("time", *names), record.position, prepared)}
        coords: dict[str, Any] = {"time": times, **names}
        if record.labels is not None:
            variables["behavior"] = (("time", "behaviors"), record.labels.active)
            coords["behaviors"] = list(record.labels.behaviors)
        about = {"ds_type": "poses", "recording": record.id, **prepared}
        unit = {"time_unit": "frames"} if fps is None else {"time_unit": "seconds", "fps": fps}
        return xr.Dataset(variables, coords, attrs=about | unit)

    def windows(
        self, window_size: int = 200, window_offset: int = 0, *, fps_scaling: float = 1.0
    ) -> WindowDataset:
        """Return a `torch.utils.data.Dataset` of the windows of all frames.

        Parameters
        ----------
        window_size : int
            Number of frames of a window.
        window_offset : int
            Number of future frames in it.
        fps_scaling : float
            Frames of the recordings for each frame of the window.
        """
        try:
            window = Window(size=window_size, offset=window_offset)
        except ValidationError as error:
            raise ConfigError(first_message(error)) from error
        window.require_two_frames(fps_scaling)
        return WindowDataset(self.records, window, fps_scaling)
