"""Data from others: nothing is written outside, nothing outside is read, memory is bounded."""

import json
import os
import shutil
import warnings
import zlib
from pathlib import Path

import h5py
import netCDF4
import numpy as np
import pytest
import zarr
from conftest import names, walk, write_dataset, write_recording
from zarr.errors import ZarrUserWarning

from lisbet.cli import main
from lisbet.core.config import Dataset
from lisbet.core.errors import DataError
from lisbet.data.files import limits
from lisbet.data.files.ids import check_ids
from lisbet.data.files.sources import find_sources
from lisbet.data.labels import LABEL_READERS
from lisbet.data.load import agree, load_records
from lisbet.data.zarr.store import Store
from lisbet.options import DataOptions

BAD_IDS = {
    "": "is empty",
    "/etc/r0": "absolute",
    "C:/r0": "absolute",
    "../../r0": "'..'",
    "a/../../r0": "'..'",
    "./r0": "'.'",
    "..": "'..'",
    "a//b": "empty part",
    "a/": "empty part",
    "a\\b": "backslash",
    "a\nb": "control character",
    "a\0b": "control character",
    "a\x1b[31mb": "control character",
    "a\u2028b": "control character",
    "a\udc80b": "undecodable byte",
    "é" * 128: "256 bytes",
    "/".join(["a" * 200] * 11): "2210 bytes",
}


def refused(path: Path, match: str, format: str = "movement", **more: object) -> str:
    with pytest.raises(DataError, match=match) as caught:
        load_records(Dataset(path=path, format=format, **more), DataOptions())
    return str(caught.value)


# Ids --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("record_id", "problem"), BAD_IDS.items(), ids=map(ascii, BAD_IDS))
def test_ids_that_are_no_path_below_a_folder(record_id, problem):
    with pytest.raises(DataError) as caught:
        check_ids(["r0", record_id], "some/data")
    said = str(caught.value)
    assert said.startswith("some/data: a recording has the id ")
    assert problem in said
    assert said.isprintable()


def test_ids_that_are_used_in_labs():
    check_ids(
        ["Maus 1", "día 2/ratón", "実験/マウス", "a.b", "..a", "2024-01-01T12:00", "x" * 255], ""
    )
    with pytest.raises(DataError, match="data: 2 recordings have the id 'a'"):
        check_ids(["a", "b", "a"], "data")


@pytest.fixture(scope="module")
def converted(tmp_path_factory) -> Path:
    """A converted dataset of four recordings."""
    place = tmp_path_factory.mktemp("converted")
    write_dataset(place / "data", [60, 80, 8, 50])
    for number, length in enumerate([60, 80, 8, 50]):
        file = place / "data" / f"r{number}" / "annotations.csv"
        file.write_text(f"behavior,start_time,end_time\nsniff,0,{length / 60}\n")
    paths = (str(place / "data"), str(place / "data.zarr"))
    main(["convert_dataset", "--workers=1", "--annot_format=csv_events", *paths])
    return place / "data.zarr"


@pytest.fixture
def stored(converted, tmp_path) -> Path:
    """A copy of it, whose arrays a test changes."""
    return shutil.copytree(converted, tmp_path / "data.zarr")


def consolidate(group: zarr.Group) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ZarrUserWarning)
        zarr.consolidate_metadata(group.store)


def changed(store: Path, name: str, values: object) -> None:
    """Replace a column of the table of a store, and forget the consolidated metadata."""
    group = zarr.open_group(store, mode="r+", use_consolidated=False)
    array = np.asarray(values)
    if array.dtype.kind == "U":
        array = array.astype(np.dtypes.StringDType())
    group.create_array(name, data=array, overwrite=True)
    consolidate(group)


@pytest.mark.parametrize("record_id", ["../../evil", "{tmp}/evil", "a\nb", "r1", "a\\b"])
def test_a_store_cannot_name_places_outside(stored, tmp_path, record_id):
    changed(stored, "recording", [record_id.format(tmp=tmp_path), "r1", "r2", "r3"])
    said = refused(stored, "have the id|has the id", "zarr")
    assert said.startswith(f"{stored}: ")


