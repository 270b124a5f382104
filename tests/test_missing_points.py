"""Points that trackers did not find: at the origin, of low confidence, for a few frames."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from conftest import names, walk, write_recording

from lisbet.cli import main
from lisbet.core.config import Dataset
from lisbet.core.errors import DataError
from lisbet.data.load import load_records
from lisbet.data.preparation.gaps import without_gaps
from lisbet.data.record import Record, from_dataset
from lisbet.options import DataOptions


def load(path, data_format="movement", **options):
    return load_records(Dataset(path=path, format=data_format), DataOptions(**options))


def dataset(position, confidence=None, features=None) -> xr.Dataset:
    """A movement dataset in memory; position (frames, individuals, keypoints, space)."""
    features = features or names(*position.shape[1:])
    variables = {"position": (("time", "individuals", "keypoints", "space"), position)}
    if confidence is not None:
        variables["confidence"] = (("time", "individuals", "keypoints"), confidence)
    return xr.Dataset(variables, coords={k: list(v) for k, v in features})


def read(position, confidence=None) -> Record:
    return from_dataset("r", Path("tracking.nc"), dataset(position, confidence))


def write_with_confidence(folder, position, confidence):
    file = write_recording(folder, position, names())
    whole = xr.load_dataset(file)
    variable = (("time", "individuals", "keypoints"), confidence)
    whole.assign(confidence=variable).to_netcdf(file)
    return file


# At the origin ----------------------------------------------------------------------------------


def test_a_deeplabcut_table_with_points_at_the_origin(tmp_path, capsys):
    """Multi-animal DeepLabCut writes points that it did not find as 0, 0 with likelihood 0."""
    columns, values, tracks = [], [], 181.577 + walk(12, names(), 0)
    for i, individual in enumerate(names().individuals):
        for k, keypoint in enumerate(names().keypoints):
            likelihood = np.full(12, 0.9)
            if (i, k) == (0, 1):
                tracks[:4, i, k], likelihood[:4] = 0, 0
            columns += [("net", individual, keypoint, c) for c in ("x", "y", "likelihood")]
            values += [*tracks[:, i, k].T, likelihood]
    levels = ["scorer", "individuals", "bodyparts", "coords"]
    table = pd.DataFrame(
        np.array(values).T, columns=pd.MultiIndex.from_tuples(columns, names=levels)
    )
    (tmp_path / "r").mkdir()
    table.to_csv(tmp_path / "r" / "videoDLC_resnet50_projectshuffle1_100.csv")
    (record,) = load(tmp_path, "dlc")
    assert record.missing == 4 / 72
    assert np.isnan(record.position[:4, 0, 1]).all()
    assert "4 points at the origin taken for missing" in record.steps[0]
    main(["dataset_info", "--data_format=dlc", str(tmp_path)])
    said = capsys.readouterr().out
    assert f"x from {tracks[tracks[..., 0] > 0][..., 0].min():.5g} to" in said
    assert "confidence:  5.6% of the points are below 0.6; --min_confidence: none" in said


@pytest.mark.parametrize(
    ("others", "confidence", "missing"),
    [
        ("decimals", None, True),
        ("decimals", 0.0, True),
        ("decimals", 0.7, True),  # a tracker that found it would not write whole numbers
        ("whole", 0.0, True),
        ("whole", 0.7, False),
        ("whole", None, False),
    ],
)
def test_points_at_the_origin(others, confidence, missing):
    position = walk(9, names(), 1)
    position = position if others == "decimals" else position.round()
    position[2, 1, 0] = 0
    position[3, 1, 0, 0] = 0  # on the edge of the video, which is no sign
    rated = None if confidence is None else np.full(position.shape[:3], 0.9)
    if rated is not None:
        rated[2, 1, 0] = confidence
    found = read(position, rated).position
    assert np.isnan(found[2, 1, 0]).all() == missing
    assert np.isnan(found).any(-1).sum() == missing


def test_points_at_the_origin_in_three_dimensions_and_on_one_axis():
    position = walk(9, names(space=3), 1)
    position[2, 1, 0] = 0
    position[3, 1, 0, :2] = 0
    assert np.isnan(read(position).position).any(-1).sum() == 1
    line = walk(9, names(space=1), 1)
    line[2, 1, 0] = 0
    assert not np.isnan(read(line).position).any(), "on one axis, 0 is a place like others"


def test_real_points_at_the_origin(real):
    """The excerpt that deepof publishes has NaN and no zeros: it is read as before."""
    (record,) = load(real / "mouse_social_defeat_dlc", "dlc")
    assert record.digest.startswith("52a600ec18db")
    (record,) = load(real / "mouse_pair_nc_netcdf4")
    assert record.digest.startswith("efcd47364cc6")


# Confidence -------------------------------------------------------------------------------------


def test_points_of_low_confidence_are_missing(tmp_path, capsys):
    rng = np.random.default_rng(0)
    tracks, confidence = walk(50, names(), 0), rng.uniform(0, 1, (50, 2, 3))
    confidence[4, 1, 2], confidence[5, 1, 2] = 0.6, np.nan
    write_with_confidence(tmp_path / "r", tracks, confidence)
    (record,) = load(tmp_path, min_confidence=0.6, data_scale="100x100",
                     select_coords="mouse1;*;point2,point0")  # fmt: skip
    low = ~(confidence[:, 1:, [2, 0]] >= 0.6)
    np.testing.assert_array_equal(np.isnan(record.position).all(-1), low)
    np.testing.assert_allclose(record.position[~low], tracks[:, 1:, [2, 0]][~low] / 100, atol=1e-7)
    count = (~(confidence >= 0.6)).sum()
    assert record.steps[0] == f"{count} points of confidence below 0.6 taken for missing"
    assert not np.isnan(load(tmp_path)[0].position).any(), "all are used by default"
    main(["dataset_info", "--min_confidence=0.5", str(tmp_path)])
    said = capsys.readouterr().out
    share = (confidence < 0.6).sum() / confidence.size
    assert f"{share:.1%} of the points are below 0.6; --min_confidence: 0.5" in said
    lack = (~(confidence >= 0.5)).mean(0)
    assert f"point2  {lack[0, 2]:6.1%}  {lack[1, 2]:6.1%}" in said


@pytest.mark.parametrize("confidence", [None, np.nan])
def test_files_without_confidence(tmp_path, confidence):
    if confidence is None:
        write_recording(tmp_path / "r", walk(9, names(), 0), names())
    else:  # as movement writes it for trackers that do not tell
        write_with_confidence(tmp_path / "r", walk(9, names(), 0), np.full((9, 2, 3), confidence))
    assert load(tmp_path)[0].missing == 0
    with pytest.raises(DataError, match=r"r: --min_confidence=0.6 needs the confidence"):
        load(tmp_path, min_confidence=0.6)


def test_no_point_of_enough_confidence(tmp_path):
    write_with_confidence(tmp_path / "r", walk(9, names(), 0), np.full((9, 2, 3), 0.3))
    with pytest.raises(DataError, match="every point has a confidence below 0.6"):
        load(tmp_path, min_confidence=0.6)


@pytest.mark.parametrize("text", ["-0.1", "1.1", "nan", "high"])
def test_confidences_that_cannot_be(tmp_path, capsys, text):
    with pytest.raises(SystemExit) as caught:
        main(["dataset_info", f"--min_confidence={text}", str(tmp_path)])
    assert caught.value.code == 2
    assert "--min_confidence" in capsys.readouterr().err


# Gaps -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("max_gap", [1, 3, 50])
def test_gaps_are_interpolated_as_pandas_would(seed, max_gap):
    rng = np.random.default_rng(seed)
    position = walk(40, names(), seed)
    position[rng.random(position.shape[:3]) < 0.4] = np.nan
    position[:, 0, 0] = np.nan  # never there
    position[:30, 0, 1] = np.nan
    filled = without_gaps(Record.in_memory("r", position, names()), max_gap).position
    for individual in range(2):
        for keypoint in range(3):
            column = pd.Series(position[:, individual, keypoint, 1])
            expected = column.interpolate(limit_area="inside")
            runs = column.isna().groupby(column.notna().cumsum()).transform("sum")
            expected[column.isna() & (runs > max_gap)] = np.nan
            np.testing.assert_allclose(filled[:, individual, keypoint, 1], expected, atol=1e-9)
    assert (np.isnan(filled[..., 0]) == np.isnan(filled[..., 1])).all()


def test_gaps_stay_by_default_and_are_filled_after_all_that_makes_points_missing(tmp_path):
    tracks, confidence = walk(20, names(), 0), np.ones((20, 2, 3))
    confidence[4, 0, 0] = 0.1
    tracks[8, 1, 1] = 0  # not found
    tracks[12, 1, 1] = (150, 50)  # outside of the video
    tracks[0, 0, 2] = np.nan
    write_with_confidence(tmp_path / "r", tracks, confidence)
    options = {"data_scale": "100x100", "outside": "missing", "min_confidence": 0.5}
    assert load(tmp_path, **options)[0].missing == 4 / 120
    (record,) = load(tmp_path, max_gap=1, **options)
    assert record.missing == 1 / 120, "the first frame has nothing before it"
    for frame, individual, keypoint in ((4, 0, 0), (8, 1, 1), (12, 1, 1)):
        around = tracks[[frame - 1, frame + 1], individual, keypoint].mean(0) / 100
        np.testing.assert_allclose(record.position[frame, individual, keypoint], around, atol=1e-6)
    assert "3 points interpolated, in gaps of at most 1 frames" in record.steps


def test_prepared_stores_refuse_these_options(tmp_path, capsys):
    write_recording(tmp_path / "data" / "r", walk(9, names(), 0), names())
    main(["convert_dataset", "--workers=1", "--max_gap=2", str(tmp_path / "data"),
          str(tmp_path / "data.zarr")])  # fmt: skip
    for word in ("--min_confidence=0.5", "--max_gap=2", "--time_gaps=missing"):
        with pytest.raises(SystemExit) as caught:
            main(["dataset_info", "--data_format=zarr", word, str(tmp_path / "data.zarr")])
        assert caught.value.code == 2
        assert f"{word.partition('=')[0]} cannot apply" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["convert_dataset", "--append", "--workers=1", str(tmp_path / "data"),
              str(tmp_path / "data.zarr")])  # fmt: skip
    assert "--max_gap: was 2, is 0" in capsys.readouterr().err
