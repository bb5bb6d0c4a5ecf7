"""The command line as a user meets it: exit codes, what is printed where, and that looking changes nothing."""

import json
import os
import shutil
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

QUICKSTART = ROOT / "recipes" / "quickstart.yaml"


def everything(folder):
    """Paths below a folder, but for the shared rooms."""
    return sorted(str(p) for p in folder.rglob("*") if "/envs/" not in str(p) and "/cache/" not in str(p))


def test_help(tune):
    """`tune` alone and `tune --help` list the commands."""
    assert tune().stdout == tune("--help").stdout
    assert "submit" in tune("--help").stdout


def test_every_command_is_in_one_group():
    """The groups by which commands are made name exactly the commands there are."""
    from orchestrator.cli import words  # noqa: PLC0415

    def names(first=""):
        return set(words.parser(first)._subparsers._group_actions[0].choices)

    groups = [words.COMPILING, words.TRACKING, words.AROUND]
    assert names() == {name for group in groups for name in group}
    assert all(names(name) == set(group) for group in groups for name in group)


def test_a_dry_run_is_pure(tune, home):
    """A dry run without any network prints files, commands and report, writes nothing, and twice the same bytes."""
    prefix = ("unshare", "-n") if shutil.which("unshare") and os.geteuid() == 0 else ()
    before = everything(home.parent)
    first, second = (tune("submit", QUICKSTART, "--dry-run", prefix=prefix).stdout for _ in range(2))
    assert first == second
    assert everything(home.parent) == before
    for word in ("litgpt.yaml", "-m litgpt finetune_full", "150 optimizer steps", "defaulted"):
        assert word in first


def test_a_dry_run_is_what_is_sent(tune):
    """The plan of a dry run, as JSON, is the plan that is stored on submit."""
    assert tune.json("submit", QUICKSTART, "--dry-run")["steps"][0]["argv"] == ["env/bin/python", "tune_model.py", "model.json"]


def test_translate_contract(tune):
    """`tune translate --to all --json` is the document that the design promises, for every trainer."""
    said = tune.json("translate", ROOT / "recipes" / "llama-3.2-1b" / "lora.yaml", "--to", "all")
    assert said["recipe"] == "llama-3.2-1b-lora"
    assert set(said["backends"]) == {"litgpt", "torchtune"}
    for each in said["backends"].values():
        assert set(each) == {"files", "steps", "env", "report", "expressible"}
        assert each["expressible"] is True
        assert all(isinstance(word, str) for step in each["steps"] for word in step)
        assert {"leaf", "status", "native", "why"} <= set(each["report"][0])
        assert {line["status"] for line in each["report"]} <= {"same", "converted", "defaulted", "approximated", "lost", "native"}


def test_five_mistakes_are_five_lines(tune):
    """A recipe with five mistakes names all five with line numbers and ends with 2."""
    (tune.cwd / "r.yaml").write_text(
        "version: 1\nname: bad name\nmodel: {id: org/name}\ndata:\n  train: a.jsonl\n  formt: text\ntrain:\n  steps: 1.5\n  batch: {global: 0}\noptim: {lr: fast}\n"
    )
    said = tune("submit", "r.yaml", code=2).stderr
    for place in (
        "r.yaml:2: name:",
        "r.yaml:6: data.formt:",
        "r.yaml:8: train.steps:",
        "r.yaml:9: train.batch.global:",
        "r.yaml:10: optim.lr:",
    ):
        assert place in said, said
    assert "did you mean format?" in said


def test_what_litgpt_cannot_express(tune):
    """A recipe that LitGPT cannot express ends with 3 and names each leaf with its reason; accepted by name, it goes on."""
    (tune.cwd / "rows.jsonl").write_text('{"messages": []}\n')
    (tune.cwd / "r.yaml").write_text(
        "version: 1\nname: hard\nmodel: {id: Qwen/Qwen2.5-0.5B}\nmethod: {adapter: lora}\n"
        "data: {train: rows.jsonl, format: chat, rendering: native}\ntrain: {steps: 10, grad_clip: 1.0, batch: {global: 8}}\n"
        "optim: {lr: 1e-4, schedule: linear, warmup_steps: 2}\ncheckpoint: {resume: true}\n"
    )
    said = tune("submit", "r.yaml", "--to", "litgpt", code=3).stderr
    lost = ("data.format", "train.grad_clip", "optim.schedule", "checkpoint.resume")
    for leaf in lost:
        assert leaf in said
    words = [word for leaf in lost for word in ("--accept", leaf)]
    assert "accepted" in tune("submit", "r.yaml", "--to", "litgpt", "--dry-run", *words).stdout


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (("submit", "nope.yaml"), "no such file"),
        (("submit", "."), "is a folder"),
        (("submit", QUICKSTART, "--to", "litgtp"), "did you mean litgpt?"),
        (("submit", QUICKSTART, "--on", "locl"), "did you mean local?"),
        (("submit", QUICKSTART, "--accept", "data.pak"), "did you mean data.pack?"),
        (("submit", QUICKSTART, "--id", "../x"), "--id"),
        (("submit", QUICKSTART, "--set", "train.stepz=3"), "did you mean train.steps?"),
        (("submit", QUICKSTART, "--set", "data.train=./nope.jsonl"), "no such file"),
        (("explain", "optim.lrr"), "did you mean optim.lr?"),
        (("status", "nope"), "nothing was submitted yet"),
        (("recipes", "show", "quickstrat"), "did you mean quickstart?"),
        (("submitt",), "submit"),
    ],
)
def test_wrong_words(tune, words, hint):
    """Wrong words end with 2 and say what would be right."""
    assert hint in tune(*words, code=2).stderr


