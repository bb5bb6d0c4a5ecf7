"""Nothing is lost and nothing runs twice, whatever is killed; and exit code 0 is not believed."""

import os
import random
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from orchestrator.daemon.client import BOOT, wake
from orchestrator.store import open_store


def test_a_job_succeeds(lab):
    """A job goes through its states, every step's loss is recorded once, the rate is that of the step."""
    assert lab.submit("a", "true", lab.training(5), steps=5)
    job = lab.wait("a")
    assert (job.state, job.reason, job.step, job.steps) == ("SUCCEEDED", "", 5, 5), (job, lab.log())
    assert [p.step for p in lab.points("a")] == [1, 2, 3, 4, 5]
    assert [p.value for p in lab.points("a", "lr")] == [0.0, 0.001, 0.001, 0.001, 0.001]
    assert lab.events("a")[0] == "QUEUED"
    assert lab.events("a")[-1] == "SUCCEEDED"


def test_exit_code_0_is_not_believed(lab):
    """A trainer that ends with 0 and took no step has FAILED."""
    lab.submit("a", "true", steps=5)
    job = lab.wait("a")
    assert (job.state, job.reason) == ("FAILED", "no_steps"), job


@pytest.mark.parametrize(
    ("kw", "planned", "reason"),
    [
        ({"steps": 3, "loss": "nan"}, 3, "nan_loss"),
        ({"steps": 3, "loss": "inf"}, 3, "nan_loss"),
        ({"steps": 3, "loss": "0.0"}, 3, "no_loss_tokens"),
        ({"steps": 3}, 5, "too_few_steps"),
        ({"steps": 3, "files": "checkpoint/config.json"}, 3, "no_checkpoint"),
    ],
)
def test_false_success(lab, kw, planned, reason):
    """NaN, no token with loss, too few steps, a missing file: each FAILED with its own word although all ended with 0."""
    lab.submit("a", lab.training(**kw), steps=planned)
    job = lab.wait("a")
    assert (job.state, job.reason) == ("FAILED", reason), job


def test_a_failing_step_is_named(lab):
    """The step, its exit code and its last words are told; the steps after it do not run."""
    lab.submit("a", "echo 'ValueError: no such thing'; exit 7", "touch ran", steps=1)
    job = lab.wait("a")
    assert (job.state, job.reason) == ("FAILED", "exit_code")
    assert "step1" in job.detail
    assert "7" in job.detail
    assert "ValueError: no such thing" in job.detail
    assert not (lab.home.jobs / "a" / "1" / "work" / "ran").exists()


def test_a_step_says_why(lab):
    """A step's own reason word is the job's."""
    lab.submit("a", """echo '{"reason": "no_loss_tokens", "detail": "row 3"}' > reason.json; exit 1""", steps=1)
    job = lab.wait("a")
    assert (job.state, job.reason, job.detail) == ("FAILED", "no_loss_tokens", "row 3")


@pytest.mark.parametrize("schedule", [0, 1, *(pytest.param(n, marks=pytest.mark.thorough) for n in range(2, 6))])
def test_the_controller_is_killed_again_and_again(lab, seed, schedule):
    """SIGKILL at random moments, a new one by `tune status`: the job ends once, its metrics are whole."""
    chance = random.Random(f"{seed}:{schedule}")
    lab.submit("a", "echo once >> runs", lab.training(40, pause=0.03), steps=40)
    for _ in range(8):
        time.sleep(chance.uniform(0, 0.25))
        lab.kill_controllers()
        lab.tune("status")
    job = lab.wait("a")
    assert job.state == "SUCCEEDED", (job, lab.log())
    assert [p.step for p in lab.points("a")] == list(range(1, 41))
    assert (lab.home.jobs / "a" / "1" / "work" / "runs").read_text() == "once\n"


def test_the_terminal_dies(lab):
    """The submitter's whole session is killed: the job ends all the same, and `tune status` says so afterwards."""
    code = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "import importlib.util as u; s = u.spec_from_file_location('c', sys.argv[2]); m = u.module_from_spec(s); s.loader.exec_module(m)\n"
        "from pathlib import Path; lab = m.Lab(Path(sys.argv[3])); lab.submit('a', lab.training(20, pause=0.03), steps=20)\n"
        "print('submitted', flush=True); import time; time.sleep(60)\n"
    )
    root = str(Path(__file__).parents[2])
    shell = subprocess.Popen(
        [sys.executable, "-c", code, root, str(Path(__file__).with_name("conftest.py")), str(lab.home.path)],
        start_new_session=True,
        stdout=subprocess.PIPE,
    )
    assert shell.stdout.readline() == b"submitted\n"
    lab.wait("a", state="RUNNING")
    os.killpg(shell.pid, signal.SIGKILL)
    shell.wait()
    lab.kill_controllers()
    lab.tune("status")  # notices that nobody looks after the job
    assert lab.wait("a").state == "SUCCEEDED"
    assert "SUCCEEDED" in lab.tune("status")
    assert [p.step for p in lab.points("a")] == list(range(1, 21))


