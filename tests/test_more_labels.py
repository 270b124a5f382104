"""Annotations of Bento, tables frame by frame, and projects of BORIS, in their own layouts."""

import json

import numpy as np
import pandas as pd
import pytest
from conftest import names, walk, write_recording
from test_boris import FRAMES, frames_of, span
from test_readers import load as load_tracks

from lisbet import contracts
from lisbet.core.config import Dataset
from lisbet.core.errors import DataError
from lisbet.data.labels import LABEL_READERS, Choice
from lisbet.data.load import load_records
from lisbet.options import DataOptions

BENTO, TABLE = LABEL_READERS["bento"], LABEL_READERS["frame_table"]
PROJECT = LABEL_READERS["boris_project"]


def recordings(folder, annotations, **options):
    return load_records(
        Dataset(path=folder, format="auto", annotations=annotations), DataOptions(**options)
    )


# Bento -----------------------------------------------------------------------------------------


def bento(bouts, *, fps="30.000000", seconds=False, start=None, stop=None, extra=""):
    """A file of Bento: bouts by channel and behaviour, numbers as they are written."""
    word = "time" if seconds else "frame"
    start = ("0.0" if seconds else "1") if start is None else start
    stop = (f"{FRAMES / 30:.6f}" if seconds else FRAMES) if stop is None else stop
    lines = ["Bento annotation file", "Movie file(s):  /data/m1.avi", "", "Stimulus name: ",
             f"Annotation start {word}: {start}", f"Annotation stop {word}: {stop}",
             f"Annotation framerate: {fps}" if fps else "", "", "List of channels:", *bouts, "",
             "List of annotations:", *{n for own in bouts.values() for n in own}, ""]  # fmt: skip
    for channel, behaviors in bouts.items():
        lines.append(f"{channel}----------")
        for behavior, rows in behaviors.items():
            lines += [f">{behavior}", "Start\t Stop\t Duration "]
            lines += ["\t".join(map(str, row)) for row in rows] + [""]
        lines.append("")
    return "\n".join(lines) + extra


def read_bento(folder, text, frames=FRAMES, fps=30.0, **choice):
    file = folder / "m1.annot"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    return BENTO.read(file, frames, fps, choice=Choice(**choice))


def test_bento_in_frames(tmp_path):
    """Frames count from 1, and the last one belongs to the bout."""
    text = bento({"Ch1": {"attack": [(1, 10, 9), (300, 300, 0)], "sniff face": [(20, 21, 1)]}})
    labels = read_bento(tmp_path, text)
    assert labels.behaviors == ("attack", "sniff face")
    assert frames_of(labels, "attack") == [*span(0, 9), 299]
    assert frames_of(labels, "sniff face") == [19, 20]
    assert (labels.fps, labels.warnings) == (30, ())
    contracts.check_annotation_reader(BENTO, tmp_path / "m1.annot", FRAMES, 30.0)
    assert frames_of(read_bento(tmp_path, text.replace("\n", "\r\n")), "sniff face") == [19, 20]


def test_bento_in_frames_stays_in_frames(tmp_path):
    """Rates that differ by rounding shift nothing; other ones are converted, with a warning."""
    text = bento({"Ch1": {"attack": [(17001, 17010, 9)]}}, stop=18000, fps="29.97")
    assert frames_of(read_bento(tmp_path, text, 18000, 30.0), "attack") == span(17000, 17009)
    assert frames_of(read_bento(tmp_path, text, 18000, None), "attack") == span(17000, 17009)
    half = bento({"Ch1": {"attack": [(21, 40, 19)]}}, fps="60")
    assert frames_of(read_bento(tmp_path, half), "attack") == span(10, 19)


def test_bento_counting_from_zero(tmp_path):
    text = bento({"Ch1": {"attack": [(0, 4, 4)], "rest": [(9, 9, 0)]}}, start=0)
    labels = read_bento(tmp_path, text)
    assert (frames_of(labels, "attack"), frames_of(labels, "rest")) == (span(0, 4), [9])


def test_bento_in_seconds(tmp_path):
    text = bento({"Ch1": {"attack": [("1.0", "2.0", "1.0"), ("4", "4.5", "0.5")]}}, seconds=True)
    assert frames_of(read_bento(tmp_path, text), "attack") == span(30, 59) + span(120, 134)
    # Bento divides its frames, which count from 1, by the frame rate: the first is at 1/30 s.
    rows = [(f"{first / 30:.12g}", f"{last / 30:.12g}", f"{(last - first) / 30:.12g}")
            for first, last in ((1, 10), (31, 60))]  # fmt: skip
    text = bento({"Ch1": {"attack": rows}}, seconds=True, start="3.333333e-02")
    assert frames_of(read_bento(tmp_path, text), "attack") == span(0, 9) + span(30, 59)


