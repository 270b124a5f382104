"""Timelines and tables of bouts: numbers found by hand, colours, formats, and what is refused."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import names, walk, write_recording
from matplotlib.colors import to_hex

from lisbet.cli import main
from lisbet.commands.pictures.bouts import transition_counts
from lisbet.commands.pictures.timelines import Source, Span, timeline_figure
from lisbet.core import drawing

FPS = 10
#         0         1
#         01234567890123456789
SERIES = {"a": "####....##.....#....", "b": "....####........####"}
TABLE = "machineAnnotation_lisbet.csv"


def active_of(series: dict[str, str]) -> np.ndarray:
    return np.array([[letter == "#" for letter in text] for text in series.values()]).T


def write_table(folder: Path, series: dict[str, str], name: str = TABLE) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    table = pd.DataFrame(active_of(series).astype(int), columns=list(series))
    table.to_csv(folder / name)
    return folder / name


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    write_table(Path("one/m1"), SERIES)
    return tmp_path


def ethogram(*words: object) -> None:
    main(["plot_ethogram", "--format=svg", *map(str, words)])


def refused(*words: object, capsys) -> str:
    before = sorted(Path().rglob("*"))
    with pytest.raises(SystemExit) as caught:
        ethogram(*words)
    assert caught.value.code == 2
    assert sorted(Path().rglob("*")) == before, "nothing is written"
    return capsys.readouterr().err


def rows(name: str, *keys: str) -> dict:
    table = pd.read_csv(f"ethograms/{name}.csv", dtype={"recording": str})
    return {tuple(row[key] for key in keys): row for row in table.to_dict("records")}


# Numbers ------------------------------------------------------------------------------------------


def test_the_numbers_of_a_series(capsys):
    ethogram(f"--fps={FPS}", "one")
    assert "1 recording" in capsys.readouterr().out
    found = rows("behaviors", "recording", "source", "behavior")
    a, b = found["m1", "one", "a"], found["m1", "one", "b"]
    assert (a["frames"], a["bouts"], a["share_of_time"]) == (7, 3, 0.35)
    durations = {"median_s": 0.2, "mean_s": 0.7 / 3, "min_s": 0.1, "max_s": 0.4}
    assert {key: a[key] for key in durations} == pytest.approx(durations)
    assert (b["frames"], b["bouts"], b["share_of_time"]) == (8, 2, 0.4)
    assert b["median_s"] == b["mean_s"] == b["min_s"] == b["max_s"] == pytest.approx(0.4)
    pairs = rows("transitions", "from", "to")  # the bouts are a b a a b
    assert {key: row["count"] for key, row in pairs.items()} == {
        ("a", "a"): 1, ("a", "b"): 2, ("b", "a"): 1, ("b", "b"): 0,
    }  # fmt: skip
    assert pairs["a", "b"]["probability"] == pytest.approx(2 / 3)
    assert pairs["b", "a"]["probability"] == 1


def test_a_window_counts_what_is_inside():
    ethogram(f"--fps={FPS}", "--from=0.2", "--to=0.9", "one")  # frames 2 to 8: a a b b b b a
    found = rows("behaviors", "behavior")
    assert [found[name,]["frames"] for name in "ab"] == [3, 4]
    assert found["a",]["share_of_time"] == pytest.approx(3 / 7)
    assert found["a",]["max_s"] == pytest.approx(0.2)
    assert rows("transitions", "from", "to")["a", "a"]["count"] == 0
    assert "0.2 to 0.9 s" in Path("ethograms/m1/ethogram.svg").read_text()


def test_recordings_are_pooled_and_transitions_do_not_cross_them():
    write_table(Path("one/m2"), {"a": ".#", "b": "#."})
    ethogram(f"--fps={FPS}", "one")
    both = rows("behaviors_all_recordings", "behavior")["a",]
    assert (both["frames"], both["bouts"]) == (8, 4)
    assert both["share_of_time"] == pytest.approx(8 / 22)
    assert both["median_s"] == pytest.approx(0.15)  # of 0.1, 0.1, 0.2, 0.4
    pairs = rows("transitions_all_recordings", "from", "to")
    assert pairs["b", "a"]["count"] == 2
    assert pairs["b", "b"]["count"] == 0  # m1 ends with b, m2 begins with it


def test_bouts_that_overlap_or_begin_together():
    series = {"a": "###..##.", "b": "..##....", "c": "..#.....", "d": "........"}
    counts = transition_counts(active_of(series))
    expected = np.zeros((4, 4))
    expected[0, 1] = expected[0, 2] = 0.5  # b and c begin together, while a goes on
    expected[1, 0] = expected[2, 0] = 1
    np.testing.assert_array_equal(counts, expected)


def test_without_a_frame_rate_frames_are_counted():
    ethogram("one")
    assert rows("behaviors", "behavior")["a",]["max_frames"] == 4
    text = Path("ethograms/m1/ethogram.svg").read_text()
    assert "frames 0 to 19" in text
    assert "time" not in text


def test_a_behaviour_that_never_happens():
    write_table(Path("one/m1"), {**SERIES, "c": "." * 20})
    ethogram("one")
    row = rows("behaviors", "behavior")["c",]
    assert (row["frames"], row["bouts"]) == (0, 0)
    assert np.isnan(row["median_frames"])
    assert np.isnan(rows("transitions", "from", "to")["c", "a"]["probability"])


# Sources ------------------------------------------------------------------------------------------


def test_annotations_and_tables_below_each_other(capsys):
    """The annotations are read by another way than tables: both must give the same numbers."""
    write_recording(Path("data/m1"), walk(60, names(), 0), names())  # 30 frames per second
    events = "behavior,start_time,end_time\na,0,0.5\nb,0.5,1\n"
    Path("data/m1/annotations.csv").write_text(events)
    write_table(Path("motifs/m1"), {"b": "." * 15 + "#" * 15 + "." * 30, "x": "#" * 60}, "hmm.csv")
    ethogram("--labels=data", "--annot_format=csv_events", "--names=human,hmm", "motifs")
    found = rows("behaviors", "source", "behavior")
    assert list(found) == [("human", "a"), ("human", "b"), ("hmm", "b"), ("hmm", "x")]
    for source in ("human", "hmm"):
        assert found[source, "b"]["frames"] == 15
        assert found[source, "b"]["max_s"] == pytest.approx(0.5)
    assert "2 s, 30 frames per second" in Path("ethograms/m1/ethogram.svg").read_text()
    ethogram("--labels=data", "--annot_format=csv_events", "--output_path=alone", "--behaviors=b")
    assert list(pd.read_csv("alone/ethograms/behaviors.csv")["behavior"]) == ["b"]
    for words, message in (
        (["--recordings=m9"], "no recording 'm9'"),
        (["--behaviors=a", "motifs"], "--behaviors names nothing of motifs"),
        (["one"], "m1 has 20 rows, but 60 frames"),
    ):
        said = refused("--labels=data", "--annot_format=csv_events", "--output_path=no", *words,
                       capsys=capsys)  # fmt: skip
        assert message in said


def test_tables_are_found_by_their_contents():
    """Others are beside them: embeddings, tables without frame numbers, unfinished ones."""
    pd.DataFrame(np.full((20, 2), 0.5)).to_csv("one/m1/features_lisbet_embedding.csv")
    Path("one/m1/bouts.csv").write_text("behavior,start\na,0\n")
    Path("one/m1/.part.csv").write_text(",a\n0,1\n")
    ethogram("one")
    write_table(Path("one/m1"), {"x": "#" * 20}, "hmm_3.csv")
    Path("one/hmm_history.csv").write_text(",History\n0,-13.5\n")
    ethogram("--table=hmm_*", "--output_path=hmm", "one")
    ethogram(f"--table={TABLE.removesuffix('.csv')}", "--output_path=stem", "one")
    assert list(pd.read_csv("hmm/ethograms/behaviors.csv")["behavior"]) == ["x"]


def test_only_recordings_that_all_have(capsys):
    for name in ("one/m2", "two/m1", "two/m3"):
        write_table(Path(name), SERIES)
    ethogram("one", "two")
    assert "not drawn, as not all folders have them: m2, m3" in capsys.readouterr().err
    assert {key for (key,) in rows("behaviors", "recording")} == {"m1"}


# Pictures -----------------------------------------------------------------------------------------


def bars(figure) -> list[tuple[str, list[tuple[float, float]]]]:
    """The colour of each lane, and start and end of its bars."""
    found = []
    for lane in figure.axes[0].collections:
        ends = [(path.vertices[:, 0].min(), path.vertices[:, 0].max()) for path in lane.get_paths()]
        colours = lane.get_facecolor()
        found.append((to_hex(colours[0]).upper() if len(colours) else "", ends))
    return found


def test_lanes_show_every_bout_and_colours_mean_the_same_behaviour():
    both = {"b": "..##....", "a": ".####..#"}
    sources = [
        Source("one", ("a", "b"), {"m": active_of({"a": "####....", "b": "....####"})}),
        Source("two", ("b", "a", "other"), {"m": active_of({**both, "other": "......#."})}),
    ]
    figure = timeline_figure("m", sources, Span(2, 8, 2.0))  # in seconds from 1 to 4
    blue, orange = drawing.PALETTE[:2]
    assert bars(figure) == [
        (blue, [(1, 2)]),
        (orange, [(2, 4)]),
        (orange, [(1, 2)]),
        (blue, [(1, 2.5), (3.5, 4)]),
        (drawing.NEUTRAL, [(3, 3.5)]),
    ]
    labels = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert labels == ["a", "b", "b", "a", "other"]
    assert figure.axes[0].get_xlim() == (1, 4)
    (places,) = {tuple(figure.axes[0].get_yticks())}
    assert len(set(places)) == 5, "each behaviour has a lane of its own"


def test_compact_timelines_name_colours_in_a_legend(capsys):
    ethogram(f"--fps={FPS}", "--compact", "one")
    text = Path("ethograms/m1/ethogram.svg").read_text()
    for expected in ("one", ">a<", ">b<", drawing.PALETTE[0].lower(), drawing.PALETTE[1].lower()):
        assert expected in text
    write_table(Path("one/m1"), {"a": "##", "b": ".#"})
    said = refused("--compact", "--overwrite", "one", capsys=capsys)
    assert "m1, frame 1 has a and b (1 frame have several)" in said


@pytest.mark.parametrize(
    ("kind", "start"), [("png", b"\x89PNG"), ("pdf", b"%PDF"), ("svg", b"<?xml")]
)
def test_formats(kind, start):
    main(["plot_ethogram", f"--format={kind}", "one"])
    for name in ("m1/ethogram", "behaviors", "transitions"):
        assert Path(f"ethograms/{name}.{kind}").read_bytes().startswith(start)


# What is refused ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("", "nothing to draw"),
        ("empty", "holds no tables of 0 and 1"),
        ("--table=x.csv one", f"named x.csv (but {TABLE})"),
        ("--fps=10 --from=2 one", "--from=2: m1 ends at 2 s"),
        ("--fps=10 --to=2.1 one", "--to=2.1: m1 ends at 2 s"),
        ("--fps=10 --from=1 --to=1 one", "--to=1 must be larger than --from=1"),
        ("--fps=10 --from=1 --to=1.01 one", "in the same frame"),
        ("--from=1 one", "give it with --fps"),
        ("--from=x one", "--from=x: expected a number"),
        ("--from=-1 one", "--from=-1: expected 0.0 or more"),
        ("--recordings=m9 one", "no recording 'm9'"),
        ("--behaviors=z one", "no behaviour 'z'"),
        ("--names=x,y one", "2 names for 1 folders"),
        ("--names=x,x one one", "one name twice"),
        ("one one", "given twice"),
        ("one two", "no recording is in all folders"),
        ("one short", "m1 has 2 frames in short, but 20 in one"),
        ("wrong", "row 1, column 'a' is 2"),
        ("gaps", "does not number the frames"),
        ("double", "several tables of 0 and 1: a.csv and b.csv"),
        ("mixed", "has the columns c, mixed/m1/"),
    ],
)
def test_what_is_refused(words, message, capsys):
    Path("empty").mkdir()
    write_table(Path("two/m2"), SERIES)
    write_table(Path("short/m1"), {"a": "##", "b": ".."})
    for name in ("a.csv", "b.csv"):
        write_table(Path("double/m1"), SERIES, name)
    write_table(Path("mixed/m1"), SERIES)
    write_table(Path("mixed/m2"), {"c": "##"})
    for folder, lines in (("wrong", "0,1\n1,2"), ("gaps", "0,1\n2,1")):
        Path(folder, "m1").mkdir(parents=True)
        Path(folder, "m1", TABLE).write_text(f",a\n{lines}\n")
    if words == "wrong":  # else it is no table of 0 and 1
        words = f"--table={TABLE} wrong"
    assert message in refused(*words.split(), capsys=capsys)


def test_results_are_replaced_only_on_request(capsys):
    ethogram("one")
    assert "results exist already" in refused("one", capsys=capsys)
    ethogram("--overwrite", "one")
    Path("ethograms/m1/ethogram.svg").write_text("mine")
    assert "was not written by betman" in refused("--overwrite", "one", capsys=capsys)
