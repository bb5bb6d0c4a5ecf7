"""The runner's own promises: its command line, its JSON, and what it costs the host."""

from __future__ import annotations

import ast
import base64
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator import agent
from orchestrator.agent.files import dump_json, parse_json

if TYPE_CHECKING:
    from conftest import Host

AGENT = Path(agent.__file__).parent
MODULES = sorted(AGENT.glob("*.py"))
PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


def call(*words: str, text: str = "", python: str = sys.executable, **rest: Any) -> subprocess.CompletedProcess[str]:
    """Run a command line of the runner as a host would."""
    argv = [python, "-I", "-S", "-E", str(AGENT), *words]
    return subprocess.run(argv, input=text, capture_output=True, text=True, check=False, **rest)


def document(job: str, *argvs: list[str], **rest: Any) -> str:
    """What `start` reads, for the first attempt of a job."""
    steps = [{"name": "s", "argv": argv} for argv in argvs]
    return json.dumps({"spec": {"job": job, "attempt": 1, "steps": steps}, **rest})


@given(PLAIN)
def test_json_is_json(value: Any) -> None:
    """What the runner writes is what `json` reads, and the other way round."""
    assert json.loads(dump_json(value)) == value
    assert parse_json(json.dumps(value).encode()) == value


@pytest.mark.parametrize("text", [b"", b"{", b"{'a': 1}", b"nope", b"\xff"])
def test_what_is_no_json_is_refused(text: bytes) -> None:
    """Broken text is a ValueError, never a value."""
    with pytest.raises(ValueError):
        parse_json(text)


def test_the_command_line_does_it_all(tmp_path: Path) -> None:
    """A host is served by the command line alone: start, status, wait, poll, read."""
    folder = str(tmp_path / "jobs/cli/1")
    first = json.loads(call("start", folder, text=document("cli", ["sh", "-c", "printf é | tee m; exit 3"])).stdout)
    assert (first["job"], first["attempt"]) == ("cli", 1)
    ended = json.loads(call("wait", folder, "60").stdout)
    assert (ended["phase"], ended["rc"]) == ("exited", 3)
    assert call("status", folder, folder).stdout == 2 * call("wait", folder, "0").stdout
    watch = {"dir": folder, "job": "cli", "attempt": 1, "promised": ["m"], "files": {}, "patterns": ["*"]}
    (seen,) = json.loads(call("poll", text=json.dumps([watch])).stdout)["seen"]
    chunk = seen.pop("chunks")[0]
    assert seen == {**ended, "exist": ["m"]}
    assert base64.b64decode(chunk["data"]) == "é".encode()
    assert base64.b64decode(json.loads(call("read", folder, "work/m", "1", "9").stdout)["data"]) == "é".encode()[1:]


def test_the_command_line_stops(tmp_path: Path) -> None:
    """`stop` ends a running attempt, `reap` has nothing to do then."""
    folder = str(tmp_path / "jobs/cli/1")
    call("start", folder, text=document("cli", ["sleep", "600"]))
    assert json.loads(call("stop", folder, "1").stdout)["phase"] in ("stopping", "exited")
    assert json.loads(call("wait", folder, "60").stdout)["why"] == "stopped"
    assert json.loads(call("reap", folder).stdout) == {"reaped": 0}


@pytest.mark.parametrize(
    ("words", "text", "code"),
    [
        ((), "", 2),
        (("dance", "jobs/a/1"), "", 2),
        (("start",), "", 2),
        (("start", "jobs/a/1"), "{", 2),
        (("start", "jobs/a/1"), "{}", 2),
        (("start", "jobs/a/1"), "[]", 2),
        (("start", "jobs/a/1"), document("b", ["true"]), 2),
        (("start", "jobs/.a/1"), document(".a", ["true"]), 2),
        (("start", "jobs/a/x"), document("a", ["true"]), 2),
        (("start", "/proc/jobs/a/1"), document("a", ["true"]), 4),
    ],
)
def test_bad_words_get_an_exit_code_and_a_sentence(tmp_path: Path, words: tuple[str, ...], text: str, code: int) -> None:
    """Wrong words or documents end with their code and a line on stderr, without a traceback and without a job."""
    done = call(*words, text=text, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (code, "")
    assert done.stderr.startswith("runner: ")
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.rglob("*"))


def test_a_conflict_has_its_own_exit_code(tmp_path: Path) -> None:
    """3 tells a caller that the attempt exists with other contents."""
    folder = str(tmp_path / "jobs/a/1")
    assert call("start", folder, text=document("a", ["true"])).returncode == 0
    assert call("start", folder, text=document("a", ["false"])).returncode == 3


def test_a_file_in_place_of_a_folder_is_no_conflict(tmp_path: Path) -> None:
    """The host cannot take it: 4, as with any other trouble of its disk."""
    (tmp_path / "jobs").touch()
    done = call("start", str(tmp_path / "jobs/a/1"), text=document("a", ["true"]))
    assert (done.returncode, done.stdout) == (4, "")
    assert str(tmp_path / "jobs") in done.stderr


