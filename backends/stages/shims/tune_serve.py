"""A server kept up: `python tune_serve.py serve.json`, in the job's folder. Starts the engine, says when it answers, starts it again.

serve.json: `{"program", "host", "port", "key": name of a variable or null, "models": [{"name", "folder", "adapter"}], ...}`, the rest is
the engine's own; `program` is started with this file and the port, `models[0]` is the main one. summary.json is there for as long as
the server answers, with its port. A server that ends, or does not answer any more, is started again on the same port; one that never
answered fails the job.
"""
# ruff: noqa: PLC0415 - urllib takes a tenth of a second of a core, which an engine that starts can use

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import tune_process
import tune_served
from tune_process import DEAF, LOOK, STARTING, STEADY, TRIES

if TYPE_CHECKING:
    import urllib.request

SUMMARY, REASON, POINTS = Path("summary.json"), Path("reason.json"), Path("out/points.jsonl")
FIGURES = 10.0
"""Seconds between two points of throughput and latency."""
COUNTED = {
    "requests": ("vllm:request_success_total",),
    "reply_tokens": ("vllm:generation_tokens_total", "llamacpp:tokens_predicted_total"),
    "first_token_seconds": ("vllm:time_to_first_token_seconds_sum",),
    "reply_seconds": ("vllm:e2e_request_latency_seconds_sum",),
}
"""Our counter -> its names in the /metrics of servers. llama.cpp counts tokens and no requests."""


