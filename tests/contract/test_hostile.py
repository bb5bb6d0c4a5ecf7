"""A host that answers nonsense or means harm: what it sends is bounded, stays inside what was asked for, and ends in a sentence."""

from __future__ import annotations

import re
import resource
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from orchestrator.transports.base import TransportError, Watch
from orchestrator.transports.ssh.transport import Ssh
from tests.hosts.lab import LOGIN

if TYPE_CHECKING:
    from tests.hosts.lab import Node

PROGRAM = r"""#!/usr/bin/python3
import json, os, struct, sys, zlib
def take(size):
    data = b""
    while len(data) < size:
        data += os.read(0, size - len(data)) or sys.exit()
    return data
for name, text in json.loads(zlib.decompress(take(int(take(8))))):
    module = sys.modules[name] = type(sys)(name)
    above, _, below = name.rpartition(".")
    if above:
        setattr(sys.modules[above], below, module)
    exec(compile(text, name, "exec"), module.__dict__)
server, blobs = sys.modules["orchestrator.agent.server"], sys.modules["orchestrator.agent.blobs"]
honest = dict(server.QUESTIONS)
def answering(operation, change):
    server.QUESTIONS[operation] = lambda home, request: change(honest[operation](home, request))
def attempts(**fields):
    answering("poll", lambda said: dict(said, seen=[dict(each, **fields) for each in said["seen"]]))
"""
"""Interpreter of a host: it runs what it is sent, with one thing changed by the lines that follow."""
FILES = """
files = {"work/a/x": b"right", "work/ab": b"beside", "plan.json": b"forged", ".git/hooks/post-checkout": b"#!", "log": b"log"}
blobs.take = lambda home, request: ({"lengths": [length for _, _, length in request["pieces"]]},
                                    b"".join(files[name][at:at + length] for name, at, length in request["pieces"]))
answering("listing", lambda said: {"files": [(name, len(files.get(name, b'x')), 10**18, True) for name in NAMES]})
"""
Hostile = Callable[[str], Ssh]


@pytest.fixture
def hostile(hosts: list[Node]) -> Iterator[Hostile]:
    """A host whose interpreter is the program above with some lines more."""
    made: list[Ssh] = []

    def host(lines: str, news: Callable[[], None] | None = None) -> Ssh:
        path = hosts[0].home / "python"
        path.write_text(f"{PROGRAM}{lines}\nserver.main()\n")
        path.chmod(0o755)
        made.append(Ssh(hosts[0].host(interpreter=f"/home/{LOGIN}/python", folder="~/hostile"), "the suite", news))
        return made[-1]

    yield host
    for each in made:
        each.close()


@pytest.mark.parametrize("name", ["plan.json", ".git/hooks/post-checkout", "work/ab", "../x", "/etc/x", "log/../../x"])
def test_only_what_was_asked_for_comes(hostile: Hostile, tmp_path: Path, name: str) -> None:
    """A host that lists another file than those asked for, or below them, has nothing of it written here."""
    ssh = hostile(FILES.replace("NAMES", repr(["work/a/x", name])))
    with pytest.raises(TransportError, match="the host names a file"):
        ssh.fetch("j", 1, ["log", "work/a"], tmp_path / "into")
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


@pytest.mark.parametrize("name", ["work/a/b.txt", "work/b.json/evil", "b.json", "work/a.json/../../b.json"])
def test_a_pattern_lets_nothing_else_in(hostile: Hostile, tmp_path: Path, name: str) -> None:
    """Nor what does not fit a name with a `*`; a `*` stands for no `/`."""
    ssh = hostile(FILES.replace("NAMES", repr([name])))
    with pytest.raises(TransportError, match="the host names a file"):
        ssh.fetch("j", 1, ["log", "work/*.json"], tmp_path / "into")
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_what_was_asked_for_comes(hostile: Hostile, tmp_path: Path) -> None:
    """The same host with an honest list is heard: a file by its name, and a file below a folder."""
    got = hostile(FILES.replace("NAMES", "['work/a/x', 'log']")).fetch("j", 1, ["log", "work/a"], tmp_path)
    assert sorted(path.relative_to(tmp_path).as_posix() for path in got) == ["log", "work/a/x"]
    assert (tmp_path / "work/a/x").read_bytes() == b"right"


