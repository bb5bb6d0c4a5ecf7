"""The Cloud TPU API (v2, REST) as far as a slice needs it. It waits, and retries nothing: whoever calls comes again anyway.

https://docs.cloud.google.com/tpu/docs/reference/rest/v2/projects.locations.queuedResources
"""

from __future__ import annotations

import http.client
import json
import os
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import quote, urlsplit

from orchestrator.transports.base import TransportError

if TYPE_CHECKING:
    from orchestrator.agent.files import Json
    from orchestrator.executors.tpu.credentials import Token

ENDPOINT = "https://tpu.googleapis.com/"
OVERRIDE = "CLOUDSDK_API_ENDPOINT_OVERRIDES_TPU"
"""gcloud's own variable for another address of the API, as inside a perimeter of VPC Service Controls."""
PATIENCE = 30.0
"""Seconds for an answer."""
LARGEST = 8 << 20
"""Bytes of an answer at most."""
PAGES = 1000


class ApiError(TransportError):
    """The API refused, or did not answer. By itself it says nothing of what runs on a slice."""

    def __init__(self, text: str, code: int = 0, status: str = "") -> None:
        """`code` is that of HTTP, 0 without an answer; `status` the API's own word: `RESOURCE_EXHAUSTED`."""
        super().__init__(text)
        self.code, self.status = code, status

    @property
    def absent(self) -> bool:
        """There is no such thing: the API says so, and no proxy on the way."""
        return self.code == 404 and self.status == "NOT_FOUND"

    @property
    def exists(self) -> bool:
        """There is one of that name already."""
        return self.code == 409 and self.status in ("ALREADY_EXISTS", "ABORTED")

    @property
    def exhausted(self) -> bool:
        """No capacity, or no quota: another zone or type may have some."""
        return self.status == "RESOURCE_EXHAUSTED" or self.code == 429

    @property
    def passing(self) -> bool:
        """Asking again later may help; what the API refuses for good (400, 401, 403) it refuses again."""
        return self.code in (0, 404, 408, 409, 429) or self.code >= 500


class Call(NamedTuple):
    """One request to the API; a dry run shows it."""

    method: str
    path: str
    """Below `/v2/`."""
    body: Mapping[str, object] | None = None

    @property
    def text(self) -> str:
        """As a person reads it."""
        lines = [f"{self.method} {endpoint()}v2/{self.path}"]
        return "\n".join([*lines, *([json.dumps(self.body, indent=1)] if self.body is not None else [])])


def endpoint() -> str:
    """Where the API is.

    Raises:
        ApiError: the variable says http for another machine: the token would be seen on the way.
    """
    url = os.environ.get(OVERRIDE) or ENDPOINT
    parts = urlsplit(url)
    loopback = parts.hostname in ("127.0.0.1", "::1", "localhost")
    if parts.scheme != "https" and not (parts.scheme == "http" and loopback):
        raise ApiError(f"{OVERRIDE} should be an https address, got {url!r}: credentials are not sent over anything else")
    return url.rstrip("/") + "/"


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """The API redirects nowhere; a token does not follow to another machine."""

    def redirect_request(self, *_: object) -> None:
        return None


