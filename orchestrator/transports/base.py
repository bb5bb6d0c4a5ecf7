"""The contract of a transport: start an attempt, look at attempts, stop one, read a file of one.

A transport never decides what a state means for a job; it reports what durable files on the host say.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

from backends.records import dataclass, field

if TYPE_CHECKING:
    from orchestrator.agent.files import Json


Phase = Literal["unknown", "running", "stopping", "kept", "exited", "lost"]
"""`kept`: it has failed, and holds its devices for a while (`Request.keep`)."""

Answer = tuple[dict[str, Any], bytes]
"""What `remote` says to a request, and bytes that go with it."""

Told = Callable[[int, int], None]
"""Is told of progress: bytes done, bytes in all."""


def ignore_progress(done: int, total: int) -> None:
    """Hears of progress, and does not mind."""


HEAD = 256
"""Bytes of a file's beginning, and as many before the byte reached, by which a rewrite is told from an append."""


class TransportError(Exception):
    """The host could not be asked. It says nothing about the job."""


class HostKeyProblem(TransportError):
    """The host is not the one that known_hosts tells of, or known_hosts does not tell. Nothing was sent to it."""


class HostRefused(TransportError):
    """The host answered, and cannot: no room, no permission. Asking again at once is of no use."""


class Conflict(Exception):
    """The same attempt was started before with other contents."""


class Busy(Exception):
    """A device is in use: `device 0 is held by JOB/ATTEMPT of OWNER`. Nothing was started."""

    def __init__(self, text: str, devices: Sequence[int] = ()) -> None:
        """`devices` are all that are known to be in use there, asked for or not."""
        super().__init__(text)
        self.devices = tuple(devices)


@dataclass(frozen=True)
class SshAddress:
    """How to reach one machine over SSH. What is left empty is taken from ssh_config, and where that is silent, is as usual."""

    name: str
    """As people call it: a name of ssh_config, of DNS, or an address."""
    address: str = ""
    """Where to connect to; empty: what `name` stands for."""
    user: str = ""
    port: int | None = None
    identity: str = ""
    """A private key's file on this machine; `~` is the user's home."""
    jump: str = ""
    """Machines to go through, as `ssh -J` takes them: `user@gate:2222,inner`."""
    known_hosts: str = ""
    """The one file of host keys to believe; empty: the user's and the system's."""
    config: str = ""
    """The ssh_config to read; empty: the user's and the system's."""
    folder: str = "~/.tune"
    """State folder on the host; `~` is the home of the user there."""
    interpreter: str = "python3"
    """A CPython >= 3.8 on the host, for the runner: a name on the PATH there, or a path."""
    pinned: str = ""
    """The file of this one host's keys, as whoever made the host told them; `known_hosts` is then for machines on the way."""
    via: str = "auto"
    """Who connects: `fabric`, `ssh` (the program), or `auto`: Fabric where it can honour what ssh_config says, and else ssh."""
    proxy: str = ""
    """A command whose streams are the connection, as ssh_config's ProxyCommand: `%h` and `%p` are address and port. Empty: ssh_config's."""

    @property
    def key(self) -> str:
        """Under which facts about the machine are kept: they are another's when the address, the port or the user changes."""
        return f"{self.user}@{self.address or self.name}:{self.port or ''}"


@dataclass(frozen=True)
class RayAddress:
    """How to reach one machine of a Ray cluster."""

    url: str
    """Of the Jobs API: `http://head:8265`."""
    node: str = ""
    """The machine's address in the cluster; empty: the head."""
    folder: str = "~/.tune"
    """State folder on each node, on a disk of its own; `~` is the home of the user there that Ray runs as."""
    interpreter: str = "python"
    """By which a job of the cluster starts a Python that has Ray."""
    relay: str = ""
    """`HOST:PORT` by which the relay is reached from here, which listens on that port; empty: the head's host, and any port."""

    @property
    def key(self) -> str:
        """Under which facts about the machine are kept."""
        return f"ray {self.url} {self.node}".rstrip()


@dataclass(frozen=True)
class Device:
    """One accelerator of a host."""

    index: int
    name: str = ""
    memory_gib: float | None = None


