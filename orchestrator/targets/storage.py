"""What the state folders of machines hold, as they say it themselves."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, NamedTuple

from orchestrator.targets.inventory import AT_ONCE
from orchestrator.transports.base import TransportError

if TYPE_CHECKING:
    from collections.abc import Callable

    from orchestrator.home import Home
    from orchestrator.targets.node import Node

Attempt = tuple[str, int]
"""A job as a host knows it, and the number."""


class StorageUse(NamedTuple):
    """What one machine's state folder holds."""

    name: str
    attempts: Mapping[Attempt, int]
    """Bytes that removing each would free."""
    shared: Mapping[str, int]
    """`envs/NAME`, `cache/KIND/NAME`, `blobs/ADDRESS` -> bytes."""
    idle: Mapping[str, float]
    """Of these, those that no attempt uses -> when they were last changed, by the clock there."""
    alive: Collection[Attempt]
    """Attempts that run, or belong to another controller."""
    free: int
    """Bytes free on the disk."""
    clock: float
    """Seconds since the epoch, there."""
    fault: str = ""
    """Why nothing is known."""

    @property
    def by_kind(self) -> dict[str, int]:
        """Bytes of `jobs`, `envs`, `cache` and `blobs`."""
        kinds = dict.fromkeys(("jobs", "envs", "cache", "blobs"), 0) | {"jobs": sum(self.attempts.values())}
        for piece, count in self.shared.items():
            kinds[piece.partition("/")[0]] += count
        return kinds


def ask(home: Home, nodes: Mapping[str, Node], say: Callable[[str], None]) -> list[StorageUse]:
    """What each machine holds, all asked at once, in the order of `nodes`."""
    from concurrent.futures import ThreadPoolExecutor  # noqa: PLC0415  # 10 ms, for those who ask

    home.make()
    with ThreadPoolExecutor(min(AT_ONCE, len(nodes) or 1)) as pool:
        found = list(pool.map(lambda node: _held(home, node), nodes.values()))
    for each in found:
        if each.fault:
            say(each.fault)
    return found


def _held(home: Home, node: Node) -> StorageUse:
    """What one machine says. It may say anything: what is not understood is a fault."""
    from orchestrator.targets.connect import connect  # noqa: PLC0415  # subprocess and more, for those who ask

    transport = connect(home, node)
    try:
        answer = transport.usage()
        attempts = [((str(each["job"]), int(each["attempt"])), each) for each in answer["attempts"]]
        shared = {str(each["piece"]): each for each in answer["shared"]}
        sizes: dict[Attempt, int] = {}
        for key, each in attempts:  # several machines of one attempt may share a state folder
            sizes[key] = sizes.get(key, 0) + int(each["bytes"])
        return StorageUse(
            node.name,
            sizes,
            {name: int(each["bytes"]) for name, each in shared.items()},
            {name: float(each["changed"]) for name, each in shared.items() if not each["users"]},
            frozenset(key for key, each in attempts if each["alive"]),
            int(answer["free"]),
            float(answer["clock"]),
        )
    except TransportError as error:
        return StorageUse(node.name, {}, {}, {}, (), 0, 0.0, str(error))
    except (ValueError, LookupError, TypeError):
        return StorageUse(node.name, {}, {}, {}, (), 0, 0.0, f"{node.name}: its answer about its state folder is not understood")
    finally:
        transport.close()
