"""tune_data.py: rows as tokens, in the order in which they are trained."""

import hashlib
import json
import os
import random
import shutil
import struct
from array import array
from itertools import chain
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

BOS, EOS, PAD, START, END = range(256, 261)
SHIPPED = Path(__file__).parents[3] / "recipes" / "data"
ROWS = [{"instruction": f"Say {n}", "output": f"number {n} ☃"} for n in range(10)]


def decoded(ids):
    """The text of byte ids, special tokens left out."""
    return bytes(one for one in ids if one < 256).decode()


def answers(data):
    """The text of each row that carries loss."""
    return [decoded(label for label in labels if label >= 0) for labels in data.labels]


def make(job, rows, name="train.jsonl", **changes):
    """The data of some rows."""
    job.run("tune_data", job.spec | {"train": job.write(name, rows)} | changes)
    return job.data()


def test_instruct_tokens(data_job):
    """BOS, prompt, output, EOS; output and EOS carry loss, labels stand where their tokens stand."""
    data = make(data_job, [{"instruction": "a", "output": "é"}], template="plain")
    assert data.ids == [[BOS, *b"a\n", *"é".encode(), EOS]]
    assert data.labels == [[-100, -100, -100, *"é".encode(), EOS]]
    data = make(data_job, [{"instruction": "a", "output": "b"}], template="plain", add_eos=False)
    assert data.ids == [[BOS, *b"a\nb"]]


def test_chat_tokens(data_job):
    """A chat has the template's tokens and no others; each answer and its end of turn carry loss, headers do not."""
    rows = [
        {
            "messages": [
                {"role": r, "content": c} for r, c in (("user", "q"), ("assistant", "é"), ("user", "r"), ("assistant", "s"))
            ]
        }
    ]
    data = make(data_job, rows, format="chat")
    header = [START, *b"assistant\n"]
    turn = [*"é".encode(), END, *b"\n"]
    opening, between = [BOS, START, *b"user\nq", END, *b"\n", *header], [START, *b"user\nr", END, *b"\n", *header]
    assert data.ids == [[*opening, *turn, *between, *b"s", END, *b"\n"]]
    assert data.labels == [[*[-100] * len(opening), *turn, *[-100] * len(between), *b"s", END, *b"\n"]]


def test_text_tokens(data_job):
    """All of a text carries loss but its first token; a text that begins with BOS gets no second one."""
    data = make(data_job, [{"text": "ab"}, {"text": "<s>c"}], format="text")
    assert data.ids == [[BOS, *b"ab", EOS], [BOS, *b"c", EOS]]
    assert data.labels == [[-100, *b"ab", EOS], [-100, *b"c", EOS]]


def test_train_on_prompt(data_job):
    """With train_on_prompt only the first token carries no loss."""
    data = make(data_job, [{"instruction": "a", "output": "b"}], template="plain", train_on_prompt=True)
    assert data.labels == [[-100, *data.ids[0][1:]]]


TEXT = st.text(st.characters(codec="utf-8"), max_size=20).filter(lambda text: not any(s in text for s in ("<s>", "</s>", "<|")))


@settings(max_examples=16, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(
    st.lists(st.tuples(TEXT, TEXT, TEXT), min_size=1, max_size=40),
    st.sampled_from(["alpaca", "plain", "Q{instruction}I{input}A", None]),
)
def test_what_carries_loss_is_the_answers(data_job, triples, template):
    """For any rows, decoding what carries loss gives exactly the answers, whatever the template, and in conversations (None)."""
    if template:
        rows = [{"instruction": a, "input": b, "output": c} for a, b, c in triples]
        assert answers(make(data_job, rows, template=template)) == [c for *_, c in triples]
    else:
        rows = [{"messages": [{"role": "user", "content": a}, {"role": "assistant", "content": b}] * 2} for a, b, _ in triples]
        assert answers(make(data_job, rows, format="chat")) == [f"{b}\n{b}\n" for _, b, _ in triples]


def test_merged_tokens_and_white_space(data_job):
    """A token that straddles belongs to the answer, and white space carries loss, also where a tokenizer trims as Llama 3's."""
    path = data_job.folder / data_job.spec["tokenizer"] / "tokenizer.json"
    raw = json.loads(path.read_text())
    vocab = raw["model"]["vocab"]
    vocab |= {token["content"]: token["id"] for token in raw["added_tokens"]} | {"ĊĊ": 261, "ĠĠ": 262}
    raw["model"]["merges"] = ["Ċ Ċ", "Ġ Ġ"]
    trimming = raw["pre_tokenizer"] | {"trim_offsets": True}
    raw["post_processor"] = {"type": "Sequence", "processors": [trimming, raw["post_processor"]]}
    path.write_text(json.dumps(raw))
    data = make(data_job, [{"instruction": "a", "output": "\nb   "}, {"instruction": "a", "output": "  b"}], template="plain")
    assert data.ids == [[BOS, *b"a", 261, *b"b", 262, 32, EOS], [BOS, *b"a\n", 262, *b"b", EOS]]
    assert data.labels == [[-100, -100, 261, *b"b", 262, 32, EOS], [-100, -100, -100, 262, *b"b", EOS]]


def test_tokenizer_settings_of_others_do_not_cut(data_job):
    """Truncation and padding that a tokenizer.json happens to hold are not obeyed."""
    path = data_job.folder / data_job.spec["tokenizer"] / "tokenizer.json"
    raw = json.loads(path.read_text())
    raw["truncation"] = {"direction": "Right", "max_length": 2, "strategy": "LongestFirst", "stride": 0}
    raw["padding"] = {
        "strategy": {"Fixed": 9},
        "direction": "Right",
        "pad_to_multiple_of": None,
        "pad_id": 0,
        "pad_type_id": 0,
        "pad_token": "!",
    }
    path.write_text(json.dumps(raw))
    assert make(data_job, [{"text": "abcd"}], format="text").ids == [[BOS, *b"abcd", EOS]]


def test_add_bos_token_decides(data_job):
    """`add_bos_token` of the tokenizer's configuration decides over its post-processor, as in transformers 5."""
    path = data_job.folder / data_job.spec["tokenizer"] / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"add_bos_token": False}))
    assert make(data_job, [{"text": "ab"}], format="text").ids == [[*b"ab", EOS]]


