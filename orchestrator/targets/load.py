"""clusters.yaml -> candidates: where jobs can run, and how it is reached. Strict, with line numbers, all problems at once;
without a file there is the target `local`, this machine.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from backends.recipe.building import Unsure, build
from backends.recipe.problems import RecipeError, nearest
from backends.recipe.section import Section
from backends.recipe.yaml_source import Problem, Source, read
from backends.records import replace
from orchestrator.targets.model import Candidate, TargetKind, Targets
from orchestrator.targets.node import Node
from orchestrator.targets.schema import KINDS, ClustersFile, HostSection, LocalSection, MachineSection, SshDefaults, SshSection
from orchestrator.transports.base import Device, HostFacts, SshAddress

if TYPE_CHECKING:
    from pydantic import BaseModel

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]{0,62}")
_Checked = TypeVar("_Checked", bound="Section | BaseModel")
_Others = Callable[[], Mapping[str, TargetKind]]
_Wrong = Callable[..., None]
"""Takes a path and a rule, and where they tell more the value and a hint."""


def find() -> Path | None:
    """The file in force: TUNE_CLUSTERS, ./clusters.yaml, or the one in the user's config folder."""
    named = os.environ.get("TUNE_CLUSTERS")
    config = Path(os.environ.get("XDG_CONFIG_HOME") or "~/.config").expanduser()
    candidates = [Path(named)] if named else [Path("clusters.yaml"), config / "tune" / "clusters.yaml"]
    return next((path for path in candidates if named or path.is_file()), None)


def load(known: Mapping[str, HostFacts] | None = None, others: _Others = dict) -> Targets:
    """All targets.

    Args:
        known: what hosts have said of themselves, by `Node.key`, for what is to be detected.
        others: gives the kinds of targets that executors of other packages run; called where the file names a kind that is not ours.

    Raises:
        RecipeError: the file is wrong; with all problems.
        OSError: the file that TUNE_CLUSTERS names cannot be read.
    """
    path = find()
    if path is None:
        return Targets({"local": _local("local", LocalSection())})
    return parse(path.read_text("utf-8"), str(path), path.parent.absolute(), known or {}, others)


def parse(text: str, name: str, base: Path, known: Mapping[str, HostFacts], others: _Others = dict) -> Targets:
    """The targets that a text tells of. `base` is the folder to which its paths are relative.

    Raises:
        RecipeError: with all problems.
    """
    source = read(text, name)
    problems = list(source.problems)

    def wrong(path: str, rule: str, value: Any = ..., hint: str = "") -> None:
        problems.append(Problem(path, rule, value, source.line(path), hint, source.name))

    file = _checked(ClustersFile, source.values, "", wrong) if source.values or not problems else None
    written = source.values.get("targets")
    entries = {
        target: entry
        for target, values in (written if isinstance(written, dict) else {}).items()
        if (entry := _target(target, values, wrong, others))
    }
    _check_groups(source, wrong)
    defaults = file.defaults if file else SshDefaults()
    remotes = {target: _hosts(entry, defaults) for target, entry in entries.items() if isinstance(entry, SshSection)}
    _check_hosts(remotes, wrong)
    if problems or file is None:
        raise RecipeError(sorted(problems, key=lambda problem: problem.line or 0))
    candidates = {}
    for target, entry in entries.items():
        if isinstance(entry, _Other):
            candidates[target] = entry.kind.candidate(target, entry.section)
        elif isinstance(entry, LocalSection):
            candidates[target] = _local(target, entry)
        else:
            candidates[target] = _remote(target, remotes[target], base, known)
    candidates = candidates if "local" in candidates else {"local": _local("local", LocalSection()), **candidates}
    return Targets(candidates, {group: tuple(names) for group, names in file.groups.items()})


def _target(name: str, values: Any, wrong: _Wrong, others: _Others) -> LocalSection | SshSection | _Other | None:
    """One entry, when it is right."""
    path = f"targets.{name}"
    if not _NAME.fullmatch(name):
        wrong(path, "should be named by letters, digits, - and _, not beginning with -", name)
    if not isinstance(values, dict):
        wrong(path, "should be a section of keys", values)
        return None
    kind = values.get("kind", "ssh" if "hosts" in values else "local")  # then it is the kind that was forgotten
    if isinstance(kind, str) and kind not in KINDS and (theirs := others()).get(kind):
        section = _checked(theirs[kind].section, values, path, wrong)
        return _Other(theirs[kind], section) if section else None
    if not isinstance(kind, str) or kind not in KINDS:
        kinds = list(dict.fromkeys((*KINDS, *others())))
        wrong(f"{path}.kind", f"should be {', '.join(kinds[:-1])} or {kinds[-1]}", kind, nearest(str(kind), kinds))
        return None
    if name == "local" and kind != "local":
        wrong(f"{path}.kind", "should be local: so this machine is called", kind)
    return _checked(KINDS[kind], values, path, wrong)


class _Other(NamedTuple):
    """One entry of a kind that another package runs."""

    kind: TargetKind
    section: Section | BaseModel


def _checked(model: type[_Checked], values: Any, at: str, wrong: _Wrong) -> _Checked | None:
    """The values as a section; None when something is wrong with them."""
    if issubclass(model, Section):
        with suppress(Unsure):
            return build(model, values)
    from orchestrator.targets.complaints import complaints  # noqa: PLC0415  # pydantic is heavy

    found: _Checked | None
    found, all_wrong = complaints(model, values, at)
    for each in all_wrong:
        wrong(*each)
    return found


