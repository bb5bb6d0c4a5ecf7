"""What only SSH has: ways to a host, names that are no names, cut hosts, news, and how few messages it takes."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from orchestrator.agent import blobs
from orchestrator.transports.base import AttemptStatus, Busy, TransportError, Watch
from orchestrator.transports.base import SshAddress as Settings
from orchestrator.transports.served import BOOT, program
from orchestrator.transports.ssh.channel import Wire
from orchestrator.transports.ssh.config import route
from orchestrator.transports.ssh.connect import hang_up
from orchestrator.transports.ssh.transport import Ssh, command

if TYPE_CHECKING:
    from conftest import Host

    from tests.hosts.lab import Lab, Node

LIMIT = 30.0
"""Seconds in which a call on a host that is gone must be back; promised are 12, and machines are loaded."""


def timed(call: object, *args: object) -> float:
    """How long a call takes that finds no host."""
    begun = time.monotonic()
    with pytest.raises(TransportError):
        call(*args)
    return time.monotonic() - begun


def test_a_connection_that_died_is_let_go_in_silence(far: Host, capfd: pytest.CaptureFixture[str]) -> None:
    """When the socket under a channel is gone, closing it raises nothing, in no thread, and prints nothing; the next call works."""
    for _ in range(3):
        far.transport.poll([])
        far.transport._connection.connection.transport.sock.close()
        far.transport._talk.close("closed")
    assert far.transport.poll([]) == []
    assert capfd.readouterr().err == ""


# ---- ways


def test_through_a_gate(hosts: list[Node]) -> None:
    """A host is reached through two others, each with a port and user of its own, and says which it is."""
    jump = f"tunelab@{hosts[1].address}:22,{hosts[2].address}"
    ssh = Ssh(hosts[0].host(jump=f"{jump}"), "the suite")
    with pytest.raises(TransportError, match="did not accept"):
        ssh.hello()  # the second gate has no user, and ours is unknown there
    ssh = Ssh(hosts[0].host(jump=",".join(f"tunelab@{node.address}" for node in hosts[1:])), "the suite")
    assert ssh.hello().hostname == "node0"
    ssh.close()


def test_ssh_config_is_read_as_ssh_does(network: Lab, hosts: list[Node], tmp_path: Path) -> None:
    """Include, Match, ProxyJump, a port, an identity and known_hosts of ssh_config are heeded; what is said of a host wins."""
    more, config = tmp_path / "more", tmp_path / "config"
    config.write_text(f"Include {more}\n")
    more.write_text(
        f"Host gpu\n  HostName {hosts[1].address}\n  ProxyJump gate\n"
        f"Host gate\n  HostName {hosts[2].address}\n"
        f"Match host {hosts[1].address},{hosts[2].address}\n  User tunelab\n  IdentityFile {network.folder}/id\n"
        f"  IdentitiesOnly yes\n  UserKnownHostsFile {network.folder}/known_hosts\n"
    )
    assert Ssh(Settings("gpu", config=str(config), interpreter="/usr/bin/python3"), "the suite").hello().hostname == "node1"
    found = route(Settings("gpu", config=str(config), user="me", port=2222, jump="a@b:3,c"))
    assert (found.user, found.port, found.address, found.agent) == ("me", 2222, hosts[1].address, False)
    assert found.called == f"[{hosts[1].address}]:2222"
    assert found.through
    assert found.through.through
    assert (found.through.address, found.through.through.user, found.through.through.port) == ("c", "a", 3)


def test_a_proxy_command_is_the_connection(network: Lab, hosts: list[Node], tmp_path: Path) -> None:
    """ProxyCommand of ssh_config is run, with the host's address and port in it."""
    config = tmp_path / "config"
    config.write_text(f"Host gpu\n  HostName {hosts[1].address}\n  ProxyCommand ssh -F {network.config} -W %h:%p node2\n")
    ssh = Ssh(hosts[1].host(name="gpu", config=str(config)), "the suite")
    assert ssh.hello().hostname == "node1"
    ssh.close()