def test_truncation(data_job):
    """Rows are cut on the right at max_length, EOS too, and counted."""
    data = make(data_job, [{"text": "abcd"}, {"text": "a"}], format="text", max_length=4)
    assert data.ids == [[BOS, *b"abc"], [BOS, *b"a", EOS]]
    assert (data.manifest["truncated"], data.manifest["longest"]) == (1, 4)


def test_rows_without_loss(data_job):
    """Rows whose answer was cut off stop the job, by number and place; drop_empty drops and counts them; all are always too many."""
    rows = [{"instruction": "a" * n, "output": "b"} for n in (1, 9, 2, 9)]
    spec = data_job.spec | {"train": data_job.write("t.jsonl", rows), "template": "plain", "max_length": 8}
    reason, detail = data_job.refused("tune_data", spec)
    assert reason == "no_loss_tokens"
    assert "2 of 4 rows have no token with loss within max_length, 8: t.jsonl:2, t.jsonl:4:" in detail
    data = make(data_job, rows, template="plain", max_length=8, drop_empty=True)
    assert (data.manifest["rows_in"], data.manifest["rows"], data.manifest["dropped_empty"]) == (4, 2, 2)
    assert answers(data) == ["b", "b"]
    reason, _ = data_job.refused("tune_data", spec | {"train": data_job.write("u.jsonl", rows[1:2]), "drop_empty": True})
    assert reason == "no_loss_tokens"


def test_a_small_share_without_loss_is_told(data_job):
    """Up to one row in a hundred without loss is left out and told, with its place; one more stops the job. Few steps of many rows read
    them all then, since their order follows from which are there.
    """
    rows = [{"instruction": "a", "output": f"{n}"} for n in range(200)]
    rows[7] = rows[150] = {"instruction": "a" * 99, "output": "b"}
    spec = data_job.spec | {"train": data_job.write("t.jsonl", rows), "template": "plain", "max_length": 8}
    data_job.run("tune_data", spec)
    manifest = data_job.data().manifest
    assert (manifest["rows_in"], manifest["rows"], manifest["dropped_empty"]) == (200, 198, 2)
    note = "train: 2 of 200 rows left out: no token with loss within max_length, the first at t.jsonl:8"
    assert note in manifest["notes"]
    rows[199] = rows[7]
    data_job.write("t.jsonl", rows)
    assert "3 of 200 rows have no token with loss" in data_job.refused("tune_data", spec)[1]
    many = [{"instruction": "a", "output": f"{n}"} for n in range(15_000)]
    many[5] = rows[7]
    spec |= {"train": data_job.write("t.jsonl", many), "steps": 3, "epochs": None}
    data_job.run("tune_data", spec)
    assert data_job.data().manifest["rows"] == 14_999
    told = trained(data_job.data())
    data_job.run("tune_data", spec | {"drop_empty": True})
    assert trained(data_job.data()) == told


@pytest.mark.parametrize("sizes", [[3, 3, 3, 9, 1, 1, 5, 5, 2], [10, 1, 10], [1]])
def test_packing(data_job, sizes):
    """Packing joins rows in order, greedily, whole, up to max_length; each row's first token stays without loss."""
    rows = [{"text": "x" * size} for size in sizes]
    loose = make(data_job, rows, format="text", add_eos=False, max_length=11, name="loose.jsonl")
    joined = make(data_job, rows, format="text", add_eos=False, max_length=11, pack=True)
    bins = [[]]
    for row in loose.ids:
        if len(bins[-1]) + len(row) > 11:
            bins.append([])
        bins[-1] = bins[-1] + row
    assert joined.ids == bins
    assert list(chain(*joined.labels)) == list(chain(*loose.labels))
    assert (joined.manifest["rows_in"], joined.manifest["rows"]) == (len(sizes), len(bins))


