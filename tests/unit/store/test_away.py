"""The database goes away while jobs run: they go on, nothing is lost, and whoever waits waits on."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.waiting import until

from .conftest import ROOT, control, start
from .test_fresh_home import ACCEPTED, RECIPE

PATIENCE = 120.0
"""Seconds for what takes one."""


def execute(server, sql):
    """Rows of a statement of the administrator's, by a connection of its own."""
    import psycopg  # noqa: PLC0415 - only where a server runs

    with psycopg.connect(f"postgresql://tune@/postgres?host={server}", autocommit=True) as connection:
        done = connection.execute(sql)
        return done.fetchall() if done.description else []


@pytest.mark.postgres
def test_a_database_that_is_away(tune, home, monkeypatch, server):
    """A job ends while the server is down; what it reported and how it ended is there once the server is back, and `tune wait`, which
    was under way, says so, having told once that it waits for the store. A command that asks meanwhile is told that the database does not answer.
    """
    execute(server, "CREATE DATABASE away TEMPLATE template0")
    monkeypatch.setenv("TUNE_STORE", f"postgresql://tune@/away?host={server}")
    (tune.cwd / "rows.jsonl").write_text('{"text": "a"}\n')
    (tune.cwd / "r.yaml").write_text(json.dumps(RECIPE))
    tune("submit", "r.yaml", "--to", "command", "--id", "j", *(word for leaf in ACCEPTED for word in ("--accept", leaf)))
    until(lambda: tune.json("status", "j")[0]["state"] == "RUNNING")
    argv = [sys.executable, "-m", "orchestrator.cli", "wait", "j"]
    waiting = subprocess.Popen(
        argv, env={**os.environ, "PYTHONPATH": str(ROOT)}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        until(
            lambda: execute(server, "SELECT count(*) FROM pg_stat_activity WHERE datname = 'away'") == [(2,)]
        )  # and the controller
        control(Path(server), "pg_ctl", "-m", "immediate", "stop")
        try:
            (home / "go").touch()
            until((home / "jobs" / "j" / "1" / "exit.json").exists)
            assert "PostgreSQL: cannot open the store" in tune("status", code=None).stderr
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
