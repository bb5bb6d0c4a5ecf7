"""Disk space: what is said to be freed is freed, and whatever is kept goes on to work."""

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

from backends.plan import HERE, Input
from orchestrator.client.pulling import pulling
from orchestrator.client.submit import enqueue
from orchestrator.transports.local import Local
from tests.faults.conftest import here, shell_plan
from tests.faults.test_hosts import SSH, there

JOBS, SHARED = 200, 10
DATA = "mkdir -p cache/data/{0}; head -c 20000 /dev/zero > cache/data/{0}/rows; ln -s cache/data/{0} data"
WEIGHTS = "mkdir -p out; head -c 50000 /dev/zero > out/weights"


@pytest.fixture
def lab(lab):
    """A state folder with environments and caches of its own: what is removed here belongs to no other test."""
    for folder in (lab.home.envs, lab.home.cache):
        assert folder.is_symlink()
        folder.unlink()
        folder.mkdir()
    return lab


def allocated(folder):
    """Bytes on the disk below a folder, each file once."""
    found = {}
    for place, _, names in os.walk(folder):
        for path in (Path(place), *(Path(place, name) for name in names)):
            facts = path.lstat()
            found[facts.st_ino] = facts.st_blocks * 512
    return sum(found.values())


def files(folder):
    """Paths below a folder."""
    return sorted(str(Path(place, name)) for place, _, names in os.walk(folder) for name in names)


@pytest.mark.thorough
def test_two_hundred_jobs(lab):
    """A prune frees on the disk what its dry run said, every kept job pulls, and what jobs share stays while one uses it."""
    for n in range(JOBS):
        end = "exit 3" if n % 4 == 1 else lab.training(2, loss=f"{2 + n / 100}")
        scripts = (DATA.format(f"d{n % SHARED}"), WEIGHTS, end)
        lab.submit(f"j{n}", *scripts, slots=16, steps=2, name="good" if n % 2 == 0 else "other")
    lab.submit("runs", WEIGHTS, "sleep 600", slots=16, name="other")
    for n in range(JOBS):
        lab.wait(f"j{n}", 600)
    lab.wait("runs", state="RUNNING")
    rules = ("--keep-best", "3", "--caches", "--json")
    before = files(lab.home.jobs), files(lab.home.cache)
    would = json.loads(lab.tune("prune", *rules))
    assert (files(lab.home.jobs), files(lab.home.cache)) == before
    assert json.loads(lab.tune("prune", *rules)) == would
    used = allocated(lab.home.jobs) + allocated(lab.home.cache)

    done = json.loads(lab.tune("prune", *rules, "--yes"))
    freed = used - allocated(lab.home.jobs) - allocated(lab.home.cache)

    gone, kept = {each["id"] for each in done["jobs"]}, ["j0", "j2", "j4", "j3", "j7", "j11"]
    assert gone == {f"j{n}" for n in range(JOBS)} - set(kept)
    assert done == {**would, "removed": True, "bytes": done["bytes"]}
    assert done["bytes"] == would["bytes"]
    assert abs(freed - done["bytes"]) <= 4096 * (len(gone) + 2)  # the folder of each job, which lies around its attempts
    assert sorted(path.name for path in lab.home.jobs.iterdir()) == sorted([*kept, "runs"])
    assert (lab.home.cache / "data" / "d0" / "rows").exists()
    for id in kept:
        assert "checkpoint/config.json" in lab.tune("pull", id, "--into", str(lab.home.path / "pulled" / id))
    assert "train" in lab.tune("logs", "j8")
    assert lab.tune("metrics", "j8", "--json")
    lab.tune("pull", "j8", code=2)
    # what only removed jobs had used has no user now, and goes with the next call
    assert "d8" in str(json.loads(lab.tune("prune", *rules, "--yes"))["shared"])
    assert not (lab.home.cache / "data" / "d8").exists()
    assert (lab.home.cache / "data" / "d0" / "rows").exists()
    assert lab.job("runs").state == "RUNNING"
    lab.tune("cancel", "runs")


