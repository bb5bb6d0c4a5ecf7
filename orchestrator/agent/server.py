"""Serves one controller on a host, through the pipe of an SSH channel: the runner's questions, and files both ways.

It comes with the connection, goes with it, leaves nothing behind, and decides nothing. Linux, the standard library of
CPython 3.8 or newer. A frame is two lengths (4 and 8 bytes, big-endian), a header in JSON and a body of bytes. Requests are
`{"id", "op", ...}`; answers `{"id", ...}`, or `{"id", "refused": exit code of the runner, "message": text}`; `{"news": job}`
comes unasked, whenever the runner tells that something changed. The first request is `open`.
"""

from __future__ import annotations

import json
import os
import pwd
import select
import socket
import struct
import sys
import time
from hashlib import sha256

from orchestrator.agent import attempts, blobs, gpus, identity, leases, runner, slurm, storage, utilization
from orchestrator.agent.files import dump_json, ignore_errors, make_folder
from orchestrator.agent.network import interface

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any

    Json = dict[str, Any]

READY = b"\0tune 1\n"  # what comes before it is a login shell's talk
LENGTHS = struct.Struct(">IQ")
IDLE = 900.0  # seconds without a word, after which a server ends: its controller may have vanished without a FIN
BLOCK = 1024 * 1024  # bytes read at once
PROBED = 64 * 1024  # bytes written to see whether anything can be


# ---- the host


def hello(home: str) -> Json:
    """What this host is: see `transports.base.HostFacts`."""
    received = time.time()
    identity.name_state(home)
    disk, (found, trouble) = os.statvfs(home), devices()
    return {
        "hostname": socket.gethostname(),
        "folder": home,
        "python": "%d.%d.%d" % sys.version_info[:3],
        "machine": os.uname().machine,
        "libc": os.confstr("CS_GNU_LIBC_VERSION") or "",
        "cpus": len(os.sched_getaffinity(0)),
        "memory": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "free": disk.f_bavail * disk.f_frsize,
        "boot": identity.boot(),
        "host": identity.host_identity(home),
        "uv": program("uv", [home + "/bin", "~/.local/bin", "~/.cargo/bin"]),
        "devices": found,
        "gpu_trouble": trouble,
        "folder_trouble": folder_trouble(home),
        "ends_at_logout": ends_at_logout(),
        "received": received,
        "clock": time.time(),
    }


def folder_trouble(home: str) -> str:
    """Why nothing can be run or kept in the state folder, as what follows its name; empty where something can. A little is written."""
    disk = os.statvfs(home)
    if disk.f_flag & os.ST_NOEXEC:
        return "is mounted noexec: no environment can be used there"
    if disk.f_files and not disk.f_favail:
        return "has no inodes left: no file can be made there"
    path = "%s/.probe-%s" % (home, os.urandom(6).hex())
    try:
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb", buffering=0) as file:
            file.write(bytes(PROBED))
            os.fsync(file.fileno())  # where a quota is counted late
    except OSError as error:
        return "cannot be written: %s" % error.strerror
    finally:
        ignore_errors(os.unlink, path)
    return ""


def ends_at_logout() -> bool:
    """Does systemd-logind end what this user started over SSH when that session closes?

    https://www.freedesktop.org/software/systemd/man/latest/logind.conf.html: a session's processes are ended with it where
    KillUserProcesses says so. Lingering keeps what the user's own systemd started, not these.
    """
    import subprocess  # noqa: PLC0415 (seldom needed, and slow)

    loginctl = program("loginctl")
    if not loginctl:
        return False
    try:
        # without a session's name it tells of logind itself
        asked = [loginctl, "show-session", *("--property=Kill" + name for name in ("UserProcesses", "OnlyUsers", "ExcludeUsers"))]
        lines = subprocess.run(asked, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, timeout=5, check=True).stdout.decode()
        said = dict(line.split("=", 1) for line in lines.splitlines() if "=" in line)
        user = pwd.getpwuid(os.getuid()).pw_name
    except (OSError, subprocess.SubprocessError, ValueError, KeyError):  # no logind there
        return False
    only = said.get("KillOnlyUsers", "").split()
    return (
        said.get("KillUserProcesses") == "yes"
        and user not in said.get("KillExcludeUsers", "").split()
        and (not only or user in only)
    )


