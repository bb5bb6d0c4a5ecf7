"""What a controller keeps of jobs that have ended: nothing. The soak test says so of an hour, this of each object."""

import gc
import time
from collections import Counter
from itertools import pairwise

from orchestrator.jobs.controller import Controller
from orchestrator.store import NewJob, open_store
from orchestrator.store.requests import JobRequest

from .conftest import here, shell_plan

WARM, MORE = 24, 72
"""Jobs after which nearly everything is there that is made once, and those after which there is no more of it, twice: what one of them
loads for the first time, the other has."""
KINDS = ("exit 3", "echo no such step >&2", "sleep 0.01")


def run(controller, first, number):
    """Jobs that end, some of which are cancelled in the queue."""
    requests = [JobRequest(shell_plan(script, retry={"unknown": int(at == 0)}), (here(4),)) for at, script in enumerate(KINDS)]
    jobs = []
    for n in range(first, first + number):
        request = requests[n % len(KINDS)]
        jobs.append(NewJob(f"j{n}", "held", "litgpt", "local", "d", request.packed(), lane=request.lane))
    controller.store.add_jobs(jobs, time.time())
    controller.store.ask_all([job.id for job in jobs[-4:]], "cancel")
    while controller.look(patience=1.0):
        time.sleep(0.005)


def held():
    """How many objects of each class there are."""
    gc.collect()
    return Counter(type(each) for each in gc.get_objects())


def test_no_object_is_kept_of_a_job_that_has_ended(lab):
    """Failed, tried again or cancelled: of no class are there more and more objects, a quarter of one for each job."""
    with open_store(lab.home.store) as store:
        controller = Controller(lab.home, store)
        run(controller, 0, WARM)
        counts = [held()]
        for first in (WARM, WARM + MORE):
            run(controller, first, MORE)
            counts.append(held())
        grown = [
            {kind.__name__ for kind, more in (after - before).items() if more > MORE // 4} for before, after in pairwise(counts)
        ]
        assert grown[0] & grown[1] == set()
        assert Counter(job.state for job in store.jobs()) == {"FAILED": WARM + 2 * MORE - 12, "CANCELLED": 12}
        controller.close()


def test_the_store_keeps_few_pages(lab):
    """What a connection keeps of the database is bounded soon, and does not grow with the number of jobs for hours."""
    with open_store(lab.home.store) as store:
        assert store._database.read("PRAGMA cache_size") == [(-512,)]