class TpuApi:
    """The API for one project."""

    def __init__(self, project: str, token: Token) -> None:
        self.project, self._token = project, token
        self._opener = urllib.request.build_opener(_NoRedirect)

    def node(self, zone: str, name: str) -> Json:
        """One TPU VM or slice; ApiError, which may be `absent`."""
        return self._call(Call("GET", f"{self._zone(zone)}/nodes/{quote(name)}"))

    def queued(self, zone: str) -> list[Json]:
        """All queued resources of a zone: all, or an error. Half a list would look as if the others were gone."""
        return list(self._pages(f"{self._zone(zone)}/queuedResources", "queuedResources"))

    def create(self, zone: str, name: str, body: Mapping[str, object]) -> None:
        """Queue for a slice."""
        self._call(create_call(self.project, zone, name, body))

    def delete(self, zone: str, name: str) -> None:
        """Give a queued resource back, with its nodes. One that is not there is no error."""
        try:
            self._call(delete_call(self.project, zone, name))
        except ApiError as error:
            if not error.absent:
                raise

    def guest_attributes(self, zone: str, name: str, *, whole: bool = False) -> list[Json]:
        """What each worker has told of its host keys, by worker; `whole`: also of itself."""
        body = attributes_asked(whole=whole)
        found = self._call(Call("POST", f"{self._zone(zone)}/nodes/{quote(name)}:getGuestAttributes", body))
        return _listed(found, "guestAttributes")

    def _zone(self, zone: str) -> str:
        return f"projects/{self.project}/locations/{zone}"

    def _pages(self, path: str, key: str) -> Iterator[Json]:
        token = ""
        for _ in range(PAGES):
            page = self._call(Call("GET", f"{path}?pageSize=500" + (f"&pageToken={quote(token)}" if token else "")))
            if page.get("unreachable"):
                raise ApiError(f"the Cloud TPU API has only a part of the list: {page['unreachable']} does not answer it")
            yield from _listed(page, key)
            token = page.get("nextPageToken", "")
            if not token:
                return
        raise ApiError(f"the Cloud TPU API's list {path} does not end")

    def _call(self, call: Call) -> Json:
        url = f"{endpoint()}v2/{call.path}"
        data = None if call.body is None else json.dumps(call.body).encode()
        headers = {"Authorization": f"Bearer {self._token()}", "Content-Type": "application/json"}
        request = urllib.request.Request(url, data, headers, method=call.method)  # noqa: S310  # `endpoint` has looked at it
        what = f"{call.method} {call.path.partition('?')[0]}"
        try:
            with self._opener.open(request, timeout=PATIENCE) as answer:
                return _parsed(what, answer.read(LARGEST + 1))
        except urllib.error.HTTPError as error:
            with error:
                raise _refused(what, error) from None
        except (OSError, http.client.HTTPException) as error:  # also a time-out, and half an answer
            reason = getattr(error, "reason", None) or error
            raise ApiError(f"the Cloud TPU API does not answer {what}: {reason or type(error).__name__}") from None


def attributes_asked(*, whole: bool) -> dict[str, object]:
    """The body of a request for guest attributes: of host keys, or of everything, as gcloud asks."""
    return {"workerIds": [""]} if whole else {"queryPath": "hostkeys/"}


def create_call(project: str, zone: str, name: str, body: Mapping[str, object]) -> Call:
    """The request that queues for a slice."""
    return Call("POST", f"projects/{project}/locations/{zone}/queuedResources?queuedResourceId={quote(name)}", body)


def delete_call(project: str, zone: str, name: str) -> Call:
    """The request that gives one back. `force` deletes its nodes too; without it the API refuses while there are any."""
    return Call("DELETE", f"projects/{project}/locations/{zone}/queuedResources/{quote(name)}?force=true")


def _parsed(what: str, data: bytes) -> Json:
    try:
        found = json.loads(data) if len(data) <= LARGEST else None
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise ApiError(f"the Cloud TPU API's answer to {what} is not understood")
    return found


def _refused(what: str, error: urllib.error.HTTPError) -> ApiError:
    """An answer that is an error, in the API's words."""
    status, message = "", ""
    try:
        said = json.loads(error.read(1 << 16))["error"]
        status, message = str(said.get("status", "")), str(said.get("message", ""))
    except (OSError, ValueError, LookupError, TypeError, AttributeError, http.client.HTTPException):
        message = str(error.reason)
    words = " ".join(message.split())[:500]
    return ApiError(f"the Cloud TPU API refuses {what}: {error.code} {status} {words}".strip(), error.code, status)


def _listed(found: Json, key: str) -> list[Json]:
    rows = found.get(key, [])
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise ApiError(f"the Cloud TPU API's {key} is no list")
    return rows
