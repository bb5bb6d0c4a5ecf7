"""Retries with smaller micro-batches: planned with the job, refused there where there is none, taken in turn as memory runs out."""

import json
from itertools import pairwise

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from backends.backend import Inexpressible
from backends.checkpoints import SavedCheckpoint
from backends.compile import plan
from backends.plan import Plan
from backends.recipe.parse import parse
from backends.registry import BACKENDS
from backends.smaller_batches import LEAF, sizes
from backends.target import Target
from orchestrator.jobs.retry import Again, Enough, Rules, Tried, again, by_hand, elsewhere
from orchestrator.store.attempts import AttemptRecord

RECIPE = """\
version: 1
name: smaller
model: {id: tiny, init: random, architecture: {hidden_size: 64, intermediate_size: 128, layers: 2, heads: 4, kv_heads: 2}}
data: {train: rows.jsonl, format: text}
train: {steps: 20, batch: {global: 8, micro: 4}, precision: fp32}
optim: {lr: 1e-3, warmup_steps: 2}
"""
HALVE = f"{LEAF}=halve"
TRAINERS = sorted({*BACKENDS} - {"command"})
EVALUATED = ("data.eval_share=0.1", "eval.every=5", "eval.batches=3")
TWO = ("train.batch.micro=null", "resources.devices=2")


def planned(trainer, *sets, accept=(), target=None):
    """A plan for this machine."""
    return plan(BACKENDS[trainer], parse(RECIPE, sets=sets), target or Target(devices=2), accept)


def refused(trainer, *sets, **more):
    """The one line for which there is no plan."""
    with pytest.raises(Inexpressible) as error:
        planned(trainer, *sets, **more)
    [line] = error.value.report.refused
    return line


@pytest.mark.parametrize(
    ("trainer", "sets"),
    [*((each, ()) for each in TRAINERS), ("torchtune", TWO), ("maxtext", TWO), ("axolotl", EVALUATED), ("trl", EVALUATED)],
)
def test_each_is_the_plan_of_that_micro_batch(trainer, sets):
    """What a plan keeps of smaller micro-batches is what the same recipe with that number gives, through the trainer's own rows; the
    evaluations on the way have the rows that they had. It survives the store.
    """
    made = planned(trainer, *sets, HALVE)
    assert made.retry["micros"] == [4, 2, 1]
    assert Plan.from_dict(json.loads(json.dumps(made.as_dict()))) == made
    assert made.with_micro(None) == made.with_micro(4) == made
    for micro in (2, 1):
        rows = (f"eval.batches={3 * 4 // micro}",) if sets == EVALUATED else ()
        want, got = planned(trainer, *sets, f"train.batch.micro={micro}", *rows), made.with_micro(micro)
        differ = {part for part in vars(want) if getattr(want, part) != getattr(got, part)}
        assert differ <= {"report", "retry", "smaller", "files"}
        old, new = ({file.path: file.text for file in each.files if file.path != "recipe.json"} for each in (want, got))
        assert old == new
        assert got.reading["accumulation"] * micro == made.reading["accumulation"] * 4


@pytest.mark.parametrize("trainer", TRAINERS)
def test_whoever_does_not_ask_has_the_plan_of_before(trainer):
    """Nothing is planned, and nothing is written where a controller of an older release would read it."""
    made = planned(trainer)
    assert made.smaller == ()
    assert not {"smaller", "micros", "oom.micro"} & {*made.as_dict(), *made.retry}


def test_it_is_refused_where_there_is_none():
    """One sequence at once cannot be halved, and what is written over the batch's keys does not change with it; accepted by its name,
    the job is planned without.
    """
    line = refused("torchtune", "train.batch.micro=1", HALVE)
    assert (line.leaf, line.kind) == (LEAF, "never")
    assert "1 already" in line.why
    accepted = planned("torchtune", "train.batch.micro=1", HALVE, accept=[LEAF])
    assert (accepted.smaller, "micros" in accepted.retry) == ((), False)
    for trainer, key in (
        ("axolotl", "micro_batch_size"),
        ("axolotl", "~gradient_accumulation_steps"),
        ("torchtune", "batch_size"),
    ):
        value = "null" if key.startswith("~") else "2"
        assert "written over" in refused(trainer, HALVE, f"native.{trainer}.{key}={value}").why


def test_it_is_refused_where_the_result_hangs_on_it():
    """LitGPT by itself averages the means of micro-batches: with its own rendering halving them is another training, and is told so."""
    sets = ("data.rendering=native", "data.format=instruct", "train.batch.micro=null")
    why = refused("litgpt", *sets, HALVE).why
    assert "train.batch.micro: LitGPT averages the means of micro-batches" in why
    told = planned("litgpt", *sets, HALVE, accept=["train.batch.micro"])
    [line] = [line for line in told.report.lines if line.leaf == LEAF]
    assert line.status == "approximated"
    assert "the result is another one: LitGPT averages" in line.why


