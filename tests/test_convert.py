"""Converted datasets: the same recordings in one Zarr store, whole or not at all."""

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import psutil
import pytest
import xarray as xr
import zarr
from conftest import TINY, names, walk, write_dataset, write_recording

from lisbet.cli import main
from lisbet.core.config import Dataset
from lisbet.core.errors import DataError
from lisbet.data.load import load_records
from lisbet.data.zarr import store, writer
from lisbet.data.zarr.store import Store
from lisbet.options import DataOptions
from lisbet.training.checkpoint.directory import CheckpointDirectory

LENGTHS = [60, 80, 8, 50]


@pytest.fixture
def place(tmp_path, monkeypatch) -> Path:
    write_dataset(tmp_path / "data", LENGTHS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(store, "SHARD_BYTES", 4096)  # many shards, also of small recordings
    monkeypatch.setattr(store, "CHUNK_BYTES", 1024)
    return tmp_path


def converted(*words: str) -> Path:
    main(["convert_dataset", "--workers=1", *words, "data", "data.zarr"])
    return Path("data.zarr")


def refused(capsys, *words: str) -> str:
    capsys.readouterr()
    with pytest.raises(SystemExit) as caught:
        main([*words])
    assert caught.value.code == 2
    said = capsys.readouterr().err
    assert said.count("betman: error") == 1
    assert "Traceback" not in said
    return said


def read(path: Path, form: str = "zarr"):
    return load_records(Dataset(path=path, format=form), DataOptions())


def same(ours, theirs) -> None:
    assert [record.id for record in ours] == [record.id for record in theirs]
    for one, other in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(np.asarray(one.position), np.asarray(other.position))
        assert one.features == other.features
        assert one.digest == other.digest
        assert (one.fps, one.steps, one.missing) == (other.fps, other.steps, other.missing)


def left() -> list[str]:
    return sorted(path.name for path in Path().iterdir() if path.name != "data")


def test_everything_comes_back(place, capsys):
    path = converted()
    assert "4 recordings, 198 frames written" in capsys.readouterr().out
    same(read(path), read(Path("data"), "movement"))
    assert len(list((path / "position" / "c").iterdir())) == 3  # shards
    assert left() == ["data.zarr"]


def test_xarray_reads_it_as_labelled_dimensions(place):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        dataset = xr.open_zarr(converted())
    assert dataset.position.dims == ("frame", "individuals", "keypoints", "space")
    assert list(dataset.individuals.values) == ["mouse0", "mouse1"]
    assert dict(zip(dataset.recording.values, dataset.frames.values.tolist(), strict=True)) == {
        f"r{n}": length for n, length in enumerate(LENGTHS)
    }
    assert all(len(value) == 64 for value in dataset.source_sha256.values)
    assert dataset.attrs["preparation"]["storage"] == "float32"


def test_annotations_come_along(place):
    for number, length in enumerate(LENGTHS):
        rows = "behavior,start_time,end_time\nsniff,0,0.1\n" + "chase,0.1,0.2\n" * (length > 9)
        (Path("data") / f"r{number}" / "annotations.csv").write_text(rows)
    ours = converted("--annot_format=csv_events", "--fps=30")
    dataset = Dataset(path=ours, format="zarr", annotations="movement")
    source = Dataset(path=Path("data"), format="movement", annotations="csv_events")
    stored, expected = (load_records(d, DataOptions()) for d in (dataset, source))
    for one, other in zip(stored, expected, strict=True):
        assert one.labels.behaviors == other.labels.behaviors
        np.testing.assert_array_equal(one.labels.active, other.labels.active)
    with pytest.raises(DataError, match="holds no annotations"):
        shutil.rmtree(ours)
        load_records(dataset.model_copy(update={"path": converted()}), DataOptions())


def test_half_the_size_and_the_error_is_stated(place, capsys):
    path = converted("--storage=float16")
    said = capsys.readouterr().out
    worst = max(
        float(np.abs(np.asarray(one.position) - other.position).max())
        for one, other in zip(read(path), read(Path("data"), "movement"), strict=True)
    )
    assert 0 < worst <= 2**-12  # half of the last digit of float16 below 1
    assert f"at most {worst:.2g} of" in said
    assert zarr.open_group(path)["position"].dtype == np.float16


TRAIN = ["train_model", *TINY, "--epochs=2", "--warmup_epochs=0", "--hash_samples",
         "--dev_ratio=0.5", "--save_history"]  # fmt: skip


def test_the_same_model_as_from_the_files_and_back(place, capsys):
    """The same samples and weights; a run goes on from the other format."""
    converted("--data_scale=100x100")
    main([*TRAIN, "--run_id=files", "--data_scale=100x100", "data"])
    main([*TRAIN, "--run_id=stored", "--data_format=zarr", "data.zarr"])
    for name in ("sample_hashes.csv", "weights/weights_last.pt", "training_history.csv"):
        ours, theirs = (Path("models", run, name).read_bytes() for run in ("stored", "files"))
        assert ours == theirs
    more = [word for word in TRAIN if "epochs=2" not in word] + ["--epochs=3", "--resume"]
    main([*more, "--run_id=files", "--data_format=zarr", "data.zarr"])
    assert len(CheckpointDirectory(Path("models/files")).published()) == 2
    assert len(Path("models/files/training_history.csv").read_text().splitlines()) == 4
    said = refused(capsys, *more, "--run_id=stored", "--data_scale=120x100", "data")
    assert "the recordings are not those" in said
    assert "--data_scale: was None, is '120x100'" in said


# Going on ---------------------------------------------------------------------------------------


def interrupt_after(shards: int, monkeypatch, *words: str) -> None:
    """Convert until so many shards are written."""
    write, calls = writer.Writer._write_shard, []

    def killed(self):
        if len(calls) == shards:
            raise KeyboardInterrupt
        calls.append(1)
        write(self)

    with monkeypatch.context() as patched:
        patched.setattr(writer.Writer, "_write_shard", killed)
        with pytest.raises(SystemExit):
            converted(*words)


@pytest.mark.parametrize("shards", [0, 1, 2])
def test_an_interrupted_conversion_goes_on(shards, place, monkeypatch, caplog):
    expected = converted()
    os.rename(expected, "whole.zarr")
    interrupt_after(shards, monkeypatch)
    reads = []
    assert not Path("data.zarr").exists()
    inner = writer.read_all
    monkeypatch.setattr(writer, "read_all", lambda left, *more: reads.extend(left) or
                        inner(left, *more))  # fmt: skip
    same(read(converted()), read(Path("whole.zarr")))
    # Two shards of 85 frames: the first two recordings end in the second one.
    assert len(reads) == [4, 3, 1][shards]
    assert left() == ["data.zarr", "whole.zarr"]


def test_a_killed_conversion_leaves_nothing_that_looks_like_a_store(place, tmp_path):
    write_dataset(tmp_path / "data", [3000] * 30)
    job = subprocess.Popen(
        [sys.executable, "-m", "lisbet", "convert_dataset", "--workers=2", "data", "data.zarr"]
    )
    for _ in range(1000):
        if list(Path().glob(".data.zarr.*.partial/position")):
            break
        time.sleep(0.02)
    readers = psutil.Process(job.pid).children(recursive=True)
    assert len(readers) > 1
    os.kill(job.pid, signal.SIGKILL)
    job.wait()
    _, stay = psutil.wait_procs(readers, timeout=20)
    assert not stay
    assert not Path("data.zarr").exists()
    same(read(converted()), read(Path("data"), "movement"))
    assert left() == ["data.zarr"]


def test_the_same_command_again_does_nothing(place, capsys):
    path = converted()
    before = {p: p.stat().st_mtime_ns for p in path.rglob("*")}
    capsys.readouterr()
    converted()
    assert "holds these recordings already" in capsys.readouterr().out
    assert {p: p.stat().st_mtime_ns for p in path.rglob("*")} == before


def test_new_recordings_are_added(place, capsys):
    old = converted()
    shutil.copytree(old, "before.zarr")
    inodes = {p.stat().st_ino for p in (old / "position" / "c").rglob("*") if p.is_file()}
    write_recording(Path("data") / "r9", walk(70, names(), 9), names())
    said = refused(capsys, "convert_dataset", "data", "data.zarr")
    assert "lacks 1 of these recordings, such as r9; add them with --append" in said
    converted("--append")
    same(read(old), read(Path("data"), "movement"))
    now = {p.stat().st_ino for p in (old / "position" / "c").rglob("*") if p.is_file()}
    assert inodes < now  # finished shards are linked, not written again
    same(read(Path("before.zarr")), read(old)[:4])
    assert left() == ["before.zarr", "data.zarr"]
    write_recording(Path("data") / "r9", walk(71, names(), 9), names())
    said = refused(capsys, "convert_dataset", "--append", "data", "data.zarr")
    assert "r9 changed since" in said
    converted("--overwrite")
    same(read(old), read(Path("data"), "movement"))


def test_an_interrupted_addition_goes_on(place, monkeypatch):
    converted()
    for number in range(4, 9):
        write_recording(Path("data") / f"r{number}", walk(60, names(), number), names())
    before = {p: p.read_bytes() for p in Path("data.zarr").rglob("*") if p.is_file()}
    interrupt_after(2, monkeypatch, "--append")
    assert {p: p.read_bytes() for p in Path("data.zarr").rglob("*") if p.is_file()} == before
    converted("--append")
    same(read(Path("data.zarr")), read(Path("data"), "movement"))
    assert left() == ["data.zarr"]


def test_changed_annotations_are_noticed(place, capsys):
    for number in range(4):
        file = Path("data") / f"r{number}" / "annotations.csv"
        file.write_text("behavior,start_time,end_time\nsniff,0,0.1\n")
    words = ("--annot_format=csv_events", "--fps=30")
    converted(*words)
    file.write_text("behavior,start_time,end_time\nsniff,0,0.2\nsniff,0.3,0.4\n")
    said = refused(capsys, "convert_dataset", "--workers=1", *words, "data", "data.zarr")
    assert "r3 changed since" in said


def test_what_took_long_is_not_undone_by_one_bad_recording(place, capsys):
    (Path("data") / "r3" / "tracking.nc").write_bytes(b"nothing")
    said = refused(capsys, "convert_dataset", "--workers=1", "data", "data.zarr")
    assert "with --skip_bad leaves them out and continues from there" in said
    assert [name[-8:] for name in left()] == [".partial"]
    converted("--skip_bad")
    assert [record.id for record in read(Path("data.zarr"))] == ["r0", "r1", "r2"]
    assert left() == ["data.zarr"]


def test_what_cannot_be_used_is_named(place, capsys):
    shutil.rmtree(Path("data") / "r0")
    (Path("data") / "r1" / "tracking.nc").write_bytes(b"CDF\x01 no more")
    other = names(keypoints=2)
    write_recording(Path("data") / "r5", walk(30, other, 5), other)
    said = refused(capsys, "convert_dataset", "--workers=1", "data", "data.zarr")
    assert "2 of 4 recordings in data cannot be used" in said
    assert "keypoints are point0, point1; 2 of 3 recordings have point0, point1, point2" in said
    assert left() == []
    converted("--skip_bad")
    said = capsys.readouterr()
    assert "left out: r1" in said.out
    assert "left out: r5" in said.out
    assert [record.id for record in read(Path("data.zarr"))] == ["r2", "r3"]
    assert set(zarr.open_group("data.zarr").attrs["left_out"]) == {"r1", "r5"}
    converted("--skip_bad")
    assert "holds these recordings already" in capsys.readouterr().out


# Bad input --------------------------------------------------------------------------------------


def test_other_options_than_before(place, capsys):
    converted()
    said = refused(capsys, "convert_dataset", "--storage=float16", "data", "data.zarr")
    assert "--storage: was 'float32', is 'float16'" in said
    said = refused(capsys, "convert_dataset", "--append", "--overwrite", "data", "data.zarr")
    assert "pass one of them" in said
    said = refused(capsys, "convert_dataset", "--data_format=zarr", "data.zarr", "b.zarr")
    assert "converted already" in said


def test_what_is_no_store(place, capsys):
    train = [*TRAIN, "--run_id=a", "--data_format=zarr"]
    assert "nowhere does not exist" in refused(capsys, *train, "nowhere")
    assert "data is no Zarr store" in refused(capsys, *train, "data")
    zarr.create_group("other.zarr", zarr_format=3)
    assert "another program's Zarr store" in refused(capsys, *train, "other.zarr")
    zarr.create_group("old.zarr", zarr_format=2)
    assert "version 2" in refused(capsys, *train, "old.zarr")
    said = refused(capsys, "convert_dataset", "data", "other.zarr")
    assert "other.zarr is a folder that holds zarr.json, not a store that betman" in said
    converted()
    said = refused(capsys, "train_model", *TINY, "--data_format=movement", "data.zarr")
    assert "1 of zarr; see --data_format" in said
    said = refused(capsys, *train, "--data_scale=9x9", "data.zarr")
    assert "--data_scale cannot apply" in said
    said = refused(capsys, *train, "--data_filter=nobody", "data.zarr")
    assert "named like r0, r1" in said
    assert not Path("models").exists()


@pytest.mark.parametrize("damage", ["flipped", "cut", "missing"])
def test_damage_is_noticed_and_named(damage, place, capsys):
    path = converted()
    shard = path / "position" / "c" / "1" / "0" / "0" / "0"
    content = bytearray(shard.read_bytes())
    if damage == "flipped":
        content[len(content) // 3] ^= 1
        shard.write_bytes(content)
    elif damage == "cut":
        shard.write_bytes(content[:-9])
    else:
        shard.unlink()
    said = refused(capsys, *TRAIN, "--run_id=a", "--data_format=zarr", "data.zarr")
    assert "data.zarr: frames 0 to 197 (r0 to r3) cannot be read" in said
    assert not Path("models").exists()


def test_a_full_disk(place, capsys, monkeypatch):
    def full(array, *_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(zarr.Array, "__setitem__", full)
    said = refused(capsys, "convert_dataset", "--workers=1", "data", "data.zarr")
    assert "data.zarr: No space left on device" in said
    assert not Path("data.zarr").exists()


def test_a_damaged_table(place, capsys):
    path = converted()
    (path / "start" / "c" / "0").write_bytes(b"xx")
    assert "data.zarr is damaged" in refused(
        capsys, *TRAIN, "--run_id=a", "--data_format=zarr", "data.zarr"
    )


# Information ------------------------------------------------------------------------------------


def test_information(place, capsys):
    main(["dataset_info", "data"])
    files = capsys.readouterr().out
    assert "4 recordings, 198 frames" in files
    found = [xr.load_dataset(file)["position"] for file in Path("data").glob("*/tracking.nc")]
    assert len(found) == 4
    ranges = [
        f"{axis} from {min(float(one.sel(space=axis).min()) for one in found):.0f} to "
        f"{max(float(one.sel(space=axis).max()) for one in found):.0f}"
        for axis in ("x", "y")
    ]
    assert f"axes:        {', '.join(ranges)}\n" in files
    assert "8 to" in files
    converted("--data_scale=100x100")
    capsys.readouterr()
    main(["dataset_info", "--data_format=zarr", "data.zarr"])
    stored = capsys.readouterr().out
    assert stored.splitlines()[0] == files.splitlines()[0]
    (Path("data") / "r1" / "tracking.nc").write_bytes(b"nothing")
    said = refused(capsys, "dataset_info", "data")
    assert "1 of 4 recordings in data cannot be used" in said


# Object stores ----------------------------------------------------------------------------------


@pytest.fixture
def bucket(monkeypatch):
    """An object store on the loopback."""
    pytest.importorskip("s3fs", reason="s3fs is not installed")
    moto = pytest.importorskip("moto.server", reason="moto is not installed")
    import s3fs

    server = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    for name, value in {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}", "AWS_ACCESS_KEY_ID": "a",
        "AWS_SECRET_ACCESS_KEY": "b", "AWS_DEFAULT_REGION": "us-east-1", "NO_PROXY": "*",
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    s3fs.S3FileSystem.clear_instance_cache()
    s3fs.S3FileSystem().mkdir("lab")
    yield "s3://lab"
    server.stop()


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")
def test_an_object_store(place, bucket, capsys):
    import s3fs

    target = f"{bucket}/mice.zarr"
    main(["convert_dataset", "--workers=1", "--data_scale=100x100", "data", target])
    assert f"written to {target}" in capsys.readouterr().out
    main([*TRAIN, "--run_id=remote", "--data_format=zarr", target])
    main([*TRAIN, "--run_id=files", "--data_scale=100x100", "data"])
    name = "sample_hashes.csv"
    ours, theirs = (Path("models", run, name).read_bytes() for run in ("remote", "files"))
    assert ours == theirs
    capsys.readouterr()
    main(["dataset_info", "--data_format=zarr", target])
    assert "4 recordings, 198 frames" in capsys.readouterr().out
    # One that was killed before its end is written anew; other keys stay.
    group = zarr.open_group(target, mode="r+")
    group.attrs["format"] = store.UNFINISHED
    s3fs.S3FileSystem().pipe_file(f"{target}/position/notes.txt", b"theirs")
    said = refused(capsys, *TRAIN, "--run_id=b", "--data_format=zarr", target)
    assert "is not complete: its conversion is running or was interrupted" in said
    for words in ([], ["--overwrite"]):
        main(["convert_dataset", *words, "--workers=1", "--data_scale=100x100", "data", target])
        assert [record.id for record in read(Path(target))] == ["r0", "r1", "r2", "r3"]
    write_recording(Path("data") / "r9", walk(70, names(), 9), names())
    main(["convert_dataset", "--append", "--workers=1", "--data_scale=100x100", "data", target])
    assert [record.frames for record in read(Path(target))] == [*LENGTHS, 70]
    assert s3fs.S3FileSystem().cat_file(f"{target}/position/notes.txt") == b"theirs"
    assert s3fs.S3FileSystem().ls("lab", refresh=True) == ["lab/mice.zarr"]
    said = refused(capsys, "convert_dataset", "data", bucket)
    assert "s3://lab is all of a bucket" in said
    said = refused(capsys, *TRAIN, "--run_id=b", "--data_format=zarr", f"{bucket}/none.zarr")
    assert f"{bucket}/none.zarr cannot be opened" in said


def test_the_table_survives_json(place):
    """What is known of each recording is text and numbers, nothing that must be trusted."""
    attributes = dict(zarr.open_group(converted()).attrs)
    assert json.loads(json.dumps(attributes)) == attributes
    assert Store.open(Path("data.zarr")).table["frames"].tolist() == LENGTHS
