"""The engines behind `tune serve`, each started by the plan's own programs: they give the model's own figures, and clear refusals."""

import json
import os
import shutil
import signal
import subprocess
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from backends.plan import Input
from backends.stages.registry import STAGES
from backends.stages.stage import StageContext
from orchestrator.client.stages import checked

pytestmark = [pytest.mark.trainer, pytest.mark.timeout(1800)]

KEY = "canary-engine-key-1"
ROWS = [[5, 9, 200, 31, 7], list(range(40, 70)), [65] * 20]
OWN = """
import json, sys, torch
from transformers import AutoModelForCausalLM
for folder in ("base", "model"):
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    for ids in json.loads(sys.argv[1]):
        with torch.inference_mode():
            said = torch.log_softmax(model(torch.tensor([ids])).logits[0], -1)
            new = model.generate(torch.tensor([ids]), max_new_tokens=8, do_sample=False, eos_token_id=-1, pad_token_id=2)[0, len(ids):]
        print(json.dumps([folder, [said[place, id].item() for place, id in enumerate(ids[1:])], new.tolist()]))
"""


@pytest.fixture(scope="module")
def own(adapted, stage_python, call):
    """Folder -> for each row its log-probabilities, and the greedy tokens that follow, by transformers itself."""
    found = {"base": [], "model": []}
    for line in call([stage_python, "-c", OWN, json.dumps(ROWS)], adapted).stdout.splitlines():
        folder, logprobs, new = json.loads(line)
        found[folder].append((logprobs, new))
    return found


class Server:
    """A server that answers."""

    def __init__(self, folder, process):
        self.folder, self.process = folder, process

    def ready(self, limit=900):
        """Wait until it says so, and where it is."""
        end = time.monotonic() + limit
        while not (self.folder / "summary.json").exists():
            assert self.process.poll() is None, (self.folder / "log").read_text()[-3000:]
            assert time.monotonic() < end, "it does not get ready"
            time.sleep(0.2)
        return json.loads((self.folder / "summary.json").read_text())

    def ask(self, path, body=None, key=KEY, *, text=False):
        """The answer, or (code, text) of a refusal."""
        head = {"Content-Type": "application/json", **({"Authorization": f"Bearer {key}"} if key else {})}
        url = f"http://127.0.0.1:{self.ready()['port']}{path}"
        request = urllib.request.Request(url, None if body is None else json.dumps(body).encode(), head)
        try:
            with urllib.request.urlopen(request, timeout=600) as answer:
                return answer.read().decode() if text else json.load(answer)
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    def streamed(self, body):
        """Tokens that a streamed reply is said to have had, once its end has come."""
        head = {"Content-Type": "application/json", "Authorization": f"Bearer {KEY}"}
        url = f"http://127.0.0.1:{self.ready()['port']}/v1/completions"
        with urllib.request.urlopen(urllib.request.Request(url, json.dumps(body).encode(), head), timeout=600) as answer:
            lines = [line.removeprefix("data: ") for line in answer.read().decode().splitlines() if line]
        assert lines[-1] == "[DONE]"
        return json.loads(lines[-2])["usage"]["completion_tokens"]


@pytest.fixture
def serving(adapted, tmp_path, stage_environment):
    """Starts a server by the programs of its plan; ends it."""
    started = []

    def start(prepare=lambda inputs: None, **settings):
        inputs = {name: Input(f"inputs/{name}", name) for name in ("model", "adapter", "base")}
        context = StageContext("tiny", "cpu", 1, **inputs, scores=Input("inputs/scores.json", "scores.json"))
        plan = STAGES["serve"].plan(checked("serve", {"key_name": "ENGINE_KEY", "max_length": 256, **settings}), context)
        for file in plan.files:
            (tmp_path / file.path).write_text(file.text)
        (tmp_path / "inputs").mkdir()
        for name in ("model", "adapter", "base"):
            (tmp_path / "inputs" / name).symlink_to(adapted / name)
        prepare(tmp_path / "inputs")
        python = stage_environment(plan.environment.name.removeprefix("stage-"))
        argv = [python, *plan.steps[-1].argv[1:]]
        env = {**os.environ, **dict(plan.env), "ENGINE_KEY": KEY, "VLLM_CPU_KVCACHE_SPACE": "1"}
        with (tmp_path / "log").open("w") as log:
            started.append(subprocess.Popen(argv, cwd=tmp_path, env=env, stdout=log, stderr=log))
        return Server(tmp_path, started[-1])

    yield start
    for process in started:
        process.terminate()
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()


def logprobs(server, model, ids):
    """What a server gives to a text."""
    answer = server.ask("/v1/completions", {"model": model, "prompt": ids, "echo": True, "logprobs": 0, "max_tokens": 0})
    return answer["choices"][0]["logprobs"]["token_logprobs"][1:][: len(ids) - 1]


def reply(server, model, ids):
    """Its greedy tokens."""
    body = {"model": model, "prompt": ids, "max_tokens": 8, "temperature": 0, "ignore_eos": True, "return_token_ids": True}
    return server.ask("/v1/completions", body)["choices"][0]["token_ids"]


