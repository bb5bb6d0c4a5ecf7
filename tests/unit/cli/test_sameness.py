"""Figures and verdicts on runs that should be the same: from values alone, no trainer runs."""

import json
import math
from contextlib import suppress
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
import yaml

from backends.backend import Inexpressible
from backends.compile import context_of, plan
from backends.plan import WRITTEN_RECIPE, File
from backends.recipe.parse import parse
from backends.registry import BACKENDS
from backends.target import Target
from orchestrator.render.race import document, race_text
from orchestrator.render.verify import page, verify_text
from orchestrator.store import Job, PointRow
from orchestrator.verification import (
    LOSS,
    Evidence,
    Gap,
    Run,
    Spread,
    Tolerance,
    Verdict,
    accepted,
    agree,
    counts,
    gap,
    laps,
    left_out,
    middle,
    parameters,
    parity,
    rates,
    round_trip,
    spread,
    ties,
    tokens,
    winner,
    witnessed,
)

ROOT = Path(__file__).parents[3]

RECIPE = """
version: 1
name: same
model:
  id: tiny
  init: random
  architecture: {hidden_size: 64, intermediate_size: 176, layers: 2, heads: 4, kv_heads: 2, max_length: 256}
method: {adapter: lora, lora: {rank: 4, alpha: 8}}
data: {train: rows.jsonl, format: instruct, max_length: 64}
train: {steps: 8, batch: {global: 8, micro: 4}, precision: fp32}
optim: {lr: 1e-3, weight_decay: 0.1, warmup_steps: 2}
"""
EXACT = Tolerance(1e-5)
WISH = parse(RECIPE, base="/somewhere")
FLAT = WISH.flat()


def decided(trainer, text=RECIPE):
    """A trainer's plan of the recipe."""
    return plan(BACKENDS[trainer], parse(text, base="/somewhere", trainers=BACKENDS), Target())


def run(trainer, *, state="SUCCEEDED", losses=None, lr=None, speed=100.0, memory=None, plan_of="torchtune"):
    """A run of 8 steps at this speed, by default with the recipe's rates."""
    losses = {k: 2.0 - 0.1 * k for k in range(1, 9)} if losses is None else losses
    by_name = {"loss": losses, "lr": rates(FLAT) if lr is None else lr, "tokens_per_second": dict.fromkeys(losses, speed)}
    by_name |= {"memory_gib": memory} if memory else {}
    points = [PointRow(k, name, v, 103.5 + k, 1, "") for name, curve in by_name.items() for k, v in curve.items()]
    job = Job(
        *("same-1", "same", trainer, "local", state, "" if state == "SUCCEEDED" else "exit_code", "step train ended", 1),
        *(8, 8, "train", 90.0, 100.0, 120.0, 120.0, 0, "", True, {}, speed, 1.0),
    )
    return Run(trainer, decided(plan_of), job, points)


def test_the_widest_gap():
    """Every step that both have is compared, the first of equal gaps is named, and no number is infinitely far."""
    assert gap({1: 1.0, 2: 2.0, 3: 3.0}, {1: 1.5, 2: 2.5, 4: 9.0}) == Gap(0.5, 1)
    assert gap({1: 1.0, 2: math.nan}, {1: 9.0, 2: 1.0}) == Gap(math.inf, 2)
    assert gap({1: 1.0}, {2: 1.0}) is None


def test_agreement_needs_the_same_steps():
    """Curves agree where they have the same steps and no two values are farther apart than the tolerance."""
    one = {1: 1.0, 2: 2.0}
    assert agree(one, {1: 1.0, 2: 2.25}, 0.25)
    assert not agree(one, {1: 1.0, 2: 2.25}, 0.2)
    assert not agree(one, {1: 1.0}, 1)
    assert not agree(one, {1: 1.0, 2: math.nan}, 1)
    assert not agree({}, {}, 1)


