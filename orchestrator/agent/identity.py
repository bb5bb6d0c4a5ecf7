"""Which machine this is, which boot of it, and which state folder: what other facts are keyed by.

An address or a home folder does not name a machine: homes are shared by all nodes of a cluster, a name in DNS may lead to any of
several login nodes, and a disk may be cloned or not be mounted. Standard library of CPython 3.8 or newer.
"""

from __future__ import annotations

import os
from binascii import crc32

from orchestrator.agent.files import NAME_CHARACTERS, ignore_errors, make_folder, read_bytes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from orchestrator.agent.files import Json

MACHINE_IDS = ("/etc/machine-id", "/var/lib/dbus/machine-id")  # of systemd, and of older systems
BOOT_ID = "/proc/sys/kernel/random/boot_id"  # differs after each boot of the host
STATE_ID = "/id"  # of a state folder, in it
_texts: dict[str, tuple[tuple[int, ...], str]] = {}  # path -> what tells its file from another, and what was read


def machine() -> str:
    """This machine's name, fit for a path: `node1-1a2b3c4d`.

    The hostname is in it because nodes of a cluster often start from one image and have one machine-id; the machine-id, of which a
    sum stands there, since it is not to be told around, because two networks may have a `node1` each.
    """
    name = os.uname().nodename
    known = next(filter(None, map(_unchanged, MACHINE_IDS)), "")
    return "%s-%08x" % ("".join(each if each in NAME_CHARACTERS else "-" for each in name), crc32((known + name).encode()))


def _read(path: str) -> str:
    try:
        return read_bytes(path).decode("utf-8", "replace").strip()
    except OSError:
        return ""


def _unchanged(path: str) -> str:
    """The text of a file that hardly ever changes and is asked for a dozen times at each start: it is read when it is another file."""
    try:
        found = os.stat(path)
    except OSError:
        return ""
    stamp = found.st_dev, found.st_ino, found.st_mtime_ns, found.st_size
    known = _texts.get(path, ((), ""))
    if known[0] != stamp:
        known = stamp, _read(path)
        if known[1]:  # what could not be read now may be the next time
            _texts[path] = known
    return known[1]


def boot() -> str:
    """This boot of the kernel, which no process outlives. Containers on one machine have it in common."""
    text = _texts.get(BOOT_ID, ((), ""))[1] or _read(BOOT_ID)
    if text:
        _texts[BOOT_ID] = (), text
    return text


def state_id(home: str) -> str:
    """The random id of a state folder; empty where there is none: it is gone, not mounted, or was never used."""
    return _read(home + STATE_ID)


def name_state(home: str) -> str:
    """As `state_id`, but it is made where there is none; of racing makers one wins, on any file system."""
    make_folder(home)
    if not os.path.exists(home + STATE_ID):
        aside = "%s%s.%s" % (home, STATE_ID, os.urandom(6).hex())
        with open(os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(os.urandom(8).hex().encode())
        try:
            os.link(aside, home + STATE_ID)
        except FileExistsError:
            pass
        except OSError:  # no links there
            os.rename(aside, home + STATE_ID)
        ignore_errors(os.unlink, aside)
    return state_id(home)


def host_identity(home: str) -> str:
    """What answers for a state folder: machine, boot and state folder, with spaces between; the last may be empty."""
    return "%s %s %s" % (machine(), boot(), state_id(home))


def owner_words(owner: str) -> str:
    """An owner (`targets.inventory.owner`) as people read it: `anna@lab1:/home/anna/.tune`."""
    return owner.partition("#")[0]


def is_strange(owner: str, asking: str) -> bool:
    """Does an attempt belong to another controller than the one that asks? Each is `WORDS#ID`: whoever lost the one has the other.

    Where either says nothing, as older releases do, nothing is known.
    """
    mine, theirs = asking.partition("#"), owner.partition("#")
    return bool(owner and asking) and mine[0] != theirs[0] and (not mine[2] or mine[2] != theirs[2])


def is_elsewhere(meta: Json) -> bool:
    """Was an attempt, of which this is meta.json, started on another machine, with which this one shares the folder?

    With the same boot it is the same kernel: the machine was renamed, or it is another container of it, which sees the same locks.
    """
    return bool(meta.get("machine")) and meta["machine"] != machine() and meta.get("boot_id", "").strip() != boot()
