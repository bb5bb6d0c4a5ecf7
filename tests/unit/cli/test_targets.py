"""`tune targets` on real hosts: what they answer, why one cannot be used, what is kept, who has which device."""

import json
import os
import time
from itertools import zip_longest
from pathlib import Path

import pytest

from orchestrator.daemon.client import only_one
from orchestrator.home import Home
from orchestrator.store import NewJob, open_store
from orchestrator.transports.base import Request
from orchestrator.transports.ssh.transport import Ssh
from tests.hosts.lab import PYTHON, hosts, network  # noqa: F401

NVIDIA_SMI = """#!/bin/sh
case $1 in
*compute*) echo 00000000:d8:00.0, 1 ;;
*memory.used*) printf '0, 00000000:3b:00.0, 9000, Disabled\\n1, 00000000:d8:00.0, 9000, Disabled\\n' ;;
*) printf '0, NVIDIA H100, 81559\\n1, NVIDIA H100, 81559\\n' ;;
esac
"""
"""Two devices: on the first the processes of a job that holds it, on the second process 1."""
HOLD = """
import socket, time
kept = [socket.socket(socket.AF_UNIX), socket.socket(socket.AF_UNIX)]
kept[0].bind(b"\\0tune-device cuda 0")
kept[1].bind(b"\\0tune-device cuda 0 anna theirs-1/1")
time.sleep(600)
"""
"""What the runner of another account does to hold a device."""
QUICKSTART = Path(__file__).parents[3] / "recipes" / "quickstart.yaml"


@pytest.fixture
def written(tune, hosts):  # noqa: F811
    """A clusters.yaml with all hosts in the target `lab`, each with further keys; what was said of the first is for it alone."""

    def write(*overrides, **target):
        said = vars(hosts[0].host())
        shared = {key: said[key] for key in ("user", "identity", "known_hosts", "interpreter")}
        entries = [{"address": node.address, **more} for node, more in zip_longest(hosts, overrides, fillvalue={})]
        lab = {"kind": "ssh", "hosts": entries, **target}
        local = {"kind": "local", "accelerator": "cpu", "devices": 3}
        layout = {"version": 1, "defaults": shared, "targets": {"local": local, "lab": lab}, "groups": {"all": ["local", "lab"]}}
        (tune.cwd / "clusters.yaml").write_text(json.dumps(layout))
        return [node.address for node in hosts]

    return write


def by_name(said):
    """Machines of the target `lab` by name."""
    return {host["name"]: host for each in said for host in each["hosts"] if each["name"] == "lab"}


def test_check(tune, home, written):
    """All hosts answer: devices, memory, disk, clock, Python and uv are told, in a table and as a document, and are kept."""
    names = written()
    refused = tune("submit", QUICKSTART, "--on", "lab", "--dry-run", code=2).stderr
    assert f"nobody knows yet what {', '.join(names)} has" in refused
    assert "hint: tune targets check lab" in refused
    assert not (home / "hosts.json").exists()
    table = tune("targets", "check").stdout.splitlines()
    assert [line.split()[:5] for line in table[2:]] == [["lab", name, "ok", "cpu", "1"] for name in names]
    assert (home / "hosts.json").stat().st_mode & 0o777 == 0o600
    found = by_name(tune.json("targets"))
    assert all(host["facts"]["folder"] == "/home/tunelab/.tune" and abs(host["facts"]["skew"]) < 5 for host in found.values())
    assert all(host["seen_at"] <= time.time() for host in found.values())
    assert tune.json("submit", QUICKSTART, "--on", "lab", "--to", "litgpt", "--dry-run")["backend"] == "litgpt"


def test_faults(tune, written, hosts):  # noqa: F811
    """Every host that cannot be used is told of, with the reason and the way out, beside those that can; the exit code is 4."""
    empty = tune.cwd / "none"
    empty.write_text("")
    names = written({"known_hosts": str(empty)}, {"interpreter": "python-that-is-not"})
    said = tune("targets", "check", "lab", code=4).stdout
    assert [line.split()[2] for line in said.splitlines()[1:4]] == ["FAILED", "FAILED", "ok"]
    assert f"ssh-keyscan {names[0]}" in said
    assert "python-that-is-not" in said
    hosts[2].cut()
    found = by_name(tune.json("targets", "check", "all", code=4))
    assert all(host["fault"].startswith(name) for name, host in found.items())