def test_order_by_seed(data_job):
    """Epoch E is the rows shuffled by Random("seed:E"), less the remainder; epochs follow one another until the steps are done."""

    def epoch(seed, number):
        rows = list(range(10))
        random.Random(f"{seed}:{number}").shuffle(rows)
        return rows[:9]

    data = make(data_job, ROWS, batch=3, seed=7, epochs=2)
    assert data.order == epoch(7, 0) + epoch(7, 1)
    assert [data.manifest[key] for key in ("steps", "epochs", "batch", "left_out_per_epoch")] == [6, 2.0, 3, 1]
    data = make(data_job, ROWS, batch=3, seed=8, epochs=None, steps=4)
    assert data.order == epoch(8, 0) + epoch(8, 1)[:3]
    assert (data.manifest["steps"], data.manifest["epochs"]) == (4, 4 / 3)
    assert make(data_job, ROWS, batch=4, epochs=2, shuffle=False).order == [0, 1, 2, 3, 4, 5, 6, 7] * 2


def sources(job, *sizes_and_weights):
    """Sources of texts a0, a1, ... b0, ..., a letter each, with their weights."""
    wishes = []
    for letter, (size, weight) in zip("abcd", sizes_and_weights, strict=False):
        rows = [{"text": f"{letter}{n}"} for n in range(size)]
        wishes.append(job.write(f"{letter}.jsonl", rows) | ({} if weight is None else {"weight": weight}))
    return wishes


def epochs_of(job, wishes, count, **changes):
    """The texts of each epoch, in order."""
    spec = job.spec | {"train": wishes, "format": "text", "epochs": count, "add_eos": False} | changes
    job.run("tune_data", spec)
    data = job.data()
    texts = [decoded(data.ids[row]) for row in data.order]
    size = len(texts) // count
    return [texts[at : at + size] for at in range(0, len(texts), size)]


def test_several_sources(data_job):
    """Sources follow one another in file order, or are shuffled as one; the manifest names each with its rows."""
    wishes = sources(data_job, (3, None), (2, 1))
    assert epochs_of(data_job, wishes, 1, shuffle=False) == [["a0", "a1", "a2", "b0", "b1"]]
    shuffled = list(range(5))
    random.Random("0:0").shuffle(shuffled)
    epochs_of(data_job, wishes, 1)
    assert data_job.data().order == shuffled
    assert data_job.data().manifest["sources"] == [
        {"name": "a.jsonl", "rows": 3, "weight": 1.0},
        {"name": "b.jsonl", "rows": 2, "weight": 1},
    ]


def test_weights(data_job):
    """A weight says how often each row of a source comes in an epoch; a part of the rows is drawn anew for each."""
    wishes = sources(data_job, (2, 2.0), (9, 1 / 3), (4, 1.5))
    epochs = epochs_of(data_job, wishes, 8, seed=5, shuffle=False)
    for epoch in epochs:
        assert epoch[:4] == ["a0", "a1"] * 2
        assert len(set(epoch[4:7])) == 3
        assert epoch[4:7] == sorted(epoch[4:7])
        assert {text[0] for text in epoch[4:7]} == {"b"}
        assert epoch[7:11] == ["c0", "c1", "c2", "c3"]
        assert len(set(epoch[11:])) == 2
    assert len({tuple(epoch[4:7]) for epoch in epochs}) > 1
    assert [sorted(epoch) for epoch in epochs_of(data_job, wishes, 8, seed=5)] == [sorted(epoch) for epoch in epochs]
    assert epochs_of(data_job, wishes, 8, seed=6, shuffle=False) != epochs
    manifest = data_job.data().manifest
    assert (manifest["steps"], manifest["epochs"], manifest["rows"], manifest["left_out_per_epoch"]) == (8 * 13, 8.0, 15, 0)


def trained(data):
    """Ids and labels in the order in which they are trained."""
    return [(data.ids[row], data.labels[row]) for row in data.order]


@pytest.mark.parametrize("weights", [(1.0, 1.0), (0.25, 2.0)])
def test_few_steps_of_many_rows_read_few(data_job, weights):
    """A run of 3 steps over 30,000 rows reads those that it trains and the first 2,000 of each file, and trains the very rows, in the
    very order, of a run that has read all.
    """
    rows = [[{"instruction": f"{name} {n}", "output": f"{n}"} for n in range(15_000)] for name in "ab"]
    rows[0][14_999] = {"instruction": "a row that no step trains"}
    train = [
        data_job.write(f"{n}.jsonl", some) | {"weight": weight}
        for n, (some, weight) in enumerate(zip(rows, weights, strict=True))
    ]
    spec = data_job.spec | {"train": train, "template": "plain", "batch": 4, "steps": 3, "epochs": None, "seed": 3}
    said = data_job.run("tune_data", spec)
    few = data_job.data()
    assert 4000 < len(few.ids) <= 4012
    assert f"of 30,000 rows are trained in 3 steps; {len(few.ids):,} were read and checked" in said
    assert (few.manifest["steps"], few.manifest["rows_in"]) == (3, len(few.ids))
    rows[0][14_999] |= {"output": "x"}
    data_job.write("0.jsonl", rows[0])
    data_job.run("tune_data", spec | {"drop_empty": True})  # which rows there are then follows from what is in them
    whole = data_job.data()
    assert len(whole.ids) == 30_000
    assert trained(few) == trained(whole)
    for name in ("tokens_per_step", "loss_tokens_per_step", "epochs", "left_out_per_epoch"):
        assert few.manifest[name] == whole.manifest[name], name
    rows[0][1_999] = {"instruction": "one that is looked at"}
    data_job.write("0.jsonl", rows[0])
    assert "0.jsonl:2000: has no column 'output'" in data_job.refused("tune_data", spec)[1]


