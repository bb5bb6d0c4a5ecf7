"""Files that travel: blobs to a host, and the files of an attempt from it. Used on both sides; comes to hosts with `server`.

A blob is a file or a folder of plain files that is named by what is in it (`address`), kept as HOME/blobs/ADDRESS. While it
comes, in pieces, it is HOME/blobs/ADDRESS.part: whatever has arrived counts, whoever brought it, and is checked at the end.
A piece is (name, offset, length) and its bytes; a file that is a blob by itself has the name `""`. The standard library of
CPython 3.8 or newer.
"""

from __future__ import annotations

import os
from hashlib import sha256
from itertools import chain

from orchestrator.agent.attempts import FOLDER_GONE, located, matching, status
from orchestrator.agent.files import (
    attempt_folder,
    ignore_errors,
    make_folder,
    read_json,
    read_part,
    relative,
    remove,
    write_json,
)
from orchestrator.agent.identity import is_strange, owner_words

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from typing import Any

    Json = dict[str, Any]

HOLDER = "/holder.json"  # of an attempt: which controller has taken it over, and the number of that
BLOCK = 1024 * 1024  # bytes read at once from a file that is summed


def walk(root: str) -> Iterator[str]:
    """Names of all plain files below a folder, sorted by folder, through links; `""` for a plain file itself.

    Raises:
        OSError: something is neither a plain file nor a folder, or links lead in a circle.
    """
    if os.path.isfile(root):
        yield ""
        return
    for entry in sorted(os.listdir(root)):
        path = os.path.join(root, entry)
        if os.path.isdir(path):
            for name in walk(path):
                yield os.path.join(entry, name)
        elif os.path.isfile(path):
            yield entry
        else:
            raise OSError("%r: only plain files and folders can be sent" % path)


def digest(path: str) -> str:
    """sha256 of a file."""
    total = sha256()
    with open(path, "rb", buffering=0) as file:
        while True:
            block = file.read(BLOCK)
            if not block:
                return total.hexdigest()
            total.update(block)


def executable(path: str) -> bool:
    """May its owner run a file?"""
    return bool(os.stat(path).st_mode & 0o100)


def within(root: str, name: str) -> str:
    """The path of a file of a blob; ValueError when its name leads out."""
    return os.path.join(root, relative(name)) if name else root


def address(root: str) -> str:
    """What a blob is called: sha256 over the sums, executable bits and names of its files."""
    total = sha256()
    for name in sorted(walk(root)):
        path = within(root, name)
        total.update(("%s %s %s\0" % (digest(path), "x" if executable(path) else "-", name)).encode("utf-8", "surrogateescape"))
    return total.hexdigest()


def measure(root: str) -> dict[str, int]:
    """Bytes of each file; nothing when there is no such blob."""
    names = walk(root) if os.path.exists(root) else ()
    return {name: os.path.getsize(within(root, name)) for name in names}


def have(home: str, request: Json) -> Json:
    """Of some blobs, which are whole, and what is there of the others."""
    place, wanted = home + "/blobs/", list(map(checked, request["addresses"]))
    whole = [each for each in wanted if os.path.exists(place + each)]
    return {"whole": whole, "parts": {each: measure(place + each + ".part") for each in wanted if each not in whole}}


def checked(text: str) -> str:
    """An address as it is; ValueError when it is none."""
    if len(text) != 64 or not set("0123456789abcdef").issuperset(text):
        raise ValueError("%r: a blob is called by 64 digits of sha256" % text)
    return text


def grow(home: str, request: Json, body: bytes) -> Json:
    """Take pieces of a blob: `pieces` is a list of (name, offset, length). With `seal` it is whole now: check it."""
    final = "%s/blobs/%s" % (home, checked(request["address"]))
    part, at = final + ".part", 0
    if os.path.exists(final):
        return {"whole": True}
    for name, offset, length in request["pieces"]:
        path = within(part, name)
        make_folder(os.path.dirname(path))
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        try:
            write(file, body[at : at + length], offset)
        finally:
            os.close(file)
        at += length
    if request["seal"]:
        seal(part, final, request["executable"])
    return {"whole": request["seal"]}


def write(file: int, data: bytes, offset: int) -> None:
    """Write all bytes at a place of a file."""
    while data:
        done = os.pwrite(file, data, offset)
        data, offset = data[done:], offset + done


