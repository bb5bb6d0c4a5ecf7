"""The Cloud TPU API as our client uses it: a real HTTP server that does what the API does, also wrong; google-auth and gcloud as they are."""

import json
import os
import shutil
import subprocess
from base64 import b64encode

import pytest

from backends.recipe.building import build
from orchestrator.executors.tpu import api as api_module
from orchestrator.executors.tpu.api import ApiError, TpuApi, endpoint
from orchestrator.executors.tpu.check import check, requests
from orchestrator.executors.tpu.credentials import find_token
from orchestrator.executors.tpu.lifecycle import Create
from orchestrator.executors.tpu.pool import Pool
from orchestrator.executors.tpu.section import TpuSection, candidate
from orchestrator.home import Home
from orchestrator.transports.base import HostRefused, TransportError
from tests.hosts.tpu import PROJECT, TOKEN, ZONE, cloud, service_account


def key(text="a"):
    """A host key as OpenSSH writes it."""
    data = b"\0\0\0\x0bssh-ed25519\0\0\0\x20" + text.encode() * 32
    return b64encode(data).decode()


@pytest.fixture
def fake(monkeypatch, tmp_path):
    """The API on loopback, with an account whose key google-auth finds."""
    with cloud() as made:
        monkeypatch.setenv(api_module.OVERRIDE, made.url)
        monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(service_account(tmp_path, made.url)))
        made.hosts = ["10.1.2.3"]
        made.keys = {"10.1.2.3": [("ssh-ed25519", key())]}
        yield made


@pytest.fixture
def home(tmp_path):
    """A state folder."""
    return Home(tmp_path / "home").make()


def target(**more):
    """A target that is queued for, unless something else is said."""
    said = {"kind": "tpu", "type": "v4-8", "project": PROJECT, "zone": ZONE, **more}
    return candidate("t", build(TpuSection, said if {"name", "hosts"} & said.keys() else {"queued": {}, **said}))


def test_google_auth_signs_for_us(fake):
    """A key file is found and used as all of Google's libraries do; its token opens the API."""
    api = TpuApi(PROJECT, find_token())
    assert api.queued(ZONE) == []
    assert fake.calls == [f"GET /v2/projects/{PROJECT}/locations/{ZONE}/queuedResources"]


@pytest.mark.skipif(not shutil.which("gcloud"), reason="gcloud is not installed")
def test_gcloud_signs_for_us_where_google_auth_finds_nothing(fake, monkeypatch, tmp_path):
    """Whoever has only logged in with gcloud needs nothing else."""
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", "")
    monkeypatch.setenv("CLOUDSDK_CONFIG", str(tmp_path))
    monkeypatch.setenv("NO_GCE_CHECK", "true")
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "token").write_text(TOKEN)
    monkeypatch.setenv("CLOUDSDK_AUTH_ACCESS_TOKEN_FILE", str(tmp_path / "token"))
    assert TpuApi(PROJECT, find_token()).queued(ZONE) == []


def test_without_any_credentials(monkeypatch, tmp_path):
    """The way to some is said; no key of a metadata server of somebody else is asked for in tests."""
    for name, value in (("HOME", tmp_path), ("CLOUDSDK_CONFIG", tmp_path), ("PATH", tmp_path), ("NO_GCE_CHECK", "true")):
        monkeypatch.setenv(name, str(value))
    monkeypatch.delenv("GOOGLE_APPLICATION_CREDENTIALS", raising=False)
    with pytest.raises(HostRefused, match="gcloud auth application-default login"):
        find_token()


