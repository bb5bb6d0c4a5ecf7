"""What `tune serve` adds to an engine's own start, and `tune evaluate` to the harness's time.

    python benchmarks/overheads.py ENVS [ROUNDS [ROWS]]

ENVS is a folder of environments: that of the present lock is made there unless it is there. ROWS are those of the evaluation, each with
two choices. The same small random Llama, by hand and by the command in turns. Of a start the benchmark also tells which part is ours, in
the same run: the time from the command's beginning to that of the engine's process, and from the engine's first answer to the command's
end. So a busy machine, on which an engine starts in 15 or in 25 seconds, does not hide it.
"""

from __future__ import annotations

import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import suppress
from pathlib import Path

from backends.plan import Input, Plan
from backends.stages.registry import STAGES
from backends.stages.stage import StageContext
from orchestrator.agent.provision import build
from orchestrator.client.stages import checked

HERE = Path(__file__).parents[1]
MAKE = HERE / "tests" / "conformance" / "adapted.py"
HARNESS = """
import json, sys
from lm_eval import simple_evaluate
from lm_eval.tasks import TaskManager
import tune_tasks
spec = json.load(open("evaluate.json"))
seeds = dict.fromkeys(("random_seed", "numpy_random_seed", "torch_random_seed", "fewshot_random_seed"), spec["seed"])
found = simple_evaluate(model="hf", model_args={"pretrained": "inputs/model", "dtype": "auto"}, tasks=tune_tasks.tasks(spec["tasks"]),
    batch_size=spec["batch"], device="cpu", task_manager=TaskManager(include_defaults=False), **seeds)
print(json.dumps(found["results"]["rows"]["acc,none"]))
"""
"""The harness by hand, as its documentation has it; tasks of one's own are made by the same lines."""


class Bench:
    """A state folder, a model and rows."""

    def __init__(self, envs: Path, folder: Path, questions: int = 600) -> None:
        """`questions`: rows of the evaluation, each with two choices."""
        environment = STAGES["serve"].plan(checked("serve", {"engine": "transformers"}), context()).environment
        self.folder, self.python = folder, build(envs, environment) / "bin" / "python"
        (folder / "home").mkdir()
        (folder / "home" / "envs").symlink_to(envs.resolve())
        self.env = {**os.environ, "TUNE_HOME": str(folder / "home"), "PYTHONPATH": str(HERE), "OMP_NUM_THREADS": "1"}
        subprocess.run([self.python, MAKE], cwd=folder, check=True, capture_output=True)
        rows = [
            {"question": f"add {n} and {n + 1}\n", "choices": [f"it is {2 * n + 1}", "no idea of that"], "answer": 0}
            for n in range(questions)
        ]
        (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))

    def tune(self, *words: str) -> subprocess.CompletedProcess[str]:
        """The command, to its end."""
        argv = [sys.executable, "-m", "orchestrator.cli", *words]
        return subprocess.run(argv, cwd=self.folder, env=self.env, check=True, capture_output=True, text=True)

    def work(self, plan: Plan, name: str) -> Path:
        """A folder as a job of the plan has it, to run its programs by hand."""
        folder = self.folder / name
        folder.mkdir()
        for file in plan.files:
            (folder / file.path).write_text(file.text)
        (folder / "inputs").mkdir()
        (folder / "inputs" / "model").symlink_to(self.folder / "model")
        (folder / "inputs" / "tasks").mkdir()
        (folder / "inputs" / "tasks" / "rows.jsonl").symlink_to(self.folder / "rows.jsonl")
        return folder

    def by_hand(self, plan: Plan, folder: Path) -> dict[str, str]:
        """The environment of its programs."""
        return {**self.env, **dict(plan.env), "PYTHONPATH": str(folder)}


