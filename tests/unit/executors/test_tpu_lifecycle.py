"""The slices of a target: what is asked for, handed on, given back. Decisions against a cloud in memory, by a clock of its own."""

import random
from dataclasses import replace

import pytest

from orchestrator.executors.tpu.lifecycle import MISSING, UNSEEN, Attempt, Memory, SliceRules, decide, refused
from orchestrator.executors.tpu.slices import GONE, SliceView, Worker

ZONES = (("us-central2-b", "v4-8"), ("europe-west4-a", "v4-8"))
READY = (Worker("10.0.0.1", "10.0.0.1"),)


class Cloud:
    """What the API does with requests: it takes its time, has nothing now and then, preempts, fails, loses answers."""

    def __init__(self, seed=0, trouble=0.0):
        self.slices, self.random, self.trouble = {}, random.Random(seed), trouble
        self.made, self.writers, self.now = 0, {}, 0.0

    def fails(self):
        return self.random.random() < self.trouble

    def list(self):
        """All views, or None: no whole list was to be had."""
        return None if self.fails() else list(self.slices.values())

    def create(self, asked):
        """None where it went well, the API's words where it did not, and "" where the answer was lost."""
        if self.fails():
            return self.random.choice(["429 RESOURCE_EXHAUSTED no capacity", "403 PERMISSION_DENIED", "500 INTERNAL"])
        if asked.name not in self.slices:
            self.made += 1
            self.slices[asked.name] = SliceView(asked.name, asked.zone, asked.type, "waiting", "WAITING", self.now)
        return "" if self.fails() else None

    def delete(self, view):
        if not self.fails():
            self.slices.pop(view.name, None)

    def advance(self, seconds, preempt=()):
        self.now += seconds
        for name, view in list(self.slices.items()):
            if name in preempt:
                self.slices[name] = replace(view, state="over", words="SUSPENDED", workers=())
            elif view.state == "waiting" and self.random.random() < 0.3:
                stocked = self.random.random() < 0.8
                news = ("provisioning", "PROVISIONING") if stocked else ("failed", "FAILED: no more capacity in the zone")
                self.slices[name] = replace(view, state=news[0], words=news[1])
            elif view.state == "provisioning" and self.random.random() < 0.5:
                self.slices[name] = replace(view, state="ready", words="READY", began=self.now, workers=READY)


class Jobs:
    """A controller's part: attempts that wait, run on a slice, are lost with it and tried again from the last checkpoint."""

    def __init__(self, rules, cloud, names, steps=1000):
        self.rules, self.cloud, self.memory = rules, cloud, Memory()
        self.jobs = {name: {"attempt": 1, "slice": "", "step": 0, "saved": 0, "lost": 0} for name in names}
        self.steps = steps

    def present(self):
        return [Attempt((name, job["attempt"]), job["slice"]) for name, job in self.jobs.items() if job["step"] < self.steps]

    def look(self):
        views = self.cloud.list()
        if views is None:
            return
        decision = decide(self.rules, self.present(), views, self.memory, self.cloud.now)
        self.memory = decision.memory
        for (name, attempt), view in decision.granted.items():
            job = self.jobs[name]
            assert (job["attempt"], job["slice"]) == (attempt, "")
            job["slice"] = view.name
        for name, _ in decision.lost:
            job = self.jobs[name]
            alive = self.cloud.slices.get(job["slice"])
            assert not alive or alive.state != "ready", "two slices would write one job's checkpoints"
            self.jobs[name] = {**job, "attempt": job["attempt"] + 1, "slice": "", "step": job["saved"], "lost": job["lost"] + 1}
        for asked in decision.create:
            if error := self.cloud.create(asked):
                self.memory = refused(self.memory, asked, error, self.cloud.now)
        for view in decision.delete:
            self.cloud.delete(view)
        self.check(decision)

    def check(self, decision):
        held = [job["slice"] for name, job in self.jobs.items() if job["slice"] and job["step"] < self.steps]
        assert len(held) == len(set(held)), "two jobs on one slice"
        assert not {view.name for view in decision.delete if view.state not in GONE} & set(held), "a slice in use was given back"

    def train(self):
        """A step for each job whose slice lives; a checkpoint every ten."""
        for job in self.jobs.values():
            view = self.cloud.slices.get(job["slice"])
            if view and view.state == "ready" and job["step"] < self.steps:
                job["step"] += 1
                job["saved"] = job["step"] // 10 * 10

    def finish(self, rounds=4000):
        """Until all is done and given back."""
        for _ in range(rounds):
            self.look()
            self.cloud.advance(30)
            self.train()
            if not self.present() and not self.cloud.slices and not self.memory.sent:
                return
        raise AssertionError((self.jobs, self.cloud.slices, self.memory))


