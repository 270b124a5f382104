"""Targets of convert_dataset: only our own files are replaced, and no failure loses a store."""

import errno
import os
import shutil
from pathlib import Path

import pytest
import zarr
from conftest import names, walk, write_recording
from conversion import NEW, OLD, chosen, convert, lengths, make_place, refused

from lisbet.cli import main
from lisbet.core import address
from lisbet.core.address import parse_data_path
from lisbet.core.config import Dataset
from lisbet.core.errors import ConfigError
from lisbet.core.storage import folders
from lisbet.core.storage.files import write_text
from lisbet.core.storage.write_log import LOG
from lisbet.data.zarr import destination, writer


@pytest.fixture
def place(tmp_path, monkeypatch) -> Path:
    return make_place(tmp_path, monkeypatch)


def everything(*ignored: str) -> dict[str, tuple]:
    """All files, folders and links here, with content and identity."""
    found: dict[str, tuple] = {}
    for path in sorted(Path().rglob("*")):
        name = path.as_posix()
        if path.is_symlink():
            found[name] = ("link", os.readlink(path))
        elif path.is_file():
            found[name] = ("file", path.read_bytes(), path.stat().st_ino)
        elif path.is_dir():
            found[name] = ("folder", path.stat().st_ino)
    return {name: value for name, value in found.items() if not name.startswith(ignored or "\0")}


# Targets that are refused -----------------------------------------------------------------------


def make_target(what: str) -> str:
    """Put something in the way; return the target to write to."""
    Path("theirs").mkdir()
    Path("theirs/video.avi").write_text("theirs")
    target = "t.zarr"
    links = {"link": "theirs", "dangling link": "nothing", "link loop": "t.zarr",
             "link to a store": "old.zarr"}  # fmt: skip
    if what in links:
        Path(target).symlink_to(links[what])
        if what == "link to a store":
            convert("old.zarr")
    elif what == "file":
        Path(target).write_text("theirs")
    elif what == "fifo":
        os.mkfifo(target)
    elif what == "empty folder":
        Path(target).mkdir()
    elif what == "foreign Zarr group":
        zarr.create_group(target, zarr_format=3)
    elif what == "foreign folder":
        return "theirs"
    elif what == "somebody's hidden folder":
        Path(".t.zarr.partial").mkdir()
        Path(".t.zarr.partial/notes").write_text("theirs")
        return ".t.zarr.partial"
    elif what == "behind a link to the source":
        Path("other").symlink_to("data")
        return "other/t.zarr"
    elif what == "in a linked recording":
        os.rename("data/r1", "theirs/r1")
        Path("data/r1").symlink_to("../theirs/r1")
        return "theirs/r1/t.zarr"
    elif what == "parent is a file":
        return "theirs/video.avi/t.zarr"
    elif what == "long name":
        return "t" * 300
    return {
        "empty string": "", "current folder": ".", "its absolute path": str(Path.cwd()),
        "above it": "..", "root": "/", "data/..": "data/..", "source": "data",
        "source with a slash": "data/", "in the source": "data/t.zarr",
        "in a recording": "data/r1/t.zarr", "newline": "a\nb", "address as file": "file://data",
        "other machine": "file://server/data", "unknown scheme": "s4://lab/t.zarr",
        "chained": "simplecache::s3://lab/t.zarr",
    }.get(what, target)  # fmt: skip


@pytest.mark.parametrize("words", [[], ["--overwrite"], ["--append"]], ids=str)
@pytest.mark.parametrize("what", [
    "empty string", "current folder", "its absolute path", "above it", "root", "data/..", "source",
    "source with a slash", "in the source", "in a recording", "in a linked recording",
    "behind a link to the source", "link", "dangling link", "link loop", "link to a store", "file",
    "fifo", "empty folder", "foreign Zarr group", "foreign folder", "somebody's hidden folder",
    "parent is a file", "long name", "newline", "address as file", "other machine",
    "unknown scheme", "chained",
])  # fmt: skip
def test_a_target_is_refused_before_any_work(what, words, place, capsys, monkeypatch):
    target = make_target(what)
    before = everything()
    monkeypatch.setattr(writer, "read_all", lambda *more: pytest.fail("recordings were read"))
    refused(capsys, target, *words)
    assert everything() == before


