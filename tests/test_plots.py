"""Pictures: written, not empty, and clear about what is missing."""

import dataclasses
import itertools
import json
import re
import shutil
import subprocess

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from conftest import names, walk
from matplotlib.image import imread
from matplotlib.text import Text
from PIL import Image

from lisbet.cli import main
from lisbet.commands.applying.probe import picture
from lisbet.commands.pictures import embeddings as pictures_of_embeddings
from lisbet.commands.pictures.embeddings import layout
from lisbet.commands.pictures.history import history_figure
from lisbet.commands.pictures.history_page import RunHistory, page
from lisbet.commands.pictures.timelines import Source, Span, timeline_figure
from lisbet.core import drawing
from lisbet.data.bank import Bank
from lisbet.data.hub._simulate import simulate
from lisbet.data.hub.sample_data import SEED, write
from lisbet.data.labels import Labels
from lisbet.data.record import Record
from lisbet.tasks import TASKS
from lisbet.training.logging.history import read_history, write_history


@pytest.fixture
def run(tmp_path):
    rows = [
        {"epoch": n, "train_loss": 2 - n / 5, "warp_train_loss": 2 - n / 5,
         "warp_train_accuracy": 0.5 + n / 10, "warp_dev_loss": 2.0, "warp_dev_accuracy": 0.5}
        for n in range(4)
    ]  # fmt: skip
    (tmp_path / "run").mkdir()
    write_history(tmp_path / "run" / "training_history.csv", rows)
    return tmp_path / "run"


@pytest.fixture
def embeddings(tmp_path):
    rng = np.random.default_rng(0)
    write(tmp_path / "data", [60, 90])
    for number, recording in enumerate(simulate([60, 90], SEED)):
        place = tmp_path / "embeddings" / f"simulated{number:02}"
        place.mkdir(parents=True)
        values = rng.normal(size=(len(recording.state), 4)) + recording.state[:, None]
        pd.DataFrame(values).to_csv(place / "features_lisbet_embedding.csv")
    return tmp_path / "embeddings"


def colours(path) -> int:
    pixels = imread(path)[..., :3].reshape(-1, 3)
    return len(np.unique(pixels.round(1), axis=0))


def fails(*words, capsys) -> str:
    with pytest.raises(SystemExit) as caught:
        main(list(map(str, words)))
    assert caught.value.code == 2
    return capsys.readouterr().err


def test_history(run, tmp_path):
    main(["plot_history", str(run)])
    assert colours(run / "training_history.png") > 10
    main(["plot_history", str(run), f"--output_path={tmp_path}/other.svg"])
    text = (tmp_path / "other.svg").read_text()
    assert "<svg" in text


def other_run(run, tmp_path):
    rows = [
        {"epoch": n, "train_loss": 1.5, "warp_train_loss": 1.5, "warp_train_accuracy": 0.625}
        for n in range(7)
    ]
    (tmp_path / "<other>").mkdir()
    write_history(tmp_path / "<other>" / "training_history.csv", rows)
    return tmp_path / "<other>"


def test_histories_of_several_runs(run, tmp_path):
    other = other_run(run, tmp_path)
    main(["plot_history", str(run), str(other)])
    assert colours(tmp_path / "training_histories.png") > 10
    main(["plot_history", f"{run},{other}", f"--output_path={tmp_path}/both.html"])
    page = (tmp_path / "both.html").read_text()
    assert page == (tmp_path / "training_histories.html").read_text()
    assert "http" not in page  # nothing is fetched from anywhere
    assert "<other>" not in page  # a name is text
    assert page.count("<svg") == 3
    assert "epoch (from 0)" in page


def test_history_of_events_alone(run):
    rows = [
        {"step": 4 * (n + 1), "epoch/epoch": n, "epoch/train_loss": None if n else 2.5}
        for n in range(2)
    ]
    (run / "training_history.csv").unlink()
    lines = [json.dumps(row) for row in [{"step": 2, "train_loss": 1.0}, *rows]]
    (run / "events.jsonl").write_text("\n".join(lines))
    main(["plot_history", str(run), f"--output_path={run}/page.html"])
    assert "2.5" in (run / "page.html").read_text()