def test_rows_held_out(data_job):
    """A share of each source's rows is drawn by the seed for evaluation; the others are trained in their order, and each row is in one of
    both sets. Few steps of many rows read few of both.
    """
    rows = [[{"instruction": f"{name} {n}", "output": f"{n}"} for n in range(count)] for name, count in (("a", 40), ("b", 21))]
    train = [data_job.write(f"{n}.jsonl", some) for n, some in enumerate(rows)]
    spec = data_job.spec | {"train": train, "template": "plain", "eval_share": 0.25, "seed": 5, "shuffle": False}
    data_job.run("tune_data", spec)
    one, held = data_job.data(), data_job.data("eval")
    assert [data_job.data().manifest[key] for key in ("rows", "steps")] == [46, 46]
    assert one.manifest["eval"]["rows"] == len(held.ids) == 10 + 5
    data_job.run("tune_data", spec | {"eval_share": None})
    every = data_job.data().ids
    assert sorted(one.ids + held.ids) == sorted(every)
    assert [row for row in every if row not in held.ids] == [one.ids[n] for n in one.order]
    data_job.run("tune_data", spec | {"seed": 6})
    assert data_job.data("eval").ids != held.ids
    many = data_job.write("many.jsonl", [{"instruction": f"c {n}", "output": f"{n}"} for n in range(40_000)])
    spec |= {"train": many, "steps": 2, "epochs": None, "batch": 8, "shuffle": True, "eval_share": 0.001}
    data_job.run("tune_data", spec)
    few, some = data_job.data(), data_job.data("eval").ids
    assert (len(some), len(few.ids) < 2100) == (40, True)
    data_job.run("tune_data", spec | {"drop_empty": True})
    assert trained(few) == trained(data_job.data())
    assert data_job.data("eval").ids == some
    assert not any(row in some for row, _ in trained(few))
    assert "held out" in data_job.refused("tune_data", spec | {"train": data_job.write("1.jsonl", rows[0][:1])})[1]


def test_processes_make_the_same_data(data_job):
    """Rows that several processes render are the rows that one renders, to the byte, and bad ones are told in order."""
    rows = [{"instruction": f"say {n}", "output": "x" * (n % 50), "topic": 1} for n in range(3000)]
    spec = data_job.spec | {"train": data_job.write("t.jsonl", rows), "template": "plain", "max_length": 48}
    made = []
    for threads in ("1", "3"):
        data_job.run("tune_data", spec | {"drop_empty": True, "seed": 1}, OMP_NUM_THREADS=threads)
        made.append((data_job.data().manifest, data_job.data().ids, data_job.data().labels))
        shutil.rmtree(data_job.folder / "cache" / "data")
    assert made[0] == made[1]
    for number in (2999, 1700, 10):
        del rows[number]["output"]
    data_job.write("t.jsonl", rows)
    told = data_job.refused("tune_data", spec, OMP_NUM_THREADS="3")[1]
    assert [line.partition(": ")[0] for line in told.splitlines()] == ["t.jsonl:11", "t.jsonl:1701", "t.jsonl:3000"]


def test_packing_keeps_sources_apart(data_job):
    """No packed row holds rows of two sources, so that a weight has a meaning."""
    wishes = sources(data_job, (3, 1.0), (3, 2.0))
    assert epochs_of(data_job, wishes, 1, shuffle=False, pack=True) == [["a0a1a2", "b0b1b2", "b0b1b2"]]
    assert [part["rows"] for part in data_job.data().manifest["sources"]] == [1, 1]


@pytest.mark.parametrize(
    ("change", "reason", "says"),
    [
        ({"weight": 0}, "bad_spec", "train: weight should be a number above 0 and at most 1000, got 0"),
        ({"weight": "2"}, "bad_spec", "got '2'"),
        ({"weight": float("nan")}, "bad_spec", "got nan"),
        ({"weight": 0.01}, "no_data", "a.jsonl: none of its 3 rows comes in an epoch at weight 0.01: raise it"),
        ({"path": "none.jsonl"}, "no_data", "none.jsonl: no such file"),
        ({"path": ""}, "bad_spec", 'should be {"path": FILE} or {"hub": NAME}'),
    ],
)
def test_sources_that_do_not_serve(data_job, change, reason, says):
    """A weight that is none, one that leaves nothing of a source, and a source that is not there are refused."""
    first, second = sources(data_job, (3, None), (3, None))
    found = data_job.refused("tune_data", data_job.spec | {"format": "text", "train": [first | change, second]})
    assert found[0] == reason
    assert says in found[1]


