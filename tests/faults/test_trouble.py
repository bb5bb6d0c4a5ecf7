"""Trouble on the way to other hosts, over real sshd: secrets stay secret, words stay words, full disks and wrong clocks change no
truth, and what is out of reach is waited for.
"""

import hashlib
import json
import os
import re
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

import pytest

from orchestrator.store import open_store

from .conftest import clocked, set_clock, training
from .test_hosts import SSH, there

pytestmark = pytest.mark.long

HOME = Path("/home/tunelab")
"""The user's, on every host."""
TOUCHED = "/tmp/tune-was-here"
"""What words that become commands leave behind, here or there."""
NASTY = f"'\"$(touch {TOUCHED})`touch {TOUCHED}`; touch {TOUCHED} & | > {TOUCHED}\n-rf ../../x \\ é"
LINES = 'mkdir checkpoint; for i in 1 2; do echo "{\\"loss\\": 2.5, \\"lr\\": 0.1, \\"step\\": $i}" >> lines.jsonl; done; echo x > checkpoint/x'
"""A script that trains two steps, for recipes of `--to command`."""


@pytest.fixture(autouse=True)
def clean(hosts):
    """Nothing of an earlier test on the hosts."""
    Path(TOUCHED).unlink(missing_ok=True)
    for node in hosts:
        node.run("sh", "-c", f"rm -rf {HOME}/* {HOME}/.[!.]* /tmp/{Path(TOUCHED).name} || true")


@pytest.fixture
def clusters(tune, hosts):
    """Writes a clusters.yaml: the first host is `lab`, the second `boxes`, both are the group `any`; `more` holds for both."""

    def write(**more):
        said = vars(hosts[0].host())
        way = {key: said[key] for key in ("user", "identity", "known_hosts", "interpreter")}
        targets = {name: {"kind": "ssh", "hosts": [node.address]} for name, node in zip(("lab", "boxes"), hosts, strict=False)}
        layout = {"version": 1, "targets": targets, "groups": {"any": ["lab", "boxes"]}}
        defaults = {**way, "folder": "~/tune", "accelerator": "cpu", "devices": 1, **more}
        (tune.cwd / "clusters.yaml").write_text(json.dumps({**layout, "defaults": defaults}))

    return write


@pytest.fixture
def recipe(tune):
    """Writes a recipe whose trainer is a shell script; gives the words that submit it."""

    def write(script=LINES, words=(), inputs=(), env=None, **more):
        (tune.cwd / "train.sh").write_text(script)
        (tune.cwd / "rows.jsonl").write_text('{"text": "a"}\n')
        command = {"argv": ["sh", "train.sh", *words], "inputs": ["./train.sh", *inputs], "env": env or {}}
        said = {
            "version": 1,
            "name": "shell",
            "model": {"id": "org/name"},
            "data": {"train": "rows.jsonl", "format": "text"},
            "train": {"steps": 2, "batch": {"global": 2}},
            "optim": {"lr": 0.1},
            "native": {"command": {**command, "metrics": {"file": "lines.jsonl"}, "files": ["checkpoint/*"]}},
        }
        (tune.cwd / "r.yaml").write_text(json.dumps({**said, **more}))
        accepted = ("model.id", "data.train", "train.steps", "train.batch.global", "optim.lr")
        return ("submit", "r.yaml", "--to", "command", *(word for leaf in accepted for word in ("--accept", leaf)))

    return write


def holding(word, folder):
    """Files below a folder in which a word stands, or that are named by it."""
    found = []
    for place_, _, names in os.walk(folder):
        for path in (Path(place_, name) for name in names):
            if path.is_file() and not path.is_symlink() and (word in path.name or word.encode() in path.read_bytes()):
                found.append(path)
    return found


@contextmanager
def overheard():
    """All command lines of this machine and its hosts, sampled meanwhile."""
    heard, done = set(), threading.Event()

    def listen():
        while not done.wait(0.05):
            for entry in filter(lambda entry: entry.name.isdigit(), Path("/proc").iterdir()):
                try:
                    heard.add((entry / "cmdline").read_bytes())
                except OSError:
                    continue

    thread = threading.Thread(target=listen)
    thread.start()
    yield heard
    done.set()
    thread.join()


# Secrets


