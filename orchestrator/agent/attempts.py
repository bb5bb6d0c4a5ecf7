"""What can be done with an attempt from outside: look at it, read its files, stop it, reap what it left behind.

Standard library of CPython 3.8 or newer.
"""

from __future__ import annotations

import os
import time
from itertools import islice

from orchestrator.agent.files import dump_json, ignore_errors, is_locked, read_json, read_part, relative
from orchestrator.agent.identity import boot, host_identity, is_elsewhere, machine
from orchestrator.agent.processes import attempt_name, attempt_processes, folder_processes, is_named, signal_all

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal
    from collections.abc import Collection, Iterable, Mapping
    from typing import Any

    from orchestrator.agent.files import Json
else:
    import _signal as signal

HEAD = 256  # bytes; as `transports.base.HEAD`
CHUNK = 1024 * 1024  # most bytes of one file in one poll; the next poll goes on
WHOLE = 16 * CHUNK  # most bytes of all files that are sent whole with one status
MATCHES = 8  # most new files of one pattern in one poll
STATUS_KEYS = ("phase", "step", "step_started", "rc", "signal", "why", "orphans", "ended", "cause", "evidence", "kept_until")
ALLOCATION_ENDED = "allocation ended"  # why an attempt ended whose devices were taken back
FOLDER_GONE = "folder gone"  # `AttemptStatus.why` of an attempt that goes on without its folder


def located(folder: str) -> str:
    """Where an attempt lies for this machine. With a home that several machines of one attempt share, each but the first to come has a
    folder of its own.
    """
    mine = "%s@%s" % (folder, machine())
    return mine if os.path.exists(mine) else folder


def part_with(path: str) -> str:
    """A path in an attempt's folder; with a home that several machines of it share, in the folder of the machine that has it."""
    folder, work, rest = path.partition("/work/")
    if not work or os.path.exists(path):
        return path
    parent, name = os.path.split(folder)
    try:
        others = ["%s/%s/work/%s" % (parent, each, rest) for each in os.listdir(parent) if each.startswith(name + "@")]
    except OSError:  # no such folder
        others = []
    return next(filter(os.path.exists, others), path)


def alive(folder: str) -> bool:
    """Does the supervisor live?"""
    # a clean-up may have taken the lock as an old file, which says nothing
    return is_locked(folder + "/sup.lock") or (
        os.path.exists(folder) and not os.path.exists(folder + "/sup.lock") and is_named(attempt_name(folder))
    )


def status(folder: str) -> Json:
    """What durable files say of an attempt: `transports.base.AttemptStatus`, without what a watch asks for."""
    job, attempt = folder.rsplit("/", 2)[1:]
    facts = elsewhere(folder)
    lives = not facts and alive(folder)  # before exit.json: the other order would miss an end in between
    ended = None if facts else read_json(folder + "/exit.json")
    if not ended and not facts and not lives:  # it had failed already, and only held its devices
        ended = (read_json(folder + "/run.json") or {}).get("kept")
    if ended:
        # what granted the devices is gone: the attempt did not end by itself, nor did anybody ask for it
        facts = dict(ended, phase="lost" if ended["why"] == ALLOCATION_ENDED else "exited")
    elif lives:
        facts = read_json(folder + "/run.json") or {}
        stopping, kept = os.path.exists(folder + "/stop.json"), facts.get("kept")
        facts = dict(kept, kept_until=facts["kept_until"]) if kept else facts
        facts["phase"] = "stopping" if stopping else "kept" if kept else "running"
    elif not facts:
        facts = lost(folder, read_json(folder + "/run.json") or {})
    seen = {key: facts[key] for key in STATUS_KEYS if key in facts}
    size = 0 if facts["phase"] == "unknown" else log_size(folder)
    number = int(attempt.partition("@")[0])
    return dict(seen, job=job, attempt=number, log_size=size, host=host_identity(folder.rsplit("/", 3)[0]))


def log_size(folder: str) -> int:
    """Bytes of an attempt's log; 0 where it is gone."""
    try:
        return os.path.getsize(folder + "/log")
    except OSError:
        return 0


