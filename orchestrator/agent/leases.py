"""Who has which devices of a host: attempts of this state folder, those of others, and processes that are not tune's.

Standard library of CPython 3.8 or newer.
"""

from __future__ import annotations

import errno
import fcntl
import os
import time

from orchestrator.agent.attempts import located, status
from orchestrator.agent.files import attempt_folder, ignore_errors, make_folder, read_bytes, read_json, write_json
from orchestrator.agent.gpus import gpu_names, look_at_gpus, user_name
from orchestrator.agent.identity import machine
from orchestrator.agent.tpus import chips, tpu_holder

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from orchestrator.agent.files import Json

LOOK_SECONDS = 10.0  # for which a look at the processes of accelerators counts: nvidia-smi may take one second itself
ASKED_SECONDS = 600.0  # for which a device that was asked for is told of where it is not known to be free
SOCKET_PREFIX = "tune-device "
UNKNOWN_HOLDER = {"job": "", "attempt": 0, "lease": "a job of another user", "accelerator": ""}


class DevicesBusy(BlockingIOError):
    """Devices that were asked for are in use. `devices` are all that are known to be, asked for or not."""

    def __init__(self, wanted: Mapping[int, Json], others: Iterable[int]) -> None:
        super().__init__(
            "; ".join("device %d is %s" % (device, describe_holder(holder)) for device, holder in sorted(wanted.items()))
        )
        self.devices = sorted({*wanted, *others})


def describe_holder(holder: Json) -> str:
    """Who has a device, in words."""
    if holder.get("unknown"):
        return "not known to be free: %s" % holder["lease"]
    if not holder["job"]:
        return "busy with %s" % holder["lease"]
    return "held by %s/%s%s" % (holder["job"], holder["attempt"], " of " + holder["lease"] if holder["lease"] else "")


def leases_folder(home: str) -> str:
    """Where leases of this machine's devices lie: other machines may have the same state folder, and devices of their own."""
    return "%s/leases/%s" % (home, machine())


def lock_turn(home: str) -> int:
    """A descriptor of the lock under which devices are given away and counted; to be closed."""
    make_folder(leases_folder(home))
    lock = os.open(leases_folder(home) + "/turn", os.O_RDWR | os.O_CREAT, 0o600)
    fcntl.flock(lock, fcntl.LOCK_EX)
    return lock


def lock_device(home: str, device: int) -> tuple[int, Json | None]:
    """A descriptor that holds a device while any process has it open, and None; or -1, and who holds it."""
    path = "%s/%d" % (leases_folder(home), device)
    last = read_json(path + ".json") or {"job": "unknown", "attempt": 0, "lease": ""}
    lock = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        return -1, last
    # a worker may have let go of what it inherited, and outlive both its supervisor and its step; an end that was written tells of none
    before = located("%s/jobs/%s/%d" % (home, last["job"], last["attempt"]))
    if not read_json(before + "/exit.json") and status(before).get("orphans"):
        os.close(lock)
        return -1, last
    return lock, None


def leases(home: str) -> list[Json]:
    """Devices in use, and by whom: by attempts of this state folder, by those of others, by strangers; and those of which
    that is not known.
    """
    beyond = held_elsewhere(home)
    mine = lock_turn(home)
    try:
        found = []
        for device in sorted(int(name) for name in os.listdir(leases_folder(home)) if name.isdigit()):
            lock, holder = lock_device(home, device)
            if holder:
                found.append(dict(holder, device=device))
            else:
                os.close(lock)
        return found + [dict(holder, device=device) for device, holder in sorted(beyond.items())]
    finally:
        os.close(mine)


def on_accelerator(spec: Json) -> bool:
    """Are its devices accelerators, of which a machine has one for all of its users, and no mere places for jobs?"""
    return bool(spec.get("devices")) and spec.get("accelerator", "cpu") != "cpu"


def take(home: str, device: int, spec: Json, held: list[int]) -> Json | None:
    """Hold a device by descriptors that go into `held`; or who holds it."""
    lock, holder = lock_device(home, device)
    if holder:
        return holder
    held.append(lock)
    if on_accelerator(spec):
        card = SOCKET_PREFIX + "%s %s" % (
            spec["accelerator"],
            dict(enumerate(gpu_names(spec["accelerator"]))).get(device, device),
        )
        try:
            held.append(bind_name(card))
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
            return reserved().get(device, UNKNOWN_HOLDER)
        ignore_errors(
            lambda: held.append(bind_name("%s %s %s/%s" % (card, user_name(os.getuid()), spec["job"], spec["attempt"])))
        )
    for each in held:
        os.set_inheritable(each, True)
    return None


