"""Which machine, whose folder: absence is not death, another machine's word counts for nothing, a home may be shared."""

import fcntl
import json
import shutil
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from orchestrator.agent import provision
from orchestrator.home import Home
from orchestrator.store import open_store
from tests.unit.agent.conftest import packed

from .test_hosts import SSH, clean, there  # noqa: F401

ALONE = "exec 9>~/alone; flock -n 9 || { echo two at once; exit 9; }; "
"""A script that fails where another one is at work."""
STUBBORN = "trap '' TERM; "


@pytest.fixture(autouse=True)
def fresh(hosts):
    """Nothing of an earlier test runs on the hosts."""
    for node in hosts:
        node.run(
            "sh", "-c", "pkill -9 -u tunelab -x sleep; pkill -9 -u tunelab -f TUNE-NOTHING; rm -rf /home/tunelab/alone; true"
        )


def ran(node, name="runs"):
    """How often something was begun there."""
    return node.run("sh", "-c", f"cat /home/tunelab/{name} 2>/dev/null || true").split()


def living(node):
    """Processes with a mark of an attempt on a host."""
    script = "for p in /proc/[0-9]*; do grep -aqz ^TUNE_JOB= $p/environ 2>/dev/null && grep -q '^State:.[^ZX]' $p/status && echo ${p#/proc/}; done; true"
    return node.run("sh", "-c", script).split()


def first_run_waits(script, seconds=600):
    """The first run goes on for ever, the next ones do what the script says."""
    return f"{ALONE}if mkdir ~/once 2>/dev/null; then touch ~/began; sleep {seconds}; fi; {script}"


@pytest.mark.parametrize("gone", ["tune/jobs/a/1", "tune/jobs", "tune"])
def test_a_folder_that_is_gone_is_no_death(lab, hosts, gone):
    """The attempt's folder, or the whole state folder, is removed while it runs: what runs is ended first, then it is tried again."""
    hosts[0].run("rm", "-rf", "/home/tunelab/once", "/home/tunelab/began")
    lab.submit("a", first_run_waits(lab.training(3)), steps=3, where=[there(hosts[0])], retry={"lost": 2})
    lab.wait("a", SSH, state="RUNNING")
    [leader] = living(hosts[0])[:1]
    hosts[0].run("rm", "-rf", f"/home/tunelab/{gone}", user=True)
    job = lab.wait("a", 2 * SSH)
    assert (job.state, job.attempt) == ("SUCCEEDED", 2), (job, lab.log())
    with open_store(lab.home.store) as store:
        assert "folder_gone" in [event.reason for event in store.events("a")]
    assert leader not in living(hosts[0])
    assert "two at once" not in lab.home.log_of("a", 2).read_text().splitlines()


def test_a_cancel_ends_what_has_no_folder(lab, hosts):
    """Its folder is gone, it does not heed TERM, and its processes hide their mark: CANCELLED means that nothing of it lives."""
    lab.submit("a", STUBBORN + "env -i sleep 600 & sleep 600", steps=1, where=[there(hosts[0])])
    lab.wait("a", SSH, state="RUNNING")
    hosts[0].run("rm", "-rf", "/home/tunelab/tune", user=True)
    lab.tune("cancel", "a", "--no-wait")
    job = lab.wait("a", SSH)
    assert job.state in ("CANCELLED", "LOST"), job
    assert hosts[0].run("sh", "-c", "pgrep -u tunelab sleep || true").split() == []
    assert living(hosts[0]) == []


def test_a_clean_up_of_old_files_is_no_death(lab, hosts):
    """What an attempt does not write any more is taken away as old: it goes on, and ends as it does."""
    lab.submit("a", "while [ ! -e ~/go ]; do sleep 0.1; done; " + lab.training(2), steps=2, where=[there(hosts[0])])
    lab.wait("a", SSH, state="RUNNING")
    for name in ("sup.lock", "meta.json", "spec.json", "run.json"):
        hosts[0].run("rm", f"/home/tunelab/tune/jobs/a/1/{name}", user=True)
    lab.kill_controllers()
    lab.tune("status")
    hosts[0].run("touch", "/home/tunelab/go", user=True)
    job = lab.wait("a", SSH)
    assert (job.state, job.attempt) == ("SUCCEEDED", 1), (job, lab.log())


