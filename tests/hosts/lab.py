"""Real hosts for tests: sshd in network namespaces, that can be cut, healed, rebooted, slowed and filled. Linux, root.

A room takes the fixture by `from tests.hosts.lab import hosts, network  # noqa: F401` in its conftest. Without root or sshd the
tests that need hosts are skipped; with `ssh` in TUNE_REQUIRE they fail.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from orchestrator.transports.base import SshAddress

SCRIPT = Path(__file__).with_name("make-hosts.sh")
LOGIN = "tunelab"
PYTHON = "/usr/bin/python3"
"""Of the hosts: that user may not enter the folder of ours."""


@dataclass
class Node:
    """One host. Its user is `LOGIN`."""

    lab: Lab
    index: int
    marks: set[str] = field(default_factory=set)
    """What was done to it, to be undone."""

    @property
    def name(self) -> str:
        return f"node{self.index}"

    @property
    def address(self) -> str:
        return f"10.254.{self.lab.net}.{10 + self.index}"

    @property
    def root(self) -> Path:
        """Its file system, as seen from here; links in it lead astray."""
        return Path(f"/proc/{(self.folder / 'holder.pid').read_text().strip()}/root")

    @property
    def folder(self) -> Path:
        """What the lab keeps of it."""
        return self.lab.folder / f"h{self.index}"

    @property
    def home(self) -> Path:
        """The user's home, as seen from here."""
        return self.root / "home" / LOGIN

    def host(self, **other: Any) -> SshAddress:
        """How to reach it, with everything said: no ssh_config is read."""
        said = {"user": LOGIN, "identity": str(self.lab.folder / "id"), "known_hosts": str(self.lab.folder / "known_hosts")}
        return SshAddress(**{"name": self.address, "interpreter": PYTHON, "config": "/dev/null", **said, **other})

    def run(self, *argv: str, user: bool = False) -> str:
        """Run a program there, as root or as the user; what it prints."""
        su = ["setpriv", f"--reuid={LOGIN}", f"--regid={LOGIN}", "--init-groups"] if user else []
        return self.lab.call("exec", str(self.index), *su, *argv)

    def cut(self) -> None:
        """Pull the cable: nothing arrives any more, and nobody is told."""
        self._do("cut", "heal")

    def heal(self) -> None:
        """Put the cable back."""
        self._do("heal")

    def reset_ssh(self) -> None:
        """End sshd and all of its sessions; what they started lives on."""
        self._do("reset-ssh", "start-ssh")

    def start_ssh(self) -> None:
        """Start sshd again."""
        self._do("start-ssh")

    def reboot(self) -> None:
        """End everything, and begin anew with the same disk."""
        self._do("reboot")

    def slow(self, **options: float) -> None:
        """A wire with `delay` (ms, one way), `loss` (per cent), `rate` (Mbit/s)."""
        self._do("wire", "wire", *(word for key, value in options.items() for word in (f"--{key}", str(value))))

    def small(self, size: str) -> None:
        """A disk of a size (`2m`) for the home, empty, until the next boot."""
        self._do("disk", "reboot", size)

    def share(self, other: Node, *, locks: bool = True) -> None:
        """Have the home of another host, as nodes of a cluster have one in common; sessions that are open keep the old one. Without
        `locks` each host has its own, as over many a network file system.
        """
        self._do("share", "unshare", str(other.index), *(() if locks else ("apart",)))
        self.reset_ssh()
        self.start_ssh()

    def impersonate(self, other: Node) -> None:
        """Answer at the address of another host, with its host key, as a clone of it would; its cable is pulled."""
        other.cut()
        self._do("clone", "unclone", str(other.index))

    def withdraw(self) -> None:
        """Answer at its own address alone again."""
        self._do("unclone")

    def configured(self, *lines: str) -> None:
        """Start sshd anew with more lines in its configuration, until it is put right."""
        self.restore_config()
        self.reset_ssh()
        config = self.folder / "sshd_config"
        config.with_suffix(".kept").write_text(config.read_text())
        config.write_text("\n".join(lines) + "\n" + config.read_text())
        self.start_ssh()

    def restore_config(self) -> None:
        kept = (self.folder / "sshd_config").with_suffix(".kept")
        if kept.exists():
            kept.replace(kept.with_suffix(""))
            self.reset_ssh()

    def right(self) -> None:
        """Undo what was done to it."""
        self.restore_config()
        for remedy in sorted(self.marks):
            self._do(remedy)

    def _do(self, what: str, remedy: str = "", *words: str) -> None:
        self.lab.call(what, str(self.index), *words)
        self.marks.discard(what)
        if what == "reboot":
            self.marks -= {"start-ssh", "unshare"}
        if remedy:
            self.marks.add(remedy)


