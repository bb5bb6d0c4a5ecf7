"""Environments are made once, and never half."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from backends.plan import Environment
from orchestrator.agent.provision import ProvisionError, build, ready


def test_a_lock_becomes_an_environment(make, ask) -> None:
    """From the user's index, with the Python asked for, with its bytecode; and the log says what was done."""
    words = {"PYTHONDONTWRITEBYTECODE": "1", "UV_SYSTEM_PYTHON": "1", "UV_COMPILE_BYTECODE": ""}
    make.env = {**os.environ, "UV_CACHE_DIR": make.env["UV_CACHE_DIR"], **words}
    rc, out, err = make.run("# a comment\nsix==1.17.0\niniconfig==2.1.0\n")
    if "a download failed" in err:
        pytest.skip("needs a package index")
    assert (rc, err) == (0, "")
    (path,) = make.made()
    assert ask(path, "import six, iniconfig; print(six.__version__)") == "1.17.0"
    assert ask(path, "import sys; print('%d.%d' % sys.version_info[:2])") == make.python
    assert list(path.glob("lib/python*/site-packages/__pycache__/six.*.pyc"))
    assert "2 packages" in out
    assert out.splitlines()[-1] == f"environment: {path}"
    assert (path / ".ready").read_text() == "six==1.17.0\niniconfig==2.1.0\n"


@pytest.fixture
def local(make, wheel, tmp_path):
    """The script, with a folder of wheels instead of an index: nothing is asked of the network."""
    wheel(tmp_path / "wheels", "onlyhere", "1.0", {"onlyhere.py": "ANSWER = 42\n"})
    make.env |= {"UV_FIND_LINKS": str(tmp_path / "wheels"), "UV_OFFLINE": "1"}
    return make


@pytest.mark.parametrize(("told", "count"), [("", 1), ("1", 1), ("false", 0)])
def test_bytecode_is_compiled_unless_uv_is_told_otherwise(local, told, count) -> None:
    """UV_COMPILE_BYTECODE is the user's, as all that is set for uv itself: with `false` each module is compiled by its first import."""
    local.env["UV_COMPILE_BYTECODE"] = told
    local.run()
    (path,) = local.made()
    assert len(list(path.glob("lib/python*/site-packages/__pycache__/onlyhere.*.pyc"))) == count


def test_the_second_time_nothing_is_done(local) -> None:
    """An environment that is ready is only named, and needs no uv."""
    local.run()
    (path,) = local.made()
    before = (path / ".ready").stat()
    assert local.run("onlyhere==1.0\n", "--uv", "/nonexistent") == (0, f"environment: {path}\n", "")
    assert (path / ".ready").stat() == before


def test_eight_at_once_make_it_once(make, shop) -> None:
    """One makes it; the others say for whom they wait, and all end well."""
    make.env["UV_DEFAULT_INDEX"] = shop.url(shop.password)
    first = make.start()
    assert shop.asked.wait(60)  # it is in the middle
    others = [make.start() for _ in range(7)]
    told = [process.stdout.readline() for process in others]
    shop.open.set()
    outs = [process.communicate(timeout=120) for process in [first, *others]]
    assert told == [f"waiting for process {first.pid}, which makes this environment\n"] * 7
    assert [err for _, err in outs] == [""] * 8
    assert sum("making" in out for out, _ in outs) == 1
    assert len(make.made()) == 1


def test_eight_that_start_in_the_same_moment(local) -> None:
    """However the race for the lock goes, one makes it, and all name the same one."""
    ends = [process.communicate(timeout=120) for process in [local.start() for _ in range(8)]]
    assert [err for _, err in ends] == [""] * 8
    outs = [out for out, _ in ends]
    assert sum("making" in out for out in outs) == 1
    assert {out.splitlines()[-1] for out in outs} == {f"environment: {local.made()[0]}"}


def test_one_cut_off_in_the_middle_is_made_anew(make, shop, ask) -> None:
    """After SIGKILL of a job, what it left does not count as ready, and the next job makes it whole."""
    make.env["UV_DEFAULT_INDEX"] = shop.url(shop.password)
    first = make.start()
    assert shop.asked.wait(60)
    os.killpg(first.pid, signal.SIGKILL)
    first.wait()
    (half,) = make.folders()
    assert not ready(half)
    shop.open.set()
    rc, out, _ = make.run()
    assert rc == 0
    assert "made anew" in out
    assert ask(half, "import onlyhere; print(onlyhere.ANSWER)") == "42"


