"""Whether a failed job is tried again follows from its rules and its attempts alone."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backends.checkpoints import SavedCheckpoint, first_rate
from orchestrator.jobs.retry import Again, Enough, Rules, Tried, again, astray, by_hand, diverges, hangs, newest

RULES = Rules.of({})
RESUMING = Rules.of({"resume": True})
KINDS = ("wrong_request", "out_of_memory", "hardware", "lost", "hang", "unknown")
FACTS = {"lr": 1e-3, "schedule": "cosine", "warmup_steps": 2, "warmup_share": None, "min_lr": 0.0}


def tries(*kinds, checkpoints=()):
    """Attempts that failed so, one after another; `checkpoints` are the steps that each left."""
    left = [*checkpoints, *[()] * len(kinds)]
    return [
        Tried(n + 1, kind, tuple(SavedCheckpoint(step, f"out/{step}") for step in left[n]), (f"host{n}",))
        for n, kind in enumerate(kinds)
    ]


@pytest.mark.parametrize(("kind", "often"), [("lost", 3), ("hardware", 1), ("hang", 1), ("out_of_memory", 0), ("unknown", 0)])
def test_by_default(kind, often):
    """What may pass is tried again a few times, what will not is left."""
    for times in range(1, 6):
        assert isinstance(again(RULES, tries(*[kind] * times), 20), Again if times <= often else Enough)


@given(st.lists(st.sampled_from(KINDS), min_size=1, max_size=12), st.dictionaries(st.sampled_from(KINDS[1:]), st.integers(0, 4)))
def test_no_job_is_tried_for_ever(kinds, wish):
    """Whatever the order of failures, attempts without a checkpoint are at most one more than all tries together."""
    rules = Rules.of(wish)
    so_far = 0
    for n in range(1, len(kinds) + 1):
        if isinstance(again(rules, tries(*kinds[:n]), 20), Enough):
            break
        so_far = n
    assert so_far <= sum(rules.tries.values())


def test_a_request_that_is_wrong_is_never_tried_again():
    """There is no rule by which it could be."""
    rules = Rules.of(dict.fromkeys(KINDS[1:], 100))
    assert isinstance(again(rules, tries("wrong_request"), 20), Enough)


def test_getting_on_starts_the_count_anew():
    """Preempted again and again, a job goes on as long as every attempt leaves a newer checkpoint, and no longer."""
    on = [(5,), (10,), (15,), (20,), (25,), (30,)]
    assert isinstance(again(RESUMING, tries(*["lost"] * 6, checkpoints=on), 99), Again)
    stuck = [(5,), (5,), (5,), (5,)]
    assert isinstance(again(RESUMING, tries(*["lost"] * 4, checkpoints=stuck), 99), Enough)


def test_it_goes_on_from_the_furthest_checkpoint():
    """Of any attempt, on the host where it lies; a later attempt that came less far does not hide it."""
    tried = tries("lost", "lost", checkpoints=[(5, 10), (5,)])
    told = again(RESUMING, tried, 20)
    assert isinstance(told, Again)
    assert told.start == (1, SavedCheckpoint(10, "out/10"), ("host0",))
    assert again(RULES, tried, 20).start is None, "the recipe did not ask for it"


def test_what_has_nothing_left_to_do_is_no_start():
    """A checkpoint of the last step is passed over, and one that lacks something."""
    whole, bare = SavedCheckpoint(10, "a"), SavedCheckpoint(15, "b", "no optimizer state")
    assert newest([Tried(1, "lost", (whole, bare, SavedCheckpoint(20, "c")))], 20).checkpoint == whole
    assert newest([Tried(1, "lost", (bare,))], 20) is None


def test_by_hand_it_says_why_not():
    """Asked for by name, going on is possible without a rule, or refused with the trainer's reason."""
    assert by_hand(tries("unknown", checkpoints=[(5,)]), 20).start.checkpoint.step == 5
    why = "LitGPT saves no optimizer state with an adapter"
    assert by_hand([Tried(1, "unknown", (SavedCheckpoint(5, "a", why),))], 20) == Enough(why)
    assert "checkpoint.every" in by_hand(tries("unknown"), 20).why


def test_waiting_grows_and_is_bounded():
    """A host that is gone is asked at longer and longer intervals."""
    rules = Rules.of({"lost": 50})
    waits = [again(rules, tries(*["lost"] * n), 20).wait for n in range(1, 20)]
    assert waits[0] > 0
    assert all(b >= a for a, b in pairwise(waits))
    assert waits[-1] == 600


def test_a_hang_is_silence_for_long_enough():
    """Just before the limit it is none; with no limit there is none at all."""
    rules = Rules.of({"hang_minutes": 2.0})
    assert not hangs(rules, 1119.0, 1000.0)
    assert "2 minutes" in hangs(rules, 1120.0, 1000.0)
    assert not hangs(Rules.of({"hang_minutes": None}), 1e9, 0.0)


def test_a_run_diverges_by_steps_in_a_row():
    """High losses count from look to look, a good one begins anew, one that is no number is high; without a limit none counts."""
    rules = Rules.of({"hang_minutes": None, "diverged_above": 5.0, "diverged_steps": 3})

    def losses(first, *values):
        return [(first + n, "loss", value) for n, value in enumerate(values)] + [(first, "lr", 9.0), (first, "eval_loss", 9.0)]

    assert diverges(rules, 0, losses(1, 9.0, 9.0, 5.0, 9.0)) == (1, "")
    above, why = diverges(rules, 1, losses(5, float("nan"), 6.0, 1.0))
    assert (above, why.partition(" (")[0]) == (3, "the loss of 3 steps in a row was above 5, up to 6 at step 6")
    assert diverges(rules, 2, []) == (2, "")
    assert diverges(Rules.of({}), 0, losses(1, 1e9, 1e9, 1e9)) == (0, "")


def test_an_attempt_that_goes_astray_is_noticed():
    """Another first step, or another rate than the plan's, shows that the checkpoint was not taken up."""
    reading = {"begun": 10, "rate": FACTS}
    good = [(step, name, first_rate(FACTS, step, 20) if name == "lr" else 2.0) for step in (11, 12) for name in ("loss", "lr")]
    assert not astray(reading, 20, good)
    assert not astray(reading, 20, [])
    assert not astray({"rate": FACTS}, 20, [(1, "loss", 2.0)]), "it did not go on from anything"
    assert "step 1" in astray(reading, 20, [(1, "loss", 2.0), (1, "lr", 0.0)])
    assert "step 11" in astray(reading, 20, [(11, "loss", 2.0), (11, "lr", 0.0)])


def test_an_attempt_that_goes_on_is_not_astray_later():
    """Only its first points show where it began; with log.every those are of the next step that is told of."""
    reading = {"begun": 10, "rate": FACTS}
    later = [(14, "loss", 2.0), (14, "lr", first_rate(FACTS, 14, 20))]
    assert not astray(reading, 20, later, 13)
    assert "step 14" in astray(reading, 20, later)
    assert "step 14" in astray(reading, 20, later, 10), "an evaluation at the checkpoint is no step"
    assert "rate" in astray(reading, 20, [(14, "loss", 2.0), (14, "lr", 0.0)], 13)
    seldom = {**reading, "every": 7}
    assert not astray(seldom, 20, later)
    assert "step 11" in astray(seldom, 20, [(11, "loss", 2.0)])
