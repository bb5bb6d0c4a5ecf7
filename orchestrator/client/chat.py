"""A conversation with a server that a job is: found by the job, reached over the loopback or through SSH."""

from __future__ import annotations

import http.client
import json
import urllib.error
import urllib.request
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

from orchestrator.client.errors import ActionFailed, InvalidRequest, NotFound, Unreachable, did_you_mean
from orchestrator.client.jobs import STAGE_OF, find, stages_of
from orchestrator.client.session import Session, session
from orchestrator.client.submit import secret_values
from orchestrator.executors.attempt_files import reached
from orchestrator.store.requests import JobRequest
from orchestrator.targets.connect import ssh_address
from orchestrator.transports.base import TransportError

if TYPE_CHECKING:
    from backends.plan import Plan
    from orchestrator.home import Home
    from orchestrator.store import Job

SUMMARY, SETTINGS = "work/summary.json", "serve.json"
LARGEST = 1 << 16
"""Bytes of what a server says of itself at most."""
ENDED = "ended before its reply did; ask again once it is READY"


class Endpoint(NamedTuple):
    """Where a server answers on this machine, while it is held open."""

    url: str
    models: tuple[str, ...]
    """The main one first."""
    key: str
    """What clients must give; empty: nothing. It is shown to no one."""

    def __repr__(self) -> str:
        return f"Endpoint({self.url!r}, {self.models!r})"


@contextmanager
def endpoint(name: str) -> Iterator[Endpoint]:
    """The server of a job, for as long as this is open; of one on another host, by a port forwarded through SSH.

    Args:
        name: the server's job, or that of the training that it follows.

    Raises:
        NotFound: there is no such job.
        ActionFailed: it is not READY.
        MissingSecret: its API key has no value here.
        Unreachable: its host does not answer.
    """
    with session() as here:
        here.keep_alive()
        job = _server(here, name)
        plan = JobRequest.unpacked(here.store.request(job.id)).plan
        key = key_of(plan, here.home)
        try:
            with reached(here.home, here.store, job.id, job.attempt) as hosts:
                [(node, transport, *_), *_] = hosts
                port, models = _port_and_models(transport.read(job.id, job.attempt, SUMMARY, 0, LARGEST), job)
                if not node.remote:
                    yield Endpoint(f"http://127.0.0.1:{port}/v1", models, key)
                    return
                if node.ssh is None:
                    raise ActionFailed(
                        job.id, f"{node.name} is not reached over SSH: serve it with --expose, and go to its port {port}"
                    )
                from orchestrator.transports.ssh.forward import forwarded  # noqa: PLC0415  # fabric is heavy

                with forwarded(ssh_address(here.home, node.ssh), port) as local:
                    yield Endpoint(f"http://127.0.0.1:{local}/v1", models, key)
        except TransportError as error:
            raise Unreachable(str(error)) from None


def _server(here: Session, name: str) -> Job:
    """The job of a server: the one named, or the newest that follows it."""
    [job] = find(here.store, [name])
    if job.backend != "serve":
        served = [each for each in stages_of(here.store, [job.labels.get(STAGE_OF, job.id)]) if each.backend == "serve"]
        if not served:
            raise ActionFailed(job.id, "is not served", hint=f"tune serve {job.id}")
        job = next((each for each in reversed(served) if each.state == "READY"), served[-1])
    if job.state != "READY":
        raise ActionFailed(job.id, f"is {job.state}, not READY", hint=f"tune logs {job.id}")
    return job


def key_of(plan: Plan, home: Home) -> str:
    """The API key that a server asks for, by the name in its settings; its plan may have other secrets, such as the hub's token.

    Raises:
        MissingSecret: it has no value here.
    """
    [settings] = [json.loads(file.text) for file in plan.files if file.path == SETTINGS]
    name = settings["key"]
    return secret_values([name], home)[name] if name else ""


def _port_and_models(data: bytes, job: Job) -> tuple[int, tuple[str, ...]]:
    """The port and the models of a server's summary; it comes from a host."""
    try:
        summary = json.loads(data)
        if (
            isinstance(summary["port"], int)
            and 0 < summary["port"] < 1 << 16
            and isinstance(summary["models"], list)
            and summary["models"]
        ):
            return summary["port"], tuple(map(str, summary["models"]))
    except (ValueError, KeyError, TypeError):
        pass
    raise ActionFailed(job.id, "does not answer just now; it is started again", hint=f"tune status {job.id}")


def reply(
    where: Endpoint, messages: Sequence[Mapping[str, str]], *, model: str = "", settings: Mapping[str, float] | None = None
) -> Iterator[str]:
    """The reply to a conversation, piece by piece.

    Args:
        where: the server.
        messages: `{"role", "content"}`.
        model: one of its models; empty: the main one.
        settings: max_tokens, temperature, top_p, seed, ...

    Raises:
        InvalidRequest: the server refuses the request; with its words.
        Unreachable: it does not answer, or ends before its reply does.
    """
    if model and model not in where.models:
        rule = f"is not served; there are {', '.join(where.models)}"
        raise NotFound(model, rule, argument="model", hint=did_you_mean(model, where.models))
    body = {"model": model or where.models[0], "messages": list(messages), "stream": True, **(settings or {})}
    head = {"Content-Type": "application/json", **({"Authorization": f"Bearer {where.key}"} if where.key else {})}
    request = urllib.request.Request(f"{where.url}/chat/completions", json.dumps(body).encode(), head)  # noqa: S310  # http, made above
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=600) as answer:
            yield from _pieces(answer)
    except urllib.error.HTTPError as error:
        raise InvalidRequest(_why(error)) from None
    except OSError as error:
        raise Unreachable(where.url, f"does not answer: {getattr(error, 'reason', error)}") from None
    except http.client.HTTPException:
        raise Unreachable(where.url, ENDED) from None


def _pieces(lines: Iterable[bytes]) -> Iterator[str]:
    """The texts of a streamed reply.

    Raises:
        HTTPException: it stops before its end.
    """
    for line in lines:
        text = line.decode("utf-8", "replace").strip()
        if text == "data: [DONE]":
            return
        if text.startswith("data: "):
            for choice in json.loads(text[6:]).get("choices", ()):
                if piece := choice.get("delta", {}).get("content"):
                    yield piece
    raise http.client.HTTPException


def _why(error: urllib.error.HTTPError) -> str:
    """The server's own words."""
    text = error.read(LARGEST).decode("utf-8", "replace")
    try:
        return str(json.loads(text)["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return f"the server says {error.code}: {text[:300]}"