@given(st.integers(1, 4096))
def test_sizes_go_down_to_one(micro):
    """Each is at most half of the one before, and divides it: the global batch is kept by whole accumulation steps."""
    found = sizes(micro)
    assert (found[0], found[-1]) == (micro, 1)
    assert all(less * 2 <= more and more % less == 0 for more, less in pairwise(found))


def test_an_even_one_is_halved():
    """The next of an even number is its half; of an odd one its largest share."""
    assert sizes(12) == [12, 6, 3, 1]
    assert sizes(15) == [15, 5, 1]


RULES = Rules.of({"micros": [8, 4, 2, 1], "resume": True, "lost": 2})
RESUMING = Rules.of({"micros": [8, 4, 2, 1], "resume": True, "lost": 2, "resumes_smaller": True})
OOM = "out_of_memory"


def oom(number, micro=None, *, kind=OOM, step="train", steps=()):
    """An attempt that ended so."""
    return Tried(number, kind, tuple(SavedCheckpoint(each, f"out/{each}") for each in steps), ("host",), step, micro)


def test_memory_that_runs_out_takes_the_next_smaller():
    """Again and again, from the beginning, whatever the number of tries says; at the smallest that number decides."""
    tried = [oom(1, steps=(5,))]
    for number, micro in enumerate((4, 2, 1), 2):
        choice = again(RULES, tried, 20)
        assert isinstance(choice, Again)
        assert (choice.micro, choice.start) == (micro, None)
        assert f"micro-batches of {micro}, not {2 * micro}" in choice.why
        tried.append(oom(number, micro))
    assert isinstance(again(RULES, tried, 20), Enough)
    more = Rules.of({"micros": [2, 1], "out_of_memory": 1})
    assert again(more, [oom(1), oom(2, 1)], 20).micro == 1
    assert isinstance(again(more, [oom(1), oom(2, 1), oom(3, 1)], 20), Enough)


def test_whatever_fails_next_keeps_it():
    """An attempt after one that was lost takes what that took, and goes on from its checkpoints; from those of another micro-batch only
    where the trainer can. So does one on another host, and one that a person asks for takes what its checkpoint's took.
    """
    tried = [oom(1, steps=(15,)), oom(2, 4, kind="lost", steps=(5, 10))]
    choice = again(RULES, tried, 20)
    assert (choice.micro, choice.start.checkpoint.step, choice.start.attempt) == (4, 10, 2)
    assert elsewhere("disk_full", tried, ["host", "other"]).micro == 4
    anywhere = again(RESUMING, tried, 20)
    assert (anywhere.micro, anywhere.start.checkpoint.step, anywhere.start.attempt) == (4, 15, 1)
    assert (by_hand(tried, 20).start.attempt, by_hand(tried, 20).micro) == (1, None)
    assert again(RULES, [oom(1), oom(2, 4, kind="lost")], 20).start is None


def test_where_the_trainer_can_it_goes_on():
    """From the last checkpoint, with fewer sequences at once from there on."""
    choice = again(RESUMING, [oom(1, steps=(5,)), oom(2, 4, steps=(10,))], 20)
    assert (choice.micro, choice.start.checkpoint.step, choice.start.attempt) == (2, 10, 2)
    assert "attempt 3 from step 10 with micro-batches of 2, not 4" in choice.why
    said = {trainer: planned(trainer, HALVE).retry["resumes_smaller"] for trainer in TRAINERS}
    assert said == {trainer: trainer != "litgpt" for trainer in TRAINERS}, "LitGPT's place in the rows counts micro-batches"


@pytest.mark.parametrize("step", ["data", "model", "export"])
def test_only_training_needs_less(step):
    """A step before or after training takes no micro-batches: nothing would change."""
    assert isinstance(again(RULES, [oom(1, step=step)], 20), Enough)


def test_without_the_rule_nothing_changes():
    """A job that did not ask, and one of an older release."""
    assert isinstance(again(Rules.of({}), [oom(1)], 20), Enough)


def test_the_record_of_an_attempt_says_it():
    """In the store, by its number; an attempt with the recipe's own says nothing."""
    record = AttemptRecord(micro=2)
    assert AttemptRecord.from_dict(json.loads(json.dumps(record.as_dict()))).micro == 2
    assert "micro" not in AttemptRecord().as_dict()


def test_the_config_says_what_is_meant():
    """As an example: axolotl's two keys."""
    made = planned("axolotl", HALVE)
    keys = yaml.safe_load({file.path: file.text for file in made.with_micro(1).files}[BACKENDS["axolotl"].config])
    assert (keys["micro_batch_size"], keys["gradient_accumulation_steps"]) == (1, 8)
