"""A trainer's interpreter that has imported its libraries before: each program of a job is a fork of it, which saves the half minute
that imports take. All else of a job stays as it is: its steps, files, environment variables and exit codes.

    python preloaded.py SOCKET MODULE...        in the trainer's environment; answers on SOCKET until it is ended

`stand_in` makes an environment whose `bin/python` hands its arguments over. Programs that start others (torchrun) run in the real one.
"""

import importlib
import json
import os
import runpy
import signal
import socket
import subprocess
import sys
import time
import traceback
from pathlib import Path

MODULES = {
    "axolotl": "torch transformers peft axolotl.core.builders.causal axolotl.core.trainers axolotl.train axolotl.cli.config",
    "litgpt": "torch lightning litgpt litgpt.__main__ safetensors.torch",
    "maxtext": "jax flax.nnx numpy orbax.checkpoint qwix safetensors.flax absl.app transformers tokamax tunix.sft.peft_trainer "
    "tunix.distillation.distillation_trainer omegaconf pathwaysutils sympy tensorboardX pandas google.cloud.storage grain",
    "torchtune": "torch torchtune torchtune._cli.tune torchtune.training torchtune.models safetensors.torch",
    "trl": "torch transformers peft accelerate datasets trl safetensors.torch transformers.models.llama.modeling_llama",
    "unsloth": "unsloth torch trl",
}
"""What takes long to import, by trainer, in its scripts' own order."""
EARLY = {"axolotl": {"ACCELERATE_USE_CPU": "true"}, "maxtext": {"JAX_PLATFORMS": "cpu"}}
"""Variables that our scripts set before they import the libraries."""
LAUNCHER = """#!{python} -IS
import json, os, socket, sys
there = socket.socket(socket.AF_UNIX)
there.connect({path!r})
asked = json.dumps({{"args": sys.argv[1:], "cwd": os.getcwd(), "env": dict(os.environ)}}).encode() + b"\\n"
socket.send_fds(there, [asked[:1]], [0, 1, 2])
there.sendall(asked[1:])
sys.exit(int(there.makefile().readline() or 1))
"""


def serve(path: str, modules: list[str]) -> None:
    """Import, then answer: a fork for each connection, and a program in a fork of that."""
    for name in modules:
        importlib.import_module(name)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(path)
        server.listen()
        while True:
            there, _ = server.accept()
            if os.fork() == 0:
                server.close()
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                _keep(there)
            there.close()


def _keep(there: socket.socket) -> None:
    """Start a program, and answer with its exit code; kill it where the one who asked is gone."""
    first, fds, _, _ = socket.recv_fds(there, 1, 3)
    asked = json.loads(first + there.makefile("rb").readline())
    pid = os.fork()
    if pid == 0:
        os.setsid()
        os._exit(_run(asked, fds))
    there.settimeout(0.05)
    while not (ended := os.waitpid(pid, os.WNOHANG))[0]:
        try:
            if not there.recv(1):
                os.killpg(pid, signal.SIGKILL)
        except TimeoutError:
            continue
    code = os.waitstatus_to_exitcode(ended[1])
    there.settimeout(None)
    there.sendall(b"%d\n" % (code if code >= 0 else 128 - code))
    os._exit(0)


def _run(asked: dict, fds: list[int]) -> int:
    """Be the program; its exit code."""
    for number, fd in enumerate(fds):
        os.dup2(fd, number)
    os.chdir(asked["cwd"])
    os.environ.clear()
    os.environ.update(asked["env"])
    args = asked["args"]
    try:
        if args[0] == "-c":  # as `python -c` does
            sys.argv, sys.path[0] = ["-c", *args[2:]], ""
            exec(compile(args[1], "<string>", "exec"), {"__name__": "__main__"})
        elif args[0] == "-m" and args[1] != "torch.distributed.run":
            sys.argv, sys.path[0] = args[1:], asked["cwd"]
            runpy.run_module(args[1], run_name="__main__", alter_sys=True)
        elif not args[0].startswith("-"):
            script = Path(args[0]).resolve()  # whole, as `__file__` is: children look for it
            sys.argv, sys.path[0] = args, str(script.parent)
            runpy.run_path(str(script), run_name="__main__")
        else:
            os.execv(sys.executable, [sys.executable, *args])
    except SystemExit as error:
        if not isinstance(error.code, int | None):
            sys.stderr.write(f"{error.code}\n")
        return error.code if isinstance(error.code, int) else int(error.code is not None)
    except BaseException:
        traceback.print_exc()
        return 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
    return 0


class Preloaded:
    """Such interpreters, one a trainer, started when they are asked for."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.running: dict[str, subprocess.Popen] = {}

    def python(self, trainer: str, real: Path, env: dict[str, str]) -> Path:
        """A program that stands in for the interpreter `real`; `env` are the variables of the trainer's plans."""
        path, launcher = self.folder / f"{trainer}.sock", self.folder / f"{trainer}-python"
        if trainer not in self.running:
            argv = [str(real), str(Path(__file__).resolve()), str(path), *MODULES[trainer].split()]
            env = {**os.environ, **env, **EARLY.get(trainer, {})}
            self.running[trainer] = subprocess.Popen(argv, env=env, cwd=self.folder, stdin=subprocess.DEVNULL)
            launcher.write_text(LAUNCHER.format(python=os.path.realpath(sys.executable), path=str(path)))
            launcher.chmod(0o755)
        while not path.exists():
            assert self.running[trainer].poll() is None, f"{trainer}: the libraries cannot be imported"
            time.sleep(0.1)
        return launcher

    def stand_in(self, envs: Path, launcher: Path, real: Path) -> None:
        """Put an environment into the folder `envs` that is `real` but for its interpreter."""
        (envs / real.name / "bin").mkdir(parents=True)
        for entry in real.iterdir():
            if entry.name != "bin":
                (envs / real.name / entry.name).symlink_to(entry)
        for entry in (real / "bin").iterdir():
            (envs / real.name / "bin" / entry.name).symlink_to(launcher if entry.name == "python" else entry)

    def close(self) -> None:
        """End them."""
        for process in self.running.values():
            process.terminate()
            process.wait()


if __name__ == "__main__":
    serve(sys.argv[1], sys.argv[2:])
