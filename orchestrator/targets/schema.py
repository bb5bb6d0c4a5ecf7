"""The schema of clusters.yaml: what its sections may say, and what the values mean."""

import re
from collections.abc import Callable
from functools import partial
from typing import Annotated, Any, Literal

from backends.recipe.section import AfterCheck, BeforeCheck, Limits, Section
from orchestrator.transports.ssh.names import HOP, NAME, USER


def text(right: Callable[[str], object], rule: str) -> AfterCheck:
    """A text that is right. What reaches ssh is looked at twice: here, where the line is known, and before it is used."""

    def check(text: str) -> str:
        if not right(text):
            raise ValueError(rule)
        return text

    return AfterCheck(check)


def fits(pattern: str) -> Callable[[str], object]:
    """Whether a whole text is as a regular expression says."""
    return partial(re.fullmatch, pattern)  # compiled when something is looked at


_DETECT = BeforeCheck(lambda value: None if value == "detect" else value)
PATH = r"[^\x00-\x1f\x7f]+"
User = Annotated[str, text(USER.fullmatch, "should be a user's name, without blanks, quotes or a leading dash")]
_WORD = "should be a name of ~/.ssh/config, a host name or an address: letters, digits, . _ - : and %"
HostName = Annotated[str, text(NAME.fullmatch, _WORD)]
Address = Annotated[
    str,
    # one colon is no address, but a port; `ssh` would look for a host of that whole name
    text(lambda text: NAME.fullmatch(text) and text.count(":") != 1, f"{_WORD}; user and port are keys of their own"),
]
Jump = Annotated[
    str,
    text(
        lambda text: all(map(HOP.fullmatch, text.split(","))),
        "should be [user@]host[:port], or several of them with commas between",
    ),
]
Folder = Annotated[str, text(fits(rf"/|~|~?/{PATH}"), "should be an absolute path on the host, or one that begins with ~/")]
Absolute = Annotated[str, text(fits(rf"/{PATH}"), "should be an absolute path on the host")]
Program = Annotated[
    str, text(fits(rf"[A-Za-z0-9_]{PATH}|/{PATH}"), "should be a program's name or its absolute path on the host")
]
Mine = Annotated[str, text(fits(rf"(?!~[^/]){PATH}"), "should be a path of this machine; ~ is your own home, nobody else's")]


def _by_trainer(value: object) -> object:
    """`python:` is a path for all trainers, which is kept by the name "", or paths by trainer."""
    if not isinstance(value, str | dict | None):
        raise ValueError("should be a path, or paths by trainer")  # noqa: TRY004  # what becomes a problem with its line
    return {"": value} if isinstance(value, str) else value or {}


def _trainer(name: str) -> str:
    if name:
        from backends.registry import names  # noqa: PLC0415  # heavy, and few targets have paths by trainer
        from backends.stages.registry import STAGES  # noqa: PLC0415

        if name not in (every := (*names(), *STAGES)):
            raise ValueError(f"should be a path, or paths by trainer: {', '.join(every)}")
    return name


Trainer = Annotated[str, AfterCheck(_trainer)]
MyPython = Annotated[dict[Trainer, Mine], BeforeCheck(_by_trainer)]
Python = Annotated[dict[Trainer, Absolute], BeforeCheck(_by_trainer)]
Variable = Annotated[
    str,
    text(
        fits(r"(?!(?:CUDA_VISIBLE_DEVICES|CUDA_DEVICE_ORDER|TUNE_\w*)$)[A-Za-z_][A-Za-z0-9_]*"),
        "should be a variable's name, and not CUDA_VISIBLE_DEVICES, CUDA_DEVICE_ORDER or TUNE_..., which each job gets for itself",
    ),
]
Value = Annotated[str, text(fits(r"[^\x00]*"), "should be text without NUL")]


class Keys(Section):
    """A section of clusters.yaml."""


class MachineSection(Keys):
    """What a job finds on a machine."""

    accelerator: Literal["detect", "cpu", "cuda"] = "detect"
    devices: Annotated[Annotated[int, Limits(gt=0, le=1024)] | None, _DETECT] = None
    """Accelerators to use; on a CPU machine the jobs that may run side by side. Null or detect: all NVIDIA devices, or 1."""
    memory_gib: Annotated[Annotated[float, Limits(gt=0)] | None, _DETECT] = None
    """Memory of one device in GiB. Null or detect: as the host says."""
    python: MyPython = {}
    """An interpreter there that has the trainer, instead of an environment made from a lock; or one by trainer."""
    threads: Annotated[int, Limits(gt=0, le=4096)] | None = None
    """CPU threads of a job."""
    env: dict[Variable, Value] = {}
    """Variables of every job there. No secrets: those are named in the recipe."""
    price: Annotated[float, Limits(ge=0)] | None = None
    """What one device costs an hour, in whatever currency: `tune fit` tells what a training costs. Null: nobody says."""
    occupied: Literal["wait", "use"] = "wait"
    """What to do with accelerators that processes use which are not tune's: wait until they are free, or use them all the same."""


class LocalSection(MachineSection):
    """This machine."""

    kind: Literal["local"] = "local"


class SshAccess(Keys):
    """How a machine is reached over SSH; what is not said is ssh_config's."""

    user: User | None = None
    port: Annotated[int, Limits(gt=0, lt=65536)] | None = None
    identity: Mine | None = None
    """Private key on this machine; relative to the folder of clusters.yaml."""
    jump: Jump | None = None
    """Hosts to go through, as `ssh -J` takes them."""
    known_hosts: Mine | None = None
    """The one file of host keys to believe. Null: the user's and the system's."""
    via: Literal["auto", "fabric", "ssh"] = "auto"
    """Who connects: the Fabric library, the ssh program, or Fabric wherever it can honour what ssh_config says."""


class SshDefaults(MachineSection, SshAccess):
    """What a host of kind ssh may say; what it does not say is its target's, then that of `defaults`, then ssh_config's."""

    python: Python = {}
    folder: Folder = "~/.tune"
    """State folder on the host: jobs, environments, caches."""
    interpreter: Program = "python3"
    """A Python of 3.8 or later on the host, for what watches over the jobs."""
    provision: Literal["online", "offline"] = "online"
    """Whether the host reaches a package index. Offline: wheels are prepared here and brought along."""


class HostSection(SshDefaults):
    """One host."""

    address: Address
    name: HostName | None = None
    """How it is called in tables. Null: its address, and its port where that is not 22."""
    inside: Address | None = None
    """Address by which the other hosts of a job reach it. Null: `address`."""


class SshSection(SshDefaults):
    """Machines that are reached over SSH; one plan fits all of them."""

    kind: Literal["ssh"]
    hosts: Annotated[
        list[Annotated[HostSection, BeforeCheck(lambda host: {"address": host} if isinstance(host, str) else host)]],
        Limits(min_length=1),
    ]


class ClustersFile(Keys):
    """The file."""

    version: Literal[1]
    defaults: SshDefaults = SshDefaults()
    targets: dict[str, Any]
    groups: dict[str, list[str]] = {}


KINDS: dict[str, type[LocalSection | SshSection]] = {"local": LocalSection, "ssh": SshSection}
