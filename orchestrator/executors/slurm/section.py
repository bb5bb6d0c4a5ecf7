"""What clusters.yaml says of a target of kind slurm, and the values that come of it."""

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any, Literal

from backends.recipe.section import AfterCheck, BeforeCheck, Limits
from orchestrator.agent.slurm_site import minutes
from orchestrator.targets.model import Candidate, TargetKind
from orchestrator.targets.node import Node
from orchestrator.targets.schema import (
    Absolute,
    Address,
    Folder,
    Program,
    Python,
    SshAccess,
    Value,
    Variable,
    fits,
    text,
)
from orchestrator.transports.base import SshAddress

_Word = Annotated[str, text(fits(r"[A-Za-z0-9_][\w.,:@+/-]*"), "should be a name of the site's, without blanks and quotes")]
_Constraint = Annotated[str, text(fits(r"[\w.,:@+/&|*()\[\]-]+"), "should be features as sbatch --constraint takes them")]
_Gres = Annotated[
    str, text(fits(r"[A-Za-z0-9_.-]+(:[A-Za-z0-9_.-]+)?"), "should be gpu or gpu:TYPE; how many follows from the recipe")
]
_Memory = Annotated[str, text(fits(r"\d+[KMGT]?"), "should be a size such as 64G, of each node")]
_Option = Annotated[
    str,
    text(fits(r"--[a-z][a-z0-9-]*([= ][^\x00-\x1f\x7f]*)?"), 'should be one long option of sbatch, such as "--exclusive"'),
]
_OURS = (
    "array",
    "chdir",
    "error",
    "export",
    "input",
    "job-name",
    "nodes",
    "ntasks",
    "ntasks-per-node",
    "output",
    "parsable",
    "wrap",
)
"""Options of sbatch by which a job would not be found again, or not be what the recipe asks for."""


def _time(value: str) -> str:
    if not minutes(value):
        raise ValueError("should be a time as sbatch --time takes it: MINUTES, HH:MM:SS, D-HH or D-HH:MM:SS")
    return value


def _option(value: str) -> str:
    name = value[2:].replace("=", " ").split(" ")[0]
    if name in _OURS:
        raise ValueError(f"--{name} is tune's own to say")
    return value


_NUMBER = BeforeCheck(lambda value: str(value) if type(value) is int else value)


