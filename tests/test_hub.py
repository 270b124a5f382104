"""Public datasets, from files of the true layout: served, copied in, damaged, hostile."""

import hashlib
import io
import json
import os
import pickle
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
import xarray as xr

from lisbet.cli import main
from lisbet.core.config import Dataset
from lisbet.core.storage.write_log import LOG
from lisbet.core.yaml_files import read_yaml
from lisbet.data.hub import _archives, _download, calms21, mabe22
from lisbet.data.load import load_records
from lisbet.options import DataOptions

VOCABULARY = {"attack": 0, "investigation": 1, "mount": 2, "other": 3}


class Server(ThreadingHTTPServer):
    """Serves files from memory; can cut connections and answer with errors."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, bytes] = {}
        self.asked: list[tuple[str, str | None]] = []
        self.cut_after: list[int] = []
        self.errors: list[int] = []
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        name = self.path.split("?")[0].rpartition("/")[2]
        wanted = self.headers.get("Range")
        self.server.asked.append((name, wanted))
        if self.server.errors:
            self.send_error(self.server.errors.pop(0))
            return
        if name not in self.server.files:
            self.send_error(404)
            return
        body = self.server.files[name]
        start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted else 0
        if wanted and start >= len(body):
            self.send_error(416)
            return
        self.send_response(206 if wanted else 200)
        self.send_header("Content-Length", str(len(body) - start))
        self.end_headers()
        stop = start + self.server.cut_after.pop(0) if self.server.cut_after else None
        self.wfile.write(body[start:stop])

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server(monkeypatch):
    server = Server()
    monkeypatch.setenv("LISBET_MIRROR", server.url)
    monkeypatch.setattr(_download, "FIRST_WAIT_S", 0.01)
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def sequence(frames, seed, *, annotated=False):
    rng = np.random.default_rng(seed)
    value = {
        "keypoints": (rng.random((frames, 2, 2, 7)) * 500).round(2).tolist(),
        "scores": rng.random((frames, 2, 7)).tolist(),
        "metadata": {"fps": 30, "vocab": VOCABULARY},
    }
    if annotated:
        value["annotations"] = rng.integers(0, 4, frames).tolist()
    return value


def zipped(members: dict[str, object]) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content if isinstance(content, bytes) else json.dumps(content))
    return stream.getvalue()


def offer(server, monkeypatch, name, content: bytes, md5=None):
    """Put an archive on the server, with its checksum in place of the true one's."""
    server.files[f"{name}.zip"] = content
    monkeypatch.setitem(calms21.ARCHIVES, name, md5 or hashlib.md5(content).hexdigest())


@pytest.fixture
def parts():
    """Two parts of the unlabelled videos."""
    return {
        f"unlabeled_videos/calms21_unlabeled_videos_part{n}.json": {
            "unlabeled_videos": {
                f"unlabeled_videos/mouse{n}{m}": sequence(20 + n + m, 10 * n + m) for m in range(2)
            }
        }
        for n in (1, 2)
    }


def fails(*words, capsys) -> str:
    with pytest.raises(SystemExit) as caught:
        main(["fetch_dataset", *map(str, words)])
    assert caught.value.code == 2
    return capsys.readouterr().err


def nothing_published(tmp_path) -> bool:
    return not any(path.name == "tracking.nc" for path in tmp_path.rglob("*") if path.is_file())


