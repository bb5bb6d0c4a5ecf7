"""The page with 1,000 jobs, in a real browser: first paint, bytes on the wire, memory of the server; and a curve of a million points.

    uv run python benchmarks/page.py

Needs `chromium`. Budgets: first paint 300 ms, 100 KB, 60 MB.
"""

import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
FLAGS = ("--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--disable-background-networking")
ROUNDS = 5


def fill(home: Path) -> None:
    """A thousand ended jobs, and one with a million points."""
    from orchestrator.home import Home  # noqa: PLC0415
    from orchestrator.store import NewJob, open_store  # noqa: PLC0415

    with open_store(Home(home).make().store) as store:
        for n in range(1000):
            store.add_job(NewJob(f"job-{n:04}", "sweep", "litgpt", "local", "d", "{}"), float(n))
            store.change(f"job-{n:04}", expect=None, now=float(n), state="SUCCEEDED", ended=float(n))
        for first in range(0, 1_000_000, 50_000):
            store.record(
                "job-0000", 1, ((step, "loss", 1.0 / (step + 1), "loss") for step in range(first, first + 50_000)), 1.0, {}
            )


def main() -> None:
    if shutil.which("chromium") is None:
        print("not measured: no chromium")
        return
    from playwright.sync_api import sync_playwright  # noqa: PLC0415

    with tempfile.TemporaryDirectory() as folder:
        env = {**os.environ, "TUNE_HOME": folder, "PYTHONPATH": str(ROOT)}
        fill(Path(folder))
        argv = [sys.executable, "-m", "orchestrator.cli", "dashboard", "--port", "0"]
        with subprocess.Popen(argv, env=env, cwd=ROOT, stdout=subprocess.PIPE, text=True) as server, sync_playwright() as driver:
            assert server.stdout
            entry = server.stdout.readline().strip()
            browser = driver.chromium.launch(executable_path=shutil.which("chromium"), args=list(FLAGS))
            page = browser.new_page()
            page.goto(entry)
            paints, sizes = [], []
            for _ in range(ROUNDS):
                page.goto("about:blank")
                page.goto(entry.partition("?")[0])
                paints.append(page.evaluate("performance.getEntriesByName('first-contentful-paint')[0].startTime"))
                sizes.append(page.evaluate("performance.getEntries().reduce((sum, each) => sum + (each.transferSize || 0), 0)"))
            began = time.perf_counter()
            answer = page.request.get(f"{entry.partition('?')[0]}curves.json?job=job-0000&width=1000")
            seconds, size = time.perf_counter() - began, len(answer.body())
            time.sleep(20)
            status = Path(f"/proc/{server.pid}/status").read_text("utf-8")
            memory = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS"))
            browser.close()
            server.terminate()
    print(f"first contentful paint, 1,000 jobs   {statistics.median(paints):8.0f} ms, median of {ROUNDS}")
    print(f"bytes on the wire                    {max(sizes) / 1000:8.0f} KB")
    print(f"a curve of 1,000,000 points          {seconds:8.1f} s, {size / 1000:.0f} KB")
    print(f"memory of the server afterwards      {memory / 1000:8.0f} MB")


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    main()