def test_the_page_in_a_browser(run, tmp_path):
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("no Chromium here: apt install chromium")
    main(["plot_history", str(run), str(other_run(run, tmp_path))])
    page = (tmp_path / "training_histories.html").read_text()
    # What a reader does: hide the first run, then point at the end of the first chart.
    does = """<script>
    document.querySelector("[data-run]").click();
    const chart = document.querySelector("svg"), box = chart.getBoundingClientRect();
    chart.dispatchEvent(new PointerEvent("pointermove",
      {clientX: box.right - 15, clientY: box.top + 50}));
    document.body.dataset.wide = document.documentElement.scrollWidth > innerWidth;
    </script></body>"""
    (tmp_path / "test.html").write_text(page.replace("</body>", does))
    done = subprocess.run(
        [browser, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
         "--disable-background-networking", "--disable-component-update", "--disable-sync",
         f"--user-data-dir={tmp_path}/profile", "--window-size=500,900", "--dump-dom",
         f"file://{tmp_path}/test.html"],
        capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    shown = done.stdout
    assert "<output>epoch 6: &lt;other&gt; train 1.5</output>" in shown
    assert re.search(r'<g class="train off" data-of="0"', shown)
    assert not re.search(r'<g class="train off" data-of="1"', shown)
    assert 'data-wide="false"' in shown  # a phone does not scroll sideways


def test_embeddings_by_behaviour_and_by_recording(embeddings, tmp_path):
    main(["plot_embeddings", str(embeddings), f"--labels={tmp_path}/data"])
    assert colours(embeddings / "embeddings.png") > 20
    main(["plot_embeddings", str(embeddings), f"--output_path={tmp_path}/by_recording.png"])
    assert colours(tmp_path / "by_recording.png") > 20


def test_what_is_missing_is_said(run, embeddings, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    said = fails("plot_history", tmp_path / "empty", capsys=capsys)
    assert "expected a folder models/RUN" in said
    assert f"runs in it: {run.name}" in fails("plot_history", run.parent, capsys=capsys)
    assert "ending in .png" in fails("plot_history", run, "--output_path=x.gif", capsys=capsys)
    assert "compute_embeddings" in fails("plot_embeddings", run, capsys=capsys)
    (run / "training_history.csv").write_text("epoch,loss\n1,many\n")
    assert "not a table of numbers" in fails("plot_history", run, capsys=capsys)
    wrong = tmp_path / "data" / "simulated00" / "annotations.nc"
    wrong.unlink()
    said = fails("plot_embeddings", embeddings, f"--labels={tmp_path}/data", capsys=capsys)
    assert "simulated00: expected one annotation file" in said
    (tmp_path / "data" / "simulated00").rename(tmp_path / "data" / "other")
    said = fails("plot_embeddings", embeddings, f"--labels={tmp_path}/data", capsys=capsys)
    assert "the embeddings are of simulated00, but the recordings in" in said
    assert "are other" in said


# Colours ------------------------------------------------------------------------------------------

# Linear RGB as seen without red, green or blue cones: Machado, Oliveira and Fernandes 2009,
# doi.org/10.1109/TVCG.2009.113, severity 1.
SEEN = {
    "normal": np.eye(3),
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216],
                   [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413],
                     [-0.011820, 0.042940, 0.968881]],
    "tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602],
                   [0.004733, 0.691367, 0.303900]],
}  # fmt: skip
XYZ = np.array([[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750],
                [0.0193339, 0.1191920, 0.9503041]])  # fmt: skip
APART = 16


def lab(colour: str, seen: str = "normal") -> np.ndarray:
    """CIE L*a*b* (D65) of an sRGB colour."""
    values = np.array([int(colour[n : n + 2], 16) / 255 for n in (1, 3, 5)])
    linear = np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)
    relative = XYZ @ np.clip(np.array(SEEN[seen]) @ linear, 0, 1) / XYZ.sum(axis=1)
    f = np.where(relative > (6 / 29) ** 3, np.cbrt(relative), relative * 841 / 108 + 4 / 29)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


def apart(one: str, other: str, seen: str) -> float:
    return float(np.linalg.norm(lab(one, seen) - lab(other, seen)))


