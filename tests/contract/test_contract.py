"""The contract of a transport, kept by every one of them: see `orchestrator.transports.base`."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from orchestrator.transports.base import Busy, Conflict, Lease, TransportError, Watch
from orchestrator.transports.local import Local

if TYPE_CHECKING:
    from conftest import Host

PYTHON = ["-I", "-S", "-E", "-c"]
SLEEP = ["sleep", "600"]
# Like torchrun: workers in sessions of their own, each with a loader; the second ignores TERM.
TREE = r"""
import os, signal, subprocess, sys, time
open("pids", "a").write(f"{os.getpid()}\n")
WORKER = '''
import os, signal, subprocess, sys, time
if sys.argv[1] == "1": signal.signal(signal.SIGTERM, signal.SIG_IGN)
open("pids", "a").write(f"{os.getpid()}\\n")
subprocess.Popen(["sh", "-c", "echo $$ >>pids; exec sleep 600"], start_new_session=True)
time.sleep(600)
'''
workers = [subprocess.Popen([sys.executable, "-I", "-S", "-c", WORKER, str(i)], start_new_session=True) for i in (0, 1)]
if sys.argv[1:]: subprocess.call(["sh", "-c", sys.argv[1]])
for worker in workers: worker.wait()
"""
# Own session, no mark, and its parent gone: only a supervisor that adopts orphans can know of it.
WIPED = "env -i setsid sh -c 'echo $$ >>pids; exec sleep 600' & sleep 0.1"


def placed(host: Host) -> list[Path]:
    """What there is of attempts."""
    return list((host.home / "jobs").rglob("*"))


def sh(text: str) -> list[str]:
    """A shell that runs a text."""
    return ["sh", "-c", text]


def pids(host: Host, job: str, count: int) -> list[int]:
    """The processes of a tree, once all have said their number."""
    return host.until(lambda: len(found := [int(pid) for pid in host.file(job, "pids").split()]) == count and found)


def in_cache(host: Host, name: str, text: str) -> None:
    """Put a file into a folder beside the jobs. The host is asked first, since its user makes the state folder."""
    host.look("nothing")
    (host.home / "cache").mkdir(parents=True, exist_ok=True)
    (host.home / "cache" / name).write_text(text)


# ---- starting


def test_eight_racing_starters_start_one(host: Host) -> None:
    """Of starters that race, one starts the attempt, all get its status, and nothing of the others is left."""
    with ThreadPoolExecutor(8) as pool:
        seen = list(pool.map(lambda _: host.start("race", sh("echo x >>count; sleep 0.3")), range(8)))
    assert {each.phase for each in seen} <= {"running", "exited"}
    assert host.end("race").rc == 0
    assert host.file("race", "count") == "x\n"
    assert [path.name for path in (host.home / "jobs/race").iterdir()] == ["1"]


def test_the_same_again_starts_nothing(host: Host) -> None:
    """A second start after the end answers how it ended; other secrets do not make it another attempt."""
    host.run("again", sh("echo x >>count"), secrets={"TOKEN": "a"})
    assert host.start("again", sh("echo x >>count"), secrets={"TOKEN": "b"}).phase == "exited"
    assert host.file("again", "count") == "x\n"


@pytest.mark.parametrize("other", [{"files": {"a": "2"}}, {"links": {"b": "cache"}}, {"env": {"A": "2"}}, {"grace": 6.0}])
def test_other_contents_are_refused(host: Host, other: dict[str, object]) -> None:
    """An attempt that exists with other contents is a conflict that names it, and is left alone."""
    host.run("taken", ["true"], files={"a": "1"})
    with pytest.raises(Conflict, match="jobs/taken/1 exists with other contents"):
        host.start("taken", ["true"], **{"files": {"a": "1"}, **other})
    assert host.look("taken").rc == 0


def test_another_attempt_is_another_start(host: Host) -> None:
    """Attempts of one job lie side by side."""
    host.run("retry", ["false"])
    host.start("retry", ["true"], attempt=2)
    host.until(lambda: host.transport.poll([Watch("retry", 2)])[0].rc == 0)
    assert host.look("retry").rc == 1


@pytest.mark.parametrize("job", ["", ".", "..", ".hidden", "a/b", "../a", "a b", "a\n", "é", "$(id)"])
def test_bad_job_names_are_refused(host: Host, job: str) -> None:
    """A job's name is letters, digits and `._-`, so that it is one folder."""
    with pytest.raises(ValueError, match="a job is named by"):
        host.start(job, ["true"])
    assert not placed(host)


