"""From a plan to what a host is given: the request of an attempt, and how the store keeps a job's."""

from __future__ import annotations

import sys
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from backends.checkpoints import LINK
from backends.plan import HEAD, JOB, PORT, RANK, Environment
from orchestrator import agent
from orchestrator.agent.provision import address, ready
from orchestrator.home import Home
from orchestrator.targets.node import Node
from orchestrator.transports.base import Request

GRACE = 10.0
"""Seconds between asking a job's processes to end and killing them."""
AGENT = Path(str(agent.__file__)).parent
"""Our own modules for hosts."""
SHIPPED = ".tune/orchestrator/agent"
"""Where an attempt has them that makes its environment on another host."""


@dataclass(frozen=True)
class HostPaths:
    """What an attempt stands on at its host, known once the host was asked."""

    folder: str
    """The state folder there, absolute."""
    interpreter: str
    """A Python that can run `agent.provision`."""
    platform: str = ""
    """As `provision.address` wants it; empty is that of this machine."""
    notify: str = ""
    """Socket of whoever wants to hear of news."""
    uv: str = ""
    """The uv program there; empty lets `agent.provision` look for one."""
    wheels: str = ""
    """Folder of wheels there, where no index is reached."""
    inputs: Mapping[str, str] = field(default_factory=dict)
    """The plan's path of an input -> where it lies there, absolute or relative to the state folder."""
    interface: str = ""
    """The network interface by which it reaches the other hosts of the attempt."""
    here: bool = True
    """This machine: what is ready can be seen, and our own files can be used."""


def ground(home: Home, plan: Mapping[str, Any]) -> HostPaths:
    """This machine."""
    inputs = {each["path"]: str(Path(each["source"]).expanduser()) for each in plan["inputs"]}
    return HostPaths(str(home.path), sys.executable, notify=str(home.socket), inputs=inputs)


def request(
    job: str,
    attempt: int,
    plan: Mapping[str, Any],
    hosts: Sequence[tuple[Node, Sequence[int]]],
    rank: int,
    below: HostPaths,
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


def _provision(environment: Environment, below: HostPaths, files: dict[str, str]) -> dict[str, Any]:
    """The step that makes the environment there; left out by the runner where it is ready."""
    files["env.lock"] = environment.lock
    program = str(AGENT) if below.here else SHIPPED
    if not below.here:
        files.update({f"{SHIPPED}/{name}.py": (AGENT / f"{name}.py").read_text("utf-8") for name in agent.PROVISIONING})
    more = [word for option, value in (("--uv", below.uv), ("--wheels", below.wheels)) if value for word in (option, value)]
    wanted = ["--python", environment.python, "--accelerator", environment.accelerator]
    argv = [below.interpreter, "-I", program, "provision", f"{below.folder}/envs", environment.name, "env.lock", *wanted, *more]
    return {"name": "environment", "argv": argv, "made": "" if below.here else "env/.ready"}


def _filled(text: str, words: Mapping[str, str]) -> str:
    """A word of a plan with what is known now that the job has its place."""
    for token, value in words.items():
        text = text.replace(token, value)
    return text


def _port(job: str, attempt: int) -> int:
    """Where the job's processes meet: the same for all hosts without asking any, rarely the same for two jobs."""
    return 20_000 + zlib.crc32(f"{job}/{attempt}".encode()) % 10_000
