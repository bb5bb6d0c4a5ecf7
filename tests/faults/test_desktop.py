"""Notices on a real desktop: a display without a screen, a session bus, and dunst, which shows what `notify-send` sends it."""

import json
import os
import shutil
import subprocess
from contextlib import ExitStack

import pytest

from orchestrator.notices.services import deliver, has_desktop
from orchestrator.notices.setting import DESKTOP
from tests.processes import SENDER, kill_all, pids_of
from tests.waiting import until

PROGRAMS = ("Xvfb", "dbus-daemon", "dunst", "dunstctl", "notify-send")


def begin(stack, *argv, **more):
    """A program that is ended with the test."""
    found = stack.enter_context(subprocess.Popen(argv, stderr=subprocess.DEVNULL, **more))
    stack.callback(found.kill)
    return found


@pytest.fixture
def shown(monkeypatch):
    """A desktop, which this process and what it starts are on; a call gives (title, body) of what it has shown."""
    if missing := [name for name in PROGRAMS if not shutil.which(name)]:
        refuse = pytest.fail if "desktop" in os.environ.get("TUNE_REQUIRE", "").split(",") else pytest.skip
        refuse(f"there is no {', '.join(missing)}")
    with ExitStack() as stack:
        reading, writing = os.pipe()
        begin(stack, "Xvfb", "-displayfd", str(writing), "-nolisten", "tcp", pass_fds=(writing,))
        monkeypatch.setenv("DISPLAY", f":{os.read(reading, 16).decode().strip()}")
        monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
        bus = begin(stack, "dbus-daemon", "--session", "--nofork", "--print-address", stdout=subprocess.PIPE, text=True)
        monkeypatch.setenv("DBUS_SESSION_BUS_ADDRESS", bus.stdout.readline().strip())
        begin(stack, "dunst", stdout=subprocess.DEVNULL)

        def history():
            subprocess.run(["dunstctl", "close-all"], check=False, capture_output=True)
            found = subprocess.run(["dunstctl", "history"], check=False, capture_output=True, text=True).stdout
            listed = json.loads(found)["data"][0] if found else []
            return [(each["summary"]["data"], each["body"]["data"]) for each in listed if each["appname"]["data"] == "tune"]

        yield history


def test_a_message_is_text(shown, tmp_path):
    """What stands in a job's log is shown as it stands there, and is no markup; a desktop without a daemon is told of."""
    assert has_desktop(os.environ)
    until(
        lambda: deliver(DESKTOP, "", tmp_path, "tune: a < b", "<b>1 & 2</b> --urgency=low\nsecond", "failure") == ""
    )  # dunst begins
    [(title, body)] = until(shown)
    assert title == "tune: a < b"
    assert body.replace("<br>", "\n") in (
        "&lt;b&gt;1 &amp; 2&lt;/b&gt; --urgency=low\nsecond",
        "<b>1 & 2</b> --urgency=low\nsecond",
    )


def test_an_end_is_shown(shown, lab):
    """Without any notify.yaml the desktop from which a job was submitted shows its end, once."""
    lab.submit("a", "exit 3", retry={"on": {}})
    [(title, body)] = until(shown)
    assert "a FAILED (exit_code)" in title
    assert "exit code 3" in body
    lab.kill_controllers()
    kill_all(pids_of(lab.home.path, SENDER))
