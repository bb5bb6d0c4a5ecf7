"""`tune top` on real hosts, each with an nvidia-smi of its own: what is used, by whom, and what is not known."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from orchestrator.daemon.client import only_one
from orchestrator.home import Home
from orchestrator.store import NewJob, open_store
from orchestrator.transports.base import Request
from orchestrator.transports.ssh.transport import Ssh
from tests.hosts.lab import hosts, network  # noqa: F401

SMI = """#!/bin/sh
case "$*" in
*power.draw*) echo x >> "$0.asked"; printf '0, 97, 40000, 81920, 612.50, 700.00\\n1, [N/A], 3, 81920, [Not Supported], 700.00\\n' ;;
*compute*) echo 00000000:D8:00.0, 1 ;;
*bus_id*) printf '0, 00000000:3B:00.0, 40000, Disabled\\n1, 00000000:D8:00.0, 9000, Disabled\\n' ;;
*) printf '0, NVIDIA H100, 81559\\n1, NVIDIA H100, 81559\\n' ;;
esac
"""
"""Two devices: of the second neither use nor power is known, and a process that is not tune's has it."""
BROKEN = "#!/bin/sh\nprintf 'Failed to initialize NVML: \\033[31mDriver/library version mismatch\\n'; exit 18\n"


@pytest.fixture
def lab(tune, hosts):  # noqa: F811
    """Target `lab`: the first host has two devices of which it tells, the second one of which it does not; `cpus`: the third."""
    for host, script in ((hosts[0], SMI), (hosts[1], BROKEN)):
        folder = host.home / "bin"
        folder.mkdir(exist_ok=True)
        folder.chmod(0o777)
        (folder / "nvidia-smi").write_text(script)
        (folder / "nvidia-smi").chmod(0o755)
        (folder / "nvidia-smi.asked").unlink(missing_ok=True)
        host.configured("SetEnv PATH=/home/tunelab/bin:/usr/bin:/bin")
        for look in host.home.glob(".tune/leases/*/look.json"):
            look.unlink()  # another test's, and good for ten seconds
    said = vars(hosts[0].host())
    shared = {key: said[key] for key in ("user", "identity", "known_hosts", "interpreter")}
    gpus = [{"address": node.address, "devices": devices} for node, devices in ((hosts[0], 2), (hosts[1], 1))]
    targets = {
        "lab": {"kind": "ssh", "hosts": gpus, "accelerator": "cuda"},
        "cpus": {"kind": "ssh", "hosts": [{"address": hosts[2].address}], "accelerator": "cpu", "devices": 2},
    }
    layout = {"version": 1, "defaults": shared, "targets": targets, "groups": {"all": ["lab", "cpus"]}}
    (tune.cwd / "clusters.yaml").write_text(json.dumps(layout))
    return [node.address for node in hosts]


def submitted(home, names):
    """A job on the first device of the first host, and one on the third host, with their last points."""
    with open_store(Home(home).make().store) as store:
        for id, target, where, points in (
            ("gpu-job", "lab", {names[0]: [0]}, [(7, "tokens_per_second", 12345.6, "tps")]),
            ("cpu-job", "cpus", {names[2]: [1]}, []),
        ):
            store.add_job(NewJob(id, "ours", "litgpt", target, id, "{}", planned_steps=20), time.time())
            store.change(id, expect=None, now=time.time(), state="RUNNING")
            store.record(id, 1, points, time.time(), {"placed": {"target": target, "devices": where}})


