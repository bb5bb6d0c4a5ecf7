"""Both trainers follow the yardstick: every step's loss and learning rate, the rows themselves, and the exported weights."""

import csv
import json
import re
from pathlib import Path

import pytest

HERE = Path(__file__).parent
NAMES = ("full", "lora", *(pytest.param(name, marks=pytest.mark.thorough) for name in ("tied", "some")))
TRAINERS = ("torchtune", "litgpt")
SAME = 1e-5

pytestmark = pytest.mark.trainer

BATCHES = """
import sys, json
sys.path[:0] = [".", {tests!r}]
from yardstick import digest
if {trainer!r} == "torchtune":
    from functools import partial
    from torch.utils.data import DataLoader
    from torchtune.data import padded_collate_sft
    from tune_torchtune import PadOnly, rows
    pad = partial(padded_collate_sft, padding_idx=PadOnly().pad_id, ignore_idx=-100)
    data = rows(None, parts={parts})
    loader, ids = DataLoader(data, batch_size={micro}, collate_fn=pad), "tokens"
else:
    from tune_litgpt import Rows
    module = Rows(checkpoint="model")
    module.connect(batch_size={micro}, max_seq_length=None)
    module.setup()
    loader, ids = module.train_dataloader(), "input_ids"
epochs = {parts} if {trainer!r} == "torchtune" else 1
print(json.dumps([digest(b[ids], b["labels"]) for _ in range(epochs) for b in loader]))
"""


@pytest.fixture
def both(trained, yardstick):
    """A trainer's curves and folder, and the yardstick's curves."""

    def pair(trainer, name):
        return *trained(trainer, name), yardstick(name)

    return pair


def largest(ours, theirs):
    """Largest difference between two curves of one length."""
    assert len(ours) == len(theirs)
    return max(abs(a - b) for a, b in zip(ours, theirs, strict=True))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("trainer", TRAINERS)
def test_every_loss_is_the_yardsticks(both, trainer, name):
    """All 50 logged losses are the token-weighted means that the yardstick has, with accumulation and without."""
    curves, _, want = both(trainer, name)
    assert len(curves["loss"]) == 50
    gap = largest(curves["loss"], want["loss"])
    print(f"{trainer} {name}: largest loss difference {gap:.2e}")
    assert gap < SAME
    assert want["loss"][-1] < want["loss"][0] - 0.1, "nothing was learned, so nothing was compared"


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("trainer", TRAINERS)
def test_every_learning_rate_is_the_yardsticks(both, trainer, name):
    """Step k runs with the rate of f(k - 1); the trainers log that of the next step."""
    curves, _, want = both(trainer, name)
    for next_logged, rate in zip(curves["lr"][:-1], want["lr"][1:], strict=True):
        assert next_logged == pytest.approx(rate, rel=1e-9, abs=1e-18)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("trainer", TRAINERS)
def test_the_export_holds_the_yardsticks_weights(both, call, python, trainer, name):
    """checkpoint/ has exactly the base's names, without a copy of a tied head, and the weights that training leads to."""
    _, work, want = both(trainer, name)
    argv = [python("torchtune"), str(HERE / "yardstick.py"), "diff", str(want["weights"]), "checkpoint"]
    found = json.loads(call(argv, work).stdout)
    print(f"{trainer} {name}: largest weight difference {found['largest']:.2e}")
    assert found["alone"] == []
    assert found["largest"] < SAME
    config = json.loads((work / "checkpoint/config.json").read_text())
    assert config["torch_dtype"] == "float32", "or the weights would be cast to the base's dtype when they are loaded"
    assert config["tie_word_embeddings"] is (name in ("tied", "some"))
    assert (work / "checkpoint/tokenizer.json").exists()
    assert (work / "adapter").exists() is (name in ("lora", "some"))
    assert not (work / "checkpoint/adapter_config.json").exists(), "transformers would apply it a second time"


