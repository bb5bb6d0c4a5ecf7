"""Jobs on a real Slurm, with the real controller and store; the trainer is a shell script that takes milliseconds."""

import json
import re
import time
from pathlib import Path

import pytest

from backends.plan import RANK
from orchestrator.executors.base import ExecutorContext, Handle, Watched
from orchestrator.executors.slurm import SLURM
from orchestrator.store import open_store
from orchestrator.targets.node import Placement
from orchestrator.transports.base import Watch
from tests.faults.conftest import training
from tests.slurm.conftest import WAITS, began, counted, hpc, work
from tests.waiting import until

pytestmark = pytest.mark.long
IN_SLURM = "cancelled in Slurm, not by tune"


def test_a_job_succeeds_with_all_its_points(lab):
    """From the queue to SUCCEEDED; the script that ran lies in the job's folder."""
    lab.submit("a", training(5), steps=5, where=hpc())
    job = lab.wait("a")
    assert (job.state, job.reason, job.step) == ("SUCCEEDED", "", 5), (job, lab.log())
    assert [point.step for point in lab.points("a")] == [1, 2, 3, 4, 5]
    text = (work(lab, "a") / ".tune/job.sbatch").read_text()
    assert text == (lab.home.jobs / "a/slurm/1/job.sbatch").read_text()
    assert lab.events("a").count("SUCCEEDED") == 1


def test_two_nodes_know_each_other(lab):
    """Each part has its number, and all have one address and port; each log is kept."""
    lab.submit("a", "echo part @RANK@ of @HEAD@:@PORT@ on $SLURMD_NODENAME. slurm=$SLURM_JOB_ID.", hosts=2, where=hpc())
    lab.wait("a")
    texts = [lab.home.log_of("a", 1, rank).read_text() for rank in (0, 1)]
    lines = [next(line for line in text.splitlines() if line.startswith("part")) for text in texts]
    assert [line.split()[1] for line in lines] == ["0", "1"]
    assert lines[0].split()[3] == lines[1].split()[3] != "@HEAD@:@PORT@"
    assert "slurm=." in lines[0], "srun's variables would mislead the trainers' launchers"


def test_what_every_node_wrote_is_synced(lab):
    """A tracker may report from each process: runs of both nodes are found, each under its own name."""
    run = f"out/wandb/offline-run-{RANK}"
    script = f"mkdir -p {run}; touch {run}/run-{RANK}.wandb {run}/run-{RANK}.wandb.synced; " + training(1)
    lab.submit("a", script, steps=1, hosts=2, where=hpc())
    assert lab.wait("a").state == "SUCCEEDED", lab.log()
    told = json.loads(lab.tune("sync", "a", "--json"))["runs"]
    assert [(each["run"], each["sent"]) for each in told] == [("offline-run-0", False), ("offline-run-1", False)]


def test_a_part_that_fails_ends_the_others(lab):
    """The job fails for the part that failed, at once, also where no controller lives to see it."""
    lab.submit("a", "touch began; test @RANK@ = 0 && sleep 600; exit 5", hosts=2, where=hpc())
    job = lab.wait("a", until=lambda job: job.ended)
    assert (job.state, job.reason) == ("FAILED", "exit_code"), (job, lab.log())
    assert "exit code 5" in job.detail
    assert not lab.processes("a")


def test_what_waits_says_why_and_is_cancelled_at_once(lab, site):
    """PENDING with Slurm's own reason; cancelled it never runs."""
    for job in "abcd":
        lab.submit(job, WAITS, where=hpc())
    lab.submit("last", WAITS, where=hpc())
    job = lab.wait("last", until=lambda job: job.detail.startswith("Slurm: ") and "pending" not in job.detail)
    assert job.phase_step == "pending"
    lab.tune("cancel", "last")
    assert lab.wait("last").state == "CANCELLED"
    assert not (lab.home.jobs / "last/1").exists()
    until(lambda: list(site.jobs().values()).count("PENDING") == 0)
    for job in "abcd":
        began(lab, job)
        lab.tune("cancel", job)
    assert {lab.wait(job).state for job in "abcd"} == {"CANCELLED"}


def test_scancel_by_hand_is_a_cancelled_job(lab, site):
    """Running or waiting, what somebody took from Slurm has been cancelled, and no process of it lives."""
    lab.submit("a", WAITS, where=hpc())
    began(lab, "a")
    number = lab.home.jobs.joinpath("a/slurm/1/id").read_text()
    site.run("scancel", number)
    job = lab.wait("a")
    assert (job.state, job.detail) == ("CANCELLED", IN_SLURM), lab.log()
    until(lambda: not lab.processes("a"))
    site.run("scontrol", "update", "partition=debug", "state=down")
    try:
        lab.submit("b", WAITS, where=hpc())
        lab.wait("b", until=lambda job: job.phase_step == "pending")
        site.run("scancel", until(lambda: lab.home.jobs.joinpath("b/slurm/1/id").read_text()))
        assert lab.wait("b").state == "CANCELLED"
    finally:
        site.run("scontrol", "update", "partition=debug", "state=up")


