"""Which annotation file belongs to a recording, event tables as spreadsheets write them, and
what is said of annotations that may be wrong.
"""

import numpy as np
import pytest
from conftest import SHARED, names, walk, write_recording
from test_boris import FRAMES, frames_of, load, span, state, track, write

from lisbet.cli import main
from lisbet.core.errors import DataError
from lisbet.data.hub._write import write_annotations
from lisbet.data.labels import LABEL_READERS, Choice

HEADER = "behavior,start_time,end_time\n"
READER = LABEL_READERS["csv_events"]


def read(tmp_path, text, encoding="utf-8", frames=FRAMES, fps=30.0, **choice):
    file = tmp_path / "annotations.csv"
    file.write_bytes(text if isinstance(text, bytes) else text.encode(encoding))
    return READER.read(file, frames, fps, choice=Choice(**choice))


def said(capsys, *words):
    """What a command prints on standard error."""
    capsys.readouterr()
    main(["dataset_info", *map(str, words)])
    return capsys.readouterr().err


# Tables of events ------------------------------------------------------------------------------


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-be", "latin-1"])
@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("name", ["behavior", "behaviour", " Behaviour ", "BEHAVIOR"])
def test_event_tables(tmp_path, name, separator, encoding):
    rows = [(name, "Start_time", "end_time"), ("schnüffeln", "1.0", "2.5"), ("ruhen", "3", "4")]
    text = "".join(separator.join(row) + "\r\n" for row in rows)
    if separator == ";":
        text = text.replace(".", ",")
    labels = read(tmp_path, text, encoding)
    assert labels.behaviors == ("ruhen", "schnüffeln")
    assert frames_of(labels, "schnüffeln") == span(30, 74)
    assert frames_of(labels, "ruhen") == span(90, 119)


@pytest.mark.parametrize(
    "text",
    [
        HEADER + "attack,1,2\n,,\n,,\n",
        HEADER + "\n,,\nattack,1,2\n\n , ,\n",
        "sep=;\n" + HEADER.replace(",", ";") + "attack;1,0;2,0\n;;\n",
        "behavior,start_time,end_time,,\nattack,1,2,,\n,,,,\n",
        HEADER + "attack,1,2,,,\n",
        HEADER + 'attack,"1,0","2,0"\n',
        'note,behavior,start_time,end_time\n"two\nlines",attack,1,2\n',
        'scored by,"A,\nB"\n\n' + HEADER + "attack,1,2\n",
    ],
)
def test_tables_of_spreadsheets(tmp_path, text):
    labels = read(tmp_path, text)
    assert labels.behaviors == ("attack",)
    assert frames_of(labels, "attack") == span(30, 59)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (HEADER + "attack,1,5,2,5\n", r"row 1 has more cells than the header \(3\).*decimal comma"),
        (HEADER + "a,1,2\n,,\n,3,4\n", "behavior of row 3 is empty"),
        (HEADER + "a,1,2\n,,\nb,x,4\n", "start_time of row 3 is 'x', not a time in seconds"),
        ("behavior;start;end\na;1;2\n", r"no column start_time, end_time \(found: behavior, start"),
        ("behavior,behaviour,start_time,end_time\n", "the column behavior is there twice"),
        ("behavior\0,start_time\n" + "\0" * 30, "no column"),
    ],
)
def test_tables_that_are_refused(tmp_path, text, message):
    with pytest.raises(DataError, match=message):
        read(tmp_path, text)


def test_a_column_of_subjects(tmp_path):
    text = "subject,behaviour,start_time,end_time\nm1 ,run,1,2\nm2,run,3,4\nm2,rest,5,6\n"
    assert frames_of(read(tmp_path, text), "run") == span(30, 59) + span(90, 119)
    labels = read(tmp_path, text, subject="m1")
    assert labels.behaviors == ("run",)
    assert frames_of(labels, "run") == span(30, 59)
    with pytest.raises(DataError, match="no events of --subject=m3; there are events of m1, m2"):
        read(tmp_path, text, subject="m3")
    with pytest.raises(DataError, match="has no column subject, so --subject=m1 cannot apply"):
        read(tmp_path, HEADER, subject="m1")


@pytest.mark.parametrize("seed", range(20))
def test_generated_tables(tmp_path, seed):
    rng = np.random.default_rng(seed)
    separator, encoding = str(rng.choice([",", ";", "\t"])), str(rng.choice(["utf-8", "utf-16"]))
    columns = rng.permutation(["behaviour", "start_time", "end_time", "coder", ""]).tolist()
    lines, expected = [separator.join(columns)], np.zeros((FRAMES, 2), bool)
    for number in range(2):
        cuts = np.sort(rng.choice(FRAMES, 2 * rng.integers(1, 6), replace=False)).reshape(-1, 2)
        for first, end in cuts.tolist():
            expected[first:end, number] = True
            cells = {"behaviour": f"b{number}", "start_time": f"{first / 25:.2f}",
                     "end_time": f"{end / 25:.2f}"}  # fmt: skip
            line = separator.join(cells.get(column, "") for column in columns)
            lines.append(line.replace(".", ",") if separator == ";" else line)
            lines += [separator * rng.integers(5)] * (rng.random() < 0.2)
    labels = read(tmp_path, "\n".join(lines), encoding, fps=25.0)
    assert labels.behaviors == ("b0", "b1")
    np.testing.assert_array_equal(labels.active, expected)


