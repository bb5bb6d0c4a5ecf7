"""Jobs on TPU slices as a user runs them: the API is a server on loopback, a slice's workers are hosts over real sshd."""

import json
import os
import time
from dataclasses import replace

import pytest

from backends.recipe.building import build
from orchestrator.client.submit import enqueue
from orchestrator.executors.tpu import api as api_module
from orchestrator.executors.tpu.section import TpuSection, candidate
from tests.hosts.tpu import PROJECT, TOKEN, ZONE, cloud, service_account
from tests.processes import CONTROLLER, kill_all, pids_of
from tests.waiting import until

from .conftest import shell_plan, training
from .test_again import FACTS, STEPS
from .test_trouble import clean, holding, overheard, recipe  # noqa: F401

pytestmark = pytest.mark.long

DIES = "/tmp/tune-tpu-test.pid"
"""Where a job writes its process id, on each host."""
NEVER = {"lost": 0, "hardware": 0, "unknown": 0}
"""Section `retry` of a recipe."""
SLACK = 20
"""Seconds that a loaded machine may take besides."""
TUNNEL = """#!/usr/bin/python3
import os, socket, sys, threading
open({told!r}, "a").write(" ".join(sys.argv[1:]) + "\\n")
there = socket.create_connection(({addresses}[sys.argv[3]], int(sys.argv[4])))
def come():
    while data := there.recv(1 << 16):
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
    os._exit(0)
threading.Thread(target=come, daemon=True).start()
while data := os.read(0, 1 << 16):
    there.sendall(data)
"""
"""Carries its streams to a host by its name, as `gcloud compute start-iap-tunnel --listen-on-stdin` does."""
SLOW = 'mkdir -p checkpoint; i=0; while [ $i -lt {steps} ]; do i=$((i+1)); sleep {pause}; echo "{{\\"loss\\": 2.5, \\"lr\\": 0.1, \\"step\\": $i}}" >> lines.jsonl; done; echo x > checkpoint/x'
"""Trains so many steps, with a pause before each."""


@pytest.fixture
def fake(tune, home, hosts, monkeypatch, tmp_path, clean):  # noqa: F811
    """The API, whose slices consist of the first host, and the keys that its hosts told."""
    with cloud() as made:
        monkeypatch.setenv(api_module.OVERRIDE, made.url)
        monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(service_account(tmp_path, made.url)))
        made.hosts = [hosts[0].address]
        for node in hosts:
            kind, key = (node.folder / "hostkey.pub").read_text().split()[:2]
            made.keys[node.address] = [(kind, key)]
        yield made
    kill_all(pids_of(home, CONTROLLER))  # it stays while an API that is gone has not said that its slices are


@pytest.fixture
def clusters(tune, hosts):
    """Writes a clusters.yaml with one target, `slice`, whose API is asked often."""

    def write(**more):
        said = vars(hosts[0].host())
        way = {key: said[key] for key in ("user", "identity", "interpreter")}
        about = {"kind": "tpu", "type": "v4-8", "accelerator": "cpu", "pace": 0.3, "folder": "~/tune", **way, **more}
        if "hosts" not in more:
            about |= {"project": PROJECT, "zone": ZONE}
        (tune.cwd / "clusters.yaml").write_text(json.dumps({"version": 1, "targets": {"slice": about}}))

    return write


def test_a_queued_slice_from_request_to_deletion(tune, fake, clusters, recipe, home, hosts):  # noqa: F811
    """A dry run sends nothing; a job asks for a slice, trains on it and gives it back. The token is in
    no file, no command line, and nothing that is printed.
    """
    clusters(queued={"spot": True})
    submit = recipe(SLOW.format(steps=2, pause=0))
    shown = tune(*submit, "--on", "slice", "--dry-run").stdout
    assert "queuedResources?queuedResourceId=tune-NAME" in shown
    assert fake.calls == []
    assert "no slice is asked for or there" in tune("targets", "check", "slice").stdout
    with overheard() as heard:
        tune(*submit, "--on", "slice", "--id", "one")
        tune("wait", "one", "--timeout", "120")
        until(lambda: not fake.active())
    [body] = fake.bodies
    assert body["spot"] == {}
    events = tune("status", "--events", "one").stdout
    [row] = tune.json("status", "one")
    assert (row["state"], row["step"]) == ("SUCCEEDED", 2)
    hosts[0].cut()
    tune("pull", "one")  # the slice is gone, and what was trained is here
    assert (tune.cwd / "one/work/checkpoint/x").read_text() == "x\n"
    assert holding(TOKEN, home) == []
    tune("prune", "one", "--yes")
    assert not (home / "results" / "one").exists()
    assert tune("du").returncode == 0
    assert not any(TOKEN.encode() in line for line in heard)
    assert TOKEN not in shown + events