class Failure(Exception):
    """It cannot serve; `reason` is the word for it."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


def main(path: str) -> int:
    """Serve until the process is ended. 1, a message and reason.json when that cannot be."""
    SUMMARY.unlink(missing_ok=True)
    POINTS.parent.mkdir(exist_ok=True)
    tune_process.adopt_orphans()
    try:
        Keeper(path).keep()
    except Failure as failure:
        REASON.write_text(json.dumps({"reason": failure.reason, "detail": str(failure)}))
        print(f"{failure.reason}: {failure}", file=sys.stderr)
        return 1
    finally:
        SUMMARY.unlink(missing_ok=True)
        tune_process.end_orphans()  # also when we are told to end: vLLM's engine outlives its HTTP process, with all its memory
    return 0


class Keeper:
    """One server, and what is known of it."""

    def __init__(self, path: str) -> None:
        spec = json.loads(Path(path).read_text("utf-8"))
        self.path, self.spec, self.key = path, spec, os.environ.get(spec["key"] or "", "")
        if spec["key"] and not self.key:
            raise Failure("missing_secret", f"{spec['key']} has no value")
        self.port = spec["port"] or tune_process.free_port(spec["host"])
        self.answered, self.tries, self.count = False, 0, 0
        self.compared = ""
        self.before = dict.fromkeys(COUNTED, 0.0)

    def keep(self) -> None:
        """Start it, watch it, start it again."""
        while True:
            _check_free(self.spec["host"], self.port)
            argv = [sys.executable, self.spec["program"], self.path, str(self.port)]
            process = subprocess.Popen(argv, preexec_fn=tune_process.die_with_parent)  # noqa: PLW1509  # there are no threads here
            try:
                code = self._watch(process)
            except Failure:
                process.kill()
                raise
            SUMMARY.unlink(missing_ok=True)
            tune_process.end_orphans()
            if not self.answered:
                raise Failure("server_failed", f"the server ended with exit code {code} before it answered")
            self.tries += 1
            if self.tries > TRIES:
                raise Failure("server_failed", f"the server ended {self.tries} times in a row, with exit code {code}")
            print(f"the server ended with exit code {code}; it is started again", file=sys.stderr, flush=True)
            time.sleep(tune_process.pause(self.tries))

    def _watch(self, process: subprocess.Popen[bytes]) -> int:
        """Until it ends, or answers no more; its exit code."""
        since = heard = figures = time.monotonic()
        ready, answered = False, False
        while process.poll() is None:
            now = time.monotonic()
            if self._asked("/health") is not None:
                since, heard = since if answered else now, now
                if not ready:
                    self._check()
                    self._say_ready()
                ready = answered = self.answered = True
                self.tries = 0 if now - since > STEADY else self.tries
                if now - figures >= FIGURES:
                    self._measure(now - figures)
                    figures = now
            elif ready and now - heard > 2 * LOOK:
                SUMMARY.unlink(missing_ok=True)
                ready = False
            elif answered and now - heard > DEAF:
                print(f"the server has not answered for {DEAF:g} s", file=sys.stderr, flush=True)
                process.kill()
            time.sleep(LOOK if ready else STARTING)
        return process.returncode

    def _check(self) -> None:
        """What is served is what was trained; asked once, before anybody is told that it is there.

        Raises:
            Failure: it is not.
        """
        if self.compared or not self.spec.get("check"):
            return
        try:
            found = tune_served.compared(self.spec, self._completed)
        except (OSError, ValueError) as error:
            raise Failure("serve_differs", f"what is served could not be compared: {error}") from None
        with POINTS.open("a") as file:
            file.write(json.dumps({"name": "served/largest_difference", "value": found.distance}) + "\n")
        if not found.distance <= found.tolerance:
            rule = f"a log-probability is {found.distance:.3g} nats from {found.framework}'s own ({found.where})"
            raise Failure("serve_differs", f"{rule}, at most {found.tolerance:g} is allowed")
        self.compared = f", {found}"

    def _completed(self, body: dict[str, object]) -> dict[str, object]:
        """The server's answer to one request.

        Raises:
            ValueError: it refuses it; with its words.
        """
        import urllib.error

        request = self._request("/v1/completions", json.dumps(body).encode())
        request.add_header("Content-Type", "application/json")
        try:
            with tune_process.opener().open(request, timeout=3600) as answer:
                return dict(json.load(answer))
        except urllib.error.HTTPError as error:
            raise ValueError(f"it answers {error.code}: {error.read(300).decode('utf-8', 'replace')}") from None

    def _say_ready(self) -> None:
        names = ", ".join(each["name"] for each in self.spec["models"])
        many = f" by {self.spec['replicas']} replicas" if self.spec.get("replicas", 1) > 1 else ""
        detail = f"http://{self.spec['host']}:{self.port}/v1 serves {names}{many}{self.compared}"
        aside = Path(f"{SUMMARY}.part")
        aside.write_text(
            json.dumps({"detail": detail, "port": self.port, "models": [each["name"] for each in self.spec["models"]]})
        )
        aside.replace(SUMMARY)
        tune_process.announce()
        print(f"ready: {detail}", flush=True)

    def _request(self, path: str, body: bytes | None = None) -> urllib.request.Request:
        import urllib.request

        host = "127.0.0.1" if self.spec["host"] == "0.0.0.0" else self.spec["host"]  # noqa: S104  # compared, not bound
        head = {"Authorization": f"Bearer {self.key}"} if self.key else {}
        return urllib.request.Request(f"http://{host}:{self.port}{path}", body, head)  # our own server

    def _asked(self, path: str) -> str | None:
        """What the server says; None when it does not answer."""
        try:
            with tune_process.opener().open(self._request(path), timeout=10) as answer:
                return answer.read(2**20).decode("utf-8", "replace")
        except (OSError, ValueError):  # URLError is an OSError
            return None

    def _measure(self, seconds: float) -> None:
        """Points of what was done since the last time, if anything was."""
        text = self._asked("/metrics") or ""
        now = {name: sum(counted(text, native) for native in names) for name, names in COUNTED.items()}
        new = {name: max(0.0, now[name] - self.before[name]) for name in COUNTED}
        self.before = now
        if not new["reply_tokens"] and not new["requests"]:
            return
        self.count += 1
        values = {"reply_tokens_per_second": new["reply_tokens"] / seconds}
        if new["requests"]:
            each = 1 / new["requests"]
            values |= {
                "requests_per_second": new["requests"] / seconds,
                "first_token_ms": 1000 * each * new["first_token_seconds"],
                "latency_ms": 1000 * each * new["reply_seconds"],
            }
        with POINTS.open("a") as file:
            file.writelines(
                json.dumps({"step": self.count, "name": name, "value": value}) + "\n" for name, value in values.items()
            )


def counted(text: str, name: str) -> float:
    """The sum of a counter of /metrics over its labels."""
    total = 0.0
    for line in text.splitlines():
        if line.startswith((f"{name}{{", f"{name} ")):
            with suppress(ValueError):
                total += float(line.rpartition(" ")[2])
    return total


def _check_free(host: str, port: int) -> None:
    """The port is nobody's.

    Raises:
        Failure: it is.
    """
    with socket.socket() as bound:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            bound.bind((host, port))
        except OSError as error:
            raise Failure(
                "port_in_use", f"port {port} of {host} cannot be had: {error.strerror}; choose another, or none"
            ) from None


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    sys.exit(main(sys.argv[1]))