def test_commands_refuse_them_in_one_message(stored, tmp_path, capsys):
    changed(stored, "recording", ["../../../evil", "r1", "r2", "r3"])
    capsys.readouterr()
    with pytest.raises(SystemExit) as caught:
        main(["dataset_info", "--data_format=zarr", str(stored)])
    assert caught.value.code == 2
    assert "has the id '../../../evil', which has the part '..'" in capsys.readouterr().err


def test_a_folder_whose_name_cannot_be_an_id(tmp_path):
    write_recording(tmp_path / "a", walk(9, names(), 0), names())
    (tmp_path / "a").rename(tmp_path / "a\\b")
    assert "'a\\\\b', which contains a backslash" in refused(tmp_path, "has the id")
    write_recording(tmp_path / "good", walk(9, names(), 0), names())
    found = find_sources(Dataset(path=tmp_path, format="movement"), ("good",))
    assert [source.id for source in found] == ["good"], "--data_filter leaves the bad one out"


def test_a_recording_beside_a_folder_of_the_same_name(tmp_path):
    for folder in (tmp_path / "mice", tmp_path / "mice" / "mice"):
        write_recording(folder, walk(9, names(), 0), names())
    said = refused(tmp_path / "mice", "both have the id 'mice'")
    assert f"in {tmp_path / 'mice'} and in {tmp_path / 'mice' / 'mice'} would" in said


def test_a_link_to_a_folder_above(tmp_path):
    write_recording(tmp_path / "data" / "r", walk(9, names(), 0), names())
    (tmp_path / "data" / "r" / "again").symlink_to(tmp_path / "data")
    with pytest.raises(DataError, match=r"r/again is a link to .*data, a folder above it"):
        find_sources(Dataset(path=tmp_path / "data", format="movement"))
    (tmp_path / "data" / "r" / "again").unlink()
    (tmp_path / "other").symlink_to(tmp_path / "data")
    found = find_sources(Dataset(path=tmp_path / "other", format="movement"))
    assert [source.id for source in found] == ["r"], "links to elsewhere are followed"


def test_ids_over_several_datasets(tmp_path):
    write_dataset(tmp_path, [9])
    dataset = Dataset(path=tmp_path, format="movement")
    records = load_records(dataset, DataOptions())
    with pytest.raises(DataError, match="2 recordings have the id 'r0'"):
        agree(records * 2, (dataset, dataset))


# Files that reach elsewhere or are too large ----------------------------------------------------


def hdf5(folder: Path, change) -> Path:
    path = write_recording(folder / "r", walk(30, names(), 0), names())
    with h5py.File(path, "r+") as file:
        change(file, folder)
    return path


def external_storage(file, folder):
    (folder / "secret").write_bytes(bytes(30 * 2 * 3 * 2 * 8))
    del file["confidence"], file["extra"]
    file.create_dataset("extra", (30,), "f8", external=[(str(folder / "secret"), 0, 240)])


def external_link(file, folder):
    file["extra"] = h5py.ExternalLink(str(folder / "other.h5"), "/position")


def nested_external_link(file, folder):
    file.create_group("a/b")["extra"] = h5py.ExternalLink(str(folder / "other.h5"), "/position")


def virtual(file, folder):
    layout = h5py.VirtualLayout((30,), "f8")
    layout[:] = h5py.VirtualSource(str(folder / "other.h5"), "position", (30,))
    file.create_virtual_dataset("extra", layout)


def loop(file, folder):
    file.create_group("a")["again"] = file["/"]


def huge(file, folder):
    file.create_dataset("extra", (10**12,), "f8", chunks=(1024,))


def huge_chunk(file, folder):
    file.create_dataset("extra", (8,), "f8", chunks=(10**8,), maxshape=(None,))


def bomb(file, folder):
    """One chunk that states 8 kB and decompresses to 64 MB."""
    data = file.create_dataset("extra", (1024,), "f8", chunks=(1024,), compression="gzip")
    data.id.write_direct_chunk((0,), zlib.compress(bytes(2**26)))