def test_the_same_id_twice(lab):
    """Eight submits with one id run once; another job under that id is refused."""
    script = "echo once >> runs\n" + lab.training(3)
    with ThreadPoolExecutor(8) as pool:
        added = list(pool.map(lambda _: lab.submit("same", script, steps=3), range(8)))
    assert sum(added) == 1
    assert lab.wait("same").state == "SUCCEEDED"
    assert (lab.home.jobs / "same" / "1" / "work" / "runs").read_text() == "once\n"
    with pytest.raises(Exception, match="another job"):
        lab.submit("same", lab.training(4), steps=4)


def test_cancel_leaves_no_process(lab):
    """Cancel ends the whole tree: own sessions, own children, one that ignores TERM."""
    tree = (
        "(trap '' TERM; sleep 300 & sleep 300) & setsid sleep 300 & setsid sh -c 'sleep 300; true' & "
        + lab.training(3)
        + " sleep 300"
    )
    lab.submit("tree", tree, steps=3)
    lab.wait("tree", state="RUNNING")
    end = time.monotonic() + 20
    while len(lab.processes("tree")) < 6 and time.monotonic() < end:
        time.sleep(0.05)
    assert len(lab.processes("tree")) >= 6
    assert "CANCELLED" in lab.tune("cancel", "tree")
    assert lab.processes("tree") == []
    assert lab.wait("tree").state == "CANCELLED"


def test_cancel_before_the_start(lab):
    """A queued job is cancelled without having run."""
    lab.submit("first", "sleep 30", steps=1)
    lab.submit("second", "touch ran", steps=1)
    lab.wait("first", state="RUNNING")
    assert lab.job("second").state == "QUEUED"
    lab.tune("cancel", "second")
    assert lab.wait("second").state == "CANCELLED"
    assert not (lab.home.jobs / "second").exists()
    lab.tune("cancel", "first")


def test_jobs_wait_for_devices(lab):
    """One device, one job at a time, the higher priority first; a free device is used at once."""
    mark = "echo {} >> ../../../../order; while [ ! -e ../../../../go ]; do sleep 0.02; done; " + lab.training(1)
    lab.submit("a", mark.format("a"), steps=1)
    lab.wait("a", phase_step="train")
    lab.submit("b", mark.format("b"), steps=1)
    lab.submit("c", mark.format("c"), steps=1, priority=5)
    (lab.home.path / "go").touch()
    for job in "abc":
        assert lab.wait(job).state == "SUCCEEDED"
    assert (lab.home.path / "order").read_text().split() == ["a", "c", "b"]


def test_many_who_ask_start_one_controller(lab):
    """Whoever asks while a controller still imports starts no other; when it was killed before it was one, the next who asks does."""
    lab.submit("a", lab.training(1), steps=1)
    lab.wait("a")
    for _ in range(2):
        lab.kill_controllers()
        with ThreadPoolExecutor(20) as pool:
            list(pool.map(lambda _: wake(lab.home), range(20)))
        assert len(lab.controllers()) == 1
    lab.submit("b", lab.training(1), steps=1)
    assert lab.wait("b").state == "SUCCEEDED"


def test_held_jobs_wait_for_a_release(lab):
    """A job that is held stays where it is while later ones run, through a new controller too; once released it runs. What no longer
    waits is neither held nor moved forward.
    """
    gate = "while [ ! -e ../../../../go ]; do sleep 0.02; done; "
    lab.submit("first", gate + lab.training(1), steps=1)
    lab.wait("first", phase_step="train")
    lab.submit("a", lab.training(1), steps=1)
    lab.submit("b", lab.training(1), steps=1)
    assert lab.tune("hold", "a") == "a held\n"
    assert lab.tune("priority", "7", "a", "b") == "a priority 7\nb priority 7\n"
    (lab.home.path / "go").touch()
    assert lab.wait("b").state == "SUCCEEDED"
    lab.kill_controllers()
    lab.submit("c", lab.training(1), steps=1)
    assert lab.wait("c").state == "SUCCEEDED"
    waits = lab.job("a")
    assert (waits.state, waits.detail, waits.priority) == ("QUEUED", "held: `tune release a` lets it start", 7)
    assert lab.tune("release", "a") == "a released\n"
    assert lab.wait("a").state == "SUCCEEDED"
    for words in (("hold", "a"), ("release", "a"), ("priority", "1", "a")):
        with pytest.raises(AssertionError, match="a: is SUCCEEDED, and no longer waits"):
            lab.tune(*words)


