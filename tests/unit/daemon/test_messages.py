"""What a controller is told through its socket."""

import json
import socket
import threading
from pathlib import Path

import pytest

from orchestrator.daemon.messages import ask, hear, near, send, written


@pytest.fixture(params=[0, 120], ids=["short", "long"])
def place(request, tmp_path):
    """Where a socket is, by a path that fits in its name or does not."""
    folder = tmp_path / ("x" * request.param) if request.param else tmp_path
    folder.mkdir(exist_ok=True)
    return folder / "socket"


@pytest.fixture
def inbox(place):
    """A socket at the place."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as made:
        with near(place) as name:
            made.bind(name)
        made.settimeout(10)
        yield made


def descriptors():
    """How many this process has open."""
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def test_news_leaves_no_descriptor(place, inbox):
    """However long the path: each message arrives, and nothing stays open on either side."""
    secrets: dict = {}
    before = descriptors()
    for number in range(5):
        assert send(place, json.dumps({"secrets": {str(number): {"A": "b"}}}).encode())
        assert not hear(inbox, secrets)
    assert list(secrets) == list("01234")
    assert descriptors() == before


@pytest.mark.parametrize(("jobs", "length"), [(0, 1), (1, 10), (1, 100_000), (3000, 40), (50_000, 1)])
def test_secrets_of_any_number_of_jobs_arrive(place, inbox, jobs, length):
    """In as many messages as the socket needs, each job's once."""
    wanted = {f"job-{number}": {"TOKEN": "s" * length} for number in range(jobs)}
    messages, heard = list(written(wanted)), {}
    sender = threading.Thread(target=lambda: [send(place, each) for each in messages])
    sender.start()
    for _ in messages:
        hear(inbox, heard)
    sender.join()
    assert heard == wanted
    assert max(map(len, messages)) < 212_992


@pytest.mark.parametrize(
    "message", [b"", b"\xff", b"[]", b"1", b'{"secrets": 1}', b'{"hand_on": true}', b'{"hand_on": true, "secrets": []}']
)
def test_what_is_no_message_changes_nothing(place, inbox, message):
    """Neither noise, nor a wish to hand on without saying to whom."""
    secrets = {"a": {"B": "c"}}
    assert send(place, message)
    assert not hear(inbox, secrets)
    assert secrets == {"a": {"B": "c"}}


def test_secrets_are_handed_on(place, inbox):
    """All of them, also those told just before; the one who hands them on is to end."""
    secrets: dict = {}
    send(place, next(written({"late": {"A": "b"}})))
    ended = []
    listener = threading.Thread(target=lambda: ended.extend(hear(inbox, secrets) for _ in range(2)))
    listener.start()
    before = descriptors()
    assert ask(place) == {"late": {"A": "b"}}
    listener.join()
    assert ended == [False, True]
    assert descriptors() == before


def test_nobody_hands_on_nothing(tmp_path: Path, place, inbox):
    """Where none listens, or one of a release that does not know how."""
    assert ask(tmp_path / "none") == {}
    listener = threading.Thread(target=lambda: inbox.recv(100))  # as such a release takes it: without descriptors
    listener.start()
    assert ask(place) == {}
    listener.join()


def test_who_has_gone_gets_none(place, inbox):
    """Its end of the connection is closed: the controller stays, with its secrets."""
    ours, theirs = socket.socketpair()
    send(place, b'{"hand_on": true}', [theirs.fileno()])
    ours.close()
    theirs.close()
    secrets = {"a": {"B": "c" * 1_000_000}}
    assert not hear(inbox, secrets)
    assert secrets
