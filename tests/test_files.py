"""Files and folders are written whole or not at all, and only over what this program wrote."""

import errno
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lisbet.core.errors import OutputError
from lisbet.core.storage import folders as folders_module
from lisbet.core.storage import lock as lock_module
from lisbet.core.storage import rename
from lisbet.core.storage.files import (
    append_text,
    claim,
    copy_files,
    remove_file,
    require_writable,
    rewrite_text,
    write_file,
    write_text,
)
from lisbet.core.storage.folders import (
    kept,
    new_folder,
    publish_folder,
    recover,
    remove_own,
    remove_unfinished,
    unfinished_folders,
    write_folder,
)
from lisbet.core.storage.lock import LockedError, has_ended, locked, require_unlocked, this_holder
from lisbet.core.storage.subfolders import remove_temporaries
from lisbet.core.storage.write_log import LOG, WriteLog

MODEL = frozenset({"model"})


def everything(folder: Path) -> dict[str, str]:
    """What stands in a folder, without logs: content by name."""
    return {
        path.relative_to(folder).as_posix(): "" if path.is_dir() else path.read_text()
        for path in sorted(folder.rglob("*"))
        if path.name != LOG
    }


@pytest.fixture(params=["exchange", "two renames"])
def system(request, monkeypatch):
    """With and without a file system that swaps names in one step."""
    if request.param != "exchange":
        monkeypatch.setattr(rename, "_system_call", lambda *flags: None)
    elif not sys.platform.startswith("linux"):
        pytest.skip("needs renameat2")
    return request.param


def write(folder: Path, *names: str, keep_old: bool = False) -> None:
    with write_folder(folder, "model", replaces=MODEL, keep_old=keep_old) as new:
        for name in names:
            (new / name).parent.mkdir(exist_ok=True)
            (new / name).write_text(name)


# Files


def test_a_file_appears_when_it_is_whole(tmp_path):
    path = tmp_path / "deep" / "file"
    with write_file(path) as temporary:
        temporary.write_text("new")
        assert not path.exists()
    assert everything(tmp_path) == {"deep": "", "deep/file": "new"}


def test_a_failure_leaves_the_old_file(tmp_path):
    path = tmp_path / "file"
    write_text(path, "old")
    with pytest.raises(RuntimeError), write_file(path, overwrite=True) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert everything(tmp_path) == {"file": "old"}


def test_a_file_is_replaced_only_if_it_is_ours_and_that_is_asked_for(tmp_path):
    path = tmp_path / "file"
    write_text(path, "one")
    with pytest.raises(OutputError, match="exists already; replace it with --overwrite"):
        write_text(path, "two")
    write_text(path, "two", overwrite=True)
    assert path.read_text() == "two"
    path.write_text("changed by its owner")
    for overwrite in (False, True):
        with pytest.raises(OutputError):
            write_text(path, "three", overwrite=overwrite)
    assert path.read_text() == "changed by its owner"


@pytest.mark.parametrize("what", ["file", "folder", "link", "dangling", "loop", "fifo"])
def test_a_file_of_somebody_else_stays(what, tmp_path):
    (tmp_path / "other").write_text("theirs")
    path = tmp_path / "target"
    if what == "file":
        path.write_text("theirs")
    elif what == "folder":
        path.mkdir()
    elif what == "fifo":
        os.mkfifo(path)
    else:
        path.symlink_to({"link": "other", "dangling": "none", "loop": "target"}[what])
    before = os.lstat(path)
    for overwrite in (False, True):
        with pytest.raises(OutputError, match=str(path)):
            write_text(path, "ours", overwrite=overwrite)
    assert os.lstat(path).st_ino == before.st_ino
    assert (tmp_path / "other").read_text() == "theirs"


def test_a_file_that_comes_meanwhile_stays(tmp_path, system):
    path = tmp_path / "file"
    with pytest.raises(OutputError, match="not written by betman"), write_file(path) as temporary:
        temporary.write_text("ours")
        path.write_text("theirs")
    assert everything(tmp_path) == {"file": "theirs"}


