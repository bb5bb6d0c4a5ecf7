"""What a site of Slurm has and allows, asked on its login node. Standard library of CPython 3.8 or newer."""

from __future__ import annotations

import os
import re
import time

from orchestrator.agent.files import make_folder, read_json, read_part, write_text
from orchestrator.agent.slurm_command import SILENT, SlurmSilentError, asked, run, settings, with_way_out

TYPE_CHECKING = False
if TYPE_CHECKING:
    from orchestrator.agent.files import Json

TAIL = 4096  # bytes of slurm.out


def beyond(request: Json) -> str:
    """What is over the limits of the partition, which Slurm itself would take and let wait for ever; empty when nothing is.

    `limits`: `partition` (empty: the default one), `nodes`, and `minutes` where the script names a time.
    https://slurm.schedmd.com/slurm.conf.html#OPT_EnforcePartLimits is NO by default.
    """
    wanted = request.get("limits") or {}
    code, out, errors = run(
        request, ("scontrol", "--oneliner", "show", "partition", *filter(None, [wanted.get("partition")])), {}
    )
    if code and SILENT.search(errors):
        raise SlurmSilentError(errors)
    found = [dict(re.findall(r"(\w+)=(\S*)", line)) for line in out.splitlines()]
    if code or not found:
        names = asked(request, "sinfo", "--noheader", "--format=%R").split()
        return "partition %s: %s; there are %s" % (wanted.get("partition"), errors or "not found", ", ".join(sorted(set(names))))
    part = found[0] if wanted.get("partition") else next((each for each in found if each.get("Default") == "YES"), {})
    name, longest = part.get("PartitionName", ""), minutes(part.get("MaxTime", ""))
    if wanted.get("minutes") and longest is not None and wanted["minutes"] > longest:
        return "time: partition %s has MaxTime=%s; ask for less, or for another partition" % (name, part["MaxTime"])
    for key in ("MaxNodes", "TotalNodes"):
        most = part.get(key, "")
        if most.isdigit() and wanted.get("nodes", 1) > int(most):
            return "%d hosts: partition %s has %s=%s" % (wanted["nodes"], name, key, most)
    return ""


def minutes(text: str) -> float | None:
    """A time of Slurm (`30`, `MM:SS`, `HH:MM:SS`, `D-HH`, `D-HH:MM`, `D-HH:MM:SS`) in minutes; None where there is no limit."""
    found = re.fullmatch(r"(?:(\d+)-)?(\d+)(?::(\d+))?(?::(\d+))?", text)
    if not found:
        return None
    days, *rest = (None if part is None else int(part) for part in found.groups())
    parts = [part for part in rest if part is not None]
    if days is not None:  # hours come first
        hours, mins, secs = [*parts, 0, 0][:3]
        return days * 1440 + hours * 60 + mins + secs / 60
    if len(parts) == 3:
        return parts[0] * 60 + parts[1] + parts[2] / 60
    return parts[0] + (parts[1] / 60 if len(parts) == 2 else 0)


def site(home: str, request: Json) -> Json:  # noqa: ARG001 (as all actions)
    """What the site has: its settings, and a list of what each partition has, as sinfo says it."""
    known = settings(request)
    wanted = (
        *("ClusterName", "SLURM_VERSION", "AccountingStorageType", "JobCompType", "MinJobAge", "KillWait", "EnforcePartLimits"),
        *("PreemptMode", "SelectType"),
    )
    out = asked(request, "sinfo", "--noheader", "--format=%R|%a|%l|%D|%c|%m|%G|%f")
    rows = [line.split("|") for line in out.splitlines()]
    return {"config": {name: known.get(name, "") for name in wanted}, "partitions": [row for row in rows if len(row) == 8]}


def limits(home: str, request: Json) -> Json:  # noqa: ARG001 (as all actions)
    """What of a target is over its partition's limits: see `beyond`."""
    return {"trouble": beyond(request)}


def probe(home: str, request: Json) -> Json:
    """Run a job of a minute and wait for what it says of its node in the folder that both should see: `found`.

    Without an answer, `state` and `reason` are those of the job, which is cancelled, and `out` is what it wrote.
    """
    folder = "%s/slurm-check-%d" % (home, os.getpid())
    make_folder(folder)
    try:
        if not os.path.islink(folder + "/agent"):
            os.symlink(os.path.join(home, request["agent"]), folder + "/agent")
        write_text(folder + "/job.sbatch", request["script"])
        code, out, errors = run(request, ["sbatch", "--parsable", "job.sbatch"], {}, folder)
        if code:
            if SILENT.search(errors):
                raise SlurmSilentError(errors)
            return {"no": with_way_out(errors), "why": "never"}
        return _awaited(request, folder, out.strip().split(";")[0])
    finally:
        import shutil  # noqa: PLC0415

        shutil.rmtree(folder, ignore_errors=True)


def _awaited(request: Json, folder: str, number: str) -> Json:
    """What a probe says, or what became of its job."""
    end, row = time.monotonic() + request["seconds_to_wait"], ["", "", ""]
    while time.monotonic() < end:
        os.listdir(folder)  # so that a network file system looks again
        found = read_json(folder + "/found.json")
        if found:
            return {"found": found}
        out = asked(request, "squeue", "--noheader", "--states=all", "--jobs=" + number, "--format=%T|%r|%N").strip()
        row = [*out.split("|"), "", "", ""][:3]
        if row[0] in ("COMPLETED", "FAILED", "TIMEOUT", "CANCELLED", "NODE_FAIL", "OUT_OF_MEMORY", ""):
            end = min(end, time.monotonic() + 3.0)
        time.sleep(0.3)
    run(request, ("scancel", number), {})
    text = read_part(folder + "/slurm.out", 0, TAIL).decode("utf-8", "replace")
    return {"found": None, "state": row[0], "reason": row[1], "node": row[2], "out": text}
