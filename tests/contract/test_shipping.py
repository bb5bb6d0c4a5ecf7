"""Files to and from a host: whole or not at all, never twice, and on from where it was cut."""

from __future__ import annotations

import os
import random
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from orchestrator.agent import blobs
from orchestrator.transports import files
from orchestrator.transports.base import HostRefused, TransportError

if TYPE_CHECKING:
    from conftest import Host

MIB = 1 << 20
SIZE = 1 << 17


@pytest.fixture(autouse=True)
def small_messages(monkeypatch: pytest.MonkeyPatch) -> None:
    """Many messages out of little data."""
    monkeypatch.setattr(files, "SIZE", SIZE)


def tree(folder: Path) -> dict[str, bytes]:
    """All files below a folder, through links."""
    walked = os.walk(folder, followlinks=True)
    paths = [Path(place, name) for place, _, names in walked for name in names]
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths if path.is_file()}


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A folder with small, empty, executable and linked files, hard names, and one file of many messages."""
    folder = tmp_path / "source"
    (folder / "deep/er").mkdir(parents=True)
    for name in ("a", "deep/b", "deep/er/it's $(x); -rf é", "z"):
        (folder / name).write_text(name * 100)
    (folder / "empty").touch()
    (folder / "run.sh").write_text("#!/bin/sh\nexit 7\n")
    (folder / "run.sh").chmod(0o755)
    (folder / "link").symlink_to("deep/b")
    (folder / "linked folder").symlink_to("deep")
    (folder / "big").write_bytes(random.Random(0).randbytes(20 * SIZE + 12345))
    return folder


def put(host: Host, path: Path) -> Path:
    """Bring something; where it lies there, as seen from here."""
    address = blobs.address(str(path))
    host.transport.put({address: path})
    return host.home / "blobs" / address


def test_a_folder_arrives_as_it_was(host: Host, source: Path) -> None:
    """All files, links as what they point to, executable where they were, and a job can use it by a link."""
    there = put(host, source)
    assert tree(there) == tree(source)
    assert not [path for path in there.rglob("*") if path.is_symlink()]
    assert host.run("uses", ["./input/run.sh"], links={"input": f"blobs/{there.name}"}).rc == 7
    assert [path.name for path in there.parent.iterdir()] == [there.name]


@pytest.mark.parametrize("size", [0, 1, SIZE, SIZE + 1])
def test_a_file_arrives_as_it_was(host: Host, tmp_path: Path, size: int) -> None:
    """A file of any size is a blob by itself."""
    path = tmp_path / "file"
    path.write_bytes(os.urandom(size))
    assert put(host, path).read_bytes() == path.read_bytes()


def test_the_name_says_what_is_in_it(tmp_path: Path) -> None:
    """Contents, names and executable bits make the address; times, owners and the folder's own name do not."""
    one, two = tmp_path / "one", tmp_path / "two"
    for folder in (one, two):
        folder.mkdir()
        (folder / "a").write_text("x")
    os.utime(two / "a", (0, 0))
    first = blobs.address(str(one))
    assert blobs.address(str(two)) == first
    (two / "a").chmod(0o755)
    assert blobs.address(str(two)) != first
    (two / "a").unlink()
    (two / "b").write_text("x")
    assert blobs.address(str(two)) != first


def test_what_is_there_is_not_sent_again(host: Host, source: Path) -> None:
    """A second time takes one question, also for another controller."""
    there = put(host, source)
    before = there.stat().st_ino
    sent: list[object] = []
    for way in (host.transport, host.another()):
        original = way._way
        way._way = lambda request, body, original=original: sent.append(request["op"]) or original(request, body)
        way.put({there.name: source})
    assert sent == ["have", "have"]
    assert there.stat().st_ino == before


class Cut(Exception):
    """The caller was killed here."""


def test_it_goes_on_where_it_was_cut(host: Host, source: Path) -> None:
    """After a call that ended in the middle, the next one sends the rest only, and what results is right."""

    def cut(done: int, total: int) -> None:
        if done >= SIZE:
            raise Cut

    address = blobs.address(str(source))
    with pytest.raises(Cut):
        host.transport.put({address: source}, cut)
    host.until(lambda: sum(map(len, tree(host.home / f"blobs/{address}.part").values())) >= SIZE)
    assert not (host.home / "blobs" / address).exists()
    told: list[int] = []
    host.another().put({address: source}, lambda done, total: told.append(total - done))
    assert told[0] < sum(map(len, tree(source).values())) - SIZE
    assert tree(host.home / "blobs" / address) == tree(source)