@dataclass
class Lab:
    """Some hosts side by side, of one bridge."""

    folder: Path
    net: int
    nodes: list[Node] = field(default_factory=list)
    shown: Path | None = None
    """A folder of this machine that they have too, wherever it is."""

    def call(self, *words: str) -> str:
        """Run the script."""
        env = {**os.environ, "LAB": str(self.folder), "NET": str(self.net), "SHOWN": str(self.shown or "")}
        done = subprocess.run([SCRIPT, *words], env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{words}: {done.stderr}"
        return done.stdout

    @property
    def config(self) -> Path:
        """An ssh_config by which `ssh -F` reaches node0..."""
        return self.folder / "ssh_config"

    def right(self) -> None:
        """Undo everything that was done to the hosts."""
        for node in self.nodes:
            node.right()


@contextmanager
def laboratory(count: int, shown: Path | None = None) -> Iterator[Lab]:
    """So many hosts, for a while; see `Lab.shown`."""
    swept()
    folder = Path(tempfile.mkdtemp(prefix="tune-hosts-"))
    lab = Lab(folder, free_net(), shown=shown)
    (folder / "owner").write_text(f"{os.getpid()} {lab.net}")
    try:
        lab.call("up", str(count))
        lab.nodes = [Node(lab, index) for index in range(count)]
        yield lab
    finally:
        lab.call("down")


def free_net() -> int:
    """A number that no lab has."""
    taken = {path.name for path in Path("/sys/class/net").glob("br-tl*")}
    first = os.getpid() % 250
    return next(number for number in (2 + (first + step) % 250 for step in range(250)) if f"br-tl{number}" not in taken)


def swept() -> None:
    """Remove labs whose owner was killed."""
    for path in Path(tempfile.gettempdir()).glob("tune-hosts-*/owner"):
        owner, net = path.read_text().split()
        if not Path(f"/proc/{owner}").exists():
            with suppress(AssertionError):  # another run may be at it too
                Lab(path.parent, int(net)).call("down")


def missing() -> str:
    """Why there can be no hosts here; empty when there can."""
    if os.geteuid() != 0:
        return "hosts out of namespaces need root"
    for program in ("/usr/sbin/sshd", PYTHON, "ip", "nsenter", "unshare", "ssh-keygen"):
        if not shutil.which(program):
            return f"hosts out of namespaces need {program}"
    if subprocess.call(["unshare", "-m", "true"], stderr=subprocess.DEVNULL):
        return "this root may not make namespaces"
    return ""


@pytest.fixture(scope="session")
def network() -> Iterator[Lab]:
    """Three hosts, for all tests of a run."""
    if why := missing():
        if "ssh" in os.environ.get("TUNE_REQUIRE", "").split(","):
            pytest.fail(why)
        pytest.skip(why)
    with laboratory(3) as made:
        yield made


@pytest.fixture
def hosts(network: Lab) -> Iterator[list[Node]]:
    """Three hosts that are well; whatever a test did to them is undone after it."""
    network.right()
    yield network.nodes
    network.right()
