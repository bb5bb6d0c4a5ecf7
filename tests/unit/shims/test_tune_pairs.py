"""tune_pairs.py: pairs, rated answers and prompts, as text and as tokens."""

import json
from types import SimpleNamespace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tune_files import BadRow
from tune_pairs import render

BOS, EOS, PAD, START, END = range(256, 261)
PAIRS = [{"prompt": f"Say {n}.", "chosen": f" {n} ☃", "rejected": " no"} for n in range(5)]
SPEC = {"format": "preference", "template": "plain", "columns": {}, "system": None, "ignore": []}
USER, GOOD, BAD = ({"role": role, "content": text} for role, text in (("user", "q"), ("assistant", "good"), ("assistant", "bad")))


def chat(messages, add_generation_prompt=False):
    """A chat template written in Python."""
    return "".join(f"<{m['role']}>{m['content']}#" for m in messages) + "<assistant>" * add_generation_prompt


def asked(row, **changes):
    """(prompt, answers) of a row as text."""
    made = render(row, SimpleNamespace(**SPEC | changes), chat)
    return made.prompt, list(made.answers.values())


def lines(job, rows, name="t.jsonl", **changes):
    """What the data step makes of rows, and its manifest."""
    kind = {"preference": "pairs", "rated": "rated", "prompts": "prompts"}[changes.setdefault("format", "preference")]
    job.run("tune_data", job.spec | {"train": job.write(name, rows)} | changes)
    room = job.folder / "data"
    made = [json.loads(line) for line in (room / f"train.{kind}.jsonl").read_text().splitlines()]
    return made, json.loads((room / "manifest.json").read_text())


# As text


def test_texts_stand_as_they_are():
    """Texts are taken as they are, and a system text stands before the prompt with a blank line between."""
    row = {"prompt": "Q: {x} ", "chosen": "a", "rejected": ""}
    assert asked(row) == ("Q: {x} ", ["a", ""])
    assert asked(row, system="S") == ("S\n\nQ: {x} ", ["a", ""])


ANSWERED = ("<system>S#<user>q#<assistant>", ["good#", "bad#"])


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": [USER], "chosen": [GOOD], "rejected": [BAD]},
        {"prompt": [USER], "chosen": GOOD, "rejected": "bad"},
        {"prompt": "q", "chosen": GOOD, "rejected": [BAD]},
        {"chosen": [USER, GOOD], "rejected": [USER, BAD]},
        {"prompt": "not read", "chosen": [USER, GOOD], "rejected": [USER, BAD]},
        {"prompt": [USER], "chosen": {"from": "gpt", "value": "good"}, "rejected": {"from": "gpt", "value": "bad"}},
        {"chosen": [{"from": "human", "value": "q"}, GOOD], "rejected": [{**USER, "id": 7}, BAD]},
    ],
    ids=["lists", "mixed", "prompt text", "whole", "whole and prompt", "sharegpt", "other keys"],
)
def test_messages_in_any_form_are_the_same_chat(row):
    """Messages, lists of them, whole conversations, texts beside messages: all go through the chat template alike."""
    assert asked(row, system="S") == ANSWERED


def test_texts_through_the_chat_template():
    """With template chat a prompt is the user's turn and an answer the assistant's."""
    assert asked({"prompt": "q", "chosen": "good", "rejected": "bad"}, template="chat", system="S") == ANSWERED


def test_a_prompt_of_several_turns():
    """What whole conversations have in common is the prompt, however long; equal answers are answers still."""
    before = [{"role": "system", "content": "own"}, USER, GOOD, {"role": "user", "content": "r"}]
    said = "<system>own#<user>q#<assistant>good#<user>r#<assistant>"
    assert asked({"chosen": [*before, GOOD], "rejected": [*before, BAD]}, system="S") == (said, ["good#", "bad#"])
    assert asked({"chosen": [*before, GOOD], "rejected": [*before, GOOD]}) == (said, ["good#", "good#"])
    assert asked({"prompt": before, "completion": GOOD, "label": 1}, format="rated") == (said, ["good#"])
    assert asked({"completion": [*before, GOOD], "label": 1}, format="rated") == (said, ["good#"])
    assert asked({"prompt": before}, format="prompts") == (said, [])