def test_once(tune, home, lab, hosts):  # noqa: F811
    """Devices with their figures and jobs; what nobody knows is `?` in the table and null in the document, with nvidia-smi's own words;
    a host without devices tells of its processors; each host is asked once.
    """
    submitted(home, lab)
    with only_one(Home(home)):  # nobody tends to these jobs, which were never started
        said, document = tune("top", "all", "--once").stdout.splitlines(), tune.json("top", "all")
    assert said[0].startswith("3 machines; 2 of 3 devices in use; 612 W of 1 devices; 2 jobs; 12,346 tokens/s of 1 jobs")
    rows = [line.split() for line in said[2:6]]
    assert rows[0] == [lab[0], "0", "97", "%", "39.1/80.0", "GiB", "612/700", "W", "7/20", "12,346", "gpu-job"]
    assert rows[1][:8] == [lab[0], "1", "?", "0.0/80.0", "GiB", "?/700", "W", "a"]
    assert "a process that is not tune's (pid 1 of root)" in said[3]
    assert rows[2] == [lab[1], "0", "?", "?", "?"]
    assert rows[3][:2] == [lab[2], "cpu"]
    assert rows[3][-2:] == ["-", "cpu-job"]
    assert said[6] == f"{lab[1]}: nvidia-smi (exit code 18): Failed to initialize NVML: ?[31mDriver/library version mismatch"
    assert (hosts[0].home / "bin/nvidia-smi.asked").read_text() == "x\nx\n"
    by_name = {each["name"]: each for each in document["machines"]}
    first, second = by_name[lab[0]]["devices"]
    assert (first["percent"], first["watts"], first["watts_limit"], first["memory_used"]) == (97, 612.5, 700, 40000 << 20)
    assert (second["percent"], second["watts"], second["watts_limit"]) == (None, None, 700)
    assert by_name[lab[1]]["devices"] == [dict.fromkeys(first) | {"index": 0}]
    assert "Driver/library version mismatch" in by_name[lab[1]]["trouble"]
    assert by_name[lab[2]]["devices"] == []
    assert 0 <= by_name[lab[2]]["cpu_percent"] <= 100
    assert 0 < by_name[lab[2]]["memory_used"] < by_name[lab[2]]["memory"]
    assert {job["id"]: job["devices"] for job in document["jobs"]} == {"gpu-job": {lab[0]: [0]}, "cpu-job": {lab[2]: [1]}}
    assert "did you mean lab?" in tune("top", "lap", code=2).stderr


def test_a_dead_host_holds_nobody_up(tune, home, lab, hosts):  # noqa: F811
    """While one host is cut off, the others' figures come, again and again; the dead one is told of, and so is that it answers again."""
    hosts[1].cut()
    script = (
        "import sys; from orchestrator.client.top import Top; from orchestrator.render.top import top_text; top = Top(['lab'])\n"
        "for _ in sys.stdin: print(top_text(top.look(2.0)) + '\\n.', flush=True)\n"
    )
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])}
    with subprocess.Popen(
        [sys.executable, "-c", script], cwd=tune.cwd, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:

        def screen():
            process.stdin.write("\n")
            process.stdin.flush()
            return "".join(iter(process.stdout.readline, ".\n"))

        def until(true):
            end = time.monotonic() + 120
            while not true(said := screen()):
                assert time.monotonic() < end, said
            return said

        said = until(lambda said: " 97 % " in said)
        assert f"{lab[1]}: no answer yet" in said or "1 without an answer" in said
        said = until(lambda said: "1 without an answer" in said)
        assert " 97 % " in said
        hosts[1].heal()
        said = until(lambda said: "without an answer" not in said and "Failed to initialize" in said)
        assert " 97 % " in said
        process.stdin.close()


def test_devices_of_others(tune, lab, hosts):  # noqa: F811
    """A device that another state folder's job holds is told with that job and its owner."""
    other = Ssh(hosts[2].host(), "someone:/else")
    step = {"name": "s", "argv": ["/bin/sleep", "600"], "everywhere": True}
    other.start(Request("theirs-1", 1, (step,), {}, {}, devices=(0,), lease="someone:/else"))
    try:
        assert "theirs-1 of someone:/else" in tune("top", "cpus", "--once").stdout
    finally:
        other.stop("theirs-1", 1, 0.0)
        other.close()
