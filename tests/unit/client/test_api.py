"""`import tunesmith` as a script meets it; what runs is a script of the standard library."""

import ast
import json
import os
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest

import tunesmith
from orchestrator.daemon.client import alive
from orchestrator.home import Home
from tests.script_trainer import accepted, script_values, write

ROOT = Path(__file__).parents[3]
SCRIPT = """
import json, os, sys, time
steps, pause = int(sys.argv[1]), float(sys.argv[2])
print("caf\\u00e9", flush=True)
with open("lines.jsonl", "a", buffering=1) as log:
    for step in range(1, steps + 1):
        log.write(json.dumps({"step": step, "loss": 3 - step / 8, "learning_rate": 0.1}) + "\\n")
        time.sleep(pause)
if steps == 3:
    raise SystemExit("three is not enough")
os.makedirs("model")
json.dump(1, open("model/weight.json", "w"))
"""


@pytest.fixture
def planned(home, tmp_path, monkeypatch):
    """Plans a script with so many steps, sleeping so long at each."""
    monkeypatch.chdir(tmp_path)

    def plan(steps=5, pause=0.0):
        values = script_values("{train.steps}", str(pause))
        write(tmp_path, SCRIPT, values)
        recipe = tunesmith.load(values, sets={"train.steps": steps})
        return tunesmith.plan(recipe, to="command", accept=accepted(values))

    return plan


def test_a_job_from_its_submission_to_its_results(planned, capfd):
    """Submitted, followed, waited for, looked at, pulled: values come back, and not a word is printed."""
    job = tunesmith.submit(planned(), id="one", labels={"team": "nlp"})
    assert job == tunesmith.submit(planned(), id="one")
    seen = list(job.follow())
    assert seen[-1].state == job.wait(check=True).state == "SUCCEEDED"
    assert all(before != after for before, after in pairwise(seen))
    assert job.metrics() == {"step": [1, 2, 3, 4, 5], "loss": [2.875, 2.75, 2.625, 2.5, 2.375], "lr": [0.1] * 5}
    assert job.metrics("loss")["loss"] == [point.value for point in job.points("loss")]
    assert job.logs() == "".join(job.stream_logs())
    assert "café" in job.logs()
    assert [event.state for event in job.events()][:: len(job.events()) - 1] == ["QUEUED", "SUCCEEDED"]
    assert job.plot(width=60, height=10).startswith("loss by step")
    folder = job.pull()
    assert (folder.name, json.loads((folder / "plan.json").read_text())["backend"]) == ("one", "command")
    assert (job.pull("more", everything=True) / "work/model/weight.json").read_text() == "1"
    assert tunesmith.job("latest") == job
    assert tunesmith.jobs(labels={"team": "nlp"}, state="SUCCEEDED", name="scr*", on="local") == [job]
    assert tunesmith.jobs(state=["RUNNING", "FAILED"]) == []
    assert capfd.readouterr() == ("", "")


def test_a_job_that_fails(planned):
    """A failure is a value, and an error where it is asked for; such a job can be tried again, one that runs cannot."""
    job = tunesmith.submit(planned(3))
    assert job.wait().state == "FAILED"
    with pytest.raises(tunesmith.JobFailed, match="is FAILED") as failed:
        job.wait(check=True)
    assert [each.id for each in failed.value.jobs] == [job.id]
    with pytest.raises(tunesmith.ActionFailed, match="checkpoint"):
        job.retry(from_checkpoint=True)
    assert job.retry() == 2
    assert job.wait().attempt == 2


def test_a_job_that_goes_on(planned):
    """Waiting ends with the time given, the job does not; cancelled, it ends with its processes."""
    job = tunesmith.submit(planned(500, 600.0))
    while job.status().step != 1:
        assert not job.status().ended
    with pytest.raises(tunesmith.TimedOut) as late:
        tunesmith.wait(job, timeout=0.1)
    assert [(each.id, each.ended) for each in late.value.jobs] == [(job.id, None)]
    with pytest.raises(tunesmith.ActionFailed, match="only an ended job can be tried again"):
        job.retry()
    for status in job.follow():
        assert status.state == "RUNNING"
        break
    assert job.cancel().state == "CANCELLED"


