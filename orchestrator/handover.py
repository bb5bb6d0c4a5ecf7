"""From a plan to what a host is given: the request of an attempt, and how the store keeps a job's."""

from __future__ import annotations

import json
import sys
import zlib
from base64 import b64decode, b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from backends.plan import HEAD, JOB, PORT, RANK, Environment
from backends.resuming import LINK
from orchestrator.home import Home
from orchestrator.provision import address, ready
from orchestrator.transports.base import Request

GRACE = 10.0
"""Seconds between asking a job's processes to end and killing them."""
PROVISION = Path(__file__).with_name("provision.py")


@dataclass(frozen=True)
class Stand:
    """One machine where a job may run, as the store keeps it with the job: a later clusters.yaml does not move what runs."""

    machine: str = "local"
    """Name under which all targets that mean this machine find each other."""
    devices: int = 1
    inside: str = "127.0.0.1"
    """Address by which the other hosts of a job reach it."""
    env: Mapping[str, str] = field(default_factory=dict)
    """Variables of all jobs there."""
    ssh: Mapping[str, Any] | None = None
    """Settings of the way there; None is this machine."""
    offline: bool = False
    """It reaches no package index: wheels are prepared here and brought along."""
    occupied: Literal["wait", "use"] = "wait"
    """Whether its accelerators are taken while processes use them that are not tune's."""


@dataclass(frozen=True)
class Ground:
    """What an attempt stands on at its host, known once the host was asked."""

    folder: str
    """The state folder there, absolute."""
    interpreter: str
    """A Python that can run `provision.py`."""
    platform: str = ""
    """As `provision.address` wants it; empty is that of this machine."""
    notify: str = ""
    """Socket of whoever wants to hear of news."""
    uv: str = ""
    """The uv program there; empty lets `provision.py` look for one."""
    wheels: str = ""
    """Folder of wheels there, where no index is reached."""
    inputs: Mapping[str, str] = field(default_factory=dict)
    """The plan's path of an input -> where it lies there, absolute or relative to the state folder."""
    interface: str = ""
    """The network interface by which it reaches the other hosts of the attempt."""
    here: bool = True
    """This machine: what is ready can be seen, and our own files can be used."""


def packed(request: Mapping[str, Any]) -> str:
    """A job's request as the store keeps it."""
    return b64encode(zlib.compress(json.dumps(request, sort_keys=True).encode(), 6)).decode()


def unpacked(text: str) -> dict[str, Any]:
    """The request again."""
    return dict(json.loads(zlib.decompress(b64decode(text))))


def ground(home: Home, plan: Mapping[str, Any]) -> Ground:
    """This machine."""
    inputs = {each["path"]: str(Path(each["source"]).expanduser()) for each in plan["inputs"]}
    return Ground(str(home.path), sys.executable, notify=str(home.socket), inputs=inputs)


def request(
    job: str,
    attempt: int,
    plan: Mapping[str, Any],
    hosts: Sequence[tuple[Stand, Sequence[int]]],
    rank: int,
    below: Ground,
    secrets: Mapping[str, str],
    owner: str = "",
    begun: Mapping[str, Any] | None = None,
) -> Request:
    """What the runner of one host is told: the plan, with the host's environment, folders and rank put in.

    Args:
        job: its id.
        attempt: from 1.
        plan: what was decided, as plain values.
        hosts: all hosts of the attempt by rank, and the devices that it has there.
        rank: which of them.
        below: what the attempt stands on there.
        secrets: values for the environment.
        owner: who holds the devices: this controller.
        begun: the checkpoint of an earlier attempt that this one goes on from: see `metrics.Reading.start`.
    """
    stand, devices = hosts[rank]
    environment = Environment(**plan["environment"])
    files = {file["path"]: file["text"] for file in plan["files"]}
    links = {"cache": "cache", **below.inputs}
    if begun:
        links[LINK] = f"jobs/{job}/{begun['attempt']}/work/{begun['folder']}"
    words = {RANK: str(rank), HEAD: hosts[0][0].inside, PORT: str(_port(job, attempt)), JOB: job}
    steps = [
        {**step, "argv": [_filled(word, words) for word in step["argv"]]}
        for step in plan["steps"]
        if rank == 0 or step["everywhere"]
    ]
    if environment.lock:
        place = address(Path(below.folder, "envs"), environment, below.platform)
        links["env"] = str(place)
        if not (below.here and ready(place)):
            steps.insert(0, _provision(environment, below, files))
    # torch takes the interface that the host's own name leads to, on many hosts the loopback
    meeting = dict.fromkeys(("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME"), below.interface) if below.interface else {}
    env = {**meeting, **stand.env, **{name: _filled(value, words) for name, value in plan["env"]}}
    if environment.accelerator == "cuda":
        env["CUDA_VISIBLE_DEVICES"] = ",".join(map(str, devices))
        env["CUDA_DEVICE_ORDER"] = "PCI_BUS_ID"  # as the host's locks count; CUDA by itself begins with the fastest
    return Request(
        job,
        attempt,
        tuple(steps),
        files,
        links,
        env,
        GRACE,
        notify=below.notify,
        devices=tuple(devices),
        accelerator=environment.accelerator,
        occupied=stand.occupied,
        lease=owner,
        secrets=secrets,
    )


def _provision(environment: Environment, below: Ground, files: dict[str, str]) -> dict[str, Any]:
    """The step that makes the environment there; left out by the runner where it is ready."""
    files["env.lock"] = environment.lock
    script = str(PROVISION)
    if not below.here:
        script = PROVISION.name
        files[script] = PROVISION.read_text("utf-8")
    more = [word for option, value in (("--uv", below.uv), ("--wheels", below.wheels)) if value for word in (option, value)]
    wanted = ["--python", environment.python, "--accelerator", environment.accelerator]
    argv = [below.interpreter, "-I", script, f"{below.folder}/envs", environment.name, "env.lock", *wanted, *more]
    return {"name": "environment", "argv": argv, "made": "" if below.here else "env/.ready"}


def _filled(text: str, words: Mapping[str, str]) -> str:
    """A word of a plan with what is known now that the job has its place."""
    for token, value in words.items():
        text = text.replace(token, value)
    return text


def _port(job: str, attempt: int) -> int:
    """Where the job's processes meet: the same for all hosts without asking any, rarely the same for two jobs."""
    return 20_000 + zlib.crc32(f"{job}/{attempt}".encode()) % 10_000
