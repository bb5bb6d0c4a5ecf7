"""TAB in real shells: commands, options, jobs, targets, settings and recipes."""

import os
import pty
import select
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from orchestrator.home import Home
from orchestrator.store import NewJob, open_store

LIMIT = 120.0
"""Seconds for a line to be completed on a busy machine."""
SHOWN = 'tune() { if [ -n "$_ARGCOMPLETE" ]; then command tune "$@"; else printf "<%s>\\n" "$*"; fi; }'
"""In place of what is completed: a line that is run is shown."""
SETUP = {
    "bash": (["bash", "--norc", "--noprofile", "-i"], 'eval "$(tune completion bash)"'),
    "zsh": (["zsh", "-f", "-i"], 'autoload -U compinit; compinit -u -D; eval "$(tune completion zsh)"'),
}
LINES = [
    ("canc", "cancel"),
    ("logs night", "logs nightly-7"),
    ("status --wat", "status --watch"),
    ("submit r.yaml --on la", "submit r.yaml --on lab"),
    ("targets check la", "targets check lab"),
    ("explain optim.warmup_st", "explain optim.warmup_steps"),
    ("recipes show quick", "recipes show quickstart"),
    ("submit recipe-of", "submit recipe-of-mine.yaml"),
]


@pytest.fixture
def place(tmp_path, home):
    """A folder with a recipe, a target and a job, and the environment of a shell in it."""
    folder = tmp_path / "work"
    folder.mkdir()
    (folder / "recipe-of-mine.yaml").write_text("version: 1\n")
    (folder / "clusters.yaml").write_text(
        "version: 1\ntargets:\n  lab: {kind: ssh, hosts: [lab1], accelerator: cpu, devices: 1}\n"
    )
    Home.find().make()
    with open_store(Home.find().store) as store:
        store.add_job(
            NewJob(id="nightly-7", name="nightly", backend="litgpt", target="lab", digest="d", request="{}", lane="lab"),
            time.time(),
        )
    env = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "PS1": "$ ", "TERM": "dumb"}
    return folder, env


class Shell:
    """An interactive shell on a terminal of its own."""

    def __init__(self, argv, folder, env):
        self.master, slave = pty.openpty()
        self.process = subprocess.Popen(
            argv, cwd=folder, env=env, stdin=slave, stdout=slave, stderr=slave, start_new_session=True
        )
        os.close(slave)
        self.seen = ""

    def until(self, text):
        """Read until a text has come."""
        end = time.monotonic() + LIMIT
        while text not in self.seen:
            ready, _, _ = select.select([self.master], [], [], max(end - time.monotonic(), 0))
            assert ready, f"no {text!r} in {self.seen!r}"
            self.seen += os.read(self.master, 4096).decode("utf-8", "replace")
        self.seen = self.seen.partition(text)[2]

    def type(self, text):
        """Press keys."""
        os.write(self.master, text.encode())

    def end(self):
        """Close the terminal, and wait for the shell."""
        self.process.kill()
        self.process.wait()
        os.close(self.master)


@pytest.mark.parametrize("name", SETUP)
def test_tab_in_a_shell(place, name):
    """A line that is completed with TAB and run is the whole line, whichever kind of name it ends with."""
    argv, setup = SETUP[name]
    if not shutil.which(argv[0]):
        pytest.skip(f"{argv[0]} is not installed")
    shell = Shell(argv, *place)
    try:
        for line in (setup, SHOWN, "echo re''ady"):
            shell.type(f"{line}\n")
        shell.until("ready")
        for line, whole in LINES:
            shell.type(f"tune {line}\t")
            shell.type("\n")
            shell.until(f"<{whole}>")
    finally:
        shell.end()


@pytest.mark.skipif(not shutil.which("fish"), reason="fish is not installed")
def test_tab_in_fish(place):
    """fish is offered the same, each with what it is."""
    folder, env = place
    asks = "; ".join(f"complete -C {shlex.quote(f'tune {line}')}" for line, _ in LINES)
    done = subprocess.run(
        ["fish", "--no-config", "-c", f"tune completion fish | source; {asks}"],
        cwd=folder, env=env, capture_output=True, text=True, check=True, timeout=LIMIT,
    )  # fmt: skip
    found = [line.partition("\t")[0] for line in done.stdout.splitlines()]
    assert found == [whole.rpartition(" ")[2] for _, whole in LINES]


def test_values_behind_the_sign(place):
    """After `--set optim.schedule=` come the values that it takes."""
    folder, env = place
    line = "tune submit r.yaml --set optim.schedule=c"
    asks = {
        "_ARGCOMPLETE": "1",
        "_ARGCOMPLETE_SHELL": "fish",
        "COMP_LINE": line,
        "COMP_POINT": str(len(line)),
        "_ARGCOMPLETE_IFS": "\n",
    }
    done = subprocess.run(
        ["bash", "-c", "tune 8>&1 9>&2 1>/dev/null"], cwd=folder, env={**env, **asks}, capture_output=True, text=True, check=False
    )
    assert done.stdout.split() == ["optim.schedule=constant", "optim.schedule=cosine"]


def test_it_costs_nothing_when_nobody_asks(tune):
    """Without a shell that asks, nothing of completion is imported."""
    names = "orchestrator.cli.completion", "argcomplete"
    program = (
        "import sys; from orchestrator import cli; sys.argv = ['tune', '--version']\ntry: cli.main()\nexcept SystemExit: pass\n"
    )
    done = subprocess.run([sys.executable, "-c", f"{program}print([n for n in {names!r} if n in sys.modules])"], capture_output=True, text=True, check=True)  # fmt: skip
    assert done.stdout.splitlines()[-1] == "[]"
