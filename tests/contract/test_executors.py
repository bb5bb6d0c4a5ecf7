"""The contract of executors, held by each of them: machines that we lease ourselves (here and over SSH), one in memory, and one
of a package outside the tree, through its entry point alone.
"""

import shutil
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from backends.plan import Environment, Plan, Promise, Step
from backends.recipe.building import build
from orchestrator.client.submit import enqueue
from orchestrator.executors import registry
from orchestrator.executors.base import Ask, AttemptRequest, ExecutorContext, Handle, Watched
from orchestrator.executors.fake import FakeEngine, FakeExecutor
from orchestrator.executors.hosts import HostsExecutor
from orchestrator.executors.ray.executor import RayExecutor
from orchestrator.executors.ray.section import RaySection, candidate
from orchestrator.executors.slurm import SLURM
from orchestrator.executors.slurm.section import SlurmSection
from orchestrator.executors.slurm.section import candidate as slurm_target
from orchestrator.home import Home
from orchestrator.store import open_store
from orchestrator.targets.model import Candidate
from orchestrator.targets.node import Node
from orchestrator.transports.base import Watch
from tests.faults.conftest import shell_plan, training
from tests.slurm import site

RECIPE = """
version: 1
name: small
model: {id: random, init: random, architecture: {hidden_size: 16, intermediate_size: 32, layers: 1, heads: 2, kv_heads: 1}}
data: {train: rows.jsonl, format: text, max_length: 64}
train: {steps: 6, batch: {global: 2}, precision: fp32}
optim: {lr: 1e-3, warmup_steps: 2}
"""
HERE = Path(__file__).parent
LIMIT = 90.0
"""Seconds for what hangs; a loaded machine may take its time."""
CALM = 1.0
"""Seconds in which something would have begun that must not."""


class Bench:
    """An executor, with a store's part of the work: what waits, what was submitted, what was told."""

    def __init__(self, make, candidate, advance=None):
        self.make, self.candidate = make, candidate
        self.executor = make()
        self.advance = advance or (lambda seconds: time.sleep(0.05))
        self.requests, self.handles, self.told, self.logs = {}, {}, {}, {}
        self.limit = LIMIT

    def plan(self, script, devices=1, hosts=1):
        step = Step("train", ("/bin/sh", "-c", script))
        environment = Environment("litgpt", "/bin/sh")
        return Plan("r", "litgpt", environment, (), (step,), (), (), (), Promise(None, ()), (), {}, devices, hosts)

    def ask(self, job, script, order=0, **more):
        """A job that waits."""
        plan = self.plan(script, **more)
        self.requests[job] = plan
        return Ask(job, 1, "x", (order, order), plan.hosts, plan.devices, (self.candidate,))

    def offer(self, *asks):
        """What of these is submitted now."""
        present = [
            each for each in self.watched() if each.handle.job not in self.told or self.told[each.handle.job].phase != "exited"
        ]
        granted = self.executor.capacity(present, [iter(asks)]).granted
        for job, placement in granted.items():
            known = {node.name: node for node in self.candidate.nodes}
            nodes = tuple(known[name] for name in placement.devices)
            self.submit(Handle(job, 1, placement, nodes, self.candidate.kind, self.candidate))
        return set(granted)

    def submit(self, handle):
        request = AttemptRequest(handle, self.requests[handle.job], (self.candidate,))
        self.handles[handle.job] = self.executor.submit(request)

    def start(self, job, script, **more):
        ask = self.ask(job, script, **more)
        self.until(lambda: self.offer(ask))

    def watched(self):
        return [
            Watched(each, lambda rank, job=job: Watch(job, 1, log=len(self.logs.get(job, b""))))
            for job, each in self.handles.items()
        ]

    def poll(self):
        """Everything that was told last, by job."""
        for status in self.executor.poll(self.watched()):
            self.told[status.job] = status
            self.logs[status.job] = self.logs.get(status.job, b"") + b"".join(each.log for each in status.ranks[:1] if each)
            if status.placement:
                known = {node.name: node for node in self.candidate.nodes}
                nodes = tuple(known.get(name) or Node(name) for name in status.placement.devices)
                self.handles[status.job] = replace(self.handles[status.job], placement=status.placement, nodes=nodes)
        return self.told

    def phase(self, job):
        self.poll()
        return self.told[job].phase if job in self.told else ""

    def until(self, true):
        end = time.monotonic() + self.limit
        while not (answer := true()):
            assert time.monotonic() < end, ("it did not come true", self.told)
            self.advance(0.5)
        return answer

    def end(self, job):
        self.until(lambda: self.phase(job) == "exited")
        return self.told[job].observed.seen

    def close(self):
        for job in list(self.handles):
            if self.phase(job) not in ("exited", "refused", ""):
                self.until(lambda job=job: self.executor.cancel(self.handles[job]) or self.phase(job) in ("exited", "lost"))
        self.executor.close()


