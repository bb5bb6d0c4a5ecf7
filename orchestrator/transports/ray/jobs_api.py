"""Ray's Jobs API over HTTP, as far as we use it. Standard library: Ray itself is 300 MB, and has to have the cluster's version.

Source: doc/source/cluster/running-applications/job-submission/openapi.yml of Ray 2.60 and dashboard/modules/job/job_head.py there.
"""

from __future__ import annotations

import http.client
import json
import os
import re
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import quote, urlsplit

from orchestrator.transports.base import HostRefused, TransportError

if TYPE_CHECKING:
    from orchestrator.agent.files import Json

PATIENCE = 30.0
"""Seconds for an answer: the first submission of a cluster takes some."""
LONGEST = 64 << 20
"""Bytes of an answer."""
OLDEST, NEWEST = (2, 9), (3, 0)
"""Versions of Ray that are known to do: from the first, below the last."""
LIVING = ("PENDING", "RUNNING")
"""States of a job that has not ended."""
TOKEN = "RAY_AUTH_TOKEN"  # noqa: S105  # the variable's name, as Ray's own client has it
"""Environment variable with the token of a cluster that wants one."""


class RayJob(NamedTuple):
    """What Ray says of one job. It is a hint: Ray forgets its jobs when the head starts anew."""

    id: str
    """The submission id, which is chosen by us."""
    state: str
    """PENDING, RUNNING, STOPPED, SUCCEEDED, FAILED."""
    message: str = ""
    """In Ray's words, why it waits or failed."""


class JobsApi:
    """One cluster. Each call is a connection of its own, so that threads may share it."""

    def __init__(self, url: str) -> None:
        """`url` is that of the dashboard: `http://head:8265`."""
        self.url = url.rstrip("/")
        self.asked = 0
        """Requests sent, in all."""

    def version(self) -> str:
        """Ray's version.

        Raises:
            TransportError: nobody answers, or something else than Ray.
            HostRefused: it is a version that we do not know.
        """
        version = str(_fields(self._json("GET", "/api/version")).get("ray_version"))
        numbers = re.match(r"(\d+)\.(\d+)", version)
        if not numbers:
            raise TransportError(f"{self.url}: answers, but not as Ray's dashboard does: is it the address of the Jobs API?")
        if not OLDEST <= (int(numbers[1]), int(numbers[2])) < NEWEST:
            known = f"{OLDEST[0]}.{OLDEST[1]} and later, below {NEWEST[0]}.{NEWEST[1]}"
            raise HostRefused(f"{self.url}: runs Ray {version}, which this version of tune does not know; it knows {known}")
        return version

    def nodes(self) -> list[dict[str, float]]:
        """Resources of each node that is alive."""
        said = _fields(self._json("GET", "/api/v0/nodes?limit=10000&detail=1"))
        try:
            rows = said["data"]["result"]["result"]
            return [dict(row["resources_total"] or {}) for row in rows if row["state"] == "ALIVE"]
        except (LookupError, TypeError, ValueError):
            raise TransportError(f"{self.url}: its list of nodes is not understood") from None

    def jobs(self) -> dict[str, RayJob]:
        """All submitted jobs that the cluster knows, by submission id."""
        rows = self._json("GET", "/api/jobs/")
        found = [_job(row) for row in rows if row.get("submission_id")] if isinstance(rows, list) else []
        return {each.id: each for each in found}

    def job(self, id: str) -> RayJob | None:
        """One job; None when the cluster does not know it."""
        status, text = self._ask("GET", f"/api/jobs/{quote(id, safe='')}")
        if status == 404:
            return None
        return _job(self._parsed(status, text))

    def submit(self, id: str, entrypoint: str, package: str) -> RayJob:
        """Submit a job, once: it is looked up before it is sent, and again where Ray says no, as it does to a second sender.

        Args:
            id: its submission id.
            entrypoint: a shell command; what is not ours in it is quoted.
            package: URI of its working directory (`upload`).

        Returns:
            The job as it is now.

        Raises:
            TransportError: it is not known whether it was submitted.
            HostRefused: Ray will not have it; in its words.
        """
        if known := self.job(id):
            return known
        body = {
            "submission_id": id,
            "entrypoint": entrypoint,
            "runtime_env": {"working_dir": package},
            "metadata": {"submitted_by": "tune"},
        }
        status, text = self._ask("POST", "/api/jobs/", json.dumps(body).encode())
        if status == 200:
            return RayJob(id, "PENDING")
        if known := self.job(id):
            return known
        raise (HostRefused if status == 400 else TransportError)(f"{self.url}: {_last_line(text)}")

    def stop(self, id: str) -> None:
        """End a job; nothing happens to one that has ended or is not known."""
        status, text = self._ask("POST", f"/api/jobs/{quote(id, safe='')}/stop")
        if status not in (200, 404):
            raise TransportError(f"{self.url}: {_last_line(text)}")

    def logs(self, id: str) -> str:
        """All that a job has printed."""
        return str(_fields(self._json("GET", f"/api/jobs/{quote(id, safe='')}/logs")).get("logs") or "")

    def upload(self, name: str, data: bytes) -> str:
        """Bring a package to the cluster unless it is there; its URI. `name` is by its content."""
        path = f"/api/packages/gcs/{name}"
        if self._ask("GET", path)[0] != 200:
            status, text = self._ask("PUT", path, data)
            if status != 200:
                raise TransportError(f"{self.url}: the package of ours was not taken: {_last_line(text)}")
        return f"gcs://{name}"

    def _json(self, method: str, path: str) -> object:
        return self._parsed(*self._ask(method, path))

    def _parsed(self, status: int, text: str) -> object:
        if status in (401, 403):
            raise HostRefused(f"{self.url}: wants another token than {TOKEN} in our environment has: {_last_line(text)}")
        try:
            if status == 200:
                found: object = json.loads(text)
                return found
        except ValueError:
            pass
        raise TransportError(f"{self.url}: answers {status}: {_last_line(text)}")

    def _ask(self, method: str, path: str, body: bytes | None = None) -> tuple[int, str]:
        """Status and text of an answer."""
        way = urlsplit(self.url)
        secure = way.scheme == "https"
        kind = http.client.HTTPSConnection if secure else http.client.HTTPConnection  # Python checks the certificate by itself
        connection = kind(way.hostname or "", way.port, timeout=PATIENCE)
        headers = {"Content-Type": "application/json"} if body else {}
        if token := os.environ.get(TOKEN):
            headers["Authorization"] = f"Bearer {token}"
        self.asked += 1
        try:
            connection.request(method, way.path.rstrip("/") + path, body, headers)
            answer = connection.getresponse()
            return answer.status, answer.read(LONGEST).decode("utf-8", "replace")
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise TransportError(f"{self.url}: was not reached: {error or type(error).__name__}") from None
        finally:
            connection.close()


def _fields(said: object) -> Json:
    """An answer that has fields; none where it has not."""
    return said if isinstance(said, dict) else {}


def _job(row: object) -> RayJob:
    """A job as Ray describes it."""
    fields = _fields(row)
    if "submission_id" not in fields or "status" not in fields:
        raise TransportError("Ray's answer about a job is not understood")
    return RayJob(str(fields["submission_id"]), str(fields["status"]), str(fields.get("message") or ""))


def _last_line(text: str) -> str:
    """What a traceback ends with."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1][:500] if lines else "nothing"