def compressed_twice(file, folder):
    plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    plist.set_chunk((1024,))
    plist.set_deflate(9)
    plist.set_deflate(9)
    space = h5py.h5s.create_simple((1024,))
    h5py.h5d.create(file.id, b"extra", h5py.h5t.IEEE_F64LE, space, plist)


HDF5 = {
    external_storage: "lie in another file, '{folder}/secret'",
    external_link: "'extra' is a link to another file, '{folder}/other.h5'",
    nested_external_link: "'extra' is a link to another file",
    virtual: "virtual dataset of values in '{folder}/other.h5'",
    loop: "the group 'again' has several names",
    huge: "'extra' of shape 1000000000000 would take 7.28 TB of memory; expected at most",
    huge_chunk: "'chunk of extra' of shape 100000000 would take",
    bomb: "a chunk of 'extra' decompresses to more than the 8192 bytes",
    compressed_twice: "'extra' is compressed 2 times over",
}


@pytest.mark.parametrize(
    ("change", "message"), HDF5.items(), ids=lambda v: getattr(v, "__name__", "")
)
@pytest.mark.parametrize("format", ["movement", "sleap"])
def test_hdf5_files(tmp_path, monkeypatch, change, message, format):
    monkeypatch.setattr(limits, "file_limit", lambda: 50 * 2**20)
    monkeypatch.setattr("lisbet.data.files.hdf5.file_limit", lambda: 50 * 2**20)

    def prepared(file, folder):
        file.create_dataset("confidence", data=0.0)
        file.create_dataset("extra", data=0.0)
        if change is not external_storage:
            del file["extra"]
        change(file, folder)

    path = hdf5(tmp_path, prepared)
    if format == "sleap":
        path.rename(path.with_name("sleap.h5"))
    said = refused(tmp_path, "1 of 1 recordings", format)
    assert message.format(folder=tmp_path) in said


def test_sleap_of_an_absurd_shape(tmp_path):
    (tmp_path / "r").mkdir()
    with h5py.File(tmp_path / "r" / "sleap.h5", "w") as file:
        file.create_dataset("tracks", (2, 2, 3, 10**11), "f4", chunks=(1, 1, 1, 1024))
        file["track_names"], file["node_names"] = [b"a", b"b"], [b"p", b"q", b"r"]
    assert "'tracks' of shape 2x2x3x100000000000 would take" in refused(tmp_path, ".", "sleap")


def test_netcdf_of_unwritten_dimensions(tmp_path):
    for number, kind in enumerate(["NETCDF4", "NETCDF3_64BIT_DATA", "NETCDF3_64BIT_OFFSET"]):
        (tmp_path / f"r{number}").mkdir()
        path = tmp_path / f"r{number}" / "tracking.nc"
        frames = 10**12 if number < 2 else 2**27
        with netCDF4.Dataset(path, "w", format=kind) as file:
            file.set_fill_off()
            for name, size in (
                ("time", frames),
                ("individuals", 1),
                ("keypoints", 1),
                ("space", 2),
            ):
                file.createDimension(name, size)
            chunks = {"chunksizes": (1024, 1, 1, 1)} if number == 0 else {}
            file.createVariable("position", "f8", ("time", "space", "keypoints", "individuals"),
                                **chunks)  # fmt: skip
        os.truncate(path, min(path.stat().st_size, 10_000))
    said = refused(tmp_path, "3 of 3 recordings")
    assert "r0: tracking.nc: 'position' of shape 1000000000000x2x1x1 would take" in said
    assert "r1: tracking.nc cannot be read as movement: its header declares 16000000000000" in said
    assert "r2: tracking.nc cannot be read as movement: its header declares 2147483648" in said


def test_a_pipe_is_no_recording(tmp_path):
    (tmp_path / "r").mkdir()
    os.mkfifo(tmp_path / "r" / "tracking.nc")
    assert "tracking.nc is not a regular file" in refused(tmp_path, "1 of 1")


