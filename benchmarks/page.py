"""The page beside trackio and TensorBoard, in one run, on the same points, in a real browser.

    uv run python benchmarks/page.py [--jobs 1000] [--points 20] [--long 1000000] [--peers FOLDER] [--alone]

Each has as many runs of as many points of a loss, and one long run with a single peak. Printed for each: the time to the first
contentful paint and until a run's name stands on the screen (medians), bytes on the wire until then, memory of the server (PSS of
its processes) before anybody has looked and afterwards, the time and the size of the answer with the long curve for 1,000 pixels,
and whether the peak is in it. Needs `chromium`; trackio and TensorBoard come into a virtual environment in FOLDER (default: a
temporary one). `--alone` measures our page only. Budgets of ours: first paint 300 ms, 100 KB, 60 MB.
"""

import argparse
import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
FLAGS = ("--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--disable-background-networking")
PEERS = ("trackio==0.43.*", "tensorboard==2.21.*")
ROUNDS = 3
PEAK_VALUE = 1234.5
ASK = {"project": "bench", "runs": [{"run": "long"}], "max_points": 1000}
PATIENCE = 180_000
"""Milliseconds."""


def loss(step: int, count: int) -> float:
    """Of a run of so many points, the same in all three; the long one has one peak, at two thirds."""
    return PEAK_VALUE if step == count * 2 // 3 and count > 1000 else 1.0 / (step + 1)


def runs(args: argparse.Namespace) -> Iterator[tuple[str, int]]:
    """Name and number of points."""
    yield "long", args.long
    yield from ((f"job-{n:04}", args.points) for n in range(args.jobs))


def fill_ours(args: argparse.Namespace) -> None:
    """Ended jobs in the store of TUNE_HOME."""
    from orchestrator.home import Home  # noqa: PLC0415
    from orchestrator.store import NewJob, open_store  # noqa: PLC0415

    with open_store(Home.find().make().store) as store:
        for n, (name, count) in enumerate(runs(args)):
            store.add_job(NewJob(name, "bench", "litgpt", "local", "d", "{}"), float(n))
            for first in range(0, count, 50_000):
                steps = range(first, min(first + 50_000, count))
                store.record(name, 1, ((step, "loss", loss(step, count), "loss") for step in steps), 1.0, {})
            store.change(name, expect=None, now=float(n), state="SUCCEEDED", ended=float(n))


def fill_trackio(args: argparse.Namespace) -> None:
    """A project in TRACKIO_DIR, by the function with which trackio's own writer ends."""
    from trackio.sqlite_storage import SQLiteStorage  # noqa: PLC0415

    for name, count in runs(args):
        for first in range(0, count, 50_000):
            steps = list(range(first, min(first + 50_000, count)))
            SQLiteStorage.bulk_log("bench", name, [{"loss": loss(step, count)} for step in steps], steps)


def fill_tensorboard(args: argparse.Namespace) -> None:
    """Event files in TENSORBOARD_DIR, by TensorBoard's own writer."""
    from tensorboard.compat.proto.event_pb2 import Event  # noqa: PLC0415
    from tensorboard.compat.proto.summary_pb2 import Summary  # noqa: PLC0415
    from tensorboard.summary.writer.record_writer import RecordWriter  # noqa: PLC0415

    for name, count in runs(args):
        folder = Path(os.environ["TENSORBOARD_DIR"], name)
        folder.mkdir(parents=True)
        with (folder / "events.out.tfevents.1.bench").open("wb") as file:
            writer = RecordWriter(file)
            writer.write(Event(wall_time=1.0, file_version="brain.Event:2").SerializeToString())
            for step in range(count):
                value = Summary.Value(tag="loss", simple_value=loss(step, count))
                writer.write(Event(wall_time=1.0, step=step, summary=Summary(value=[value])).SerializeToString())


class Measured(NamedTuple):
    """One of the three."""

    name: str
    python: str
    argv: tuple[str, ...]
    """Starts the server at `{port}`."""
    view: str
    """Path that lists the runs."""
    curve: Callable[[object, str], bytes]
    """(browser's requests, address) -> the long curve."""


def _posted(requests, url: str) -> bytes:
    answer = requests.post(
        f"{url}/api/get_logs_batch", data=json.dumps(ASK), headers={"Content-Type": "application/json"}, timeout=PATIENCE
    )
    return answer.body()


def _got(path: str) -> Callable[[object, str], bytes]:
    return lambda requests, url: requests.get(url + path, timeout=PATIENCE).body()


SHOW = "import trackio; trackio.show('bench', open_browser=False, block_thread=True, server_port={port})"


def measured(peer_python: str, folder: str) -> list[Measured]:
    ours = ("-m", "orchestrator.cli", "dashboard", "--port", "{port}")
    board = ("-m", "tensorboard.main", "--logdir", f"{folder}/tensorboard", "--port", "{port}", "--bind_all=false")
    return [
        Measured("tune dashboard", sys.executable, ours, "/?token=bench", _got("/curves.json?job=long&width=1000")),
        Measured("trackio 0.43", peer_python, ("-c", SHOW), "/?project=bench", _posted),
        Measured("TensorBoard", peer_python, board[:-1], "/", _got("/data/plugin/scalars/scalars?run=long&tag=loss")),
    ]


