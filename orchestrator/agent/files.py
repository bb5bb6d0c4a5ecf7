"""Small files and JSON on a host: read and written whole, names that stay in their folder.

Standard library of CPython 3.8 or newer.
"""

from __future__ import annotations

import errno
import fcntl
import os
from _json import encode_basestring_ascii, make_scanner  # the C half: all of `json` costs each start 8 ms
from binascii import b2a_base64

TYPE_CHECKING = False  # `typing` costs each start some milliseconds
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, BinaryIO

    Json = dict[str, Any]

READ = 32 * 1024  # bytes read at once
DISK_FULL = (errno.ENOSPC, errno.EDQUOT)
NAME_CHARACTERS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-")


def attempt_folder(path: str) -> str:
    """The absolute path of an attempt's folder; ValueError unless it ends in JOB/ATTEMPT."""
    folder = os.path.abspath(path)
    job, attempt = folder.rsplit("/", 2)[-2:]
    if not job or job[0] == "." or not NAME_CHARACTERS.issuperset(job) or not (attempt.isascii() and attempt.isdigit()):
        raise ValueError("%r: a job is named by letters, digits, `.`, `_` and `-`, an attempt by a number" % path)
    return folder


def relative(name: str) -> str:
    """A path as it is; ValueError when it could lead out of its folder."""
    if "\0" in name or not {"", ".", ".."}.isdisjoint(name.split("/")):
        raise ValueError("%r: a path is relative, and without `..`, `.` and empty parts" % name)
    return name


def read_bytes(path: str) -> bytes:
    """All bytes of a file."""
    fd = os.open(path, os.O_RDONLY)  # `open` asks the kernel three times more, and a start reads some twenty files
    try:
        return read_descriptor(fd)
    finally:
        os.close(fd)


def read_descriptor(fd: int) -> bytes:
    """All that comes up to the end."""
    parts = [os.read(fd, READ)]
    while parts[-1]:
        parts.append(os.read(fd, READ))
    return b"".join(parts)


def read_part(path: str, offset: int, limit: int) -> bytes:
    """Some bytes of a file; none when it is no file. A named pipe does not hold us up."""
    try:
        with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb", buffering=0) as file:
            return os.pread(file.fileno(), limit, offset)
    except OSError:
        return b""


class PlainJson:
    """How JSON is read: as `json.loads` does when nothing else is asked for."""

    strict, object_hook, object_pairs_hook = True, None, None
    parse_float, parse_int, parse_constant = float, int, float


def parse_json(text: bytes) -> Any:
    """The value of a JSON text; ValueError when it is none."""
    try:
        return make_scanner(PlainJson)(text.decode().strip(), 0)[0]  # type: ignore[arg-type]  # typeshed errs
    except (StopIteration, SystemError):
        import json  # noqa: PLC0415 (only it can say what is wrong)

        return json.loads(text)


def dump_json(value: Any) -> str:
    """A value as JSON; bytes in base64."""
    if isinstance(value, dict):
        return "{%s}" % ", ".join("%s: %s" % (dump_json(str(key)), dump_json(each)) for key, each in value.items())
    if isinstance(value, (list, tuple)):
        return "[%s]" % ", ".join(map(dump_json, value))
    if isinstance(value, bytes):
        return '"%s"' % b2a_base64(value, newline=False).decode()
    if isinstance(value, str):
        return encode_basestring_ascii(value)
    return "null" if value is None else repr(value).lower()  # numbers, True and False


def read_json(path: str) -> Any:
    """The value of a JSON file; None when there is none."""
    try:
        return parse_json(read_bytes(path))
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return None


def write_json(path: str, value: Any, durable: bool = False) -> None:
    """Write a private JSON file, whole or not at all; `durable`: it is on the disk when this returns.

    What is not durable may be empty after a power cut, which ends the attempt anyway.
    """
    with open_new(path + ".new") as file:
        file.write(dump_json(value).encode())
        file.flush()
        if durable:
            os.fsync(file.fileno())
    os.rename(path + ".new", path)


def fill_reserved(reserved: str, path: str, value: Json) -> None:
    """As a durable `write_json`, out of a file that has the room already. On most file systems no block has to be found for it, and no
    inode: ext4 passes over each one that was freed in the last minutes, so that starts are slow where many files come and go.
    """
    with open(reserved, "r+b") as file:
        file.write(dump_json(value).encode())
        file.truncate()
        file.flush()
        os.fsync(file.fileno())
    os.rename(reserved, path)


def overwrite_json(path: str, value: Json) -> None:
    """Write a private JSON file of some hundred bytes over what it was, by one call; for a file that is read and written under a lock.

    Its inode stays (see `fill_reserved`). It never shrinks: spaces take the place of what was longer.
    """
    fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        os.pwrite(fd, dump_json(value).encode().ljust(os.fstat(fd).st_size), 0)
    finally:
        os.close(fd)


def is_locked(path: str) -> bool:
    """Does a living process hold a file's lock? The kernel drops it at any death."""
    try:
        lock = os.open(path, os.O_RDONLY)
    except OSError:
        return False
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError as error:
        return isinstance(error, BlockingIOError)
    finally:
        os.close(lock)
    return False


def open_new(path: str) -> BinaryIO:
    """A private file, to be written from its beginning."""
    return open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb")


def write_text(path: str, text: str) -> None:
    """Write a private file, whole or not at all; it is on the disk when this returns."""
    with open_new(path + ".new") as file:
        file.write(text.encode())
        file.flush()
        os.fsync(file.fileno())
    os.rename(path + ".new", path)


def make_folder(path: str) -> None:
    """Make a private folder, and what is missing above it.

    The umask is the process's own, and two threads that change it put each other's back: each folder is given its mode instead.
    """
    if os.path.isdir(path):
        return
    if above := os.path.dirname(path.rstrip("/")):
        make_folder(above)
    try:
        os.mkdir(path, 0o700)
    except FileExistsError:
        if os.path.islink(path) and not os.path.exists(path):
            raise OSError(errno.ENOENT, "is a link to %s, which is not there" % os.readlink(path), path) from None
        if not os.path.isdir(path):
            raise


def ignore_errors(call: Callable[..., Any], *args: Any) -> None:
    """Call what may fail without harm: the thing is gone, the disk is full, nobody listens."""
    try:  # noqa: SIM105 (contextlib is one more import at each start)
        call(*args)
    except OSError:
        pass


def remove(path: str) -> None:
    """Delete a file or a folder, or what another has left of it."""
    import shutil  # noqa: PLC0415 (seldom needed, and slow)

    if os.path.isdir(path):
        shutil.rmtree(path, ignore_errors=True)
    else:
        ignore_errors(os.unlink, path)
