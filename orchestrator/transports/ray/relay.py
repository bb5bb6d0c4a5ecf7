"""From outside of a cluster to its relay: the job is found, or started, and says in its log where it listens."""

from __future__ import annotations

import io
import json
import shlex
import time
import zipfile
from collections.abc import Mapping
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

from orchestrator import agent
from orchestrator.transports.base import RayAddress, TransportError
from orchestrator.transports.ray.jobs_api import LIVING, JobsApi
from orchestrator.transports.served import BOOT

START = 90.0
"""Seconds for the relay to listen: Ray starts a process for the job, and that one joins the cluster."""
LOOK = 0.3
"""Seconds between two looks whether it does."""


class Door(NamedTuple):
    """Where a relay listens."""

    job: str
    """Its submission id."""
    hosts: tuple[str, ...]
    """To be tried in this order."""
    port: int
    token: str
    """That it wants to hear first."""


@cache
def package() -> tuple[str, bytes]:
    """Our programs for the cluster: a zip by the name that its content gives it, the same bytes each time."""
    here, agents = Path(__file__).parent / "cluster", Path(str(agent.__file__)).parent
    texts = {"orchestrator/__init__.py": b"", "boot.py": BOOT.encode()}
    texts |= {path.name: path.read_bytes() for path in here.glob("[a-z]*.py")}
    texts |= {f"orchestrator/agent/{path.name}": path.read_bytes() for path in agents.glob("*.py")}
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in sorted(texts.items()):
            archive.writestr(zipfile.ZipInfo(name, (2020, 1, 1, 0, 0, 0)), text, zipfile.ZIP_DEFLATED)
    content = sha256(b"".join(name.encode() + b"\0" + text + b"\0" for name, text in sorted(texts.items()))).hexdigest()
    return f"_ray_pkg_{content[:16]}.zip", packed.getvalue()


def entrypoint(address: RayAddress, program: str, settings: Mapping[str, object]) -> str:
    """The shell command of a job that runs one of our programs in the cluster."""
    return shlex.join([address.interpreter, program, json.dumps(settings)])


def door(api: JobsApi, address: RayAddress) -> Door:
    """The relay of a cluster, which all share whose programs are the same; started where there is none.

    Raises:
        TransportError: the cluster does not answer, or the relay does not begin.
    """
    own_host, port = _own(address)
    name, data = package()
    mark = sha256(json.dumps([address.interpreter, port]).encode()).hexdigest()[:8]
    prefix = f"tune-relay-{mark}-{name[9:17]}-"
    known = {id: job for id, job in api.jobs().items() if id.startswith(prefix) and id.removeprefix(prefix).isdecimal()}
    living = [id for id, job in known.items() if job.state in LIVING]
    if living:
        id = max(living, key=lambda each: int(each.removeprefix(prefix)))
    else:
        api.version()  # before anything is sent there
        id = f"{prefix}{1 + max((int(each.removeprefix(prefix)) for each in known), default=0)}"
        api.submit(id, entrypoint(address, "relay.py", {"port": port}), api.upload(name, data))
    said = _awaited(api, id)
    hosts = (own_host,) if own_host else (urlsplit(address.url).hostname or "", said["host"])
    return Door(id, tuple(dict.fromkeys(hosts)), int(said["port"]), said["token"])


def _own(address: RayAddress) -> tuple[str, int]:
    """Where clusters.yaml says that the relay is to be reached; nothing where it does not say."""
    host, _, port = address.relay.rpartition(":")
    return host, int(port or 0)


def _awaited(api: JobsApi, id: str) -> dict[str, str]:
    """What the relay says of itself, once it listens."""
    end = time.monotonic() + START
    while True:
        for line in api.logs(id).splitlines():
            if line.startswith('{"tune_relay"'):
                return {key: str(value) for key, value in json.loads(line)["tune_relay"].items()}
        job = api.job(id)
        if job is None or job.state not in LIVING:
            why = f"{job.state}: {job.message}" if job else "Ray does not know it any more"
            raise TransportError(f"{api.url}: the relay {id} did not begin: {_shortened(why)}")
        if time.monotonic() > end:
            raise TransportError(f"{api.url}: the relay {id} does not begin: {_shortened(job.message)}")
        time.sleep(LOOK)


def _shortened(text: str) -> str:
    """The end of what Ray says, which has the error, in one line."""
    return " ".join(text.split())[-600:]