def test_spreads_of_one_round():
    """Median and quartiles, median and deciles; of one value that value, of none nothing."""
    values = [float(n) for n in range(11)]
    assert middle(values) == Spread(5.0, 2.5, 7.5, 11)
    assert spread(values) == Spread(5.0, 1.0, 9.0, 11)
    assert middle([7.0]) == spread([7.0]) == Spread(7.0, 7.0, 7.0, 1)
    assert middle([]) is spread() is spread([]) is None


def test_the_spread_of_rounds_holds_what_lies_between_them():
    """Two rounds that differ by more than the steps of each: the spread reaches from the one to the other."""
    slow, fast = [float(n) for n in range(11)], [float(n) for n in range(100, 111)]
    assert spread(slow, fast) == spread(fast, slow) == Spread(55.0, 1.0, 109.0, 22)
    assert spread(slow, []) == spread(slow)


def test_warm_up_is_left_out():
    """The first steps, however slow, do not count: five, of a short run a third."""
    assert [left_out(steps) for steps in (1, 6, 30, 100)] == [0, 2, 5, 5]
    slow = run("torchtune")
    points = [p._replace(value=1.0) if p.name == "tokens_per_second" and p.step <= 2 else p for p in slow.points]
    [lap] = laps([slow._replace(points=points)], 1e-5)
    assert lap.speed == Spread(100.0, 100.0, 100.0, 6)


def test_speed_is_of_one_device():
    """A run on two devices of two hosts is four devices' work."""
    alone = run("torchtune")
    [lap] = laps([alone._replace(plan=replace(alone.plan, devices=2, hosts=2))], 1e-5)
    assert lap.speed.median == 25.0


def test_a_race():
    """The first that succeeded is the yardstick; the fastest that agrees wins, however fast one that does not agree is."""
    near = {k: 2.0 - 0.1 * k + 1e-6 for k in range(1, 9)}
    runs = [
        run("axolotl", state="FAILED", losses={1: 1.9}),
        run("litgpt", speed=80.0),
        run("torchtune", speed=100.0, losses=near, memory={1: 3.0, 2: 4.5}),
        run("maxtext", speed=900.0, losses={**near, 5: 1.6}),
    ]
    found = laps(runs, 1e-5)
    assert [lap.agrees for lap in found] == [None, None, True, False]
    assert found[3].gap.step == 5
    assert found[3].gap.size == pytest.approx(0.1)
    assert found[2].memory_gib == 4.5
    assert found[1].memory_gib is None
    assert found[1].first_step == 4.5
    assert winner(found).trainer == "torchtune"
    text = race_text("same", "local", 1, 8, found, {"fifth": "cannot"}, EXACT)
    assert "not reported" in text
    assert "torchtune: the same losses as litgpt; maxtext: other losses than litgpt" in text
    assert "fifth: left out: cannot" in text
    assert "exit_code: step train ended" in text


def test_rounds_of_one_trainer_are_one_lap():
    """Speed and spread are over all rounds, memory the highest, the first step the first round's; the losses repeat."""
    rounds = [run("litgpt", speed=80.0, memory={1: 3.0}), run("litgpt", speed=120.0, memory={1: 4.0})]
    late = [point._replace(time=point.time + 50) for point in rounds[1].points]
    [lap] = laps([rounds[0], rounds[1]._replace(points=late)], 1e-5)
    assert lap.speed == Spread(100.0, 80.0, 120.0, 12)
    assert (lap.memory_gib, lap.first_step, lap.again, lap.repeats) == (4.0, 4.5, Gap(0.0, 1), True)
    entry = json.loads(json.dumps(document([lap], {}, None)))["trainers"][0]
    assert [each["tokens_per_second"]["median"] for each in entry["rounds"]] == [80.0, 120.0]


def test_a_machine_that_changed_is_told():
    """Where one round's speeds lie apart from another's the spread promises little, and the race says whose; with one round none."""
    rounds = [run("litgpt", speed=80.0), run("torchtune"), run("torchtune"), run("litgpt", speed=120.0)]
    found = laps(rounds, 1e-5)
    assert document(found, {}, None)["unsteady"] == ["litgpt"]
    assert "unsteady: litgpt: rounds lie" in race_text("same", "local", 2, 8, found, {}, EXACT)
    assert "unsteady" not in race_text("same", "local", 1, 8, laps(rounds[:2], 1e-5), {}, EXACT)