def test_slurm_that_is_silent_says_nothing_about_a_job(lab, site):
    """slurmctld is away while a job runs and another is submitted: both end as if nothing had been."""
    lab.submit("a", WAITS + ";" + training(2), steps=2, where=hpc())
    began(lab, "a")
    site.stop_controller()
    lab.submit("b", training(2), steps=2, where=hpc())
    (work(lab, "a") / "go").touch()
    assert lab.wait("a").state == "SUCCEEDED", lab.log()
    assert lab.job("b").ended is None
    site.start_controller()
    assert lab.wait("b").state == "SUCCEEDED", lab.log()
    assert lab.job("b").attempt == 1


@pytest.mark.thorough
def test_a_slurm_that_crashed_and_forgot_that_a_job_began(lab, site):
    """It queues the job again, and takes its node for broken: whatever it says of the job, no attempt runs twice."""
    script = "echo x >> ../../count; touch began; case $PWD in */1/work) sleep 20;; esac;" + training(2)
    lab.submit("a", script, steps=2, where=hpc(), retry={"lost": 1})
    began(lab, "a")
    site.crash_controller()
    site.start_controller()
    job = lab.wait("a", 180)
    assert job.state == "SUCCEEDED" or (job.state, job.detail) == ("CANCELLED", IN_SLURM), (job, lab.log())
    assert (lab.home.jobs / "a/count").read_text() == "x\n" * job.attempt


def test_a_dead_node_ends_an_attempt_and_its_orphan_is_told(lab, site):
    """The node's slurmd is gone, what ran there lives on: the attempt is lost, the next runs elsewhere, and no two write."""
    script = "echo $$ >> pids; touch began; until test -e go; do sleep 0.05; done;" + training(2)
    lab.submit("a", script, steps=2, where=hpc(), retry={"lost": 2})
    began(lab, "a")
    placed = int(until(lambda: _nodes(lab, "a"))[1:])
    site.kill_node(placed)
    site.run(
        "scontrol", "update", f"nodename=n{placed}", "state=down", "reason=dead"
    )  # Slurm finds out by itself in half a minute
    try:
        job = lab.wait("a", 180, until=lambda job: job.attempt == 2 or job.ended)
        assert job.attempt == 2, (job, lab.log())
        began(lab, "a", 2)
        until(lambda: not _alive(work(lab, "a") / "pids"))
        (work(lab, "a", 2) / "go").touch()
        assert lab.wait("a").state == "SUCCEEDED", lab.log()
    finally:
        site.start_node(placed)


def waiting(site):
    """Jobs that are in the queue or run."""
    return [number for number, state in site.jobs().items() if state in ("PENDING", "RUNNING")]


def _nodes(lab, job):
    """The first node of a job's attempt, once it is known."""
    with open_store(lab.home.store) as store:
        devices = (store.positions(job, 1).get("placed") or {}).get("devices", {})
    return next(iter(devices), "")


def _alive(path):
    """Does any process live that wrote its number there?"""
    return [pid for pid in path.read_text().split() if Path(f"/proc/{pid}").exists()]


def test_a_requeued_job_runs_once(lab, site):
    """A site that puts jobs back into its queue against our wish does not make an attempt write twice: the next has another number."""
    script = "echo x >> ../../count; touch began; until test -e go; do sleep 0.05; done;" + training(2)
    lab.submit("a", script, steps=2, where=hpc(sbatch=["--requeue"]), retry={"lost": 1})
    began(lab, "a")
    number = lab.home.jobs.joinpath("a/slurm/1/id").read_text()
    until(lambda: lab.job("a").state == "RUNNING")
    site.run("scontrol", "requeue", number)
    job = lab.wait("a", 180, until=lambda job: job.attempt == 2 or job.ended)
    assert job.attempt == 2, (job, lab.log())
    began(lab, "a", 2)
    (work(lab, "a", 2) / "go").touch()
    assert lab.wait("a").state == "SUCCEEDED", lab.log()
    assert (lab.home.jobs / "a/count").read_text() == "x\nx\n"


