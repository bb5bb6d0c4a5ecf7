"""Turns of several makers, also of machines that have a folder in common and no locks: one at a time, and none waits for the dead."""

from __future__ import annotations

import json
import multiprocessing
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from orchestrator.agent import turns
from orchestrator.agent.turns import Overtaken, turn

FAR = {"machine": "node9-1a2b3c4d", "boot": "another boot", "pid": 1, "start": "1", "token": "0" * 16}
"""A holder on another machine, whose processes nobody here can see."""


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """Of what is made in turns."""
    return tmp_path / "env"


@pytest.fixture
def far(place: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file of a turn that another machine has; it is taken for dead after half a second of silence."""
    monkeypatch.setattr(turns, "STALE", 0.5)
    file = place.with_name("env.turn.1")
    file.write_text(json.dumps(FAR))
    return file


def count(place: str, rounds: int) -> None:
    """Add to a number that others add to as well, as nobody could who is not alone."""
    for _ in range(rounds):
        with turn(Path(place), lambda whom: None):
            number = int(Path(place).read_text())
            time.sleep(0.001)
            Path(place).write_text(str(number + 1))


def test_one_at_a_time(place: Path) -> None:
    """Four processes add to a number in turns; none of it is lost, and nothing is left beside it."""
    place.write_text("0")
    workers = [multiprocessing.Process(target=count, args=(str(place), 10)) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert place.read_text() == "40"
    assert [path.name for path in place.parent.iterdir()] == ["env"]


def test_a_turn_that_ends_while_another_asks_for_it(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody links first and is done before we look: we ask again, and have the next turn."""
    link, others = os.link, iter(["somebody's"])

    def late(aside: Path, file: Path) -> None:
        if words := next(others, ""):
            file.write_text(words)
            try:
                link(aside, file)
            finally:
                file.unlink()
        link(aside, file)

    monkeypatch.setattr(os, "link", late)
    with turn(place, pytest.fail) as mine:
        mine.check()
    assert not list(place.parent.iterdir())


def test_a_turn_that_ends_while_its_holder_is_read(place: Path, far: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file is gone once we would say for whom we wait: it is our turn, and nobody was waited for."""
    monkeypatch.setattr(turns, "_is_dead", lambda file, number, seen: far.unlink(missing_ok=True))
    with turn(place, pytest.fail) as mine:
        mine.check()


def test_a_turn_without_words_goes_stale(place: Path, far: Path) -> None:
    """A file that its writer's machine left empty is waited for like a silent holder, and then passed."""
    far.write_text("")
    told = []
    with turn(place, told.append) as mine:
        assert mine.number == 2
    assert set(told) == {"a process unknown"}


def test_a_dead_holder_of_this_machine_is_passed_at_once(place: Path) -> None:
    """It was killed in its turn; the next one has it without waiting for silence."""
    code = "import os; from pathlib import Path; from orchestrator.agent.turns import _take; "
    code += f"_take(Path({str(place)!r}), print); os.kill(os.getpid(), 9)"
    subprocess.run([sys.executable, "-c", code], check=False, env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])})
    assert place.with_name("env.turn.1").exists()
    waited: list[str] = []
    with turn(place, waited.append) as mine:
        assert (mine.number, waited) == (2, [])


def test_what_a_dead_holder_started_is_waited_for(place: Path) -> None:
    """A process with its mark still works there."""
    place.with_name("env.turn.1").write_text(json.dumps({**FAR, "boot": turns.boot(), "pid": 2**22 + 1}))
    worker = subprocess.Popen(["sleep", "600"], env={turns.MARK: FAR["token"]})
    waited: list[str] = []

    def wait(whom: str) -> None:
        waited.append(whom)
        worker.kill()
        worker.wait()

    with turn(place, wait):
        assert waited == [f"process {2**22 + 1}"]


def test_a_holder_on_another_machine_that_beats_is_waited_for(place: Path, far: Path) -> None:
    """However long it takes, as long as it touches its file; whoever waits is told where it is."""
    over, waited = threading.Event(), []

    def beat() -> None:
        for _ in range(20):
            os.utime(far)
            time.sleep(0.1)
        far.unlink()
        over.set()

    threading.Thread(target=beat).start()
    with turn(place, waited.append):
        assert over.is_set()
    assert waited[0] == "process 1 on node9-1a2b3c4d"


def test_a_silent_holder_on_another_machine_is_passed_by_one(place: Path, far: Path) -> None:
    """Of two that wait, one takes the next turn, and the other waits for that one."""
    place.write_text("0")
    threads = [threading.Thread(target=count, args=(str(place), 1)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert place.read_text() == "2"


def test_who_was_passed_finishes_nothing(place: Path) -> None:
    """It wakes up after another machine took the next turn: what it made does not count, and the other's turn is left alone."""
    with turn(place, lambda whom: None) as mine:
        mine.check()
        other = place.with_name("env.turn.2")
        other.write_text(json.dumps(FAR))
        with pytest.raises(Overtaken, match="another machine took its turn"):
            mine.check()
    assert other.exists()
