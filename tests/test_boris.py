"""Exports of BORIS of every kind: the right events on the right frames, or an explanation."""

import csv
import io

import numpy as np
import pandas as pd
import pytest
from conftest import SHARED, names, walk

from lisbet.core.config import Dataset
from lisbet.core.errors import DataError
from lisbet.data.annotations import video_names
from lisbet.data.files.sources import Source
from lisbet.data.labels import LABEL_READERS, Choice
from lisbet.data.load import load_records
from lisbet.data.read import read_one
from lisbet.options import DataOptions

FRAMES = 300
ROW = {
    "Observation id": "obs1", "Observation date": "2026-01-01 10:00:00", "Description": "",
    "Observation type": "Media file(s)", "Source": "player #1:a.mp4", "Media duration (s)": "10.0",
    "FPS": "30", "Subject": "mouse", "Behavior": "sniff", "Behavioral category": "",
    "Behavior type": "START", "Time": "1.0", "Media file name": "a.mp4", "Comment": "",
}  # fmt: skip
AGGREGATED = {
    "Observation id": "obs1", "Observation date": "", "Description": "", "Media file": "a.mp4",
    "Total length": "10.0", "FPS": "30", "Subject": "mouse", "Behavior": "sniff",
    "Behavioral category": "", "Modifiers": "", "Behavior type": "STATE", "Start (s)": "1.0",
    "Stop (s)": "2.0", "Duration (s)": "1.0", "Comment start": "", "Comment stop": "",
}  # fmt: skip
READER = LABEL_READERS["boris"]


def state(start, stop, **cells):
    """The two rows of an event in a tabular export."""
    return [{**ROW, "Time": str(start), **cells},
            {**ROW, "Time": str(stop), "Behavior type": "STOP", **cells}]  # fmt: skip


def text_of(rows, separator=","):
    stream = io.StringIO()
    columns = list(dict.fromkeys(column for row in rows for column in row))
    writer = csv.DictWriter(stream, columns, restval="", delimiter=separator, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return stream.getvalue()


def write(folder, rows, name="boris.csv", separator=",", encoding="utf-8"):
    file = folder / name
    file.write_bytes(text_of(rows, separator).encode(encoding))
    return file


def frames_of(labels, behavior):
    return np.flatnonzero(labels.active[:, labels.behaviors.index(behavior)]).tolist()


def read(file, fps=None, frames=FRAMES, start_s=0.0, **choice):
    return READER.read(file, frames, fps, start_s, choice=Choice(**choice))


def span(first, last):
    return list(range(first, last + 1))


def track(folder, stem="v", frames=FRAMES):
    """A tracking file of DeepLabCut, without a frame rate."""
    folder.mkdir(parents=True, exist_ok=True)
    tracks = walk(frames, names(1, 2), 0)
    columns = pd.MultiIndex.from_product(
        [["net"], ["nose", "tail"], ["x", "y", "likelihood"]],
        names=["scorer", "bodyparts", "coords"],
    )
    values = np.concatenate([tracks[:, 0], np.ones((frames, 2, 1))], axis=2).reshape(frames, -1)
    file = folder / f"{stem}DLC_resnet50_miceshuffle1_100.csv"
    pd.DataFrame(values, columns=columns).to_csv(file)
    return file


def load(path, annotations="boris", format="dlc", **options):
    dataset = Dataset(path=path, format=format, annotations=annotations)
    return load_records(dataset, DataOptions(**options))


# Layouts ----------------------------------------------------------------------------------------


def test_aggregated_events(tmp_path):
    point = {"Behavior": "bite", "Behavior type": "POINT", "Duration (s)": "NA"}
    for stop in ("3.0", "NA", ""):
        rows = [AGGREGATED, {**AGGREGATED, **point, "Start (s)": "3.0", "Stop (s)": stop}]
        labels = read(write(tmp_path, rows))
        assert frames_of(labels, "sniff") == span(30, 59)
        assert frames_of(labels, "bite") == [90]
        assert labels.fps == 30
        assert labels.notes == (
            "boris.csv: events without a duration take one frame each: 'bite' (1)",
        )
    newer = {name: value for name, value in AGGREGATED.items() if name != "FPS"}
    assert frames_of(read(write(tmp_path, [{**newer, "FPS (frame/s)": "25"}])), "sniff") == span(
        25, 49
    )
    with pytest.raises(DataError, match=r"Stop \(s\) of row 1 is 'NA', not a time"):
        read(write(tmp_path, [{**AGGREGATED, "Stop (s)": "NA"}]))
    with pytest.raises(DataError, match="Behavior type of row 1 is 'START'; expected STATE or"):
        read(write(tmp_path, [{**AGGREGATED, "Behavior type": "START"}]))


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "cp1252"])
@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_separators_and_encodings(tmp_path, separator, encoding):
    comma = separator == ";"
    start, stop = ("1,000", "2,5") if comma else ("1.000", "2.5")
    rows = state(start, stop, Behavior=" schnüffeln ", FPS="29,97" if comma else "29.97")
    labels = read(write(tmp_path, rows, "boris.tsv", separator, encoding))
    assert labels.behaviors == ("schnüffeln",)
    assert frames_of(labels, "schnüffeln") == span(29, 74)  # 29.97 to 74.925
    assert labels.fps == 29.97