def test_inherited_files_are_let_go(tmp_path: Path) -> None:
    """A descriptor that the starter inherited is held neither by the supervisor nor by a step."""
    reading, writing = os.pipe()
    folder = str(tmp_path / "jobs/a/1")
    call("start", folder, text=document("a", ["sleep", "600"]), pass_fds=(writing,))
    os.close(writing)
    assert os.read(reading, 1) == b""
    os.close(reading)
    assert json.loads(call("status", folder).stdout)["phase"] == "running"
    call("stop", folder, "0")
    assert json.loads(call("wait", folder, "60").stdout)["phase"] == "exited"


@pytest.mark.parametrize("module", MODULES, ids=lambda path: path.stem)
def test_it_is_lawful_python_3_8(module: Path) -> None:
    """Every module parses as Python 3.8, and imports nothing but the standard library, its neighbours, and uv where it is there."""
    tree = ast.parse(module.read_text(), feature_version=(3, 8))
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom)]
    names = {alias.name for node in imports if isinstance(node, ast.Import) for alias in node.names}
    names |= {node.module for node in imports if isinstance(node, ast.ImportFrom) and node.module}
    others = {name for name in names if name.split(".")[0] not in sys.stdlib_module_names}
    assert {name for name in others if not name.startswith("orchestrator.agent")} <= (
        {"uv"} if module.stem.startswith("uv_") else set()
    )


@pytest.fixture
def small_group(tmp_path: Path) -> Iterator[Path]:
    """A control group of 64 MB of memory, of whichever version this machine has."""
    for top, limit in (("/sys/fs/cgroup/memory", "memory.limit_in_bytes"), ("/sys/fs/cgroup", "memory.max")):
        group = Path(top, f"tune-test-{os.getpid()}")
        try:
            group.mkdir()
            (group / limit).write_text(str(64 << 20))
        except OSError:
            with suppress(OSError):
                group.rmdir()
            continue
        yield group
        group.rmdir()
        return
    pytest.skip("needs the right to make a control group")


def test_a_kill_for_want_of_memory_has_the_kernels_word(tmp_path: Path, small_group: Path) -> None:
    """A step that the kernel kills in a small control group ends as `out_of_memory`, by the kernel's count before and after."""
    folder = str(tmp_path / "jobs/big/1")
    big = document("big", [sys.executable, "-S", "-c", "x = bytearray(300 << 20)"])
    inside = f'echo $$ >{small_group}/cgroup.procs; exec "$@"'
    argv = ["sh", "-c", inside, "-", sys.executable, "-I", "-S", "-E", str(AGENT), "start", folder]
    subprocess.run(argv, input=big, text=True, check=True, capture_output=True)
    ended = json.loads(call("wait", folder, "60").stdout)
    assert (ended["signal"], ended["cause"]) == (9, "out_of_memory")
    before, after = re.search(r"of its control group: oom_kill (\d+) -> (\d+)\)$", ended["evidence"]).groups()
    assert int(after) == int(before) + 1


PYTHONS = [f"3.{minor}" for minor in range(8, 15)]


@pytest.mark.parametrize("version", PYTHONS)
def test_other_pythons_run_it(tmp_path: Path, version: str) -> None:
    """Each Python found on this machine supervises a job with an orphan in it to its end."""
    found = interpreter(version)
    if not found:
        pytest.skip(f"no Python {version} here")
    folder = str(tmp_path / "jobs/a/1")
    argv = ["sh", "-c", "env -i setsid sleep 600 & sleep 0.1; exit 6"]
    done = call("start", folder, text=document("a", argv, files={"a": "é"}), python=found)
    assert json.loads(done.stdout)["phase"] == "running", done.stderr
    assert json.loads(call("wait", folder, "60", python=found).stdout)["rc"] == 6
    assert json.loads((tmp_path / "jobs/a/1/exit.json").read_text())["left_behind"] == 1


def interpreter(version: str) -> str:
    """A Python of a version that runs here, from the PATH or kept by pyenv; empty when there is none."""
    kept = Path.home().glob(f".pyenv/versions/{version}.*/bin/python")
    for found in (shutil.which(f"python{version}"), *map(str, kept)):
        if found and subprocess.call([found, "-c", "pass"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) == 0:
            return found
    return ""


def test_a_supervisor_is_small(host: Host) -> None:
    """A supervisor takes less than 20 MB, and imports none of the modules that would make a start slow."""
    host.start("small", ["sleep", "600"], notify="/nowhere")
    run = host.until(lambda: host.written("small", "run.json"))
    resident = next(line for line in (host.root / f"proc/{run['supervisor']}/status").read_text().splitlines() if "VmRSS" in line)
    assert int(resident.split()[1]) < 20 * 1024
    text = f"import sys; sys.path.append({str(AGENT.parents[1])!r}); from orchestrator.agent import runner; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-I", "-S", "-E", "-c", text], capture_output=True, text=True, check=True)
    assert not {"re", "enum", "typing", "json", "subprocess", "socket", "ctypes", "hashlib"} & set(loaded.stdout.split())
