"""Files of every format become the same recordings; damaged ones are named."""

import numpy as np
import pandas as pd
import pytest
from conftest import names, walk, write_dataset, write_recording

from lisbet.core.config import Dataset, Features
from lisbet.core.errors import DataError
from lisbet.core.option_values import Renames, Scale, Selection
from lisbet.data.bank import Bank
from lisbet.data.files.sources import find_sources
from lisbet.data.load import load_records, summary
from lisbet.options import DataOptions


def load(path, data_format="movement", **options):
    return load_records(Dataset(path=path, format=data_format.lower()), DataOptions(**options))


@pytest.mark.parametrize("format", ["NETCDF3_CLASSIC", "NETCDF3_64BIT", "NETCDF4"])
@pytest.mark.parametrize("singular", [True, False])
def test_movement_files_of_every_kind(tmp_path, format, singular):
    features = names()
    tracks = walk(30, features, 0)
    write_recording(tmp_path / "a", tracks, features, format=format, singular=singular)
    (record,) = load(tmp_path, data_scale="100x100")
    assert record.features == features
    assert record.fps == 30
    assert record.position.dtype == np.float32
    np.testing.assert_array_equal(record.position, (tracks / 100).astype(np.float32))


def write_dlc(path, tracks, features, *, multi):
    columns, values = [], []
    for i, individual in enumerate(features.individuals):
        for k, keypoint in enumerate(features.keypoints):
            for coordinate in ("x", "y", "likelihood"):
                head = ("net", individual, keypoint, coordinate)
                columns.append(head if multi else (head[0], *head[2:]))
                axis = {"x": 0, "y": 1}.get(coordinate)
                values.append(np.ones(len(tracks)) if axis is None else tracks[:, i, k, axis])
    levels = ["scorer", "individuals", "bodyparts", "coords"]
    index = pd.MultiIndex.from_tuples(columns, names=levels if multi else levels[:1] + levels[2:])
    path.parent.mkdir(parents=True, exist_ok=True)
    pd.DataFrame(np.stack(values, 1), columns=index).to_csv(path)


def test_dlc_one_file_for_all_animals(tmp_path):
    features = names()
    tracks = walk(30, features, 0)
    file = tmp_path / "a" / "videoDLC_resnet50_projectshuffle1_1000.csv"
    write_dlc(file, tracks, features, multi=True)
    (record,) = load(tmp_path, data_format="DLC", data_scale="100x100")
    assert record.features == features
    np.testing.assert_allclose(record.position, tracks / 100, atol=1e-7)


def test_dlc_one_file_for_each_animal(tmp_path):
    features = names().model_copy(update={"individuals": ("resident", "intruder")})
    tracks = walk(30, features, 0)
    for number, animal in enumerate(features.individuals):
        own = features.model_copy(update={"individuals": (animal,)})
        file = tmp_path / "a" / f"{animal}_tracking.csv"
        write_dlc(file, tracks[:, [number]], own, multi=False)
    (record,) = load(
        tmp_path, data_format="dlc", data_scale="100x100", select_coords="resident,intruder;*;*"
    )
    assert record.features == features
    np.testing.assert_allclose(record.position, tracks / 100, atol=1e-7)


def test_dlc_files_of_differing_length_are_refused(tmp_path):
    features = names(individuals=1)
    for animal, frames in (("a", 30), ("b", 31)):
        write_dlc(tmp_path / "r" / f"tracking_{animal}.csv", walk(frames, features, 0), features,
                  multi=False)  # fmt: skip
    with pytest.raises(DataError, match="differ in length"):
        load(tmp_path, data_format="DLC")


def test_a_tree_of_recordings(tmp_path):
    for place in ("b/two", "a/deep/one", "c"):
        write_recording(tmp_path / place, walk(9, names(), 0), names())
    (tmp_path / ".hidden").mkdir()
    ids = [record.id for record in load(tmp_path)]
    assert ids == ["a/deep/one", "b/two", "c"]
    assert [record.id for record in load(tmp_path, data_filter="one,two")] == ids[:2]
    assert [record.id for record in load(tmp_path / "c")] == ["c"]


def test_reading_in_parallel_gives_the_same(tmp_path, monkeypatch):
    write_dataset(tmp_path, [40, 50, 60])
    alone = load(tmp_path)
    monkeypatch.setattr("lisbet.data.read.BYTES_PER_WORKER", 1)
    for one, other in zip(alone, load(tmp_path), strict=True):
        assert one.id == other.id
        np.testing.assert_array_equal(one.position, other.position)


