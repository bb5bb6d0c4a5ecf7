"""Arrays, by what Slurm's programs are told and what they say; on a real Slurm: tests/slurm/test_arrays.py."""

import json

import pytest

from orchestrator.agent.slurm import answer
from orchestrator.agent.storage import discard, usage

TAG = ".0a1b2c"
NAME = f"s.array-abcdef{TAG}"


@pytest.fixture
def slurm(tmp_path):
    """What to ask a login node whose sbatch takes three tasks at most; `rows` is what squeue says there."""
    folder = tmp_path / "programs"
    folder.mkdir()
    texts = {
        "sbatch": 'n=$(echo "$*" | sed "s/.*--array=\\([0-9,]*\\).*/\\1/" | tr , "\\n" | wc -l)\n'
        '[ $n -le 3 ] && echo 41 || { echo "sbatch: error: AssocMaxSubmitJobLimit" >&2; exit 1; }',
        "squeue": f"cat {folder}/rows",
        "sacct": f"cat {folder}/accounts",
        "scancel": ":",
        "scontrol": "echo 'JobCompType = jobcomp/none'",
    }
    for name, text in texts.items():
        (folder / name).write_text(f'#!/bin/sh\necho {name} "$@" >> {folder}/calls\n{text}\n')
        (folder / name).chmod(0o755)
    for name in ("rows", "accounts", "calls"):
        (folder / name).write_text("")
    home = str(tmp_path / "home")

    def ask(do, **more):
        return answer(home, {"do": do, "programs": str(folder), **more})

    ask.folder, ask.home, ask.calls = folder, tmp_path / "home", lambda: (folder / "calls").read_text().splitlines()
    return ask


def attempts(count):
    """Of a sweep."""
    return [[f"s.{number}", 1, f"s.{number}.1{TAG}"] for number in range(1, count + 1)]


def put(slurm, count):
    """Write down what tasks are made of."""
    for task, (job, attempt, name) in enumerate(attempts(count), 1):
        about = {"job": job, "attempt": attempt, "name": name, "document": "{}", "script": f"{job}\n", "agent": "blobs/x"}
        assert slurm("put", **about, array=NAME, task=task) == {}


def submit(slurm, tasks, count=5, most=None, after=""):
    """Have some of them queued."""
    return slurm("array", attempts=attempts(count), array=NAME, tasks=tasks, most=most, after=after, script="x\n")


def test_a_task_is_an_attempt(slurm):
    """It is submitted once, has a number of its own, and is found again, whoever asks, by what was kept or by the array's name."""
    put(slurm, 2)
    assert submit(slurm, [1, 2], 2, most=1, after="40") == {"numbers": ["41_1", "41_2"]}
    [call] = [line for line in slurm.calls() if line.startswith("sbatch")]
    assert call == f"sbatch --parsable --job-name={NAME} --array=1,2%1 --dependency=afterany:40 job.sbatch"
    assert submit(slurm, [1, 2], 2) == {"numbers": ["41_1", "41_2"]}
    (slurm.home / "arrays" / NAME / "numbers.json").unlink()  # the controller died before it was written
    (slurm.folder / "rows").write_text(f"41_2|RUNNING|None|1|2|n0|{NAME}\n41_1|PENDING|JobArrayTaskLimit|N/A|N/A||{NAME}\n")
    assert slurm("find", job="s.2", attempt=1, name=f"s.2.1{TAG}") == {"number": "41_2"}
    assert submit(slurm, [1, 2], 2) == {"numbers": ["41_1", "41_2"]}
    assert sum(line.startswith("sbatch") for line in slurm.calls()) == 1
    rows = slurm("queue", tag=TAG)["jobs"]
    assert [(row[0], row[1], row[6]) for row in rows] == [
        ("41_2", "RUNNING", f"s.2.1{TAG}"),
        ("41_1", "PENDING", f"s.1.1{TAG}"),
    ]


def test_a_site_that_takes_fewer_says_so(slurm):
    """Nothing of a refused array is in the queue."""
    put(slurm, 5)
    assert submit(slurm, [1, 2, 3, 4, 5])["why"] == "full"
    assert submit(slurm, [1, 2]) == {"numbers": ["41_1", "41_2"]}
    assert slurm("find", job="s.3", attempt=1, name=f"s.3.1{TAG}") == {"number": ""}


