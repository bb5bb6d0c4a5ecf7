"""Calls that may take long, made aside: the loop goes on, and hears when one is back."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from concurrent.futures import Future, ThreadPoolExecutor

WORKERS = 64
"""Calls at once. They wait for hosts, and take no time of ours."""


class BackgroundCalls:
    """Calls under names; no second one under the same name while the first is under way. For one thread."""

    def __init__(self, back: Callable[[], None] = lambda: None) -> None:
        """`back` is called, in another thread, whenever a call made aside has come back."""
        self._back = back
        self._pool: ThreadPoolExecutor | None = None
        self._away: dict[Hashable, Future[Any]] = {}
        self._home: dict[Hashable, Any] = {}

    def send(self, name: Hashable, call: Callable[..., Any], *words: Any, here: bool = False) -> bool:
        """Make a call, unless one of this name is under way; did we? `here` makes it at once, for what takes no time."""
        if self.away(name):
            return False
        if here:
            self._home[name] = _outcome(call, *words)
            return True
        if self._pool is None:
            from concurrent.futures import ThreadPoolExecutor  # noqa: PLC0415  # 10 ms, for those who need it

            self._pool = ThreadPoolExecutor(WORKERS)
        self._away[name] = future = self._pool.submit(_outcome, call, *words)
        future.add_done_callback(lambda _: self._back())
        return True

    def away(self, name: Hashable) -> bool:
        """Is a call of this name under way, or back and not yet taken?"""
        return name in self._away or name in self._home

    def take(self, patience: float = 0.0) -> dict[Hashable, Any]:
        """What has come back: values, or the exceptions that were raised. Waits for all that are away, some seconds at most."""
        if patience and self._away:
            from concurrent.futures import wait  # noqa: PLC0415

            wait(self._away.values(), patience)
        found, self._home = self._home, {}
        for name in [name for name, future in self._away.items() if future.done()]:
            found[name] = self._away.pop(name).result()
        return found

    def close(self) -> None:
        """Wait for nobody: what is away is asked again by the next controller."""
        if self._pool:
            self._pool.shutdown(wait=False, cancel_futures=True)


def _outcome(call: Callable[..., Any], *words: Any) -> Any:
    try:
        return call(*words)
    except Exception as error:  # it is told by `take`
        return error
