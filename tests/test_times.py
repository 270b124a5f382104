"""The times of a file decide: cropped, thinned, with gaps; against its frame rate and --fps."""

import numpy as np
import pytest
import xarray as xr
from conftest import names, walk, write_recording

from lisbet.cli import main
from lisbet.core.config import Dataset
from lisbet.core.errors import DataError
from lisbet.data.load import load_records
from lisbet.options import DataOptions


def write(folder, times, events="attack,2.0,3.0", *, fps=30.0, time_unit="seconds", boris=None):
    """Write a recording with these times, and events beside it."""
    features = names(1, 2)
    file = write_recording(folder / "r", walk(len(times), features, 0), features)
    whole = xr.load_dataset(file, decode_times=False).assign_coords(time=("time", times))
    whole.attrs = {"fps": fps, "time_unit": time_unit}
    whole.attrs = {name: value for name, value in whole.attrs.items() if value is not None}
    whole.to_netcdf(file)
    if boris is None:
        table = f"behavior,start_time,end_time\n{events}\n"
        (folder / "r" / "annotations.csv").write_text(table)
    else:
        rows = [f"2.0,{boris},attack,START", f"3.0,{boris},attack,STOP"]
        (folder / "r" / "boris.csv").write_text("\n".join(["Time,FPS,Behavior,Status", *rows]))
    return folder


def load(path, annotations="csv_events", **options):
    dataset = Dataset(path=path, format="movement", annotations=annotations)
    (record,) = load_records(dataset, DataOptions(**options))
    return record


def refused(path, annotations="csv_events", **options) -> str:
    with pytest.raises(DataError) as caught:
        load(path, annotations, **options)
    return str(caught.value)


def rows(record) -> list[int]:
    return np.flatnonzero(record.labels.active.any(1)).tolist()


ALL = np.arange(150) / 30


@pytest.mark.parametrize(
    ("times", "unit", "fps"),
    [
        (ALL[30:], "seconds", 30.0),
        (ALL[30:], "seconds", None),
        (ALL[30:], None, 30.0),
        (ALL[30:].round(3), "seconds", 30.0),
        (ALL[30:].astype(np.float32), "seconds", 30.0),
        (np.arange(30, 150), "frames", 30.0),
        (np.arange(30, 150), None, 30.0),
        (1000 * ALL[30:], "milliseconds", 30.0),
        (1000 * ALL[30:], None, 30.0),
    ],
)
def test_a_cropped_recording_keeps_its_time(tmp_path, times, unit, fps):
    record = load(write(tmp_path, times, fps=fps, time_unit=unit))
    assert record.frames == 120
    assert record.fps == pytest.approx(30, rel=1e-3)
    assert record.start_s == pytest.approx(1, abs=1e-3)
    assert rows(record) == list(range(30, 60)), "2 s to 3 s of the video, which is cut at 1 s"
    assert "begins at 1 s of the video, by its times" in record.steps


def test_crops_far_into_a_long_video(tmp_path):
    for dtype, hour in ((np.float64, 3600), (np.float32, 3600)):
        times = (ALL + hour).astype(dtype)
        events = f"attack,{hour + 2}.0,{hour + 3}.0"
        assert rows(load(write(tmp_path, times, events))) == list(range(60, 90))
    times = (18000 + np.arange(150)) / 29.97
    record = load(write(tmp_path, times.round(3), "attack,601.0,602.0", fps=29.97))
    expected = [n for n in range(150) if (18001 + n) / 29.97 > 601 and (18000 + n) / 29.97 < 602]
    assert rows(record) == expected


def test_events_before_a_crop(tmp_path):
    events = "attack,0.0,0.5\nattack,0.9,1.2\nchase,0.0,1.0\nchase,1.0,1.0"
    labels = load(write(tmp_path, ALL[30:], events)).labels
    assert labels.behaviors == ("attack", "chase")
    assert np.flatnonzero(labels.active[:, 0]).tolist() == list(range(6))
    assert np.flatnonzero(labels.active[:, 1]).tolist() == [0], "one that takes no time"
    assert "ends at" in refused(write(tmp_path, ALL[30:90], "attack,2.0,3.2"))


def test_boris_events_of_a_cropped_recording(tmp_path):
    write(tmp_path, ALL[30:], boris="30.0")
    assert rows(load(tmp_path, "boris")) == list(range(30, 60))


@pytest.mark.parametrize(
    ("times", "unit", "fps"),
    [
        (ALL[::2], "seconds", None),
        (ALL[::2], "seconds", 15.0),
        (np.arange(0, 150, 2), "frames", 30.0),  # every second frame of a video at 30 per second
    ],
)
def test_a_thinned_recording(tmp_path, times, unit, fps):
    record = load(write(tmp_path, times, fps=fps, time_unit=unit))
    assert record.fps == pytest.approx(15)
    assert rows(record) == list(range(30, 45))


def test_a_thinned_recording_that_kept_the_frame_rate_of_the_video(tmp_path):
    write(tmp_path, ALL[::2], fps=30.0)
    said = refused(tmp_path)
    assert "the attribute 'fps' is 30, but the times in 'time' are 0.0666667 s apart" in said
    assert "--fps=15 will do" in said
    assert rows(load(tmp_path, fps=15)) == list(range(30, 45))
    assert "'fps' is 30" in refused(tmp_path, fps=30), "the times decide"


