"""Several engines of one model behind one port. `python tune_replicas.py serve.json PORT`; started by tune_serve.py.

serve.json has besides the engine's own settings `engine`, its program, and `replicas`, how many. Each engine listens at a port of its own
on the loopback, has its share of the job's devices, and is started again when it ends or is deaf. A request goes to the one with the
fewest; one that an engine could not answer because it ended goes to another, unless a part of the reply was sent already. /health is
answered once all have been there, and then while any is; /metrics has those of all, with the label `replica`.
"""

from __future__ import annotations

import http.client
import json
import os
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tune_http
import tune_process
from tune_http import Refusal
from tune_process import DEAF, LOOK, STARTING, STEADY, TRIES

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

OWN = Path("replica.json")
"""serve.json as the engines are given it: on the loopback."""
PASSED = ("Authorization", "Content-Type", "Accept")
"""Headers of a request that an engine is given."""
PIECE = 1 << 16
PATIENCE = 30.0
"""Seconds for which a request waits where no engine is there."""
ENDED = 3
"""Engines that may end over one request: it may be the reason."""


class Replica:
    """One engine."""

    def __init__(self, number: int, devices: str | None) -> None:
        self.number, self.port = number, tune_process.free_port("127.0.0.1")
        self.env = {**os.environ, **({} if devices is None else {"CUDA_VISIBLE_DEVICES": devices})}
        self.pid, self.asked = 0, 0
        self.is_healthy = self.has_answered = False

    def answers(self, path: str, headers: dict[str, str] | None = None) -> str | None:
        """What it says at a path; None when it does not answer."""
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}", headers=headers or {})
        try:
            with tune_process.opener().open(request, timeout=10) as answer:
                return str(answer.read(2**20).decode("utf-8", "replace"))
        except (OSError, ValueError, urllib.error.URLError):
            return None

    def connected(self) -> http.client.HTTPConnection | None:
        """A connection to it; None where it has just ended."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=3600)
        try:
            connection.connect()
        except OSError:
            self.is_healthy = False
            return None
        return connection


class Replicas:
    """All of them."""

    def __init__(self, spec: dict[str, Any]) -> None:
        OWN.write_text(json.dumps({**spec, "host": "127.0.0.1"}), "utf-8")
        self.program, count = spec["engine"], spec["replicas"]
        self.all = [
            Replica(number, devices) for number, devices in enumerate(shares(os.environ.get("CUDA_VISIBLE_DEVICES"), count))
        ]
        self.lock = threading.Lock()
        self.was_complete = False

    @property
    def is_ready(self) -> bool:
        """All have answered, and one does."""
        self.was_complete = self.was_complete or all(each.has_answered for each in self.all)
        return self.was_complete and any(each.is_healthy for each in self.all)

    def keep(self, replica: Replica) -> None:
        """Start it, watch it, start it again; in a thread of its own. An engine that never answers ends all."""
        tries = 0
        while True:
            with self.lock:  # a child is known before others look for orphans
                argv = [sys.executable, __file__, "--tied", self.program, str(OWN), str(replica.port)]
                process = subprocess.Popen(argv, env=replica.env)
                replica.pid = process.pid
            steady = self._watch(replica, process)
            tries = 1 if steady else tries + 1
            with self.lock:
                replica.pid = 0
                tune_process.end_orphans([each.pid for each in self.all])
            print(f"replica {replica.number} ended with exit code {process.returncode}", file=sys.stderr, flush=True)
            if not replica.has_answered or tries > TRIES:
                os._exit(1)  # whoever keeps us says so, or starts all again
            time.sleep(tune_process.pause(tries))

    def _watch(self, replica: Replica, process: subprocess.Popen[bytes]) -> bool:
        """Until it ends; whether it had answered for long."""
        since = heard = time.monotonic()
        while process.poll() is None:
            now = time.monotonic()
            if replica.answers("/health") is not None:
                since, heard = since if replica.is_healthy else now, now
                replica.is_healthy = replica.has_answered = True
            elif now - heard > 2 * LOOK:
                replica.is_healthy = False
                if replica.has_answered and now - heard > DEAF:
                    process.kill()
            time.sleep(LOOK if replica.is_healthy else STARTING)
        was_healthy, replica.is_healthy = replica.is_healthy, False
        return was_healthy and time.monotonic() - since > STEADY

    def start(self) -> None:
        """The first alone, since it may write what all of them read, then the others at once."""
        for replica in self.all:
            threading.Thread(target=self.keep, args=(replica,), daemon=True).start()
            while not self.all[0].has_answered:
                time.sleep(STARTING)

    @contextmanager
    def taken(self, without: Collection[int]) -> Iterator[Replica | None]:
        """The one with the fewest requests, for one more: one that answers, or else that lives. None where there is no other."""
        with self.lock:
            there = [each for each in self.all if each.pid and each.has_answered and each.number not in without]
            found = min(there, key=lambda each: (not each.is_healthy, each.asked), default=None)
            if found:
                found.asked += 1
        try:
            yield found
        finally:
            if found:
                with self.lock:
                    found.asked -= 1


def shares(devices: str | None, count: int) -> list[str | None]:
    """The devices of each replica, of those that the job was granted; None: as they are."""
    names = [each for each in (devices or "").split(",") if each]
    if len(names) < count:
        return [None] * count
    size = len(names) // count
    return [",".join(names[number * size : (number + 1) * size]) for number in range(count)]


def merged(texts: list[str | None]) -> str:
    """/metrics of all, family by family, each sample with the label of its replica."""
    families: dict[str, tuple[list[str], list[str]]] = {}
    for number, text in enumerate(texts):
        family, label = "", f'replica="{number}"'
        for line in (text or "").splitlines():
            words = line.split(" ", 3)
            if line.startswith("#"):
                family = words[2] if len(words) > 2 else family
                comments, _ = families.setdefault(family, ([], []))
                if line not in comments:
                    comments.append(line)
            elif line:
                name = line.partition(" ")[0].partition("{")[0]
                family = family if family and name.startswith(family) else name
                name, brace, rest = line.partition("{")
                plain, _, value = line.partition(" ")
                sample = f"{name}{{{label},{rest}" if brace else f"{plain}{{{label}}} {value}"
                families.setdefault(family, ([], []))[1].append(sample)
    return "".join(f"{line}\n" for comments, samples in families.values() for line in (*comments, *samples))


class Front(tune_http.Handler):
    """One connection. The engines check keys and requests; what they say is passed on as it is."""

    replicas: Replicas

    def do_GET(self) -> None:  # noqa: N802  # the name that http.server calls
        """Health of all, counters of all, and what any of them says."""
        if self.path == "/health":
            return self.send_whole(*((200, {"status": "ok"}) if self.replicas.is_ready else (503, {"status": "starting"})))
        try:
            if self.path == "/metrics":
                self._check_key()
                found = merged([each.answers("/metrics", self._passed()) for each in self.replicas.all])
                return self.send_whole(200, found, "text/plain")
            return self._forward(None)
        except Refusal as refusal:
            return self.send_whole(refusal.code, refusal.body())
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True

    def do_POST(self) -> None:  # noqa: N802
        """A reply of one engine."""
        self.begun = False
        try:
            self._forward(self.raw_body())
        except Refusal as refusal:
            self.send_whole(refusal.code, refusal.body())
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True

    def _passed(self) -> dict[str, str]:
        return {name: value for name in PASSED if (value := self.headers.get(name))}

    def _forward(self, body: bytes | None) -> None:
        """To one after another until one answers.

        Raises:
            Refusal: none does.
        """
        tried: list[int] = []
        end = time.monotonic() + PATIENCE
        while len(tried) < ENDED:
            with self.replicas.taken(tried[-1:]) as replica:
                connection = replica and replica.connected()
                if replica is None or connection is None:
                    if time.monotonic() > end:
                        raise Refusal(503, "no replica answers just now; they are started again")
                    time.sleep(LOOK / 10)
                    continue
                try:
                    connection.request(self.command, self.path, body, self._passed())
                    response = connection.getresponse()
                    whole = response.read() if response.getheader("Content-Length") else None
                except (OSError, http.client.HTTPException):
                    tried.append(replica.number)
                    connection.close()
                    continue
                try:
                    return self._pass(response, whole)
                finally:
                    connection.close()
        raise Refusal(502, f"{ENDED} replicas ended before they had answered this")

    def _pass(self, response: http.client.HTTPResponse, whole: bytes | None) -> None:
        kind = response.getheader("Content-Type") or "application/json"
        if whole is not None:
            return self.send_whole(response.status, whole, kind)
        self.begin_chunks(kind)
        try:
            while piece := response.read1(PIECE):
                self.chunk(piece)
        except http.client.HTTPException:
            self.close_connection = True  # clients see a reply without its end
            return None
        return self.chunk(b"")


def main(path: str, port: str) -> int:
    """Serve until the process is ended."""
    spec = json.loads(Path(path).read_text("utf-8"))
    tune_process.adopt_orphans()
    Front.replicas = Replicas(spec)
    threading.Thread(target=Front.replicas.start, daemon=True).start()
    return tune_http.serve(Front, spec, port)


def tied(program: str, *words: str) -> None:
    """Become a program that ends with the one that has started it."""
    tune_process.die_with_parent()
    os.execv(sys.executable, [sys.executable, program, *words])  # noqa: S606  # no shell


if __name__ == "__main__":
    if sys.argv[1] == "--tied":
        tied(*sys.argv[2:])
    sys.exit(main(*sys.argv[1:3]))