def test_the_measure_of_colours():
    np.testing.assert_allclose(lab("#ff0000"), [53.24, 80.09, 67.20], atol=0.01)
    np.testing.assert_allclose(lab("#0000ff"), [32.30, 79.19, -107.86], atol=0.01)
    assert apart("#2ca02c", "#d62728", "normal") > 100
    assert apart("#2ca02c", "#d62728", "deuteranopia") < APART  # green and red of matplotlib
    assert apart("#2ca02c", "#ff7f0e", "protanopia") < APART


@pytest.mark.parametrize("seen", SEEN)
def test_any_two_colours_can_be_told_apart(seen):
    for one, other in itertools.combinations((*drawing.PALETTE, drawing.NEUTRAL), 2):
        assert apart(one, other, seen) >= APART, (one, other)
    assert all(apart(colour, "#ffffff", seen) >= APART for colour in drawing.PALETTE)


@pytest.mark.parametrize("seen", SEEN)
def test_many_groups_have_colours_from_dark_to_light(seen):
    chosen = drawing.colours_of([f"r{n:02}" for n in range(30)])
    assert len(set(chosen.values())) == 30
    lightness = [lab(colour, seen)[0] for colour in chosen.values()]
    assert (np.diff(lightness) > 0.5).all()


def test_groups_that_are_not_behaviours_are_never_grey():
    assert drawing.colours_of(["other", "none"])["other"] == drawing.PALETTE[0]
    assert drawing.colours_of(["other", "x"], ["other"]) == {
        "x": drawing.PALETTE[0], "other": drawing.NEUTRAL,
    }  # fmt: skip


# Size ---------------------------------------------------------------------------------------------


def figures() -> dict:
    scores = pd.DataFrame(
        [
            {"features": features, "behavior": behavior, "present": 0.3, "average_precision": 0.5,
             "f1": 0.4, "frames": 9, "seed": 0, "fold": fold}
            for features in ("raw pose", "embedding") for behavior in ("chase", "attack")
            for fold in (0, 1)
        ]
    )  # fmt: skip
    counts = np.array([[3, 1, 2, 10], [0, 2, 0, 14]])
    plane = np.random.default_rng(0).normal(size=(80, 2))
    many = np.array([f"recording number {n:02}" for n in range(40)] * 2)
    history = RunHistory("mice", [{"epoch": 0, "warp_train_accuracy": 0.7}], {"warp": 0.5})
    source = Source("model", ("chase", "attack"), {"m": np.eye(2, dtype=bool)})
    return {
        "multilabel": drawing.confusion_figure(counts, ["a", "b"], list(drawing.OUTCOMES), "model"),
        "multiclass": drawing.confusion_figure(counts[:, :2], ["a", "b"], ["a", "b"], "model"),
        "points": drawing.scatter_figure(plane, many, "title", ("x", "y")),
        "history": history_figure([history]),
        "timeline": timeline_figure("m", [source], Span(0, 2, 30.0)),
        "probe": picture(scores, "model"),
    }


def test_figures_fit_a_page_and_can_be_read_there():
    for name, figure in figures().items():
        assert figure.get_figwidth() <= 7, name
        with mpl.rc_context(drawing.STYLE):
            figure.draw_without_rendering()
        texts = [text for text in figure.findobj(Text) if text.get_text()]
        assert min(text.get_fontsize() for text in texts) >= 7, name
        inside = figure.bbox.padded(2)
        for text in (*figure.texts, *(text for own in figure.legends for text in own.get_texts())):
            box = text.get_window_extent()
            assert inside.x0 <= box.x0 <= box.x1 <= inside.x1, (name, text.get_text())


def test_pixels_and_formats(run, tmp_path):
    main(["plot_history", str(run), "--format=pdf"])
    assert (run / "training_history.pdf").read_bytes().startswith(b"%PDF")
    main(["plot_history", str(run), f"--output_path={tmp_path}/named", "--format=svg"])
    once = (tmp_path / "named.svg").read_bytes()
    main(["plot_history", str(run), f"--output_path={tmp_path}/again.svg"])
    assert (tmp_path / "again.svg").read_bytes() == once  # the same picture is the same file
    assert b">run run<" in once  # text is text
    main(["plot_history", str(run), f"--output_path={tmp_path}/x.png"])
    with Image.open(tmp_path / "x.png") as image:
        assert min(image.info["dpi"]) >= 200
        assert image.width / image.info["dpi"][0] <= 7.001  # dpi is in pixels per metre


