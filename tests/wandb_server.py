"""A stand-in for W&B's server on this machine: keeps what runs send, or refuses, delays, dies."""

import gzip
import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class WandbServer:
    """Answers just enough of GraphQL and of the file stream.

    Parameters
    ----------
    mode : str
        "works", "refuses" (500 to everything but the first question), "delays" (never in time).
    """

    def __init__(self, mode: str = "works") -> None:
        self.mode = mode
        self.rows: list[dict[str, Any]] = []
        self.upserts: list[dict[str, Any]] = []
        self.asked = 0
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *args):
                pass

            def do_GET(self):
                outer.asked += 1
                self.answer(200, {})

            def do_POST(self):
                outer.asked += 1
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                if self.headers.get("Content-Encoding") == "gzip":
                    body = gzip.decompress(body)
                if outer.mode == "refuses":
                    return self.answer(500, {})
                if outer.mode == "delays":
                    time.sleep(60)
                if self.path == "/graphql":
                    return self.answer(200, {"data": outer.query(json.loads(body))})
                if self.path.endswith("/file_stream"):
                    outer.stream(json.loads(body))
                return self.answer(200, {})

            do_PUT = do_POST

            def answer(self, code, value):
                data = json.dumps(value).encode()
                try:
                    self.send_response(code)
                    self.send_header("Content-Type", "application/json")
                    self.send_header("Content-Length", str(len(data)))
                    self.end_headers()
                    self.wfile.write(data)
                except OSError:
                    pass  # whoever asked has gone

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.http.server_port}"
        threading.Thread(target=self.http.serve_forever, daemon=True).start()

    def die(self) -> None:
        self.http.shutdown()
        self.http.server_close()

    def query(self, asked: dict[str, Any]) -> dict[str, Any]:
        name, variables = asked.get("operationName"), asked.get("variables") or {}
        if name == "Viewer":
            return {"viewer": {"id": "1", "entity": "lab", "username": "lab", "email": "",
                               "flags": "{}", "teams": {"edges": []}}}  # fmt: skip
        if name == "RunResumeStatus":
            return {
                "model": {
                    "id": "1",
                    "name": "p",
                    "entity": {"id": "1", "name": "lab"},
                    "bucket": self.bucket(variables["name"]) if self.upserts else None,
                }
            }
        if name == "UpsertBucket":
            self.upserts.append(variables)
            return {"upsertBucket": {"bucket": self.bucket(variables["name"]), "inserted": True}}
        if name == "CreateRunFiles":
            return {"createRunFiles": {"runID": "1", "uploadHeaders": [], "files": []}}
        return {}

    def bucket(self, name: str) -> dict[str, Any]:
        tail = json.dumps([json.dumps(self.rows[-1])] if self.rows else [])
        return {
            "id": "1", "name": name, "displayName": name, "description": "", "config": "{}",
            "sweepName": None, "summaryMetrics": "{}", "logLineCount": 0, "eventsLineCount": 0,
            "historyLineCount": len(self.rows), "historyTail": tail, "eventsTail": "[]",
            "tags": [], "notes": "", "wandbConfig": '{"t": 1}',
            "project": {"id": "1", "name": "p", "entity": {"id": "1", "name": "lab"}},
        }  # fmt: skip

    def stream(self, sent: dict[str, Any]) -> None:
        """Put the lines of the history where they say they belong, as the server does."""
        part = (sent.get("files") or {}).get("wandb-history.jsonl")
        if part:
            lines = [json.loads(line) for line in part["content"]]
            self.rows[part["offset"] : part["offset"] + len(lines)] = lines