def test_channels_of_bento(tmp_path):
    text = bento({"ChA": {"attack": [(1, 10, 9)]}, "ChB": {"attack": [(6, 20, 14)], "run": []}})
    both = read_bento(tmp_path, text)
    assert frames_of(both, "attack") == span(0, 19)
    assert "channels ChA, ChB" in both.warnings[0]
    one = read_bento(tmp_path, text, subject="ChB")
    assert (frames_of(one, "attack"), one.warnings) == (span(5, 19), ())
    with pytest.raises(DataError, match="no events of --subject=ChC; there are events of ChA, ChB"):
        read_bento(tmp_path, text, subject="ChC")


def test_a_recording_that_was_annotated_in_part(tmp_path):
    text = bento({"Ch1": {"attack": [(60, 70, 10)]}}, start=51, stop=100)
    (said,) = read_bento(tmp_path, text).warnings
    assert "annotated from frame 50 to 100 of 300" in said


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (bento({"Ch1": {"a": [(1, 10)]}}), r"line 18 is '1\\t10'; expected start, stop and dur"),
        (bento({"Ch1": {"a": [(10, 1, -9)]}}), "runs from 0.3 s to 0.0333333 s"),
        (bento({"Ch1": {"a": [(1, 400, 399)]}}), "ends at 13.3333 s, but the recording ends at"),
        (bento({"Ch1": {"a": [(1, 2, 1)]}}, seconds=True), "may be frames or seconds"),
        (bento({"Ch1": {"a": [(1, 20, 19)]}}), "of which the duration is not that"),
        (bento({"Ch1": {"a": [(1, 20, 19)]}})[:120], "has no channel"),
        ("Start,Stop\n1,2\n", "expected 'Bento annotation file'"),
        (b"", "expected 'Bento annotation file'"),
    ],
)  # fmt: skip
def test_bento_that_is_refused(tmp_path, text, message):
    if "duration" in message:
        text = text.rstrip()[:-1]
    with pytest.raises(DataError, match=message) as caught:
        read_bento(tmp_path, text)
    assert "m1.annot" in str(caught.value)


def test_bento_without_a_frame_rate(tmp_path):
    text = bento({"Ch1": {"a": [(1, 30, 29)]}}, fps="")
    assert frames_of(read_bento(tmp_path, text, fps=20.0), "a") == span(0, 29)
    with pytest.raises(DataError, match="states no 'Annotation framerate'.*--fps=30"):
        read_bento(tmp_path, text, fps=None)


@pytest.mark.parametrize("seed", range(15))
def test_generated_files_of_bento(tmp_path, seed):
    rng = np.random.default_rng(seed)
    fps = float(rng.choice([25.0, 30.0, 29.97]))
    seconds = bool(rng.random() < 0.5)
    expected = rng.random((FRAMES, 3)) < 0.2
    bouts = {}
    for column, name in enumerate(("a b", "attack", "z")):
        padded = np.concatenate([[0], expected[:, column], [0]])
        firsts, ends = np.flatnonzero(np.diff(padded) == 1), np.flatnonzero(np.diff(padded) == -1)
        rows = zip(firsts.tolist(), ends.tolist(), strict=True)
        bouts[name] = [
            (f"{first / fps:.8f}", f"{end / fps:.8f}", f"{(end - first) / fps:.8f}")
            if seconds
            else (first + 1, end, end - first)
            for first, end in rows
        ]
    text = bento({"Ch1": bouts}, fps=f"{fps:f}", seconds=seconds, stop="12.0" if seconds else None)
    labels = read_bento(tmp_path, text, fps=fps)
    assert labels.behaviors == ("a b", "attack", "z")
    np.testing.assert_array_equal(labels.active, expected)


def test_bento_beside_a_recording(tmp_path):
    write_recording(tmp_path / "r", walk(FRAMES, names(), 0), names())
    (tmp_path / "r" / "m1.annot").write_text(bento({"Ch1": {"attack": [(1, 30, 29)]}}))
    (record,) = recordings(tmp_path, "bento")
    assert frames_of(record.labels, "attack") == span(0, 29)
    with pytest.raises(DataError, match="m1.annot looks like annotations of Bento: use --annot_f"):
        recordings(tmp_path, "boris")


# One row for each frame ------------------------------------------------------------------------


def read_table(folder, text, frames=FRAMES, fps=30.0, name="m1_labels.csv", **choice):
    file = folder / name
    file.write_text(text)
    return TABLE.read(file, frames, fps, choice=Choice(**choice))