def test_a_weight_makes_other_data(data_job):
    """The same rows at another weight, or parted otherwise, are not taken from the cache."""
    one, two = sources(data_job, (2, None), (2, None))
    places = set()
    for wishes in ([one, two], [one, two | {"weight": 3}], [two, one], [one]):
        epochs_of(data_job, wishes, 1)
        places.add((data_job.folder / "data").readlink())
    assert len(places) == 4


def test_loss_roles(data_job):
    """With loss_roles the turns of those roles carry loss, in ids as in text."""
    messages = [{"role": role, "content": text} for role, text in (("system", "s"), ("user", "q"), ("assistant", "a"))]
    data = make(data_job, [{"messages": messages}], format="chat", loss_roles=["system", "user"])
    assert answers(data) == ["s\nq\n"]
    spec = data_job.spec | {
        "format": "chat",
        "loss_roles": ["tool"],
        "train": data_job.write("u.jsonl", [{"messages": messages}]),
    }
    assert data_job.refused("tune_data", spec)[0] == "no_loss_tokens"


def test_completion_tokens(data_job):
    """Prompt and completion are one text between BOS and EOS; the completion and EOS carry loss."""
    data = make(data_job, [{"prompt": "a ", "completion": "b"}], format="completion")
    assert data.ids == [[BOS, *b"a b", EOS]]
    assert data.labels == [[-100, -100, -100, *b"b", EOS]]
    spec = data_job.spec | {"format": "completion", "system": "S", "train": {"path": "train.jsonl"}}
    assert "system: plain text has no system prompt" in data_job.refused("tune_data", spec)[1]


def test_manifest_counts(data_job):
    """The manifest's figures are those of the arrays, step by step, and its hash is theirs."""
    rows = [{"text": "x" * n} for n in (1, 5, 2, 8, 3)]
    data = make(data_job, rows, format="text", batch=2, epochs=3, eval=data_job.write("e.jsonl", rows[:2]))
    steps = [data.order[at : at + 2] for at in range(0, len(data.order), 2)]
    manifest = data.manifest
    assert manifest["tokens_per_step"] == [sum(len(data.ids[row]) for row in step) for step in steps]
    assert manifest["loss_tokens_per_step"] == [sum(len(data.ids[row]) - 1 for row in step) for step in steps]
    assert (manifest["tokens"], manifest["loss_tokens"]) == (19 + 10, 19 + 5)
    assert manifest["pad_id"] == PAD
    assert manifest["eval"] == {
        "rows": 2,
        "rows_in": 2,
        "tokens": 10,
        "loss_tokens": 8,
        "truncated": 0,
        "lost_end": 0,
        "dropped_empty": 0,
        "empty_answers": 0,
        "equal_answers": 0,
        "without_stop": 0,
        "template_text": 0,
        "unread": {},
        "notes": [],
        "longest": 7,
    }
    assert data_job.data("eval").ids == data.ids[:2]
    ids, labels = array("i", chain(*data.ids)), array("i", chain(*data.labels))
    assert manifest["sha256"] == hashlib.sha256(array("q", data.order).tobytes() + ids.tobytes() + labels.tobytes()).hexdigest()


def test_report(data_job):
    """The report names rows, tokens and steps, and shows one row with its loss marked; control characters are not obeyed."""
    source = data_job.write("t.jsonl", [{"instruction": "a\x1b[2J", "output": "b ☃"}, {"instruction": "c", "output": "d"}])
    said = data_job.run("tune_data", data_job.spec | {"train": source, "template": "plain", "system": "s\tt"})
    assert said.splitlines() == [
        "train: 2 rows of 2, 28 tokens, 8 with loss, 0 rows truncated at 4,096, 0 dropped without loss, longest 18",
        "steps: 2, each of 1 rows; epochs: 1; rows left out of each epoch: 0",
        "one row, loss between ⟦ ⟧: t.jsonl:1",
        "<s>s\\tt",
        "",
        "a\\x1b[2J",
        "⟦b ☃</s>⟧",
    ]


def test_report_of_several_sources(data_job):
    """The report tells each source's rows and weight."""
    spec = data_job.spec | {"train": sources(data_job, (2, None), (3, 0.5)), "format": "text"}
    assert data_job.run("tune_data", spec).splitlines()[:4] == [
        "train: 5 rows of 5, 20 tokens, 15 with loss, 0 rows truncated at 4,096, 0 dropped without loss, longest 4",
        "  a.jsonl: 2 of them, 1 times an epoch",
        "  b.jsonl: 3 of them, 0.5 times an epoch",
        "steps: 4, each of 1 rows; epochs: 1; rows left out of each epoch: 0",
    ]


