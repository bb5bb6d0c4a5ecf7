"""The allocation of an attempt: a Ray job that holds devices for it, and starts nothing.

It waits for its turn, asks Ray for one placement group (STRICT_SPREAD: a bundle a node), and has an actor on each node hold a lock
there. It prints `{"tune": {"state": "pending", "reason"}}`, and once `{"tune": {"state": "granted", "nodes": [{"address", "devices"}]}}`, by
rank. The controller starts the attempt on these nodes; our supervisor there goes on only while the lock is held, so an attempt
ends with its allocation. When the attempt has ended on all nodes, or did not begin for a while, the job ends and Ray has the devices.

    allocation.py '{"job", "attempt", "hosts", "bundle": {"CPU": 1, "GPU": 2}, "node": "", "folder": "~/.tune", "order": 0}'
"""

from __future__ import annotations

import fcntl
import json
import os
import sys
import time
from contextlib import suppress
from typing import Any

import ray
from ray.util.placement_group import placement_group, placement_group_table
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

CLAIM = 900.0
"""Seconds for the controller to start the attempt, after which the devices are given back."""
PACE = 1.0
"""Seconds between two looks."""
UNCLAIMED = 75
"""The exit code of one that nobody used (EX_TEMPFAIL)."""


def say(**what: Any) -> None:
    """A line for the controller."""
    print(json.dumps({"tune": what}), flush=True)


def allocation_lock(folder: str, key: str) -> str:
    """The file that is locked while an attempt has its devices on a node."""
    return f"{folder}/allocations/{key}"


class Held:
    """An actor on a node of the attempt."""

    def hold(self, folder: str, job: str, attempt: int) -> dict[str, Any]:
        """Lock the node's file; the node's address and the devices that Ray gave."""
        self.folder = os.path.expanduser(folder)
        self.attempt = f"{self.folder}/jobs/{job}/{attempt}"
        self.lock = locked(allocation_lock(self.folder, f"{job}-{attempt}"))
        ids = ray.get_runtime_context().get_accelerator_ids().get("GPU", [])
        devices = [int(each) for each in ids if str(each).isdecimal()]
        return {"address": ray.util.get_node_ip_address(), "devices": devices}

    def phase(self) -> str:
        """What the attempt's files say here: see `attempts.status`; with its exit code once it has one."""
        from orchestrator.agent import attempts  # noqa: PLC0415  # comes with the job

        seen = attempts.status(self.attempt)
        return f"exited {seen['rc']}" if seen["phase"] == "exited" else str(seen["phase"])


def locked(path: str) -> int:
    """A descriptor that has a file's lock; OSError when another has it."""
    from orchestrator.agent.files import make_folder  # noqa: PLC0415  # comes with the job

    make_folder(os.path.dirname(path))
    lock = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    return lock