FULL = "mount -o remount,nr_inodes=60 /home/tunelab && cd /home/tunelab && i=0; while touch f$i 2>/dev/null; do i=$((i+1)); done"


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("mount -o remount,noexec /home/tunelab", "is mounted noexec: no environment can be used there"),
        (FULL, "has no inodes left: no file can be made there"),
        ("cat /dev/zero > /home/tunelab/fill; true", "cannot be written: No space left on device"),  # and so with a quota
    ],
)
def test_a_folder_that_is_of_no_use(tune, written, hosts, script, words):  # noqa: F811
    """A check tries the state folder: where nothing may be run or no file made, that is the fault, beside hosts that are well."""
    hosts[0].small("4m")
    names = written(accelerator="cpu")
    tune("targets", "check", "lab", code=4)  # too small; but there is a state folder now
    hosts[0].run("sh", "-c", script)
    found = by_name(tune.json("targets", "check", "lab", code=4))
    assert found[names[0]]["fault"] == f"{names[0]}: /home/tunelab/.tune {words}"
    assert [found[name]["fault"] for name in names[1:]] == [None, None]


def test_a_promise_that_is_not_kept(tune, written):
    """More CUDA devices than a host has are a fault, not a surprise when a job starts."""
    names = written(accelerator="cuda", devices=2)
    faults = [host["fault"] for host in by_name(tune.json("targets", "check", "lab", code=4)).values()]
    assert faults == [f"{name}: clusters.yaml says 2 CUDA device(s), the machine has 0" for name in names]


def test_check_has_the_words_of_nvidia_smi(tune, written, hosts):  # noqa: F811
    """Where nvidia-smi fails, its own words are shown, in the table and in the document, made safe for a terminal."""
    there = hosts[1].home / "bin"
    there.mkdir(exist_ok=True)
    (there / "nvidia-smi").write_text(
        "#!/bin/sh\nprintf 'Failed to initialize NVML: \\033[31mDriver/library version mismatch\\n'; exit 18\n"
    )
    (there / "nvidia-smi").chmod(0o755)
    hosts[1].configured("SetEnv PATH=/home/tunelab/bin:/usr/bin:/bin")
    names = written()
    trouble = "nvidia-smi (exit code 18): Failed to initialize NVML: ?[31mDriver/library version mismatch"
    assert f"warning: {names[1]}: {trouble}\nhint: " in tune("targets", "check", "lab").stdout
    assert by_name(tune.json("targets", "check", "lab"))[names[1]]["facts"]["gpu_trouble"] == trouble


def test_devices_are_detected(tune, written, hosts):  # noqa: F811
    """A host says how many NVIDIA devices it has and how large they are; a plan is then made for CUDA."""
    there = hosts[1].home / "bin"
    there.mkdir(exist_ok=True)
    (there / "nvidia-smi").write_text("#!/bin/sh\nprintf '0, NVIDIA H100, 81559\\n1, NVIDIA H100, 40960\\n'\n")
    (there / "nvidia-smi").chmod(0o755)
    hosts[1].configured("SetEnv PATH=/home/tunelab/bin:/usr/bin:/bin")
    names = written()
    tune("targets", "check", "lab")
    [lab] = tune.json("targets", "lab")
    assert (lab["accelerator"], lab["devices"], lab["memory_gib"]) == ("cuda", 2, 40.0)
    assert [host["accelerator"] for host in lab["hosts"]] == ["cpu", "cuda", "cpu"]
    plan = tune.json("submit", QUICKSTART, "--on", "lab", "--to", "litgpt", "--dry-run")
    assert plan["environment"]["accelerator"] == "cuda"
    wide = ("--set", "resources.devices=2", "--set", "resources.hosts=2")
    assert "hosts: target lab has 1" in tune("submit", QUICKSTART, "--on", "lab", *wide, "--dry-run", code=3).stderr
    assert names[1] in tune("targets").stdout


