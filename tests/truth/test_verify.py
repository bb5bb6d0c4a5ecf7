"""`tune verify` by plain PyTorch: what a trainer does otherwise than the recipe says is found, and its leaf is named."""

import json
import os
import random
import shutil
import subprocess
from functools import cache
from pathlib import Path

import pytest
import yaml

from backends.compile import context_of, plan
from backends.recipe.needs import has_effect
from backends.recipe.parse import parse
from backends.registry import BACKENDS
from backends.target import Target
from orchestrator.store import Job, PointRow
from orchestrator.verification import LOSS, Run, truth
from orchestrator.verification.truth import FOUND, wished
from tests.truth.wishes import SILENT

BACKEND = Path(__file__).parents[2] / "backends"
STEPS = 6

pytestmark = pytest.mark.trainer

RECIPE = {
    "version": 1,
    "name": "same",
    "model": {
        "id": "tiny",
        "init": "random",
        "architecture": {"vocab_size": 320, "hidden_size": 32, "intermediate_size": 48, "layers": 2, "heads": 2, "kv_heads": 2},
    },
    "train": {"steps": STEPS, "batch": {"global": 4}, "precision": "fp32", "grad_clip": 0.05},
    "optim": {"lr": 0.02, "weight_decay": 0.5, "warmup_steps": 1, "eps": 1e-3, "betas": [0.8, 0.95]},
}
SETTINGS = {
    "dpo": {"beta": 0.6, "label_smoothing": 0.2},
    "ipo": {"beta": 0.6},
    "orpo": {"beta": 0.6},
    "simpo": {"beta": 3.0, "margin": 0.8},
    "kto": {"beta": 0.6, "desirable": 1.5, "undesirable": 0.7},
    "distill": {"ratio": 0.3},
    "reward": {},
    "grpo": {"kl": 0.3, "temperature": 0.7, "generations": 4},
}
GRPO = {"clip": 0.1, "max_new_tokens": 8, "rewards": ["./rewards.py:length", "./rewards.py:sum"]}
"""What of grpo shows in a run's answers, or (clip) nowhere."""
ADAPTED = {
    "noisy": {"kind": "sft", "adapter": "lora", "lora": {"rank": 4, "alpha": 8.0, "train_fully": ["head", "norms"]}},
    "distill": {"adapter": "dora", "lora": {"rank": 4, "alpha": 8.0}},
}
"""Cases with an adapter; the one of `noisy` is beside NEFTune's noise."""
FORMS = {"grpo": "prompts", "kto": "rated", "sft": "completion", "noisy": "completion", "distill": "completion"}
END = 257
"""The token that ends a text in a random model."""
REFERENCE = "method.kind (the model that it is held near)"
SECTIONS = {"distill": "distill", "grpo": "grpo"}
MISTAKES = [
    *(
        (kind, f"method.{SECTIONS.get(kind, 'preference')}.{name}", {"settings": {name: value * 2}})
        for kind, s in SETTINGS.items()
        for name, value in s.items()
    ),
    ("dpo", "method.preference.label_smoothing", {"settings": {"label_smoothing": 0.0}}),
    ("simpo", "method.preference.margin", {"settings": {"margin": 0.0}}),
    ("kto", "method.preference.desirable", {"settings": {"desirable": 1.0}}),
    ("kto", "method.preference.undesirable", {"settings": {"undesirable": 1.0}}),
    ("distill", "method.distill.ratio", {"settings": {"ratio": 0.0}}),
    *(("noisy", "method.lora.train_fully", {"adapter": {"whole": [word]}}) for word in ("head", "norms")),
    *((kind, "method.lora.alpha", {"adapter": {"alpha": 4.0}}) for kind in ADAPTED),
    *(("noisy", "train.neftune_alpha", {"neftune": change}) for change in (None, {"alpha": 10.0})),
    *((kind, REFERENCE, {"reference": "policy"}) for kind in ("dpo", "ipo", "kto")),
    ("grpo", "method.grpo.kl", {"settings": {"kl": 0.0}}),
    ("grpo", "method.grpo.generations", {"settings": {"generations": 2}}),
    *(("grpo", "method.grpo.rewards", {"settings": {"paid": [n]}}) for n in (0, 1)),
    *(("reward", "train.seed", {"seed": seed}) for seed in (0, 43)),
    *(
        (kind, leaf, change)
        for kind in ("dpo", "sft", "reward", "grpo")
        for leaf, change in (
            ("train.grad_clip", {"clip": None}),
            ("optim.lr", {"lr": 0.04}),
            ("optim.weight_decay", {"weight_decay": 0.0}),
            ("optim.betas", {"betas": [0.9, 0.999]}),
            ("optim.warmup_steps", {"schedule": {"warmup": 0}}),
        )
    ),
]