@pytest.mark.parametrize("format", ["dlc", "csv_events", "boris"])
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"x" * (17 * 2**20), "line 1 has more than 16 MB"),
        (b"a,b\n" + b"1" * (17 * 2**20) + b"\n", "line 2 has more than 16 MB"),
        (
            b",".join([b"a"] * 10**6) + b"\n",
            "line 1 has more than 50000 columns; expected three for",
        ),
    ],
    ids=["one line", "second line", "columns"],
)
def test_csv_files(tmp_path, format, content, message):
    more = {} if format == "dlc" else {"annotations": format}
    write_recording(tmp_path / "r", walk(9, names(), 0), names())
    name = {"dlc": "tracking.csv", "csv_events": "annotations.csv", "boris": "boris.csv"}[format]
    (tmp_path / "r" / name).write_bytes(content)
    assert message in refused(tmp_path, ".", "dlc" if format == "dlc" else "movement", **more)


def test_tables_larger_than_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(limits, "file_limit", lambda: 1000)
    (tmp_path / "r").mkdir()
    (tmp_path / "r" / "tracking.csv").write_text("scorer,a\n" * 200)
    assert "tracking.csv: a table of 1.76 KB would take 1.76 KB" in refused(tmp_path, ".", "dlc")


# Annotations of many rows -----------------------------------------------------------------------


def test_many_events_of_few_frames(tmp_path):
    """Forty thousand rows within four frames: pairs of events would take minutes."""
    rng = np.random.default_rng(0)
    starts = rng.uniform(0, 0.06, 20_000)
    times = np.stack([starts, starts + rng.uniform(0, 0.06, len(starts))], 1)
    lines = [f"30,b{n % 4},s{n},{kind},{times[n, k]:.6f}" for n in range(len(times))
             for k, kind in enumerate(("START", "STOP"))]  # fmt: skip
    file = tmp_path / "boris.csv"
    file.write_text("FPS,Behavior,Subject,Behavior type,Time\n" + "\n".join(lines) + "\n")
    labels = LABEL_READERS["boris"].read(file, 300, 30.0)
    assert labels.behaviors == ("b0", "b1", "b2", "b3")
    assert labels.active[:4].all(), "something of each kind happens all the time"
    assert not labels.active[4:].any()


def test_a_behaviour_for_each_row(tmp_path):
    file = tmp_path / "annotations.csv"
    rows = "".join(f"b{n},0,1\n" for n in range(1001))
    file.write_text("behavior,start_time,end_time\n" + rows)
    with pytest.raises(DataError, match="names 1001 behaviours, such as 'b0' and 'b1'"):
        LABEL_READERS["csv_events"].read(file, 100, 30.0)


@pytest.mark.parametrize("fps", [0.0, -30.0, float("nan"), float("inf")])
def test_frame_rates_of_annotations(tmp_path, fps):
    file = tmp_path / "annotations.csv"
    file.write_text("behavior,start_time,end_time\nb,0,1\n")
    with pytest.raises(DataError, match=f"the frame rate is {fps:g}; expected a positive"):
        LABEL_READERS["csv_events"].read(file, 100, fps)


def test_times_beyond_all_numbers(tmp_path):
    file = tmp_path / "annotations.csv"
    file.write_text("behavior,start_time,end_time\nb,0,1e308\n")
    with pytest.raises(DataError, match=r"'b' ends at 1e\+308 s, but the recording ends at"):
        LABEL_READERS["csv_events"].read(file, 100, 30.0)


# Stores -----------------------------------------------------------------------------------------