def elsewhere(folder: str) -> Json:
    """The status of an attempt that another machine started, whose folder this one sees: nothing can be known here of its processes.

    Its end can, unless it is that of another machine's part of it; and where a queue such as Slurm's tells who lives, its files
    are enough.
    """
    meta = read_json(folder + "/meta.json") or {}
    if not is_elsewhere(meta):
        return {}
    spec = (read_json(folder + "/spec.json") or {}).get("spec", {})
    if spec.get("queue") or (os.path.exists(folder + "/exit.json") and spec.get("hosts", 1) == 1):
        return {}
    return {
        "phase": "unknown",
        "why": "this is %s, and it was started on %s, which has the same folder" % (machine(), meta["machine"]),
    }


def lost(folder: str, run: Json) -> Json:
    """The status of an attempt that has neither a supervisor nor an end."""
    if not os.path.exists(folder + "/log"):
        supervisors, others = folder_processes(folder)
        if not supervisors and not others:
            return {"phase": "unknown"}
        return {"phase": "lost", "why": FOLDER_GONE, "orphans": len(supervisors) + len(others)}
    meta = read_json(folder + "/meta.json") or {}  # a power cut, or a clean-up of old files, may have taken it
    if meta and meta["boot_id"].strip() != boot():
        return dict(run, phase="lost", why="host rebooted")
    left = attempt_processes(meta["tag"], run) if meta else folder_processes(folder)[1]
    return dict(run, phase="lost", why="supervisor died" if meta or left else "host rebooted", orphans=len(left))


def observe(folder: str, watch: Mapping[str, Any]) -> Json:
    """What is new in an attempt: a `transports.base.AttemptStatus`. The phase is read before the files."""
    seen, work = status(folder), folder + "/work"
    files = {name: (0, "") for pattern in watch["patterns"] for name in found_first(work, pattern, watch["files"])}
    files.update(watch["files"])
    seen["chunks"] = [chunk for name in files for chunk in new_bytes(work, name, *files[name])]
    if watch.get("log") is not None:
        seen["log"] = read_part(folder + "/log", watch["log"], CHUNK)
    failed = seen["phase"] in ("lost", "kept") or (seen["phase"] == "exited" and seen["rc"] != 0)
    wanted = [*watch.get("whole", ()), *(watch.get("failed", ()) if failed else ())]
    if wanted:
        seen["whole"] = whole_files(work, wanted)
    if failed and watch.get("tail"):
        seen["tail"] = read_part(folder + "/log", max(0, seen["log_size"] - watch["tail"]), watch["tail"])
    if watch.get("use") and seen["phase"] == "running":
        seen["use"] = used(folder)
    seen["exist"] = [
        each for each in watch["promised"] if any(read_part(work + "/" + name, 0, 1) for name in matching(work, each))
    ]
    return seen


def used(folder: str) -> Json:
    """How much of the time the NVIDIA devices of an attempt are in use; nothing where it has none."""
    from orchestrator.agent.gpus import use_of_gpus  # noqa: PLC0415 (seldom asked for)

    spec = (read_json(folder + "/spec.json") or {}).get("spec", {})
    return use_of_gpus(spec["devices"]) if spec.get("accelerator") == "cuda" and spec.get("devices") else {}


def matching(work: str, pattern: str) -> list[str]:
    """Names of files that fit a pattern, as in a shell: no wildcard stands for `/` or for a first `.`."""
    from glob import escape, glob  # noqa: PLC0415 (a start does without)

    found = sorted(glob("%s/%s" % (escape(work), relative(pattern))))
    return [path[len(work) + 1 :] for path in found if os.path.isfile(path)]


def found_first(work: str, pattern: str, known: Collection[str]) -> list[str]:
    """Some files that fit a pattern, hold something and are not known yet; whoever reads them is told of more by the next poll."""
    found = (name for name in matching(work, pattern) if name not in known and read_part("%s/%s" % (work, name), 0, 1))
    return list(islice(found, MATCHES))


