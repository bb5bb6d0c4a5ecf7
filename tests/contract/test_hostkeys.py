"""Is this the host that we know? First the files alone, then real hosts."""

from __future__ import annotations

import subprocess
from base64 import b64decode
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from orchestrator.transports.base import HostKeyProblem
from orchestrator.transports.ssh.hostkeys import fingerprint, known
from orchestrator.transports.ssh.transport import Ssh

if TYPE_CHECKING:
    from tests.hosts.lab import Node

KIND = "ssh-ed25519"


def keygen(*words: str) -> str:
    """Run ssh-keygen."""
    return subprocess.run(["ssh-keygen", *words], check=True, capture_output=True, text=True).stdout


@pytest.fixture(scope="session")
def keys(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Two public keys in base64."""
    folder = tmp_path_factory.mktemp("keys")
    for name in "ab":
        keygen("-q", "-t", "ed25519", "-N", "", "-f", str(folder / name))
    return [(folder / f"{name}.pub").read_text().split()[1] for name in "ab"]


@pytest.mark.parametrize(
    ("line", "called", "right"),
    [
        ("lab {} {}", "lab", True),
        ("other,lab {} {} a comment", "LAB", True),
        ("lab {} {}", "lab2", False),
        ("*.lab {} {}", "a.lab", True),
        ("*.lab,!a.lab {} {}", "a.lab", False),
        ("!a.lab {} {}", "b.lab", False),
        ("l?b {} {}", "lab", True),
        ("[lab]:2222 {} {}", "[lab]:2222", True),
        ("lab {} {}", "[lab]:2222", False),
        ("# lab {} {}", "lab", False),
        ("@unknown lab {} {}", "lab", False),
        ("|1|nonsense|more {} {}", "lab", False),
        ("lab {}", "lab", False),
        ("", "lab", False),
    ],
)
def test_lines_mean_hosts_as_openssh_says(tmp_path: Path, keys: list[str], line: str, called: str, right: bool) -> None:
    """Names, patterns, exclusions, ports and comments mean what they mean to ssh; nonsense means nothing."""
    file = tmp_path / "known"
    file.write_text(line.format(KIND, keys[0]) + "\n")
    found = known("h", called, [file])
    if right:
        found.check(KIND, b64decode(keys[0]))
    else:
        with pytest.raises(HostKeyProblem, match="host key not in known_hosts"):
            found.check(KIND, b64decode(keys[0]))


def test_hashed_names_are_found(tmp_path: Path, keys: list[str]) -> None:
    """What ssh-keygen -H made of a file means the same as before."""
    file = tmp_path / "known"
    file.write_text(f"lab {KIND} {keys[0]}\n[lab]:2222 {KIND} {keys[1]}\n")
    keygen("-q", "-H", "-f", str(file))
    assert "lab" not in file.read_text()
    known("h", "lab", [file]).check(KIND, b64decode(keys[0]))
    known("h", "[lab]:2222", [file]).check(KIND, b64decode(keys[1]))
    with pytest.raises(HostKeyProblem):
        known("h", "lab", [file]).check(KIND, b64decode(keys[1]))


def test_one_of_two_keys_of_a_type_is_enough(tmp_path: Path, keys: list[str]) -> None:
    """While a host's key is being replaced, files hold two of a type, also in two files; both are right."""
    files = [tmp_path / "one", tmp_path / "absent", tmp_path / "two"]
    files[0].write_text(f"lab {KIND} {keys[0]}\n")
    files[2].write_text(f"lab {KIND} {keys[1]}\n")
    for key in keys:
        known("h", "lab", files).check(KIND, b64decode(key))


def test_a_revoked_key_is_refused_though_known(tmp_path: Path, keys: list[str]) -> None:
    """@revoked beats every other line; the refusal says where it stands."""
    file = tmp_path / "known"
    file.write_text(f"lab {KIND} {keys[0]}\n@revoked * {KIND} {keys[0]}\n")
    with pytest.raises(HostKeyProblem, match=rf"h: showed the {KIND} key SHA256:\S+, which {file}:2 says is revoked"):
        known("h", "lab", [file]).check(KIND, b64decode(keys[0]))


def test_the_fingerprint_is_that_of_ssh_keygen(tmp_path: Path, keys: list[str]) -> None:
    """People compare it with what ssh shows."""
    (tmp_path / "key.pub").write_text(f"{KIND} {keys[0]}\n")
    assert fingerprint(b64decode(keys[0])) in keygen("-l", "-f", str(tmp_path / "key.pub"))


# ---- with real hosts


def reach(node: Node, file: Path, **other: object) -> None:
    """Say hello, believing one file only."""
    ssh = Ssh(node.host(known_hosts=str(file), **other), "the suite")
    try:
        ssh.hello()
    finally:
        ssh.close()


def served(node: Node) -> bool:
    """Did the host let anybody in since?"""
    return "Accepted publickey" in (node.folder / "sshd.log").read_text()


@pytest.fixture
def node(hosts: list[Node]) -> Node:
    """A host whose log is empty."""
    (hosts[2].folder / "sshd.log").write_text("")
    return hosts[2]


def public(node: Node) -> str:
    """A host's key, as known_hosts has it."""
    return " ".join((node.folder / "hostkey.pub").read_text().split()[:2])


def test_an_unknown_host_is_refused_with_the_way_out(node: Node, tmp_path: Path) -> None:
    """Without a line for it, a host gets nothing of us; the words it says to run make it known, and then it is reached."""
    file = tmp_path / "known hosts"
    with pytest.raises(HostKeyProblem) as caught:
        reach(node, file)
    assert not served(node)
    text = str(caught.value)
    assert fingerprint(b64decode(public(node).split()[1])) in text
    assert str(file) in text
    remedy = text.split("`")[1]
    assert remedy.startswith(f"ssh-keyscan {node.address} >> ")
    subprocess.run(remedy, shell=True, check=True, capture_output=True)
    reach(node, file)


def test_a_changed_key_is_refused_with_both_fingerprints(node: Node, tmp_path: Path, keys: list[str]) -> None:
    """Another key than the known one is refused with both, the line of the known one, and how to renew it, which works."""
    file = tmp_path / "known"
    file.write_text(f"# mine\n{node.address} {KIND} {keys[0]}\n")
    with pytest.raises(HostKeyProblem, match="host key changed") as caught:
        reach(node, file)
    assert not served(node)
    text = str(caught.value)
    for part in (fingerprint(b64decode(keys[0])), fingerprint(b64decode(public(node).split()[1])), f"{file}:2"):
        assert part in text
    for remedy in text.split("`")[1::2]:
        subprocess.run(remedy, shell=True, check=True, capture_output=True)
    reach(node, file)


def test_a_certificate_authority_alone_is_not_enough(node: Node, tmp_path: Path) -> None:
    """A @cert-authority line makes nothing fail beside a plain one; a host without a certificate is refused, in words about that line
    where Fabric connects.
    """
    file = tmp_path / "known"
    authority = f"@cert-authority * {public(node)}\n"
    file.write_text(authority)
    with pytest.raises(HostKeyProblem, match=r"known:1 trusts an authority, whose certificates Fabric does not read"):
        reach(node, file, via="fabric")
    with pytest.raises(HostKeyProblem, match="Host key verification failed"):
        reach(node, file)
    file.write_text(f"{authority}{node.address} {public(node)}\n")
    reach(node, file)


def test_the_host_is_asked_for_a_key_of_a_type_that_is_known(node: Node, tmp_path: Path) -> None:
    """A host with several keys, of which we know one, shows that one: the others are no change."""
    rsa = node.folder / "rsa"
    rsa.unlink(missing_ok=True)
    keygen("-q", "-t", "rsa", "-b", "2048", "-N", "", "-f", str(rsa))
    node.configured(f"HostKey {rsa}")
    for kind in (rsa, node.folder / "hostkey"):
        file = tmp_path / kind.name
        file.write_text(f"{node.address} {kind.with_name(kind.name + '.pub').read_text()}")
        reach(node, file)


def test_an_alias_of_ssh_config_is_looked_up(node: Node, tmp_path: Path) -> None:
    """With HostKeyAlias, known_hosts is read for that name."""
    config, file = tmp_path / "config", tmp_path / "known"
    config.write_text(f"Host gpu\n  HostName {node.address}\n  HostKeyAlias the-gpu\n")
    file.write_text(f"the-gpu {public(node)}\n")
    reach(node, file, name="gpu", config=str(config))
    file.write_text(f"gpu {public(node)}\n")
    with pytest.raises(HostKeyProblem):
        reach(node, file, name="gpu", config=str(config))


def test_the_gate_is_checked_too(hosts: list[Node], tmp_path: Path) -> None:
    """A jump host with an unknown key is refused by its own name, and what lies behind is not even tried."""
    file = tmp_path / "known"
    file.write_text(f"{hosts[2].address} {public(hosts[2])}\n")
    with pytest.raises(HostKeyProblem, match=rf"^{hosts[1].address}: "):
        reach(hosts[2], file, jump=f"tunelab@{hosts[1].address}")
