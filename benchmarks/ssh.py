"""What a host costs over a line of 50 ms there and back: a submission, a poll, many hosts; beside plain tools in the same run.

    uv run python benchmarks/ssh.py [HOSTS]

Hosts are sshd in network namespaces of this machine (root, openssh-server), behind a wire that delays every packet by 25 ms
each way. Budgets (DESIGN): a submission to a host whose environment is ready in at most 6 round trips, a poll of 50 jobs in
1, and 20 hosts (or HOSTS) in the time of 2. "Round trips" are measured: seconds over the 50 ms.
"""

import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from fabric import Config, Connection

from orchestrator.agent import blobs
from orchestrator.transports.base import Request, Watch
from orchestrator.transports.ssh.transport import Ssh
from tests.hosts.lab import Lab, Node, laboratory

RTT = 0.05
JOBS = 50


def median(call: Callable[[], Any], times: int = 7) -> float:
    """Seconds that a call takes, usually."""
    spent = []
    for _ in range(times):
        began = time.perf_counter()
        call()
        spent.append(time.perf_counter() - began)
    return statistics.median(spent)


def show(what: str, seconds: float, more: str = "") -> None:
    """A line of figures."""
    print(f"  {what:58} {seconds * 1000:7.0f} ms  {seconds / RTT:5.1f} round trips  {more}", flush=True)


def job(number: int, **rest: Any) -> Request:
    """A job that writes a metrics file and ends."""
    steps = ({"name": "train", "argv": ["sh", "-c", "echo 1,2,3 >m.csv"]},)
    return Request(f"job{number}", 1, steps, {"recipe.yaml": "x" * 2000}, **{"links": {}, **rest})


def submissions(ssh: Ssh, folder: Path) -> None:
    """A connection, submissions on it, with an input of 500 small files that is new, and one that is there."""
    show("connect and say hello", median(lambda: (ssh.close(), ssh.hello()), 3))
    ssh.put({blobs.address(str(folder / "first")): folder / "first"})
    numbers = iter(range(1000))

    def submit(name: str) -> None:
        source = folder / name
        address = blobs.address(str(source))
        ssh.put({address: source})
        ssh.start(job(next(numbers), links={"input": f"blobs/{address}"}))

    before = ssh.asked
    began = time.perf_counter()
    submit("second")
    show("submit, 500 new small files", time.perf_counter() - began, f"{ssh.asked - before} messages")
    before = ssh.asked
    show("submit, files there already", median(lambda: submit("second"), 5), f"{(ssh.asked - before) // 5} messages")
    for number in range(100, 100 + JOBS):
        ssh.start(job(number))


def watches() -> list[Watch]:
    """The questions of the controller for all jobs."""
    return [
        Watch(f"job{100 + number}", 1, ("checkpoint/*.safetensors",), {"m.csv": (6, "")}, ("*.csv",)) for number in range(JOBS)
    ]


def polls(lab: Lab, node: Node, ssh: Ssh) -> None:
    """One poll of all jobs, beside what one would write in a shell, and with Fabric."""
    before = ssh.asked
    show(f"poll {JOBS} jobs", median(lambda: ssh.poll(watches())), f"{(ssh.asked - before) // 7} message")
    master = ["-o", "ControlMaster=auto", "-o", f"ControlPath={lab.folder}/master", "-o", "ControlPersist=60"]
    words = ["ssh", "-F", str(lab.config), *master, node.name]
    subprocess.run([*words, "true"], check=True, capture_output=True)
    status = "for j in ~/.tune/jobs/*; do cat $j/1/exit.json $j/1/work/m.csv; done"
    show(
        "ssh with ControlMaster, one shell loop over the files",
        median(lambda: subprocess.run([*words, status], check=True, capture_output=True)),
    )
    one = "cat ~/.tune/jobs/job100/1/exit.json"
    each = median(lambda: subprocess.run([*words, one], check=True, capture_output=True), 5)
    show(f"ssh with ControlMaster, a command a job (x {JOBS})", each * JOBS)
    subprocess.run([*words, "-O", "exit"], check=True, capture_output=True)
    settings = {"key_filename": str(lab.folder / "id"), "allow_agent": False, "look_for_keys": False}
    with Connection(node.address, "tunelab", config=Config(lazy=True), connect_kwargs=settings) as plain:
        each = median(lambda: plain.run(one, hide=True, in_stream=False), 5)
    show(f"plain Fabric, a command a job (x {JOBS})", each * JOBS)


def fleet(lab: Lab) -> None:
    """Polls of two hosts, and of all at once."""
    ways = [Ssh(node.host(), "the benchmark") for node in lab.nodes]
    with ThreadPoolExecutor(len(ways)) as pool:
        list(pool.map(lambda way: way.start(job(100)), ways))
        few = median(lambda: list(pool.map(lambda way: way.poll(watches()[:1]), ways[:2])))
        show("poll 2 hosts", few)
        show(f"poll {len(ways)} hosts", median(lambda: list(pool.map(lambda way: way.poll(watches()[:1]), ways))))
    for way in ways:
        way.close()


def main() -> None:
    """All of it."""
    count = int(sys.argv[1]) if sys.argv[1:] else 20
    with tempfile.TemporaryDirectory() as scratch, laboratory(count) as lab:
        for name in ("first", "second"):
            (Path(scratch) / name).mkdir()
            for number in range(500):
                (Path(scratch) / name / f"{number}.py").write_text(f"# {name}\n" * 100)
        for node in lab.nodes:
            node.slow(delay=RTT * 500)
        print(f"one host, {RTT * 1000:.0f} ms there and back:")
        ssh = Ssh(lab.nodes[0].host(), "the benchmark")
        submissions(ssh, Path(scratch))
        polls(lab, lab.nodes[0], ssh)
        ssh.close()
        print("several hosts:")
        fleet(lab)


if __name__ == "__main__":
    main()
