"""A host heeds the controller that took a job over last: the one before may still read, and orders nothing any more."""

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator.executors.phases import STOPPED
from orchestrator.transports.base import AttemptStatus, Transport, TransportError, Watch
from orchestrator.transports.ssh.transport import Ssh

from .conftest import Host

ANNA, BOB = "anna@one:/home/anna/.tune#aa", "bob@two:/home/bob/.tune#bb"
SLEEP = ["sleep", "600"]


@pytest.fixture
def anna(far: Host) -> Iterator[Host]:
    """A host as the controller has it where the job was submitted; nothing is left there."""
    host = replace(far, transport=of(far, ANNA))
    yield host
    seen(host.transport, fence=9)
    host.close()
    shutil.rmtree(host.home / "jobs", ignore_errors=True)


@pytest.fixture
def bob(far: Host) -> Transport:
    """The same host as another one reaches it."""
    return of(far, BOB)


def of(host: Host, owner: str) -> Transport:
    """A way to a host for a controller."""
    assert host.node
    return Ssh(host.node.host(folder=str(Path("/") / host.home.relative_to(host.root))), owner)


def seen(way: Transport, fence: int = 0) -> AttemptStatus:
    """What it says of the attempt."""
    return way.poll([Watch("j", 1, fence=fence)])[0]


def test_a_strangers_attempt_is_there_and_untold(anna: Host, bob: Transport) -> None:
    """Whoever did not take it over hears that it is there, and nothing else; and of one that is not there, that it is not."""
    assert not bob.has("j", 1)
    anna.start("j", SLEEP)
    assert bob.has("j", 1)
    assert (bob.has("j", 2), bob.has("k", 1)) == (False, False)
    assert seen(bob).phase == "unknown"
    with pytest.raises(TransportError, match=r"j/1 belongs to anna@one:/home/anna/\.tune"):
        bob.stop("j", 1, 0.0)
    assert seen(anna.transport).phase == "running"


def test_the_highest_number_gives_orders(anna: Host, bob: Transport) -> None:
    """Taken over, it is the other's to stop and to reap; its own controller, which was stopped meanwhile, may look and ends nothing."""
    anna.start("j", SLEEP)
    assert seen(bob, fence=1).phase == "running"
    for order in (lambda: anna.transport.stop("j", 1, 0.0), lambda: anna.transport.reap("j", 1)):
        with pytest.raises(TransportError, match=r"j/1 belongs to bob@two:/home/bob/\.tune"):
            order()
    assert (seen(anna.transport).phase, seen(bob).phase) == ("running", "running")
    assert anna.transport.start(anna.request("j", SLEEP)).phase == "running"  # nothing is started twice
    bob.stop("j", 1, 0.0)
    assert anna.end("j").why in STOPPED


def test_a_number_that_is_not_higher_takes_nothing(anna: Host, bob: Transport) -> None:
    """Taken back, it is its own controller's again, and the number of the one before counts no more."""
    anna.start("j", SLEEP)
    assert seen(bob, fence=1).phase == "running"
    assert seen(anna.transport, fence=2).phase == "running"
    for fence in (1, 2):
        assert seen(bob, fence).phase == "unknown"
    with pytest.raises(TransportError, match="j/1 belongs to anna@one"):
        bob.stop("j", 1, 0.0)
    anna.transport.stop("j", 1, 0.0)
    assert anna.end("j").why in STOPPED
