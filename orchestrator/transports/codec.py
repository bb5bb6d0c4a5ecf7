"""What is asked of the runner and of `remote`, and what they answer, as values of the contract."""

from __future__ import annotations

import time
from base64 import b64decode
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from orchestrator.transports.base import (
    Answer,
    AttemptStatus,
    Busy,
    Chunk,
    Conflict,
    Device,
    HostFacts,
    Lease,
    Refused,
    Request,
    TransportError,
)


def document(request: Request) -> dict[str, Any]:
    """What the runner needs to start an attempt."""
    kept = ("job", "attempt", "env", "grace", "notify", "devices", "accelerator", "occupied", "lease")
    spec = {key: getattr(request, key) for key in kept}
    spec["steps"] = [dict(step) for step in request.steps]
    return {"spec": spec, "files": request.files, "links": request.links, "secrets": request.secrets}


def seen(answer: Mapping[str, Any], ahead: float = 0.0) -> AttemptStatus:
    """What the runner says of an attempt; bytes may have come as base64. Times are given back by our clock, of which the host's
    is so many seconds ahead.
    """
    chunks = tuple(Chunk(**{**chunk, "data": raw(chunk["data"])}) for chunk in answer.get("chunks", ()))
    known = {key: value for key, value in answer.items() if key in AttemptStatus.__dataclass_fields__}
    known |= {name: raw(known[name]) for name in ("log", "tail") if name in known}
    whole = {name: raw(data) for name, data in answer.get("whole", {}).items()}
    times = {name: known[name] - ahead for name in ("step_started", "ended") if known.get(name)}
    return AttemptStatus(**{**known, **times, "chunks": chunks, "whole": whole, "exist": tuple(answer.get("exist", ()))})


def ahead(answer: Mapping[str, Any]) -> float:
    """Seconds by which the clock of the host that has just answered is ahead of ours, less the way of the answer; 0 where the two
    agree to a second, so that a time told twice is the same time.
    """
    found = float(answer["clock"]) - time.time()
    return found if abs(found) > 1.0 else 0.0


def raw(data: str | bytes) -> bytes:
    """Bytes that may have crossed in JSON."""
    return b64decode(data) if isinstance(data, str) else data


def facts(answer: Mapping[str, Any], asked: float) -> HostFacts:
    """What `hello` says; `asked` is when, in seconds since the epoch by our clock."""
    middle = (asked + time.time()) / 2
    known = {key: value for key, value in answer.items() if key in HostFacts.__dataclass_fields__}
    found = tuple(Device(**device) for device in answer["devices"])
    return HostFacts(**{**known, "devices": found, "skew": answer["clock"] - middle})


def leases(answer: Mapping[str, Any]) -> list[Lease]:
    """Devices in use."""
    return [
        Lease(each["device"], each["job"], each["attempt"], each["lease"], each.get("accelerator") or "cpu")
        for each in answer["leases"]
    ]


def refusal(code: int, said: str, devices: Sequence[int] = ()) -> Exception:
    """The error that an exit code of the runner stands for."""
    if code == 5:
        return Busy(said, devices)
    kinds: dict[int, type[Exception]] = {2: ValueError, 3: Conflict, 4: Refused}
    return kinds.get(code, TransportError)(said or f"the runner ended with code {code}")


def settled(answer: Callable[[], Answer], host: str) -> Callable[[], Answer]:
    """A wait for an answer that raises what a refusal stands for."""

    def wait() -> Answer:
        said, body = answer()
        if "refused" in said:
            code, text = int(said["refused"]), str(said["message"])
            raise refusal(code, text if code in (2, 3, 5) else f"{host}: {text}", said.get("devices", ()))
        return said, body

    return wait


def watches(wanted: Iterable[Any]) -> list[dict[str, Any]]:
    """Watches as they cross."""
    return [dict(vars(watch)) for watch in wanted]