def test_what_others_read_is_kept(lab):
    """Whatever the rules say, a job stays whose files are being pulled, or are read by a job that stays."""
    for id in ("first", "alone", "again"):
        lab.submit(id, lab.training(2), steps=2)
        lab.wait(id)
    reader = replace(shell_plan("sleep 600"), inputs=(Input("inputs/model", "jobs/first/1/work/checkpoint", HERE),))
    enqueue(lab.home, "reader", reader, [here(1)], {}, 0)
    lab.wait("reader", state="RUNNING")
    with pulling(lab.home, "alone"):
        found = json.loads(lab.tune("prune", "--state", "SUCCEEDED", "--json", "--yes"))
    assert found["kept"] == {"first": "reader reads its files", "alone": "its files are being pulled"}
    assert [each["id"] for each in found["jobs"]] == ["again"]
    lab.tune("cancel", "reader")
    assert {each["id"] for each in json.loads(lab.tune("prune", "--older-than", "0.1s", "--json", "--yes"))["jobs"]} == {"first", "alone", "reader"}  # fmt: skip
    assert "nothing to remove" in lab.tune("prune", "--older-than", "0.1s")


def test_a_job_is_tried_again_after_its_files_went(lab):
    """The record of a pruned job is whole: it can be run again, and then pulled."""
    lab.submit("a", lab.training(2), steps=2)
    lab.wait("a")
    lab.tune("prune", "a", "--yes")
    lab.tune("retry", "a")
    assert lab.wait("a", until=lambda job: job.ended and job.attempt == 2).state == "SUCCEEDED"
    assert "checkpoint" in lab.tune("pull", "a", "--into", str(lab.home.path / "pulled"))


def test_on_a_host(lab, hosts):
    """On a host over SSH the same: its files go there, the others' stay, and another state folder's jobs are not touched."""
    node = hosts[0]
    node.run("rm", "-rf", "/home/tunelab/tune", user=True)
    for id in ("a", "b"):
        lab.submit(id, WEIGHTS, lab.training(2), steps=2, where=[there(node)])
        assert lab.wait(id, SSH).state == "SUCCEEDED"
    found = json.loads(lab.tune("prune", "a", "--yes", "--json"))
    assert found["jobs"] == [{"id": "a", "bytes": found["bytes"], "machines": [node.name]}]
    assert not (node.home / "tune/jobs/a").exists()
    assert "checkpoint/config.json" in lab.tune("pull", "b", "--into", str(lab.home.path / "pulled"))
    assert "train" in lab.tune("logs", "a")


@pytest.mark.parametrize(
    ("words", "why"), [(("prune",), "prune what?"), (("prune", "nope"), "nope"), (("du", "--on", "nope"), "nope")]
)
def test_wrong_words(lab, tune, words, why):
    """Without a job or a rule nothing is chosen, and what is not there is named."""
    lab.submit("a", lab.training(1), steps=1)
    lab.wait("a")
    assert why in tune(*words, code=2).stderr


def test_du(lab, tune):
    """`tune du` counts jobs, and what of the cache no job uses."""
    lab.submit("a", DATA.format("d1"), WEIGHTS, lab.training(1), steps=1)
    lab.wait("a")
    (lab.home.cache / "data" / "idle").mkdir()
    [machine] = tune.json("du")["machines"]
    assert machine["jobs"][0]["job"] == "a"
    assert machine["jobs"][0]["bytes"] > 50000
    assert {each["piece"]: each["used"] for each in machine["shared"]} == {"cache/data/d1": True, "cache/data/idle": False}
    assert tune("du").stdout.split()[:2] == ["MACHINE", "JOBS"]


def test_a_folder_that_is_a_link_is_not_ours_alone(lab, tune, tmp_path):
    """Environments and caches that lie behind a link may be another state folder's too: they are neither offered nor removed."""
    elsewhere = tmp_path / "elsewhere"
    for name in ("envs/trainer-1", "cache/models/m1"):
        (elsewhere / name).mkdir(parents=True)
        (elsewhere / name / "file").write_text("x")
    for folder in (lab.home.envs, lab.home.cache):
        folder.rmdir()
        folder.symlink_to(elsewhere / folder.name)
    lab.submit("a", lab.training(1), steps=1)
    lab.wait("a")
    before = files(elsewhere)
    found = tune.json("prune", "--older-than", "0.01s", "--caches", "--yes")
    assert ([each["id"] for each in found["jobs"]], found["shared"]) == (["a"], {})
    assert files(elsewhere) == before
    asked = Local(lab.home.path).discard([], ["envs/trainer-1", "cache/models/m1", "../elsewhere/envs/trainer-1"])
    assert (asked["freed"], files(elsewhere)) == (0, before)
