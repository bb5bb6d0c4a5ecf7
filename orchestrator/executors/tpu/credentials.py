"""Whose word the Cloud TPU API takes: credentials as google-auth finds them, else those of a gcloud that is logged in.

google-auth looks where all of Google's libraries look (GOOGLE_APPLICATION_CREDENTIALS, `gcloud auth application-default login`, the
VM's own service account). It is an extra. Whoever has only run `gcloud auth login` has no such credentials; then gcloud is asked for
a token. A token is in memory only.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from orchestrator.transports.base import HostRefused, TransportError

Token = Callable[[], str]
"""Gives an access token that is good for some minutes; renewed when it is not. TransportError when there is none."""
SCOPE = "https://www.googleapis.com/auth/cloud-platform"
KEPT = 300.0
"""Seconds for which a token of gcloud's is used: it gives none that lasts less."""
PATIENCE = 30.0
LOGIN = "`gcloud auth application-default login`, or `gcloud auth login`, gives tune your credentials"


@dataclass(frozen=True)
class Answered:
    """An HTTP answer, as google-auth wants it of a transport."""

    status: int
    headers: Mapping[str, str]
    data: bytes


def fetch(
    url: str,
    method: str = "GET",
    body: bytes | None = None,
    headers: Mapping[str, str] | None = None,
    timeout: float | None = None,
    **_: object,
) -> Answered:
    """One HTTP request, as google-auth makes them (`google.auth.transport.Request`); an answer of any status.

    Raises:
        OSError: there is no answer.
    """
    request = urllib.request.Request(url, body, dict(headers or {}), method=method)  # noqa: S310  # google-auth's own addresses
    try:
        with urllib.request.urlopen(request, timeout=timeout or PATIENCE) as answer:  # noqa: S310
            return Answered(answer.status, dict(answer.headers), answer.read(1 << 20))
    except urllib.error.HTTPError as error:
        with error:
            return Answered(error.code, dict(error.headers), error.read(1 << 20))


def _transport(*args: object, **kw: object) -> Answered:
    from google.auth.exceptions import TransportError as Failed  # noqa: PLC0415

    try:
        return fetch(*args, **kw)  # type: ignore[arg-type]  # google-auth calls it as it says there
    except OSError as error:
        raise Failed(str(error)) from error  # type: ignore[no-untyped-call]  # google-auth types half of it


def find_token() -> Token:
    """Where tokens come from. Nothing is asked yet but the files of credentials.

    Raises:
        HostRefused: there are no credentials; with the way to some.
    """
    try:
        from google import auth  # noqa: PLC0415  # an extra
        from google.auth.exceptions import DefaultCredentialsError, GoogleAuthError  # noqa: PLC0415
    except ImportError:
        return _gcloud("google-auth is not installed (pip install 'tunesmith[tpu]')")
    try:
        found, _ = auth.default(scopes=[SCOPE])
    except DefaultCredentialsError as error:
        return _gcloud(str(error).split(". ")[0])

    def token() -> str:
        try:
            if not found.valid:
                found.refresh(_transport)  # type: ignore[no-untyped-call]
        except GoogleAuthError as error:
            raise TransportError(f"Google's credentials are not renewed: {_short(error)}; {LOGIN}") from None
        return str(found.token)

    return token


def _gcloud(why: str) -> Token:
    """Tokens of a gcloud that is logged in."""
    program = shutil.which("gcloud")
    if not program:
        raise HostRefused(f"no credentials for Google Cloud: {why}, and there is no gcloud on the PATH; {LOGIN}")
    kept: list[tuple[float, str]] = []

    def token() -> str:
        if not kept or kept[-1][0] + KEPT < time.monotonic():
            kept[:] = [(time.monotonic(), _asked(program))]
        return kept[-1][1]

    return token


def _asked(program: str) -> str:
    argv = [program, "auth", "print-access-token", "--quiet"]
    try:
        done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False, env={**os.environ, "NO_COLOR": "1"})
    except (OSError, subprocess.TimeoutExpired) as error:
        raise TransportError(f"gcloud gives no token: {type(error).__name__}; {LOGIN}") from None
    text = done.stdout.strip()
    if done.returncode != 0 or not text or len(text.split()) != 1:
        raise TransportError(f"gcloud gives no token: {_short(done.stderr)}; {LOGIN}")
    return text


def _short(error: object) -> str:
    return " ".join(str(error).split())[:300]
