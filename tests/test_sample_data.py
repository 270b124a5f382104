"""The simulation: a dataset like any other, the same every time, with learnable states."""

import numpy as np
import pytest
import xarray as xr

from lisbet.cli import main
from lisbet.core.config import Dataset
from lisbet.data.hub._simulate import ARENA_PX, STATES, simulate
from lisbet.data.labels import LABEL_READERS
from lisbet.data.load import load_records
from lisbet.options import DataOptions


@pytest.fixture(scope="module")
def sample(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sample")
    main(["fetch_dataset", "SampleData", f"--download_path={folder}"])
    return folder / "datasets" / "SampleData"


def test_it_reads_as_twenty_recordings_of_two_mice(sample):
    records = load_records(Dataset(path=sample, format="movement"), DataOptions())
    assert len(records) == 20
    features = records[0].features
    assert features.individuals == ("resident", "intruder")
    assert features.keypoints == (
        "nose", "left_ear", "right_ear", "neck", "left_hip", "right_hip", "tail",
    )  # fmt: skip
    assert {record.fps for record in records} == {30.0}
    assert records[0].steps == ("divided by 1024x570",)
    assert 0.003 < records[0].missing < 0.007


def test_movement_reads_it_too(sample):
    from movement.kinematics import compute_speed

    dataset = xr.load_dataset(sample / "simulated00" / "tracking.nc")
    speed = compute_speed(dataset.position).sel(keypoints="neck").mean() / 30
    assert 2 < speed < 8  # pixels per frame
    assert "simulation" in dataset.attrs["source_software"]


def test_every_state_is_annotated_and_comes_up(sample):
    reader = LABEL_READERS["movement"]
    shares = []
    for folder in sorted(path for path in sample.iterdir() if path.is_dir()):
        (file,) = reader.find(folder)
        labels = reader.read(file, 0, None)
        assert labels.behaviors == STATES
        assert (labels.active.sum(axis=1) == 1).all()
        frames = xr.load_dataset(folder / "tracking.nc").sizes["time"]
        assert len(labels.active) == frames
        shares.append(labels.active.mean(axis=0))
    assert (np.mean(shares, axis=0) > 0.05).all()


def test_the_same_every_time_and_inside_the_arena():
    one, other = simulate([200, 300], 1), simulate([200, 300], 1)
    for first, second in zip(one, other, strict=True):
        np.testing.assert_array_equal(first.position, second.position)
    assert [len(recording.position) for recording in one] == [200, 300]
    for axis, side in enumerate(ARENA_PX):
        values = one[1].position[:, axis]
        assert np.nanmin(values) >= 0
        assert np.nanmax(values) <= side
    assert not np.array_equal(simulate([200], 2)[0].position, simulate([200], 3)[0].position)


def test_the_states_are_what_they_are_called():
    recording = simulate([9000], 4)[0]
    middle = np.nanmean(recording.position, axis=2)  # (frames, axes, individuals)
    distance = np.linalg.norm(middle[..., 0] - middle[..., 1], axis=1)
    by_state = {name: distance[recording.state == n].mean() for n, name in enumerate(STATES)}
    assert by_state["side_by_side"] < by_state["chase"] < by_state["apart"]
    approaches = np.flatnonzero((recording.state[30:] == 0) & (recording.state[:-30] == 0))
    assert (distance[approaches + 30] < distance[approaches]).mean() > 0.8


def test_a_second_call_leaves_it_alone(sample, capsys):
    before = (sample / "simulated00" / "tracking.nc").stat().st_mtime_ns
    main(["fetch_dataset", "SampleData", f"--download_path={sample.parents[1]}"])
    assert (sample / "simulated00" / "tracking.nc").stat().st_mtime_ns == before
    assert "is there already" in capsys.readouterr().err
