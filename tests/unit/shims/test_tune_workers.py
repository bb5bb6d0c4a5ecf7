"""tune_workers.py: results in order from several processes, and every kind of end."""

import os
import signal
import time
from contextlib import closing
from itertools import islice
from pathlib import Path

import pytest
import tune_workers
from tune_files import Refused
from tune_workers import in_order


@pytest.fixture(autouse=True)
def two(monkeypatch):
    """Two processes, on whatever machine."""
    monkeypatch.setattr(tune_workers, "processes", lambda: 2)


def alive(pid):
    """Whether a process is there and has not ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_results_come_in_order():
    """Items of unequal work, and results longer than a pipe holds, come as they went, from this process and from two others."""

    def work(number):
        time.sleep(0.01 * (number % 3))
        return number, "x" * (300_000 if number % 5 == 0 else 1), os.getpid()

    done = list(in_order(work, range(40)))
    assert [number for number, _, _ in done] == list(range(40))
    assert all(len(text) == (300_000 if number % 5 == 0 else 1) for number, text, _ in done)
    assert len({pid for _, _, pid in done}) == 3


@pytest.mark.parametrize("count", [0, 1, 4, 5, 6])
def test_few_items(count):
    """No item, and as few as need no process."""
    assert list(in_order(lambda number: -number, range(count))) == [-number for number in range(count)]


def test_errors_come_where_the_result_would():
    """An error of the work, with its reason, and one of the items: what comes before them is given."""

    def work(number):
        if number == 9:
            raise Refused("bad_data", "nine")
        return number

    got = []
    with pytest.raises(Refused, match="nine") as caught:
        got.extend(in_order(work, range(30)))
    assert (got, caught.value.reason) == (list(range(9)), "bad_data")

    def items():
        yield from range(11)
        raise Refused("no_data", "the file ends")

    got = []
    with pytest.raises(Refused, match="the file ends"):
        got.extend(in_order(lambda number: number, items()))
    assert got == list(range(11))


def test_a_killed_process_is_told():
    """A process that the kernel kills is an error, not a wait without end."""

    def work(number):
        if number == 7:
            os.kill(os.getpid(), signal.SIGKILL)
        return number

    with pytest.raises(OSError, match=r"a process that renders rows ended by itself \(exit code -9"):
        list(in_order(work, range(20)))


def test_who_leaves_early_leaves_no_process():
    """A caller that wants no more ends the processes."""
    with closing(in_order(lambda _: os.getpid(), iter(range(1000)))) as done:
        pids = set(islice(done, 20)) - {os.getpid()}
    assert len(pids) == 2
    deadline = time.monotonic() + 60
    while any(map(alive, pids)):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_processes_end_with_the_one_that_made_them(tmp_path):
    """Killed without a word, the maker leaves no process behind that waits for it."""
    maker = os.fork()
    if not maker:
        for number, pid in enumerate(in_order(lambda _: os.getpid(), iter(range(10**9)))):
            if number == 20:
                (tmp_path / "pid").write_text(str(pid))
    deadline = time.monotonic() + 60
    while not (tmp_path / "pid").exists() or not (tmp_path / "pid").read_text():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    os.kill(maker, signal.SIGKILL)
    os.waitpid(maker, 0)
    pid = int((tmp_path / "pid").read_text())
    while alive(pid):
        assert time.monotonic() < deadline
        time.sleep(0.05)