def test_who_does_not_repeat_itself_is_no_yardstick():
    """A trainer whose second round took another course is named, is compared with one that repeats, and cannot win."""
    other = {k: 2.0 - 0.1 * k for k in range(1, 9)} | {5: 1.75}
    runs = [run("axolotl", speed=900.0), run("litgpt"), run("torchtune", speed=80.0)]
    runs += [runs[2], runs[1], run("axolotl", speed=900.0, losses=other)]
    found = laps(runs, 1e-5)
    assert [lap.repeats for lap in found] == [False, True, True]
    assert [lap.agrees for lap in found] == [False, None, True]
    assert winner(found).trainer == "litgpt"
    text = race_text("same", "local", 2, 8, found, {}, EXACT)
    assert "2 rounds of 8 steps" in text
    assert "axolotl does not repeat itself: its rounds are 2.5e-01 apart at step 5" in text
    alone = laps([runs[0], runs[-1]], 1e-5)
    assert "no trainer repeats itself" in race_text("same", "local", 2, 8, alone, {}, EXACT)


def test_a_round_that_failed_takes_its_trainer_out():
    """Figures are those of the rounds that succeeded; the state, and why, is that of the one that did not; it cannot win."""
    failed = run("torchtune", state="FAILED", losses={1: 1.9}, speed=1.0)
    found = laps([run("litgpt"), run("torchtune", speed=300.0), failed, run("litgpt")], 1e-5)
    assert [(lap.state, lap.agrees, lap.steps) for lap in found] == [("SUCCEEDED", None, 8), ("FAILED", None, 1)]
    assert found[1].speed == Spread(300.0, 300.0, 300.0, 6)
    assert winner(found) is None
    assert "FAILED after 1 steps: exit_code: step train ended" in race_text("same", "local", 2, 8, found, {}, EXACT)


def test_a_tie_is_called_one():
    """Where the spreads of the speeds overlap, the race says that it does not tell the two apart."""
    alike, slower = laps([run("litgpt", speed=100.0), run("torchtune", speed=100.0)], 1e-5), run("torchtune", speed=99.0)
    assert [lap.trainer for lap in ties(alike, winner(alike))] == ["torchtune"]
    assert "does not tell them apart" in race_text("same", "local", 1, 8, alike, {}, EXACT)
    apart = laps([run("litgpt", speed=100.0), slower], 1e-5)
    assert document(apart, {}, winner(apart))["as_fast"] == []


@pytest.mark.parametrize(
    ("runs", "tolerance"),
    [
        ([run("litgpt")], 1e-5),
        ([run("litgpt"), run("torchtune", losses=dict.fromkeys(range(1, 9), 3.0))], 1e-5),
        ([run("litgpt"), run("torchtune")], None),
        ([run("litgpt", state="CANCELLED"), run("torchtune")], 1e-5),
    ],
    ids=["alone", "apart", "no-tolerance", "one-cancelled"],
)
def test_nobody_wins_who_agrees_with_nobody(runs, tolerance):
    """Without two trainers whose losses agree there is no winner."""
    found = laps(runs, tolerance)
    assert winner(found) is None
    assert json.loads(json.dumps(document(found, {}, None)))["winner"] is None


@pytest.mark.parametrize("trainer", list(BACKENDS))
def test_every_trainer_says_the_recipe_again(trainer):
    """The files of a plan, read as text and carried back, have the recipe's meaning."""
    found = round_trip(BACKENDS[trainer], decided(trainer), FLAT, context_of(FLAT, Target()))
    assert found.outcome == "passed", found.detail