def test_column_names():
    """The recipe's column names are looked up in the file's; a prompt's other columns come along, its own does not."""
    names = {"prompt": "q", "chosen": "a", "rejected": "b", "completion": "a", "label": "ok"}
    row = {"q": "Q", "a": "A", "b": "B", "ok": 0}
    assert asked(row, columns=names) == ("Q", ["A", "B"])
    rated, prompts = (
        render(row, SimpleNamespace(**SPEC | {"columns": names, "format": form}), chat) for form in ("rated", "prompts")
    )
    assert (rated.answers, rated.more) == ({"completion": "A"}, {"label": False})
    assert prompts.more == {"a": "A", "b": "B", "ok": 0}


@pytest.mark.parametrize(
    ("row", "form", "says"),
    [
        ({"chosen": "a", "rejected": "b"}, "preference", "has no column 'prompt', only 'chosen', 'rejected'"),
        ({"prompt": "p", "chosen": "a"}, "preference", "has no column 'rejected'"),
        ({"prompt": "p", "chosen": 1, "rejected": "b"}, "preference", "column 'chosen': should be text, got int"),
        ({"prompt": "", "chosen": "a", "rejected": "b"}, "preference", "the prompt is empty"),
        ({"prompt": "p", "chosen": [], "rejected": "b"}, "preference", "chosen: should be text or messages, got an empty list"),
        ({"prompt": "p", "chosen": ["a"], "rejected": "b"}, "preference", "chosen: message 1: should be an object, got 'a'"),
        ({"prompt": "p", "chosen": USER, "rejected": "b"}, "preference", "chosen: should end with a message of the assistant"),
        ({"prompt": [USER, GOOD], "chosen": "a", "rejected": "b"}, "preference", "prompt: should end with a message to answer"),
        (
            {"prompt": [GOOD], "chosen": "a", "rejected": "b"},
            "preference",
            "prompt: message 1: role should be system or user here",
        ),
        ({"prompt": "p", "chosen": [USER, GOOD], "rejected": BAD}, "preference", "should be whole conversations both"),
        (
            {"chosen": [USER, GOOD], "rejected": [USER, BAD, USER, BAD]},
            "preference",
            "rejected: only the last message should differ from the other answer, but message 2 does",
        ),
        ({"prompt": "p", "completion": "c"}, "rated", "has no column 'label'"),
        ({"prompt": "p", "completion": "c", "label": "yes"}, "rated", "label: should be true or false, got 'yes'"),
        ({"prompt": "p", "completion": "c", "label": None}, "rated", "label: should be true or false, got None"),
        ({"prompt": "p", "prompt_ids": [1]}, "prompts", "column 'prompt_ids': has a name that what is made of 'prompt' gets"),
        ({"prompt": "p", "when": b"x"}, "prompts", "a column beside 'prompt' holds what JSON cannot"),
        ({"prompt": "\ud800"}, "prompts", "surrogates not allowed"),
    ],
)
def test_bad_rows_say_what_is_wrong(row, form, says):
    """A row that cannot be rendered says which column or message breaks which rule."""
    with pytest.raises((BadRow, UnicodeError)) as caught:
        render(row, SimpleNamespace(**SPEC | {"format": form}), chat)
    assert says in str(caught.value)


def test_a_template_that_rewrites_the_prompt_is_refused():
    """Where the prompt reads otherwise once an answer follows, no tokens can be shared."""

    def forgetful(messages, add_generation_prompt=False):
        return chat(messages[-1:], add_generation_prompt)

    with pytest.raises(BadRow, match="message 1: the chat template does not write all of its content"):
        render({"prompt": "q", "chosen": GOOD, "rejected": BAD}, SimpleNamespace(**SPEC), forgetful)


# As tokens


