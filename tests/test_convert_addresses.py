"""convert_dataset to addresses: foreign keys survive, and no failure loses a store."""

import errno
import gc
import json
import os
from contextlib import suppress
from pathlib import Path

import fsspec
import pytest
import zarr
from conversion import NEW, OLD, chosen, convert, lengths, make_place, refused
from fsspec.implementations.memory import MemoryFileSystem

from lisbet.core.errors import DataError
from lisbet.data.zarr import remote, store, writer
from lisbet.data.zarr.store import Store

# Zarr leaves coroutines of other keys behind when one fails.
pytestmark = [
    pytest.mark.filterwarnings("ignore:coroutine .* was never awaited:RuntimeWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


@pytest.fixture
def place(tmp_path, monkeypatch) -> Path:
    return make_place(tmp_path, monkeypatch)


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
    yield FailingFileSystem.store
    gc.collect()  # here, where their warnings are ignored


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
        with monkeypatch.context() as patched:
            if stores and "lab/t.zarr" not in stores:
                patched.setattr(writer, "read_all", lambda *more: pytest.fail("read again"))
            convert(TARGET, *filter(None, [words]))
        assert complete_stores(objects) == {"lab/t.zarr": NEW}, point
        assert foreign_keys(objects) == theirs
        assert {key.split("/")[2] for key in objects} <= {
            "t.zarr", "t.zarr2", "t.zarr.partial", "t.zarr.partial-mine"
        }, point  # fmt: skip


@pytest.mark.parametrize("gone", [False, True], ids=["once", "from then on"])
def test_a_failure_while_an_earlier_one_is_finished(gone, objects, capsys, monkeypatch):
    """The complete copy beside the address is used, not thrown away, also if that fails again."""
    convert(TARGET, data="./--overwrite")
    with monkeypatch.context() as patched:
        patched.setattr(FailingFileSystem, "cp_file", lambda *words, **more: 1 / 0)
        assert "The complete new store is at" in refused(capsys, TARGET, "--overwrite")
    [copy] = complete_stores(objects)
    with pytest.raises(DataError, match=f"a complete copy is at failing://{copy}. Give the same"):
        Store.open(Path(TARGET))
    monkeypatch.setattr(writer, "read_all", lambda *more: pytest.fail("recordings were read"))
    before = {key: value.getvalue() for key, value in objects.items()}
    files, _ = fsspec.core.url_to_fs(TARGET)
    FailingFileSystem.calls = 0
    convert(TARGET, "--overwrite")
    assert complete_stores(objects) == {"lab/t.zarr": NEW}
    for point in chosen(FailingFileSystem.calls, 15):
        objects.clear()
        for key, value in before.items():
            files.pipe_file(key, value)
        FailingFileSystem.point, FailingFileSystem.gone, FailingFileSystem.calls = point, gone, 0
        with suppress(SystemExit):
            convert(TARGET, "--overwrite")
        FailingFileSystem.point = 0
        stores = complete_stores(objects)
        assert stores, point
        assert all(found == NEW for found in stores.values())
        convert(TARGET)
        assert complete_stores(objects) == {"lab/t.zarr": NEW}, point
        assert {key.split("/")[2] for key in objects} == {"t.zarr"}


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