def rows(folder):
    """Pairs, verdicts and answers."""
    for n in range(24):
        prompt, good, bad = (
            f"Add {n} and {n * 7 % 5}: ",
            f"It is {n + n * 7 % 5}." + " Yes." * (n % 3),
            "No" + " idea" * (n % 4 + 1),
        )
        for form, row in {
            "preference": {"prompt": prompt, "chosen": good, "rejected": bad},
            "rated": {"prompt": prompt, "completion": good if n % 3 else bad, "label": bool(n % 3)},
            "completion": {"prompt": prompt, "completion": good},
            "prompts": {"prompt": prompt},
        }.items():
            with (folder / f"{form}.jsonl").open("a") as file:
                file.write(json.dumps(row) + "\n")


def text_of(kind):
    """A recipe of this kind."""
    form = FORMS.get(kind, "preference")
    section = SECTIONS.get(kind, "preference")
    method = {"kind": kind, **({section: dict(SETTINGS[kind])} if SETTINGS.get(kind) else {}), **ADAPTED.get(kind, {})}
    if kind == "grpo":
        method["grpo"] |= GRPO
    if kind == "distill":
        method["distill"]["teacher"] = "./teacher"
    more = {"noisy": {"neftune_alpha": 5.0}, "grpo": {"batch": {"global": 2}}}
    train = {**RECIPE["train"], **more.get(kind, {})}
    data = {"train": f"./{form}.jsonl", "format": form, "max_length": 64}
    return yaml.safe_dump({**RECIPE, "train": train, "method": method, "data": data})


def recipe(kind):
    """It, its flat leaves and their context."""
    made = parse(text_of(kind), base="/x")
    return made, made.flat(), context_of(made.flat(), Target())


def answers(generations=4, most=8):
    """The answers of each step to two prompts, of unequal lengths and rewards, as trainers leave them; half are cut off at the most."""
    dice = random.Random(3)
    for _ in range(STEPS):
        step = []
        for _ in range(2):
            prompt = [dice.randrange(4, 250) for _ in range(dice.randrange(3, 9))]
            for n in range(generations):
                said = [dice.randrange(4, 250) for _ in range(most if n % 2 else dice.randrange(1, most))]
                said = said if n % 2 else [*said, END]
                step.append({"prompt_ids": prompt, "completion_ids": said, "rewards": [len(said) / 8, sum(said) % 64 / 64]})
        yield json.dumps(step) + "\n"