def test_a_crash_before_the_rename_leaves_a_file_that_is_recognised(tmp_path, monkeypatch):
    """The hash is noted before the file takes its name: old and new are both ours."""
    path = tmp_path / "file"
    write_text(path, "old")
    notes = WriteLog(tmp_path)
    notes.add(path, size=3, sha256="0" * 64)
    assert notes.owns(path)
    write_text(path, "new", overwrite=True)
    with (tmp_path / LOG).open("a") as stream:
        stream.write('{"file": "cut o')  # a crash
    write_text(path, "newer", overwrite=True)
    assert WriteLog(tmp_path).owns(path)
    assert path.read_text() == "newer"


def test_files_that_grow_or_change_often(tmp_path):
    path = tmp_path / "status.json"
    claim(path, tmp_path)
    rewrite_text(path, "1", tmp_path)
    rewrite_text(path, "2", tmp_path)
    lines = (tmp_path / LOG).read_bytes()
    rewrite_text(path, "3", tmp_path)
    claim(path, tmp_path)
    assert (tmp_path / LOG).read_bytes() == lines
    assert everything(tmp_path) == {"status.json": "3"}
    other = tmp_path / "events"
    other.write_text("theirs")
    with pytest.raises(OutputError):
        claim(other, tmp_path)


def test_text_is_appended_to_own_files_only(tmp_path):
    path = tmp_path / "journal"
    append_text(path, "one\n", tmp_path)
    append_text(path, "two\n", tmp_path)
    assert path.read_text() == "one\ntwo\n"
    (tmp_path / "theirs").write_text("theirs")
    (tmp_path / "link").symlink_to("theirs")
    for name in ("theirs", "link"):
        with pytest.raises(OutputError, match=name):
            append_text(tmp_path / name, "ours", tmp_path)
    assert (tmp_path / "theirs").read_text() == "theirs"


@pytest.mark.parametrize("links", [True, False])
def test_files_that_never_change_are_linked(links, tmp_path, monkeypatch):
    def refuse(*paths):
        raise OSError(errno.EPERM, "no links")

    (tmp_path / "a" / "deep").mkdir(parents=True)
    for name in ("shard", "table", "notes"):
        (tmp_path / "a" / "deep" / name).write_text(name)
    if not links:
        monkeypatch.setattr(os, "link", refuse)
    names = ["deep/shard", "deep/table"]
    copy_files(tmp_path / "a", tmp_path / "b", names, linked=lambda name: "shard" in name)
    assert everything(tmp_path / "b") == {
        "deep": "", "deep/shard": "shard", "deep/table": "table"
    }  # fmt: skip
    same = [(tmp_path / "a" / name).samefile(tmp_path / "b" / name) for name in names]
    assert same == [links, False]


def test_only_own_files_are_removed(tmp_path):
    write_text(tmp_path / "own", "")
    (tmp_path / "theirs").write_text("")
    for name in ("own", "theirs", "absent"):
        remove_file(tmp_path / name, tmp_path)
    assert everything(tmp_path) == {"theirs": ""}


# Folders


def test_a_failure_leaves_the_old_folder(tmp_path, system):
    write(tmp_path / "m", "old")
    with (
        pytest.raises(RuntimeError),
        write_folder(tmp_path / "m", "model", replaces=MODEL) as new,
    ):
        (new / "half").touch()
        raise RuntimeError
    assert everything(tmp_path) == {"m": "", "m/old": "old"}


def test_what_is_not_ours_moves_into_the_new_folder(tmp_path, system):
    write(tmp_path / "m", "one", "sub/two", "changed", "same")
    (tmp_path / "m" / "notes.txt").write_text("mine")
    (tmp_path / "m" / "sub" / "thesis.tex").write_text("mine")
    (tmp_path / "m" / ".git" / "objects").mkdir(parents=True)
    (tmp_path / "m" / ".git" / "objects" / "ab").write_text("mine")
    (tmp_path / "m" / "changed").write_text("mine")
    (tmp_path / "m" / "link").symlink_to("/nowhere")
    (tmp_path / "m" / "empty").mkdir()
    write(tmp_path / "m", "same", "changed", "three")
    assert os.readlink(tmp_path / "m" / "link") == "/nowhere"
    (tmp_path / "m" / "link").unlink()
    assert everything(tmp_path / "m") == {
        "same": "same", "changed": "changed", "three": "three", "notes.txt": "mine",
        "changed.kept1": "mine", "sub": "", "sub/thesis.tex": "mine", ".git": "",
        ".git/objects": "", ".git/objects/ab": "mine", "empty": "",
    }  # fmt: skip
    assert os.listdir(tmp_path) == ["m"]


