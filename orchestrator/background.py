"""Calls that may take long run in other threads: the controller's loop goes on and collects their results."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from concurrent.futures import Future, ThreadPoolExecutor

WORKERS = 64
"""Calls at once. They wait for hosts and take next to no CPU."""


class BackgroundCalls:
    """Calls by name, at most one of a name at a time. Its methods are for one thread."""

    def __init__(self, done: Callable[[], None] = lambda: None) -> None:
        """`done` is called in another thread whenever a call has returned."""
        self._done = done
        self._pool: ThreadPoolExecutor | None = None
        self._running: dict[Hashable, Future[Any]] = {}
        self._returned: dict[Hashable, Any] = {}

    def send(self, name: Hashable, call: Callable[..., Any], *args: Any, here: bool = False) -> bool:
        """Make a call unless one of this name is running or its result was not taken yet; True when it is made.

        Args:
            name: of the call; `take` gives the result under it.
            call: what to call.
            args: its arguments.
            here: make it at once in this thread: for calls that return in no time.
        """
        if self.away(name):
            return False
        if here:
            self._returned[name] = outcome(call, *args)
            return True
        if self._pool is None:
            from concurrent.futures import ThreadPoolExecutor  # noqa: PLC0415  # 10 ms, for those who need it

            self._pool = ThreadPoolExecutor(WORKERS)
        self._running[name] = future = self._pool.submit(outcome, call, *args)
        future.add_done_callback(lambda _: self._done())
        return True

    def away(self, name: Hashable) -> bool:
        """Whether a call of this name is running, or has returned and was not taken yet."""
        return name in self._running or name in self._returned

    def take(self, patience: float = 0.0) -> dict[Hashable, Any]:
        """Results of the calls that have returned: values, or the exceptions that they raised.

        Args:
            patience: seconds to wait at most until all have returned.
        """
        if patience and self._running:
            from concurrent.futures import wait  # noqa: PLC0415

            wait(self._running.values(), patience)
        found, self._returned = self._returned, {}
        for name in [name for name, future in self._running.items() if future.done()]:
            found[name] = self._running.pop(name).result()
        return found

    def close(self) -> None:
        """Wait for no call: what is still running is asked again by the next controller."""
        if self._pool:
            self._pool.shutdown(wait=False, cancel_futures=True)


def outcome(call: Callable[..., Any], *args: Any, **more: Any) -> Any:
    """What a call returns, or what it raised."""
    try:
        return call(*args, **more)
    except Exception as error:  # `take` gives it
        return error
