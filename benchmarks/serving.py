"""Engines of `tune serve` side by side: `python benchmarks/serving.py ENVS [ENGINE...]`; ENVS is a folder of
environments: those of the present locks are made there unless they are there.

One small random Llama, the same prompts, one machine, one run: requests and tokens a second at 1 and 16 clients, time to the first token with
a shared beginning of the prompts (prefix caching on and off), and from configs alone the memory of keys and values of a token, with
grouped queries and without. Prints Markdown for docs/serving.md. Figures of a CPU say nothing of a GPU.
"""

from __future__ import annotations

import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from backends.plan import Environment, Input
from backends.stages.registry import STAGES
from backends.stages.stage import LOCKS, StageContext
from orchestrator.agent.provision import build
from orchestrator.client.stages import checked

MAKE = Path(__file__).parents[1] / "tests" / "conformance" / "adapted.py"
PROMPT, REPLY, REQUESTS = 512, 32, 32
"""Tokens of a prompt and of a reply, and requests of each measure."""
PUBLISHED = {
    "Llama 2 7B": (32, 32, 32, 128),
    "Llama 3.1 8B": (32, 32, 8, 128),
    "Qwen2.5 0.5B": (24, 14, 2, 64),
}
"""Model -> layers, heads, heads of keys and values, width of a head; their config.json."""


class Server:
    """One engine, started by its plan's programs."""

    def __init__(self, python: Path, folder: Path, model: Path, **settings: object) -> None:
        plan = STAGES["serve"].plan(
            checked("serve", {"max_length": 1024, **settings}), StageContext("m", "cpu", 1, Input("inputs/model", "model"))
        )
        folder.mkdir()
        for file in plan.files:
            (folder / file.path).write_text(file.text)
        (folder / "inputs").mkdir()
        (folder / "inputs" / "model").symlink_to(model)
        self.folder, began = folder, time.monotonic()
        env = {**os.environ, **dict(plan.env), "VLLM_CPU_KVCACHE_SPACE": "1"}
        with (folder / "log").open("w") as log:
            self.process = subprocess.Popen([python, *plan.steps[-1].argv[1:]], cwd=folder, env=env, stdout=log, stderr=log)
        while not (folder / "summary.json").exists():
            if self.process.poll() is not None:
                raise SystemExit((folder / "log").read_text()[-2000:])
            time.sleep(0.1)
        self.started = time.monotonic() - began
        self.port = json.loads((folder / "summary.json").read_text())["port"]

    def ask(self, ids: list[int], tokens: int) -> float:
        """Seconds of a reply of exactly so many tokens."""
        body = {"model": "m", "prompt": ids, "max_tokens": tokens, "temperature": 0, "ignore_eos": True}
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}/v1/completions", json.dumps(body).encode(), {"Content-Type": "application/json"}
        )
        began = time.monotonic()
        with urllib.request.urlopen(request, timeout=3600) as answer:
            assert json.load(answer)["usage"]["completion_tokens"] == tokens
        return time.monotonic() - began

    def metrics(self) -> str:
        """Its counters."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/metrics", timeout=60) as answer:
            return answer.read().decode()

    def end(self) -> None:
        self.process.terminate()
        self.process.wait()


def prompts(shared: int) -> list[list[int]]:
    """Prompts of which the first tokens are the same."""
    head = [10 + place % 90 for place in range(shared)]
    return [head + [10 + (7 * number + place) % 190 for place in range(PROMPT - shared)] for number in range(REQUESTS)]


def throughput(server: Server, clients: int) -> float:
    """Tokens of replies a second."""
    began = time.monotonic()
    with ThreadPoolExecutor(clients) as pool:
        list(pool.map(lambda ids: server.ask(ids, REPLY), prompts(0)))
    return REQUESTS * REPLY / (time.monotonic() - began)


def paged(server: Server) -> str:
    """What vLLM's paged cache holds while 16 replies are made, beside one slot of the whole length for each."""
    with ThreadPoolExecutor(16) as pool:
        waiting = [pool.submit(server.ask, ids, REPLY) for ids in prompts(0)]
        seen = [0.0]
        while not all(each.done() for each in waiting):
            text = server.metrics()
            seen.append(float(re.search(r"^vllm:kv_cache_usage_perc\S* (\S+)$", text, re.MULTILINE)[1]))
            blocks, size = (int(re.search(rf'{name}="(\d+)"', text)[1]) for name in ("num_gpu_blocks", "block_size"))
    held = max(seen) * blocks * size
    return f"PagedAttention: at most {held:.0f} tokens held by 16 replies of {PROMPT + REPLY} ({size} a block); slots of 1,024: 16,384"


def first_token(server: Server) -> float:
    """Milliseconds to one token, in the middle, of prompts whose first seven eighths are the same; the first two are not counted."""
    return 1000 * statistics.median([server.ask(ids, 1) for ids in prompts(PROMPT * 7 // 8)][2:14])


def kv_table() -> None:
    """Bytes of keys and values of a token in 16 bits."""
    print(
        "\n| model | heads of keys and values | KiB a token | if each head had its own | 16 chats of 4,096 tokens |\n|---|---|---|---|---|"
    )
    for name, (layers, heads, kv, width) in PUBLISHED.items():
        each, full = (2 * layers * count * width * 2 / 1024 for count in (kv, heads))
        print(
            f"| {name} | {kv} of {heads} | {each:.0f} | {full:.0f} | {each * 4096 * 16 / 2**20:.1f} GiB, else {full * 4096 * 16 / 2**20:.1f} |"
        )


def main(envs: str, *engines: str) -> None:
    wanted = {name: Environment(f"stage-{name}", "3.11", LOCKS[f"{name}-cpu"], "cpu") for name in ("hf", "vllm")}
    pythons = {name: build(Path(envs), each) / "bin" / "python" for name, each in wanted.items()}
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder, "made")
        made.mkdir()
        subprocess.run([pythons["hf"], MAKE], cwd=made, check=True, capture_output=True)
        print(
            "| engine | ready after | tokens/s, 1 client | 16 clients | first token, shared beginning | without prefix cache |\n|---|---|---|---|---|---|"
        )
        held = ""
        for engine in engines or ("transformers", "llama.cpp", "vllm"):
            python, rows = pythons["vllm" if engine == "vllm" else "hf"], []
            for cached in (True, False):
                server = Server(python, Path(folder, f"{engine}-{cached}"), made / "model", engine=engine, prefix_cache=cached)
                server.ask(prompts(0)[0], 2)  # what the first request alone pays
                rows.append([first_token(server)])
                if cached:
                    held = paged(server) if engine == "vllm" else held
                    rows[0] += [server.started, throughput(server, 1), throughput(server, 16)]
                server.end()
                if engine == "transformers":
                    rows.append(["-"])
                    break
            (first, started, one, many), (without,) = rows
            shown = without if without == "-" else f"{without:.0f} ms"
            print(f"| {engine} | {started:.0f} s | {one:.0f} | {many:.0f} | {first:.0f} ms | {shown} |", flush=True)
    print(f"\n{held}")
    kv_table()


if __name__ == "__main__":
    main(*sys.argv[1:])
