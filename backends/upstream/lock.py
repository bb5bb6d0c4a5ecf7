"""Make the lock files of all environments: `trainers/<trainer>/env.in` and `stages/<room>/env.in` -> `env-<accelerator>.txt` beside it,
and `env-NAME.in` -> `env-NAME-<accelerator>.txt` where a trainer has another release.

    python backends/upstream/lock.py               lock again; pins that still fit are kept
    python backends/upstream/lock.py --upgrade     lock again, newest versions
    python backends/upstream/lock.py --check       is every lock the one made from its declaration? (needs no network)

A maintainer's script, started by hand. A declaration is a requirements file whose comments say which Python and which
accelerators it is for, what one accelerator needs besides (`# tpu: libtpu==0.0.44`), bounds that replace those of other
packages (`# override: safetensors>=0.8`), and what the trainer cannot do without although it serves CUDA alone
(`# without cuda too: triton`). A lock holds exact pins and nothing else: no index, no host, no local version (`2.13.0`,
never `2.13.0+cpu`), so that it can be installed from any mirror. Locks are for Linux on x86-64.

The CUDA lock follows the torch of PyPI, which names its nvidia packages. The CPU lock needs a torch built without CUDA:
from `UV_FIND_LINKS` or `PIP_FIND_LINKS` where set, otherwise from PyTorch's own index.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

BACKENDS = Path(__file__).resolve().parents[1]
ROOMS = ("trainers", "stages")
"""Folders in which each folder has an environment."""
PLATFORM = {"cpu": "x86_64-manylinux_2_28", "cuda": "x86_64-manylinux_2_28", "tpu": "x86_64-manylinux_2_31"}
"""Accelerator -> the oldest Linux that torch 2.13, or libtpu 0.0.44, has wheels for."""
CUDA_ONLY = re.compile(r"nvidia-|triton$|cuda-")
PIN = re.compile(r"[a-z0-9-]+==[0-9][0-9a-z.]*")


def declared(text: str, key: str) -> str:
    """What a declaration's comment `# key: value` says."""
    found = re.search(rf"^# {key}: (.+)$", text, re.MULTILINE)
    if not found:
        raise SystemExit(f"a declaration has a line `# {key}: ...`")
    return found.group(1).strip()


def wished(text: str, key: str) -> list[str]:
    """Requirements on the comments `# key: requirement` of a declaration, if there are any."""
    return re.findall(rf"^# {key}: (.+)$", text, re.MULTILINE)


def locks() -> list[tuple[Path, str, Path]]:
    """Every (declaration, accelerator, lock)."""
    return [
        (source, accelerator, source.with_name(f"{source.stem}-{accelerator}.txt"))
        for room in ROOMS
        for source in sorted((BACKENDS / room).glob("*/env*.in"))
        for accelerator in declared(source.read_text(), "accelerators").split()
    ]


def shown(path: Path) -> str:
    """A file of an environment, as people find it: `NAME/env.in`."""
    return f"{path.parent.name}/{path.name}"


def digest(declaration: str, pins: list[str]) -> str:
    """Binds a lock to the declaration it was made from, and to its own pins."""
    return hashlib.sha256("\n".join([declaration, *pins]).encode()).hexdigest()


def faults(accelerator: str, declaration: str, pins: list[str]) -> list[str]:
    """What makes these pins no lock for that accelerator."""
    anyway = set(wished(declaration, "without cuda too"))
    named = [(pin, pin.partition("==")[0]) for pin in pins]
    cuda = [pin for pin, name in named if CUDA_ONLY.match(name) and name not in anyway]
    found = [f"not an exact pin: {pin}" for pin in pins if not PIN.fullmatch(pin)]
    if accelerator == "cpu":
        found += [f"of no use without CUDA: {pin}" for pin in cuda]
    if accelerator == "cuda" and not cuda:
        found.append("torch came without its nvidia packages")
    return found


