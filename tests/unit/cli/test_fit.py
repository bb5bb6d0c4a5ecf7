"""`tune fit`, and what `tune submit` says of memory, as a user meets them."""

import json
from dataclasses import replace

import pytest

from backends.bundle import LOCKS
from backends.plan import WRITTEN_RECIPE, Environment, File
from orchestrator.agent.provision import address
from orchestrator.home import Home
from orchestrator.store import NewJob, open_store
from orchestrator.store.requests import JobRequest
from orchestrator.targets.inventory import Snapshot, keep
from orchestrator.targets.model import Candidate
from orchestrator.targets.node import Node
from orchestrator.transports.base import Device, HostFacts
from tests.faults.conftest import shell_plan

CLUSTERS = """
version: 1
targets:
  small: {kind: local, accelerator: cuda, devices: 8, memory_gib: 16, price: 2.5}
  big: {kind: local, accelerator: cuda, devices: 1, memory_gib: 80, price: 2.5}
  blind: {kind: local, accelerator: cuda, devices: 8}
"""
BIG = """
version: 1
name: big
model: {id: meta-llama/Llama-3.1-70B}
data: {train: rows.jsonl, format: chat, max_length: 131072}
train: {steps: 100, batch: {global: 8}, precision: bf16}
optim: {lr: 1e-5}
"""


def keep_facts(home, devices):
    """What this machine has said of itself, as `tune targets check` keeps it."""
    said = {
        "hostname": "h",
        "folder": str(home),
        "python": "3.11.2",
        "machine": "x86_64",
        "libc": "glibc 2.36",
        "boot": "b",
        "uv": "",
    }
    numbers = {"cpus": 8, "memory": 1 << 36, "free": 1 << 40, "clock": 1.0, "skew": 0.0}
    facts = HostFacts(**said, **numbers, devices=tuple(Device(**each) for each in devices))
    keep(Home(home), {"": Snapshot(facts, ())}, 1.0)


@pytest.fixture
def big(tune):
    """A recipe of 70 billion weights, 131,072 tokens a row; the words of the command."""
    (tune.cwd / "clusters.yaml").write_text(CLUSTERS)
    (tune.cwd / "rows.jsonl").write_text('{"messages": []}\n')
    (tune.cwd / "big.yaml").write_text(BIG)
    return ("big.yaml", "--to", "torchtune")


def test_what_does_not_fit_is_told_by_parts(tune, home, big):
    """Exit code 1, every part, and what would help; the document adds up; nothing is written."""
    text = tune("fit", *big, "--on", "small", code=1).stdout
    assert "does not fit into 16 GiB" in text
    assert "WHAT WOULD HELP" in text
    assert "train.activation_checkpointing=true" in text
    assert "steps: 100; tokens: 104,857,600 at most" in text
    found = tune.json("fit", *big, "--on", "small", code=1)
    assert found["fits"] is False
    assert sum(found["parts_gib"].values()) == pytest.approx(found["needs_gib"], abs=0.01)
    assert found["parts_gib"]["weights"] > 130
    assert [each["needs_gib"] for each in found["remedies"]] == sorted((e["needs_gib"] for e in found["remedies"]), reverse=True)
    assert not (home / "store.db").exists()


def test_submit_warns_and_refuses(tune, home, big):
    """By default a warning; with --fit=require exit code 3 with parts and remedies, and no job; with --fit=off nothing."""
    words = ("submit", *big, "--on", "small", "--dry-run")
    assert "warning: this takes about" in tune(*words).stderr
    refused = tune(*words, "--fit", "require", code=3).stderr
    assert "does not hold this training" in refused
    assert "activations" in refused and "WHAT WOULD HELP" in refused and "method.adapter=qlora" in refused
    assert "this takes about" not in tune(*words, "--fit", "off").stderr
    assert tune("submit", *big, "--on", "small", "--fit", "require", code=3).stdout == ""
    assert not (home / "store.db").exists()
    told = tune("submit", *big, "--on", "blind", "--dry-run", "--fit", "require").stderr
    assert "blind: whether it fits cannot be told; nothing is known of its memory" in told


def test_what_fits(tune, big):
    """Exit code 0, with the price; the memory of the recipe stands in where the machine's is not known."""
    small = ("--set", "model.id=meta-llama/Llama-3.2-1B", "--set", "method.adapter=lora", "--set", "data.max_length=2048")
    found = tune.json("fit", *big, "--on", "big", *small, "--set", "train.activation_checkpointing=true")
    assert (found["fits"], found["memory_gib"], found["remedies"]) == (True, 80, [])
    assert 8 < found["needs_gib"] < 9.5  # 8.0 on an H100, and the workspace
    assert "80 GiB" in tune("fit", *big, "--on", "big", *small).stdout
    assert tune.json("fit", *big, "--on", "blind", *small, "--set", "resources.memory_gib=40")["memory_gib"] == 40
    assert tune.json("fit", *big, "--on", "blind", *small)["fits"] is None


