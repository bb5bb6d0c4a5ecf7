"""Accelerators are the machine's: of all who can log in there, one has each; and what runs there beside tune is seen."""

from __future__ import annotations

import json
import os
import shutil
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from orchestrator import agent
from orchestrator.agent import gpus, leases
from orchestrator.agent.files import make_folder
from orchestrator.transports.base import Busy, Lease, Request
from orchestrator.transports.local import Local
from orchestrator.transports.ssh.transport import Ssh
from tests.hosts.lab import LOGIN, PYTHON

if TYPE_CHECKING:
    from conftest import Host

    from tests.hosts.lab import Node

FIRST = os.getpid() * 8
"""A device that no other test on this machine means: names of devices are the whole machine's."""
SLEEP = ["sleep", "600"]
NVIDIA_SMI = """#!/bin/sh
echo x >>"$0.asked"
[ -f "$0.sh" ] && . "$0.sh"
case $1 in
--query-gpu=index,name,*) echo "{device}, NVIDIA H100, 81559" ;;
--query-gpu=*) cat "$0.gpus" ;;
*) cat "$0.apps" ;;
esac
"""

PER_HOST = """case $2 in
--query-gpu=index,name,*) echo "{device}, NVIDIA H100, 81559" ;;
--query-gpu=*) [ $1 = node0 ] && used=2566 || used=4; echo "{device}, 00000000:00:06.0, $used, Disabled" ;;
*) [ $1 = node0 ] && echo "00000000:00:06.0, 1" || : ;;
esac
"""
"""Of two hosts with one home: a process uses the device of the first."""

Wanted = dict[str, Any]


def card(*devices: int, **rest: Any) -> Wanted:
    """Real devices, counted from `FIRST`."""
    return {"devices": tuple(FIRST + device for device in devices), "accelerator": "cuda", **rest}


def leases_of(host: Host) -> list[Lease]:
    """Devices of this test that are in use there; those of other tests on this machine are not its business."""
    return [lease for lease in host.transport.leases() if lease.device in range(FIRST, FIRST + 8)]


@pytest.fixture
def other(host: Host) -> Iterator[Host]:
    """The same machine with another state folder."""
    home = host.home.parent / f"{host.home.name}-2"
    transport = Ssh(host.node.host(folder=str(Path("/") / home.relative_to(host.root))), "b") if host.node else Local(home)
    made = replace(host, transport=transport, home=home)
    yield made
    made.close()


@pytest.fixture
def smi(host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[int, str], Path]:
    """A program `nvidia-smi` there: so many MiB of the first device are in use, by the process of a number; seven more are idle."""
    folder = host.node.home / "bin" if host.node else tmp_path / "bin"
    folder.mkdir(exist_ok=True)
    path = folder / "nvidia-smi"
    path.write_text(NVIDIA_SMI.format(device=FIRST))
    path.chmod(0o755)
    folder.chmod(0o777)
    for name in ("asked", "sh"):
        Path(f"{path}.{name}").unlink(missing_ok=True)
    if host.node:
        host.node.configured(f"SetEnv PATH=/home/{LOGIN}/bin:/usr/bin:/bin")
    else:
        monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")

    def say(mib: int | str, pid: int | str = "", display: str = "Disabled") -> Path:
        idle = "".join(f"{FIRST + device}, 00000000:00:0{device}.1, 4, Disabled\n" for device in range(1, 8))
        Path(f"{path}.gpus").write_text(f"{FIRST}, 00000000:00:06.0, {mib}, {display}\n{idle}")
        Path(f"{path}.apps").write_text(f"00000000:00:06.0, {pid}\n" if pid else "")
        for look in host.home.glob("leases/*/look.json"):
            look.unlink(missing_ok=True)  # as if ten seconds had gone by
        return Path(f"{path}.asked")

    return say


# ---- attempts of others