@pytest.mark.parametrize("what", ["plain", "empty", "run", "file", "link", "dangling", "loop"])
def test_a_folder_of_somebody_else_stays(what, tmp_path, system):
    (tmp_path / "other").mkdir()
    path = tmp_path / "m"
    if what in ("plain", "empty", "run"):
        path.mkdir()
    if what == "plain":
        (path / "video.avi").write_text("theirs")
    elif what == "run":
        WriteLog(path).begin("run")
        (path / "weights").write_text("theirs")
    elif what == "file":
        path.write_text("theirs")
    elif what in ("link", "dangling", "loop"):
        path.symlink_to({"link": "other", "dangling": "none", "loop": "m"}[what])
    inode = os.lstat(path).st_ino
    for replaces in (frozenset(), MODEL):
        with (
            pytest.raises(OutputError, match=str(path)),
            write_folder(path, "model", replaces=replaces),
        ):
            raise AssertionError("nothing may be written")
    assert os.lstat(path).st_ino == inode
    if what in ("plain", "run"):
        assert sum(name != LOG for name in os.listdir(path)) == 1


def test_an_earlier_folder_can_be_kept(tmp_path, system):
    write(tmp_path / "m", "old")
    (tmp_path / "m" / "notes").write_text("mine")
    write(tmp_path / "m", "new", keep_old=True)
    expected = {".m.replaced": "", ".m.replaced/old": "old", "m": "", "m/new": "new",
                "m/notes": "mine"}  # fmt: skip
    assert everything(tmp_path) == expected
    write(tmp_path / "m", "newer", keep_old=True)  # the kept one stays the first
    assert everything(tmp_path)[".m.replaced/old"] == "old"
    remove_own(kept(tmp_path / "m"))
    assert set(everything(tmp_path)) == {"m", "m/newer", "m/notes"}


@pytest.mark.parametrize("keep_old", [False, True])
def test_a_crash_at_any_rename_loses_neither(keep_old, tmp_path, system, monkeypatch):
    """After recovery there is one whole folder, and what is not ours."""

    class KilledError(BaseException):
        pass

    for point in range(12):
        place = tmp_path / f"{point}"
        write(place / "m", "old")
        (place / "m" / "notes").write_text("mine")
        calls = []

        def step(real, *words, point=point, calls=calls, **named):
            calls.append(1)
            if len(calls) == point:
                raise KilledError
            return real(*words, **named)

        with monkeypatch.context() as patched:
            for name in ("rename_new", "exchange", "move_foreign", "remove_own", "remove_tree"):
                real = getattr(folders_module, name)
                patched.setattr(folders_module, name,
                                lambda *w, real=real, **n: step(real, *w, **n))  # fmt: skip
            try:
                write(place / "m", "new", keep_old=keep_old)
                killed = False
            except KilledError:
                killed = True
        recover(place / "m")
        found = everything(place)
        assert ("m/old" in found) != ("m/new" in found), found
        assert found["m/notes"] == "mine"
        if keep_old and "m/new" in found:
            assert found[".m.replaced/old"] == "old"
        assert not [name for name in os.listdir(place) if name.endswith(".partial")]
        write(place / "m", "after")
        assert everything(place)["m/after"] == "after"
    assert not killed


