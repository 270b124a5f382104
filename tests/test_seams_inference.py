"""Models applied to more recordings than fit into memory: one after the other, each its share."""

import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import TINY, names, walk, write_dataset, write_recording

from lisbet.api import inference as api_inference
from lisbet.cli import main
from lisbet.commands.applying import predict
from lisbet.core.config import Dataset, Features
from lisbet.core.errors import DataError
from lisbet.data import inference, reading
from lisbet.data import read as read_module
from lisbet.data.inference import Recordings, load_share
from lisbet.data.tracks import Stored
from lisbet.data.zarr.store import Store
from lisbet.options import DataOptions

LENGTHS = [60, 80, 8, 50, 33, 40]
EMBEDDER = ("models/a-embedder/model_config.yml", "models/a-embedder/weights/weights_last.pt")
TABLES = "embeddings/r{}/features_lisbet_embedding.csv"


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """An embedder; recordings as files, as a store, and as a store of another axis order."""
    place = tmp_path_factory.mktemp("trained")
    other = Features(individuals=("mouse1", "mouse0"), keypoints=("point2", "point0", "point1"),
                     space=("y", "x"))  # fmt: skip
    with pytest.MonkeyPatch.context() as patched:
        patched.chdir(place)
        write_dataset(Path("data"), LENGTHS)
        ours = [[getattr(other, axis).index(name) for name in getattr(names(), axis)]
                for axis in ("individuals", "keypoints", "space")]  # fmt: skip
        for number, length in enumerate(LENGTHS):
            turned = np.empty((length, *other.shape))
            turned[np.ix_(range(length), *ours)] = walk(length, names(), number)
            write_recording(Path(f"turned/r{number}"), turned, other)
        for name in ("data", "turned"):
            main(["convert_dataset", "--workers=1", name, f"{name}.zarr"])
        main(["train_model", *TINY, "--window_offset=3", "--epochs=1", "--run_id=a", "data"])
        main(["export_embedder", "models/a/model_config.yml", "models/a/weights/weights_last.pt"])
        main(["compute_embeddings", "data", *EMBEDDER])
    return place