def served(bench: Bench, number: int) -> tuple[float, float, float]:
    """Seconds of the engine by hand until it answers, of `tune serve --follow` until it says READY, and what of these is ours."""
    plan = STAGES["serve"].plan(checked("serve", {"engine": "transformers"}), context())
    folder = bench.work(plan, f"serve{number}")
    port, began = free_port(), time.time()
    argv = [bench.python, "tune_server.py", "serve.json", str(port)]
    process = subprocess.Popen(argv, cwd=folder, env=bench.by_hand(plan, folder), stdout=subprocess.DEVNULL)
    own = answered(port) - began
    process.terminate()
    process.wait()

    port, id, first = free_port(), f"s{number}", list[float]()
    looking = threading.Thread(target=lambda: first.append(answered(port)))
    began = time.time()
    looking.start()
    bench.tune("serve", "./model", "--engine", "transformers", "--port", str(port), "--id", id, "--follow")
    ended = time.time()
    looking.join()
    engine = started(port)
    bench.tune("cancel", id)
    return own, ended - began, (engine - began) + (ended - first[0])


def evaluated(bench: Bench, number: int) -> tuple[float, float]:
    """Seconds of the harness by hand, and of `tune evaluate --follow`."""
    plan = STAGES["evaluate"].plan(checked("evaluate", {"tasks": [str(bench.folder / "rows.jsonl")]}), context())
    folder = bench.work(plan, f"evaluate{number}")
    began = time.time()
    done = subprocess.run(
        [bench.python, "-c", HARNESS],
        cwd=folder,
        env=bench.by_hand(plan, folder),
        check=True,
        capture_output=True,
        text=True,
    )
    own, began = time.time() - began, time.time()
    bench.tune("evaluate", "./model", "--task", "./rows.jsonl", "--id", f"e{number}", "--follow")
    took = time.time() - began
    points = json.loads(bench.tune("metrics", f"e{number}", "--json").stdout)["points"]
    [accuracy] = [each["value"] for each in points if each["name"] == "rows.acc"]
    assert accuracy == float(done.stdout.splitlines()[-1])
    return own, took


def context() -> StageContext:
    """Of a model in a folder."""
    return StageContext("model", "cpu", 1, Input("inputs/model", "model"))


def free_port() -> int:
    """One that nobody has just now."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        return int(bound.getsockname()[1])


def answered(port: int) -> float:
    """When the server at a port first says that it is well."""
    while True:
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), 10) as asked:
            asked.sendall(b"GET /health HTTP/1.0\r\n\r\n")
            if b" 200 " in asked.recv(100):
                return time.time()
        time.sleep(0.01)


def started(port: int) -> float:
    """When the process of the engine at a port began, by the kernel's clock."""
    booted = time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            words = (folder / "cmdline").read_bytes().split(b"\0")
            if b"tune_server.py" in words and str(port).encode() in words:
                ticks = int((folder / "stat").read_text().rpartition(")")[2].split()[19])
                return booted + ticks / os.sysconf("SC_CLK_TCK")
    raise SystemExit("the engine is gone")


def main(envs: str, rounds: str = "5", questions: str = "600") -> None:
    """Print both."""
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(envs), Path(folder), int(questions))
        serves = [served(bench, number) for number in range(int(rounds))]
        own, whole, ours = (statistics.median(column) for column in zip(*serves, strict=True))
        print(f"tune serve: the engine by hand {own:.2f} s, READY after {whole:.2f} s; {ours:.2f} s of it are ours")
        print("  " + "; ".join(f"{a:.2f}, {b:.2f}, {c:.2f}" for a, b, c in serves), flush=True)
        evaluations = [evaluated(bench, number) for number in range(int(rounds))]
        own, whole = (statistics.median(column) for column in zip(*evaluations, strict=True))
        print(f"tune evaluate: the harness by hand {own:.2f} s, {whole:.2f} s by the command: {100 * (whole / own - 1):+.1f} %")
        print("  " + "; ".join(f"{a:.2f}, {b:.2f}" for a, b in evaluations))


if __name__ == "__main__":
    main(*sys.argv[1:])