def test_a_decimal_comma_of_three_digits_in_a_table_of_commas_is_refused(tmp_path):
    with pytest.raises(DataError, match="Time of row 1 is '1,000', not a time"):
        read(write(tmp_path, state("1,000", "2,000")))
    assert frames_of(read(write(tmp_path, state("1,000", "2,5"))), "sniff") == span(30, 74)
    assert frames_of(read(write(tmp_path, state("0,500", "2,000"))), "sniff") == span(15, 59)


def test_names_have_no_spaces_around(tmp_path):
    rows = state(1, 2, Subject="mouse ") + state(2, 3, Behavior="sniff ")
    rows[1]["Subject"] = " mouse"
    labels = read(write(tmp_path, rows))
    assert labels.behaviors == ("sniff",)
    assert frames_of(labels, "sniff") == span(30, 89)


def test_modifiers_are_part_of_what_is_paired(tmp_path):
    rows = state(1, 3, **{"Modifier #1": "A"}) + state(2, 4, **{"Modifier #1": "B"})
    labels = read(write(tmp_path, rows))
    assert frames_of(labels, "sniff") == span(30, 119)
    with pytest.raises(DataError, match=r"START .* runs already \(subject and modifiers: mouse\)"):
        read(write(tmp_path, state(1, 3) + state(2, 4)))
    with pytest.raises(DataError, match=r"STOP .* not running \(subject and modifiers: mouse, B"):
        read(write(tmp_path, [rows[0], rows[3]]))


# Frame rates -----------------------------------------------------------------------------------


@pytest.mark.parametrize("rates", [("30", "30"), ("30;30", "30"), ("30; 30.0", "NA;30")])
def test_one_frame_rate_in_several_cells(tmp_path, rates):
    rows = state(1, 2)
    for row, rate in zip(rows, rates, strict=True):
        row["FPS"] = rate
    labels = read(write(tmp_path, rows))
    assert frames_of(labels, "sniff") == span(30, 59)
    assert labels.fps == 30


def test_frame_rates_that_differ_or_are_unknown(tmp_path):
    file = write(tmp_path, state(1, 2, FPS="30;25"))
    with pytest.raises(DataError, match=r"FPS has several values, 30, 25; .*with --fps"):
        read(file)
    assert frames_of(read(file, fps=25.0), "sniff") == span(25, 49)
    for rate in ("NA", "", "nan"):
        with pytest.raises(DataError, match="neither this file nor the recording states it"):
            read(write(tmp_path, state(1, 2, FPS=rate)))
    for rate in ("0", "fast"):
        with pytest.raises(DataError, match=r"expected a positive number .*or pass --fps"):
            read(write(tmp_path, state(1, 2, FPS=rate)))


# Several observations, videos, subjects --------------------------------------------------------


