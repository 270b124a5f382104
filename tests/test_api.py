"""The Python interface: load, embed, annotate, train, open, windows."""

import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import xarray as xr
from conftest import TINY, names, walk, write_recording

import lisbet
from lisbet.cli import main
from lisbet.core.errors import ConfigError, DataError, ModelError
from lisbet.models import locate
from lisbet.models.backbones._backbone import unrounded

CONFIG, WEIGHTS = "models/a/model_config.yml", "models/a/weights/weights_last.pt"


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("api")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for number, length in enumerate((40, 50)):
            recording = Path("data") / f"r{number}"
            write_recording(recording, walk(length, names(), number), names())
            (recording / "annotations.csv").write_text(
                f"behavior,start_time,end_time\nrun,0,{10 / 30}\nrest,{20 / 30},{25 / 30}\n"
            )
        words = ["--window_offset=3", "--epochs=1", "--task_ids=cons,multiclass", "--run_id=a"]
        main(["train_model", *TINY, *words, "--annot_format=csv_events", "data"])
        main(["export_embedder", "models/a"])
        main(["compute_embeddings", "data", "models/a-embedder"])
        main(["annotate_behavior", "data", "models/a"])
        yield folder


def table(name: str) -> np.ndarray:
    return pd.read_csv(name, index_col=0).to_numpy()


def test_embeddings_are_those_of_the_command(place):
    model = lisbet.load_model("models/a", device="cpu")
    found = model.embed("data")
    assert list(found) == ["r0", "r1"]
    for record_id, values in found.items():
        assert values.dims == ("time", "embedding")
        csv = table(f"embeddings/{record_id}/features_lisbet_embedding.csv")
        np.testing.assert_allclose(values, csv, rtol=1e-6, atol=1e-7)
    exported = lisbet.load_model("models/a-embedder", device="cpu")
    np.testing.assert_array_equal(exported.embed("data")["r1"], found["r1"])


def test_a_dataset_in_memory_gives_what_its_file_gives(place):
    model = lisbet.load_model(CONFIG, WEIGHTS, device="cpu")
    whole = xr.open_dataset("data/r0/tracking.nc").load()
    expected = model.embed("data", data_filter="r0")["r0"]
    position = whole["position"]
    for data in (whole, position.assign_attrs(whole.attrs),
                 position.transpose("space", "time", "individuals", "keypoints")):  # fmt: skip
        found = model.embed(data, fps=30.0)
        np.testing.assert_array_equal(found, expected)
    other_order = whole.isel(keypoints=[2, 0, 1], individuals=[1, 0])
    np.testing.assert_array_equal(model.embed(other_order), expected)


def test_recordings_that_were_opened_are_not_prepared_again(place):
    model = lisbet.load_model("models/a", device="cpu")
    opened = lisbet.data.open("data", data_scale="minmax")
    expected = model.embed("data")
    for name, recording in opened.items():
        np.testing.assert_array_equal(model.embed(recording), expected[name])
        np.testing.assert_array_equal(model.embed(recording["position"]), expected[name])
    part = model.embed(opened["r0"].isel(time=slice(0, 10)))  # not scaled by the range of this part
    np.testing.assert_allclose(part[0], expected["r0"][0], atol=1e-6)
    again = xr.load_dataset(opened["r0"].to_netcdf())
    np.testing.assert_array_equal(model.embed(again), expected["r0"])
    others = lisbet.data.open("data", data_scale="1000x1000", outside="missing")
    with pytest.raises(DataError, match="another preparation than a was trained with: data_scale"):
        model.embed(others["r0"])
    with pytest.raises(ConfigError, match="data_scale: r0 was prepared by lisbet.data.open"):
        model.embed(opened["r0"], data_scale="minmax")
    with pytest.raises(KeyError, match="no recording 'r9'"):
        opened["r9"]


def test_times_are_in_seconds_where_the_rate_is_known(place):
    model = lisbet.load_model("models/a", device="cpu")
    array = xr.DataArray(
        walk(20, names(), seed=3),
        dims=("time", "individuals", "keypoints", "space"),
        coords={axis: list(own) for axis, own in names().model_dump().items()},
    )
    found = model.embed(array, override_preparation=True)
    assert found["time"].to_numpy().tolist() == list(range(20))
    assert found.attrs["time_unit"] == "frames"
    found = model.embed(array, fps=4, override_preparation=True)
    assert found["time"].to_numpy().tolist() == [frame / 4 for frame in range(20)]


def test_annotations_are_those_of_the_command(place):
    model = lisbet.load_model("models/a", device="cpu")
    found = model.annotate("data")["r1"]
    assert found.dtype == bool
    csv = pd.read_csv("annotations/r1/machineAnnotation_lisbet.csv", index_col=0)
    assert list(found["behavior"].values) == list(csv.columns) == list(model.behaviors())
    np.testing.assert_array_equal(found, csv.to_numpy() == 1)
    likely = model.annotate("data", probabilities=True)["r1"]
    np.testing.assert_allclose(likely.sum("behavior"), 1, rtol=1e-5)
    np.testing.assert_array_equal(likely.argmax("behavior"), found.argmax("behavior"))


def test_what_does_not_fit_is_refused(place):
    model = lisbet.load_model("models/a", device="cpu")
    whole = xr.open_dataset("data/r0/tracking.nc").load()
    with pytest.raises(DataError, match="keypoints are point0, point1 instead of"):
        model.embed(whole.isel(keypoints=[0, 1]))
    with pytest.raises(DataError, match="no variable 'position'"):
        model.embed(whole.drop_vars("position"))
    with pytest.raises(ConfigError, match="not a ndarray"):
        model.embed(whole["position"].to_numpy())  # type: ignore[call-overload]
    with pytest.raises(ConfigError, match="did you mean 'data_scale'"):
        model.embed(whole, data_scal="minmax")
    with pytest.raises(ModelError, match="has no head --task=multilabel"):
        model.annotate(whole, task="multilabel")


