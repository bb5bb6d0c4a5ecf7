"""What trainers write becomes points of one schema; what they do not write disturbs nothing."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from backends.plan import Environment, Plan, Promise
from backends.registry import BACKENDS
from orchestrator.monitoring.metrics import enrich, points, summed, thin
from orchestrator.store.attempts import Cursor
from orchestrator.transports.base import Chunk

READING = {"every": 1, "first_lr": 0.0, "accumulation": 2}
PLAN = Plan("r", "b", Environment("b", ""), (), (), (), (), (), Promise(None, ()), (), READING)
CSV = """epoch,iter,iter_time,learning_rate,loss,step,tokens,total_tokens
0,1,0.5,0.1,5.0,1,10,10
0,2,0.5,0.2,4.5,2,20,20
0,3,0.5,0.2,4.0,3,30,30
0,4,0.5,0.3,3.5,4,40,40
"""
GROWN = CSV.replace("total_tokens\n", "total_tokens,val_loss\n") + ",,,,,4,,,3.25\n"
JSONL = """{"step": 1, "loss": 5.5, "learning_rate": 0.0, "grad_norm": 2.5, "seconds": 1.0, "tokens": 20}
{"step": 2, "loss": NaN, "learning_rate": 0.1, "grad_norm": 2.0, "seconds": 2.0, "tokens": 50}
{"step": 2, "eval_loss": 3.25, "seconds": 3.0}
"""
TUNIX = """{"step": 0.0, "counts_from": 1, "eval/total_loss": 9.0, "eval/avg_loss": 4.5}
{"step": 1.0, "counts_from": 1, "learning/loss": 5.5, "learning/current_learning_rate": 0.1, "learning/total_weights": 20, "perf/step_time_seconds": 0.5}
{"step": 2.0, "counts_from": 1, "learning/loss": 4.5, "learning/current_learning_rate": 0.2, "learning/total_weights": 10, "perf/step_time_seconds": 0.5}
"""
LOG = "Step 1 | loss:5.5 lr:0.1 tokens_per_second_per_gpu:20.0 grad_norm:2.5 \nStep 2 | loss:nan lr:0.2 tokens_per_second_per_gpu:10.0 \n"


def read(name, *texts, plan=PLAN):
    """Points of a file that is seen in pieces; a piece that begins with 0 is a rewrite."""
    reading, found = Cursor(), []
    for offset, text in texts:
        found += points(BACKENDS[name], plan, reading, [Chunk("m", offset, text.encode(), "h")], None)
    return found, reading


def series(found, name):
    """Step -> value of one metric."""
    return {p.step: p.value for p in found if p.name == name}


def test_litgpt():
    """Every second micro-batch is a step; the rate is the step's own, the speed that of the whole step."""
    found, reading = read("litgpt", (0, CSV))
    assert series(found, "loss") == {1: 4.5, 2: 3.5}
    assert series(found, "lr") == {1: 0.0, 2: 0.2}
    assert series(found, "tokens_per_second") == {1: 20.0, 2: 20.0}
    assert reading.progress.last == 2


def test_litgpts_memory():
    """On CUDA our logger adds the peak of the device's memory; elsewhere there is no such column, and no such figure."""
    lines = CSV.splitlines()
    with_memory = "\n".join([f"{lines[0]},memory_gib", *(f"{line},{n}.5" for n, line in enumerate(lines[1:]))]) + "\n"
    found, _ = read("litgpt", (0, with_memory))
    assert series(found, "memory_gib") == {1: 1.5, 2: 3.5}
    assert series(read("litgpt", (0, CSV))[0], "memory_gib") == {}


def test_the_peak_of_memory_is_read_from_maxtext_too():
    """JAX's peak of the fullest device is a point of its step; without a figure there is none."""
    peak = TUNIX.replace('"counts_from": 1', '"memory_gib": 20.5, "counts_from": 1')
    assert set(series(read("maxtext", (0, peak))[0], "memory_gib").values()) == {20.5}
    assert series(read("maxtext", (0, TUNIX))[0], "memory_gib") == {}