@pytest.mark.parametrize("size", [[0, 480], [-640, 480], [float("nan"), 480], "large"])
def test_a_wrong_image_size(tmp_path, size):
    tracks = walk(20, names(), 0)
    write_recording(tmp_path / "a", tracks, names(), image_size_px=size)
    with pytest.raises(DataError, match=r"tracking.nc: the attribute 'image_size_px' is .*"):
        load(tmp_path)
    (record,) = load(tmp_path, data_scale="100x100")
    np.testing.assert_allclose(record.position, tracks / 100, atol=1e-7)


def test_folders_without_tracking_files_are_named(tmp_path, caplog):
    write_recording(tmp_path / "a", walk(20, names(), 0), names())
    for name, file in (("b", "table.txt"), ("pictures", "plot.png")):
        (tmp_path / name).mkdir()
        (tmp_path / name / file).write_text("1 2 3")
    assert len(load(tmp_path)) == 1
    (said,) = (row.message for row in caplog.records if "no file is recognised" in row.message)
    assert str(tmp_path / "b") in said
    assert "pictures" not in said


def test_a_folder_of_ignored_files(tmp_path):
    for name in ("a.mp4", "b.MP4", "c.npy"):
        (tmp_path / name).write_text("1")
    with pytest.raises(DataError, match="Ignored by their endings: 2 .mp4, 1 .npy"):
        load(tmp_path, "auto")


def test_scaling_by_the_files_own_image_size(tmp_path):
    tracks = walk(20, names(), 0)
    write_recording(tmp_path / "a", tracks, names(), image_size_px=[200, 400])
    (record,) = load(tmp_path)
    np.testing.assert_allclose(record.position, tracks / (200, 400), atol=1e-7)
    (own_range,) = load(tmp_path, data_scale="minmax")
    assert own_range.position.min() == 0
    assert own_range.position.max() == 1


def test_missing_points_do_not_change_the_range_and_become_zero(tmp_path):
    tracks = walk(20, names(), 0)
    tracks[3, 0, 1, 0] = np.nan  # half a point
    tracks[5] = np.inf
    write_recording(tmp_path / "a", tracks, names())
    (record,) = load(tmp_path)
    assert np.isnan(record.position[3, 0, 1]).all()
    assert record.missing == pytest.approx((1 + 6) / 120)
    bank = Bank.from_records([record])
    assert bank.tracks.isfinite().all()
    assert (bank.tracks[1 + 3, 0, 1] == 0).all()
    assert "5.8% of the points" in summary([record])


def test_select_orders_and_rename_follows(tmp_path):
    tracks = walk(20, names(3), 0)
    write_recording(tmp_path / "a", tracks, names(3))
    options = {
        "select_coords": "mouse2,mouse0;y,x;point1",
        "rename_coords": "mouse2:resident;*;point1:nose",
        "data_scale": "100x100",
    }
    (record,) = load(tmp_path, **options)
    expected = Features(individuals=("resident", "mouse0"), keypoints=("nose",), space=("y", "x"))
    assert record.features == expected
    np.testing.assert_allclose(
        record.position, tracks[:, [2, 0]][:, :, [1]][..., [1, 0]] / 100, atol=1e-7
    )
    assert record.steps == (
        "selected mouse2,mouse0;y,x;point1",
        "renamed mouse2:resident;*;point1:nose",
        "divided by 100x100",
    )


def test_recordings_in_another_order_are_put_in_order(tmp_path):
    write_dataset(tmp_path, [10, 10])
    other = names().model_copy(update={"individuals": ("mouse1", "mouse0")})
    tracks = walk(10, names(), 5)
    write_recording(tmp_path / "z", tracks, other)
    record = load(tmp_path, data_scale="100x100")[-1]
    assert record.features == names()
    np.testing.assert_allclose(record.position, tracks[:, ::-1] / 100, atol=1e-7)


def test_three_dimensions(tmp_path):
    features = names(space=3)
    write_recording(tmp_path / "a", walk(10, features, 0), features)
    assert load(tmp_path, data_scale="100x100x100")[0].position.shape == (10, 2, 3, 3)
    with pytest.raises(DataError, match="2 sides"):
        load(tmp_path, data_scale="100x100")


# Everything that can be wrong with a dataset ---------------------------------------------------