@pytest.mark.parametrize("trouble", [0.0, 0.15])
@pytest.mark.parametrize("seed", range(5))
def test_a_hundred_preemptions(seed, trouble):
    """Each job ends with its last step, however often its slice was taken, whatever the API answered: no two jobs on a slice, none of
    whose slice lives is called lost, and nothing of ours is left.
    """
    cloud = Cloud(seed, trouble)
    jobs = Jobs(SliceRules(ZONES, most=2, prefix="tune-a"), cloud, ["one", "two", "three"], steps=600)
    preempted = 0
    for _ in range(20_000):
        jobs.look()
        running = [view.name for view in cloud.slices.values() if view.state == "ready"]
        taken = {cloud.random.choice(running)} if running and preempted < 100 and cloud.random.random() < 0.2 else set()
        preempted += len(taken)
        cloud.advance(30, taken)
        jobs.train()
        if preempted >= 100:
            break
    jobs.finish()
    assert preempted == 100
    assert {job["step"] for job in jobs.jobs.values()} == {600}
    assert cloud.slices == {}
    assert sum(job["lost"] for job in jobs.jobs.values()) <= 100
    assert cloud.made <= 100 * 3 + 20


def test_the_controller_is_killed_at_any_moment():
    """What it remembered is lost; its successor makes no second request for one that is there, and gives all of them back."""
    cloud = Cloud(1)
    jobs = Jobs(SliceRules(ZONES, most=1, idle=600, prefix="tune-a"), cloud, ["one", "two"], steps=60)
    for _ in range(200):
        jobs.look()
        assert len([each for each in cloud.slices.values() if each.state not in GONE]) <= 1
        jobs.memory = Memory()
        cloud.advance(30)
        jobs.train()
    jobs.finish()


def ready(name="tune-a-1", **more):
    """A slice that can be used."""
    return SliceView(name, *ZONES[0], **{"state": "ready", "words": "READY", "began": 10.0, "workers": READY, **more})


def test_an_idle_slice_is_kept_as_long_as_was_said():
    """It serves the next job in that time, and is given back after it."""
    rules = SliceRules(ZONES, idle=600, prefix="tune-a")
    first = decide(rules, [], [ready()], Memory(), 1000)
    assert first.delete == ()
    again = decide(rules, [Attempt(("next", 1))], [ready()], first.memory, 1300)
    assert list(again.granted) == [("next", 1)]
    assert decide(rules, [], [ready()], first.memory, 1599).delete == ()
    assert [view.name for view in decide(rules, [], [ready()], first.memory, 1600).delete] == ["tune-a-1"]


def test_a_job_that_is_cancelled_takes_its_request_with_it():
    """A request that nobody waits for is given back before it costs anything."""
    view = SliceView("tune-a-1", *ZONES[0], "waiting", "WAITING_FOR_RESOURCES", 5.0)
    assert decide(SliceRules(ZONES, prefix="tune-a"), [Attempt(("one", 1))], [view], Memory(), 10).delete == ()
    assert decide(SliceRules(ZONES, prefix="tune-a"), [], [view], Memory(), 10).delete == (view,)