def test_jobs_are_compared(planned):
    """Several jobs' values stand in columns beside the steps, None where one has none; distances are from the first."""
    long, short = tunesmith.submit(planned(5)), tunesmith.submit(planned(4))
    assert [job.state for job in tunesmith.wait(long, short, check=True)] == ["SUCCEEDED", "SUCCEEDED"]
    found = tunesmith.compare(long, short)
    assert found.columns["step"] == [1, 2, 3, 4, 5]
    assert found.columns[short.id] == [2.875, 2.75, 2.625, 2.5, None]
    assert found.gaps[short.id].size == 0
    assert tunesmith.plot(long, short).endswith(f"• {long.id}  + {short.id}")
    with pytest.raises(tunesmith.InvalidRequest, match="compare what"):
        tunesmith.compare()


@pytest.mark.parametrize(
    ("call", "kind", "text"),
    [
        (lambda p: tunesmith.submit(p, id="../x"), tunesmith.InvalidRequest, "id='../x': should be letters"),
        (lambda p: tunesmith.submit(p, labels={"a b": "1"}), tunesmith.InvalidRequest, "should be KEY=VALUE"),
        (lambda p: tunesmith.plan({"version": 1}), tunesmith.InvalidRecipe, "<recipe>: model: is required"),
        (lambda p: tunesmith.plan("nope.yaml"), tunesmith.NotFound, "nope.yaml: no such file"),
        (lambda p: tunesmith.job("nope"), tunesmith.NotFound, "nothing was submitted yet"),
        (lambda p: tunesmith.jobs(state="runing"), tunesmith.InvalidRequest, "state='runing': is no state"),
        (lambda p: tunesmith.targets("moon"), tunesmith.NotFound, "moon: is not a target"),
        (lambda p: tunesmith.explain("lrr"), tunesmith.NotFound, "is not a setting of the recipe"),
        (lambda p: tunesmith.copy_recipe("quickstrat"), tunesmith.NotFound, "did you mean quickstart?"),
        (lambda p: tunesmith.load({"version": object()}), tunesmith.InvalidRequest, "is no value of a recipe"),
    ],
)  # fmt: skip
def test_wrong_calls(planned, home, call, kind, text):
    """What is wrong is an error of its kind that says so, in Python's spelling, and nothing is submitted."""
    with pytest.raises(kind) as error:
        call(planned())
    assert text in str(error.value)
    assert tunesmith.jobs() == []
    assert not alive(Home(home))


def test_the_id_of_another_job(planned):
    """An id that another plan has is refused; the job that has it goes on."""
    job = tunesmith.submit(planned(5), id="mine")
    with pytest.raises(tunesmith.AlreadyExists, match="belongs to another job"):
        tunesmith.submit(planned(4), id="mine")
    assert job.wait().state == "SUCCEEDED"


def test_a_recipe_with_other_values(planned, tmp_path):
    """A recipe keeps its file: its errors name lines of it, what was set before stays set, and the first is left as it was."""
    for path in tunesmith.copy_recipe("quickstart", tmp_path / "here"):
        assert path.exists()
    first = tunesmith.load(tmp_path / "here/quickstart.yaml", sets={"train.seed": 7})
    second = tunesmith.load(first, sets={"train.steps": 20, "optim.betas": [0.8, 0.9]})
    assert (second.train.seed, second.train.steps, list(second.optim.betas)) == (7, 20, [0.8, 0.9])
    assert first.train.steps == 150
    assert second.base == first.base == str(tmp_path / "here")
    with pytest.raises(tunesmith.InvalidRecipe, match=r"quickstart.yaml:\d+: optim.warmup_steps"):
        tunesmith.load(first, sets={"train.steps": 5})


def test_importing_is_light():
    """`import tunesmith` loads none of the libraries that take long, not even those of our own that do."""
    heavy = ("pydantic", "yaml", "sqlite3", "rich", "plotext", "dataclasses", "fabric", "backends", "orchestrator.store")
    code = f"import sys, tunesmith; print([name for name in {heavy} if name in sys.modules])"
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-S", "-c", code], check=True, capture_output=True, text=True, env=env)
    assert done.stdout == "[]\n"


def test_the_client_does_not_act_as_a_command():
    """No module of it prints, ends the process, or reads the command line or standard input."""
    for path in (ROOT / "tunesmith.py", *sorted((ROOT / "orchestrator" / "client").glob("*.py"))):
        tree = ast.parse(path.read_text("utf-8"))
        names = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
        of_sys = {ast.unparse(node) for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
        assert names.isdisjoint({"print", "exit", "quit", "input", "SystemExit"}), path
        assert of_sys.isdisjoint({"sys.argv", "sys.exit", "sys.stdin", "sys.stdout", "sys.stderr", "os._exit"}), path
