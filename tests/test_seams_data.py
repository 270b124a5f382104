"""Recordings that are read when they are needed, and what else meets them."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import TINY, names, walk, write_dataset, write_recording

from lisbet.cli import main
from lisbet.core.config import Dataset, Features, Window
from lisbet.data.bank import Bank, WindowIndex, gather
from lisbet.data.excerpt import excerpt
from lisbet.data.load import agree, load_records
from lisbet.data.record import Record
from lisbet.data.tracks import Stored
from lisbet.data.zarr.store import Store
from lisbet.distributed import memory_policy
from lisbet.options import DataOptions, TrainOptions
from lisbet.training.checkpoint.directory import CheckpointDirectory
from lisbet.training.checkpoint.resume import remembered_bank_memory
from lisbet.training.datasets import banks
from lisbet.training.inputs import TrainingInputs
from lisbet.training.logging.pictures import draw
from lisbet.training.trainer import Trainer

RUN = ["train_model", *TINY, "--warmup_epochs=0", "--data_format=zarr"]
QUICK = [*RUN, "--train_sample=0.05", "--task_ids=order"]


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
        free = int(recordings * size)
        monkeypatch.setattr(banks, "available_memory", lambda: free)
        monkeypatch.setattr(memory_policy, "available_memory", lambda: free)
        monkeypatch.setattr(memory_policy, "FILE_SHARE", 1000)  # files are read all the same

    monkeypatch.setattr(memory_policy, "STREAMING_BYTES", 12 * size)
    return say


def test_a_resumed_run_keeps_the_memory_that_it_began_with(place, free, capsys):
    """Less, or more, is free on the machine where a requeued job goes on."""
    for first, then, kept in ((1000, 25, "all"), (25, 1000, "45KB")):
        run = f"--run_id=began_with_{first}"
        free(first)
        main([*QUICK, "--epochs=1", run, "data.zarr"])
        assert of_run(f"began_with_{first}") == kept
        free(then)
        main([*QUICK, "--epochs=2", run, "--resume", "data.zarr"])
        assert of_run(f"began_with_{first}") == kept
    said = fails(*QUICK, "--epochs=3", "--run_id=began_with_1000", "--resume", "--bank_memory=45KB",
                 "data.zarr", capsys=capsys)  # fmt: skip
    assert "--bank_memory: was 'all', is '45KB'" in said  # what the user says still counts


def test_a_machine_that_is_too_small_for_what_a_run_began_with(place, free, capsys):
    free(1000)
    main([*QUICK, "--epochs=1", "--run_id=a", "data.zarr"])
    free(5)
    for more in ((), ("--dry_run",)):
        said = fails(*QUICK, "--epochs=2", "--run_id=a", "--resume", *more, "data.zarr",
                     capsys=capsys)  # fmt: skip
        assert "models/a" in said
        assert "all recordings in memory" in said
        assert "0.1 MB" in said
    free(25)
    main([*QUICK, "--epochs=1", "--run_id=b", "data.zarr"])
    free(11)
    said = fails(*QUICK, "--epochs=2", "--run_id=b", "--resume", "data.zarr", capsys=capsys)
    assert "--bank_memory=45KB" in said
    assert of_run("b") == "45KB"


def test_the_file_of_a_run_that_cannot_be_read_says_nothing_of_memory(place, free):
    """The error of a damaged checkpoint or configuration is another one's to give."""
    free(1000)
    main([*QUICK, "--epochs=1", "--run_id=a", "data.zarr"])
    Path("models/a/run_config.yml").write_text("options: []")
    assert remembered_bank_memory(Path("models/a")) is None


# Pictures of recordings that are not in memory ----------------------------------------------------

STREAMED = [*RUN, "--dev_ratio=0.4", "--bank_memory=45KB"]


@pytest.fixture
def read_at_once(monkeypatch) -> list[int]:
    """Frames of each read of a store."""
    counts = []
    read = Store.read

    def counted(self, first: int, last: int) -> np.ndarray:
        counts.append(last - first)
        return read(self, first, last)

    monkeypatch.setattr(Store, "read", counted)
    return counts


@pytest.mark.parametrize("speed", [None, 0.7, 2.0])
@pytest.mark.parametrize("offset", [0, 3])
def test_an_excerpt_gives_the_windows_of_the_whole_bank(converted, speed, offset):
    records = Store.open(converted / "data.zarr").records()
    window, whole = Window(size=12, offset=offset), Bank.from_records(records)
    rng = np.random.default_rng(1)
    number = rng.integers(0, len(records), 80)
    frame = (rng.random(80) * whole.lengths[number]).astype(int)
    frame[:4], number[:4] = [0, 1, 59, 58], 0  # ends of a recording
    index = WindowIndex.plain(number, frame)
    if speed is not None:
        index = replace(index, speed=np.full(80, speed))
    for known in (records, [r.with_position(np.array(r.position)) for r in records]):
        part, its_plan = excerpt(known, index, window)
        assert part.frames <= 80 * 25
        torch.testing.assert_close(gather(part, its_plan, window), gather(whole, index, window),
                                   rtol=0, atol=0)  # fmt: skip