def test_every_problem_in_one_report(tmp_path):
    features = names()
    good = walk(20, features, 0)
    write_dataset(tmp_path, [20, 20, 20])
    write_recording(tmp_path / "wrong", good, names(keypoints=3).model_copy(
        update={"keypoints": ("point0", "point1", "tail")}))  # fmt: skip
    write_recording(tmp_path / "empty", np.full_like(good, np.nan), features)
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / "tracking.nc").write_text("not a NetCDF file")
    whole = write_recording(tmp_path / "classic", good, features, format="NETCDF3_CLASSIC")
    whole.write_bytes(whole.read_bytes()[:-500])
    whole = write_recording(tmp_path / "hdf", good, features)
    whole.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    with pytest.raises(DataError) as caught:
        load(tmp_path)
    report = str(caught.value)
    assert "5 of 8 recordings" in report
    assert (
        "wrong: keypoints are point0, point1, tail; 3 of 4 recordings have point0, point1, point2"
        in report
    )
    assert "empty: every point is missing" in report
    for damaged in ("text", "classic", "hdf"):
        assert f"{damaged}: tracking.nc cannot be read as movement" in report


def test_no_position(tmp_path):
    file = write_recording(tmp_path / "a", walk(9, names(), 0), names())
    import xarray as xr

    changed = xr.load_dataset(file).rename(position="centroid")
    changed.to_netcdf(file)
    with pytest.raises(DataError, match=r"no variable 'position' \(found: centroid\)"):
        load(tmp_path)


def test_no_such_folder(tmp_path):
    with pytest.raises(DataError, match="does not exist"):
        load(tmp_path / "nowhere")


def test_a_folder_without_recordings_and_a_wrong_format(tmp_path):
    with pytest.raises(DataError, match="holds no recordings"):
        load(tmp_path)
    write_dataset(tmp_path, [9])
    with pytest.raises(DataError, match=r"1 of movement; see --data_format"):
        load(tmp_path, data_format="SLEAP")


def test_a_filter_that_nothing_passes(tmp_path):
    write_dataset(tmp_path, [9])
    with pytest.raises(DataError, match="none of the 1 recordings .* named like r0"):
        load(tmp_path, data_filter="test")


def test_two_files_in_one_folder(tmp_path):
    write_recording(tmp_path / "a", walk(9, names(), 0), names())
    write_recording(tmp_path / "a", walk(9, names(), 0), names(), name="tracking_old.nc")
    with pytest.raises(DataError, match="2 tracking files in one folder"):
        load(tmp_path)


def test_out_of_range(tmp_path):
    write_recording(tmp_path / "a", walk(9, names(), 0), names())
    with pytest.raises(DataError, match=r"a: x runs from .* to .* said to be 50: .* give a larger"):
        load(tmp_path, data_scale="50x100")


def test_points_outside_can_be_missing(tmp_path):
    tracks = walk(20, names(), 0)
    tracks[4, 1, 2] = (-30, 50)
    tracks[7, 0, 0] = (50, 101)
    write_recording(tmp_path / "a", tracks, names())
    (record,) = load(tmp_path, data_scale="100x100", outside="missing")
    assert np.isnan(record.position[4, 1, 2]).all()
    assert np.isnan(record.position[7, 0, 0]).all()
    assert np.isnan(record.position).sum() == 4
    assert record.steps[0] == "2 points outside 100x100 taken for missing"
    with pytest.raises(DataError, match="every point is outside"):
        load(tmp_path, data_scale="0.1x0.1", outside="missing")


def test_sides_of_the_video_belong_to_axes_by_name(tmp_path):
    tracks = walk(20, names(), 0)
    write_recording(tmp_path / "a", tracks, names(), image_size_px=[200, 400])
    for options in ({}, {"data_scale": "200x400"}):
        (record,) = load(tmp_path, select_coords="*;y,x;*", rename_coords="*;y:up;*", **options)
        assert record.features.space == ("up", "x")
        np.testing.assert_allclose(record.position, tracks[..., ::-1] / (400, 200), atol=1e-7)
    (record,) = load(tmp_path, select_coords="*;y;*", data_scale="200x400")
    np.testing.assert_allclose(record.position, tracks[..., [1]] / 400, atol=1e-7)


def test_whole_numbers_at_the_origin_are_missing(tmp_path):
    tracks = walk(20, names(), 0).round().astype(np.int32)
    tracks[3, 1, 2] = 0
    write_recording(tmp_path / "a", tracks, names())
    (record,) = load(tmp_path)
    assert np.isnan(record.position[3, 1, 2]).all()
    assert record.missing == pytest.approx(1 / 120)
    assert "whole numbers" in record.steps[0]