def test_a_task_is_cancelled_alone(slurm):
    """By its number of now, and without a name, for which scancel would take all that wait; a job alone by its name."""
    put(slurm, 3)
    submit(slurm, [1, 2, 3], 3)
    (slurm.folder / "rows").write_text(f"41_3|PENDING|None|N/A|N/A||{NAME}\n41_1|RUNNING|None|1|2|n0|{NAME}\n")
    slurm("cancel", attempts=[*attempts(1), ["alone", 1, f"alone.1{TAG}"]])
    calls = [line for line in slurm.calls() if line.startswith("scancel")]
    assert calls[-1] == "scancel 41_1"
    assert calls[0].endswith(f"--name=alone.1{TAG}")


def test_what_was_cancelled_before_it_began_is_told(slurm):
    """Slurm forgets such a task at once, and tells of several by one line; one that began wrote a file and says nothing here."""
    put(slurm, 4)
    submit(slurm, [1, 2, 3], 4)
    (slurm.home / "jobs/s.1/slurm/1/slurm.out").write_text("")
    (slurm.folder / "rows").write_text(f"41_3|RUNNING|None|1|2|n0|{NAME}\n")
    assert slurm("ended", attempts=attempts(2))["states"] == {f"s.2.1{TAG}": ["CANCELLED", ""]}
    (slurm.folder / "rows").write_text("")  # a controller of Slurm that crashed has forgotten the array: nobody cancelled it
    assert slurm("ended", attempts=attempts(2))["states"] == {}
    (slurm.folder / "rows").write_text(f"41|CANCELLED|None|1|2||{NAME}\n41_3|RUNNING|None|1|2|n0|{NAME}\n")
    assert [(row[1], row[6]) for row in slurm("queue", tag=TAG)["jobs"]] == [
        *(("CANCELLED", f"s.{number}.1{TAG}") for number in (1, 2, 4)),
        ("RUNNING", f"s.3.1{TAG}"),
    ]
    (slurm.folder / "accounts").write_text(f"41_3|NODE_FAIL|n0|{NAME}\n41_1|COMPLETED|n0|other\n")
    assert slurm("ended", attempts=attempts(3))["states"][f"s.3.1{TAG}"] == ["NODE_FAIL", "n0"]


def test_names_of_others_are_no_paths(slurm):
    """What stands in the queue is text of whoever put it there."""
    (slurm.folder / "rows").write_text("7_1|RUNNING|None|1|2|n0|../x.array-abcdef.0a1b2c\n")
    assert [row[6] for row in slurm("queue", tag=TAG)["jobs"]] == ["../x.array-abcdef.0a1b2c"]
    with pytest.raises(ValueError, match="is not the name of an array"):
        slurm("array", attempts=[], array="../x", tasks=[], most=None, after="", script="")


def test_one_that_was_alone_before_stays_found(slurm):
    """An attempt that another controller had sent alone does not go into the queue with others."""
    put(slurm, 2)
    (slurm.folder / "rows").write_text(f"9|PENDING|None|N/A|N/A||s.1.1{TAG}\n")
    assert submit(slurm, [1, 2], 2) == {"numbers": ["9", "41_2"]}
    slurm("cancel", attempts=attempts(1))
    assert slurm.calls()[-1].endswith(f"--name=s.1.1{TAG}")
    assert json.loads((slurm.home / "arrays" / NAME / "tasks.json").read_text()) == attempts(2)


def test_pruned_tasks_leave_nothing(slurm):
    """What an attempt's job was made of goes with the attempt, the array with the last of its tasks; what was said to be freed is."""
    put(slurm, 2)
    submit(slurm, [1, 2], 2)
    for job in ("s.1", "s.2"):
        work = slurm.home / "jobs" / job / "1" / "work"
        work.mkdir(parents=True)
        (work / "weights").write_bytes(bytes(20_000))
    said = {each["job"]: each["bytes"] for each in usage(str(slurm.home))["attempts"]}
    for job, others in (("s.1", ["s.2"]), ("s.2", [])):
        before = allocated(slurm.home / "jobs" / job)
        done = discard(str(slurm.home), {"attempts": [[job, 1]], "shared": [], "owner": ""})
        assert done == {"freed": said[job], "left": []}
        assert 0 <= before - said[job] <= 2 * 4096  # the folders around its attempts
        assert [path.name for path in (slurm.home / "jobs").iterdir()] == others
        assert (slurm.home / "arrays" / NAME).exists() == bool(others)


def allocated(folder):
    """Bytes on the disk of a folder and all below it."""
    return sum(path.lstat().st_blocks * 512 for path in (folder, *folder.rglob("*")))
