"""Files are recognised by what is in them; versions and videos never become individuals."""

import logging
from pathlib import Path

import h5py
import numpy as np
import pytest
from conftest import SHARED, names, walk, write_recording
from test_dlc_tables import simple

from lisbet.cli import main
from lisbet.core.config import Dataset
from lisbet.core.errors import DataError
from lisbet.data.files.sources import find_sources
from lisbet.data.files.versions import FileChoice, are_individuals, video_of
from lisbet.data.load import load_records
from lisbet.options import DataOptions

NET = "DLC_resnet50_projectshuffle1_200000"


def load(path, data_format="auto", **options):
    return load_records(Dataset(path=path, format=data_format), DataOptions(**options))


def table(folder, name, rows=5):
    folder.mkdir(parents=True, exist_ok=True)
    simple(rows).to_csv(folder / name)
    return folder / name


def sleap(path, tracks, *, dims=None, scores=True, individuals=("a", "b")):
    """A SLEAP analysis file; tracks (individuals, space, keypoints, frames)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    order = ["track", "xy", "node", "frame"]
    with h5py.File(path, "w") as file:
        wanted = dims or order
        file["tracks"] = tracks.transpose([order.index(axis) for axis in wanted])
        if dims:
            file["tracks"].attrs["dims"] = str(list(dims)).replace("'", '"')
        if scores:
            own = [axis for axis in wanted if axis != "xy"]
            file["point_scores"] = tracks[:, 0].transpose(
                [["track", "node", "frame"].index(axis) for axis in own]
            )
        file["track_names"] = np.array(individuals, "S")
        file["node_names"] = np.array(["p", "q", "r"], "S")
    return path


# Versions, videos, individuals -------------------------------------------------------------------


@pytest.mark.parametrize(
    "versions",
    [
        (f"m1{NET}.csv", f"m1{NET}_filtered.csv"),
        (f"m1{NET}.csv", f"m1{NET}_filtered.h5"),
        (f"m1{NET}_el.csv", f"m1{NET}_sk.csv"),
        (f"m1{NET}.csv", "m1DLC_resnet50_projectshuffle1_100000.csv"),
        ("m1DLC_resnet50_pshuffle1_1.csv", "m1DLC_mobnet_pshuffle1_1.csv"),
        (f"myDLC_1{NET}.csv", f"myDLC_1{NET}_filtered.csv"),
        ("myDLC_1DLC_newnet_1.csv", "myDLC_1DLC_newnet_2.csv"),
        ("m1_superanimal_topviewmouse_hrnet.csv", "m1_superanimal_topviewmouse_resnet.csv"),
        ("tracking.csv", "tracking_filtered.csv"),
        ("m1_tracking_raw.csv", "m1_tracking_filtered.csv"),
        ("m1_tracking.csv", "m1_tracking_smoothed.csv", "m1_tracking_old.csv"),
    ],
)
def test_versions_of_one_video_are_no_individuals(tmp_path, versions):
    for name in versions:
        if name.endswith(".h5"):
            (tmp_path / "r").mkdir(exist_ok=True)
            simple().to_hdf(tmp_path / "r" / name, key="df_with_missing", format="table")
        else:
            table(tmp_path / "r", name)
    with pytest.raises(DataError, match="versions of the tracks of one video") as caught:
        load(tmp_path)
    assert all(name in str(caught.value) for name in versions)
    assert "--tracking_pattern" in str(caught.value)
    (record,) = load(tmp_path, tracking_pattern=versions[1])
    assert record.features.individuals == ("individual_0",)


@pytest.mark.parametrize(
    "videos",
    [
        [f"mouse{n}_day1{NET}.csv" for n in range(3)],
        [f"{word}_day1{NET}.csv" for word in ("control", "treated")],
        ["mouse1.csv", "mouse2.csv"],
        [f"my_DLC_1{NET}.csv", f"my_DLC_2{NET}.csv"],
        ["alice.csv", "bob.csv"],
        ["tracking_day1.csv", "tracking_day2.csv"],
        ["tracking_2024-01-01.csv", "tracking_2024-01-02.csv"],
        ["tracking_top.csv", "tracking_side.csv"],
        ["black_pre_tracking.csv", "white_post_tracking.csv"],
    ],
)
def test_videos_in_one_folder_are_recordings_only_if_the_user_says_so(tmp_path, videos):
    for name in videos:
        table(tmp_path / "videos", name)
    with pytest.raises(DataError, match="--flat if each is a recording of its own") as caught:
        load(tmp_path)
    assert all(name in str(caught.value) for name in videos)
    records = load(tmp_path, flat=True)
    assert [r.id for r in records] == sorted(f"videos/{video_of(Path(v))}" for v in videos)
    assert all(record.features.individuals == ("individual_0",) for record in records)
    (record,) = load(tmp_path, file_per_individual=True)
    assert len(record.features.individuals) == len(videos)


def test_names_that_are_certain():
    for pair in (("black_tracking.csv", "white_tracking.csv"), ("tracking_a.csv", "tracking_b.csv"),
                 ("d1-resident-tracking.csv", "d1-intruder-tracking.csv")):  # fmt: skip
        assert are_individuals([Path(name) for name in pair])


def test_individuals_with_different_body_parts(tmp_path):
    table(tmp_path, "black_tracking.csv")
    simple().iloc[:, :3].to_csv(tmp_path / "white_tracking.csv")
    (record,) = load(tmp_path)
    assert record.features.individuals == ("black", "white")
    assert np.isnan(record.position[:, 1, 1]).all()
    assert not np.isnan(record.position[:, 1, 0]).any()


def test_flat_files_at_the_top_and_their_annotations(tmp_path):
    for name, start in (("m1", 0), ("m10", 2)):
        table(tmp_path, f"{name}{NET}.csv")
        (tmp_path / f"annotations_{name}.csv").write_text(
            f"behavior,start_time,end_time\nsniff,{start},{start + 1}\n"
        )
    dataset = Dataset(path=tmp_path, format="dlc", annotations="csv_events")
    records = load_records(dataset, DataOptions(flat=True, fps=1.0))
    assert [record.id for record in records] == ["m1", "m10"]
    active = [np.flatnonzero(record.labels.active[:, 0]).tolist() for record in records]
    assert active == [[0], [2]]


def test_a_table_in_both_forms_is_read_once(tmp_path):
    table(tmp_path, f"m1{NET}.csv")
    simple().to_hdf(tmp_path / f"m1{NET}.h5", key="df_with_missing", format="table")
    (source,) = find_sources(Dataset(path=tmp_path, format="dlc"))
    assert [file.name for file in source.files] == [f"m1{NET}.csv"]


def test_flat_and_individuals_exclude_each_other(tmp_path, capsys):
    with pytest.raises(SystemExit):
        main(["dataset_info", "--flat", "--file_per_individual", str(tmp_path)])
    assert "pass one of them" in capsys.readouterr().err


# Recognised by what is in them -------------------------------------------------------------------


def test_any_name(tmp_path):
    table(tmp_path / "a", "EPM_15DeepCut_resnet50_projectshuffle1_1030000.csv")
    table(tmp_path / "b", "mouse1.txt")
    features = names(1, 2).model_copy(
        update={"individuals": ("individual_0",), "keypoints": ("nose", "tail")}
    )
    write_recording(tmp_path / "c", walk(5, features, 0), features, name="x.predictions.nc")
    write_recording(tmp_path / "d", walk(5, features, 0), features, name="y",
                    format="NETCDF3_CLASSIC")  # fmt: skip
    assert [record.id for record in load(tmp_path)] == ["a", "b", "c", "d"]


@pytest.mark.parametrize(
    "dims",
    [
        None,
        ("frame", "node", "xy", "track"),
        ("frame", "track", "node", "xy"),
        ("track", "xy", "node", "frame"),
        ("node", "frame", "xy", "track"),
    ],
)
def test_sleap_in_any_order_of_axes(tmp_path, dims):
    tracks = walk(9, names(2, 3), 0).transpose(1, 3, 2, 0)
    file = sleap(tmp_path / "r" / "labels.v001.000_m.analysis.h5", tracks, dims=dims)
    from lisbet.data.readers import READERS

    dataset = READERS["sleap"].read([file])
    for array, expected in ((dataset["position"], tracks.transpose(3, 1, 2, 0)),
                            (dataset["confidence"], tracks[:, 0].transpose(2, 1, 0))):  # fmt: skip
        np.testing.assert_array_equal(array.values, expected)
    assert READERS["sleap"].head([file])["keypoints"].values.tolist() == ["p", "q", "r"]
    (record,) = load(tmp_path)
    assert record.features.individuals == ("a", "b")


def test_sleap_without_tracks_and_with_other_shapes(tmp_path):
    tracks = walk(9, names(1, 3), 0).transpose(1, 3, 2, 0)
    sleap(tmp_path / "r" / "a.h5", tracks, individuals=(), scores=False)
    (record,) = load(tmp_path)
    assert record.features.individuals == ("id_0",)
    sleap(tmp_path / "r" / "a.h5", tracks[:, :, :2], individuals=("a",), scores=False)
    with pytest.raises(DataError, match="'tracks' has the shape 1x2x2x9, for 1 names of tracks"):
        load(tmp_path)


@pytest.mark.parametrize("name", ["video_sleap.h5", "video.slp"])
def test_a_sleap_project_is_explained(tmp_path, name):
    folder = tmp_path / "r"
    folder.mkdir()
    with h5py.File(folder / name, "w") as file:
        for key in ("frames", "pred_points", "videos_json", "tracks_json"):
            file[key] = [0]
    for wanted in ("auto", "sleap", "movement"):
        with pytest.raises(DataError, match="SLEAP project") as caught:
            load(tmp_path, wanted)
        assert "sleap-convert --format analysis" in str(caught.value)


def test_a_folder_with_nothing_but_a_project_is_named(tmp_path, caplog):
    table(tmp_path / "a", "m.csv")
    (tmp_path / "b").mkdir()
    with h5py.File(tmp_path / "b" / "m.slp", "w") as file:
        file["frames"], file["videos_json"] = [0], [0]
    assert [record.id for record in load(tmp_path)] == ["a"]
    assert "m.slp (SLEAP project: export it" in caplog.text


def test_what_is_not_used_is_named(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    table(tmp_path / "r", f"m1{NET}.csv")
    skeleton = ",nose_tail,nose_tail,nose_tail\n,length,orientation,likelihood\n0,29.7,0.0,0.99\n"
    (tmp_path / "r" / f"m1{NET}_skeleton.csv").write_text(skeleton)
    (tmp_path / "r" / "CollectedData_me.csv").write_text(
        "scorer,me,me\nbodyparts,nose,nose\ncoords,x,y\nlabeled-data/m1/img1.png,1,2\n"
    )
    (tmp_path / "r" / "notes.txt").write_text("nothing")
    (tmp_path / "r" / "video.mp4").write_bytes(b"x")
    (tmp_path / "r" / "._m1.csv").write_bytes(b"x")
    (record,) = load(tmp_path)
    assert record.features.individuals == ("individual_0",)
    (line,) = [message for message in caplog.messages if "not used" in message]
    assert f"read m1{NET}.csv; not used: CollectedData_me.csv (labelled frames" in line
    assert f"m1{NET}_skeleton.csv (DeepLabCut skeleton: lengths and angles" in line
    assert "notes.txt" in line
    assert "video.mp4" not in line


def test_nothing_recognised_names_the_files(tmp_path):
    (tmp_path / "simba.csv").write_text("nose_x,nose_y,nose_p\n1,2,3\n")
    (tmp_path / "notes.txt").write_text("nothing")
    with pytest.raises(DataError) as caught:
        load(tmp_path)
    assert "simba.csv (table without DeepLabCut's header rows: it needs" in str(caught.value)
    assert "notes.txt" in str(caught.value)


def test_files_of_two_formats_in_one_folder(tmp_path):
    table(tmp_path / "r", f"m1{NET}.csv")
    write_recording(tmp_path / "r", walk(9, names(), 0), names())
    with pytest.raises(DataError, match="--data_format=dlc or movement"):
        load(tmp_path)
    (record,) = load(tmp_path, "movement")
    assert record.frames == 9
    (record,) = load(tmp_path, tracking_pattern="*.csv")
    assert record.frames == 5


def test_a_name_alone_is_not_a_second_format(tmp_path):
    write_recording(tmp_path / "r", walk(9, names(), 0), names())
    (tmp_path / "r" / "tracking_notes.csv").write_text("day,weather\n1,fine\n")
    (record,) = load(tmp_path)
    assert record.frames == 9
    (tmp_path / "r" / "tracking.nc").unlink()
    with pytest.raises(DataError, match=r"r: tracking_notes.csv begins with 'day,weather'"):
        load(tmp_path)


def test_the_documented_name_is_read_beside_another_movement_file(tmp_path, caplog):
    write_recording(tmp_path / "r", walk(9, names(), 0), names())
    write_recording(tmp_path / "r", walk(7, names(), 0), names(), name="pose.nc")
    (record,) = load(tmp_path, "movement")
    assert record.frames == 9
    assert "only tracking.nc is read, by its name; not pose.nc" in caplog.text
    assert [r.frames for r in load(tmp_path, flat=True)] == [7, 9]


def test_a_pattern_that_nothing_fits(tmp_path):
    table(tmp_path / "r", "a.csv")
    with pytest.raises(DataError, match=r"named like \*_filtered\.csv"):
        load(tmp_path, tracking_pattern="*_filtered.csv")


def test_folders_without_a_file_of_the_pattern_are_named(tmp_path, caplog):
    table(tmp_path / "a", f"m1{NET}_filtered.csv")
    table(tmp_path / "b", f"m2{NET}.csv")
    assert [r.id for r in load(tmp_path, tracking_pattern="*_filtered.csv")] == ["a"]
    assert f"b: m2{NET}.csv (DeepLabCut table; not *_filtered.csv)" in caplog.text


def test_a_store_is_found_by_itself(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write_recording(tmp_path / "data" / "r", walk(9, names(), 0), names())
    main(["convert_dataset", "--workers=1", "data", "data.zarr"])
    main(["dataset_info", "data.zarr"])
    assert "1 recording, 9 frames" in capsys.readouterr().out


# Cases ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("case", "individuals", "frames", "x"),
    [
        ("03_dlc_skeleton_beside", ("individual_0",), 6, None),
        ("07_dlc_bodyparts_in_another_order", ("m1", "m2"), 3, None),
        ("13_names_not_recognised/deepcut", ("individual_0",), 5, None),
        ("13_names_not_recognised/one_csv", ("individual_0",), 5, None),
        ("13_names_not_recognised/sleap", ("track_0",), 10, (304.888, 322.379)),
        ("15_sleap_io_standard_axes", ("track_0",), 10, (304.888, 322.379)),
        ("16_dlc_h5_only", ("individual_0",), 5, None),
        ("17_csv_bom_semicolon_excel/dlc_bom", ("individual_0",), 5, (98.94, 121.231)),
        ("17_csv_bom_semicolon_excel/dlc_semicolon", ("individual_0",), 5, (98.94, 121.231)),
    ],
)
def test_reported_files(case, individuals, frames, x):
    folder = SHARED / "cases" / case
    if not folder.is_dir():
        pytest.skip(f"the reported files are not here: {folder}")
    from lisbet.data.read import read_all

    dataset = Dataset(path=folder, format="auto")
    (record,) = read_all(find_sources(dataset), dataset, DataOptions(), prepared=False)
    assert record.features.individuals == individuals
    assert record.frames == frames
    if x is not None:
        values = record.position[..., 0]
        assert (values.min(), values.max()) == pytest.approx(x, abs=0.0005)
    if case.startswith("07"):
        assert record.features.keypoints == ("nose", "tail")
        assert record.position[0, 1, :, 0].tolist() == [161.257, 139.374]


def test_choice_of_the_options():
    options = DataOptions(tracking_pattern="*.csv", flat=True)
    assert FileChoice.of(options) == FileChoice("*.csv", flat=True)