@pytest.mark.parametrize(
    ("trainer", "file", "old", "new", "leaf"),
    [
        ("litgpt", "litgpt.yaml", "lr: 0.001", "lr: 0.002", "optim.lr"),
        ("litgpt", "litgpt.yaml", "lora_r: 4", "lora_r: 8", "method.lora.rank"),
        ("torchtune", "torchtune.yaml", "weight_decay: 0.1", "weight_decay: 0.0", "optim.weight_decay"),
        ("torchtune", "torchtune.yaml", "batch_size: 4", "batch_size: 2", "train.batch.micro"),
        ("axolotl", "axolotl.yaml", "learning_rate: 0.001", "learning_rate: 0.01", "optim.lr"),
        ("maxtext", "data.json", '"train_on_prompt": false', '"train_on_prompt": true', "data.train_on_prompt"),
        ("maxtext", "data.json", '"max_length": 64', '"max_length": 65', "data.max_length"),
    ],
)
def test_a_changed_key_is_named(trainer, file, old, new, leaf):
    """One key of an emitted file changed: level 1 fails and names the leaf."""
    made = decided(trainer)
    text = next(each.text for each in made.files if each.path == file)
    assert old in text
    files = tuple(File(each.path, each.text.replace(old, new)) if each.path == file else each for each in made.files)
    found = round_trip(BACKENDS[trainer], replace(made, files=files), FLAT, context_of(FLAT, Target()))
    assert found.outcome == "failed"
    assert leaf in found.detail


def test_every_recipe_of_the_library_comes_back():
    """Every recipe that comes along, in every trainer that can express it, for a machine such as it asks for."""
    passed = 0
    for path in ROOT.glob("recipes/**/*.yaml"):
        wish = parse(path.read_text(), base="/somewhere")
        flat = wish.flat()
        kind, devices, hosts = (flat[f"resources.{leaf}"] for leaf in ("accelerator", "devices", "hosts"))
        where = Target(accelerator="cuda" if kind == "any" else kind, devices=devices, hosts=hosts)
        for backend in BACKENDS.values():
            with suppress(Inexpressible):
                found = round_trip(backend, plan(backend, wish, where), flat, context_of(flat, where))
                assert found.outcome == "passed", (path, found)
                passed += 1
    assert passed > 150