@pytest.fixture(scope="module")
def slurm(tmp_path_factory):
    """A Slurm with one node of two CPUs, started for the first test that needs it."""
    with site.running(tmp_path_factory.mktemp("slurm")) as running:
        yield running


@pytest.fixture(scope="module")
def gate(tmp_path_factory):
    """The same Slurm behind a login node that is reached over SSH."""
    with site.login(tmp_path_factory.mktemp("gate") / "sshd") as way:
        yield way


@pytest.fixture(params=["local", "ssh", "fake", "scratch", "slurm", "slurm-ssh", pytest.param("ray", marks=pytest.mark.long)])
def bench(request, tmp_path, monkeypatch):
    """Room for two jobs of one device."""
    home = Home(tmp_path / "home").make()
    if request.param == "fake":
        engine = FakeEngine((Node("n", 2),))
        made = Bench(lambda: FakeExecutor(engine), Candidate.of("t", "fake", [Node("n", 2)]), engine.advance)
    elif request.param == "scratch":
        install(tmp_path / "site", monkeypatch)
        kind = registry.find("scratch")
        candidate = kind.kinds["scratch"].candidate("t", kind.kinds["scratch"].section(kind="scratch"))
        made = Bench(lambda: kind.open(ExecutorContext(home)), candidate)
    elif request.param == "ray":
        made = ray_bench(request.getfixturevalue("ray"), home, tmp_path.name)
    elif request.param == "slurm-ssh":
        running = request.getfixturevalue("slurm")
        way = {**request.getfixturevalue("gate"), "folder": str(tmp_path / "shared"), "env": {"SLURM_CONF": str(running.conf)}}
        target = slurm_target("t", build(SlurmSection, {"kind": "slurm", "devices": 2, "pace": 1, **way}))
        made = Bench(lambda: SLURM.open(ExecutorContext(home)), target)
    elif request.param == "slurm":
        request.getfixturevalue("slurm")
        made = Bench(
            lambda: SLURM.open(ExecutorContext(home)),
            slurm_target("t", build(SlurmSection, {"kind": "slurm", "devices": 2, "pace": 1})),
        )
    else:
        node = Node("local", 2)
        if request.param == "ssh":
            there = request.getfixturevalue("hosts")[0]
            node = Node(there.name, 2, address=there.address, ssh=there.host(folder=f"~/{tmp_path.name}"))
        made = Bench(lambda: HostsExecutor(ExecutorContext(home)), Candidate.of("t", request.param, [node]))
    yield made
    made.close()


def ray_bench(cluster, home, folder, **said):
    """Room for two jobs on the head."""
    about = {"devices": 2, "resources": {"one": 1}, **said}
    section = build(RaySection, {"kind": "ray", "address": cluster.url, "folder": f"/tmp/{folder}", **about})
    made = Bench(lambda: RayExecutor(ExecutorContext(home)), candidate("t", section))
    made.limit = 300.0
    return made


def package(site):
    """Put the scratch executor into a folder as an installed package lies there."""
    info = site / "scratch-1.0.dist-info"
    info.mkdir(parents=True)
    shutil.copy(HERE / "scratch" / "scratch.py", site / "scratch_executor.py")
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: scratch\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[tunesmith.executors]\nscratch = scratch_executor:SCRATCH\n")
    return site