def test_a_secret_reaches_the_job_and_nothing_else(lab, tune, hosts):
    """The steps have it in their environment; no command line, no file here or there, no store, no log has it."""
    secret = "canary-" + os.urandom(8).hex()
    script = 'printf %s "$CANARY" | sha256sum > sum; sleep 1; ' + training(2)
    with overheard() as heard:
        lab.submit("a", script, steps=2, secrets={"CANARY": secret}, where=[there(hosts[0])])
        lab.submit("b", "true", "exec /no/such/program", steps=2, secrets={"CANARY": secret}, where=[there(hosts[1])])
        assert lab.wait("a", SSH).state == "SUCCEEDED", lab.log()
        assert lab.wait("b", SSH).state == "FAILED"
    sum_ = (hosts[0].home / "tune/jobs/a/1/work/sum").read_text().split()[0]
    assert sum_ == hashlib.sha256(secret.encode()).hexdigest()
    assert any(b"sha256sum" in line for line in heard)
    assert not [line for line in heard if secret.encode() in line]
    tune("pull", "a", "--into", tune.cwd / "out")
    shown = "".join(tune(*words, code=None).stdout for words in (["status"], ["status", "--json"], ["logs", "a"], ["logs", "b"]))
    assert secret not in shown
    folders = (lab.home.path, tune.cwd, *(node.root / place_ for node in hosts for place_ in ("home/tunelab", "tmp", "dev/shm")))
    assert [path for folder in folders for path in holding(secret, folder)] == []


def test_a_secret_is_in_no_word_of_ours(lab, tune, recipe, clusters, monkeypatch):
    """A dry run, a missing value and a start that is refused name the secret, and never tell its value."""
    secret = "canary-" + os.urandom(8).hex()
    clusters()
    words = (*recipe(secrets=["CANARY"]), "--on", "lab")
    missing = tune(*words, code=2).stderr
    assert "CANARY" in missing
    monkeypatch.setenv("CANARY", secret)
    said = [tune(*words, "--dry-run", *more) for more in ([], ["--verbose"], ["--json"])]
    assert all("CANARY" in each.stdout for each in said)
    clusters(folder="/proc/no/such")
    id = tune(*words).stdout.strip()
    lab.wait(id, SSH, until=lambda job: job.state == "QUEUED" and "/proc/no" in job.detail)
    said += [tune(*each) for each in (["status", "--events"], ["status", "--json"], ["targets"])]
    assert "/proc/no" in said[-3].stdout
    assert not [each for each in said if secret in each.stdout + each.stderr]


# Words that look like commands


def test_words_are_carried_as_they_are(lab, tune, hosts, recipe, clusters):
    """Quotes, blanks, line ends, `$(...)`, `;`, dashes and `../` in a description, in variables, in names of files and in the
    host's folder arrive letter for letter; nothing of them is done here or there.
    """
    odd = f"-rf $(touch {TOUCHED.rpartition('/')[2]}); 'x\" y"
    (tune.cwd / odd).mkdir()
    (tune.cwd / odd / odd).write_text("inside")
    clusters(folder=f"~/{odd}", env={"THERE": NASTY})
    script = f"""printf '%s\\0' "$@" "$THERE" "$HERE" "$(cat "./$3/$3")" > words; {LINES}"""
    data = f"rows {odd}.jsonl"
    words = recipe(
        script,
        ["{description}", "-n", odd],
        [f"./{odd}"],
        {"HERE": NASTY},
        description=NASTY,
        data={"train": data, "format": "text"},
    )
    (tune.cwd / data).write_text('{"text": "a"}\n')
    id = tune(*words, "--on", "lab", "--label", "team=nlp").stdout.strip()
    job = lab.wait(id, SSH)
    assert job.state == "SUCCEEDED", (job, lab.log())
    there_ = hosts[0].home / odd / "jobs" / id / "1" / "work" / "words"
    assert there_.read_text().split("\0") == [NASTY, "-n", odd, NASTY, NASTY, "inside", ""]
    assert not Path(TOUCHED).exists()
    for folder in (lab.home.path, tune.cwd, hosts[0].home, hosts[0].root / "tmp"):
        assert list(folder.rglob(Path(TOUCHED).name)) == []


WRONG = {
    "hosts": ([f"-oProxyCommand=touch {TOUCHED}"], [f"$(touch {TOUCHED})"], ["a\nb"]),
    "user": (f"x; touch {TOUCHED}", "-l root"),
    "jump": (f"a,$(touch {TOUCHED})", "-J"),
    "folder": ("tune", "~/a\nb", "~root"),
    "interpreter": ("-c", "a\nb"),
    "env": ({"A;B": "x"}, {"CUDA_VISIBLE_DEVICES": "0"}),
}
"""Key of a target -> values that are none."""


