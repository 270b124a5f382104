"""DeepLabCut tables of every layout: what pandas wrote is read back by the names of the columns."""

import random

import h5py
import numpy as np
import pandas as pd
import pytest

from lisbet.core.config import Dataset
from lisbet.core.errors import DataError
from lisbet.data.files.sources import find_sources as found
from lisbet.data.load import load_records
from lisbet.data.read import read_one
from lisbet.data.readers import READERS
from lisbet.options import DataOptions

LEVELS = ["scorer", "individuals", "bodyparts", "coords"]
NAME = "videoDLC_resnet50_projectshuffle1_100.csv"


def frame_of(columns, values, index=None):
    """A table as DeepLabCut makes it; columns are (individual, body part, coordinate)."""
    multi = any(individual is not None for individual, _, _ in columns)
    labels = [("net", *(c if multi else c[1:])) for c in columns]
    names = LEVELS if multi else [LEVELS[0], *LEVELS[2:]]
    index = range(len(values)) if index is None else index
    return pd.DataFrame(values, columns=pd.MultiIndex.from_tuples(labels, names=names), index=index)


def simple(rows=5, index=None):
    """A table of one individual with nose and tail, (rows, 6)."""
    columns = [(None, part, c) for part in ("nose", "tail") for c in ("x", "y", "likelihood")]
    values = np.random.default_rng(rows).uniform(0, 100, (rows, 6)).round(3)
    return frame_of(columns, values, index)


def written(folder, text, name=NAME):
    folder.mkdir(parents=True, exist_ok=True)
    raw = text if isinstance(text, bytes) else text.encode()
    (folder / name).write_bytes(raw)
    return folder / name


def dataset_of(file):
    return READERS["dlc"].read([file])


def refusal(file):
    with pytest.raises(DataError) as caught:
        dataset_of(file)
    return str(caught.value)


def check_equal(dataset, frame):
    """Compare each point of a dataset with its columns in the table, and the others with NaN."""
    frame = frame.reindex(range(int(frame.index[-1]) + 1))
    for individual in dataset["individuals"].values.tolist():
        for part in dataset["keypoints"].values.tolist():
            own = dataset.sel(individuals=individual, keypoints=part)
            for axis, array in (
                *((axis, own["position"].sel(space=axis)) for axis in ("x", "y")),
                ("likelihood", own["confidence"]),
            ):
                key = ("net", individual, part, axis)
                key = key if frame.columns.nlevels == 4 else (key[0], *key[2:])
                expected = frame[key] if key in frame.columns else np.full(len(frame), np.nan)
                np.testing.assert_array_equal(array.values, expected)


SEPARATORS = [
    {"sep": ","}, {"sep": ";", "decimal": ","}, {"sep": "\t"}, {"sep": ";"},
    {"sep": ",", "lineterminator": "\r\n"}, {"sep": ",", "quoting": 1},
    {"sep": ",", "decimal": ",", "quoting": 1},
]  # fmt: skip


def layout(rng):
    """A random table: individuals, body parts, columns in any order, some left out."""
    individuals = rng.sample(["m1", "m2", "single", "Été", "a b"], rng.randint(1, 4))
    if rng.random() < 0.2:
        individuals = [None]
    parts = rng.sample(["nose", "tail", "ear_L", "ear R", "back"], rng.randint(1, 5))
    points = [(i, p) for i in individuals for p in parts]
    points = rng.sample(points, rng.randint(1, len(points)))  # others have no columns
    columns = []
    for point in points:
        columns += [(*point, c) for c in ("x", "y")]
        columns += [(*point, "likelihood")] * (rng.random() < 0.8)
    how = rng.choice(["as written", "interleaved", "sorted"])
    if how == "interleaved":
        rng.shuffle(columns)
    elif how == "sorted":
        columns.sort(key=str)
    rows = rng.randint(1, 30)
    index = sorted(rng.sample(range(60), rows)) if rng.random() < 0.4 else None
    values = np.array([[rng.uniform(-50, 2000) for _ in columns] for _ in range(rows)])
    values[np.array([[rng.random() < 0.1 for _ in columns] for _ in range(rows)])] = np.nan
    return frame_of(columns, values, index)