@pytest.mark.parametrize("name", ["lora", pytest.param("some", marks=pytest.mark.thorough)])
@pytest.mark.parametrize("trainer", TRAINERS)
def test_the_adapter_is_what_was_merged(trained, call, python, tiny, case, trainer, name):
    """The base + scale x B x A of adapter/ is the exported checkpoint: its rows are in the order of the base's."""
    _, work = trained(trainer, name)
    script = """
import json, sys
from safetensors.torch import load_file
sys.path.insert(0, sys.argv[2])
from yardstick import read_model
base, got = read_model(sys.argv[1])[1], read_model("checkpoint")[1]
pairs, facts = load_file("adapter/adapter_model.safetensors"), json.load(open("adapter/adapter_config.json"))
layers = {n.removeprefix("base_model.model.").rsplit(".lora_", 1)[0] for n in pairs}
for n in layers:
    a, b = (pairs[f"base_model.model.{n}.lora_{x}.weight"] for x in "AB")
    base[f"{n}.weight"] += facts["lora_alpha"] / facts["r"] * b @ a
print(json.dumps([max((base[n] - got[n]).abs().max().item() for n in got), len(layers), facts["target_modules"]]))
"""
    argv = [python("torchtune"), "-c", script, str(tiny / case(name).model), str(HERE)]
    gap, layers, modules = json.loads(call(argv, work).stdout)
    assert gap < 1e-6
    assert layers == {"lora": 15, "some": 4}[name]
    assert modules == {"lora": sorted({*modules, "lm_head", "q_proj", "down_proj"}), "some": ["q_proj", "v_proj"]}[name]


@pytest.mark.parametrize("name", ["full", pytest.param("tied", marks=pytest.mark.thorough)])
@pytest.mark.parametrize("trainer", TRAINERS)
def test_the_rows_come_as_they_were_ordered(job, case, call, python, yardstick, trainer, name):
    """Every micro-batch has the yardstick's token ids and labels, over all parts."""
    facts = case(name)
    script = BATCHES.format(tests=str(HERE), trainer=trainer, micro=facts.micro, parts=facts.parts)
    said = call([python(trainer), "-c", script], job(facts)).stdout
    assert json.loads(said.splitlines()[-1]) == yardstick(name)["batches"]


@pytest.mark.parametrize(("name", "parts"), [("full", 5), ("some", 2)])
def test_torchtune_saves_at_the_end_of_each_part(trained, name, parts):
    """`parts` trainer's epochs leave as many checkpoints, and the schedule runs through them all as one."""
    _, work = trained("torchtune", name)
    assert sorted(p.name for p in (work / "out").glob("epoch_*")) == [f"epoch_{n}" for n in range(parts)]


@pytest.mark.parametrize("name", ["full", "lora"])
def test_litgpts_eval_loss_is_the_mean_over_tokens(both, name):
    """Each evaluation's loss is the yardstick's, although LitGPT averages means of batches."""
    curves, _, want = both("litgpt", name)
    assert list(curves["eval"]) == ["10", "20", "30", "40", "50"]
    assert largest(curves["eval"].values(), want["eval"].values()) < SAME


@pytest.mark.thorough
def test_litgpts_evaluations_leave_dropout_on(trained, yardstick):
    """With dropout, a run that evaluates every 10 steps has the losses of one that never does, to the last digit."""
    with_evals, _ = trained("litgpt", "lora", dropout=0.5)
    without, _ = trained("litgpt", "lora", dropout=0.5, evals=False)
    assert largest(without["loss"], yardstick("lora")["loss"]) > 0.01, "there was no dropout to begin with"
    assert with_evals["loss"] == without["loss"]


@pytest.mark.thorough
def test_litgpt_on_two_processes_is_the_same_run(trained, yardstick, call, python):
    """LoRA on two processes with accumulation: the yardstick's losses, evaluations and weights, and no hang."""
    curves, work = trained("litgpt", "lora", devices=2, micro=2)
    want = yardstick("lora")
    assert largest(curves["loss"], want["loss"]) < SAME
    assert largest(curves["eval"].values(), want["eval"].values()) < SAME
    argv = [python("torchtune"), str(HERE / "yardstick.py"), "diff", str(want["weights"]), "checkpoint"]
    assert json.loads(call(argv, work).stdout)["largest"] < SAME


