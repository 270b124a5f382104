"""Which recordings are found: by name, through symbolic links, in paths with commas."""

import os
from pathlib import Path

import pytest
from conftest import names, walk, write_recording
from hypothesis import given
from hypothesis import strategies as st

from lisbet.cli import main
from lisbet.cli.commands import COMMANDS
from lisbet.core.config import Dataset
from lisbet.core.errors import DataError
from lisbet.core.option_text import join_paths, split_paths
from lisbet.data.files.sources import find_sources
from lisbet.data.load import load_records
from lisbet.options import DataOptions, TrainOptions


def recording(folder: Path) -> None:
    write_recording(folder, walk(9, names(), 0), names())


def found(path: Path, words: tuple[str, ...] | None = None) -> list[str]:
    return [s.id for s in find_sources(Dataset(path=path, format="movement"), words)]


# --data_filter ----------------------------------------------------------------------------------

IDS = ["day1/mouse1", "day1/mouse10", "day10/mouse2", "mouse1", "mouse1/left", "train_mouse1"]


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    top = tmp_path_factory.mktemp("tree")
    for record_id in IDS:
        recording(top / record_id)
    return top


@pytest.mark.parametrize(
    ("words", "ids"),
    [
        ("mouse1", ["day1/mouse1", "mouse1", "mouse1/left"]),
        ("day1", ["day1/mouse1", "day1/mouse10"]),
        ("day1/mouse1", ["day1/mouse1"]),
        ("mouse10,left", ["day1/mouse10", "mouse1/left"]),
        ("mouse?", ["day1/mouse1", "day10/mouse2", "mouse1", "mouse1/left"]),
        ("mouse[2-9]", ["day10/mouse2"]),
        ("day*/mouse1", ["day1/mouse1"]),
        ("*_mouse1", ["train_mouse1"]),
        ("*mouse1*", [record_id for record_id in IDS if "mouse1" in record_id]),
        ("*1*", IDS),
    ],
)
def test_whole_names_and_patterns(tree, words, ids):
    options = DataOptions(data_filter=words)
    records = load_records(Dataset(path=tree, format="movement"), options)
    assert [record.id for record in records] == ids


@pytest.mark.parametrize("words", ["mouse1", "ouse1", "day1/m", "left,2", "e"])
def test_parts_of_names_as_the_published_tool_has_it(tree, words):
    options = DataOptions(data_filter=words, filter_match="substring")
    records = load_records(Dataset(path=tree, format="movement"), options)
    assert [r.id for r in records] == [
        record_id for record_id in IDS if any(word in record_id for word in words.split(","))
    ]


def test_names_with_the_letters_of_patterns(tmp_path):
    for name in ("m[1]", "m1", "m*", "mm"):
        recording(tmp_path / name)
    assert found(tmp_path, ("m[1]",)) == ["m1", "m[1]"], "a name, and a pattern"
    assert found(tmp_path, DataOptions(data_filter="[1", filter_match="substring").filters) == [
        "m[1]"
    ]


def test_what_to_write_instead_is_said(tree, capsys):
    with pytest.raises(SystemExit) as caught:
        main(["dataset_info", "--data_filter=ouse1", str(tree)])
    assert caught.value.code == 2
    said = capsys.readouterr().err
    assert "none of the 6 recordings" in said
    assert "--filter_match=substring" in said


# Symbolic links ---------------------------------------------------------------------------------


def test_links_to_folders_that_are_used_already(tmp_path, monkeypatch):
    warned = []
    monkeypatch.setattr(
        "lisbet.data.files.folders.log.warning", lambda text, *a: warned.append(text % a)
    )
    for name in ("data/b/one", "data/b/two", "elsewhere/three"):
        recording(tmp_path / name)
    data = tmp_path / "data"
    (data / "a").symlink_to(data / "b")  # sorted before it, and still the folder keeps its name
    (data / "c").symlink_to(data / "b" / "one")
    (data / "d").symlink_to(tmp_path / "elsewhere")
    (data / "e").symlink_to(tmp_path / "elsewhere" / "three")
    assert found(data) == ["b/one", "b/two", "d/three"]
    left_out = [text.split(" is left out")[0] for text in warned]
    assert left_out == [str(data / "a"), str(data / "c"), str(data / "e")]


