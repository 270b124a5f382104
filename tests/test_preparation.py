"""A model remembers how its recordings were prepared, and others are prepared like them."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import reference
import torch
import yaml
from conftest import TINY, names, walk, write_dataset, write_recording

from lisbet.cli import main
from lisbet.core.errors import ConfigError
from lisbet.core.option_values import Selection
from lisbet.data.preparation.compatibility import distinct_rates, merged
from lisbet.models import model_dir
from lisbet.models.heads import EmbeddingHeadConfig
from lisbet.models.multitask import ModelConfig, MultiTaskModel
from lisbet.options import EmbeddingOptions
from lisbet.options._preparation import PREPARATION, printed, with_preparation

TABLE = "embeddings/{}/features_lisbet_embedding.csv"
TRAIN = ["train_model", *TINY, "--task_ids=warp", "--epochs=1", "--train_sample=1e-6"]


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def refused(capsys):
    def refused(*words: object) -> str:
        capsys.readouterr()
        with pytest.raises(SystemExit) as caught:
            main([str(word) for word in words])
        said = capsys.readouterr().err
        assert caught.value.code == 2, said
        return said

    return refused


def files(run_id: str) -> list[str]:
    return [f"models/{run_id}/model_config.yml", f"models/{run_id}/weights/weights_last.pt"]


def make_embedder(model_id: str, preparation: dict[str, object] | None, seed: int = 0) -> list[str]:
    """Write a model directory as export_embedder does, with random weights."""
    config = ModelConfig(
        model_id=model_id,
        backbone={"type": "transformer", "feature_dim": 12, "embedding_dim": 4, "hidden_dim": 8,
                  "num_heads": 1, "num_layers": 1, "max_length": 10},
        input_features=names(),
        out_heads={"embedding": EmbeddingHeadConfig(output_token_idx=-1)},
        window_size=10,
        window_offset=0,
        preparation=preparation,
    )  # fmt: skip
    paths = files(model_id)
    Path(paths[1]).parent.mkdir(parents=True)
    torch.manual_seed(seed)
    torch.save(MultiTaskModel(config).state_dict(), paths[1])
    text = yaml.safe_dump(config.model_dump(mode="json", exclude_defaults=True))
    Path(paths[0]).write_text(text)
    return paths


def embed(model: list[str], *words: str, data: str = "data", out: str = ".") -> np.ndarray:
    """The embeddings of all recordings, one below the other."""
    main(["compute_embeddings", *words, data, *model, f"--output_path={out}"])
    tables = sorted(Path(out).glob(TABLE.format("*")))
    return np.concatenate([pd.read_csv(file, index_col=0).to_numpy() for file in tables])


def expected(model: list[str], positions: list[np.ndarray]) -> np.ndarray:
    """The embeddings of prepared tracks, each frame by itself; a missing point is 0."""
    config, network = model_dir.load_model(*map(Path, model))
    windows = np.concatenate([
        np.stack([
            reference.window(np.nan_to_num(position.astype(np.float32)), frame,
                             config.window_size, config.window_offset)
            for frame in range(len(position))
        ])
        for position in positions
    ])  # fmt: skip
    with torch.no_grad():
        return network({"embedding": torch.from_numpy(windows)})["embedding"].numpy()


# Training -----------------------------------------------------------------------------------------


def test_recordings_are_prepared_as_in_training(refused):
    tracks = [walk(length, names(), length) for length in (40, 30)]
    tracks[0][5, 0, 0] = 150, 20  # outside the video
    for number, position in enumerate(tracks):
        write_recording(Path(f"data/r{number}"), position, names())
    given = ["--data_scale=120x100", "--outside=missing", "--select_coords=*;x,y;*"]
    main([*TRAIN, *given, "--run_id=a", "data"])
    main(["export_embedder", *files("a")])
    for run_id in ("a", "a-embedder"):
        config = yaml.safe_load(Path(files(run_id)[0]).read_text())
        assert config["preparation"] == {
            "data_scale": "120x100", "outside": "missing", "select_coords": "*;x,y;*", "fps": 30.0
        }  # fmt: skip
    model = files("a-embedder")
    without = embed(model, out="without")
    tracks[0][5, 0, 0] = np.nan
    right = expected(model, [position / [120, 100] for position in tracks])
    np.testing.assert_allclose(without, right, atol=1e-5)
    assert np.array_equal(embed(model, *given, out="with"), without)
    for word, both in (
        ("--data_scale=minmax", ("minmax", "120x100")),
        ("--data_scale=200x200", ("200x200", "120x100")),
        ("--outside=error", ("error", "missing")),
        ("--select_coords=*;y,x;*", ("*;y,x;*", "*;x,y;*")),
        ("--fps_scaling=2", ("fps_scaling=2", "30")),
    ):
        said = refused("compute_embeddings", word, "data", *model, "--output_path=no")
        assert all(part in said for part in both), said
        assert "--override_preparation" in said
    assert not Path("no").exists()
    forced = embed(model, "--data_scale=200x200", "--override_preparation", out="forced")
    tracks[0][5, 0, 0] = 150, 20  # which lies in a video of this size
    right = expected(model, [position / 200 for position in tracks])
    np.testing.assert_allclose(forced, right, atol=1e-5)


def test_annotations_and_evaluations_are_prepared_as_in_training(refused):
    write_dataset(Path("data"), [40, 40])
    for number in range(2):
        text = "behavior,start_time,end_time\ndig,0.2,0.6\n"
        Path(f"data/r{number}/annotations.csv").write_text(text)
    annotated = "--annot_format=csv-events"
    main(["train_model", *TINY, "--task_ids=multilabel", "--epochs=1", annotated, "--run_id=a",
          "--train_sample=1e-6", "--data_scale=300x300", "data"])  # fmt: skip
    for out, given in (("without", []), ("with", ["--data_scale=300x300"])):
        main(["annotate_behavior", *given, "data", *files("a"), f"--output_path={out}"])
        main(["evaluate_model", annotated, *given, "data", *files("a"), f"--output_path={out}"])
    for name in ("annotations/r0/machineAnnotation_lisbet.csv",
                 "evaluations/a/evaluation_report.yml", "annotations/model.yml"):  # fmt: skip
        assert Path("without", name).read_bytes() == Path("with", name).read_bytes()
    for words in (["annotate_behavior"], ["evaluate_model", annotated]):
        said = refused(*words, "--data_scale=minmax", "data", *files("a"), "--output_path=no")
        assert "minmax" in said
        assert "300x300" in said
    assert not Path("no").exists()


def test_converted_recordings_tell_how_they_were_prepared(refused):
    write_dataset(Path("data"), [40, 30])
    for scale in ("120x100", "300x300"):
        main(["convert_dataset", "--workers=1", f"--data_scale={scale}", "data", f"{scale}.zarr"])
    main([*TRAIN, "--data_format=zarr", "--run_id=a", "120x100.zarr"])
    main(["export_embedder", *files("a")])
    model = files("a-embedder")
    config = yaml.safe_load(Path(model[0]).read_text())
    assert config["preparation"] == {"data_scale": "120x100", "fps": 30.0}
    from_files = embed(model, out="files")
    stored = embed(model, "--data_format=zarr", data="120x100.zarr", out="store")
    assert np.array_equal(from_files, stored)
    said = refused("compute_embeddings", "--data_format=zarr", "300x300.zarr", *model)
    assert "300x300 instead of 120x100" in said
    assert not Path("embeddings").exists()
    embed(model, "--data_format=zarr", "--override_preparation", data="300x300.zarr")


# What is applied ----------------------------------------------------------------------------------


def test_a_model_that_does_not_state_its_preparation():
    write_dataset(Path("data"), [20])
    model = make_embedder("published", None)
    assert "preparation" not in Path(model[0]).read_text()
    position = walk(20, names(), 0)
    for words, prepared in (
        (["--data_scale=120x100"], position / [120, 100]),
        ([], (position - position.min((0, 1, 2))) / np.ptp(position, axis=(0, 1, 2))),
    ):
        found = embed(model, *words, out="_".join(words) or "none")
        np.testing.assert_allclose(found, expected(model, [prepared]), atol=1e-5)


def test_the_range_of_each_recording_also_where_the_file_states_a_size():
    position = walk(20, names(), 0)
    write_recording(Path("data/r0"), position, names(), image_size_px=[120, 100])
    model = make_embedder("a", {"data_scale": "minmax"})
    prepared = (position - position.min((0, 1, 2))) / np.ptp(position, axis=(0, 1, 2))
    np.testing.assert_allclose(embed(model), expected(model, [prepared]), atol=1e-5)


def test_the_size_that_each_file_states(refused):
    position = walk(20, names(), 0)
    write_recording(Path("data/r0"), position, names(), image_size_px=[120, 100])
    model = make_embedder("a", {"data_scale": "image_size_px"})
    right = expected(model, [position / [120, 100]])
    np.testing.assert_allclose(embed(model), right, atol=1e-5)
    write_recording(Path("silent/r0"), position, names())
    said = refused("compute_embeddings", "silent", *model, "--output_path=no")
    assert "r0: the file does not state the size" in said
    given = embed(model, "--data_scale=120x100", data="silent", out="given")
    np.testing.assert_allclose(given, right, atol=1e-5)
    assert "minmax" in refused("compute_embeddings", "--data_scale=minmax", "data", *model,
                               "--output_path=no")  # fmt: skip


def test_a_store_of_recordings_that_state_their_size(refused):
    for name, side in (("same", 100), ("other", 90)):
        write_recording(Path(f"{name}/r0"), walk(20, names(), 0) * 0.8, names(),
                        image_size_px=[120, side])  # fmt: skip
        main(["convert_dataset", "--workers=1", name, f"{name}.zarr"])
    model = make_embedder("a", {"data_scale": "120x100"})
    stored = embed(model, "--data_format=zarr", data="same.zarr")
    assert np.array_equal(stored, embed(model, data="same", out="files"))
    said = refused("compute_embeddings", "--data_format=zarr", "other.zarr", *model,
                   "--output_path=no")  # fmt: skip
    assert "120x90 instead of 120x100" in said
    states = make_embedder("b", {"data_scale": "image_size_px"})
    embed(states, "--data_format=zarr", data="other.zarr", out="b")


def test_two_datasets_of_one_run():
    for number, rate in enumerate((30, 60)):
        write_dataset(Path(f"d{number}"), [40])
        main(["convert_dataset", "--workers=1", f"--data_scale={rate * 10}x300", f"d{number}",
              f"d{number}.zarr"])  # fmt: skip
    main([*TRAIN, "--data_format=zarr", "--run_id=a", "d0.zarr,d1.zarr"])
    config = yaml.safe_load(Path(files("a")[0]).read_text())
    assert config["preparation"] == {"data_scale": ["300x300", "600x300"], "fps": 30.0}


def test_datasets_that_were_prepared_differently():
    parts = [
        {"data_scale": ("120x100",), "fps": (30.0,), "rename_coords": ("*;*;a:b",)},
        {"data_scale": ("300x300",), "fps": (29.97, 60.0), "outside": ("missing",)},
    ]
    both = merged(parts)
    assert both == {"data_scale": ("120x100", "300x300"), "outside": ("error", "missing"),
                    "fps": (29.97, 60.0)}  # fmt: skip
    assert merged([parts[0]]) == parts[0]
    given = {"data_path": "data", "model_path": "m.yml", "weights_path": "w.pt"}

    def prepared(**more: str) -> EmbeddingOptions:
        options = EmbeddingOptions(**given, **more)
        return with_preparation(options, both, model_id="a", override=False, converted=False)

    assert str(prepared(data_scale="300x300").data_scale) == "300x300"
    for more in ({}, {"data_scale": "minmax"}):
        with pytest.raises(ConfigError, match="120x100 and 300x300"):
            prepared(**more)


def test_names_that_are_selected_and_given(refused):
    features = names().model_copy(update={"keypoints": ("point0", "point1", "snout")})
    write_recording(Path("data/r0"), walk(20, features, 0), features)
    write_dataset(Path("native"), [20])
    model = make_embedder("a", {"data_scale": "minmax", "rename_coords": "*;*;snout:point2"})
    found = embed(model)
    native = refused("compute_embeddings", "native", *model, "--output_path=no")
    assert "cannot rename keypoints snout" in native
    assert "--rename_coords='*;*;snout:point2'" in native
    again = embed(model, "--rename_coords=*;*;*", "--override_preparation", data="native", out="n")
    assert np.array_equal(found, again)
    plain = make_embedder("b", {"data_scale": "minmax"})  # one that needed no new names
    embed(plain, "--rename_coords=*;*;snout:point2", out="b")


@pytest.mark.parametrize(
    ("trained", "given", "said"),
    [
        ({"fps": 30}, [], None),
        ({"fps": 29.97}, [], None),
        ({"fps": [25, 30]}, [], None),
        ({}, [], None),
        ({"fps": 15}, [], "--fps_scaling=2,"),
        ({"fps": 15}, ["--fps_scaling=2"], None),
        ({"fps": 15}, ["--override_preparation"], None),
        ({"fps": 60, "fps_scaling": 2}, [], "r0 has 30 frames per second (15 with"),
        ({"fps": 60, "fps_scaling": 2}, ["--fps_scaling=1"], None),
        ({"fps": 30, "fps_scaling": 2}, [], None),
        ({}, ["--fps_scaling=2"], "unknown frame rate"),
        ({"max_gap_of_later": 3}, [], "max_gap_of_later"),
        ({"max_gap_of_later": 3}, ["--override_preparation"], None),
    ],
)
def test_frame_rates(trained, given, said, refused):
    write_dataset(Path("data"), [20])  # at 30 frames per second
    model = make_embedder("a", {"data_scale": "minmax", **trained})
    if said is None:
        main(["compute_embeddings", *given, "data", *model])
    else:
        found = refused("compute_embeddings", *given, "data", *model)
        assert said in found
        assert "--override_preparation" in found


def test_rates_that_are_nearly_equal_are_one():
    assert distinct_rates([30.0, None, 29.97, 60.0, 59.94]) == (29.97, 59.94)


@pytest.mark.parametrize(
    "preparation",
    ["text", {"data_scale": "wide"}, {"fps": -1}, {"fps": []}, {"outside": {"a": 1}},
     {"fps_scaling": True}, {"select_coords": "a"}],
)  # fmt: skip
def test_a_preparation_that_cannot_be(preparation, refused):
    write_dataset(Path("data"), [20])
    model = make_embedder("a", None)
    content = yaml.safe_load(Path(model[0]).read_text()) | {"preparation": preparation}
    Path(model[0]).write_text(yaml.safe_dump(content))
    assert "preparation" in refused("compute_embeddings", "data", *model)


def test_options_are_compared_in_one_form():
    assert printed("data_scale", "1024.0X570") == "1024x570"
    assert printed("select_coords", str(Selection.parse(" a , b; x,y ;*"))) == "a,b;x,y;*"
    assert printed("fps", "30") == printed("fps", 30) == 30.0
    assert {"data_scale", "outside", "select_coords", "rename_coords"} <= set(PREPARATION)


def test_model_info_tells_the_preparation(capsys):
    model = make_embedder("a", {"data_scale": "image_size_px", "fps": [25, 30]})
    main(["model_info", model[0]])
    said = capsys.readouterr().out
    assert "each file states" in said
    assert "fps 25.0 and 30.0" in said