def test_pair_tokens(data_job):
    """A pair has the prompt's ids once, opened by BOS, and each answer's, ended by EOS; texts stand beside them."""
    (made, *_), manifest = lines(data_job, PAIRS, shuffle=False)
    assert made == {
        "prompt": "Say 0.",
        "chosen": " 0 ☃",
        "rejected": " no",
        "prompt_ids": [BOS, *b"Say 0."],
        "chosen_ids": [*" 0 ☃".encode(), EOS],
        "rejected_ids": [*b" no", EOS],
    }
    assert [manifest[key] for key in ("longest", "longest_prompt", "longest_answer")] == [14, 7, 7]
    assert (manifest["tokens"], manifest["loss_tokens"]) == (5 * (14 + 11), 5 * (7 + 4))
    assert (manifest["tokens_per_step"], manifest["loss_tokens_per_step"]) == ([25] * 5, [11] * 5)
    assert (manifest["format"], manifest["rows"], manifest["steps"], manifest["pad_id"]) == ("preference", 5, 5, PAD)


def test_chat_pair_tokens(data_job):
    """Through the chat template a pair has the template's tokens and no others; an answer ends with its end of turn."""
    (made,), _ = lines(data_job, [{"prompt": [USER], "chosen": [GOOD], "rejected": [BAD]}])
    assert made["prompt_ids"] == [BOS, START, *b"user\nq", END, *b"\n", START, *b"assistant\n"]
    assert (made["chosen_ids"], made["rejected_ids"]) == ([*b"good", END, *b"\n"], [*b"bad", END, *b"\n"])


def test_rated_and_prompts(data_job):
    """Rated rows have a verdict, prompts the other columns of their rows; no prompt ends with EOS."""
    rows = [{"prompt": "p", "completion": "c", "label": 1}, {"prompt": "p", "completion": "d", "label": False}]
    made, manifest = lines(data_job, rows, format="rated")
    about = {"prompt": "p", "prompt_ids": [BOS, *b"p"]}
    assert made[0] == {**about, "completion": "c", "label": True, "completion_ids": [*b"c", EOS]}
    assert made[1] == {**about, "completion": "d", "label": False, "completion_ids": [*b"d", EOS]}
    made, manifest = lines(data_job, [{"prompt": "p", "answer": [4, None]}], format="prompts")
    assert made == [{**about, "answer": [4, None]}]
    assert [manifest[key] for key in ("tokens", "loss_tokens", "longest", "longest_prompt", "longest_answer")] == [2, 0, 2, 2, 0]


def test_tokens_that_straddle(data_job):
    """Prompt and answer are tokenized as one text; what differs from there on belongs to the answers, for both."""
    path = data_job.folder / data_job.spec["tokenizer"] / "tokenizer.json"
    raw = json.loads(path.read_text())
    vocab = raw["model"]["vocab"]
    vocab |= {token["content"]: token["id"] for token in raw["added_tokens"]} | {"ĊĊ": 261}
    raw["model"]["merges"] = ["Ċ Ċ"]
    path.write_text(json.dumps(raw))
    (made,), _ = lines(data_job, [{"prompt": "a\n", "chosen": "\nb", "rejected": "c"}])
    assert made["prompt_ids"] == [BOS, *b"a"]
    assert (made["chosen_ids"], made["rejected_ids"]) == ([261, *b"b", EOS], [*b"\nc", EOS])


TEXT = st.text(st.characters(codec="utf-8"), min_size=1, max_size=20).filter(
    lambda text: not any(special in text for special in ("<s>", "</s>", "<|"))
)


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(st.lists(st.tuples(TEXT, TEXT, TEXT), min_size=1, max_size=30), st.sampled_from(["plain", "chat"]))
def test_ids_are_those_of_the_text(data_job, triples, template):
    """For any pairs, decoding the ids of prompt and answers gives exactly the rendered texts."""
    rows = [dict(zip(("prompt", "chosen", "rejected"), triple, strict=True)) for triple in triples]
    special = {START: b"<|im_start|>", END: b"<|im_end|>"}
    for row, made in zip(rows, lines(data_job, rows, template=template)[0], strict=True):
        for part, end in (("prompt", ""), ("chosen", "\n"), ("rejected", "\n")):
            ids = [one for one in made[f"{part}_ids"] if one not in (BOS, EOS)]
            said = b"".join(special.get(one) or bytes([one]) for one in ids).decode()
            assert f"{'<s>' * (part == 'prompt' and template == 'chat')}{said}" == made[part]
            assert template == "chat" or made[part] == row[part]
            assert template == "plain" or part == "prompt" or made[part] == f"{row[part]}<|im_end|>{end}"


