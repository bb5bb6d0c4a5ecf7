"""A list of configs in, what a trainer's own loader made of each out. Runs in the trainer's environment.

    env/bin/python loaders/each.py TRAINER jobs.json said.json

jobs.json: `[{"folder", "config", "argv", "accelerator", "lock"}]`: a folder with the files of a plan, the name of its main config,
the train step, the device that it is for (which need not be here), the lock of the environment for that device.
said.json: for each `{"error": text or null, "unknown": [keys], "resolved": {key: value}}`.

TRAINER.py beside this file has `load(job)`, called in the job's folder: (unknown keys, resolved config).
"""

import contextlib
import io
import json
import os
import runpy
import sys
from pathlib import Path


def main(trainer, jobs, said):
    """Say what the trainer's loader makes of each job."""
    here, said = str(Path(__file__).parent), Path(said).absolute()
    sys.path.remove(here)  # the loaders are called like the packages that they load
    load = runpy.run_path(f"{here}/{trainer}.py")["load"]
    answers = [answer(load, job) for job in json.loads(Path(jobs).read_text())]
    said.write_text(json.dumps(answers, default=str))


def answer(load, job):
    """What is said of one job; a loader that ends the process has refused the config."""
    os.chdir(job["folder"])
    sys.path.insert(0, job["folder"])
    talk = io.StringIO()
    try:
        with contextlib.redirect_stderr(talk):
            unknown, resolved = load(job)
    except (Exception, SystemExit) as error:
        last = talk.getvalue()[-1000:] if isinstance(error, SystemExit) else ""
        return {"error": f"{type(error).__name__}: {error} {last}", "unknown": [], "resolved": {}}
    finally:
        sys.path.remove(job["folder"])
    return {"error": None, "unknown": sorted(unknown), "resolved": resolved}


if __name__ == "__main__":
    main(*sys.argv[1:])
