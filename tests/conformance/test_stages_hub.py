"""Stages over models and questions of a hub, by a small one on this machine: WMDP's three sets by name, and a model by its id."""

import json
import subprocess

import pytest

from orchestrator.client.chat import endpoint
from tests.hub import READ
from tests.hub import hub as running_hub

pytestmark = [pytest.mark.trainer, pytest.mark.timeout(1800)]

SETS = {"bio": 12, "chem": 7, "cyber": 10}
"""WMDP's sets, and how many rows each has here."""
CARD = "---\nconfigs:\n{}---\n".format(
    "".join(f"- config_name: wmdp-{name}\n  data_files:\n  - split: test\n    path: wmdp-{name}/test-*\n" for name in SETS)
)
PARQUET = """
import json, sys
from datasets import Dataset
Dataset.from_list(json.loads(sys.argv[1])).to_parquet(sys.argv[2])
"""
HARNESS = """
import json
from lm_eval import simple_evaluate
seeds = dict.fromkeys(("random_seed", "numpy_random_seed", "torch_random_seed", "fewshot_random_seed"), 1234)
model = {"pretrained": "MODEL", "dtype": "auto"}
print(json.dumps(simple_evaluate(model="hf", model_args=model, tasks=["wmdp"], batch_size=8, device="cpu", **seeds)["results"]))
"""


@pytest.fixture
def hub(adapted, stage_python, tmp_path, home, call):
    """A hub with WMDP's data set, as its card tells of it, and a model; this machine's jobs are led to it, and have a cache of their own."""
    (home / "cache").unlink()
    (home / "cache").mkdir()
    with running_hub() as server:
        model = {file.name: file.read_bytes() for file in (adapted / "model").iterdir()}
        server.repositories |= {"org/tiny": model, "org/private": model}
        sets = {"README.md": CARD.encode()}
        for name, count in SETS.items():
            made = tmp_path / f"{name}.parquet"
            call([stage_python, "-c", PARQUET, json.dumps(rows(name, count)), made], tmp_path)
            sets[f"wmdp-{name}/test-00000-of-00001.parquet"] = made.read_bytes()
        server.repositories["cais/wmdp"] = sets
        env = {**server.env, "HF_HOME": str(tmp_path / "hf"), "OMP_NUM_THREADS": "1"}
        server.env = env
        targets = {"version": 1, "targets": {"local": {"kind": "local", "env": env}}}
        (tmp_path / "config" / "tune" / "clusters.yaml").write_text(json.dumps(targets))
        yield server


def rows(name, count):
    """Questions in WMDP's form, harmless ones."""
    said = [f"{name} {number} " for number in range(count)]
    return [{"question": f"{text}?", "choices": [f"{text}{end}" for end in "abcd"], "answer": len(text) * 7 % 4} for text in said]


@pytest.mark.thorough
def test_wmdp_by_name_and_from_files(tune, hub, stage_python, adapted, call, monkeypatch):
    """By the harness's name the three sets come from the hub, of a model of the hub; from files they have the same figures, with the hub
    gone; and both are what the harness says when it is called by hand.
    """
    tune("evaluate", "org/tiny", "--task", "wmdp", "--id", "named", "--follow", timeout=1200)
    found = figures(tune, "named")
    for name, value in hub.env.items():
        monkeypatch.setenv(name, value)
    by_hand = call([stage_python, "-c", HARNESS.replace("MODEL", str(adapted / "model"))], tune.cwd).stdout
    theirs = json.loads(by_hand.splitlines()[-1])
    assert {f"{task}.acc": values["acc,none"] for task, values in theirs.items()} == {
        name: value for name, value in found.items() if name.endswith(".acc")
    }
    assert set(theirs) == {"wmdp", *(f"wmdp_{name}" for name in SETS)}

    hub.repositories.clear()
    for name, count in SETS.items():
        (tune.cwd / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows(name, count)))
    words = [word for name in SETS for word in ("--task", f"./{name}.jsonl,like=wmdp_{name},name=own_{name}")]
    asked = len(hub.asked)
    tune("evaluate", adapted / "model", *words, "--id", "offline", "--follow", timeout=1200)
    assert hub.asked[asked:] == []
    own = figures(tune, "offline")
    for name in SETS:
        assert own[f"own_{name}.acc"] == found[f"wmdp_{name}.acc"]
        assert own[f"own_{name}.acc_stderr"] == found[f"wmdp_{name}.acc_stderr"]


def figures(tune, id):
    """Name -> value of a job's points."""
    return {point["name"]: point["value"] for point in tune.json("metrics", id)["points"]}


@pytest.mark.thorough
def test_a_model_of_the_hub_is_exported_pushed_and_served(tune, hub, home, monkeypatch):
    """By its id alone: what is fetched is exported and compared, arrives in another repository, and is served; a private one is fetched by
    the token, one that there is not ends FAILED with its name, and the token is nowhere.
    """
    monkeypatch.setenv("HF_TOKEN", hub.token)
    tune("export", "org/tiny", "--format", "merged", "--id", "exported", "--follow", timeout=900)
    assert figures(tune, "exported")["merged/largest_difference"] <= 1e-6
    tune("push", "org/tiny@main", "--repo", "me/copy", "--id", "pushed", "--follow", timeout=900)
    assert "me/copy" in hub.private
    assert hub.repositories["me/copy"]["model.safetensors"] == hub.repositories["org/tiny"]["model.safetensors"]
    done = tune("export", "org/typo", "--id", "typo", "--follow", code=1, timeout=900)
    assert "no_model: org/typo: not on the hub" in done.stderr
    done = tune("export", "org/private", "--id", "locked", "--follow", code=1, timeout=900)
    assert "no_model: org/private" in done.stderr
    monkeypatch.setenv("HF_TOKEN", READ)
    try:
        tune("serve", "org/private", "--id", "served", "--follow", timeout=900)
        with endpoint("served") as where:
            assert where.models == ("private",)
        assert tune("chat", "served", "add 1 and 1", "--max-tokens", "4").stdout
    finally:
        tune("cancel", "served", code=None)
    for secret in (hub.token, READ):
        found = subprocess.run(["grep", "-rl", secret, home / "jobs", home / "store.db"], capture_output=True, check=False)
        assert found.stdout == b""
