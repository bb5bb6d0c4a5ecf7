"""Whatever OpenSSH reaches is reached: by Fabric where that can, else by the ssh program; no key of a host is accepted blind."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from orchestrator.transports.base import HostKeyProblem, SshAddress, TransportError
from orchestrator.transports.ssh.config import route
from orchestrator.transports.ssh.forward import forwarded, listens
from orchestrator.transports.ssh.needs import program_needed
from orchestrator.transports.ssh.transport import Ssh
from tests.hosts.lab import LOGIN, PYTHON, Lab, Node


@dataclass
class Bench:
    """A host, and an ssh_config of the test's own in which it is called `gpu`."""

    network: Lab
    node: Node
    folder: Path
    monkeypatch: pytest.MonkeyPatch
    lines: list[str] = field(default_factory=list)
    started: list[subprocess.Popen[bytes]] = field(default_factory=list)

    @property
    def key(self) -> Path:
        """The private key that the host takes."""
        return self.network.folder / "id"

    @property
    def known(self) -> Path:
        return self.network.folder / "known_hosts"

    def config(self, *lines: str, known: bool = True, key: bool = True) -> None:
        """What ssh_config says of `gpu`."""
        self.lines = [f"HostName {self.node.address}", f"User {LOGIN}", "GlobalKnownHostsFile none", *lines]
        self.lines += [f"UserKnownHostsFile {self.known}"] if known else []
        self.lines += [f"IdentityFile {self.key}"] if key else []

    def address(self, **other: str) -> SshAddress:
        path = self.folder / "config"
        path.write_text("Host gpu\n" + "".join(f"  {line}\n" for line in self.lines))
        return SshAddress("gpu", config=str(path), interpreter=PYTHON, **other)

    def openssh(self) -> subprocess.CompletedProcess[str]:
        """The same by OpenSSH, as a person types it."""
        argv = ["ssh", "-F", str(self.folder / "config"), "-o", "BatchMode=yes", "gpu", "hostname"]
        return subprocess.run(argv, capture_output=True, text=True, check=False, timeout=60)

    def agent(self, key: Path) -> str:
        """An agent that has a key; the path of its socket."""
        path = self.folder / "agent"
        self.started.append(subprocess.Popen(["ssh-agent", "-D", "-a", str(path)], stdout=subprocess.DEVNULL))
        env = {**os.environ, "SSH_AUTH_SOCK": str(path)}
        for _ in range(500):
            if subprocess.run(["ssh-add", "-q", str(key)], env=env, capture_output=True, check=False).returncode == 0:
                return str(path)
        raise AssertionError("the agent takes no key")

    def copy(self, name: str, *, private: bool = True) -> Path:
        """The key, or its public half alone, under another name."""
        path = self.folder / name
        path.parent.mkdir(exist_ok=True)
        public = path if path.suffix == ".pub" else path.with_name(f"{path.name}.pub")
        public.write_text(subprocess.run(["ssh-keygen", "-y", "-f", self.key], capture_output=True, text=True, check=True).stdout)
        if private:
            shutil.copy(self.key, path)
        return path

    def keygen(self, *words: str | Path) -> None:
        subprocess.run(["ssh-keygen", "-q", *map(str, words)], check=True, capture_output=True)


