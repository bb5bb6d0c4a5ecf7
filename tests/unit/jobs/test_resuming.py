"""The plan of an attempt that goes on: the same, but for what tells the trainer so."""

import json

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from backends.backend import Inexpressible, Progress
from backends.checkpoints import SPEC, SavedCheckpoint, checkpoints, resumed
from backends.compile import plan
from backends.log_signs import Ended
from backends.mapping.schedule import rate
from backends.recipe.parse import parse
from backends.recipe.problems import RecipeError
from backends.registry import BACKENDS
from backends.target import Target
from orchestrator.jobs.attempt_history import outcome

RECIPE = """\
version: 1
name: again
model: {id: tiny, init: random, architecture: {hidden_size: 64, intermediate_size: 128, layers: 2, heads: 4, kv_heads: 2}}
data: {train: rows.jsonl, format: text}
train: {steps: 20, batch: {global: 8}, precision: fp32}
optim: {lr: 1e-3, warmup_steps: 3}
checkpoint: {every: 5, resume: true}
"""


def planned(trainer, *sets, target=None):
    """A plan for this machine."""
    return plan(BACKENDS[trainer], parse(RECIPE, sets=sets), target or Target())


def files(made):
    """Path -> text."""
    return {each.path: each.text for each in made.files}


@pytest.mark.parametrize("trainer", BACKENDS)
def test_only_what_tells_it_to_go_on_differs(trainer):
    """Every key with which the trainer goes on is in its config before, has the value after, and nothing else changes."""
    backend, before = BACKENDS[trainer], planned(trainer)
    after = resumed(before, 10, 20, backend.resume, backend.config)
    old, new = (yaml.safe_load(files(each)[backend.config]) for each in (before, after))
    assert {key: new[key] for key in new if new[key] != old[key]} == {k: v for k, v in backend.resume.items() if k in old}
    assert list(old) == list(new)
    assert json.loads(files(after)[SPEC]) == {"step": 10}
    assert {path for path, text in files(after).items() if files(before).get(path) != text} <= {backend.config, SPEC}
    assert after.reading["first_lr"] == rate(11, 20, lr=1e-3, schedule="cosine", warmup=3, min_lr=0.0)
    assert {key for key in vars(before) if getattr(before, key) != getattr(after, key)} == {"files", "reading"}


@pytest.mark.parametrize("trainer", BACKENDS)
def test_a_plan_says_the_rules(trainer):
    """What the recipe says of retries is in the plan, for whoever runs it."""
    said = planned(trainer, "retry.lost=7", "retry.hang_minutes=null", "retry.diverged_above=9.5").retry
    tries = {"lost": 7, "hardware": 1, "hang": 1, "out_of_memory": 0, "unknown": 0}
    assert said == {
        **tries,
        "hang_minutes": None,
        "idle_minutes": None,
        "diverged_above": 9.5,
        "diverged_steps": 3,
        "resume": True,
    }


def test_what_cannot_go_on_says_so():
    """LitGPT's LoRA, and jobs of several hosts of most trainers; accepted, the job is planned and begins anew when it is tried again."""
    sets = ("method.adapter=lora", "checkpoint.every=5")
    with pytest.raises(Inexpressible) as refused:
        planned("litgpt", *sets)
    [line] = refused.value.report.refused
    assert (line.leaf, line.kind) == ("checkpoint.resume", "never")
    accepted = plan(BACKENDS["litgpt"], parse(RECIPE, sets=sets), Target(), accept=["checkpoint.resume"])
    assert accepted.retry["resume"] is False
    for trainer in ("torchtune", "axolotl"):
        with pytest.raises(Inexpressible, match=r"checkpoint\.resume"):
            planned(trainer, "resources.hosts=2", target=Target(hosts=2))
    assert planned("maxtext", "resources.hosts=2", target=Target(hosts=2)).retry["resume"]


@pytest.mark.parametrize(("trainer", "goes_on"), [("maxtext", True), ("torchtune", False)])
def test_what_an_attempt_over_several_hosts_leaves(trainer, goes_on):
    """Its checkpoints are gone on from where the trainer needs them on the first host only; else it is said why not."""
    index = json.dumps([{"step": 5, "folder": "out/a", "lacks": ""}, {"step": 10, "folder": "out/b", "lacks": "a part"}])
    whole, lacking = outcome(Ended(trainer, "slice_gone", None, None, "", ""), index, 2).checkpoints
    assert (whole.lacks == "") == goes_on
    assert lacking.lacks == "a part"


def test_going_on_needs_checkpoints():
    """A recipe that asks for it without any is wrong, and says what is missing."""
    with pytest.raises(RecipeError) as wrong:
        parse(RECIPE, sets=["checkpoint.every=null"])
    assert "checkpoint.every" in wrong.value.problems[0].rule


def test_an_index_is_read():
    """In the order in which it lists them."""
    listed = [{"step": 5, "folder": "out/a", "lacks": ""}, {"step": 10, "folder": "out/b", "lacks": "no optimizer state"}]
    assert checkpoints(json.dumps(listed)) == (SavedCheckpoint(5, "out/a"), SavedCheckpoint(10, "out/b", "no optimizer state"))
    assert checkpoints("") == ()


@given(
    st.text()
    | st.recursive(st.none() | st.integers() | st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner))
)
def test_an_index_of_any_kind_harms_nobody(value):
    """It comes from a host: what is no list of checkpoints gives none."""
    checkpoints(value if isinstance(value, str) else json.dumps(value))


@pytest.mark.parametrize("folder", ["/etc", "../1/work/out", "out/../../x", "", ".", "out//x", 5, None])
def test_no_checkpoint_lies_outside_the_folder(folder):
    """A path that leads out of the work folder is no checkpoint."""
    assert checkpoints(json.dumps([{"step": 5, "folder": folder, "lacks": ""}])) == ()


LITGPT = "iter,iter_time,learning_rate,loss,step,total_tokens\n11,0.5,0.4,2.0,11,1100\n12,0.5,0.3,1.9,12,1200"
TORCHTUNE = "Step 11 | loss:2.0 lr:0.5 tokens_per_second_per_gpu:20.0 \nStep 12 | loss:1.9 lr:0.4 tokens_per_second_per_gpu:20.0 "
AXOLOTL = (
    '{"step": 11, "loss": 2.0, "learning_rate": 0.5, "seconds": 1.0, "tokens": 1100}\n'
    '{"step": 12, "loss": 1.9, "learning_rate": 0.4, "seconds": 1.5, "tokens": 1200}'
)


@pytest.mark.parametrize(("trainer", "text"), [("litgpt", LITGPT), ("torchtune", TORCHTUNE), ("axolotl", AXOLOTL)])
def test_its_first_step_is_read_right(trainer, text):
    """It has its own rate, not the next one's, and no speed from the tokens of the attempt before."""
    progress, found = Progress(), {}
    for line in text.splitlines():
        for point in BACKENDS[trainer].read({"first_lr": 0.5, "accumulation": 1, "begun": 10}, progress, line):
            found[point.name, point.step] = point.value
    assert (found["lr", 11], found["lr", 12]) == (0.5, 0.4)
    assert ("tokens_per_second", 11) not in found
    assert trainer == "torchtune" or found["tokens_per_second", 12] == 200.0