def test_words_that_are_refused(tune, recipe, clusters):
    """What cannot be a host, a user, a folder, a program or a variable ends a submit with its line, and with nothing done."""
    clusters()
    layout = json.loads((tune.cwd / "clusters.yaml").read_text())
    for key, values in WRONG.items():
        for number, value in enumerate(values):
            layout["targets"][f"{key}{number}"] = {**layout["targets"]["lab"], key: value}
    (tune.cwd / "clusters.yaml").write_text(json.dumps(layout, indent=1))
    said = tune(*recipe(), "--on", "lab", code=2).stderr
    for key, values in WRONG.items():
        for number in range(len(values)):
            assert re.search(rf"clusters.yaml:\d+: targets\.{key}{number}\.{key}", said), (key, number, said)
    assert not Path(TOUCHED).exists()


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["--id", "../x"], "--id ../x: should be letters"),
        (["--id=-x"], "--id -x: should be letters"),
        (["--id", "a\nb"], "should be letters"),
        (["--label", f"$(touch {TOUCHED})=1"], "--label"),
        (["--on", f"lab;touch {TOUCHED}"], "is not a target"),
        (["--set", "name=../x"], "name"),
        (["--set", f"name='$(touch {TOUCHED})'"], "name"),
        (["--set", "native.command.inputs=['../..']"], "'..' is a name of ours"),
        (["--set", "native.command.files=['../x']"], "should be a path inside the job's folder"),
        (["--set", "native.command.metrics.file=/etc/passwd"], "should be a path inside the job's folder"),
    ],
)
def test_a_submit_that_is_refused(tune, home, recipe, clusters, words, why):
    """Names and paths that lead astray are refused before anything is asked of a host."""
    clusters()
    done = tune(*recipe(), *(words if "--on" in words else [*words, "--on", "lab"]), code=None)
    assert (done.returncode in (2, 3), why in done.stderr) == (True, True), done
    assert not Path(TOUCHED).exists()
    assert not (home / "store.db").exists()


def test_an_interpreter_is_a_name(tune, hosts, clusters):
    """Of an interpreter that looks like a command only the name is looked for."""
    clusters(interpreter=f"python3 $(touch {TOUCHED}); touch {TOUCHED}")
    fault = tune("targets", "check", "lab", code=4).stdout
    assert "not found" in fault or "No such file" in fault
    assert not (hosts[0].root / TOUCHED.lstrip("/")).exists()


# Full disks


def full(node):
    """Fill the disk of a host's home."""
    node.run("sh", "-c", f"cat /dev/zero > {HOME}/fill || true", user=True)


def test_a_disk_that_is_full_at_the_start(lab, hosts):
    """The job waits and says why, nothing of it is left there; with room again it runs, as the attempt that it is."""
    hosts[0].small("2m")
    full(hosts[0])
    lab.submit("a", training(2), steps=2, where=[there(hosts[0])])
    job = lab.wait("a", SSH, until=lambda job: "No space left" in job.detail)
    assert job.state == "QUEUED", job
    assert hosts[0].run("find", str(HOME / "tune"), "-path", "*/jobs/a/*") == ""
    hosts[0].run("rm", str(HOME / "fill"))
    job = lab.wait("a", 2 * SSH)
    assert (job.state, job.attempt) == ("SUCCEEDED", 1), lab.log()


@pytest.mark.parametrize(("then", "why"), [("exit 1", "No space left"), ("true", "too_few_steps")])
def test_a_disk_that_becomes_full(lab, hosts, then, why):
    """A training that runs into it ends as `disk_full`, whatever exit code it makes of that; its end is written down."""
    hosts[0].small("3m")
    script = f"{training(2)}\ncat /dev/zero > fill; {then}"
    lab.submit("a", script, steps=3, where=[there(hosts[0])])
    job = lab.wait("a", SSH)
    assert (job.state, job.reason) == ("FAILED", "disk_full"), (job, lab.log())
    assert why in job.detail, job
    assert json.loads((hosts[0].home / "tune/jobs/a/1/exit.json").read_text())["step"] == "train"
    assert [point.step for point in lab.points("a")] == [1, 2]


# Clocks


@pytest.mark.parametrize("hours", [1, -1])
def test_a_clock_that_is_wrong(lab, tune, hosts, hours):
    """A host whose clock is an hour off: states, times, what is left, and what hangs are told by ours."""
    where = [there(hosts[0], interpreter=clocked(hosts[0]))]
    set_clock(hosts[0], hours * 3600)
    before = time.time()
    assert lab.submit("a", training(30, pause=0.25), steps=30, where=where)
    said, end = {"eta_s": None}, time.monotonic() + SSH
    while said["eta_s"] is None and time.monotonic() < end:
        [said] = tune.json("status", "a")
    assert before - 1 < datetime.fromisoformat(said["started"].replace("Z", "+00:00")).timestamp() < time.time()
    assert 0 < said["eta_s"] < 300
    job = lab.wait("a", SSH)
    assert job.state == "SUCCEEDED", (job, lab.log())
    assert before < job.started < job.ended < time.time() + 1
    with open_store(lab.home.store) as store:
        times = [event.time for event in store.events("a")]
    assert times == sorted(times)
    assert before < times[0]
    assert times[-1] < time.time()