def test_a_stream_refuses_what_would_change_its_order(job, case, call, python):
    """Shuffling, more epochs than parts, parts that do not divide the steps: an error, never other rows."""
    script = """
import tune_torchtune as t
def said(act):
    try: act()
    except (ValueError, RuntimeError) as e: return str(e)
    return "accepted"
print(said(lambda: t.rows(None, parts=3)))
print(said(lambda: t.rows(None)[5]))
data = t.rows(None, parts=50)
print(said(lambda: [data[i] for _ in range(51) for i in range(8)]))
"""
    said = call([python("torchtune"), "-c", script], job(case("full"))).stdout.splitlines()[-3:]
    assert "50 steps cannot be cut into 3" in said[0]
    assert "shuffle must be False" in said[1]
    assert "epochs must equal parts" in said[2]


@pytest.mark.parametrize(
    "schedule",
    [
        {"kind": "constant", "warmup": 4},
        {"kind": "linear", "warmup": 5, "min_ratio": 0.2},
        {"kind": "cosine", "warmup": 0, "min_ratio": 0.1},
    ],
)
def test_torchtune_has_every_schedule(job, case, call, python, schedule):
    """The rate of every step is the yardstick's, for the schedules that torchtune alone has not; a share is rounded up."""
    script = f"""
import json, sys, torch, tune_torchtune as t
sys.path.insert(0, {str(HERE)!r})
from yardstick import factor
wish = {schedule!r}
def rates(**warm):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    plan = t.schedule(optimizer, num_training_steps=50, kind=wish["kind"], min_ratio=wish.get("min_ratio", 0.0), **warm)
    out = []
    for _ in range(50):
        out.append(plan.get_last_lr()[0]); optimizer.step(); plan.step()
    return out
print(json.dumps([rates(warmup_steps=wish["warmup"]), rates(warmup_share=(wish["warmup"] - 0.4) / 50 if wish["warmup"] else 0.0),
                  [factor(s, 50, **wish) for s in range(50)]]))
"""
    steps, share, want = json.loads(call([python("torchtune"), "-c", script], job(case("full"))).stdout.splitlines()[-1])
    assert steps == pytest.approx(want, rel=1e-12)
    assert share == pytest.approx(want, rel=1e-12)


def test_litgpts_log_has_the_rate_of_the_step(both):
    """Beside LitGPT's own, which is the next step's, stands the rate that the optimizer had at the step, the first one too."""
    _, work, want = both("litgpt", "some")
    rows = csv.DictReader((work / "out/logs/csv/version_0/metrics.csv").open())
    used = [float(row["step_lr"]) for row in rows if row["loss"] and int(row["iter"]) % 2 == 0]
    assert used == pytest.approx(want["lr"], rel=1e-9, abs=1e-18)


def test_torchtunes_log_has_the_rate_of_the_step(job, case, call, python):
    """What a recipe logs after its schedule has gone on becomes the rate that the optimizer had at the step, the first one too."""
    script = """
import torch, tune_torchtune as t
optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
plan = t.schedule(optimizer, num_training_steps=4, kind="linear", min_ratio=0.0, warmup_steps=0)
log = t.log(log_dir="out", filename="train.log", name="r")
for step in (1, 2, 3, 4):
    optimizer.step(); plan.step()
    log.log_dict({"loss": 1.0, "lr": optimizer.param_groups[0]["lr"]}, step=step)
log.close()
"""
    work = job(case("full"))
    call([python("torchtune"), "-c", script], work)
    assert re.findall(r"lr:(\S+)", (work / "out/train.log").read_text()) == ["1.0", "0.75", "0.5", "0.25"]