def two_observations():
    media = {"Source": "player #1:C:\\films\\b.mp4", "Media file name": "C:\\films\\b.mp4"}
    return state(1, 2, **{"Observation id": "a_day1"}) + state(
        5, 7, **{"Observation id": "b_day1"}, **media
    )


@pytest.mark.parametrize(
    ("recording", "frames"),
    [
        (("a",), span(30, 59)),
        (("b",), span(150, 209)),
        (("B",), span(150, 209)),
        (("v", "b"), span(150, 209)),
        (("a", "b"), span(30, 59)),  # the video's name comes before the folder's
        (("v", "b_day1"), span(150, 209)),  # the observation is named as the recording
    ],
)
def test_the_observation_of_the_recording_is_taken(tmp_path, recording, frames):
    file = write(tmp_path, two_observations())
    assert frames_of(read(file, recording=recording), "sniff") == frames
    assert READER.names(file, choice=Choice(recording)) == ("sniff",)


def test_several_observations_of_no_known_video_are_refused(tmp_path):
    file = write(tmp_path, two_observations())
    with pytest.raises(
        DataError,
        match=r"2 observations or videos; none is named 'v' or 'r': observation 'a_day1' \(a.mp4\),"
        r" observation 'b_day1' \(b.mp4\)",
    ):
        read(file, recording=("v", "r"))
    coders = state(1, 2, **{"Observation id": "x"}) + state(5, 7, **{"Observation id": "y"})
    with pytest.raises(DataError, match=r"2 of them are named 'a'"):
        read(write(tmp_path, coders), recording=("a",))


def test_aggregated_events_of_several_observations(tmp_path):
    other = {"Observation id": "o2", "Media file": "/f/b.mp4", "Start (s)": "5", "Stop (s)": "7"}
    file = write(tmp_path, [AGGREGATED, {**AGGREGATED, **other}])
    assert frames_of(read(file, recording=("b",)), "sniff") == span(150, 209)


def test_one_video_of_an_observation_of_several(tmp_path):
    """BORIS counts time through the videos of an observation: b.mp4 begins at 10 s."""
    both = {
        "Source": "player #1:a.mp4;b.mp4", "Media duration (s)": "10.0;5.0", "FPS": "30;20",
    }  # fmt: skip
    rows = state(1, 2, **both) + state(12, 13, **both, **{"Media file name": "b.mp4"})
    file = write(tmp_path, rows)
    assert frames_of(read(file, recording=("a",)), "sniff") == span(30, 59)
    labels = read(file, recording=("b",))
    assert frames_of(labels, "sniff") == span(40, 59)  # 2 to 3 s, at 20 frames per second
    assert labels.fps == 20
    whole = read(file, fps=30.0, frames=450, recording=("obs1",))  # the videos were joined
    assert frames_of(whole, "sniff") == span(30, 59) + span(360, 389)
    with pytest.raises(DataError, match="2 observations or videos; none is named 'v'"):
        read(file, recording=("v",))
    for row in rows:
        row["Media duration (s)"] = "NA"
    with pytest.raises(DataError, match="'b.mp4' is one of several videos of one observation"):
        read(write(tmp_path, rows), recording=("b",))


def test_files_that_several_recordings_share(tmp_path):
    """Nothing is taken for a recording that only may be its own."""
    track(tmp_path, "a")
    files = {stem: (track(tmp_path, stem),) for stem in ("b", "c")}
    write(tmp_path, two_observations())
    dataset = Dataset(path=tmp_path, format="dlc", annotations="boris")
    record = read_one(Source("b", files["b"], "b"), dataset, DataOptions())
    assert frames_of(record.labels, "sniff") == span(150, 209)
    said = read_one(Source("c", files["c"], "c"), dataset, DataOptions())
    assert "2 observations or videos; none is named 'c'" in said
    write(tmp_path, state(1, 2, **{"Media file name": "b.mp4"}))
    said = read_one(Source("c", files["c"], "c"), dataset, DataOptions())
    assert "events of one observation; none is named 'c': observation 'obs1' (b.mp4)" in said
    write(tmp_path, state(3, 4), "boris_c.csv")  # of a.mp4, but named as the video
    record = read_one(Source("c", files["c"], "c"), dataset, DataOptions())
    assert frames_of(record.labels, "sniff") == span(90, 119)
    events = dataset.model_copy(update={"annotations": "csv_events"})
    (tmp_path / "annotations.csv").write_text("behavior,start_time,end_time\nrun,1,2\n")
    said = read_one(Source("c", files["c"], "c"), events, DataOptions(fps=30))
    assert "found none; its name must contain that of the video, 'c'" in said
    (tmp_path / "annotations.csv").rename(tmp_path / "c_events.csv")
    record = read_one(Source("c", files["c"], "c"), events, DataOptions(fps=30))
    assert frames_of(record.labels, "run") == span(30, 59)


