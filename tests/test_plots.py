"""Pictures: written, not empty, and clear about what is missing."""

import json
import re
import shutil
import subprocess

import numpy as np
import pandas as pd
import pytest
from matplotlib.image import imread

from lisbet.cli import main
from lisbet.data.hub._simulate import simulate
from lisbet.data.hub.sample_data import SEED, write
from lisbet.training.logging.history import write_history


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
    assert "<output>epoch 7: &lt;other&gt; train 1.5</output>" in shown
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
