"""Supervises attempts on a host: one file, Linux, the standard library of CPython 3.8 or newer, no root, no agent.

    runner.py start DIR < DOCUMENT         start the attempt, once; answers when the first step was started
    runner.py status DIR...                a line of JSON for each
    runner.py poll < WATCHES               what is new in many attempts, in one document
    runner.py read DIR NAME OFFSET LIMIT   bytes of `log` or `work/...`
    runner.py stop DIR [GRACE]             ask for the end: TERM, and KILL after GRACE seconds
    runner.py reap DIR                     kill what a dead supervisor left behind
    runner.py wait DIR SECONDS             answer when the attempt ended, or after SECONDS

DIR is `HOME/jobs/JOB/ATTEMPT`. DOCUMENT is `{"spec": {"job", "attempt", "steps": [{"name", "argv", "made"}], "env": {},
"grace": 10, "notify": "", "devices": [0], "accelerator": "cuda", "occupied": "wait", "lease": who asks}, "files": {name: text},
"links": {name: target}, "secrets": {NAME: value}}`; names are relative to `DIR/work`, where the steps run, and relative targets
to HOME. See `transports.base.Request`. WATCHES is a list of `transports.base.Watch`, each with
`dir`; answers are `transports.base.Seen`, bytes in base64. Exit codes: 0 done; 2 wrong words or document; 3 the attempt
exists with other contents; 4 the host refuses (no room, no permission); 5 a device is in use, with `{"devices": all that are}`.

What makes each fact trustworthy:
    started once      the folder is filled aside and renamed into place: of racing starters one wins
    supervisor alive  it holds flock(sup.lock), which the kernel drops at any death: no stale pid
    host rebooted     the boot id kept at the start differs from the present one
    whose process     it carries the attempt's mark in its environment, descends from one that does, or is of the step's
                      session; a pid counts only with its start time
    device held       flock(HOME/leases/DEVICE) is inherited by the supervisor and the steps, and lasts as long as any lives;
                      for an accelerator also the name of a socket, which all users of the machine have in common
    how it ended      exit.json is written by the step's parent, by fsync and rename, with room set aside on the disk
"""

from __future__ import annotations

import errno
import fcntl
import os
import sys
import time
from _json import encode_basestring_ascii, make_scanner  # the C half: all of `json` costs each start 8 ms
from binascii import b2a_base64

TYPE_CHECKING = False  # neither `typing` nor all of `signal`, which imports `enum`, for the same reason
if TYPE_CHECKING:
    import signal
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from typing import Any

    Json = dict[str, Any]
else:
    import _signal as signal

PACE = 0.2  # seconds between looks at the stop request; the end of a child is noticed at once
STUBBORN = 5.0  # seconds to wait for a process that KILL does not end at once: it may hang in the kernel
RESERVE = 64 * 1024  # bytes set aside, so that a full disk still takes exit.json
HEAD = 256  # bytes; as `transports.base.HEAD`
LOOK = 10.0  # seconds for which a look at the processes of accelerators counts: nvidia-smi may take one itself
SLIGHT = 256  # MiB of an accelerator: with less in use it is idle
MUCH = 1024  # MiB of an accelerator: with so much in use it is somebody's, even where no process is seen
CARDS = "/proc/driver/nvidia/gpus"  # a folder each, named by its place on the bus: the order in which nvidia-smi counts
TITLE = "tune-device "
NOBODY = {"job": "", "attempt": 0, "lease": "a job of another user", "accelerator": ""}
CHUNK = 1024 * 1024  # most bytes of one file in one poll; the next poll goes on
WHOLE = 64 * CHUNK  # most bytes of a file that is sent whole
FULL = (errno.ENOSPC, errno.EDQUOT)
REFUSED = (OSError, ValueError, LookupError, TypeError)  # what a wrong request or a host that cannot raises
SEEN = ("phase", "step", "step_started", "rc", "signal", "why", "orphans", "ended")
BOOT = "/proc/sys/kernel/random/boot_id"  # differs after each boot of the host
LETTERS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-")
# a starter may ignore some of these (nohup and Python do); a step gets them as from a shell
DEFAULTED = ("SIGHUP", "SIGINT", "SIGQUIT", "SIGPIPE", "SIGTERM", "SIGCHLD", "SIGUSR1", "SIGUSR2", "SIGXFSZ")


def attempt_folder(path: str) -> str:
    """The absolute path of an attempt's folder; ValueError unless it ends in JOB/ATTEMPT."""
    folder = os.path.abspath(path)
    job, attempt = folder.rsplit("/", 2)[-2:]
    if not job or job[0] == "." or not LETTERS.issuperset(job) or not (attempt.isascii() and attempt.isdigit()):
        raise ValueError("%r: a job is named by letters, digits, `.`, `_` and `-`, an attempt by a number" % path)
    return folder