def test_a_circle_of_gates_is_refused(tmp_path: Path) -> None:
    """Hosts that are reached through each other are reached never, and that is said."""
    config = tmp_path / "config"
    config.write_text("Host a\n  ProxyJump b\nHost b\n  ProxyJump a\n")
    with pytest.raises(TransportError, match="ProxyJump leads in a circle: a -> b -> a"):
        route(Settings("a", config=str(config)))


def test_a_wrong_ssh_config_is_said(tmp_path: Path) -> None:
    """What ssh says of its configuration is passed on."""
    (tmp_path / "config").write_text("Nonsense yes\n")
    with pytest.raises(TransportError, match="line 1: Bad configuration option: nonsense"):
        route(Settings("a", config=str(tmp_path / "config")))


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"identity": "/no/such/key"}, "did not accept .*: set `identity`"),
        ({"user": "nobody"}, "did not accept"),
        ({"interpreter": "/no/such python"}, "/no/such python"),
        ({"interpreter": "/bin/true"}, "CPython >= 3.8"),
        ({"port": 23}, "was not reached"),
        ({"folder": "/proc/nowhere"}, "/proc/nowhere"),
    ],
)
def test_what_is_wrong_is_said(far: Host, settings: dict[str, object], words: str) -> None:
    """A refused login, a missing interpreter and a closed port each say what it is, and the host's name first."""
    with pytest.raises(TransportError, match=words) as caught:
        Ssh(far.node.host(**settings), "the suite").hello()
    assert str(caught.value).startswith(f"{far.node.address}: ")


def test_a_talkative_shell_does_no_harm(far: Host) -> None:
    """What ~/.bashrc prints is passed over."""
    bashrc = far.node.home / ".bashrc"
    bashrc.write_text("echo Welcome; echo and more >&2; printf 'no newline'\n")
    try:
        assert far.run("talks", ["true"]).rc == 0
    finally:
        bashrc.unlink()


# ---- names that are no names


@pytest.mark.parametrize(
    "text", ["-oProxyCommand=x", "a b", "$(touch x)", "`x`", "a;b", "a\nb", "a'b", 'a"b', "a|b", "../a", "é", "~"]
)
@pytest.mark.parametrize("key", ["name", "address", "user", "jump"])
def test_what_is_no_name_is_refused_before_anything_happens(key: str, text: str) -> None:
    """Names with signs of a shell, options, spaces and line ends never get as far as ssh."""
    with pytest.raises(ValueError, match="should be"):
        Ssh(Settings(**{"name": "host", key: text}), "the suite")


HARD = [
    "a b",
    "it's",
    'say "x"',
    "$(touch pwned)",
    "`touch pwned`",
    "a;touch pwned",
    "-rf",
    "a\nb",
    "é",
    "*",
    "a\\b",
    "$HOME",
    "!x",
]


@pytest.mark.parametrize("text", HARD)
def test_folders_and_interpreters_are_only_names(hosts: list[Node], text: str) -> None:
    """Whatever stands in a state folder's or an interpreter's path is a path, and no shell makes something else of it."""
    node = hosts[0]
    folder = f"/home/tunelab/hard/{text}"
    node.run("mkdir", "-p", folder, user=True)
    node.run("ln", "-sf", "/usr/bin/python3", f"{folder}/python", user=True)
    ssh = Ssh(node.host(folder=f"{folder}/state", interpreter=f"{folder}/python"), "the suite")
    assert ssh.hello().folder == f"{folder}/state"
    home = Ssh(node.host(folder=f"~/hard/{text}/state", interpreter=f"~/hard/{text}/python"), "the suite")
    assert home.hello().folder == f"{folder}/state"
    assert "pwned" not in node.run("find", "/home/tunelab", "-name", "pwned")
    ssh.close()
    home.close()


@pytest.mark.parametrize("text", HARD)
def test_values_of_a_job_are_only_values(host: Host, text: str) -> None:
    """Arguments, variables, file names and links arrive as they were, over every transport."""
    argv = ["sh", "-c", 'printf %s "$1" >argument; printf %s "$V" >variable', "sh", text]
    assert host.run("values", argv, env={"V": text}, files={f"d/{text}": text}, links={"link": text}).rc == 0
    assert host.file("values", "argument") == host.file("values", "variable") == host.file("values", f"d/{text}") == text
    assert (host.folder("values") / "work/link").readlink() == host.inner / text