def install(site, monkeypatch):
    """Install it, for this process."""
    monkeypatch.syspath_prepend(str(package(site)))
    sys.modules.pop("scratch_executor", None)
    registry.others.cache_clear()


@pytest.fixture(autouse=True)
def forget():
    """No test sees another's packages."""
    yield
    registry.others.cache_clear()


def test_it_runs_and_tells_how_it_ended(bench):
    """A job is taken, runs, and its end has the exit code and all that it wrote."""
    bench.start("a", "echo began; sleep 0.2")
    bench.start("b", "echo worse; exit 3")
    assert (bench.end("a").rc, bench.end("b").rc) == (0, 3)
    assert (bench.logs["a"].split().count(b"began"), bench.logs["b"].split().count(b"worse")) == (1, 1)


def test_an_attempt_is_started_once(bench, request):
    """Submitted again, by the same process and by another that remembers nothing, it goes on as the one that it is."""
    timeless = request.node.callspec.params["bench"] == "scratch"  # it never says when a step began

    def runs():
        return bench.phase("a") == "running" and (timeless or bench.told["a"].observed.seen.step_started is not None)

    bench.start("a", "echo began; sleep 600")
    bench.until(runs)
    started, handle = bench.told["a"].observed.seen.step_started, bench.handles["a"]
    bench.submit(handle)
    bench.executor = bench.make()
    bench.submit(handle)
    bench.until(runs)
    assert bench.told["a"].observed.seen.step_started == started
    bench.until(lambda: bench.poll() and b"began" in bench.logs["a"].split())  # the line that names the step has `began;`
    assert bench.logs["a"].split().count(b"began") == 1


def test_devices_are_granted_once(bench):
    """Of three jobs for two devices the third does not run before one of the others has ended."""
    asks = [bench.ask(job, "sleep 600", order) for order, job in enumerate("abc")]
    bench.offer(*asks)
    bench.until(lambda: bench.phase("a") == bench.phase("b") == "running")
    end = time.monotonic() + CALM
    while time.monotonic() < end:
        if "c" not in bench.handles:
            bench.offer(asks[2])
        assert bench.phase("c") in ("", "submitting", "pending")
        time.sleep(0.1)
    bench.until(lambda: bench.executor.cancel(bench.handles["a"]) or bench.phase("a") == "exited")
    del bench.handles["a"]
    bench.until(lambda: ("c" in bench.handles or bench.offer(asks[2])) and bench.phase("c") == "running")


def test_what_waits_says_for_what(bench):
    """A job that was taken and has no device is pending, with a reason; one that was not taken is still the store's."""
    asks = [bench.ask(job, "sleep 600", order) for order, job in enumerate("abc")]
    taken = bench.offer(*asks)
    bench.until(lambda: bench.phase("a") == bench.phase("b") == "running")
    assert taken in ({"a", "b"}, {"a", "b", "c"})
    bench.until(lambda: "c" not in taken or bench.phase("c") == "pending")
    assert "c" not in taken or bench.told["c"].reason


def test_the_first_is_first(bench):
    """By their order, whichever was offered first; what has no room lets none pass."""
    asks = [
        bench.ask(job, "sleep 600", order, devices=devices) for order, job, devices in ((0, "a", 1), (1, "b", 2), (2, "c", 1))
    ]
    if bench.candidate.kind == "scratch":
        pytest.skip("it counts jobs, not devices")
    if (taken := bench.offer(*asks)) != {"a"}:
        bench.until(lambda: bench.phase("a") == "running" and bench.phase("b") == bench.phase("c") == "pending")
        assert taken == {"a", "b", "c"}


def test_a_job_that_needs_more_nodes_than_there_are_never_runs(bench):
    """All hosts of a job or none."""
    ask = bench.ask("a", "sleep 600", hosts=2)
    bench.offer(ask)
    end = time.monotonic() + CALM
    while time.monotonic() < end:
        assert bench.phase("a") in ("", "submitting", "pending", "refused")
        bench.advance(0.1)