def test_a_clone_says_nothing_about_the_job(lab, hosts):
    """Another machine answers at the address: the job is unreachable, in words, is not tried again, and is followed when its own is back."""
    script = "echo run >> ~/runs; while [ ! -e ~/go ]; do sleep 0.1; done; " + lab.training(2)
    for node in hosts[:2]:
        node.run("rm", "-rf", "/home/tunelab/runs")
    lab.submit("a", script, steps=2, where=[there(hosts[0])], retry={"lost": 3})
    lab.wait("a", SSH, state="RUNNING")
    hosts[1].impersonate(hosts[0])
    job = lab.wait("a", 2 * SSH, until=lambda job: "another machine answers" in job.detail)
    assert (job.state, job.reachable, job.attempt) == ("RUNNING", False, 1)
    assert "node1-" in job.detail
    lab.kill_controllers()
    lab.tune("status")
    assert lab.wait("a", SSH, until=lambda job: "another machine answers" in job.detail).state == "RUNNING"
    hosts[1].withdraw()
    hosts[0].heal()
    hosts[0].run("touch", "/home/tunelab/go", user=True)
    job = lab.wait("a", 2 * SSH)
    assert (job.state, job.attempt, ran(hosts[0]), ran(hosts[1])) == ("SUCCEEDED", 1, ["run"], []), (job, lab.log())


@pytest.fixture(params=["locks", "apart"])
def shared(hosts, clean, request):  # noqa: F811
    """Two hosts with one home; also where the locks that one takes are unknown to the other."""
    if request.param == "apart" and not (shutil.which("bindfs") and Path("/dev/fuse").exists()):
        pytest.skip("a home without common locks needs bindfs and FUSE")
    hosts[1].share(hosts[0], locks=request.param == "locks")
    with (hosts[0].home / "held").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        taken = hosts[1].run("sh", "-c", "flock -n /home/tunelab/held true && echo taken || echo held")
    assert taken.strip() == ("held" if request.param == "locks" else "taken")
    return hosts[:2]


def test_a_job_over_two_hosts_of_one_home_runs_on_both(lab, shared):
    """Each host has a folder and a log of its own, whichever came first."""
    script = "hostname > ~/rank-@RANK@; echo from rank @RANK@; " + lab.training(2)
    lab.submit("a", script, steps=2, hosts=2, where=[there(*shared)])
    job = lab.wait("a", SSH)
    assert job.state == "SUCCEEDED", (job, lab.log())
    assert [(shared[0].home / f"rank-{rank}").read_text() for rank in (0, 1)] == ["node0\n", "node1\n"]
    assert [f"from rank {rank}" in lab.home.log_of("a", 1, rank).read_text() for rank in (0, 1)] == [True, True]


def test_devices_of_hosts_with_one_home_are_each_its_own(lab, shared):
    """Two hosts with a device each run two jobs at once; and one that fails on one host is stopped on the other."""
    script = "echo $(hostname) >> ~/runs; while [ ! -e ~/go ]; do sleep 0.1; done; " + lab.training(1)
    shared[0].run("rm", "-rf", "/home/tunelab/runs")
    for name in "ab":
        lab.submit(name, script, steps=1, where=[there(*shared)])
    for name in "ab":
        lab.wait(name, SSH, state="RUNNING")
    assert sorted(ran(shared[0])) == ["node0", "node1"]
    shared[0].run("touch", "/home/tunelab/go", user=True)
    assert [lab.wait(name, SSH).state for name in "ab"] == ["SUCCEEDED", "SUCCEEDED"]


def test_two_names_of_one_home_are_two_machines(lab, shared):
    """Whichever of several login nodes answers at an address: what the other one runs is not known there, and not run again."""
    script = "echo run >> ~/runs; while [ ! -e ~/go ]; do sleep 0.1; done; " + lab.training(2)
    shared[0].run("rm", "-rf", "/home/tunelab/runs")
    lab.submit("a", script, steps=2, where=[there(shared[0])], retry={"lost": 3})
    lab.wait("a", SSH, state="RUNNING")
    shared[1].impersonate(shared[0])
    job = lab.wait("a", 2 * SSH, until=lambda job: "started on node0-" in job.detail)
    assert (job.state, job.reachable) == ("RUNNING", False)
    shared[0].run("touch", "/home/tunelab/go", user=True)  # it ends, which anybody can see who has its folder
    job = lab.wait("a", 2 * SSH)
    assert (job.state, job.attempt, ran(shared[0])) == ("SUCCEEDED", 1, ["run"]), (job, lab.log())


