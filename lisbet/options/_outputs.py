"""The options of what a run writes: the model, its checkpoints, and its logs."""

from pathlib import Path
from typing import Literal, Self

from pydantic import field_validator, model_validator

from lisbet.core.config import Words, require_name
from lisbet.core.errors import ConfigError
from lisbet.core.option_values import Interval
from lisbet.options._base import LOGGER_NAMES, HoursText, IntervalText, Options, option


class CheckpointOptions(Options):
    """Where a run is written, and how it is saved and resumed."""

    run_id: str | None = option(
        None,
        "name of the model; default: the start time, YYYYmmddHHMMSS",
        affects="model",
        group="output",
    )
    output_path: Path = option(
        Path("."), "folder that contains models/", affects="run", group="output"
    )
    save_history: bool = option(False, "write training_history.csv", affects="run", group="output")
    save_weights: Literal["last", "all", "best"] = option(
        "last",
        "weights to keep: of the last epoch; also of every epoch (all); or also of the epoch with "
        "the lowest held-out loss (best)",
        affects="run",
        group="output",
    )
    overwrite: bool = option(
        False, "replace an earlier model with this run_id", affects="nothing", group="output"
    )
    hash_samples: bool = option(
        False,
        "write sample_hashes.csv, a hash of the samples of each step, to compare runs",
        affects="run",
        group="output",
    )
    dry_run: bool = option(
        False,
        "check options and data, print what would be done, and write nothing",
        affects="nothing",
        group="output",
    )
    quiet: bool = option(False, "print only warnings and errors", affects="nothing", group="output")
    config: Path | None = option(
        None,
        "YAML file of options, such as the run_config.yml of an earlier run; options on the "
        "command line take precedence",
        affects="nothing",
        group="output",
    )
    resume: bool = option(
        False,
        "resume --run_id from its newest checkpoint; start it if it has none",
        affects="nothing",
        group="interruptions",
    )
    checkpoint_every: IntervalText = option(
        Interval(count=1, unit="ep"),
        "how often to save a checkpoint: 1ep, 500steps or 10min",
        affects="run",
        group="interruptions",
    )
    keep_checkpoints: int = option(
        2, "number of checkpoints to keep, the newest", affects="run", group="interruptions", ge=1
    )
    max_time: HoursText | None = option(
        None,
        "save a checkpoint and stop after this time, HH:MM, before the queue ends the job",
        affects="run",
        group="interruptions",
    )
    on_save_error: Literal["stop", "continue"] = option(
        "stop",
        "what to do when a checkpoint cannot be written: stop, or continue training without it",
        affects="run",
        group="interruptions",
    )
    debug_step: int | None = option(
        None,
        "repeat this step of --run_id from the checkpoint before it, print the loss of each "
        "sample, and write nothing",
        affects="nothing",
        group="interruptions",
        ge=0,
    )

    @field_validator("run_id")
    @classmethod
    def _run_id_is_a_name(cls, run_id: str | None) -> str | None:
        return None if run_id is None else require_name(run_id)

    @model_validator(mode="after")
    def _resumes_a_named_run(self) -> Self:
        for name, given in (("resume", self.resume), ("debug_step", self.debug_step is not None)):
            if given and self.run_id is None:
                raise ConfigError(f"--{name} needs --run_id, to know which run is meant")
        if self.resume and self.overwrite:
            raise ConfigError("--resume keeps what --overwrite replaces; pass one of them")
        return self


class TrackingOptions(Options):
    """What is logged, and where."""

    log_every: int = option(
        50,
        "number of steps between two rows in events.jsonl, W&B and TensorBoard",
        affects="run",
        group="tracking",
        ge=1,
    )
    embedding_every: int | None = option(
        None,
        "number of epochs between two pictures of the embeddings and of the confusion of "
        "supervised tasks; 0 for none; default: 10 with --wandb or --tensorboard, else none",
        affects="run",
        group="tracking",
        ge=0,
    )
    probe_every: int = option(
        0,
        "number of epochs between two linear probes of the embedding, which are logged: a "
        "classifier is fitted to annotated recordings and scored on held-out ones, see betman "
        "probe; 0 for none",
        affects="model",
        group="tracking",
        ge=0,
    )
    tensorboard: bool = option(False, "log to TensorBoard", affects="run", group="tracking")
    wandb: bool = option(False, "log to Weights & Biases (W&B)", affects="run", group="tracking")
    loggers: Words | None = option(
        None,
        "further loggers, such as those of other installed packages, comma separated",
        affects="run",
        group="tracking",
        known=LOGGER_NAMES,
    )
    wandb_project: str | None = option(
        None, "W&B project (default: WANDB_PROJECT, or lisbet)", affects="run", group="tracking"
    )
    wandb_entity: str | None = option(
        None, "W&B team or user (default: WANDB_ENTITY)", affects="run", group="tracking"
    )
    wandb_group: str | None = option(
        None, "W&B group of runs (default: WANDB_RUN_GROUP)", affects="run", group="tracking"
    )
    wandb_tags: Words | None = option(
        None, "W&B tags, comma separated", affects="run", group="tracking"
    )
    wandb_notes: str | None = option(
        None, "notes on the run, shown by W&B", affects="run", group="tracking"
    )
    wandb_mode: Literal["online", "offline"] | None = option(
        None,
        "upload while training, or write files to upload later with wandb sync; default: "
        "WANDB_MODE, or online if there is a login and a network",
        affects="run",
        group="tracking",
    )
    wandb_artifact: bool = option(
        False,
        "upload the model directory to W&B at the end, as an artifact",
        affects="run",
        group="tracking",
    )

    @field_validator("loggers")
    @classmethod
    def _known_loggers(cls, names: tuple[str, ...] | None) -> tuple[str, ...] | None:
        return None if names is None else tuple(map(LOGGER_NAMES.require, names))

    @model_validator(mode="after")
    def _wandb_options_need_wandb(self) -> Self:
        for name in type(self).model_fields:
            if name.startswith("wandb_") and getattr(self, name) and not self.uses_wandb:
                raise ConfigError(f"--{name} needs --wandb")
        return self

    @property
    def uses_wandb(self) -> bool:
        """Whether the run is logged to W&B."""
        return self.wandb or "wandb" in (self.loggers or ())

    @property
    def picture_every(self) -> int:
        """Number of epochs between two pictures, 0 for none."""
        default = 10 if self.uses_wandb or self.tensorboard or self.loggers else 0
        return default if self.embedding_every is None else self.embedding_every