def test_cancel_ends_it(bench):
    """Cancelled, it ends, and says that it was stopped; again, or after the end, nothing happens."""
    bench.start("a", "sleep 600")
    bench.until(lambda: bench.phase("a") == "running")
    bench.until(lambda: bench.executor.cancel(bench.handles["a"]) or bench.phase("a") == "exited")
    assert bench.told["a"].observed.seen.why in ("stopped", "killed after grace")
    bench.executor.cancel(bench.handles["a"])
    assert bench.phase("a") == "exited"


def test_what_waits_is_cancelled_at_once(bench):
    """A pending attempt leaves the queue and is never started."""
    asks = [bench.ask(job, "sleep 600", order) for order, job in enumerate("abc")]
    if "c" not in bench.offer(*asks):
        return  # it waits in our store, which ends it
    bench.until(lambda: bench.phase("c") == "pending")
    bench.executor.cancel(bench.handles["c"])
    bench.until(lambda: bench.phase("c") == "exited")
    bench.executor.cancel(bench.handles["a"])
    bench.until(lambda: bench.phase("a") == "exited")
    bench.advance(1)
    assert bench.phase("c") == "exited"


def test_one_that_never_was(bench):
    """It is unknown, cannot be found, and may be cancelled."""
    granted = bench.executor.capacity([], [iter([bench.ask("a", "sleep 600")])]).granted["a"]
    nodes = {node.name: node for node in bench.candidate.nodes}
    there = tuple(nodes[name] for name in granted.devices)
    bench.handles["a"] = Handle("a", 1, granted, there, bench.candidate.kind, bench.candidate)
    bench.until(lambda: bench.phase("a") == "unknown")
    bench.executor.cancel(bench.handles["a"])
    assert bench.executor.find("a", 1, [bench.candidate]) is None
    bench.handles.clear()


def test_it_is_found_after_the_store_was_lost(bench):
    """By job and number alone, with all that is needed to poll and to cancel it."""
    bench.start("a", "echo began; sleep 600")
    bench.until(lambda: bench.phase("a") == "running" and bench.handles["a"].placement.devices)
    handle = bench.handles["a"]
    bench.executor = bench.make()
    found = bench.executor.find("a", 1, [bench.candidate])
    assert (found.key, found.placement, found.kind) == (handle.key, handle.placement, handle.kind)
    bench.handles["a"] = found
    bench.told.clear()
    bench.until(lambda: bench.phase("a") == "running")
    bench.until(lambda: bench.executor.cancel(bench.handles["a"]) or bench.phase("a") == "exited")


def test_many_are_polled_at_once(bench):
    """A look at many attempts is one question, not many."""
    count = 4 if bench.candidate.kind in ("ray", "slurm") else 20  # these take a second or more for each
    for n in range(count):
        bench.start(f"j{n}", "sleep 0")
        bench.end(f"j{n}")
    bench.executor = bench.make()
    bench.told.clear()
    bench.until(lambda: len(bench.poll()) == count)
    assert {status.phase for status in bench.told.values()} == {"exited"}
    asked = [host.transport.asked for host in getattr(bench.executor, "hosts", {}).values() if hasattr(host.transport, "asked")]
    assert asked in ([], [1])


def test_a_host_that_is_cut_says_nothing_about_the_job(tmp_path, hosts):
    """Unreachable while it is cut, with the reason; afterwards it runs as before."""
    there = hosts[0]
    node = Node(there.name, 2, address=there.address, ssh=there.host(folder=f"~/{tmp_path.name}"))
    home = Home(tmp_path / "home").make()
    made = Bench(lambda: HostsExecutor(ExecutorContext(home)), Candidate.of("t", "ssh", [node]))
    made.start("a", "sleep 600")
    made.until(lambda: made.phase("a") == "running")
    there.cut()
    try:
        made.until(lambda: made.phase("a") == "unreachable")
        assert made.told["a"].reason
    finally:
        there.right()
    made.until(lambda: made.phase("a") == "running")
    made.close()


