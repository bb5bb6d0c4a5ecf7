"""A state folder of tune with a target of its own, for benchmarks that submit jobs as a user does, several folders at once."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

Json = dict[str, Any]
"""A document."""
ROOT = Path(__file__).parents[1]
ENDED = ("SUCCEEDED", "FAILED", "LOST", "CANCELLED")
ONCE = tuple(word for kind in ("lost", "hardware", "hang", "unknown") for word in ("--set", f"retry.{kind}=0"))
"""What keeps a job that fails from being tried again."""


class Late(Exception):
    """The time is up."""


class Home:
    """A state folder; what is asked of it after `until` (by time.monotonic) raises Late."""

    def __init__(self, folder: Path, target: Json, until: float, out: Path) -> None:
        self.folder, self.until, self.out = folder, until, out
        folder.mkdir(parents=True)
        (folder / "clusters.yaml").write_text(json.dumps({"version": 1, "targets": {"local": target}}))
        paths = {"TUNE_HOME": str(folder / "home"), "TUNE_CLUSTERS": str(folder / "clusters.yaml"), "PYTHONPATH": str(ROOT)}
        self.env = os.environ | paths

    def tune(self, *words: str, check: bool = True, limit: float | None = None, grace: float = 0.0) -> str:
        """The command, as a user runs it: what it printed. `grace`: seconds that it has after the end of the time."""
        left = self.until + grace - time.monotonic()
        argv = [sys.executable, "-m", "orchestrator.cli", *words]
        try:
            done = subprocess.run(
                argv, cwd=self.folder, env=self.env, capture_output=True, text=True, check=False, timeout=min(left, limit or left)
            )
        except (subprocess.TimeoutExpired, ValueError) as error:
            raise Late(f"{' '.join(words[:2])}: not ended in time") from error
        if check and done.returncode:
            raise RuntimeError(f"{words}: exit code {done.returncode}\n{done.stdout[-500:]}\n{done.stderr[-1500:]}")
        return done.stdout

    def submit(self, name: str, recipe: Mapping[str, Any], trainer: str, *words: str) -> str:
        """Queue a job; its id is its name."""
        (self.folder / f"{name}.yaml").write_text(json.dumps(recipe))
        self.tune("submit", f"{name}.yaml", "--to", trainer, "--id", name, *words)
        return name

    def ended(self, name: str, limit: float | None = None) -> Json:
        """Its status at its end; the log of one that did not succeed, or not in time, is kept."""
        try:
            self.tune("wait", name, check=False, limit=limit)
        except Late:
            self.keep_log(name)
            self.tune("cancel", name, "--no-wait", check=False, grace=15)
            raise
        status = self.status(name)
        if status["state"] != "SUCCEEDED":
            self.keep_log(name)
        return status

    def keep_log(self, name: str) -> None:
        """The end of a job's log, beside the results."""
        for path in self.folder.glob(f"home/jobs/{name}/*/log"):
            with suppress(OSError):
                (self.out / f"{self.folder.name}-{name}.log").write_bytes(path.read_bytes()[-60_000:])

    def status(self, name: str) -> Json:
        """What `tune status` says of it."""
        found: Json = json.loads(self.tune("status", name, "--json"))[0]
        return found

    def points(self, name: str) -> dict[str, list[float]]:
        """Each metric's values, by step."""
        told = json.loads(self.tune("metrics", name, "--json", grace=15))
        series: dict[str, list[float]] = {}
        for each in sorted((told if isinstance(told, dict) else told[0])["points"], key=lambda each: each["step"]):
            series.setdefault(each["name"], []).append(each["value"])
        return series

    def until_step(self, name: str, step: int) -> bool:
        """Wait until it has taken so many steps; False when it ended before."""
        while True:
            status = self.status(name)
            if (status["step"] or 0) >= step:
                return True
            if status["state"] in ENDED:
                self.keep_log(name)
                return False
            time.sleep(0.3)

    def ranks(self) -> list[int]:
        """Processes of the trainer, by rank, on this machine: those that the launcher has started, and not their own children."""
        found: dict[int, tuple[int, int]] = {}
        for entry in Path("/proc").iterdir():
            with suppress(OSError, ValueError):
                env = dict(item.split(b"=", 1) for item in (entry / "environ").read_bytes().split(b"\0") if b"=" in item)
                if entry.name.isdigit() and b"LOCAL_RANK" in env and f"{self.folder}/" in str((entry / "cwd").readlink()):
                    parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
                    found[int(entry.name)] = (parent, int(env[b"RANK"]))
        return [pid for pid, (parent, rank) in sorted(found.items(), key=lambda each: each[1][1]) if parent not in found]

    def close(self) -> None:
        """End what is left of its jobs, and its controller."""
        self.until = time.monotonic() + 15
        with suppress(Late, RuntimeError):
            going = [each["id"] for each in json.loads(self.tune("status", "--json")) if each["state"] not in ENDED]
            if going:
                self.tune("cancel", *going, check=False)
                self.tune("wait", *going, "--timeout", "8", check=False)
