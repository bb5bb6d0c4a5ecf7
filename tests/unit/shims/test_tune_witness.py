"""Digests of rows: what should reach the model, and what did."""

import json
import subprocess

import pytest

ROWS = [{"instruction": f"Add {n}", "output": f"It is {n}." + " Yes." * (n % 3)} for n in range(12)]

SEES = """
import json, os, sys
import numpy as np, tune_shared, tune_witness
rows, pad = tune_shared.Rows("data"), tune_shared.manifest("data")["pad_id"]
def padded(numbers, width):
    ids, labels = np.full((len(numbers), width), pad), np.full((len(numbers), width), -100)
    for place, number in enumerate(numbers):
        a, b = rows.row(number)
        ids[place, :len(a)], labels[place, :len(a)] = a, b
    return ids, labels
order = tune_shared.order("data").tolist()
width = rows.longest() + int(sys.argv[1])
collate, taken = tune_witness.Witness(rank=0).held(lambda numbers: padded(numbers, width), lambda batch: batch)
for start in range(0, len(order), 2):
    collate(order[start : start + 2])
    taken()
    taken()
collate(order[:2])
os.environ["RANK"] = "1"
watched = tune_witness.watched(lambda numbers: padded(numbers, width), lambda batch: batch)
print(json.dumps(watched(order[:2])[0].tolist() == padded(order[:2], width)[0].tolist()))
"""


@pytest.fixture
def spec(data_job):
    """A data spec, its rows made."""
    spec = {**data_job.spec, "train": data_job.write("rows.jsonl", ROWS), "batch": 4}
    data_job.run("tune_data", spec)
    return spec


def expected(job, spec, steps=2):
    """What should reach the model, by number."""
    job.run("tune_witness", {"data": spec, "steps": steps})
    return json.loads((job.folder / "expected.json").read_text())


def test_what_should_come(data_job, spec):
    """The order of the steps looked at, and a digest for each row of a small set; the data of the job stay what they are."""
    before = (data_job.folder / "data").resolve()
    said = expected(data_job, spec)
    assert said["batch"] == 4
    assert said["order"] == data_job.order()[:8]
    assert len(set(said["rows"].values())) == len(ROWS)
    assert (data_job.folder / "data").resolve() == before


@pytest.mark.parametrize("padding", [0, 5])
def test_what_came_is_what_should_come(data_job, spec, padding):
    """Batches padded to any length give the digests of their rows; a batch that was fetched and not taken is not seen."""
    said = expected(data_job, spec, steps=3)
    argv = [data_job.python, "-c", SEES, str(padding)]
    done = subprocess.run(argv, cwd=data_job.folder, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)
    due = [said["rows"][str(number)] for number in said["order"]]
    seen = [seen_by(data_job, rank) for rank in (0, 1)]
    assert seen == [due, due[:2]]


def seen_by(job, rank):
    """The digests that a process wrote, of all its micro-batches."""
    lines = (job.folder / f"witness-{rank}.jsonl").read_text().splitlines()
    return [row for line in lines for row in json.loads(line)]


def test_every_change_of_the_rows_shows(data_job, spec):
    """Tokens with loss change the second half of a digest alone; a template both; the seed the order alone."""
    plain = expected(data_job, spec)
    masked = expected(data_job, {**spec, "train_on_prompt": True})
    pairs = [(plain["rows"][n].split(":"), masked["rows"][n].split(":")) for n in plain["rows"]]
    assert all(a[0] == b[0] and a[1] != b[1] for a, b in pairs)
    other = expected(data_job, {**spec, "template": "plain"})
    assert not set(other["rows"].values()) & set(plain["rows"].values())
    later = expected(data_job, {**spec, "seed": 1})
    assert (later["rows"], later["order"] != plain["order"]) == (plain["rows"], True)


def test_a_spec_that_is_wrong(data_job, spec):
    """A reference that cannot be made is refused with its reason."""
    process = data_job.start("tune_witness", {"data": {**spec, "max_length": 1}, "steps": 1})
    _, err = process.communicate()
    assert process.returncode == 1
    assert "Traceback" not in err
    assert "max_length: should be an integer of at least 2, got 1" in (data_job.folder / "reason.json").read_text()