def test_a_secret_is_in_no_file_and_no_command_line_of_either_side(far: Host) -> None:
    """While a job with a secret runs on a host, the secret is in no argv here and in none there."""
    canary = "canary-" + os.urandom(8).hex()
    far.start("secret", ["sleep", "600"], secrets={"TOKEN": canary})
    for root in (Path("/proc"), far.root / "proc"):
        for path in root.glob("[0-9]*/cmdline"):
            try:
                assert canary.encode() not in path.read_bytes(), path
            except (FileNotFoundError, ProcessLookupError):
                continue
    assert canary not in "".join(path.read_text(errors="replace") for path in far.home.rglob("*") if path.is_file())


# ---- trouble


def test_a_cut_host_holds_nobody_up_and_is_found_again(far: Host) -> None:
    """On a host that was cut, every call ends soon and says so; after the heal the job is followed on, and ended meanwhile."""
    far.start("cut", ["sh", "-c", "until test -e go; do sleep 0.05; done; exit 7"])
    (far.folder("cut") / "work/go").touch()
    far.node.cut()
    assert timed(far.look, "cut") < LIMIT, "the connection is up, and silent"
    assert timed(far.look, "cut") < LIMIT, "there is no connection"
    assert timed(far.start, "more", ["true"]) < LIMIT
    far.node.heal()
    assert far.until(lambda: ended(far, "cut")).rc == 7
    assert far.look("more").phase == "unknown"


@pytest.mark.thorough(2)
def test_a_sender_on_a_cut_host_is_let_go(far: Host, tmp_path: Path) -> None:
    """When a host is cut while more is being sent than all buffers hold, the sender is let go, and so is a poll behind it."""
    path = tmp_path / "file"
    path.write_bytes(os.urandom(64 << 20))
    blob = {blobs.address(str(path)): path}
    far.look("nothing")
    threading.Timer(0.2, far.node.cut).start()
    with ThreadPoolExecutor(2) as pool:
        sending = pool.submit(timed, far.transport.put, blob)
        far.until(lambda: far.node.marks)
        assert timed(far.look, "nothing") < LIMIT
        assert sending.result() < 2 * LIMIT
    far.node.heal()
    far.until(lambda: reached(far, "nothing"))
    far.transport.put(blob)


def test_many_who_ask_a_cut_host_wait_together(far: Host) -> None:
    """Ten threads on a host that is gone are all told after the time of one."""
    far.look("nothing")
    far.node.cut()
    begun = time.monotonic()
    with ThreadPoolExecutor(10) as pool:
        assert list(pool.map(lambda number: timed(far.look, f"job{number}") > 0, range(10))) == [True] * 10
    assert time.monotonic() - begun < 2 * LIMIT


def test_sshd_ended_and_started_again_is_not_even_noticed(far: Host) -> None:
    """When sshd was ended, jobs live on, and the next call makes another connection."""
    far.start("lives", ["sh", "-c", "until test -e go; do sleep 0.05; done; exit 4"])
    far.node.reset_ssh()
    with pytest.raises(TransportError):
        far.until(lambda: far.look("lives").phase != "running")
    far.node.start_ssh()
    assert far.look("lives").phase == "running"
    (far.folder("lives") / "work/go").touch()
    assert far.end("lives").rc == 4


@pytest.mark.parametrize("seed", range(5))
def test_a_start_whose_answer_was_lost_starts_once(far: Host, seed: int) -> None:
    """The connection ends at random moments of a start, which is repeated until it is answered: each job has run once."""
    print("seed", seed)
    moments = random.Random(seed)
    for number in range(8):
        job = f"job{number}"
        far.look(job)
        late = threading.Timer(moments.uniform(0.0, 0.06), hang_up, [far.transport._connection.connection])
        late.start()
        far.until(lambda job=job: started(far, job))
        late.join()
        assert far.until(lambda job=job: ended(far, job)).rc == 0
        assert far.file(job, "count") == "x\n"


