"""Files of options (--config): every value is the text that the user wrote."""

import pytest

from lisbet.cli.commands import COMMANDS
from lisbet.core.errors import ConfigError


def read(tmp_path, text: str):
    path = tmp_path / "options.yml"
    path.write_text(f"data_path: mice\n{text}\n")
    return COMMANDS["train_model"].check({"config": str(path)})


@pytest.mark.parametrize(
    ("text", "name", "value"),
    [
        ("run_id: 007", "run_id", "007"),  # YAML reads the number 7
        ("run_id: 0x1F", "run_id", "0x1F"),
        ("run_id: 1e5", "run_id", "1e5"),
        ("run_id: 1_000", "run_id", "1_000"),
        ("run_id: 2024-1-1", "run_id", "2024-1-1"),  # a date
        ("run_id: yes", "run_id", "yes"),
        ("run_id: null", "run_id", None),
        ("run_id:", "run_id", None),
        ("run_id: 'null'", "run_id", "null"),
        ("mixed_precision: no", "mixed_precision", "no"),  # false
        ("max_time: 23:50", "max_time", "23:50"),  # 1430, in base 60
        ("wandb: on\nwandb_notes: 12:30:05", "wandb_notes", "12:30:05"),
        ("data_filter: [007, no, 1.10]", "data_filter", ("007", "no", "1.10")),
        ("data_filter: 1.10", "data_filter", ("1.10",)),
        (
            "data_scale: 0." + "0" * 200 + f"1x0.{250 * '0'}1",
            "data_scale",
            "0." + "0" * 200 + f"1x0.{250 * '0'}1",
        ),
        ("learning_rate: 1e-3", "learning_rate", 1e-3),
        ("save_history: true", "save_history", True),
        ("save_history: no", "save_history", False),
        ("save_history: Off", "save_history", False),
    ],
)
def test_text_stays_text(text, name, value, tmp_path):
    found = getattr(read(tmp_path, text), name)
    assert (str(found) if name in ("max_time", "data_scale") else found) == value


@pytest.mark.parametrize(("text", "said"), [("seed: 1e3", "--seed=1e3"), ("epochs: 010.", "010.")])
def test_a_number_is_read_as_on_the_command_line(text, said, tmp_path):
    with pytest.raises(ConfigError, match=said):
        read(tmp_path, text)