def test_what_was_spoilt_on_the_way_is_sent_anew(host: Host, source: Path) -> None:
    """Wrong bytes, files that do not belong there, and files that are too long, left by an earlier call, do not stay."""
    address = blobs.address(str(source))
    host.look("nothing")
    host.transport.put({blobs.address(str(source / "a")): source / "a"})
    part = host.home / "blobs" / f"{address}.part"
    (part / "deep").mkdir(parents=True)
    (part / "a").write_text("b" * 100)
    (part / "foreign").write_text("x")
    (part / "deep/b").write_text("y" * 100000)
    host.command("chmod", "-R", "a+rwX", str(Path("/") / part.relative_to(host.root)))
    host.transport.put({address: source})
    assert tree(host.home / "blobs" / address) == tree(source)


def test_a_source_that_is_not_what_it_was_is_refused(host: Host, source: Path) -> None:
    """When a file changed since its address was made, nothing of that name comes to be there."""
    address = blobs.address(str(source))
    (source / "a").write_text("other")
    with pytest.raises(ValueError, match="what arrived is something else"):
        host.transport.put({address: source})
    assert not list((host.home / "blobs").iterdir())


def test_what_cannot_be_sent_is_refused(host: Host, tmp_path: Path) -> None:
    """Pipes, broken links, links in a circle, empty folders and what is not there are refused with their path."""
    for make in (os.mkfifo, lambda path: path.symlink_to("no"), lambda path: path.symlink_to(".")):
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        folder.mkdir()
        make(folder / "odd")
        with pytest.raises(ValueError, match="odd"):
            host.transport.put({"0" * 64: folder})
    (tmp_path / "empty").mkdir()
    for name in ("empty", "absent"):
        with pytest.raises(ValueError, match=f"{name}: there is nothing to send"):
            host.transport.put({"0" * 64: tmp_path / name})
    with pytest.raises(ValueError, match="64 digits"):
        host.transport.put({"../x": tmp_path})


@pytest.mark.parametrize("name", ["../x", "/tmp/x", "a/../../x", "a//b", "./x"])
def test_nothing_is_written_outside(host: Host, name: str) -> None:
    """A piece whose name leads out of its blob is refused by the host, whoever asks."""
    wanted = {"op": "grow", "address": "0" * 64, "pieces": [(name, 0, 1)], "seal": False}
    with pytest.raises(ValueError, match="a path is relative"):
        host.transport._way(wanted, b"x")()
    assert not list((host.home / "blobs").rglob("*"))


def test_a_full_disk_refuses_and_goes_on_later(small_disk: Host, tmp_path: Path) -> None:
    """A host without room says so, and keeps what has arrived."""
    path = tmp_path / "file"
    path.write_bytes(os.urandom(2 * MIB))
    with pytest.raises(HostRefused, match="No space left on device"):
        put(small_disk, path)
    assert not [each for each in (small_disk.home / "blobs").iterdir() if not each.name.endswith(".part")]


# ---- back


MAKES = """
mkdir -p checkpoint/deep; echo x >checkpoint/config.json; : >checkpoint/deep/empty; mkfifo checkpoint/pipe
head -c 2000000 /dev/urandom >checkpoint/model.safetensors; ln -s model.safetensors checkpoint/link; chmod 755 checkpoint/config.json
echo "$1"; echo secret >other
"""


def test_results_come_back(host: Host, tmp_path: Path) -> None:
    """A folder, the log and single files come with their times and bits; what was not asked for does not, nor what is no file."""
    tmp_path = tmp_path / "into"
    host.run("makes", ["sh", "-c", MAKES, "sh", "é"])
    work = host.folder("makes") / "work"
    told: list[tuple[int, int]] = []
    found = host.transport.fetch("makes", 1, ["log", "work/checkpoint", "work/absent"], tmp_path, lambda *say: told.append(say))
    names = ["log", "config.json", "deep/empty", "link", "model.safetensors"]
    assert sorted(found) == sorted(tmp_path / ("log" if name == "log" else f"work/checkpoint/{name}") for name in names)
    assert set(tree(tmp_path)) == {str(path.relative_to(tmp_path)) for path in found}
    assert tree(tmp_path / "work/checkpoint") == {name: (work / "checkpoint" / name).read_bytes() for name in names[1:]}
    assert "é" in (tmp_path / "log").read_text()
    config = work / "checkpoint/config.json"
    assert (tmp_path / "work/checkpoint/config.json").stat().st_mtime_ns == config.stat().st_mtime_ns
    assert (tmp_path / "work/checkpoint/config.json").stat().st_mode & 0o777 == 0o700
    assert told[-1][0] == told[-1][1] == sum(path.stat().st_size for path in found)


