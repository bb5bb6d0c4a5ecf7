"""Wheels made on the spot, an index to serve them, and environments asked for by the script itself."""

from __future__ import annotations

import base64
import hashlib
import os
import subprocess
import sys
import threading
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from orchestrator.agent import provision

Wheel = Callable[..., Path]


def packed(folder: Path, name: str, version: str, files: dict[str, str], tag: str = "py3-none-any") -> Path:
    """A pure wheel, as any package index has them."""
    info = f"{name}-{version}.dist-info"
    contents = {
        **files,
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        f"{info}/WHEEL": f"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: {tag}\n",
    }

    def row(path: str, text: str) -> str:
        digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()
        return f"{path},sha256={digest},{len(text.encode())}\n"

    record = "".join(row(*item) for item in contents.items()) + f"{info}/RECORD,,\n"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}-{version}-{tag}.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for inside, text in {**contents, f"{info}/RECORD": record}.items():
            archive.writestr(inside, text)
    return path


@dataclass
class Shop:
    """A package index on this machine, for who knows the password; it can be told to stall."""

    wheels: Path
    password: str = "s3cret"
    asked: threading.Event = field(default_factory=threading.Event)
    """Somebody asked for a wheel."""
    open: threading.Event = field(default_factory=threading.Event)
    """Wheels are handed out; until then whoever asks waits."""
    port: int = 0

    def url(self, password: str) -> str:
        return f"http://someone:{password}@127.0.0.1:{self.port}/simple"

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        right = "Basic " + base64.b64encode(f"someone:{self.password}".encode()).decode()
        if request.headers.get("Authorization") != right:
            return self.send(request, 401, b"")
        *_, name = request.path.rstrip("/").split("/")
        if name.endswith(".whl"):
            self.asked.set()
            self.open.wait(60)
            return self.send(request, 200, (self.wheels / name).read_bytes())
        links = "".join(f'<a href="/files/{p.name}">{p.name}</a>' for p in self.wheels.glob(f"{name}-*.whl"))
        return self.send(request, 200 if links else 404, links.encode())

    def send(self, request: BaseHTTPRequestHandler, code: int, body: bytes) -> None:
        request.send_response(code)
        request.send_header("Content-Type", "text/html")
        request.send_header("Content-Length", str(len(body)))
        request.end_headers()
        request.wfile.write(body)


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Shop]:
    """An index with the package `onlyhere`, 1.0."""
    shop = Shop(tmp_path / "wheels")
    packed(shop.wheels, "onlyhere", "1.0", {"onlyhere.py": "ANSWER = 42\n"})

    class Request(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            shop.answer(self)

        def log_message(self, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Request)
    shop.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield shop
    shop.open.set()
    server.shutdown()
    thread.join()
    server.server_close()


@dataclass
class Maker:
    """Makes environments as a job's first step does: by the agent's path, in a session of its own."""

    envs: Path
    locks: Path
    env: dict[str, str]
    program: Sequence[str] = (str(Path(provision.__file__).parent), "provision")
    python: str = f"{sys.version_info[0]}.{sys.version_info[1]}"
    """One that is surely here: nothing needs to be downloaded."""
    started: list[subprocess.Popen[str]] = field(default_factory=list)

    def start(self, lock: str = "onlyhere==1.0\n", *words: str, **env: str) -> subprocess.Popen[str]:
        path = self.locks / f"{len(self.started)}.txt"  # one for each: a file that is written anew is empty for a moment
        path.parent.mkdir(exist_ok=True)
        path.write_text(lock)
        argv = [sys.executable, *self.program, str(self.envs), "demo", str(path)]
        argv += ["--python", self.python, "--accelerator", "cpu", *words]
        pipe, env = subprocess.PIPE, {**self.env, **env}
        process = subprocess.Popen(argv, env=env, stdout=pipe, stderr=pipe, text=True, start_new_session=True)
        self.started.append(process)
        return process

    def run(self, lock: str = "onlyhere==1.0\n", *words: str, **env: str) -> tuple[int, str, str]:
        process = self.start(lock, *words, **env)
        out, err = process.communicate(timeout=300)
        return process.returncode, out, err

    def made(self) -> list[Path]:
        return [path for path in self.envs.glob("demo-*") if provision.ready(path)]

    def folders(self) -> list[Path]:
        return list(self.envs.glob("demo-*"))


@pytest.fixture
def wheel() -> Wheel:
    """Makes a wheel: folder, name, version, files."""
    return packed


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Maker]:
    """The script, with no settings of pip or uv but those a test gives, and a cache of its own."""
    env = {name: text for name, text in os.environ.items() if not name.startswith(("PIP_", "UV_"))}
    env |= {"PIP_CONFIG_FILE": os.devnull, "UV_CACHE_DIR": str(tmp_path / "cache"), "UV_PYTHON_DOWNLOADS": "never"}
    maker = Maker(tmp_path / "envs", tmp_path / "locks", env)
    yield maker
    for process in maker.started:
        if process.poll() is None:
            process.kill()
        process.communicate()


@pytest.fixture
def ask() -> Callable[[Path, str], str]:
    """What an environment's own Python prints for an expression."""

    def ask(path: Path, code: str) -> str:
        return subprocess.run([path / "bin/python", "-c", code], check=True, capture_output=True, text=True).stdout.strip()

    return ask