def check_recording(folder, value):
    tracks = xr.load_dataset(folder / "tracking.nc")
    assert tracks.position.dims == ("time", "space", "keypoints", "individuals")
    np.testing.assert_array_equal(
        tracks.position.transpose("time", "individuals", "space", "keypoints"), value["keypoints"]
    )
    np.testing.assert_array_equal(
        tracks.confidence.transpose("time", "individuals", "keypoints"), value["scores"]
    )
    assert tracks.attrs["fps"] == 30
    assert tracks.attrs["image_size_px"].tolist() == [1024, 570]
    assert tracks.individuals.values.tolist() == ["resident", "intruder"]
    assert tracks.keypoints.values.tolist() == list(calms21.KEYPOINTS)
    if "annotations" not in value:
        assert not (folder / "annotations.nc").exists()
        return
    labels = xr.load_dataset(folder / "annotations.nc").target_cls
    assert labels.behaviors.values.tolist() == list(VOCABULARY)
    np.testing.assert_array_equal(labels.argmax("behaviors")[:, 0], value["annotations"])
    assert (labels.sum("behaviors") == 1).all()


def test_unlabelled_videos_from_a_server(server, parts, tmp_path, monkeypatch, capsys):
    offer(server, monkeypatch, "unlabeled_videos", zipped(parts))
    main(["fetch_dataset", "CalMS21_Unlabeled"])
    folder = tmp_path / "datasets" / "CalMS21" / "unlabeled_videos"
    for part in parts.values():
        for name, value in part["unlabeled_videos"].items():
            check_recording(folder / name, value)
    records = load_records(Dataset(path=folder, format="movement"), DataOptions())
    assert len(records) == 4
    assert records[0].steps == ("divided by 1024x570",)
    kept = os.listdir(folder.parent / ".downloads")
    assert kept == [LOG], "what was converted is not kept twice"
    assert server.asked == [("unlabeled_videos.zip", None)]
    main(["fetch_dataset", "CalMS21_Unlabeled"])
    assert len(server.asked) == 1, "a second call has nothing to do"
    assert "is there already" in capsys.readouterr().err


def test_a_task_from_a_copied_file_keeps_train_and_test_apart(tmp_path, monkeypatch, server):
    content = {
        f"calms21_task1_{part}.json": {
            "annotator-id_0": {
                f"task1/{part}/mouse{n}_task1_annotator1": sequence(15 + n, n, annotated=True)
                for n in range(2)
            }
        }
        for part in ("train", "test")
    }
    archive = zipped(content)
    offer(server, monkeypatch, "task1_classic_classification", archive)
    (tmp_path / "copied.zip").write_bytes(archive)
    main(["fetch_dataset", "CalMS21_Task1", "--source=copied.zip"])
    assert not server.asked
    folder = tmp_path / "datasets" / "CalMS21" / "task1_classic_classification"
    for part in content.values():
        for name, value in part["annotator-id_0"].items():
            check_recording(folder / name, value)
    data = Dataset(path=folder, format="movement", annotations="movement")
    train = load_records(data, DataOptions(data_filter="train"))
    assert [record.id for record in train] == [
        f"task1/train/mouse{n}_task1_annotator1" for n in range(2)
    ]
    assert (tmp_path / "copied.zip").exists()


@pytest.mark.parametrize("task", ["task2_annotation_styles", "task3_new_behaviors"])
def test_other_tasks_have_several_annotators(server, monkeypatch, tmp_path, task):
    number = task[4]
    groups = {
        f"annotator-id_{n}": {f"task{number}/train/m_annotator{n}": sequence(9, n, annotated=True)}
        for n in range(3)
    }
    offer(server, monkeypatch, task, zipped({f"calms21_task{number}_train.json": groups}))
    main(["fetch_dataset", f"CalMS21_Task{number}"])
    for group in groups.values():
        for name, value in group.items():
            check_recording(tmp_path / "datasets" / "CalMS21" / task / name, value)


def test_a_cut_connection_is_taken_up_where_it_ended(server, parts, monkeypatch, tmp_path):
    content = zipped(parts)
    offer(server, monkeypatch, "unlabeled_videos", content)
    server.cut_after = [1000, 500]
    main(["fetch_dataset", "CalMS21_Unlabeled"])
    assert [wanted for _, wanted in server.asked] == [None, "bytes=1000-", "bytes=1500-"]