def other(value):
    """Another value of the same kind, where there is one."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int | float):
        return value * 2 + 3
    return [*value, "x"] if isinstance(value, list) else {**value, "x": 1} if isinstance(value, dict) else f"{value}x"


def places(document, above=()):
    """Every value of a nested document that is no mapping, by its path."""
    for key, value in document.items():
        if isinstance(value, dict) and value:
            yield from places(value, (*above, key))
        else:
            yield (*above, key), value


@pytest.mark.parametrize("trainer", list(BACKENDS))
def test_no_key_can_change_unseen(trainer):
    """Each key of every emitted file changed in turn, dozens a trainer: level 1 fails each time and names what changed."""
    made, config = decided(trainer), BACKENDS[trainer].config
    changed = 0
    for file in made.files:
        if not file.path.endswith((".json", ".yaml", ".yml")) or file.path == WRITTEN_RECIPE:
            continue
        read = json.loads if file.path.endswith(".json") else yaml.safe_load  # 1e-05 is a text in YAML 1.1
        for path, value in places(read(file.text)):
            document = read(file.text)
            place = document
            for part in path[:-1]:
                place = place[part]
            place[path[-1]] = other(value)
            text = json.dumps(document) if file.path.endswith(".json") else yaml.safe_dump(document)
            files = tuple(replace(f, text=text) if f is file else f for f in made.files)
            found = round_trip(BACKENDS[trainer], replace(made, files=files), FLAT, context_of(FLAT, Target()))
            assert found.outcome == "failed", (file.path, path)
            assert f"{'' if file.path == config else f'{file.path}:'}{path[0]}" in found.detail, (path, found.detail)
            changed += 1
    assert changed > 40


def test_a_native_key_over_a_leaf_is_named():
    """What the user sets verbatim over a leaf is another meaning, and level 1 says so."""
    text = RECIPE + "native: {litgpt: {optimizer.init_args.lr: 5e-3}}\n"
    found = round_trip(BACKENDS["litgpt"], decided("litgpt", text), FLAT, context_of(FLAT, Target()))
    assert found.outcome == "failed"
    assert "optim.lr" in found.detail


def resolved(trainer, **over):
    """resolved.json of a trainer that changes nothing but keys of its config."""
    made, config = decided(trainer), BACKENDS[trainer].config
    specs = {file.path: json.loads(file.text) for file in made.files if file.path.endswith(".json")}
    return json.dumps({"config": {**yaml.safe_load(text_of(made, config)), **over}, "specs": specs})


def text_of(made, name):
    """A file of a plan."""
    return next(file.text for file in made.files if file.path == name)


def level_two(trainer, text, **kw):
    """What level 2 says of a run that left this."""
    return accepted(BACKENDS[trainer], run(trainer, plan_of=trainer, **kw), text, FLAT, context_of(FLAT, Target()))


@pytest.mark.parametrize("trainer", list(BACKENDS))
def test_what_was_resolved_is_the_recipe(trainer):
    """A trainer that resolves what was written passes, whatever it knows besides."""
    assert level_two(trainer, resolved(trainer, one_of_its_own=3)).outcome == "passed"


@pytest.mark.parametrize(
    ("trainer", "over", "leaf"),
    [
        ("torchtune", {"batch_size": 2}, "train.batch.micro"),
        ("litgpt", {"lora_r": 8}, "method.lora.rank"),
        ("axolotl", {"learning_rate": 1}, "optim.lr"),
        ("maxtext", {"adam_weight_decay": None}, "optim.weight_decay"),
        ("torchtune", {"shuffle": True}, "no setting"),
    ],
)
def test_what_was_resolved_otherwise_is_named(trainer, over, leaf):
    """A key that the trainer resolves to another value fails level 2 with its leaf, both values, and nothing else."""
    found = level_two(trainer, resolved(trainer, **over))
    assert found.outcome == "failed"
    assert leaf in found.detail.partition(": ")[0]
    assert found.detail.count(next(iter(over))) == 1


def test_a_config_that_was_not_taken():
    """A run that failed before it could say anything has not taken its config; one that trained and said nothing is not judged."""
    found = level_two("litgpt", "", state="FAILED")
    assert (found.outcome, "step train ended" in found.detail) == ("failed", True)
    assert level_two("litgpt", "").outcome == "not possible"


ROWS = {n: f"{n:016x}:{n + 100:016x}" for n in range(20)}
ORDER = [7, 3, 11, 0, 5, 2, 9, 1, 4, 6, 8, 10, 12, 13, 14, 15]
EXPECTED = json.dumps({"batch": 8, "order": ORDER, "rows": ROWS})


def batches(rows, size=4):
    """What a process that saw these rows wrote, by micro-batches."""
    return "".join(f"{json.dumps(rows[n : n + size])}\n" for n in range(0, len(rows), size))


def level_three(*seen, recipe=FLAT, expected=EXPECTED, **kw):
    """What level 3 says of processes that saw these rows."""
    return tokens(run("litgpt", **kw), recipe, expected, [batches(rows) for rows in seen])


DUE = [ROWS[n] for n in ORDER]


def test_rows_as_the_recipe_has_them():
    """One process in their order; of several each step's rows, whichever process has which."""
    assert level_three(DUE).detail.startswith("16 rows in 2 steps")
    assert level_three(DUE[1:8:2] + DUE[8::2], DUE[0:8:2] + DUE[9::2]).outcome == "passed"


