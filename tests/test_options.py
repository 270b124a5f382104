"""What options declare about themselves."""

from typing import get_args

import pytest

from lisbet.cli.commands import COMMANDS
from lisbet.options import ConvertOptions, TrainOptions, affecting, extra_of
from lisbet.options._base import Effect


@pytest.mark.parametrize("command", COMMANDS)
def test_every_option_says_what_it_affects(command):
    for name, field in COMMANDS[command].fields.items():
        assert extra_of(field).get("affects") in get_args(Effect), name
        assert field.description, name


def test_an_option_must_say_what_it_affects():
    from lisbet.options._base import option

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
        "main_process_port", "num_machines", "num_processes", "overwrite", "resume",
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