def test_an_interrupted_download_is_finished_by_the_same_command(
    server, parts, monkeypatch, tmp_path, capsys
):
    content = zipped(parts)
    offer(server, monkeypatch, "unlabeled_videos", content)
    server.cut_after = [300] * _download.ATTEMPTS
    said = fails("CalMS21_Unlabeled", capsys=capsys)
    assert "5 attempts" in said
    assert "--source=PATH" in said
    assert nothing_published(tmp_path)
    main(["fetch_dataset", "CalMS21_Unlabeled"])
    assert server.asked[-1][1] == f"bytes={300 * _download.ATTEMPTS}-"


def test_an_interrupted_conversion_is_finished_by_the_same_command(
    server, parts, monkeypatch, tmp_path
):
    offer(server, monkeypatch, "unlabeled_videos", zipped(parts))
    convert, calls = calms21._convert, []

    def interrupted(*arguments):
        calls.append(arguments)
        if len(calls) == 3:
            raise KeyboardInterrupt
        convert(*arguments)

    with monkeypatch.context() as patched:
        patched.setattr(calms21, "_convert", interrupted)
        with pytest.raises(SystemExit):
            main(["fetch_dataset", "CalMS21_Unlabeled"])
    assert nothing_published(tmp_path)
    main(["fetch_dataset", "CalMS21_Unlabeled"])
    assert len(server.asked) == 1, "the archive was there already"
    assert len(list(tmp_path.rglob("tracking.nc"))) == 4


def test_servers_that_fail_for_a_while_and_for_good(server, parts, monkeypatch, tmp_path, capsys):
    offer(server, monkeypatch, "unlabeled_videos", zipped(parts))
    server.errors = [503, 429]
    main(["fetch_dataset", "CalMS21_Unlabeled"])
    server.errors = [404]
    assert "answers 404" in fails("CalMS21_Unlabeled", "--download_path=b", capsys=capsys)