def test_observations_are_chosen_by_tracking_file_or_folder(tmp_path):
    for folder, stem in (("r1", "a"), ("b", "v")):
        track(tmp_path / folder, stem)
        write(tmp_path / folder, two_observations())
    of_folder, of_file = load(tmp_path)
    assert (of_folder.id, of_file.id) == ("b", "r1")
    assert frames_of(of_folder.labels, "sniff") == span(150, 209)
    assert frames_of(of_file.labels, "sniff") == span(30, 59)


@pytest.mark.parametrize(
    ("file", "expected"),
    [
        ("d/m1DLC_resnet50_mShuffle1_1.csv", ("m1", "d")),
        ("d/m1DeepCut_resnet50_mshuffle1_1.h5", ("m1", "d")),
        ("d/labels.v001.000_m1.analysis.h5", ("m1", "d")),
        ("d/m1.analysis.h5", ("m1", "d")),
        ("d/m1_tracking.csv", ("m1", "d")),
        ("d/m1_DLC_resnet50_mshuffle1_1.csv", ("m1_", "m1", "d")),
        ("d/m1.csv", ("m1", "d")),
        ("d/DLC_tracking.csv", ("DLC", "d")),
    ],
)
def test_names_of_videos(tmp_path, file, expected):
    assert video_names([tmp_path / file]) == expected


def test_time_offset_is_subtracted(tmp_path):
    offset = {"Time offset (s)": "0.7"}
    file = write(tmp_path, state(0.7, 2.7, **offset))
    assert frames_of(read(file), "sniff") == span(0, 59)
    with pytest.raises(DataError, match="'sniff' runs from -0.2 s to 2 s"):
        read(write(tmp_path, state(0.5, 2.7, **offset)))
    older = "Observation id,o\n\nTime offset (s),10.0\n\n"
    columns = ("Time", "Media file path", "FPS", "Subject", "Behavior", "Comment")
    rows = state(11, 12, **{"Media file path": "a.avi"})
    rows = [{**{c: row[c] for c in columns}, "Status": row["Behavior type"]} for row in rows]
    file.write_text(older + text_of(rows))
    assert frames_of(read(file), "sniff") == span(30, 59)


def test_recordings_that_begin_later(tmp_path):
    file = write(tmp_path, state(1, 3) + state(4, 5) + state(0, 0.5, Behavior="rest"))
    labels = read(file, start_s=2.0)
    assert labels.behaviors == ("rest", "sniff")
    assert frames_of(labels, "sniff") == span(0, 29) + span(60, 89)
    assert frames_of(labels, "rest") == []


def test_one_subject(tmp_path):
    rows = state(1, 2) + state(1.5, 3, Subject="other") + state(5, 6, Subject="other", Behavior="x")
    file = write(tmp_path, rows)
    assert frames_of(read(file), "sniff") == span(30, 89)
    own = read(file, subject="mouse")
    assert own.behaviors == READER.names(file, choice=Choice(subject="mouse")) == ("sniff",)
    assert frames_of(own, "sniff") == span(30, 59)
    with pytest.raises(DataError, match="--subject=Mouse; there are events of mouse, other"):
        read(file, subject="Mouse")
    with pytest.raises(DataError, match="no column Subject, so --subject=a cannot apply"):
        read(write(tmp_path, [{k: v for k, v in row.items() if k != "Subject"} for row in rows]),
             subject="a")  # fmt: skip


