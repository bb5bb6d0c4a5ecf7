"""What a tracker wrote without a network, sent afterwards by its own program: nothing is lost, and nothing is sent twice."""

import json

import pytest

from tests.hosts.wandb import tracker

from .test_trackers import RECIPE

KEY = "0123456789abcdef" * 2 + "01234567"


@pytest.mark.trainer
def test_every_point_arrives_once(tune, home, trainer_python, monkeypatch):
    """A run that was written offline has all points of the job at the server, under the job's name; again, nothing is sent. Without a
    key, or where the server lets nobody in, that is said, and the next call goes on.
    """
    trainer_python("torchtune")
    (tune.cwd / "rows.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in ("a b c", "b c d", "c d a", "d")))
    (tune.cwd / "r.yaml").write_text(RECIPE)
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("WANDB_MODE", "offline")  # of a user who forgot it: it is no reason to send nothing
    job = tune("submit", "r.yaml", "--to", "torchtune", "--set", "log.trackers=[wandb]", "--follow").stdout.strip()
    points = tune.json("metrics", job)["points"]
    with tracker() as server:
        monkeypatch.setenv("WANDB_BASE_URL", server.url)
        assert "WANDB_API_KEY: is not set" in tune("sync", job, code=2).stderr
        monkeypatch.setenv("WANDB_API_KEY", KEY)
        server.closed = True
        refused = tune("sync", job, code=1).stderr
        assert "wandb did not send it" in refused
        assert KEY not in refused
        server.closed = False
        assert tune("sync", job).stdout.endswith(" sent\n")
        [run] = server.runs
        assert (server.runs[run]["displayName"], server.runs[run]["project"]) == (job, "mine")
        for name in ("loss", "lr"):
            wanted = {point["step"]: point["value"] for point in points if point["name"] == name}
            assert server.curve(run, name) == pytest.approx(wanted, rel=1e-6), name
        before = len(server.keys), json.dumps(server.rows)
        assert tune.json("sync", job)["runs"] == [{"job": job, "attempt": 1, "run": _folder(home, job), "sent": False}]
        assert (len(server.keys), json.dumps(server.rows)) == before


def _folder(home, job):
    [run] = (home / "sync" / job / "1" / "work/out/wandb").glob("offline-run-*")
    return run.name