def test_a_preempted_job_begins_anew_on_another_slice(tune, fake, clusters, recipe, hosts):  # noqa: F811
    """Its host falls silent and the API says that the slice is gone: another is asked for, the first request is deleted, the job is tried
    again and SUCCEEDED, and nothing is left.
    """
    clusters(queued={"spot": True})
    tune(*recipe(SLOW.format(steps=2, pause=5), retry={"lost": 3}), "--on", "slice", "--id", "one")
    [first] = until(fake.active)
    until(lambda: tune.json("status", "one")[0]["state"] == "RUNNING")
    fake.hosts = [hosts[1].address]
    hosts[0].cut()
    fake.preempt(first.rpartition("/")[2])
    tune("wait", "one", "--timeout", "120")
    [row] = tune.json("status", "one")
    assert (row["state"], row["attempt"]) == ("SUCCEEDED", 2), tune("status", "--events", "one").stdout
    events = tune("status", "--events", "one").stdout
    assert "slice_gone" in events
    assert "node PREEMPTED" in events or "SUSPENDED" in events
    until(lambda: not fake.active())
    assert len(fake.bodies) == 2


@pytest.mark.thorough
def test_a_silent_host_is_not_a_lost_slice(tune, fake, clusters, recipe, hosts):  # noqa: F811
    """While the API says that the slice is there, and while the API says nothing, the job goes on; nothing runs twice."""
    clusters(queued={})
    tune(*recipe(SLOW.format(steps=3, pause=4)), "--on", "slice", "--id", "one")
    until(lambda: tune.json("status", "one")[0]["state"] == "RUNNING")
    fake.wrong = [("GET", (503, "UNAVAILABLE"))] * 6 + [("GET", (403, "PERMISSION_DENIED"))] * 3
    hosts[0].cut()
    until(lambda: not tune.json("status", "one")[0]["reachable"])
    until(lambda: not fake.wrong)
    hosts[0].heal()
    tune("wait", "one", "--timeout", "120")
    [row] = tune.json("status", "one")
    assert (row["state"], row["attempt"], row["step"]) == ("SUCCEEDED", 1, 3)
    assert len(fake.bodies) == 1


def test_a_slice_of_ones_own_by_its_name(tune, fake, clusters, recipe, hosts):  # noqa: F811
    """It is found, checked and used, and nothing is created or deleted. A worker with another key than it told is refused, and nothing is
    sent to it.
    """
    clusters(name="mine")
    assert "there is no TPU mine" in tune("targets", "check", "slice", code=4).stdout
    fake.add("mine")
    checked = tune("targets", "check", "slice").stdout
    assert "mine-w-0" in checked
    assert "v4-8 in us-central2-b, node READY" in checked
    tune(*recipe(SLOW.format(steps=2, pause=0)), "--on", "slice", "--id", "one")
    tune("wait", "one", "--timeout", "120")
    assert tune.json("status", "one")[0]["state"] == "SUCCEEDED"
    fake.keys[hosts[0].address] = fake.keys[hosts[1].address]
    refused = tune("targets", "check", "slice", code=4).stdout
    assert "is not one that it told its cloud" in refused
    assert "Nothing was sent" in refused
    assert not [call for call in fake.calls if call.startswith("DELETE") or call.endswith("/queuedResources")]
    assert list(fake.nodes) == [f"projects/{PROJECT}/locations/{ZONE}/nodes/mine"]


