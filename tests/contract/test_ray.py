"""What only Ray has: a head and nodes that die, what the cluster forgets, who is first, and what is refused before anything is queued."""

import random
import re
import threading
import time

import pytest

from backends.recipe.building import build
from orchestrator.executors.base import ExecutorContext
from orchestrator.executors.ray import RAY
from orchestrator.executors.ray import cluster as clusters
from orchestrator.executors.ray.executor import RayExecutor
from orchestrator.executors.ray.queue import last_told
from orchestrator.executors.ray.section import RaySection, candidate
from orchestrator.home import Home
from orchestrator.transports.base import HostRefused, TransportError
from orchestrator.transports.ray.jobs_api import JobsApi
from orchestrator.transports.ray.relay import package
from tests.contract.test_executors import ray_bench
from tests.unit.executors.answers import answering


@pytest.fixture
def bench(request, ray, tmp_path):
    """On the head or, where a test says so, on the second node."""
    where = getattr(request, "param", "one")
    made = ray_bench(ray, Home(tmp_path / "home").make(), tmp_path.name, resources={where: 1}, hosts=1)
    yield made
    made.close()


def processes(node, word):
    """Of a host, those with a word in their command line."""
    found = node.run("bash", "-c", f"ps -eo pid,args | grep -F '{word}' | grep -v grep || true")
    return [line for line in found.splitlines() if line.strip()]


@pytest.mark.long
@pytest.mark.parametrize("seed", [0, *(pytest.param(n, marks=pytest.mark.thorough) for n in (1, 2))])
def test_a_controller_that_is_killed_anywhere(bench, seed):
    """Executors that remember nothing take over at any moment, each submitting what it has not heard of: one start, and its end."""
    moments = random.Random(seed)
    bench.limit = 420.0
    bench.start("a", "echo began; sleep 3; echo over; exit 4")
    seen = set()
    while (phase := bench.phase("a")) != "exited":
        if phase == "unknown" or (phase and phase not in seen and moments.random() < 0.8):
            seen.add(phase)
            bench.executor.close()
            bench.executor = bench.make()
            bench.submit(bench.handles["a"])
        time.sleep(moments.uniform(0.05, 0.6))
    assert bench.told["a"].observed.seen.rc == 4
    assert (bench.logs["a"].split().count(b"began"), bench.logs["a"].split().count(b"over")) == (1, 1)


@pytest.mark.long
def test_two_submit_the_same(bench):
    """At once, from two processes as it were: Ray has one job, and the steps run once."""
    ask = bench.ask("a", "echo began; sleep 1")
    bench.offer(ask)
    others = [bench.make() for _ in range(2)]
    request = bench.executor._requests["a", 1]
    threads = [threading.Thread(target=other.submit, args=(request,)) for other in others]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    bench.end("a")
    bench.poll()
    for other in others:
        other.close()
    known = [id for id in JobsApi(bench.candidate.nodes[0].ray.url).jobs() if id.startswith(bench.handles["a"].placement.ref)]
    assert known == [bench.handles["a"].placement.ref]
    assert bench.logs["a"].split().count(b"began") == 1


@pytest.mark.long
def test_what_ray_users_do_by_hand(bench):
    """`ray job stop` ends the attempt with its allocation: nothing of it goes on, and it is lost, since we did not ask for it."""
    bench.start("a", "echo began; sleep 6789")
    bench.until(lambda: bench.phase("a") == "running")
    JobsApi(bench.candidate.nodes[0].ray.url).stop(bench.handles["a"].placement.ref)
    bench.until(lambda: bench.phase("a") == "lost")
    assert bench.told["a"].observed.seen.why == "allocation ended"
    bench.handles.clear()


@pytest.mark.thorough(2)
@pytest.mark.long
@pytest.mark.parametrize("bench", ["two"], indirect=True)
def test_the_head_dies_and_comes_back(bench, ray):
    """Ray has forgotten the job; the node's files tell that it ended with its allocation, with its log. It is found without a store."""
    bench.limit = 600.0
    bench.start("a", "echo began; sleep 6790")
    bench.until(lambda: bench.phase("a") == "running" and b"began" in bench.logs["a"])
    ray.kill(0)
    bench.until(lambda: bench.phase("a") == "unreachable")
    ray.start(0)
    bench.until(lambda: not processes(ray.nodes[1], "sleep 6790"))
    ray.kill_ray(1)
    ray.start(1)
    bench.executor.close()
    bench.executor = bench.make()
    bench.until(lambda: bench.phase("a") == "lost")
    assert bench.told["a"].observed.seen.why == "allocation ended"
    found = bench.executor.find("a", 1, [bench.candidate])
    assert found
    assert found.placement.devices == bench.handles["a"].placement.devices
    bench.handles.clear()
    bench.start("b", "echo again")
    assert bench.end("b").rc == 0
    bench.handles.clear()


