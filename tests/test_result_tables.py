"""The tables of results: formats, bouts, probabilities, and files that must not be mixed."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from conftest import TINY, names, walk, write_recording
from zarr.storage import ZipStore

from lisbet.cli import main
from lisbet.commands.applying.bouts import bout_table
from lisbet.commands.applying.result_tables import (
    FORMATS,
    ResultTable,
    read_embeddings,
    read_table,
)
from lisbet.core.errors import DataError
from lisbet.data.labels import LABEL_READERS

STEM = "features_lisbet_embedding"
VALUES = np.array([[0.1, -2.5], [1e-8, 3.0], [7.0, 0.25]], dtype=np.float32)
TABLE = ResultTable(VALUES, ("0", "1"), "day1/m1", "mice-embedder", fps=4.0, start_s=2.0)
TIMES = [2.0, 2.25, 2.5]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tables")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for number, length in enumerate((40, 50)):
            recording = Path("data") / f"r{number}"
            write_recording(recording, walk(length, names(), number), names())
            (recording / "annotations.csv").write_text(
                f"behavior,start_time,end_time\nrun,0,{10 / 30}\n"
            )
        for task in ("multiclass", "multilabel"):
            main(["train_model", *TINY, "--epochs=1", f"--task_ids={task}", f"--run_id={task}",
                  "--annot_format=csv_events", "data"])  # fmt: skip
            main(["export_embedder", f"models/{task}"])
        yield folder


def fails(*words, capsys) -> str:
    with pytest.raises(SystemExit) as caught:
        main(list(words))
    assert caught.value.code == 2
    return capsys.readouterr().err


@pytest.mark.parametrize("name", FORMATS)
def test_what_is_written_is_read_again(name, tmp_path):
    path = tmp_path / f"t{ {'zarr': '.zarr.zip'}.get(name, f'.{name}') }"
    FORMATS[name].write(TABLE, "embedding", path)
    found = read_table(path)
    np.testing.assert_array_equal(found.to_numpy(dtype=np.float32), VALUES)
    assert list(map(str, found.columns)) == ["0", "1"]


def test_other_programs_read_the_formats(tmp_path):
    FORMATS["parquet"].write(TABLE, "embedding", tmp_path / "t.parquet")
    table = pd.read_parquet(tmp_path / "t.parquet")
    assert table["time_s"].tolist() == TIMES
    assert table["1"].tolist() == VALUES[:, 1].tolist()
    about = {"recording": "day1/m1", "model": "mice-embedder", "fps": 4.0}
    assert table.attrs == about

    FORMATS["npz"].write(TABLE, "embedding", tmp_path / "t.npz")
    with np.load(tmp_path / "t.npz") as file:
        np.testing.assert_array_equal(file["embedding"], VALUES)
        assert file["time_s"].tolist() == TIMES
        assert {key: file[key].item() for key in about} == about

    FORMATS["zarr"].write(TABLE, "embedding", tmp_path / "t.zarr.zip")
    store = ZipStore(tmp_path / "t.zarr.zip", mode="r")
    with store, xr.open_zarr(store, consolidated=False) as dataset:
        np.testing.assert_array_equal(dataset["embedding"], VALUES)
        assert dataset["time"].values.tolist() == TIMES
        assert {key: dataset.attrs[key] for key in about} == about


def test_the_commands_write_the_formats(place, capsys):
    embedder = "models/multiclass-embedder"
    main(["compute_embeddings", "data", embedder, "--output_path=csv"])
    expected = pd.read_csv(f"csv/embeddings/r1/{STEM}.csv", index_col=0).to_numpy()
    for name in ("parquet", "npz", "zarr"):
        main(["compute_embeddings", "data", embedder, f"--output_path={name}", f"--format={name}"])
        found = read_embeddings(Path(name, "embeddings"))
        assert list(found) == ["r0", "r1"]
        np.testing.assert_allclose(found["r1"], expected, rtol=1e-6, atol=1e-8)
    main(["plot_embeddings", "npz/embeddings"])


def test_formats_of_one_model_may_stand_together_but_not_those_of_two(place, capsys):
    one, other = "models/multiclass-embedder", "models/multilabel-embedder"
    main(["compute_embeddings", "data", one, "--output_path=both"])
    main(["compute_embeddings", "data", one, "--output_path=both", "--format=npz"])
    assert len(read_embeddings(Path("both/embeddings"))) == 2
    words = ["compute_embeddings", "data", other, "--output_path=both", "--overwrite"]
    assert "files of r0, r1 would stay" in fails(*words, capsys=capsys)


def test_bouts_are_runs_of_frames():
    active = np.array([[1, 0], [1, 1], [0, 1], [0, 0], [1, 0]], dtype=bool)
    found = bout_table(active, ("run", "sniff"), fps=4, start_s=10)
    assert found.to_dict("list") == {
        "behavior": ["run", "sniff", "run"],
        "first_frame": [0, 1, 4],
        "last_frame": [1, 2, 4],
        "start_s": [10.0, 10.25, 11.0],
        "end_s": [10.5, 10.75, 11.25],
        "duration_s": [0.5, 0.5, 0.25],
    }
    assert bout_table(active[:0], ("run", "sniff"), fps=4).empty


@pytest.mark.parametrize("task", ["multiclass", "multilabel"])
def test_probabilities_bouts_and_events(place, task):
    main(["annotate_behavior", "data", f"models/{task}", f"--output_path={task}", "--probabilities",
          "--bouts", "--boris"])  # fmt: skip
    folder = Path(task, "annotations/r1")
    table = pd.read_csv(folder / "machineAnnotation_lisbet.csv", index_col=0)
    likely = pd.read_csv(folder / "machineAnnotation_lisbet_probabilities.csv", index_col=0)
    assert list(likely.columns) == list(table.columns)
    if task == "multiclass":
        np.testing.assert_allclose(likely.sum(axis=1), 1, rtol=1e-5)
        np.testing.assert_array_equal(likely.to_numpy().argmax(1), table.to_numpy().argmax(1))
    else:
        np.testing.assert_array_equal(likely.to_numpy() > 0.5, table.to_numpy() == 1)
    bouts = pd.read_csv(folder / "bouts.csv")
    seconds = bouts.groupby("behavior")["duration_s"].sum()
    frames = {name: table[name].sum() / 30 for name in table if table[name].any()}
    assert seconds.to_dict() == pytest.approx(frames)
    labels = LABEL_READERS["boris"].read(folder / "boris_events.csv", len(table), 30.0)
    for number, name in enumerate(labels.behaviors):
        np.testing.assert_array_equal(labels.active[:, number], table[name] == 1)
    events = pd.read_csv(folder / "boris_events.csv")
    assert {"Time", "Subject", "Code", "Modifier", "Comment"} <= set(events.columns)
    assert (events["Code"] == events["Behavior"]).all()


def test_bouts_need_a_frame_rate(place, tmp_path, capsys):
    positions = np.arange(30 * 12, dtype=float).reshape(30, 2, 3, 2) % 17
    folder = tmp_path / "data"
    path = write_recording(folder / "r0", positions, names())
    with xr.open_dataset(path) as dataset:
        bare = dataset.load().drop_vars("time")
    bare.attrs.pop("fps")
    bare.to_netcdf(path)
    words = ["annotate_behavior", str(folder), "models/multiclass", "--output_path=none"]
    said = fails(*words, "--bouts", "--override_preparation", capsys=capsys)
    assert "the frame rate of r0 is not known" in said
    assert "--fps" in said
    assert not Path("none/annotations").exists()


def test_damaged_tables_are_named(tmp_path):
    for suffix in (".npz", ".parquet", ".zarr.zip", ".csv"):
        path = tmp_path / "r0" / f"{STEM}{suffix}"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"0,1\n0,a\n" if suffix == ".csv" else b"nothing of the kind")
        with pytest.raises(DataError, match="is no table of numbers"):
            read_embeddings(tmp_path)
        path.unlink()
