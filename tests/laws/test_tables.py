"""Laws that every backend keeps, by reading the tables: no test here names a trainer."""

import json
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from backends.analysis.capabilities import ADAPTERS, KINDS
from backends.backend import Inexpressible
from backends.compile import plan
from backends.mapping.rows import Context, Variant
from backends.mapping.rows import variant_of as shape_of
from backends.mapping.translate import reverse, translate
from backends.recipe.flat import leaves
from backends.recipe.leaves import FORMATS, PREFERENCE
from backends.recipe.parse import parse
from backends.registry import BACKENDS
from backends.target import Target

SHAPES = [
    pytest.param(name, Variant(kind, adapter, native), id=f"{name}-{kind}-{adapter}-{'native' if native else 'shared'}")
    for name in BACKENDS
    for kind in KINDS
    for adapter in ADAPTERS
    for native in (False, True)
]


def table(name, shape):
    """Rows of one shape of recipe."""
    return BACKENDS[name].rows(shape)


@pytest.mark.parametrize(("name", "shape"), SHAPES)
def test_every_leaf_is_read_once(name, shape):
    """Each leaf of the schema is read by exactly one row, and no row reads anything else."""
    read = [leaf for row in table(name, shape) for leaf in row.ours]
    assert sorted(read) == sorted(leaves())


@pytest.mark.parametrize(("name", "shape"), SHAPES)
def test_rows_follow_the_schema(name, shape):
    """Rows stand in the order of the schema by their first leaf, so that two backends can be read side by side."""
    order = {leaf: n for n, leaf in enumerate(leaves())}
    firsts = [order[row.ours[0]] for row in table(name, shape) if row.ours]
    assert firsts == sorted(firsts), [leaves()[n] for n in firsts]


@pytest.mark.parametrize(("name", "shape"), SHAPES)
def test_no_key_is_written_twice(name, shape):
    """No two rows write the same native key."""
    written = [key for row in table(name, shape) for key in row.theirs]
    assert len(written) == len(set(written)), {key for key in written if written.count(key) > 1}


@pytest.mark.parametrize(("name", "shape"), SHAPES)
def test_quirks_have_a_source(name, shape):
    """A loss that upstream decides cites upstream."""
    for row in table(name, shape):
        for value in (0, 1, 7, "text", ["head", "up"], 3.5):
            try:
                row.to(*([value] * len(row.ours)), Context(steps=7, variant=shape, tied=True))
            except Exception as loss:
                if (
                    getattr(loss, "kind", "") == "never"
                    and hasattr(loss, "see")
                    and "divide" not in loss.why
                    and "split" not in loss.why
                ):
                    assert loss.see.startswith("https://"), loss


positive = st.integers(1, 64)
rates = st.floats(1e-7, 1.0)


@st.composite
def _learning(draw, kind):
    """The section that belongs to a kind."""
    if kind in PREFERENCE:
        also = {"dpo": {"label_smoothing": 0.1}, "simpo": {"margin": 0.7}, "kto": {"desirable": 1.5}}.get(kind, {})
        return {"preference": {"beta": draw(st.sampled_from([0.05, 0.3])), **also}}
    if kind == "grpo":
        return {"grpo": {"rewards": ["./rewards.py:brief"], "generations": 4}}
    return {"distill": {"teacher": "./teacher", "ratio": draw(st.sampled_from([0.25, 1.0]))}} if kind == "distill" else {}