@pytest.mark.parametrize(
    ("name", "form", "rows"),
    [
        ("quickstart", "instruct", 1145),
        ("chat", "chat", 48),
        ("text", "text", 64),
        ("preference", "preference", 64),
        ("preference-chat", "preference", 32),
        ("rated", "rated", 48),
        ("prompts", "prompts", 64),
    ],
)
def test_shipped_data(data_job, name, form, rows):
    """Every shipped data set is read whole by its format, nothing cut, no row twice."""
    lines = (SHIPPED / f"{name}.jsonl").read_text().splitlines()
    assert len(set(lines)) == len(lines) == rows
    (data_job.folder / "rows.jsonl").symlink_to(SHIPPED / f"{name}.jsonl")
    data_job.run("tune_data", data_job.spec | {"train": {"path": "rows.jsonl"}, "format": form, "max_length": 512})
    manifest = json.loads((data_job.folder / "data/manifest.json").read_text())
    assert (manifest["rows"], manifest["truncated"]) == (rows, 0)


def test_ready_data_cost_nothing(data_job, light):
    """Data that are ready are found without any heavy library, with the same report, and anything that changes makes others."""
    spec = data_job.spec | {"train": data_job.write("t.jsonl", ROWS)}
    said = data_job.run("tune_data", spec)
    first = (data_job.folder / "data").readlink()
    assert data_job.run("tune_data", spec, **light) == said
    assert (data_job.folder / "data").readlink() == first
    made = {str(first)}
    for changed in ({"seed": 1}, {"train": data_job.write("t.jsonl", ROWS[1:])}, {"max_length": 999}):
        data_job.run("tune_data", spec | changed)
        made.add(str((data_job.folder / "data").readlink()))
    with (data_job.folder / spec["tokenizer"] / "tokenizer_config.json").open("a") as file:
        file.write("\n")
    data_job.run("tune_data", spec)
    made.add(str((data_job.folder / "data").readlink()))
    assert len(made) == 5


def test_eight_at_once_make_one(data_job, tmp_path):
    """Of eight that start at once one renders, and all find the data whole."""
    (tmp_path / "spy").mkdir()
    (tmp_path / "spy/sitecustomize.py").write_text(
        "import atexit, os, sys\n"
        f"atexit.register(lambda: open({str(tmp_path)!r} + f'/spy/{{os.getpid()}}', 'w').write(str('tokenizers' in sys.modules)))\n"
    )
    spec = data_job.spec | {"train": data_job.write("t.jsonl", ROWS)}
    started = [data_job.start("tune_data", spec, PYTHONPATH=str(tmp_path / "spy")) for _ in range(8)]
    said = {process.communicate() for process in started}
    assert [process.returncode for process in started] == [0] * 8, said
    assert len(said) == 1
    assert sorted((tmp_path / f"spy/{process.pid}").read_text() for process in started) == ["False"] * 7 + ["True"]
    assert answers(data_job.data()) == [row["output"] for row in ROWS]


def test_half_made_data_are_not_taken(data_job):
    """What a killed run left, aside or in place but never ready, is made anew."""
    spec = data_job.spec | {"train": data_job.write("t.jsonl", ROWS)}
    data_job.run("tune_data", spec)
    place = data_job.folder / (data_job.folder / "data").readlink()
    (place / ".ready").unlink()
    (place / "train.ids.npy").write_bytes(b"half")
    (place.parent / f".{place.name}.part").mkdir()
    (place.parent / f".{place.name}.part" / "train.ids.npy").write_bytes(b"half")
    data_job.run("tune_data", spec)
    assert answers(data_job.data()) == [row["output"] for row in ROWS]


def test_preview(data_job):
    """A preview shows the first rows token by token, texts in full, and writes nothing at all."""
    spec = data_job.spec | {"train": data_job.write("t.jsonl", ROWS), "template": "plain"}
    (data_job.folder / "data.json").write_text(json.dumps(spec))
    before = {path: path.stat().st_mtime_ns for path in data_job.folder.rglob("*") if "__pycache__" not in str(path)}
    shown = json.loads(data_job.run("tune_data", spec, "--preview", 2))
    after = {path: path.stat().st_mtime_ns for path in data_job.folder.rglob("*") if "__pycache__" not in str(path)}
    assert before.keys() == after.keys()
    assert [one["row"] for one in shown] == [1, 2]
    assert "".join(text for text, _, _ in shown[1]["tokens"]) == "<s>Say 1\nnumber 1 ☃</s>"
    assert "".join(text for text, _, loss in shown[1]["tokens"] if loss) == "number 1 ☃</s>"
    assert [token[1] for token in shown[0]["tokens"]] == [BOS, *"Say 0\nnumber 0 ☃".encode(), EOS]


