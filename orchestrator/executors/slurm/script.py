"""The one script of a job: what Slurm is asked for, and how our agent is started on each node. Pure: the same plan and target, the
same bytes, whatever the job's id.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from typing import TYPE_CHECKING

from backends.plan import Plan
from orchestrator.agent.slurm_site import minutes
from orchestrator.executors.slurm.section import Site

if TYPE_CHECKING:
    from orchestrator.targets.model import Candidate

AGENT = "agent/orchestrator/agent"
"""Where the script finds our programs, from its own folder."""
OUTPUT = "slurm.out"
"""What the script itself writes, beside it. What the trainer writes is the attempt's log."""


def script(plan: Plan, site: Site) -> str:
    """The text of job.sbatch, which lies in a folder with document.json and a link to our programs.

    `--no-requeue`: an attempt runs once. Where Slurm ends it (preemption, a dead node), the next attempt is another job, which goes
    on from a checkpoint where the recipe says so.
    """
    named = f"{_plain(plan.recipe)} by {plan.backend}, plan {plan.digest()[:12]}"
    return _text(plan, site, list(_options(plan, site)), named)


def array(plan: Plan, site: Site, tasks: int, at_once: int | None) -> str:
    """The text of one script for many attempts that ask for the same, as `plan` does; each has a folder named by its number, from 1,
    with what a job of its own would have. At most `at_once` of them run at a time; None: as many as Slurm has room for.
    """
    of = f"--array=1-{tasks}{f'%{at_once}' if at_once else ''}"
    options = [of, *(f"--output=%a/{OUTPUT}" if each == f"--output={OUTPUT}" else each for each in _options(plan, site))]
    named = f"Points of {_plain(plan.recipe)} by {plan.backend}, each in the folder of its number"
    return _text(plan, site, options, named, 'cd "$SLURM_ARRAY_TASK_ID"')


def alike(plan: Plan, site: Site) -> tuple[str, ...]:
    """What attempts have in common that one script can ask for together."""
    return *_options(plan, site), _launch(plan, site)


def _text(plan: Plan, site: Site, options: list[str], named: str, *first: str) -> str:
    load = [f"module load {shlex.quote(name)}" for name in site.modules]
    # the notice before the time limit would end the shell; where our program did not hear it, Slurm's TERM at the limit ends it in order
    deaf = ["trap '' USR1"] if site.signal and plan.hosts == 1 else []
    lines = [
        "#!/bin/bash",
        *(f"#SBATCH {option}" for option in options),
        "",
        f"# {named}. By hand: sbatch this file, in its folder.",
        "set -e",
        *deaf,
        *load,
        *first,
        f"exec {_launch(plan, site)}",
        "",
    ]
    return "\n".join(lines)


def shown(plan: Plan, candidate: Candidate) -> str:
    """The script, for a dry run."""
    return script(plan, Site.of(candidate))


def probe(site: Site, index: str) -> str:
    """The text of a job of a minute that looks about on a compute node; `index` is HOST:PORT of a package index."""
    options = [
        f"--{name}={getattr(site, name)}"
        for name in ("partition", "account", "qos", "constraint", "reservation")
        if getattr(site, name)
    ]
    options += ["--job-name=tune-check", "--nodes=1", "--ntasks=1", "--time=1", "--no-requeue", f"--output={OUTPUT}"]
    if site.cuda:
        options.append(f"--gres={site.gres}:1" if site.gres else "--gpus-per-node=1")
    words = [*_agent(site), "--probe", "found.json", index]
    lines = ["#!/bin/bash", *(f"#SBATCH {option}" for option in options), "set -e"]
    lines += [f"module load {shlex.quote(name)}" for name in site.modules]
    return "\n".join([*lines, " ".join(map(_word, words)), ""])


def limits(plan: Plan, site: Site) -> dict[str, str | float]:
    """What the script asks for, as `agent.slurm.beyond` compares it with the partition."""
    asked: dict[str, str | float] = {"partition": site.partition, "nodes": plan.hosts}
    longest = minutes(site.time) if site.time else None
    return asked if longest is None else {**asked, "minutes": longest}


def _options(plan: Plan, site: Site) -> Iterator[str]:
    yield f"--job-name={_plain(plan.recipe)}"
    for name in ("partition", "account", "qos", "constraint", "reservation", "time"):
        if value := getattr(site, name):
            yield f"--{name}={value}"
    yield f"--nodes={plan.hosts}"
    yield "--ntasks-per-node=1"
    if cpus := _cpus(plan, site):
        yield f"--cpus-per-task={cpus}"
    if site.memory:
        yield f"--mem={site.memory}"
    if site.cuda:
        yield f"--gres={site.gres}:{plan.devices}" if site.gres else f"--gpus-per-node={plan.devices}"
    if site.signal:
        yield f"--signal={'B:' if plan.hosts == 1 else ''}USR1@{site.signal}"  # to the steps; B: to the script, where there is none
    yield "--no-requeue"
    yield f"--output={OUTPUT}"
    yield "--open-mode=append"
    yield from site.sbatch


def _cpus(plan: Plan, site: Site) -> int:
    """Of each node; 0 leaves it to the site. Where there are no accelerators, a device is a CPU or some of them."""
    each = site.cpus or (0 if site.cuda else 1)
    return each * plan.devices


def _launch(plan: Plan, site: Site) -> str:
    """One process of ours on each node: it starts the trainer's own launcher there. On one node that is the script itself, since each
    step takes time of Slurm's controller and two more processes.
    """
    cpus = _cpus(plan, site)
    words = ["srun", f"--ntasks={plan.hosts}", "--ntasks-per-node=1", *([f"--cpus-per-task={cpus}"] if cpus else [])]
    words += ["--kill-on-bad-exit=0", "--wait=0"]
    return " ".join(map(_word, [*(words if plan.hosts > 1 else ()), *_agent(site), "."]))


def _agent(site: Site) -> list[str]:
    """Our program on a node. It needs no packages of the site's: to look for them may take longer than all else."""
    return [*site.container, site.interpreter, "-I", "-S", AGENT, "allocation"]


def _word(text: str) -> str:
    """A word for the shell; a path in the user's home stays one."""
    return f'"$HOME"/{shlex.quote(text[2:])}' if text.startswith("~/") else shlex.quote(text)


def _plain(text: str) -> str:
    """A name without anything that a shell, a comment or squeue could mind."""
    return "".join(letter if letter.isascii() and (letter.isalnum() or letter in "._-") else "-" for letter in text) or "job"