@pytest.mark.parametrize(
    ("case", "behavior", "frames"),
    [
        ("events_excel_blank_rows", "attack", span(30, 59)),
        ("events_british", "attack", span(30, 59)),
        ("events_semicolon", "attack", span(45, 74)),
        ("events_latin1", "schnüffeln", span(30, 59)),
    ],
)
def test_cases(case, behavior, frames):
    folder = SHARED / "cases" / "17_csv_bom_semicolon_excel"
    if not folder.is_dir():
        pytest.skip("the cases are not here")
    file = folder / case / "annotations.csv"
    assert frames_of(READER.read(file, FRAMES, 30.0), behavior) == frames


# The end of the recording ----------------------------------------------------------------------


def test_events_beyond_the_end(tmp_path, capsys):
    late = HEADER + "run,9,10.1\nrest,10,10.1\n"  # the last frame ends at 10 s
    with pytest.raises(DataError, match="shorten the event, or accept it with --event_slack=3"):
        read(tmp_path, late)
    labels = read(tmp_path, late, slack=3)
    assert frames_of(labels, "run") == span(270, 299)
    assert frames_of(labels, "rest") == []
    assert labels.warnings == (
        "annotations.csv: 'rest' begins at 10 s, after the last frame of the recording, so it is "
        "left out",
    )
    assert read(tmp_path, HEADER + "run,9,10.03\n").warnings == ()
    with pytest.raises(DataError, match="--event_slack=1"):
        read(tmp_path, HEADER + "run,9,10.03\n", slack=0)
    track(tmp_path / "d" / "r")
    (tmp_path / "d" / "r" / "events.csv").write_text(late)
    options = ["--data_format=dlc", "--annot_format=csv_events", "--fps=30", "--event_slack=3"]
    text = said(capsys, *options, tmp_path / "d")
    assert "r: events.csv: 'rest' begins at 10 s, after the last frame" in text
    assert "annotated on no frame of any recording: 'rest'" in text


# Which file ------------------------------------------------------------------------------------


def test_files_are_recognised_by_content(tmp_path):
    track(tmp_path / "r")
    write(tmp_path / "r", state(1, 2), "observation 3.tsv", "\t")
    (tmp_path / "r" / "scores.csv").write_text(HEADER + "run,3,4\n")
    (tmp_path / "r" / "notes.csv").write_text("date,who\n2026,me\n")
    (record,) = load(tmp_path)
    assert frames_of(record.labels, "sniff") == span(30, 59)
    (record,) = load(tmp_path, "csv_events", fps=30)
    assert frames_of(record.labels, "run") == span(90, 119)


def test_a_name_that_fits_two_files_is_decided_by_content(tmp_path):
    track(tmp_path / "r")
    write(tmp_path / "r", state(1, 2), "boris_events.csv")
    (tmp_path / "r" / "my_events.csv").write_text(HEADER + "run,3,4\n")
    (tmp_path / "r" / "boris_budget.csv").write_text("Behavior,Total duration (s)\nsniff,1\n")
    assert load(tmp_path)[0].labels.behaviors == ("sniff",)
    assert load(tmp_path, "csv_events", fps=30)[0].labels.behaviors == ("run",)
    write(tmp_path / "r", state(1, 2), "boris_2.csv")
    with pytest.raises(DataError, match="expected one .* found boris_2.csv, boris_events.csv"):
        load(tmp_path)


def test_one_file_for_each_video(tmp_path):
    track(tmp_path / "r", "m1")
    for video, start in (("m1", 1), ("m10", 3)):
        write(tmp_path / "r", state(start, start + 1), f"boris_{video}.csv")
    assert frames_of(load(tmp_path)[0].labels, "sniff") == span(30, 59)


@pytest.mark.parametrize("asked", ["movement", "csv_events"])
def test_annotations_of_another_format_are_named(tmp_path, asked):
    track(tmp_path / "r")
    write(tmp_path / "r", state(1, 2), "boris_x.csv")
    with pytest.raises(
        DataError,
        match=f"no annotations for --annot_format={asked}. boris_x.csv looks like BORIS: use "
        "--annot_format=boris",
    ):
        load(tmp_path, asked)
    (tmp_path / "r" / "boris_x.csv").rename(tmp_path / "r" / "boris_x.xlsx")
    with pytest.raises(DataError, match="boris_x.xlsx is a spreadsheet: save it as CSV or TSV"):
        load(tmp_path, asked)