def test_two_state_folders_never_have_one_accelerator(host: Host, other: Host) -> None:
    """Whoever wants an accelerator that an attempt of another state folder has is told whose it is, and of all that are gone."""
    user = host.command("id", "-un").strip() if not host.node else LOGIN
    host.start("theirs", SLEEP, **card(0, 1, 2))
    with pytest.raises(Busy, match=f"device {FIRST + 1} is held by theirs/1 of {user}$") as busy:
        other.start("mine", SLEEP, **card(1))
    assert busy.value.devices == (FIRST, FIRST + 1, FIRST + 2)
    assert not (other.home / "jobs/mine").exists()
    assert leases_of(other) == [Lease(FIRST + device, "theirs", 1, user, "cuda") for device in (0, 1, 2)]
    host.transport.stop("theirs", 1, 0.0)
    host.end("theirs")
    other.until(lambda: not leases_of(other))
    assert other.run("mine", ["true"], **card(1)).rc == 0


def test_places_for_jobs_are_each_folders_own(host: Host, other: Host) -> None:
    """Places of a CPU machine are only counts: two state folders do not share theirs."""
    host.start("theirs", SLEEP, devices=(FIRST,))
    assert other.run("mine", ["true"], devices=(FIRST,)).rc == 0
    other.until(lambda: not leases_of(other))


def test_an_accelerator_is_held_while_a_step_lives(host: Host, other: Host) -> None:
    """When the supervisor is killed, its step still holds the accelerator against everybody."""
    host.start("lives", SLEEP, **card(3))
    run = host.until(lambda: host.written("lives", "run.json"))
    host.kill(run["supervisor"])
    with pytest.raises(Busy, match=f"device {FIRST + 3} is held by lives/1"):
        other.start("next", ["true"], **card(3))
    host.until(lambda: host.look("lives").phase == "lost")
    host.transport.reap("lives", 1)
    other.until(lambda: started(other, "next", card(3)))


def started(host: Host, job: str, wanted: Wanted) -> bool:
    """Did it get its devices?"""
    with suppress(Busy):
        host.start(job, ["true"], **wanted)
        return True
    return False


def test_of_racing_folders_one_gets_all_of_its_devices(host: Host, other: Host) -> None:
    """Jobs of two state folders that share accelerators: each goes to one of them, and one job runs at least."""

    def attempt(number: int) -> bool:
        where, devices = (host, other)[number % 2], [(4, 5), (5, 6), (4, 6), (4, 5, 6)][number // 2]
        with suppress(Busy):
            where.start(f"job{number}", SLEEP, **card(*devices))
            return True
        return False

    with ThreadPoolExecutor(8) as pool:
        begun = [number for number, began in enumerate(pool.map(attempt, range(8))) if began]
    assert len(begun) == 1


def test_another_user_is_seen_and_sees(far: Host, hosts: list[Node]) -> None:
    """Two accounts of one host, each with a folder that the other cannot enter: the accelerator has one holder, and a name."""
    folder = hosts[0].root / "tmp/orchestrator/agent"
    shutil.copytree(Path(agent.__file__).parent, folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))
    start = f"cd /tmp && exec {PYTHON} -I orchestrator/agent start /tmp/nobody/jobs/theirs/1"
    text = '{"spec": {"job": "theirs", "attempt": 1, "steps": [{"name": "s", "argv": ["sleep", "600"]}], "devices": [7], '
    text += '"accelerator": "cuda"}, "files": {}, "links": {}}'
    nobody = ["setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups", "sh", "-c"]
    hosts[0].run(*nobody, f"echo '{text}' | ({start})")
    with pytest.raises(Busy, match="device 7 is held by theirs/1 of nobody"):
        far.start("mine", ["true"], devices=(7,), accelerator="cuda")
    assert far.transport.leases() == [Lease(7, "theirs", 1, "nobody", "cuda")]
    hosts[0].run(*nobody, f"{PYTHON} -I /tmp/orchestrator/agent stop /tmp/nobody/jobs/theirs/1 0")
    far.until(lambda: far.transport.leases() == [])
    far.start("mine", SLEEP, devices=(7,), accelerator="cuda")
    refused = hosts[0].run(*nobody, f"echo '{text}' | sed s/theirs/again/ | ({start.replace('theirs', 'again')}) 2>&1; echo $?")
    assert f"device 7 is held by mine/1 of {LOGIN}" in refused
    assert refused.endswith("\n5\n")


