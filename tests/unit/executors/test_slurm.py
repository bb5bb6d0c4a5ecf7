"""Slurm, as far as it is decided without one: what a target says, the script, what states mean, who goes first."""

import re
import signal
import subprocess
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from backends.plan import Environment, Plan, Promise, Step
from backends.recipe.problems import RecipeError
from orchestrator.agent.slurm import answer
from orchestrator.agent.slurm_command import FULL, SILENT, error_text
from orchestrator.agent.slurm_site import minutes
from orchestrator.executors.registry import kinds
from orchestrator.executors.slurm import turns as turns_module
from orchestrator.executors.slurm.script import limits, script
from orchestrator.executors.slurm.section import Site
from orchestrator.executors.slurm.states import QueueJob, by_name, finished, hostnames, working
from orchestrator.executors.slurm.turns import Turns
from orchestrator.monitoring.poll import Observed
from orchestrator.targets.load import parse
from orchestrator.targets.model import Candidate
from orchestrator.transports.base import AttemptStatus

KEY = ("a", 1)


def target(text):
    """The one target of a file that has this entry."""
    return parse(f"version: 1\ntargets:\n  hpc: {text}\n", "clusters.yaml", Path("/"), {}, kinds).candidates["hpc"]


def plan(devices=1, hosts=1, name="r"):
    """Of one step."""
    step = Step("train", ("true",))
    return Plan(name, "litgpt", Environment("litgpt", "/x"), (), (step,), (), (), (), Promise(None, ()), (), {}, devices, hosts)


def seen(phase="unknown", **rest):
    """What files of the second part say."""
    return Observed(AttemptStatus("_1_a", 1, phase, **rest), ())


# ---- clusters.yaml


def test_a_target_stands_for_all_its_nodes():
    """A plan knows how many hosts there are, the store how they are reached, and both survive the store."""
    made = target(
        "{kind: slurm, login: gate.example, user: me, nodes: 4, accelerator: cuda, devices: 8, gres: 'gpu:a100', time: 90}"
    )
    assert (made.target.hosts, made.target.devices, made.such(4).hosts, made.kind) == (4, 8, 4, "slurm")
    assert made.nodes[0].ssh.user == "me"
    again = Candidate.from_dict(made.as_dict())
    assert Site.of(again) == Site.of(made) == replace(Site.of(made), gres="gpu:a100", time="90", cuda=True)


@pytest.mark.parametrize(
    ("entry", "told"),
    [
        ("{kind: slurm, partion: gpu}", "targets.hpc.partion: is not a key here.*did you mean partition"),
        ("{kind: slurm, time: soon}", "targets.hpc.time: should be a time as sbatch --time takes it"),
        ("{kind: slurm, user: me}", "user says how a login node is reached: name it with `login:`"),
        ("{kind: slurm, gres: gpu}", "gres asks for GPUs: say `accelerator: cuda`"),
        ("{kind: slurm, sbatch: ['--array=1-9']}", "--array is tune's own to say"),
        ("{kind: slurm, sbatch: ['exclusive']}", "should be one long option of sbatch"),
        ("{kind: slurm, partition: 'a b'}", "targets.hpc.partition: should be a name of the site's"),
        ("{kind: slurm, modules: ['cuda; id']}", "should be a name of the site's"),
        ("{kind: slurm, pace: 0.1}", "targets.hpc.pace"),
        ("{kind: slrm}", "should be local, ssh, slurm.*did you mean slurm"),
    ],
)
def test_a_wrong_entry_is_told_with_line_and_way_out(entry, told):
    """Each rule is named where it is broken."""
    with pytest.raises(RecipeError) as error:
        target(entry)
    text = " ".join(f"{each.path}: {each.rule} {each.hint}" for each in error.value.problems)
    assert re.search(told, text), text
    assert all(each.line for each in error.value.problems)


# ---- the script