def test_an_environment_of_one_home_is_made_once(shared):
    """Two hosts that have one home ask for the same environment in the same moment: one makes it, the other waits, both have it."""
    inside, folder = "/home/tunelab/one", shared[0].home / "one"
    packed(folder / "wheels", "onlyhere", "1.0", {"onlyhere.py": "ANSWER = 42"})
    (folder / "lock").write_text("onlyhere==1.0")
    settings = [f"UV_FIND_LINKS={inside}/wheels", "UV_OFFLINE=1", f"UV_CACHE_DIR={inside}/cache", "UV_LINK_MODE=copy"]
    python = f"{sys.version_info[0]}.{sys.version_info[1]}"
    words = [str(Path(provision.__file__).parent), "provision", f"{inside}/envs", "demo", f"{inside}/lock"]
    argv = [
        "env",
        *settings,
        sys.executable,
        "-I",
        *words,
        "--python",
        python,
        "--accelerator",
        "cpu",
        "--uv",
        provision.find_uv(),
    ]
    try:
        with ThreadPoolExecutor(2) as pool:
            outs = list(pool.map(lambda node: node.run(*argv), shared))
        assert sum("making the environment" in out for out in outs) == 1
        assert len({out.splitlines()[-1] for out in outs}) == 1
        assert [path.name for path in (folder / "envs").glob("demo-*") if provision.ready(path)] == [
            path.name for path in (folder / "envs").glob("demo-*")
        ]
        assert not list((folder / "envs").glob("*.turn.*"))
    finally:
        shutil.rmtree(folder)


# ---- whose job


def test_an_id_of_another_is_refused(lab, hosts, tmp_path):
    """Two people with one account: the second `--id exp1` is refused in words, and neither shows, cancels nor ends the first's job."""
    other = type(lab)(tmp_path / "other")
    script = "echo run >> ~/runs; while [ ! -e ~/go ]; do sleep 0.1; done; " + lab.training(2)
    hosts[0].run("rm", "-rf", "/home/tunelab/runs")
    where = [there(hosts[0], devices=2)]
    lab.submit("exp1", script, steps=2, where=where)
    lab.wait("exp1", SSH, state="RUNNING")
    try:
        for number, its in enumerate((script, "echo something else")):
            theirs = type(lab)(tmp_path / f"other{number}")
            theirs.submit("exp1", its, steps=2, where=where)
            job = theirs.wait("exp1", SSH)
            assert (job.state, job.reason) == ("FAILED", "cannot_start"), job
            assert f"belongs to root@{shutil.os.uname().nodename}:{lab.home.path}" in job.detail
            theirs.kill_controllers()
    finally:
        other.kill_controllers()
    hosts[0].run("touch", "/home/tunelab/go", user=True)
    assert lab.wait("exp1", SSH).state == "SUCCEEDED"
    assert ran(hosts[0]) == ["run"]


@pytest.mark.parametrize("lost", ["store", "folder"])
def test_ones_own_is_found_again_after_the_store_was_lost(lab, hosts, lost):
    """The store, or the whole state folder here, is gone: the same job submitted again goes on as the one that runs."""
    script = "echo run >> ~/runs; while [ ! -e ~/go ]; do sleep 0.1; done; " + lab.training(2)
    hosts[0].run("rm", "-rf", "/home/tunelab/runs")
    lab.submit("exp1", script, steps=2, where=[there(hosts[0])])
    lab.wait("exp1", SSH, state="RUNNING")
    lab.kill_controllers()
    if lost == "folder":
        shutil.rmtree(lab.home.path)
    for path in lab.home.path.glob("store.db*"):
        path.unlink()
    Home(lab.home.path).make()
    lab.submit("exp1", script, steps=2, where=[there(hosts[0])])
    hosts[0].run("touch", "/home/tunelab/go", user=True)
    job = lab.wait("exp1", SSH)
    assert job.state == "SUCCEEDED", (job, lab.log())
    assert ran(hosts[0]) == ["run"]


def test_what_is_kept_of_an_attempt_names_its_machine(lab, hosts):
    """The store has machine, boot and state folder of where an attempt was started; the folder has its machine and owner."""
    lab.submit("a", lab.training(2), steps=2, where=[there(hosts[0])])
    assert lab.wait("a", SSH).state == "SUCCEEDED"
    with open_store(lab.home.store) as store:
        machine, boot, state = store.positions("a", 1)["placed"]["machines"]["node0"].split()
    meta = json.loads((hosts[0].home / "tune/jobs/a/1/meta.json").read_text())
    assert (meta["machine"], meta["boot_id"]) == (machine, boot)
    assert (hosts[0].home / "tune/id").read_text() == state
    assert meta["owner"].endswith("#" + (lab.home.path / "id").read_text())
