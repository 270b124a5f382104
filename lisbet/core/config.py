"""Frozen, validated configuration values: names, window, dataset, features.

Nothing here imports torch. Values that users write as one word are in `option_values`.
"""

from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer, model_validator

from lisbet.core.address import parse_data_path
from lisbet.core.errors import ConfigError
from lisbet.core.option_text import split_words

LARGEST_SIZE = 2**16
"""Bound of every size of a network and of a window, far above what can be trained."""
MOST_LAYERS = 256
MOST_NAMES = 4096
"""Individuals, keypoints or classes."""


class Config(BaseModel):
    """A frozen value that refuses fields it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())


def from_text(value_type: Any) -> BeforeValidator:
    """Let a field of a type with ``parse`` be read from text."""
    return BeforeValidator(lambda raw: value_type.parse(raw) if isinstance(raw, str) else raw)


AS_TEXT = PlainSerializer(str, return_type=str)


WORDS_AS_TEXT = PlainSerializer(lambda words: ",".join(map(str, words)), return_type=str)
Words = Annotated[tuple[str, ...], BeforeValidator(split_words), WORDS_AS_TEXT]
"""Comma-separated words."""
DataPath = Annotated[Path, BeforeValidator(parse_data_path)]
"""A local path, or the address of a remote store."""


LONGEST_NAME = 128
"""Bytes of UTF-8: most file systems take 255, and temporary names and endings are longer."""


def require_name(name: str) -> str:
    """Return `name` if it can be the name of one folder.

    Raises
    ------
    ValueError
        If it is empty, too long, begins with a dot, or holds anything but letters, digits, '-',
        '_' and '.'.
    """
    plain = name.replace("-", "").replace("_", "").replace(".", "")
    shown = name if len(name) <= LONGEST_NAME else f"{name[:20]}…"
    if not plain.isalnum() or name.startswith("."):
        raise ValueError(
            f"{shown!r} is not a plain name; use letters, digits, '-', '_' and '.', "
            "and --output_path for the folder"
        )
    if (size := len(name.encode())) > LONGEST_NAME:
        raise ValueError(f"the name {shown!r} has {size} bytes; at most {LONGEST_NAME} can be used")
    return name


class Window(Config):
    """Which frames make one sample.

    The window of a frame f holds the `size` frames f-size+1+offset … f+offset.
    """

    size: int = Field(ge=2, le=LARGEST_SIZE)
    offset: int = Field(0, ge=0)

    @model_validator(mode="after")
    def _target_lies_inside(self) -> Self:
        if self.offset >= self.size:
            raise ValueError(
                f"window_offset ({self.offset}) must be smaller than window_size ({self.size}), "
                "or the window would not hold the frame that it describes"
            )
        return self

    def require_two_frames(self, fps_scaling: float, slowest: float = 1.0) -> None:
        """Refuse a frame rate at which a window covers less than two frames of a recording.

        Parameters
        ----------
        fps_scaling : float
            Frames of the recording for each frame of the window.
        slowest : float
            Smallest speed, relative to the recording, at which the window is played.

        Raises
        ------
        ConfigError
            If it does.
        """
        if round(slowest * fps_scaling * self.size) < 2:
            raise ConfigError(
                f"--fps_scaling={fps_scaling:g} leaves less than two frames of a recording for a "
                f"window of {self.size}; use larger values"
            )

    @property
    def output_token(self) -> int:
        """Position of the described frame in the window, counted from its end."""
        return -(self.offset + 1)


class Dataset(Config):
    """A folder of recordings and what is in its files; `annotations` None reads tracks only."""

    path: DataPath
    format: str
    annotations: str | None = None


class Features(Config):
    """Names along the feature axis, in the order in which it is flattened."""

    individuals: tuple[str, ...] = Field(max_length=MOST_NAMES)
    keypoints: tuple[str, ...] = Field(max_length=MOST_NAMES)
    space: tuple[str, ...] = Field(max_length=MOST_NAMES)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Number of individuals, keypoints and spatial axes."""
        return len(self.individuals), len(self.keypoints), len(self.space)

    @property
    def size(self) -> int:
        """Number of features of one frame."""
        individuals, keypoints, space = self.shape
        return individuals * keypoints * space

    def same_names(self, other: "Features") -> bool:
        """Say whether `other` has the same names, in any order."""
        return all(
            set(getattr(self, axis)) == set(getattr(other, axis))
            for axis in type(self).model_fields
        )

    def differences(self, other: "Features") -> list[str]:
        """Say, axis by axis, in what `other` differs from these names."""
        found = []
        for axis in ("individuals", "keypoints", "space"):
            mine, theirs = getattr(self, axis), getattr(other, axis)
            if mine != theirs:
                found.append(f"{axis} are {', '.join(theirs)} instead of {', '.join(mine)}")
        return found