def test_who_has_what(tune, home, written, hosts):  # noqa: F811
    """Devices in use are shown with their job: ours from the store, those of another controller as the host tells."""
    names = written(accelerator="cpu", devices=4)
    there = Home(home).make()
    with open_store(there.store) as store:
        for id in ("ours-1", "waits-1"):
            store.add_job(NewJob(id, "ours", "litgpt", "lab", id, "{}"), time.time())
        store.change("ours-1", expect=None, now=time.time(), state="RUNNING")
        store.record("ours-1", 1, (), time.time(), {"placed": {"target": "lab", "devices": {names[0]: [1, 2, 3]}}})
    other = Ssh(hosts[0].host(), "someone:/else")
    step = {"name": "s", "argv": ["/bin/sleep", "600"], "everywhere": True}
    other.start(Request("theirs-1", 1, (step,), {}, {}, devices=(0,), lease="someone:/else"))
    try:
        with only_one(there):  # nobody tends to our jobs, which were never started
            assert "1-3 ours-1" in tune("targets", "lab").stdout
            assert "waiting: 1 for lab" in tune("targets", "lab").stdout
            assert "0 theirs-1 of someone:/else, 1-3 ours-1" in tune("targets", "check", "lab").stdout
    finally:
        other.stop("theirs-1", 1, 0.0)
        other.close()


def test_what_others_do_there(tune, written, hosts):  # noqa: F811
    """Accelerators that another account or a process that is not tune's uses are not free: a check says whose they are, and the
    list says it again until the next check; on the CPUs of that host they are in nobody's way.
    """
    there = hosts[2].home / "bin"
    there.mkdir(exist_ok=True)
    (there / "nvidia-smi").write_text(NVIDIA_SMI)
    (there / "nvidia-smi").chmod(0o755)
    hosts[2].configured("SetEnv PATH=/home/tunelab/bin:/usr/bin:/bin")
    holder = hosts[2].run("sh", "-c", f"{PYTHON} -c '{HOLD}' </dev/null >/dev/null 2>&1 & echo $!")
    assert any("theirs-1" in hosts[2].run("cat", "/proc/net/unix") for _ in range(500))
    for look in hosts[2].home.glob(".tune/leases/*/look.json"):
        look.unlink()  # another test's, and good for ten seconds
    names = written()
    told = "0 theirs-1 of anna, 1 a process that is not tune's (pid 1 of root)"
    assert told in tune("targets", "check", "lab").stdout
    listed = tune("targets", "lab").stdout
    assert told in listed
    [line] = [line for line in listed.splitlines() if names[2] in line]
    assert line.split()[3:8] == ["cuda", "2", "79.65", "GiB", "0"]
    written(accelerator="cpu")
    assert "theirs-1" not in tune("targets", "check", "lab").stdout
    hosts[2].run("kill", holder.strip())


def test_names(tune, written):
    """Targets and groups can be named; what is neither is a mistake with the nearest name."""
    written(accelerator="cpu")
    assert [each["name"] for each in tune.json("targets", "all")] == ["local", "lab"]
    assert [each["name"] for each in tune.json("targets", "ls", "local")] == ["local"]
    assert "did you mean lab?" in tune("targets", "check", "lap", code=2).stderr
    assert "did you mean all?" in tune("submit", QUICKSTART, "--on", "al", "--dry-run", code=2).stderr
    assert "one target is wanted here, these are 2" in tune("translate", QUICKSTART, "--on", "all", code=2).stderr


def test_without_hosts(tune):
    """This machine alone, without any file."""
    [local] = tune.json("targets", "check")
    assert (local["kind"], local["hosts"][0]["fault"]) == ("local", None)
    assert local["hosts"][0]["facts"]["cpus"] == len(os.sched_getaffinity(0))