def whole_files(work: str, names: Iterable[str]) -> dict[str, bytes]:
    """Small files that are there and not empty. Together they have WHOLE bytes at most; what would be cut is left out."""
    found, left = {}, WHOLE
    for name in names:
        data = read_part("%s/%s" % (work, relative(name)), 0, left + 1)
        if data and len(data) <= left:
            found[name] = data
            left -= len(data)
    return found


def new_bytes(work: str, name: str, offset: int, head: str) -> list[Json]:
    """The bytes of a file from an offset on, if any; from 0 when it was rewritten since.

    A table that grew a column may begin as before for longer than HEAD, so the bytes just before the offset are compared, too.
    They are read in one piece with those after it: what is rewritten meanwhile shows in both or in neither.
    """
    path = "%s/%s" % (work, relative(name))
    if not os.path.isfile(path):
        return []
    size = os.path.getsize(path)
    first = read_part(path, 0, HEAD)
    before = min(HEAD, offset)
    piece = read_part(path, offset - before, before + min(CHUNK, max(0, size - offset)))
    rewritten = offset > size or (offset and _mark(first[:offset], piece[:before]) != head)
    if rewritten:
        offset = before = 0
        piece = read_part(path, 0, min(CHUNK, size))
    data, end = piece[before:], offset + len(piece) - before
    return (
        [{"path": name, "offset": offset, "data": data, "head": _mark(first[:end], piece[-HEAD:])}] if data or rewritten else []
    )


def _mark(first: bytes, last: bytes) -> str:
    """What tells a file that was read up to some byte from another: its first bytes, and the last ones before that byte."""
    from hashlib import sha256  # noqa: PLC0415 (a start does without)

    return sha256(first + last).hexdigest()


def read(folder: str, name: str, offset: int, limit: int) -> bytes:
    """Bytes of `log` or `work/...`; empty when there are none."""
    if name != "log" and not relative(name).startswith("work/"):
        raise ValueError("%r: what can be read of an attempt is `log` and `work/...`" % name)
    return read_part("%s/%s" % (folder, name), offset, limit)


def stop(folder: str, grace: float | None = None) -> None:
    """Ask the supervisor for the end; without a grace, and on a full disk, that of the spec counts.

    Where the folder is shared, whether a supervisor on another machine lives cannot be told here: it is asked all the same. Where it
    is gone, nobody would read that: the attempt's processes are told to end.
    """
    if not os.path.exists(folder):
        signal_all(folder_processes(folder)[1], signal.SIGTERM)
    elif not os.path.exists(folder + "/exit.json") and (alive(folder) or is_elsewhere(read_json(folder + "/meta.json") or {})):
        with open(folder + "/stop.json", "wb", buffering=0) as file:
            ignore_errors(file.write, b"" if grace is None else dump_json({"grace": grace}).encode())


def reap(folder: str) -> int:
    """Kill what a dead supervisor left behind, or an attempt whose folder is gone: TERM, and KILL after a second; how many
    processes.
    """
    if not status(folder).get("orphans"):
        return 0
    left = seen = remaining_processes(folder)
    signal_all(left, signal.SIGTERM)
    end = time.monotonic() + 1.0
    while left and time.monotonic() < end:
        time.sleep(0.02)
        left = remaining_processes(folder)
    signal_all(left, signal.SIGKILL)
    # last: while it lives, it adopts what loses its parent; without its folder it has nothing else to do
    supervisors = [] if os.path.exists(folder + "/log") else folder_processes(folder)[0]
    signal_all(supervisors, signal.SIGKILL)
    return len({*seen, *supervisors})


def remaining_processes(folder: str) -> list[int]:
    """Live processes of an attempt that has no supervisor, or no folder; without the supervisor."""
    meta = read_json(folder + "/meta.json")
    return attempt_processes(meta["tag"], read_json(folder + "/run.json") or {}) if meta else folder_processes(folder)[1]


def wait(folder: str, seconds: float) -> None:
    """Return when the attempt has ended, at the latest after some seconds."""
    end = time.monotonic() + seconds
    while alive(folder) and time.monotonic() < end:
        time.sleep(0.05)
