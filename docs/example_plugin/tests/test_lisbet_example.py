"""The plug-ins keep their contracts; and the readers return what is in the files."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from lisbet_example import circles, frame_list, long_csv, npz
from lisbet_example.approach import Approach
from lisbet_example.gru import GRU
from lisbet_example.loss_csv import LossCSV
from lisbet_example.mirror import Mirror

from lisbet import contracts
from lisbet.core.errors import DataError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The first recording of the dataset Circles."""
    options = SimpleNamespace(download_path=tmp_path, overwrite=False)
    return circles.write(options) / "circles0"


def test_task():
    contracts.check_task(Approach)


def test_backbone():
    contracts.check_backbone(GRU, num_layers=2)


def test_augmentation():
    contracts.check_augmentation(Mirror, p=0.5)


def test_logger(tmp_path):
    contracts.check_logger(LossCSV, tmp_path)
    assert (tmp_path / "losses.csv").read_text() == "step,train_loss\n1,0.7\n2,0.6\n"


def test_reader_of_recordings(folder):
    record = contracts.check_recording_reader(long_csv.READER, [folder / "tracks_long.csv"])
    assert record.frames == circles.FRAMES
    assert record.position[0, 0, 0].tolist() == [300, 200]  # radius 100 around (200, 200)


def test_a_point_with_two_rows(folder):
    file = folder / "tracks_long.csv"
    file.write_text(file.read_text() + "0,a,nose,1,1\n")
    with pytest.raises(DataError, match="two rows of the same frame"):
        long_csv.READER.read([file])


def test_reader_of_annotations(folder):
    file = folder / "behaviours.txt"
    labels = contracts.check_annotation_reader(frame_list.READER, file, circles.FRAMES, None)
    assert np.flatnonzero(labels.active[:, 0]).tolist() == [*range(40), *range(120, 160)]


def test_reader_of_datasets(tmp_path):
    file = tmp_path / "two.npz"
    position = np.random.default_rng(0).random((2, 5, 2, 3, 2))
    np.savez(file, individuals=["a", "b"], keypoints=["nose", "neck", "tail"], space=["x", "y"],
             first=position[0], second=position[1])  # fmt: skip
    first, second = contracts.check_dataset_reader(npz.READER, file)
    assert first.id == "first"
    np.testing.assert_array_equal(second.position, position[1].astype(np.float32))