def test_files_and_links_are_placed(host: Host) -> None:
    """Files and links are there when the first step starts, private to the user; relative targets are of the state folder."""
    in_cache(host, "seen", "through the link")
    files = {"a.yaml": "é\r\nb\n", "deep/er/b.py": ""}
    links = {"cache": "cache", "inputs/etc": "/etc"}
    assert host.run("placed", sh("cat cache/seen; ls inputs/etc/passwd"), files=files, links=links).rc == 0
    assert "through the link" in host.log("placed")
    work = host.folder("placed") / "work"
    assert (work / "a.yaml").read_bytes() == files["a.yaml"].encode()
    assert (work / "cache").readlink() == host.inner / "cache"
    own = [path for path in (host.home / "jobs").rglob("*") if not path.is_symlink() and "etc/" not in str(path)]
    assert {path.stat().st_mode & 0o777 for path in own if path.is_file()} == {0o600}
    assert {path.stat().st_mode & 0o777 for path in own if path.is_dir()} == {0o700}


@pytest.mark.parametrize("name", ["", "/tmp/x", "../x", "a/../../x", "a/..", "a//b", "./a", "a\0b", "out/x"])
@pytest.mark.parametrize("kind", ["files", "links"])
def test_paths_out_of_the_folder_are_refused(host: Host, kind: str, name: str) -> None:
    """No name of a file or link leads out of the work folder, by itself or through another link; nothing is placed."""
    things = {"files": {}, "links": {"out": "/tmp"}}
    things[kind] = {**things[kind], name: "x"}
    with pytest.raises(ValueError, match="a path is"):
        host.start("escape", ["true"], **things)
    assert host.look("escape").phase == "unknown"
    assert not placed(host)


def test_an_attempt_needs_steps(host: Host) -> None:
    """An attempt without a step, or a step without a program, is refused in words."""
    for argvs in ([], [[]], [["a\0b"]]):
        with pytest.raises(ValueError, match="there is a step"):
            host.start("empty", *argvs)


def test_nothing_is_known_of_the_unknown(host: Host) -> None:
    """What was never started is unknown; to stop, reap or read it does nothing."""
    host.transport.stop("never", 1, 0.0)
    assert host.transport.reap("never", 1) == 0
    assert host.transport.read("never", 1, "log", 0, 10) == b""
    assert host.look("never", promised=("*",), patterns=("*",)).phase == "unknown"


# ---- running


@pytest.mark.parametrize("code", [0, 1, 7, 255])
def test_exit_codes(host: Host, code: int) -> None:
    """The exit code is known after the end, exactly."""
    seen = host.run("code", sh(f"exit {code}"))
    assert (seen.phase, seen.rc, seen.signal, seen.why, seen.step) == ("exited", code, None, "", "s1")
    assert seen.step_started is not None
    assert seen.ended is not None
    assert seen.step_started <= seen.ended


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV, signal.SIGTERM])
def test_signals(host: Host, number: int) -> None:
    """A step ended by a signal has no exit code but the signal's number."""
    seen = host.run("signal", sh(f"kill -{int(number)} $$"))
    assert (seen.phase, seen.rc, seen.signal, seen.why) == ("exited", None, number, "")


def test_a_step_that_is_killed_has_the_kernels_word(host: Host) -> None:
    """A KILL that somebody sent is told from the kernel's own: its count of kills for want of memory did not rise."""
    seen = host.run("killed", sh("kill -9 $$"))
    assert (seen.signal, seen.cause) == (9, "")
    assert re.fullmatch(r"the kernel counted no kill for want of memory \(.+: oom_kill (\d+) -> \1\)", seen.evidence)


