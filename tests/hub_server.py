"""A stand-in of the Hugging Face hub on loopback: what huggingface_hub asks to fetch and to push.

The endpoints are those that the client was seen to request (huggingface_hub 2.4); anything else is
answered with 404 and noted in `Hub.unknown`.
"""

import base64
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

TOKEN = "hf_loopbackTokenOfTheTests0123456789"


class Repository:
    """Files by name, and the commits that were made."""

    def __init__(self, private: bool = False) -> None:
        self.private = private
        self.branches: dict[str, dict[str, bytes]] = {"main": {}}
        self.commits: list[dict] = []

    @property
    def files(self) -> dict[str, bytes]:
        return self.branches["main"]


class Hub(ThreadingHTTPServer):
    """The repositories, and who may write where.

    Attributes
    ----------
    writable : str
        The organisation that the token may write to.
    fails_at : str
        A path whose requests are answered with 500.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.repositories: dict[str, Repository] = {}
        self.objects: dict[str, bytes] = {}
        self.writable, self.fails_at = "my-lab", ""
        self.requests: list[str] = []
        self.unknown: list[str] = []

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


@contextmanager
def running() -> Iterator[Hub]:
    """Serve until the block ends."""
    hub = Hub()
    threading.Thread(target=hub.serve_forever, daemon=True).start()
    try:
        yield hub
    finally:
        hub.shutdown()
        hub.server_close()


def commit_id(repository: Repository) -> str:
    return hashlib.sha1(str(len(repository.commits)).encode()).hexdigest()


class Answer(BaseHTTPRequestHandler):
    """One request."""

    server: Hub
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self.answer()

    def do_GET(self) -> None:
        self.answer()

    def do_POST(self) -> None:
        self.answer()

    def do_PUT(self) -> None:
        self.answer()

    def answer(self) -> None:
        size = int(self.headers.get("Content-Length") or 0)
        if self.headers.get("Transfer-Encoding") == "chunked":
            parts = []
            while length := int(self.rfile.readline(), 16):
                parts.append(self.rfile.read(length))
                self.rfile.readline()
            self.rfile.readline()
            body = b"".join(parts)
        else:
            body = self.rfile.read(size)
        path = self.path.split("?")[0]
        self.server.requests.append(f"{self.command} {path}")
        if self.server.fails_at and self.server.fails_at in path:
            return self.reply(500, {"error": "the hub is broken"})
        for pattern, handler in ROUTES:
            if match := re.fullmatch(pattern, f"{self.command} {path}"):
                return handler(self, body, *match.groups())
        self.server.unknown.append(f"{self.command} {path}")
        return self.refuse(404, "RepoNotFound")

    # Answers

    def reply(self, status: int, content: object, **headers: str) -> None:
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        if not isinstance(content, bytes):
            self.send_header("Content-Type", "application/json")
        for key, value in headers.items():
            self.send_header(key.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def refuse(self, status: int, code: str) -> None:
        self.reply(status, {"error": code}, X_Error_Code=code, X_Error_Message=code)

    def log_message(self, *_: object) -> None:
        pass

    # What may be read and written

    def repository(self, name: str) -> Repository | None:
        found = self.server.repositories.get(name)
        if found is None or (found.private and not self.logged_in()):
            self.refuse(404, "RepoNotFound")
            return None
        return found

    def logged_in(self) -> bool:
        return self.headers.get("Authorization") == f"Bearer {TOKEN}"

    def may_write(self, name: str) -> bool:
        if not self.logged_in():
            self.refuse(401, "Unauthorized")
        elif name.split("/")[0] != self.server.writable:
            self.refuse(403, "Forbidden")
        else:
            return True
        return False

    # Endpoints

    def info(self, body: bytes, name: str, revision: str = "main") -> None:
        if (repository := self.repository(name)) is None:
            return None
        files = repository.branches.get(revision)
        if files is None and revision == commit_id(repository):
            files = repository.files
        if files is None:
            return self.refuse(404, "RevisionNotFound")
        return self.reply(200, {
            "_id": "1", "id": name, "sha": commit_id(repository), "private": repository.private,
            "siblings": [{"rfilename": file} for file in files],
        })  # fmt: skip

    def tree(self, body: bytes, name: str, revision: str) -> None:
        if (repository := self.repository(name)) is not None:
            files = repository.branches.get(revision, repository.files)
            self.reply(200, [
                {"type": "file", "path": file, "size": len(value), "oid": "0" * 40}
                for file, value in files.items()
            ])  # fmt: skip

    def resolve(self, body: bytes, name: str, revision: str, file: str) -> None:
        if (repository := self.repository(name)) is None:
            return
        content = repository.branches.get(revision, repository.files).get(file)
        if content is None:
            self.refuse(404, "EntryNotFound")
        else:
            self.reply(200, content, ETag=f'"{hashlib.sha1(content).hexdigest()}"',
                       X_Repo_Commit=commit_id(repository))  # fmt: skip

    def create(self, body: bytes) -> None:
        asked = json.loads(body)
        name = f"{asked['organization']}/{asked['name']}"
        if self.may_write(name):
            if name in self.server.repositories:
                return self.reply(409, {"error": "You already created this model repo"})
            private = bool(asked.get("private")) or asked.get("visibility") == "private"
            self.server.repositories[name] = Repository(private)
            self.reply(200, {"url": f"{self.server.address}/{name}"})
        return None

    def branch(self, body: bytes, name: str, branch: str) -> None:
        if self.may_write(name) and (repository := self.repository(name)) is not None:
            if branch in repository.branches:
                return self.reply(409, {"error": "Reference already exists"})
            repository.branches[branch] = dict(repository.files)
            self.reply(200, {})
        return None

    def validate(self, body: bytes) -> None:
        text = json.loads(body)["content"]
        bad = "license: not-a-licence" in text
        errors = [{"message": '"license" must be one of those that are known'}] if bad else []
        self.reply(400 if bad else 200, {"errors": errors, "warnings": []})

    def preupload(self, body: bytes, name: str, revision: str) -> None:
        if self.may_write(name):
            files = [
                {"path": file["path"], "shouldIgnore": False,
                 "uploadMode": "lfs" if file["path"].startswith("weights/") else "regular"}
                for file in json.loads(body)["files"]
            ]  # fmt: skip
            self.reply(200, {"files": files})

    def batch(self, body: bytes, name: str) -> None:
        if self.may_write(name):
            objects = [
                {"oid": one["oid"], "size": one["size"],
                 "actions": {"upload": {"href": f"{self.server.address}/objects/{one['oid']}"}}}
                for one in json.loads(body)["objects"]
            ]  # fmt: skip
            self.reply(200, {"transfer": "basic", "objects": objects})

    def put(self, body: bytes, oid: str) -> None:
        assert hashlib.sha256(body).hexdigest() == oid
        self.server.objects[oid] = body
        self.reply(200, b"")

    def commit(self, body: bytes, name: str, branch: str) -> None:
        if not self.may_write(name) or (repository := self.repository(name)) is None:
            return None
        if branch not in repository.branches:
            return self.refuse(404, "RevisionNotFound")
        lines = [json.loads(line) for line in body.splitlines()]
        files = repository.branches[branch]
        for line in lines:
            value = line["value"]
            if line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                files[value["path"]] = self.server.objects[value["oid"]]
            else:
                assert line["key"] == "header", line
        repository.commits.append({"branch": branch, "lines": lines, "files": dict(files)})
        address = f"{self.server.address}/{name}/commit/{commit_id(repository)}"
        return self.reply(
            200, {"success": True, "commitOid": commit_id(repository), "commitUrl": address}
        )


NAME = r"([\w.-]+/[\w.-]+)"
ROUTES = [
    (rf"GET /api/models/{NAME}", Answer.info),
    (rf"GET /api/models/{NAME}/revision/(.+)", Answer.info),
    (rf"GET /api/models/{NAME}/tree/([^/]+)", Answer.tree),
    (rf"(?:GET|HEAD) /{NAME}/resolve/([^/]+)/(.+)", Answer.resolve),
    (r"POST /api/repos/create", Answer.create),
    (rf"POST /api/models/{NAME}/branch/(.+)", Answer.branch),
    (r"POST /api/validate-yaml", Answer.validate),
    (rf"POST /api/models/{NAME}/preupload/(.+)", Answer.preupload),
    (rf"POST /{NAME}\.git/info/lfs/objects/batch", Answer.batch),
    (r"PUT /objects/(\w+)", Answer.put),
    (rf"POST /api/models/{NAME}/commit/(.+)", Answer.commit),
]