def test_a_table_of_another_format_than_its_name_says(tmp_path):
    track(tmp_path / "r")
    write(tmp_path / "r", state(1, 2), "all_events.csv")
    with pytest.raises(
        DataError, match="all_events.csv looks like BORIS, not like --annot_format=csv_events: use"
    ):
        load(tmp_path, "csv_events", fps=30)


def test_annotations_of_movement_under_another_name(tmp_path):
    write_recording(tmp_path / "r", walk(30, names(), 0), names())
    active = np.eye(2, dtype=bool)[np.arange(30) % 2]
    write_annotations(tmp_path / "r", active, behaviors=("a", "b"), annotator="x", fps=30,
                      source="test")  # fmt: skip
    (tmp_path / "r" / "annotations.nc").rename(tmp_path / "r" / "scored.nc")
    (record,) = load(tmp_path, "movement", "movement")
    np.testing.assert_array_equal(record.labels.active, active)
    with pytest.raises(DataError, match="scored.nc looks like annotations in the movement format"):
        load(tmp_path, "csv_events", "movement")


# What is said ----------------------------------------------------------------------------------


def test_another_frame_rate_is_said(tmp_path, capsys):
    write_recording(tmp_path / "r", walk(FRAMES, names(), 0), names())
    for rate, warned in (("25", True), ("30.01", False), ("30;25", False), ("NA", False)):
        write(tmp_path / "r", state(1, 2, FPS=rate))
        text = said(capsys, "--annot_format=boris", tmp_path)
        expected = "r: boris.csv states 25 frames per second, but the recording has 30"
        assert (expected in text) == warned


def test_points_and_the_choice_of_an_observation_are_said_when_verbose(tmp_path, capsys):
    track(tmp_path / "r", "a")
    rows = state(1, 2) + state(5, 7, **{"Observation id": "x", "Media file name": "b.mp4"})
    write(tmp_path / "r", [*rows, {**rows[0], "Behavior": "bite", "Behavior type": "POINT"}])
    options = ["--data_format=dlc", "--annot_format=boris", tmp_path]
    assert said(capsys, *options) == ""
    text = said(capsys, "-v", *options)
    assert "events without a duration take one frame each: 'bite' (1)" in text
    assert "events of observation 'obs1' (a.mp4), as the recording may be named 'a'" in text


def test_behaviours_that_are_empty_are_said(tmp_path, capsys):
    active = np.zeros((30, 3), bool)
    active[:, 1] = True
    for number in range(2):
        write_recording(tmp_path / f"r{number}", walk(30, names(), number), names())
        write_annotations(tmp_path / f"r{number}", active, behaviors=("a", "b", "c"),
                          annotator="x", fps=30, source="test")  # fmt: skip
    expected = "annotated on no frame of any recording: 'a', 'c'"
    assert expected in said(capsys, "--annot_format=movement", tmp_path)
    file = tmp_path / "r1" / "annotations.nc"
    file.unlink()
    active[3] = True
    write_annotations(tmp_path / "r1", active, behaviors=("a", "b", "c"), annotator="x", fps=30,
                      source="test")  # fmt: skip
    assert "annotated on no frame" not in said(capsys, "--annot_format=movement", tmp_path)


def test_many_warnings_are_counted(tmp_path, capsys):
    for number in range(8):
        write_recording(tmp_path / f"r{number}", walk(90, names(), number), names())
        write(tmp_path / f"r{number}", state(1, 2, FPS="25"))
    text = said(capsys, "--annot_format=boris", tmp_path)
    assert text.count("states 25 frames per second") == 5
    assert "3 more such warnings" in text


def test_a_subject_in_a_store(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rows = state(1, 2) + state(0, 3, Subject="other", Behavior="rest")
    write_recording(tmp_path / "d" / "r", walk(FRAMES, names(), 0), names())
    write(tmp_path / "d" / "r", rows)
    words = ["convert_dataset", "--annot_format=boris", "--workers=1", "d", "d.zarr"]
    main([*words, "--subject=mouse"])
    (record,) = load("d.zarr", "movement", "zarr")
    assert record.labels.behaviors == ("sniff",)
    assert frames_of(record.labels, "sniff") == span(30, 59)
    capsys.readouterr()
    with pytest.raises(SystemExit):
        main(words)
    assert "subject" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["dataset_info", "--subject=mouse", "d"])
    assert "pass --annot_format" in capsys.readouterr().err
    with pytest.raises(DataError, match="so --subject cannot apply"):
        load("d.zarr", "movement", "zarr", subject="mouse")
