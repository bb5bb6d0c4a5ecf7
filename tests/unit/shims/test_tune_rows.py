"""tune_rows.py: rows as text, and which parts of it carry loss."""

import json
from types import SimpleNamespace

import pytest
from tune_files import BadRow, File, Refused, found, split_files
from tune_reading import each
from tune_rows import render

SPEC = {
    "format": "instruct",
    "template": "alpaca",
    "columns": {},
    "system": None,
    "train_on_prompt": False,
    "loss_roles": ["assistant"],
    "ignore": [],
}


def spec(**changes):
    """The settings that rendering reads."""
    return SimpleNamespace(**SPEC | changes)


def chat(messages, add_generation_prompt=False):
    """A chat template written in Python."""
    return "".join(f"<{m['role']}>{m['content']}#" for m in messages) + "<assistant>" * add_generation_prompt


def learned(row, **changes):
    """(whole text, parts with loss) of a row."""
    text, spans, *_ = render(row, spec(**changes), chat)
    return text, [text[start:end] for start, end in spans]


def test_alpaca():
    """Alpaca rows read as Stanford published them, with and without input, and the output carries loss."""
    row = {"instruction": "Add.", "input": "1 2", "output": "3"}
    assert learned(row) == (
        "Below is an instruction that describes a task, paired with an input that provides further context. "
        "Write a response that appropriately completes the request.\n\n"
        "### Instruction:\nAdd.\n\n### Input:\n1 2\n\n### Response:\n3",
        ["3"],
    )
    assert learned({"instruction": "Add {given}.", "output": "3", "input": None}) == (
        "Below is an instruction that describes a task. Write a response that appropriately completes the request.\n\n"
        "### Instruction:\nAdd {given}.\n\n### Response:\n3",
        ["3"],
    )


def test_plain_and_system():
    """Plain prompts end with a newline; a system text stands before them with a blank line between."""
    assert learned({"instruction": "a", "input": "b", "output": "c"}, template="plain") == ("a\nb\nc", ["c"])
    assert learned({"instruction": "a", "output": "c"}, template="plain", system="S") == ("S\n\na\nc", ["c"])


def test_own_template_never_reads_the_row():
    """Our two words are replaced in the template only: braces in a row stay what they are."""
    row = {"instruction": "{input}{0.__class__}", "input": "{instruction}", "output": "o"}
    assert learned(row, template="Q {instruction} I {input} {x} A ") == ("Q {input}{0.__class__} I {instruction} {x} A o", ["o"])


def test_instruct_through_the_chat_template():
    """Instruct rows can go through the chat template, system turn included; the whole assistant turn carries loss."""
    row = {"instruction": "a", "input": "b", "output": "c"}
    assert learned(row, template="chat", system="S") == ("<system>S#<user>a\nb#<assistant>c#", ["c#"])


def test_chat_turns():
    """Every assistant turn carries loss from behind its header to its end; ShareGPT's words mean the same."""
    pairs = [("user", "a"), ("assistant", "b"), ("user", "c"), ("assistant", "d")]
    whole = "<system>S#<user>a#<assistant>b#<user>c#<assistant>d#", ["b#", "d#"]
    openai = {"messages": [{"role": role, "content": text} for role, text in pairs]}
    words = {"user": "human", "assistant": "gpt"}
    sharegpt = {"conversations": [{"from": words[role], "value": text} for role, text in pairs]}
    assert learned(openai, format="chat", system="S") == whole
    assert learned(sharegpt, format="chat", system="S", columns={"messages": "conversations"}) == whole
    openai["messages"].insert(0, {"role": "system", "content": "own"})
    assert learned(openai, format="chat", system="S")[0].startswith("<system>own#<user>")