@pytest.mark.parametrize("seed", range(60))
def test_any_layout_is_read_back(seed, tmp_path):
    rng = random.Random(seed)
    frame = layout(rng)
    encoding = rng.choice(["utf-8", "utf-8-sig", "utf-16", "cp1252"])
    file = written(tmp_path, frame.to_csv(**rng.choice(SEPARATORS)).encode(encoding))
    check_equal(dataset_of(file), frame)
    head = READERS["dlc"].head([file])
    whole = dataset_of(file)
    assert head["individuals"].equals(whole["individuals"])
    assert head["keypoints"].equals(whole["keypoints"])


@pytest.mark.parametrize("format", ["table", "fixed"])
@pytest.mark.parametrize("seed", range(8))
def test_any_layout_is_read_back_from_hdf5(seed, format, tmp_path):
    frame = layout(random.Random(seed))
    file = tmp_path / "videoDLC_resnet50_projectshuffle1_100.h5"
    frame.to_hdf(file, key="df_with_missing", format=format, mode="w")
    check_equal(dataset_of(file), frame)
    (record,) = load_records(Dataset(path=tmp_path, format="auto"), DataOptions())
    assert record.frames == frame.index[-1] + 1


def test_columns_of_different_types_in_hdf5(tmp_path):
    frame = simple()
    for number, name in enumerate(frame.columns):
        frame[name] = frame[name].astype("float32" if number % 2 else "float64")
    frame.to_hdf(tmp_path / "a.h5", key="tracks", format="table", mode="w")
    check_equal(dataset_of(tmp_path / "a.h5"), frame)


def test_hdf5_cannot_run_code(tmp_path):
    import pickle

    file = tmp_path / "a.h5"
    simple().to_hdf(file, key="df_with_missing", format="table", mode="w")
    with h5py.File(file, "r+") as root:
        harm = pickle.dumps(print, protocol=0)
        root["df_with_missing"].attrs["non_index_axes"] = np.bytes_(harm)
    assert "cannot be read safely" in refusal(file)


# The right values of reported files --------------------------------------------------------------


def test_unique_body_parts_belong_to_the_individual_single(tmp_path):
    text = (
        "scorer" + ",net" * 12 + "\nindividuals" + ",mouse" * 6 + ",single" * 6
        + "\nbodyparts,nose,nose,nose,tail,tail,tail,anteriorC,anteriorC,anteriorC,"
        "posteriorC,posteriorC,posteriorC\ncoords" + ",x,y,likelihood" * 4 + "\n"
        "0,100.001,100.299,0.99,119.726,119.109,0.99,139.545,139.008,0.99,160.06,161.34,0.99\n"
        "1,99.509,99.678,0.99,120.216,119.466,0.99,139.651,138.078,0.99,160.031,162.036,0.99\n"
        "2,98.165,99.221,0.99,118.314,118.177,0.99,137.809,137.843,0.99,158.763,162.307,0.99\n"
        "3,98.322,99.034,0.99,115.798,117.638,0.99,137.761,137.956,0.99,157.233,161.829,0.99\n"
    )  # fmt: skip
    position = dataset_of(written(tmp_path, text))["position"]
    for individual, part, frame, x, y in (
        ("mouse", "nose", 2, 98.165, 99.221), ("mouse", "tail", 3, 115.798, 117.638),
        ("single", "anteriorC", 0, 139.545, 139.008), ("single", "posteriorC", 1, 160.031, 162.036),
    ):  # fmt: skip
        own = position.sel(individuals=individual, keypoints=part, time=frame)
        assert own.values.tolist() == [x, y]
    assert np.isnan(position.values).mean() == 0.5
    assert position.sizes["time"] == 4


@pytest.mark.parametrize(
    ("index", "missing"), [([4, 5, 6, 7, 8, 9], [0, 1, 2, 3]), ([0, 1, 2, 7, 8, 9], [3, 4, 5, 6])]
)
def test_frame_numbers_count(tmp_path, index, missing):
    frame = simple(6, index)
    position = dataset_of(written(tmp_path, frame.to_csv()))["position"]
    assert position.sizes["time"] == 10
    lost = np.isnan(position.values).all(axis=(1, 2, 3))
    assert np.flatnonzero(lost).tolist() == missing
    np.testing.assert_array_equal(position.values[index, 0, 0, 0], frame.iloc[:, 0])