@pytest.mark.parametrize(
    ("seen", "words"),
    [
        (DUE[8:] + DUE[:8], "train.seed"),
        ([DUE[1], DUE[0], *DUE[2:]], "first at step 1; 1 of 2 steps"),
        ([*DUE[:8], ROWS[19], *DUE[9:]], "first at step 2; 1 of 2 steps"),
        (DUE[:8], "train.batch.global (or train.steps): 8 rows reached the model, by the recipe 16"),
        ([row.replace(":", ":f") for row in DUE], "data.train_on_prompt, data.loss_roles: the same ids"),
        ([f"f{row}" for row in DUE], "data (template, system, max_length"),
    ],
    ids=["order", "swapped", "another", "half", "labels", "ids"],
)
def test_other_rows_are_told_apart(seen, words):
    """Rows in another order, in another number, with other tokens that carry loss, or with other ids: each is named as what it is."""
    found = level_three(seen)
    assert found.outcome == "failed"
    assert words in found.detail


def test_rows_that_nobody_saw():
    """Without what should come or what came nothing is judged, unless the run failed; kinds without a witness say why."""
    assert level_three(expected="").outcome == "not possible"
    assert level_three(state="FAILED").outcome == "failed"
    assert "native" in level_three(DUE, recipe={**FLAT, "data.rendering": "native"}).detail
    assert "dpo" in level_three(DUE, recipe={**FLAT, "method.kind": "dpo"}).detail


@pytest.mark.parametrize("trainer", list(BACKENDS))
def test_a_witness_knows_the_recipe_not_the_plan(trainer):
    """The plan gets a step after the data step, and the recipe's own data spec, whatever the plan's data.json says."""
    made = decided(trainer)
    spec = json.loads(text_of(made, "data.json"))
    wrong = replace(made, files=tuple(File(f.path, "{}") if f.path == "data.json" else f for f in made.files))
    found = witnessed(BACKENDS[trainer], wrong, FLAT, context_of(FLAT, Target()))
    assert json.loads(text_of(found, "witness.json")) == {"data": spec, "steps": 8}
    names = [step.name for step in found.steps]
    assert names[names.index("data") + 1] == "witness"
    assert [name for name in names if name != "witness"] == [step.name for step in made.steps]
    native = {**FLAT, "data.rendering": "native"}
    assert witnessed(BACKENDS[trainer], made, native, context_of(FLAT, Target())) is made


def evidence(made, parameters=1000, tokens=(5,) * 8):
    """A run with files that say so."""
    return Evidence(made, parameters, tokens)


def test_counts():
    """Steps, rates, parameters and tokens of a run that does as the recipe says."""
    first = evidence(run("litgpt"))
    found = counts(first, first, FLAT)
    assert found.outcome == "passed"
    assert "1,000 trained parameters, 40 tokens" in found.detail


LATE = {**rates(FLAT), 3: rates(FLAT)[3] * (1 + 2e-7)}


@pytest.mark.parametrize(
    ("other", "word"),
    [
        (
            evidence(run("torchtune", losses=dict.fromkeys(range(1, 8), 1.0))),
            "train.steps: no loss of 1 of 8 steps, the first is 8",
        ),
        (evidence(run("torchtune", losses=dict.fromkeys(range(1, 10), 1.0))), "train.steps: 1 more than the 8"),
        (evidence(run("torchtune", lr=LATE)), "optim.lr (or its schedule, warm-up, end): at step 3"),
        (evidence(run("torchtune", lr={})), "optim.lr: not reported at 8 of 8 steps"),
        (evidence(run("torchtune"), 1001), "1,001 trained parameters, litgpt has 1,000"),
        (evidence(run("torchtune"), None), "trained parameters: neither adapter/ nor checkpoint/ could be read"),
        (evidence(run("torchtune"), tokens=(5,) * 7 + (6,)), "data: 41 tokens, litgpt has 40"),
        (evidence(run("torchtune"), tokens=None), "data/manifest.json could not be read"),
    ],
)
def test_a_wrong_count_is_named(other, word):
    """What is off, where, and by how much."""
    found = counts(other, evidence(run("litgpt")), FLAT)
    assert found.outcome == "failed"
    assert word in found.detail