def test_no_network(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(_download, "FIRST_WAIT_S", 0.01)
    monkeypatch.setenv("LISBET_MIRROR", "http://127.0.0.1:9")
    said = fails("CalMS21_Unlabeled", capsys=capsys)
    assert "Where there is no internet" in said
    assert "unlabeled_videos.zip" in said


def test_a_wrong_checksum_names_both_and_is_never_used(
    server, parts, monkeypatch, tmp_path, capsys
):
    content = zipped(parts)
    offer(server, monkeypatch, "unlabeled_videos", content, md5="0" * 32)
    said = fails("CalMS21_Unlabeled", capsys=capsys)
    assert "0" * 32 in said
    assert hashlib.md5(content).hexdigest() in said
    assert nothing_published(tmp_path)
    kept = [path.name for path in (tmp_path / "datasets/CalMS21/.downloads").iterdir()]
    assert kept == [LOG]
    (tmp_path / "copied.zip").write_bytes(content)
    assert "MD5" in fails("CalMS21_Unlabeled", "--source=copied.zip", capsys=capsys)
    assert "no file" in fails("CalMS21_Unlabeled", "--source=nowhere", capsys=capsys)


def member(value) -> dict[str, object]:
    return {"calms21_unlabeled_videos_part1.json": value}


def without(key):
    value = sequence(5, 0)
    del value[key]
    return value


@pytest.mark.parametrize(
    ("members", "message"),
    [
        (member(b'{"unlabeled_videos": {"a": {"keypoints": [1, 2'), "is no JSON, or is cut off"),
        (member(b"words"), "is no JSON"),
        (member([1]), "no a group of sequences"),
        (member({"g": [1]}), "no sequences in 'g'"),
        (member({"g": {"a": 3}}), "g/a is no mapping"),
        (member({"g": {"a": without("scores")}}), "no key 'scores' (found: keypoints, metadata)"),
        (member({"g": {"a": sequence(5, 0) | {"keypoints": [[1, 2]]}}}), "instead of (frames, 2"),
        (member({"g": {"a": sequence(5, 0) | {"annotations": [0] * 4}}}), "4 of annotations"),
        (member({"g": {"a": sequence(2, 0) | {"annotations": [0, 9]}}}), "does not name"),
        (member({"g": {"../../a": sequence(5, 0)}}), "which has the part '..'"),
        ({"other.json": {}}, "holds no calms21_unlabeled_videos_*.json"),
        ({"../evil.json": {}, **member({})}, "leads out of it"),
        ({"/etc/evil.json": {}, **member({})}, "leads out of it"),
        ({"C:\\evil.json": {}, **member({})}, "leads out of it"),
    ],
)
def test_archives_of_another_layout_or_ill_will(
    server, monkeypatch, tmp_path, capsys, members, message
):
    offer(server, monkeypatch, "unlabeled_videos", zipped(members))
    assert message in fails("CalMS21_Unlabeled", capsys=capsys)
    assert nothing_published(tmp_path)
    assert not list(tmp_path.parent.glob("evil*"))


def test_links_bombs_and_other_files_are_refused(server, monkeypatch, tmp_path, capsys):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        link = zipfile.ZipInfo("link")
        link.external_attr = 0o120777 << 16
        archive.writestr(link, "/etc/passwd")
    offer(server, monkeypatch, "unlabeled_videos", stream.getvalue())
    assert "is a link" in fails("CalMS21_Unlabeled", capsys=capsys)
    monkeypatch.setattr(_archives, "MOST_UNPACKED_BYTES", 10_000_000)
    bomb = zipped(member(b"0" * 11_000_000))
    assert len(bomb) < 20_000
    offer(server, monkeypatch, "unlabeled_videos", bomb)
    assert "would unpack to" in fails("CalMS21_Unlabeled", capsys=capsys)
    offer(server, monkeypatch, "unlabeled_videos", b"not an archive")
    assert "is not a ZIP archive" in fails("CalMS21_Unlabeled", capsys=capsys)


def test_a_folder_that_is_something_else(server, parts, monkeypatch, tmp_path, capsys):
    offer(server, monkeypatch, "unlabeled_videos", zipped(parts))
    folder = tmp_path / "datasets" / "CalMS21" / "unlabeled_videos"
    folder.mkdir(parents=True)
    (folder / "mine").touch()
    assert "is not this dataset" in fails("CalMS21_Unlabeled", capsys=capsys)
    assert os.listdir(folder) == ["mine"]
    assert not server.asked


def test_a_full_disk_is_seen_before(server, parts, monkeypatch, tmp_path, capsys):
    offer(server, monkeypatch, "unlabeled_videos", zipped(parts))
    usage = type("Usage", (), {"free": 10})
    monkeypatch.setattr(_download.shutil, "disk_usage", lambda _: usage)
    assert "make room" in fails("CalMS21_Unlabeled", capsys=capsys)


# MABe22 ------------------------------------------------------------------------------------------


def npy(value) -> bytes:
    stream = io.BytesIO()
    np.save(stream, np.array(value, dtype=object), allow_pickle=True)
    return stream.getvalue()


def triplets(names, seed, *, annotated):
    rng = np.random.default_rng(seed)
    return {
        "vocabulary": ["chases", "lights"],
        "sequences": {
            name: {"keypoints": rng.integers(0, 850, (30, 3, 12, 2)).astype(np.float32)}
            | ({"annotations": rng.integers(0, 2, (2, 30))} if annotated else {})
            for name in names
        },
    }


@pytest.fixture
def mabe(server, monkeypatch):
    content = {
        "TRAIN": triplets(["AAA", "BBB"], 0, annotated=True),
        "TEST": triplets(["CCC", "DDD"], 1, annotated=False),
        "TEST_LABELS": {
            "vocabulary": ["chases", "age", "oral"],
            "task_type": ["Discrete", "Continious", "Discrete"],
            "frame_number_map": {"CCC": (0, 30), "DDD": (30, 60)},
            "label_array": np.random.default_rng(2).integers(0, 2, (3, 60)).astype(float),
        },
    }

    def put():
        for name, value in content.items():
            file = getattr(mabe22, name)
            body = value if isinstance(value, bytes) else npy(value)
            server.files[file.name] = body
            md5 = hashlib.md5(body).hexdigest()
            monkeypatch.setattr(mabe22, name, _download.RemoteFile(file.name, file.url, md5))

    return content, put


def test_mouse_triplets(mabe, tmp_path):
    content, put = mabe
    put()
    main(["fetch_dataset", "mabe22_mousetriplets"])
    root = tmp_path / "datasets" / "MABe22" / "mouse_triplets"
    for part, file in (("train", "TRAIN"), ("test", "TEST")):
        for name, value in content[file]["sequences"].items():
            tracks = xr.load_dataset(root / part / name / "tracking.nc")
            np.testing.assert_array_equal(
                tracks.position.transpose("time", "individuals", "keypoints", "space"),
                value["keypoints"],
            )
            assert tracks.keypoints.values.tolist() == list(mabe22.KEYPOINTS)
            assert tracks.attrs["image_size_px"].tolist() == [850, 850]
    train = xr.load_dataset(root / "train" / "BBB" / "annotations.nc").target_cls
    assert train.behaviors.values.tolist() == ["chases", "lights"]
    np.testing.assert_array_equal(
        train[..., 0].T, content["TRAIN"]["sequences"]["BBB"]["annotations"]
    )
    test = xr.load_dataset(root / "test" / "DDD" / "annotations.nc").target_cls
    assert test.behaviors.values.tolist() == ["chases", "oral"]
    np.testing.assert_array_equal(
        test[..., 0].T, content["TEST_LABELS"]["label_array"][[0, 2], 30:60]
    )
    data = Dataset(path=root / "train", format="movement", annotations="movement")
    assert len(load_records(data, DataOptions())) == 2
    assert read_yaml(root / "dataset.yml")["dataset"] == "MABe22/mouse_triplets"


class Evil:
    def __reduce__(self):
        return (os.system, ("touch /tmp/lisbet-evil",))


def test_a_malicious_pickle_is_refused(mabe, tmp_path, capsys):
    content, put = mabe
    content["TRAIN"] = npy({"sequences": Evil()})
    put()
    said = fails("MABe22_MouseTriplets", capsys=capsys)
    assert "is refused: it asks for posix.system" in said
    assert not os.path.exists("/tmp/lisbet-evil")
    assert nothing_published(tmp_path)


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("TRAIN", npy({"vocabulary": []}), "no key 'sequences' (found: vocabulary)"),
        ("TRAIN", npy({"sequences": {"a": {"points": 1}}}), "no key 'keypoints'"),
        ("TRAIN", npy({"sequences": {"a": {"keypoints": np.zeros((3, 2, 2))}}}), "(3, 2, 2)"),
        ("TRAIN", b"text", "cannot be read as .npy"),
        ("TRAIN", npy({})[:-5], "cannot be read as .npy"),
        ("TEST_LABELS", npy({"label_array": 1}), "no key 'task_type'"),
    ],
)
def test_files_of_another_layout(mabe, tmp_path, capsys, file, content, message):
    offered, put = mabe
    offered[file] = content
    put()
    assert message in fails("MABe22_MouseTriplets", capsys=capsys)
    assert nothing_published(tmp_path)


def test_harmless_pickles_are_read(tmp_path):
    for value in ({"a": np.arange(5), "b": [np.float64(3.5), "text", None, (1, 2)]}, {}):
        (tmp_path / "x.npy").write_bytes(npy(value))
        read = _archives.read_pickled_npy(tmp_path / "x.npy")
        assert pickle.dumps(read) == pickle.dumps(value)