@pytest.mark.parametrize(
    "name",
    [b"cuda %d", b"cuda %d root x/y", b"cuda %d \xff\x1b[2J x/1", b"cuda %d root ../../../..", b"cuda %d a/b/c " + 70 * b"/"],
)
def test_a_name_that_anybody_took_is_no_harm(host: Host, name: bytes) -> None:
    """A lock that somebody took by hand, with any text about it, makes the accelerator busy, in words; and ends with its process."""
    if host.node:
        pytest.skip("names of another machine cannot be taken from here")
    squatters = [socket.socket(socket.AF_UNIX), socket.socket(socket.AF_UNIX)]
    for squatter, text in zip(squatters, dict.fromkeys((b"cuda %d" % FIRST, name % FIRST, b"odd")), strict=False):
        squatter.bind(b"\0tune-device " + text)
    with pytest.raises(Busy, match=f"device {FIRST} is (busy with a job of another user|held by .* of )"):
        host.start("mine", ["true"], **card(0))
    assert leases_of(host)
    for squatter in squatters:
        squatter.close()
    assert host.run("mine", ["true"], **card(0)).rc == 0


def test_devices_are_named_by_their_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who sees only some of the devices, and counts them from 0, means the same ones by the same names."""
    for place in ("0000:3b:00.0", "0000:d8:00.0"):
        (tmp_path / "all" / place).mkdir(parents=True)
    (tmp_path / "some/0000:d8:00.0").mkdir(parents=True)
    home, held = str(tmp_path / "home"), []
    make_folder(leases.leases_folder(home))
    spec = {"job": "a", "attempt": 1, "accelerator": "cuda"}
    monkeypatch.setattr(gpus, "GPU_FOLDER", str(tmp_path / "all"))
    assert leases.take(home, 1, {**spec, "devices": [1]}, held) is None
    monkeypatch.setattr(gpus, "GPU_FOLDER", str(tmp_path / "some"))
    try:
        make_folder(leases.leases_folder(home + "2"))
        holder = leases.take(home + "2", 0, {**spec, "devices": [0]}, held)
        assert leases.reserved()[0]["job"] == "a"
        assert leases.describe_holder(holder).startswith("held by a/1 of ")
    finally:
        for each in held:
            os.close(each)


# ---- strangers


def test_a_stranger_on_a_device_is_told_of(host: Host, smi: Callable[..., Path]) -> None:
    """A device that a process uses which is not tune's is not taken: who asks is told the process and its user."""
    host.look("nothing")
    smi(2566, 1)
    with pytest.raises(Busy, match=rf"device {FIRST} is busy with a process that is not tune's \(pid 1 of root\)"):
        host.start("mine", ["true"], **card(0))
    assert leases_of(host)[-1] == Lease(FIRST, "", 0, "a process that is not tune's (pid 1 of root)", "cuda")
    assert host.run("beside", ["true"], **card(1)).rc == 0
    assert host.run("anyway", ["true"], **card(0, occupied="use")).rc == 0
    smi(0)
    assert host.run("mine", ["true"], **card(0)).rc == 0


