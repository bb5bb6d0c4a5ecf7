"""Jobs that take milliseconds: real runner, real controller, real store; only the trainer is a shell script."""

import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

from backends.plan import Environment, Plan, Promise, Step
from orchestrator.client.submit import QueuedJob, enqueue_all
from orchestrator.daemon.client import alive
from orchestrator.home import Home
from orchestrator.store import open_store
from orchestrator.targets.model import Candidate
from orchestrator.targets.node import Node
from tests.hosts.lab import hosts, network  # noqa: F401
from tests.processes import CONTROLLER, kill_all, pids_of
from tests.unit.store.conftest import postgres_url, server  # noqa: F401

CLOCKED = "/home/tunelab/clock"
METRICS = "out/logs/csv/version_0/metrics.csv"
CLOCK = """#!/usr/bin/python3 -ISE
import sys, time
real = time.time
def told():
    with open({path!r}) as file:
        return real() + float(file.read())
time.time = told
exec(sys.argv[-1])
"""
"""An interpreter on a host whose clock is off by as much as a file says."""
HEADER = "epoch,iter,iter_time,learning_rate,loss,step,tokens,total_tokens"

SEED = int(os.environ.get("TUNE_TEST_SEED") or random.SystemRandom().randrange(10**6))


def training(steps, pause=0.0, loss="2.5", files="checkpoint/model.safetensors checkpoint/config.json checkpoint/tokenizer.json"):
    """A script that reports steps as LitGPT does, and leaves files."""
    return f"""
mkdir -p $(dirname {METRICS}) checkpoint
echo {HEADER} > {METRICS}
i=0
while [ $i -lt {steps} ]; do
  i=$((i+1)); sleep {pause}
  echo "0,$i,0.01,0.001,{loss},$i,$((i*10)),$((i*10))" >> {METRICS}
done
for f in {files}; do echo x > $f; done
"""


def shell_plan(*scripts, steps=None, devices=1, secrets=(), name="fault", hosts=1, retry=None):  # noqa: F811
    """A plan whose steps are shell scripts; the last is called train."""
    names = [f"step{n}" for n in range(1, len(scripts))] + ["train"]
    return Plan(
        recipe=name,
        backend="litgpt",
        environment=Environment("litgpt", "/bin/sh", "", "cpu"),
        files=(),
        steps=tuple(Step(n, ("/bin/sh", "-c", script)) for n, script in zip(names, scripts, strict=True)),
        inputs=(),
        env=(),
        secrets=tuple(secrets),
        promise=Promise(steps, ("checkpoint/config.json", "checkpoint/*.safetensors", "checkpoint/tokenizer.json")),
        watch=("out/logs/csv/version_*/metrics.csv",),
        reading={"every": 1, "first_lr": 0.0, "accumulation": 1},
        devices=devices,
        hosts=hosts,
        retry={"hang_minutes": 60.0, **({} if retry is None else retry)},  # without it: the defaults of a plan of older releases
    )


def here(slots):
    """This machine, with room for so many jobs at once."""
    return Candidate.of("local", "local", [Node("local", slots)])


def clocked(node):
    """Give a host a clock that `set_clock` sets; the interpreter that goes by it."""
    interpreter, path = f"{CLOCKED}/python", f"{CLOCKED}/ahead"
    set_clock(node, 0)
    node.run("sh", "-c", 'printf %s "$1" > "$0"; chmod 755 "$0"', interpreter, CLOCK.format(path=path), user=True)
    return interpreter


def set_clock(node, seconds):
    """Set the clock of a host so far ahead of ours."""
    node.run("sh", "-c", f"mkdir -p {CLOCKED}; echo {seconds} > {CLOCKED}/new; mv {CLOCKED}/new {CLOCKED}/ahead", user=True)


class Lab:
    """One state folder, and what can be done to it."""

    training = staticmethod(training)

    def __init__(self, home: Path) -> None:
        self.home = Home(home).make()

    def submit(self, job, *scripts, slots=1, secrets=None, priority=0, where=None, keep=0.0, **kw):
        """Queue a job and wake a controller."""
        decided = shell_plan(*scripts, secrets=tuple(secrets or ()), **kw)
        queued = QueuedJob(job, decided, where or [here(slots)], priority, keep=keep)
        return bool(enqueue_all(self.home, [queued], secrets or {}))

    def job(self, id):
        with open_store(self.home.store) as store:
            return store.job(id)

    def wait(self, id, seconds=120, until=lambda job: job.ended, **fields):
        """The job, when it has ended (or is as `until` says), or when its fields are these."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            job = self.job(id)
            if all(getattr(job, k) == v for k, v in fields.items()) if fields else until(job):
                return job
            time.sleep(0.02)
        raise AssertionError(f"{self.job(id)}\n{self.log()}")

    def log(self):
        return self.home.log.read_text() if self.home.log.exists() else ""

    def points(self, id, name="loss"):
        with open_store(self.home.store) as store:
            return store.points(id, names=[name])

    def events(self, id):
        with open_store(self.home.store) as store:
            return [event.state for event in store.events(id)]

    def controllers(self):
        """Pids of this folder's controllers."""
        return pids_of(self.home.path, CONTROLLER)

    def kill_controllers(self):
        """SIGKILL; when this returns none is left that a submission could take for a living one."""
        kill_all(self.controllers())
        while alive(self.home):
            time.sleep(0.001)

    def processes(self, id, *nodes):
        """Pids that carry the mark of the job's attempts, here or on these hosts; another lab may have a job of this name."""
        folders = [node.home / "tune/jobs" / id for node in nodes] or [self.home.jobs / id]
        tags = [json.loads(meta.read_text())["tag"] for folder in folders for meta in folder.glob("*/meta.json")]
        assert tags, "no attempt was started there"
        marks, found = {f"TUNE_JOB={tag}".encode() for tag in tags}, []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                try:
                    mine = not marks.isdisjoint((entry / "environ").read_bytes().split(b"\0"))
                    if mine and (entry / "stat").read_text().rsplit(")", 1)[1].split()[0] != "Z":
                        found.append(int(entry.name))
                except OSError:
                    continue
        return found

    def tune(self, *words, code=0):
        done = subprocess.run(
            [sys.executable, "-m", "orchestrator.cli", *words],
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == code, done
        return done.stdout


@pytest.fixture
def lab(home, request):
    """A state folder of its own; its controllers are gone afterwards."""
    if os.environ.get("TUNE_TEST_TEAM"):
        request.getfixturevalue("neighbour")
    made = Lab(home)
    yield made
    made.kill_controllers()


@pytest.fixture
def neighbour(postgres_url, tmp_path, monkeypatch):  # noqa: F811
    """With TUNE_TEST_TEAM every test has its store in PostgreSQL, beside another controller that works on a job of its own there."""
    monkeypatch.setenv("TUNE_STORE", postgres_url)
    made = Lab(tmp_path / "neighbour")
    made.submit("neighbours", "sleep 3000", steps=1)
    made.wait("neighbours", state="RUNNING")
    yield made
    made.kill_controllers()
    kill_all(made.processes("neighbours"))


@pytest.fixture
def seed():
    """A seed for random moments; printed, so that a failure can be repeated with TUNE_TEST_SEED."""
    print(f"TUNE_TEST_SEED={SEED}")
    return SEED