def test_links_to_each_other_end(tmp_path):
    for name in ("a", "b"):
        recording(tmp_path / name)
    (tmp_path / "a" / "other").symlink_to(tmp_path / "b")
    (tmp_path / "b" / "other").symlink_to(tmp_path / "a")
    assert found(tmp_path) == ["a", "b"]
    (tmp_path / "outside").mkdir()
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    assert found(tmp_path) == ["a", "b"], "a link to itself is no folder"


def test_a_file_that_is_linked_into_two_recordings(tmp_path):
    for name in ("a", "b"):
        recording(tmp_path / name)
    (tmp_path / "b" / "tracking.nc").unlink()
    (tmp_path / "b" / "tracking.nc").symlink_to(tmp_path / "a" / "tracking.nc")
    with pytest.raises(DataError, match="the recordings a and b have the same tracking file"):
        found(tmp_path)
    assert found(tmp_path, ("b",)) == ["b"], "one of them may be a link"


def test_a_folder_that_cannot_be_read_is_named(tmp_path, monkeypatch):
    warned = []
    monkeypatch.setattr(
        "lisbet.data.files.folders.log.warning", lambda text, *a: warned.append(text % a)
    )
    recording(tmp_path / "a")
    (tmp_path / "lost+found").mkdir()
    scan = os.scandir

    def refusing(path):
        if Path(path).name == "lost+found":
            raise PermissionError(13, "Permission denied")
        return scan(path)

    monkeypatch.setattr("lisbet.data.files.folders.os.scandir", refusing)
    assert found(tmp_path) == ["a"]
    assert warned == [
        f"{tmp_path / 'lost+found'} is left out: it cannot be read (Permission denied)"
    ]


# Commas in paths --------------------------------------------------------------------------------

NAME = st.text(st.sampled_from("ab,\\. /"), min_size=1).filter(lambda t: t == t.strip())


@given(paths=st.lists(NAME, min_size=1, max_size=4))
def test_paths_read_back(paths):
    assert split_paths(join_paths(paths)) == tuple(paths)


@pytest.mark.parametrize(
    ("text", "paths"),
    [
        (r"mice,rats", ("mice", "rats")),
        (r"mice\, young,rats", ("mice, young", "rats")),
        (r"C:\mice,rats\x", (r"C:\mice", r"rats\x")),
        (r"a\\,b", ("a\\", "b")),
        (r"a\\\,b", ("a\\,b",)),
        ("a\\", ("a\\",)),
    ],
)
def test_commas_and_backslashes(text, paths):
    assert split_paths(text) == paths


def test_an_empty_path_in_a_list():
    with pytest.raises(ValueError, match="an item is empty"):
        split_paths("mice,,rats")


def test_data_with_a_comma_in_its_name(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for name in ("mice, young", "old"):
        recording(tmp_path / name / "r")
    with pytest.raises(SystemExit) as caught:
        main(["train_model", "--task_ids=order", "mice, young"])
    assert caught.value.code == 2
    assert r"write it as 'mice\, young', in quotes" in capsys.readouterr().err
    check = COMMANDS["train_model"].check
    options = check({"task_ids": "order", "data_path": r"mice\, young,old"})
    assert isinstance(options, TrainOptions)
    assert [dataset.path for dataset in options.datasets] == [Path("mice, young"), Path("old")]
    written = options.model_dump(mode="json")["data_path"]
    assert written == r"mice\, young,old"
    assert check({"task_ids": "order", "data_path": written}) == options


def test_the_script_of_a_job_names_data_with_a_comma(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for name in ("r0", "r1"):
        recording(tmp_path / "mice, young" / name)
    main(["slurm_script", "--task_ids=order", "--run_id=a", r"mice\, young"])
    assert r"'mice\, young'" in capsys.readouterr().out