def test_a_look_counts_for_its_machine_alone(hosts: list[Node]) -> None:
    """Of two hosts with one home, a stranger on the device of one keeps no job from the other's, whichever was looked at first."""
    hosts[1].share(hosts[0])
    there = hosts[0].home / "bin"
    there.mkdir(exist_ok=True)
    there.chmod(0o777)
    (there / "nvidia-smi").write_text(f"#!/bin/sh\nset -- $(hostname) $1\n{PER_HOST.format(device=FIRST)}")
    (there / "nvidia-smi").chmod(0o755)
    ways = []
    for node in hosts[:2]:
        node.configured(f"SetEnv PATH=/home/{LOGIN}/bin:/usr/bin:/bin")
        ways.append(Ssh(node.host(folder="~/one-home"), "the suite"))
    try:
        for way in (*ways, *ways):
            found = [lease.owner for lease in way.leases() if lease.device == FIRST]
            assert found == (["a process that is not tune's (pid 1 of root)"] if way is ways[0] else []), way.name
        step = {"name": "s", "argv": ["/bin/true"]}
        asked = [Request(job=f"j{at}", attempt=1, steps=(step,), files={}, links={}, grace=5.0, **card(0)) for at in (0, 1)]
        with pytest.raises(Busy, match="a process that is not tune's"):
            ways[0].start(asked[0])
        assert ways[1].start(asked[1]).phase in ("running", "exited")
    finally:
        for way in ways:
            way.close()
        shutil.rmtree(there)


@pytest.mark.parametrize(
    ("mib", "pid", "display", "free"),
    [
        (4, "", "Disabled", True),
        (200, 1, "Disabled", True),  # such as the server of MPS
        (700, "", "Disabled", True),
        (2000, "", "Disabled", False),  # a process of another container
        (2000, "", "Enabled", True),  # a desktop
        (2000, 1, "Enabled", False),
        ("[N/A]", "", "Disabled", True),
        ("[N/A]", 1, "Disabled", False),
        (2000, 2**22 + 1, "Disabled", False),  # gone since
        (2000, "[Not Found]", "Disabled", False),
    ],
)
def test_what_counts_as_busy(
    host: Host, smi: Callable[..., Path], mib: int | str, pid: int | str, display: str, *, free: bool
) -> None:
    """Memory in use counts from a quarter of a GiB on where a process is seen, from one GiB on where none is but no screen either."""
    host.look("nothing")
    smi(mib, pid, display)
    assert started(host, "mine", card(0)) is free


def test_our_own_processes_are_no_strangers(host: Host, other: Host, smi: Callable[..., Path]) -> None:
    """What runs on a device of an attempt is that attempt's, also for those of other state folders, and is named by it."""
    smi(0)
    host.start("ours", SLEEP, **card(0))
    host.look("ours")
    smi(2566, host.until(lambda: host.written("ours", "run.json"))["pid"])
    with pytest.raises(Busy, match=f"device {FIRST} is held by ours/1"):
        other.start("mine", ["true"], **card(0))
    assert [lease.job for lease in leases_of(host)] == ["ours"]


def test_a_look_counts_for_a_while(host: Host, smi: Callable[[int, str], Path]) -> None:
    """Starts and polls do not ask nvidia-smi each: one start of an accelerator looks, the next ones believe it until it is old."""

    def aged(seconds: float) -> None:
        [look] = host.home.glob("leases/*/look.json")
        look.write_text(json.dumps({**json.loads(look.read_text()), "at": time.time() - seconds}))

    host.look("nothing")
    asked = smi(0)
    for number in range(3):
        assert host.run(f"job{number}", ["true"], **card(0)).rc == 0
        host.until(lambda: not leases_of(host))  # its supervisor lets go a moment after it has said how it ended
        aged(0.0)  # however long that took
    assert asked.read_text() == "x\n"
    assert host.run("places", ["true"], devices=(0,)).rc == 0
    assert asked.read_text() == "x\n"
    aged(leases.LOOK_SECONDS + 1.0)
    assert host.run("later", ["true"], **card(0)).rc == 0
    assert asked.read_text() == "x\nx\n"


# ---- what is not known