def test_the_frame_rate_comes_from_the_times_or_the_user(tmp_path):
    import xarray as xr

    file = write_recording(tmp_path / "a", walk(9, names(), 0), names())
    dataset = xr.load_dataset(file)
    del dataset.attrs["fps"]
    dataset.to_netcdf(file)
    for unit in ({}, {"time_unit": "seconds"}):  # steps below 1 are no frames
        dataset.attrs.pop("time_unit", None)
        dataset.assign_attrs(**unit).to_netcdf(file)
        assert load(tmp_path)[0].fps == pytest.approx(30)
        assert load(tmp_path, fps=25, fps_override=True)[0].fps == 25
        with pytest.raises(DataError, match="30 frames per second, but --fps is 25"):
            load(tmp_path, fps=25)
    dataset.assign_coords(time=np.arange(9)).to_netcdf(file)
    assert load(tmp_path)[0].fps is None
    assert load(tmp_path, fps=25)[0].fps == 25


def test_dlc_files_that_differ_in_one_word_are_individuals(tmp_path):
    for animal in ("a", "b"):
        write_dlc(tmp_path / "r" / f"tracking_{animal}.csv", walk(9, names(1), 0), names(1),
                  multi=False)  # fmt: skip
    (record,) = load(tmp_path, data_format="DLC", data_scale="100x100")
    assert record.features.individuals == ("a", "b")


def test_a_flat_axis(tmp_path):
    tracks = walk(9, names(), 0)
    tracks[..., 1] = 5
    write_recording(tmp_path / "a", tracks, names())
    with pytest.raises(DataError, match="y is the same everywhere"):
        load(tmp_path)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"select_coords": "mouse0,mouse9;*;*"}, "no individuals mouse9; there are mouse0, mouse1"),
        ({"rename_coords": "*;*;tail:t"}, "cannot rename keypoints tail"),
        ({"rename_coords": "mouse0:mouse1;*;*"}, "two individuals of one name"),
    ],
)
def test_names_that_are_not_there(tmp_path, options, message):
    write_dataset(tmp_path, [9])
    with pytest.raises(DataError, match=message):
        load(tmp_path, **options)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (Selection, "a,b;*"),
        (Selection, "a,,b;*;*"),
        (Selection, "a,a;*;*"),
        (Renames, "a;*;*"),
        (Renames, "a:b:c;*;*"),
        (Renames, "a:b,a:c;*;*"),
        (Scale, "1024"),
        (Scale, "0x570"),
        (Scale, "wide x high"),
        (Scale, "infx570"),
    ],
)
def test_malformed_words(value, text):
    with pytest.raises(ValueError, match=r"expected|empty|twice"):
        value.parse(text)


@pytest.mark.parametrize("text", ["a,b;x,y;*", "*;*;*"])
def test_words_read_back_as_they_were_written(text):
    assert str(Selection.parse(text)) == text
    assert str(Renames.parse("a:b;*;c:d,e:f")) == "a:b;*;c:d,e:f"
    assert str(Scale.parse("1024x570.5")) == "1024x570.5"


# Real recordings -------------------------------------------------------------------------------


def test_netcdf3_and_netcdf4_of_one_recording_give_the_same_bank(real):
    classic = load(real / "mouse_pair_nc", data_filter="DLC3")
    hdf = load(real / "mouse_pair_nc_netcdf4")
    one, other = Bank.from_records(classic), Bank.from_records(hdf)
    assert [record.digest for record in classic] == [record.digest for record in hdf]
    assert bytes(one.tracks.numpy()) == bytes(other.tracks.numpy())


def test_the_original_dlc_file_gives_the_same_positions(real):
    (netcdf,) = load(real / "mouse_pair_nc_netcdf4")
    (csv,) = load(real / "mouse_pair_dlc", data_format="DLC")
    assert csv.features == netcdf.features
    np.testing.assert_array_equal(csv.position, netcdf.position)


@pytest.mark.parametrize(
    ("folder", "format", "shape", "missing"),
    [
        ("mouse_social_defeat_dlc", "DLC", (901, 2, 14, 2), 0.124),
        ("mouse_triplet_nc", "movement", (1800, 3, 12, 2), 0.104),
        ("fly_pair_sleap", "SLEAP", (3000, 2, 13, 2), 0.02),
    ],
)
def test_other_real_recordings(real, folder, format, shape, missing):
    (record,) = load(real / folder, data_format=format)
    assert record.position.shape == shape
    assert record.missing == pytest.approx(missing, abs=0.001)


def test_real_coordinates_outside_the_stated_video(real):
    with pytest.raises(DataError) as caught:
        load(real / "mouse_pair_nc", data_scale="1600x1200")
    report = str(caught.value)
    assert "3 of 3 recordings" in report
    assert "DLC1: x runs from -340.73 to" in report


def test_boris_files_are_no_recordings(real):
    with pytest.raises(DataError, match="holds no recordings"):
        find_sources(Dataset(path=real / "boris_extra", format="dlc"))
