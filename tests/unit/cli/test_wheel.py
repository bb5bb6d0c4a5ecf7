"""An installed wheel: `tune` and `import tunesmith` work where packages of the user's own are called like our folders."""

import ast
import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from orchestrator.agent.provision import find_uv
from tests.unit.cli.test_completion import SETUP, SHOWN, Shell

ROOT = Path(__file__).parents[3]
WRONG = "raise SystemExit('the wrong one')\n"
IMPORT_ALL = """
import importlib, json, pkgutil, sys, tunesmith
run = (".shims", ".cluster", ".__main__", ".generate_", ".ask", ".vendor")  # by themselves, or in a trainer's environment
missing = []
for each in pkgutil.walk_packages(tunesmith.__path__, "tunesmith."):
    if not any(word in each.name for word in run):
        try:
            importlib.import_module(each.name)
        except ModuleNotFoundError as error:
            missing.append(error.name)
        except Exception as error:
            if "needs psycopg2" not in str(error):
                raise
ours = [name for name in sys.modules if name.partition(".")[0] in ("backends", "orchestrator")]
print(json.dumps([ours, missing, len(sys.modules)]))
"""
API = """
import tunesmith, backends, orchestrator
assert backends.MINE and orchestrator.MINE
job = tunesmith.submit(tunesmith.plan("r.yaml", to="command", accept=%r))
print(job.wait().state, job.metrics("loss")["loss"])
"""
CLIENT = """
import asyncio
from mcp import ClientSession, StdioServerParameters
from mcp.client.stdio import stdio_client

async def talk():
    async with stdio_client(StdioServerParameters(command="tune", args=["mcp"])) as (reading, writing):
        async with ClientSession(reading, writing) as session:
            await session.initialize()
            print((await session.call_tool("explain_setting", {"setting": "optim.lr"})).content[0].text)

asyncio.run(talk())
"""
UNUSED = ("model.id", "data.train", "train.batch.global", "train.precision", "optim.lr")
RECIPE = {
    "version": 1,
    "name": "script",
    "model": {"id": "org/name"},
    "data": {"train": "rows.jsonl", "format": "text"},
    "train": {"steps": 3, "batch": {"global": 2}, "precision": "fp32"},
    "optim": {"lr": 0.1},
    "native": {
        "command": {
            "argv": ["python3", "train.py", "{train.steps}"],
            "inputs": ["./train.py"],
            "metrics": {"pattern": r"step (?P<step>\d+) loss (?P<loss>\S+)"},
            "files": ["weight.json"],
        }
    },
}
TRAIN = """
import sys
for step in range(int(sys.argv[1])):
    print("step", step + 1, "loss", 3 - step)
open("weight.json", "w").write("1")
"""


@pytest.fixture(scope="session")
def wheel(tmp_path_factory):
    """The wheel of this checkout."""
    folder = tmp_path_factory.mktemp("wheel")
    done = subprocess.run([find_uv(), "build", "--wheel", "-q", "-o", folder, ROOT], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return next(folder.glob("*.whl"))


@pytest.fixture
def folder(tmp_path):
    """A user's folder, with packages called like ours, modules called like those that we import, a recipe and its program."""
    folder = tmp_path / "mine"
    for name in ("backends", "orchestrator"):
        (folder / name).mkdir(parents=True)
        (folder / name / "__init__.py").write_text("MINE = True\n")
    (folder / "train.py").write_text(TRAIN)
    (folder / "rows.jsonl").write_text('{"text": "a"}\n')
    (folder / "r.yaml").write_text(json.dumps(RECIPE))
    return folder


def test_only_tunesmith_is_taken(wheel):
    """Of top-level names the wheel takes `tunesmith` alone, and no module of it imports another one of ours by an absolute name; the
    programs that run by themselves do.
    """
    with zipfile.ZipFile(wheel) as archive:
        tops = {name.partition("/")[0] for name in archive.namelist()}
        texts = {name: archive.read(name).decode() for name in archive.namelist() if name.endswith(".py")}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"tunesmith"}
    absolute = {
        name.removeprefix("tunesmith/")
        for name, text in texts.items()
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.ImportFrom)
        and not node.level
        and str(node.module).partition(".")[0] in ("backends", "orchestrator")
    }
    assert absolute == {
        "orchestrator/agent/__main__.py",
        "orchestrator/transports/ray/cluster/allocation.py",
        "backends/upstream/generate_keys.py",
        "backends/upstream/generate_defaults.py",
    }


