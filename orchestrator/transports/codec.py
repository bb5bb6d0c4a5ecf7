"""What is asked of the agent, and what it answers, as values of the contract."""

from __future__ import annotations

import time
from base64 import b64decode
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, get_args

from orchestrator.agent import attempts
from orchestrator.transports.base import (
    Answer,
    AttemptStatus,
    Busy,
    Chunk,
    Conflict,
    Device,
    DeviceUtilization,
    HostFacts,
    HostRefused,
    Lease,
    Phase,
    Request,
    TransportError,
    Utilization,
    Watch,
)

if TYPE_CHECKING:
    from orchestrator.agent.files import Json

SMALL = 1 << 20
"""Bytes of an answer without files."""
LISTING = 32 << 20
"""Bytes of an answer that names files."""
LATEST = 1e11
"""Seconds since the epoch; times are before that."""
KINDS: Mapping[str, type | tuple[type, ...]] = {
    **dict.fromkeys(("job", "phase", "step", "why", "cause", "evidence", "host"), str),
    **dict.fromkeys(("attempt", "orphans", "log_size"), int),
    **dict.fromkeys(("rc", "signal"), (int, type(None))),
    **dict.fromkeys(("step_started", "ended", "kept_until"), (int, float, type(None))),
}
"""Plain fields of a status."""
MATCHES = 8
"""New files that one pattern of a watch finds in one poll; the next polls bring more."""


def document(request: Request) -> Json:
    """What the runner needs to start an attempt."""
    kept = ("job", "attempt", "env", "grace", "notify", "devices", "accelerator", "occupied", "lease", "allocation")
    spec = {key: getattr(request, key) for key in (*kept, "owner", "keep", "rank", "hosts")}
    spec["steps"] = [dict(step) for step in request.steps]
    return {"spec": spec, "files": request.files, "links": request.links, "secrets": request.secrets}


def status(answer: Json, ahead: float = 0.0) -> AttemptStatus:
    """What a host says of an attempt; bytes may have come as base64. Times are given back by our clock.

    Args:
        answer: of the host.
        ahead: seconds by which its clock is ahead of ours.

    Raises:
        ValueError, TypeError, LookupError: it is not of the right kinds (see `checked`).
    """
    known = {key: value for key, value in answer.items() if key in KINDS}
    for key, value in known.items():
        if not isinstance(value, KINDS[key]) or isinstance(value, bool):
            raise TypeError(f"{key} should be of another kind than {type(value).__name__}")
    if known["phase"] not in get_args(Phase):
        raise ValueError("there is no such phase")
    for key in ("step_started", "ended", "kept_until"):
        if known.get(key):
            known[key] = min(max(0.0, known[key] - ahead), LATEST)  # a clock that jumped is no reason to lose the rest
    return AttemptStatus(
        **known,
        chunks=tuple(Chunk(**{**chunk, "data": raw(chunk["data"])}) for chunk in answer.get("chunks", ())),
        log=raw(answer.get("log", b"")),
        tail=raw(answer.get("tail", b"")),
        use={int(device): None if share is None else float(share) for device, share in answer.get("use", {}).items()},
        whole={name: raw(data) for name, data in answer.get("whole", {}).items()},
        exist=tuple(map(str, answer.get("exist", ()))),
    )


def statuses(answer: Json, wanted: Sequence[Watch]) -> list[AttemptStatus]:
    """One status for each watch, in its order. Raises as `status`."""
    difference = ahead(answer)
    found = [status(each, difference) for each in answer["seen"]]
    if [(each.job, each.attempt) for each in found] != [(watch.job, watch.attempt) for watch in wanted]:
        raise ValueError("these are not the attempts that were asked for")
    return found


@contextmanager
def checked(host: str) -> Iterator[None]:
    """For answers of a host: whatever is wrong with one is a TransportError, in which nothing of it is quoted."""
    try:
        yield
    except (ValueError, TypeError, LookupError, AttributeError, ArithmeticError, RecursionError):
        raise TransportError(f"{host}: its answer is not understood: is another version of tune at work there?") from None


def ahead(answer: Json) -> float:
    """Seconds by which the clock of the host that has just answered is ahead of ours, less the way of the answer; 0 where the two
    agree to a second, so that a time told twice is the same time.
    """
    found = float(answer["clock"]) - time.time()
    return found if abs(found) > 1.0 else 0.0


