"""One run of uv: what it prints is told as it comes, with passwords masked. Standard library of CPython 3.8 or newer."""

from __future__ import annotations

import os
import re
import select
import time
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from typing import IO

    Say = Callable[[str], None]
    """Gets lines of progress."""

PULSE = 10.0
"""Seconds of silence after which a line says that the work goes on."""


def masked(text: str) -> str:
    """Without user and password of URLs."""
    return re.sub(r"(://)[^/\s]*@", r"\1***@", text)


class BuildProgress:
    """What uv prints, told as it comes."""

    def __init__(self, say: Say) -> None:
        self.say = say
        self.began = time.monotonic()
        self.loading: dict[str, str] = {}
        self.error: list[str] = []
        self.last: deque[str] = deque(maxlen=6)

    def hear(self, line: str) -> None:
        """Tell one line, unless it belongs to the error at the end or repeats the lock; an empty one is silence."""
        word, _, what = line.partition(" ")
        if not line:
            idle = "compiling" if self.last and self.last[-1].startswith("Installed") else "at work"
            at = f"downloading {', '.join(self.loading.values())}" if self.loading else idle
            self.say(f"  still {at}: {time.monotonic() - self.began:.0f} s")
        elif self.error or word in {"error:", "\u00d7"}:  # the second until uv 0.9
            self.error.append(line)
        elif word != "+":
            self.say(f"  {line}")
            self.last.append(line)
        if word == "Downloading":
            self.loading[what.partition(" ")[0]] = what
        elif word == "Downloaded":
            self.loading.pop(what, None)


def _lines(pipe: IO[bytes]) -> Iterator[str]:
    """What comes through a pipe, line by line, passwords masked; an empty line after each `PULSE` of silence."""
    rest = b""
    while True:
        if not select.select([pipe], [], [], PULSE)[0]:
            yield ""
            continue
        new = os.read(pipe.fileno(), 65536)
        *lines, rest = (rest + (new or b"\n")).split(b"\n")
        yield from (masked(line.decode(errors="replace")).strip() for line in lines if line.strip())
        if not new:
            return


def run(argv: Sequence[str], text: str, env: Mapping[str, str], say: Say) -> list[str]:
    """Run uv to its end: nothing when it did its work, else its last words."""
    import subprocess  # noqa: PLC0415  submit imports this module and needs none of it

    pipe = subprocess.PIPE
    process = subprocess.Popen(argv, env=dict(env), stdin=pipe, stdout=pipe, stderr=subprocess.STDOUT, bufsize=0)
    assert process.stdin  # noqa: S101  for mypy: they are pipes
    assert process.stdout  # noqa: S101
    progress = BuildProgress(say)
    try:
        with suppress(BrokenPipeError):  # it ended at once; its last words say why
            process.stdin.write(text.encode())
        process.stdin.close()
        for line in _lines(process.stdout):
            progress.hear(line)
        code = process.wait()
    finally:
        process.kill()  # where this process is interrupted; else it has ended, and nothing is sent
        process.wait()
        process.stdout.close()
    return (progress.error[:10] or [*progress.last, f"exit code {code}"]) if code else []