@pytest.mark.parametrize(
    "files", ["'haha'", "None", "[None]", "[('log', -1, 0, True)]", "[('log', 'x', 0, True)]", "[('log', 1)]"]
)
def test_a_list_of_files_that_is_none(hostile: Hostile, tmp_path: Path, files: str) -> None:
    """Nonsense in place of a list of files is told as that."""
    ssh = hostile(f"answering('listing', lambda said: {{'files': {files}}})")
    with pytest.raises(TransportError, match="list of files is not understood"):
        ssh.fetch("j", 1, ["log"], tmp_path)


@pytest.mark.parametrize(
    "lines",
    [
        "answering('poll', lambda said: dict(said, seen='haha'))",
        "answering('poll', lambda said: dict(said, seen=[]))",
        "answering('poll', lambda said: dict(said, seen=[None]))",
        "answering('poll', lambda said: dict(said, clock='x'))",
        "answering('poll', lambda said: {})",
        "attempts(phase='nonsense')",
        "attempts(phase='exited', rc='zero')",
        "attempts(phase='exited', why=['x'])",
        "attempts(phase='exited', ended='yesterday')",
        "attempts(job='another')",
        "attempts(chunks=[1])",
        "attempts(log=7)",
        "attempts(whole='x')",
    ],
)
def test_a_status_that_is_none(hostile: Hostile, lines: str) -> None:
    """An answer of other kinds than promised is a host's trouble, in words that quote nothing of it."""
    with pytest.raises(TransportError, match=r"^10\.\S+: its answer is not understood"):
        hostile(lines).poll([Watch("j", 1)])


def test_no_time_is_too_late_for_a_calendar(hostile: Hostile) -> None:
    """Times beyond every calendar are cut: the rest of the status counts."""
    [seen] = hostile("attempts(phase='exited', rc=0, ended=1e300, step_started=-1e300)").poll([Watch("j", 1)])
    assert (seen.rc, seen.step_started) == (0, 0.0)
    assert time.gmtime(seen.ended)


@pytest.mark.parametrize("header", ["'[1]'", "'{'", "'\\xff'", "'[' * 100000", "'7'", "'{\"id\": [1]}'"])
def test_a_frame_that_is_none(hostile: Hostile, header: str, capfd: pytest.CaptureFixture[str]) -> None:
    """A header that is no object ends the connection in words, and nothing is printed."""
    text = f"text = ({header}).encode('latin-1')\nserver.send(1, server.READY + server.LENGTHS.pack(len(text), 0) + text); take(1 << 30)"
    with pytest.raises(TransportError, match=r"not understood|no answer|no connection"):
        hostile(text).leases()
    assert "Traceback" not in capfd.readouterr().err


@pytest.mark.parametrize("lengths", ["0, (1 << 30) - 1", "1 << 31, 0", "0, 1 << 63"])
def test_a_frame_is_no_larger_than_what_was_asked_for(hostile: Hostile, lengths: str) -> None:
    """A host that announces more than a request may bring is hung up on at once: nothing of it is kept in memory."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    lines = f"server.send(1, server.READY + server.LENGTHS.pack({lengths}))\nwhile True: server.send(1, bytes(1 << 20))"
    with pytest.raises(TransportError, match=r"it sends [\d,]+ bytes where at most 1,048,576 were asked for"):
        hostile(lines).leases()
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 * 1024


def test_news_are_taken_at_a_bounded_rate(hostile: Hostile) -> None:
    """A host that sends news without end makes at most a hundred calls a second here; what it answered before counts."""
    lines = """
say = server.Server.say
def spam(self, header, body=b""):
    say(self, header, body)
    while "seen" in header:
        say(self, {"news": "x"})
server.Server.say = spam
"""
    heard: list[float] = []
    ssh = hostile(lines, lambda: heard.append(time.monotonic()))
    ssh.poll([])
    time.sleep(3.5)
    assert len(heard) >= 100
    assert all(sum(first <= each < first + 1.0 for each in heard) <= 2 * 100 for first in heard)


def test_a_refusal_that_is_none(hostile: Hostile) -> None:
    """A refusal without a code or with devices that are none is not understood, and not a crash."""
    with pytest.raises(TransportError, match="not understood"):
        hostile("answering('leases', lambda said: {'refused': 'x', 'message': 'y'})").leases()


def test_a_program_that_ends_is_quoted(hostile: Hostile, capfd: pytest.CaptureFixture[str]) -> None:
    """What the host printed before it ended is the reason."""
    with pytest.raises(TransportError) as caught:
        hostile("sys.stderr.write('this account is closed\\n'); sys.exit(3)").leases()
    assert re.search("it printed: this account is closed", str(caught.value))
    assert capfd.readouterr().err == ""