def raw(data: str | bytes) -> bytes:
    """Bytes that may have crossed in JSON."""
    if isinstance(data, str):
        return b64decode(data, validate=True)
    if isinstance(data, bytes):
        return data
    raise TypeError("bytes come as they are, or as base64")


def facts(answer: Json, asked: float) -> HostFacts:
    """What `hello` says; `asked` is when, in seconds since the epoch by our clock."""
    # as NTP does: the way there and the way back, without the time that the host took in between
    skew = ((answer["received"] - asked) + (answer["clock"] - time.time())) / 2
    known = {key: value for key, value in answer.items() if key in HostFacts.__dataclass_fields__}
    found = tuple(Device(**device) for device in answer["devices"])
    return HostFacts(**{**known, "devices": found, "skew": skew})


def leases(answer: Json) -> list[Lease]:
    """Devices in use."""
    return [
        Lease(
            int(each["device"]),
            str(each["job"]),
            int(each["attempt"]),
            str(each["lease"]),
            str(each.get("accelerator") or "cpu"),
            bool(each.get("unknown")),
        )
        for each in answer["leases"]
    ]


def utilization(answer: Json) -> Utilization:
    """How much of a host is used."""
    devices = tuple(
        DeviceUtilization(
            int(each["index"]),
            _figure(each["percent"]),
            _bytes(each["memory_used"]),
            _bytes(each["memory"]),
            _figure(each["watts"]),
            _figure(each["watts_limit"]),
        )
        for each in answer["devices"]
    )
    return Utilization(
        _figure(answer["cpu_percent"]),
        _bytes(answer["memory_used"]),
        _bytes(answer["memory"]),
        devices,
        str(answer["trouble"]),
        tuple(leases(answer)),
    )


def _figure(value: float | None) -> float | None:
    """A figure of a host, or None; ValueError where it is none, so that no sum of ours is spoilt."""
    if value is None:
        return None
    if isinstance(value, bool) or not 0.0 <= float(value) < 1e18:
        raise ValueError("a figure is a number from 0")
    return float(value)


def _bytes(value: float | None) -> int | None:
    """As `_figure`."""
    found = _figure(value)
    return None if found is None else int(found)


def refusal(code: int, message: str, devices: Sequence[int] = ()) -> Exception:
    """The error that an exit code of the runner stands for."""
    if code == 5:
        return Busy(message, devices)
    kinds: dict[int, type[Exception]] = {2: ValueError, 3: Conflict, 4: HostRefused}
    return kinds.get(code, TransportError)(message or f"the runner ended with code {code}")


def settled(answer: Callable[[], Answer], host: str) -> Callable[[], Answer]:
    """A wait for an answer that raises what a refusal stands for."""

    def wait() -> Answer:
        header, body = answer()
        if "refused" not in header:
            return header, body
        with checked(host):
            code, text = int(header["refused"]), str(header["message"])
            devices = [int(device) for device in header.get("devices", ())]
        raise refusal(code, text if code in (2, 3, 5) else f"{host}: {text}", devices)

    return wait


def answer_limit(request: Json) -> int:
    """Bytes that the answer to a request may have. Bytes of files come as base64 but in answers to `read` and `take`."""
    operation = request["op"]
    if operation == "read":
        return int(request["limit"]) + SMALL
    if operation == "take":
        return sum(int(length) for _, _, length in request["pieces"]) + SMALL
    if operation == "poll":
        return sum(map(_watch_limit, request["watches"])) + SMALL
    return LISTING if operation in ("listing", "have", "slurm", "usage", "discard") else SMALL


def _watch_limit(watch: Json) -> int:
    """Of one watch: what it reads on, a few files that it finds, files that come whole, and the log."""
    pieces = int(watch["log"] is not None) + len(watch["files"]) + attempts.MATCHES * len(watch["patterns"])
    whole = attempts.WHOLE if watch["whole"] or watch["failed"] else 0
    return (pieces * attempts.CHUNK + whole + int(watch["tail"])) * 4 // 3 + SMALL


def watches(wanted: Iterable[Any]) -> list[Json]:
    """Watches as they cross."""
    return [dict(vars(watch)) for watch in wanted]