def test_retry_is_a_new_attempt(lab):
    """A retry runs in a folder of its own; the old attempt's log and points stay."""
    lab.submit("a", "test -e ../../again || { echo 0.5 > ../../again; exit 1; }", lab.training(2), steps=2)
    assert lab.wait("a").state == "FAILED"
    assert lab.tune("retry", "a") == "a attempt 2\n"
    job = lab.wait("a")
    assert (job.state, job.attempt) == ("SUCCEEDED", 2)
    assert (lab.home.jobs / "a" / "1" / "log").exists()


def test_a_secret_reaches_the_job_and_nothing_else(lab):
    """The value is in the steps' environment; in no file of the state folder, not in the store, in no command line."""
    lab.submit("a", 'test "${#TOKEN}" = 11 && ' + lab.training(1).strip(), steps=1, secrets={"TOKEN": "canary-7731"})
    assert lab.wait("a").state == "SUCCEEDED", lab.log()
    time.sleep(0.1)
    for path in lab.home.path.rglob("*"):
        if path.is_file() and "envs" not in path.parts and "cache" not in path.parts:
            assert b"canary" not in path.read_bytes(), path


def test_a_missing_secret_is_named(lab):
    """Without a value the job does not start; the name is told, and how to mend it."""
    lab.submit("a", "true", steps=1, secrets={"NOBODY_SET_THIS": ""})
    job = lab.wait("a")
    assert (job.state, job.reason) == ("FAILED", "missing_secret")
    assert "NOBODY_SET_THIS" in job.detail


def test_a_dead_supervisor_is_lost_not_failed(lab):
    """The runner is killed: the job is LOST with the reason, and what it left behind is ended."""
    import json  # noqa: PLC0415

    lab.submit("a", "sleep 300", steps=1)
    lab.wait("a", state="RUNNING")
    run = json.loads((lab.home.jobs / "a" / "1" / "run.json").read_text())
    os.kill(run["supervisor"], signal.SIGKILL)
    job = lab.wait("a")
    assert (job.state, job.reason) == ("LOST", "supervisor_died")
    end = time.monotonic() + 20
    while lab.processes("a") and time.monotonic() < end:
        time.sleep(0.05)
    assert lab.processes("a") == []


def test_only_one_controller(lab):
    """However many are started, one works; the others leave at once."""
    lab.submit("a", "sleep 300", steps=1)
    lab.wait("a", state="RUNNING")
    [first] = lab.controllers()
    argv = [sys.executable, "-c", BOOT, str(Path(__file__).parents[2]), str(lab.home.path)]
    for _ in range(3):
        assert subprocess.run(argv, timeout=60, check=False).returncode == 0
    assert lab.controllers() == [first]
    lab.tune("cancel", "a")


def test_the_controller_leaves_when_there_is_nothing_to_do(lab):
    """No daemon stays behind; the next submit starts one."""
    lab.submit("a", lab.training(1), steps=1)
    lab.wait("a")
    end = time.monotonic() + 15
    while lab.controllers() and time.monotonic() < end:
        time.sleep(0.1)
    assert lab.controllers() == []
    lab.submit("b", lab.training(1), steps=1)
    assert lab.wait("b").state == "SUCCEEDED"


def test_a_very_long_state_folder(lab, tmp_path, monkeypatch):
    """A socket's path has 107 bytes at most; a state folder may be deeper."""
    deep = tmp_path / ("d" * 100) / ("e" * 60)
    deep.mkdir(parents=True)
    monkeypatch.setenv("TUNE_HOME", str(deep))
    other = type(lab)(deep)
    other.submit("a", lab.training(2), steps=2)
    assert other.wait("a").state == "SUCCEEDED"
    other.kill_controllers()


def test_the_store_is_private(lab):
    """What lies in the state folder is for its owner only."""
    if "TUNE_STORE" in os.environ:
        pytest.skip("the store is a database's")
    lab.submit("a", lab.training(1), steps=1)
    lab.wait("a")
    for path in (lab.home.path, Path(lab.home.store), lab.home.jobs / "a" / "1"):
        assert path.stat().st_mode & 0o077 == 0, path
    with open_store(lab.home.store) as store:
        assert store.job("a").state == "SUCCEEDED"
