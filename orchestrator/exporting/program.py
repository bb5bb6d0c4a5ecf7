"""The plan and what runs it, as one shell text that needs nothing but a Python on the node."""

from __future__ import annotations

import base64
import bz2
import json
import textwrap
import zlib
from collections.abc import Mapping
from dataclasses import asdict
from functools import cache
from pathlib import Path

from backends.plan import Plan
from orchestrator import agent

MODULES = ("__init__", *(name for name in agent.PROVISIONING if name != "__main__"), "task")
"""Of the agent: what runs a plan by itself."""
LONGEST = 126_000
"""Bytes of a shell text: Linux takes 131,072 in one argument, and engines add some."""
BOOT = """\
import base64, bz2, json, os, sys
document = json.loads(bz2.decompress(base64.b64decode(DATA)))
library = os.path.join(os.path.expanduser(document["folder"]), "lib-" + document["digest"])
for name, text in document.pop("modules").items():
    path = os.path.join(library, name)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)
sys.path.insert(0, library)
from orchestrator.agent import task
sys.exit(task.main(document))
"""


class TooLarge(ValueError):
    """The plan does not fit into what an engine takes."""


@cache
def modules() -> Mapping[str, str]:
    """Path -> text of what runs on the node."""
    folder = Path(str(agent.__file__)).parent
    texts = {f"orchestrator/agent/{name}.py": (folder / f"{name}.py").read_text("utf-8") for name in MODULES}
    return {"orchestrator/__init__.py": "", **texts}


def document(plan: Plan, engine: Mapping[str, str], inputs: Mapping[str, str]) -> dict[str, object]:
    """What `agent.task` is told.

    Args:
        plan: what was decided.
        engine: `rank` and `heads`: variables with this node's number, and with the addresses of all, the first node's first.
        inputs: the plan's path of an input -> where it lies on the node.
    """
    return {
        "digest": plan.digest()[:12],
        "job": plan.recipe,
        "folder": f"~/tune/{plan.recipe}",
        "engine": dict(engine),
        "hosts": plan.hosts,
        "port": 20_000 + zlib.crc32(plan.digest().encode()) % 10_000,
        "environment": {key: getattr(plan.environment, key) for key in ("name", "python", "lock", "accelerator")},
        "files": {file.path: file.text for file in plan.files},
        "inputs": dict(inputs),
        "env": [list(each) for each in plan.env],
        "steps": [asdict(step) for step in plan.steps],
        "promised": list(plan.promise.files),
        "modules": dict(modules()),
    }


def shell(plan: Plan, engine: Mapping[str, str], inputs: Mapping[str, str]) -> str:
    """The shell text. The same plan gives the same bytes.

    Raises:
        TooLarge: no engine would take it.
    """
    packed = bz2.compress(json.dumps(document(plan, engine, inputs), sort_keys=True).encode())  # of source text the smallest
    data = "\n".join(textwrap.wrap(base64.b64encode(packed).decode(), 120))
    text = f'python3 - <<\'END_OF_PLAN\'\nDATA = """\n{data}\n"""\n{BOOT}END_OF_PLAN\n'
    if len(text) > LONGEST:
        raise TooLarge(f"the plan takes {len(text)} bytes as a shell text, {LONGEST} are taken: leave large files to `inputs`")
    return text
