"""One odd recording does not decide for the others, also if it comes first."""

import json
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
import zarr
from conftest import names, walk, write_dataset, write_recording

from lisbet.cli import main
from lisbet.core.config import Dataset
from lisbet.core.errors import DataError
from lisbet.data.files.sources import find_sources
from lisbet.data.labels import LABEL_READERS
from lisbet.data.load import load_records
from lisbet.data.preparation.majority import read_usual, usual_features
from lisbet.data.readers import READERS
from lisbet.options import DataOptions

ODD = names().model_copy(update={"keypoints": ("point0", "point1", "tail")})


@pytest.fixture
def place(tmp_path, monkeypatch) -> Path:
    write_dataset(tmp_path / "data", [20, 30, 25])
    write_recording(tmp_path / "data" / "a_first", walk(20, ODD, 9), ODD)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def fails(capsys, *words: str) -> str:
    capsys.readouterr()
    with pytest.raises(SystemExit) as caught:
        main([*words])
    assert caught.value.code == 2
    return capsys.readouterr().err


def annotate(texts: dict[str, str]) -> None:
    for name, text in texts.items():
        file = Path("data") / name / "annotations.csv"
        file.write_text("behavior,start_time,end_time\n" + text)


def test_the_odd_one_is_left_out_and_not_the_others(place, capsys):
    said = fails(capsys, "convert_dataset", "--workers=1", "data", "data.zarr")
    assert "1 of 4 recordings in data cannot be used" in said
    assert "a_first: keypoints are point0, point1, tail; 3 of 4 recordings have point0" in said
    main(["convert_dataset", "--workers=1", "--skip_bad", "data", "data.zarr"])
    group = zarr.open_group("data.zarr", mode="r")
    assert group["recording"][:].tolist() == ["r0", "r1", "r2"]
    assert set(group.attrs["left_out"]) == {"a_first"}
    assert (
        "a_first is left out: keypoints are point0, point1, tail; 3 of 4" in capsys.readouterr().err
    )


def test_all_other_commands_say_the_same(place, capsys):
    with pytest.raises(DataError, match=r"1 of 4 (.|\n)*a_first: keypoints .* 3 of 4 recordings h"):
        load_records(Dataset(path=place / "data", format="movement"), DataOptions())
    said = fails(capsys, "dataset_info", "data")
    assert "1 of 4 recordings in data cannot be used" in said
    assert "a_first: keypoints are point0, point1, tail; 3 of 4 recordings have point0" in said


def test_names_count_in_any_order(tmp_path):
    """Two orders of the same names outweigh two recordings of other names."""
    swapped = names().model_copy(update={"individuals": ("mouse1", "mouse0")})
    usual = usual_features([ODD, ODD, swapped, names(), names()])
    assert (usual.features, usual.holders) == (names(), "3 of 5 recordings have")
    assert usual_features([ODD, names()]).features == ODD, "the first one, if there is no majority"


def test_what_is_selected_counts(place):
    """Where the odd names are not selected, nothing is odd."""
    main(["convert_dataset", "--workers=1", "--select_coords=*;*;point0", "data", "data.zarr"])
    assert len(zarr.open_group("data.zarr", mode="r")["recording"][:]) == 4


def test_damaged_recordings_do_not_vote(place, capsys):
    for number in range(1, 3):
        (place / "data" / f"r{number}" / "tracking.nc").write_bytes(b"nothing")
    write_recording(place / "data" / "a_second", walk(20, ODD, 9), ODD)
    said = fails(capsys, "convert_dataset", "--workers=1", "data", "data.zarr")
    assert "r0: keypoints are point0, point1, point2; 2 of 3 recordings have point0" in said


