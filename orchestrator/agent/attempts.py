"""What can be done with an attempt from outside: look at it, read its files, stop it, reap what it left behind.

Standard library of CPython 3.8 or newer.
"""

from __future__ import annotations

import os
import time
from itertools import islice

from orchestrator.agent.files import dump_json, ignore_errors, is_locked, read_bytes, read_json, read_part, relative
from orchestrator.agent.processes import attempt_processes, signal_all

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
STATUS_KEYS = ("phase", "step", "step_started", "rc", "signal", "why", "orphans", "ended", "cause", "evidence")
ALLOCATION_ENDED = "allocation ended"  # why an attempt ended whose devices were taken back
BOOT_ID = "/proc/sys/kernel/random/boot_id"  # differs after each boot of the host


def alive(folder: str) -> bool:
    """Does the supervisor live?"""
    return is_locked(folder + "/sup.lock")


def status(folder: str) -> Json:
    """What durable files say of an attempt: `transports.base.AttemptStatus`, without what a watch asks for."""
    job, attempt = folder.rsplit("/", 2)[1:]
    lives = alive(folder)  # before exit.json: the other order would miss an end in between
    facts = read_json(folder + "/exit.json")
    if facts:
        # what granted the devices is gone: the attempt did not end by itself, nor did anybody ask for it
        facts["phase"] = "lost" if facts["why"] == ALLOCATION_ENDED else "exited"
    elif lives:
        facts = read_json(folder + "/run.json") or {}
        facts["phase"] = "stopping" if os.path.exists(folder + "/stop.json") else "running"
    else:
        facts = lost(folder, read_json(folder + "/run.json") or {})
    seen = {key: facts[key] for key in STATUS_KEYS if key in facts}
    size = 0 if facts["phase"] == "unknown" else os.path.getsize(folder + "/log")
    return dict(seen, job=job, attempt=int(attempt), log_size=size)


def lost(folder: str, run: Json) -> Json:
    """The status of an attempt that has neither a supervisor nor an end."""
    if not os.path.exists(folder + "/log"):
        return {"phase": "unknown"}
    meta = read_json(folder + "/meta.json") or {}  # a power cut may have left it empty
    if meta.get("boot_id") != read_bytes(BOOT_ID).decode():
        return dict(run, phase="lost", why="host rebooted")
    return dict(run, phase="lost", why="supervisor died", orphans=len(attempt_processes(meta["tag"], run)))


def observe(folder: str, watch: Mapping[str, Any]) -> Json:
    """What is new in an attempt: a `transports.base.AttemptStatus`. The phase is read before the files."""
    seen, work = status(folder), folder + "/work"
    files = {name: (0, "") for pattern in watch["patterns"] for name in found_first(work, pattern, watch["files"])}
    files.update(watch["files"])
    seen["chunks"] = [chunk for name in files for chunk in new_bytes(work, name, *files[name])]
    if watch.get("log") is not None:
        seen["log"] = read_part(folder + "/log", watch["log"], CHUNK)
    failed = seen["phase"] == "lost" or (seen["phase"] == "exited" and seen["rc"] != 0)
    wanted = [*watch.get("whole", ()), *(watch.get("failed", ()) if failed else ())]
    if wanted:
        seen["whole"] = whole_files(work, wanted)
    if failed and watch.get("tail"):
        seen["tail"] = read_part(folder + "/log", max(0, seen["log_size"] - watch["tail"]), watch["tail"])
    seen["exist"] = [
        each for each in watch["promised"] if any(read_part(work + "/" + name, 0, 1) for name in matching(work, each))
    ]
    return seen


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
    """The bytes of a file from an offset on, if any; from 0 when it was rewritten since."""
    from hashlib import sha256  # noqa: PLC0415 (a start does without)

    path = "%s/%s" % (work, relative(name))
    if not os.path.isfile(path):
        return []
    size = os.path.getsize(path)
    first = read_part(path, 0, min(HEAD, size))
    rewritten = offset > size or (offset and sha256(first[:offset]).hexdigest() != head)
    offset = 0 if rewritten else offset
    data = read_part(path, offset, min(CHUNK, size - offset))
    head = sha256(first[: offset + len(data)]).hexdigest()
    return [{"path": name, "offset": offset, "data": data, "head": head}] if data or rewritten else []


def read(folder: str, name: str, offset: int, limit: int) -> bytes:
    """Bytes of `log` or `work/...`; empty when there are none."""
    if name != "log" and not relative(name).startswith("work/"):
        raise ValueError("%r: what can be read of an attempt is `log` and `work/...`" % name)
    return read_part("%s/%s" % (folder, name), offset, limit)


def stop(folder: str, grace: float | None = None) -> None:
    """Ask the supervisor for the end; without a grace, and on a full disk, that of the spec counts.

    Where the folder is shared, whether a supervisor on another machine lives cannot be told here: it is asked all the same.
    """
    if not os.path.exists(folder + "/exit.json") and (alive(folder) or elsewhere(folder)):
        with open(folder + "/stop.json", "wb", buffering=0) as file:
            ignore_errors(file.write, b"" if grace is None else dump_json({"grace": grace}).encode())


def reap(folder: str) -> int:
    """Kill what a dead supervisor left behind: TERM, and KILL after a second; how many processes."""
    if not status(folder).get("orphans"):
        return 0
    tag, run = read_json(folder + "/meta.json")["tag"], read_json(folder + "/run.json") or {}
    left = attempt_processes(tag, run)
    signal_all(left, signal.SIGTERM)
    end = time.monotonic() + 1.0
    while attempt_processes(tag, run) and time.monotonic() < end:
        time.sleep(0.02)
    signal_all(attempt_processes(tag, run), signal.SIGKILL)
    return len(left)


def elsewhere(folder: str) -> bool:
    """Was the attempt started on another machine, or before this one's last boot?"""
    meta = read_json(folder + "/meta.json")
    return bool(meta) and meta.get("boot_id") != read_bytes(BOOT_ID).decode()


def wait(folder: str, seconds: float) -> None:
    """Return when the attempt has ended, at the latest after some seconds."""
    end = time.monotonic() + seconds
    while alive(folder) and time.monotonic() < end:
        time.sleep(0.05)