def ended(host: Host, job: str) -> AttemptStatus | None:
    """How a job ended, once it has and the host can be asked."""
    try:
        return host.end(job)
    except TransportError:
        return None


def started(host: Host, job: str) -> object:
    """What a start is answered, if it is."""
    try:
        return host.start(job, ["sh", "-c", "echo x >>count"], devices=(0,))
    except (TransportError, Busy):
        return None


def test_a_killed_server_is_replaced(far: Host) -> None:
    """The process that serves us may be killed at any time: the jobs that it started do not notice, and the next call works."""
    far.start("served", ["sleep", "600"])
    supervisor = far.until(lambda: far.written("served", "run.json"))["supervisor"]
    stat = (far.root / f"proc/{supervisor}/stat").read_text()
    far.kill(int(stat.rsplit(")", 1)[1].split()[1]))
    far.until(lambda: far.transport._talk is None or far.transport._talk.gone)
    assert far.look("served").phase == "running"


def test_a_reboot_is_lost(far: Host) -> None:
    """After a reboot of the host, what ran is lost, with that reason."""
    far.start("boot", ["sleep", "600"], devices=(0,))
    far.node.reboot()
    far.home = far.node.home / far.home.name
    seen = far.until(lambda: reached(far, "boot"))
    assert (seen.phase, seen.why) == ("lost", "host rebooted")
    assert far.transport.leases() == [], "a device is free again"


def reached(far: Host, job: str) -> object:
    """What is seen of a job, if the host can be asked."""
    try:
        return far.look(job)
    except TransportError:
        return None


def test_one_session_is_enough(hosts: list[Node], tmp_path: Path) -> None:
    """A host that allows one channel a connection (MaxSessions 1) is asked, and brought files, through that one."""
    node = hosts[2]
    node.configured("MaxSessions 1")
    (tmp_path / "file").write_bytes(os.urandom(3 << 20))
    ssh = Ssh(node.host(), "the suite")
    address = blobs.address(str(tmp_path / "file"))
    ssh.put({address: tmp_path / "file"})
    assert ssh.poll([Watch("none", 1)])[0].phase == "unknown"
    assert (node.home / f".tune/blobs/{address}").read_bytes() == (tmp_path / "file").read_bytes()
    ssh.close()


def test_eight_connections_at_once_are_let_in(hosts: list[Node]) -> None:
    """One connection a host and controller: eight threads that ask first share it."""
    ssh = Ssh(hosts[2].host(), "the suite")
    (hosts[2].folder / "sshd.log").write_text("")
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: ssh.poll([]), range(8)))
    assert (hosts[2].folder / "sshd.log").read_text().count("Accepted publickey") == 1
    ssh.close()


# ---- news, and how little it takes


def test_news_come_by_themselves(far: Host) -> None:
    """The end of a step is told without being asked for, also to a connection that was made after the start."""
    far.start(
        "news", ["sh", "-c", "until test -e go; do sleep 0.05; done"], ["sh", "-c", "until test -e on; do sleep 0.05; done"]
    )
    before = len(far.heard)
    (far.folder("news") / "work/go").touch()
    far.until(lambda: len(far.heard) > before)
    far.transport.close()
    assert far.look("news").step == "s2"
    before = len(far.heard)
    (far.folder("news") / "work/on").touch()
    far.until(lambda: len(far.heard) > before)
    assert far.end("news").rc == 0


def test_who_wants_no_news_takes_nobody_elses(far: Host) -> None:
    """A command beside the controller, of the same owner, does not draw its news to itself."""
    far.start("news", ["sh", "-c", "until test -e go; do sleep 0.05; done"])
    beside = Ssh(far.node.host(folder=str(far.inner)), "the suite")
    assert beside.poll([Watch("news", 1)])[0].phase == "running"
    before = len(far.heard)
    (far.folder("news") / "work/go").touch()
    far.until(lambda: len(far.heard) > before)
    beside.close()