class SlurmSection(SshAccess):
    """A cluster that Slurm runs, or a part of it."""

    kind: Literal["slurm"]
    login: Address | None = None
    """A login node, reached over SSH. Null: this machine is one."""
    folder: Folder = "~/.tune"
    """State folder on the login node; compute nodes have to see it under the same path. Of this machine it is TUNE_HOME."""
    interpreter: Program = "python3"
    """A Python of 3.8 or later, on the login node and on compute nodes."""
    provision: Literal["online", "offline"] = "online"
    """Whether the login node reaches a package index."""
    prepare: Literal["login", "job"] = "login"
    """Where the environment and the model are made: on the login node, or in the job, where policy forbids work there."""
    programs: Absolute | None = None
    """The folder of sbatch, squeue and the others. Null: they are on the PATH."""
    partition: _Word | None = None
    account: _Word | None = None
    qos: _Word | None = None
    constraint: _Constraint | None = None
    reservation: _Word | None = None
    gres: _Gres | None = None
    """By what GPUs are asked for, `--gres=GRES:N`. Null: `--gpus-per-node=N`."""
    time: Annotated[str, _NUMBER, AfterCheck(_time)] | None = None
    """Time limit of a job. Null: the partition's default."""
    signal: Annotated[int, Limits(ge=0, le=65535)] = 60
    """Seconds before the time limit at which a job is told to end; Slurm may be up to a minute early. 0: never."""
    cpus: Annotated[int, Limits(gt=0, le=4096)] | None = None
    """CPUs for each device. Null: `threads`, or what the site gives."""
    memory: _Memory | None = None
    """Main memory of each node. Null: what the site gives."""
    sbatch: list[Annotated[_Option, AfterCheck(_option)]] = []
    """More options, each a line of the script."""
    modules: list[_Word] = []
    """Environment modules to load in the job."""
    container: list[Annotated[str, text(fits(r"[^\x00-\x1f\x7f]+"), "should be a word of a command")]] = []
    """Words of a command before ours, such as [apptainer, exec, --nv, image.sif]. The folder is to be seen in it."""
    interface: Annotated[str, text(fits(r"[A-Za-z0-9_.-]{1,15}"), "should be a network interface, such as ib0")] | None = None
    """By which the nodes of a job meet. Null: the one that leads to the first of them."""
    pace: Annotated[float, Limits(ge=1, le=3600)] = 15
    """Seconds between two calls of squeue, at most one for all jobs; sooner after our own actions."""
    queued: Annotated[int, Limits(gt=0)] = 500
    """Jobs of ours in Slurm's queue at once; others wait in tune's."""
    nodes: Annotated[int, Limits(gt=0, le=100_000)] = 1
    """Nodes that a job may have at most."""
    accelerator: Literal["cpu", "cuda"] = "cpu"
    devices: Annotated[int, Limits(gt=0, le=1024)] = 1
    """Accelerators of each node; with `cpu` the jobs that fit on one."""
    memory_gib: Annotated[float, Limits(gt=0)] | None = None
    """Memory of one device in GiB."""
    python: Python = {}
    """An interpreter there that has the trainer, instead of an environment made from a lock."""
    threads: Annotated[int, Limits(gt=0, le=4096)] | None = None
    env: dict[Variable, Value] = {}
    """Variables of every job, and of Slurm's own commands."""

    def check_whole(self) -> None:
        """Keys that need each other."""
        if self.login is None and (said := {"user", "port", "identity", "jump", "known_hosts", "via", "folder"} & self.given):
            raise ValueError(f"{', '.join(sorted(said))} says how a login node is reached: name it with `login:`")
        if self.gres and self.accelerator != "cuda":
            raise ValueError("gres asks for GPUs: say `accelerator: cuda`, too")


@dataclass(frozen=True)
class Site:
    """What the executor has to know of a target, as it is kept with a job. Empty means: as the site does."""

    interpreter: str = "python3"
    prepare: str = "login"
    programs: str = ""
    partition: str = ""
    account: str = ""
    qos: str = ""
    constraint: str = ""
    reservation: str = ""
    gres: str = ""
    time: str = ""
    signal: int = 60
    cpus: int = 0
    memory: str = ""
    sbatch: tuple[str, ...] = ()
    modules: tuple[str, ...] = ()
    container: tuple[str, ...] = ()
    interface: str = ""
    pace: float = 15.0
    queued: int = 500
    cuda: bool = False

    @classmethod
    def of(cls, candidate: Candidate) -> "Site":
        """Of a target; a key that an older or newer release wrote alone has its default."""
        known = {each.name for each in fields(cls)}
        values = {name: value for name, value in candidate.settings.items() if name in known}
        made: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}
        return cls(**made)


def candidate(name: str, section: SlurmSection) -> Candidate:
    """Where jobs of a target may run: nodes alike, as many as one job may have, behind one login node."""
    ssh = None
    if section.login:
        files = {
            key: str(Path(path).expanduser().absolute()) if (path := getattr(section, key)) else ""
            for key in ("identity", "known_hosts")
        }
        ssh = SshAddress(
            section.login,
            user=section.user or "",
            port=section.port,
            jump=section.jump or "",
            folder=section.folder,
            interpreter=section.interpreter,
            via=section.via,
            **files,
        )
    node = Node(
        f"{name} (Slurm)",
        section.devices,
        section.accelerator,
        section.memory_gib,
        env=section.env,
        ssh=ssh,
        offline=section.provision == "offline",
        count=section.nodes,
    )
    values: dict[str, Any] = {each.name: getattr(section, each.name, None) for each in fields(Site) if each.name != "cuda"}
    values["cpus"] = section.cpus or section.threads or 0
    values["cuda"] = section.accelerator == "cuda"
    made = Candidate.of(name, "slurm", [node], section.python, section.threads)
    return Candidate(
        made.target, made.kind, made.nodes, {key: value for key, value in values.items() if value not in (None, "", [])}
    )


KIND = TargetKind(SlurmSection, candidate)