def seal(part: str, final: str, executables: Sequence[str]) -> None:
    """Make a blob out of its parts; ValueError, and nothing is left of it, when it is not what its name says."""
    for name in executables:
        os.chmod(within(part, name), 0o700)
    settle([within(part, name) for name in walk(part)])
    if address(part) != os.path.basename(final):
        remove(part)
        raise ValueError("%s: what arrived is something else" % os.path.basename(final))
    try:
        os.rename(part, final)
    except OSError:
        if not os.path.exists(final):  # else another controller brought it
            raise
        remove(part)


def settle(paths: Sequence[str]) -> None:
    """Have files on the disk. Many at once: a disk takes them together, and a hundred cost little more than one."""
    from concurrent.futures import ThreadPoolExecutor  # noqa: PLC0415 (seldom needed, and slow)

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(settled, paths))


def settled(path: str) -> None:
    """Have a file on the disk."""
    with open(path, "rb", buffering=0) as file:
        os.fsync(file.fileno())


# ---- an attempt's files


def attempt(home: str, request: Mapping[str, Any]) -> str:
    """The folder of an attempt."""
    job, folder = request["job"], "%s/jobs/%s/%s" % (home, request["job"], request["attempt"])
    if "/" in job or attempt_folder(folder) != folder:
        raise ValueError("%r: a job is named by letters, digits, `.`, `_` and `-`" % job)
    return folder


def whose(home: str, request: Mapping[str, Any], orders: bool = False) -> str:
    """The folder of an attempt for this machine; PermissionError where it is another controller's than `request["owner"]`.

    Whose attempt it is may read it, and so may who has taken it over, by a `fence` higher than any before; who did that last alone gives
    `orders`: a controller that was stopped meanwhile, and does not know yet, ends nothing.
    """
    folder, asking = located(attempt(home, request)), request.get("owner", "")
    owner = (read_json(folder + "/meta.json") or {}).get("owner", "")
    holder = read_json(folder + HOLDER) or {"owner": owner, "number": 0}
    if owner and request.get("fence", 0) > holder["number"]:
        holder = {"owner": asking, "number": request["fence"]}
        ignore_errors(write_json, folder + HOLDER, holder)  # a full disk: the next look does it
    if is_strange(holder["owner"], asking) and (orders or is_strange(owner, asking)):
        raise PermissionError("%s/%s belongs to %s" % (request["job"], request["attempt"], owner_words(holder["owner"])))
    return folder


def has(home: str, request: Json) -> Json:
    """Is there an attempt, whosever it is, and does this machine know what became of it?"""
    seen = status(located(attempt(home, request)))
    return {"there": seen["phase"] != "unknown" and seen.get("why") != FOLDER_GONE}


def listing(home: str, request: Json) -> Json:
    """Plain files of an attempt that are, or lie below, the names given: (name, bytes, time of change in ns, executable).

    A name that is not there and has a `*` stands for the files that fit it, as in a plan's promise.
    """
    folder, found = whose(home, request), []
    given = [readable(name) for name in request["names"]]
    fits = {name: matching(folder, name) for name in given if "*" in name and not os.path.lexists("%s/%s" % (folder, name))}
    for name in chain.from_iterable(fits.get(name, [name]) for name in given):
        root = "%s/%s" % (folder, name)
        for below in plain(root):
            path = within(root, below)
            facts = os.stat(path)
            found.append((os.path.join(name, below) if below else name, facts.st_size, facts.st_mtime_ns, executable(path)))
    return {"files": sorted(set(found))}


def plain(root: str) -> Iterator[str]:
    """As `walk`, without what is no plain file: a job's pipes and sockets are no results."""
    if os.path.isfile(root):
        yield ""
    for folder, _, names in os.walk(root):
        for name in names:
            path = os.path.join(folder, name)
            if os.path.isfile(path):
                yield os.path.relpath(path, root)


def readable(name: str) -> str:
    """A name as it is; ValueError unless it is `log`, `work` or inside."""
    if name != "log" and relative(name).split("/")[0] != "work":
        raise ValueError("%r: what can be read of an attempt is `log` and `work/...`" % name)
    return name


def take(home: str, request: Json) -> tuple[Json, bytes]:
    """Pieces of an attempt's files, (name, offset, length) each; a file that has become shorter yields less."""
    folder = whose(home, request)
    parts = [read_part("%s/%s" % (folder, readable(name)), offset, length) for name, offset, length in request["pieces"]]
    return {"lengths": list(map(len, parts))}, b"".join(parts)