def surroundings(accelerator: str) -> dict[str, str]:
    """Environment of `uv`: where the torch of this accelerator is looked for."""
    wheels = os.environ.get("UV_FIND_LINKS") or ",".join(os.environ.get("PIP_FIND_LINKS", "").split())
    env = {name: value for name, value in os.environ.items() if name not in {"UV_FIND_LINKS", "UV_TORCH_BACKEND"}}
    if accelerator != "cpu":
        return env
    return {**env, "UV_FIND_LINKS": wheels} if wheels else {**env, "UV_TORCH_BACKEND": "cpu"}


def compiled(source: Path, accelerator: str, kept: str) -> list[str]:
    """Resolve a declaration; the pins in `kept` are preferred."""
    with tempfile.TemporaryDirectory() as scratch:
        out, more, override = (Path(scratch, name) for name in ("lock.txt", "more.in", "override.in"))
        out.write_text(kept)
        text = source.read_text()
        more.write_text("\n".join(wished(text, accelerator)))
        override.write_text("\n".join(wished(text, "override")))
        argv = ["uv", "pip", "compile", "--quiet", "--no-header", "--no-annotate", "--output-file", str(out)]
        argv += ["--python-version", declared(text, "python"), "--python-platform", PLATFORM[accelerator]]
        argv += ["--override", str(override), str(source), str(more)]
        subprocess.run(argv, check=True, env=surroundings(accelerator), stdout=subprocess.DEVNULL)  # else it prints the lock
        return [line.partition("+")[0] for line in out.read_text().split("\n") if line]


def preferred(target: Path) -> list[str]:
    """Pins to keep. Not torch's: `2.13.0` would be preferred to the `2.13.0+cpu` wanted, and the declaration pins it."""
    return [pin for pin in pinned(target) if not pin.startswith("torch==")] if target.exists() else []


def pinned(target: Path) -> list[str]:
    """The pins of a lock."""
    return [line for line in target.read_text().split("\n") if line and not line.startswith("#")]


def lock(source: Path, accelerator: str, target: Path, upgrade: bool) -> None:
    """Write one lock."""
    kept = "" if upgrade else "\n".join(preferred(target))
    declaration = source.read_text()
    pins = compiled(source, accelerator, kept)
    if found := faults(accelerator, declaration, pins):
        raise SystemExit("\n".join(f"{shown(target)}: {fault}" for fault in found))
    header = [
        f"# Made from {source.name} by `python backends/upstream/lock.py`; do not edit",
        f"# python: {declared(declaration, 'python')}",
        f"# accelerator: {accelerator}, Linux on x86-64",
        f"# digest: {digest(declaration, pins)}",
    ]
    target.write_text("\n".join([*header, *pins, ""]))
    sys.stderr.write(f"{shown(target)}: {len(pins)} packages\n")


def stale(source: Path, accelerator: str, target: Path) -> list[str]:
    """Why a lock is not the one made from its declaration."""
    again = "run `python backends/upstream/lock.py`"
    if not target.exists():
        return [f"{shown(target)}: missing; {again}"]
    text = target.read_text()
    pins = pinned(target)
    declaration = source.read_text()
    found = faults(accelerator, declaration, pins)
    if declared(text, "digest") != digest(declaration, pins):
        found.append(f"{shown(source)} or the pins changed since it was made; {again}")
    return [f"{shown(target)}: {fault}" for fault in found]


def orphans() -> list[str]:
    """Locks whose declaration is gone."""
    known = {target for _, _, target in locks()}
    found = [path for room in ROOMS for path in sorted((BACKENDS / room).glob("*/env-*.txt"))]
    return [f"{shown(path)}: no declaration for it" for path in found if path not in known]


def main() -> int:
    """Lock, or check."""
    words = argparse.ArgumentParser(description="Lock the environments of trainers and stages.")
    words.add_argument("--check", action="store_true", help="only say which locks are stale; exit 1 if any")
    words.add_argument("--upgrade", action="store_true", help="newest versions instead of keeping pins that still fit")
    chosen = words.parse_args()
    if not chosen.check:
        for source, accelerator, target in locks():
            lock(source, accelerator, target, chosen.upgrade)
    found = [fault for one in locks() for fault in stale(*one)] + orphans()
    sys.stderr.write("".join(f"{fault}\n" for fault in found))
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
