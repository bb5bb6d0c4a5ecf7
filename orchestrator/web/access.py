"""Who may look and who may act: tokens, the cookie they are changed for, and requests that come from another page.

A token is given once, in the address or a form; the cookie holds a role and its HMAC under the token's key, so that nothing is kept
on the server and a token from the environment outlives a restart. A form carries an HMAC too, and its Origin must be ours.
"""

from __future__ import annotations

import hmac
from collections.abc import Collection
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Literal
from urllib.parse import urlsplit

from orchestrator.web.inline import STYLE, sums

COOKIE = "tune_session"
Role = Literal["act", "look", ""]
"""May act, may look, or is nobody."""


@dataclass(frozen=True)
class Access:
    """What this server lets in."""

    tokens: dict[Role, str] = field(repr=False)
    """Role -> its token; a role without one is given to nobody."""
    hosts: frozenset[str]
    """Values of the Host header that mean us: another one is a name that somebody has pointed at this machine."""

    def role_of(self, token: str) -> Role:
        """The role that a token gives."""
        for role, known in self.tokens.items():
            if known and hmac.compare_digest(known.encode(), token.encode()):
                return role
        return ""

    def cookie(self, role: Role) -> str:
        """What a browser keeps for a role."""
        return f"{role}.{self._mark(role, 'session')}"

    def role_in(self, cookie: str) -> Role:
        """The role that a cookie proves."""
        name, _, mark = cookie.partition(".")
        for role in self.tokens:
            if role == name and self.tokens[role] and hmac.compare_digest(mark.encode(), self._mark(role, "session").encode()):
                return role
        return ""

    def form_mark(self) -> str:
        """What a form must carry to act."""
        return self._mark("act", "form")

    def may_post(self, role: Role, origin: str, host: str, mark: str) -> str:
        """Why a form is refused; empty where it may act.

        Args:
            role: of the cookie.
            origin: the header of that name: the page from which the form was sent.
            host: the header of that name, which was checked.
            mark: what the form carried.
        """
        if role != "act":
            return "this session may look and not act"
        if urlsplit(origin).netloc != host:
            return f"the form came from another page ({origin or 'no Origin'})"
        if not hmac.compare_digest(mark.encode(), self.form_mark().encode()):
            return "the form is of another session: load the page again"
        return ""

    def _mark(self, role: Role, what: str) -> str:
        return hmac.new(self.tokens[role].encode(), f"tunesmith {role} {what}".encode(), sha256).hexdigest()


def hosts_of(address: str, port: int, more: Collection[str] = ()) -> frozenset[str]:
    """Host headers by which a server at an address is meant: its own names, and those that the user adds (a reverse proxy's)."""
    loopback = ("127.0.0.1", "localhost", "[::1]")
    names = loopback if address in ("127.0.0.1", "localhost", "::1") else (address, *loopback)
    return frozenset({f"{name}:{port}" for name in names} | set(more))


HEADERS = {
    "Content-Security-Policy": f"default-src 'none'; script-src 'self'; style-src 'self' {sums(STYLE)}; img-src 'self' data:; "
    "connect-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}
"""Of every answer: no script and no style but our own files, in no frame, and no address of ours told to others."""