@pytest.mark.thorough
@pytest.mark.parametrize("bench", ["two"], indirect=True)
def test_a_node_dies(bench, ray, monkeypatch):
    """It does not answer, which says nothing; once the cluster has given it up, with the allocation, and a while has passed, the
    attempt is lost.
    """
    monkeypatch.setattr(clusters, "FENCE", 5.0)
    bench.limit = 600.0
    bench.start("a", "echo began; sleep 6791")
    bench.until(lambda: bench.phase("a") == "running")
    ray.kill(1)
    try:
        bench.until(lambda: bench.phase("a") == "unreachable")
        bench.until(lambda: bench.phase("a") == "lost")
        assert bench.told["a"].observed.seen.why == "node gone"
        bench.handles.clear()
    finally:
        ray.start(1)


@pytest.mark.long
def test_a_check_asks_the_cluster(ray, tmp_path):
    """It says nothing where the cluster has what clusters.yaml says, and names what it has where not."""

    def fault(**said):
        said = {"kind": "ray", "address": ray.url, **said}
        return RAY.check(Home(tmp_path), candidate("t", build(RaySection, said))).fault

    assert fault(hosts=2) == ""
    assert "clusters.yaml says 3 node(s) with CPU:1, the cluster has 2 such now" in fault(hosts=3)
    assert "the most that one has: CPU:2 GPU:0" in fault(accelerator="cuda", devices=2)
    assert "was not reached" in fault(address=ray.url.replace(":8265", ":8266"))


def test_another_version_is_refused():
    """Before anything is sent: in words that say which versions are known."""
    with answering({"/api/version": {"ray_version": "1.13.0"}}) as url, pytest.raises(HostRefused, match=r"runs Ray 1.13.0.*2.9"):
        JobsApi(url).version()
    with answering({"/api/version": {"hello": "world"}}) as url, pytest.raises(TransportError, match="not as Ray's dashboard"):
        JobsApi(url).version()


def test_a_refused_job_is_refused(tmp_path):
    """Where Ray will not have the allocation, the attempt is refused with Ray's words; what it answers is never run or believed."""
    said = {"/api/version": {"ray_version": "2.60.0"}, "/api/packages": "", "POST /api/jobs/": (400, "ValueError: no such thing")}
    with answering(said) as url:
        where = candidate("t", build(RaySection, {"kind": "ray", "address": url}))
        made = ray_bench(type("cluster", (), {"url": url}), Home(tmp_path / "home").make(), "x")
        made.candidate = where
        made.offer(made.ask("a", "true"))
        made.until(lambda: made.phase("a") == "refused")
        assert "ValueError: no such thing" in made.told["a"].reason
        made.executor.close()


def test_a_job_for_another_version_is_refused_before_it_is_sent(tmp_path):
    """The attempt is refused in words that say which versions are known; neither our programs nor the job went to the cluster."""
    with answering({"/api/version": {"ray_version": "1.13.0"}, "/api/": (500, "something was sent")}) as url:
        made = ray_bench(type("cluster", (), {"url": url}), Home(tmp_path / "home").make(), "x")
        made.offer(made.ask("a", "true"))
        made.until(lambda: made.phase("a") == "refused")
        assert re.search(r"runs Ray 1\.13\.0.*2\.9", made.told["a"].reason)
        made.executor.close()


def test_lines_that_are_not_ours_are_passed_over():
    """A log of Ray's holds anything; only whole lines of ours count, and a grant is final."""
    log = 'x\n{"tune": 3}\n{"tune": {"state": "pending", "reason": "waits"}}\n{"tune": {"state": "granted", "nodes": [{"addr'
    assert last_told(log).reason == "waits"
    whole = '{"tune": {"state": "granted", "nodes": [{"address": "a", "devices": [1]}]}}\n{"tune": {"state": "ended"}}\n'
    assert last_told(whole).nodes == {"a": (1,)}


def test_the_package_is_named_by_its_content():
    """The same programs have the same name and bytes, so that they are sent once."""
    package.cache_clear()
    first = package()
    package.cache_clear()
    assert package() == first


def test_a_context_without_clusters_asks_nobody(tmp_path):
    """An executor that has nothing to do opens no connection."""
    made = RayExecutor(ExecutorContext(Home(tmp_path / "home").make()))
    assert made.poll([]) == []
    made.close()