# Histories ----------------------------------------------------------------------------------------


def titles(figure) -> list[str]:
    return [axes.get_title() for axes in figure.axes if axes.get_title()]


def test_scores_of_several_kinds_have_charts_with_their_chance(run):
    rows = [
        {"epoch": n, "learning_rate": 1e-5, "learning_rate_max": 6.4e-4, "warp_train_loss": 1.0,
         "warp_train_accuracy": 0.7, "labels_train_f1": 0.4, "labels_dev_f1": 0.3}
        for n in range(2)
    ]  # fmt: skip
    figure = history_figure([RunHistory("mice", rows, {"warp": 0.5, "labels": 0.25})])
    assert titles(figure) == ["loss", "accuracy", "macro F1", "largest learning rate"]
    assert figure.get_suptitle() == "run mice"
    _, accuracy, f1, rate = figure.axes
    assert [line.get_ydata()[0] for line in accuracy.lines] == [0.7, 0.5]
    assert [line.get_ydata()[0] for line in f1.lines] == [0.4, 0.3, 0.25]
    assert list(rate.lines[0].get_xdata()) == [0, 1]  # as in the table
    assert list(rate.lines[0].get_ydata()) == [6.4e-4, 6.4e-4]
    text = page([RunHistory("mice", rows, {"warp": 0.5})])
    assert text.count(">chance<") == 1
    assert "0.00064" in text
    assert "1e-05" not in text


def test_what_guesses_score(run):
    """Of four frames, two are a, one is b, one is nothing."""
    active = np.array([[1, 0], [1, 0], [0, 1], [0, 0]], dtype=bool)
    tracks = (walk(4, names(), 0) / 100).astype(np.float32)
    record = Record.in_memory("r", tracks, names())
    bank = Bank.from_records([dataclasses.replace(record, labels=Labels(("a", "b"), active))])
    for name, chance in {"multiclass": 1 / 3, "multilabel": 0.375, "warp": 0.5}.items():
        task = TASKS[name]()
        task.fit(bank, bank)
        assert task.chance == pytest.approx(chance)
    (run / "run_config.yml").write_text("chance: {warp: 0.5}\n")
    main(["plot_history", str(run)])
    assert "chance" in (run / "training_history.html").read_text()


def test_rows_of_an_earlier_release_and_later_ones(tmp_path):
    rows = [{"epoch": 0, "train_loss": 1.0}, {"epoch": 1, "train_loss": 0.5, "more": 2.0}]
    write_history(tmp_path / "training_history.csv", rows)
    found = read_history(tmp_path / "training_history.csv")
    assert np.isnan(found[0].pop("more"))
    assert found == [rows[0], rows[1]]


# Embeddings ---------------------------------------------------------------------------------------


def test_principal_components_are_those_of_all_frames():
    values = np.random.default_rng(0).normal(size=(50, 3)) * [5, 2, 1]
    plane, _, labels = layout(values, np.array([3, 7]), "pca", 0)
    centred = values - values.mean(axis=0)
    variances, axes = np.linalg.eigh(np.cov(centred.T))
    expected = centred[[3, 7]] @ axes[:, [2, 1]]
    np.testing.assert_allclose(np.abs(plane), np.abs(expected))
    assert labels[0] == f"component 1 ({variances[2] / variances.sum():.0%} of the variance)"


def drawn(monkeypatch, *words):
    """The title, and how many points of which group are drawn."""
    seen = {}

    def scatter(plane, groups, title, labels, neutral):
        seen.update(title=title, groups=pd.Series(groups).value_counts().to_dict(), labels=labels)
        return mpl.figure.Figure()

    monkeypatch.setattr(drawing, "scatter_figure", scatter)
    main(["plot_embeddings", "--method=pca", "--overwrite", *map(str, words)])
    return seen