@dataclass(frozen=True)
class HostFacts:
    """What a host says of itself."""

    hostname: str
    folder: str
    """Its state folder, absolute."""
    python: str
    """Version of the interpreter that serves us: `3.11.2`."""
    machine: str
    """`x86_64`, `aarch64`."""
    libc: str
    """`glibc 2.36`; empty where it is not known."""
    cpus: int
    """That this user's processes may run on."""
    memory: int
    """Bytes of main memory."""
    free: int
    """Bytes free for this user on the disk of the state folder."""
    boot: str
    """Differs after each boot."""
    clock: float
    """Seconds since the epoch, by the host's clock, when it answered."""
    skew: float
    """Seconds by which the host's clock is ahead of ours, to within half a round trip."""
    uv: str
    """Path of a uv program there; empty when there is none."""
    devices: tuple[Device, ...] = ()
    """NVIDIA devices."""
    gpu_trouble: str = ""
    """What nvidia-smi says where it cannot tell of all devices."""
    folder_trouble: str = ""
    """Why nothing can be run or kept in the state folder: noexec, no inodes, a quota; empty where something can."""
    host: str = ""
    """As in `AttemptStatus`."""
    ends_at_logout: bool = False
    """systemd-logind there ends what was started over SSH when that session closes: jobs with it."""
    why_program: str = ""
    """Why the ssh program connects to it, and not Fabric; empty where Fabric does, and without SSH."""


@dataclass(frozen=True)
class Lease:
    """One device of a host in use."""

    device: int
    job: str
    """Empty where a process uses it that is not tune's."""
    attempt: int
    owner: str
    """The controller that asked for it; of jobs in other state folders their user there; without a job, the process in words."""
    accelerator: str = "cpu"
    """`cuda` for a real device, which is one for all users of the machine; with `cpu` the device is a place for a job."""
    unknown: bool = False
    """It is not known whether anybody uses it; `owner` says why."""

    def __str__(self) -> str:
        """As a start is refused for it."""
        if self.unknown:
            return f"device {self.device} is not known to be free: {self.owner}"
        whose = f" of {self.owner}" if self.owner else ""
        return f"device {self.device} is " + (
            f"held by {self.job}/{self.attempt}{whose}" if self.job else f"busy with {self.owner}"
        )


@dataclass(frozen=True)
class DeviceUtilization:
    """How much of one accelerator is used now; None is not known."""

    index: int
    percent: float | None = None
    """Of the time in use, over nvidia-smi's last sample period."""
    memory_used: int | None = None
    """Bytes."""
    memory: int | None = None
    """Bytes that it has."""
    watts: float | None = None
    watts_limit: float | None = None


@dataclass(frozen=True)
class Utilization:
    """How much of a host is used now; None is not known."""

    cpu_percent: float | None
    """Of all processors' time."""
    memory_used: int | None
    """Bytes of main memory that programs could not have any more."""
    memory: int | None
    """Bytes of main memory."""
    devices: tuple[DeviceUtilization, ...] = ()
    """Those of which nvidia-smi told."""
    trouble: str = ""
    """What nvidia-smi says where it cannot tell of all devices."""
    leases: tuple[Lease, ...] = ()
    """Devices in use, by whomever."""


