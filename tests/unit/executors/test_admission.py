"""Which queued jobs get which devices: held against a plain rule that reads all that waits, for random queues."""

import random

import pytest

from orchestrator.executors.admission import admit
from orchestrator.executors.base import Ask
from orchestrator.targets.model import Candidate
from orchestrator.targets.node import Node


def offer(name, *nodes):
    """A target of these nodes, each with its number of devices."""
    return Candidate.of(name, "ssh", [Node(node, count) for node, count in nodes])


ONE, BOTH = offer("one", ("a", 2)), offer("both", ("a", 2), ("b", 4))


def job(id, key, *offers, lane="x", priority=0, hosts=1, devices=1):
    """One that waits."""
    return Ask(id, 1, lane, (-priority, key), hosts, devices, offers or (BOTH,))


def placed(found):
    """Job -> node -> devices."""
    return {id: dict(placement.devices) for id, placement in found.items()}


def test_each_device_once():
    """Devices that work, or that others hold, are not given; the fullest node that fits is taken first."""
    jobs = [job(str(n), n) for n in range(9)]
    found = placed(admit([{"a": [0]}], [jobs], {"b": {0, 1}}))
    assert found == {"0": {"a": (1,)}, "1": {"b": (2,)}, "2": {"b": (3,)}}


def test_a_wide_job_goes_on_where_its_checkpoint_lies():
    """Of several hosts the one with the checkpoint is the first; while it is taken the job waits."""
    again = Ask("again", 2, "x", (0, 1), 2, 1, (offer("three", ("a", 2), ("b", 4), ("c", 1)),), "b")
    assert list(placed(admit([], [[again]]))["again"]) == ["b", "c"]
    assert admit([{"b": range(4)}], [[again]]) == {}


def test_a_wide_job_is_not_starved():
    """Behind a job that does not fit none is started on its nodes, in no lane; elsewhere others go on."""
    wide, narrow, other = job("wide", 1, hosts=2, devices=2), job("narrow", 2), job("other", 3, ONE, lane="y")
    elsewhere = job("elsewhere", 4, offer("c", ("c", 1)), lane="z")
    found = admit([{"b": [0, 1, 2]}], [[wide, narrow], [other], [elsewhere]])
    assert set(found) == {"elsewhere"}


def test_lanes_take_turns_by_priority_and_age():
    """Of the heads of all lanes the highest priority is next, then the oldest."""
    left = [job("low", 1, ONE), job("lower", 4, ONE)]
    right = [job("high", 3, ONE, lane="y", priority=5), job("older", 2, ONE, lane="y")]
    assert list(admit([], [left, right])) == ["high", "low"]


def test_no_more_is_read_than_starts_and_one():
    """Of ten thousand that wait for two devices three are read; of those on a node that does not answer one."""
    read = []

    def waiting(lane):
        for n in range(10_000):
            read.append(lane)
            yield job(f"{lane}{n}", n, ONE if lane == "x" else offer("c", ("c", 9)), lane=lane)

    assert set(admit([], [waiting("x"), waiting("y")], down=["c"])) == {"x0", "x1"}
    assert (read.count("x"), read.count("y")) == (3, 1)


def plain(working, jobs, down):
    """The same rule over one list that is read to its end."""
    used, closed, out = {node: set(devices) for held in working for node, devices in held.items()}, set(down), {}
    for each in sorted(jobs, key=lambda each: each.order):
        for candidate in each.candidates:
            free = {
                node.name: [d for d in range(node.devices) if d not in used.get(node.name, ())]
                for node in candidate.usable
                if node.name not in closed
            }
            fitting = sorted((node for node in free if len(free[node]) >= each.devices), key=lambda node: len(free[node]))
            if len(fitting) >= each.hosts:
                out[each.job] = {node: tuple(free[node][: each.devices]) for node in fitting[: each.hosts]}
                for node, devices in out[each.job].items():
                    used.setdefault(node, set()).update(devices)
                break
        else:
            closed.update(node.name for candidate in each.candidates for node in candidate.usable)
    return out


@pytest.mark.parametrize("seed", range(200))
def test_lanes_change_nothing(seed):
    """What starts is what would start if all that waits were read in one list."""
    chance = random.Random(seed)
    nodes = {name: chance.randint(1, 4) for name in "abcd"}
    offers = []
    for lane in range(3):
        names = chance.sample("abcd", chance.randint(1, 3))
        offers.append(tuple(offer(f"{lane}-{k}", *((name, nodes[name]) for name in names[k:])) for k in range(2)))
    jobs = []
    for n in range(chance.randint(0, 15)):
        lane = chance.randrange(3)
        wide, deep = chance.randint(1, 2), chance.randint(1, 3)
        jobs.append(job(f"j{n}", n, *offers[lane], lane=str(lane), priority=chance.randint(0, 2), hosts=wide, devices=deep))
    working = [{name: [0]} for name in "abcd" if chance.random() < 0.3]
    down = [name for name in "abcd" if chance.random() < 0.2]
    lanes = [sorted((each for each in jobs if each.lane == str(lane)), key=lambda each: each.order) for lane in range(3)]
    assert placed(admit(working, lanes, down=down)) == plain(working, jobs, down)