def is_locked(path: str) -> bool:
    """Does somebody have a file's lock?"""
    try:
        with open(path, "rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except OSError:
        return True
    return False


class Turn:
    """A place in the line of those that ask Ray for devices: Ray itself lets a small group pass a large one."""

    def __init__(self, folder: str, order: int, name: str) -> None:
        self.line = f"{os.path.expanduser(folder)}/line"
        self.name = f"{order:020d} {name}"
        self.lock = locked(f"{self.line}/.{self.name}")
        os.rename(f"{self.line}/.{self.name}", f"{self.line}/{self.name}")  # nobody ever sees it without its lock

    def before(self) -> str:
        """Who is next before us; empty when it is our turn. One that died counts no more."""
        for name in sorted(os.listdir(self.line), reverse=True):
            if name < self.name and not name.startswith("."):
                if is_locked(f"{self.line}/{name}"):
                    return name.split(" ", 1)[1]
                remove(f"{self.line}/{name}")
        return ""

    def done(self) -> None:
        """The next may ask."""
        remove(f"{self.line}/{self.name}")
        os.close(self.lock)


def remove(path: str) -> None:
    """Remove a file that may be gone."""
    with suppress(FileNotFoundError):
        os.unlink(path)


def wait_for_turn(turn: Turn) -> None:
    """Return when nobody is before us."""
    told = None
    while before := turn.before():
        if before != told:
            say(state="pending", reason=f"waits behind {before}")
            told = before
        time.sleep(PACE)


def granted(asked: dict[str, Any]) -> Any:
    """The placement group, once Ray has granted it."""
    bundle = asked["bundle"]
    # the checkpoint from which it goes on lies at the first host
    first = {**bundle, f"node:{asked['node']}": 0.001} if asked["node"] else bundle
    strategy = "STRICT_SPREAD" if asked["hosts"] > 1 else "STRICT_PACK"
    group, told = placement_group([first] + [bundle] * (asked["hosts"] - 1), strategy=strategy), None
    while not ray.wait([group.ready()], timeout=PACE)[0]:
        if (reason := why_not(asked, group)) != told:
            say(state="pending", reason=reason)
            told = reason
    return group


def why_not(asked: dict[str, Any], group: Any) -> str:
    """Why Ray has not granted it yet, in Ray's words and figures."""
    bundle = asked["bundle"]
    state = (placement_group_table(group).get("stats") or {}).get("scheduling_state", "PENDING")
    nodes = [each["Resources"] for each in ray.nodes() if each["Alive"]]
    fitting = sum(all(node.get(name, 0) >= amount for name, amount in bundle.items()) for node in nodes)
    need = " ".join(f"{name}:{amount:g}" for name, amount in bundle.items())
    if asked["node"] and not any(f"node:{asked['node']}" in node for node in nodes):
        return f"{state}: its checkpoint lies on {asked['node']}, which is no node of the cluster now"
    if fitting < asked["hosts"]:
        return f"{state}: {asked['hosts']} node(s) with {need} are asked for, the cluster has {fitting} such"
    return f"{state}: {asked['hosts']} node(s) with {need} are asked for, free are {free(bundle)}"


def free(bundle: dict[str, float]) -> str:
    """What the cluster has free of these resources."""
    available = ray.available_resources()
    return " ".join(f"{name}:{available.get(name, 0):g}" for name in bundle)


def actors(asked: dict[str, Any], group: Any) -> list[Any]:
    """One on each node, with all that the group has there."""
    out = []
    for index in range(asked["hosts"]):
        more = {name: amount for name, amount in asked["bundle"].items() if name not in ("CPU", "GPU")}
        options = {
            "num_cpus": asked["bundle"].get("CPU", 0),
            "num_gpus": asked["bundle"].get("GPU", 0),
            "resources": more,
            "scheduling_strategy": PlacementGroupSchedulingStrategy(group, placement_group_bundle_index=index),
        }
        out.append(ray.remote(Held).options(**options).remote())
    return out


def watch(held: list[Any]) -> int:
    """Wait for the end of the attempt on all nodes; the exit code for Ray: 0 when it ended well on all."""
    since, begun = time.monotonic(), False
    while True:
        phases = ray.get([each.phase.remote() for each in held])
        begun = begun or any(phase != "unknown" for phase in phases)
        if not begun and time.monotonic() > since + CLAIM:
            say(state="unclaimed")
            return UNCLAIMED
        # of one that began on some nodes only, the others will not begin any more once these have ended
        if begun and not any(phase in ("running", "stopping") for phase in phases):
            say(state="ended", phases=phases)
            return 0 if all(phase == "exited 0" for phase in phases) else 1
        time.sleep(PACE)


def main(asked: dict[str, Any]) -> int:
    """See the module."""
    name = f"{asked['job']}-{asked['attempt']}"
    turn = Turn(asked["folder"], asked["order"], name)
    say(state="pending", reason="asks Ray for its devices")  # the controller sends the next only now, who is behind us then
    wait_for_turn(turn)
    ray.init(log_to_driver=False)
    held = actors(asked, granted(asked))
    nodes = ray.get([each.hold.remote(asked["folder"], asked["job"], asked["attempt"]) for each in held])
    turn.done()
    say(state="granted", nodes=nodes)
    return watch(held)


if __name__ == "__main__":
    sys.exit(main(json.loads(sys.argv[1])))