def test_what_is_not_measured_is_said(tune, big):
    """A trainer or a precision without counts gets no figure, and the reason."""
    found = tune.json("fit", *big, "--on", "small", "--set", "model.id=org/unheard-of")
    assert (found["fits"], found["needs_gib"]) == (None, None)
    assert "not in the table of models" in found["unknown"]
    assert "nothing was measured of maxtext" in tune("fit", "big.yaml", "--to", "maxtext", "--on", "small").stdout


def test_time_and_cost_come_from_a_run_of_ones_own(tune, home, big):
    """After a job on the target the next one like it has a time and a cost, with that job's id; another precision has none."""
    small = ("--set", "model.id=meta-llama/Llama-3.2-1B", "--set", "data.max_length=2048")
    assert tune.json("fit", *big, "--on", "big", *small)["hours"] is None
    leaves = {"model.id": "meta-llama/Llama-3.2-1B", "train.precision": "bf16", "data.max_length": 512}
    plan = replace(shell_plan("true"), backend="torchtune", files=(File(WRITTEN_RECIPE, json.dumps(leaves)),))
    request = JobRequest(plan, (Candidate.of("big", "local", [Node("big", 1)]),))
    with open_store(home / "store.db") as store:
        store.add_job(NewJob("first", "n", "torchtune", "big", "d", request.packed()), 1.0)
        store.record("first", 1, [(1, "tokens_per_second", 2000.0, "")], 2.0, {})
        store.change("first", expect=None, now=3.0, state="SUCCEEDED", ended=3.0)
    found = tune.json("fit", *big, "--on", "big", *small)
    assert found["told_from"] == "as fast as first was there"
    assert found["hours"] == pytest.approx(100 * 8 * 2048 / 2000 / 3600)
    assert found["cost"] == pytest.approx(found["hours"] * 2.5)
    assert (
        "time: 13 min 39 s, as fast as first was there (2,000 tokens/s)"
        in tune("fit", *big, "--on", "big", *small, code=None).stdout
    )
    assert tune.json("fit", *big, "--on", "big", *small, "--set", "train.precision=fp32")["hours"] is None


def test_a_job_that_halves_its_batches_is_not_refused(tune, big):
    """With retry.oom.micro: halve a first micro-batch that does not fit is told and taken, where a smaller one fits; where none does, it is refused."""
    small = ("--set", "model.id=meta-llama/Llama-3.2-1B", "--set", "method.adapter=lora", "--set", "train.batch.global=64")
    halves = (*small, "--set", "retry.oom.micro=halve", "--set", "train.batch.micro=64", "--set", "data.max_length=2048")
    require = ("submit", *big, "--on", "big", "--dry-run", "--fit", "require")
    told = tune(*require, *halves).stderr
    assert "big: its first micro-batch does not fit into 80 GiB, one of 16 does" in told
    assert "does not hold this training" in tune(*require, *halves, "--set", "retry.oom.micro=keep", code=3).stderr
    assert "does not hold this training" in tune(*require, *halves, "--set", "data.max_length=131072", code=3).stderr
    found = tune.json("fit", *big, "--on", "big", *halves, code=1)
    assert (found["fits"], found["smaller_micro"]) == (False, 16)
    assert tune.json("fit", *big, "--on", "big", *halves, "--set", "train.batch.micro=16")["smaller_micro"] is None


def test_time_by_arithmetic_where_no_run_is_known(tune, home, big):
    """A device that has told its name has a time and a cost, and it is said that they are arithmetic; a run of one's own goes before it."""
    devices = [{"index": 0, "name": "NVIDIA H100 80GB HBM3", "memory_gib": 80.0}]
    keep_facts(home, devices)
    words = (
        "fit",
        *big,
        "--on",
        "big",
        "--set",
        "model.id=meta-llama/Llama-3.2-1B",
        "--set",
        "method.adapter=lora",
        "--set",
        "data.max_length=2048",
    )
    found = tune.json(*words)
    assert (found["measured"], "by arithmetic" in found["told_from"], "38% of the 989 TFLOP/s" in found["told_from"]) == (
        False,
        True,
        True,
    )
    assert found["hours"] == pytest.approx(100 * 8 * 2048 / 74_833 / 3600, rel=0.3)  # as docs/races.md has it
    assert found["cost"] == pytest.approx(found["hours"] * 2.5)
    assert "time: about 2" in tune(*words).stdout
    keep_facts(home, [{**devices[0], "name": "an unheard-of one"}])
    assert tune.json(*words)["hours"] is None


