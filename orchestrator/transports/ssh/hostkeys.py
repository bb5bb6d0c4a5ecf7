"""Whether a host is the one that we know: known_hosts, read as OpenSSH does, since neither Fabric nor paramiko does.

Fabric 3.2 accepts any key. paramiko 5.1 stumbles over `@cert-authority`, and knows neither patterns nor two keys of a type.
"""

from __future__ import annotations

import hmac
from base64 import b64decode, b64encode
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from hashlib import sha1, sha256
from pathlib import Path
from shlex import quote
from typing import Protocol

from orchestrator.transports.base import HostKeyProblem

CERTIFIED, REVOKED = "@cert-authority", "@revoked"


class HostKey(Protocol):
    """A public key, as paramiko has it."""

    def get_name(self) -> str:
        """Its type: `ssh-ed25519`."""
        ...

    def asbytes(self) -> bytes:
        """Its public part, as known_hosts has it in base64."""
        ...


@dataclass(frozen=True)
class Entry:
    """A line of a known_hosts file that is about the host."""

    place: str
    """FILE:LINE"""
    marker: str
    kind: str
    key: str
    """In base64."""


@dataclass(frozen=True)
class KnownHosts:
    """What is known of one host's keys."""

    host: str
    """As people call it."""
    called: str
    """As known_hosts does."""
    files: Sequence[Path]
    entries: Sequence[Entry]
    pinned: bool = False
    """Its keys are those that it told whoever made it: no other is right."""

    @property
    def kinds(self) -> list[str]:
        """Types of which a key is known: the host is to show one of these, though it may have others."""
        return list(dict.fromkeys(entry.kind for entry in self.entries if not entry.marker))

    def check(self, kind: str, key: bytes) -> None:
        """HostKeyProblem unless the key is known and not revoked."""
        text = b64encode(key).decode()
        same = [entry for entry in self.entries if entry.key == text]
        revoked = [entry for entry in same if entry.marker == REVOKED]
        if revoked:
            what = f"showed the {kind} key {fingerprint(key)}, which {revoked[0].place} says is revoked"
            raise HostKeyProblem(f"{self.host}: {what}. Nothing was sent. The host needs another key")
        if not any(not entry.marker for entry in same):
            raise HostKeyProblem(f"{self.host}: {self._trouble(kind, key)}")

    def _trouble(self, kind: str, key: bytes) -> str:
        """What is wrong with a key that is not known, and the way out."""
        shown = f"its {kind} key {fingerprint(key)}"
        if self.pinned:
            way = "`tune targets check` asks again; if it stays, something stands between here and the host"
            return f"{shown} is not one that it told its cloud ({self.files[0]}). Nothing was sent. {way}"
        others = [entry for entry in self.entries if not entry.marker]
        certified = [entry for entry in self.entries if entry.marker == CERTIFIED]
        file = quote(str(self.files[0])) if self.files else "~/.ssh/known_hosts"
        name, _, port = self.called.removeprefix("[").partition("]:")
        scan = f"ssh-keyscan{f' -p {port}' if port else ''} {name} >> {file}"
        if others:
            known = ", ".join(f"{entry.kind} {fingerprint(b64decode(entry.key))} ({entry.place})" for entry in others)
            renew = f"ssh-keygen -R {quote(self.called)} -f {file}` and `{scan}"
            return f"host key changed: {shown[4:]}, but known_hosts has {known}. Nothing was sent. If the host was set up anew: `{renew}`"
        if certified:
            why = f"{certified[0].place} trusts an authority, whose certificates Fabric does not read"
            return f"{shown} is not known: {why}. Nothing was sent. If the key is right: `{scan}`"
        places = ", ".join(map(str, self.files)) or "no file"
        return f"host key not in known_hosts ({places}): {shown[4:]}. Nothing was sent. If the key is right: `{scan}`"

    def missing_host_key(self, client: object, hostname: str, key: HostKey) -> None:
        """As paramiko asks: it knows no key itself."""
        del client, hostname
        self.check(key.get_name(), key.asbytes())


def fingerprint(key: bytes) -> str:
    """A key as people compare it."""
    return "SHA256:" + b64encode(sha256(key).digest()).decode().rstrip("=")


def known(host: str, called: str, files: Sequence[Path], *, pinned: bool = False) -> KnownHosts:
    """What files of host keys say of a host; those that do not exist or cannot be read say nothing."""
    return KnownHosts(host, called, files, [entry for file in files for entry in _entries(file, called)], pinned)


def _entries(file: Path, called: str) -> Iterable[Entry]:
    try:
        lines = file.read_text("utf-8", errors="replace").splitlines()
    except OSError:
        return
    for number, line in enumerate(lines, 1):
        words = line.split()
        marker = words.pop(0) if words and words[0].startswith("@") else ""
        if len(words) >= 3 and not words[0].startswith("#") and marker in ("", CERTIFIED, REVOKED) and meant(words[0], called):
            yield Entry(f"{file}:{number}", marker, words[1], words[2])


def meant(patterns: str, called: str) -> bool:
    """Do the first words of a line mean a host? They are a hash, or patterns with commas, of which `!` excludes."""
    if patterns.startswith("|1|"):
        salt, _, hashed = patterns[3:].partition("|")
        try:
            return hmac.compare_digest(hmac.new(b64decode(salt), called.encode(), sha1).digest(), b64decode(hashed))
        except ValueError:
            return False
    found = [each for each in patterns.lower().split(",") if _fits(called.lower(), each.lstrip("!"))]
    return bool(found) and not any(each.startswith("!") for each in found)


def _fits(name: str, pattern: str) -> bool:
    return fnmatchcase(name, pattern.replace("[", "[[]"))  # brackets are for ports
