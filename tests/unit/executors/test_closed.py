"""Which machines are closed for now is kept in one file, by all executors of a state folder."""

import json

import pytest

from orchestrator.home import Home
from orchestrator.targets.closed import Closed, keep_closed, read_closed

FULL, COLD = Closed("its disk is full", 100.0), Closed("no route", 100.0)


@pytest.fixture
def home(tmp_path):
    """A state folder."""
    return Home(tmp_path / "home").make()


def test_executors_lose_nothing_of_each_other(home):
    """Each puts its own machines in place of its own; the file is gone when nothing is closed."""
    keep_closed(home, "hosts", {"a": FULL})
    keep_closed(home, "tpu", {"b": COLD})
    assert read_closed(home, 50.0) == {"a": FULL, "b": COLD}
    keep_closed(home, "tpu", {})
    assert read_closed(home, 50.0) == {"a": FULL}
    keep_closed(home, "hosts", {})
    assert not (home.path / "closed.json").exists()


@pytest.mark.parametrize("text", ["", "[]", '{"a": 1}', '{"a": {"reason": "x", "until": 1.0}}', '{"hosts": {"a": {}}}'])
def test_a_file_that_is_none_is_nothing(home, text):
    """Half a file, and one of an older release, tell of no machine, and the next that is kept takes its place."""
    (home.path / "closed.json").write_text(text)
    assert read_closed(home, 50.0) == {}
    keep_closed(home, "hosts", {"a": FULL})
    assert list(json.loads((home.path / "closed.json").read_text())) == ["hosts"]
    assert read_closed(home, 50.0) == {"a": FULL}
