"""Requests and answers over one channel: several may be under way, and news come in between. The frames are `agent.server`'s.

What arrives is not trusted: a frame is no larger than what was asked for, and news are taken at a bounded rate.
"""

from __future__ import annotations

import json
import math
import socket
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from concurrent.futures import TimeoutError as Late
from contextlib import suppress
from itertools import count
from typing import Any, Protocol

from orchestrator.agent.files import dump_json
from orchestrator.agent.server import LENGTHS, READY
from orchestrator.transports.base import Answer, TransportError

PATIENCE = 12.0
"""Seconds without a byte from there, after which an answer is not waited for any more."""
WINDOW, SLOWEST = 2 << 20, 100_000.0
"""Bytes that may be on their way when all is sent (OpenSSH's window), and bytes a second of the slowest line put up with."""
BLOCK = 64 * 1024
ANSWER = 1 << 20
"""Bytes of an answer, unless a request expects more."""
NEWS = 4096
"""Bytes of a frame that no request waits for."""
GLANCE = 2.0
"""Seconds after which a stream on which nothing moves is thought about."""
NEWS_RATE = 100
"""News a second that are taken; a host that sends more is read more slowly."""


LAST = 2000
"""Bytes of what a host printed last that are looked at."""
ENDED = "the connection ended"
"""Said where a host printed nothing before it was gone."""


class Stream(Protocol):
    """Bytes both ways, as a socket has them.

    `send` and `recv` raise TimeoutError when for a while nothing moves, another OSError or EOFError when nothing will any more;
    `close` and `abort` raise nothing.
    """

    def send(self, data: bytes, /) -> int:
        """Send some of the bytes; how many."""
        ...

    def recv(self, size: int, /) -> bytes:
        """Some bytes; none when there will be no more."""
        ...

    def close(self) -> None:
        """Let go; whoever waits in `recv` returns."""
        ...

    def abort(self) -> None:
        """Let go at once, though nothing can be sent; whoever waits in `send` or `recv` returns."""
        ...


class SocketStream:
    """A socket as a `channel.Stream`."""

    def __init__(self, stream: socket.socket) -> None:
        """Its timeout is set."""
        self.socket = stream
        stream.settimeout(GLANCE)

    def send(self, data: bytes, /) -> int:
        """See `Stream.send`."""
        return self.socket.send(data)

    def recv(self, size: int, /) -> bytes:
        """See `Stream.recv`."""
        return self.socket.recv(size)

    def close(self) -> None:
        """See `Stream.close`."""
        with suppress(OSError):
            self.socket.shutdown(socket.SHUT_RDWR)
        self.socket.close()

    abort = close


