"""The controller's decisions over a simulated lab, in many schedules of faults: nothing lost, nothing run twice, no wrong end.

TUNE_SIMULATED says how many schedules (default 300), TUNE_TEST_SEED where they begin; a failure names its own.
"""

import os
import random
from dataclasses import replace

import pytest

from .world import DECISIONS, Violation, World

COUNT = int(os.environ.get("TUNE_SIMULATED") or 300)
SEED = int(os.environ.get("TUNE_TEST_SEED") or random.SystemRandom().randrange(10**6))


def violations(count, **mutated):
    """What went wrong, by the schedule's seed."""
    found = {}
    for number in range(count):
        seed = f"{SEED}:{number}"
        try:
            World(seed, {**DECISIONS, **mutated}).run()
        except Violation as error:
            found[seed] = str(error)
    return found


def test_every_promise_holds_in_every_schedule():
    """Each job ends, is never run twice at once, succeeds only trained, and leaves nothing alive."""
    print(f"TUNE_TEST_SEED={SEED}")
    assert violations(COUNT) == {}


def trusting(seen, started):
    """Whoever answers is believed."""
    return seen, ""


def hasty(facts):
    """What a supervisor left behind is not waited for."""
    return DECISIONS["reconcile"](replace(facts, orphans=0))


def deaf(hosts):
    """A host that does not answer counts as one that has nothing."""
    phase, speaker = DECISIONS["merge_ranks"](hosts)
    return ("unknown" if phase == "unreachable" else phase), speaker


def impatient(facts):
    """An attempt that failed is over although its devices are held."""
    return DECISIONS["reconcile"](replace(facts, phase="exited") if facts.phase == "kept" else facts)


@pytest.mark.parametrize(
    "mutated",
    [{"believed": trusting}, {"reconcile": hasty}, {"reconcile": impatient}, {"merge_ranks": deaf}],
    ids=lambda each: next(iter(each.values())).__name__,
)
def test_a_wrong_decision_is_caught(mutated):
    """A decision function that is spoilt in one place breaks a promise in some schedule."""
    print(f"TUNE_TEST_SEED={SEED}")
    assert violations(200, **mutated)


def test_a_schedule_can_be_repeated():
    """The same seed gives the same ends."""
    assert World("7:7").run() == World("7:7").run()