# What is no export of events -------------------------------------------------------------------


def test_other_files_of_boris_are_named(tmp_path):
    file = tmp_path / "boris.csv"
    file.write_text(
        "Subject,Behavior,Modifiers,Total number of occurences,Total duration (s)\na,b,,3,1.5\n"
    )
    with pytest.raises(DataError, match=r"it is a time budget, .* Export events > Tabular events"):
        read(file)
    file.write_text('{"time_format": "hh:mm:ss", "project_name": "x"}')
    with pytest.raises(DataError, match=r"it looks like a project file; in BORIS, choose Observ"):
        read(file)
    track(tmp_path / "d" / "r")
    (tmp_path / "d" / "r" / "mice.boris").write_text("{}")
    with pytest.raises(
        DataError,
        match="mice.boris looks like a project of BORIS: use --annot_format=boris_project",
    ):
        load(tmp_path / "d")


# Generated tables ------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(30))
def test_generated_exports(tmp_path, seed):
    """Events on whole frames, written in some layout, come back as they were."""
    rng = np.random.default_rng(seed)
    fps = int(rng.choice([20, 25, 50]))
    aggregated, shuffled = rng.random(2) < 0.5
    separator = str(rng.choice([",", ";", "\t"]))
    comma = separator != "," and rng.random() < 0.5
    expected, rows = {}, []
    for video in range(rng.integers(1, 4)):
        for behavior in rng.permutation(["run", "rest", "bite"])[: rng.integers(1, 4)].tolist():
            active = expected.setdefault((video, behavior), np.zeros(FRAMES, bool))
            cuts = np.sort(rng.choice(FRAMES, 2 * rng.integers(1, 5), replace=False))
            for first, end in cuts.reshape(-1, 2).tolist():
                active[first:end] = True
                cells = {"Behavior": behavior, "Observation id": f"o{video}", "FPS": str(fps)}
                start, stop = (f"{frame / fps:.3f}" for frame in (first, end))
                if comma:
                    start, stop = start.replace(".", ","), stop.replace(".", ",")
                if aggregated:
                    rows.append({**AGGREGATED, **cells, "Media file": f"v{video}.avi",
                                 "Start (s)": start, "Stop (s)": stop})  # fmt: skip
                else:
                    media = f"/films/v{video}.avi"
                    rows += state(start, stop, **cells, Source=f"player #1:{media}",
                                  **{"Media file name": media})  # fmt: skip
    if shuffled:
        rng.shuffle(rows)
    file = write(tmp_path, rows, separator=separator)
    for video in {video for video, _ in expected}:
        labels = read(file, recording=(f"v{video}",))
        found = dict(zip(labels.behaviors, labels.active.T, strict=True))
        own = {name: active for (number, name), active in expected.items() if number == video}
        assert found.keys() == own.keys()
        for name, active in own.items():
            np.testing.assert_array_equal(found[name], active)


# Inputs of public bug reports ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("case", "behavior", "frames"),
    [
        ("09_boris_aggregated_and_tsv/aggregated", "sniff", span(30, 59)),
        ("09_boris_aggregated_and_tsv/aggregated", "bite", [90]),
        ("09_boris_aggregated_and_tsv/tabular_tsv", "sniff", span(30, 59)),
        ("09_boris_aggregated_and_tsv/semicolon", "sniff", span(30, 74)),
        ("10_boris_fps_of_several_media", "sniff", span(30, 59)),
        ("11_boris_modifiers_overlap", "walk", span(30, 119)),
    ],
)
def test_cases(case, behavior, frames):
    if not (SHARED / "cases").is_dir():
        pytest.skip("the cases are not here")
    (record,) = load(SHARED / "cases" / case)
    assert frames_of(record.labels, behavior) == frames


def test_case_of_two_observations():
    if not (SHARED / "cases").is_dir():
        pytest.skip("the cases are not here")
    with pytest.raises(DataError, match=r"observation 'a_day1' \(a.mp4\), observation 'b_day1'"):
        load(SHARED / "cases" / "08_boris_two_observations")
