"""What a controller is told through its socket: that there is news, values of secrets, and to hand those on to its successor."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeAlias

MOST = 1 << 16
"""Bytes of a message, about: a socket takes 208 KiB at once unless its machine says otherwise (net.core.wmem_default)."""
ANSWER = 5.0
"""Seconds in which a controller hands its secrets on, or its successor takes them."""

Secrets: TypeAlias = Mapping[str, Mapping[str, str]]
"""Job -> name -> value."""


def send(place: Path, message: bytes, fds: Sequence[int] = ()) -> bool:
    """Tell the controller that listens at a place; was there one?

    Args:
        place: of its socket.
        message: one of `written`.
        fds: descriptors that go along.
    """
    with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as out:
        with near(place) as name:
            out.connect(name)
        socket.send_fds(out, [message], fds)
        return True
    return False


def written(secrets: Secrets) -> Iterator[bytes]:
    """Messages with the secrets of so many jobs each as the socket takes; one where there are none."""
    some: dict[str, Mapping[str, str]] = {}
    size = 0
    for job, values in secrets.items():
        length = len(json.dumps({job: values}))
        if some and size + length > MOST:
            yield json.dumps({"secrets": some}).encode()
            some, size = {}, 0
        some[job] = values
        size += length
    yield json.dumps({"secrets": some}).encode()


def ask(place: Path) -> dict[str, dict[str, str]]:
    """Have the controller that listens at a place hand on its secrets, and end; none where it does not know how, or does not answer."""
    ours, theirs = socket.socketpair()
    with ours:
        with theirs:
            if not send(place, b'{"hand_on": true}', [theirs.fileno()]):
                return {}
        ours.settimeout(ANSWER)
        with suppress(OSError, ValueError), ours.makefile("rb") as stream:
            found = json.loads(stream.read())
            return found if isinstance(found, dict) else {}
    return {}


def hear(inbox: socket.socket, secrets: dict[str, dict[str, str]]) -> bool:
    """Take one message in; True where a successor has our secrets now, and we are to end.

    Args:
        inbox: our socket.
        secrets: what we have; what the message brings is added.

    Raises:
        TimeoutError, BlockingIOError: no message came.
    """
    # as long as it is: room for any would be a MiB of heap for each, in pieces soon
    size = inbox.recv_into(bytearray(1), 1, socket.MSG_PEEK | socket.MSG_TRUNC)
    data, fds, _, _ = socket.recv_fds(inbox, size, 1)
    try:
        with suppress(ValueError, TypeError, AttributeError):
            message = json.loads(data)
            secrets.update(message.get("secrets", {}))
            return bool(message.get("hand_on") and fds and _hand_on(fds[0], secrets))
        return False
    finally:
        for fd in fds:
            os.close(fd)


def _hand_on(fd: int, secrets: Secrets) -> bool:
    with suppress(OSError), socket.socket(fileno=os.dup(fd)) as out:
        out.settimeout(ANSWER)
        out.sendall(json.dumps(secrets).encode())
        return True
    return False  # it has gone: we stay


@contextmanager
def near(path: Path) -> Iterator[str]:
    """A name of a socket's path that fits: it has 107 bytes at most, but a folder that is open has a short name."""
    if len(os.fsencode(path)) < 107:
        yield str(path)
        return
    fd = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{fd}/{path.name}"
    finally:
        os.close(fd)
