"""Passwords and tokens reach no file and no message."""

import base64
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from conftest import TINY, write_dataset

from lisbet.cli import main
from lisbet.core.redact import redacted, redacted_values

SECRETS = {
    "HF_TOKEN": "hf_planted0000000000000000000000",
    "WANDB_API_KEY": "wandbplanted00000000000000000000wandbpla",
    "AWS_SECRET_ACCESS_KEY": "aws/planted+0000000000000000000000",
    "AWS_ACCESS_KEY_ID": "AKIAPLANTED000000000",
    "AWS_SESSION_TOKEN": "sessionplanted00000000000",
}
USER, PASSWORD = "planteduser", "plantedword"
PLANTED = ("planted", "PLANTED")


@pytest.fixture(autouse=True)
def planted(tmp_path, monkeypatch) -> Path:
    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)
    for name in ("HF_HOME", "XDG_CACHE_HOME", "HOME"):
        monkeypatch.setenv(name, str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def require_clean(folder: Path, *said: str) -> None:
    encoded = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
    for text in said:
        assert not [word for word in (*PLANTED, encoded) if word in text], text
    for file in folder.rglob("*"):
        content = file.read_bytes() if file.is_file() else b""
        for word in (*PLANTED, encoded):
            assert word.encode() not in content, file


def refused(capfd, *words: object) -> str:
    with pytest.raises(SystemExit) as caught:
        main([str(word) for word in words])
    assert caught.value.code == 2
    said = capfd.readouterr()
    return said.out + said.err


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("s3://key:secret@bucket/a", "s3://bucket/a"),
        ("s3:/key:secret@bucket/a", "s3:/bucket/a"),
        ("s3://key:se/cr+et@bucket/a,b", "s3://bucket/a,b"),
        ("(https://user:word@host:80/x)", "(https://host:80/x)"),
        ("https://token@host/x", "https://host/x"),
        ("https://host/x?sig=abc&b=1 end", "https://host/x?sig=***&b=1 end"),
        ("https://h/x?X-Amz-Signature=ab'", "https://h/x?X-Amz-Signature=***'"),
        ("a hf_planted0000000000000000000000.", "a ***."),
        # These are no secrets.
        ("https://host:80/mail@host", "https://host:80/mail@host"),
        ("s3://bucket/camera@2x/a", "s3://bucket/camera@2x/a"),
        ("abfs://container@account/a", "abfs://container@account/a"),
        ("file:///home/me@lab/a", "file:///home/me@lab/a"),
        ("/home/me:x@lab/a", "/home/me:x@lab/a"),
        ("backbone.key=4,select=a;b", "backbone.key=4,select=a;b"),
    ],
)
def test_what_is_left_out(text, shown):
    assert redacted(text) == shown
    assert redacted_values({"a": [text, 1, (text,)]}) == {"a": [shown, 1, (shown,)]}


def test_training(planted, monkeypatch, capfd):
    """The address stands for a folder: only its way through the program matters here."""
    address = f"https://{USER}:{PASSWORD}@host/data"
    write_dataset(planted / "data", [60, 80])
    place = Path(address)
    place.parent.mkdir(parents=True)
    place.symlink_to(planted / "data")
    words = ["train_model", *TINY, "--epochs=1", "--train_sample=0.1", "--task_ids=cons",
             "--run_id=a", "--data_format=movement", "--tensorboard", "--wandb",
             "--wandb_mode=offline", "-vv",
             f"--wandb_notes=by {SECRETS['HF_TOKEN']}", str(place)]  # fmt: skip
    monkeypatch.setattr(sys, "argv", ["betman", *words])
    main(words)
    said = capfd.readouterr()
    require_clean(planted / "models", said.out, said.err)
    run = planted / "models" / "a"
    assert "https:/host/data" in (run / "run_config.yml").read_text()
    assert "https:/host/data" in (run / "README.md").read_text()
    assert list(run.rglob("*.wandb"))
    assert list(run.rglob("*tfevents*"))
    # The same options are still the same.
    main([*(word for word in words if word != "--epochs=1"), "--epochs=2", "--resume"])
    said = capfd.readouterr()
    require_clean(planted / "models", said.out, said.err)
    words = ["--run_id=b" if word == "--run_id=a" else word for word in words]
    said = refused(capfd, *words[:-1], f"https://{USER}:{PASSWORD}@nowhere/data")
    require_clean(planted / "models", said)
    assert "https:/nowhere/data" in said


class Closed(BaseHTTPRequestHandler):
    """A hub that lets nobody in, and repeats what it was asked."""

    def do_GET(self) -> None:
        content = f"{self.path} {self.headers}".encode()
        self.send_response(401)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    do_HEAD = do_GET

    def log_message(self, *rest: object) -> None:
        """Keep quiet."""


@pytest.fixture
def server():
    with ThreadingHTTPServer(("127.0.0.1", 0), Closed) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_port
        server.shutdown()


def test_models_from_a_hub_that_refuses(planted, server, monkeypatch, capfd):
    from huggingface_hub import constants

    address = f"http://{USER}:{PASSWORD}@127.0.0.1:{server}"
    monkeypatch.setattr(constants, "ENDPOINT", address)
    monkeypatch.setenv("HF_ENDPOINT", address)
    said = refused(capfd, "fetch_model", "someone/model", "-vv")
    require_clean(planted, said)
    assert "someone/model" in said


def test_datasets_from_a_server_that_refuses(planted, server, capfd):
    source = f"http://{USER}:{PASSWORD}@127.0.0.1:{server}/files?token=planted"
    said = refused(capfd, "fetch_dataset", "CalMS21_Task1", f"--source={source}", "-vv")
    require_clean(planted, said)
    assert "the server answers 401" in said


def test_object_stores_that_cannot_be_reached(planted, monkeypatch, capfd):
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{USER}:{PASSWORD}@127.0.0.1:9")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    write_dataset(planted / "data", [60])
    secret = SECRETS["AWS_SECRET_ACCESS_KEY"]
    for target in (f"s3://AKIAPLANTED:{secret}@bucket/a.zarr", f"s3://{USER}:x@bucket/a.zarr"):
        said = refused(capfd, "convert_dataset", "-vv", "data", target)
        require_clean(planted, said)
        assert "s3://bucket/a.zarr is given with a password" in said
        said = refused(capfd, "train_model", "--data_format=zarr", target)
        require_clean(planted, said)
    said = refused(capfd, "convert_dataset", "-vv", "data", "s3://bucket/a.zarr")
    require_clean(planted, said)
    assert "s3://bucket/a.zarr cannot be reached" in said


def test_scripts_hold_no_secrets(planted, capfd):
    notes = f"--wandb_notes={SECRETS['WANDB_API_KEY']}"
    for words in (["https://a:plantedword@b/c.zarr"], ["--wandb", notes, "away"]):
        said = refused(capfd, "slurm_script", "--run_id=a", "--data_format=zarr", *words)
        require_clean(planted, said)
        assert "holds a password or token" in said