def test_sharegpt_needs_no_column_name():
    """A row with `conversations` in the place of `messages` is read as it is; a named column decides."""
    row = {"conversations": [{"from": "system", "value": "S"}, {"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]}
    assert learned(row, format="chat") == ("<system>S#<user>a#<assistant>b#", ["b#"])
    with pytest.raises(BadRow, match="has no column 'turns', only 'conversations'"):
        learned(row, format="chat", columns={"messages": "turns"})


def test_a_chat_in_two_columns():
    """Messages in `prompt` and `completion` are one chat, of which the first part carries loss only where a message says so."""
    asked = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}, {"role": "user", "content": "c"}]
    row = {"prompt": asked, "completion": [{"role": "assistant", "content": "d"}]}
    assert learned(row, format="chat") == ("<user>a#<assistant>b#<user>c#<assistant>d#", ["d#"])
    asked[1]["train"] = True
    assert learned(row, format="chat")[1] == ["b#", "d#"]
    with pytest.raises(BadRow, match="has no column 'turns', only 'prompt', 'completion'"):
        learned(row, format="chat", columns={"messages": "turns"})


def test_roles_that_carry_loss():
    """The turns of the roles that are named carry loss, from their content on, header not; several roles in one chat."""
    texts = (("system", "S"), ("user", "user"), ("assistant", "b"), ("tool", ""), ("assistant", "\ue000"), ("user", "\ue000"))
    row = {"messages": [{"role": role, "content": text} for role, text in texts]}
    for roles, parts in (
        (["user"], ["user#", "\ue000#"]),
        (["system", "assistant"], ["S#", "b#", "\ue000#"]),
        (["tool"], ["#"]),
    ):
        assert learned(row, format="chat", loss_roles=roles)[1] == parts


def test_roles_where_the_template_trims():
    """Content that the template trims is found all the same."""

    def trimming(messages, add_generation_prompt=False):
        return chat([{**m, "content": m["content"].strip()} for m in messages], add_generation_prompt)

    row = {"messages": [{"role": "user", "content": "  a "}, {"role": "assistant", "content": "b"}]}
    text, spans, *_ = render(row, spec(format="chat", loss_roles=["user"]), trimming)
    assert [text[start:end] for start, end in spans] == ["a#"]


def test_completion():
    """Prompt and completion stand as they are, one after the other; the completion carries loss."""
    columns = {"prompt": "q"}
    assert learned({"q": "2 + 2 =", "completion": " 4"}, format="completion", columns=columns) == ("2 + 2 = 4", [" 4"])
    assert learned({"prompt": "a", "completion": "b"}, format="completion", train_on_prompt=True) == ("ab", ["ab"])


def test_everything_carries_loss_when_asked():
    """train_on_prompt lets the whole text carry loss, in every format."""
    row = {"instruction": "a", "output": "b", "messages": [{"role": "user", "content": "a"}], "text": "t"}
    for form, text in (("instruct", "a\nb"), ("chat", "<user>a#"), ("text", "t")):
        assert learned(row, format=form, template="plain", train_on_prompt=True) == (text, [text])


def test_column_names():
    """The recipe's column names are looked up in the file's."""
    columns = {"instruction": "q", "output": "a", "input": None}
    assert learned({"q": "Q", "a": "A", "output": "no"}, template="plain", columns=columns) == ("Q\nA", ["A"])


@pytest.mark.parametrize(
    ("row", "changes", "says"),
    [
        ({"instruction": "a"}, {}, "has no column 'output', only 'instruction'"),
        ({"instruction": 5, "output": "b"}, {}, "column 'instruction': should be text, got int"),
        ({"instruction": "a", "input": [], "output": "b"}, {}, "column 'input': should be text, got list"),
        ({"instruction": "a", "output": None}, {}, "column 'output': should be text, got NoneType"),
        ({"messages": "hi"}, {"format": "chat"}, "column 'messages': should be a list of messages, or JSON of one, got 'hi'"),
        ({"messages": []}, {"format": "chat"}, "should be a list of messages"),
        ({"messages": ["hi"]}, {"format": "chat"}, "message 1: should be an object, got 'hi'"),
        ({"messages": [{"role": "user", "content": 1}]}, {"format": "chat"}, "message 1: content should be text, got int"),
        ({"messages": [{"role": "user"}]}, {"format": "chat"}, "message 1: content should be text, got none: give it one"),
        (
            {"messages": [{"role": "user", "content": [{"type": "text", "text": "x"}]}]},
            {"format": "chat"},
            "message 1: content should be text, got a list of parts: write their texts as one",
        ),
        ({"prompt": [], "completion": [{}]}, {"format": "completion"}, "is a list, not a text: data.format: chat reads messages"),
        (
            {"messages": [{"role": "user", "content": "x", "train": "false"}]},
            {"format": "chat"},
            "message 1: train should be true or false, got the text 'false': take its quotes away",
        ),
        ({"talk": []}, {"format": "chat"}, "has no column 'messages', only 'talk' (data.columns names them)"),
        (
            {"messages": [{"role": "assistant", "content": "x"}]},
            {"format": "chat"},
            "message 1: role should be system or user here, got 'assistant'",
        ),
        (
            {"messages": [{"role": "user", "content": "x"}] * 2},
            {"format": "chat"},
            "message 2: role should be assistant here, got 'user'",
        ),
        (
            {"messages": [{"role": ["user"], "content": "x"}]},
            {"format": "chat"},
            "role should be system or user here, got ['user']",
        ),
    ],
)
def test_bad_rows_say_what_is_wrong(row, changes, says):
    """A row that cannot be rendered says which column or message breaks which rule."""
    with pytest.raises(BadRow) as caught:
        render(row, spec(**changes), chat)
    assert says in str(caught.value)


def test_turns_that_lose_their_thoughts():
    """Where a template shows what was thought in the last turn only, as Qwen3's does, earlier turns are found without it."""

    def thinking(messages, add_generation_prompt=False):
        *earlier, last = messages
        said = chat(earlier)
        thought = last | {"content": f"<think>#</think>{last['content']}"} if last["role"] == "assistant" else last
        return said + chat([thought], add_generation_prompt)

    pairs = [("user", "a"), ("assistant", "b#"), ("user", "c"), ("assistant", "")]
    row = {"messages": [{"role": role, "content": text} for role, text in pairs]}
    for roles, parts in ((["assistant"], ["b##", "<think>#</think>#"]), (["user"], ["a#", "c#"])):
        text, spans, *_ = render(row, spec(format="chat", loss_roles=roles), thinking)
        assert [text[start:end] for start, end in spans] == parts
        assert text == "<user>a#<assistant>b##<user>c#<assistant><think>#</think>#"


def test_a_template_that_rewrites_earlier_turns_is_refused():
    """Where a turn cannot be found in the whole, its loss would have no place: refused, naming the message."""

    def forgetful(messages, add_generation_prompt=False):
        return chat([*messages[-1:]], add_generation_prompt)

    row = {"messages": [{"role": role, "content": "x"} for role in ("user", "assistant", "user", "assistant")]}
    with pytest.raises(BadRow, match="message 2: the chat template writes this turn otherwise"):
        render(row, spec(format="chat"), forgetful)


def texts(tmp_path, name, content):
    """The (place, text) of a file's rows."""
    path = tmp_path / name
    path.write_bytes(content)
    rows = each([File(str(path), path.name)], lambda row: render(row, spec(format="text"), chat))
    return [(where, made.text) for where, made in rows]


def test_files(tmp_path):
    """JSON lines, a JSON list and plain text give the same rows, each with its place; blank lines are no rows."""
    rows = [{"text": "a"}, {"text": "é b"}]
    lines = "\n".join(json.dumps(row, ensure_ascii=False) for row in rows).encode()
    assert texts(tmp_path, "a.jsonl", b"\n" + lines + b"\n \n") == [("a.jsonl:2", "a"), ("a.jsonl:3", "é b")]
    assert texts(tmp_path, "bom.jsonl", b"\xef\xbb\xbf" + lines)[0] == ("bom.jsonl:1", "a")
    assert texts(tmp_path, "a.json", json.dumps(rows).encode()) == [("a.json: row 1", "a"), ("a.json: row 2", "é b")]
    assert texts(tmp_path, "a.txt", "a\r\n\n é b".encode()) == [("a.txt:1", "a"), ("a.txt:3", " é b")]


def test_all_bad_rows_at_once(tmp_path):
    """Bad rows are told together, each with file and line, twenty at most."""
    bad = b'{"text": 1}\n{"text"\n{"text": "fine"}\n{"text": "\\ud800"}\n\xff\n[[1]]\n' + b"[" * 100_000 + b"\n"
    with pytest.raises(Refused) as caught:
        texts(tmp_path, "a.jsonl", bad)
    told = [line.removeprefix(f"{tmp_path}/") for line in str(caught.value).splitlines()]
    assert caught.value.reason == "bad_data"
    assert [line.split(" ")[0] for line in told] == [f"a.jsonl:{number}:" for number in (1, 2, 4, 5, 6, 7)]
    with pytest.raises(Refused) as caught:
        texts(tmp_path, "b.jsonl", b"{}\n" * 50)
    assert len(str(caught.value).splitlines()) == 21
    assert str(caught.value).endswith("(there may be more)")


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("a.json", b"{}", "holds a JSON object a line"),
        ("a.json", b'{"data": [{"text": "x"}]}', "holds an object whose 'data' is a list of rows: write that list alone"),
        ("a.json", b"[1", "not JSON"),
        ("a.json", b"[" * 100_000, "not JSON"),
        ("a.txt", b"\xff\n", "write the file as UTF-8"),
    ],
)
def test_files_that_are_not_what_they_are_called(tmp_path, name, content, says):
    """A file that does not hold what its suffix says is refused, not half read."""
    with pytest.raises(Refused, match=says) as caught:
        texts(tmp_path, name, content)
    assert caught.value.reason == "bad_data"


