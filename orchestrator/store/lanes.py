"""The text of a request as the store keeps it, and the lane in which its job waits. Plain values: most commands read no more."""

from __future__ import annotations

import json
import zlib
from base64 import b64decode, b64encode
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote

if TYPE_CHECKING:
    from .database import Database

SWEEP = "sweep"
"""Label of a sweep's jobs: its id. Also the key of a request under which its point stands."""


SHARE = "share"
"""Label of jobs that get devices in turn with those of another value."""


def packed(request: Mapping[str, Any]) -> str:
    """A request's document as the store keeps it."""
    return b64encode(zlib.compress(json.dumps(request, sort_keys=True).encode(), 6)).decode()


def unpacked(text: str) -> dict[str, Any]:
    """The document again."""
    return dict(json.loads(zlib.decompress(b64decode(text))))


def lane(places: Sequence[Mapping[str, Any]]) -> str:
    """The queue in which a job waits: jobs that may run on the same machines of the same targets share one.

    Where the first of a lane finds no room, none behind it does. So a controller reads the heads of the lanes, and not all jobs.

    Args:
        places: as the request has them.
    """
    from hashlib import sha256  # noqa: PLC0415  # only where a job is submitted or a store migrated

    machines = [(place["target"]["name"], [(host["machine"], host["devices"]) for host in place["hosts"]]) for place in places]
    return sha256(json.dumps(machines).encode()).hexdigest()[:16]


def limited(lane: str, group: str, most: int) -> str:
    """The lane of jobs of which so many work at once at most, whatever room there is: `LANE+GROUP=MOST`.

    Args:
        lane: of the machines where they may run.
        group: letters, digits, `.`, `_` and `-`; value of the label `sweep` that its jobs have.
        most: jobs at once.
    """
    return f"{lane}+{group}={most}"


def limit_of(lane: str) -> tuple[str, int] | None:
    """(group, how many at once) of a limited lane, whoever owns it and wherever it is pinned; None for any other."""
    _, plus, rest = lane.partition("@")[0].partition("+")
    group, equals, most = rest.rpartition("=")
    return (group, int(most)) if plus and equals and most.isdigit() else None


def shared(lane: str, labels: Mapping[str, str]) -> str:
    """The lane of jobs with this value of the label `share`, whatever else it says: `LANE~VALUE`. Without one it stays as it is."""
    machines, plus, rest = lane.partition("+")
    return f"{machines}~{quote(labels[SHARE], safe='')}{plus}{rest}" if labels.get(SHARE) else lane


def share_of(lane: str) -> str:
    """The value of the label `share` that the jobs of a lane have; empty where they have none."""
    return unquote(lane.partition("@")[0].partition("+")[0].partition("~")[2])


def pinned(lane: str, positions: Mapping[str, Any]) -> str:
    """The lane of an attempt: one that goes on from a checkpoint waits for the machine where that lies.

    Args:
        lane: of any attempt of the job.
        positions: what the attempt begins with.
    """
    machine = (positions.get("start") or {}).get("machine")
    general = lane.partition("@")[0]
    return f"{general}@{machine}" if machine else general


def owned(lane: str, owner: str) -> str:
    """The lane of a job that a certain state folder follows: `ID/LANE`, so that no lane has jobs of two."""
    if owner and not owner.isalnum():
        raise ValueError(f"owner: should be the id of a state folder, letters and digits, got {owner!r}")
    return f"{owner}/{lane}" if owner else lane


def owner_of(lane: str) -> str:
    """The state folder that follows the jobs of a lane; empty where there is one alone."""
    return lane.partition("/")[0] if "/" in lane else ""


def claim(database: Database, owner: str, is_ours: Callable[[str], bool]) -> int:
    """Give jobs of nobody that have not ended to a state folder; how many.

    Args:
        database: a store that several have in common.
        owner: the id of the state folder.
        is_ours: whether a job's id is of one that was submitted there.
    """
    found = database.read("SELECT id, lane FROM jobs WHERE ended IS NULL")
    ours = [(id, lane) for id, lane in found if not owner_of(lane) and is_ours(id)]
    if ours:
        with database.write(durable=True):
            for id, lane in ours:
                database.execute("UPDATE jobs SET lane = ? WHERE id = ? AND lane = ?", (owned(lane, owner), id, lane))
    return len(ours)