FAILED = "NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver."
WRONG = {
    "hangs": ("exec sleep 600", "nvidia-smi gave no answer within 5 s"),
    "fails": (f'echo "{FAILED}"; exit 9', rf"nvidia-smi \(exit code 9\): {FAILED}"),
    "talks": ("echo what, is, this; exit 0", "nvidia-smi: what, is, this"),
    "is silent": ("exit 12", r"nvidia-smi \(exit code 12\): no further word"),
    "steers": (r"printf '\033[2Jred\n'; exit 1", r"nvidia-smi \(exit code 1\): \?\[2Jred"),
    "lacks the card": (f"echo {FIRST + 1}, 00000000:00:01.1, 4, Disabled; exit 0", "nvidia-smi does not list it"),
    "lost the card": (
        f"case $1 in *memory.used*) echo {FIRST}, 00000000:00:06.0, [GPU is lost], [GPU is lost];; esac; exit 0",
        r"nvidia-smi says \[GPU is lost\] of its memory",
    ),
    "cannot list processes": ('case $1 in *apps*) echo "Insufficient Permissions"; exit 4;; esac', "Insufficient Permissions"),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_what_is_not_known_is_not_free(host: Host, smi: Callable[..., Path], wrong: str) -> None:
    """Where nvidia-smi does not tell of a device, its own words keep a start from it, until it does, or whoever asks does not mind."""
    script, words = WRONG[wrong]
    host.look("nothing")
    broken = smi(700).with_suffix(".sh")
    broken.write_text(f"{script}\n")
    with pytest.raises(Busy, match=rf"device {FIRST} is not known to be free: .*{words}$"):
        host.start("mine", ["true"], **card(0))
    [lease] = [each for each in leases_of(host) if each.device == FIRST]
    assert (lease.job, lease.unknown) == ("", True)
    assert str(lease).startswith(f"device {FIRST} is not known to be free: ")
    assert host.run("anyway", ["true"], **card(0, occupied="use")).rc == 0
    broken.unlink()
    smi(0)
    host.until(lambda: not leases_of(host))
    assert host.run("mine", ["true"], **card(0)).rc == 0


def test_a_row_counts_beside_trouble(host: Host, smi: Callable[..., Path]) -> None:
    """A card that is lost makes nothing unknown of another one, of which nvidia-smi says that it is idle."""
    host.look("nothing")
    row, lost = f"{FIRST + 1}, 00000000:00:01.1, 4, Disabled", "Unable to determine the device handle for GPU0: GPU is lost."
    smi(0).with_suffix(".sh").write_text(f'echo "{row}"; echo "{lost}"; exit 15\n')
    assert host.run("beside", ["true"], **card(1)).rc == 0
    with pytest.raises(Busy, match="GPU is lost"):
        host.start("mine", ["true"], **card(0))


def test_a_host_has_the_words_of_nvidia_smi(host: Host, smi: Callable[..., Path]) -> None:
    """What a host says of itself has nvidia-smi's own words; that it took its time does not make the clock wrong."""
    assert host.transport.hello().gpu_trouble == ""
    smi(0).with_suffix(".sh").write_text(f'sleep 3; echo "{FAILED}"; exit 9\n')
    facts = host.transport.hello()
    assert facts.gpu_trouble == f"nvidia-smi (exit code 9): {FAILED}"
    assert abs(facts.skew) < 1.4  # half of the three seconds were counted


def test_a_program_that_hangs_holds_nobody_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever asks does not wait for nvidia-smi to end; where there is neither it nor a driver, there is nothing to know."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(gpus, "GPU_FOLDER", str(tmp_path / "none"))
    assert gpus.query_smi("gpu=index,name", 0.2) == ([], "")
    (tmp_path / "cards/0000:3b:00.0").mkdir(parents=True)
    monkeypatch.setattr(gpus, "GPU_FOLDER", str(tmp_path / "cards"))
    assert gpus.query_smi("gpu=index,name", 0.2) == ([], "nvidia-smi is not installed, or not for this user")
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\nexec /bin/sleep 600\n")
    program.chmod(0o755)
    assert gpus.query_smi("gpu=index,name", 0.2) == ([], "nvidia-smi gave no answer within 0 s")