def test_a_rewritten_file_is_read_anew():
    """LitGPT rewrites its file when a column comes in: nothing is missing and nothing is mixed up."""
    found, _ = read("litgpt", (0, CSV), (0, GROWN))
    assert series(found, "loss") == {1: 4.5, 2: 3.5}
    assert series(found, "eval_loss") == {2: 3.25}


def test_litgpt_with_the_rate_of_the_step():
    """Where our logger writes the rate that a step used, nothing is shifted and nothing assumed of the first step."""
    head, *rows = CSV.splitlines()
    own = "\n".join([f"{head},step_lr", *(f"{row},0.{7 - place // 2}" for place, row in enumerate(rows)), ""])
    found, _ = read("litgpt", (0, own))
    assert series(found, "lr") == {1: 0.7, 2: 0.6}


def test_torchtune():
    """The rate is the step's own, which our logger writes; NaN is a value, and noted."""
    found, reading = read("torchtune", (0, LOG))
    assert series(found, "lr") == {1: 0.1, 2: 0.2}
    assert series(found, "grad_norm") == {1: 2.5}
    assert reading.progress.bad == "step 2: nan"


def test_axolotl():
    """The figures of a step as they are, the speed from the tokens since the step before; evaluations beside them."""
    found, reading = read("axolotl", (0, JSONL))
    assert series(found, "lr") == {1: 0.0, 2: 0.1}
    assert series(found, "eval_loss") == {2: 3.25}
    assert reading.progress.bad == "step 2: nan"


def test_maxtext():
    """Steps that Tunix counts from 1 carry the next step's rate, those of MaxText's own loop count from 0 and carry their own. An
    evaluation before the first step is one of step 0.
    """
    found, _ = read("maxtext", (0, TUNIX))
    assert series(found, "lr") == {1: 0.0, 2: 0.1}
    assert series(found, "eval_loss") == {0: 4.5}
    found, _ = read("maxtext", (0, TUNIX.replace('"counts_from": 1', '"counts_from": 0')))
    assert series(found, "lr") == {2: 0.1, 3: 0.2}
    assert series(found, "eval_loss") == {1: 4.5}


@given(st.integers(0, len(CSV)), st.integers(0, len(CSV)))
def test_where_the_file_is_cut_does_not_matter(one, two):
    """A look in mid-line loses and doubles nothing."""
    cuts = sorted({0, one, two, len(CSV)})
    found, _ = read("litgpt", *((a, CSV[a:b]) for a, b in pairwise(cuts)))
    assert series(found, "loss") == {1: 4.5, 2: 3.5}


@given(st.text(max_size=200), st.sampled_from(sorted(BACKENDS)))
def test_garbage_is_counted_and_passed_over(text, name):
    """Whatever stands between the trainer's lines, those are read."""
    good = {"litgpt": CSV, "torchtune": LOG, "maxtext": TUNIX}.get(name, JSONL.replace("NaN", "4.5"))
    first = good.index("\n") + 1
    found, _ = read(name, (0, good[:first] + text.replace("iter", "") + "\n" + good[first:]))
    assert series(found, "loss")[2] == series(read(name, (0, good))[0], "loss")[2] or name == "torchtune"


def test_speed_in_all_tokens():
    """torchtune counts tokens with loss; the data step knows the others, and how many there have been."""
    found, _ = read("torchtune", (0, LOG))
    manifest = {"tokens_per_step": [100, 50], "loss_tokens_per_step": [20, 10], "epochs": 1, "steps": 2}
    rich = enrich(found, summed(manifest))
    assert series(rich, "tokens_per_second") == {1: 100.0, 2: 50.0}
    assert series(rich, "tokens") == {1: 100.0, 2: 150.0}
    assert series(rich, "epoch") == {1: 0.5, 2: 1.0}


def test_every_nth_point():
    """log.every keeps the points of every n-th step and of the last one, and all evaluations."""
    found, _ = read("litgpt", (0, GROWN))
    assert {p.step for p in thin(found, 2, None)} == {2}
    assert any(p.name == "eval_loss" for p in thin(found, 7, None))
    last = max(p.step for p in found)
    assert {p.step for p in thin(found, 7, last) if p.name == "loss"} == {last}, "a run shorter than that has a loss, too"