def test_two_processes_share_each_batch(job, case, call, python):
    """With parts and two processes, each takes its half of every global batch, in every part."""
    script = """
import json, os, tune_torchtune as t
def served(parts, rank, world):
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(world)}
    data = t.rows(None, parts=parts)
    return [data[i]["tokens"].tolist() for _ in range(parts) for i in range(rank, len(data), world)]
print(json.dumps([served(1, 0, 1), served(2, 0, 2), served(2, 1, 2)]))
"""
    said = call([python("torchtune"), "-c", script], job(case("full"))).stdout
    whole, *halves = json.loads(said.splitlines()[-1])
    assert [row for pair in zip(*halves, strict=True) for row in pair] == whole


def test_a_start_is_drawn_once_and_alike(job, case, call, python):
    """Two jobs with the same wish share one file; B is zero, A within its bound, and another seed gives another A."""
    script = """
import json
from safetensors.torch import load_file
s = load_file("lora/start.safetensors")
a, b = (s[f"model.layers.1.mlp.down_proj.lora_{x}.weight"] for x in "AB")
print(json.dumps([a.shape, b.shape, a.abs().max().item() * 96 ** 0.5, b.abs().max().item(), a[0, 0].item()]))
"""
    seen, places = [], []
    for seed in (1, 1, 2):
        work = job(case("tied"))
        (work / "lora.json").write_text(json.dumps({"model": "model", "rank": 4, "seed": seed, "targets": ["down"]}))
        call([python("torchtune"), "tune_lora.py", "lora.json"], work)
        places.append(str((work / "lora").readlink()))
        seen.append(json.loads(call([python("torchtune"), "-c", script], work).stdout))
    assert seen[0][:2] == [[4, 96], [64, 4]]
    assert 0.9 < seen[0][2] <= 1
    assert seen[0][3] == 0
    assert seen[0] == seen[1]
    assert seen[0][4] != seen[2][4]
    assert places[0] == places[1] != places[2]


def test_what_is_converted_already_is_found_without_torch(trained, call, python, tmp_path):
    """A second conversion takes the cached one, with no package of the trainer's at hand."""
    _, work = trained("litgpt", "tied")
    before = (work / "lit").readlink()
    (work / "lit").unlink()
    call([python("litgpt"), "-S", "-I", "-c", "import sys; sys.path = ['.'] + sys.path; sys.argv = ['', 'convert.json'];"
          "import runpy; sys.exit(runpy.run_path('tune_litgpt.py', run_name='__main__'))"], work)  # fmt: skip
    assert (work / "lit").readlink() == before


@pytest.mark.parametrize("key", ["model_type", "rope_parameters", "attention_bias"])
def test_another_kind_of_model_is_refused(job, case, call, python, tmp_path, key):
    """A shape that is not known is no checkpoint of a wrong one, but an error that names what is different."""
    work = job(case("tied"))
    config = json.loads((work / "model/config.json").read_text())
    value = {"model_type": "mamba", "rope_parameters": {"rope_type": "yarn"}, "attention_bias": True}[key]
    other = work / "other"
    other.mkdir()
    (other / "config.json").write_text(json.dumps({**config, key: value}))
    (work / "convert.json").write_text(json.dumps({"model": "other", "out": "lit"}))
    done = call([python("litgpt"), "tune_litgpt.py", "convert.json"], work, check=False)
    assert done.returncode == 1
    reason = json.loads((work / "reason.json").read_text())
    assert reason["reason"] == "bad_model"
    assert {"rope_parameters": "yarn"}.get(key, key) in reason["detail"]
    assert not (work / "lit").exists()


def test_an_export_of_nothing_says_so(job, case, call, python):
    """No checkpoint: exit 1, reason.json, and no half of a folder."""
    work = job(case("tied"))
    wish = {"from": "torchtune", "model": "model", "trained": "out/epoch_0", "out": "checkpoint"}
    (work / "export.json").write_text(json.dumps(wish))
    done = call([python("torchtune"), "tune_export.py", "export.json"], work, check=False)
    assert done.returncode == 1
    assert json.loads((work / "reason.json").read_text())["reason"] == "no_checkpoint"
    assert not list(work.glob("checkpoint*"))
