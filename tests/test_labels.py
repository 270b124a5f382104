"""Annotations of every format become the same behaviours, frame by frame."""

import numpy as np
import pytest
import xarray as xr
from conftest import names, walk, write_recording

from lisbet.core.config import Dataset
from lisbet.core.errors import DataError
from lisbet.data.hub._write import write_annotations
from lisbet.data.labels import LABEL_READERS
from lisbet.data.load import load_records
from lisbet.options import DataOptions

OLD = """Observation id,x,,,,,,,
,,,,,,,,
independent variables,,,,,,,,
Time,Media file path,Total length,FPS,Subject,Behavior,Behavioral category,Comment,Status
"""
NEW = "Observation id,FPS,Subject,Behavior,Behavior type,Time\n"


def old(*events):
    return OLD + "".join(
        f"{t},v.avi,10,30.0,{who},{what},,,{kind}\n" for t, who, what, kind in events
    )


def new(*events):
    return NEW + "".join(f"x,30,{who},{what},{kind},{t}\n" for t, who, what, kind in events)


EVENTS = [
    (0.0, "a", "sniff", "START"),
    (1.0, "a", "sniff", "STOP"),
    (2.5, "a", "chase", "START"),
    (2.6, "b", "chase", "START"),
    (3.0, "a", "chase", "STOP"),
    (3.2, "b", "chase", "STOP"),
]


def read(tmp_path, format, text, frames=120, fps=30.0):
    file = tmp_path / "boris_events.csv"
    file.write_text(text)
    return LABEL_READERS[format].read(file, frames, fps)


def expected(frames=120):
    active = np.zeros((frames, 2), bool)
    active[75:96, 0] = True  # chase
    active[0:30, 1] = True  # sniff
    return active


@pytest.mark.parametrize("layout", [old, new])
@pytest.mark.parametrize("fps", [30.0, None])
def test_both_layouts_of_boris(tmp_path, layout, fps):
    labels = read(tmp_path, "boris", layout(*EVENTS), fps=fps)
    assert labels.behaviors == ("chase", "sniff")
    np.testing.assert_array_equal(labels.active, expected())


def test_the_order_of_rows_does_not_matter(tmp_path):
    by_behavior = sorted(EVENTS, key=lambda event: (event[2], event[0]))
    labels = read(tmp_path, "boris", old(*by_behavior))
    np.testing.assert_array_equal(labels.active, expected())


def test_csv_events(tmp_path):
    text = "behavior,start_time,end_time\nsniff,0,1\nchase,2.5,3.0\nchase,2.6,3.2\n"
    labels = read(tmp_path, "csv_events", text)
    np.testing.assert_array_equal(labels.active, expected())
    assert labels.behaviors == ("chase", "sniff")


def test_no_events_are_no_behaviours(tmp_path):
    assert read(tmp_path, "csv_events", "behavior,start_time,end_time\n").behaviors == ()
    assert read(tmp_path, "boris", old()).active.shape == (120, 0)


@pytest.mark.parametrize(
    ("format", "text", "message"),
    [
        ("boris", old(*EVENTS[:1]), "'sniff' starts at 0 s and never stops"),
        ("boris", old(*EVENTS[1:2]), "STOP of 'sniff' at 1 s, which is not running"),
        ("boris", old(EVENTS[0], EVENTS[0]), "which runs already"),
        ("boris", old((1, "a", "b", "PAUSE")), "PAUSE of 'b'"),
        ("boris", old(("soon", "a", "b", "START")), "Time of row 1 is 'soon', not a time"),
        ("boris", old((1, "a", "b", "START"), (9, "a", "b", "STOP")), "ends at 9 s, but the rec"),
        ("boris", "a,b\n1,2\n", "no tabular export of BORIS"),
        ("boris", "", "no tabular export of BORIS"),
        ("csv_events", "behavior,start\na,1\n", "no column start_time, end_time"),
        ("csv_events", "behavior,start_time,end_time\na,2,1\n", "runs from 2 s to 1 s"),
        ("csv_events", "behavior,start_time,end_time\na,-1,1\n", "runs from -1 s"),
        ("csv_events", "behavior,start_time,end_time\na,,1\n", "start_time of row 1 is ''"),
        ("csv_events", "", "cannot be read as a table"),
    ],
)
def test_events_that_cannot_be(tmp_path, format, text, message):
    with pytest.raises(DataError, match=message):
        read(tmp_path, format, text)


def test_behaviours_that_meet_within_a_frame_do_not_share_it(tmp_path):
    # 1.01 s is 30.3 frames: two thirds of frame 30 belong to the second behaviour.
    text = "behavior,start_time,end_time\nrest,0,1.01\nrun,1.01,2.02\nrest,2.03,4\n"
    labels = read(tmp_path, "csv_events", text)
    assert labels.active.sum(axis=1).tolist() == [1] * 120
    assert labels.active[29:31].tolist() == [[True, False], [False, True]]
    assert labels.active[60, 1], "60.6 frames: most of frame 60 is the run's"
    overlapping = "behavior,start_time,end_time\nrest,0,1.02\nrun,1.01,2\n"
    assert read(tmp_path, "csv_events", overlapping).active[30].all()