def inside(name: str) -> str:
    """A path as it is; ValueError when it could lead out of its folder."""
    if "\0" in name or not {"", ".", ".."}.isdisjoint(name.split("/")):
        raise ValueError("%r: a path is relative, and without `..`, `.` and empty parts" % name)
    return name


def content(path: str) -> bytes:
    """All bytes of a file."""
    with open(path, "rb", buffering=0) as file:
        return file.read()


def part(path: str, offset: int, limit: int) -> bytes:
    """Some bytes of a file; none when it is no file. A named pipe does not hold us up."""
    try:
        with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb", buffering=0) as file:
            return os.pread(file.fileno(), limit, offset)
    except OSError:
        return b""


class Plain:
    """How JSON is read: as `json.loads` does when nothing else is asked for."""

    strict, object_hook, object_pairs_hook = True, None, None
    parse_float, parse_int, parse_constant = float, int, float


def value_of(text: bytes) -> Any:
    """The value of a JSON text; ValueError when it is none."""
    try:
        return make_scanner(Plain)(text.decode().strip(), 0)[0]  # type: ignore[arg-type]  # typeshed errs
    except (StopIteration, SystemError):
        import json  # noqa: PLC0415 (only it can say what is wrong)

        return json.loads(text)


def text_of(value: Any) -> str:
    """A value as JSON; bytes in base64."""
    if isinstance(value, dict):
        return "{%s}" % ", ".join("%s: %s" % (text_of(str(key)), text_of(each)) for key, each in value.items())
    if isinstance(value, (list, tuple)):
        return "[%s]" % ", ".join(map(text_of, value))
    if isinstance(value, bytes):
        return '"%s"' % b2a_base64(value, newline=False).decode()
    if isinstance(value, str):
        return encode_basestring_ascii(value)
    return "null" if value is None else repr(value).lower()  # numbers, True and False


def get(path: str) -> Any:
    """The value of a JSON file; None when there is none."""
    try:
        return value_of(content(path))
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return None