def test_a_rate_may_be_rounded_to_single_precision():
    """6e-8 of the rate are near, and 1e-10 of the highest one where it is next to 0; more than that is not."""
    first, low = evidence(run("litgpt")), {**rates(FLAT), 1: 9e-11 * FLAT["optim.lr"]}  # by the recipe it is 0 there
    rounded = {step: value * (1 + 6e-8) for step, value in low.items()}
    assert counts(evidence(run("torchtune", lr=rounded)), first, FLAT).outcome == "passed"
    off = {**rounded, 1: 2e-10 * FLAT["optim.lr"]}
    assert counts(evidence(run("torchtune", lr=off)), first, FLAT).outcome == "failed"


def test_parameters_are_counted_by_headers():
    """Shapes multiplied over all files; tied output embeddings are one with the input's; no file is no count."""
    header = json.dumps({"__metadata__": {}, "a": {"shape": [2, 3]}, "lm_head.weight": {"shape": [10]}}).encode()
    assert parameters([header, b'{"b": {"shape": [4]}}']) == 20
    assert parameters([header], tied=True) == 6
    assert parameters([]) is None


def test_a_measured_tolerance_says_what_it_rests_on():
    """In half precision two runs are judged, by a tolerance that is told to hold for small models; in fp16 none was measured."""
    runs = [run("litgpt"), run("torchtune", losses={k: 2.0 - 0.1 * k + 0.03 for k in range(1, 9)})]
    assert [parity(runs, LOSS[each])[0].outcome for each in ("fp32", "bf16-mixed", "bf16")] == ["failed", "failed", "passed"]
    assert "tolerance 0.05 (measured on a model of" in parity(runs, LOSS["bf16"])[0].detail
    assert "small models" in race_text("same", "local", 1, 8, laps(runs, 0.05), {}, LOSS["bf16"])
    assert "fp16-mixed" not in LOSS


def test_parity():
    """Every two runs are compared; without a tolerance the distance is told and not judged."""
    runs = [run("litgpt"), run("torchtune"), run("axolotl", losses=dict.fromkeys(range(1, 9), 2.0))]
    assert [each.outcome for each in parity(runs, EXACT)] == ["passed", "failed", "failed"]
    assert "8.0e-01 apart, at step 8" in parity(runs, EXACT)[1].detail
    assert {each.outcome for each in parity(runs, None)} == {"not possible"}
    assert [each.outcome for each in parity(runs[:1], EXACT)] == ["not possible"]
    assert parity([runs[0], run("torchtune", losses={1: 1.9})], Tolerance(1.0))[0].outcome == "failed"


class Seen(HTMLParser):
    """Tags and attributes of a page."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.attributes = [], {}
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes |= dict(attrs)


def test_the_page_stands_alone():
    """The page draws every curve, has no script, loads nothing, and shows text from elsewhere as text."""
    evil = "<script>alert(1)</script>"
    curves = {"litgpt": {1: 2.0, 2: 1.0}, f"b{evil}": {1: 2.0, 2: math.nan}}
    text = page(evil, [Verdict(5, ("litgpt", evil), "failed", f"{evil}\x1b[31m")], curves, {evil: evil})
    seen = Seen(text)
    assert "script" not in seen.tags
    assert seen.tags.count("svg") == 2
    assert seen.tags.count("polyline") == 3
    assert not {"src", "href", "onload", "style"} & seen.attributes.keys()
    assert "\x1b" not in text
    assert "nan" not in "".join(line for line in text.splitlines() if "polyline" in line)


def test_a_page_without_curves():
    """Level 1 alone has no curve to draw."""
    assert "<svg" not in page("same", [Verdict(1, ("litgpt",), "passed", "all")], {}, {})


def test_the_text_has_every_verdict():
    """Levels in order, who and why, and the sum."""
    found = [Verdict(1, ("litgpt",), "passed", "fine"), Verdict(2, (), "not possible", "not built yet")]
    text = verify_text("same", found, {"maxtext": "cannot"})
    assert text.index("1 round trip") < text.index("litgpt: passed") < text.index("all: not possible")
    assert text.endswith("1 passed, 0 failed, 1 not possible")