def random_behaviors(seed, columns=("attack", "groom", "sniff")):
    active = np.random.default_rng(seed).random((FRAMES, len(columns))) < 0.2
    return pd.DataFrame(active.astype(int), columns=list(columns))


@pytest.mark.parametrize("index", [True, False])
@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("number", ["%d", "%.1f"])
def test_behaviors_frame_by_frame(tmp_path, index, separator, number):
    table = random_behaviors(0)
    text = table.astype(float).to_csv(index=index, sep=separator, float_format=number)
    labels = read_table(tmp_path, text)
    assert labels.behaviors == ("attack", "groom", "sniff")
    np.testing.assert_array_equal(labels.active, table.to_numpy() == 1)
    contracts.check_annotation_reader(TABLE, tmp_path / "m1_labels.csv", FRAMES, 30.0)


def test_the_background_of_deepethogram(tmp_path):
    table = random_behaviors(1)
    table.insert(0, "background", (table.sum(axis=1) == 0).astype(int))
    labels = read_table(tmp_path, table.to_csv())
    assert labels.behaviors == ("attack", "groom", "sniff")
    np.testing.assert_array_equal(labels.active, table.to_numpy()[:, 1:] == 1)
    row = int(table["background"].to_numpy().argmin())
    wrong = table.copy()
    wrong.loc[row, "background"] = 1
    with pytest.raises(DataError, match=rf"background of row {row + 1} is 1, with \d behaviours"):
        read_table(tmp_path, wrong.to_csv())
    wrong = table.copy()
    wrong.loc[9, ["background", "attack", "groom", "sniff"]] = -1
    with pytest.raises(DataError, match="row 10 is '-1' .*nobody annotated"):
        read_table(tmp_path, wrong.to_csv())


def simba(table, *, probabilities=False):
    """Coordinates and features before the behaviours, some of them only 0 in all rows."""
    rng = np.random.default_rng(5)
    columns = {f"Nose_{mouse}_{axis}": rng.random(FRAMES) * 100
               for mouse in (1, 2) for axis in "xyp"}  # fmt: skip
    columns["Movement_mouse_1"] = rng.random(FRAMES)
    columns["Few_frames"] = np.repeat([0, 7], [FRAMES - 20, 20])
    columns["Low_prob_detections_0.1"] = np.zeros(FRAMES)
    for name in table:
        if probabilities:
            columns[f"Probability_{name}"] = rng.random(FRAMES)
        columns[name] = table[name].to_numpy()
    return pd.DataFrame(columns)


@pytest.mark.parametrize("probabilities", [True, False])
def test_the_tables_of_simba(tmp_path, probabilities):
    table = random_behaviors(2)
    labels = read_table(tmp_path, simba(table, probabilities=probabilities).to_csv())
    assert labels.behaviors == ("attack", "groom", "sniff")
    np.testing.assert_array_equal(labels.active, table.to_numpy() == 1)
    said = f"{'m1_labels.csv'}: taken for behaviours: attack, groom, sniff"
    assert labels.warnings == (() if probabilities else (said,))
    with pytest.raises(DataError, match="no table of behaviours"):
        read_table(tmp_path, simba(table[[]]).to_csv())


def test_a_feature_that_varies_late_is_no_behavior(tmp_path):
    whole = simba(random_behaviors(2)).drop(columns="Low_prob_detections_0.1")
    labels = read_table(tmp_path, whole.to_csv())
    assert labels.behaviors == ("attack", "groom", "sniff")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.iloc[::2].to_csv(), "first column of row 2 is 2; expected one row for each"),
        (lambda t: t.assign(time=t.index / 5)[["time", "attack"]].to_csv(index=False),
         "time of row 5 is 0.8; expected one row|time of row"),
        (lambda t: t.to_csv().replace("\n250,", "\n250,x", 1), "row 251 is 'x"),
        (lambda t: t.to_csv()[:-4], "row 300 is ''|expected 0 or 1"),
        (lambda t: t.rename(columns={"groom": "attack"}).to_csv(), "column attack is there twice"),
        (lambda t: "a,b\n1.5,2\n", "is no table of behaviours"),
        (lambda t: "", "is no table of behaviours"),
    ],
)  # fmt: skip
def test_tables_that_are_refused(tmp_path, change, message):
    with pytest.raises(DataError, match=message) as caught:
        read_table(tmp_path, change(random_behaviors(3)))
    assert "m1_labels.csv" in str(caught.value)


