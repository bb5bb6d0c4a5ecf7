"""What all tests share: a state folder each, the command line as a user runs it, the trainers' environments; and what is run when."""

import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
from collections import Counter, defaultdict
from pathlib import Path
from zlib import crc32

import hypothesis
import pytest

from backends.compile import _environment
from backends.mapping.rows import Variant
from backends.registry import BACKENDS
from backends.target import Target
from orchestrator.agent.provision import build
from tests.distribution import Distribution

ROOT = Path(__file__).parents[1]
FAST = ("laws/", "golden/", "unit/recipe/", "unit/render/", "unit/jobs/")
"""Folders of `-m fast`."""


def pytest_configure():
    """What processes that tests start inherit: one thread for sums, since two trainers with a thread on each core wait for each
    other most of the time; no bytecode but that of modules in use, a quarter of an environment's; and Ctrl-C, to which a shell that
    runs the tests in the background makes them deaf.
    """
    hypothesis.settings.register_profile("untimed", deadline=None)
    hypothesis.settings.load_profile("untimed")  # a busy machine is no failure
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ.setdefault("UV_COMPILE_BYTECODE", "false")
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # or each process would compile its modules anew
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        os.environ.pop(name, None)  # the tests' jobs are no news on a developer's desktop
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_xdist_auto_num_workers():
    """One more than there are cores, since tests of hosts and faults mostly wait; few, since trainers need memory."""
    return min(len(os.sched_getaffinity(0)), 4) + 1


def pytest_xdist_make_scheduler(config, log):
    """Whole files go to workers, by an order of our own."""
    return Distribution(config, log) if config.getoption("dist") == "loadfile" else None


def pytest_addoption(parser):
    """How much is run: see "Development" in the README."""
    group = parser.getgroup("tunesmith")
    group.addoption(
        "--everything", action="store_true", help="also what takes minutes: all trainers, killed controllers, the model table"
    )
    group.addoption(
        "--thorough-share",
        metavar="SEED/N",
        type=_share,
        help="also one Nth of the thorough cases, chosen by SEED, any text; 0/1 is all of them",
    )


def _share(text):
    """SEED and N of `--thorough-share`."""
    seed, slash, parts = text.rpartition("/")
    if not slash or not parts.isdigit() or int(parts) < 1:
        raise pytest.UsageError(f"--thorough-share: should be SEED/N, such as 0f3a/5, got {text!r}")
    return seed, int(parts)


def pytest_report_header(config):
    """What was chosen, as it can be repeated."""
    if share := config.getoption("thorough_share"):
        return f"thorough cases: --thorough-share={share[0]}/{share[1]}"
    return None


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config, items):
    """What takes minutes goes first, so that no worker is left alone with it at the end; and only where it is wanted."""
    items.sort(key=lambda item: item.get_closest_marker("trainer") is None)
    for item in items:
        if item.path.is_relative_to(ROOT / "tests") and _is_fast(item):
            item.add_marker("fast")
    named = [Path(arg.partition("::")[0]).resolve() for arg in config.args] != [ROOT / "tests"]
    thorough = _chosen([item for item in items if item.get_closest_marker("thorough")], config.getoption("thorough_share"))
    left = [
        item
        for item in items
        if (item not in thorough if item.get_closest_marker("thorough") else not (named or _is_first(config, item)))
    ]
    unwanted = set(left)
    items[:] = [item for item in items if item not in unwanted]
    config.hook.pytest_deselected(items=left)


def _is_fast(item):
    """Does it belong to the half minute: what is decided and shown, without a trainer?"""
    folder = item.path.relative_to(ROOT / "tests").as_posix()
    return folder.startswith(FAST) and not item.get_closest_marker("trainer") and "trainer_python" not in item.fixturenames


def _is_first(config, item):
    """Is it run without `--everything`? Of tests with a trainer only those that say so."""
    trains, first = item.get_closest_marker("trainer"), item.get_closest_marker("core")
    return config.getoption("everything") or not (item.get_closest_marker("long") or (trains and not first))


def _chosen(items, share):
    """A share of the thorough cases: each is in one of the N parts, and the seed says which part is run. Of cases that take minutes and
    are many `thorough(3)` takes a third of that share.
    """
    if os.environ.get("TUNE_THOROUGH"):
        return set(items)
    if share is None:
        return set()
    seed, parts = share
    by_rarity = defaultdict(list)
    for item in sorted(items, key=lambda item: (crc32(item.nodeid.encode()), item.nodeid)):
        by_rarity[next(iter(item.get_closest_marker("thorough").args), 1) if parts > 1 else 1].append(item)
    steps = {rarity: parts * rarity for rarity in by_rarity}
    return {item for rarity, some in by_rarity.items() for item in some[crc32(seed.encode()) % steps[rarity] :: steps[rarity]]}


def pytest_terminal_summary(terminalreporter):
    """The figure of the schedules of faults (faults/test_schedules.py), with the seeds that repeat them."""
    done = [
        value for report in terminalreporter.getreports("passed") for name, value in report.user_properties if name == "schedule"
    ]
    failed = sum("::test_a_schedule" in report.nodeid for report in terminalreporter.getreports("failed"))
    if done or failed:
        ends = Counter(state for _, *states in done for state in states)
        ends_text = ", ".join(f"{count} {state}" for state, count in ends.most_common())
        seeds = ", ".join(sorted({str(seed) for seed, *_ in done}))
        held = f"{len(done)} held: none of {ends.total()} jobs forgotten, run twice, or with a wrong end ({ends_text})"
        terminalreporter.write_line(f"schedules of faults: {held}; {failed} failed; seeds {seeds}")


