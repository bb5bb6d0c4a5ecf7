"""Delivering one message: by Apprise (https://github.com/caronc/apprise, an extra), or to this machine's desktop.

An error text of a library may hold a URL, which is a secret: only words of our own leave this module.
"""

from __future__ import annotations

import html
import os
import re
import shutil
import subprocess
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path

from orchestrator.home import Home, read_secrets
from orchestrator.notices.setting import DESKTOP

TIMEOUT = 30
"""Seconds that a service may take."""
PROGRAM = "notify-send"
"""Of libnotify, which desktops have. Apprise's own ways to them need libraries that no package index has for each Python."""


def has_apprise() -> bool:
    """Whether the extra is installed; it is not imported."""
    return find_spec("apprise") is not None


def has_desktop(environ: Mapping[str, str]) -> bool:
    """Whether there is a desktop that shows notices: a display, a session bus, and the program that speaks to it."""
    display = environ.get("WAYLAND_DISPLAY") or environ.get("DISPLAY", "")
    bus = environ.get("DBUS_SESSION_BUS_ADDRESS") or Path(f"/run/user/{os.getuid()}/bus").exists()
    return bool(display and bus and shutil.which(PROGRAM))


def url_of(variable: str, home: Home, environ: Mapping[str, str]) -> str:
    """The URL that a variable holds, in secrets.env or else in the environment; empty where there is none.

    Raises:
        PermissionError: others may read secrets.env.
    """
    return read_secrets(home.secrets).get(variable) or environ.get(variable, "")


def deliver(service: str, variable: str, home: Home, title: str, body: str, tone: str) -> str:
    """Send a message; why it was not delivered, in words without a secret, or nothing.

    Args:
        service: its name.
        variable: that holds its URL; empty for the desktop.
        home: whose secrets.env is looked into.
        title: one line.
        body: text, which is no markup.
        tone: `info`, `success`, `warning` or `failure`.
    """
    try:
        if service == DESKTOP:
            return _show(title, body, tone)
        url = url_of(variable, home, os.environ)
        if not url:
            return f"{variable} is not set"
        return _send(url, variable, title, body, tone)
    except PermissionError:
        return f"others may read {home.secrets}"
    except Exception as error:  # whatever a service's code raises, its text may hold the URL
        return type(error).__name__


def _send(url: str, variable: str, title: str, body: str, tone: str) -> str:
    import apprise  # noqa: PLC0415 - 0.3 s, for those who send

    asset = apprise.AppriseAsset(
        app_id="tune", app_desc="tune", async_mode=False, storage_mode=apprise.PersistentStoreMode.MEMORY, service_timeout=TIMEOUT
    )
    services = apprise.Apprise(asset=asset)
    if not services.add(url):
        return f"{variable} holds no URL that Apprise understands"
    result = services.notify(body=body, title=title, notify_type=apprise.NotifyType(tone), body_format=apprise.NotifyFormat.TEXT)
    return "" if result else _reason(" ".join(str(entry.message) for entry in result.logs()))


def _reason(log: str) -> str:
    """What of Apprise's log can be told: a status of HTTP, or that nothing was reached."""
    status = re.search(r"error=(\d{3})\b", log)
    if status:
        return f"the service answered with status {status[1]}"
    return "no connection" if "onnection" in log else "the service did not take it"


def _show(title: str, body: str, tone: str) -> str:
    urgency = "critical" if tone == "failure" else "normal"
    argv = [PROGRAM, "--app-name=tune", f"--urgency={urgency}", "--", title, html.escape(body, quote=False)]
    quiet = subprocess.DEVNULL
    done = subprocess.run(argv, check=False, timeout=TIMEOUT, stdin=quiet, stdout=quiet, stderr=quiet)
    return f"{PROGRAM} ended with exit code {done.returncode}" if done.returncode else ""