@pytest.mark.parametrize("answer", [">", "|>", "im_end", "<", "a>", "> >"])
def test_an_answer_that_stands_in_the_templates_mark(data_job, answer):
    """What is written behind an answer may hold the same letters: the answer ends where it ends, and is learned to."""
    (made,), _ = lines(data_job, [{"prompt": "p", "chosen": answer, "rejected": "c"}], template="chat")
    assert made["chosen"] == f"{answer}<|im_end|>\n"
    assert made["chosen_ids"][-2:] == [END, 10] or END in made["chosen_ids"]


def test_long_answers_are_cut(data_job):
    """An answer is cut at its end, in ids and text, EOS first; both answers keep the whole prompt; the row counts once."""
    rows = [{"prompt": "abc", "chosen": "1234", "rejected": "123456"}, {"prompt": "abc", "chosen": "123", "rejected": "1"}]
    made, manifest = lines(data_job, rows, max_length=8)
    assert [made[0][key] for key in ("prompt_ids", "chosen_ids", "rejected_ids")] == [[BOS, *b"abc"], [*b"1234"], [*b"1234"]]
    assert [made[0][key] for key in ("chosen", "rejected")] == ["1234", "1234"]
    assert made[1]["chosen_ids"] == [*b"123", EOS]
    assert (manifest["truncated"], manifest["longest"], manifest["longest_answer"]) == (1, 8, 4)


@pytest.mark.parametrize("form", ["preference", "rated", "prompts"])
def test_prompts_that_leave_no_room(data_job, form):
    """A prompt that fills max_length stops the job, by place; drop_empty leaves such rows out and counts them."""
    rows = [{"prompt": "a" * n, "chosen": "b", "rejected": "c", "completion": "d", "label": True} for n in (1, 7, 2, 6)]
    spec = data_job.spec | {"train": data_job.write("t.jsonl", rows), "format": form, "max_length": 8}
    reason, detail = data_job.refused("tune_data", spec)
    assert reason == "no_loss_tokens"
    assert "have no prompt, or no room for an answer within max_length, 8: t.jsonl:2: raise data.max_length" in detail
    made, manifest = lines(data_job, rows, format=form, max_length=8, drop_empty=True)
    assert [row["prompt"] for row in made] == ["a", "aa", "aaaaaa"]
    assert (manifest["rows_in"], manifest["rows"], manifest["dropped_empty"]) == (4, 3, 1)


def test_answers_without_a_token(data_job):
    """Without EOS an empty answer has no token to learn from: refused."""
    spec = data_job.spec | {"format": "preference", "add_eos": False}
    train = data_job.write("t.jsonl", [{"prompt": "p", "chosen": "a", "rejected": ""}])
    assert data_job.refused("tune_data", spec | {"train": train})[0] == "no_loss_tokens"


def test_order_and_eval(data_job):
    """Pairs have an order as other rows do; evaluation pairs have their file and figures, and no order."""
    evaluation = data_job.write("e.jsonl", PAIRS[:2])
    made, manifest = lines(data_job, PAIRS, batch=2, epochs=2, shuffle=False, eval=evaluation)
    assert data_job.order() == [0, 1, 2, 3] * 2
    assert (manifest["steps"], manifest["left_out_per_epoch"], manifest["eval"]["rows"]) == (4, 1, 2)
    room = data_job.folder / "data"
    assert [json.loads(line) for line in (room / "eval.pairs.jsonl").read_text().splitlines()] == made[:2]
    assert {path.name for path in room.iterdir()} == {
        ".ready",
        "train.pairs.jsonl",
        "train.order.npy",
        "eval.pairs.jsonl",
        "manifest.json",
        "report.txt",
    }


def test_the_hash_is_of_the_content(data_job):
    """Other answers or another order give another hash, the same ones the same."""
    first, again, other = (
        lines(data_job, rows, name)[1]
        for name, rows in zip(("a.jsonl", "b.jsonl", "c.jsonl"), (PAIRS, PAIRS, PAIRS[::-1]), strict=True)
    )
    assert first["sha256"] == again["sha256"] != other["sha256"]
    assert lines(data_job, PAIRS, seed=1)[1]["sha256"] != first["sha256"]


