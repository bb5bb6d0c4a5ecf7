"""A state folder in which nothing is yet, with each store: the first submit, cancel and status work."""

import json

import pytest

RECIPE = {
    "version": 1,
    "name": "fresh",
    "model": {"id": "org/name"},
    "data": {"train": "rows.jsonl", "format": "text"},
    "train": {"steps": 1, "batch": {"global": 2}},
    "optim": {"lr": 0.1},
    "native": {
        "command": {
            "argv": ["/bin/sh", "-c", 'while [ ! -e ../../../../go ]; do sleep 0.05; done; echo \'{{"loss": 1.0, "step": 1}}\''],
            "metrics": {"pattern": r'"loss": (?P<loss>[\d.]+), "step": (?P<step>\d+)'},
        }
    },
}
ACCEPTED = ("model.id", "train.batch.global", "data.train", "train.steps", "optim.lr")


@pytest.mark.parametrize("kind", ["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def test_the_first_of_everything(kind, tune, home, monkeypatch, request):
    """Submit, cancel, submit again, status and wait, each as the first thing done; no file was made by hand before."""
    if kind == "postgres":
        monkeypatch.setenv("TUNE_STORE", request.getfixturevalue("postgres_url"))
    fresh = home.parent / "fresh" / "home"
    monkeypatch.setenv("TUNE_HOME", str(fresh))
    (tune.cwd / "rows.jsonl").write_text('{"text": "a"}\n')
    (tune.cwd / "r.yaml").write_text(json.dumps(RECIPE))
    submit = ("submit", "r.yaml", "--to", "command", *(word for leaf in ACCEPTED for word in ("--accept", leaf)))
    assert tune.json("status") == []
    tune(*submit, "--id", "first")
    assert tune("cancel", "first").stdout == "first CANCELLED\n"
    tune(*submit, "--id", "second")
    (fresh / "go").touch()
    tune("wait", "second")
    assert {job["id"]: job["state"] for job in tune.json("status")} == {"first": "CANCELLED", "second": "SUCCEEDED"}


@pytest.mark.postgres
def test_a_store_without_its_folder(tune, home, monkeypatch, request):
    """A store that others share knows jobs; on a machine where no state folder is yet they can be asked for and cancelled."""
    monkeypatch.setenv("TUNE_STORE", request.getfixturevalue("postgres_url"))
    (tune.cwd / "rows.jsonl").write_text('{"text": "a"}\n')
    (tune.cwd / "r.yaml").write_text(json.dumps(RECIPE))
    tune("submit", "r.yaml", "--to", "command", "--id", "job", *(word for leaf in ACCEPTED for word in ("--accept", leaf)))
    tune("cancel", "job")
    monkeypatch.setenv("TUNE_HOME", str(home.parent / "elsewhere"))
    assert tune.json("status")[0]["state"] == "CANCELLED"
    assert tune("retry", "job").stdout == "job attempt 2\n"
    tune("cancel", "job", "--no-wait")  # a request: the job is of the folder that submitted it, whose controller carries it out
    monkeypatch.setenv("TUNE_HOME", str(home))
    tune("cancel", "job")
