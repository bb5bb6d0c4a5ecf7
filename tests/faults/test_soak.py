"""A controller that works on and on: its memory, descriptors and threads stay as they are.

TUNE_SOAK says for how many seconds (default 60; an hour shows what leaks slowly).
"""

import os
import time
from pathlib import Path

import pytest

from orchestrator.store import open_store

from .conftest import training

pytestmark = [pytest.mark.long, pytest.mark.thorough]

SECONDS = float(os.environ.get("TUNE_SOAK") or 60)
SLOTS, QUEUED = 4, 24


def held(pid):
    """Resident KiB, open files and threads of a process."""
    status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return int(status["VmRSS"].split()[0]), len(list(Path(f"/proc/{pid}/fd").iterdir())), int(status["Threads"])


def test_nothing_grows(lab):
    """Jobs with metrics, jobs that fail and jobs that are cancelled come and go; when all is as it was, so is what the controller holds."""
    made, first, end = 0, None, None
    with open_store(lab.home.store) as store:
        while end is None or time.monotonic() < end:
            while len(store.active()) < QUEUED:
                script = (training(3), "exit 3", "sleep 300")[made % 3]
                lab.submit(f"j{made}", script, slots=SLOTS, steps=3)
                if made % 3 == 2:
                    store.ask(f"j{made}", "cancel")
                made += 1
            time.sleep(0.2)
            if first is None and made > 3 * QUEUED:  # what is loaded once is loaded, and no buffer is the largest yet
                [pid] = lab.controllers()
                first, end = held(pid), time.monotonic() + SECONDS
        assert lab.controllers() == [pid]
        memory, files, threads = held(pid)
        ended = [job.state for job in store.jobs() if job.ended]
    print(f"{len(ended)} jobs ended; KiB, files, threads: {first}, then {memory, files, threads}")
    assert {"SUCCEEDED", "FAILED", "CANCELLED"} <= set(ended)
    assert memory < first[0] + 8 * 1024
    assert files <= first[1] + SLOTS
    assert threads <= first[2] + SLOTS
