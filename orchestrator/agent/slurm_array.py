"""Many attempts go into Slurm's queue by one call of sbatch, as tasks of one array. Standard library of CPython 3.8 or newer."""

from __future__ import annotations

import os

from orchestrator.agent.files import dump_json, make_folder, read_json, write_text
from orchestrator.agent.slurm_command import settings
from orchestrator.agent.slurm_queue import array_place, find_all, kept, place
from orchestrator.agent.slurm_submit import after, held, prepare, queued, same

TYPE_CHECKING = False
if TYPE_CHECKING:
    from orchestrator.agent.files import Json


def put(home: str, request: Json) -> Json:
    """Write down what one task is made of: as `slurm_submit.submit`, with `array`, the array's name, and `task`, its number there.

    Until the array is submitted nothing of it is in the queue.
    """
    folder = place(home, request)
    make_folder(folder)
    with held(folder + "/lock"):
        if not kept(home, folder):
            write_text(folder + "/array", dump_json({"name": request["array"], "task": request["task"]}))
        if not os.path.exists(folder + "/job.sbatch"):
            prepare(home, folder, request)
        same(folder, request)
    return {}


def submit(home: str, request: Json) -> Json:
    """Put attempts into the queue as tasks of one array; their `numbers` there, in their order.

    `attempts` is a list of [job, attempt, name] by the number of their task, and `tasks` says which of them, that were `put` before;
    `array` is its name, `script` its text, `most` how many may run at once (None: all), `after` the number of an array whose tasks have
    to end before. Those that are in the queue, or ever were, are left out: killed anywhere, the next call finds them by the array's
    name, which nobody else's has.
    """
    folder = array_place(home, request["array"])
    make_folder(folder)
    with held(home + "/arrays/lock"):
        known = find_all(home, request, [request["attempts"][task - 1] for task in request["tasks"]])
        numbers = {task: known[at] for at, task in enumerate(request["tasks"])}
        begun = [
            task
            for task, (job, attempt, _) in enumerate(request["attempts"], 1)
            if os.path.exists("%s/jobs/%s/%d" % (home, job, attempt))
        ]
        rest = [task for task in request["tasks"] if not numbers[task] and task not in begun]
        if not rest:
            return {"numbers": list(numbers.values())}
        write_text(folder + "/tasks.json", dump_json(request["attempts"]))
        for task, (job, attempt, _) in enumerate(request["attempts"], 1):
            link, there = "%s/%d" % (folder, task), place(home, {"job": job, "attempt": attempt})
            if not os.path.islink(link):
                os.symlink(os.path.relpath(there, folder), link)
        write_text(folder + "/job.sbatch", request["script"])
        more = ["--array=" + ",".join(map(str, rest)) + ("%%%d" % request["most"] if request["most"] else "")]
        answer = queued(request, folder, request["array"], more + after(request))
        if "number" not in answer:
            return answer
        numbers.update({task: "%s_%d" % (answer["number"], task) for task in rest})
        before = read_json(folder + "/numbers.json") or {}
        write_text(folder + "/numbers.json", dump_json(dict(before, **{str(task): numbers[task] for task in rest})))
        return {"numbers": list(numbers.values())}


def largest(home: str, request: Json) -> Json:  # noqa: ARG001 (as all actions)
    """How many tasks an array may have here; 0 where the site allows none.

    https://slurm.schedmd.com/slurm.conf.html#OPT_MaxArraySize: one more than the highest number of a task.
    """
    said = settings(request).get("MaxArraySize", "")
    return {"largest": max(0, int(said) - 1) if said.isdigit() else 0}
