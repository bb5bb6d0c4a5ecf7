"""What clusters.yaml says of a target of kind tpu, and the values that come of it."""

from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from backends.recipe.section import AfterCheck, BeforeCheck, Limits
from backends.tpu import NoSlice, TpuSlice
from orchestrator.executors.tpu.site import RUNTIMES, TpuSite
from orchestrator.executors.tpu.slices import NAME
from orchestrator.targets.model import Candidate, TargetKind
from orchestrator.targets.node import Node
from orchestrator.targets.schema import Address, Folder, Keys, Mine, Program, Python, SshAccess, Value, Variable, fits, text
from orchestrator.transports.base import SshAddress

if TYPE_CHECKING:
    from orchestrator.agent.files import Json

PINNED = "hostkeys"
"""Folder of the state folder with the host keys that workers told their cloud, a file each."""

TUNNEL = "gcloud compute start-iap-tunnel %h %p --listen-on-stdin --project={project} --zone={zone} --verbosity=warning"
"""How workers are reached through Identity-Aware Proxy, as gcloud does it itself (`tpu-vm ssh --tunnel-through-iap`; google-cloud-sdk,
command_lib/util/ssh/ssh.py). The zone is that of the slice."""


def _slice(name: str) -> str:
    return TpuSlice.named(name).name


def _one(value: object) -> object:
    return value if isinstance(value, list) else [value]


def _public_key(path: str) -> str:
    """The text of a public key. A private one, named by mistake, must not get into metadata.

    Raises:
        NoSlice: it cannot be read, or is none.
    """
    try:
        words = Path(path).expanduser().read_text("utf-8").split()
    except (OSError, UnicodeDecodeError) as error:
        raise NoSlice(f"{getattr(error, 'strerror', None) or 'is no text'}") from None
    if len(words) < 2 or not words[0].startswith(("ssh-", "ecdsa-", "sk-")):
        raise NoSlice("should be a public key, one line that begins with its type, such as id_ed25519.pub")
    return " ".join(words[:2])


def _with_key(path: str) -> str:
    _public_key(path)
    return path


_Type = Annotated[str, AfterCheck(_slice)]
_Zone = Annotated[str, text(fits(r"[a-z]+-[a-z]+\d+-[a-z]"), "should be a zone, such as us-central2-b")]
_Project = Annotated[str, text(fits(r"[a-z][a-z0-9.:-]{4,61}[a-z0-9]"), "should be the id of a project")]
_Name = Annotated[str, text(NAME.fullmatch, "should be the name of a TPU VM: small letters, digits and -")]
_Word = Annotated[str, text(fits(r"[A-Za-z0-9][A-Za-z0-9._/@-]*"), "should be a name of Google Cloud, without blanks and quotes")]
_Label = Annotated[str, text(fits(r"[a-z0-9_-]{0,63}"), "should be small letters, digits, - and _, at most 63")]


class QueuedSection(Keys):
    """A slice that is asked for when a job wants it."""

    runtime: _Word | None = None
    """Image of the VMs. Null: the usual one of the version."""
    spot: bool = False
    """Cheaper, and may be preempted at any time."""
    reserved: bool = False
    """Out of a reservation of the project."""
    valid_for: Annotated[int, Limits(gt=0, le=100_000)] | None = None
    """Minutes that a request may wait before the next zone or type is tried. Null: without an end."""
    idle: Annotated[int, Limits(ge=0, le=100_000)] = 0
    """Minutes for which a slice is kept that no job wants; it costs what it costs with one."""
    most: Annotated[int, Limits(gt=0, le=100)] = 1
    """Slices at once, each with a job of its own."""
    network: _Word | None = None
    subnetwork: _Word | None = None
    service_account: _Word | None = None
    public_key: Annotated[Mine, AfterCheck(_with_key)] | None = None
    """File of the public key that is let in as `user`, put into the VMs' metadata. Null: OS Login or the project's keys let us in."""
    labels: dict[_Label, _Label] = {}

    def check_whole(self) -> None:
        """Keys that exclude each other."""
        if self.spot and self.reserved:
            raise ValueError("a slice is spot, or out of a reservation")


