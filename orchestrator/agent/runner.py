"""Supervises attempts on a host: starts each once, and answers a command line about it. CPython 3.8 or newer, Linux, no root.

    start DIR < DOCUMENT         start the attempt, once; answers when the first step was started
    status DIR...                a line of JSON for each
    poll < WATCHES               what is new in many attempts, in one document
    read DIR NAME OFFSET LIMIT   bytes of `log` or `work/...`
    stop DIR [GRACE]             ask for the end: TERM, and KILL after GRACE seconds
    reap DIR                     kill what a dead supervisor left behind
    wait DIR SECONDS             answer when the attempt ended, or after SECONDS

DIR is `HOME/jobs/JOB/ATTEMPT`. DOCUMENT is `{"spec": {"job", "attempt", "steps": [{"name", "argv", "made"}], "env": {},
"grace": 10, "notify": "", "devices": [0], "accelerator": "cuda", "occupied": "wait", "lease": who asks, "allocation": lock,
"keep": 0}, "files": {name: text},
"links": {name: target}, "secrets": {NAME: value}}`; names are relative to `DIR/work`, where the steps run, and relative targets
to HOME. See `transports.base.Request`. WATCHES is a list of `transports.base.Watch`, each with
`dir`; answers are `transports.base.AttemptStatus`, bytes in base64. Exit codes: 0 done; 2 wrong arguments or document; 3 the
attempt exists with other contents; 4 the host refuses (no room, no permission); 5 a device is in use, with `{"devices": all that
are}`.

What makes each fact trustworthy:
    started once      the folder is filled aside and renamed into place: of racing starters one wins
    supervisor alive  it holds flock(sup.lock), which the kernel drops at any death: no stale pid
    host rebooted     the boot id kept at the start differs from the present one
    this machine      machine and boot are kept with the attempt; devices are held by machine: a home may be shared (`identity`)
    folder gone       a name of the supervisor's, and a mark with the folder in each step's environment, outlive it (`processes`)
    whose process     it carries the attempt's mark in its environment, descends from one that does, or is of the step's
                      session; a pid counts only with its start time (`processes`)
    device held       flock(HOME/leases/DEVICE) is inherited by the supervisor and the steps, and lasts as long as any lives;
                      for an accelerator also the name of a socket, which all users of the machine have in common (`leases`)
    how it ended      exit.json is written by the step's parent, by fsync and rename, with room set aside on the disk
                      (`supervisor`)
"""

from __future__ import annotations

import errno
import fcntl
import os
import sys
import time

from orchestrator.agent.attempts import located, observe, part_with, read, reap, status, stop, wait
from orchestrator.agent.files import (
    attempt_folder,
    dump_json,
    is_locked,
    make_folder,
    open_new,
    overwrite_json,
    parse_json,
    read_json,
    relative,
)
from orchestrator.agent.identity import boot, is_elsewhere, is_strange, machine, name_state, owner_words
from orchestrator.agent.leases import DevicesBusy, bind_name, held_elsewhere, leases_folder, lock_turn, on_accelerator, take
from orchestrator.agent.processes import attempt_name
from orchestrator.agent.supervisor import Supervisor, detach
from orchestrator.agent.tpus import clear_stale_lock

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from orchestrator.agent.files import Json

NAMING = 100  # tries, of a twentieth of a second
RESERVE = 64 * 1024  # bytes set aside, so that a full disk still takes exit.json
OF_THE_REQUEST = (errno.ENAMETOOLONG, errno.E2BIG, errno.ELOOP, errno.EISDIR)  # another host would say the same
REFUSED = (OSError, ValueError, LookupError, TypeError)  # what a wrong request or a host that cannot raises


def check(folder: str, document: Json) -> None:
    """ValueError when the document cannot be placed."""
    spec, names = document["spec"], [*document["files"], *document["links"]]
    if spec.get("allocation"):
        relative(spec["allocation"])
    if [spec["job"], str(spec["attempt"])] != folder.rsplit("/", 2)[1:]:
        raise ValueError("%s: the document is for attempt %s of %r" % (folder, spec["attempt"], spec["job"]))
    if not spec["steps"] or not all(step["argv"] and "\0" not in "".join(step["argv"]) for step in spec["steps"]):
        raise ValueError("%s: there is a step, and each has an argv without zero bytes" % folder)
    for made in filter(None, (step.get("made") for step in spec["steps"])):
        relative(made)
    for name in names:
        parts = relative(name).split("/")
        if names.count(name) > 1 or any("/".join(parts[:depth]) in names for depth in range(1, len(parts))):
            raise ValueError("%r: a path is used once, and does not lead through a file or link" % name)


