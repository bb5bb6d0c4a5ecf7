"""A person at a terminal: a shell in tmux, lines typed into it, and what the screen has shown in the end."""

import json
import os
import re
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
from contextlib import closing
from pathlib import Path

from tests.processes import kill_all, pids_of

ROOT = Path(__file__).parents[2]
HERE = Path(__file__).parent
SHELL = "bash --norc --noprofile"
CONFIG = f"""
set -g history-limit 20000
set -g status off
set -g default-terminal screen-256color
set -g default-command '{SHELL}'
"""
PATIENCE = 600
"""Seconds that one line may take; all together take some dozens on a quiet machine."""


class Terminal:
    """A tmux server of its own, with one window."""

    def __init__(self, folder, width):
        """`folder` is where the shell begins; its state folder is `.tune` in the one above, which is its home."""
        self.folder, self.home = folder, folder.parent
        self._control = Path(tempfile.mkdtemp(prefix="tune-walk-"))  # a socket's path must be short
        self._codes = self._control / "codes"
        self._codes.touch()
        (self._control / "conf").write_text(CONFIG)
        env = {
            "HOME": str(self.home),
            "LANG": "C.UTF-8",
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "PROMPT_COMMAND": f"PS1='[$?] $ '; echo >> {self._codes}",  # the exit code of the line before stands in front of the next
            "TERM": "xterm-256color",
            "HISTFILE": "",
        }
        argv = ["-f", str(self._control / "conf"), "new-session", "-d", "-x", str(width), "-y", "40"]
        subprocess.run(self._argv(*argv), env=env, cwd=folder, check=True)
        self._wait(1)

    def run(self, line):
        """Type a line and wait until the shell asks for the next."""
        before = self._prompts()
        subprocess.run(self._argv("send-keys", "-l", line), check=True)
        subprocess.run(self._argv("send-keys", "Enter"), check=True)
        self._wait(before + 1)

    def text(self):
        """All that it has shown, as it stands on the screen and above it."""
        shown = subprocess.run(self._argv("capture-pane", "-p", "-S", "-"), check=True, capture_output=True, text=True)
        return "".join(f"{line.rstrip()}\n" for line in shown.stdout.rstrip().splitlines())

    def close(self):
        """End the shell, and the controller that it has started."""
        subprocess.run(self._argv("kill-server"), check=False)
        kill_all(pids_of(self.home / ".tune"))
        shutil.rmtree(self._control)

    def _argv(self, *words):
        return ["tmux", "-S", str(self._control / "s"), *words]

    def _prompts(self):
        return len(self._codes.read_text())

    def _wait(self, prompts):
        end = time.monotonic() + PATIENCE
        while self._prompts() < prompts:
            assert time.monotonic() < end, self.text()
            time.sleep(0.02)
        time.sleep(0.05)  # the prompt itself is written after its command


def settle(home):
    """Give all that has happened times of its own, so that the same is shown whenever and however slowly it ran."""
    now = time.time()
    with closing(sqlite3.connect(home / ".tune" / "store.db", timeout=60, isolation_level=None)) as store:
        store.execute("UPDATE jobs SET submitted = ?, seen_at = ?", (now - 7300, now - 7000))
        store.execute("UPDATE jobs SET started = ? WHERE started IS NOT NULL", (now - 7200,))
        store.execute("UPDATE jobs SET ended = ? WHERE ended IS NOT NULL", (now - 7100,))
        store.execute("UPDATE events SET time = ?", (now - 7200,))
        store.execute("UPDATE points SET time = ?", (now - 7150,))


def normal(text, folder):
    """What a screen showed, less what differs from run to run: paths, times of the day, sizes on the disk."""
    text = text.replace(str(folder), "FOLDER").replace(str(folder.parent), "HOME").replace(str(ROOT), "CHECKOUT")
    text = re.sub(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z?", "TIME", text)
    text = re.sub(r"\b\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\b", "DAY-------- CLOCK--", text)
    return re.sub(r" *[\d.,]+ (bytes|[KMGT]iB)\b", " SIZE", text)


def prepared(base):
    """A home with a folder of work in it: what the walkers bring along."""
    folder = base / "home" / "work"
    shutil.copytree(HERE / "brought", folder)
    (base / "home" / ".tune").mkdir(mode=0o700)
    config = base / "home" / ".config" / "tune"
    config.mkdir(parents=True)
    machine = {"kind": "local", "accelerator": "cpu", "devices": 4}
    (config / "clusters.yaml").write_text(json.dumps({"version": 1, "targets": {"local": machine}}))
    return folder


def walked(lines, width, base):
    """What a terminal of this width shows to somebody who types these lines; `None` among them is `settle`."""
    folder = prepared(base)
    terminal = Terminal(folder, width)
    try:
        for line in lines:
            if line is None:
                settle(folder.parent)
            else:
                terminal.run(line)
        return normal(terminal.text(), folder)
    finally:
        terminal.close()
