"""A job that leaves checkpoints and goes on from them, for schedules of faults, and what must hold of it whatever happened.

The trainer is a shell script. Each attempt notes that it began in the job's own folder, so that one that began twice is seen.
"""

import time
from collections import Counter
from dataclasses import replace

from backends.plan import RANK
from orchestrator.store import open_store
from tests.waiting import until

from .conftest import HEADER, METRICS, shell_plan
from .test_again import FACTS

STEPS, KEPT = 12, 3
"""Steps of a job, and after how many it leaves a checkpoint."""
TRAINING = f"""
set -e
echo $$ >> ../../starts-$(basename $(dirname $PWD))
mkdir -p $(dirname {METRICS}) checkpoint
i=0; [ ! -e resume ] || i=$(cat resume/step)
echo {HEADER} > {METRICS}
while [ $i -lt {STEPS} ]; do
  i=$((i+1)); pause=$(cat ../../pause 2>/dev/null || true); sleep ${{pause:-0.2}}  # the file may just be written
  echo "0,$i,0.01,0.001,2.5,$i,$((i*10)),$((i*10))" >> {METRICS}
  if [ $((i % {KEPT})) = 0 ]; then
    mkdir kept-$i; echo $i > kept-$i/step
    echo "[{{\\"step\\": $i, \\"folder\\": \\"kept-$i\\", \\"lacks\\": \\"\\"}}]" > index; mv index checkpoints.json
  fi
done
for f in model.safetensors config.json tokenizer.json; do echo x > checkpoint/$f; done
"""


def plan(hosts=1, *, bad=False):
    """What is submitted; a bad one ends with an exit code of its own once it has trained."""
    made = shell_plan(
        TRAINING + (f"\n[ {RANK} = 1 ] || exit 3" if bad else ""), steps=STEPS, hosts=hosts, retry={"lost": 4, "resume": True}
    )
    return replace(made, reading={**made.reading, "rate": FACTS, "first_lr": 0.001})


def starts(folder, job):
    """Attempt and rank -> how often it began in a state folder, where each rank of a shared one has a name of its own."""
    found = Counter()
    for rank in (0, 1):
        base = folder / "jobs" / (f"_{rank}_{job}" if rank else job)
        for path in base.glob("starts-*"):
            found[int(path.name.split("-")[1]), rank] = len(path.read_text().split())
    return found


def begin(schedule, likely, **where):
    """Submit the jobs of a schedule, some of them bad ones, and wait for a moment at which its fault may meet one of them, or none yet.

    Args:
        schedule: with `lab`, `jobs`, `chance`, `bad`, and `submit`, `victim` and `wait`.
        likely: how often at least one is to run before.
        where: for `submit`.
    """
    schedule.bad = {job for job in schedule.jobs if schedule.chance.random() < 0.25}
    for job in schedule.jobs:
        assert schedule.submit(job, **where)
    schedule.chance.random() < likely and schedule.victim()
    schedule.wait(0, 2)


def follow(lab, jobs, seconds):
    """Wait until all jobs have ended: whoever looks starts a controller where one was killed."""

    def ended():
        if not lab.controllers():
            lab.tune("status")
            time.sleep(0.5)
        return all(lab.job(job).ended for job in jobs)

    until(ended, seconds)


def judge(lab, end, folders, *, bad=False, allowed=()):
    """Has a job ended as its script or the fault would have it, and was nothing lost or written twice?

    Args:
        lab: where it was submitted.
        end: the job.
        folders: state folders of the nodes where it may have run.
        bad: as for `plan`.
        allowed: ends besides its own, as (state, reason).
    """
    own = ("FAILED", "exit_code") if bad else ("SUCCEEDED", "")
    is_own = (end.state, end.reason) == own
    assert is_own or (end.state, end.reason) in allowed, (end, lab.log())
    with open_store(lab.home.store) as store:
        told = [[each.step for each in store.points(end.id, attempt=n + 1, names=["loss"])] for n in range(end.attempt)]
    assert all(len(set(steps)) == len(steps) for steps in told), (end, told)
    assert not is_own or set().union(*told) == set(range(1, STEPS + 1)), (end, told, lab.log())
    for folder in folders:
        assert set(starts(folder, end.id).values()) <= {1}, (end, starts(folder, end.id))
        for table in folder.glob(f"jobs/{end.id}/*/work/{METRICS}"):
            steps = [int(line.split(",")[1]) for line in table.read_text().splitlines()[1:] if line.count(",") == 7]
            assert steps == list(range(steps[0], steps[0] + len(steps))) if steps else True, (end, table, steps)