def fill(aside: str, home: str, document: Json) -> None:
    """Write everything of an attempt into a new folder."""
    files, links = document["files"], document["links"]
    for name in [*files, *links]:
        path = "%s/work/%s" % (aside, name)
        make_folder(os.path.dirname(path))
        if name in links:
            os.symlink(part_with(os.path.join(home, links[name])), path)
        else:
            with open_new(path) as file:
                file.write(files[name].encode())
    with open_new(aside + "/reserve") as reserve, open_new(aside + "/log"):
        reserve.write(bytes(RESERVE))
    tag = "%s/%s:%s" % (document["spec"]["job"], document["spec"]["attempt"], os.urandom(8).hex())
    facts = {"machine": machine(), "boot_id": boot(), "owner": document["spec"].get("owner", "")}
    for name, value in (("meta.json", dict(facts, tag=tag, created=time.time())), ("spec.json", document)):
        with open_new("%s/%s" % (aside, name)) as file:  # nobody looks into this folder yet
            file.write(dump_json(value).encode())


def place(folder: str, document: Json) -> int | None:
    """Fill a folder aside and rename it into place; the descriptor of its lock, or None when another was first."""
    parent, name = os.path.split(folder)
    aside = "%s/.%s.%s" % (parent, name, os.urandom(6).hex())
    lock = None
    try:
        make_folder(aside + "/work")
        fill(aside, os.path.dirname(os.path.dirname(parent)), document)
        # locked before the rename: nobody ever sees a placed attempt without a living supervisor
        lock = os.open(aside + "/sup.lock", os.O_RDWR | os.O_CREAT, 0o600)
        fcntl.flock(lock, fcntl.LOCK_EX)
        os.rename(aside, folder)
        return lock
    except BaseException:
        import shutil  # noqa: PLC0415 (slow, and seldom needed)

        if lock is not None:
            os.close(lock)
        shutil.rmtree(aside, ignore_errors=True)
        if os.path.exists(folder):
            return None
        raise


def identity(document: Json) -> Json:
    """What an attempt is, whoever asks for it and hears of it. An older release said less."""
    return dict(
        document,
        spec=dict(
            {"rank": 0, "hosts": 1, "allocation": "", "keep": 0.0}, **dict(document["spec"], notify="", lease="", owner="")
        ),
    )


def own_folder(folder: str, document: Json) -> str:
    """Where an attempt is placed on this machine: beside the part of another machine that has the same home, where that is there."""
    meta, there = read_json(folder + "/meta.json"), read_json(folder + "/spec.json")
    if meta and there and is_elsewhere(meta) and identity(there)["spec"]["rank"] != identity(document)["spec"]["rank"]:
        return "%s@%s" % (folder, machine())
    return located(folder)


def start(folder: str, document: Json) -> Json:
    """Start an attempt unless it was started before; its status once the first step was started, or could not be."""
    held: list[int] = []
    try:
        folder, lock = claimed(folder, document, held)
        if lock is None:
            return status(folder)
        started, starter = os.pipe()
        if os.fork() == 0:
            supervise(folder, document, (lock, starter, *held), lambda: os.write(starter, b"."))
        os.close(starter)
        os.close(lock)
        os.read(started, 1)
        os.close(started)
        return status(folder)
    finally:
        for each in held:
            os.close(each)


def become(folder: str, document: Json, end: int, answer: Callable[[Json], object]) -> None:
    """As `start`, in a process that was made for it: it is the supervisor from then on, and ends with the attempt. `answer` is called
    once, with the status; it needs the descriptor `end`.
    """
    held: list[int] = []
    lock = None
    try:
        folder, lock = claimed(folder, document, held)
    finally:
        while lock is None and held:  # before there is an answer: whoever asked may look at the devices at once
            os.close(held.pop())
    if lock is None:
        answer(status(folder))
    else:
        supervise(folder, document, (lock, end, *held), lambda: answer(status(folder)))


def supervise(folder: str, document: Json, kept: tuple[int, ...], started: Callable[[], object]) -> None:
    """Be an attempt's supervisor, and end with it."""
    try:
        detach(kept)
        Supervisor(folder, document["spec"], document.get("secrets", {}), started).run()
    finally:
        os._exit(0)


def claimed(folder: str, document: Json, held: list[int]) -> tuple[str, int | None]:
    """Where an attempt lies on this machine, and the descriptor of its lock: as `claim`, of a document as it comes."""
    kept = {"spec": document["spec"], "files": document.get("files", {}), "links": document.get("links", {})}
    check(folder, kept)
    name_state(folder.rsplit("/", 3)[0])
    base, folder = folder, own_folder(folder, kept)
    lock = claim(folder, kept, held)
    if lock is None and own_folder(base, kept) != folder:  # another machine was first
        folder = own_folder(base, kept)
        while held:
            os.close(held.pop())
        lock = claim(folder, kept, held)
    if lock is None:
        refuse_other(folder, kept)
    return folder, lock