def test_nobody_builds_beside_a_uv_that_outlived_its_maker(make, shop) -> None:
    """The lock lives as long as the uv: the next one waits for that too, not only for the process that was killed."""
    make.env["UV_DEFAULT_INDEX"] = shop.url(shop.password)
    first = make.start()
    assert shop.asked.wait(60)
    first.kill()  # alone: its uv goes on
    first.wait()
    second = make.start()
    assert second.stdout.readline().startswith(f"waiting for process {first.pid},")
    shop.open.set()
    out, err = second.communicate(timeout=120)
    assert (second.returncode, err) == (0, "")
    assert "made anew" in out


def test_a_terminated_maker_leaves_nothing_that_counts(make, shop) -> None:
    """A cancelled job ends at once, with its uv."""
    make.env["UV_DEFAULT_INDEX"] = shop.url(shop.password)
    first = make.start()
    assert shop.asked.wait(60)
    os.killpg(first.pid, signal.SIGTERM)
    assert first.wait(60) == -signal.SIGTERM
    assert not make.made()


def test_an_interpreter_that_vanished_is_noticed(local) -> None:
    """An environment whose Python was removed from the host is not ready, and is made anew."""
    local.run()
    (path,) = local.made()
    (path / "bin/python").unlink()
    assert not ready(path)
    rc, out, _ = local.run()
    assert (rc, ready(path)) == (0, True)
    assert "its Python is gone" in out


def test_files_are_shared_with_the_cache(local) -> None:
    """Two environments with one package hold it once: hard links from one cache."""
    local.run()
    (path,) = local.made()
    (module,) = path.glob("lib/python*/site-packages/onlyhere.py")
    assert module.stat().st_nlink > 1


def test_it_runs_from_a_program_too(local, monkeypatch: pytest.MonkeyPatch) -> None:
    """`build` gives the path and tells its progress line by line."""
    for name in [name for name in os.environ if name.startswith(("PIP_", "UV_"))]:
        monkeypatch.delenv(name)
    for name, text in local.env.items():
        monkeypatch.setenv(name, text)
    said: list[str] = []
    path = build(local.envs, Environment("demo", local.python, "onlyhere==1.0"), say=said.append)
    assert ready(path)
    assert said[0] == f"making the environment of demo (cpu): 1 packages, Python {local.python}"
    assert any(str(path) in line for line in said)


def test_silence_is_broken(make, shop, tmp_path: Path) -> None:
    """While a download takes its time, lines say so."""
    quick = tmp_path / "quick.py"  # the same program with a faster pulse, in order not to wait for ten seconds
    quick.write_text(
        f"import sys; sys.path.insert(0, {str(Path(__file__).parents[3])!r})\n"
        "from orchestrator.agent import provision, uv_process\nuv_process.PULSE = 0.2\nsys.exit(provision.main())\n"
    )
    make.program = (str(quick),)
    process = make.start(UV_DEFAULT_INDEX=shop.url(shop.password))
    line = ""
    while not line.startswith("  still at work: "):
        line = process.stdout.readline()
        assert line, process.communicate()
    shop.open.set()
    assert process.wait(60) == 0


@pytest.mark.parametrize(
    ("lock", "words"),
    [
        ("", "the lock names no package"),
        ("six\n", "lock:1: should be an exact pin"),
        ("six==1.17.0\n--index-url http://me:hush@host/\n", "lock:2: should be an exact pin"),
        ("six @ https://me:hush@host/six.whl\n", "lock:1"),
    ],
)
def test_a_lock_holds_pins_and_nothing_else(make, lock: str, words: str) -> None:
    """An option or a URL in a lock is refused by line, before anything is made."""
    rc, out, err = make.run(lock)
    assert (rc, out) == (1, "")
    assert words in err
    assert "hush" not in err
    assert not make.envs.exists()


def test_a_name_is_no_path(tmp_path: Path) -> None:
    """An environment cannot be placed outside its folder."""
    with pytest.raises(ProvisionError, match="small letters"):
        build(tmp_path / "envs", Environment("../up", "3.11", "six==1.17.0"))


def test_no_such_python(local) -> None:
    """The error names the version and the way out, and nothing is left."""
    local.python = "3.99"
    rc, _, err = local.run()
    assert rc == 1
    assert err.startswith("no environment for demo: there is no Python 3.99 here")
    assert "`python:` of the target" in err
    assert not local.folders()


def test_no_such_package(make, shop, tmp_path: Path) -> None:
    """What the user's places lack is named, with the settings that lead elsewhere; `no-index` leaves the index out."""
    (tmp_path / "corner").mkdir()
    shop.open.set()
    places = {"PIP_INDEX_URL": shop.url(shop.password), "PIP_FIND_LINKS": str(tmp_path / "corner")}
    rc, _, err = make.run(**places, PIP_NO_INDEX="1")
    assert rc == 1
    assert err.startswith("no environment for demo: the package index does not have what the lock names")
    assert "onlyhere" in err
    assert "hint: check PIP_INDEX_URL" in err
    assert not make.folders()
    assert make.run(**places)[0] == 0


