"""What a W&B server takes from `wandb sync`, kept in memory: each run's name, project, group and history rows.

Of the protocol it has what wandb 0.31's uploader asks for: a run is upserted by GraphQL, files are refused room, and rows come by the
file stream. https://github.com/wandb/wandb/tree/main/core/internal/filestream
"""

import gzip
import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any


class Tracker:
    """The server: what was told to it, and whether it lets anybody in."""

    def __init__(self) -> None:
        self.runs: dict[str, dict[str, Any]] = {}
        """By wandb's id: the variables of its upsert."""
        self.rows: dict[str, dict[int, dict[str, Any]]] = {}
        """By wandb's id: number of the line -> what was logged."""
        self.keys: set[str] = set()
        """Of those who asked."""
        self.closed = False
        self.url = ""

    def graphql(self, asked: dict[str, Any]) -> dict[str, Any]:
        """Answer a question."""
        given = asked.get("variables", {})
        if "upsertBucket" not in asked["query"]:
            return {"createRunFiles": {"runID": given.get("run"), "uploadHeaders": [], "files": []}}
        run = self.runs.setdefault(given["name"], {})
        run.update({name: value for name, value in given.items() if value is not None})
        project = {"id": "p", "name": given["project"], "entity": {"id": "e", "name": "me"}}
        bucket = {"id": "b", "name": given["name"], "displayName": run.get("displayName"), "config": "{}", "historyLineCount": 0}
        return {"upsertBucket": {"bucket": {**bucket, "project": project}, "inserted": True}}

    def stream(self, run: str, told: dict[str, Any]) -> None:
        """Take in lines of a run's files."""
        part = told.get("files", {}).get("wandb-history.jsonl", {"offset": 0, "content": []})
        lines = self.rows.setdefault(run, {})
        for number, line in enumerate(part["content"], part["offset"]):
            lines[number] = json.loads(line)

    def curve(self, run: str, metric: str) -> dict[int, float]:
        """Step -> value."""
        return {row["_step"]: row[metric] for row in self.rows[run].values() if metric in row}


@contextmanager
def tracker() -> Iterator[Tracker]:
    """A server on a free port of this machine."""
    kept = Tracker()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            if self.headers.get("Content-Encoding") == "gzip":
                body = gzip.decompress(body)
            kept.keys.add(self.headers.get("Authorization") or "")
            answer: dict[str, Any] = {}
            if not kept.closed and self.path == "/graphql":
                answer = {"data": kept.graphql(json.loads(body))}
            elif not kept.closed and self.path.endswith("/file_stream"):
                kept.stream(self.path.split("/")[-2], json.loads(body))
            text = json.dumps(answer).encode()
            self.send_response(401 if kept.closed else 200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        kept.url = f"http://127.0.0.1:{server.server_address[1]}"
        thread = Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield kept
        server.shutdown()
        thread.join()