def test_a_store_that_holds_the_recordings_stays(place, capsys):
    """With --overwrite it was removed before they were read."""
    convert("t.zarr")
    os.rename("data", "t.zarr/data")
    before = everything()
    said = refused(capsys, "t.zarr", "--overwrite", data="t.zarr/data")
    assert "the target t.zarr is a folder that the recordings in t.zarr/data lie in" in said
    assert everything() == before


def test_an_address_of_a_local_file_is_its_path(place):
    """It lost its first slash, and everything below it was deleted."""
    here = Path.cwd()
    for text in (f"file://{here}/a.zarr", f"file:{here}/b.zarr", f"file://localhost{here}/c.zarr",
                 f"FILE://{here}/d.zarr", f"local://{here}/e.zarr"):  # fmt: skip
        assert parse_data_path(text).parent == here
    convert(f"file://{here}/t.zarr")
    assert lengths(Path("t.zarr")) == NEW
    main(["dataset_info", "--data_format=zarr", f"file://{here}/t.zarr"])
    assert Dataset(path=f"file://{here}/t.zarr", format="zarr").path == here / "t.zarr"
    assert sorted(os.listdir()) == ["--append", "--overwrite", "data", "t.zarr"]


def test_addresses():
    assert address.place_of(parse_data_path("S3://lab/m.zarr")) == "s3://lab/m.zarr"
    assert parse_data_path(parse_data_path("s3://lab/m.zarr")) == Path("s3:/lab/m.zarr")
    assert parse_data_path("C:/mice") == Path("C:/mice")
    for text, said in {
        "s4://lab/m": "'s4' is no kind of address", "file://data/m": "'data'",
        "s3://lab/../m": "'..'", "": "empty", "a\0b": "NUL", "a::s3://b": "chained",
    }.items():  # fmt: skip
        with pytest.raises(ConfigError, match=said):
            parse_data_path(text)


# What is not ours in the folder of a store --------------------------------------------------------