def _check_groups(source: Source, wrong: _Wrong) -> None:
    """A group has a name of its own and holds targets."""
    groups, targets = source.values.get("groups"), source.values.get("targets")
    known = ["local", *(targets if isinstance(targets, dict) else ())]
    for name, members in groups.items() if isinstance(groups, dict) else ():
        if name in known or not _NAME.fullmatch(name):
            wrong(f"groups.{name}", "should be a name of its own, of letters, digits, - and _", name)
        for at, member in enumerate(members if isinstance(members, list) else ()):
            if isinstance(member, str) and member not in known:
                wrong(f"groups.{name}.{at}", "is not a target", member, nearest(member, known) or f"known: {', '.join(known)}")


def _hosts(entry: SshSection, defaults: SshDefaults) -> list[HostSection]:
    """Hosts with all that is said of them: by themselves, by their target, by the defaults; variables one by one."""
    hosts = []
    for host in entry.hosts:
        merged: dict[str, Any] = {"env": {}}
        for layer in (defaults, entry, host):
            said = {key: getattr(layer, key) for key in layer.given - {"kind", "hosts"}}
            merged |= {**said, "env": {**merged["env"], **said.get("env", {})}}
        hosts.append(HostSection(**merged))
    return hosts


_ALIKE = ("accelerator", "python", "threads")
_WAY = ("address", "port", "user", "identity", "jump", "known_hosts", "via", "folder", "interpreter")


def _check_hosts(remotes: Mapping[str, list[HostSection]], wrong: _Wrong) -> None:
    """One plan is made for all hosts of a target; one name means one machine, and one way to it."""
    machines: dict[str, tuple[str, HostSection]] = {}
    for target, hosts in remotes.items():
        names = {"local"}
        for at, host in enumerate(hosts):
            path, name = f"targets.{target}.hosts.{at}", _name(host)
            where, other = machines.setdefault(name, (path, host))
            for key in _ALIKE:
                if getattr(host, key) != (first := getattr(hosts[0], key)):
                    due = first.get("", first) if isinstance(first, dict) else first
                    wrong(f"{path}.{key}", f"should be {due} as for the target's first host: one plan is made for all of them")
            if name in names:
                wrong(path, "should have a name that no other host of this target has, nor this machine", name)
            elif differing := [key for key in _WAY if getattr(host, key) != getattr(other, key)]:
                wrong(path, f"should have another name than {where}, or the same {' and '.join(differing)}", name)
            names.add(name)


def _name(host: HostSection) -> str:
    return host.name or host.address + (f":{host.port}" if host.port not in (None, 22) else "")


def _remote(name: str, hosts: list[HostSection], base: Path, known: Mapping[str, HostFacts]) -> Candidate:
    nodes = []
    for host in hosts:
        ssh = _address(host, base)
        facts = known.get(ssh.key)
        about = _node(_name(host), host, facts.devices if facts else None)
        nodes.append(replace(about, address=host.inside or host.address, ssh=ssh, offline=host.provision == "offline"))
    candidate = Candidate.of(name, "ssh", nodes, hosts[0].python, hosts[0].threads)
    return _priced(candidate, *(host.price for host in hosts))


def _address(host: HostSection, base: Path) -> SshAddress:
    """Settings of the connection."""
    files = {
        key: os.path.normpath(base / Path(text).expanduser()) if (text := getattr(host, key)) else ""
        for key in ("identity", "known_hosts")
    }
    return SshAddress(
        name=host.address,
        user=host.user or "",
        port=host.port,
        jump=host.jump or "",
        folder=host.folder,
        interpreter=host.interpreter,
        via=host.via,
        **files,
    )


def _local(name: str, entry: LocalSection) -> Candidate:
    seen = () if entry.accelerator == "cpu" else tuple(map(Device, range(nvidia_devices())))
    python = {trainer: str(Path(path).expanduser().absolute()) for trainer, path in entry.python.items()}
    return _priced(Candidate.of(name, "local", [_node("local", entry, seen)], python, entry.threads), entry.price)


def _priced(candidate: Candidate, *prices: float | None) -> Candidate:
    """With what a device of it costs an hour at most, where somebody says so."""
    known = [price for price in prices if price is not None]
    return replace(candidate, settings={**candidate.settings, "price": max(known)}) if known else candidate


def _node(name: str, entry: MachineSection, seen: tuple[Device, ...] | None) -> Node:
    """A machine as the file and the machine itself tell of it; what the file says goes first.

    Args:
        name: of the machine.
        entry: what the file says.
        seen: NVIDIA devices that it has; None while it was not asked.
    """
    cuda = entry.accelerator == "cuda" or (entry.accelerator == "detect" and bool(seen))
    known = seen is not None or entry.accelerator == "cpu" or (entry.accelerator == "cuda" and entry.devices is not None)
    found = seen or ()
    sizes = [device.memory_gib for device in found if device.memory_gib is not None]
    return Node(
        name,
        (entry.devices or (len(found) if cuda else 0) or 1) if known else 0,
        "cuda" if cuda else "cpu",
        entry.memory_gib or (min(sizes) if sizes and cuda else None),
        env=entry.env,
        occupied=entry.occupied,
    )


def nvidia_devices() -> int:
    """NVIDIA devices of this machine, by their device nodes: no driver is asked."""
    return sum(bool(re.fullmatch(r"nvidia\d+", entry.name)) for entry in Path("/dev").glob("nvidia*"))
