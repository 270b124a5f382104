"""Files and folders are published whole or not at all."""

import os
import subprocess
import sys

import pytest

from lisbet.errors import OutputError
from lisbet.publish import published, published_folder, require_writable


def everything(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def test_a_file_appears_when_it_is_whole(tmp_path):
    place = tmp_path / "deep" / "file"
    with published(place) as beside:
        beside.write_text("new")
        assert not place.exists()
    assert place.read_text() == "new"
    assert everything(tmp_path) == ["deep", "deep/file"]


def test_a_failure_leaves_the_old_file(tmp_path):
    place = tmp_path / "file"
    place.write_text("old")
    with pytest.raises(RuntimeError), published(place) as beside:
        beside.write_text("half")
        raise RuntimeError
    assert place.read_text() == "old"
    assert everything(tmp_path) == ["file"]


def test_a_folder_replaces_another_or_sets_it_aside(tmp_path):
    place = tmp_path / "folder"
    for content in ("one", "two"):
        with published_folder(place) as beside:
            (beside / content).touch()
    assert everything(tmp_path) == ["folder", "folder/two"]
    with published_folder(place, replaced=tmp_path / "aside") as beside:
        (beside / "three").touch()
    assert everything(tmp_path) == ["aside", "aside/two", "folder", "folder/three"]


def test_a_failure_leaves_the_old_folder(tmp_path):
    place = tmp_path / "folder"
    with published_folder(place) as beside:
        (beside / "old").touch()
    with pytest.raises(RuntimeError), published_folder(place) as beside:
        (beside / "half").touch()
        raise RuntimeError
    assert everything(tmp_path) == ["folder", "folder/old"]


def test_folders_are_readable_by_others(tmp_path):
    with published_folder(tmp_path / "folder"):
        pass
    (tmp_path / "plain").mkdir()
    assert (tmp_path / "folder").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_a_place_that_cannot_be_written_is_refused_without_a_trace(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="file/models: .*file.* choose another --output_path"):
        require_writable(tmp_path / "file" / "models")
    require_writable(tmp_path / "new" / "deep")
    assert everything(tmp_path) == ["file"]


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs RLIMIT_FSIZE and /proc")
def test_a_full_disk_is_one_message_and_keeps_the_earlier_file(tmp_path):
    """A file-size limit stands in for the full disk: the write fails in the same place."""
    place = tmp_path / "weights.pt"
    place.write_text("old")
    program = (
        "import resource, signal, sys, torch; from pathlib import Path\n"
        "from lisbet.model_dir import save_weights\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))\n"
        f"save_weights(Path({str(place)!r}), {{'w': torch.zeros(100_000)}})\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode != 0
    assert place.read_text() == "old"
    assert os.listdir(tmp_path) == ["weights.pt"]
