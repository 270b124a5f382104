"""Every command of the owner's specification is taken as it is written there."""

import re
import shlex

import pytest
from conftest import walk, write_recording

from lisbet.cli import main, parse
from lisbet.core.config import Features

MICE = Features(
    individuals=("resident", "intruder"),
    keypoints=("nose", "left_ear", "right_ear", "neck", "left_hip", "right_hip", "tail"),
    space=("x", "y"),
)


def commands(spec) -> list[list[str]]:
    """The words of each command: comments cut off, continued lines joined."""
    text = (spec / "model-training.rst").read_text()
    found = []
    for block in re.findall(r"\.\. code-block:: console\n\n((?:    .*\n|\n)+)", text):
        lines = [re.sub(r"\\\s+#.*$", r"\\", line.strip()) for line in block.splitlines()]
        joined = re.sub(r"\\\n", " ", "\n".join(lines))
        found += [shlex.split(line[2:], comments=True) for line in joined.splitlines() if line]
    return found


def test_all_commands_parse(spec):
    found = commands(spec)
    assert len(found) == 8
    for program, *words in found:
        assert program == "betman"
        if words[0] == "fetch_dataset":
            continue  # brings data from the internet
        words = ["data" if word == "..." else word for word in words]
        assert parse(words) is not None


def test_the_long_commands_run(spec, tmp_path, monkeypatch):
    """As written, but for one epoch, on two short recordings in place of the downloaded ones."""
    monkeypatch.chdir(tmp_path)
    for number in range(2):
        place = tmp_path / "datasets" / "CalMS21" / "unlabeled_videos" / f"mouse{number}"
        write_recording(place, walk(50, MICE, number), MICE)
    for _, *words in commands(spec):
        if words[-1].startswith(("datasets", "models/")):
            assert "--epochs=100" in words or words[0] == "export_embedder"
            main([word.replace("--epochs=100", "--epochs=1") for word in words])
    models = {path.name for path in (tmp_path / "models").iterdir()}
    assert models == {
        "lisbet64x8-calms21U",
        "lisbet64x8-calms21U-aug",
        "lisbet64x8-calms21U-embedder",
    }
    history = tmp_path / "models" / "lisbet64x8-calms21U" / "training_history.csv"
    assert len(history.read_text().splitlines()) == 2


@pytest.mark.parametrize("number", range(1, 5))
def test_the_augmentations_of_the_examples(spec, number):
    words = [
        word
        for command in commands(spec)
        for word in command
        if word.startswith("--data_augmentation=")
    ][number]
    job = parse(["train_model", words, "data"])
    assert job is not None
    assert job.options.data_augmentation