@pytest.mark.skipif(not shutil.which("gcloud"), reason="gcloud is not installed")
@pytest.mark.timeout(300)
def test_the_real_gcloud_does_the_same(fake, tmp_path):
    """What our fake says is what gcloud takes for the API: it creates, lists, describes and deletes, and our client sees each."""
    (tmp_path / "token").write_text(TOKEN)
    more = {"CLOUDSDK_AUTH_ACCESS_TOKEN_FILE": str(tmp_path / "token"), "CLOUDSDK_CONFIG": str(tmp_path / "gcloud")}
    more |= {"CLOUDSDK_CORE_PROJECT": PROJECT, "CLOUDSDK_CORE_DISABLE_PROMPTS": "1", "CLOUDSDK_COMPUTE_ZONE": ZONE}

    def gcloud(*words):
        argv = ["gcloud", "compute", "tpus", *words, "--format=json"]
        done = subprocess.run(argv, capture_output=True, text=True, timeout=240, env={**os.environ, **more}, check=False)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout or "null")

    kind = ("--node-id=q1", "--accelerator-type=v4-8", "--runtime-version=tpu-ubuntu2204-base", "--spot")
    gcloud("queued-resources", "create", "q1", *kind, "--async")
    [theirs] = fake.bodies
    ours = TpuApi(PROJECT, find_token())
    assert [each["name"].rpartition("/")[2] for each in ours.queued(ZONE)] == ["q1"]
    said = gcloud("queued-resources", "list", "--zone", ZONE)
    assert [each["name"].rpartition("/")[2] for each in said] == ["q1"]
    gcloud("queued-resources", "delete", "q1", "--force", "--async", "--quiet")
    assert ours.queued(ZONE) == []
    Pool(Home(tmp_path / "home").make(), target(queued={"spot": True})).create(Create("q1", ZONE, "v4-8"))
    mine, node = fake.bodies[-1], fake.bodies[-1]["tpu"]["nodeSpec"][0]["node"]
    assert mine["spot"] == theirs["spot"] == {}
    assert (
        theirs["tpu"]["nodeSpec"][0]["node"].items() >= {key: node[key] for key in ("acceleratorType", "runtimeVersion")}.items()
    )


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ((429, "RESOURCE_EXHAUSTED"), "429 RESOURCE_EXHAUSTED as the test wants it"),
        ((403, "PERMISSION_DENIED"), "403 PERMISSION_DENIED as the test wants it"),
        ((404, "NOT_FOUND"), "404 NOT_FOUND as the test wants it"),
        ((409, "ABORTED"), "409 ABORTED"),
        ((500, "INTERNAL"), "500 INTERNAL"),
        ("half", "is not understood"),
        ("silent", "does not answer"),
        ("slow", "does not answer"),
    ],
)
def test_each_failure_is_told_and_decides_nothing(fake, home, monkeypatch, wrong, words):
    """A list that fails is no list: nothing is created, deleted or called lost by it; the next look sees all."""
    monkeypatch.setattr(api_module, "PATIENCE", 0.5)
    pool = Pool(home, target())
    pool.create(Create(f"{pool.rules.prefix}-1", ZONE, "v4-8"))
    fake.wrong = [("GET", wrong)]
    with pytest.raises(TransportError, match=words) as raised:
        pool.look()
    assert TOKEN not in str(raised.value)
    assert [view.name for view in pool.look().views] == [f"{pool.rules.prefix}-1"]


def test_half_a_list_is_no_list(fake, home):
    """Pages after the first, and zones that the API could not ask, are part of the list: without them there is none."""
    pool = Pool(home, target())
    for number in range(5):
        pool.create(Create(f"{pool.rules.prefix}-{number}", ZONE, "v4-8"))
    assert len(pool.look().views) == 5
    listed = f"/locations/{ZONE}/queuedResources"
    plain = fake.answer
    fake.answer = lambda method, path, query, body: (
        (500, "INTERNAL") if "pageToken" in query else plain(method, path, query, body)
    )
    with pytest.raises(ApiError, match="500"):
        pool.look()
    fake.answer = lambda *args: (200, {"queuedResources": [], "unreachable": [listed]})
    with pytest.raises(ApiError, match="only a part of the list"):
        pool.look()


def test_a_request_whose_answer_was_lost_is_made_once(fake, home):
    """It is sent again under its name, and the API has it already."""
    pool = Pool(home, target())
    pool.create(Create(f"{pool.rules.prefix}-1", ZONE, "v4-8"))
    pool.create(Create(f"{pool.rules.prefix}-1", ZONE, "v4-8"))
    assert len(fake.bodies) == 1
    view = pool.look().views[0]
    pool.delete(view)
    pool.delete(view)
    assert fake.active() == []