def bind_name(name: str) -> int:
    """A descriptor that has a name on this machine, alone, while any process has it open; OSError when another has it.

    It is a socket's that no file stands for: there is no folder that all users would have to be able to write to, and nothing
    that a clean-up of /tmp could take away. Nobody can connect. All users see such names in /proc/net/unix.
    """
    from _socket import AF_UNIX, SOCK_STREAM, socket  # noqa: PLC0415 (only accelerators need it)

    mine = socket(AF_UNIX, SOCK_STREAM)
    try:
        mine.bind(b"\0" + name.encode()[:107])  # as many as the kernel takes
        return mine.detach()
    finally:
        mine.close()


def reserved() -> dict[int, Json]:
    """Accelerators that attempts hold, of whichever state folder. Anybody may have written what is read there."""
    found: dict[int, Json] = {}
    for line in read_bytes("/proc/net/unix").decode("utf-8", "replace").splitlines():
        kind, name, user, attempt = [*line.partition(" @" + SOCKET_PREFIX)[2].split(), "", "", "", ""][:4]
        places = gpu_names(kind)
        if name in places or name.isdecimal():
            device = places.index(name) if name in places else int(name)
            job, _, number = attempt.partition("/")
            holder = {"job": job, "attempt": int(number) if number.isdecimal() else 0, "lease": user, "accelerator": kind}
            if job or device not in found:
                found[device] = holder if job else dict(UNKNOWN_HOLDER, accelerator=kind)
    return found


def held_elsewhere(home: str, occupied: str = "wait", asked: Sequence[int] = ()) -> dict[int, Json]:
    """Accelerators that are not for attempts of this state folder: those of attempts of other folders and, unless `occupied` is
    `use`, those that strangers use, or of which nobody knows whether they do. `asked` are NVIDIA devices that a start wants.
    """
    found: dict[int, Json] = {}
    if occupied == "wait":
        look = foreign_use(home, asked)
        found = {device: stranger(why, unknown=True) for device, why in look["unknown"].items()}
        found.update({device: stranger(who) for device, who in look["busy"].items()})
        found.update(foreign_tpus())
    return {**found, **{device: holder for device, holder in reserved().items() if not is_ours(home, holder)}}


def stranger(text: str, unknown: bool = False) -> Json:
    """The holder of a device that no attempt holds: what uses it, or why that is not known."""
    return dict(UNKNOWN_HOLDER, lease=text, accelerator="cuda", unknown=unknown)


def foreign_tpus() -> dict[int, Json]:
    """TPU chips that a process has which belongs to no attempt of anybody."""
    count = len(chips())
    if not count or any(holder["accelerator"] == "tpu" for holder in reserved().values()):
        return {}
    who = tpu_holder()
    return {device: dict(stranger(who), accelerator="tpu") for device in range(count)} if who else {}


def is_ours(home: str, holder: Json) -> bool:
    """Is it an attempt of this state folder?"""
    try:
        folder = attempt_folder("%s/jobs/%s/%d" % (home, holder["job"], holder["attempt"]))
    except ValueError:
        return False
    return holder["lease"] == user_name(os.getuid()) and os.path.exists(folder)


def foreign_use(home: str, asked: Sequence[int] = ()) -> Json:
    """NVIDIA devices that processes use which belong to no attempt of anybody (`busy`), and those of which that is not known
    (`unknown`), each with a text; as they were LOOK_SECONDS ago at most.

    Devices that a start asked for are told of for a while: whoever waits for one asks what is in use, and does not try.
    """
    now, path = time.time(), leases_folder(home) + "/look.json"
    look = read_json(path) or {}
    fresh = "free" in look and 0.0 <= now - look["at"] < LOOK_SECONDS
    wanted = {int(device): when for device, when in look.get("asked", {}).items() if 0.0 <= now - when < ASKED_SECONDS}
    if not fresh:
        known = reserved()  # before the look: an attempt that ends in between is no stranger
        look = dict(look_at_gpus(), at=now)
        for kind in ("busy", "unknown"):
            look[kind] = {str(device): text for device, text in look[kind].items() if device not in known}
        look["free"] += sorted(known)
    missing = {*asked} - wanted.keys()
    if missing or not fresh:
        wanted.update(dict.fromkeys(asked, now))
        make_folder(leases_folder(home))
        ignore_errors(write_json, path, dict(look, asked=wanted))
    busy, unknown = ({int(device): text for device, text in look[kind].items()} for kind in ("busy", "unknown"))
    if look["rest"]:
        others = {*wanted, *range(len(gpu_names("cuda")))} - {*busy, *unknown, *look["free"]}
        unknown.update(dict.fromkeys(others, look["rest"]))
    return {"busy": busy, "unknown": unknown}