@pytest.mark.parametrize(
    ("rows", "changes", "reason", "says"),
    [
        (ROWS, {"batch": 11}, "no_steps", "10 rows do not fill one batch of 11: set train.batch.global to at most 10"),
        (ROWS, {"pack": True, "batch": 2}, "no_steps", "1 packed rows do not fill"),
        ([], {}, "bad_data", "t.jsonl: no rows"),
        ([{"instruction": "a"}, {"output": "b"}], {}, "bad_data", "t.jsonl:2: has no column 'instruction'"),
        (ROWS, {"train": {"path": "none.jsonl"}}, "no_data", "none.jsonl: no such file"),
        (ROWS, {"train": {"path": "data.csv"}}, "no_data", "data.csv: no such file"),
        (ROWS, {"train": {"path": "tune_data.py"}}, "bad_data", "should end in one of .jsonl, .json, .parquet, .txt"),
        (ROWS, {"train": {"hub": "org/rows"}}, "no_data", "org/rows: not on the hub"),
        (ROWS, {"tokenizer": "nowhere"}, "bad_model", "nowhere/tokenizer.json"),
        (
            [{"text": "x" * 5000}],
            {"format": "text", "max_length": 9999},
            "too_long",
            "5002 tokens, but the model holds 4096 positions",
        ),
        (ROWS, {"colour": 1, "batch": 0, "format": "x", "steps": 2}, "bad_spec", "data.json: colour: unknown key"),
        (ROWS, {"train": None}, "bad_spec", "train: is missing"),
        (ROWS, {"train": {"file": 1}}, "bad_spec", 'train: should be {"path": FILE} or {"hub": NAME}'),
        (ROWS, {"template": "no words"}, "bad_spec", "template: should be alpaca, plain, chat or a text with {instruction}"),
    ],
)
def test_refusals(data_job, rows, changes, reason, says):
    """Each thing that can be wrong has its word, and says what to do."""
    found = data_job.refused("tune_data", data_job.spec | {"train": data_job.write("t.jsonl", rows)} | changes)
    assert found[0] == reason
    assert says in found[1]
    assert not (data_job.folder / "data").exists()


@pytest.mark.parametrize(
    ("template", "reason", "says"),
    [
        (None, "no_template", "has no chat template"),
        ("{% for", "no_template", "line 1 of the chat template"),
        ("{{ raise_exception('only in pairs') }}", "bad_data", "t.jsonl:1: the chat template refuses the row: only in pairs"),
        ("{{ messages[0].__class__.__mro__[1].__subclasses__() }}", "bad_data", "t.jsonl:1: the chat template refuses the row"),
        ("{{ messages[-1].content }}", "bad_data", "t.jsonl:1: message 2: the chat template writes this turn otherwise"),
    ],
)
def test_chat_templates_that_do_not_serve(data_job, template, reason, says):
    """A template that is missing, broken, unwilling, curious or unsteady is refused, naming the row where there is one."""
    path = data_job.folder / data_job.spec["tokenizer"] / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"chat_template": template}))
    rows = [{"messages": [{"role": role, "content": role} for role in ("user", "assistant")]}]
    found = data_job.refused("tune_data", data_job.spec | {"format": "chat", "train": data_job.write("t.jsonl", rows)})
    assert found[0] == reason
    assert says in found[1]


def test_chat_template_sources(data_job):
    """chat_template.jinja goes before the configuration's, a list gives its `default`; what transformers offers is there."""
    folder = data_job.folder / data_job.spec["tokenizer"]
    config = json.loads((folder / "tokenizer_config.json").read_text())
    rows = [{"messages": [{"role": "user", "content": "q<"}, {"role": "assistant", "content": "a"}]}]
    loop = (
        "{% for m in messages %}%s{% if m.role == 'user' %}{{ m.content | tojson }}{% continue %}{% endif %}"
        "{% generation %}{{ m.content }}{{ eos_token }}{% endgeneration %}\n{% endfor %}"
    )
    named = [
        {"name": "tool_use", "template": "x"},
        {"name": "default", "template": loop.replace("%s", "{{ strftime_now('%Y') }}")},
    ]
    (folder / "tokenizer_config.json").write_text(json.dumps(config | {"chat_template": named, "eos_token": {"content": "</s>"}}))
    data = make(data_job, rows, format="chat", name="a.jsonl")
    assert data.ids == [[*b'2024"q<"2024a', EOS]]
    (folder / "chat_template.jinja").write_text(loop.replace("%s", "-"))
    data = make(data_job, rows, format="chat", name="b.jsonl")
    assert data.ids == [[*b'-"q<"-a', EOS]]
    assert data.labels == [[*[-100] * 6, *b"a", EOS]]  # what the template marks as generated


def test_a_tokenizer_that_does_not_fit_the_model(data_job):
    """An id beyond the model's vocabulary is refused here, where a trainer would crash on the device."""
    path = data_job.folder / data_job.spec["tokenizer"] / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"vocab_size": 257}))
    found = data_job.refused("tune_data", data_job.spec | {"train": data_job.write("t.jsonl", ROWS)})
    assert found[0] == "bad_model"
    assert "id 257, but the model's vocab_size is 257" in found[1]