def test_report(data_job):
    """The report names pairs, longest prompt and answer, and shows both answers of one pair."""
    said = data_job.run("tune_data", data_job.spec | {"train": data_job.write("t.jsonl", PAIRS), "format": "preference"})
    assert said.splitlines() == [
        "train: 5 pairs of 5, 125 tokens, 55 with loss, 0 pairs truncated at 4,096, 0 dropped without loss, longest 14, "
        "longest prompt 7, longest answer 7",
        "steps: 5, each of 1 rows; epochs: 1; rows left out of each epoch: 0",
        "one row, loss between ⟦ ⟧: t.jsonl:1",
        "chosen: <s>Say 0.⟦ 0 ☃</s>⟧",
        "rejected: <s>Say 0.⟦ no</s>⟧",
    ]


def test_preview(data_job):
    """A preview shows prompt and answers token by token; a verdict comes along."""
    spec = data_job.spec | {"train": data_job.write("t.jsonl", PAIRS), "format": "preference"}
    first, second = json.loads(data_job.run("tune_data", spec, "--preview", 2))
    assert (first["row"], second["row"], list(first)) == (1, 2, ["row", "prompt", "chosen", "rejected"])
    assert first["prompt"] == [["<s>", BOS, False], *([letter, ord(letter), False] for letter in "Say 0.")]
    assert first["rejected"] == [*([letter, ord(letter), True] for letter in " no"), ["</s>", EOS, True]]
    rated = spec | {"train": data_job.write("r.jsonl", [{"prompt": "p", "completion": "c", "label": 0}]), "format": "rated"}
    (row,) = json.loads(data_job.run("tune_data", rated, "--preview", 1))
    assert (list(row), row["label"]) == (["row", "prompt", "completion", "label"], False)
    prompts = spec | {"train": data_job.write("p.jsonl", [{"prompt": "p", "row": 9}]), "format": "prompts"}
    assert json.loads(data_job.run("tune_data", prompts, "--preview", 1)) == [
        {"row": 1, "prompt": [["<s>", BOS, False], ["p", ord("p"), False]]}
    ]


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"pack": True}, "pack: should be false for format preference"),
        ({"train_on_prompt": True}, "train_on_prompt: should be false for format preference"),
        ({"template": "alpaca"}, "template: should be plain or chat for format preference, got 'alpaca'"),
        ({"loss_roles": ["human"]}, "loss_roles: should be a list of system, user, assistant, tool, got ['human']"),
        ({"format": "dpo"}, "format: should be one of instruct, completion, chat, text, preference, rated, prompts, got 'dpo'"),
    ],
)
def test_settings_that_mean_nothing_here(data_job, changes, says):
    """What has no meaning for pairs is refused, not left aside."""
    spec = data_job.spec | {"format": "preference", "train": data_job.write("t.jsonl", PAIRS)} | changes
    reason, detail = data_job.refused("tune_data", spec)
    assert (reason, detail) == ("bad_spec", f"data.json: {detail.removeprefix('data.json: ')}")
    assert says in detail


def test_chat_template_only_where_wanted(data_job):
    """Texts need no chat template, messages do; a model without EOS serves messages, and not texts."""
    folder = data_job.folder / data_job.spec["tokenizer"]
    config = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps(config | {"chat_template": None}))
    assert lines(data_job, PAIRS)[1]["rows"] == 5
    spec = data_job.spec | {"format": "preference"}
    messages = data_job.write("m.jsonl", [{"prompt": "p", "chosen": GOOD, "rejected": BAD}])
    assert data_job.refused("tune_data", spec | {"train": messages})[0] == "no_template"
    (folder / "tokenizer_config.json").write_text(json.dumps(config | {"eos_token": None}))
    for name in ("config.json", "generation_config.json"):
        (folder / name).unlink()
    data_job.run("tune_data", spec | {"train": messages})
    assert data_job.refused("tune_data", spec | {"train": data_job.write("t.jsonl", PAIRS)})[0] == "bad_model"