def test_a_gated_model_without_a_token(tune, monkeypatch):
    """A gated model without a token is named before anything starts."""
    monkeypatch.delenv("HF_TOKEN", raising=False)
    said = tune("submit", ROOT / "recipes" / "llama-3.2-1b" / "lora.yaml", code=2).stderr
    assert "HF_TOKEN" in said
    assert "gated" in said


def test_a_token_is_nowhere(tune, home, monkeypatch):
    """A secret's value is in no dry run."""
    monkeypatch.setenv("HF_TOKEN", "hf_canary_5f1c")
    said = tune("submit", ROOT / "recipes" / "llama-3.2-1b" / "lora.yaml", "--dry-run", "--verbose")
    assert "HF_TOKEN" in said.stdout
    assert "canary" not in said.stdout + said.stderr


def test_explain(tune):
    """A leaf is explained with its meaning and every trainer's spelling; a recipe leaf by leaf."""
    said = tune("explain", "method.lora.rank").stdout
    assert "lora_r" in said
    assert "model.lora_rank" in said
    assert "optim.lr" in tune("explain", QUICKSTART).stdout


def test_recipes_are_copied_with_their_data(tune):
    """`tune recipes cp` leaves a recipe that runs where it lies."""
    tune("recipes", "cp", "qwen2.5-0.5b/lora", "here")
    assert tune("submit", "here/lora.yaml", "--dry-run").stdout
    assert (tune.cwd / "here" / "data" / "quickstart.jsonl").exists()
    assert "is there already" in tune("recipes", "cp", "qwen2.5-0.5b/lora", "here", code=2).stderr


def test_translate_writes_files(tune):
    """`--out` writes a folder a trainer."""
    tune("translate", QUICKSTART, "--out", "native")
    assert (tune.cwd / "native" / "litgpt" / "litgpt.yaml").exists()
    assert (tune.cwd / "native" / "torchtune" / "torchtune.yaml").exists()


def test_schema(tune):
    """The JSON Schema describes every section."""
    assert {"model", "data", "train", "optim"} <= set(json.loads(tune("schema").stdout)["properties"])


def test_the_library_is_valid(tune):
    """Every recipe that comes along is expressible in every trainer, and opens with the command that runs it."""
    paths = sorted((ROOT / "recipes").rglob("*.yaml"))
    assert len(paths) == 5
    for path in paths:
        assert "tune submit" in path.read_text().splitlines()[0]
        assert all(b["expressible"] for b in tune.json("translate", path)["backends"].values()), path


def test_a_wrong_clusters_file(tune):
    """clusters.yaml is strict, with line numbers."""
    (tune.cwd / "clusters.yaml").write_text("version: 1\ntargets:\n  box:\n    kind: local\n    devics: 2\n")
    assert "clusters.yaml:5: targets.box.devics" in tune("targets", code=2).stderr
    (tune.cwd / "clusters.yaml").write_text("version: 1\ntargets:\n  box: {kind: local, accelerator: cpu, devices: 2}\n")
    assert [t["name"] for t in tune.json("targets")] == ["local", "box"]


def test_a_store_that_cannot_be_reached(tune, monkeypatch):
    """A store that does not answer ends with 4 and a sentence."""
    monkeypatch.setenv("TUNE_STORE", "postgresql://nobody@127.0.0.1:1/none")
    assert tune("status", code=4).stderr
    monkeypatch.setenv("TUNE_STORE", "mysql://x")
    assert "postgresql://" in tune("status", code=4).stderr


def test_several_devices_are_refused_and_never_half_done(tune):
    """Several devices are not translated yet: refused by name; whoever accepts gets one device with the whole batch."""
    words = ("submit", QUICKSTART, "--to", "litgpt", "--set", "resources.devices=2")
    assert "resources.devices" in tune(*words, code=3).stderr
    plan = tune.json(*words, "--accept", "resources.devices", "--dry-run")
    assert plan["devices"] == 1
    config = next(f["text"] for f in plan["files"] if f["path"] == "litgpt.yaml")
    assert "micro_batch_size: 16" in config
    assert "devices: 1" in config


def test_another_accelerator_is_refused(tune):
    """A recipe that asks for CUDA does not quietly run on a CPU."""
    words = ("submit", QUICKSTART, "--set", "resources.accelerator=cuda")
    assert "target local has cpu, the recipe asks for cuda" in tune(*words, code=3).stderr