def test_a_zone_without_capacity_lets_the_next_one_try():
    """It is tried again later, and later each time; the job is told the API's words."""
    rules, waiting = SliceRules(ZONES, prefix="tune-a"), [Attempt(("one", 1))]
    asked = decide(rules, waiting, [], Memory(), 1000)
    assert [(each.zone, each.type) for each in asked.create] == [ZONES[0]]
    memory = refused(asked.memory, asked.create[0], "429 RESOURCE_EXHAUSTED There is no more capacity", 1000)
    second = decide(rules, waiting, [], memory, 1001)
    assert second.create[0].zone == ZONES[1][0]
    memory = refused(second.memory, second.create[0], "403 PERMISSION_DENIED tpu.nodes.create", 1001)
    both = decide(rules, waiting, [], memory, 1002)
    assert both.create == ()
    assert "There is no more capacity" in both.waits["one", 1]
    assert "PERMISSION_DENIED" in both.waits["one", 1]
    third = decide(rules, waiting, [], both.memory, 1061)
    assert third.create[0].zone == ZONES[0][0]
    memory = refused(third.memory, third.create[0], "429", 1061)
    assert memory.until[ZONES[0]] == 1061 + 120


def test_absence_is_believed_when_it_stays():
    """A slice that is missing in one list goes on; in several it is gone. Silence of the API decides nothing, since there is no list."""
    rules, memory = SliceRules(ZONES, prefix="tune-a"), Memory()
    held = [Attempt(("one", 1), "tune-a-1")]
    for _ in range(MISSING - 1):
        decision = decide(rules, held, [], memory, 10)
        assert decision.lost == {}
        memory = decision.memory
    assert decide(rules, held, [ready()], memory, 20).memory.missing == {}
    assert "no such slice" in decide(rules, held, [], memory, 30).lost["one", 1]


def test_the_users_own_slice_is_left_as_it_is():
    """It is used when it is ready, waited for when it is not, and never deleted or asked for."""
    rules = SliceRules(ZONES[:1], ours=False)
    for state, words in (("over", "node PREEMPTED"), ("provisioning", "node REPAIRING")):
        decision = decide(rules, [Attempt(("one", 1))], [ready("mine", state=state, words=words)], Memory(), 10)
        assert (decision.create, decision.delete, decision.granted) == ((), (), {})
        assert words in decision.waits["one", 1]
    assert decide(rules, [Attempt(("one", 1))], [], Memory(), 10).create == ()
    assert list(decide(rules, [Attempt(("one", 1))], [ready("mine")], Memory(), 10).granted) == [("one", 1)]
    assert decide(rules, [], [ready("mine")], Memory(), 1e9).delete == ()


def test_a_request_that_is_in_no_list_yet_counts():
    """Lists lag behind: a job whose request was sent gets no second one, though the target may have several slices."""
    rules, waiting = SliceRules(ZONES, most=2, prefix="tune-a"), [Attempt(("one", 1))]
    first = decide(rules, waiting, [], Memory(), 1000)
    assert len(first.create) == 1
    assert decide(rules, waiting, [], first.memory, 1030).create == ()
    assert len(decide(rules, [*waiting, Attempt(("two", 1))], [], first.memory, 1030).create) == 1
    assert len(decide(rules, waiting, [], first.memory, 1000 + UNSEEN).create) == 1


@pytest.mark.parametrize("state", ["waiting", "provisioning", "ending"])
def test_a_slice_that_is_repaired_or_ending_is_not_lost_yet(state):
    """Its job may go on, or still writes: another attempt would run beside it."""
    assert MISSING >= 2
    view = ready(state=state, words="node REPAIRING")
    decision = decide(SliceRules(ZONES, prefix="tune-a"), [Attempt(("one", 1), view.name)], [view], Memory(), 10)
    assert (decision.lost, decision.delete, decision.create) == ({}, (), ())