def make_old(words: str, target: str = "t.zarr", *, log: bool = True) -> dict[str, str]:
    """Write an earlier store, with files of its owner; return these."""
    convert(target, data=f"./{words}")
    own = {"notes.txt": "mine", ".git/objects/ab": "mine", "position/thesis.tex": "mine"}
    for name, text in own.items():
        path = Path(target, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    if not log:
        Path(target, LOG).unlink()  # as version 0.1 left it
    return own


def kept(target: str, own: dict[str, str]) -> bool:
    return all(Path(target, name).is_file() for name in own)


@pytest.mark.parametrize("log", [True, False], ids=["", "of version 0.1"])
@pytest.mark.parametrize("words", ["--overwrite", "--append"])
def test_what_is_not_ours_survives(words, log, place):
    own = make_old(words, log=log)
    Path(".t.zarr.partial").mkdir()  # somebody's
    Path(".t.zarr.journal").write_text("theirs")
    before = everything("t.zarr")
    convert("t.zarr", words)
    assert lengths("t.zarr") == NEW
    assert kept("t.zarr", own)
    assert everything("t.zarr") == before
    ours = {name for name in everything() if name.startswith("t.zarr/") and Path(name).is_file()}
    convert("t.zarr", "--overwrite")
    again = {name for name in everything() if name.startswith("t.zarr/") and Path(name).is_file()}
    assert again == ours


def test_a_store_of_version_01_that_results_were_written_to(place):
    make_old("--overwrite", log=False)
    write_text(Path("t.zarr/plot.svg"), "plot")  # begins a log of another kind
    convert("t.zarr", "--overwrite")
    assert lengths("t.zarr") == NEW


def test_folders_on_the_way_are_made(place):
    convert("new/deep/t.zarr")
    assert lengths("new/deep/t.zarr") == NEW
    assert os.listdir("new/deep") == ["t.zarr"]


def test_a_damaged_store_is_replaced(place, capsys):
    convert("t.zarr")
    Path("t.zarr/start/c/0").write_bytes(b"xx")
    assert "is damaged" in refused(capsys, "t.zarr")
    Path("t.zarr/zarr.json").write_text("{")
    convert("t.zarr", "--overwrite")
    assert lengths("t.zarr") == NEW
    assert sorted(p.name for p in Path("t.zarr").iterdir() if ".kept" in p.name) == [
        "zarr.json.kept1"  # changed since it was written: it may be somebody's
    ]


# Failures, local ----------------------------------------------------------------------------------


class KilledError(BaseException):
    """Stands for SIGKILL: from then on, no patched call does anything."""


STEPS = {
    folders: ("rename_new", "exchange", "move_foreign", "remove_own", "remove_tree", "sync_tree"),
    destination: ("new_folder", "copy_files", "publish_folder", "remove_unfinished", "adopt",
                  "note_own_files", "write_metadata", "recover"),
    writer: ("write_table",), writer.Writer: ("_write_shard",),
    destination.Journal: ("note", "remove"),
}  # fmt: skip


def patched_steps(monkeypatch, point: int) -> list[str]:
    """Let everything fail from the call number `point` on; return the list of calls."""
    calls: list[str] = []
    for owner, steps in STEPS.items():
        for name in steps:
            real = getattr(owner, name)

            def step(*more, real=real, name=name, **named):
                calls.append(name)
                if len(calls) >= point:
                    raise KilledError(name)
                return real(*more, **named)

            monkeypatch.setattr(owner, name, step)
    return calls


@pytest.mark.parametrize("words", ["--overwrite", "--append"])
@pytest.mark.parametrize("way", ["exchange", "two renames"])
def test_a_kill_at_any_step_loses_nothing(way, words, place, monkeypatch):
    """After it there is a complete store under the name, or after the next start of anything."""
    if way == "two renames":
        monkeypatch.setattr(folders, "exchange", lambda one, other: False)
    own = make_old(words)
    os.rename("t.zarr", "kept")
    shutil.copytree("kept", "t.zarr")
    with monkeypatch.context() as patched:
        steps = patched_steps(patched, 10**6)
        convert("t.zarr", words)
    assert len(steps) > 15
    for point in chosen(len(steps), 8):
        shutil.rmtree("t.zarr")
        shutil.copytree("kept", "t.zarr")
        with monkeypatch.context() as patched:
            patched_steps(patched, point)
            with pytest.raises(KilledError):
                convert("t.zarr", words)
        if way == "exchange":
            assert lengths("t.zarr") in (OLD[words], NEW), point
        convert("t.zarr", words)
        assert lengths("t.zarr") == NEW, point
        assert kept("t.zarr", own), point
        assert sorted(os.listdir()) == ["--append", "--overwrite", "data", "kept", "t.zarr"], point


FULL = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("error", [FULL, KeyboardInterrupt()], ids=["full disk", "interrupt"])
def test_an_error_in_the_middle_keeps_what_can_be_continued(error, place, monkeypatch, capsys):
    own = make_old("--overwrite")
    before = everything()
    real, calls = zarr.Array.__setitem__, []

    def fail(array, *more):
        calls.append(1)
        if len(calls) == 2:
            raise error
        real(array, *more)

    with monkeypatch.context() as patched:
        patched.setattr(zarr.Array, "__setitem__", fail)
        with pytest.raises(SystemExit):
            convert("t.zarr", "--overwrite")
    assert everything(".t.zarr") == before
    said = capsys.readouterr().err
    assert "frames of t.zarr are saved; the same command continues from there" in said
    convert("t.zarr", "--overwrite")
    assert "resuming an interrupted conversion" in capsys.readouterr().err
    assert lengths("t.zarr") == NEW
    assert kept("t.zarr", own)
    assert sorted(os.listdir()) == ["--append", "--overwrite", "data", "t.zarr"]


def test_a_second_conversion_is_told_who_writes(place, capsys, monkeypatch):
    """Both exited with 0, and the store could not be read."""
    said = []

    def meanwhile(self, real=writer.Writer._write_shard):
        if not said:
            said.append(refused(capsys, "t.zarr"))
        real(self)

    monkeypatch.setattr(writer.Writer, "_write_shard", meanwhile)
    convert("t.zarr")
    assert f"t.zarr is being written by process {os.getpid()} on" in said[0]
    assert lengths("t.zarr") == NEW


def test_recordings_are_added_often(place):
    """The table of recordings grows in chunks; readers of the old one find theirs."""
    convert("t.zarr", data="./--append")
    for number in range(2, 5):
        write_recording(Path("--append") / f"r{number}", walk(20, names(), number), names())
        convert("t.zarr", "--append", data="./--append")
    assert lengths("t.zarr") == [30, 25, 20, 20, 20]