def put(path: str, value: Any, durable: bool = False) -> None:
    """Write a private JSON file, whole or not at all; `durable`: it is on the disk when this returns.

    What is not durable may be empty after a power cut, which ends the attempt anyway.
    """
    with open(os.open(path + ".new", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        file.write(text_of(value).encode())
        file.flush()
        if durable:
            os.fsync(file.fileno())
    os.rename(path + ".new", path)


def quiet(call: Callable[..., Any], *args: Any) -> None:
    """Call what may fail without harm: the thing is gone, the disk is full, nobody listens."""
    try:  # noqa: SIM105 (contextlib is one more import at each start)
        call(*args)
    except OSError:
        pass


# ---- processes


def facts(pid: int | str) -> tuple[bytes, int, int, str]:
    """State, parent, session and start time (ticks since boot) of a process; OSError when there is none."""
    fields = content("/proc/%s/stat" % pid).rsplit(b")", 1)[1].split()
    return fields[0], int(fields[1]), int(fields[3]), fields[19].decode()


def members(tag: str, run: Json) -> list[int]:
    """Live processes of an attempt, without its supervisor; `run` is what run.json says.

    The mark alone is not enough: a process may overwrite its environment (setproctitle does, so Ray's workers do).
    """
    table, found, mark = {}, set(), b"TUNE_JOB=" + tag.encode()
    for pid in map(int, filter(str.isdigit, os.listdir("/proc"))):
        try:
            table[pid] = facts(pid)
            if mark in content("/proc/%d/environ" % pid).split(b"\0"):
                found.add(pid)
        except OSError:  # gone, or another user's
            pass
    known = {run[who]: run[who + "_start"] for who in ("pid", "supervisor") if who in run}
    found |= {pid for pid in known if pid in table and table[pid][3] == known[pid]}
    leader = run.get("pid")
    if leader in found or leader not in table:  # else its number went to a stranger
        found |= {pid for pid in table if table[pid][2] == leader}
    more = found
    while more:
        more = {pid for pid in table if table[pid][1] in more} - found
        found = found | more
    return sorted(pid for pid in found - {run.get("supervisor"), os.getpid()} if table[pid][0] not in b"ZX")


def send(pids: Iterable[int], number: int) -> None:
    """Signal processes; those already gone are fine."""
    for pid in pids:
        quiet(os.kill, pid, number)


def adopt_orphans() -> bool:
    """Become the parent of all descendants whose own parent dies; False where this Python cannot."""
    try:
        from _ctypes import call_function, dlopen, dlsym  # noqa: PLC0415 (`ctypes` itself costs 6 ms)

        prctl = dlsym(dlopen(None, 0), "prctl")  # type: ignore[arg-type]  # None is this program, as in ctypes
        return bool(call_function(prctl, (36, 1, 0, 0, 0)) == 0)  # PR_SET_CHILD_SUBREAPER
    except (ImportError, OSError):
        return False


def spawn(argv: Sequence[str], env: Mapping[str, str], folder: str, log: int) -> int:
    """Start a program as leader of a session, its output in the log; OSError when it cannot be started.

    Not os.posix_spawn: it cannot change the folder, and has no setsid where Python was built for an old C library.
    """
    failed, tell = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            become(argv, env, folder, log)
        except BaseException as error:
            os.write(tell, b"%d" % (getattr(error, "errno", None) or errno.EINVAL))
        finally:
            os._exit(127)
    os.close(tell)
    number = os.read(failed, 16)  # nothing: the program runs, since exec closed the other end
    os.close(failed)
    if number:
        os.waitpid(pid, 0)
        raise OSError(int(number), os.strerror(int(number)), argv[0])
    return pid


def become(argv: Sequence[str], env: Mapping[str, str], folder: str, log: int) -> None:
    """Turn this new process into the program."""
    os.setsid()
    os.chdir(folder)
    os.dup2(log, 1)
    os.dup2(log, 2)
    for name in DEFAULTED:
        signal.signal(getattr(signal, name), signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    os.execvpe(argv[0], list(argv), env)  # noqa: S606 (an argv, never a shell)


# ---- starting


def check(folder: str, document: Json) -> None:
    """ValueError when the document cannot be placed."""
    spec, names = document["spec"], [*document["files"], *document["links"]]
    if [spec["job"], str(spec["attempt"])] != folder.rsplit("/", 2)[1:]:
        raise ValueError("%s: the document is for attempt %s of %r" % (folder, spec["attempt"], spec["job"]))
    if not spec["steps"] or not all(step["argv"] and "\0" not in "".join(step["argv"]) for step in spec["steps"]):
        raise ValueError("%s: there is a step, and each has an argv without zero bytes" % folder)
    for made in filter(None, (step.get("made") for step in spec["steps"])):
        inside(made)
    for name in names:
        parts = inside(name).split("/")
        if names.count(name) > 1 or any("/".join(parts[:depth]) in names for depth in range(1, len(parts))):
            raise ValueError("%r: a path is used once, and does not lead through a file or link" % name)


def fill(aside: str, home: str, document: Json) -> None:
    """Write everything of an attempt into a new folder."""
    files, links = document["files"], document["links"]
    for name in [*files, *links]:
        path = "%s/work/%s" % (aside, name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        if name in links:
            os.symlink(os.path.join(home, links[name]), path)
        else:
            with open(path, "wb") as file:
                file.write(files[name].encode())
    with open(aside + "/reserve", "wb") as reserve, open(aside + "/log", "wb"):
        reserve.write(bytes(RESERVE))
    tag = "%s/%s:%s" % (document["spec"]["job"], document["spec"]["attempt"], os.urandom(8).hex())
    put(aside + "/meta.json", {"tag": tag, "boot_id": content(BOOT).decode(), "created": time.time()})
    put(aside + "/spec.json", document)


def place(folder: str, document: Json) -> int | None:
    """Fill a folder aside and rename it into place; the descriptor of its lock, or None when another was first."""
    parent, name = os.path.split(folder)
    aside = "%s/.%s.%s" % (parent, name, os.urandom(6).hex())
    lock, mask = None, os.umask(0o077)
    try:
        os.makedirs(aside + "/work")
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
    finally:
        os.umask(mask)


def room(path: str) -> None:
    """Make a private folder, and what is missing above it."""
    mask = os.umask(0o077)
    try:
        os.makedirs(path, exist_ok=True)
    finally:
        os.umask(mask)


def gist(document: Json) -> Json:
    """What an attempt is, whoever asks for it and hears of it."""
    return dict(document, spec=dict(document["spec"], notify="", lease=""))


def start(folder: str, document: Json) -> Json:
    """Start an attempt unless it was started before; its status once the first step was started, or could not be."""
    kept = {"spec": document["spec"], "files": document.get("files", {}), "links": document.get("links", {})}
    check(folder, kept)
    held: list[int] = []
    try:
        lock = claim(folder, kept, held)
        if lock is None:
            there = get(folder + "/spec.json")
            if there and gist(there) != gist(kept):
                raise FileExistsError("%s exists with other contents: take another attempt, or another job" % folder)
            return status(folder)
        started, starter = os.pipe()
        if os.fork() == 0:
            try:
                detach((lock, starter, *held))
                Supervisor(folder, kept["spec"], document.get("secrets", {}), starter).run()
            finally:
                os._exit(0)
        os.close(starter)
        os.close(lock)
        os.read(started, 1)
        os.close(started)
        return status(folder)
    finally:
        for each in held:
            os.close(each)


def detach(kept: tuple[int, ...]) -> None:
    """Leave the starter's session, streams and files; an SSH session would wait for the last holder of its pipes."""
    os.setsid()
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    null = os.open(os.devnull, os.O_RDWR)
    for fd in (0, 1, 2):
        os.dup2(null, fd)
    for fd in map(int, os.listdir("/proc/self/fd")):
        if fd > 2 and fd not in kept:
            quiet(os.close, fd)  # the listing's own is closed already


class Supervisor:
    """Runs the steps of one attempt in order, alone in its process, and writes down what happened."""

    def __init__(self, folder: str, spec: Json, secrets: Mapping[str, str], starter: int) -> None:
        self.folder, self.spec, self.starter = folder, spec, starter
        self.tag = get(folder + "/meta.json")["tag"]
        self.env = {**os.environ, **spec.get("env", {}), **secrets, "TUNE_JOB": self.tag}
        self.log = os.open(folder + "/log", os.O_RDWR | os.O_APPEND)
        self.state: Json = {"supervisor": os.getpid(), "supervisor_start": facts("self")[3], "history": []}
        self.ended: int | None = None  # wait status of the step, when it has ended
        self.why = ""
        self.grace: float | None = None  # as the stop request says
        self.kill_at = float("inf")  # by the monotonic clock
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGCHLD])
        self.adopts = adopt_orphans()

    def run(self) -> None:
        """Run the steps until one fails or a stop is asked for. `rc` is that of the step named, whatever `why` says."""
        end: Json = {"step": "", "step_started": None, "rc": None, "signal": None, "left_behind": 0}
        for index, step in enumerate(self.spec["steps"], 1):
            self.heed()
            if self.needless(index, step):
                continue
            if not self.why:
                end = self.step(index, step["name"], step["argv"])
            if self.why or end["rc"] != 0:
                break
        self.finish(dict(end, why=self.why, ended=time.time(), history=self.state["history"]))

    def needless(self, index: int, step: Mapping[str, Any]) -> bool:
        """Is what the step makes there already? The last step always runs: the attempt ends as it does."""
        made = step.get("made")
        if self.why or not made or index == len(self.spec["steps"]) or not os.path.exists("%s/work/%s" % (self.folder, made)):
            return False
        self.say("step %d/%d %s: not needed, %s is there" % (index, len(self.spec["steps"]), step["name"], made))
        return True

    def step(self, index: int, name: str, argv: Sequence[str]) -> Json:
        """Run one step, to its end and the end of all that it started."""
        self.say("step %d/%d %s: %s" % (index, len(self.spec["steps"]), name, " ".join(argv)))
        end: Json = {"step": name, "step_started": time.time(), "rc": 127, "signal": None, "left_behind": 0}
        try:
            self.state["pid"] = spawn(argv, self.env, self.folder + "/work", self.log)
        except OSError as error:
            self.why = "could not start: %s" % error
            return end
        self.state.update(step=name, index=index, step_started=end["step_started"])
        self.state["pid_start"] = facts(self.state["pid"])[3]
        quiet(put, self.folder + "/run.json", self.state)  # on a full disk the old one stays: the step's name is late
        self.tell()
        self.ended = None
        while self.ended is None:
            self.tick()
        end["left_behind"] = self.clear()
        killed = os.WIFSIGNALED(self.ended)
        end["rc"], end["signal"] = (None, os.WTERMSIG(self.ended)) if killed else (os.WEXITSTATUS(self.ended), None)
        self.state["history"].append(dict(end, ended=time.time()))
        return end

    def tick(self) -> None:
        """Sleep until a child ends, PACE at most; see to children, to a stop request, to what outlived its grace."""
        signal.sigtimedwait([signal.SIGCHLD], PACE)
        self.collect()
        self.heed()
        if time.monotonic() >= self.kill_at and self.members():
            self.why = self.why and "killed after grace"
            send(self.members(), signal.SIGKILL)

    def collect(self) -> bool:
        """Take leave of children that ended, adopted ones too; is any left?"""
        try:
            while True:
                pid, ended = os.waitpid(-1, os.WNOHANG)
                if pid == 0:
                    return True
                if pid == self.state["pid"]:
                    self.ended = ended
        except ChildProcessError:
            return False

    def members(self) -> list[int]:
        """Live processes of the attempt. Where orphans are adopted, no child means no descendant: no need to look."""
        return members(self.tag, self.state) if self.collect() or not self.adopts else []

    def heed(self) -> None:
        """Follow a stop request; a later one may set another grace."""
        if not os.path.exists(self.folder + "/stop.json"):
            return
        grace = (get(self.folder + "/stop.json") or self.spec).get("grace", 10.0)
        if grace != self.grace:
            self.grace, self.kill_at = grace, time.monotonic() + grace
        if not self.why:
            self.why = "stopped"
            send(self.members(), signal.SIGTERM)

    def clear(self) -> int:
        """End what the step left behind, how many it was: TERM, unless a stop sent it, and KILL after the grace."""
        left = self.members()
        if left and not self.why:
            self.kill_at = time.monotonic() + self.spec.get("grace", 10.0)
            send(left, signal.SIGTERM)
        while left and self.members() and time.monotonic() < self.kill_at + STUBBORN:
            self.tick()
        if not self.why:
            self.kill_at = float("inf")
        return len(left)

    def say(self, text: str) -> None:
        """Put a line of ours into the log; a full disk does without."""
        size = os.fstat(self.log).st_size
        broken = size and os.pread(self.log, 1, size - 1) != b"\n"
        line = "%s=== tune: %s\n" % ("\n" if broken else "", text.replace("\n", " "))
        quiet(os.write, self.log, line.encode("utf-8", "replace"))

    def finish(self, end: Json) -> None:
        """Keep exit.json. A full disk gets the reserve back first, and after that only delays it."""
        while True:
            try:
                put(self.folder + "/exit.json", end, durable=True)
                break
            except OSError as error:
                if error.errno not in FULL:
                    raise
            quiet(os.unlink, self.folder + "/reserve")
            time.sleep(PACE)
        quiet(os.unlink, self.folder + "/reserve")
        self.tell()

    def tell(self) -> None:
        """Let the starter go, and let whoever waits on this machine know of news; both may be gone."""
        quiet(os.write, self.starter, b".")
        if self.spec.get("notify"):
            from _socket import AF_UNIX, MSG_DONTWAIT, SOCK_DGRAM, socket  # noqa: PLC0415 (`socket` costs 8 ms)

            quiet(socket(AF_UNIX, SOCK_DGRAM).sendto, self.spec["job"].encode(), MSG_DONTWAIT, self.spec["notify"])


# ---- devices


class Held(BlockingIOError):
    """Devices that were asked for are in use. `devices` are all that are known to be, asked for or not."""

    def __init__(self, wanted: Mapping[int, Json], others: Iterable[int]) -> None:
        super().__init__("; ".join("device %d is %s" % (device, whose(holder)) for device, holder in sorted(wanted.items())))
        self.devices = sorted({*wanted, *others})


def whose(holder: Json) -> str:
    """Who has a device, in words."""
    if not holder["job"]:
        return "busy with %s" % holder["lease"]
    return "held by %s/%s%s" % (holder["job"], holder["attempt"], " of " + holder["lease"] if holder["lease"] else "")


def turn(home: str) -> int:
    """A descriptor of the lock under which devices are given away and counted; to be closed."""
    room(home + "/leases")
    lock = os.open(home + "/leases/turn", os.O_RDWR | os.O_CREAT, 0o600)
    fcntl.flock(lock, fcntl.LOCK_EX)
    return lock


def lease(home: str, device: int) -> tuple[int, Json | None]:
    """A descriptor that holds a device while any process has it open, and None; or -1, and who holds it."""
    path = "%s/leases/%d" % (home, device)
    last = get(path + ".json") or {"job": "unknown", "attempt": 0, "lease": ""}
    lock = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        return -1, last
    # a worker may have let go of what it inherited, and outlive both its supervisor and its step
    if status("%s/jobs/%s/%d" % (home, last["job"], last["attempt"])).get("orphans"):
        os.close(lock)
        return -1, last
    return lock, None


def leases(home: str) -> list[Json]:
    """Devices in use, and by whom: by attempts of this state folder, by those of others, by strangers."""
    beyond = others(home)
    mine = turn(home)
    try:
        found = []
        for device in sorted(int(name) for name in os.listdir(home + "/leases") if name.isdigit()):
            lock, holder = lease(home, device)
            if holder:
                found.append(dict(holder, device=device))
            else:
                os.close(lock)
        return found + [dict(holder, device=device) for device, holder in sorted(beyond.items())]
    finally:
        os.close(mine)


def claim(folder: str, document: Json, held: list[int]) -> int | None:
    """Place an attempt, and take its devices, whose descriptors go into `held`. As `place`; `Held` when one is in use.

    Whoever asks for devices waits for its turn. So of two with some devices in common one gets all of its own, and of two
    starters of one attempt the second finds it placed, and not its own attempt in its way. Those of other state folders ask for
    accelerators in the same order, and do not wait: of them, too, one gets all of its own.
    """
    spec, home = document["spec"], folder.rsplit("/", 3)[0]
    devices = sorted(set(spec.get("devices", ())))
    # before its turn, since it may take a while
    beyond = others(home, spec.get("occupied", "wait")) if on_card(spec) and not os.path.exists(folder) else {}
    mine = turn(home) if devices else None
    try:
        if os.path.exists(folder):
            return None
        holders = {device: take(home, device, spec, held) or beyond.get(device) for device in devices}
        wanted = {device: holder for device, holder in holders.items() if holder}
        if wanted:
            raise Held(wanted, beyond)
        holder = {key: spec.get(key, "") for key in ("job", "attempt", "lease", "accelerator")}
        for device in devices:
            put("%s/leases/%d.json" % (home, device), holder)
        return place(folder, document)
    finally:
        if mine is not None:
            os.close(mine)


def on_card(spec: Json) -> bool:
    """Are its devices accelerators, of which a machine has one for all of its users, and no mere places for jobs?"""
    return bool(spec.get("devices")) and spec.get("accelerator", "cpu") != "cpu"


def take(home: str, device: int, spec: Json, held: list[int]) -> Json | None:
    """Hold a device by descriptors that go into `held`; or who holds it."""
    lock, holder = lease(home, device)
    if holder:
        return holder
    held.append(lock)
    if on_card(spec):
        card = TITLE + "%s %s" % (spec["accelerator"], dict(enumerate(cards(spec["accelerator"]))).get(device, device))
        try:
            held.append(named(card))
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
            return reserved().get(device, NOBODY)
        quiet(lambda: held.append(named("%s %s %s/%s" % (card, account(os.getuid()), spec["job"], spec["attempt"]))))
    for each in held:
        os.set_inheritable(each, True)
    return None


def named(name: str) -> int:
    """A descriptor that has a name on this machine, alone, while any process has it open; OSError when another has it.

    It is a socket's that no file stands for: there is no folder that all users would have to be able to write to, and nothing
    that a clean-up of /tmp could take away. Nobody can connect. All users see such names in /proc/net/unix.
    """
    from _socket import AF_UNIX, SOCK_STREAM, socket  # noqa: PLC0415 (only accelerators need it)

    mine = socket(AF_UNIX, SOCK_STREAM)
    try:
        mine.bind(b"\0" + name.encode()[:107])  # as many as the kernel takes
        return mine.detach()
    finally:
        mine.close()


def cards(kind: str) -> list[str]:
    """Names of accelerators by their number. They are the same for all users, however many of them each sees."""
    try:
        return sorted(os.listdir(CARDS)) if kind == "cuda" else []
    except OSError:
        return []


def account(user: int) -> str:
    """A user's name; the number when it has none."""
    import pwd  # noqa: PLC0415 (seldom needed)

    try:
        return str(pwd.getpwuid(user).pw_name)
    except KeyError:
        return str(user)


def reserved() -> dict[int, Json]:
    """Accelerators that attempts hold, of whichever state folder. Anybody may have written what is read there."""
    found: dict[int, Json] = {}
    for line in content("/proc/net/unix").decode("utf-8", "replace").splitlines():
        kind, name, user, attempt = [*line.partition(" @" + TITLE)[2].split(), "", "", "", ""][:4]
        places = cards(kind)
        if name in places or name.isdecimal():
            device = places.index(name) if name in places else int(name)
            job, _, number = attempt.partition("/")
            holder = {"job": job, "attempt": int(number) if number.isdecimal() else 0, "lease": user, "accelerator": kind}
            if job or device not in found:
                found[device] = holder if job else dict(NOBODY, accelerator=kind)
    return found


def others(home: str, occupied: str = "wait") -> dict[int, Json]:
    """Accelerators that others have than attempts of this state folder: attempts of other folders and, where they count, strangers."""
    about = strangers(home) if occupied == "wait" else {}
    found = {device: dict(NOBODY, lease=who, accelerator="cuda") for device, who in about.items()}
    return {**found, **{device: holder for device, holder in reserved().items() if not ours(home, holder)}}


def ours(home: str, holder: Json) -> bool:
    """Is it an attempt of this state folder?"""
    try:
        folder = attempt_folder("%s/jobs/%s/%d" % (home, holder["job"], holder["attempt"]))
    except ValueError:
        return False
    return holder["lease"] == account(os.getuid()) and os.path.exists(folder)


def strangers(home: str) -> dict[int, str]:
    """NVIDIA devices that processes use which belong to no attempt of anybody, and which; as they were LOOK seconds ago at most."""
    kept = get(home + "/leases/look.json") or {"at": 0.0}
    if not 0.0 <= time.time() - kept["at"] < LOOK:
        known = reserved()  # before the look: an attempt that ends in between is no stranger
        found = {str(device): who for device, who in busy().items() if device not in known}
        kept = {"at": time.time(), "found": found}
        room(home + "/leases")
        quiet(put, home + "/leases/look.json", kept)
    return {int(device): who for device, who in kept["found"].items()}


def busy() -> dict[int, str]:
    """NVIDIA devices in use, and by what."""
    rows = smi("gpu=index,pci.bus_id,memory.used,display_active", 5.0)
    rows = [row for row in rows if row[0].isdecimal() and (not row[2].isdecimal() or int(row[2]) >= SLIGHT)]
    apps = smi("compute-apps=gpu_bus_id,pid", 5.0) if rows else []
    found = {}
    for index, bus, memory, display in rows:
        pids = [process(pid) for where, pid in apps if where == bus]
        # a container does not see the processes of another; on a desktop it may be the screen's
        if pids or (memory.isdecimal() and int(memory) >= MUCH and display != "Enabled"):
            who = ", ".join(pids[:3]) + ", ..." * (len(pids) > 3) or memory + " MiB, not seen from here"
            found[int(index)] = "a process that is not tune's (%s)" % who
    return found


def process(pid: str) -> str:
    """`pid 7 of anna`; without the user where it cannot be seen."""
    try:
        return "pid %s of %s" % (pid, account(os.stat("/proc/" + inside(pid)).st_uid))
    except (OSError, ValueError):
        return "pid %s" % pid


def smi(query: str, seconds: float) -> list[list[str]]:
    """What nvidia-smi answers, row by row; nothing where there is none, or no answer in time."""
    import subprocess  # noqa: PLC0415 (seldom needed, and slow)

    argv = ["nvidia-smi", "--query-" + query, "--format=csv,noheader,nounits"]
    try:
        asked = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    except OSError:
        return []
    try:
        said = asked.communicate(timeout=seconds)[0].decode("utf-8", "replace")
    except subprocess.TimeoutExpired:
        asked.kill()  # not waited for: with a broken device it hangs in the kernel
        return []
    rows = [[cell.strip() for cell in line.split(",")] for line in said.splitlines()]
    return [row for row in rows if len(row) == query.count(",") + 1] if asked.returncode == 0 else []


# ---- looking, and ending from outside


def alive(folder: str) -> bool:
    """Does the supervisor live?"""
    try:
        with open(folder + "/sup.lock", "rb", buffering=0) as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError as error:
        return isinstance(error, BlockingIOError)
    return False


def status(folder: str) -> Json:
    """What durable files say of an attempt: `transports.base.Seen`, without what a watch asks for."""
    job, attempt = folder.rsplit("/", 2)[1:]
    lives = alive(folder)  # before exit.json: the other order would miss an end in between
    said = get(folder + "/exit.json")
    if said:
        said["phase"] = "exited"
    elif lives:
        said = get(folder + "/run.json") or {}
        said["phase"] = "stopping" if os.path.exists(folder + "/stop.json") else "running"
    else:
        said = lost(folder, get(folder + "/run.json") or {})
    seen = {key: said[key] for key in SEEN if key in said}
    size = 0 if said["phase"] == "unknown" else os.path.getsize(folder + "/log")
    return dict(seen, job=job, attempt=int(attempt), log_size=size)


def lost(folder: str, run: Json) -> Json:
    """What is to be said of an attempt that has neither a supervisor nor an end."""
    if not os.path.exists(folder + "/log"):
        return {"phase": "unknown"}
    meta = get(folder + "/meta.json") or {}  # a power cut may have left it empty
    if meta.get("boot_id") != content(BOOT).decode():
        return dict(run, phase="lost", why="host rebooted")
    return dict(run, phase="lost", why="supervisor died", orphans=len(members(meta["tag"], run)))


def look(folder: str, watch: Mapping[str, Any]) -> Json:
    """What is new in an attempt: a `transports.base.Seen`. The phase is read before the files."""
    seen, work = status(folder), folder + "/work"
    files = {name: (0, "") for pattern in watch["patterns"] for name in matching(work, pattern)}
    files.update(watch["files"])
    seen["chunks"] = [chunk for name in files for chunk in news(work, name, *files[name])]
    if watch.get("log") is not None:
        seen["log"] = part(folder + "/log", watch["log"], CHUNK)
    failed = seen["phase"] == "lost" or (seen["phase"] == "exited" and seen["rc"] != 0)
    wanted = [*watch.get("whole", ()), *(watch.get("failed", ()) if failed else ())]
    if wanted:
        whole = {name: part("%s/%s" % (work, inside(name)), 0, WHOLE) for name in wanted}
        seen["whole"] = {name: data for name, data in whole.items() if data}
    if failed and watch.get("tail"):
        seen["tail"] = part(folder + "/log", max(0, seen["log_size"] - watch["tail"]), watch["tail"])
    seen["exist"] = [each for each in watch["promised"] if any(part(work + "/" + name, 0, 1) for name in matching(work, each))]
    return seen


def matching(work: str, pattern: str) -> list[str]:
    """Names of files that fit a pattern, as in a shell: no wildcard stands for `/` or for a first `.`."""
    from glob import escape, glob  # noqa: PLC0415 (a start does without)

    found = sorted(glob("%s/%s" % (escape(work), inside(pattern))))
    return [path[len(work) + 1 :] for path in found if os.path.isfile(path)]


def news(work: str, name: str, offset: int, head: str) -> list[Json]:
    """The bytes of a file from an offset on, if any; from 0 when it was rewritten since."""
    from hashlib import sha256  # noqa: PLC0415 (a start does without)

    path = "%s/%s" % (work, inside(name))
    if not os.path.isfile(path):
        return []
    size = os.path.getsize(path)
    first = part(path, 0, min(HEAD, size))
    rewritten = offset > size or (offset and sha256(first[:offset]).hexdigest() != head)
    offset = 0 if rewritten else offset
    data = part(path, offset, min(CHUNK, size - offset))
    head = sha256(first[: offset + len(data)]).hexdigest()
    return [{"path": name, "offset": offset, "data": data, "head": head}] if data or rewritten else []


def read(folder: str, name: str, offset: int, limit: int) -> bytes:
    """Bytes of `log` or `work/...`; empty when there are none."""
    if name != "log" and not inside(name).startswith("work/"):
        raise ValueError("%r: what can be read of an attempt is `log` and `work/...`" % name)
    return part("%s/%s" % (folder, name), offset, limit)


def stop(folder: str, grace: float | None = None) -> None:
    """Ask the supervisor for the end; without a grace, and on a full disk, that of the spec counts."""
    if alive(folder) and not os.path.exists(folder + "/exit.json"):
        with open(folder + "/stop.json", "wb", buffering=0) as file:
            quiet(file.write, b"" if grace is None else text_of({"grace": grace}).encode())


def reap(folder: str) -> int:
    """Kill what a dead supervisor left behind: TERM, and KILL after a second; how many processes."""
    if not status(folder).get("orphans"):
        return 0
    tag, run = get(folder + "/meta.json")["tag"], get(folder + "/run.json") or {}
    left = members(tag, run)
    send(left, signal.SIGTERM)
    end = time.monotonic() + 1.0
    while members(tag, run) and time.monotonic() < end:
        time.sleep(0.02)
    send(members(tag, run), signal.SIGKILL)
    return len(left)


def wait(folder: str, seconds: float) -> None:
    """Return when the attempt has ended, at the latest after some seconds."""
    end = time.monotonic() + seconds
    while alive(folder) and time.monotonic() < end:
        time.sleep(0.05)


# ---- the command line


def answer(command: str, words: Sequence[str]) -> list[Json]:
    """What a command line is answered, one document a line."""
    if command == "poll":
        return [{"seen": [look(attempt_folder(watch["dir"]), watch) for watch in value_of(sys.stdin.buffer.read())]}]
    folders = list(map(attempt_folder, words if command == "status" else words[:1]))
    if command == "start":
        return [start(folders[0], value_of(sys.stdin.buffer.read()))]
    if command == "read":
        return [{"data": read(folders[0], words[1], int(words[2]), int(words[3]))}]
    if command == "reap":
        return [{"reaped": reap(folders[0])}]
    if command == "stop":
        stop(folders[0], *map(float, words[1:]))
    elif command == "wait":
        wait(folders[0], float(words[1]))
    elif command != "status":
        raise ValueError("%r is not a command\n%s" % (command, __doc__))
    return list(map(status, folders))


def main(argv: Sequence[str]) -> int:
    """Run a command line; the exit code."""
    try:
        for document in answer("".join(argv[:1]), argv[1:]):
            print(text_of(document), flush=True)
        return 0
    except REFUSED as error:
        if isinstance(error, Held):
            print(text_of({"devices": error.devices}), flush=True)
        print("runner: %s" % error, file=sys.stderr, flush=True)
        return code(error)


def refusal(error: Exception) -> Json:
    """An error as an answer, where there is no exit code."""
    return {"refused": code(error), "said": str(error), "devices": getattr(error, "devices", ())}


def code(error: Exception) -> int:
    """The exit code that stands for an error."""
    kinds = ((FileExistsError, 3), (BlockingIOError, 5), (OSError, 4))
    return next((number for kind, number in kinds if isinstance(error, kind)), 2)


if __name__ == "__main__":
    os._exit(main(sys.argv[1:]))  # nothing is left to tidy up, which would take 2 ms
