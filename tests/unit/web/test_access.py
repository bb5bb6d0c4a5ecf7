"""Who may look and who may act."""

from hashlib import sha256

import pytest

from orchestrator.web.access import Access, hosts_of
from orchestrator.web.vendor import FILES, STATIC

ACCESS = Access({"look": "for looking", "act": "for acting"}, hosts_of("127.0.0.1", 80, ["tune.example"]))
HOST, MARK = "127.0.0.1:80", ACCESS.form_mark()


def test_a_token_gives_its_role():
    """Each token gives one role, anything else none, and a role without a token is nobody's."""
    assert [ACCESS.role_of(token) for token in ("for looking", "for acting", "", "x")] == ["look", "act", "", ""]
    closed = Access({"look": "", "act": "a"}, frozenset())
    assert (closed.role_of(""), closed.role_in("look.")) == ("", "")


def test_a_cookie_proves_its_role_alone():
    """A cookie of one role is no cookie of the other, nor of a server with another token."""
    assert ACCESS.role_in(ACCESS.cookie("look")) == "look"
    assert ACCESS.role_in(ACCESS.cookie("look").replace("look.", "act.")) == ""
    assert Access({"act": "other"}, frozenset()).role_in(ACCESS.cookie("act")) == ""
    assert "for acting" not in repr(ACCESS)


@pytest.mark.parametrize(
    ("role", "origin", "mark", "why"),
    [
        ("act", f"http://{HOST}", MARK, ""),
        ("look", f"http://{HOST}", MARK, "may look and not act"),
        ("", f"http://{HOST}", MARK, "may look and not act"),
        ("act", "http://evil.example", MARK, "another page"),
        ("act", "null", MARK, "another page"),
        ("act", "", MARK, "another page"),
        ("act", f"http://{HOST}", "", "another session"),
    ],
)
def test_a_form_must_be_ours(role, origin, mark, why):
    """Acting needs the role, our own page as the origin, and the mark of the session."""
    said = ACCESS.may_post(role, origin, HOST, mark)
    assert why in said and bool(why) == bool(said)


def test_names_of_the_server():
    """Loopback is known by its three names at its port, and a proxy's name is added."""
    assert ACCESS.hosts == {"127.0.0.1:80", "localhost:80", "[::1]:80", "tune.example"}


def test_files_of_others_are_what_was_looked_at():
    """Each vendored file has the sum that its list states, and its licence lies beside it."""
    assert {name: sha256((STATIC / name).read_bytes()).hexdigest() for name in FILES} == {n: f.sha256 for n, f in FILES.items()}