def test_pictures_from_a_store_are_those_from_memory(place, monkeypatch, read_at_once):
    from lisbet.training.logging import pictures

    monkeypatch.setattr(pictures, "FRAMES", 40)
    monkeypatch.setattr(pictures, "AT_ONCE", 10)
    main([*STREAMED, "--train_sample=0.1", "--epochs=2", "--embedding_every=1", "--run_id=a",
          "data.zarr"])  # fmt: skip
    weights = torch.load("models/a/weights/weights_last.pt", weights_only=True)
    found = Path("models/a/pictures/embeddings.png").read_bytes()
    for data, kind in (("data.zarr", "zarr"), ("data", "movement")):
        options = TrainOptions(
            data_path=data, data_format=kind, run_id="a", dev_ratio=0.4, window_size=12,
            emb_dim=8, num_layers=1, num_heads=2, hidden_dim=16, batch_size=16, overwrite=True,
        )  # fmt: skip
        setup = TrainingInputs.from_options(options, torch.device("cpu"))
        assert setup.loaded.memory is None
        draw(setup, weights, torch.device("cpu"))
        assert Path("models/a/pictures/embeddings.png").read_bytes() == found
    setup = TrainingInputs.from_options(options.model_copy(update={
        "bank_memory": banks.Size(bytes=45 * 1024), "data_path": (Path("data.zarr"),),
        "data_format": ("zarr",)}), torch.device("cpu"))  # fmt: skip
    read_at_once.clear()
    draw(setup, weights, torch.device("cpu"))
    assert 0 < max(read_at_once) < 280  # of 560 frames that are held out: ten windows at a time


def test_confusion_of_recordings_that_are_not_in_memory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for number in range(20):
        folder = Path("data", f"r{number}")
        write_recording(folder, walk(70, names(), number), names())
        active = np.arange(70) // 7 % 2
        table = "".join(f"{'run' if a else 'rest'},{n / 30},{(n + 1) / 30}\n"
                        for n, a in enumerate(active))  # fmt: skip
        (folder / "annotations.csv").write_text(f"behavior,start_time,end_time\n{table}")
    main(["convert_dataset", "--workers=1", "--annot_format=csv_events", "data", "data.zarr"])
    main([*STREAMED, "--train_sample=0.1", "--annot_format=csv_events",
          "--task_ids=multiclass,order", "--epochs=1", "--embedding_every=1", "--run_id=a",
          "data.zarr"])  # fmt: skip
    assert {file.name for file in Path("models/a/pictures").iterdir()} == {
        "embeddings.png", "confusion_multiclass.png"
    }  # fmt: skip


# Stores beside other formats, and of other orders -------------------------------------------------


@pytest.fixture(scope="module")
def mixed(tmp_path_factory) -> Path:
    """A store, another one whose axes come in another order, and a folder of files."""
    place = tmp_path_factory.mktemp("mixed")
    usual = names()
    other = Features(individuals=("mouse1", "mouse0"), keypoints=("point2", "point0", "point1"),
                     space=("y", "x"))  # fmt: skip
    for name, features, first, count in (
        ("one", usual, 0, 20), ("two", other, 20, 8), ("files", usual, 30, 3),
    ):  # fmt: skip
        for number in range(first, first + count):
            write_recording(place / name / f"r{number}", walk(70, features, number), features)
    for name in ("one", "two"):
        main(["convert_dataset", "--workers=1", str(place / name), str(place / f"{name}.zarr")])
    return place


def records_of(*places: tuple[Path, str]) -> list[Record]:
    sets = tuple(Dataset(path=path, format=kind) for path, kind in places)
    return agree([r for part in sets for r in load_records(part, DataOptions())], sets)


