"""TPU chips of a host: which process has them, and whether the lock file of libtpu is a dead one's.

One process has all chips of a host. libtpu says so by a lock on a file that stays when its process is killed; another user can then
not open it, and each next program ends with `The TPU is already in use by process with pid ...`, though nobody has the chips
(https://github.com/jax-ml/jax/issues/10192). So the file counts only with a process that holds its lock or a chip.

Standard library of CPython 3.8 or newer.
"""

from __future__ import annotations

import os

from orchestrator.agent.files import read_bytes
from orchestrator.agent.gpus import describe_process

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

LOCK = "/tmp/libtpu_lockfile"  # noqa: S108 (libtpu's own place)
DEVICES = "/dev"
CHIPS = (("", "accel"), ("vfio/", ""))  # folder there and how names begin, before a number: v2 to v5e, and later ones


def chips() -> list[str]:
    """Files of the chips, in their order."""
    found = []
    for folder, begins in CHIPS:
        try:
            names = os.listdir("%s/%s" % (DEVICES, folder))
        except OSError:
            continue
        numbers = [name[len(begins) :] for name in names if name.startswith(begins)]
        found += [(int(each), "%s/%s%s%s" % (DEVICES, folder, begins, each)) for each in numbers if each.isdecimal()]
    return [path for _, path in sorted(found)]


def tpu_holder() -> str:
    """Who has the chips, in words; empty when nobody has, as far as can be seen."""
    wanted = set(chips())
    for pid in os.listdir("/proc") if wanted else ():
        if pid.isdecimal() and wanted.intersection(_opened(pid)):
            return "a process that is not tune's (%s)" % describe_process(pid)
    pid = _locker()
    return "a process that is not tune's (%s, by %s)" % (describe_process(pid), LOCK) if pid else ""


def clear_stale_lock() -> None:
    """Remove libtpu's lock file when no process holds it or a chip.

    Raises:
        PermissionError: it is another user's, and dead; with the way out.
    """
    if not os.path.lexists(LOCK) or tpu_holder():
        return
    try:
        os.unlink(LOCK)
    except FileNotFoundError:
        pass
    except PermissionError as error:
        text = "%s is another user's and no process holds it, but libtpu takes it for a sign of one: `sudo rm %s`" % (LOCK, LOCK)
        raise PermissionError(text) from error


def _opened(pid: str) -> Iterable[str]:
    """What a process has open; nothing where that cannot be seen."""
    folder = "/proc/%s/fd" % pid
    try:
        return [os.readlink("%s/%s" % (folder, name)) for name in os.listdir(folder)]
    except OSError:
        return ()


def _locker() -> str:
    """The process that holds a lock on libtpu's file, whichever user's; empty when none does."""
    try:
        seen = os.stat(LOCK)
    except OSError:
        return ""
    place = "%02x:%02x:%d" % (os.major(seen.st_dev), os.minor(seen.st_dev), seen.st_ino)
    for line in read_bytes("/proc/locks").decode("ascii", "replace").splitlines():
        words = line.split()
        if len(words) >= 8 and words[-3] == place and words[1] != "->":  # `->` waits for it
            return words[-4]
    return ""
