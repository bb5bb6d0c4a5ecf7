"""A host that means harm beside one that is well, with the real controller and the real commands."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.contract.test_hostile import PROGRAM

from .test_hosts import SSH, clean, there  # noqa: F401

ESCAPES = 'ESC = "\\x1b]0;PWNED\\x07\\x1b[31mRED\\x1b[2J\\x9b2J"\n'

MODES = {
    "a forged list of files": """
files = {"plan.json": b"{}", ".git/hooks/post-checkout": b"#!/bin/sh", ".bashrc": b"x", "work/checkpoint/" + ESC: b"x", "log": b"x"}
answering("listing", lambda said: {"files": sorted((name, len(data), 10**18, True) for name, data in files.items())})
blobs.take = lambda home, request: ({"lengths": [length for _, _, length in request["pieces"]]},
                                    b"".join(files[name][at:at + length] for name, at, length in request["pieces"]))
""",
    "escapes in a status": "attempts(phase='exited', rc=1, why=ESC + '\\nline2', step=ESC, evidence=ESC, tail=b64(ESC * 50))",
    "escapes in facts": """
answering("hello", lambda said: dict(said, hostname=ESC, python=ESC, uv=ESC, machine=ESC, gpu_trouble=ESC))
answering("leases", lambda said: {"leases": [{"device": 0, "job": "", "attempt": 0, "lease": ESC, "accelerator": "cpu"}]})
""",
    "other kinds than promised": "attempts(phase='exited', rc='zero', ended='yesterday', why=['x'])",
    "a success with all files": "attempts(phase='exited', rc=0, exist=['checkpoint/config.json'] * 9, ended=1e300, step_started=-1e300)",
    "a gigabyte": "server.send(1, server.READY + server.LENGTHS.pack(0, (1 << 30) - 1))\nwhile True: server.send(1, bytes(1 << 20))",
    "news without end": 'server.send(1, server.READY)\ntext = b\'{"news": "x"}\'\n'
    "while True: server.send(1, server.LENGTHS.pack(len(text), 0) + text)",
    "a shell without end": "while True: sys.stdout.write(ESC * 1000)",
    "a log that is longer than asked": "attempts(phase='running', log=b64('x' * (1 << 23)), log_size=1 << 60)",
    "answers drop by drop": "say = server.send\ndef slow(target, data):\n"
    "    for at in range(0, len(data), 50): say(target, data[at:at + 50]); time.sleep(0.2)\nserver.send = slow",
}
"""Ways to mean harm. The last four are slow or large rather than wrong."""
SEVERAL = ["a forged list of files", "escapes in a status", "a gigabyte"]
"""The rest is for a thorough run."""


@pytest.fixture(params=[pytest.param(name, marks=[] if name in SEVERAL else [pytest.mark.thorough]) for name in MODES])
def evil(request, hosts):
    """A target of one host that means harm."""
    path = hosts[0].home / "evil"
    encoded = "import time\nb64 = lambda text: text.encode()\n"
    path.write_text(f"{PROGRAM}{encoded}{ESCAPES}{MODES[request.param]}\nserver.main()\n")
    path.chmod(0o755)
    return there(hosts[0], name="bad", interpreter="~/evil")


def peak(lab):
    """MiB that the controller had in memory at most."""
    [pid] = lab.controllers()
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024


def shown(words, cwd):
    """All that a command prints to a terminal, and that it does not break."""
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run(
        [sys.executable, "-m", "orchestrator.cli", *words], env=env, cwd=cwd, capture_output=True, timeout=90, check=False
    )
    text = (done.stdout + done.stderr).decode()
    assert "Traceback" not in text, text
    return text


def test_it_harms_nobody(lab, hosts, evil, tmp_path):
    """The job of the good host ends in time; nothing is written here but what was asked for, no control character reaches the terminal,
    no library's traceback either, and the controller stays small.
    """
    lab.submit("bad", lab.training(2), steps=2, where=[evil])
    lab.submit("good", lab.training(5, pause=0.3), steps=5, where=[there(hosts[1])])
    good = lab.wait("good", SSH)
    assert (good.state, good.reason) == ("SUCCEEDED", ""), (good, lab.log())
    assert lab.job("bad").state != "SUCCEEDED" or len(lab.points("bad")) == 2, lab.job("bad")
    assert peak(lab) < 150
    folder = tmp_path / "pulled"
    folder.mkdir()
    for words in (["status"], ["status", "bad"], ["logs", "bad"], ["metrics", "bad"], ["pull", "bad", "--into", "."]):
        text = shown(words, folder)
        assert not [sign for sign in text if ord(sign) < 32 and sign not in "\n\t"], (words, text)
        assert not set(map(chr, range(0x80, 0xA0))) & set(text), (words, text)
    written = {path.name for path in folder.rglob("*") if path.is_file()}
    assert not written & {".bashrc", "post-checkout"}
    assert not [path for path in folder.rglob("*") if path.is_file() and os.access(path, os.X_OK)]
    for plan in folder.rglob("plan.json"):
        assert json.loads(plan.read_text())  # ours
    shown(["cancel", "bad", "--abandon", "--no-wait"], folder)