def refuse_other(folder: str, document: Json) -> None:
    """FileExistsError where what is there is another's attempt, or another attempt."""
    owner, there = (read_json(folder + "/meta.json") or {}).get("owner", ""), read_json(folder + "/spec.json")
    if is_strange(owner, document["spec"].get("owner", "")):
        raise FileExistsError("%s belongs to %s: take another id" % ("/".join(folder.rsplit("/", 2)[1:]), owner_words(owner)))
    if there and identity(there) != identity(document):
        raise FileExistsError("%s exists with other contents: take another attempt, or another job" % folder)


def name_attempt(folder: str) -> int | None:
    """A descriptor that names this process as the attempt's supervisor (`processes.attempt_name`); None where another is.

    One may have the name for a moment that is about to place the attempt, or will not come to it.
    """
    for _ in range(NAMING):
        try:
            return bind_name(attempt_name(folder))
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
        if os.path.exists(folder):
            return None
        time.sleep(0.05)
    return None


def claim(folder: str, document: Json, held: list[int]) -> int | None:
    """Place an attempt, and take its devices, whose descriptors go into `held`. As `place`; `DevicesBusy` when one is in use.
    None also where it goes on without its folder.

    Whoever asks for devices waits for its turn. So of two with some devices in common one gets all of its own, and of two
    starters of one attempt the second finds it placed, and not its own attempt in its way. Those of other state folders ask for
    accelerators in the same order, and do not wait: of them, too, one gets all of its own.
    """
    spec, home = document["spec"], folder.rsplit("/", 3)[0]
    if "env" in document["links"] and os.statvfs(home).f_flag & os.ST_NOEXEC:
        raise PermissionError("%s: is mounted noexec: no environment can be used there" % home)
    devices = sorted(set(spec.get("devices", ())))
    # before its turn, since it may take a while
    beyond = {}
    if on_accelerator(spec) and not os.path.exists(folder):
        asked = devices if spec["accelerator"] == "cuda" else []
        beyond = held_elsewhere(home, spec.get("occupied", "wait"), asked)
    if spec.get("allocation") and not os.path.exists(folder) and not is_locked("%s/%s" % (home, spec["allocation"])):
        raise BlockingIOError("the allocation of %s/%s has ended" % (spec["job"], spec["attempt"]))
    mine = lock_turn(home) if devices else None
    try:
        if os.path.exists(folder):
            return None
        holders = {device: take(home, device, spec, held) or beyond.get(device) for device in devices}
        wanted = {device: holder for device, holder in holders.items() if holder}
        if wanted:
            raise DevicesBusy(wanted, beyond)
        if devices and spec.get("accelerator") == "tpu":
            clear_stale_lock()
        holder = {key: spec.get(key, "") for key in ("job", "attempt", "lease", "accelerator")}
        for device in devices:
            overwrite_json("%s/%d.json" % (leases_folder(home), device), holder)
        name = name_attempt(folder)
        if name is None:
            return None
        held.append(name)  # not for the steps: it is let go with the supervisor
        return place(folder, document)
    finally:
        if mine is not None:
            os.close(mine)


def answer(command: str, args: Sequence[str]) -> list[Json]:
    """What a command line is answered, one document a line."""
    if command == "poll":
        return [
            {"seen": [observe(located(attempt_folder(watch["dir"])), watch) for watch in parse_json(sys.stdin.buffer.read())]}
        ]
    folders = list(map(attempt_folder, args if command == "status" else args[:1]))
    if command == "start":
        return [start(folders[0], parse_json(sys.stdin.buffer.read()))]
    folders = list(map(located, folders))
    if command == "read":
        return [{"data": read(folders[0], args[1], int(args[2]), int(args[3]))}]
    if command == "reap":
        return [{"reaped": reap(folders[0])}]
    if command == "stop":
        stop(folders[0], *map(float, args[1:]))
    elif command == "wait":
        wait(folders[0], float(args[1]))
    elif command != "status":
        raise ValueError("%r is not a command\n%s" % (command, __doc__))
    return list(map(status, folders))


def main(argv: Sequence[str]) -> int:
    """Run a command line; the exit code."""
    try:
        for document in answer("".join(argv[:1]), argv[1:]):
            print(dump_json(document), flush=True)
        return 0
    except REFUSED as error:
        if isinstance(error, DevicesBusy):
            print(dump_json({"devices": error.devices}), flush=True)
        print("runner: %s" % error, file=sys.stderr, flush=True)
        return exit_code(error)


def refusal(error: Exception) -> Json:
    """An error as an answer, where there is no exit code."""
    return {"refused": exit_code(error), "message": str(error), "devices": getattr(error, "devices", ())}


def exit_code(error: Exception) -> int:
    """The exit code that stands for an error."""
    if isinstance(error, OSError) and error.errno in OF_THE_REQUEST:
        return 2
    if isinstance(error, FileExistsError) and error.errno:
        return 4  # of the system, such as a file where a folder should be; ours have words alone
    kinds = ((FileExistsError, 3), (BlockingIOError, 5), (OSError, 4))
    return next((number for kind, number in kinds if isinstance(error, kind)), 2)