def test_an_engine_that_does_not_answer():
    """The same of one that is asked in one place: nothing is concluded, and the attempt goes on."""
    engine = FakeEngine((Node("n", 1),))
    made = Bench(lambda: FakeExecutor(engine), Candidate.of("t", "fake", [Node("n", 1)]), engine.advance)
    made.start("a", "sleep 10")
    engine.reachable = False
    engine.advance(60)
    assert made.phase("a") == "unreachable"
    engine.reachable = True
    assert made.end("a").rc == 0


def test_two_nodes_have_ranks_that_are_known_inside(tmp_path, hosts):
    """Each host of an attempt has its number, the address of the first and one port, resolved after the devices were granted."""
    first, second = (Node(each.name, 1, address=each.address, ssh=each.host(folder=f"~/{tmp_path.name}")) for each in hosts[:2])
    home = Home(tmp_path / "home").make()
    made = Bench(lambda: HostsExecutor(ExecutorContext(home)), Candidate.of("t", "ssh", [first, second]))
    made.start("a", "echo rank @RANK@ @HEAD@:@PORT@", hosts=2)
    made.until(lambda: made.phase("a") == "exited")
    texts = [each.read("a", 1, "log", 0, 999).decode() for each in (host.transport for host in made.executor.hosts.values())]
    lines = sorted(line.split() for text in texts for line in text.splitlines() if line.startswith("rank"))
    assert [line[1] for line in lines] == ["0", "1"]
    assert lines[0][2] == lines[1][2]
    assert lines[0][2].startswith(first.address + ":")
    made.close()


def test_a_package_brings_kind_and_executor(tune, tmp_path):
    """Its kind may be named in clusters.yaml while it is installed; its keys are checked; a job does not mix it with ours."""
    site = package(tmp_path / "site")
    prefix = ("env", f"PYTHONPATH={HERE.parents[1]}:{site}")
    (tune.cwd / "clusters.yaml").write_text("version: 1\ntargets:\n  s: {kind: scratch}\n  t: {kind: scratch, fold: x}\n")
    assert "fold" in tune("targets", code=2, prefix=prefix).stderr
    (tune.cwd / "clusters.yaml").write_text("version: 1\ntargets:\n  s: {kind: scratch}\n")
    assert "scratch" in tune("targets", prefix=prefix).stdout
    (tune.cwd / "r.yaml").write_text(RECIPE)
    mixed = tune("submit", "r.yaml", "--on", "local,s", "--dry-run", code=2, prefix=prefix).stderr
    assert "different executors: local by hosts, s by scratch" in mixed
    assert "should be local, ssh" in tune("targets", code=2).stderr


def test_a_job_runs_by_it(tmp_path, monkeypatch):
    """The controller takes a job of its kind from the queue to SUCCEEDED, with all points: it knows executors by the contract alone."""
    site = package(tmp_path / "site")
    monkeypatch.setenv("PYTHONPATH", str(site))
    home, decided = Home(tmp_path / "home").make(), shell_plan(training(3), steps=3)
    enqueue(home, "a", decided, [Candidate.of("s", "scratch", [Node("scratch", 2)])], {}, 0)
    end = time.monotonic() + LIMIT
    with open_store(home.store) as store:
        while not store.job("a").ended:
            assert time.monotonic() < end, (store.job("a"), home.log.read_text())
            time.sleep(0.1)
        job = store.job("a")
        assert (job.state, job.step) == ("SUCCEEDED", 3), (job, home.log.read_text())
        assert [point.step for point in store.points("a", names=["loss"])] == [1, 2, 3]


def test_a_broken_package_is_named(tmp_path, monkeypatch):
    """One that cannot be loaded is told with its error; kinds of ours do not look at it."""
    site = tmp_path / "site"
    info = site / "broken-1.0.dist-info"
    info.mkdir(parents=True)
    (site / "broken_executor.py").write_text("raise RuntimeError('of no use')\n")
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: broken\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[tunesmith.executors]\nbroken = broken_executor:NOTHING\n")
    monkeypatch.syspath_prepend(str(site))
    registry.others.cache_clear()
    assert registry.find("ssh").name == "hosts"
    with pytest.raises(registry.Unavailable, match="broken of package broken cannot be loaded: RuntimeError: of no use"):
        registry.find("unheard_of")