@pytest.fixture
def place(trained, tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(trained / "models", "models")
    for name in ("data", "turned", "data.zarr", "turned.zarr"):
        shutil.copytree(trained / name, name)
    return tmp_path


def embeddings(place: Path = Path()) -> list[bytes]:
    return [(place / TABLES.format(n)).read_bytes() for n in range(len(LENGTHS))]


def fails(*words, capsys) -> str:
    with pytest.raises(SystemExit) as caught:
        main([str(word) for word in words])
    assert caught.value.code == 2
    said = capsys.readouterr().err
    assert "Traceback" not in said
    return said


@pytest.mark.parametrize("name", ["data.zarr", "turned.zarr"])
def test_a_store_is_read_recording_by_recording(trained, place, monkeypatch, name):
    """The tables are those of the files, byte for byte."""
    counts: list[int] = []
    read = Store.read

    def counted(self, first: int, last: int) -> np.ndarray:
        counts.append(last - first)
        return read(self, first, last)

    monkeypatch.setattr(Store, "read", counted)
    monkeypatch.setattr(reading, "READ_BYTES", 1)
    main(["compute_embeddings", "--data_format=zarr", name, *EMBEDDER])
    assert embeddings() == embeddings(trained)
    assert counts == LENGTHS


@pytest.mark.parametrize("name", ["data", "turned"])
def test_files_are_read_again_where_memory_is_short(trained, place, monkeypatch, name):
    monkeypatch.setattr(inference, "inference_limit", lambda: 150 * 48)
    kept = []
    share = Recordings.share

    def seen(records, own):
        kept.extend(not isinstance(record.tracks, Stored) for record in records)
        return share(records, own)

    monkeypatch.setattr(Recordings, "share", seen)
    main(["compute_embeddings", name, *EMBEDDER])
    assert kept == [True, True, True, False, False, False]  # 60, 80 and 8 of 150 frames
    assert embeddings() == embeddings(trained)


def test_files_that_change_meanwhile(place, monkeypatch, capsys):
    monkeypatch.setattr(inference, "inference_limit", lambda: 0)
    load_bank = predict.load_bank

    def then_touch(*words):
        bank = load_bank(*words)
        os.utime("data/r4/tracking.nc", ns=(1, 1))
        return bank

    monkeypatch.setattr(predict, "load_bank", then_touch)
    said = fails("compute_embeddings", "data", *EMBEDDER, capsys=capsys)
    assert "data: r4: its files changed" in said


def test_every_recording_is_checked_before_the_first_table(place, monkeypatch, capsys):
    monkeypatch.setattr(inference, "inference_limit", lambda: 0)
    Path("data/r5/tracking.nc").write_bytes(b"no recording")
    write_recording(Path("data/r4"), walk(40, names(keypoints=2), 4), names(keypoints=2))
    said = fails("compute_embeddings", "data", *EMBEDDER, capsys=capsys)
    assert "2 of 6 recordings in data cannot be used" in said
    assert "r4: keypoints are" in said
    assert "r5: tracking.nc cannot be read" in said
    assert not Path("embeddings").exists()


def test_a_store_that_the_model_does_not_fit_is_not_read(place, monkeypatch, capsys):
    write_dataset(Path("other"), [20], names(keypoints=2))
    main(["convert_dataset", "--workers=1", "other", "other.zarr"])

    def read(self, first, last):
        raise AssertionError("tracks were read")

    monkeypatch.setattr(Store, "read", read)
    said = fails("compute_embeddings", "--data_format=zarr", "other.zarr", *EMBEDDER, capsys=capsys)
    assert "keypoints are point0, point1 instead of" in said
    assert not Path("embeddings").exists()


def test_a_store_that_is_replaced_meanwhile(place, monkeypatch, capsys):
    load_bank = predict.load_bank

    def then_replace(*words):
        bank = load_bank(*words)
        write_dataset(Path("other"), [20])
        main(["convert_dataset", "--workers=1", "--overwrite", "other", "data.zarr"])
        return bank

    monkeypatch.setattr(predict, "load_bank", then_replace)
    said = fails("compute_embeddings", "--data_format=zarr", "data.zarr", *EMBEDDER, capsys=capsys)
    assert "data.zarr was replaced" in said


def test_each_process_reads_its_share_of_the_files(place, monkeypatch):
    read: list[str] = []
    read_one = read_module.read_one

    def counted(source, *words):
        read.append(source.id)
        return read_one(source, *words)

    monkeypatch.setattr(read_module, "read_one", counted)
    dataset = Dataset(path=Path("data"), format="movement")
    own_parts: list = []

    def gather(own):
        own_parts.extend(own)
        return own_parts

    for number in range(len(LENGTHS)):  # of different sizes, so that the order is known
        with Path(f"data/r{number}/tracking.nc").open("ab") as stream:
            stream.write(bytes(1000 * (6 - number)))
    monkeypatch.setattr(inference, "gather_object", gather)
    monkeypatch.setattr(inference, "accepted", lambda dataset, sources, outcomes: outcomes)
    with pytest.raises(KeyError):  # the first process has not heard of the second one yet
        load_share(dataset, DataOptions(), 0, 2)
    first, read[:] = list(read), []
    found, own = load_share(dataset, DataOptions(), 1, 2)
    assert sorted(first + read) == [f"r{n}" for n in range(6)]
    assert [f"r{n}" for n in own] == read
    assert len(own) == 3
    assert [record.frames for record in found] == LENGTHS
    elsewhere = [n for n in range(6) if n not in own]
    assert all(isinstance(found[n].tracks, Stored) for n in elsewhere)
    assert not any(isinstance(found[n].tracks, Stored) for n in own)


def test_each_process_reads_its_share_of_a_store(trained, place, monkeypatch):
    """Two processes, one after the other."""
    read: list[tuple[int, int]] = []
    whole_read = Store.read

    def counted(self, first: int, last: int) -> np.ndarray:
        read.append((first, last))
        return whole_read(self, first, last)

    monkeypatch.setattr(Store, "read", counted)
    monkeypatch.setattr(reading, "READ_BYTES", 1)
    for rank in (0, 1):
        before = len(read)
        monkeypatch.setattr(api_inference, "load_share",
                            lambda *words, rank=rank: load_share(*words[:2], rank, 2))  # fmt: skip
        # The second process does not look at what the first one wrote: only the main one checks.
        main(["compute_embeddings", "--data_format=zarr", "data.zarr", *EMBEDDER,
              *["--overwrite"] * rank])  # fmt: skip
        assert len(list(Path("embeddings").glob("r*"))) == len(read)
        assert sum(last - first for first, last in read[before:]) in (128, 143)  # of 271 frames
    assert embeddings() == embeddings(trained)
    assert len(set(read)) == len(LENGTHS)


def test_recordings_of_a_share_are_banks_of_their_own(place):
    records = Store.open(place / "data.zarr").records()
    bank = Recordings.share([replace(r, labels=None) for r in records], [1, 4])
    assert (bank.frames, len(bank)) == (sum(LENGTHS), 6)
    for number, alone in bank.each():
        assert alone.ids == (f"r{number}",)
        expected = np.nan_to_num(np.array(records[number].position))
        np.testing.assert_array_equal(alone.tracks[1:-1].numpy(), expected)
        assert not alone.tracks[[0, -1]].any()
    with pytest.raises(DataError, match="cannot be read"):
        shutil.rmtree(place / "data.zarr" / "position")
        list(bank.each())