def test_a_model_is_found_by_its_folder(place, monkeypatch):
    last = (Path(CONFIG), Path(WEIGHTS))
    assert locate.model_files(Path("models/a")) == last
    assert locate.model_files(Path(CONFIG)) == last
    assert locate.model_files(Path("models/a"), Path("models/a/weights")) == last
    with pytest.raises(ModelError, match=r"the models in models are a, a-embedder"):
        lisbet.load_model("models")
    with pytest.raises(ModelError, match=r"models/b: no such model; the models in models are"):
        lisbet.load_model("models/b")
    asked = []
    monkeypatch.setattr(
        "huggingface_hub.snapshot_download", lambda name, **_: asked.append(name) or "models/a"
    )
    assert locate.model_files(Path("lab/mice")) == last
    assert asked == ["lab/mice"]


def test_weights_that_are_not_the_last_must_be_named_if_there_are_several(place, tmp_path):
    folder = tmp_path / "m"
    (folder / "weights").mkdir(parents=True)
    (folder / "model_config.yml").write_bytes(Path(CONFIG).read_bytes())
    (folder / "weights/best.pt").write_bytes(Path(WEIGHTS).read_bytes())
    assert locate.model_files(folder)[1] == folder / "weights/best.pt"
    (folder / "weights/other.pt").write_bytes(Path(WEIGHTS).read_bytes())
    with pytest.raises(ModelError, match=r"best\.pt, other\.pt; name one"):
        locate.model_files(folder)


def test_open_gives_prepared_recordings(place):
    recordings = lisbet.data.open("data", annot_format="csv_events")
    assert list(recordings) == ["r0", "r1"]
    raw = xr.open_dataset("data/r0/tracking.nc")["position"]
    raw = raw.transpose("time", "individuals", "keypoints", "space").to_numpy()
    low, high = (getattr(np, f"nan{name}")(raw, axis=(0, 1, 2)) for name in ("min", "max"))
    found = recordings["r0"]["position"]
    assert found.dims == ("time", "individuals", "keypoints", "space")
    np.testing.assert_allclose(found, (raw - low) / (high - low), rtol=1e-5, atol=1e-6)
    assert recordings["r0"]["behavior"].shape == (40, len(recordings.behaviors))
    with pytest.raises(ConfigError, match="did you mean 'annot_format'"):
        lisbet.data.open("data", annot_formt="movement")


def test_windows_are_those_of_each_frame(place):
    recordings = lisbet.data.open("data", annot_format="csv_events")
    windows = recordings.windows(window_size=5, window_offset=2)
    assert len(windows) == 90
    padded = np.pad(np.nan_to_num(recordings["r1"]["position"].to_numpy()), [(2, 2), *[(0, 0)] * 3])
    for frame in (0, 1, 25, 49):  # the window of frame f holds frames f-2 … f+2
        window, active = windows[40 + frame]
        np.testing.assert_array_equal(window, padded[frame : frame + 5].reshape(5, -1))
        np.testing.assert_array_equal(active, recordings["r1"]["behavior"][frame])
    loader = torch.utils.data.DataLoader(windows, batch_size=32)
    sizes = [tuple(batch.shape) for batch, _ in loader]
    assert sizes == [(32, 5, 12), (32, 5, 12), (26, 5, 12)]
    with pytest.raises(IndexError, match="window 90 of 90"):
        windows[90]


def test_training_is_that_of_the_command_and_leaves_the_process_as_it_was(
    place, capsys, monkeypatch
):
    monkeypatch.setattr("lisbet.training.train.warn_of_other_runs", lambda _: None)
    settings = {word[2:].partition("=")[0]: word.partition("=")[2] for word in TINY}
    settings |= {"warmup_epochs": 0, "epochs": 1}
    main(["train_model", *TINY, "--warmup_epochs=0", "--epochs=1", "--run_id=command", "data"])
    capsys.readouterr()
    torch.manual_seed(5)
    before, variables = torch.rand(1), dict(os.environ)
    torch.manual_seed(5)
    model = lisbet.train("data", **(settings | {"run_id": "function"}))
    assert capsys.readouterr() == ("", "")
    assert torch.rand(1) == before
    assert dict(os.environ) == variables
    expected = torch.load("models/command/weights/weights_last.pt", weights_only=True)
    assert model.name == "function"
    for key, value in model.network.state_dict().items():
        assert torch.equal(value, expected[key]), key
    lisbet.train(
        "data", **(settings | {"epochs": 1, "run_id": "rounded", "mixed_precision": "bf16"})
    )
    with pytest.raises(ConfigError, match="lisbet.train trains in this process"):
        lisbet.train("data", launch="ddp")


def test_coordinates_are_not_rounded_in_bfloat16():
    """A shift of 1/512 of the arena is below the resolution of bfloat16 above 0.5."""
    layer = torch.nn.Linear(12, 4)
    still = torch.full((1, 1, 12), 0.75)
    with torch.autocast("cpu", torch.bfloat16):
        rounded = [layer(windows) for windows in (still, still + 1 / 512)]
        exact = [unrounded(layer, windows) for windows in (still, still + 1 / 512)]
    assert torch.equal(*rounded)
    expected = layer.weight.sum(1) / 512
    torch.testing.assert_close((exact[1] - exact[0])[0, 0], expected, rtol=1e-3, atol=1e-6)
