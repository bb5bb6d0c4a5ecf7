"""Folders that are made once a host, however many jobs want them at the same time. Standard library only."""

import fcntl
import os


def made_once(folder, fill):
    """Call `fill(aside)` unless the folder is ready; True when this call made it.

    One maker at a time (flock, which the kernel drops with its holder). It is made aside and renamed into place with
    `.ready` in it, written last. What `fill` leaves in the aside folder when it fails stays for the next try, so a download
    goes on where it stopped.
    """
    ready = os.path.join(folder, ".ready")
    if os.path.exists(ready):
        return False
    parent, name = os.path.split(folder)
    aside = os.path.join(parent, f".{name}.part")
    os.makedirs(parent, exist_ok=True)
    with open(os.path.join(parent, f".{name}.lock"), "w", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if os.path.exists(ready):
            return False
        os.makedirs(aside, exist_ok=True)
        fill(aside)
        on_disk(aside)
        with open(os.path.join(aside, ".ready"), "w", encoding="utf-8"):
            pass
        remove(folder)
        os.rename(aside, folder)
    return True


def on_disk(folder):
    """Flush the folder's files, so that after a power cut `.ready` is not there without them."""
    for path in [os.path.join(place, name) for place, _, names in os.walk(folder) for name in names]:
        descriptor = os.open(path, os.O_RDONLY)
        os.fsync(descriptor)
        os.close(descriptor)


def remove(folder):
    """Remove a folder, should it be there."""
    import shutil  # noqa: PLC0415 - not where the folder is ready

    shutil.rmtree(folder, ignore_errors=True)


def link_or_copy(source, target):
    """Give a file a second name; across file systems, copy it."""
    import shutil  # noqa: PLC0415 - not where the folder is ready

    if os.path.lexists(target):
        os.remove(target)
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
