"""What a host says before our agent begins is told, by the name that people gave the machine, whoever connects."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.transports.base import TransportError
from orchestrator.transports.ssh.transport import Ssh
from tests.hosts.lab import Node

VIAS = ["fabric", "ssh"]


@pytest.fixture
def bashrc(hosts: list[Node]) -> Iterator[Path]:
    """What the login shell of a host reads first."""
    path = hosts[0].home / ".bashrc"
    yield path
    path.unlink(missing_ok=True)


def trouble(node: Node, **way: object) -> str:
    """What is told of a host that cannot be asked."""
    ssh = Ssh(node.host(**way), "the suite", name="gpu1")
    try:
        with pytest.raises(TransportError) as caught:
            ssh.hello()
    finally:
        ssh.close()
    return str(caught.value)


@pytest.mark.parametrize("via", VIAS)
def test_an_account_that_is_closed(hosts: list[Node], via: str) -> None:
    """The words of nologin are shown, and it is not said that a connection ended, since there was an answer."""
    hosts[0].configured("ForceCommand /usr/sbin/nologin")
    said = trouble(hosts[0], via=via)
    assert said.startswith("gpu1: its login shell printed: This account is currently not available.")
    assert "connection ended" not in said


@pytest.mark.parametrize("via", VIAS)
@pytest.mark.parametrize(
    ("lines", "words"),
    [
        (
            "echo Maintenance until 6 pm; echo see the wiki; exit 1",
            "its login shell printed: Maintenance until 6 pm see the wiki.",
        ),
        ("echo quota exceeded >&2; exit", "it printed: quota exceeded."),
        (
            "printf 'red \\033[2J\\007 notice'; echo and more >&2; exit",
            "its login shell printed: red [2J notice; it printed: and more.",
        ),
        (
            "exit",
            "the connection ended. `interpreter` python3 should be a CPython >= 3.8 there, and a login without a terminal run it",
        ),
    ],
)
def test_a_shell_that_ends_by_itself(hosts: list[Node], bashrc: Path, via: str, lines: str, words: str) -> None:
    """What ~/.bashrc printed before its `exit` is shown, without control characters; an `exit` in silence is named as what it may be."""
    bashrc.write_text(lines + "\n")
    assert f"gpu1: {words}" in trouble(hosts[0], via=via, interpreter="python3")


@pytest.mark.parametrize("via", VIAS)
@pytest.mark.parametrize("way", [{"port": 23}, {"user": "nobody"}, {"interpreter": "/no/such"}, {"known_hosts": "/dev/null"}])
def test_errors_have_the_name_of_the_machine(hosts: list[Node], via: str, way: dict[str, object]) -> None:
    """A closed port, a refused login, a missing interpreter and an unknown key begin with the name that clusters.yaml gives."""
    assert trouble(hosts[0], via=via, **way).startswith("gpu1: ")
