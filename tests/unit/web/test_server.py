"""The page by its answers: who is let in, what is refused, what is told."""

import http.client
import os
import re
from urllib.parse import quote, urlsplit

import pytest

from orchestrator.store import NewJob, open_store
from orchestrator.web import views

pytestmark = pytest.mark.long


class Visitor:
    """Requests of one browser, by hand."""

    def __init__(self, dashboard) -> None:
        self.host = urlsplit(dashboard.url).netloc
        self.cookie = ""

    def __call__(self, path, *, method="GET", body=None, **headers):
        """Status, headers and text."""
        line = http.client.HTTPConnection(self.host, timeout=60)
        sent = {"Host": self.host, "Cookie": self.cookie, **{name.replace("_", "-"): value for name, value in headers.items()}}
        line.request(method, path, body, sent)
        answer = line.getresponse()
        text = answer.read().decode()
        line.close()
        return answer.status, answer.headers, text

    def enter(self, token):
        """Change a token for a cookie."""
        _, headers, _ = self(f"/?token={token}")
        self.cookie = (headers["Set-Cookie"] or "").partition(";")[0]
        return headers

    def post(self, path, fields, **headers):
        """Send a form as its page would."""
        body = "&".join(f"{name}={quote(value)}" for name, value in fields.items())
        return self(path, method="POST", body=body, **{"Origin": f"http://{self.host}", **headers})

    def mark(self, path="/submit"):
        """What forms of this session carry."""
        return re.search(r'name="mark" value="(\w+)"', self(path)[2])[1]


def test_who_is_let_in(dashboard, lab):
    """Without a token there is only the form; a token becomes a cookie that scripts cannot read; another name of this machine is refused."""
    running = dashboard()
    visitor = Visitor(running)
    assert visitor("/")[0] == 303
    assert visitor("/jobs/x")[1]["Location"] == "/login"
    headers = visitor.enter(running.token)
    assert {"HttpOnly", "SameSite=strict"} <= set(headers["Set-Cookie"].split("; "))
    status, headers, text = visitor("/")
    assert (status, "Nothing was submitted yet" in text) == (200, True)
    assert "script-src 'self'" in headers["Content-Security-Policy"]
    assert visitor("/", Host="evil.example")[0] == 421
    assert visitor("/jobs/x")[0] == 404
    assert running.token not in text
    assert Visitor(running)("/?token=wrong")[1]["Location"] == "/login?wrong=1"


def test_forms_of_others_do_nothing(dashboard, lab):
    """A cancel from another page, without the mark, or by a session that may only look is refused; ours cancels."""
    lab.submit("a", "sleep 100")
    lab.wait("a", state="RUNNING")
    running = dashboard(TUNE_WEB_READ_TOKEN="looking")
    visitor, looker = Visitor(running), Visitor(running)
    visitor.enter(running.token)
    looker.enter("looking")
    mark = visitor.mark()
    assert visitor.post("/jobs/a/cancel", {"mark": mark}, Origin="http://evil.example")[0] == 403
    assert visitor.post("/jobs/a/cancel", {"mark": "0"})[0] == 403
    assert looker.post("/jobs/a/cancel", {"mark": mark})[0] == 403
    assert "Cancel" not in looker("/jobs/a")[2]
    assert looker("/submit")[0] == 200 and "read only" in looker("/")[2]
    assert lab.job("a").want == ""
    assert visitor.post("/jobs/a/cancel", {"mark": mark})[0] == 303
    assert lab.wait("a").state == "CANCELLED"