@pytest.mark.thorough
def test_several_slices_are_one(tune, fake, clusters, recipe, hosts):  # noqa: F811
    """One request for two slices of a host each: a job runs on both, they are taken as one, and both are given back."""
    clusters(slices=2, queued={})
    fake.hosts = [node.address for node in hosts[:2]]
    both = ("--on", "slice", "--set", "resources.hosts=2")
    tune(*recipe(SLOW.format(steps=2, pause=5), retry={"lost": 3}), *both, "--id", "one")
    [first] = until(fake.active)
    until(lambda: tune.json("status", "one")[0]["state"] == "RUNNING")
    assert len(fake.nodes) == 2
    with fake.lock:
        fake.nodes[f"projects/{PROJECT}/locations/{ZONE}/nodes/{first.rpartition('/')[2]}-1"]["state"] = "PREEMPTED"
    tune("wait", "one", "--timeout", "120")
    [row] = tune.json("status", "one")
    assert (row["state"], row["attempt"], row["step"]) == ("SUCCEEDED", 2, 2)
    until(lambda: not fake.active())
    assert fake.nodes == {}
    specs = [body["tpu"]["nodeSpec"][0]["multisliceParams"] for body in fake.bodies]
    assert [each["nodeCount"] for each in specs] == [2, 2]


@pytest.mark.parametrize("via", ["auto", pytest.param("ssh", marks=pytest.mark.thorough)])
def test_workers_behind_an_identity_aware_proxy(tune, fake, clusters, recipe, hosts, tmp_path, monkeypatch, via):  # noqa: F811
    """They are reached by gcloud's tunnel alone, each by the name that its VM told, and their keys are held to what they told; the dry run
    shows the command. Here a program of gcloud's name does what the tunnel does.
    """
    (tmp_path / "bin").mkdir()
    program, told = tmp_path / "bin/gcloud", tmp_path / "told"
    program.write_text(TUNNEL.format(told=str(told), addresses={"t1v-n-1-w-0": hosts[0].address}))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    fake.keys[hosts[0].address].append(("hostname", "t1v-n-1-w-0"))
    fake.add("mine")
    clusters(name="mine", addresses="internal", iap=True, via=via)
    words = f"--listen-on-stdin --project={PROJECT} --zone={ZONE} --verbosity=warning"
    submit = recipe(SLOW.format(steps=2, pause=0))
    assert f"gcloud compute start-iap-tunnel %h %p {words}" in tune(*submit, "--on", "slice", "--dry-run").stdout
    tune(*submit, "--on", "slice", "--id", "one")
    tune("wait", "one", "--timeout", "120")
    assert tune.json("status", "one")[0]["state"] == "SUCCEEDED"
    assert set(told.read_text().splitlines()) == {f"compute start-iap-tunnel t1v-n-1-w-0 22 {words}"}
    fake.keys[hosts[0].address][0] = fake.keys[hosts[1].address][0]
    refused = "Host key verification failed" if via == "ssh" else "is not one that it told its cloud"
    assert refused in tune("targets", "check", "slice", code=4).stdout


def test_all_workers_of_a_list_or_none(tune, clusters, recipe, hosts, clean):  # noqa: F811
    """Hosts by address need no API. A recipe for a part of them is refused with the arithmetic, a number of addresses that is not the
    slice's too; all begin together, and when one worker's process ends, all have ended in ten seconds.
    """
    known = hosts[0].host().known_hosts
    addresses = [node.address for node in hosts]
    clusters(type="v4-16", hosts=addresses, known_hosts=known)
    words = recipe()
    assert "hosts should have 2 addresses, got 3" in tune(*words, "--on", "slice", code=2).stderr
    clusters(type="v4-16", hosts=addresses[:2], known_hosts=known)
    asked = tune(*words, "--on", "slice", code=3).stderr
    assert "a job gets all of v4-16, 2 host(s) with 1 device(s) each; the recipe asks for 1 host(s)" in asked
    assert "--set resources.hosts=2" in asked
    checked = tune("targets", "check", "slice").stdout
    assert "slice-w-0" in checked
    assert "slice-w-1" in checked
    both = ("--on", "slice", "--set", "resources.hosts=2")
    tune(*recipe(f"echo $$ > {DIES}; " + SLOW.format(steps=100, pause=1), retry=NEVER), *both, "--id", "one")
    files = [node.root / DIES[1:] for node in hosts[:2]]
    until(lambda: all(file.exists() and file.read_text().strip() for file in files))
    hosts[1].run("kill", "-9", files[1].read_text().strip())
    killed = time.monotonic()
    until(lambda: not (hosts[0].root / "proc" / files[0].read_text().strip()).exists())
    assert time.monotonic() - killed < 10 + SLACK
    tune("wait", "one", "--timeout", "60", code=1)
    assert "slice-w-1" in tune.json("status", "one")[0]["detail"]