def test_fetching_goes_on_where_it_was_cut(host: Host, tmp_path: Path) -> None:
    """What is here is not fetched again, the middle of a file is gone on with, and a file that changed there comes anew."""
    tmp_path = tmp_path / "into"
    host.run("makes", ["sh", "-c", MAKES])

    def cut(done: int, total: int) -> None:
        if done >= SIZE:
            raise Cut

    with pytest.raises(Cut):
        host.transport.fetch("makes", 1, ["work"], tmp_path, cut)
    left: list[int] = []
    host.transport.fetch("makes", 1, ["work"], tmp_path, lambda done, total: left.append(total - done))
    assert left[0] < 4_000_300 - 2 * SIZE
    model = host.folder("makes") / "work/checkpoint/model.safetensors"
    assert (tmp_path / "work/checkpoint/model.safetensors").read_bytes() == model.read_bytes()
    again: list[int] = []
    host.transport.fetch("makes", 1, ["work"], tmp_path, lambda done, total: again.append(done))
    assert not again
    model.write_bytes(b"another")
    host.transport.fetch("makes", 1, ["work"], tmp_path)
    assert (tmp_path / "work/checkpoint/model.safetensors").read_bytes() == b"another"
    assert not list(tmp_path.rglob("*.part"))


@pytest.mark.parametrize("name", ["../log", "spec.json", "/etc/passwd", "work/../spec.json", ""])
def test_only_results_can_be_fetched(host: Host, tmp_path: Path, name: str) -> None:
    """Names outside of the log and the work folder are refused."""
    host.run("outside", ["true"])
    with pytest.raises(ValueError, match=r"a path is relative|what can be read"):
        host.transport.fetch("outside", 1, [name], tmp_path)


def test_a_pattern_brings_what_fits(host: Host, tmp_path: Path) -> None:
    """A name with a `*` stands for the files that fit it and no others; a file that is called so comes itself."""
    host.run(
        "fits",
        [
            "sh",
            "-c",
            "mkdir -p model/deep; echo a > model/a.json; echo b > model/deep/b.json; echo c > model/c.txt; echo d > 'd*'; echo e > de",
        ],
    )
    found = host.transport.fetch("fits", 1, ["work/model/*.json", "work/d*", "work/none*"], tmp_path)
    assert sorted(path.relative_to(tmp_path).as_posix() for path in found) == ["work/d*", "work/model/a.json"]


@pytest.mark.parametrize("name", ["../evil", "/etc/evil", "a/../../evil"])
def test_a_host_cannot_write_where_it_likes(tmp_path: Path, name: str) -> None:
    """Names that a host makes up for what it sends lead nowhere."""

    def way(request: dict[str, object], body: bytes) -> object:
        return lambda: ({"files": [[name, 1, 0, False]]}, b"x")

    with pytest.raises(TransportError, match="the host names a file"):
        files.fetch(way, {"job": "a", "attempt": 1}, ["work"], tmp_path / "into")
    assert not list(tmp_path.rglob("*"))


# ---- over a line that breaks


def test_a_cut_line_loses_nothing(far: Host, source: Path) -> None:
    """When the host is cut in the middle of a file, the call fails soon; after the heal, the rest is sent, and it is right."""
    address = blobs.address(str(source))

    def cut(done: int, total: int) -> None:
        if SIZE <= done < 2 * SIZE:
            far.node.cut()

    begun = time.monotonic()
    with pytest.raises(TransportError):
        far.transport.put({address: source}, cut)
    assert time.monotonic() - begun < 90
    far.node.heal()
    far.transport.put({address: source})
    assert tree(far.home / "blobs" / address) == tree(source)


def test_polls_do_not_wait_behind_files(far: Host, tmp_path: Path) -> None:
    """While a big file is on its way over a slow line, a poll is answered."""
    path = tmp_path / "file"
    path.write_bytes(random.Random(1).randbytes(3 * MIB))
    far.look("nothing")
    far.node.slow(rate=20.0)
    polled: list[bool] = []
    original = far.transport._way

    def way(request: dict[str, object], body: bytes) -> object:
        answer = original(request, body)
        if request["op"] == "grow":
            far.look("nothing")
            polled.append(not (far.home / "blobs" / path.name).exists())
        return answer

    far.transport._way = way
    address = blobs.address(str(path))
    far.transport.put({address: path})
    assert len(polled) > 10
    assert all(polled)
    assert (far.home / "blobs" / address).read_bytes() == path.read_bytes()