def test_text_of_a_job_stays_text(dashboard, lab, tmp_path):
    """Names, labels, logs and reasons full of HTML come back escaped, in pages, in events and in a shared file."""
    evil = "<script>alert(1)</script>\"'><img src=x onerror=alert(1)>"
    lab.submit("a", f"echo '{evil.replace(chr(39), '')}'; printf '\\033]0;title\\007'; exit 3", name=evil)
    lab.wait("a")
    running = dashboard()
    visitor = Visitor(running)
    visitor.enter(running.token)
    for path in ("/", "/jobs/a", f"/?q={quote(evil)}", f"/jobs/{quote(evil, safe='')}"):
        assert "<script>alert" not in visitor(path)[2]
        assert "<img" not in visitor(path)[2]
    status, headers, text = visitor("/jobs/a/log")
    assert (status, headers["Content-Type"], headers["X-Content-Type-Options"]) == (200, "text/plain; charset=utf-8", "nosniff")
    assert "\x1b" not in text
    assert "<script>alert" not in visitor("/jobs/a/share.html")[2]


def test_behind_a_proxy_under_a_path(dashboard, lab):
    """With a root path and a name of the proxy all pages are found and all addresses lead below it, whether the proxy passes the path on
    or cuts it off.
    """
    lab.submit("a", lab.training(1), steps=1)
    lab.wait("a")
    running = dashboard("--root-path", "/tune", "--allow-host", "proxy.example")
    visitor = Visitor(running)
    status, headers, _ = visitor("/tune/", Host="proxy.example")
    assert (status, headers["Location"]) == (303, "/tune/login")
    assert visitor("/tune/login", Host="proxy.example")[0] == 401  # the form, and not on to itself
    visitor.enter(running.token)
    for path in ("/", "/jobs/a", "/evidence", "/static/page.css"):
        cut, passed = (visitor(root + path, Host="proxy.example") for root in ("", "/tune"))
        assert (cut[0], passed[0]) == (200, 200)
        addresses = re.findall(r'(?:href|src|action)="(/[^"]*)"', passed[2])
        assert all(each.startswith("/tune/") for each in addresses)
        assert addresses or path.startswith("/static/")
    assert visitor("/tune", Host="proxy.example")[0] == 200
    assert visitor("/tune/none", Host="proxy.example")[0] == 404


def test_tokens_of_the_environment_are_not_printed(dashboard, lab):
    """A token that the user chose stands in no output."""
    running = dashboard(TUNE_WEB_TOKEN="canary-token")
    assert "canary" not in running.entry
    visitor = Visitor(running)
    visitor.enter("canary-token")
    assert visitor("/")[0] == 200


def test_a_thousand_jobs_fit_a_small_page(dashboard, lab):
    """The first page of 1,000 jobs has fifty of them, and with all its files under 100 KB on the wire."""
    with open_store(lab.home.store) as store:
        for n in range(1000):
            store.add_job(NewJob(f"job-{n}", "sweep", "litgpt", "local", "d", "{}"), float(n))
            store.change(f"job-{n}", expect=None, now=float(n), state="SUCCEEDED", ended=float(n))
    running = dashboard()
    visitor = Visitor(running)
    visitor.enter(running.token)
    sizes = {}
    for path in ("/", "/static/page.css", "/static/page.js"):
        line = http.client.HTTPConnection(visitor.host, timeout=60)
        line.request("GET", path, headers={"Host": visitor.host, "Cookie": visitor.cookie, "Accept-Encoding": "gzip"})
        sizes[path] = len(line.getresponse().read())
    assert sum(sizes.values()) < 100_000, sizes
    assert visitor("/")[2].count("<tr id=") == views.PAGE
    assert visitor("/?page=20")[2].count("<tr id=") == views.PAGE


def test_a_port_in_use_is_told(dashboard, tune, lab):
    """A second page on the same port ends with the way out."""
    port = urlsplit(dashboard().url).port
    assert "--port names another" in tune("dashboard", "--port", str(port), code=4).stderr


def test_without_the_extra_it_says_what_to_install(tune, tmp_path, monkeypatch):
    """Where starlette is not installed the command names the extra."""
    (tmp_path / "starlette.py").write_text("raise ModuleNotFoundError(\"No module named 'starlette'\", name='starlette')\n")
    argv = ("dashboard", "--port", "0")
    prefix = ("env", f"PYTHONPATH={tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")
    said = tune(*argv, code=2, prefix=prefix).stderr
    assert "pip install 'tunesmith[web]'" in said