def test_stored_recordings_stay_in_their_stores(mixed, read_at_once):
    mixture = ((mixed / "one.zarr", "zarr"), (mixed / "two.zarr", "zarr"),
               (mixed / "files", "movement"))  # fmt: skip
    found = records_of(*mixture)
    assert [isinstance(r.tracks, Stored) for r in found] == [True] * 28 + [False] * 3
    assert not read_at_once
    expected = records_of(*((mixed / name, "movement") for name in ("one", "two", "files")))
    assert len({r.features for r in found}) == 1
    for ours, theirs in zip(found, expected, strict=True):
        assert (ours.id, ours.features, ours.steps) == (theirs.id, theirs.features, theirs.steps)
        np.testing.assert_array_equal(np.array(ours.position), theirs.position)
    ours, theirs = Bank.from_records(found), Bank.from_records(expected)
    assert torch.equal(ours.tracks, theirs.tracks)
    again = records_of(*mixture[::-1])
    assert {r.id: r.digest for r in again} == {r.id: r.digest for r in found}
    (raw, *_) = Store.open(mixed / "two.zarr").records()
    assert raw.digest not in {r.digest for r in found}


def test_a_mixture_is_trained_on_in_parts(mixed, tmp_path, monkeypatch, capsys, read_at_once):
    monkeypatch.chdir(tmp_path)
    line = ["train_model", *TINY, "--warmup_epochs=0", "--epochs=2", "--hash_samples",
            "--dev_ratio=0.3", "--embedding_every=2", "--data_format=zarr,zarr,movement",
            "--train_sample=0.3", "--dev_sample=0.3"]  # fmt: skip
    data = ",".join(str(mixed / name) for name in ("one.zarr", "two.zarr", "files"))
    main([*line, "--bank_memory=60KB", "--run_id=a", data])
    assert max(read_at_once) < 28 * 70 / 2
    main([*line, "--bank_memory=60KB", "--run_id=b", "--overwrite", data])
    a, b = (Path("models", run, "sample_hashes.csv").read_text() for run in "ab")
    assert a == b
    said = fails(*line, "--bank_memory=9KB", "--run_id=c", data, capsys=capsys)
    assert "the recordings take 0.1 MB, of which 0.0 MB are not converted" in said
    monkeypatch.setattr(banks, "available_memory", lambda: 100 * 1024)
    monkeypatch.setattr(memory_policy, "available_memory", lambda: 100 * 1024)
    monkeypatch.setattr(memory_policy, "FILE_SHARE", 1000)
    main([*line, "--run_id=d", data])
    assert of_run("d") == f"{(3 * 70 * 48 + 50 * 1024) // 1024}KB"
    resumed = [word for word in line if word != "--epochs=2"]
    main([*resumed, "--run_id=d", "--epochs=3", "--resume", data])


# Stores that are replaced while they are read -----------------------------------------------------


def replaced_at(monkeypatch, step: int, replace_store) -> None:
    """Replace a store before a step of a run."""
    train_step = Trainer.train_step

    def then(self) -> None:
        if self.step == step:
            replace_store()
        train_step(self)

    monkeypatch.setattr(Trainer, "train_step", then)


def convert(source: str, *words: str) -> None:
    main(["convert_dataset", "--workers=1", source, "own.zarr", *words])


@pytest.fixture
def own(place) -> Path:
    """A store that may be changed."""
    shutil.copytree(place / "data.zarr", "own.zarr")
    write_dataset(Path("others"), [61 + n for n in range(20)])
    return Path("own.zarr")


def test_a_run_notices_that_its_store_was_replaced(own, monkeypatch, capsys):
    replaced_at(monkeypatch, 60, lambda: convert("others", "--overwrite"))
    said = fails(*STREAMED, "--epochs=4", "--run_id=a", str(own), capsys=capsys)
    assert said.count("own.zarr was replaced") == 1
    assert CheckpointDirectory(Path("models/a")).published()


def test_a_run_goes_on_with_the_same_recordings(own, monkeypatch):
    """The store was converted once more, or others were added to it."""
    main([*STREAMED, "--epochs=3", "--hash_samples", "--run_id=a", str(own)])

    def convert_again_and_add() -> None:
        convert("data", "--overwrite")
        shutil.copytree("data", "more")
        write_recording(Path("more/s0"), walk(70, names(), 77), names())
        convert("more", "--append")

    replaced_at(monkeypatch, 50, convert_again_and_add)
    main([*STREAMED, "--epochs=3", "--hash_samples", "--run_id=b", str(own)])
    a, b = (Path("models", run, "sample_hashes.csv").read_text() for run in "ab")
    assert a == b
    assert Store.open(own).table["recording"].tolist()[-1] == "s0"


def test_what_was_opened_is_not_read_from_another_store(own):
    records = Store.open(own).records()
    first = np.array(records[3].position)
    convert("others", "--overwrite")
    with pytest.raises(Exception, match=r"own\.zarr was replaced") as caught:
        np.array(records[3].position)
    assert type(caught.value).__name__ == "DataError"
    assert not np.array_equal(first, np.array(Store.open(own).records()[3].position))