def test_steps_run_in_order_in_the_work_folder(host: Host) -> None:
    """Steps run one after another in one folder, each announced in the log on a line of its own."""
    seen = host.run("order", sh("printf a >>f; printf one"), sh("printf b >>f; pwd"), sh("cat f"))
    work = host.inner / "jobs/order/1/work"
    said = ["one", f"=== tune: step 2/3 s2: sh -c printf b >>f; pwd\n{work}", "=== tune: step 3/3 s3: sh -c cat f\nab"]
    assert host.log("order") == "=== tune: step 1/3 s1: sh -c printf a >>f; printf one\n" + "\n".join(said)
    assert (seen.step, seen.rc, seen.log_size) == ("s3", 0, len(host.log("order")))
    assert [each["step"] for each in host.written("order", "exit.json")["history"]] == ["s1", "s2", "s3"]


def test_what_is_made_already_is_not_made_again(host: Host) -> None:
    """A step whose file is there is left out, and the log says so; the last step always runs; no path leads outside."""
    first, last = sh("echo x >made"), sh("echo last; touch made")
    request = host.request("made", first, first, last)
    steps = tuple({**step, "made": "made"} for step in request.steps)
    host.transport.start(replace(request, steps=steps))
    assert host.end("made").rc == 0
    assert "=== tune: step 2/3 s2: not needed, made is there" in host.log("made")
    assert host.log("made").endswith("last\n")
    assert [each["step"] for each in host.written("made", "exit.json")["history"]] == ["s1", "s3"]
    outside = tuple({**step, "made": "../../x"} for step in request.steps)
    with pytest.raises(ValueError, match="x"):
        host.transport.start(replace(host.request("out", first), steps=outside[:1]))


def test_the_first_failure_ends_the_attempt(host: Host) -> None:
    """After a step that failed no other runs, and the end names that step."""
    seen = host.run("fails", ["true"], sh("exit 3"), sh("touch never"))
    assert (seen.step, seen.rc) == ("s2", 3)
    assert not (host.folder("fails") / "work/never").exists()


def test_the_running_step_is_told(host: Host) -> None:
    """While it runs, the status names the step, and run.json its process and the steps before."""
    host.start("told", ["true"], SLEEP)
    seen = host.until(lambda: (now := host.look("told")).step == "s2" and now)
    run = host.written("told", "run.json")
    assert (seen.phase, seen.rc, seen.ended) == ("running", None, None)
    assert (run["index"], [each["rc"] for each in run["history"]]) == (2, [0])
    assert (host.root / f"proc/{run['pid']}/comm").read_text() == "sleep\n"


@pytest.mark.parametrize(
    ("program", "reason"), [("/no/such", "No such file"), ("./data", "Permission denied"), ("nope", "No such")]
)
def test_a_program_that_cannot_start(host: Host, program: str, reason: str) -> None:
    """A program that is missing or not executable ends the attempt with 127 and the reason; start itself succeeds."""
    seen = host.start("bad", [program], files={"data": "x"})
    assert (seen.phase, seen.rc) == ("exited", 127)
    assert seen.why.startswith("could not start: ")
    assert reason in seen.why
    assert program in seen.why
    assert host.run("late", ["true"], [program], ["true"], files={"data": "x"}).step == "s2"


def test_a_step_starts_as_from_a_shell(host: Host) -> None:
    """A step leads a session of its own, reads nothing, holds no file of ours, and no signal is blocked or ignored."""
    text = "ls -l /proc/$$/fd; cat; echo session $(cut -d' ' -f6 /proc/$$/stat) $$; env"
    masks = ["grep", "-E", "Sig(Blk|Ign)", "/proc/self/status"]
    assert host.run("shell", masks, sh(text), env={"A": "1 2", "LANG": "C"}).rc == 0
    log = host.log("shell")
    assert len(re.findall(r" \d+ -> ", log)) == 3
    assert "0 -> /dev/null" in log
    [(blocked, ignored)] = re.findall(r"SigBlk:\s+(\w+)\nSigIgn:\s+(\w+)\n", log)
    # the C library's posix_spawn leaves its own two, 32 and 33, ignored: no program can see or set those, and it does where it uses them
    assert (int(blocked, 16), int(ignored, 16) & ~(0b11 << 31)) == (0, 0)
    assert re.search(r"session (\d+) \1\n", log)
    assert "\nA=1 2\n" in log


