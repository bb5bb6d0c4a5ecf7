"""A real Ray on hosts of the lab: a head and a second node, whose processes can be ended and begun again.

Its package lies in an environment of its own, beside those of the trainers. Without root or the package index the tests that need
it are skipped; with `ray` in TUNE_REQUIRE they fail.
"""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from orchestrator.agent.provision import find_uv
from orchestrator.transports.base import TransportError
from orchestrator.transports.ray.jobs_api import JobsApi
from tests.hosts.lab import Node, laboratory, missing

RELEASE = "2.60.0"
TRIES = 3
NODE = "--num-cpus=2 --object-store-memory=80000000 --disable-usage-stats --include-log-monitor=false"


@dataclass
class RayCluster:
    """The first host is the head. Each node has 2 CPUs, the head also two of the resource `one`, each node one `FIRST`, `SECOND`."""

    nodes: list[Node]
    programs: Path
    """Folder of Ray's programs."""

    @property
    def url(self) -> str:
        return f"http://{self.nodes[0].address}:8265"

    def start(self, index: int) -> None:
        """Begin a node, the head first."""
        node, head = self.nodes[index], self.nodes[0].address
        way = "--head --port=6379 --dashboard-host=0.0.0.0 --dashboard-port=8265" if index == 0 else f"--address={head}:6379"
        own = json.dumps({"one": 2} if index == 0 else {"two": 2})
        words = f"ray start {way} --node-ip-address={node.address} {NODE} --resources='{own}'"
        # ahead of what else this machine does, until it has begun; its workers are else behind everything
        script = f"""
            echo -15 >/proc/self/autogroup
            export PATH={self.programs}:$PATH RAY_worker_niceness=0
            nice -n -15 {words} >/tmp/ray-start.log 2>&1 </dev/null || exit 1
            renice -n 0 -p $(pgrep -f ray) >/dev/null 2>&1
            true
        """
        for last in range(TRIES):
            try:
                node.run("setsid", "--wait", "bash", "-c", script)
                break
            except AssertionError:
                if last == TRIES - 1:
                    pytest.fail(f"ray does not start: {node.run('tail', '-n', '5', '/tmp/ray-start.log')}")
                self.kill(index)
        self.until_there()

    def kill(self, index: int) -> None:
        """End all of a node at once, as a power cut does; its disk stays."""
        self.nodes[index].reboot()

    def kill_ray(self, index: int) -> None:
        """End Ray's own processes of a node at once: what it started, and what we did, is left to itself."""
        self.nodes[index].run("bash", "-c", "kill -9 $(pgrep -f '[r]aylet/raylet|[g]cs/gcs_server|[r]ay/dashboard') || true")

    def until_there(self) -> None:
        """Wait until it answers."""
        api, end = JobsApi(self.url), time.monotonic() + 300.0
        while True:
            try:
                api.version()
                return
            except TransportError:
                assert time.monotonic() < end, "the dashboard does not answer"
                time.sleep(0.3)


def programs() -> Path:
    """Folder of the programs of Ray's package, installed once for all runs: not below /tmp, of which the hosts have their own."""
    folder = Path(f"/var/tmp/tunesmith-tests-{os.getuid()}") / "engines" / f"ray-{RELEASE}"  # private to this user
    folder.parent.mkdir(parents=True, exist_ok=True)
    with (folder.parent / "ray.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / ".ready").exists():
            uv = find_uv()
            # the hosts' own Python: their users may not enter the folder of ours
            subprocess.run([uv, "venv", "--quiet", "--clear", "--python", "/usr/bin/python3", str(folder)], check=True)
            wanted = [f"ray[default]=={RELEASE}"]
            subprocess.run([uv, "pip", "install", "--quiet", "--python", str(folder / "bin/python"), *wanted], check=True)
            [node] = folder.glob("lib/python3*/site-packages/ray/_private/node.py")
            text = node.read_text()
            given, patient = (f"raylet_start_wait_time_s = {seconds}\n" for seconds in (30, 300))  # others have the machine, too
            assert given in text or patient in text
            node.unlink()  # uv links files from its cache: that one stays as it is
            node.write_text(text.replace(given, patient))
            (folder / ".ready").touch()
    return folder / "bin"


@pytest.fixture(scope="session")
def ray(shared_home: Path) -> Iterator[RayCluster]:
    """A cluster of two nodes, for all tests of a worker; trainers' environments are in sight there."""
    why = missing()
    try:
        there = programs() if not why else Path()
    except (OSError, subprocess.CalledProcessError) as error:
        why = f"Ray cannot be installed: {error}"
    if why:
        if "ray" in os.environ.get("TUNE_REQUIRE", ""):
            pytest.fail(why)
        pytest.skip(why)
    with laboratory(2, shared_home) as lab:
        cluster = RayCluster(lab.nodes, there)
        cluster.start(0)
        cluster.start(1)
        yield cluster
