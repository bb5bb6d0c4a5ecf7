"""A served job under faults: the real program that keeps a server up, a small engine behind it."""

import os
import signal
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from backends.plan import Environment, File, Input, Step
from backends.stages.registry import STAGES
from backends.stages.stage import StageContext
from orchestrator.client.stages import checked
from orchestrator.client.submit import enqueue
from orchestrator.targets.model import Candidate
from orchestrator.targets.node import Node

WAIT = 120
ENGINE = """
import http.server, os, sys
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = str(os.getpid()).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *words):
        pass
print("engine", os.getpid(), flush=True)
http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[2])), Handler).serve_forever()
"""
PID = "import urllib.request, sys; print(urllib.request.urlopen(f'http://127.0.0.1:{sys.argv[1]}/health', timeout=10).read().decode())"


@pytest.fixture
def serve(lab):
    """Queues a server by its own plan, its engine replaced by a small one, at a port; it is told to end afterwards."""
    queued = []

    def submit(id, where, port, **settings):
        context = StageContext("tiny", model=Input("inputs/model", "model"))
        plan = STAGES["serve"].plan(checked("serve", {"port": port, **settings}), context)
        kept = ("serve.json", "tune_serve.py", "tune_served.py", "tune_apart.py", "tune_process.py")
        files = [file for file in plan.files if file.path in kept]
        made = replace(
            plan,
            environment=Environment("serve", "/bin/sh", "", "cpu"),
            files=(*files, File("tune_server.py", ENGINE)),
            steps=(Step("serve", ("/usr/bin/python3", "tune_serve.py", "serve.json")),),
            inputs=(),
        )
        queued.append(id)
        return enqueue(lab.home, id, made, [where], {}, 0)

    yield submit
    for id in queued:
        if lab.job(id).ended is None:
            lab.tune("cancel", id)
            lab.wait(id, WAIT)


def free():
    """A port that nobody has."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        return bound.getsockname()[1]


def engine(port, node=None):
    """Pid of the engine that answers at a port, here or on a host; empty when none does."""
    if node:
        return node.run("sh", "-c", f'python3 -c "{PID}" {port} || true', user=True).strip()
    done = subprocess.run([sys.executable, "-c", PID, str(port)], capture_output=True, text=True, check=False)
    return done.stdout.strip()


def here():
    """This machine, with room for two."""
    return Candidate.of("local", "local", [Node("local", 2)])


def test_a_killed_server_comes_again_alone(lab, serve):
    """READY, RUNNING while it is started again, READY at the same port with another process, in the same attempt; and a second job that
    wants the port fails with its number.
    """
    port = free()
    serve("a", here(), port)
    lab.wait("a", WAIT, state="READY")
    first = engine(port)
    serve("b", here(), port)
    second = lab.wait("b", WAIT)
    assert (second.state, second.reason) == ("FAILED", "port_in_use"), second
    assert str(port) in second.detail
    assert engine(port) == first
    os.kill(int(first), signal.SIGKILL)
    lab.wait("a", WAIT, until=lambda _: lab.events("a").count("READY") == 2)
    assert [state for state in lab.events("a") if state in ("READY", "RUNNING")] == ["RUNNING", "READY", "RUNNING", "READY"]
    assert engine(port) not in ("", first)
    assert lab.job("a").attempt == 1


def test_a_killed_keeper_is_another_attempt(lab, serve):
    """What keeps the server up is killed: its engine goes with it, and a second attempt serves at the same port."""
    port = free()
    serve("a", here(), port)
    lab.wait("a", WAIT, state="READY")
    first = engine(port)
    keeper = Path(f"/proc/{first}/stat").read_text().rpartition(")")[2].split()[1]
    os.kill(int(keeper), signal.SIGKILL)
    lab.wait("a", WAIT, attempt=2, state="READY")
    assert engine(port) not in ("", first)


def test_a_killed_controller_leaves_the_server(lab, serve):
    """It answers while nobody watches, is started again alone, and the next controller finds it READY in the same attempt."""
    port = free()
    serve("a", here(), port)
    lab.wait("a", WAIT, state="READY")
    first = engine(port)
    lab.kill_controllers()
    assert engine(port) == first
    os.kill(int(first), signal.SIGKILL)  # and it is kept up without a controller, too
    lab.tune("status", "a")
    lab.submit("b", lab.training(1), steps=1, slots=2)
    assert lab.wait("b", WAIT).state == "SUCCEEDED"
    # READY is what the store last knew, until the new controller has asked; so the engine is asked, too.
    job = lab.wait("a", WAIT, until=lambda job: job.ended or (job.state == "READY" and engine(port) not in ("", first)))
    assert (job.state, job.attempt) == ("READY", 1)


def test_a_cut_host_serves_on(lab, serve, hosts):
    """Out of reach it is not dead: unreachable and READY, one process at its port throughout; healed, the same one is followed on."""
    [node, *_] = hosts
    node.run("rm", "-rf", "/home/tunelab/tune", user=True)
    port = free()
    where = Candidate.of("lab", "ssh", [Node(node.name, 1, address=node.address, ssh=node.host(folder="~/tune"))])
    serve("a", where, port)
    lab.wait("a", WAIT, state="READY")
    first = engine(port, node)
    node.cut()
    job = lab.wait("a", WAIT, reachable=False)
    assert (job.state, job.attempt, job.ended) == ("READY", 1, None)
    assert engine(port, node) == first
    node.heal()
    job = lab.wait("a", WAIT, reachable=True)
    assert (job.state, job.attempt) == ("READY", 1)
    assert engine(port, node) == first
    commands = [Path(f"/proc/{pid}/cmdline").read_bytes() for pid in lab.processes("a", node)]
    assert sum(b"tune_server.py" in command for command in commands) == 1