def steps(server, ids, new):
    """llama.cpp's most likely token at each place of a greedy reply, and the one that it should be; it tells none of half a character."""
    for place, wanted in enumerate(new):
        body = {"model": "tiny", "prompt": [*ids, *new[:place]], "max_tokens": 1, "temperature": 0, "logprobs": 1}
        for each in (server.ask("/v1/completions", body)["choices"][0]["logprobs"] or {"content": []})["content"]:
            yield each["id"], wanted


def check_refusals(server, model):
    """What cannot be answered is refused with its reason, and the server goes on."""
    assert server.ask("/v1/models", key="")[0] == 401
    assert server.ask("/v1/completions", {"model": model, "prompt": "a"}, key="wrong")[0] == 401
    code, text = server.ask("/v1/completions", {"model": "nobody", "prompt": "a"})
    assert (code, "nobody" in text) == (404, True)
    code, text = server.ask("/v1/completions", {"model": model, "prompt": [5] * 300, "max_tokens": 1})
    assert (code, "300" in text) == (400, True)
    assert server.ask("/v1/chat/completions", {"model": model, "messages": [{"role": "user", "content": "hi"}], "max_tokens": 2})
    found = subprocess.run(["grep", "-rl", KEY, server.folder], capture_output=True, check=False)
    assert found.stdout == b""


def check_sampling(server, ids, new):
    """Sampling as narrow as a request may ask for is the greedy reply, and ends nobody's who is answered beside it."""
    narrow = [{"top_p": 0}, {"temperature": 1e-40}, {"temperature": 1e-5}, {"top_p": 1e-9}, {"temperature": 0}]
    body = {"model": "tiny", "prompt": ids, "max_tokens": len(new), "ignore_eos": True, "return_token_ids": True}
    with ThreadPoolExecutor(len(narrow)) as pool:
        answers = list(pool.map(lambda change: server.ask("/v1/completions", {**body, **change}), narrow))
    assert [each["choices"][0]["token_ids"] for each in answers] == [new] * len(narrow)


def check_restart(server, engine):
    """Killed, it answers again on its port, and nothing of it is left beside the new one."""
    port, before = server.ready()["port"], children(server.process.pid)
    os.kill(before[0], signal.SIGKILL)
    end = time.monotonic() + 900
    while (server.folder / "summary.json").exists() and time.monotonic() < end:
        time.sleep(0.1)
    assert server.ready()["port"] == port
    assert not set(before) & set(children(server.process.pid))
    assert not any(alive(pid) for pid in before), f"{engine} lives on beside the new one"


def children(pid):
    """Processes that a process has started, in whichever of its threads, and theirs."""
    threads = Path(f"/proc/{pid}/task").glob("*/children")
    direct = [int(each) for thread in threads for each in thread.read_text().split()]
    return [*direct, *(each for child in direct for each in children(child))]


def alive(pid):
    """Is it there, and no zombie?"""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.parametrize("engine", ["transformers", pytest.param("vllm", marks=pytest.mark.thorough(6))])
def test_what_is_served_is_the_model(serving, own, engine):
    """Base, trained model and adapter: greedy tokens are transformers' own, log-probabilities within 1e-5 in float32; what cannot be
    answered is refused; killed, it comes again alone.
    """
    server = serving(engine=engine)
    server.ready()
    for model, theirs in (("tiny", "model"), ("adapter", "model"), ("base", "base")):
        for ids, (expected, new) in zip(ROWS, own[theirs], strict=True):
            assert logprobs(server, model, ids) == pytest.approx(expected, abs=1e-5)
            assert reply(server, model, ids) == new
    assert logprobs(server, "base", ROWS[0]) != pytest.approx(own["model"][0][0], abs=1e-3)
    if engine == "transformers":
        check_sampling(server, ROWS[1], own["model"][1][1])
    check_refusals(server, "tiny")
    check_restart(server, engine)


@pytest.mark.thorough
def test_llama_cpp_serves_the_merged_model(serving, own):
    """In f32 its greedy tokens are transformers' own; what cannot be answered is refused; killed, it comes again alone."""
    server = serving(engine="llama.cpp")
    assert server.ready()["models"] == ["tiny"]
    told = [each for ids, (_, new) in zip(ROWS, own["model"], strict=True) for each in steps(server, ids, new)]
    assert len(told) >= 8
    assert all(each == wanted for each, wanted in told)
    assert (server.folder / "model-f32.gguf").exists()
    check_refusals(server, "tiny")
    check_restart(server, "llama.cpp")


@pytest.fixture
def scores(own):
    """Writes what a trainer's framework says of the rows: transformers' own figures of the trained model."""
    rows = [{"ids": ids, "logprobs": said} for ids, (said, _) in zip(ROWS, own["model"], strict=True)]

    def write(inputs):
        (inputs / "scores.json").write_text(json.dumps({"framework": "Transformers", "dtype": "float32", "rows": rows}))

    return write


