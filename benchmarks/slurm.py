"""What tune adds to Slurm: from a submission to the trainer's process, and how often Slurm is asked; beside `sbatch` by hand.

    uv run [--with submitit] python benchmarks/slurm.py [JOBS]

A Slurm of two nodes is started for it (root; Debian's slurmctld, slurmd, munge), whose nodes have more CPUs than this machine. The
jobs note the time and end, so that what is measured is tune, srun and Slurm itself. Budgets: at most 100 ms between `sbatch` by
hand and tune, and one squeue a look, however many jobs there are. submitit is measured where it is installed.
"""

import importlib.util
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from benchmarks.submit import ended, trivial
from orchestrator.client.submit import enqueue
from orchestrator.executors.slurm.section import SlurmSection, candidate
from orchestrator.home import Home
from tests.slurm.site import Site, running, sbin
from tests.waiting import until

ROUNDS = 20
PROGRAMS = ("sbatch", "squeue", "scancel", "scontrol", "sinfo", "sacct")


def counted(folder: Path) -> Path:
    """A folder of Slurm's programs that note each call."""
    folder.mkdir()
    for name in PROGRAMS:
        path = folder / name
        path.write_text(f'#!/bin/sh\necho {name} >> {folder}/calls\nexec {sbin(name)} "$@"\n')
        path.chmod(0o755)
    return folder


def by_hand(site: Site, folder: Path, number: int, *, step: bool) -> float:
    """Seconds from calling sbatch to the process of the job."""
    stamp = folder / f"hand-{number}-{step}"
    words = f"{'srun ' if step else ''}sh -c 'date +%s.%N > {stamp}.new; mv {stamp}.new {stamp}'"
    began = time.time()
    site.run("sbatch", "--output=/dev/null", f"--wrap={words}")
    until(stamp.exists)
    return float(stamp.read_text()) - began


def by_tune(home: Home, target: SlurmSection, number: int) -> float:
    """Seconds from handing a job over to its process."""
    stamp, id = home.path / f"tune-{number}", f"one-{number}"
    began = time.time()
    enqueue(home, id, trivial(f"date +%s.%N > {stamp}"), [candidate("hpc", target)], {}, 0)
    ended(home, {id})
    return float(stamp.read_text()) - began


def by_submitit(folder: Path, number: int) -> float:
    """Seconds from `submit` to the process of the job."""
    import submitit  # noqa: PLC0415  # where it is installed

    executor = submitit.SlurmExecutor(folder / "submitit")
    executor.update_parameters(time=5, cpus_per_task=1)
    stamp = folder / f"submitit-{number}"
    began = time.time()
    executor.submit(subprocess.call, ["sh", "-c", f"date +%s.%N > {stamp}.new; mv {stamp}.new {stamp}"])
    until(stamp.exists)
    return float(stamp.read_text()) - began


def race(site: Site, ways: Mapping[str, Callable[[int], float]], rounds: int) -> None:
    """Lines of figures: each way once a round, in any order, so that what else the machine does meets all of them alike.

    Slurm's controller looks at its queue each second: each way begins at any moment of one, on idle nodes.
    """
    chance = random.Random(0)
    found: dict[str, list[float]] = {what: [] for what in ways}
    for number in range(rounds):
        for what in chance.sample(list(ways), len(ways)):
            until(site.idle)
            time.sleep(chance.uniform(0, 1))
            found[what].append(ways[what](number) * 1000)
    first = next(iter(found.values()))
    for what, times in found.items():
        more = statistics.median(one - by_hand for one, by_hand in zip(times, first, strict=True))
        spread = f"{min(times):.0f} to {max(times):.0f}"
        print(f"  {what:30} {statistics.median(times):6.0f} ms ({spread}), {more:+.0f} ms a round", flush=True)


def main(jobs: int) -> None:
    """Print the figures."""
    folder = Path(tempfile.mkdtemp(prefix="slurm-"))
    with running(folder / "site", nodes=2, cpus=16) as site:
        home, programs = Home(folder / "home").make(), counted(folder / "programs")
        python = str(Path(sys.executable).resolve())  # a wrapper on the PATH, such as pyenv's, would be measured with us
        target = SlurmSection(kind="slurm", devices=16, nodes=2, programs=str(programs), interpreter=python)
        ways: dict[str, Callable[[int], float]] = {
            "sbatch by hand, with srun": lambda number: by_hand(site, folder, number, step=True),
            "sbatch by hand, without": lambda number: by_hand(site, folder, number, step=False),
            "tune, its controller running": lambda number: by_tune(home, target, number),
        }
        if importlib.util.find_spec("submitit"):
            ways["submitit"] = lambda number: by_submitit(folder, number)
        by_tune(home, target, -1)  # starts the controller
        print(f"from a submission to the process of the job, median of {ROUNDS} rounds; beside the first of the same round")
        race(site, ways, ROUNDS)
        (programs / "calls").write_text("")
        began = time.time()
        names = {f"many-{number}" for number in range(jobs)}
        for name in sorted(names):
            enqueue(home, name, trivial("true"), [candidate("hpc", target)], {}, 0)
        seconds = ended(home, names) - began
        calls = (programs / "calls").read_text().split()
        each = ", ".join(f"{calls.count(name)} {name}" for name in PROGRAMS if name in calls)
        print(f"{jobs} jobs in {seconds:.1f} s: {each}")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 200)