def test_the_script_is_what_was_decided_and_nothing_else():
    """The same plan and target give the same bytes; each key of the target has its line."""
    words = "partition: gpu, account: lab, qos: normal, constraint: 'a100&nvl', time: '1-00:00:00', memory: 64G, cpus: 6"
    more = "sbatch: ['--exclusive'], modules: [cuda/12.1], container: [apptainer, exec, my image.sif], signal: 120"
    entry = target(f"{{kind: slurm, nodes: 4, accelerator: cuda, devices: 8, gres: 'gpu:a100', {words}, {more}}}")
    text = script(plan(4, 2), Site.of(entry))
    assert text == script(plan(4, 2), Site.of(Candidate.from_dict(entry.as_dict())))
    options = re.findall(r"#SBATCH (\S+)", text)
    assert options == [
        *("--job-name=r", "--partition=gpu", "--account=lab", "--qos=normal", "--constraint=a100&nvl", "--time=1-00:00:00"),
        *("--nodes=2", "--ntasks-per-node=1", "--cpus-per-task=24", "--mem=64G", "--gres=gpu:a100:4", "--signal=USR1@120"),
        *("--no-requeue", "--output=slurm.out", "--open-mode=append", "--exclusive"),
    ]
    assert "module load cuda/12.1\nexec srun --ntasks=2" in text
    assert "apptainer exec 'my image.sif' python3 -I -S agent/" in text
    alone = script(plan(4, 1), Site.of(entry))
    assert "module load cuda/12.1\nexec apptainer exec" in alone, "the script is what runs on one node: no step of srun"
    assert "#SBATCH --signal=B:USR1@120" in alone, "there is no step that could be told"
    assert "set -e\ntrap '' USR1\nmodule load" in alone
    assert limits(plan(4, 2), Site.of(entry)) == {"partition": "gpu", "nodes": 2, "minutes": 1440}


def test_a_notice_before_our_program_begins_ends_no_job():
    """Slurm sends it a minute early or more, and `module load` may take as long: a script that dies of it has trained nothing."""
    entry = target("{kind: slurm, nodes: 1, modules: [cuda], container: ['true']}")
    text = script(plan(1, 1), Site.of(entry)).replace("#!/bin/bash\n", "module() { kill -USR1 $$; }\n", 1)
    assert subprocess.run(["bash", "-c", text], check=False).returncode == 0
    unheard = text.replace("trap '' USR1\n", "")
    assert subprocess.run(["bash", "-c", unheard], check=False).returncode == -signal.SIGUSR1


def test_a_name_from_a_recipe_is_no_line_of_the_script():
    """What a recipe calls itself is text of others."""
    text = script(plan(name="x\n#SBATCH --uid=0\nid; $(id)"), Site())
    assert text.count("#SBATCH --uid") == 0
    assert "$(id)" not in text


@pytest.mark.parametrize(
    ("text", "value"),
    [("30", 30), ("10:30", 10.5), ("2:00:00", 120), ("1-0", 1440), ("1-2:30", 1590), ("7-00:00:00", 10080), ("UNLIMITED", None)],
)
def test_times_of_slurm(text, value):
    """https://slurm.schedmd.com/sbatch.html#OPT_time."""
    assert minutes(text) == value


# ---- what Slurm says


def test_lists_of_nodes():
    """As `scontrol show hostnames` expands them; what is none has none."""
    assert hostnames("n[0-2,5],gpu[08-10]-ib,login") == ("n0", "n1", "n2", "n5", "gpu08-ib", "gpu09-ib", "gpu10-ib", "login")
    assert hostnames("r[1-2]n[1-2]") == ("r1n1", "r1n2", "r2n1", "r2n2")
    assert hostnames("") == hostnames("n[a-b]") == hostnames("n[0-999999999]") == ()


def test_what_waits_says_for_what_and_until_when():
    """Slurm's own reason, and its estimate where it has one."""
    job = QueueJob.of(["7", "PENDING", "Resources", "1000600", "N/A", "", "a.1.t"])
    assert job.waits(1000000.0).startswith("Slurm: Resources, expected to start ")
    assert job.waits(1000700.0) == "Slurm: Resources"
    assert QueueJob.of(["7", "SUSPENDED", "None", "1", "2", "n0", "a.1.t"]).waits(3) == "Slurm: suspended"


def end(state, part=None, out="", **rest):
    """Phase, why and cause of a part whose job ended."""
    told = finished(part, KEY, state, out, **{"requeued": False, "now": 5.0, **rest}).seen
    return told.phase, told.why or told.cause


def test_ends_by_slurm_are_classes_of_ours():
    """Whatever the files say of a supervisor that no login node sees."""
    lost = seen("lost", why="host rebooted", step="train")
    assert end("TIMEOUT", lost) == ("lost", "time limit")
    assert end("NODE_FAIL", lost) == ("lost", "node failed")
    assert end("PREEMPTED", lost) == ("lost", "preempted")
    assert end("CANCELLED by 7", lost) == ("exited", "stopped")
    assert end("OUT_OF_MEMORY", lost) == ("exited", "out_of_memory")
    assert end("COMPLETED", lost, requeued=True) == ("lost", "requeued")
    assert end("", lost) == ("lost", "supervisor died")
    assert end("TIMEOUT", seen("exited", why="interrupted")) == ("lost", "time limit")
    assert end("CANCELLED by 7", seen("exited", why="interrupted")) == ("exited", "stopped")
    assert end("COMPLETED", seen("exited", why="time limit")) == ("lost", "time limit")