def test_secrets_reach_the_process_and_no_file(host: Host) -> None:
    """A secret is in the environment of every step, and in no file of the attempt and no command line of the machine."""
    canary = "canary-" + os.urandom(8).hex()
    sees = sh(f'test "$(printf %s "$TOKEN" | wc -c)" = {len(canary)} || exit 9')
    host.start("secret", sees, sh("echo ready >>f; sleep 600"), secrets={"TOKEN": canary})
    host.until(lambda: host.file("secret", "f"))
    for path in filter(Path.is_file, host.home.rglob("*")):
        assert canary.encode() not in path.read_bytes(), path
    for path in (host.root / "proc").glob("[0-9]*/cmdline"):
        assert canary not in commandline(path), path
    assert canary not in repr(host.request("secret", secrets={"TOKEN": canary}))


def commandline(path: Path) -> str:
    """The words of a process that may be gone."""
    try:
        return path.read_text(errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return ""


def test_children_left_behind_end_before_the_next_step(host: Host) -> None:
    """What a finished step left running is ended before the next step starts, and counted."""
    leaves = sh(
        "setsid sleep 600 & echo $! >pid; env -i sh -c 'trap \"\" TERM; sleep 600 & : >there; wait' & until test -e there; do sleep 0.1; done"
    )
    assert host.run("left", leaves, sh("kill -0 $(cat pid) && exit 1 || exit 0"), grace=0.3).rc == 0
    assert not host.living(int(host.file("left", "pid")))
    assert [each["left_behind"] for each in host.written("left", "exit.json")["history"]] == [3, 0]


def test_the_attempt_outlives_its_starter(host: Host) -> None:
    """The starter's death by SIGKILL, with all of its session, does not touch the attempt."""
    if not isinstance(host.transport, Local):
        pytest.skip("the starter of this transport is another machine's process")
    text = "import sys, time; from pathlib import Path; from orchestrator.transports.local import Local\n"
    text += "from orchestrator.transports.base import Request\n"
    text += "steps = ({'name': 's', 'argv': ['sh', '-c', 'until test -e go; do sleep 0.05; done; exit 5']},)\n"
    text += "print(Local(Path(sys.argv[1])).start(Request('outlives', 1, steps, {}, {})).phase, flush=True); time.sleep(600)"
    root = str(Path(__file__).parents[2])
    argv = [sys.executable, "-c", text, str(host.home)]
    with subprocess.Popen(argv, cwd=root, stdout=subprocess.PIPE, start_new_session=True) as starter:
        assert starter.stdout
        assert starter.stdout.readline() == b"running\n"
        os.killpg(starter.pid, signal.SIGKILL)
        assert starter.stdout.read() == b"", "the supervisor holds no stream of the starter"
    assert host.look("outlives").phase == "running"
    (host.folder("outlives") / "work/go").touch()
    assert host.end("outlives").rc == 5


# ---- ending


def test_cancel_ends_a_whole_tree(host: Host) -> None:
    """A stop ends workers in their own sessions, one that ignores TERM, loaders, and one that wiped its environment."""
    host.start("tree", [host.python, *PYTHON, TREE, WIPED])
    tree = pids(host, "tree", 6)
    host.transport.stop("tree", 1, 0.5)
    assert host.look("tree").phase in ("stopping", "exited")
    seen = host.end("tree")
    assert (seen.phase, seen.why) == ("exited", "killed after grace")
    assert not [pid for pid in tree if host.living(pid)]
    assert not list(host.folder("tree").glob("*.new"))


def test_a_stop_lets_the_program_finish(host: Host) -> None:
    """A program that handles TERM ends in its own way, in time; its exit code is kept, and no further step runs."""
    handles = sh("trap 'echo saved; exit 0' TERM; touch ready; while :; do sleep 0.05; done")
    host.start("saves", handles, sh("touch never"))
    host.until((host.folder("saves") / "work/ready").exists)
    host.transport.stop("saves", 1, 30.0)
    seen = host.end("saves")
    assert (seen.rc, seen.signal, seen.why, seen.step) == (0, None, "stopped", "s1")
    assert host.log("saves").endswith("saved\n")
    assert not (host.folder("saves") / "work/never").exists()


def test_a_second_stop_may_be_more_impatient(host: Host) -> None:
    """A later stop with a shorter grace takes over from an earlier one."""
    host.start("twice", sh("trap 'touch asked' TERM; touch ready; while :; do sleep 0.05; done"))
    host.until((host.folder("twice") / "work/ready").exists)
    host.transport.stop("twice", 1, 600.0)
    host.until((host.folder("twice") / "work/asked").exists)
    host.transport.stop("twice", 1, 0.0)
    assert (host.end("twice").signal, host.look("twice").why) == (signal.SIGKILL, "killed after grace")


def test_a_stop_after_the_end_changes_nothing(host: Host) -> None:
    """To stop what has ended leaves it as it ended."""
    before = host.run("ended", ["true"])
    host.transport.stop("ended", 1, 0.0)
    assert host.look("ended") == before
    assert not (host.folder("ended") / "stop.json").exists()


def test_a_dead_supervisor_is_noticed_and_its_orphans_reaped(host: Host) -> None:
    """When the supervisor was killed the attempt is lost, its processes are counted, and reap ends them all."""
    host.start("orphans", [host.python, *PYTHON, TREE])
    tree = pids(host, "orphans", 5)
    assert host.transport.reap("orphans", 1) == 0, "a living supervisor is not reaped"
    host.kill(host.written("orphans", "run.json")["supervisor"])
    seen = host.end("orphans")
    assert (seen.phase, seen.why, seen.orphans, seen.step) == ("lost", "supervisor died", 5, "s1")
    assert host.start("orphans", [host.python, *PYTHON, TREE]).phase == "lost", "starting again starts nothing"
    assert host.transport.reap("orphans", 1) == 5
    host.until(lambda: not [pid for pid in tree if host.living(pid)])
    assert host.look("orphans").orphans == 0


def test_an_orphan_is_known_by_its_session(host: Host) -> None:
    """Without supervisor, parent and mark, a process is still known by the session of its step."""
    host.start("session", sh("env -i sh -c 'echo $$ >>pids; exec sleep 600' & sleep 0.1; exec sleep 600"))
    (orphan,) = pids(host, "session", 1)
    run = host.written("session", "run.json")
    host.kill(run["supervisor"])
    host.until(lambda: not host.living(run["supervisor"]))
    host.kill(run["pid"])
    host.until(lambda: host.look("session").orphans == 1)
    assert host.transport.reap("session", 1) == 1
    host.until(lambda: not host.living(orphan))


def test_a_reboot_is_told_from_a_killed_supervisor(host: Host) -> None:
    """Another boot id than at the start means that the host was rebooted; whatever has our old numbers is a stranger."""
    host.start("reboot", SLEEP)
    run = host.written("reboot", "run.json")
    host.kill(run["supervisor"])
    host.until(lambda: host.look("reboot").phase == "lost")
    meta = host.folder("reboot") / "meta.json"
    kept = meta.read_text()
    meta.write_text(re.sub('"boot_id": "[^"]+"', '"boot_id": "another"', kept))
    seen = host.look("reboot")
    assert (seen.phase, seen.why, seen.orphans) == ("lost", "host rebooted", 0)
    assert host.transport.reap("reboot", 1) == 0
    assert host.living(run["pid"])
    meta.write_text(kept)


def test_a_reused_pid_is_a_stranger(host: Host) -> None:
    """A process with the recorded number but another start time is never taken for ours."""
    stranger = int(host.command(*sh("setsid sleep 600 >/dev/null 2>&1 & echo $!")))
    host.start("reused", SLEEP)
    path = host.folder("reused") / "run.json"
    run = host.written("reused", "run.json")
    host.kill(run["supervisor"])
    path.write_text(path.read_text().replace(f'"pid": {run["pid"]}', f'"pid": {stranger}'))
    assert host.until(lambda: host.look("reused").orphans) == 1, "the mark still finds ours"
    assert host.transport.reap("reused", 1) == 1
    assert host.living(stranger)
    host.kill(stranger)


# ---- following


def follow(host: Host, job: str, name: str) -> Iterator[bytes]:
    """Read a file to the end of the attempt, as the controller does; where it was rewritten, from the beginning."""
    at, data = (0, ""), b""
    while True:
        seen = host.look(job, files={name: at})
        for chunk in seen.chunks:
            data = data[: chunk.offset] + chunk.data
            at = (chunk.offset + len(chunk.data), chunk.head)
        yield data
        if seen.phase == "exited" and not seen.chunks:
            return


def test_a_file_is_followed_exactly(host: Host) -> None:
    """Following by offsets yields every byte once, characters cut in two included, and knows when there is no more."""
    host.start("follow", sh("for i in $(seq 40); do printf 'step %d é\\n' $i | tee -a metrics; sleep 0.005; done"))
    *_, data = follow(host, "follow", "metrics")
    assert data.decode() == "".join(f"step {i} é\n" for i in range(1, 41))


def test_the_log_is_read_by_offsets(host: Host) -> None:
    """`read` gives exactly the bytes asked for, and nothing past the end."""
    host.run("log", sh("printf '0123456789'"))
    size = host.look("log").log_size
    assert host.transport.read("log", 1, "log", size - 10, 4) == b"0123"
    assert host.transport.read("log", 1, "log", size - 6, 100) == b"456789"
    assert host.transport.read("log", 1, "log", size, 100) == b""


@pytest.mark.parametrize("after", ["b" * 300 + "\n", "b\n", "", "b" * 300 + "\n" + "c" * 9000, "a" * 300 + ",b\n" + "1,2\n"])
def test_a_rewritten_file_is_sent_again(host: Host, after: str) -> None:
    """A file that became shorter, begins otherwise or grew a column behind long names is sent from its beginning, also when it
    is empty now.
    """
    host.run("rewrite", ["true"], files={"m": "a" * 300 + "\n"})
    (first,) = host.look("rewrite", patterns=("m",)).chunks
    (host.folder("rewrite") / "work/m").write_text(after)
    (chunk,) = host.look("rewrite", files={"m": (301, first.head)}, patterns=("m",)).chunks
    assert (chunk.offset, chunk.data.decode()) == (0, after)
    assert not host.look("rewrite", files={"m": (len(after), chunk.head)}).chunks


def test_an_append_is_an_append(host: Host) -> None:
    """While a file is shorter than the compared beginning, an append still sends only what is new."""
    host.run("append", ["true"], files={"m": "ab"})
    (first,) = host.look("append", patterns=("m",)).chunks
    (host.folder("append") / "work/m").write_text("abcd" + "e" * 400)
    (second,) = host.look("append", files={"m": (2, first.head)}).chunks
    assert (second.offset, second.data) == (2, b"cd" + b"e" * 400)
    assert not host.look("append", files={"m": (404, second.head)}).chunks


def test_big_files_come_in_pieces(host: Host) -> None:
    """One poll does not carry a whole big file; the following ones bring the rest."""
    host.run("big", sh("head -c 3000000 /dev/urandom >m"))
    sizes = [len(data) for data in follow(host, "big", "m")]
    assert len(sizes) > 3
    assert sizes[-1] == 3000000
    *_, data = follow(host, "big", "m")
    assert data == (host.folder("big") / "work/m").read_bytes()


def test_promised_files_exist_when_they_hold_something(host: Host) -> None:
    """A promise is kept by a file that is not empty; patterns follow links of the work folder, and never leave it."""
    in_cache(host, "d.bin", "x")
    text = "mkdir out; echo x >out/a.bin; : >out/b.txt; echo x >out/.c.json; mkfifo out/p.pipe"
    host.run("promise", sh(text), links={"cache": "cache"})
    patterns = ("out/*.bin", "out/a.bin", "out/*.txt", "out/*.json", "cache/*.bin", "*", "out/*.pipe", "no/*")
    assert host.look("promise", promised=patterns).exist == ("out/*.bin", "out/a.bin", "cache/*.bin")
    assert [chunk.path for chunk in host.look("promise", patterns=("*/*.bin", "out/p.pipe")).chunks] == [
        "cache/d.bin",
        "out/a.bin",
    ]
    assert host.transport.read("promise", 1, "work/out/p.pipe", 0, 10) == b"", "a pipe holds nobody up"


@pytest.mark.parametrize("name", ["../log", "/etc/passwd", "a/../../log", ""])
def test_nothing_outside_is_read(host: Host, name: str) -> None:
    """Names that lead out of the attempt's folder are refused in every question."""
    host.run("outside", ["true"])
    for watch in ({"files": {name: (0, "")}}, {"patterns": (name,)}, {"promised": (name,)}):
        with pytest.raises(ValueError, match="a path is relative"):
            host.look("outside", **watch)
    for path in (name, f"work/{name}", "spec.json"):
        with pytest.raises(ValueError, match=r"a path is relative|what can be read"):
            host.transport.read("outside", 1, path, 0, 10)


# ---- devices


def held(host: Host) -> list[tuple[int, str]]:
    """Places in use, and the jobs that use them. Accelerators are the whole machine's: other tests may have some now."""
    return [(lease.device, lease.job) for lease in host.transport.leases() if lease.accelerator == "cpu"]


def test_a_device_has_one_attempt_at_a_time(host: Host) -> None:
    """Whoever wants a device that is held is told who holds it, starts nothing and takes nothing; it is free after the end."""
    host.start("first", SLEEP, devices=(0, 1), lease="controller A")
    with pytest.raises(Busy, match="device 1 is held by first/1 of controller A"):
        host.another().start(host.request("second", SLEEP, devices=(1, 2), lease="controller B"))
    assert not (host.home / "jobs/second").exists()
    leases = [lease for lease in host.transport.leases() if lease.accelerator == "cpu"]
    assert leases == [Lease(0, "first", 1, "controller A"), Lease(1, "first", 1, "controller A")]
    host.start("third", SLEEP, devices=(2,))
    host.transport.stop("first", 1, 0.0)
    host.end("first")
    host.until(lambda: held(host) == [(2, "third")])
    assert host.start("second", ["true"], devices=(1, 0)).phase in ("running", "exited")


def test_the_same_attempt_again_is_not_in_its_own_way(host: Host) -> None:
    """Of racing starters of one attempt with devices all get its status; also when it has ended and others have its devices."""
    with ThreadPoolExecutor(8) as pool:
        ways = [host.transport, host.another()] * 4
        wanted = host.request("race", sh("echo x >>count; sleep 0.3"), devices=(0, 1))
        seen = list(pool.map(lambda way: way.start(wanted), ways))
    assert {each.phase for each in seen} <= {"running", "exited"}
    assert host.end("race").rc == 0
    assert host.file("race", "count") == "x\n"
    host.until(lambda: not held(host))
    host.start("next", SLEEP, devices=(0,))
    assert host.transport.start(wanted).rc == 0


def test_of_racing_jobs_one_gets_the_devices(host: Host) -> None:
    """Two controllers with eight jobs that share devices in different orders: each device goes to one, and one job runs at least."""

    def attempt(number: int) -> str:
        devices = [(0, 1), (1, 2), (2, 0), (0, 1, 2)][number % 4]
        try:
            ways[number % 2].start(host.request(f"job{number}", SLEEP, devices=devices))
        except Busy:
            return "busy"
        return "running"

    ways = [host.transport, host.another()]
    with ThreadPoolExecutor(8) as pool:
        outcomes = list(pool.map(attempt, range(8)))
    assert outcomes.count("running") == 1
    assert {job for _, job in held(host)} == {f"job{outcomes.index('running')}"}


def test_a_device_is_held_while_a_step_lives(host: Host) -> None:
    """When the supervisor is killed, its step still holds the device; when that has ended too, the device is free."""
    host.start("lives", SLEEP, devices=(0,))
    run = host.until(lambda: host.written("lives", "run.json"))
    host.kill(run["supervisor"])
    host.until(lambda: host.look("lives").phase == "lost")
    with pytest.raises(Busy, match="device 0 is held by lives/1"):
        host.start("next", ["true"], devices=(0,))
    assert host.transport.reap("lives", 1) == 1
    host.until(lambda: not held(host))
    assert host.run("next", ["true"], devices=(0,)).rc == 0


def test_a_worker_that_let_go_still_holds_the_device(host: Host) -> None:
    """A worker that closed what it inherited, with supervisor and step killed: the device is not given away."""
    host.start("workers", [host.python, *PYTHON, TREE], devices=(0,))
    pids(host, "workers", 5)
    run = host.written("workers", "run.json")
    host.kill(run["supervisor"])
    host.kill(run["pid"])
    host.until(lambda: host.look("workers").orphans == 4)
    with pytest.raises(Busy, match="device 0 is held by workers/1"):
        host.start("next", ["true"], devices=(0,))
    assert held(host) == [(0, "workers")]
    host.transport.reap("workers", 1)
    host.until(lambda: not held(host))
    assert host.run("next", ["true"], devices=(0,)).rc == 0


def test_an_attempt_without_devices_waits_for_nobody(host: Host) -> None:
    """Jobs that ask for no device start beside one that has all."""
    host.start("all", SLEEP, devices=tuple(range(8)))
    assert host.run("none", ["true"]).rc == 0


# ---- around


def test_a_host_says_what_it_is(host: Host) -> None:
    """The facts are those that the host itself would tell."""
    facts = host.transport.hello()
    about = "import platform, socket; print(socket.gethostname(), platform.python_version(), platform.machine())"
    assert [facts.hostname, facts.python, facts.machine] == host.command(host.python, "-c", about).split()
    assert facts.boot == (host.root / "proc/sys/kernel/random/boot_id").read_text().strip()
    assert facts.folder == str(host.inner)
    assert abs(facts.skew) < 5
    assert facts.cpus > 0
    assert facts.free > 0
    assert facts.memory > 1 << 28


def test_notifications_arrive(host: Host) -> None:
    """The job's id arrives at the socket whenever a step starts and at the end; a dead socket harms nobody."""
    if not isinstance(host.transport, Local):
        pytest.skip("the socket is this machine's")
    with tempfile.TemporaryDirectory() as folder, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.settimeout(60)
        listener.bind(f"{folder}/s")
        host.run("news", ["true"], ["true"], notify=f"{folder}/s")
        assert [listener.recv(100) for _ in range(3)] == [b"news"] * 3
    assert host.run("dead", ["true"], notify=f"{folder}/s").rc == 0


def test_a_full_disk_keeps_the_exit_code(small_disk: Host) -> None:
    """A step that fills the disk still has its exit code recorded, though no byte is free."""
    host = small_disk
    seen = host.run("full", sh("cat /dev/zero >fill 2>&1; exit 9"))
    assert (seen.phase, seen.rc, seen.cause) == ("exited", 9, "disk_full")
    assert re.fullmatch(r"the disk of the work folder has \d+ KiB of 1 MiB free", seen.evidence)
    assert os.statvfs(host.home).f_bavail * 4096 < 128 * 1024


def test_a_disk_that_was_full_is_named_by_its_error(small_disk: Host) -> None:
    """A step that tidied up after it met the full disk left the error in its log: that is evidence enough."""
    seen = small_disk.run("tidy", sh("cat /dev/zero >fill; rm fill; exit 1"))
    assert (seen.rc, seen.cause) == (1, "disk_full")
    assert seen.evidence.endswith("No space left on device")


def test_a_full_disk_can_be_stopped_on_and_takes_no_new_attempt(small_disk: Host) -> None:
    """On a full disk a stop still arrives, and a start is refused with the reason and leaves nothing behind."""
    host = small_disk
    host.start("full", sh("cat /dev/zero >fill; touch filled; sleep 600"), grace=0.2)
    host.until(lambda: os.statvfs(host.home).f_bavail == 0)
    with pytest.raises(TransportError, match="No space left on device"):
        host.start("more", ["true"])
    assert not list(host.home.glob("jobs/more/*"))
    host.transport.stop("full", 1, 0.2)
    assert host.end("full").why in ("stopped", "killed after grace")