@pytest.fixture(scope="session")
def folder(trainer_python, tmp_path_factory):
    """A job's folder with a model and rows; computes what plain PyTorch finds for a wish."""
    work = tmp_path_factory.mktemp("job")
    for shim in BACKEND.glob("shims/tune_*.py"):
        shutil.copy(shim, work)
    (work / "cache").mkdir()
    (work / "inputs").mkdir()
    rows(work / "inputs")
    for name, changed in {"answers": {}, "short": {"most": 4}, "few": {"generations": 2}}.items():
        (work / f"{name}.jsonl").write_text("".join(answers(**changed)))
    made, _, _ = recipe("dpo")
    spec = next(file.text for file in plan(BACKENDS["torchtune"], made, Target()).files if file.path == "model.json")
    (work / "model.json").write_text(spec)
    env = {**os.environ, "OMP_NUM_THREADS": "1"}

    def call(*argv):
        done = subprocess.run(
            [trainer_python("torchtune"), *argv], cwd=work, env=env, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr

    call("tune_model.py", "model.json")
    (work / "teacher.json").write_text(json.dumps({**json.loads(spec), "folder": "inputs/teacher", "seed": 6}))
    call("tune_model.py", "teacher.json")

    def find(wish):
        (work / "truth.json").write_text(json.dumps(wish))
        call("tune_truth_job.py", "truth.json")
        return (work / FOUND).read_text()

    return find


@pytest.fixture(scope="session")
def found(folder):
    """What plain PyTorch finds for a kind, once: the text that a job leaves, and the figures of each mistake by its place."""

    @cache
    def find(kind):
        _, flat, context = recipe(kind)
        wish = wished(BACKENDS["axolotl"], flat, context)
        assert wish["teacher"] in (None, "inputs/teacher")
        wish["data_spec"]["train"]["path"] = f"inputs/{FORMS.get(kind, 'preference')}.jsonl"
        own, wish["variant_steps"] = len(wish["variants"]), STEPS
        wish["variants"] += [{"leaf": leaf, "value": None, "change": change} for k, leaf, change in MISTAKES if k == kind]
        figures = json.loads(folder(wish))
        assert "error" not in figures, figures
        mistakes = figures["variants"][own:]
        figures["variants"] = [
            {name: values[: STEPS - 1] if isinstance(values, list) else values for name, values in each.items()}
            for each in figures["variants"][:own]
        ]
        return json.dumps(figures), dict(zip([n for n, each in enumerate(MISTAKES) if each[0] == kind], mistakes, strict=True))

    return find


def ran(figures):
    """A run that reports these figures."""
    names = [name for name, values in figures.items() if isinstance(values, list) and name != "variants"]
    points = [PointRow(k, name, v, 1.0, 1, "") for name in names for k, v in enumerate(figures[name], 1) if v is not None]
    job = Job(
        *("a", "same", "axolotl", "local", "SUCCEEDED", "", "", 1),
        *(6, 6, "train", 1.0, 1.0, 1.0, 1.0, 0, "", True, {}, 1.0, 1.0),
    )
    made, _, _ = recipe("dpo")
    return Run("axolotl", plan(BACKENDS["axolotl"], made, Target()), job, points)


@pytest.mark.parametrize("kind", [*SETTINGS, "sft", "noisy"])
def test_the_same_training_passes(found, kind):
    """A run with plain PyTorch's own figures passes, and its detail says how far what is."""
    _, flat, context = recipe(kind)
    text, _ = found(kind)
    verdict = truth(ran(json.loads(text)), flat, context, text, LOSS["fp32"])
    assert verdict.outcome == "passed", verdict.detail
    assert verdict.detail.startswith(f"{STEPS} steps as in plain PyTorch")


@pytest.mark.parametrize("number", range(len(MISTAKES)), ids=lambda n: "-".join([MISTAKES[n][0], MISTAKES[n][1], str(n)]))
def test_each_mistake_is_named(found, number):
    """A run with another beta, without smoothing, margin, weights or clipping, near another model, with another head, or with another optimizer
    fails, and
    the leaf is named.
    """
    kind, leaf, _ = MISTAKES[number]
    _, flat, context = recipe(kind)
    text, mistakes = found(kind)
    verdict = truth(ran(mistakes[number]), flat, context, text, LOSS["fp32"])
    assert verdict.outcome == "failed", verdict.detail
    assert verdict.detail.startswith(f"{leaf}: "), verdict.detail


@pytest.mark.parametrize(
    ("file", "said"),
    [
        ("short", "method.grpo.max_new_tokens: an answer is cut off after 4 tokens, not after 8"),
        ("few", "method.grpo.generations: a prompt is answered 2 times, not 4 times"),
    ],
)
def test_what_shows_in_the_answers_is_named(folder, file, said):
    """A run whose answers are shorter or fewer than the recipe has them fails, whatever its losses, and the leaf is named."""
    _, flat, context = recipe("grpo")
    wish = {**wished(BACKENDS["trl"], flat, context), "answers": f"{file}.jsonl", "variants": []}
    wish["data_spec"]["train"]["path"] = "inputs/prompts.jsonl"
    text = folder(wish)
    verdict = truth(ran(json.loads(text)), flat, context, text, LOSS["fp32"])
    assert (verdict.outcome, verdict.detail) == ("failed", said)


@pytest.mark.parametrize("kind", SETTINGS)
def test_no_setting_of_a_method_is_left_out(kind):
    """Each number that a recipe may give for the method is among the mistakes, or has no effect."""
    _, flat, _ = recipe(kind)
    sections = ("method.preference.", "method.distill.", "method.grpo.")
    own = {
        leaf for leaf, value in flat.items() if leaf.startswith(sections) and isinstance(value, float) and has_effect(leaf, flat)
    }
    found = {leaf for case, leaf, _ in MISTAKES if case == kind and leaf.startswith(sections)}
    assert own - set(SILENT) == found - {"method.grpo.generations", "method.grpo.rewards"}


PAY = """def length(completion_ids, **_):
    return [len(ids) / 8 for ids in completion_ids]


def sum(completion_ids, **_):
    return [float(ids[0] % 7 + ids[-1] % 5) for ids in completion_ids]
"""


@pytest.mark.thorough(3)
@pytest.mark.parametrize("trainer", ["trl", "axolotl"])
@pytest.mark.parametrize("kind", ["reward", "grpo"])
def test_a_run_of_a_trainer_passes(tune, home, kind, trainer):
    """A reward model whose head was not there, and answers of the run's own: each figure of six steps is plain PyTorch's."""
    rows(tune.cwd)
    (tune.cwd / "rewards.py").write_text(PAY)
    (tune.cwd / "r.yaml").write_text(text_of(kind))
    found = tune.json("verify", "r.yaml", "--to", trainer, "--set", "train.batch.micro=1", "--steps", STEPS)["levels"]
    told = [each for each in found if each["level"] == 6]
    assert [(each["trainers"], each["outcome"]) for each in told] == [([trainer], "passed")], told