@pytest.mark.parametrize("format", ["NETCDF3_CLASSIC", "NETCDF4"])
def test_damaged_annotations_are_named(tmp_path, format):
    data = dataset(tmp_path, [[0, 1] * 200, [0, 1] * 200])
    file = tmp_path / "r1" / "annotations.nc"
    whole = xr.load_dataset(file)
    whole.to_netcdf(file, format=format)
    load_records(data, DataOptions())
    file.write_bytes(file.read_bytes()[:-250])
    with pytest.raises(DataError, match=r"1 of 2 (.|\n)*r1: annotations.nc cannot be read"):
        load_records(data, DataOptions())


def test_behaviours_stored_as_bytes_or_without_names(tmp_path):
    data = dataset(tmp_path, [[0, 1]])
    file = tmp_path / "r0" / "annotations.nc"
    whole = xr.load_dataset(file)
    whole.assign_coords(behaviors=np.array(["rest", "run"], dtype="S")).to_netcdf(file)
    assert load_records(data, DataOptions())[0].labels.behaviors == ("rest", "run")
    whole.drop_vars("behaviors").to_netcdf(file)
    with pytest.raises(DataError, match="has no names for its behaviors"):
        load_records(data, DataOptions())


def test_seconds_need_a_frame_rate(tmp_path):
    with pytest.raises(DataError, match="frame rate"):
        read(tmp_path, "csv_events", "behavior,start_time,end_time\na,0,1\n", fps=None)


def dataset(folder, states, *, listed=("rest", "run"), length=None):
    """Recordings with annotations in the movement format; states are numbers of behaviours."""
    for number, state in enumerate(states):
        place = folder / f"r{number}"
        write_recording(place, walk(length or len(state), names(), number), names())
        active = np.eye(5, dtype=bool)[state][:, : len(listed)]
        write_annotations(place, active, behaviors=listed, annotator="a", fps=30, source="test")
    return Dataset(path=folder, format="movement", annotations="movement")


def test_annotations_in_the_movement_format(tmp_path):
    records = load_records(dataset(tmp_path, [[0, 0, 1, 2], [1, 1, 1, 1]]), DataOptions())
    assert records[0].labels.behaviors == ("rest", "run")
    assert records[0].labels.active.tolist() == [
        [True, False], [True, False], [False, True], [False, False],
    ]  # fmt: skip


def test_annotations_of_another_length_are_named(tmp_path):
    with pytest.raises(DataError, match=r"r0: annotations.nc has 4 frames, the recording 9"):
        load_records(dataset(tmp_path, [[0, 0, 1, 1]], length=9), DataOptions())


def test_recordings_without_annotations_are_named(tmp_path):
    data = dataset(tmp_path, [[0, 1], [0, 1], [0, 1]])
    (tmp_path / "r1" / "annotations.nc").unlink()
    with pytest.raises(DataError, match=r"1 of 3 (.|\n)*r1: expected one annotation file"):
        load_records(data, DataOptions())
    assert len(load_records(data.model_copy(update={"annotations": None}), DataOptions())) == 3


def test_behaviours_that_differ_are_named(tmp_path):
    dataset(tmp_path, [[0, 1], [0, 1]])
    place = tmp_path / "z"
    data = dataset(place, [[0, 1]], listed=("rest", "sleep"))
    with pytest.raises(
        DataError, match=r"z/r0: behaviours are rest, sleep; 2 of 3 recordings have rest, run"
    ):
        load_records(data.model_copy(update={"path": tmp_path}), DataOptions())


def test_events_need_not_name_every_behaviour(tmp_path):
    for number, text in enumerate(("run,0,0.1\n", "rest,0,0.1\n", "")):
        place = tmp_path / f"r{number}"
        write_recording(place, walk(9, names(), number), names())
        (place / "annotations.csv").write_text("behavior,start_time,end_time\n" + text)
    data = Dataset(path=tmp_path, format="movement", annotations="csv_events")
    records = load_records(data, DataOptions())
    assert {record.labels.behaviors for record in records} == {("rest", "run")}
    assert [record.labels.active.sum(0).tolist() for record in records] == [[0, 3], [3, 0], [0, 0]]


# Real annotations --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("folder", "format"), [("mouse_pair_nc", "movement"), ("mouse_pair_dlc", "dlc")]
)
def test_interact_takes_the_documented_share_of_the_frames(real, folder, format):
    shares = {"DLC1": 0.109, "DLC2": 0.202, "DLC3": 0.118}
    records = load_records(
        Dataset(path=real / folder, format=format, annotations="boris"), DataOptions()
    )
    for record in records:
        assert record.labels.behaviors == ("interact",)
        assert record.labels.active.mean() == pytest.approx(shares[record.id], abs=5e-4)


def test_real_exports_with_several_behaviours(real):
    reader = LABEL_READERS["boris"]
    folder = real / "boris_extra"
    labels = reader.read(folder / "ethome_simultaneous_events.csv", 10_080, 30.0)
    assert labels.behaviors == ("aa", "mm")
    assert labels.active.all(axis=1).any(), "the events overlap"
    labels = reader.read(folder / "DLC1_multiple_behaviors.csv", 10_080, None)
    assert {"interact", "mount"} <= set(labels.behaviors)
    new = reader.read(folder / "simba_boris_new_format_EXCERPT_first20rows.csv", 18_923, None)
    assert new.behaviors == ("behavior1", "behavior2")
    assert new.active[round(6 * 59.94)].tolist() == [True, False]
