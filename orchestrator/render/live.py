"""A training followed live: on a terminal a spinner and a bar (rich), elsewhere plain lines that suit a log."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Protocol, TextIO

from orchestrator.render.text import DUMB, clean, duration, number
from orchestrator.render.wrapping import wrapped

if TYPE_CHECKING:
    from rich.progress import Progress as Bars
    from rich.progress import ProgressColumn, TaskID

EVERY = 5.0
"""Seconds between two lines about training where there is no terminal."""


class View(Protocol):
    """A way to show what goes on."""

    def phase(self, name: str) -> None:
        """Something other than training goes on."""

    def passed(self, name: str, seconds: float) -> None:
        """A phase is over."""

    def step(self, step: int, steps: int | None, note: str) -> None:
        """Training got this far."""

    def line(self, text: str) -> None:
        """Something to read, above what moves: as it is."""

    def message(self, text: str) -> None:
        """The same of our own, which a terminal gets broken between words."""

    def close(self) -> None:
        """Nothing moves any more. May come twice."""


class LiveProgress:
    """What `--follow` shows of one job. Use it as a context: the terminal is left as it was, whatever happens."""

    def __init__(
        self,
        stream: TextIO | None = None,
        *,
        interactive: bool | None = None,
        every: float = EVERY,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """A view on a stream.

        Args:
            stream: where to write; standard error when None, because standard output is for data.
            interactive: whether the stream is a terminal that can move its cursor; None looks.
            every: seconds between two lines about training without a terminal.
            clock: seconds from any beginning.
        """
        stream = sys.stderr if stream is None else stream
        moving = _moves(stream) if interactive is None else interactive
        self._view: View = _Terminal(stream) if moving else _Lines(stream, every, clock)
        self._clock = clock
        self._began = clock()
        self._phase: tuple[str, float] | None = None
        self._why = ""
        self._origin: tuple[int, float] | None = None

    def phase(self, name: str, why: str = "") -> None:
        """A phase has begun (`environment`, `model`, `data`, ...); the one before it is over. Saying it again does nothing.

        Args:
            name: what goes on.
            why: what keeps it from going on, shown when it is news.
        """
        if not self._phase or self._phase[0] != name:
            self._pass()
            self._phase, self._why = (name, self._clock()), ""
            self._view.phase(clean(name))
        if why and why != self._why:
            self._view.message(clean(f"{name}: {why}"))
        self._why = why

    def step(self, step: int, steps: int | None, loss: float | None = None, tokens_per_second: float | None = None) -> None:
        """Training has done so many optimizer steps (of so many, when that is known)."""
        self._pass()
        now = self._clock()
        self._origin = self._origin or (step, now)
        notes = [
            f"loss {number(loss)}" if loss is not None else "",
            f"{number(tokens_per_second)} tok/s" if tokens_per_second is not None else "",
            self._left(step, steps, now),
        ]
        self._view.step(step, steps, "  ".join(filter(None, notes)))

    def line(self, text: str) -> None:
        """A line of the job's log. Of a line that was overwritten by carriage returns, what was left to see."""
        self._view.line(clean(text.rstrip("\r\n").rpartition("\r")[2]))

    def finish(self, state: str, reason: str | None = None) -> None:
        """The job has ended."""
        self._pass()
        self._view.close()
        self._view.message(clean(f"{state} after {duration(self._clock() - self._began)}" + (f": {reason}" if reason else "")))

    def __enter__(self) -> LiveProgress:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._view.close()

    def _pass(self) -> None:
        if self._phase:
            name, since = self._phase
            self._view.passed(clean(name), self._clock() - since)
        self._phase = None

    def _left(self, step: int, steps: int | None, now: float) -> str:
        """From the pace since the first step that was seen: a job that was resumed, or joined late, has not done them all."""
        first, since = self._origin or (step, now)
        if steps is None or step <= first or step >= steps:
            return ""
        return f"{duration((now - since) / (step - first) * (steps - step))} left"


def _moves(stream: TextIO) -> bool:
    return stream.isatty() and os.environ.get("TERM", "").lower() not in DUMB


class _Lines:
    """Whole lines only: for pipes, files and the logs of CI."""

    def __init__(self, stream: TextIO, every: float, clock: Callable[[], float]) -> None:
        self._stream, self._every, self._clock = stream, every, clock
        self._next = clock()
        self._told: int | None = None

    def phase(self, name: str) -> None:
        self.line(f"{name} ...")

    def passed(self, name: str, seconds: float) -> None:
        self.line(f"{name}: {duration(seconds)}")

    def step(self, step: int, steps: int | None, note: str) -> None:
        if step == self._told or (self._clock() < self._next and step != steps):
            return
        self._told, self._next = step, self._clock() + self._every
        self.line(f"step {step:,}/{'?' if steps is None else f'{steps:,}'}  {note}".rstrip())

    def line(self, text: str) -> None:
        self._stream.write(f"{text}\n")
        self._stream.flush()

    def message(self, text: str) -> None:
        self.line(text)

    def close(self) -> None:
        """Nothing moves here."""


class _Terminal:
    """What moves stays on the last line; what is over scrolls up as plain text."""

    def __init__(self, stream: TextIO) -> None:
        from rich import progress  # noqa: PLC0415  # 15 times the start of Python
        from rich.console import Console  # noqa: PLC0415

        # NO_COLOR is rich's business: it reads it. What we print is text, never markup.
        self._console = Console(file=stream, force_terminal=True, markup=False, highlight=False, emoji=False)
        self._kinds = progress
        self._moving: Bars | None = None
        self._bar: tuple[Bars, TaskID] | None = None

    def phase(self, name: str) -> None:
        kinds = self._kinds
        shown = self._show(
            kinds.SpinnerColumn(),
            kinds.TextColumn("{task.description}", markup=False),
            kinds.TimeElapsedColumn(),
            transient=True,
        )
        shown.add_task(name, total=None)

    def passed(self, name: str, seconds: float) -> None:
        self.close()
        self.line(f"{name}: {duration(seconds)}")

    def step(self, step: int, steps: int | None, note: str) -> None:
        if self._bar is None:
            kinds = self._kinds
            shown = self._show(
                kinds.TextColumn("{task.description}"),
                kinds.BarColumn(),
                kinds.MofNCompleteColumn(),
                kinds.TextColumn("{task.fields[note]}", markup=False),
                transient=False,
            )
            self._bar = shown, shown.add_task("train", total=steps, completed=step, note=note)
        bar, task = self._bar
        bar.update(task, completed=step, total=steps, note=note)

    def line(self, text: str) -> None:
        self._console.print(text, soft_wrap=True)

    def message(self, text: str) -> None:
        self.line(wrapped(text, self._console.width))

    def close(self) -> None:
        if self._moving is not None:
            self._moving.stop()
        self._moving = self._bar = None

    def _show(self, *columns: ProgressColumn, transient: bool) -> Bars:
        self.close()
        # Standard output is for data: rich must not draw it into what moves here.
        shown = self._kinds.Progress(
            *columns, console=self._console, transient=transient, redirect_stdout=False, redirect_stderr=False
        )
        shown.start()
        self._moving = shown
        return shown