def test_times_of_rows(tmp_path):
    table = random_behaviors(3)
    text = table.assign(time=(table.index / 30).round(3))[["time", *table]].to_csv(index=False)
    np.testing.assert_array_equal(read_table(tmp_path, text).active, table.to_numpy() == 1)
    with pytest.raises(DataError, match="pass --fps"):
        read_table(tmp_path, text, fps=None)


def test_tables_beside_recordings(tmp_path):
    table = random_behaviors(4)
    for name in ("r1", "r2"):
        write_recording(tmp_path / name, walk(FRAMES, names(), 0), names())
        table.to_csv(tmp_path / name / "behaviours_of_video.csv")
    first, _ = recordings(tmp_path, "frame_table")
    np.testing.assert_array_equal(first.labels.active, table.to_numpy() == 1)
    with pytest.raises(
        DataError, match="behaviours frame by frame: use --annot_format=frame_table"
    ):
        recordings(tmp_path, "csv_events")
    with pytest.raises(DataError, match="--subject=m1 cannot apply"):
        recordings(tmp_path, "frame_table", subject="m1")
    table.iloc[:-1].to_csv(tmp_path / "r2" / "behaviours_of_video.csv")
    with pytest.raises(DataError, match="has 299 frames, the recording 300"):
        recordings(tmp_path, "frame_table")
    assert len(load_tracks(tmp_path, "auto")) == 2  # none of them is a tracking file


# Projects of BORIS -----------------------------------------------------------------------------


def observation(events, videos=("/data/m1.mp4",), lengths=(10.0,), fps=30.0, **more):
    return {
        "file": {"1": list(videos), "2": []}, "type": "MEDIA", "date": "2026-01-01T10:00:00",
        "description": "", "time offset": 0.0, "events": [[*event, ""] for event in events],
        "independent_variables": {}, "close_behaviors_between_videos": False,
        "media_info": {"length": dict(zip(videos, lengths, strict=True)),
                       "fps": dict.fromkeys(videos, fps),
                       "hasVideo": dict.fromkeys(videos, True)},
    } | more  # fmt: skip


def project(observations):
    kinds = {"sniff": "State event", "attack": "State event", "jump": "Point event"}
    return {
        "time_format": "hh:mm:ss", "project_name": "mice", "project_format_version": "7.0",
        "subjects_conf": {"0": {"key": "m", "name": "mouse", "description": ""}},
        "behaviors_conf": {str(number): {"type": kind, "key": code[0], "code": code,
                                         "modifiers": ""}
                           for number, (code, kind) in enumerate(kinds.items())},
        "observations": observations,
    }  # fmt: skip


def read_project(folder, observations, frames=FRAMES, fps=None, **choice):
    file = folder / "mice.boris"
    file.write_text(json.dumps(project(observations)))
    return PROJECT.read(file, frames, fps, choice=Choice(**choice))


EVENTS = [
    (1.0, "mouse", "sniff", ""), (2.0, "mouse", "sniff", ""), (1.5, "other", "sniff", ""),
    (3.0, "other", "sniff", ""), (4.0, "mouse", "jump", ""),
    (5.0, "mouse", "attack", "a"), (5.5, "mouse", "attack", "b"), (6.0, "mouse", "attack", "a"),
    (7.0, "mouse", "attack", "b"),
]  # fmt: skip


def test_a_project_of_boris(tmp_path):
    labels = read_project(tmp_path, {"obs": observation(EVENTS[::-1])})
    assert frames_of(labels, "sniff") == span(30, 89)
    assert frames_of(labels, "jump") == [120]
    assert frames_of(labels, "attack") == span(150, 209)
    assert labels.fps == 30
    contracts.check_annotation_reader(PROJECT, tmp_path / "mice.boris", FRAMES, None)
    labels = read_project(tmp_path, {"obs": observation(EVENTS)}, subject="other")
    assert (labels.behaviors, frames_of(labels, "sniff")) == (("sniff",), span(45, 89))
    with pytest.raises(DataError, match="--subject=x; there are events of mouse, other"):
        read_project(tmp_path, {"obs": observation(EVENTS)}, subject="x")


def test_observations_of_a_project(tmp_path):
    both = {
        "day1": observation(EVENTS[:2], ["C:\\data\\m1.mp4"]),
        "day2": observation([(3, "", "jump", "")], ["/data/m2.mp4"]),
        "day3": observation([], ["/data/m3.mp4"]),
    }
    assert frames_of(read_project(tmp_path, both, recording=("M1",)), "sniff") == span(30, 59)
    assert read_project(tmp_path, both, recording=("day2",)).behaviors == ("jump",)
    assert read_project(tmp_path, both, fps=30.0, recording=("m3",)).behaviors == ()
    with pytest.raises(DataError, match="2 observations or videos; none is named 'm9'"):
        read_project(tmp_path, both, recording=("m9",))


