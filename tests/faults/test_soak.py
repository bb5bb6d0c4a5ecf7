"""A controller that works on and on: its memory, descriptors and threads stay as they are.

TUNE_SOAK says for how many seconds (default 60; an hour shows what leaks slowly), TUNE_SOAK_PAUSE how long to rest between two jobs
(default 0.05).
"""

import os
import time
from pathlib import Path
from statistics import median

import pytest

from orchestrator.store import open_store

from .conftest import training

SECONDS = float(os.environ.get("TUNE_SOAK") or 60)
PAUSE = float(os.environ.get("TUNE_SOAK_PAUSE") or 0.05)
SLOTS, QUEUED, WARM = 4, 24, 96
pytestmark = [pytest.mark.long, pytest.mark.thorough, pytest.mark.timeout(SECONDS + 900)]
KINDS = (training(3), "exit 3", "sleep 300", "exit 3")
"""One that trains, one that fails, one that is cancelled in the queue or at work, one that is tried again."""
PARTS = 5
"""The first and the last of so many parts of the time are compared."""


def held(pid):
    """Resident KiB, open files and threads of a process."""
    status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return int(status["VmRSS"].split()[0]), len(list(Path(f"/proc/{pid}/fd").iterdir())), int(status["Threads"])


def test_nothing_grows(lab):
    """Jobs with metrics, jobs that fail, are tried again and are cancelled come and go: what the controller holds in the last part of
    the time is what it held in the first.
    """
    made, samples, end = 0, [], None
    with open_store(lab.home.store) as store:
        while end is None or time.monotonic() < end:
            if len(store.active()) < QUEUED:
                kind = made % len(KINDS)
                retry = {"hang_minutes": 60.0, "unknown": int(kind == 3)}
                lab.submit(f"j{made}", KINDS[kind], slots=SLOTS, steps=3, retry=retry)
                if kind == 2:
                    store.ask(f"j{made}", "cancel")
                made += 1
            time.sleep(PAUSE)
            if made > WARM:  # what is loaded once is loaded, and no buffer is the largest yet
                [pid] = lab.controllers()
                end = end or time.monotonic() + SECONDS
                samples.append(held(pid))
                if len(samples) % 256 == 1:
                    print(f"{end - time.monotonic():.0f} s left, {made} jobs: KiB, files, threads {samples[-1]}", flush=True)
        ended = [(job.state, job.attempt) for job in store.jobs() if job.ended]
    part = max(1, len(samples) // PARTS)
    first, last = ([median(one) for one in zip(*some, strict=True)] for some in (samples[:part], samples[-part:]))
    print(f"{len(ended)} jobs ended; KiB, files, threads: {first}, then {last}; KiB at most {max(samples)[0]}")
    assert {("SUCCEEDED", 1), ("FAILED", 1), ("FAILED", 2), ("CANCELLED", 1)} <= set(ended)
    assert last[0] < first[0] + 2 * 1024
    assert last[1] <= first[1] + 1
    assert last[2] <= first[2] + 1
    assert lab.log() == ""
