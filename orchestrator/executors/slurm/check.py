"""What a site says of a target before any job is submitted: `tune targets check`."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from orchestrator.agent.slurm_site import minutes
from orchestrator.executors.base import EngineCheck
from orchestrator.executors.slurm.login import LoginNode, NotQueued
from orchestrator.executors.slurm.script import probe
from orchestrator.executors.slurm.section import Site
from orchestrator.home import Home
from orchestrator.targets.connect import connect
from orchestrator.targets.inventory import owner
from orchestrator.targets.model import Candidate
from orchestrator.transports.base import TransportError

if TYPE_CHECKING:
    from orchestrator.agent.files import Json

WAIT = 45.0
"""Seconds that the job may wait which looks about on a compute node."""


def check(home: Home, candidate: Candidate) -> EngineCheck:
    """Ask for partitions, limits and accounting, and have a job of a minute look whether a compute node sees the folder."""
    transport = connect(home, candidate.nodes[0])
    login, site = LoginNode.of(home, candidate, transport, owner(home)), Site.of(candidate)
    try:
        said = login.slurm("site")
        longest = minutes(site.time) if site.time else None
        wanted: Json = {"partition": site.partition, "nodes": candidate.target.hosts, "minutes": longest}
        if trouble := login.slurm("limits", limits=wanted)["trouble"]:
            return EngineCheck(f"{candidate.name}: {trouble}")
        text = probe(site, _index())
        found = login.slurm("probe", script=text, agent=login.brought(), seconds_to_wait=WAIT)
    except (NotQueued, TransportError) as error:
        return EngineCheck(f"{candidate.name}: {error}")
    finally:
        transport.close()
    if found["found"] is None and found["state"] not in ("PENDING", "CONFIGURING"):
        return EngineCheck(_unseen(candidate, found))
    return EngineCheck(note="; ".join(_notes(candidate, site, said, found)))


def _unseen(candidate: Candidate, found: Json) -> str:
    """Why no compute node told us anything."""
    if words := str(found["out"]).strip().splitlines()[-1:]:
        return f"{candidate.name}: a job of a minute ended as {found['state']}: {words[0][:300]}"
    node = candidate.nodes[0]
    folder = node.ssh.folder if node.ssh else "TUNE_HOME"
    return (
        f"{candidate.name}: what a job wrote on {found['node'] or 'a compute node'} is not seen on the login node: {folder} should be"
        " a folder that both have in common"
    )


def _notes(candidate: Candidate, site: Site, said: Json, found: Json) -> Iterator[str]:
    config = said["config"]
    yield f"Slurm {config['SLURM_VERSION']}, cluster {config['ClusterName']}"
    if config["AccountingStorageType"].endswith("none"):
        yield f"no accounting: how a job ended is known for {config['MinJobAge']}, then by our own files alone"
    if (kill := config["KillWait"].split()[:1]) and kill[0].isdigit() and int(kill[0]) < 5:
        yield f"KillWait is {config['KillWait']}: a job that Slurm ends has no time to say so"
    if not site.time:
        yield "no `time:`, so jobs get the partition's default"
    if told := found["found"]:
        reach = "reaches" if told["index"] else "does not reach"
        yield f"compute node {told['node']} sees the folder, has Python {told['python']}, {reach} a package index"
        if candidate.target.accelerator == "cuda" and not told["gpus"]:
            yield "a job that asked for a GPU found none in CUDA_VISIBLE_DEVICES"
    else:
        yield f"whether compute nodes see the folder is not known: a job of a minute still waits after {WAIT:.0f} s ({found['reason']})"


def _index() -> str:
    """HOST:PORT of the package index that environments are made from."""
    parts = urlsplit(os.environ.get("PIP_INDEX_URL") or "https://pypi.org/simple")
    return f"{parts.hostname or 'pypi.org'}:{parts.port or (80 if parts.scheme == 'http' else 443)}"