@pytest.fixture(scope="session")
def shared_home(tmp_path_factory):
    """A state folder whose environments and caches all tests use, in whichever worker; kept from run to run where TUNE_TEST_HOME
    names it.
    """
    base = tmp_path_factory.getbasetemp()
    own = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base  # a worker's folder lies in that of the run
    path = Path(os.environ.get("TUNE_TEST_HOME") or own / "home")
    for folder in ("envs", "cache"):
        (path / folder).mkdir(parents=True, exist_ok=True)
    return path


@pytest.fixture(scope="session")
def trainer_python(shared_home):
    """The interpreter of a trainer's CPU environment, made from its lock."""

    def python(name: str) -> str:
        return str(build(shared_home / "envs", _environment(BACKENDS[name], Variant(), Target()), say=print) / "bin" / "python")

    return python


@pytest.fixture(scope="session")
def twin(shared_home, trainer_python):
    """The folder of a family's twin (twins/families.py), by its name. All that are missing are made at once, and kept by content."""
    from tests.twins.families import TWINS, described, key  # noqa: PLC0415 - the fast tests need none

    base = shared_home / "cache" / "twins"
    folders = {name: base / f"{name}-{key(name)}" for name in TWINS}

    def folder(name: str) -> Path:
        base.mkdir(exist_ok=True)
        with (base / ".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            missing = {name: place for name, place in folders.items() if not place.is_dir()}
            if name in missing:
                for part in base.glob("*.part"):
                    shutil.rmtree(part)
                wanted = [{**json.loads(described(each)), "folder": place.name} for each, place in missing.items()]
                argv = [trainer_python("trl"), str(ROOT / "tests" / "twins" / "make.py"), str(base)]
                text = "".join(json.dumps(each) + "\n" for each in wanted)
                subprocess.run(argv, input=text, text=True, check=True, env={**os.environ, "HF_HUB_OFFLINE": "1"}, timeout=600)
        return folders[name]

    return folder


@pytest.fixture
def home(tmp_path, shared_home, monkeypatch):
    """An empty state folder with the shared environments and caches; TUNE_HOME names it. Jobs on this machine have one thread each,
    by a clusters.yaml that any other comes before.
    """
    path = tmp_path / "home"
    path.mkdir(mode=0o700)
    for folder in ("envs", "cache"):
        (path / folder).symlink_to(shared_home / folder)
    monkeypatch.setenv("TUNE_HOME", str(path))
    config = tmp_path / "config" / "tune"
    config.mkdir(parents=True)
    (config / "clusters.yaml").write_text("version: 1\ntargets: {local: {kind: local, env: {OMP_NUM_THREADS: '1'}}}\n")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(config.parent))
    return path


@pytest.fixture(scope="session")
def preloaded(tmp_path_factory):
    """Interpreters that have imported the trainers' libraries, where `TUNE_TWINS_PRELOAD=1` asks for them; else None."""
    if not os.environ.get("TUNE_TWINS_PRELOAD"):
        yield None
        return
    from tests.twins.preloaded import Preloaded  # noqa: PLC0415 - the fast tests need none

    servers = Preloaded(tmp_path_factory.mktemp("preloaded"))
    yield servers
    servers.close()


@pytest.fixture
def trainer_interpreter(preloaded, home, trainer_python):
    """The interpreter that starts what belongs to a trainer: its environment's, or one that stands in for it in `home`."""

    def python(trainer, env):
        real = Path(trainer_python(trainer))
        if preloaded is None:
            return real
        launcher = preloaded.python(trainer, real, {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", **env})
        if (home / "envs").is_symlink():
            (home / "envs").unlink()
        if not (home / "envs" / real.parents[1].name).exists():
            preloaded.stand_in(home / "envs", launcher, real.parents[1])
        return launcher

    return python


class Tune:
    """The command as a user runs it, in a process of its own."""

    def __init__(self, cwd: Path) -> None:
        self.cwd = cwd

    def __call__(
        self, *args: str, code: int | None = 0, prefix: tuple[str, ...] = (), timeout: float = 600, **kw
    ) -> subprocess.CompletedProcess:
        argv = [*prefix, sys.executable, "-m", "orchestrator.cli", *map(str, args)]
        env = {**os.environ, "PYTHONPATH": str(ROOT)}
        done = subprocess.run(argv, cwd=self.cwd, env=env, capture_output=True, text=True, timeout=timeout, check=False, **kw)
        assert "Traceback" not in done.stderr, done.stderr
        assert code is None or done.returncode == code, f"exit code {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done

    def json(self, *args: str, **kw):
        """The one document that a command prints."""
        return json.loads(self(*args, "--json", **kw).stdout)


@pytest.fixture
def tune(tmp_path, home):
    """Run `tune` in an empty folder."""
    folder = tmp_path / "work"
    folder.mkdir()
    return Tune(folder)
