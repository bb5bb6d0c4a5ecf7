"""What a user is told of a target before and while jobs run on it: whether the API gives what clusters.yaml says, what would be sent to
it, and what slices there are, since when, and at what cost.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from orchestrator.executors.base import EngineCheck
from orchestrator.executors.tpu.api import Call, attributes_asked, create_call, delete_call
from orchestrator.executors.tpu.pool import Look, Pool, remembered, slice_lines
from orchestrator.executors.tpu.site import TpuSite
from orchestrator.executors.tpu.slices import nodes, placement
from orchestrator.transports.base import TransportError

if TYPE_CHECKING:
    from orchestrator.home import Home
    from orchestrator.targets.model import Candidate
    from orchestrator.targets.node import Node


def requests(candidate: Candidate) -> str:
    """What is sent to the API for a job, as text; nothing is sent."""
    site = TpuSite.of(candidate)
    if not site.asks:
        return f"No request to the Cloud TPU API: {candidate.name} names its {len(candidate.nodes)} host(s)."
    zone = site.zones[0]
    path = f"projects/{site.project}/locations/{zone}"
    if not site.queued:
        calls = [Call("GET", f"{path}/nodes/{name}") for name in site.nodes(site.name)]
        if site.iap or not site.known_hosts:
            asked = attributes_asked(whole=site.iap)
            calls += [Call("POST", f"{path}/nodes/{name}:getGuestAttributes", asked) for name in site.nodes(site.name)]
        return "\n".join([*(each.text for each in calls), *_way(candidate, zone)])
    kind, name = site.types[0], "tune-NAME"
    lines = [create_call(site.project, zone, name, site.body(zone, kind, name)).text]
    if others := [f"{kind} in {zone}" for zone, kind in site.places[1:]]:
        lines.append(f"# where that has no capacity: {', '.join(others)}")
    idle = site.queue.get("idle", 0)
    lines.append("# when no job wants it any more" + (f", after {idle} minutes" if idle else ""))
    lines.append(delete_call(site.project, zone, name).text)
    return "\n".join([*lines, *_way(candidate, zone)])


def _way(candidate: Candidate, zone: str) -> list[str]:
    """How the workers are reached, where that is not directly."""
    ssh = candidate.nodes[0].ssh
    if ssh and ssh.proxy:
        return [
            "# workers are reached by ssh with this ProxyCommand, %h being the name of a worker's VM",
            ssh.proxy.format(zone=zone),
        ]
    return [f"# workers are reached through {ssh.jump}"] if ssh and ssh.jump else []


def check(home: Home, candidate: Candidate) -> EngineCheck:
    """Ask the API for a target's slices. It waits."""
    site = TpuSite.of(candidate)
    if not site.asks:
        return EngineCheck()
    try:
        look = Pool(home, candidate).look()
    except TransportError as error:
        return EngineCheck(fault=f"{candidate.name}: {error}")
    lines = slice_lines(look.views, site, time.time(), {})
    if site.queued:
        return EngineCheck(note="; ".join(lines) or f"no slice is asked for or there; a job asks for {site.types[0]}")
    if not look.views:
        return EngineCheck(fault=f"{candidate.name}: there is no TPU {site.name} in {site.zones[0]} of {site.project}")
    [view] = look.views
    if view.type not in ("", *site.types):
        return EngineCheck(fault=f"{candidate.name}: {site.name} is a {view.type}, clusters.yaml says type {site.types[0]}")
    if view.state != "ready":
        return EngineCheck(fault=f"{candidate.name}: {site.name}: {view.words}")
    return EngineCheck(note="; ".join(lines))


def workers(home: Home, candidate: Candidate) -> tuple[Node, ...]:
    """The hosts that the API names now; none where it cannot be asked, of which `check` tells."""
    try:
        looked: Look = Pool(home, candidate).look()
    except TransportError:
        return ()
    ready = [view for view in looked.views if view.workers]
    return tuple(node for view in ready for node in nodes(candidate, placement(candidate.name, view, candidate.target.devices)))


def slices(home: Home, candidate: Candidate) -> list[str]:
    """A line for each slice that was asked for, as it was seen last; nothing is asked."""
    return remembered(home, candidate, time.time())