@dataclass(frozen=True)
class Request:
    """One attempt of one job, complete: everything the runner needs to run it without asking anybody."""

    job: str
    attempt: int
    steps: tuple[Mapping[str, Any], ...]
    """In order: `{"name": str, "argv": [str, ...], "made": str}`; with a file `made` in place the step is left out."""
    files: Mapping[str, str]
    """Path relative to the work folder -> text."""
    links: Mapping[str, str]
    """Path relative to the work folder -> what it points to on the host (absolute, or relative to the state folder)."""
    env: Mapping[str, str] = field(default_factory=dict)
    grace: float = 10.0
    """Seconds between asking processes to end and killing them."""
    notify: str = ""
    """A Unix datagram socket that gets the job's id whenever its files change; may be absent or dead."""
    secrets: Mapping[str, str] = field(default_factory=dict, repr=False)
    """Into the environment of the steps, by standard input; never written anywhere."""
    devices: tuple[int, ...] = ()
    """Devices that the attempt has for itself while any process of it lives."""
    accelerator: str = "cpu"
    """What they are. With `cpu` they are places for jobs, counted in this state folder; else nobody else on the machine gets them."""
    occupied: Literal["wait", "use"] = "wait"
    """Whether to take accelerators that processes use which are not tune's."""
    lease: str = ""
    """Who asks for them: a controller, in words for people."""
    allocation: str = ""
    """A file that somebody else keeps locked while the attempt may run, relative to the state folder: whoever granted its devices.
    It does not start without, and ends when the lock is let go of. Empty: the devices are ours to grant."""
    owner: str = ""
    """Whose attempt it is: see `targets.inventory.owner`."""
    keep: float = 0.0
    """Seconds for which it holds its devices after it has failed, for somebody to look."""
    rank: int = 0
    """Which of its hosts this is."""
    hosts: int = 1
    """How many it has. Those that share a home have a folder each."""


@dataclass(frozen=True)
class Watch:
    """What to look at in one attempt."""

    job: str
    attempt: int
    promised: tuple[str, ...] = ()
    """Patterns relative to the work folder (`checkpoint/*.safetensors`): which exist and are not empty?"""
    files: Mapping[str, tuple[int, str]] = field(default_factory=dict)
    """Files to read on: path relative to the work folder -> (byte offset reached, `Chunk.head` given with it).
    Where the file is shorter than the offset or its head differs, it was rewritten and is sent from 0."""
    patterns: tuple[str, ...] = ()
    """Patterns of further files to read: those not in `files` yet are sent from 0."""
    log: int | None = None
    """Send the log from this byte on; None sends nothing of it."""
    whole: tuple[str, ...] = ()
    """Small files to send whole once they are there, relative to the work folder."""
    failed: tuple[str, ...] = ()
    """Such files that are sent once the attempt has ended without success."""
    tail: int = 0
    """Bytes of the log's end to send then."""
    use: bool = False
    """How much are its devices in use? That takes nvidia-smi's time, a second or so."""
    fence: int = 0
    """How often the job was taken over: a higher one than before makes the attempt the asking controller's, there."""


@dataclass(frozen=True)
class Chunk:
    """New bytes of a file."""

    path: str
    offset: int
    """Where `data` begins."""
    data: bytes
    head: str
    """sha256 of the first and the last `min(HEAD, offset + len(data))` bytes of what was read of the file. The next `Watch`
    gives it back; the host compares it over the same bytes, so an append is an append and a rewrite is noticed."""


@dataclass(frozen=True)
class AttemptStatus:
    """What the host says of one attempt."""

    job: str
    attempt: int
    phase: Phase
    step: str = ""
    """Name of the step that runs, or ran last."""
    step_started: float | None = None
    """Seconds since the epoch, by our clock: a host's may be wrong."""
    rc: int | None = None
    signal: int | None = None
    why: str = ""
    """`stopped`, `killed after grace`, `could not start: ...`, `host rebooted`, `supervisor died`, `folder gone`. Of an unknown one:
    why it cannot be known here."""
    cause: str = ""
    """What the host knows of why the step failed: `disk_full`, `out_of_memory`; empty: nothing."""
    evidence: str = ""
    """By what: an error in the log, figures of the disk, the kernel's counts. Without a cause: what speaks against one."""
    orphans: int = 0
    """Processes that a dead supervisor left behind."""
    log_size: int = 0
    host: str = ""
    """Which machine says so, which boot of it, and which state folder there: see `executors.host_identity`."""
    ended: float | None = None
    """Seconds since the epoch, by our clock, when exited."""
    kept_until: float | None = None
    """Seconds since the epoch, by our clock, until which one that is kept holds its devices."""
    chunks: tuple[Chunk, ...] = ()
    log: bytes = field(default=b"", repr=False)
    """New bytes of the log, not more than of one chunk. The phase was read before."""
    exist: tuple[str, ...] = ()
    """Those of `Watch.promised` that exist and are not empty. Read after the phase."""
    whole: Mapping[str, bytes] = field(default_factory=dict, repr=False)
    """Those of `Watch.whole` and `Watch.failed` that are there and not empty."""
    tail: bytes = field(default=b"", repr=False)
    """The log's end, as `Watch.tail` asks for it."""
    use: Mapping[int, float | None] = field(default_factory=dict)
    """Device -> per cent of the time in use, where the watch asked for it and it has NVIDIA devices; None: not known."""


