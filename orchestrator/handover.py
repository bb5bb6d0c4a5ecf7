"""From a plan to what a host is given: the request of an attempt, and how the store keeps a job's."""

from __future__ import annotations

import json
import os
import sys
import zlib
from base64 import b64decode, b64encode
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from backends.plan import HEAD, JOB, PORT, RANK, Environment
from orchestrator.home import Home
from orchestrator.provision import address, ready
from orchestrator.transports.base import Request

GRACE = 10.0
"""Seconds between asking a job's processes to end and killing them."""


def packed(request: Mapping[str, Any]) -> str:
    """A job's request as the store keeps it."""
    return b64encode(zlib.compress(json.dumps(request, sort_keys=True).encode(), 6)).decode()


def unpacked(text: str) -> dict[str, Any]:
    """The request again."""
    return dict(json.loads(zlib.decompress(b64decode(text))))


def request(
    home: Home,
    job: str,
    attempt: int,
    plan: Mapping[str, Any],
    target: Mapping[str, Any],
    devices: Sequence[int],
    secrets: Mapping[str, str],
) -> Request:
    """What the runner is told: the plan, with this host's environment and folders put in."""
    environment = Environment(**plan["environment"])
    files = {file["path"]: file["text"] for file in plan["files"]}
    links = {"cache": str(home.cache), **{i["path"]: os.path.expanduser(i["source"]) for i in plan["inputs"]}}  # noqa: PTH111  # text only
    words = {RANK: "0", HEAD: "127.0.0.1", PORT: str(_port(job, attempt)), JOB: job}
    steps = [{**step, "argv": [_filled(word, words) for word in step["argv"]]} for step in plan["steps"]]
    if environment.lock:
        place = address(home.envs, environment)
        links["env"] = str(place)
        if not ready(place):
            files["env.lock"] = environment.lock
            steps.insert(
                0,
                {
                    "name": "environment",
                    "argv": [
                        sys.executable,
                        "-I",
                        str(Path(__file__).with_name("provision.py")),
                        str(home.envs),
                        environment.name,
                        "env.lock",
                        "--python",
                        environment.python,
                        "--accelerator",
                        environment.accelerator,
                    ],
                },
            )
    env = {name: _filled(value, words) for name, value in plan["env"]}
    if target["accelerator"] == "cuda":
        env["CUDA_VISIBLE_DEVICES"] = ",".join(map(str, devices))
    return Request(job, attempt, tuple(steps), files, links, env, GRACE, str(home.socket), secrets)


def _filled(text: str, words: Mapping[str, str]) -> str:
    """A word of a plan with what is known now that the job has its place."""
    for token, value in words.items():
        text = text.replace(token, value)
    return text


def _port(job: str, attempt: int) -> int:
    """Where the job's processes meet: the same for all hosts without asking any, rarely the same for two jobs."""
    return 20_000 + zlib.crc32(f"{job}/{attempt}".encode()) % 10_000
