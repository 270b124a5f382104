"""The options that say how recordings are found and prepared."""

import glob
from typing import Literal, Self

from pydantic import model_validator

from lisbet.core.config import Words
from lisbet.core.errors import ConfigError
from lisbet.core.json_types import JsonDict
from lisbet.options._base import Options, RenamesText, ScaleText, SelectionText, option


class DataOptions(Options):
    """How recordings are found and prepared."""

    data_filter: Words | None = option(
        None,
        "use only recordings whose id, or a folder in it, matches one of these names or patterns, "
        "such as mouse1, day1/mouse1 or 'mouse1*'",
        affects="model",
        group="data",
    )
    filter_match: Literal["name", "substring"] = option(
        "name",
        "how --data_filter compares: whole names, or any part of an id as the published tool does, "
        "where mouse1 also matches mouse10",
        affects="files",
        group="data",
    )
    tracking_pattern: str | None = option(
        None,
        "use only tracking files whose name matches this shell pattern, such as '*_filtered.csv'",
        affects="files",
        group="data",
    )
    flat: bool = option(
        False,
        "read each tracking file in a folder as one recording, named after its video; default: "
        "each folder is one recording",
        affects="files",
        group="data",
    )
    file_per_individual: bool = option(
        False,
        "read the DeepLabCut files of a folder as one recording, one individual per file, named "
        "by the part in which the file names differ",
        affects="files",
        group="data",
    )
    data_scale: ScaleText | None = option(
        None,
        "size of the video as WIDTHxHEIGHT[xDEPTH]; or minmax: the range of each recording; or "
        "robust: from percentiles 0.5 and 99.5, widened by a quarter on each side, with the same "
        "factor for all axes (points outside are missing); default: image_size_px of the file if "
        "it has one, else minmax",
        affects="data",
        group="data",
        unit="pixels",
    )
    outside: Literal["error", "missing"] = option(
        "error",
        "how to treat points outside the video frame: raise an error, or treat them as missing",
        affects="data",
        group="data",
    )
    min_confidence: float | None = option(
        None,
        "treat points with a lower tracking confidence (0-1) as missing; default: use all points",
        affects="data",
        group="data",
        ge=0,
        le=1,
        allow_inf_nan=False,
    )
    max_gap: int = option(
        0,
        "interpolate linearly over points that are missing for at most this many frames",
        affects="data",
        group="data",
        unit="frames",
        ge=0,
    )
    select_coords: SelectionText | None = option(
        None,
        "keep only these, in this order: 'INDIVIDUALS;AXES;KEYPOINTS', * for all",
        affects="data",
        group="data",
    )
    rename_coords: RenamesText | None = option(
        None,
        "rename after selecting: 'old:new,…;*;old:new' for individuals, axes and keypoints, * for "
        "none",
        affects="data",
        group="data",
    )
    fps: float | None = option(
        None,
        "frame rate of recordings whose files do not state one; annotations in seconds need it",
        affects="data",
        group="data",
        unit="frames per second",
        gt=0,
        allow_inf_nan=False,
    )
    subject: str | None = option(
        None,
        "use only the events of this subject, where annotations name subjects; default: all",
        affects="data",
        group="data",
        min_length=1,
    )
    event_slack: int = option(
        1,
        "how far an annotated event may reach beyond the last frame; further is an error",
        affects="run",
        group="data",
        unit="frames",
        ge=0,
    )
    fps_override: bool = option(
        False,
        "let --fps replace a different frame rate stated in a file, instead of raising an error",
        affects="data",
        group="data",
    )
    time_gaps: Literal["error", "missing"] = option(
        "error",
        "how to treat frames absent from the time axis of a file: raise an error, or insert them "
        "as missing frames",
        affects="data",
        group="data",
    )
    fps_scaling: float = option(
        1.0,
        "frame rate of these recordings divided by the model's (2 = filmed twice as fast)",
        affects="model",
        group="data",
        ge=0.01,
        le=100,
    )

    @model_validator(mode="after")
    def _files_have_one_meaning(self) -> Self:
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
    def of_reading(self) -> JsonDict:
        """The arguments of `from_dataset` that follow from the options."""
        times = {name: getattr(self, name) for name in ("fps", "fps_override", "time_gaps")}
        return {**times, "size_given": self.data_scale is not None}

    @property
    def of_preparing(self) -> JsonDict:
        """The arguments of `prepare` that follow from the options."""
        return {
            "select": self.select_coords,
            "rename": self.rename_coords,
            "scale": self.data_scale,
            "outside": self.outside,
            "min_confidence": self.min_confidence,
            "max_gap": self.max_gap,
        }

    @property
    def filters(self) -> tuple[str, ...] | None:
        """Patterns of which an id must match one; None keeps all recordings."""
        if self.data_filter is None or self.filter_match == "name":
            return self.data_filter
        return tuple(f"*{glob.escape(word)}*" for word in self.data_filter)