def test_an_unfinished_folder_can_be_found_again(tmp_path):
    path = tmp_path / "m"
    unfinished, other = new_folder(path, "store"), new_folder(path, "model")
    (unfinished / "half").touch()
    (tmp_path / ".m.abcdefghijklmnop.partial").mkdir()  # somebody's
    recover(path, frozenset({"store"}))
    assert not other.exists()
    assert unfinished_folders(path, "store") == [unfinished]
    publish_folder(unfinished, path)
    assert unfinished_folders(path, "store") == []
    remove_unfinished(path)  # it is finished
    assert everything(tmp_path) == {".m.abcdefghijklmnop.partial": "", "m": "", "m/half": ""}
    recover(path)
    remove_unfinished(new_folder(path, "store"))
    assert sorted(os.listdir(tmp_path)) == [".m.abcdefghijklmnop.partial", "m"]


def test_a_finished_folder_waits_where_somebody_took_its_name(tmp_path, monkeypatch):
    new = new_folder(tmp_path / "m", "store")
    (new / "ours").touch()
    WriteLog(new).add(new / "ours")
    WriteLog(new).complete()
    (tmp_path / "m").mkdir()
    recover(tmp_path / "m")
    assert (new / "ours").exists()
    (tmp_path / "m").rmdir()
    recover(tmp_path / "m")
    assert everything(tmp_path) == {"m": "", "m/ours": ""}


def test_a_crash_while_a_folder_without_an_end_is_replaced(tmp_path, monkeypatch):
    """A run's log need not say that it is complete; what is not ours in it is kept."""

    def killed(*words):
        raise KeyboardInterrupt

    (tmp_path / "m").mkdir()
    WriteLog(tmp_path / "m").begin("model")
    (tmp_path / "m" / "notes").write_text("mine")
    with monkeypatch.context() as patched:
        patched.setattr(folders_module, "move_foreign", killed)
        with pytest.raises(KeyboardInterrupt):
            write(tmp_path / "m", "new")
    recover(tmp_path / "m")
    assert everything(tmp_path) == {"m": "", "m/new": "new", "m/notes": "mine"}


def test_folders_are_readable_by_others(tmp_path):
    write(tmp_path / "folder", "a")
    (tmp_path / "plain").mkdir()
    assert (tmp_path / "folder").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_recovery_touches_nothing_of_somebody_else(tmp_path):
    for name in (
        ".m.partial",
        ".m.abcdefghijklmnop.partial",
        ".m.1234567812345678.replaced",
        ".m.replaced",
    ):
        (tmp_path / name).mkdir()
        (tmp_path / name / "video.avi").write_text("theirs")
    before = everything(tmp_path)
    recover(tmp_path / "m")
    write(tmp_path / "m", "one")
    recover(tmp_path / "m")
    assert everything(tmp_path) == before | {"m": "", "m/one": "one"}


def test_a_log_of_somebody_else_leads_nowhere(tmp_path):
    """Neither out of its folder, nor to files that only look temporary."""
    (tmp_path / "victim").write_text("theirs")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "notes.txt").write_text("theirs")
    names = (
        "../victim",
        str(tmp_path / "victim"),
        "notes.txt",
        "./notes.txt",
        "",
        "..",
        ".",
        "a/..",
    )
    lines: list[object] = [{"kind": "run"}, {"file": 7}, []]
    lines += [{"temporary": name} for name in names]
    lines += [{"file": name} for name in names if name != "notes.txt"]
    (tmp_path / "run" / LOG).write_text("".join(json.dumps(line) + "\n" for line in lines))
    remove_temporaries(tmp_path / "run")
    remove_own(tmp_path / "run")
    assert everything(tmp_path) == {"victim": "theirs", "run": "", "run/notes.txt": "theirs"}