def program(name: str, folders: Sequence[str] = ()) -> str:
    """The path of a program, looked for in some folders and on the PATH; empty when there is none."""
    import shutil  # noqa: PLC0415 (seldom needed, and slow)

    places = [*map(os.path.expanduser, folders), os.environ.get("PATH", os.defpath)]
    return shutil.which(name, path=os.pathsep.join(places)) or ""


def devices() -> tuple[list[Json], str]:
    """NVIDIA devices, and why these may not be all: what nvidia-smi lists, or where it lists nothing, the device nodes."""
    nodes = sorted(int(name[6:]) for name in os.listdir("/dev") if name.startswith("nvidia") and name[6:].isdigit())
    rows, trouble = gpus.query_smi("gpu=index,name,memory.total", 10.0)
    found = [{"index": int(index), "name": name, **memory_of(mib)} for index, name, mib in rows]
    if rows and not trouble and len(rows) < len(nodes):
        trouble = "nvidia-smi lists %d of %d devices" % (len(rows), len(nodes))
    return found or [{"index": index} for index in nodes], trouble


def memory_of(mib: str) -> Json:
    """The memory of a device; nothing where it has none of its own: [N/A]."""
    return {"memory_gib": float(mib) / 1024} if mib.isdecimal() else {}


# ---- serving


class Server:
    """One controller's, over two descriptors. `open` says the state folder and who the controller is."""

    def __init__(self, reading: int, writing: int) -> None:
        self.reading, self.writing = reading, writing
        self.home, self.notify, self.owner = "", "", ""
        self.listener: socket.socket | None = None

    def serve(self) -> None:
        """Answer until the controller goes, or says nothing for long."""
        send(self.writing, READY)
        while True:
            sources = [self.reading] + ([self.listener] if self.listener else [])
            ready = select.select(sources, [], [], IDLE)[0]
            if self.listener and self.listener in ready:
                for job in sorted(heard(self.listener)):
                    self.say({"news": job})
            if self.reading in ready and not self.turn():
                return
            if not ready:
                return
            reap_children()

    def turn(self) -> bool:
        """Answer one request; False when there will be no more."""
        lengths = receive(self.reading, LENGTHS.size)
        if not lengths:
            return False
        header, body = LENGTHS.unpack(lengths)
        request = json.loads(receive(self.reading, header))
        data = receive(self.reading, body)
        said, out = self.answer(request, data)
        if "id" in said:  # it is the frame's own: what a question calls so would be lost
            said, out = runner.refusal(LookupError("an answer to %s has an `id`" % request["op"])), b""
        self.say(dict(said, id=request["id"]), out)
        return True

    def say(self, header: Json, body: bytes = b"") -> None:
        """Send a frame."""
        text = dump_json(header).encode()
        send(self.writing, LENGTHS.pack(len(text), len(body)) + text + body)

    def answer(self, request: Json, body: bytes) -> tuple[Json, bytes]:
        """What a request is answered."""
        if request["op"] == "open":
            return guarded(lambda: (self.open(request), b""))
        if request["op"] == "start":
            request["document"]["spec"].update(notify=self.notify, owner=self.owner)
        for each in request.get("watches", (request,)):
            each["owner"] = self.owner
        return answer(self.home, request, body)

    def open(self, request: Json) -> Json:
        """Take up work in a state folder, and listen for news where `owner` is told of it, in place of an earlier server."""
        self.home = os.path.abspath(os.path.expanduser(request["folder"]))
        for place in ("news", "cache", "envs"):  # as `home.Home.make` does here
            make_folder("%s/%s" % (self.home, place))
        self.owner = request["owner"]
        # by machine: a socket of another one in a home that is shared would hear nothing here
        listener = self.owner + identity.machine()
        self.notify = "%s/news/%s" % (self.home, sha256(listener.encode()).hexdigest()[:16])
        if request["listen"]:
            self.listener = listen(self.notify)
        return {"folder": self.home}


