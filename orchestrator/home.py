"""The state folder: where everything of tune's own lies. Private to the user."""

from __future__ import annotations

import errno
import os
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from orchestrator.agent.files import make_folder
from orchestrator.agent.identity import name_state


class Home(NamedTuple):
    """`TUNE_HOME`, by default `~/.tune`, and the places in it."""

    path: Path

    @classmethod
    def find(cls) -> Home:
        """The user's state folder; nothing is made."""
        path = Path(os.environ.get("TUNE_HOME") or "~/.tune").expanduser().absolute()
        if path.is_file():
            raise NotADirectoryError(errno.ENOTDIR, "is a file; TUNE_HOME should name a folder", str(path))
        return cls(path)

    def make(self) -> Home:
        """Make it and the folders in it, private to the user."""
        for folder in (self.path, self.jobs, self.cache, self.envs):
            make_folder(str(folder))
        with suppress(OSError):  # one of an older release that cannot be written can still be looked at
            name_state(str(self.path))
        return self

    @property
    def writable(self) -> bool:
        """Can anything be kept there? One on a disk mounted read-only, or a colleague's, can still be looked at. One that is not there yet is made."""
        return not self.path.exists() or os.access(self.path, os.W_OK)

    @property
    def store(self) -> str:
        """Path of the SQLite file, or the URL in `TUNE_STORE`."""
        return os.environ.get("TUNE_STORE") or str(self.path / "store.db")

    @property
    def owner(self) -> str:
        """The id of this state folder in a store that it has in common with others; empty where the store is its own."""
        return name_state(str(self.path)) if os.environ.get("TUNE_STORE") else ""

    @property
    def jobs(self) -> Path:
        """One folder a job, in it one an attempt."""
        return self.path / "jobs"

    def mirror(self, job: str, attempt: int, rank: int) -> Path:
        """What is kept here of the log that an attempt wrote on another host: it can be read when the host is gone."""
        return self.path / "logs" / job / f"{attempt}-{rank}.log"

    def log_of(self, job: str, attempt: int, rank: int = 0) -> Path:
        """An attempt's log, wherever it ran; there may be none yet. Where hosts share this folder, the first alone writes it here."""
        mirror = self.mirror(job, attempt, rank)
        return mirror if rank or mirror.exists() else self.jobs / job / str(attempt) / "log"

    @property
    def results(self) -> Path:
        """What jobs left on machines that were given back: one folder a job, in it one an attempt."""
        return self.path / "results"

    @property
    def evidence(self) -> Path:
        """What races and verifications found: one file each."""
        return self.path / "evidence"

    @property
    def cache(self) -> Path:
        """Models and data by content."""
        return self.path / "cache"

    @property
    def envs(self) -> Path:
        """The trainers' environments by lock."""
        return self.path / "envs"

    @property
    def lock(self) -> Path:
        """Held by the one controller."""
        return self.path / "controller.lock"

    @property
    def turn(self) -> Path:
        """Held by a controller that was started, until it holds `lock`."""
        return self.path / "controller.turn"

    @property
    def socket(self) -> Path:
        """Datagrams to the controller: something changed, or secrets' values."""
        return self.path / "controller.sock"

    @property
    def log(self) -> Path:
        """The controller's errors."""
        return self.path / "controller.log"

    @property
    def secrets(self) -> Path:
        """`NAME=value` lines, mode 0600: secrets for jobs that start without their submitter."""
        return self.path / "secrets.env"

    @property
    def notify(self) -> Path:
        """Which services are told of what happens to jobs and hosts."""
        return self.path / "notify.yaml"

    @property
    def notifying(self) -> Path:
        """Held by the one process that tells them."""
        return self.path / "notices.lock"

    def exists(self) -> bool:
        """Whether anything was submitted here."""
        return bool(os.environ.get("TUNE_STORE")) or (self.path / "store.db").exists()


def read_secrets(path: Path) -> dict[str, str]:
    """`NAME=value` lines of a file that only its owner may read; empty when there is none.

    Raises:
        PermissionError: others may read it.
    """
    try:
        if path.stat().st_mode & 0o077:
            raise PermissionError(f"{path}: others may read it; run chmod 600 {path}")
        pairs = (
            line.partition("=") for line in path.read_text("utf-8").splitlines() if line.strip() and not line.startswith("#")
        )
        return {name.strip(): value.strip() for name, _, value in pairs}
    except FileNotFoundError:
        return {}