@pytest.fixture
def bench(network: Lab, hosts: list[Node], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    """With no agent of the person who runs the tests."""
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    made = Bench(network, hosts[0], tmp_path, monkeypatch)
    yield made
    for process in made.started:
        process.terminate()
        process.wait()


# ---- set-ups: what each needs besides, and who connects by it


def plain(bench: Bench) -> None:
    """Nothing special."""
    bench.config()


def hashed_names(bench: Bench) -> None:
    """known_hosts with hashes of names."""
    shutil.copy(bench.known, known := bench.folder / "known")
    bench.keygen("-H", "-f", known)
    bench.config(f"UserKnownHostsFile {known}", known=False)


def a_host_key_alias(bench: Bench) -> None:
    """The host's key is known under another name."""
    known = bench.folder / "known"
    known.write_text(bench.known.read_text().replace(bench.node.address, "alias"))
    bench.config(f"UserKnownHostsFile {known}", "HostKeyAlias alias", known=False)


def a_second_known_hosts_file(bench: Bench) -> None:
    """The first of two files does not exist."""
    bench.config(f"UserKnownHostsFile {bench.folder / 'none'} {bench.known}", known=False)


def a_match_that_runs_a_program(bench: Bench) -> None:
    """A key that depends on what a program says."""
    bench.config(key=False)
    bench.lines.append(f"Match exec true\n  IdentityFile {bench.key}")


def an_agents_key(bench: Bench) -> None:
    """No file at all: the agent of the session."""
    bench.monkeypatch.setenv("SSH_AUTH_SOCK", bench.agent(bench.key))
    bench.config(key=False)


def an_encrypted_key_in_the_agent(bench: Bench) -> None:
    """A file that asks for a passphrase, open in the agent."""
    bench.monkeypatch.setenv("SSH_AUTH_SOCK", bench.agent(bench.key))
    locked = bench.copy("locked")
    bench.keygen("-p", "-P", "", "-N", "a long passphrase", "-f", locked)
    bench.config(f"IdentityFile {locked}", "IdentitiesOnly yes", key=False)


def a_public_key_and_the_agent(bench: Bench) -> None:
    """One of the agent's keys, chosen by its public half."""
    bench.monkeypatch.setenv("SSH_AUTH_SOCK", bench.agent(bench.key))
    bench.config(f"IdentityFile {bench.copy('id.pub', private=False)}", "IdentitiesOnly yes", key=False)


def a_missing_private_half(bench: Bench) -> None:
    """A private key that lies beside its public half no more, since the agent has it."""
    bench.monkeypatch.setenv("SSH_AUTH_SOCK", bench.agent(bench.key))
    bench.copy("id.pub", private=False)
    bench.config(f"IdentityFile {bench.folder / 'id'}", "IdentitiesOnly yes", key=False)


def an_agent_of_ones_own(bench: Bench) -> None:
    """As password managers have one."""
    bench.config(f"IdentityAgent {bench.agent(bench.key)}", key=False)


def a_path_with_blanks(bench: Bench) -> None:
    """A quoted path."""
    bench.config(f'IdentityFile "{bench.copy("my keys/id")}"', key=False)


def a_path_with_a_token(bench: Bench) -> None:
    """A key for each host."""
    bench.copy("gpu")
    bench.config(f"IdentityFile {bench.folder}/%n", key=False)


def a_users_certificate(bench: Bench) -> None:
    """The host trusts an authority, not the key."""
    bench.keygen("-t", "ed25519", "-N", "", "-f", bench.folder / "ca")
    bench.keygen("-t", "ed25519", "-N", "", "-f", bench.folder / "new")
    bench.keygen("-s", bench.folder / "ca", "-I", "me", "-n", LOGIN, bench.folder / "new.pub")
    certificate = shutil.move(bench.folder / "new-cert.pub", bench.folder / "certificate")
    authority = bench.node.root / "home" / LOGIN / "ca.pub"
    shutil.copy(bench.folder / "ca.pub", authority)
    bench.node.configured(f"TrustedUserCAKeys /home/{LOGIN}/ca.pub")
    bench.config(f"CertificateFile {certificate}", f"IdentityFile {bench.folder / 'new'}", key=False)


def a_command_that_knows_hosts(bench: Bench) -> None:
    """Host keys come from a program."""
    bench.config("UserKnownHostsFile none", f"KnownHostsCommand /bin/cat {bench.known}", known=False)


def an_authority_of_hosts(bench: Bench) -> None:
    """The host's key has a certificate, and is not known itself."""
    bench.keygen("-t", "ed25519", "-N", "", "-f", bench.folder / "ca")
    for name in ("host", "host.pub"):
        (bench.folder / name).unlink(missing_ok=True)
    bench.keygen("-t", "ed25519", "-N", "", "-f", bench.folder / "host")
    bench.keygen("-s", bench.folder / "ca", "-I", "gpu", "-h", "-n", f"{bench.node.address},gpu", bench.folder / "host.pub")
    for name in ("host", "host-cert.pub"):
        shutil.copy(bench.folder / name, bench.node.folder / name)
    bench.node.configured(f"HostKey {bench.node.folder}/host", f"HostCertificate {bench.node.folder}/host-cert.pub")
    authority = (bench.folder / "ca.pub").read_text()
    (bench.folder / "known").write_text(f"@cert-authority {bench.node.address} {authority}")
    bench.config(f"UserKnownHostsFile {bench.folder / 'known'}", known=False)


def a_login_that_is_open(bench: Bench) -> None:
    """As after a second factor: nothing that ssh_config names would let us in."""
    control = f"ControlPath {bench.folder}/master"
    bench.config(control)
    argv = ["ssh", "-F", bench.address().config, "-o", "ControlMaster=yes", "-N", "gpu"]
    bench.started.append(subprocess.Popen(argv, stderr=subprocess.DEVNULL))
    while not (bench.folder / "master").exists():
        assert bench.started[-1].poll() is None
    bench.config(control, "PubkeyAuthentication no", key=False)


def one_cipher(bench: Bench) -> None:
    """A hardened host."""
    bench.node.configured("Ciphers chacha20-poly1305@openssh.com")
    bench.config()


def one_key_exchange(bench: Bench) -> None:
    """A host that takes post-quantum key exchange alone."""
    bench.node.configured("KexAlgorithms sntrup761x25519-sha512@openssh.com")
    bench.config()


def one_mac(bench: Bench) -> None:
    """A host with one code that authenticates messages."""
    bench.node.configured("MACs umac-128-etm@openssh.com", "Ciphers aes256-ctr")
    bench.config()


def an_address_of_ours(bench: Bench) -> None:
    """Where this machine has several."""
    bench.config(f"BindAddress {bench.node.address.rpartition('.')[0]}.1")


def a_jump_with_an_agent(bench: Bench) -> None:
    """The gate wants another key than the host."""
    gate = bench.network.nodes[1].address
    bench.config("ProxyJump gate")
    bench.lines.append(f"Host gate\n  HostName {gate}\n  User {LOGIN}\n  UserKnownHostsFile {bench.known}")
    bench.lines.append(f"  IdentityAgent {bench.agent(bench.key)}")


SETUPS: dict[Callable[[Bench], None], str | None] = {
    plain: "",
    hashed_names: "",
    a_host_key_alias: "",
    a_second_known_hosts_file: "",
    a_match_that_runs_a_program: "",
    an_agents_key: "",
    an_encrypted_key_in_the_agent: "Fabric was not let in",
    a_public_key_and_the_agent: "whose other half an agent has",
    a_missing_private_half: "whose other half an agent has",
    an_agent_of_ones_own: "identityagent",
    a_path_with_blanks: "",
    a_path_with_a_token: None,
    a_users_certificate: "certificatefile",
    a_command_that_knows_hosts: "knownhostscommand",
    an_authority_of_hosts: "trusts an authority",
    a_login_that_is_open: "ControlPath",
    one_cipher: None,
    one_key_exchange: None,
    one_mac: None,
    an_address_of_ours: "bindaddress",
    a_jump_with_an_agent: "identityagent",
}
"""Set-up -> a part of why the ssh program connects; empty where Fabric does; None where either may, by its release."""


@pytest.mark.parametrize("setup", SETUPS, ids=lambda setup: setup.__name__)
def test_what_openssh_reaches_is_reached(bench: Bench, setup: Callable[[Bench], None]) -> None:
    """OpenSSH is let in by an ssh_config, and so are we; who connected is told, with the reason."""
    setup(bench)
    ssh = Ssh(bench.address(), "the suite")
    done = bench.openssh()
    assert (done.returncode, done.stdout) == (0, "node0\n"), done.stderr
    facts = ssh.hello()
    ssh.close()
    assert facts.hostname == "node0"
    expected = SETUPS[setup]
    assert expected is None or (expected in facts.why_program and bool(expected) == bool(facts.why_program)), facts.why_program


def test_via_chooses(bench: Bench) -> None:
    """`via: fabric` never starts the program, and `via: ssh` never asks the library."""
    an_agent_of_ones_own(bench)
    with pytest.raises(TransportError, match="did not accept"):
        Ssh(bench.address(via="fabric"), "the suite").hello()
    bench.config()
    ssh = Ssh(bench.address(via="ssh"), "the suite")
    assert ssh.hello().why_program == "`via: ssh` says so"
    ssh.close()


@pytest.mark.parametrize("via", ["auto", "ssh", "fabric"])
@pytest.mark.parametrize("other", [False, True], ids=["unknown", "another"])
def test_no_key_is_accepted_blind(bench: Bench, via: str, other: bool) -> None:
    """A host that nothing knows, or that shows another key, is refused whoever connects, and nothing is started there."""
    known = bench.folder / "known"
    if other:
        bench.keygen("-t", "ed25519", "-N", "", "-f", bench.folder / "host")
        known.write_text(f"{bench.node.address} {(bench.folder / 'host.pub').read_text()}")
    bench.config(f"UserKnownHostsFile {known}", "StrictHostKeyChecking no", known=False)
    with pytest.raises(HostKeyProblem):
        Ssh(bench.address(via=via, folder="~/blind"), "the suite").hello()
    assert not (bench.node.home / "blind").exists()
    assert known.exists() is other


def test_a_refusal_has_the_words_of_ssh(bench: Bench) -> None:
    """What ssh says of a login is passed on, and how to see more of it."""
    bench.config(key=False)
    with pytest.raises(TransportError, match=r"gpu: ssh: .*Permission denied.*`ssh -v gpu true` shows more"):
        Ssh(bench.address(via="ssh"), "the suite").hello()


@pytest.mark.parametrize("via", ["fabric", "ssh"])
def test_a_port_is_forwarded(bench: Bench, via: str) -> None:
    """A port of the loopback there is one here while it is held, whoever connects; where nobody listens, that is told."""
    bench.config()
    listen = "import socket; s = socket.create_server(('127.0.0.1', 0)); print(s.getsockname()[1], flush=True); s.accept()[0].send(b'hello')"
    script = f'{PYTHON} -c "{listen}" >/tmp/port 2>&1 & until test -s /tmp/port; do sleep 0.05; done; cat /tmp/port'
    there = int(bench.node.run("sh", "-c", f"rm -f /tmp/port; {script}"))
    with forwarded(bench.address(via=via), there) as port, socket.create_connection(("127.0.0.1", port), 30) as talk:
        talk.settimeout(30)
        assert talk.recv(5) == b"hello"


def test_who_looks_for_a_listener_is_not_in_its_way(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever wants to listen at a port can, also in the very moment in which it is asked whether somebody does, and is seen then."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert listens(port)
    plain = socket.socket

    class Meanwhile(socket.socket):
        def bind(self, address: tuple[str, int]) -> None:
            super().bind(address)
            with plain() as other:
                other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                other.bind(address)
                other.listen()

    monkeypatch.setattr(socket, "socket", Meanwhile)
    assert not listens(port)


def test_nothing_is_left_running(bench: Bench) -> None:
    """Closing ends every ssh that was started, also one whose host is cut."""
    bench.config()
    ssh = Ssh(bench.address(via="ssh"), "the suite")
    ssh.hello()
    ssh.put({})
    assert ssh._connection
    processes = [each._process for each in ssh._connection.commands]
    bench.node.cut()
    ssh.close()
    assert [process.poll() is not None for process in processes] == [True] * len(processes)


def test_a_secret_free_command_line(bench: Bench) -> None:
    """What crosses is data: the command line has the interpreter, and nothing of a job."""
    bench.config()
    way = route(bench.address())
    assert program_needed(way, lives=lambda host: pytest.fail("no ControlPath is set")) == ""
    ssh = Ssh(bench.address(via="ssh"), "the suite")
    ssh.hello()
    assert ssh._connection
    words = [word for each in ssh._connection.commands for word in each._process.args]
    assert not [word for word in words if "the suite" in str(word)]
    ssh.close()