def answer(home: str, request: Json, body: bytes) -> tuple[Json, bytes]:
    """What a request is answered that needs no server."""
    operation = request["op"]
    if operation == "take":
        return guarded(lambda: blobs.take(home, request))
    if operation == "read":
        return guarded(lambda: ({}, read(home, request)))
    if operation == "grow":
        return guarded(lambda: (blobs.grow(home, request, body), b""))
    return guarded(lambda: (QUESTIONS[operation](home, request), b""))


def guarded(call: Callable[[], tuple[Json, bytes]]) -> tuple[Json, bytes]:
    """An answer, or a refusal in words."""
    try:
        return call()
    except runner.REFUSED as error:
        return runner.refusal(error), b""


def start(home: str, request: Json) -> Json:
    """See `transports.base.Transport.start`."""
    return dict(runner.start(blobs.attempt(home, request), request["document"]), clock=time.time())


def read(home: str, request: Json) -> bytes:
    """See `transports.base.Transport.read`."""
    return attempts.read(blobs.whose(home, request), request["path"], request["offset"], request["limit"])


def poll(home: str, request: Json) -> Json:
    """See `transports.base.Transport.poll`."""
    return {"seen": [observe(home, watch) for watch in request["watches"]], "clock": time.time()}


def observe(home: str, watch: Json) -> Json:
    """See `attempts.observe`. Of another controller's attempt nothing is known to this one."""
    try:
        return attempts.observe(blobs.whose(home, watch), watch)
    except PermissionError:
        unknown = {"job": watch["job"], "attempt": watch["attempt"], "phase": "unknown"}
        return dict(unknown, host=identity.host_identity(home))


def stop(home: str, request: Json) -> Json:
    """See `transports.base.Transport.stop`."""
    attempts.stop(blobs.whose(home, request, orders=True), request["grace"])
    return {}


QUESTIONS: Mapping[str, Callable[[str, Json], Json]] = {
    "hello": lambda home, request: hello(home),
    "interface": lambda home, request: {"interface": interface(request["to"])},
    "slurm": slurm.answer,
    "usage": lambda home, request: storage.usage(home),
    "discard": storage.discard,
    "has": blobs.has,
    "have": blobs.have,
    "listing": blobs.listing,
    "leases": lambda home, request: {"leases": leases.leases(home)},
    "utilization": lambda home, request: utilization.utilization(home),
    "start": start,
    "poll": poll,
    "stop": stop,
    "reap": lambda home, request: {"reaped": attempts.reap(blobs.whose(home, request, orders=True))},
}


def listen(path: str) -> socket.socket | None:
    """Hear what runners tell; None where it cannot be: a path may be too long, or on a disk without sockets."""
    aside = "%s.%d" % (path, os.getpid())
    hearing = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    try:
        hearing.bind(aside)
        os.rename(aside, path)
    except OSError:
        return None
    hearing.setblocking(False)
    return hearing


def heard(listener: socket.socket) -> set[str]:
    """Jobs that were told of."""
    jobs = set()
    while True:
        try:
            jobs.add(listener.recv(4096).decode("utf-8", "replace"))
        except BlockingIOError:
            return jobs


def reap_children() -> None:
    """Take leave of supervisors that ended: they are children of this process."""
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        pass


def receive(source: int, size: int) -> bytes:
    """Exactly so many bytes; none when the other side has gone."""
    parts, missing = [], size
    while missing:
        data = os.read(source, min(missing, BLOCK))
        if not data:
            return b""
        parts.append(data)
        missing -= len(data)
    return b"".join(parts)


def send(target: int, data: bytes) -> None:
    """Write all of it."""
    while data:
        data = data[os.write(target, data) :]


def main() -> None:
    """Serve on standard input and output. Nothing else may write to that output."""
    writing = os.dup(1)
    os.dup2(2, 1)
    ignore_errors(Server(0, writing).serve)  # an OSError: the controller went in the middle of a word
    os._exit(0)
