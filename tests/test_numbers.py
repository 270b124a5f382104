"""Numbers that cannot be: times, frame rates and coordinates, each refused in one message."""

import numpy as np
import pytest
import xarray as xr
from conftest import names, walk, write_dataset, write_recording

from lisbet.cli import main
from lisbet.core.config import Dataset
from lisbet.core.errors import DataError
from lisbet.data.load import load_records
from lisbet.data.record import from_dataset
from lisbet.options import DataOptions


def load(path, **options):
    return load_records(Dataset(path=path, format="movement"), DataOptions(**options))


def refused(path, **options) -> str:
    with pytest.raises(DataError) as caught:
        load(path, **options)
    said = str(caught.value)
    assert "1 of 1 recordings" in said
    return said


def write(folder, position=None, *, time=None, frames=40, **attributes):
    """Write a recording as movement does, with other times and attributes."""
    position = walk(frames, names(), 0) if position is None else position
    file = write_recording(folder / "r", position, names())
    whole = xr.load_dataset(file, decode_times=False)
    if time is not None:
        whole = whole.assign_coords(time=("time", np.asarray(time)))
    whole.attrs["time_unit"] = "seconds"
    for name, value in attributes.items():
        whole.attrs.pop(name, None)
        if value is not None:
            whole.attrs[name] = value
    whole.to_netcdf(file)
    return folder


# Times ------------------------------------------------------------------------------------------

EVEN = np.arange(40) / 30


def edited(at: int, value: float) -> np.ndarray:
    times = EVEN.copy()
    times[at] = value
    return times


TIMES = {
    "backwards": (edited(7, 0.1), "'time' runs backwards at frame 7, from 0.2 to 0.1 (1 such"),
    "reversed": (EVEN[::-1], "'time' runs backwards at frame 1, from 1.3 to"),
    "repeats": (edited(4, 0.1), "'time' repeats at frame 4, from 0.1 to 0.1 (1 such"),
    "all alike": (EVEN * 0, "'time' repeats at frame 1, from 0 to 0 (39 such"),
    "jumps": (np.delete(np.arange(50) / 30, slice(15, 25)), "'time' jumps at frame 15, from 0.466"),
    "one is missing": (np.delete(np.arange(41) / 30, 3), "'time' jumps at frame 3, from 0.0666"),
    "nan": (edited(5, np.nan), "'time' of frame 5 is nan (1 of 40 time stamps"),
    "infinite": (edited(0, -np.inf), "'time' of frame 0 is -inf (1 of 40"),
    "text": (np.arange(40).astype(str), "'time' holds "),
}


@pytest.mark.parametrize(("time", "message"), TIMES.values(), ids=TIMES)
def test_times(tmp_path, time, message):
    assert f"r: tracking.nc: {message}" in refused(write(tmp_path, time=time))


@pytest.mark.parametrize(
    ("time", "fps"),
    [
        (EVEN, 30.0),
        (EVEN + 17.5, 30.0),  # cropped
        (EVEN[:40] * 5, 6.0),  # thinned
        (EVEN.round(3), 30.0),  # milliseconds
        (EVEN.astype(np.float32) + np.float32(3600), 30.0),
        (np.arange(40) / 29.97, 29.97),
        (EVEN, None),
        (np.arange(40) / 1000, 1000.0),
    ],
)
def test_even_times_are_read(tmp_path, time, fps):
    attribute = 30.0 if fps == 29.97 else fps  # rounded by the one who wrote it
    (record,) = load(write(tmp_path, time=time, fps=attribute))
    assert record.fps == pytest.approx(30 if fps is None else fps)


def test_frames_as_unit_of_time(tmp_path):
    (record,) = load(write(tmp_path, time=np.arange(100, 140), time_unit="frames", fps=25.0))
    assert record.fps == 25
    said = refused(write(tmp_path, time=np.r_[0:20, 25:45], time_unit="frames", fps=25.0))
    assert "'time' jumps at frame 20, from 19 to 25" in said


def test_times_that_contradict_the_frame_rate(tmp_path):
    write(tmp_path, time=EVEN * 5, fps=30.0)
    said = refused(tmp_path)
    assert "attribute 'fps' is 30, but the times in 'time' are 0.166667 s apart" in said
    assert "which is 6 frames per second" in said
    assert load(tmp_path, fps=6)[0].fps == 6
    assert load(tmp_path, fps=30, fps_override=True)[0].fps == 30
    assert "attribute 'fps' is 30" in refused(tmp_path, fps=30), "the times decide"
    assert "attribute 'fps' is 30" in refused(tmp_path, fps=25)
    write(tmp_path, fps=25.0, time_unit=None)
    assert "'fps' is 25, but" in refused(tmp_path), "times below 1 are no frames"


@pytest.mark.parametrize("fps", [0.0, -30.0, np.nan, np.inf, -np.inf, "fast"])
def test_frame_rates_of_files(tmp_path, fps):
    write(tmp_path, fps=fps)
    said = refused(tmp_path)
    assert f"r: tracking.nc: the attribute 'fps' is {fps}; expected a positive number" in said
    assert load(tmp_path, fps=30)[0].fps == pytest.approx(30)