def test_files_go_before_what_slurm_says():
    """An attempt that wrote down how it ended has ended so."""
    for state in ("TIMEOUT", "NODE_FAIL", "CANCELLED by 7", ""):
        told = finished(seen("exited", rc=0), KEY, state, "", requeued=False, now=5.0).seen
        assert (told.phase, told.rc, told.job) == ("exited", 0, "a")


def test_a_trainer_that_slurm_ended_before_our_supervisor_heard_of_it():
    """TERM and KILL are Slurm's where Slurm says so, and somebody else's where it does not."""
    for how in ({"signal": 15}, {"rc": 143}, {"signal": 9}):
        assert end("CANCELLED by 7", seen("exited", **how)) == ("exited", "stopped")
        assert end("PREEMPTED", seen("exited", **how)) == ("lost", "preempted")
        assert end("FAILED", seen("exited", **how)) == ("exited", "")
    assert end("OUT_OF_MEMORY", seen("exited", signal=9)) == ("exited", "out_of_memory")


def test_what_never_began_says_what_its_script_wrote():
    """The last line is the site's own word."""
    assert end("FAILED", seen(), "x\nmodule: cuda/9 not found\n") == ("exited", "could not start: module: cuda/9 not found")
    assert "wrote nothing" in end("FAILED", seen())[1]


@pytest.mark.parametrize(
    ("said", "lost"),
    [
        ("Task launch for StepId=3.0 failed on node n2: Communication connection failure", True),
        ("Task launch for StepId=3.0 failed on node n2: Zero Bytes were transmitted or received", True),
        ("Task launch for StepId=3.0 failed on node n2: Socket timed out on send/recv operation", True),
        ("Node failure on n2", True),
        ("Task launch for StepId=3.0 failed on node n2: Invalid job credential", False),
        ("Task launch for StepId=3.0 failed on node n2: Slurmd could not chdir to the working directory", False),
    ],
)
def test_a_node_that_died_before_it_began(said, lost):
    """What srun says of its silence is a node's failure, after which another attempt may begin, though Slurm calls the job FAILED."""
    told = end("FAILED", seen(), f"srun: error: {said}\nsrun: error: Application launch failed: x\nsrun: Job step aborted\n")
    assert told == (("lost", "node failed") if lost else ("exited", "could not start: srun: Job step aborted"))


def test_a_supervisor_on_another_machine_is_no_dead_one():
    """Seen from the login node its lock is free and its boot another: while Slurm has the job, that says nothing."""
    for phase in ("unknown", "lost"):
        assert working(seen(phase, why="host rebooted", step="train"), KEY, cancelled=False).seen.phase == "running"
    assert working(seen("lost"), KEY, cancelled=True).seen.phase == "stopping"
    assert working(seen("exited", why="interrupted", signal=15), KEY, cancelled=False).seen.phase == "running"
    assert working(seen("exited", rc=3), KEY, cancelled=False).seen.rc == 3


def test_errors_of_slurm_have_a_meaning():
    """Silence says nothing about a job, a full queue is for later, the rest is refused."""
    silent = "squeue: error: Unable to contact slurm controller (connect failure)"
    full = "sbatch: error: AssocMaxSubmitJobLimit\nsbatch: error: Batch job submission failed: Job violates accounting/QOS policy"
    never = "sbatch: error: Batch job submission failed: Invalid account or account/partition combination specified"
    assert SILENT.search(error_text(silent))
    assert FULL.search(error_text(full))
    assert not SILENT.search(error_text(never))
    assert not FULL.search(error_text(never))
    assert error_text(never) == "Batch job submission failed: Invalid account or account/partition combination specified"


# ---- order


def test_who_was_submitted_first_is_queued_first(monkeypatch):
    """Whichever is ready first; one that takes long lets the others pass."""
    monkeypatch.setattr(turns_module, "QUICK", 0.1)
    turns, done = Turns(), []
    numbers = [turns.draw() for _ in range(5)]
    turns.takes_long(numbers[1])

    def go(number):
        with turns.mine(number):
            done.append(number)

    threads = [threading.Thread(target=go, args=(number,)) for number in reversed([numbers[0], *numbers[2:]])]
    for each in threads:
        each.start()
    for each in threads:
        each.join(30)
    assert done == [numbers[0], *numbers[2:]]
    go(numbers[1])
    assert done[-1] == numbers[1]


