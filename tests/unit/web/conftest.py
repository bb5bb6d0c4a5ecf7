"""A page with a browser, and jobs to show."""

import os
import re
import shutil
import subprocess
import sys

import pytest

from tests.faults.conftest import Lab

FLAGS = (
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync", "--disable-dev-shm-usage"),
)


@pytest.fixture
def lab(home):
    """A state folder of its own; its controllers are gone afterwards."""
    made = Lab(home)
    yield made
    made.kill_controllers()


class Dashboard:
    """A running `tune dashboard`."""

    def __init__(self, folder, *words, **env) -> None:
        argv = [sys.executable, "-m", "orchestrator.cli", "dashboard", "--port", "0", *words]
        env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **env}
        self.process = subprocess.Popen(argv, cwd=folder, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.entry = self.process.stdout.readline().strip()
        assert self.entry, self.process.stderr.read()
        self.url, _, self.token = self.entry.partition("?token=")

    def close(self):
        """End it; what it said on the way."""
        self.process.terminate()
        return self.process.communicate(timeout=60)[1]


@pytest.fixture
def dashboard(tmp_path):
    """Start dashboards in an empty folder; they end with the test, and none has written a traceback."""
    running = []

    def start(*words, **env):
        running.append(Dashboard(tmp_path, *words, **env))
        return running[-1]

    yield start
    said = [each.close() for each in running]
    assert not any("Traceback" in text for text in said), said


@pytest.fixture(scope="session")
def chromium():
    """A real browser; Debian's package."""
    program = shutil.which("chromium")
    if program is None:
        (pytest.fail if "chromium" in os.environ.get("TUNE_REQUIRE", "") else pytest.skip)("needs chromium")
    from playwright.sync_api import sync_playwright  # noqa: PLC0415

    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=program, headless=True, args=list(FLAGS))
        yield browser
        browser.close()


@pytest.fixture
def page(chromium):
    """A page of its own session; in the end no error stood in its console."""
    context = chromium.new_context(viewport={"width": 1200, "height": 800})
    made = context.new_page()
    wrong = []
    made.on("console", lambda message: wrong.append(message.text) if message.type == "error" else None)
    made.on("pageerror", lambda error: wrong.append(str(error)))
    made.wrong = wrong
    yield made
    context.close()
    assert [text for text in wrong if not re.search(r"status of 4\d\d", text)] == []