def test_several_videos_of_an_observation(tmp_path):
    """Time runs through all of them; `time offset` was added to it."""
    events = [(101.0, "", "sniff", ""), (102.0, "", "sniff", ""), (111.5, "", "jump", "")]
    own = {"obs": observation(events, ["/d/m1.mp4", "/d/m2.mp4"], [10.0, 8.0],
                              **{"time offset": 100.0})}  # fmt: skip
    assert frames_of(read_project(tmp_path, own, recording=("m1",)), "sniff") == span(30, 59)
    assert frames_of(read_project(tmp_path, own, recording=("m2",)), "jump") == [45]
    whole = read_project(tmp_path, own, frames=540, recording=("obs",))
    assert (frames_of(whole, "sniff"), frames_of(whole, "jump")) == (span(30, 59), [345])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"events": [[1.0, "", "sniff", "", ""]]}, "'sniff' starts at 1 s and never stops"),
        ({"events": [[1.0, "", "dance", "", ""]]}, "event of 'dance', which is not in the ethog"),
        ({"events": [["x", "", "sniff", "", ""]]}, "built otherwise than BORIS does it"),
        ({"events": [[1.0]]}, "built otherwise than BORIS does it"),
        ({"type": "IMAGES"}, "is of images"),
    ],
)
def test_projects_that_are_refused(tmp_path, change, message):
    with pytest.raises(DataError, match=message) as caught:
        read_project(tmp_path, {"obs": observation(EVENTS) | change})
    assert "mice.boris" in str(caught.value)


def test_damaged_projects(tmp_path):
    read_project(tmp_path, {"obs": observation(EVENTS)})
    file = tmp_path / "mice.boris"
    file.write_text(file.read_text()[:-20])
    with pytest.raises(DataError, match="mice.boris is no project of BORIS, or is cut off"):
        PROJECT.read(file, FRAMES, 30.0)
    file.write_text("{}")
    with pytest.raises(DataError, match="expected observations and behaviors_conf"):
        PROJECT.read(file, FRAMES, 30.0)


def test_a_video_of_the_second_player(tmp_path):
    own = observation(EVENTS)
    own["file"]["2"] = ["/data/side.mp4"]
    own["media_info"]["offset"] = {"1": 0.0, "2": 2.5}
    with pytest.raises(
        DataError, match="plays the recording's video 'side' together with another one, 2.5"
    ):
        read_project(tmp_path, {"obs": own}, recording=("side",))
    own["media_info"]["offset"]["2"] = 0.0
    assert frames_of(read_project(tmp_path, {"obs": own}, recording=("side",)), "jump") == [120]


@pytest.mark.parametrize("seed", range(10))
def test_a_project_is_read_as_its_export_is(tmp_path, seed):
    """The same events, as tabular events of BORIS 8 and as a project."""
    rng = np.random.default_rng(seed)
    times = np.sort(rng.choice(290, 24, replace=False)) / 30
    events, rows = [], []
    for number, time_s in enumerate(times.round(3).tolist()):
        if number % 3 == 2:
            events.append((time_s, "m", "jump", ""))
            rows.append(("m", "jump", "POINT", time_s))
        else:
            kind = "START" if number % 3 == 0 else "STOP"
            code = ("sniff", "attack")[number // 3 % 2]
            events.append((time_s, "m", code, ""))
            rows.append(("m", code, kind, time_s))
    table = pd.DataFrame(rows, columns=["Subject", "Behavior", "Behavior type", "Time"])
    table["Observation id"], table["FPS"] = "obs", "30"
    export = tmp_path / "boris.csv"
    table.to_csv(export, index=False)
    theirs = LABEL_READERS["boris"].read(export, FRAMES, None)
    ours = read_project(tmp_path, {"obs": observation(rng.permutation(np.array(
        events, dtype=object)).tolist())})  # fmt: skip
    assert ours.behaviors == theirs.behaviors
    np.testing.assert_array_equal(ours.active, theirs.active)


def test_a_project_beside_a_recording(tmp_path):
    write_recording(tmp_path / "r", walk(FRAMES, names(), 0), names())
    (tmp_path / "r" / "mice.boris").write_text(json.dumps(project({"o": observation(EVENTS)})))
    (record,) = recordings(tmp_path, "boris_project")
    assert frames_of(record.labels, "jump") == [120]
    with pytest.raises(
        DataError, match="mice.boris looks like a project of BORIS: use --annot_for"
    ):
        recordings(tmp_path, "boris")
