"""How Slurm's programs are called, and what their errors mean. Standard library of CPython 3.8 or newer."""

from __future__ import annotations

import os
import re

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from orchestrator.agent.files import Json

PATIENCE = 25.0  # seconds for one command: a busy controller of Slurm takes its time
SILENT = re.compile(
    r"unable to contact|timed out|timeout|connection (refused|reset)|zero bytes were transmitted|transport endpoint|munge"
    r"|authentication|temporarily unable|not responding|communication connection failure",
    re.IGNORECASE,
)
FULL = re.compile(r"Submit\w*Limit|MaxSubmit|maximum number of jobs|too many jobs|job count|temporarily unable", re.IGNORECASE)
WAYS_OUT = (
    (
        "account",
        "`account:` of the target should be one of yours: sacctmgr show associations user=$USER format=account,partition",
    ),
    ("qos", "`qos:` of the target should be one of yours: sacctmgr show associations user=$USER format=account,qos"),
    ("feature", "`constraint:` of the target should be features of nodes: sinfo -o '%P %f'"),
    ("generic resource|gres|gpu", "`gres:` and `devices:` of the target should be what a node has: sinfo -o '%P %G'"),
    ("memory", "`memory:` of the target should be what a node has: sinfo -o '%P %m'"),
    ("reservation", "`reservation:` of the target should be one that is open to you: scontrol show reservation"),
    (
        "node configuration",
        "`devices:`, `cpus:`, `memory:` or `gres:` of the target ask for more than a node has: sinfo -o '%P %c %m %G'",
    ),
)  # what Slurm says -> what to look at


class SlurmSilentError(Exception):
    """It does not answer: nothing is known of what was asked."""


def run(request: Json, argv: Sequence[str], secrets: Mapping[str, str], folder: str = "/") -> tuple[int, str, str]:
    """Run one of Slurm's programs: exit code, output, errors.

    Raises:
        OSError: there is no such program.
        SlurmSilentError: it was not done in time.
    """
    import subprocess  # noqa: PLC0415 (slow, and many hosts have no Slurm)

    # options in the environment would go before those in the script
    kept = {
        name: value for name, value in os.environ.items() if not name.startswith(("SBATCH_", "SLURM_", "SQUEUE_", "SCANCEL_"))
    }
    if "SLURM_CONF" in os.environ:
        kept["SLURM_CONF"] = os.environ["SLURM_CONF"]
    env = dict(kept, SLURM_TIME_FORMAT="%s", LC_ALL="C", **request.get("env", {}), **secrets)
    program = os.path.join(request.get("programs") or "", argv[0])
    try:
        done = subprocess.run(
            [program, *argv[1:]],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            timeout=PATIENCE,
            env=env,
            cwd=folder,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise SlurmSilentError("%s gave no answer within %d s" % (argv[0], PATIENCE)) from None
    except FileNotFoundError:
        raise FileNotFoundError(
            "no program %s: is this a login node? `programs:` of the target is the folder of Slurm's programs" % program
        ) from None
    return done.returncode, done.stdout.decode("utf-8", "replace"), error_text(done.stderr.decode("utf-8", "replace"))


def with_way_out(errors: str) -> str:
    """What Slurm says, and what to look at."""
    return next(("%s; %s" % (errors, way) for said, way in WAYS_OUT if re.search(said, errors, re.IGNORECASE)), errors)


def error_text(text: str) -> str:
    """Slurm's errors on one line, each without the name of the program."""
    lines = [re.sub(r"^\w+: (error: |fatal: )?", "", line).strip() for line in text.splitlines()]
    return "; ".join(line for line in lines if line)


def asked(request: Json, *argv: str) -> str:
    """The output of a question.

    Raises:
        SlurmSilentError: it has no answer.
    """
    code, out, errors = run(request, argv, {})
    if code:
        raise SlurmSilentError("%s: %s" % (argv[0], errors or "exit code %d" % code))
    return out


def settings(request: Json) -> Mapping[str, str]:
    """What slurm.conf says, by Slurm's own word."""
    return dict(re.findall(r"^(\w+)\s+= (.*?)\s*$", asked(request, "scontrol", "show", "config"), re.MULTILINE))
