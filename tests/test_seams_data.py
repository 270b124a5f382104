"""Recordings that are read when they are needed, and what else meets them."""

from pathlib import Path

import pytest
from conftest import TINY, write_dataset

from lisbet.cli import main
from lisbet.training import datasets

RUN = ["train_model", *TINY, "--warmup_epochs=0", "--data_format=zarr"]


def fails(*words, capsys) -> str:
    capsys.readouterr()
    with pytest.raises(SystemExit) as caught:
        main([str(word) for word in words])
    assert caught.value.code == 2
    said = capsys.readouterr().err
    assert "Traceback" not in said
    return said


@pytest.fixture(scope="module")
def converted(tmp_path_factory) -> Path:
    """Twenty recordings, as files and as a store."""
    place = tmp_path_factory.mktemp("converted")
    write_dataset(place / "data", [60 + n for n in range(20)])
    main(["convert_dataset", "--workers=1", str(place / "data"), str(place / "data.zarr")])
    return place


@pytest.fixture
def place(converted, tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in ("data", "data.zarr"):
        Path(name).symlink_to(converted / name)
    return tmp_path


# The memory that a run began with -----------------------------------------------------------------


def of_run(run: str) -> str:
    lines = Path("models", run, "run_config.yml").read_text().splitlines()
    return next(line.split()[1] for line in lines if "bank_memory" in line)


@pytest.fixture
def free(monkeypatch):
    """Set how much memory there is, in recordings of the dataset here."""
    size = 80 * 12 * 4

    def say(recordings: float) -> None:
        monkeypatch.setattr(datasets, "available_memory", lambda: int(recordings * size))

    monkeypatch.setattr(datasets, "MOVING_BYTES", 12 * size)
    return say


def test_a_resumed_run_keeps_the_memory_that_it_began_with(place, free, capsys):
    """Less, or more, is free on the machine where a requeued job goes on."""
    for first, then, kept in ((1000, 25, "all"), (25, 1000, "45KB")):
        run = f"--run_id=began_with_{first}"
        free(first)
        main([*RUN, "--epochs=1", run, "data.zarr"])
        assert of_run(f"began_with_{first}") == kept
        free(then)
        main([*RUN, "--epochs=2", run, "--resume", "data.zarr"])
        assert of_run(f"began_with_{first}") == kept
    said = fails(*RUN, "--epochs=3", "--run_id=began_with_1000", "--resume", "--bank_memory=45KB",
                 "data.zarr", capsys=capsys)  # fmt: skip
    assert "--bank_memory: was 'all', is '45KB'" in said  # what the user says still counts


def test_a_machine_that_is_too_small_for_what_a_run_began_with(place, free, capsys):
    free(1000)
    main([*RUN, "--epochs=1", "--run_id=a", "data.zarr"])
    free(5)
    for more in ((), ("--dry_run",)):
        said = fails(*RUN, "--epochs=2", "--run_id=a", "--resume", *more, "data.zarr",
                     capsys=capsys)  # fmt: skip
        assert "models/a" in said
        assert "all recordings in memory" in said
        assert "0.1 MB" in said
    free(25)
    main([*RUN, "--epochs=1", "--run_id=b", "data.zarr"])
    free(11)
    said = fails(*RUN, "--epochs=2", "--run_id=b", "--resume", "data.zarr", capsys=capsys)
    assert "--bank_memory=45KB" in said
    assert of_run("b") == "45KB"


def test_the_file_of_a_run_that_cannot_be_read_says_nothing_of_memory(place, free):
    """The error of a damaged checkpoint or configuration is another one's to give."""
    free(1000)
    main([*RUN, "--epochs=1", "--run_id=a", "data.zarr"])
    Path("models/a/run_config.yml").write_text("options: []")
    main([*RUN, "--epochs=2", "--run_id=a", "--resume", "data.zarr"])
    assert of_run("a") == "all"
