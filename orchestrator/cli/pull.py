"""`tune pull`: what a job left, brought here. Interrupted, the next call goes on."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.cli import DONE, TROUBLE, WRONG, Stop
from orchestrator.cli.track import find, keep_alive, opened
from orchestrator.render.points import metrics_csv
from orchestrator.render.text import size
from orchestrator.store.requests import unpacked
from orchestrator.targets.connect import reached
from orchestrator.transports.base import TransportError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable

RESULTS = ("work/checkpoint", "work/adapter")
"""What every job that has trained leaves, in Hugging Face layout."""
PULSE = 1.0
"""Seconds between two lines of progress."""


def pull(said: argparse.Namespace) -> int:
    """Checkpoint, adapter, logs, metrics and the exact plan of a job into a folder."""
    home, store = opened()
    with store:
        keep_alive(home, store)
        [job] = find(store, [said.job])
        attempt = said.attempt or job.attempt
        if not 1 <= attempt <= job.attempt:
            raise Stop(WRONG, f"--attempt {attempt}: {job.id} has {job.attempt}")
        folder = Path(said.into or job.id)
        if folder.exists() and not folder.is_dir():
            raise Stop(WRONG, f"{folder}: is a file; --into names another folder")
        names = [*RESULTS, *(f"work/{name}" for name in said.file)] if not said.all else ["work"]
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "plan.json").write_text(json.dumps(unpacked(store.request(job.id))["plan"], indent=1) + "\n", "utf-8")
        (folder / "metrics.csv").write_text(metrics_csv(store.points(job.id, attempt=attempt)) + "\n", "utf-8")
        try:
            with reached(home, store, job.id, attempt) as hosts:
                if not hosts:
                    raise Stop(WRONG, f"{job.id}: attempt {attempt} was not started anywhere yet")
                for rank, (_, transport) in enumerate(hosts):
                    place = folder if rank == 0 else folder / f"host{rank}"
                    got = transport.fetch(job.id, attempt, ["log", *(names if rank == 0 or said.all else ())], place, _progress())
                    print("\n".join(str(path) for path in got))
        except ValueError as error:
            raise Stop(WRONG, str(error)) from None
        except TransportError as error:
            raise Stop(
                TROUBLE, f"{error}\n\nhint: `tune pull {job.id}` goes on where it ended; `tune logs` needs no host"
            ) from None
    print(f"{folder}: plan.json, metrics.csv and what is listed above", file=sys.stderr)
    return DONE


def _progress() -> Callable[[int, int], None]:
    """Says how far it is, now and then."""
    told = time.monotonic()

    def tell(done: int, total: int) -> None:
        nonlocal told
        if time.monotonic() - told >= PULSE:
            told = time.monotonic()
            print(f"{size(done)} of {size(total)}", file=sys.stderr, flush=True)

    return tell
