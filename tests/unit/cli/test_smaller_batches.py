"""A job that runs out of memory is tried again with smaller micro-batches: really out of it, under a limit of its own."""

import json

import pytest

SCRIPT = """
import argparse
words = argparse.ArgumentParser()
for name in ("total", "micro", "steps"):
    words.add_argument("--" + name, type=int)
said = words.parse_args()
weight = 0.0
for step in range(said.steps):
    loss = slope = 0.0
    for first in range(0, said.total, said.micro):
        taken = bytearray(said.micro << 28)  # what the activations of so many rows would need
        rows = [(step * 7 + row) % 5 for row in range(first, first + said.micro)]
        loss += sum((weight - row) ** 2 for row in rows)
        slope += sum(2 * (weight - row) for row in rows)
        del taken
    weight -= 0.1 * slope / said.total
    print(f"step {step + 1} loss {loss / said.total:.9f}", flush=True)
open("out.txt", "w").write(str(weight))
"""
LIMIT = 700 << 10
"""KiB of addresses: enough for micro-batches of 2 and an interpreter, not for 4."""
WORDS = "exec python3 train.py --total={train.batch.global} --micro={train.batch.micro} --steps={train.steps}"


@pytest.fixture
def submitted(tune):
    """Submits the script with an id, under a limit or without."""
    (tune.cwd / "train.py").write_text(SCRIPT)
    (tune.cwd / "rows.jsonl").write_text('{"text": "a"}\n')

    def submit(id, *sets, limit=0, words=WORDS, micro=8, code=0):
        command = {
            "argv": ["sh", "-c", (f"ulimit -v {limit} && " if limit else "") + words],
            "inputs": ["./train.py"],
            "metrics": {"pattern": r"step (?P<step>\d+) loss (?P<loss>\S+)"},
            "files": ["out.txt"],
        }
        recipe = {
            "version": 1,
            "name": "memory",
            "model": {"id": "org/name"},
            "data": {"train": "rows.jsonl", "format": "text"},
            "train": {"steps": 3, "batch": {"global": 8, "micro": micro}},
            "optim": {"lr": 0.1},
            "retry": {"oom": {"micro": "halve"}},
            "native": {"command": command},
        }
        (tune.cwd / "r.yaml").write_text(json.dumps(recipe))
        words = ("submit", "r.yaml", "--to", "command", "--id", id, "--follow")
        lost = (word for leaf in ("model.id", "optim.lr", "data.train") for word in ("--accept", leaf))
        return tune(*words, *lost, *(word for each in sets for word in ("--set", each)), code=code)

    return submit


def losses(tune, id):
    """Step -> loss."""
    return {point["step"]: point["value"] for point in tune.json("metrics", id)["points"] if point["name"] == "loss"}


def test_a_job_that_runs_out_of_memory_succeeds_with_less_at_once(tune, submitted):
    """8 and 4 rows at once are too many for the limit, 2 are not: the third attempt succeeds, with the losses of a run without a limit.
    What each attempt took is in the events, in the report, in the plan that is pulled, and with the state at the end.
    """
    submitted("whole")
    submitted("small", limit=LIMIT)
    [job] = tune.json("status", "small")
    assert (job["state"], job["attempt"]) == ("SUCCEEDED", 3)
    assert job["detail"] == "with micro-batches of 2: memory ran out with more"
    want, got = losses(tune, "whole"), losses(tune, "small")
    assert list(got) == list(want) == [1, 2, 3]
    assert max(abs(want[step] - got[step]) for step in want) < 1e-5
    events = tune("status", "small", "--events").stdout
    for attempt, micro in ((2, 4), (3, 2)):
        assert f"out of memory: attempt {attempt} from the beginning with micro-batches of {micro}, not {2 * micro}" in events
    assert "`4 in attempt 2, 2 in attempt 3`" in tune("report", "small").stdout
    for words, micro in ((("--attempt", "1"), 8), ((), 2)):
        tune("pull", "small", "--into", f"of-{micro}", *words)
        [step] = json.loads((tune.cwd / f"of-{micro}" / "plan.json").read_text())["steps"]
        assert f"--micro={micro} " in step["argv"][-1]


def test_it_ends_where_nothing_is_smaller(tune, submitted):
    """Too little even for one row: every size is tried once, then the job has failed for want of memory."""
    submitted("never", limit=LIMIT // 4, code=1)
    [job] = tune.json("status", "never")
    assert (job["state"], job["attempt"]) == ("FAILED", 4)
    assert "MemoryError" in tune("logs", "never").stdout


def test_it_is_refused_before_anything_runs(submitted):
    """A micro-batch of 1, and a command that nothing tells of the micro-batch, have no smaller one."""
    one = submitted("one", micro=1, code=3)
    assert "retry.oom.micro" in one.stderr + one.stdout
    assert "the micro-batch is 1 already" in one.stderr + one.stdout
    deaf = submitted("deaf", words=WORDS.replace("{train.batch.micro}", "8"), micro=None, code=3)
    assert "no word of native.command.argv takes {train.batch.micro}" in " ".join((deaf.stderr + deaf.stdout).split())