class Wire:
    """One server at the other end."""

    def __init__(
        self,
        stream: Stream,
        news: Callable[[], None] = lambda: None,
        disconnect_reason: Callable[[], str] = lambda: "it hung up",
    ) -> None:
        """`news` is called in another thread; `disconnect_reason` is asked when the other end is gone."""
        self._stream, self._news, self._disconnect_reason = stream, news, disconnect_reason
        self._waiting: dict[int, tuple[Future[Answer], int]] = {}  # and the bytes that its answer may have
        self._allowance = RateLimit(NEWS_RATE)
        self._numbers = count(1)
        self._sending, self._state = threading.Lock(), threading.Lock()
        self._heard = time.monotonic()
        self._stuck = math.inf  # when it is to be given up that something can be sent
        self.gone = ""
        """Why nothing more can be asked; empty while it can."""
        self.asked = 0
        """Messages sent."""
        threading.Thread(target=self._listen, daemon=True, name="wire").start()

    def write(self, data: bytes) -> None:
        """Send bytes as they are. Whoever waits for an answer gets a failure."""
        view = memoryview(data)
        with self._sending:
            try:
                self._stuck = time.monotonic() + PATIENCE
                while view and not self.gone:
                    with suppress(TimeoutError):
                        view = view[self._stream.send(bytes(view[:BLOCK])) :]
                        self._stuck = time.monotonic() + PATIENCE
            except (OSError, EOFError):
                self.close(self._disconnect_reason())
            finally:
                self._stuck = math.inf

    def send(
        self, request: Mapping[str, Any], body: bytes = b"", patience: float = PATIENCE, limit: int = ANSWER
    ) -> Callable[[], Answer]:
        """Send a request; what is returned waits for the answer.

        Args:
            request: a header, without a number.
            body: bytes that go with it.
            patience: seconds without a byte from there, after which the channel is given up.
            limit: bytes of the answer; the channel is closed where more is announced.

        Raises (what is returned):
            TransportError: the other end is gone, or silent. Nothing more can be asked then.
        """
        number, future = next(self._numbers), Future[Answer]()
        with self._state:
            if self.gone:
                raise TransportError(self.gone)
            self._waiting[number] = future, limit
        text = dump_json({**request, "id": number}).encode()
        self.asked += 1
        self.write(LENGTHS.pack(len(text), len(body)) + text + body)
        since, allowance = time.monotonic(), min(len(body), WINDOW) / SLOWEST
        return lambda: self._await(future, since, patience + allowance)

    def _await(self, future: Future[Answer], since: float, patience: float) -> Answer:
        while True:
            left = max(self._heard, since) + patience - time.monotonic()
            try:
                return future.result(max(0.0, left))
            except Late:
                if left <= 0:
                    self.close(f"no answer for {patience:.0f} s", self._stream.abort)

    def close(self, reason: str = "closed", how: Callable[[], None] | None = None) -> None:
        """Let go of the channel; whoever waits gets the reason."""
        with self._state:
            self.gone = self.gone or reason
            waiting, self._waiting = self._waiting, {}
        (how or self._stream.close)()
        for future, _ in waiting.values():
            future.set_exception(TransportError(self.gone))

    # What arrives

    def _listen(self) -> None:
        buffer, began = bytearray(), False
        try:
            self._skip(buffer)
            began = True
            while not self.gone:
                header, body = self._frame(buffer)
                if "news" in header:
                    self._allowance.wait()
                    self._news()
                else:
                    self._answered(header, body)
        except (OSError, EOFError):
            self.close(self._end_reason(b"" if began else bytes(buffer)))
        except ValueError as error:
            self.close(str(error))

    def _end_reason(self, shell: bytes) -> str:
        """Why the other end is gone, and what its login shell printed before our agent began: a notice, or why nobody may log in."""
        reason, words = self._disconnect_reason(), plain(shell)
        if not words:
            return reason
        return f"its login shell printed: {words}" + (f"; {reason}" if reason != ENDED else "")

    def _answered(self, header: dict[str, Any], body: bytes) -> None:
        number = header.get("id")
        with self._state:
            future, _ = self._waiting.pop(number, (None, 0)) if isinstance(number, int) else (None, 0)
        if future:
            future.set_result((header, body))

    def _skip(self, buffer: bytearray) -> None:
        """Pass over what a login shell prints."""
        while READY not in buffer:
            if len(buffer) > BLOCK:
                raise ValueError(f"its shell prints without end: {bytes(buffer[:80])!r}")
            self._more(buffer)
        del buffer[: buffer.index(READY) + len(READY)]

    def _frame(self, buffer: bytearray) -> Answer:
        while len(buffer) < LENGTHS.size:
            self._more(buffer)
        header, body = LENGTHS.unpack_from(buffer)
        with self._state:
            limit = max((limit for _, limit in self._waiting.values()), default=NEWS)
        if header + body > limit:
            raise ValueError(f"it sends {header + body:,} bytes where at most {limit:,} were asked for")
        end = LENGTHS.size + header + body
        while len(buffer) < end:
            self._more(buffer)
        data = bytes(buffer[LENGTHS.size + header : end])
        text = bytes(buffer[LENGTHS.size : LENGTHS.size + header])
        del buffer[:end]
        return understood(text), data

    def _more(self, buffer: bytearray) -> None:
        while True:
            try:
                data = self._stream.recv(BLOCK)
                break
            except TimeoutError:
                if time.monotonic() > self._stuck:  # paramiko tries for ever to send
                    self.close(f"nothing could be sent for {PATIENCE:.0f} s", self._stream.abort)
                if self.gone:
                    raise EOFError from None
        if not data:
            raise EOFError
        self._heard = time.monotonic()
        buffer += data


def plain(data: bytes) -> str:
    """The last of what a host printed for people, as one line without control characters."""
    text = data[-LAST:].decode("utf-8", "replace")
    return " ".join("".join(sign if sign.isprintable() else " " if sign.isspace() else "" for sign in text).split())


def understood(text: bytes) -> dict[str, Any]:
    """A frame's header; ValueError when it is none."""
    with suppress(ValueError, RecursionError):
        header = json.loads(text)
        if isinstance(header, dict):
            return header
    raise ValueError("its answer is not understood")


class RateLimit:
    """At most so many events a second; who has more waits."""

    def __init__(self, rate: int) -> None:
        self.rate, self.count, self.since = rate, 0, time.monotonic()

    def wait(self) -> None:
        """Count an event; sleep until the next second when this one has had its share."""
        now = time.monotonic()
        if now - self.since >= 1.0:
            self.count, self.since = 0, now
        self.count += 1
        if self.count > self.rate:
            time.sleep(self.since + 1.0 - now)
            self.count, self.since = 1, time.monotonic()