def test_a_suspended_job_goes_on(lab, site):
    """While Slurm holds it, that is said, and it is neither hanging nor lost."""
    lab.submit("a", WAITS + ";" + training(2), steps=2, where=hpc())
    began(lab, "a")
    number = lab.home.jobs.joinpath("a/slurm/1/id").read_text()
    site.run("scontrol", "suspend", number)
    lab.wait("a", until=lambda job: job.detail == "Slurm: suspended")
    site.run("scontrol", "resume", number)
    (work(lab, "a") / "go").touch()
    job = lab.wait("a")
    assert (job.state, job.detail) == ("SUCCEEDED", ""), lab.log()


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("count", [8, pytest.param(200, marks=pytest.mark.thorough)])
def test_a_look_at_many_jobs_is_one_squeue(lab, site, tmp_path, count):
    """Whoever comes anew asks once for all of them, and the site's other commands not at all; then each of them finishes, once."""
    folder = counted(tmp_path / "programs")
    where = hpc(programs=str(folder))
    jobs = [f"j{number}" for number in range(count)]
    for job in jobs:
        lab.submit(
            job, f"echo x >> ../../runs; until test -e {tmp_path}/go; do sleep 0.05; done;" + training(1), steps=1, where=where
        )
    until(lambda: len(waiting(site)) == len(jobs) and "RUNNING" in site.jobs().values(), 600)
    lab.kill_controllers()
    (folder / "calls").write_text("")
    executor = SLURM.open(ExecutorContext(lab.home))
    handles = [Handle(job, 1, Placement("hpc", {}), kind="slurm", candidate=where[0]) for job in jobs]
    told = {}
    while len(told) < len(jobs):
        for status in executor.poll([Watched(handle, lambda _, key=handle.key: Watch(*key)) for handle in handles]):
            told[status.job] = status
        time.sleep(0.02)
    assert (folder / "calls").read_text().split() == ["squeue"]
    assert {status.phase for status in told.values()} == {"running", "pending"}
    executor.close()
    lab.tune("status")
    (tmp_path / "go").touch()
    for job in jobs:
        assert lab.wait(job, 900).state == "SUCCEEDED", lab.log()
        assert (lab.home.jobs / job / "runs").read_text() == "x\n"


def test_a_job_near_its_time_limit_goes_on_in_a_new_one(lab, site):
    """The signal before the end ends the attempt in order, though Slurm sends it to the trainer, too; the next is another job of Slurm's."""
    first = "trap 'echo told; exit 0' TERM; touch began; while :; do sleep 0.1; done"
    script = f"set -e; case $PWD in */1/work) {first};; esac;" + training(2)
    lab.submit("a", script, steps=2, where=hpc(time=2, signal=80), retry={"lost": 1})
    began(lab, "a")
    job = lab.wait("a", 200)
    assert (job.state, job.attempt) == ("SUCCEEDED", 2), (job, lab.log())
    assert '"why": "time limit"' in (work(lab, "a").parent / "exit.json").read_text()
    assert "told" in lab.home.log_of("a", 1).read_text()
    with open_store(lab.home.store) as store:
        assert "time_limit" in [event.reason for event in store.events("a")]
    ids = {(lab.home.jobs / f"a/slurm/{attempt}/id").read_text() for attempt in (1, 2)}
    assert len(ids) == 2


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ({"partition": "gpu"}, "partition gpu: .*; there are debug, long"),
        ({"time": "2-00:00:00"}, "partition debug has MaxTime=01:00:00"),
        ({"constraint": "a100"}, "Invalid feature specification; `constraint:` of the target .*sinfo"),
        ({"reservation": "night"}, "reservation is invalid; `reservation:` of the target .*scontrol show reservation"),
        (
            {"accelerator": "cuda", "gres": "gpu:h100"},
            "(Invalid generic resource|node configuration is not available).*; `.*gres:.* of the target .*sinfo",
        ),
        (
            {"memory": "900G"},
            "(Memory specification can not be satisfied|node configuration is not available).*; `.*memory:.* of the target .*sinfo",
        ),
        ({"programs": "/nowhere"}, "no program /nowhere/s.*: is this a login node"),
    ],
)
def test_what_can_never_run_is_refused_before_it_is_queued(lab, site, said, told):
    """In the site's own words, with the way out; nothing is left in the queue."""
    before = waiting(site)
    lab.submit("a", "true", where=hpc(**said))
    job = lab.wait("a")
    assert (job.state, job.reason) == ("FAILED", "cannot_start"), (job, lab.log())
    assert re.search(told, job.detail), job.detail
    assert waiting(site) == before


def test_a_script_that_cannot_begin_says_what_it_wrote(lab):
    """A module that is not there, an interpreter that is not: the last words of the script are the reason."""
    lab.submit("a", "true", where=hpc(modules=["nothing/1"]))
    job = lab.wait("a")
    assert (job.state, job.reason) == ("FAILED", "cannot_start"), (job, lab.log())
    assert "module" in job.detail


def test_secrets_reach_the_job_and_no_file_of_ours(lab):
    """By the environment of sbatch; neither the script nor what we bring has the value."""
    lab.submit("a", 'test "$TOKEN" = hush && echo right', where=hpc(), secrets={"TOKEN": "hush"})
    lab.wait("a")
    assert "right" in lab.home.log_of("a", 1).read_text()
    for path in lab.home.path.rglob("*"):
        if path.is_file() and path.suffix != ".db" and "log" not in path.name:
            assert b"hush" not in path.read_bytes().replace(b'test \\"$TOKEN\\" = hush', b"").replace(b'"$TOKEN" = hush', b""), (
                path
            )