def memory(pid: int) -> float:
    """MB of a process and all below it: what they share counts once."""
    total, left = 0, [pid]
    while left:
        each = left.pop()
        try:
            lines = Path(f"/proc/{each}/smaps_rollup").read_text("utf-8").splitlines()
            total += next(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
            for task in Path(f"/proc/{each}/task").iterdir():
                left += map(int, (task / "children").read_text("utf-8").split())
        except OSError:
            continue
    return total / 1000


@contextmanager
def serving(each: Measured, env: Mapping[str, str]) -> Iterator[tuple[int, str]]:
    """(pid, address) of its server, once the port is open."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    argv = [each.python, *(word.replace("{port}", str(port)) for word in each.argv)]
    server = subprocess.Popen(
        argv, env=env, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    try:
        end = time.monotonic() + PATIENCE / 1000
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            except OSError:
                if server.poll() is not None or time.monotonic() > end:
                    sys.exit(f"{each.name}: its server did not come up")
                time.sleep(0.1)
        yield server.pid, f"http://127.0.0.1:{port}"
    finally:
        os.killpg(server.pid, 9)
        server.wait()


def look(browser, each: Measured, pid: int, url: str) -> list[str]:
    """A line of the table."""
    time.sleep(5)
    before = memory(pid)
    context = browser.new_context()
    page = context.new_page()
    page.set_default_timeout(PATIENCE)
    page.goto(url + each.view)  # what is made once is made, and a token is changed for a cookie
    page.locator("text=/job-\\d{4}/ >> visible=true").first.wait_for()
    view = url + each.view.partition("?token")[0]
    paints, names, sizes = [], [], []
    for _ in range(ROUNDS):
        fresh = page.context.new_page()
        fresh.route("**/*", lambda route: route.continue_())  # which turns the cache off
        began = time.perf_counter()
        fresh.goto(view, wait_until="commit", timeout=PATIENCE)
        fresh.locator("text=/job-\\d{4}/ >> visible=true").first.wait_for(timeout=PATIENCE)
        names.append((time.perf_counter() - began) * 1e3)
        painted = "performance.getEntriesByName('first-contentful-paint')[0]?.startTime"  # the text may be there before the paint
        while (at := fresh.evaluate(painted)) is None:  # asked from here: the page's policy lets nothing wait inside it
            time.sleep(0.01)
        paints.append(at)
        sizes.append(fresh.evaluate("performance.getEntries().reduce((sum, each) => sum + (each.transferSize || 0), 0)"))
        fresh.close()
    began = time.perf_counter()
    curve = each.curve(page.request, url)
    spent = time.perf_counter() - began
    context.close()
    time.sleep(10)
    figures = (
        statistics.median(paints),
        statistics.median(names),
        max(sizes) / 1000,
        before,
        memory(pid),
        spent * 1e3,
        len(curve) / 1000,
    )
    return [each.name, *(f"{figure:,.0f}" for figure in figures), "yes" if str(PEAK_VALUE).encode() in curve else "no"]


def peers(folder: Path) -> str:
    """Interpreter of an environment that has both."""
    python = folder / "bin" / "python"
    if not python.exists():
        subprocess.run(["uv", "venv", "--quiet", str(folder)], check=True)
    subprocess.run(["uv", "pip", "install", "--quiet", "--python", str(python), *PEERS], check=True)
    return str(python)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=1000)
    parser.add_argument("--points", type=int, default=20)
    parser.add_argument("--long", type=int, default=1_000_000)
    parser.add_argument("--peers", type=Path)
    parser.add_argument("--alone", action="store_true")
    parser.add_argument("--fill", help=argparse.SUPPRESS)  # this program in a peer's environment
    args = parser.parse_args()
    if args.fill:
        {"trackio": fill_trackio, "tensorboard": fill_tensorboard, "ours": fill_ours}[args.fill](args)
        return
    if shutil.which("chromium") is None:
        sys.exit("not measured: no chromium")
    from playwright.sync_api import sync_playwright  # noqa: PLC0415

    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        env = {
            **os.environ,
            "TUNE_HOME": f"{folder}/tune",
            "TRACKIO_DIR": f"{folder}/trackio",
            "TENSORBOARD_DIR": f"{folder}/tensorboard",
        }
        env |= {"PYTHONPATH": str(ROOT), "TUNE_WEB_TOKEN": "bench", "HF_HUB_OFFLINE": "1"}
        python = "" if args.alone else peers(args.peers or Path(folder, "peers"))
        heads = ("", "paint ms", "names ms", "KB", "MB idle", "MB after", "curve ms", "curve KB", "peak")
        lines = []
        with sync_playwright() as driver:
            browser = driver.chromium.launch(executable_path=shutil.which("chromium"), args=list(FLAGS))
            for each, fill in zip(measured(python, folder), ("ours", "trackio", "tensorboard"), strict=True):
                if not each.python:
                    continue
                sizes = ("--jobs", str(args.jobs), "--points", str(args.points), "--long", str(args.long))
                subprocess.run([each.python, __file__, "--fill", fill, *sizes], env=env, check=True)
                with serving(each, env) as (pid, url):
                    lines.append(look(browser, each, pid, url))
                print(lines[-1], file=sys.stderr, flush=True)
            browser.close()
    print(
        f"{args.jobs:,} runs of {args.points} points and one of {args.long:,}; medians of {ROUNDS}; load of the machine {os.getloadavg()[0]:.1f}"
    )
    for line in (heads, *lines):
        print(f"{line[0]:<16}" + "".join(f"{cell:>10}" for cell in line[1:]))


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    main()