def test_no_network(make) -> None:
    """A download that fails is told from a package that is not there."""
    rc, _, err = make.run(UV_DEFAULT_INDEX="http://127.0.0.1:9/simple", UV_HTTP_RETRIES="0")
    assert rc == 1
    assert err.startswith("no environment for demo: a download failed\n  uv: ")
    assert "hint: check the network" in err
    assert not make.folders()


def test_no_uv(make) -> None:
    """A uv that does not exist is named."""
    rc, _, err = make.run("six==1.17.0\n", "--uv", "/nonexistent/uv")
    assert (rc, err) == (1, "no environment for demo: /nonexistent/uv: No such file or directory\n")
    assert not make.folders()


def test_no_room(local, wheel, tmp_path: Path) -> None:
    """A full disk is named as that, and what was written goes away again."""
    local.envs.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "none", local.envs], check=False, capture_output=True)
    if mounted.returncode:
        pytest.skip("needs the right to mount a small file system")
    try:
        wheel(tmp_path / "wheels", "large", "1.0", {"large.py": f"X = {'x' * 3_000_000!r}\n"})
        rc, _, err = local.run("large==1.0\n")
        left = local.folders()
    finally:
        subprocess.run(["umount", local.envs], check=True)
    assert rc == 1
    assert err.startswith("no environment for demo: the disk is full\n")
    assert "TUNE_HOME" in err
    assert not left


@pytest.mark.parametrize(
    ("accelerator", "cuda", "words"),
    [("cpu", "'13.0'", "built for CUDA"), ("cuda", "None", "built without CUDA"), ("cpu", "None", ""), ("cuda", "'13.0'", "")],
)
def test_the_wrong_build_of_torch_is_refused(local, wheel, tmp_path: Path, accelerator: str, cuda: str, words: str) -> None:
    """Same version, other build: it would fail at import, or train on the CPU in silence."""
    version = f"__version__ = '2.13.0'\ndebug = False\ncuda: Optional[str] = {cuda}\nhip: Optional[str] = 'x'\n"
    wheel(tmp_path / "wheels", "torch", "2.13.0", {"torch/version.py": version})
    rc, _, err = local.run("torch==2.13.0\n", "--accelerator", accelerator)
    assert (rc != 0) == bool(words)
    assert words in err
    assert ("hint: " in err) == bool(words)
    assert len(local.made()) == (0 if words else 1)


OTHER = "py310-none-any"
"""A wheel of an older Python, which a newer one takes too."""

SOURCE = """
import zipfile

def build_wheel(folder, *_):
    name = "onlyhere-1.0-py3-none-any.whl"
    info = "onlyhere-1.0.dist-info"
    with zipfile.ZipFile(f"{folder}/{name}", "w") as made:
        made.writestr("onlyhere.py", "ANSWER = 43\\n")
        made.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\\nName: onlyhere\\nVersion: 1.0\\n")
        made.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\\nGenerator: test\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n")
        made.writestr(f"{info}/RECORD", "")
    return name
"""


@pytest.mark.skipif(sys.version_info[:2] == (3, 10), reason="its own Python is the other one")
@pytest.mark.parametrize("has_source", [True, False])
def test_a_wheel_of_another_python_is_built_from_source(make, wheel, tmp_path, ask, has_source) -> None:
    """Where an index has a package's wheel for another Python alone, its source is built; without one, the log says what may fail."""
    wheels = tmp_path / "wheels"
    wheel(wheels, "onlyhere", "1.0", {"onlyhere.py": "ANSWER = 42\n"}, OTHER)
    if has_source:
        build = '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'
        about = "Metadata-Version: 2.1\nName: onlyhere\nVersion: 1.0\n"
        with tarfile.open(wheels / "onlyhere-1.0.tar.gz", "w:gz") as made:
            for name, text in (("pyproject.toml", build), ("backend.py", SOURCE), ("PKG-INFO", about)):
                info = tarfile.TarInfo(f"onlyhere-1.0/{name}")
                info.size = len(text)
                made.addfile(info, io.BytesIO(text.encode()))
    make.env |= {"UV_FIND_LINKS": str(wheels), "UV_OFFLINE": "1"}
    rc, out, _ = make.run()
    (path,) = make.made()
    assert rc == 0
    assert "onlyhere==1.0: the wheel found is for another Python; building it from source" in out
    assert ask(path, "import onlyhere; print(onlyhere.ANSWER)") == ("43" if has_source else "42")
    assert ("warning: onlyhere==1.0 is a wheel for another Python" in out) is not has_source
