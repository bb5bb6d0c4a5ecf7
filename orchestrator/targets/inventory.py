"""What hosts say of themselves: asked of many at once, and kept, so that a plan can be made without asking again."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from backends.records import asdict
from orchestrator.agent.gpus import user_name
from orchestrator.agent.identity import state_id
from orchestrator.targets.node import Node
from orchestrator.transports.base import HostFacts, Lease, TransportError

if TYPE_CHECKING:
    from orchestrator.home import Home


class Snapshot(NamedTuple):
    """What a host says now."""

    facts: HostFacts
    leases: tuple[Lease, ...]
    """Devices in use, by whomever, and by processes that are not tune's."""


AT_ONCE = 32
"""Hosts asked at once. They are waited for, and take little time of ours."""


class Known(NamedTuple):
    """What a host said, and when."""

    facts: HostFacts
    at: float
    """Seconds since the epoch."""
    leases: tuple[Lease, ...] = ()
    """Devices that were in use then."""


def recall(home: Home) -> dict[str, Known]:
    """What is kept, by `Node.key`; what cannot be read, as of another version, is not known."""
    found: dict[str, Known] = {}
    with suppress(OSError, ValueError, LookupError, TypeError, AttributeError):
        for key, each in json.loads(_file(home).read_text("utf-8"))["hosts"].items():
            with suppress(ValueError, LookupError, TypeError):
                found[key] = Known(_checked(each["facts"]), float(each["at"]), _used(each.get("leases", ())))
    return found


def _checked(said: Mapping[str, Any]) -> HostFacts:
    """Facts of the right kinds: a host may say anything.

    Raises:
        ValueError: something is missing, or is of another kind.
    """
    from pydantic import TypeAdapter  # noqa: PLC0415  # not for those who only ask who they are

    return TypeAdapter(HostFacts).validate_python(dict(said))


def _used(said: Iterable[Mapping[str, Any]]) -> tuple[Lease, ...]:
    """Devices in use, of the right kinds. As `_checked`."""
    from pydantic import TypeAdapter  # noqa: PLC0415  # not for those who only ask who they are

    leases = tuple(map(dict, said))
    return TypeAdapter(tuple[Lease, ...]).validate_python(leases) if leases else ()


def keep(home: Home, found: Mapping[str, Snapshot], now: float) -> None:
    """Keep what hosts said, beside what others did; private to the user, whole or not at all."""
    from tempfile import mkstemp  # noqa: PLC0415  # heavy, and a plan keeps nothing

    home.make()
    kept = {**recall(home), **{key: Known(each.facts, now, each.leases) for key, each in found.items()}}
    hosts = {
        key: {"at": each.at, "facts": asdict(each.facts), "leases": list(map(asdict, each.leases))}
        for key, each in sorted(kept.items())
    }
    fd, aside = mkstemp(dir=home.path, prefix="hosts.")  # mode 0600
    with os.fdopen(fd, "w", encoding="utf-8") as out:
        json.dump({"version": 1, "hosts": hosts}, out, indent=1)
    Path(aside).replace(_file(home))


def _file(home: Home) -> Path:
    return home.path / "hosts.json"


def ask(home: Home, nodes: Iterable[Node]) -> dict[str, Snapshot | TransportError]:
    """Ask each machine what it is and has, all at once, and keep what they say.

    Returns:
        The answers, or why there is none, by `Node.key`.
    """
    from concurrent.futures import ThreadPoolExecutor  # noqa: PLC0415  # 10 ms, for those who ask

    asked = {node.key: node for node in nodes}
    with ThreadPoolExecutor(min(AT_ONCE, len(asked) or 1)) as pool:
        found = dict(zip(asked, pool.map(lambda node: _ask(home, node), asked.values()), strict=True))
    news = {key: each for key, each in found.items() if isinstance(each, Snapshot)}
    if news:
        keep(home, news, time.time())
    return found


def _ask(home: Home, node: Node) -> Snapshot | TransportError:
    from orchestrator.targets.connect import connect  # noqa: PLC0415  # subprocess and more, for those who ask

    home.make()
    transport = connect(home, node)
    try:
        return Snapshot(_checked(asdict(transport.hello())), _used(map(asdict, transport.leases())))
    except TransportError as error:
        return error
    except (ValueError, LookupError, TypeError):
        return TransportError(
            f"{node.name if node.remote else 'this machine'}: answers what this version of tune does not understand"
        )
    finally:
        transport.close()


def owner(home: Home) -> str:
    """Whose the jobs of a state folder are: in words for people, and after a `#` by the folder's random id.

    An attempt is known as one's own by either (`agent.identity.is_strange`): after a store was lost, after the machine was renamed.
    """
    return f"{holder(home)}#{state_id(str(home.path))}"


def holder(home: Home) -> str:
    """Who holds devices for the jobs of a state folder, in words for people."""
    return f"{user_name(os.getuid())}@{os.uname().nodename}:{home.path}"