# ---- Slurm's programs


@pytest.fixture
def programs(tmp_path):
    """Programs of a Slurm that gave number 7 twice: to a job of ours that failed, and to somebody's after a crash."""
    folder = tmp_path / "programs"
    folder.mkdir()
    answers = {
        "sacct": "7|FAILED|n0|a.1.t\n7|COMPLETED|n1|other\n",
        "scontrol": f"JobCompType             = jobcomp/filetxt\nJobCompLoc              = {folder}/jobs\n",
        "scancel": "",
    }
    for name, text in answers.items():
        (folder / name).write_text(f"#!/bin/sh\necho {name} \"$@\" >> {folder}/calls\ncat <<'E'\n{text}E\n")
        (folder / name).chmod(0o755)
    (folder / "jobs").write_text(
        "JobId=7 Name=a.1.t JobState=FAILED NodeList=n0\nJobId=7 Name=b JobState=COMPLETED NodeList=n1\n"
    )
    return folder


@pytest.mark.parametrize("kept", ["accounts", "completions"])
def test_a_number_that_slurm_gave_twice(programs, kept):
    """How a job ended is told of the one with our name, and none is cancelled that has only the number."""
    if kept == "completions":
        (programs / "sacct").unlink()
    home, request = str(programs / "home"), {"programs": str(programs), "attempts": [["a", 1, "a.1.t"]]}
    (programs / "home/jobs/a/slurm/1").mkdir(parents=True)
    (programs / "home/jobs/a/slurm/1/id").write_text("7")
    assert answer(home, {**request, "do": "ended"})["states"] == {"a.1.t": ["FAILED", "n0"]}
    answer(home, {**request, "do": "cancel"})
    [call] = [line for line in (programs / "calls").read_text().splitlines() if line.startswith("scancel")]
    assert call.split()[2:] == ["--name=a.1.t"]


def test_a_slow_one_that_is_ready_soon_keeps_its_place(monkeypatch):
    """To say that it takes long costs an attempt its turn after some seconds only."""
    monkeypatch.setattr(turns_module, "QUICK", 600.0)
    turns, done = Turns(), []
    first, second = turns.draw(), turns.draw()
    turns.takes_long(first)

    def go(number):
        with turns.mine(number):
            done.append(number)

    waits = threading.Thread(target=go, args=(second,))
    waits.start()
    go(first)
    waits.join(30)
    assert done == [first, second]


def test_an_attempt_is_not_judged_by_its_first_part():
    """Its first node has ended, and Slurm has not said yet whether there are others: it still runs, and its bytes are told."""
    ended = Observed(AttemptStatus("a", 1, "exited", rc=0), (), b"log")
    first = working(ended, KEY, cancelled=False, placed=False)
    assert (first.seen.phase, first.seen.rc, first.log) == ("running", None, b"log")
    assert working(ended, KEY, cancelled=False).seen.phase == "exited"


def test_a_job_that_completes_does_not_lose_nodes():
    """Slurm lists then those alone that it still cleans: an attempt on two nodes is not judged by one of them."""
    row = ["7", "COMPLETING", "None", "1", "2", "n1", "a.1.t"]
    assert QueueJob.of(row).granted == ()
    assert QueueJob.of([*row[:1], "COMPLETED", *row[2:5], "n[0-1]", row[6]]).granted == ("n0", "n1")
    assert QueueJob.of([*row[:1], "PENDING", *row[2:]]).granted == ()


@pytest.mark.parametrize(
    ("states", "counts"),
    [
        (("RUNNING", "FAILED"), "RUNNING"),
        (("RUNNING", "PENDING"), "RUNNING"),
        (("PENDING", "COMPLETED"), "PENDING"),
        (("TIMEOUT", "FAILED"), "TIMEOUT"),
        (("SUSPENDED", "FAILED"), "SUSPENDED"),
    ],
)
def test_of_two_jobs_of_one_name_the_one_counts_that_has_the_attempt(states, counts):
    """In whichever order squeue lists them: the other ends at once, and says nothing of the attempt."""
    rows = [[str(number), state, "None", "1", "2", "n0", "a.1.t"] for number, state in enumerate(states)]
    for order in (rows, rows[::-1]):
        assert by_name(order)["a.1.t"].state == counts