@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.txt"])
def test_utf16_is_named(tmp_path, name):
    """A file in UTF-16, as Windows writes them, is refused with the command that mends it."""
    (tmp_path / name).write_text('{"text": "x"}\n', "utf-16")
    with pytest.raises(Refused, match=r"is UTF-16.*iconv"):
        found({"path": str(tmp_path / name)})


def test_the_first_rows_only(tmp_path):
    """A preview reads no further than its rows, but those must be right."""
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "a"}\n{"text": "b"}\n{}\n')
    assert len(list(each([File(str(path), path.name)], lambda row: row["text"].upper(), 2))) == 2
    with pytest.raises(Refused):
        list(each([File(str(path), path.name)], lambda row: render(row, spec(format="text"), chat), 3))


@pytest.mark.parametrize(
    ("files", "split", "chosen"),
    [
        (["train.jsonl", "test.jsonl", "README.md"], "train", ["train.jsonl"]),
        (
            ["data/train-00001-of-2.parquet", "data/train-00000-of-2.parquet", "data/test-0.parquet"],
            "train",
            ["data/train-00000-of-2.parquet", "data/train-00001-of-2.parquet"],
        ),
        (["train/0.parquet", "validation/0.parquet"], "validation", ["validation/0.parquet"]),
        (["train.parquet", "train.jsonl"], "train", ["train.jsonl"]),
        (["all.json", "x.txt"], "train", ["all.json"]),
        (["all.json"], "test", []),
        (["training.jsonl", "b.jsonl"], "train", []),
    ],
)
def test_the_files_of_a_split(files, split, chosen):
    """A split is the files or folders named after it, in one format; a lone file is `train`."""
    assert split_files(files, split) == chosen