class TpuSection(SshAccess):
    """A TPU VM, or a slice of several: `name` of one that there is, `hosts` that can be reached over SSH, or one that is `queued` for."""

    kind: Literal["tpu"]
    type: Annotated[list[_Type], BeforeCheck(_one), Limits(min_length=1)]
    """Version and size, `v5e-16`; of a queued one several in the order of preference, with as many hosts and chips each."""
    slices: Annotated[int, Limits(gt=0, le=256)] = 1
    """So many of the type train as one job (multislice), each with all weights and with rows of its own."""
    name: _Name | None = None
    """Of a slice that there is; of several the prefix of NAME-0, NAME-1, ..."""
    hosts: list[Address] | None = None
    """Addresses of the workers by slice and number, worker 0 first; no API is asked."""
    queued: QueuedSection | None = None
    project: _Project | None = None
    zone: Annotated[list[_Zone], BeforeCheck(_one)] = []
    """Where it is; of a queued one several in the order of preference."""
    addresses: Literal["external", "internal"] = "external"
    """By which the workers are reached from here; internal from within their network, with `jump` or with `iap`."""
    iap: bool = False
    """The workers are reached through Identity-Aware Proxy, by gcloud's tunnel, which has to be installed here and let in by a firewall
    rule."""
    price: Annotated[float, Limits(ge=0)] | None = None
    """Of a chip and hour, in any currency; `tune targets` then says what a slice has cost."""
    accelerator: Literal["tpu", "cpu"] = "tpu"
    """`cpu` leaves the chips alone: a rehearsal on the VMs' CPUs."""
    devices: Annotated[int, Limits(gt=0, le=1024)] | None = None
    """Devices of each host. Null: as the type has them, on cpu 1."""
    pace: Annotated[float, Limits(gt=0, le=3600)] = 15
    """Seconds between two looks at the API."""
    folder: Folder = "~/.tune"
    """State folder on each worker."""
    shared: bool = False
    """`folder` is on a disk that all workers of all slices have (Filestore, a mounted bucket), so that a checkpoint outlives its slice."""
    interpreter: Program = "python3"
    provision: Literal["online", "offline"] = "online"
    """Whether the workers reach a package index."""
    python: Python = {}
    threads: Annotated[int, Limits(gt=0, le=4096)] | None = None
    env: dict[Variable, Value] = {}

    def check_whole(self) -> None:
        """Keys that need, or exclude, each other."""
        ways = [key for key in ("name", "hosts", "queued") if getattr(self, key) is not None]
        if len(ways) != 1:
            said = f"got {' and '.join(ways)}" if ways else "got none of them"
            raise ValueError(
                f"should have name (of a slice that there is), hosts (its addresses) or queued (one is asked for): {said}"
            )
        slices = [TpuSlice.named(each) for each in self.type]
        if self.hosts is None and not (self.project and self.zone):
            raise ValueError(f"{ways[0]} is looked up in the Cloud TPU API: say project and zone")
        if self.queued is None and (len(slices) > 1 or len(self.zone) > 1):
            raise ValueError("several types or zones are for `queued`: a slice that there is has one of each")
        if self.hosts is not None and len(self.hosts) != (due := slices[0].hosts * self.slices):
            words = f"{self.slices} slices of {slices[0].words}" if self.slices > 1 else slices[0].words
            raise ValueError(f"{words}: hosts should have {due} addresses, got {len(self.hosts)}")
        if self.iap and (self.hosts is not None or self.jump or self.addresses == "external"):
            raise ValueError("iap is another way than hosts and jump, to workers with `addresses: internal`")
        if len({(each.hosts, each.host_devices) for each in slices}) > 1:
            shapes = "; ".join(each.words for each in slices)
            raise ValueError(f"one plan is made for all types, so they should have as many hosts and chips: {shapes}")
        if self.queued and (late := [each for each in slices if not (self.queued.runtime or each.generation.name in RUNTIMES)]):
            raise ValueError(f"queued.runtime: {late[0].name} has no usual image of the VMs, name one")
        if self.queued and self.queued.public_key and not self.user:
            raise ValueError("queued.public_key lets in `user`: say who that is")


def candidate(name: str, section: TpuSection) -> Candidate:
    """Where jobs of a target may run: its workers, or one node that stands in for them until the API has named them."""
    first = TpuSlice.named(section.type[0])
    files = {
        key: str(Path(said).expanduser().absolute()) for key in ("identity", "known_hosts") if (said := getattr(section, key))
    }
    pinned = "" if section.hosts or section.known_hosts else PINNED
    proxy = TUNNEL.replace("{project}", section.project or "") if section.iap else ""
    ssh = SshAddress(
        "",
        user=section.user or "",
        port=section.port,
        jump=section.jump or "",
        pinned=pinned,
        via=section.via,
        folder=section.folder,
        interpreter=section.interpreter,
        proxy=proxy,
        **files,
    )
    cpu = section.accelerator == "cpu"
    devices = section.devices or (1 if cpu else first.host_devices)
    about = Node(
        f"{name} (TPU)",
        devices,
        section.accelerator,
        None if cpu else first.device_gib,
        env=section.env,
        ssh=ssh,
        offline=section.provision == "offline",
        count=first.hosts * section.slices,
    )
    nodes = [about.named(f"{name}-w-{number}", each, each) for number, each in enumerate(section.hosts or ())]
    made = Candidate.of(name, "tpu", nodes or [about], section.python, section.threads)
    return replace(made, target=replace(made.target, slice=first.name, slices=section.slices), settings=_settings(section))


def _settings(section: TpuSection) -> "Json":
    """`TpuSite` as plain values."""
    slices = [TpuSlice.named(each) for each in section.type]
    queue: Json = {}
    if section.queued:
        queue = {key: value for key, value in section.queued.plain().items() if value not in (None, False, {})}
        if path := queue.pop("public_key", ""):
            queue |= {"key": _public_key(path), "user": section.user}
    site = TpuSite(
        section.project or "",
        tuple(section.zone),
        tuple(each.api for each in slices),
        section.name or "",
        section.addresses == "external",
        section.iap,
        bool(section.known_hosts),
        section.price,
        slices[0].chips * section.slices,
        section.pace,
        section.shared,
        section.queued is not None,
        queue,
        section.slices,
    )
    return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(site).items()}


KIND = TargetKind(TpuSection, candidate)