def test_behaviours_of_all_event_files(place):
    """The first one need not name all behaviours."""
    (place / "data" / "a_first" / "tracking.nc").unlink()
    annotate({"r0": "b,0,0.1\n", "r1": "a,0,0.1\nb,0.2,0.3\n", "r2": ""})
    words = ["--annot_format=csv_events", "data", "data.zarr"]
    main(["convert_dataset", "--workers=1", *words])
    stored = Dataset(path=Path("data.zarr"), format="zarr", annotations="movement")
    source = Dataset(path=Path("data"), format="movement", annotations="csv_events")
    for one, other in zip(*(load_records(d, DataOptions()) for d in (stored, source)), strict=True):
        assert one.labels.behaviors == other.labels.behaviors == ("a", "b")
        np.testing.assert_array_equal(one.labels.active, other.labels.active)


def test_a_store_that_is_added_to_decides(place, capsys):
    (place / "data" / "a_first" / "tracking.nc").rename(place / "odd.nc")
    main(["convert_dataset", "--workers=1", "data", "data.zarr"])
    for number in range(5):
        folder = place / "data" / f"s{number}"
        folder.mkdir()
        (folder / "tracking.nc").write_bytes((place / "odd.nc").read_bytes())
    said = fails(capsys, "convert_dataset", "--workers=1", "--append", "data", "data.zarr")
    assert "s0: keypoints are point0, point1, tail; the store has point0" in said


# Heads ------------------------------------------------------------------------------------------


def sleap(path: Path, tracks: list[bytes]) -> None:
    path.parent.mkdir()
    with h5py.File(path, "w") as file:
        file["tracks"] = walk(30, names(max(1, len(tracks))), 1).transpose(1, 3, 2, 0)
        file["track_names"], file["node_names"] = np.array(tracks, "S"), [b"p", b"q", b"r"]
        file["provenance"] = json.dumps({})


def test_heads_have_the_names_of_the_whole(tmp_path, real):
    sleap(tmp_path / "r" / "sleap.h5", [b"a", b"b"])
    for kind, folder in (
        ("sleap", tmp_path / "r"),
        ("sleap", real / "fly_pair_sleap" / "courtship"),
        ("dlc", real / "mouse_pair_dlc" / "DLC3"),
        ("dlc", real / "mouse_social_defeat_dlc"),
        ("movement", real / "mouse_pair_nc" / "DLC1"),
        ("movement", real / "mouse_triplet_nc"),
    ):
        dataset = Dataset(path=folder, format=kind)
        (record,) = load_records(dataset, DataOptions())
        files = [p for p in sorted(folder.rglob("*")) if READERS[kind].matches(p.name)]
        usual = read_usual([tuple(files)], dataset, DataOptions())
        assert usual is not None
        assert usual.features == record.features


def test_names_of_annotations_are_those_of_the_labels(real):
    for kind, file in (
        (
            "boris",
            real / "mouse_pair_nc" / "DLC1" / "boris_e3v813a-20210610T120637-121213_reencode.csv",
        ),
        ("boris", real / "boris_extra" / "DLC1_multiple_behaviors.csv"),
        ("movement", real / "rat_pair" / "rat01" / "annotations.nc"),
    ):
        reader = LABEL_READERS[kind]
        labels = reader.read(file, 20_000, 30.0)
        assert sorted(reader.names(file)) == sorted(labels.behaviors)


def test_an_annotation_format_that_only_reads_whole_files(place, monkeypatch):
    """As formats from other packages may."""
    annotate({"r0": "b,0,0.1\n", "r1": "a,0,0.1\n", "r2": "", "a_first": ""})
    reader = replace(LABEL_READERS["csv_events"], names=None)
    monkeypatch.setattr("lisbet.data.preparation.majority.LABEL_READERS", {"csv_events": reader})
    dataset = Dataset(path=place / "data", format="movement", annotations="csv_events")
    files = [source.files for source in find_sources(dataset)]
    usual = read_usual(files, dataset, DataOptions())
    assert usual is not None
    assert (usual.behaviors, usual.holders) == (("a", "b"), "3 of 4 recordings have")