def test_a_job_that_hangs(lab, hosts):
    """A training that says nothing for longer than its rule allows is stopped, with all of its processes."""
    lab.submit("a", training(1) + "\nsleep 300 & sleep 300", steps=9, retry={"hang_minutes": 0.03}, where=[there(hosts[0])])
    job = lab.wait("a", SSH)
    assert (job.state, job.reason) == ("FAILED", "hang"), job
    assert lab.processes("a", hosts[0]) == []


# Cut, down, unknown


def test_cancel_while_the_host_is_cut(lab, tune, hosts):
    """A job whose host is cut, and one over two hosts of which one is, are CANCELLED after the heal, with all processes."""
    script = "sleep 300 & sleep 300"
    lab.submit("a", script, steps=1, where=[there(hosts[0])])
    lab.submit("b", script, steps=1, hosts=2, where=[there(*hosts[1:])])
    for id in "ab":
        lab.wait(id, SSH, state="RUNNING")
    hosts[0].cut()
    hosts[1].cut()
    tune("cancel", "a", "b", "--no-wait")
    for id in "ab":
        assert lab.wait(id, SSH, reachable=False).ended is None
    hosts[0].heal()
    hosts[1].heal()
    for id in "ab":
        job = lab.wait(id, SSH)
        assert (job.state, job.reason) == ("CANCELLED", "cancelled"), (job, lab.log())
        assert lab.processes(id, *hosts) == []


def test_one_submit_from_two_terminals(lab, tune, hosts, recipe, clusters):
    """The same submit, several times at once, is one job that runs once."""
    clusters()
    words = (*recipe(f"echo once >> {HOME}/runs; {LINES}"), "--on", "lab", "--id", "same", "--json")
    with ThreadPoolExecutor(3) as pool:
        said = list(pool.map(lambda _: json.loads(tune(*words).stdout), range(3)))
    assert sum(each["new"] for each in said) == 1
    assert lab.wait("same", SSH).state == "SUCCEEDED", lab.log()
    assert (hosts[0].home / "runs").read_text() == "once\n"


def test_a_host_that_is_down_at_the_submit(lab, tune, hosts):
    """The job waits, `tune status` says for what; it starts when the host is there again."""
    hosts[0].reset_ssh()
    lab.submit("a", training(2), steps=2, where=[there(hosts[0])])
    end = time.monotonic() + SSH
    while "was not reached" not in (said := tune("status").stdout) and time.monotonic() < end:
        time.sleep(0.2)
    assert re.search(rf"QUEUED .*{hosts[0].address}: .*was not reached", said), said
    hosts[0].start_ssh()
    assert lab.wait("a", SSH).state == "SUCCEEDED", lab.log()


@pytest.mark.parametrize(("line", "way_out"), [("", "ssh-keyscan"), ("{address} ssh-ed25519 {key}", "ssh-keygen -R")])
def test_a_host_key_that_is_not_known(tune, hosts, network, recipe, clusters, line, way_out):
    """An unknown and a changed key end a submit with code 4, and what to do."""
    other = (network.folder / "id.pub").read_text().split()[1]
    (tune.cwd / "known").write_text(line.format(address=hosts[0].address, key=other) + "\n")
    clusters(known_hosts="known", accelerator="detect", devices="detect")
    said = tune(*recipe(), "--on", "lab", code=4).stderr
    assert way_out in said
    assert "SHA256:" in said


@pytest.mark.parametrize(
    ("said", "warned"),
    [
        ("KillUserProcesses=yes\nKillExcludeUsers=root\nKillOnlyUsers=", True),
        ("KillUserProcesses=no\nKillExcludeUsers=root\nKillOnlyUsers=", False),
        ("KillUserProcesses=yes\nKillExcludeUsers=root tunelab\nKillOnlyUsers=", False),
        ("KillUserProcesses=yes\nKillExcludeUsers=root\nKillOnlyUsers=other", False),
    ],
)
def test_a_host_that_ends_what_a_session_started(tune, hosts, clusters, said, warned):
    """`tune targets check` warns of a systemd-logind that would end jobs with the connection; the host can be used all the same."""
    loginctl = HOME / "bin/loginctl"
    hosts[0].run(
        "sh", "-c", f'mkdir -p {HOME}/bin; printf "#!/bin/sh\\necho \'%s\'\\n" "$0" > {loginctl}; chmod 755 {loginctl}', said
    )
    hosts[0].configured(f"SetEnv PATH={HOME}/bin:/usr/bin:/bin")
    clusters()
    done = tune("targets", "check", "lab")
    assert ("KillUserProcesses=no" in done.stdout) == warned, done.stdout
    assert tune.json("targets", "lab")[0]["hosts"][0]["facts"]["ends_at_logout"] == warned