def test_a_submission_takes_three_messages_and_a_poll_of_fifty_jobs_one(far: Host, tmp_path: Path) -> None:
    """Once connected: what is there, what is missing, start; and one question for all jobs of a host."""
    far.look("nothing")
    folder = tmp_path / "input"
    (folder / "deep").mkdir(parents=True)
    for number in range(300):
        (folder / f"deep/{number}").write_text(str(number))
    before = far.transport.asked
    address = blobs.address(str(folder))
    far.transport.put({address: folder})
    far.start("job0", ["sleep", "600"], links={"input": f"blobs/{address}"})
    assert far.transport.asked - before == 3
    for number in range(1, 50):
        far.start(f"job{number}", ["true"])
    before = far.transport.asked
    assert len(far.transport.poll([Watch(f"job{number}", 1, patterns=("*",), promised=("x",)) for number in range(50)])) == 50
    assert far.transport.asked - before == 1


# ---- the program that is sent


class Pipe:
    """A server without SSH."""

    def __init__(self, python: str) -> None:
        words = command(python)
        self.process = subprocess.Popen(words, shell=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.close_once = threading.Lock()

    def send(self, data: bytes) -> int:
        return os.write(self.process.stdin.fileno(), data)

    def recv(self, size: int) -> bytes:
        return os.read(self.process.stdout.fileno(), size)

    def close(self) -> None:
        if self.close_once.acquire(blocking=False):
            self.process.stdin.close()
            self.process.wait(10)

    abort = close


PYTHONS = [sys.executable, *map(str, sorted(Path.home().glob(".pyenv/versions/3.*/bin/python")))]


def version(python: str) -> tuple[int, ...]:
    """Of an interpreter; (0,) when it does not run."""
    text = "import sys; print(*sys.version_info[:2])"
    said = subprocess.run([python, "-c", text], capture_output=True, text=True, check=False).stdout
    return tuple(map(int, said.split())) or (0,)


@pytest.mark.parametrize("python", PYTHONS)
def test_an_older_python_says_so(python: str) -> None:
    """An interpreter that is too old ends with a sentence."""
    if not (3, 0) <= version(python) < (3, 8):
        pytest.skip("not an old one")
    done = subprocess.run(command(python), shell=True, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    assert "is too old" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("python", PYTHONS)
def test_every_python_from_3_8_on_serves(tmp_path: Path, python: str) -> None:
    """Each Python found here opens a folder, starts a job, says how it ended, and goes when we go."""
    version = subprocess.run(
        [python, "-c", "import sys; print(*sys.version_info[:2])"], capture_output=True, text=True, check=False
    )
    if not version.stdout or tuple(map(int, version.stdout.split())) < (3, 8):
        pytest.skip("older than 3.8, or does not run")
    pipe = Pipe(python)
    wire = Wire(pipe)
    wire.write(program())
    ask = lambda op, **rest: wire.send({"op": op, **rest})()[0]  # noqa: E731
    assert ask("open", folder=str(tmp_path), owner="me", listen=True) == {"folder": str(tmp_path), "id": 1}
    spec = {"job": "a", "attempt": 1, "steps": [{"name": "s", "argv": ["sh", "-c", "exit 3"]}], "devices": [0], "lease": "me"}
    about = {"job": "a", "attempt": 1}
    assert "refused" not in ask("start", **about, document={"spec": spec})
    watch = {**about, "files": {}, "patterns": [], "promised": []}
    while (seen := ask("poll", watches=[watch])["seen"][0])["phase"] != "exited":
        time.sleep(0.01)
    assert seen["rc"] == 3
    assert ask("hello")["folder"] == str(tmp_path)
    assert ask("dance")["refused"] == 2
    wire.close()
    assert pipe.process.returncode == 0


def test_the_command_is_one_line_for_any_shell() -> None:
    """The command has no line end, and no exclamation mark, which csh would take for history."""
    assert "\n" not in command("/a b/python")
    assert "!" not in command("python3")
    assert len(BOOT) < 1200