def test_what_gives_the_colours(embeddings, tmp_path, monkeypatch):
    seen = drawn(monkeypatch, embeddings)
    assert seen["groups"] == {"simulated00": 60, "simulated01": 90}
    assert "150 of 150 frames, seed 1991, by recording" in seen["title"]
    assert "principal components" in seen["title"]
    seen = drawn(monkeypatch, "--max_frames=40", "--seed=5", embeddings)
    assert sum(seen["groups"].values()) == 40
    assert "40 of 150 frames, seed 5" in seen["title"]
    for number, frames in enumerate((60, 90)):
        folder = tmp_path / "motifs" / f"simulated{number:02}"
        folder.mkdir(parents=True)
        table = pd.DataFrame({"0": np.arange(frames) < 20, "1": np.arange(frames) >= 10})
        table.astype(int).to_csv(folder / "motifs.csv")
    seen = drawn(monkeypatch, f"--motifs={tmp_path}/motifs", embeddings)
    assert seen["groups"] == {"0": 20, "0 + 1": 20, "1": 110}  # what overlaps is shown
    seen = drawn(monkeypatch, f"--motifs={tmp_path}/motifs", "--color_by=0", embeddings)
    assert seen["groups"] == {"0": 40, "not 0": 110}


def test_many_mixtures_are_one_group():
    active = np.array(list(itertools.product([0, 1], repeat=4)), dtype=bool)
    found = drawing.mixtures(list("abcd"), active)
    assert sorted(set(found)) == ["a", "b", "c", "d", "none", "several at once"]


def test_umap(embeddings, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(pictures_of_embeddings.importlib.util, "find_spec", lambda name: None)
    said = fails("plot_embeddings", "--method=umap", embeddings, capsys=capsys)
    assert "pip install 'lisbet[umap]'" in said


@pytest.mark.thorough
def test_umap_where_it_is_installed(embeddings, tmp_path):
    pytest.importorskip("umap")
    for name in ("one", "two"):
        main(["plot_embeddings", "--method=umap", f"--output_path={tmp_path}/{name}.svg",
              str(embeddings)])  # fmt: skip
    assert (tmp_path / "one.svg").read_bytes() == (tmp_path / "two.svg").read_bytes()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--color_by=behavior", "needs --labels"),
        ("--color_by=motif", "needs --motifs"),
        ("--color_by=chase", "needs --labels (annotations) or --motifs"),
        ("--color_by=chasing --labels=DATA", "no column 'chasing': did you mean 'chase'?"),
        ("--labels=DATA --motifs=DATA", "both give the colours"),
        ("--motifs=DATA", "holds no tables of 0 and 1"),
        ("--format=pdf --output_path=x.png", "ends in .png"),
        ("--method=lda", "--method=lda: expected 'pca', 'tsne' or 'umap'"),
    ],
)
def test_colours_that_cannot_be(words, message, embeddings, tmp_path, capsys):
    words = words.replace("DATA", str(tmp_path / "data")).split()
    assert message in fails("plot_embeddings", *words, embeddings, capsys=capsys)


# Confusion ----------------------------------------------------------------------------------------


def test_the_confusion_of_overlapping_behaviours_says_what_was_predicted():
    figure = drawing.confusion_figure(
        np.array([[3, 1, 2, 10]]), ["chase"], list(drawing.OUTCOMES), "model"
    )
    annotated, absent = figure.axes
    assert titles(figure) == [
        "frames annotated with the behaviour", "frames annotated without it",
    ]  # fmt: skip
    for axes, texts, shares in (
        (annotated, ["yes\n(true positive)", "no\n(false negative)"], ["75%\n3", "25%\n1"]),
        (absent, ["yes\n(false positive)", "no\n(true negative)"], ["17%\n2", "83%\n10"]),
    ):
        assert axes.get_xlabel() == "predicted"
        assert [label.get_text() for label in axes.get_xticklabels()] == texts
        assert [text.get_text() for text in axes.texts] == shares
    assert list(TASKS["multilabel"].report(
        np.ones((2, 1), bool), np.array([[1.0], [-1.0]]), ["chase"], None
    )[1].columns) == list(drawing.OUTCOMES)  # fmt: skip