def test_requests_of_others_are_not_ours(fake, home, tmp_path):
    """Another state folder, or somebody by hand, has requests in the same project: they are not looked at, and never deleted."""
    pool, other = Pool(home, target()), Pool(Home(tmp_path / "other").make(), target())
    other.create(Create(f"{other.rules.prefix}-1", ZONE, "v4-8"))
    TpuApi(PROJECT, find_token()).create(ZONE, "by-hand", {"tpu": {"nodeSpec": []}})
    assert pool.look().views == ()
    assert len(other.look().views) == 1


def test_host_keys_are_those_that_workers_told(fake, home):
    """They lie in a file for each worker, private; a worker that told none is not used, nor one whose key or address is none."""
    fake.hosts = ["10.1.2.3", "10.1.2.4"]
    fake.keys = {"10.1.2.3": [("ssh-ed25519", key()), ("ssh-rsa; id", key()), ("ssh-ed25519", "no base64 *\n* evil")]}
    fake.add("mine", kind="v4-16")
    pool = Pool(home, target(name="mine", type="v4-16"))
    [view] = pool.look().views
    assert (view.state, view.workers) == ("provisioning", ())
    assert "worker 1 has told no host key yet" in view.words
    assert not (home.path / "hostkeys").exists()
    fake.keys["10.1.2.4"] = [("ssh-ed25519", key("b"))]
    [view] = pool.look().views
    assert [each.address for each in view.workers] == ["10.1.2.3", "10.1.2.4"]
    files = {path.name: path.read_text() for path in (home.path / "hostkeys").iterdir()}
    assert files == {"mine-w-0": f"* ssh-ed25519 {key()}\n", "mine-w-1": f"* ssh-ed25519 {key('b')}\n"}
    fake.hosts = ["-oProxyCommand=id"]
    fake.keys["-oProxyCommand=id"] = [("ssh-ed25519", key())]
    fake.add("mine", kind="v4-16")
    [view] = Pool(home, target(name="mine")).look().views
    assert "address of worker 0 is none" in view.words


def test_what_a_check_says(fake, home):
    """A slice that is not there, is another, or not ready is a fault; one that is ready is told with its age and its cost."""
    mine = target(name="mine", price=1.5)
    assert "there is no TPU mine" in check(home, mine).fault
    fake.add("mine", kind="v6e-8")
    assert "is a v6e-8, clusters.yaml says type v4-8" in check(home, mine).fault
    fake.add("mine", state="PREEMPTED")
    assert "node PREEMPTED" in check(home, mine).fault
    fake.add("mine")
    found = check(home, mine)
    assert found.fault == ""
    assert found.note.startswith("mine: v4-8 in us-central2-b, node READY, for 0 min, cost 0.0")
    fake.wrong = [("GET", (403, "PERMISSION_DENIED"))]
    assert "PERMISSION_DENIED" in check(home, mine).fault


def test_a_dry_run_sends_nothing(fake):
    """It shows each request as it would be sent, and no token."""
    text = requests(
        target(zone=[ZONE, "europe-west4-a"], queued={"spot": True, "valid_for": 30, "idle": 5, "labels": {"team": "a"}})
    )
    assert "queuedResources?queuedResourceId=tune-NAME" in text
    assert '"validUntilDuration": "1800s"' in text
    assert "europe-west4-a" in text
    assert "after 5 minutes" in text
    assert "force=true" in text
    assert "getGuestAttributes" in requests(target(name="mine"))
    assert fake.calls == []
    assert TOKEN not in text


@pytest.mark.parametrize("url", ["http://example.com/", "ftp://127.0.0.1/", "file:///etc/passwd", "http://127.0.0.1.example.com"])
def test_a_token_goes_over_nothing_that_others_read(monkeypatch, url):
    """Another address of the API has to be https, or this machine."""
    monkeypatch.setenv(api_module.OVERRIDE, url)
    with pytest.raises(ApiError, match="should be an https address"):
        endpoint()


def test_a_token_follows_no_redirect(fake, monkeypatch):
    """An API that answers with another address has not answered."""
    plain = fake.answer
    fake.answer = lambda *args: (302, "elsewhere") if args[1].endswith("queuedResources") else plain(*args)
    monkeypatch.setitem(__import__("tests.hosts.tpu", fromlist=["WORDS"]).WORDS, 302, "MOVED")
    with pytest.raises(ApiError, match="302"):
        TpuApi(PROJECT, find_token()).queued(ZONE)