GAPS = {
    "seconds": (np.delete(ALL, slice(15, 45)), "seconds", 30.0),
    "milliseconds of precision": (np.delete(ALL, slice(15, 45)).round(3), "seconds", 30.0),
    "without frame rate": (np.delete(ALL, slice(15, 45)), "seconds", None),
    "frames": (np.delete(np.arange(150), slice(15, 45)), "frames", 30.0),
    "two": (np.delete(ALL, [15, *range(20, 49)]), "seconds", 30.0),
}


@pytest.mark.parametrize(("times", "unit", "fps"), GAPS.values(), ids=GAPS)
def test_gaps(tmp_path, times, unit, fps):
    write(tmp_path, times, fps=fps, time_unit=unit)
    said = refused(tmp_path)
    assert "'time' jumps at frame 15, from " in said
    assert "--time_gaps=missing" in said
    record = load(tmp_path, time_gaps="missing")
    seconds = unit == "seconds"
    present = np.rint(times * 30 if seconds else times).astype(int)
    assert record.frames == 150
    assert record.fps == pytest.approx(30, rel=1e-3)
    assert np.flatnonzero(~np.isnan(record.position[:, 0, 0, 0])).tolist() == present.tolist()
    tracks = walk(120, names(1, 2), 0)
    low, high = tracks.min((0, 1, 2)), tracks.max((0, 1, 2))
    expected = (tracks - low) / (high - low)
    np.testing.assert_allclose(record.position[present], expected, atol=1e-6)
    assert rows(record) == list(range(60, 90)), "2 s to 3 s of the video"
    assert "30 frames that are left out of 'time' added as missing" in record.steps


@pytest.mark.parametrize(
    ("times", "message"),
    [
        (np.r_[ALL[:20], ALL[20:] + 0.5 / 30], "jumps at frame 20"),
        (np.r_[ALL[:20], ALL[20:] + 1.5 / 30], "jumps at frame 20"),
        (np.r_[ALL[:20], ALL[20:] + 2.4 / 30], "jumps at frame 20"),
        (np.r_[ALL[:20], 1e6 + ALL[20:]], "leaves out 3"),
        (np.r_[ALL[:20], 1e300], "jumps at frame 20"),
        (ALL[::-1], "runs backwards"),
        (np.r_[ALL[:20], ALL[19:]], "repeats at frame 20"),
    ],
)
def test_times_that_are_on_no_even_axis(tmp_path, times, message):
    said = refused(write(tmp_path, times), time_gaps="missing")
    assert message in said
    assert "--time_gaps" not in said


def test_a_crop_in_frames_without_a_frame_rate(tmp_path):
    write(tmp_path, np.arange(30, 150), fps=None, time_unit="frames")
    said = refused(tmp_path)
    assert "pass --fps" in said
    assert rows(load(tmp_path, fps=30)) == list(range(30, 60))


@pytest.mark.parametrize("unit", ["hours", "fortnights"])
def test_an_unknown_unit(tmp_path, unit):
    said = refused(write(tmp_path, ALL, time_unit=unit))
    assert f"the attribute 'time_unit' is '{unit}'" in said
    assert "expected 'seconds' or 'frames'" in said


def test_a_unit_that_cannot_be_guessed(tmp_path):
    said = refused(write(tmp_path, np.arange(150) * 2.5, time_unit=None))
    assert "'time_unit' is missing and the steps are 2.5" in said


# --fps ------------------------------------------------------------------------------------------


def test_seconds_that_are_said_to_be_frames(tmp_path):
    write(tmp_path, ALL, time_unit="frames")
    said = refused(tmp_path)
    assert "'time' has steps of 0.0333333, but the attribute 'time_unit' is 'frames'" in said


@pytest.mark.parametrize(("fps", "good"), [(30, True), (30.001, True), (29.97, False), (25, False)])
def test_the_frame_rate_of_the_user_against_the_one_of_the_file(tmp_path, capsys, fps, good):
    write(tmp_path, ALL)
    if good:
        assert load(tmp_path, fps=fps).fps == 30
        return
    said = refused(tmp_path, fps=fps)
    assert f"tracking.nc: it states 30 frames per second, but --fps is {fps:g}" in said
    record = load(tmp_path, fps=fps, fps_override=True)
    assert record.fps == fps
    assert f"taken to have {fps:g} frames per second, by --fps_override" in record.steps
    assert rows(record)[0] == int(2 * fps)
    with pytest.raises(SystemExit):
        main(["dataset_info", f"--fps={fps}", str(tmp_path)])
    assert "--fps_override" in capsys.readouterr().err


def test_a_crop_whose_times_are_replaced(tmp_path):
    """Frame 30 of a video is at 2 s, not at 1 s, if it has 15 frames per second, not 30."""
    record = load(write(tmp_path, ALL[30:]), fps=15, fps_override=True)
    assert record.start_s == pytest.approx(2)
    assert rows(record) == list(range(15))


@pytest.mark.parametrize("stated", ["25.0", "25.00;25.00"])
def test_the_frame_rate_of_the_user_against_the_one_of_boris(tmp_path, stated):
    write(tmp_path, np.arange(150), fps=None, time_unit="frames", boris=stated)
    said = refused(tmp_path, "boris", fps=30)
    assert "boris.csv: it states 25 frames per second, but --fps is 30" in said
    assert rows(load(tmp_path, "boris", fps=25)) == list(range(50, 75))
    record = load(tmp_path, "boris", fps=30, fps_override=True)
    assert rows(record) == list(range(60, 90))


def test_override_needs_a_frame_rate(tmp_path, capsys):
    with pytest.raises(SystemExit) as caught:
        main(["dataset_info", "--fps_override", str(tmp_path)])
    assert caught.value.code == 2
    assert "--fps_override needs --fps" in capsys.readouterr().err