class Transport(Protocol):
    """One machine, or several behind one address."""

    def start(self, request: Request) -> AttemptStatus:
        """Start an attempt; a second call with the same contents starts nothing and answers what is.

        Raises:
            Conflict: this attempt exists with other contents.
            TransportError: the host could not be asked, or has no room.
        """
        ...

    def poll(self, watches: Sequence[Watch]) -> list[AttemptStatus]:
        """Look at many attempts at once, in one round trip. The phase is read before the files: `exited` and no more
        bytes means that there will be none; so do fewer chunks than `attempts.MATCHES`, each of fewer bytes
        than `attempts.CHUNK`.
        """
        ...

    def stop(self, job: str, attempt: int, grace: float) -> None:
        """Ask for the end of an attempt's whole process tree: TERM, then KILL after `grace` seconds. Returns at once."""
        ...

    def reap(self, job: str, attempt: int) -> int:
        """Kill what a dead supervisor left behind; how many processes."""
        ...

    def has(self, job: str, attempt: int) -> bool:
        """Is there such an attempt, whosever it is, and is it known there what became of it?"""
        ...

    def read(self, job: str, attempt: int, path: str, offset: int, limit: int) -> bytes:
        """Bytes of a file of the attempt (`log`, or `work/...`); empty when it does not exist."""
        ...

    def hello(self) -> HostFacts:
        """What the machine says of itself. Takes up to ten seconds where NVIDIA devices are asked."""
        ...

    def interface(self, to: str) -> str:
        """The network interface by which the machine reaches an address; empty where it cannot be told."""
        ...

    def leases(self) -> list[Lease]:
        """Devices in use there, whoever uses them."""
        ...

    def utilization(self) -> Utilization:
        """How much of the machine is used now, and who has its devices. Takes as long as nvidia-smi does there."""
        ...

    def put(self, blobs: Mapping[str, Path], told: Told = ignore_progress) -> None:
        """Bring files and folders to `blobs/ADDRESS` of the state folder: address (`blobs.address`) -> where it lies here.

        What is there is not sent again, nor is what an interrupted call has brought. What arrives is checked there.

        Raises:
            ValueError: a source is not what its address says, or holds something else than plain files and folders.
            TransportError: the host could not be asked, or has no room.
        """
        ...

    def fetch(self, job: str, attempt: int, names: Sequence[str], into: Path, told: Told = ignore_progress) -> list[Path]:
        """Copy files of an attempt (`log`, `work/...`; of a folder, all files in it) to the same names below `into`.

        A name with a `*` stands for the files that fit it, where there is none of just this name.

        A file that is here with the same size and time is left alone, and an interrupted call is gone on with. Links to
        files are followed, links to folders only where named. Names that do not exist yield nothing.

        Returns:
            All of them, also those that were here.

        Raises:
            TransportError: the host could not be asked, or a file became shorter on the way.
        """
        ...

    def usage(self) -> Json:
        """What the state folder there holds: see `agent.storage.usage`."""
        ...

    def discard(self, attempts: Sequence[tuple[str, int]], shared: Sequence[str]) -> Json:
        """Remove attempts (job, attempt) and shared pieces, but what is alive or used: see `agent.storage.discard`. What
        belongs to another controller is left, too.
        """
        ...

    def slurm(self, request: Json) -> Json:
        """Have Slurm's own commands run there: see `agent.slurm` for requests and answers.

        Raises:
            HostRefused: it is no login node.
            TransportError: the host could not be asked. Slurm's own silence is an answer.
        """
        ...

    def close(self) -> None:
        """Let go of connections. Attempts do not notice; the next call connects again."""
        ...