TABLES = {
    "outside": ("frames", [60, 80, 8, 51], "'r3' has 51 frames from frame 148 on, of 198"),
    "negative": ("start", [-1, 60, 140, 148], "'r0' has 60 frames from frame -1 on"),
    "no frames": ("frames", [0, 80, 8, 50], "'r0' has 0 frames"),
    "overflow": ("frames", [2**63 - 1, 80, 8, 50], "'r0' has 9223372036854775807 frames"),
    "overlap": ("start", [0, 59, 140, 148], "recordings 'r0' and 'r1' share frames"),
    "length": ("fps", [30.0], "columns of its table differ in length"),
    "dtype": ("start", [0.0, 60.0, 140.0, 148.0], "'start' holds float64"),
    "two axes": ("fps", [[30.0] * 4], "'fps' of shape 1x4; expected"),
    "fps": ("fps", [30.0, 0.0, 30.0, 30.0], "'fps' of 'r1' is 0.0, which is not a positive"),
    "missing": ("missing", [0.0, 0.0, np.nan, 0.0], "'missing' of 'r2' is nan"),
    "digest": ("digest", ["x"] * 4, "'digest' of 'r0' is no SHA-256"),
    "steps": ("steps", ["[" * 100_000, "[]", "[]", "[]"], "'steps' of a recording is '[[[["),
    "steps type": ("steps", ["[1]", "[]", "[]", "[]"], "'steps' of a recording is '[1]', not a"),
    "names": ("keypoints", ["a", "b"], "'position' of shape 198x2x3x2 holds float32; expected"),
    "same names": ("keypoints", ["a", "a", "b"], "keypoints are named twice or not at all"),
    "none": ("recording", np.array([], dtype=np.dtypes.StringDType()), "differ in length"),
}


@pytest.mark.parametrize(("name", "values", "message"), TABLES.values(), ids=TABLES)
def test_tables_of_stores(stored, name, values, message):
    changed(stored, name, values)
    said = refused(stored, "is damaged", "zarr")
    assert message in said
    assert said.count(str(stored)) == 1


def test_huge_arrays_of_stores(stored):
    for name, part in (("position", {"shape": (10**13, 2, 3, 2)}), ("target_cls", {})):
        file = stored / name / "zarr.json"
        content = json.loads(file.read_text())
        content["shape"][0] = 10**13
        file.write_text(json.dumps(content | part))
    consolidate(zarr.open_group(stored, mode="r+"))
    assert "'target_cls' of shape 10000000000000x1 would take" in refused(stored, ".", "zarr")


def test_unwritten_frames_are_not_made_up(stored):
    """Ten million million frames are declared, and recorded as one recording: nothing is read."""
    group = zarr.open_group(stored, mode="r+", use_consolidated=False)
    del group["target_cls"]
    group["position"].resize((10**12, 2, 3, 2))
    consolidate(group)
    changed(stored, "frames", [60, 80, 8, 10**12 - 148])
    record = Store.open(stored).records()[3]
    with pytest.raises(DataError, match="r3.*cannot be read: position/c/1/0/0/0 is missing"):
        np.asarray(record.position)


@pytest.mark.parametrize("value", [2.0, -0.5, np.inf, -np.inf])
def test_stored_coordinates_outside_the_range(stored, value):
    group = zarr.open_group(stored, mode="r+")
    group["position"][70] = value
    records = Store.open(stored).records()
    assert np.asarray(records[0].position).shape == (60, 2, 3, 2)
    with pytest.raises(DataError, match=rf"\(r1\) runs from .*{value:g}"):
        np.asarray(records[1].position)


def test_stored_annotations_other_than_yes_and_no(stored):
    zarr.open_group(stored, mode="r+")["target_cls"][5] = 7
    refused(stored, "'target_cls' holds values other than 0 and 1", "zarr", annotations="movement")


def test_compression_of_stores(stored):
    group = zarr.open_group(stored, mode="r+", use_consolidated=False)
    data = group["position"][:]
    group.create_array("position", data=data, chunks=(99, 2, 3, 2), shards=(198, 2, 3, 2),
                       compressors=zarr.codecs.GzipCodec(), overwrite=True)  # fmt: skip
    consolidate(group)
    refused(stored, "'position' is compressed by GzipCodec", "zarr")


def test_metadata_of_stores_is_bounded(stored, monkeypatch):
    monkeypatch.setattr("lisbet.data.zarr.store.METADATA_BYTES", 1000)
    refused(stored, r"zarr.json has \d+ bytes; expected at most 1000", "zarr")


@pytest.mark.parametrize("name", ["preparation", "digest", "left_out", "greatest_error"])
def test_attributes_of_stores(stored, name):
    group = zarr.open_group(stored, mode="r+")
    group.attrs[name] = [1]
    consolidate(group)
    assert f"its attribute '{name}' is [1]" in refused(stored, "is damaged", "zarr")