@pytest.mark.thorough
def test_an_idle_slice_waits_for_the_next_job_and_is_given_back(tune, fake, clusters, recipe):  # noqa: F811
    """The controller stays for it, though no job is left: after a minute without one."""
    clusters(queued={"idle": 1})
    words = recipe(SLOW.format(steps=2, pause=0))
    for job in ("one", "two"):
        tune(*words, "--on", "slice", "--id", job)
        tune("wait", job, "--timeout", "120")
    assert len(fake.bodies) == 1
    assert len(fake.active()) == 1
    until(lambda: not fake.active(), 240)


@pytest.mark.thorough
def test_a_cancelled_job_gives_its_request_back(tune, fake, clusters, recipe):  # noqa: F811
    """It never got a slice: it ends at once, and so does the request."""
    clusters(queued={})
    fake.settle = lambda name: fake.queued[name].update(state={"state": "WAITING_FOR_RESOURCES"})
    tune(*recipe(), "--on", "slice", "--id", "one")
    until(fake.active)
    until(lambda: "WAITING_FOR_RESOURCES" in tune("status", "one", "--json").stdout)
    assert "v4-8 in us-central2-b, WAITING_FOR_RESOURCES, for 0 min" in tune("targets").stdout
    tune("cancel", "one")
    tune("wait", "one", "--timeout", "60", code=1)
    until(lambda: not fake.active())
    assert tune.json("status", "one")[0]["state"] == "CANCELLED"


@pytest.mark.parametrize("shared", [False, pytest.param(True, marks=pytest.mark.thorough)])
def test_a_preempted_job_goes_on_from_its_last_checkpoint(lab, fake, hosts, shared):
    """With `shared` the next attempt finds on its slice the checkpoint that the first one left; without it was brought here while it
    trained, and is sent there. It goes on in a folder of its own. The first slice is silent from when it was taken, and its process has
    ended for all of it.
    """
    index = json.dumps([{"step": 2, "folder": "kept", "lacks": ""}])
    first = f"{training(2)}\nmkdir kept; echo weights > kept/w; echo '{index}' > checkpoints.json; sleep 300"
    header = training(0).replace("\nfor f", f"\n{STEPS}\nfor f")
    script = f"if [ -e resume ]; then cat resume/w > found; {header}\nelse {first}\nfi"
    plan = shell_plan(script, steps=4, retry={"lost": 3, "resume": True})
    if shared:
        hosts[1].share(hosts[0])
    way = {key: vars(hosts[0].host())[key] for key in ("user", "identity", "interpreter")}
    about = {
        "kind": "tpu",
        "type": "v4-8",
        "accelerator": "cpu",
        "pace": 0.3,
        "folder": "~/tune",
        "project": PROJECT,
        "zone": ZONE,
    }
    target = candidate("slice", build(TpuSection, {**about, **way, "shared": shared, "queued": {"spot": True}}))
    whole_plan = replace(plan, reading={**plan.reading, "rate": FACTS, "first_lr": 0.001})
    enqueue(lab.home, "a", whole_plan, [target], {}, 0)
    lab.wait("a", 120, step=2)
    until((hosts[0].home / "tune/jobs/a/1/work/checkpoints.json").exists)
    brought = lab.home.results / "a/1.checkpoints/2/kept/w"
    until(brought.exists) if not shared else time.sleep(2)  # a look comes every second
    [name] = fake.active()
    fake.hosts = [hosts[1].address]
    hosts[0].cut()
    fake.preempt(name.rpartition("/")[2])
    job = lab.wait("a", 180)
    assert (job.state, job.step, job.attempt) == ("SUCCEEDED", 4, 2), (job, lab.log())
    found = hosts[1].home / "tune/jobs/a/2/work/found"
    assert found.read_text() == "weights\n"
    assert not shared or not brought.exists()
    until(lambda: not fake.active())
