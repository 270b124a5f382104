"""The options that say what is held out of training."""

from typing import Literal, Self

from pydantic import model_validator

from lisbet.core.config import Words
from lisbet.core.errors import ConfigError
from lisbet.options._base import Options, option


class SplitOptions(Options):
    """What is held out of training and scored after each epoch."""

    dev_ratio: float | None = option(
        None,
        "fraction (0-1) of the recordings that is held out and scored after each epoch; with "
        "--dev_split=time: of the frames of each recording",
        affects="model",
        group="training",
        gt=0,
        le=1,
    )
    dev_split: Literal["recordings", "time"] = option(
        "recordings",
        "what --dev_ratio holds out: whole recordings, or the last part of each recording (time), "
        "for small datasets",
        affects="model",
        group="training",
    )
    dev_recordings: Words | None = option(
        None,
        "recordings to hold out, instead of a random --dev_ratio: ids, or patterns such as "
        "'day3/*', comma separated",
        affects="model",
        group="training",
    )
    dev_sample: float = option(
        1.0,
        "fraction (0-1) of the held-out frames that is scored",
        affects="model",
        group="training",
        gt=0,
        le=1,
    )

    @model_validator(mode="after")
    def _held_out_in_one_way(self) -> Self:
        if self.dev_recordings is not None:
            others = {"dev_ratio": self.dev_ratio, "dev_split=time": self.dev_split == "time"}
            for name, given in others.items():
                if given:
                    raise ConfigError(
                        f"--dev_recordings names what is held out, and --{name} would choose it; "
                        "pass one of them"
                    )
        elif self.dev_split == "time" and self.dev_ratio is None:
            raise ConfigError(
                "--dev_split=time needs --dev_ratio, the share of each recording that is held "
                "out, such as --dev_ratio=0.2"
            )
        return self

    @property
    def holds_out(self) -> bool:
        """Whether something is to be held out."""
        return self.dev_ratio is not None or self.dev_recordings is not None
