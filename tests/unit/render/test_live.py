"""A training followed live, on a real terminal (a pty) and into a plain stream."""

import io
import os
import pty
import re
import sys
import threading

import pytest

from orchestrator.render.live import LiveProgress


class Clock:
    """Time that passes when told."""

    now = 100.0

    def __call__(self):
        return self.now


def drawn(act, *, term="xterm-256color", monkeypatch):
    """Everything that was written to a terminal of 80 columns while `act` ran."""
    for name, value in {"TERM": term, "COLUMNS": "80", "LINES": "24"}.items():
        monkeypatch.setenv(name, value)
    for name in ("NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)
    reader, writer = pty.openpty()
    parts = []

    def read():
        # The last writer's end closed is EIO on Linux, not an end of file.
        while True:
            try:
                part = os.read(reader, 4096)
            except OSError:
                return
            if not part:
                return
            parts.append(part)

    thread = threading.Thread(target=read)
    thread.start()
    try:
        with os.fdopen(writer, "w", encoding="utf-8") as stream:
            act(stream)
    finally:
        thread.join(10)
        os.close(reader)
    return b"".join(parts).decode()


def plain(text):
    """What was drawn, without colours and cursor movements, line by line."""
    return [line.rstrip() for line in re.split(r"[\r\n]+", re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text)) if line.strip()]


def test_lines():
    """Without a terminal there are whole lines: phases with their spans, training at most every few seconds, and its end."""
    clock, stream = Clock(), io.StringIO()
    with LiveProgress(stream, every=5.0, clock=clock) as progress:
        progress.phase("data")
        clock.now += 1
        progress.phase("data")
        clock.now += 2
        for step in range(1, 9):
            clock.now += 2
            progress.step(step, 8, 2.5 / step, 1234.4)
        progress.step(8, 8, 0.3125, 1234.4)
        progress.phase("export")
        clock.now += 250
        progress.finish("FAILED", "a promised file is missing")
    assert stream.getvalue() == (
        "data ...\n"
        "data: 5 s\n"
        "step 1/8  loss 2.5  1,234 tok/s\n"
        "step 4/8  loss 0.625  1,234 tok/s  8 s left\n"
        "step 7/8  loss 0.3571  1,234 tok/s  2 s left\n"
        "step 8/8  loss 0.3125  1,234 tok/s\n"
        "export ...\n"
        "export: 4 min 10 s\n"
        "FAILED after 4 min 29 s: a promised file is missing\n"
    )


def test_lines_unknown():
    """What is not known yet is not made up: the number of steps, the loss, the pace of a job that was joined late."""
    clock, stream = Clock(), io.StringIO()
    progress = LiveProgress(stream, every=0, clock=clock)
    progress.step(40, None)
    progress.step(41, 100)
    clock.now += 10
    progress.step(45, 100, 2.0)
    progress.finish("SUCCEEDED")
    assert stream.getvalue() == "step 40/?\nstep 41/100  0 s left\nstep 45/100  loss 2  1 min 50 s left\nSUCCEEDED after 10 s\n"


def test_log_line():
    """A log line loses its escape sequences, and of an overwritten line the last state is shown."""
    stream = io.StringIO()
    progress = LiveProgress(stream)
    progress.line("\x1b[31mred\x1b[0m\x07\n")
    progress.line(" 10%|#\r 99%|####|\r\n")
    progress.line("[bold]not markup[/bold] :smile:")
    assert stream.getvalue() == "red \n 99%|####|\n[bold]not markup[/bold] :smile:\n"


def test_terminal(monkeypatch):
    """On a terminal a bar moves, log lines stand above it as they are, and what is over stays as plain lines."""

    def act(stream):
        with LiveProgress(stream, clock=Clock()) as progress:
            progress.phase("model")
            progress.phase("data")
            progress.step(1, 4, 2.5, 1234.4)
            progress.line("loud [bold]log[/bold] \x1b[2Jline")
            progress.step(4, 4, 0.25, 1234.4)
            progress.finish("SUCCEEDED")

    lines = plain(drawn(act, monkeypatch=monkeypatch))
    assert "model: 0 s" in lines
    assert "data: 0 s" in lines
    assert "loud [bold]log[/bold] line" in lines
    assert f"train {'━' * 40} 4/4 loss 0.25  1,234 tok/s" in lines
    assert lines[-1] == "SUCCEEDED after 0 s"


def test_terminal_is_left_whole(monkeypatch):
    """Whatever ends the view, the cursor is back and nothing goes on drawing."""

    def act(stream):
        before = set(threading.enumerate())
        with pytest.raises(KeyboardInterrupt), LiveProgress(stream) as progress:
            progress.step(1, 100)
            raise KeyboardInterrupt
        for thread in set(threading.enumerate()) - before:
            thread.join(10)  # rich 13 asks its thread to end and does not wait
        assert set(threading.enumerate()) <= before

    text = drawn(act, monkeypatch=monkeypatch)
    assert text.count("\x1b[?25l") == text.count("\x1b[?25h") == 1
    assert text.rindex("\x1b[?25h") > text.rindex("\x1b[?25l")


def test_terminal_without_colour(monkeypatch):
    """With NO_COLOR the bar still moves, in one colour."""

    def act(stream):
        monkeypatch.setenv("NO_COLOR", "1")
        with LiveProgress(stream) as progress:
            progress.step(1, 4, 2.5)

    text = drawn(act, monkeypatch=monkeypatch)
    assert "1/4 loss 2.5" in text
    assert not re.search(r"\x1b\[[0-9;]*3[0-9][0-9;]*m", text)


def test_dumb_terminal(monkeypatch):
    """A terminal without a cursor gets lines."""
    text = drawn(lambda stream: LiveProgress(stream).phase("data"), term="dumb", monkeypatch=monkeypatch)
    assert text == "data ...\r\n"


def test_standard_output_is_not_taken(monkeypatch, capsys):
    """While a bar moves, data still goes to standard output: rich must not draw it."""

    def act(stream):
        with LiveProgress(stream) as progress:
            progress.step(1, 4)
            print("data")
            print("talk", file=sys.stderr)

    assert "data" not in drawn(act, monkeypatch=monkeypatch)
    assert capsys.readouterr() == ("data\n", "talk\n")
