"""What options declare about themselves."""

from typing import get_args

import pytest

from lisbet.cli import parse
from lisbet.cli.commands import COMMANDS, Command
from lisbet.cli.help import page as help_page
from lisbet.core.errors import ConfigError
from lisbet.options import ConvertOptions, TrainOptions, affecting, extra_of
from lisbet.options._base import Effect, option


@pytest.mark.parametrize("command", COMMANDS)
def test_every_option_says_what_it_affects(command):
    for name, field in COMMANDS[command].fields.items():
        assert extra_of(field).get("affects") in get_args(Effect), name
        assert field.description, name


def test_an_option_must_say_what_it_affects():
    with pytest.raises(TypeError, match="affects"):
        option(1, "a number")


def test_what_the_options_of_training_affect():
    """Written by hand: what may change when a run is resumed, and what is compared by content."""
    assert {*affecting(TrainOptions, "run")} == {
        "checkpoint_every", "compile", "embedding_every", "epochs", "event_slack", "hash_samples",
        "keep_checkpoints", "log_every", "loggers", "max_time", "micro_batch_size", "on_save_error",
        "output_path", "save_history", "save_weights", "skip_nonfinite", "tensorboard", "verbose",
        "wandb", "wandb_artifact", "wandb_entity", "wandb_group", "wandb_mode", "wandb_notes",
        "wandb_project", "wandb_tags",
    }  # fmt: skip
    assert {*affecting(TrainOptions, "nothing")} == {
        "config", "debug_step", "dry_run", "launch", "machine_rank", "main_process_ip",
        "main_process_port", "num_machines", "num_processes", "overwrite", "quiet", "resume",
    }  # fmt: skip
    assert {*affecting(TrainOptions, "files")} == {
        "data_format", "data_path", "file_per_individual", "filter_match", "flat",
        "tracking_pattern",
    }  # fmt: skip
    data = {
        "data_scale", "fps", "fps_override", "max_gap", "min_confidence", "outside",
        "rename_coords", "select_coords", "subject", "time_gaps",
    }  # fmt: skip
    assert {*affecting(TrainOptions, "data")} == data
    assert {*affecting(ConvertOptions, "data")} == data | {"annot_format", "storage"}


def test_an_option_is_declared_in_one_place(monkeypatch):
    """A field of the class alone: help, parser, what is recorded and what is compared follow."""

    class MoreOptions(TrainOptions):
        """Train."""

        sparkle: int = option(3, "number of sparks", affects="model", group="training", unit="Hz")
        glitter: bool = option(False, "shine", affects="nothing", group="output")

    command = Command("train_model", MoreOptions, "training.train:train_model")
    monkeypatch.setitem(COMMANDS, "train_model", command)
    page = help_page(command)
    assert "--sparkle             number of sparks (Hz; default: 3)" in page
    job = parse(["train_model", "--sparkle=5", "--glitter", "data"])
    assert (job.options.sparkle, job.options.glitter) == (5, True)
    with pytest.raises(ConfigError, match="--sparkle=x: expected a whole number"):
        parse(["train_model", "--sparkle=x", "data"])
    assert "sparkle" in affecting(MoreOptions, "model")
    recorded = job.options.model_dump(exclude={*affecting(MoreOptions, "nothing")})
    assert recorded["sparkle"] == 5
    assert "glitter" not in recorded
