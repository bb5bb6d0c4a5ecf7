"""From a plan to what a host is given: the request of an attempt, and how the store keeps a job's."""

from __future__ import annotations

import sys
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from backends.checkpoints import LINK
from backends.plan import HEAD, JOB, PORT, RANK, Environment, Plan
from orchestrator import agent
from orchestrator.agent.identity import owner_words
from orchestrator.agent.provision import address, ready
from orchestrator.home import Home
from orchestrator.store.attempts import ResumePoint
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


def brought(plan: Plan) -> dict[str, Path]:
    """Inputs that lie on the machine that submits: path in the job's folder -> where it lies."""
    return {each.path: Path(each.source).expanduser() for each in plan.inputs if not each.made_by}


def local_paths(home: Home, plan: Plan) -> HostPaths:
    """This machine."""
    inputs = {path: str(source) for path, source in brought(plan).items()}
    return HostPaths(str(home.path), sys.executable, notify=str(home.socket), inputs=inputs)


def request(
    job: str,
    attempt: int,
    plan: Plan,
    hosts: Sequence[tuple[Node, Sequence[int]]],
    rank: int,
    paths: HostPaths,
    secrets: Mapping[str, str],
    owner: str = "",
    resume: ResumePoint | None = None,
    *,
    granted: bool = True,
) -> Request:
    """What the runner of one host is told: the plan, with the host's environment, folders and rank put in.

    Args:
        job: its id.
        attempt: from 1.
        plan: what was decided.
        hosts: all hosts of the attempt by rank, and the devices that it has there.
        rank: which of them.
        paths: what the attempt stands on there.
        secrets: values for the environment.
        owner: whose attempt it is: this controller's.
        resume: the checkpoint of an earlier attempt that this one goes on from.
        granted: hosts and devices are known; else whoever starts the steps in the allocation puts in what is known only there.
    """
    node, devices = hosts[rank]
    environment = plan.environment
    files = {file.path: file.text for file in plan.files}
    links = {"cache": "cache", **plan.there, **paths.inputs}
    if resume:
        sent = paths.inputs.get(LINK)  # by the name that it had, which trainers read
        links[LINK] = f"{sent}/{Path(resume.folder).name}" if sent else f"jobs/{job}/{resume.attempt}/work/{resume.folder}"
    values = {JOB: job}
    if granted:
        values |= {RANK: str(rank), HEAD: hosts[0][0].address, PORT: str(_port(job, attempt))}
    steps = _steps(plan, rank, values)
    if environment.lock:
        place = address(Path(paths.folder, "envs"), environment, paths.platform)
        links["env"] = str(place)
        if not (paths.here and ready(place)):
            steps.insert(0, _provision(environment, paths, files))
    return Request(
        job,
        attempt,
        tuple(steps),
        files,
        links,
        _variables(plan, node, paths, values, devices if granted else None),
        GRACE,
        notify=paths.notify,
        devices=tuple(devices),
        accelerator=environment.accelerator,
        occupied=node.occupied,
        lease=owner_words(owner),
        owner=owner,
        rank=rank,
        hosts=len(hosts),
        secrets=secrets,
        allocation=f"allocations/{job}-{attempt}" if node.ray else "",
    )


def _steps(plan: Plan, rank: int, values: Mapping[str, str]) -> list[dict[str, object]]:
    """Those that run on the host of a rank."""
    return [
        {**asdict(step), "argv": [_filled(word, values) for word in step.argv]}
        for step in plan.steps
        if rank == 0 or step.everywhere
    ]


def _variables(
    plan: Plan, node: Node, paths: HostPaths, values: Mapping[str, str], devices: Sequence[int] | None
) -> dict[str, str]:
    """The environment of the steps; `devices` are None where they are known in the allocation alone."""
    # torch takes the interface that the host's own name leads to, on many hosts the loopback
    meeting = dict.fromkeys(("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME"), paths.interface) if paths.interface else {}
    env = {**meeting, **node.env, **{name: _filled(value, values) for name, value in plan.env}}
    if plan.environment.accelerator == "cuda":
        if devices is not None:
            env["CUDA_VISIBLE_DEVICES"] = ",".join(map(str, devices))
        env["CUDA_DEVICE_ORDER"] = "PCI_BUS_ID"  # as the host's locks count; CUDA by itself begins with the fastest
    return env


def _provision(environment: Environment, paths: HostPaths, files: dict[str, str]) -> dict[str, Any]:
    """The step that makes the environment there; left out by the runner where it is ready."""
    files["env.lock"] = environment.lock
    program = str(AGENT) if paths.here else SHIPPED
    if not paths.here:
        files.update({f"{SHIPPED}/{name}.py": (AGENT / f"{name}.py").read_text("utf-8") for name in agent.PROVISIONING})
    more = [word for option, value in (("--uv", paths.uv), ("--wheels", paths.wheels)) if value for word in (option, value)]
    wanted = ["--python", environment.python, "--accelerator", environment.accelerator]
    argv = [paths.interpreter, "-I", program, "provision", f"{paths.folder}/envs", environment.name, "env.lock", *wanted, *more]
    return {"name": "environment", "argv": argv, "made": "" if paths.here else "env/.ready"}


def _filled(text: str, values: Mapping[str, str]) -> str:
    """A word of a plan with what is known now that the job has its place."""
    for token, value in values.items():
        text = text.replace(token, value)
    return text


def _port(job: str, attempt: int) -> int:
    """Where the job's processes meet: the same for all hosts without asking any, rarely the same for two jobs."""
    return 20_000 + zlib.crc32(f"{job}/{attempt}".encode()) % 10_000
