"""What a state folder holds on its machine, and taking away what was chosen. The standard library of CPython 3.8 or newer.

Attempts lie under HOME/jobs. What several of them share lies under HOME/envs (environments), HOME/cache (models and data, in one
folder a kind) and HOME/blobs (inputs), and an attempt that uses a piece of it has a link to it in its work folder. Where one of
these folders is itself a link, other state folders may use it too, of whose attempts nothing is known here: nothing in it is removed.
"""

from __future__ import annotations

import os
import shutil
import time

from orchestrator.agent import attempts, blobs, slurm_queue
from orchestrator.agent.files import ignore_errors, read_json, remove

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from orchestrator.agent.blobs import Json

SHARED = (("envs", 1), ("cache", 2), ("blobs", 1))  # folder of what is shared, and how deep its pieces lie
GONE = ".pruned-"  # begins the name of what is being removed


def usage(home: str) -> Json:
    """Attempts and shared pieces, with the bytes that removing each would free, and how much of the disk is free."""
    sweep(home)
    found, users = [], {}  # type: ignore[var-annotated]
    for job, number, folder in folders(home):
        for piece in links(home, folder):
            users.setdefault(piece, set()).add(job)
        meta = read_json(folder + "/meta.json") or {}
        about = {"job": job, "attempt": number, "owner": str(meta.get("owner", "")), "alive": attempts.alive(folder)}
        of_job = size(slurm_queue.place(home, about)) if folder.endswith("/%d" % number) else 0
        found.append(dict(about, bytes=size(folder) + of_job, changed=changed(folder)))
    shared = [
        {"piece": piece, "bytes": size(path), "changed": changed(path), "users": sorted(users.get(piece, ()))}
        for piece, path in pieces(home)
    ]
    return {"attempts": found, "shared": shared, "free": shutil.disk_usage(home).free, "clock": time.time()}


def folders(home: str) -> Iterator[tuple[str, int, str]]:
    """(job, attempt, folder) of all attempts; one that several machines share has a folder for each."""
    for job in names(home + "/jobs"):
        for name in names("%s/jobs/%s" % (home, job)):
            number = name.partition("@")[0]
            if number.isdigit():
                yield job, int(number), "%s/jobs/%s/%s" % (home, job, name)


def names(folder: str) -> list[str]:
    """What lies in a folder, without what is hidden; nothing where there is none."""
    try:
        return sorted(name for name in os.listdir(folder) if not name.startswith("."))
    except OSError:
        return []


def pieces(home: str) -> Iterator[tuple[str, str]]:
    """(`envs/NAME`, `cache/KIND/NAME` or `blobs/ADDRESS`, path) of what is shared by the attempts of this state folder alone."""
    for kind, depth in SHARED:
        if os.path.islink("%s/%s" % (home, kind)):
            continue
        for first in names("%s/%s" % (home, kind)):
            if os.path.islink("%s/%s/%s" % (home, kind, first)):
                continue
            for name in [first] if depth == 1 else [first + "/" + each for each in names("%s/%s/%s" % (home, kind, first))]:
                yield "%s/%s" % (kind, name), "%s/%s/%s" % (home, kind, name)


def links(home: str, folder: str) -> set[str]:
    """Shared pieces that an attempt has links to. Links to other places, as to the whole cache, are none."""
    found = set()
    roots = [(kind, depth, os.path.realpath("%s/%s" % (home, kind)) + "/") for kind, depth in SHARED]
    for place, below, files in os.walk(folder + "/work"):
        for name in [*below, *files]:
            path = os.path.join(place, name)
            if not os.path.islink(path):
                continue
            target = os.path.realpath(path)
            for kind, depth, root in roots:
                parts = target[len(root) :].split("/")
                if target.startswith(root) and len(parts) >= depth:
                    found.add("/".join([kind, *parts[:depth]]))
    return found


def size(path: str) -> int:
    """Bytes on the disk that go with a file or folder: a file that has a name elsewhere too stays, and counts nothing."""
    if os.path.islink(path):
        return 0
    if not os.path.isdir(path):
        return own(path)
    total, seen = 0, {}  # type: ignore[var-annotated]
    for place, below, files in os.walk(path):
        total += own(place)
        for name in [*files, *(each for each in below if os.path.islink(os.path.join(place, each)))]:
            try:
                facts = os.lstat(os.path.join(place, name))
            except OSError:
                continue
            key = facts.st_dev, facts.st_ino
            seen[key] = seen.get(key, 0) + 1
            total += facts.st_blocks * 512 if seen[key] == facts.st_nlink else 0
    return total


def own(path: str) -> int:
    """Bytes on the disk of a file, or of a folder without what is in it."""
    try:
        facts = os.lstat(path)
    except OSError:
        return 0
    return facts.st_blocks * 512 if facts.st_nlink == 1 or os.path.isdir(path) else 0


def changed(path: str) -> float:
    """When something was put into a folder last, by this machine's clock."""
    try:
        return os.lstat(path).st_mtime
    except OSError:
        return 0.0


def discard(home: str, request: Json) -> Json:
    """Remove attempts (`attempts`: [job, attempt]) and shared pieces (`shared`: names as `usage` has them).

    An attempt that lives is left, and so is a piece that an attempt has a link to: it is put aside first, and put back where
    an attempt turns out to have begun with it meanwhile.
    """
    freed, left, aside = 0, [], []
    for job, number in request["attempts"]:
        asked = dict(request, job=job, attempt=number)
        try:
            both = {blobs.whose(home, asked), blobs.attempt(home, asked)}
        except PermissionError as error:
            left.append(str(error))
            continue
        alive = [folder for folder in both if attempts.alive(folder)]
        left += ["%s/%s: is alive" % (job, number) for _ in alive]
        for folder in both.difference(alive):
            if os.path.exists(folder):
                freed += size(folder)
                aside.append((folder, put_aside(folder)))
        if not alive:
            freed += size(slurm_queue.place(home, asked))
            slurm_queue.forget(home, asked)
    known = dict(pieces(home))
    moved = [(piece, known[piece], put_aside(known[piece])) for piece in request["shared"] if piece in known]
    used = {piece for _, _, folder in folders(home) for piece in links(home, folder)}
    for piece, path, hidden in moved:
        if piece in used:
            os.rename(hidden, path)
            left.append("%s: is used" % piece)
        else:
            freed += size(hidden)
            aside.append((path, hidden))
    for path, hidden in aside:
        remove(hidden)
        if "/jobs/" in path:
            ignore_errors(os.rmdir, os.path.dirname(path))
    return {"freed": freed, "left": left}


def put_aside(path: str) -> str:
    """Rename something, so that nobody finds it any more; under which name."""
    hidden = "%s/%s%s" % (os.path.dirname(path), GONE, os.path.basename(path))
    remove(hidden)
    os.rename(path, hidden)
    return hidden


def sweep(home: str) -> None:
    """Remove what an interrupted call had put aside an hour ago or earlier."""
    places = [home + "/jobs/" + job for job in names(home + "/jobs")]
    places += [home + "/envs", home + "/blobs", *(home + "/cache/" + kind for kind in names(home + "/cache"))]
    for place in places:
        try:
            old = [name for name in os.listdir(place) if name.startswith(GONE)]
        except OSError:
            continue
        for name in old:
            if time.time() - os.lstat(os.path.join(place, name)).st_ctime > 3600:
                remove(os.path.join(place, name))