@pytest.mark.parametrize(
    "engine",
    ["transformers", pytest.param("llama.cpp", marks=pytest.mark.thorough), pytest.param("vllm", marks=pytest.mark.thorough(6))],
)
def test_a_server_is_ready_when_it_is_the_trained_model(serving, scores, own, engine):
    """Compared before anybody is told of it: the distance is a figure of the job, and stands beside the address. vLLM serves the merged
    model here, with its greedy tokens.
    """
    server = serving(scores, engine=engine, check=3, adapters=engine != "vllm")
    assert "nats of Transformers's own on 3 rows" in server.ready()["detail"]
    points = [json.loads(line) for line in (server.folder / "out/points.jsonl").read_text().splitlines()]
    [distance] = [point["value"] for point in points if point["name"] == "served/largest_difference"]
    assert distance <= (1e-3 if engine == "llama.cpp" else 1e-5)
    if engine == "vllm":
        assert server.ready()["models"] == ["tiny"]
        assert [reply(server, "tiny", ids) for ids in ROWS] == [new for _, new in own["model"]]


def test_a_server_of_another_model_is_caught(serving, scores, adapted):
    """An adapter whose alpha is twice what was trained is served by nobody: FAILED serve_differs, with distance and place."""

    def wrong(inputs):
        scores(inputs)
        (inputs / "adapter").unlink()
        shutil.copytree(adapted / "adapter", inputs / "adapter")
        config = inputs / "adapter" / "adapter_config.json"
        config.write_text(config.read_text().replace('"lora_alpha": 8', '"lora_alpha": 16'))

    server = serving(wrong, engine="transformers", check=3)
    assert server.process.wait(600) == 1
    told = json.loads((server.folder / "reason.json").read_text())
    assert told["reason"] == "serve_differs"
    assert "adapter, row" in told["detail"]
    assert not (server.folder / "summary.json").exists()


@pytest.mark.thorough
def test_replicas_are_the_model_and_lose_no_request(serving, own):
    """Two engines behind one port, compared with each other's figures by whichever answers; one is killed while ten clients ask, and all
    are answered.
    """
    server = serving(engine="transformers", replicas=2)
    assert "by 2 replicas" in server.ready()["detail"]
    for _ in range(2):
        for model, theirs in (("tiny", "model"), ("base", "base")):
            assert logprobs(server, model, ROWS[0]) == pytest.approx(own[theirs][0][0], abs=1e-5)
    check_refusals(server, "tiny")
    engines = [pid for pid in children(server.process.pid) if b"tune_server.py" in Path(f"/proc/{pid}/cmdline").read_bytes()]
    assert len(engines) == 2
    body = {"model": "tiny", "prompt": ROWS[1], "max_tokens": 8, "ignore_eos": True}
    with ThreadPoolExecutor(10) as pool:
        asked = [pool.submit(server.ask, "/v1/completions", body) for _ in range(60)]
        os.kill(engines[0], signal.SIGKILL)
        answers = [each.result() for each in asked]
    assert [each["usage"]["completion_tokens"] for each in answers] == [8] * 60


@pytest.mark.thorough
def test_fifty_clients_for_a_minute(serving):
    """Fifty at once, some streaming, for 60 s: every request is answered in full, and the server counted exactly those."""
    server = serving(engine="transformers")
    server.ready()
    end = time.monotonic() + 60

    def client(number):
        answered = 0
        while time.monotonic() < end:
            ids = [5 + (number + answered) % 100, *range(10, 10 + number % 40)]
            body = {
                "model": ("tiny", "base", "adapter")[number % 3],
                "prompt": ids,
                "max_tokens": 1 + number % 4,
                "ignore_eos": True,
            }
            if number % 5:
                answer = server.ask("/v1/completions", body)
                assert answer["usage"]["completion_tokens"] == body["max_tokens"], answer
            else:
                assert server.streamed({**body, "stream": True, "stream_options": {"include_usage": True}}) == body["max_tokens"]
            answered += 1
        return answered

    with ThreadPoolExecutor(50) as pool:
        counts = list(pool.map(client, range(50)))
    assert min(counts) >= 1
    told = server.ask("/metrics", text=True)
    assert f"vllm:request_success_total {sum(counts)}\n" in told
    print(f"{sum(counts)} requests of 50 clients in 60 s, {min(counts)} to {max(counts)} each")


def served(server):
    """Requests that a server has answered in full, by its own count."""
    lines = server.ask("/metrics", text=True).splitlines()
    return sum(float(line.split()[-1]) for line in lines if line.startswith("vllm:request_success_total"))


@pytest.mark.thorough(3)
@pytest.mark.parametrize("engine", ["transformers", "vllm"])
def test_the_examples_answer(serving, clients, engine):
    """LangChain, Haystack and LlamaIndex, each as shipped, ask the server with its key and print an answer; a wrong key ends each."""
    server = serving(engine=engine, max_length=2048)
    url = f"http://127.0.0.1:{server.ready()['port']}/v1"
    before = served(server)
    for name, done in clients(url, "tiny", KEY):
        assert done.returncode == 0, (name, done.stderr[-2000:])
        now = served(server)
        assert now > before, done.stdout  # what a random model says may be no more than spaces
        before = now
    for name, done in clients(url, "tiny", "wrong"):
        assert (done.returncode != 0, "401" in done.stderr) == (True, True), (name, done.stderr[-2000:])