@pytest.mark.parametrize(
    ("index", "message"),
    [
        ([0, 1, 1, 2, 3], "after frame 1 comes frame 1"),
        ([0, 2, 1, 3, 4], "after frame 2 comes frame 1"),
        ([-1, 0, 1, 2, 3], "holds -1.0; expected the number of the frame"),
        ([0, 1, 2.5, 3, 4], "holds 2.5"),
        ([0, 1, 2, 3, 1_000_000], "5 rows, but the last one is frame 1000000"),
    ],
)
def test_frame_numbers_that_cannot_be(tmp_path, index, message):
    assert message in refusal(written(tmp_path, simple(5, index).to_csv()))


# Tables that were cut off or edited ---------------------------------------------------------------


@pytest.mark.parametrize("cut", [1, 8, 20, 30])
def test_a_table_cut_off_in_its_last_line(tmp_path, cut):
    text = simple().to_csv()
    last = text.rstrip("\n").rsplit("\n", 1)[1]
    shorter = text[: -len(last) - 1] + last[: max(len(last) - cut, 3)].rstrip("0123456789")
    assert "line 8" in refusal(written(tmp_path, shorter))


def test_a_table_without_the_last_end_of_line_is_read_with_a_warning(tmp_path, caplog):
    frame = simple()
    check_equal(dataset_of(written(tmp_path, frame.to_csv().rstrip("\n"))), frame)
    assert "line 8 has no end of line" in caplog.text


def test_blank_rows_and_trailing_commas_of_a_spreadsheet(tmp_path):
    frame = simple()
    lines = frame.to_csv().splitlines()
    text = "\r\n".join([lines[0] + ",,", *[line + ",," for line in lines[1:]], ",,,,,,,,", "", ""])
    check_equal(dataset_of(written(tmp_path, text)), frame)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.replace("\n2,", "\n2,abc"), "line 6, column nose x, holds 'abc"),
        (lambda t: t.replace("\n2,", "\n2,1,"), "line 6 has 8 cells; expected 7"),
        (lambda t: t.replace("\n2,", "\n,"), "line 6, the frame number, holds ''"),
        (lambda t: t.replace("bodyparts,nose,", "bodyparts,,"), "column 2 has no name"),
        (lambda t: t.replace("likelihood,x", "x,x", 1), "two columns nose x"),
        (lambda t: t.replace("coords,x,y", "coords,x,z"), "no column nose y"),
        (lambda t: t.replace("coords,", "other,"), "no header row coords"),
        (lambda t: t.split("\n", 3)[3], "begins with '0,"),
        (lambda t: t.replace("\n2,", "\n2,1_0"), "holds '1_0"),
    ],
)
def test_tables_that_cannot_be_read(tmp_path, change, message):
    said = refusal(written(tmp_path, change(simple().to_csv())))
    assert message in said
    assert said.startswith(NAME)


def test_a_third_axis_and_columns_of_other_programs(tmp_path):
    columns = [(None, "nose", c) for c in ("x", "x_ens_var", "y", "z", "likelihood")]
    file = written(tmp_path, frame_of(columns, np.arange(10.0).reshape(2, 5)).to_csv())
    dataset = dataset_of(file)
    assert dataset["space"].values.tolist() == ["x", "y", "z"]
    assert dataset["position"].values[1].ravel().tolist() == [5, 7, 8]


def test_the_bad_one_of_several_files_is_named(tmp_path):
    written(tmp_path / "r", simple().to_csv(), "black_tracking.csv")
    written(tmp_path / "r", simple().to_csv()[:-30], "white_tracking.csv")
    dataset = Dataset(path=tmp_path, format="dlc")
    (source,) = found(dataset)
    assert str(read_one(source, dataset, DataOptions())).startswith("white_tracking.csv: line 8")