TPU = """
version: 1
name: small
model: {id: meta-llama/Llama-3.2-1B}
data: {train: rows.jsonl, format: text, max_length: 1000}
train: {steps: 100, batch: {global: 16}, precision: bf16}
optim: {lr: 1e-5}
resources: {accelerator: tpu}
"""
SAID = {"arguments": 3 << 30, "temporary": 2 << 30, "outputs": 0, "code": 1 << 20}


@pytest.fixture
def slices(tune, home):
    """A recipe for MaxText, and what stands in for its environment for TPUs: it notes what it is asked, and says what is put there."""
    (tune.cwd / "rows.jsonl").write_text('{"text": "a"}\n')
    (tune.cwd / "small.yaml").write_text(TPU)
    for folder in ("envs", "cache"):  # links to those that all tests share
        (home / folder).unlink()
    env = address(Home(home).make().envs, Environment("maxtext", "3.12", LOCKS["maxtext-tpu"], "tpu"))
    (env / "bin").mkdir(parents=True)
    (env / ".ready").touch()
    said, asked = tune.cwd / "said", tune.cwd / "asked"
    python = env / "bin/python"
    python.write_text(
        f"#!/bin/sh\ncat memory.json >> {asked}; echo >> {asked}\necho a line of the log\ncat {said}\n[ -s {said} ]\n"
    )
    python.chmod(0o755)

    def say(document):
        said.write_text(json.dumps(document) if document else "")
        return lambda: [json.loads(line) for line in asked.read_text().splitlines()] if asked.exists() else []

    return say


SLICE = ("fit", "small.yaml", "--to", "maxtext", "--on", "v5e-16")


def test_a_compiler_is_asked_once_about_a_slice(tune, slices):
    """A slice by its name, which clusters.yaml does not have: the recipe gets all of it, the compiler is told shape, topology and padded rows, and
    its answer is kept for the next time; another micro-batch is another question.
    """
    asked = slices(SAID)
    told = tune(*SLICE)
    assert "asking the compiler for v5e-16: that takes minutes" in told.stderr
    assert "maxtext on v5e-16, 16 devices (fsdp)" in told.stdout
    assert "fits into 16 GiB: 5.00 GiB of a device by the compiler (weights, optimizer, rows 3.00, all else 2.00)" in told.stdout
    found = tune.json(*SLICE)
    assert (found["fits"], found["compiler_gib"], found["compiler_says"]) == (True, 5.001, None)
    [question] = asked()
    assert (question["topology"], question["kind"], question["length"]) == ("v5e-16", "sft", 1024)
    assert question["shape"]["vocab"] == 128256
    assert (found["measured"], "197 TFLOP/s of a device of v5e-16" in found["told_from"]) == (False, True)
    tune(*SLICE, "--set", "train.batch.global=32")
    assert len(asked()) == 2


def test_a_compiler_that_says_no(tune, home, slices):
    """Exit code 1 with its words; with the answer kept, a submission to such a slice is told, or refused."""
    slices({"over": "RESOURCE_EXHAUSTED: Ran out of memory in memory space hbm. Used 25.45G of 15.75G hbm.\x1b[31m"})
    told = tune(*SLICE, code=1)
    assert "does not fit into 16 GiB, the compiler says: RESOURCE_EXHAUSTED: Ran out of memory" in told.stdout
    assert "\x1b" not in told.stdout
    found = tune.json(*SLICE, code=1)
    assert (found["fits"], found["compiler_gib"]) == (False, None)
    assert "25.45G of 15.75G" in found["compiler_says"]
    hosts = "[10.0.0.2, 10.0.0.3, 10.0.0.4, 10.0.0.5]"
    (tune.cwd / "clusters.yaml").write_text(
        f"version: 1\ntargets: {{mine: {{kind: tpu, type: v5e-16, hosts: {hosts}, user: anna}}}}\n"
    )
    submit = ("submit", *SLICE[1:4], "--on", "mine", "--dry-run", "--set", "resources.hosts=4", "--set", "resources.devices=4")
    assert "the compiler says that this does not fit into mine" in tune(*submit).stderr
    assert "25.45G of 15.75G" in tune(*submit, "--fit", "require", code=3).stderr


def test_a_compiler_that_is_not_asked(tune, slices):
    """With --no-compiler, for a training by Tunix, and where it ends with an error: it is said, and nothing is kept."""
    asked = slices(None)
    assert tune.json(*SLICE, "--no-compiler")["fits"] is None
    assert tune.json(*SLICE[:4], "--on", "v5e-4", "--set", "method.adapter=lora")["compiler_gib"] is None
    assert "this is trained by Tunix's" in tune(*SLICE[:4], "--on", "v5e-4", "--set", "method.adapter=lora").stderr
    assert asked() == []
    assert "the compiler for v5e-16 gave no answer: exit code 1" in tune(*SLICE).stderr
    slices({"arguments": -1})
    assert "gave no answer: should be bytes of" in tune(*SLICE).stderr
    assert len(asked()) == 2