def test_eos_must_have_a_name(data_job):
    """Without any EOS the job stops, unless the recipe wants none; generation_config.json may name it, or be no JSON."""
    folder = data_job.folder / data_job.spec["tokenizer"]
    for name in ("tokenizer_config.json", "config.json", "generation_config.json"):
        content = json.loads((folder / name).read_text())
        (folder / name).write_text(json.dumps({key: value for key, value in content.items() if not key.startswith("eos")}))
    spec = data_job.spec | {"train": data_job.write("t.jsonl", [{"text": "a"}]), "format": "text"}
    assert data_job.refused("tune_data", spec)[0] == "bad_model"
    data_job.run("tune_data", spec | {"add_eos": False})
    (folder / "generation_config.json").write_text('{"eos_token_id": 1,}')
    assert data_job.refused("tune_data", spec)[0] == "bad_model"
    (folder / "generation_config.json").write_text('{"eos_token_id": [260, 257]}')
    data_job.run("tune_data", spec)
    assert data_job.data().ids == [[BOS, *b"a", END]]


def test_parquet_needs_pyarrow(data_job, light, tmp_path):
    """Where pyarrow is missing, parquet is refused with the way out."""
    (tmp_path / "light/pyarrow.py").write_text("raise ImportError\n")
    for name in (tmp_path / "light").iterdir():
        if name.stem != "pyarrow":
            name.unlink()
    (data_job.folder / "t.parquet").write_bytes(b"PAR1")
    found = data_job.refused("tune_data", data_job.spec | {"train": {"path": "t.parquet"}}, **light)
    assert found[0] == "bad_data"
    assert "needs pyarrow" in found[1]


def test_hub_data(data_job, hub):
    """A split of a hub data set is downloaded once, its files in order, and read like any others; then without network."""

    def lines(*numbers):
        return "".join(json.dumps(ROWS[n]) + "\n" for n in numbers).encode()

    hub.repositories["org/rows"] = {
        "README.md": b"",
        "data/train-1.jsonl": lines(2),
        "data/train-0.jsonl": lines(0, 1),
        "data/test-0.jsonl": lines(3),
    }
    spec = data_job.spec | {
        "train": {"hub": "org/rows", "split": "train", "revision": None},
        "eval": {"hub": "org/rows", "split": "test"},
    }
    data_job.run("tune_data", spec, **hub.env)
    assert answers(data_job.data()) == [ROWS[n]["output"] for n in (0, 1, 2)]
    assert answers(data_job.data("eval")) == [ROWS[3]["output"]]
    assert not any("README" in path for path in hub.asked)
    data_job.run("tune_data", spec | {"seed": 5})


def test_hub_data_that_cannot_be_had(data_job, hub):
    """Unknown, gated and ambiguous data sets each say what to do."""
    hub.repositories |= {
        "org/gated": {"train.jsonl": b"{}"},
        "org/many": {"en/train.jsonl": b"", "fr/train.jsonl": b""},
        "org/odd": {"a.csv": b""},
    }
    for name, reason, says in (
        ("unknown", "no_data", "not on the hub"),
        ("gated", "gated_data", "datasets/org/gated"),
        ("many", "no_data", "lies in several folders: en/train.jsonl, fr/train.jsonl"),
        ("odd", "no_data", "is in no .jsonl, .json or .parquet file"),
    ):
        found = data_job.refused("tune_data", data_job.spec | {"train": {"hub": f"org/{name}"}}, **hub.env)
        assert found[0] == reason
        assert says in found[1]


def test_usage(data_job):
    """Wrong words are a usage line and exit code 2."""
    for words in (("--preview",), ("--preview", "x"), ("more",)):
        process = data_job.start("tune_data", data_job.spec, *words)
        assert process.communicate() == ("", "usage: tune_data.py data.json [--preview ROWS]\n")
        assert process.returncode == 2


def test_arrays_are_plain_npy(data_job):
    """The files are NumPy's format, int32 and int64, as the trainers' sides map them."""
    make(data_job, ROWS)
    for name, kind in (("ids", "<i4"), ("labels", "<i4"), ("starts", "<i8"), ("order", "<i8")):
        raw = (data_job.folder / f"data/train.{name}.npy").read_bytes()
        assert raw[:8] == b"\x93NUMPY\x01\x00"
        assert f"'descr': '{kind}'".encode() in raw[10 : 10 + struct.unpack("<H", raw[8:10])[0]]


def test_memory_does_not_grow_with_the_rows(data_job):
    """Ten times as many rows, whose ids and labels are 88 MB more, take at most 25 MB more of memory."""

    def peak(count):
        source = data_job.write(f"{count}.jsonl", [{"text": f"{n} {'word ' * 800}"} for n in range(count)])
        process = data_job.start("tune_data", data_job.spec | {"train": source, "format": "text"})
        _, status, used = os.wait4(process.pid, 0)
        process.communicate()
        assert status == 0
        return used.ru_maxrss / 1024

    few, many = peak(300), peak(3000)
    assert many - few < 25, (few, many)
