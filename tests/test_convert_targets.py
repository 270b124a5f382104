"""Targets of convert_dataset: only our own files are replaced, and no failure loses a store."""

import errno
import json
import os
import shutil
from pathlib import Path

import fsspec
import numpy as np
import pytest
import zarr
from conftest import names, walk, write_dataset, write_recording
from fsspec.implementations.memory import MemoryFileSystem

from lisbet.cli import main
from lisbet.config import Dataset
from lisbet.core import address, folders
from lisbet.core.address import parse_data_path
from lisbet.core.files import write_text
from lisbet.core.write_log import LOG
from lisbet.data import destination, remote, store, writer
from lisbet.data.load import load_records
from lisbet.data.store import Store
from lisbet.errors import ConfigError, DataError
from lisbet.options import DataOptions

ALL = bool(os.environ.get("LISBET_ALL_CRASHES"))
"""Take every point of failure; without it, the suite takes some, spread over all."""
NEW = [30, 25, 20]
"""Frames of the recordings of a store."""
OLD = {"--append": [30, 25], "--overwrite": [25, 40]}
"""Frames of those of an earlier store, which is added to, or replaced by one of other frames."""


@pytest.fixture
def place(tmp_path, monkeypatch) -> Path:
    write_dataset(tmp_path / "data", NEW)
    write_dataset(tmp_path / "--overwrite", OLD["--overwrite"])
    for name in ("r0", "r1"):
        shutil.copytree(tmp_path / "data" / name, tmp_path / "--append" / name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(store.new_arrays, "__kwdefaults__",
                        {"shard_bytes": 1024, "chunk_bytes": 1024})  # fmt: skip
    return tmp_path


def convert(target: object, *words: str, data: str = "data") -> None:
    main(["convert_dataset", "--workers=1", *words, data, str(target)])


def refused(capsys, target: object, *words: str, data: str = "data") -> str:
    capsys.readouterr()
    with pytest.raises(SystemExit) as caught:
        convert(target, *words, data=data)
    assert caught.value.code == 2
    said = capsys.readouterr().err
    assert said.count("betman: error") == 1, said
    assert "Traceback" not in said
    return said


def lengths(path: object) -> list[int] | None:
    """Frames of the recordings of a store, all of which can be read; None if there is none."""
    dataset = Dataset(path=Path(str(path)), format="zarr")
    try:
        records = load_records(dataset, DataOptions())
    except DataError:
        return None
    for number, record in enumerate(records):
        expected = walk(record.frames, names(), number)
        low, high = (f(expected, axis=(0, 1, 2)) for f in (np.min, np.max))
        np.testing.assert_allclose(
            np.asarray(record.position), (expected - low) / (high - low), atol=1e-5
        )
    return [record.frames for record in records]


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


def chosen(count: int, most: int) -> range:
    """Return the numbers of the calls that are to fail, of so many."""
    return range(1, count + 1, 1 if ALL else max(1, -(-count // most)))


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
    folders: ("rename_new", "exchange", "move_foreign", "remove_own", "_remove_tree", "sync_tree"),
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
    assert "an interrupted conversion goes on" in capsys.readouterr().err
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


# Addresses ----------------------------------------------------------------------------------------


class FailingFileSystem(MemoryFileSystem):
    """An object store in memory that fails at a call, or from that call on."""

    protocol = "failing"
    store: dict = {}  # noqa: RUF012
    pseudo_dirs = [""]  # noqa: RUF012
    point, gone, calls = 0, False, 0

    @classmethod
    def _strip_protocol(cls, path):
        path = path.removeprefix("failing://").strip("/")
        return f"/{path}" if path else ""

    @classmethod
    def call(cls):
        cls.calls += 1
        if cls.point and (cls.calls >= cls.point if cls.gone else cls.calls == cls.point):
            raise OSError(errno.EIO, "the object store is away")

    def pipe_file(self, path, value, mode="overwrite", **more):
        self.call()
        return super().pipe_file(path, value, mode=mode, **more)

    def rm_file(self, path):
        self.call()
        return super().rm_file(path)

    def cp_file(self, one, other, **more):
        self.call()
        return super().cp_file(one, other, **more)

    def cat_file(self, path, **more):
        self.call()
        return super().cat_file(path, **more)

    def find(self, path, *more, **named):
        self.call()
        return super().find(path, *more, **named)


@pytest.fixture
def objects(place):
    """The keys of an object store that can fail."""
    fsspec.register_implementation("failing", FailingFileSystem, clobber=True)
    FailingFileSystem.store.clear()
    FailingFileSystem.point = 0
    return FailingFileSystem.store


TARGET = "failing://lab/t.zarr"


def foreign(objects) -> None:
    """Put keys of somebody else below and beside the prefix."""
    files, _ = fsspec.core.url_to_fs(TARGET)
    for name in ("t.zarr/notes.txt", "t.zarr/position/c/notes", "t.zarr/recording/notes.txt",
                 "t.zarr/mine/zarr.json", "t.zarr.partial-mine/zarr.json", "t.zarr2/a",
                 "t.zarr.partial"):  # fmt: skip
        files.pipe_file(f"/lab/{name}", b"{}")


def foreign_keys(objects) -> int:
    return sum(value.getvalue() == b"{}" for value in objects.values())


def test_a_prefix_of_somebody_else_is_refused(objects, capsys):
    """Everything below it was deleted, without --overwrite."""
    for name in ("a.csv", "recording/c/0"):
        objects.clear()
        files, _ = fsspec.core.url_to_fs(TARGET)
        files.pipe_file(f"/lab/t.zarr/{name}", b"theirs")
        for words in ([], ["--overwrite"], ["--append"]):
            assert f"it holds {name}. Nothing is" in refused(capsys, TARGET, *words)
        assert list(objects) == [f"/lab/t.zarr/{name}"]
    objects.clear()
    zarr.create_group(TARGET, zarr_format=3)
    assert "it holds zarr.json" in refused(capsys, TARGET, "--overwrite")
    assert list(objects) == ["/lab/t.zarr/zarr.json"]


@pytest.mark.parametrize("words", ["--overwrite", "--append"])
def test_foreign_keys_survive(words, objects):
    convert(TARGET, data=f"./{words}")
    foreign(objects)
    count = foreign_keys(objects)
    convert(TARGET, words)
    assert lengths(TARGET) == NEW
    assert foreign_keys(objects) == count == 7
    assert {key.split("/")[2] for key in objects} == {
        "t.zarr", "t.zarr2", "t.zarr.partial", "t.zarr.partial-mine"
    }  # fmt: skip


def complete_stores(objects) -> dict[str, list[int] | None]:
    prefixes = {"/".join(key.split("/")[1:3]) for key in objects if "/t.zarr" in key}
    return {prefix: found for prefix in prefixes
            if (found := lengths(f"failing://{prefix}")) is not None}  # fmt: skip


# Zarr leaves coroutines of other keys behind when one fails.
@pytest.mark.filterwarnings("ignore:coroutine .* was never awaited:RuntimeWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("gone", [False, True], ids=["once", "from then on"])
@pytest.mark.parametrize("words", ["", "--overwrite", "--append"])
def test_a_failure_at_any_call_leaves_a_complete_store(words, gone, objects, capsys, monkeypatch):
    """And the same command finishes; keys of somebody else stay."""
    if words:
        convert(TARGET, data=f"./{words}")
        foreign(objects)
    before = {key: value.getvalue() for key, value in objects.items()}
    files, _ = fsspec.core.url_to_fs(TARGET)
    FailingFileSystem.calls = 0
    convert(TARGET, *filter(None, [words]))
    count = FailingFileSystem.calls
    assert count > 20
    for point in chosen(count, 12):
        objects.clear()
        for key, value in before.items():
            files.pipe_file(key, value)
        theirs = foreign_keys(objects)
        FailingFileSystem.point, FailingFileSystem.gone, FailingFileSystem.calls = point, gone, 0
        capsys.readouterr()
        failed = 0
        try:
            convert(TARGET, *filter(None, [words]))
        except SystemExit as end:
            failed = end.code
            assert end.code == 2
        FailingFileSystem.point = 0
        said = capsys.readouterr().err
        assert "Traceback" not in said
        stores = complete_stores(objects)
        if not failed:
            assert stores["lab/t.zarr"] == NEW
        if words:
            assert stores, (point, said)
        if words == "--append":
            assert stores == {"lab/t.zarr": stores["lab/t.zarr"]}
            assert stores["lab/t.zarr"] in (OLD[words], NEW)
        for prefix in set(stores) - {"lab/t.zarr"}:
            if "lab/t.zarr" not in stores:
                assert f"The complete new store is at failing://{prefix}" in said, (point, said)
        convert(TARGET, *filter(None, [words]))
        assert complete_stores(objects) == {"lab/t.zarr": NEW}, point
        assert foreign_keys(objects) == theirs
        assert {key.split("/")[2] for key in objects} <= {
            "t.zarr", "t.zarr2", "t.zarr.partial", "t.zarr.partial-mine"
        }, point  # fmt: skip


@pytest.mark.parametrize("words", ["", "--overwrite", "--append"])
def test_two_conversions_to_one_address(words, objects, capsys, monkeypatch):
    """The second is refused if the first can be seen; else one of them stops."""
    if words:
        convert(TARGET, data=f"./{words}")
    said = []

    def second(self, real=writer.Writer._write_shard):
        if not said:
            said.append("")
            said.append(refused(capsys, TARGET, *filter(None, [words])))
            monkeypatch.setattr(remote, "has_ended", lambda holder: None)  # another machine
            convert(TARGET, *filter(None, [words]))
        real(self)

    monkeypatch.setattr(writer.Writer, "_write_shard", second)
    last = refused(capsys, TARGET, *filter(None, [words]))
    assert f"is being written by process {os.getpid()} on" in said[1]
    assert "was taken over by" in last or "was written by another process meanwhile" in last
    assert complete_stores(objects)["lab/t.zarr"] == NEW


def test_a_bad_recording_leaves_an_address_as_it_was(objects, capsys):
    for words in ("", "--overwrite", "--append"):
        if words:
            convert(TARGET, data=f"./{words}")
        before = {key: value.getvalue() for key, value in objects.items()}
        bad = Path("data/r2/tracking.nc")
        content = bad.read_bytes()
        bad.write_bytes(b"nothing")
        assert "r2: tracking.nc cannot be read" in refused(capsys, TARGET, *filter(None, [words]))
        now = {key: value.getvalue() for key, value in objects.items()}
        bad.write_bytes(content)
        assert {key: now.get(key) for key in before if key != "/lab/t.zarr/zarr.json"} == {
            key: value for key, value in before.items() if key != "/lab/t.zarr/zarr.json"
        }  # fmt: skip
        assert now.keys() == before.keys()
        assert complete_stores(objects) == ({"lab/t.zarr": OLD[words]} if words else {})
        objects.clear()


def test_the_mark_of_an_unfinished_store(objects, capsys, monkeypatch):
    """It is there first, and what is unfinished cannot be trained on."""
    seen = []

    def look(self, real=writer.Writer._write_shard):
        seen.append(json.loads(objects["/lab/t.zarr/zarr.json"].getvalue())["attributes"])
        with pytest.raises(DataError, match="is not complete"):
            Store.open(Path(TARGET))
        real(self)

    monkeypatch.setattr(writer.Writer, "_write_shard", look)
    convert(TARGET)
    assert seen[0]["format"] == store.UNFINISHED
    assert seen[0]["process"]["pid"] == os.getpid()
    assert "process" not in Store.open(Path(TARGET)).group.attrs


def test_recordings_are_added_often(place):
    """The table of recordings grows in chunks; readers of the old one find theirs."""
    convert("t.zarr", data="./--append")
    for number in range(2, 5):
        write_recording(Path("--append") / f"r{number}", walk(20, names(), number), names())
        convert("t.zarr", "--append", data="./--append")
    assert lengths("t.zarr") == [30, 25, 20, 20, 20]