@st.composite
def recipes(draw):
    """Recipes over all leaves that these backends cross."""
    kind = draw(st.sampled_from(KINDS))
    form = draw(st.sampled_from(sorted(FORMATS[kind])))
    adapter = draw(st.sampled_from(["none", "none", "lora", "lora", "qlora", "dora"]))
    lora = adapter != "none"
    pairs = form in ("preference", "rated", "prompts")
    devices = draw(st.sampled_from([1, 1, 2, 4]))
    hosts = draw(st.sampled_from([1, 1, 2]))
    micro = draw(st.sampled_from([None, 1, 2, 4]))
    steps = draw(st.one_of(st.none(), st.integers(12, 500)))
    targets = draw(st.lists(st.sampled_from(["q", "k", "v", "o"]), min_size=1, unique=True))
    mlp = ["gate", "up", "down"] if draw(st.booleans()) else []
    model = draw(
        st.sampled_from(
            [
                {
                    "id": "random",
                    "init": "random",
                    "architecture": {"hidden_size": 64, "intermediate_size": 96, "layers": 2, "heads": 4, "kv_heads": 2},
                },
                {"id": "meta-llama/Llama-3.2-1B"},
                {"id": "Qwen/Qwen2.5-0.5B", "revision": "abc"},
                {"id": "./folder"},
            ]
        )
    )
    trackers = draw(st.sampled_from([[], [], ["tensorboard"], ["wandb", "mlflow"]]))
    return {
        "version": 1,
        "name": "law",
        "model": model,
        "method": {
            "kind": kind,
            **draw(_learning(kind)),
            "adapter": adapter,
            **(
                {
                    "lora": {
                        "rank": draw(positive),
                        "alpha": float(draw(positive)),
                        "dropout": draw(st.sampled_from([0.0, 0.1])),
                        "targets": [t for t in ("q", "k", "v", "o") if t in targets] + mlp,
                    }
                }
                if lora
                else {}
            ),
        },
        "data": {
            "train": draw(
                st.sampled_from(
                    ["rows.jsonl", "a/b.parquet", "org/name", [{"path": "a.jsonl", "weight": 2.0}, {"path": "org/b"}]]
                )
            ),
            "format": form,
            "max_length": draw(positive),
            "pack": not pairs and draw(st.booleans()),
            "train_on_prompt": not pairs and draw(st.booleans()),
            "shuffle": draw(st.booleans()),
            "add_eos": draw(st.booleans()),
        },
        "train": {
            **({"steps": steps} if steps else {"epochs": draw(positive)}),
            "batch": {"global": 32 * draw(positive), **({"micro": micro} if micro else {})},
            "precision": draw(st.sampled_from(["fp32", "bf16", "bf16-mixed"])),
            "activation_checkpointing": draw(st.booleans()),
            "attention": draw(st.sampled_from(["auto", "sdpa", "flash"])),
            "grad_clip": draw(st.sampled_from([None, 1.0])),
            "seed": draw(st.integers(0, 2**32 - 1)),
        },
        "log": {"every": draw(positive), "trackers": trackers, **({"project": "p", "run": "r"} if trackers else {})},
        "resources": {
            "devices": devices,
            "hosts": hosts,
            **({"strategy": draw(st.sampled_from(["auto", "ddp", "fsdp", "zero2"]))} if devices * hosts > 1 else {}),
        },
        "checkpoint": {"every": draw(st.sampled_from([None, 2, 7]))},
        "optim": {
            "lr": draw(rates),
            "betas": [draw(st.floats(0, 0.999)), 0.95],
            "eps": draw(st.floats(1e-12, 1e-3)),
            "warmup_steps": draw(st.integers(1, 11)),
            "name": draw(st.sampled_from(["adamw", "adamw", "adamw_8bit"])),
            "schedule": draw(st.sampled_from(["cosine", "constant", "linear"])),
            "weight_decay": draw(st.floats(0, 1)),
            "decay_on": draw(st.sampled_from(["all", "matrices"])),
        },
    }


@pytest.mark.parametrize("name", list(BACKENDS))
@given(values=recipes())
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_out_and_back(name, values):
    """Across and back is the same recipe: what a backend can express, its native keys say in full."""
    recipe = parse(json.dumps(values), base="/somewhere")
    flat = recipe.flat()
    devices, hosts = flat["resources.devices"], flat["resources.hosts"]
    context = Context(devices=devices * hosts, hosts=hosts, steps=flat["train.steps"], variant=shape_of(flat))
    rows = table(name, context.variant)
    out = translate(rows, flat, context)
    assert not out.unread
    back = translate(reverse(rows), out.native, replace(context))
    lost = {line.leaf for line in out.lines if line.status == "lost"}
    assert set(back.native) - lost == {leaf for row in rows if row.theirs for leaf in row.ours} - lost
    for leaf, value in back.native.items():
        if leaf in lost:
            continue
        if leaf == "train.batch.micro" and flat[leaf] is None:  # unset means the whole batch, and comes back as that number
            assert value == flat["train.batch.global"] // context.devices
            continue
        expected = flat[leaf]
        assert value == pytest.approx(expected, rel=1e-12) if isinstance(expected, float) else value == expected, leaf


@pytest.mark.parametrize("name", list(BACKENDS))
@given(values=recipes())
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_a_plan_is_a_pure_function(name, values):
    """The same recipe and target give the same bytes, and no file is opened on the way."""
    recipe = parse(json.dumps(values), base="/somewhere")
    made = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("builtins.open", lambda *_, **__: pytest.fail("a plan opened a file"))
        for _ in range(2):
            try:
                made.append(plan(BACKENDS[name], recipe, Target()).digest())
            except Inexpressible as error:
                made.append(str(error))
    assert made[0] == made[1]