def test_a_place_that_cannot_be_written_is_refused_without_a_trace(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="file/models: .*file.* choose another --output_path"):
        require_writable(tmp_path / "file" / "models")
    require_writable(tmp_path / "new" / "deep")
    assert everything(tmp_path) == {"file": ""}


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs RLIMIT_FSIZE and /proc")
def test_a_full_disk_is_one_message_and_keeps_the_earlier_file(tmp_path):
    """A file-size limit stands in for the full disk: the write fails in the same place."""
    path = tmp_path / "weights.pt"
    write_text(path, "old")
    program = (
        "import resource, signal, sys, torch; from pathlib import Path\n"
        "from lisbet.models.model_dir import save_weights\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))\n"
        f"path = Path({str(path)!r})\n"
        "save_weights(path, {'w': torch.zeros(100_000)}, root=path.parent, overwrite=True)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode != 0
    assert "File too large" in done.stderr
    assert everything(tmp_path) == {"weights.pt": "old"}


# Locks


def holder(**changes: object) -> str:
    return json.dumps({"token": "theirs"} | lock_module._this_process() | changes)


def test_a_second_writer_is_told_who_writes(tmp_path):
    target = tmp_path / "m"
    with locked(target):
        with pytest.raises(LockedError, match=f"process {os.getpid()} on .* since 20"), \
                locked(target):  # fmt: skip
            pass
        with pytest.raises(LockedError):
            require_unlocked(target)
        with locked(tmp_path / "n"):
            pass
    require_unlocked(target)
    with locked(target):
        pass
    assert os.listdir(tmp_path) == []


def test_the_lock_of_a_killed_process_is_taken_over(tmp_path):
    path = tmp_path / ".m.lock"
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    path.write_text(holder(pid=dead.pid))
    (tmp_path / ".m.lock.fedcba9876543210").write_text(holder(pid=dead.pid))
    with locked(tmp_path / "m"):
        pass
    (tmp_path / ".m.lock.0123456789abcdef").touch()  # killed before it wrote
    path.write_text(holder(started=1.0))  # another process got its number
    require_unlocked(tmp_path / "m")
    with locked(tmp_path / "m"):
        pass
    assert os.listdir(tmp_path) == []


def test_a_lock_of_another_machine_is_watched(tmp_path, monkeypatch):
    monkeypatch.setattr(lock_module, "WATCH_S", 0.3)
    path = tmp_path / ".m.lock"
    path.write_text(holder(host="elsewhere", pid=1))
    with locked(tmp_path / "m"):  # its time stamp stands still
        pass
    path.write_text(holder(host="elsewhere", pid=1))
    stamps = iter(range(10**6))
    monkeypatch.setattr(lock_module, "_time_stamp", lambda path: next(stamps))
    with pytest.raises(LockedError, match="process 1 on elsewhere"), locked(tmp_path / "m"):
        pass
    assert path.exists()


def test_whether_a_holder_has_ended(monkeypatch):
    holder = this_holder("token")
    assert holder["token"] == "token"
    assert has_ended(holder) is False
    assert has_ended(holder | {"started": 1.0}) is True
    assert has_ended(holder | {"host": "elsewhere"}) is None
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    holder = this_holder("token") | {"host": "elsewhere"}
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    assert has_ended(holder) is True


def test_a_requeued_job_takes_its_own_lock_over_at_once(tmp_path, monkeypatch):
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    (tmp_path / ".m.lock").write_text(holder(host="elsewhere"))
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    started = time.monotonic()
    with locked(tmp_path / "m"):
        pass
    assert time.monotonic() - started < lock_module.WATCH_S


def test_a_lock_that_was_taken_over_is_noticed(tmp_path):
    with locked(tmp_path / "m") as lock:
        lock.require_held()
        (tmp_path / ".m.lock").write_text(holder(host="elsewhere", pid=5))
        with pytest.raises(LockedError, match="process 5 on elsewhere"):
            lock.require_held()
    assert (tmp_path / ".m.lock").exists()  # the other one's


def test_a_file_that_is_no_lock_stays(tmp_path):
    (tmp_path / ".m.lock").write_text("theirs")
    with pytest.raises(LockedError, match="is not a lock of betman"), locked(tmp_path / "m"):
        pass
    assert everything(tmp_path) == {".m.lock": "theirs"}


def test_locks_where_there_are_no_hard_links(tmp_path, monkeypatch):
    def refuse(*paths):
        raise OSError(errno.EPERM, "no links")

    monkeypatch.setattr(os, "link", refuse)
    with locked(tmp_path / "m"), pytest.raises(LockedError), locked(tmp_path / "m"):
        pass
    assert os.listdir(tmp_path) == []
