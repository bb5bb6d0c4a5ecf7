"""A thousand queued jobs on twenty hosts over real sshd: how many run exactly once, how fast, and what the controller takes.

    sudo uv run python benchmarks/fleet.py [JOBS] [HOSTS] [SLOTS] [SECONDS]

The jobs are a shell that sleeps SECONDS, as a trainer's stand-in: measured is tune itself. Hosts are network namespaces of this
machine (tests/hosts), so the jobs, the sshds and the controller share its cores. Budgets (the issue's): the controller stays
under 200 MB and 20 % of a core.
"""

import os
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from backends.plan import Environment, Plan, Promise, Step
from orchestrator.client.submit import enqueue
from orchestrator.home import Home
from orchestrator.store import open_store
from orchestrator.targets.model import Candidate
from orchestrator.targets.node import Node
from tests.hosts.lab import Lab, laboratory
from tests.processes import CONTROLLER, pids_of

METRICS = "out/logs/csv/version_0/metrics.csv"


def sleeper(number: int, seconds: int) -> Plan:
    """A plan of one step that notes that it ran, sleeps, and reports one optimizer step as LitGPT does."""
    reading = {"every": 1, "first_lr": 0.0, "accumulation": 1}
    line = "epoch,iter,iter_time,learning_rate,loss,step,tokens,total_tokens\\n0,1,0.01,0.001,2.5,1,10,10\\n"
    script = f"echo {number} >> ~/ran; sleep {seconds}; mkdir -p $(dirname {METRICS}); printf '{line}' > {METRICS}"
    step = Step("train", ("/bin/sh", "-c", script))
    environment = Environment("litgpt", "/bin/sh")
    return Plan("fleet", "litgpt", environment, (), (step,), (), (), (), Promise(1, ()), (METRICS,), reading)


def fleet(lab: Lab, slots: int) -> Candidate:
    """All hosts, with room for so many jobs each."""
    nodes = [Node(each.name, slots, address=each.address, ssh=each.host(folder="~/tune")) for each in lab.nodes]
    return Candidate.of("fleet", "ssh", nodes)


def taken(pid: int) -> tuple[float, float]:
    """Seconds of CPU so far, and the peak of its memory in MB."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK"), int(status["VmHWM"].split()[0]) / 1000


def main(jobs: int, hosts: int, slots: int, seconds: int) -> None:
    """Run and print."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder, laboratory(hosts) as lab:
        home, where = Home(Path(folder)).make(), [fleet(lab, slots)]
        began = time.monotonic()
        for number in range(jobs):
            enqueue(home, f"job-{number}", sleeper(number, seconds), where, {}, 0)
        queued = time.monotonic()
        pid, cpu, memory = next(iter(pids_of(home.path, CONTROLLER)), 0), 0.0, 0.0
        with open_store(home.store) as store:
            while store.active():
                if pid and Path(f"/proc/{pid}").exists():
                    cpu, memory = taken(pid)
                time.sleep(1)
            ended = time.monotonic()
            states = Counter(job.state for job in store.jobs())
        ran = Counter(line for node in lab.nodes for line in node.run("sh", "-c", "cat /home/tunelab/ran || true").split())
        ideal = jobs * seconds / (hosts * slots)
        print(f"{jobs} jobs on {hosts} hosts of {slots} slots: {dict(states)}")
        print(f"ran exactly once: {sum(times == 1 for times in ran.values())}, twice: {sum(times > 1 for times in ran.values())}")
        print(f"queued in {queued - began:.1f} s; all ended after {ended - began:.1f} s (the sleeping alone: {ideal:.1f} s)")
        print(f"controller: {memory:.0f} MB at most, {cpu:.1f} s of CPU, {100 * cpu / (ended - began):.0f} % of a core")


if __name__ == "__main__":
    main(*(int(word) for word in sys.argv[1:]), *(1000, 20, 4, 2)[len(sys.argv) - 1 :])