def test_every_module_is_found_below(wheel, folder, tmp_path):
    """From the wheel every module is imported as `tunesmith.*`, in a folder that has others of our names; what is missing is an extra."""
    zipfile.ZipFile(wheel).extractall(tmp_path / "site")
    env = {**os.environ, "PYTHONPATH": str(tmp_path / "site")}
    done = subprocess.run([sys.executable, "-c", IMPORT_ALL], cwd=folder, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    ours, missing, count = json.loads(done.stdout)
    assert not ours
    assert set(missing) <= {"jinja2", "starlette", "uvicorn", "mcp", "optuna", "google"}
    assert count > 400


@pytest.fixture
def installed(wheel, folder, home, tmp_path):
    """Run a program of an environment that has the wheel, and packages called like our folders, in the user's folder."""
    env = tmp_path / "env"
    uv = find_uv()
    subprocess.run([uv, "venv", "-q", "--python", sys.executable, env], check=True)
    subprocess.run([uv, "pip", "install", "-q", "--python", env / "bin" / "python", f"{wheel}[mcp]"], check=True)
    site = next(env.glob("lib/python3*/site-packages"))
    for name in ("backends", "orchestrator"):
        shutil.copytree(folder / name, site / name)
    for name in ("random", "yaml", "select", "json"):
        (folder / f"{name}.py").write_text(WRONG)

    def run(*argv, code=0, **more):
        environ = {**run.environ, **more}
        done = subprocess.run(argv, cwd=folder, env=environ, capture_output=True, text=True, check=False, timeout=600)
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout

    run.environ = {**os.environ, "PATH": f"{env / 'bin'}:{os.environ['PATH']}"}
    run.environ.pop("PYTHONPATH", None)
    return run


ACCEPT = [word for name in UNUSED for word in ("--accept", name)]


def test_a_job_runs_from_an_installed_wheel(installed, tune):
    """The command plans, submits and follows a job in that folder; the controller that it starts there has its own modules, although
    some of the folder's are called like the standard library's.
    """
    id = installed("tune", "submit", "r.yaml", "--to", "command", *ACCEPT, "--follow").strip()
    [job] = json.loads(installed("tune", "status", "--json"))
    assert (job["id"], job["state"]) == (id, "SUCCEEDED")
    assert installed("tune", "recipes", "ls") == tune("recipes", "ls").stdout
    assert installed("tune", "recipes", "cp", "smollm2-135m/dpo", "here").splitlines() == [
        "here/data/preference.jsonl",
        "here/dpo.yaml",
    ]
    shown = json.loads(installed("tune", "translate", "here/dpo.yaml", "--to", "axolotl", "--json"))
    assert set(shown["backends"]) == {"axolotl"}


@pytest.mark.thorough
def test_the_rest_runs_from_an_installed_wheel(installed, folder):
    """Python finds the user's own packages beside ours; TAB answers; an agent's client lists the tools and calls one."""
    for name in ("random", "yaml", "select", "json"):
        (folder / f"{name}.py").unlink()  # a script finds the modules beside it first, as everywhere in Python
    assert installed("python", "-c", API % (UNUSED,)) == "SUCCEEDED [3.0, 2.0, 1.0]\n"
    (folder / "ask.py").write_text(CLIENT)
    assert "optim.lr" in installed("python", "ask.py")
    for shell in ("bash", "zsh", "fish"):
        assert "tunesmith" in installed("tune", "completion", shell)
    asked = "exec 8>answer; tune 8>&8 9>/dev/null"
    installed("bash", "-c", asked, _ARGCOMPLETE="1", _ARGCOMPLETE_IFS=" ", COMP_LINE="tune canc", COMP_POINT="9", IFS=" ")
    assert (folder / "answer").read_text() == "cancel "


@pytest.mark.thorough
@pytest.mark.parametrize("name", [*SETUP, "fish"])
def test_tab_from_an_installed_wheel(installed, folder, name):
    """TAB completes a command, a trainer and a setting in bash, zsh and fish, whatever the folder's own packages are called."""
    if not shutil.which(name):
        pytest.skip(f"{name} is not installed")
    lines = [("canc", "cancel"), ("translate r.yaml --to torcht", "translate r.yaml --to torchtune")]
    lines.append(("explain optim.warmup_st", "explain optim.warmup_steps"))
    if name == "fish":
        asks = "; ".join(f"complete -C 'tune {line}'" for line, _ in lines)
        told = installed("fish", "--no-config", "-c", f"tune completion fish | source; {asks}")
        assert [line.partition("\t")[0] for line in told.splitlines()] == [whole.rpartition(" ")[2] for _, whole in lines]
        return
    argv, setup = SETUP[name]
    shell = Shell(argv, folder, {**installed.environ, "PS1": "$ ", "TERM": "dumb"})
    try:
        for line in (setup, SHOWN, "echo re''ady"):
            shell.type(f"{line}\n")
        shell.until("ready")
        for line, whole in lines:
            shell.type(f"tune {line}\t\n")
            shell.until(f"<{whole}>")
    finally:
        shell.end()


def test_a_checkout_has_the_same_names():
    """What a package names as in a wheel is the very module of the checkout, in either order of import."""
    same = "from backends import plan; from tunesmith.backends import plan as named; from tunesmith.backends.plan import Plan"
    same += "; from tunesmith.orchestrator.home import Home; from orchestrator import home"
    same += "; assert plan is named and Plan is plan.Plan and Home is home.Home and plan.__spec__.name == 'backends.plan'"
    subprocess.run([sys.executable, "-c", same], cwd=ROOT, check=True)