@pytest.mark.parametrize("fps", ["0", "-30", "nan", "inf"])
@pytest.mark.parametrize("command", ["dataset_info", "plot_embeddings"])
def test_frame_rates_of_the_user(tmp_path, capsys, command, fps):
    with pytest.raises(SystemExit) as caught:
        main([command, f"--fps={fps}", str(tmp_path)])
    assert caught.value.code == 2
    said = capsys.readouterr().err
    assert said.startswith("betman: error: --fps") or "fps" in said.splitlines()[0]


# Coordinates ------------------------------------------------------------------------------------


def with_values(*edits) -> np.ndarray:
    position = walk(40, names(), 0)
    for where, value in edits:
        position[where] = value
    return position


COORDINATES = {
    "overflow": (
        with_values((0, -1e308), (1, 1e308)),
        "x runs from -1e+308 to 1e+308, which is no",
    ),
    "an outlier": (with_values(((3, 0, 0), 1e30)), "to 1e+30, but most values lie between"),
    "lowest": (with_values(((3, 0, 0, 1), -1e12)), "y runs from -1e+12 to"),
    "far away": (with_values(((slice(None), 1), 1e9)), "to 1e+09, but moves by less than"),
    "constant": (with_values(((..., 1), 5)), "y is the same everywhere (5), so it has no range"),
    "all constant": (with_values((..., 5)), "x, y is the same everywhere (5, 5)"),
    "rounding": (
        with_values(((..., 0), 5 + 1e-15 * np.arange(40)[:, None, None])),
        "x is the same",
    ),
    "text": (walk(40, names(), 0).astype(str), "'position' holds"),
    "infinite": (np.full((40, 2, 3, 2), np.inf), "every point is missing"),
}


@pytest.mark.parametrize(("position", "message"), COORDINATES.values(), ids=COORDINATES)
def test_coordinates_scaled_by_their_range(tmp_path, position, message):
    assert message in refused(write(tmp_path, position))


@pytest.mark.parametrize("dtype", ["c16", object, "U4", bool])
def test_positions_that_are_no_numbers(tmp_path, dtype):
    file = write_recording(tmp_path / "r", walk(9, names(), 0), names())
    whole = xr.load_dataset(file)
    with pytest.raises(DataError, match=r"tracking.nc: 'position' holds .*; expected numbers"):
        from_dataset("r", file, whole.assign(position=whole["position"].astype(dtype)))


def test_one_constant_recording_of_several_is_named(tmp_path):
    write_dataset(tmp_path, [20, 20])
    write_recording(tmp_path / "flat", with_values(((..., 0), 3)), names())
    with pytest.raises(DataError, match=r"1 of 3 (.|\n)*flat: x is the same everywhere \(3\)"):
        load(tmp_path)
    write_recording(tmp_path / "flat", with_values(((..., 0), 3)), names())
    assert load(tmp_path, data_scale="100x100")[0].id == "flat", "--data_scale needs no range"


@pytest.mark.parametrize(
    ("scale", "message"),
    [
        ("1e9x1e9", "but --data_scale is 1e+09 along it"),
        ("100x1e8", "y runs from"),
        ("1e5x1e6", "of each other; expected at least 0.001. Give the size"),
        ("1e-9x1e-9", "the size of the video is said to be 1e-09"),
        ("1e308x1e308", "--data_scale is 1e+308"),
    ],
)
def test_absurd_scales(tmp_path, scale, message):
    assert message in refused(write(tmp_path), data_scale=scale)


def test_an_absurd_size_in_the_file(tmp_path):
    write(tmp_path, image_size_px=[10**8, 10**8])
    said = refused(tmp_path)
    assert "but the size of the video is 1e+08 along it" in said
    assert "--data_scale=minmax" in said


def test_infinite_coordinates_are_missing_and_recorded(tmp_path):
    (record,) = load(write(tmp_path, with_values(((5, 1), np.inf), ((6, 0, 0, 1), -np.inf))))
    assert record.steps[0] == "4 points with infinite coordinates taken for missing"
    assert np.isnan(record.position).any(axis=-1).sum() == 4


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8", "i2", "i8", "u1"])
def test_numbers_of_every_size(tmp_path, dtype):
    position = walk(40, names(), 0).round().astype(dtype)
    if dtype == "f2":  # NetCDF has no float16
        write(tmp_path, position.astype("f4"))
        whole = xr.load_dataset(tmp_path / "r" / "tracking.nc").astype("f2")
        record = from_dataset("r", tmp_path / "tracking.nc", whole)
        np.testing.assert_array_equal(record.position, position)
        assert record.position.dtype == np.float32
    else:
        (record,) = load(write(tmp_path, position), data_scale="100x100")
        np.testing.assert_allclose(record.position, position / 100, atol=1e-7)
