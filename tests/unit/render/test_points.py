"""Metrics as a table, as CSV and as JSON."""

import csv
import io
import json
import math

from orchestrator.render.points import course, metrics_csv, metrics_json, metrics_table
from orchestrator.store import NewJob, PointRow, open_store


def point(step, name="loss", value=1.0, *, time=10.0, attempt=1):
    """A point as the store gives it."""
    return PointRow(step, name, value, time, attempt, f"train/{name}")


POINTS = [
    point(1, "loss", 2.5),
    point(1, "lr", 1e-5),
    point(2, "loss", 2.25),
    point(2, "rewards/margin", 0.125),
    point(2, "tokens", 12345.0),
    point(3, "loss", math.nan),
    point(3, "eval_loss", 2.0),
]


def test_table():
    """One line a step and one column a metric, ours in their order and the others after them."""
    assert metrics_table(POINTS) == (
        "step  loss     lr  eval_loss  tokens  rewards/margin\n"
        "   1   2.5  1e-05          -       -               -\n"
        "   2  2.25      -          -  12,345           0.125\n"
        "   3   nan      -          2       -               -"
    )


def test_table_chosen():
    """Metrics asked for by name come in that order, and steps without any of them are left out before the last are taken."""
    assert metrics_table(POINTS, ["lr", "loss"], last=2) == "step  lr  loss\n   2   -  2.25\n   3   -   nan"
    assert metrics_table(POINTS, ["lr"], last=2) == "step     lr\n   1  1e-05"
    assert metrics_table(POINTS, ["loss"], last=None).count("\n") == 3
    assert metrics_table([]) == "step"


def test_course():
    """An attempt supersedes earlier ones from its first step on, whether it resumed or began anew."""
    first = [point(step) for step in range(1, 6)]
    resumed = [point(step, attempt=2) for step in range(4, 8)]
    anew = [point(1, attempt=3)]
    assert course(first + resumed) == first[:3] + resumed
    assert course(anew + first + resumed) == anew


def test_table_attempts():
    """With several attempts in one course the table says which step is whose."""
    points = [point(1, value=3.0), point(2, value=2.0), point(2, value=1.0, attempt=2)]
    assert metrics_table(points) == "step  attempt  loss\n   1        1     3\n   2        2     1"


def test_csv():
    """All points of all jobs come back under one line of names, those that are not finite too."""
    text = metrics_csv({"a-1": [*POINTS, point(4, 'a,"b"\x1b[1m', -math.inf, time=13.5, attempt=2)], "b-2": POINTS[:1]})
    assert text.splitlines()[:2] == [
        "job,step,name,value,time,attempt,native",
        "a-1,1,loss,2.5,1970-01-01T00:00:10.000Z,1,train/loss",
    ]
    rows = list(csv.DictReader(io.StringIO(text)))
    assert [float(row["value"]) for row in rows[1:3]] == [1e-5, 2.25]
    assert rows[5]["value"] == "nan"
    assert list(rows[7].values()) == ["a-1", "4", 'a,"b"', "-inf", "1970-01-01T00:00:13.500Z", "2", 'train/a,"b"']
    assert [row["job"] for row in rows] == ["a-1"] * (len(POINTS) + 1) + ["b-2"]


def test_json():
    """The document has all points under stable names."""
    assert metrics_json("a-1", POINTS[:1]) == {
        "job": "a-1",
        "points": [
            {"step": 1, "name": "loss", "value": 2.5, "time": "1970-01-01T00:00:10.000Z", "attempt": 1, "native": "train/loss"}
        ],
    }


def test_json_not_finite():
    """JSON cannot say nan: the value is null, and a word beside it says which."""
    text = json.dumps(metrics_json("a-1", [POINTS[5], point(4, value=math.inf)]), allow_nan=False)
    assert [(point["value"], point["not_finite"]) for point in json.loads(text)["points"]] == [(None, "nan"), (None, "inf")]


def test_from_the_store(tmp_path):
    """What a real store gives is what is shown."""
    with open_store(tmp_path / "store.db") as store:
        store.add_job(NewJob("a-1", "quickstart", "litgpt", "local", "d", "{}"), 0.0)
        store.record("a-1", 1, [(1, "loss", 2.5, "loss"), (2, "loss", math.nan, "loss")], 5.0, {})
        points = store.points("a-1")
    assert metrics_table(points) == "step  loss\n   1   2.5\n   2   nan"
    assert metrics_csv({"a-1": points}).splitlines()[1:] == [
        "a-1,1,loss,2.5,1970-01-01T00:00:05.000Z,1,loss",
        "a-1,2,loss,nan,1970-01-01T00:00:05.000Z,1,loss",
    ]
