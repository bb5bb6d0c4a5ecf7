"""The relay: a Ray job that carries bytes between controllers outside of the cluster and programs on its nodes.

It prints one line, `{"tune_relay": {"host", "port", "token"}}`, and listens there. Whoever can read a job's log in Ray can run any
program in the cluster, so a token in that log keeps out those who can reach the port and not the API. A connection begins with a
line `{"token", "node"}`, the node's address or "" for the head; the answer is the line `{}` or `{"error"}`. After it, the connection is
standard input and output of a Python there that runs `boot.py`. On the way bytes are calls of an actor on that node, so
no port of a node is used. The relay ends when nobody was connected for a while.

    relay.py '{"port": 0}'
"""

from __future__ import annotations

import hmac
import json
import os
import secrets
import socket
import subprocess
import sys
import threading
import time
from contextlib import suppress
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

IDLE = 600.0
"""Seconds without a connection, after which it ends."""
BLOCK = 1 << 20
PATIENCE = 60.0
"""Seconds for an actor on a node to be there."""


class Programs:
    """An actor on one node: programs there, and their standard input and output."""

    def __init__(self, boot: str) -> None:
        self.boot, self.running, self.count = boot, {}, 0  # type: ignore[var-annotated]

    def open(self) -> int:
        """Start one; its number."""
        argv = [sys.executable, "-I", "-S", "-E", "-c", f"exec({self.boot!r})"]
        self.count += 1
        program = self.running[self.count] = subprocess.Popen(
            argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=login_environment(), cwd="/"
        )
        with suppress(OSError):  # Ray's workers have the lowest priority, a training as the node itself; who may not, may not
            os.setpriority(os.PRIO_PROCESS, program.pid, os.getpriority(os.PRIO_PROCESS, os.getppid()))
        return self.count

    def write(self, number: int, data: bytes) -> None:
        """Bytes for its standard input; OSError when it has gone."""
        stdin = self.running[number].stdin
        stdin.write(data)
        stdin.flush()

    def read(self, number: int) -> bytes:
        """The next bytes of its output, waited for; none when there will be no more."""
        return os.read(self.running[number].stdout.fileno(), BLOCK)

    def close(self, number: int) -> None:
        """Let it end: its input is over."""
        program = self.running.pop(number)
        program.stdin.close()
        try:
            program.wait(5)
        except subprocess.TimeoutExpired:
            program.kill()
            program.wait()


def login_environment() -> dict[str, str]:
    """The environment in which Ray was started on this node, without what Ray itself put in.

    A worker's own has more: OMP_NUM_THREADS=1, its accelerators, a PYTHONPATH. Its parent is the raylet.
    """
    try:
        with open(f"/proc/{os.getppid()}/environ", "rb") as file:
            pairs = [each.split(b"=", 1) for each in file.read().split(b"\0") if b"=" in each]
        found = {os.fsdecode(name): os.fsdecode(value) for name, value in pairs}
    except OSError:
        found = dict(os.environ)
    return {name: value for name, value in found.items() if not name.startswith(("RAY_", "TUNE_", "CUDA_VISIBLE_DEVICES"))}


class Relay:
    """Accepts connections until nobody was there for a while."""

    def __init__(self, boot: str, port: int) -> None:
        self.boot, self.token = boot, secrets.token_hex(16)
        self.actors: dict[str, Any] = {}
        self.lock, self.connected, self.idle_since = threading.Lock(), 0, time.monotonic()
        self.listener = socket.create_server(("", port), backlog=64)

    def serve(self) -> None:
        """Say where, and accept."""
        where = {"host": ray.util.get_node_ip_address(), "port": self.listener.getsockname()[1], "token": self.token}
        print(json.dumps({"tune_relay": where}), flush=True)
        self.listener.settimeout(5.0)
        while self.connected or time.monotonic() < self.idle_since + IDLE:
            try:
                stream, _ = self.listener.accept()
            except TimeoutError:
                continue
            threading.Thread(target=self.connection, args=(stream,), daemon=True).start()

    def connection(self, stream: socket.socket) -> None:
        """One, to its end."""
        with self.lock:
            self.connected += 1
        try:
            stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.carry(stream)
        except (OSError, ValueError, TypeError, ray.exceptions.RayError) as error:
            print(f"a connection ended: {type(error).__name__}: {str(error)[:500]}", flush=True)
        finally:
            stream.close()
            with self.lock:
                self.connected -= 1
                self.idle_since = time.monotonic()

    def carry(self, stream: socket.socket) -> None:
        """Let it in, start its program, and carry bytes both ways."""
        stream.settimeout(30.0)
        asked = json.loads(first_line(stream))
        if not hmac.compare_digest(str(asked.get("token")), self.token):
            return
        node = str(asked["node"])
        try:
            actor = self.actor(node)
            number = ray.get(actor.open.remote(), timeout=PATIENCE)
        except (LookupError, ray.exceptions.RayError) as error:
            with self.lock:
                self.actors.pop(node, None)
            stream.sendall(json.dumps({"error": str(error).splitlines()[0][:500]}).encode() + b"\n")
            return
        stream.sendall(b"{}\n")
        stream.settimeout(None)
        down = threading.Thread(target=self.down, args=(stream, actor, number), daemon=True)
        down.start()
        try:
            while data := stream.recv(BLOCK):
                ray.get(actor.write.remote(number, data))
        finally:
            actor.close.remote(number)
            down.join(10)

    def down(self, stream: socket.socket, actor: Any, number: int) -> None:
        """What the program says, until it ends."""
        with suppress(OSError, ray.exceptions.RayError):
            while data := ray.get(actor.read.remote(number)):
                stream.sendall(data)
        with suppress(OSError):
            stream.shutdown(socket.SHUT_RDWR)

    def actor(self, node: str) -> Any:
        """That of a node; LookupError when the cluster has no such node now."""
        with self.lock:
            alive = [each for each in ray.nodes() if each["Alive"]]
            mine = [each for each in alive if (each["NodeManagerAddress"] == node if node else is_head(each))]
            if not mine:
                known = ", ".join(sorted(each["NodeManagerAddress"] for each in alive))
                raise LookupError(f"{node or 'the head'} is no node of the cluster now; it has {known}")
            if node not in self.actors:
                where = NodeAffinitySchedulingStrategy(mine[0]["NodeID"], soft=False)
                options = {"num_cpus": 0, "max_concurrency": 256, "scheduling_strategy": where}
                self.actors[node] = ray.remote(Programs).options(**options).remote(self.boot)
            return self.actors[node]


def is_head(node: Any) -> bool:
    """Is it the head node?"""
    return "node:__internal_head__" in node["Resources"]


def first_line(stream: socket.socket) -> bytes:
    """What a connection begins with; ValueError when that is too long."""
    line = b""
    while not line.endswith(b"\n"):
        more = stream.recv(1)
        if not more or len(line) > 1000:
            raise ValueError("no first line")
        line += more
    return line


if __name__ == "__main__":
    settings = json.loads(sys.argv[1])
    ray.init(log_to_driver=False)
    with open(os.path.join(os.path.dirname(os.path.abspath(__file__)), "boot.py"), encoding="utf-8") as text:
        Relay(text.read(), settings["port"]).serve()
