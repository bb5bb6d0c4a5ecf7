"""The database goes away while jobs run: they go on, nothing is lost, and whoever waits waits on."""

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.postgres_server import administrator, execute, start, stop
from tests.waiting import until

from .conftest import ROOT
from .test_fresh_home import ACCEPTED, RECIPE

PATIENCE = 120.0
"""Seconds for what takes one."""


@pytest.mark.postgres
@pytest.mark.parametrize("seconds", [0, pytest.param(60, marks=pytest.mark.thorough(2))])
def test_a_database_that_is_away(tune, home, monkeypatch, server, postgres_url, seconds):
    """A job ends while the server is down, for a moment or as long as a controller's lease; what it reported and how it ended is there
    once the server is back, and `tune wait`, which was under way, says so, having told once that it waits for the store. A command that
    asks meanwhile is told that the database does not answer.
    """
    monkeypatch.setenv("TUNE_STORE", postgres_url)
    name = urlsplit(postgres_url).path.strip("/")
    sessions = f"SELECT count(*) FROM pg_stat_activity WHERE datname = '{name}'"

    def connected(number):
        return lambda: execute(administrator(server), sessions) == [(number,)]

    (tune.cwd / "rows.jsonl").write_text('{"text": "a"}\n')
    (tune.cwd / "r.yaml").write_text(json.dumps(RECIPE))
    tune("submit", "r.yaml", "--to", "command", "--id", "j", *(word for leaf in ACCEPTED for word in ("--accept", leaf)))
    until(lambda: tune.json("status", "j")[0]["state"] == "RUNNING")
    until(connected(1))  # the controller alone: the last status has gone
    argv = [sys.executable, "-m", "orchestrator.cli", "wait", "j"]
    waiting = subprocess.Popen(
        argv, env={**os.environ, "PYTHONPATH": str(ROOT)}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        until(connected(2))
        stop(Path(server))
        try:
            (home / "go").touch()
            until((home / "jobs" / "j" / "1" / "exit.json").exists)
            assert "PostgreSQL: cannot open the store" in tune("status", code=None).stderr
            time.sleep(seconds)
            assert waiting.poll() is None
        finally:
            start(Path(server))
        said, told = waiting.communicate(timeout=PATIENCE)
        assert said.startswith("j SUCCEEDED")
        assert len(told.splitlines()) == 2, told  # each once, however often it was asked
        away, again = told.splitlines()
        assert re.match(
            r"the store is away since \d\d:\d\d:\d\d: PostgreSQL: .*; jobs go on, and this waits for it until \d\d:", away
        )
        assert again == "the store answers again"
    finally:
        waiting.kill()
        waiting.communicate()
    [job] = tune.json("status", "j")
    assert (job["state"], job["attempt"], job["step"], job["loss"]) == ("SUCCEEDED", 1, 1, 1.0)
