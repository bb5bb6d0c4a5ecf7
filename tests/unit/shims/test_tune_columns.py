"""What of a row is read: a column or key is used, refused, or counted; never lost in silence."""

import json
from types import SimpleNamespace

import pytest
from tune_columns import Cells, Watched, unseen, watched
from tune_files import BadRow
from tune_reading import tried
from tune_rows import render

from tests.laws import chat_templates

CHAT = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]
SPEC = {
    "format": "instruct",
    "template": "plain",
    "columns": {},
    "system": None,
    "train_on_prompt": False,
    "loss_roles": ["assistant"],
    "ignore": [],
}
LLAMA = (
    "{{ bos_token }}{% if tools %}{{ tools | tojson }}{% endif %}{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' }}{% if m.tool_calls %}"
    "{% for c in m.tool_calls %}{{ c.function.name }}{{ c.function.arguments | tojson }}{% endfor %}{% else %}"
    "{{ m.content }}{% endif %}{{ '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def chat(messages, add_generation_prompt=False):
    """A chat template written in Python."""
    return "".join(f"<{m['role']}>{m['content']}#" for m in messages) + "<assistant>" * add_generation_prompt


def made(row, **changes):
    """The Text of a row."""
    return render(row, SimpleNamespace(**SPEC | changes), chat)


def learned(row, **changes):
    """(whole text, parts with loss) of a row."""
    text = made(row, **changes)
    return text.text, [text.text[start:end] for start, end in text.spans]


def with_template(job, template):
    """The job's tokenizer with another chat template."""
    path = job.folder / job.spec["tokenizer"] / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"chat_template": template}))
    return job


# Columns


def test_other_columns_are_counted():
    """Columns that nothing reads are named, those that hold null are not; `ignore` takes a column away."""
    row = {"instruction": "a", "output": "b", "category": "c", "score": 0, "note": None}
    assert made(row).unread == ["category", "score"]
    assert made(row, ignore=["score"]).unread == ["category"]


@pytest.mark.parametrize(
    ("form", "column"),
    [
        *[("instruct", "history"), ("text", "system"), ("chat", "loss_mask"), ("completion", "tools"), ("chat", "images")],
        *[
            ("text", "weight"),
            ("instruct", "train"),
            ("chat", "sample_weight"),
            ("chat", "lossWeights"),
            ("completion", "is_masked"),
        ],
        *[("instruct", "token_weights"), ("chat", "train_mask"), ("text", "system_prompt"), ("chat", "dialogue")],
    ],
)
def test_columns_that_say_what_is_meant_are_not_lost(form, column):
    """A well-known column that nothing reads here is refused, and `ignore` accepts that it is lost."""
    row = {"instruction": "i", "output": "o", "text": "t", "prompt": "p", "completion": "c"}
    row = {"chat": {"messages": CHAT}}.get(form, row) | {column: [1]}
    with pytest.raises(BadRow, match=f"column '{column}': nothing reads it here.*data.ignore"):
        made(row, format=form)
    assert column not in made(row, format=form, ignore=[column]).unread


def test_a_system_column_is_used():
    """A row's own system text goes before the recipe's, in chats and in prompts; one that contradicts a system turn is refused."""
    row = {"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}], "system": "S"}
    assert learned(row, format="chat", system="other")[0] == "<system>S#<user>q#<assistant>a#"
    assert learned({**row, "system": ""}, format="chat", system="other")[0] == "<system>other#<user>q#<assistant>a#"
    assert learned({"instruction": "i", "output": "o", "system": "S"})[0] == "S\n\ni\no"
    both = {"messages": [{"role": "system", "content": "T"}, *CHAT], "system": "S"}
    with pytest.raises(BadRow, match="says otherwise than the system turn"):
        made(both, format="chat")
    assert made(both, format="chat", ignore=["system"]).text.startswith("<system>T#")


def test_two_conversations_in_a_row_are_refused():
    """Of `messages` and `conversations` one would be lost."""
    row = {"messages": CHAT, "conversations": [{"from": "human", "value": "x"}]}
    with pytest.raises(BadRow, match="column 'conversations'"):
        made(row, format="chat")
    assert made(row, format="chat", ignore=["conversations"]).text == "<user>q#<assistant>a#"
    assert made({**row, "messages": None}, format="chat", ignore=[], loss_roles=["user"]).text == "<user>x#"


@pytest.mark.parametrize("switch", [{"weight": 0}, {"train": False}, {"weight": 0.0}])
def test_a_message_can_be_without_loss(switch):
    """`weight: 0` and `train: false` take the loss from a message."""
    rows = [*CHAT, {"role": "user", "content": "r"}, {"role": "assistant", "content": "b"}]
    rows[1] = rows[1] | switch
    assert learned({"messages": rows}, format="chat")[1] == ["b#"]


def test_switches_that_mean_nothing_are_refused():
    """A share of a loss cannot be taken, and two switches should not contradict; `train: true` gives loss to any role."""
    for switch, says in (({"weight": 0.5}, "should be 0 or 1"), ({"weight": 0, "train": True}, "keep one")):
        with pytest.raises(BadRow, match=says):
            made({"messages": [CHAT[0], CHAT[1] | switch]}, format="chat")
    assert learned({"messages": [CHAT[0] | {"train": True}, CHAT[1]]}, format="chat")[1] == ["q#", "a#"]


def test_a_column_that_says_nothing_is_told_only():
    """An empty list or text of a well-known column loses nothing."""
    assert made({"instruction": "a", "output": "b", "history": [], "system": ""}).unread == ["history"]


@pytest.mark.parametrize("key", ["loss", "training", "mask", "train_detail", "train_on", "isMasked", "calculate_loss"])
def test_switches_by_other_names_are_refused(key):
    """Other tools' keys for the loss of a message are not trained over."""
    rows = {"messages": [CHAT[0], CHAT[1] | {key: False}]}
    with pytest.raises(BadRow, match=f"message 2: nothing reads '{key}'.*say it as `train`"):
        made(rows, format="chat")
    assert learned(rows, format="chat", ignore=[key])[1] == ["a#"]


def test_a_message_says_one_thing():
    """A message in both words is read when they agree, and refused when they do not; a conversation may be JSON in a text."""
    both = {"role": "user", "from": "human", "content": "q", "value": "q"}
    assert made({"messages": [both, CHAT[1]]}, format="chat").text == "<user>q#<assistant>a#"
    for key, other in (("from", "gpt"), ("value", "x")):
        with pytest.raises(BadRow, match=f"message 1: '{key}' says otherwise"):
            made({"messages": [both | {key: other}, CHAT[1]]}, format="chat")
    assert made({"messages": json.dumps(CHAT)}, format="chat").text == "<user>q#<assistant>a#"


def test_an_input_without_a_place_is_refused():
    """A template without {input} does not swallow what a row has there."""
    row = {"instruction": "i", "input": "x", "output": "o"}
    with pytest.raises(BadRow, match=r"data.template has no \{input\}"):
        made(row, template="Q {instruction}")
    assert learned(row, template="Q {instruction} ", ignore=["input"])[0] == "Q i o"
    assert learned({**row, "input": ""}, template="Q {instruction} ")[0] == "Q i o"


def test_a_columns_name_left_in_the_template_is_refused():
    """{context} in a template is not trained as text where the rows have such a column."""
    with pytest.raises(BadRow, match=r"data.template holds \{context\}"):
        made({"instruction": "i", "context": "x", "output": "o"}, template="{instruction} {context}")


def test_what_was_looked_at():
    """Watched objects tell which of their keys were looked at, however they are read."""
    value = Watched({"a": 1, "b": {"c": 2, "d": None, "e": 3}, "f": [{"g": 1}], "h": 0})
    assert value["a"] == 1
    assert value.get("b")["c"] == 2
    assert [dict(one) for one in value["f"]] == [{"g": 1}]
    assert sorted(unseen(value, "m")) == ["m.b.e", "m.h"]
    for read in (json.dumps, str):
        whole = watched({"a": {"b": 1}})
        read(whole)
        assert list(unseen(whole, "m")) == [], read
    for read in (dict, lambda one: {**one}, lambda one: list(one.items())):
        shallow = watched({"a": {"b": 1}})
        read(shallow)
        assert list(unseen(shallow, "m")) == ["m.a.b"], read
    assert Cells({"a": None}, {}).unread() == []


# Through a chat template, in the data step


CALL = {"type": "function", "function": {"name": "add", "arguments": {"a": 1}}}
TOOLS = [{"type": "function", "function": {"name": "add", "parameters": {"type": "object"}}}]


def test_calls_and_tools_are_the_templates(data_job):
    """Null content beside calls does not become the word None; tools reach the template; ids within calls that it drops are told."""
    row = {
        "messages": [
            CHAT[0],
            {"role": "assistant", "content": None, "tool_calls": [{"id": "7", **CALL}], "reasoning_content": None},
            {"role": "tool", "content": "2", "tool_calls": None},
            CHAT[1],
        ],
        "tools": json.dumps(TOOLS),
    }
    job = with_template(data_job, LLAMA)
    job.run("tune_data", job.spec | {"format": "chat", "train": job.write("t.jsonl", [row])})
    data = job.data()
    text = bytes(one for one in data.ids[0] if one < 256).decode()
    assert 'add{"a": 1}' in text
    assert "None" not in text
    assert text.startswith(json.dumps(TOOLS))
    assert data.manifest["unread"] == {"messages[].tool_calls[].id": 1, "messages[].tool_calls[].type": 1}
    assert data.manifest["notes"][-1].startswith(
        "train: nothing reads these columns and keys (rows): messages[].tool_calls[].id (1)"
    )


def test_null_content_where_the_template_would_write_it(data_job):
    """A template that writes {{ m.content }} trains no word None."""
    template = LLAMA.replace("{% else %}", "{% endif %}").replace("{% endif %}{{ '<|im_end|>", "{{ '<|im_end|>")
    calls = [CHAT[0], {"role": "assistant", "content": None, "tool_calls": [CALL]}, {"role": "tool", "content": "2"}, CHAT[1]]
    job = with_template(data_job, template)
    job.run("tune_data", job.spec | {"format": "chat", "train": job.write("t.jsonl", [{"messages": calls}])})
    assert b'add{"a": 1}' in bytes(one for one in job.data().ids[0] if one < 256)
    assert b"None" not in bytes(one for one in job.data().ids[0] if one < 256)


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ({"messages": [CHAT[0], {"role": "assistant", "content": "", "tool_calls": [CALL]}]}, "writes no 'tool_calls'"),
        (
            {"messages": [CHAT[0], {**CHAT[1], "reasoning_content": "hm"}]},
            "message 2: the chat template writes no 'reasoning_content'",
        ),
        ({"messages": CHAT, "tools": TOOLS}, "does not read 'tools'"),
        ({"messages": CHAT, "documents": [{"title": "t", "text": "x"}]}, "does not read 'documents'"),
        ({"messages": CHAT, "chat_template_kwargs": {"enable_thinking": False}}, "does not read 'enable_thinking'"),
        ({"messages": CHAT, "chat_template_kwargs": {"messages": []}}, "should be an object without"),
        ({"messages": CHAT, "tools": "{"}, "column 'tools': should be a list"),
    ],
)
def test_what_a_template_drops_is_refused(data_job, row, says):
    """Calls, thoughts, tools and settings that the template does not write are refused with file, line and way out."""
    word, detail = data_job.refused(
        "tune_data", data_job.spec | {"format": "chat", "train": data_job.write("t.jsonl", [row]) | {"name": "my/rows.jsonl"}}
    )
    assert word == "bad_data"
    assert detail.startswith("my/rows.jsonl:1: ")
    assert says in detail


def test_columns_that_no_row_has(data_job):
    """A column that the recipe names and no row has is refused, with those that the rows have."""
    rows = data_job.write("t.jsonl", [{"instruction": "do", "context": "C", "response": "x"}])
    columns = {"instruction": "instruction", "input": "contxt", "output": "response"}
    word, detail = data_job.refused("tune_data", data_job.spec | {"train": rows, "columns": columns})
    assert (word, "data.columns.input is 'contxt', but no row has such a column" in detail) == ("bad_data", True)
    assert "'context', 'instruction', 'response'" in detail


@pytest.mark.parametrize(("template", "says"), [("{instruction}{output}", "{output}"), ("{{instruction}}", "{{instruction}}")])
def test_words_in_braces_that_nothing_replaces(data_job, template, says):
    """A template with {output} or {{instruction}} is refused: they would be learned as they stand."""
    rows = data_job.write("t.jsonl", [{"instruction": "do", "output": "x"}])
    word, detail = data_job.refused("tune_data", data_job.spec | {"train": rows, "template": template})
    assert word == "bad_spec"
    assert f"template: {says} would be left as text" in detail


def test_words_in_braces_of_a_column(data_job):
    """{instruction} and {input} are replaced, also where the columns that fill them are called so."""
    rows = data_job.write("t.jsonl", [{"instruction": "do", "input": "it", "output": "x"}])
    columns = {"instruction": "instruction", "input": "input", "output": "output"}
    data_job.run("tune_data", data_job.spec | {"train": rows, "columns": columns, "template": "{instruction} {input}\n"})
    assert data_job.data().ids == [[256, *b"do it\nx", 257]]


# How a reply ends


@pytest.mark.parametrize("closing", ["", "{% if m.role == 'user' %}<|im_end|>{% endif %}", "END"])
def test_replies_without_an_end_are_refused(data_job, closing):
    """A template that writes no token behind a reply at which generation stops is refused; require_stop: false tells it."""
    template = f"{{% for m in messages %}}{{{{ '<|im_start|>' + m.role + m.content }}}}{closing}{{% endfor %}}" + (
        "{% if add_generation_prompt %}<|im_start|>assistant{% endif %}"
    )
    job = with_template(data_job, template)
    spec = job.spec | {"format": "chat", "train": job.write("t.jsonl", [{"messages": CHAT * 2}])}
    word, detail = job.refused("tune_data", spec)
    assert word == "no_stop_token"
    assert "t.jsonl:1 message 2, t.jsonl:1 message 4" in detail
    job.run("tune_data", spec | {"require_stop": False})
    assert job.data().manifest["without_stop"] == 2
    assert "2 turns of the assistant end without a token that stops generation" in job.data().manifest["notes"][0]


def test_a_cut_reply_needs_no_end(data_job):
    """Only turns that are whole are asked for their end; a cut one is counted."""
    rows = data_job.write("t.jsonl", [{"messages": [CHAT[0], {"role": "assistant", "content": "x" * 99}]}])
    data_job.run("tune_data", data_job.spec | {"format": "chat", "train": rows, "max_length": 64})
    manifest = data_job.data().manifest
    assert (manifest["truncated"], manifest["lost_end"], manifest["without_stop"]) == (1, 1, 0)
    assert manifest["notes"] == ["train: 1 of 1 rows cut at max_length (data.max_length), 1 of them without their end"]


# The figures


def test_what_a_person_should_know(data_job):
    """The figures of a file made for it: cut, without answer, left out, unread, left out of each epoch; preview tells the same."""
    rows = [
        *({"instruction": "a", "output": "b", "topic": n} for n in range(3)),
        {"instruction": "a", "output": ""},
        {"instruction": "a", "output": "x" * 99, "topic": 1},
        {"instruction": "i" * 99, "output": "x"},
    ]
    spec = data_job.spec | {"train": data_job.write("t.jsonl", rows), "template": "plain", "max_length": 50, "batch": 2}
    data_job.run("tune_data", spec | {"drop_empty": True})
    manifest = data_job.data().manifest
    due = {"truncated": 1, "lost_end": 1, "dropped_empty": 1, "empty_answers": 1, "unread": {"topic": 4}, "left_out_per_epoch": 1}
    assert {key: manifest[key] for key in due} == due
    assert manifest["notes"] == [
        "train: 1 of 6 rows cut at max_length (data.max_length), 1 of them without their end",
        "train: 1 of 6 rows left out: no token with loss within max_length, the first at t.jsonl:6",
        "train: 1 of 6 rows with an empty answer: only its end is learned",
        "train: nothing reads these columns and keys (rows): topic (4)",
        "train: 1 rows left out of each epoch: they fill no batch",
    ]
    process = data_job.start("tune_data", spec | {"drop_empty": True}, "--preview", 2)
    out, err = process.communicate()
    assert (process.returncode, len(json.loads(out)), err.splitlines()) == (0, 2, manifest["notes"][:4])


@pytest.mark.parametrize(
    ("style", "count", "text"),
    [
        ("chatml", 0, None),
        ("mistral_v7", 0, None),
        ("qwen_25", 2, "'<|im_start|>system\\nYou are a helpful assistant.'"),
        ("llama_31", 3, "Cutting Knowledge Date: December 2023"),
    ],
)
def test_a_template_that_adds_a_text_of_its_own(data_job, style, count, text):
    """A system text that the template puts where a row has none, or before each, is told with how many rows get it."""
    rows = [{"messages": CHAT}, {"messages": [{"role": "system", "content": "Be kind."}, *CHAT]}, {"messages": CHAT * 2}]
    job = with_template(data_job, chat_templates.SOUND[style])
    spec = job.spec | {"format": "chat", "train": job.write("t.jsonl", rows), "require_stop": False}
    job.run("tune_data", spec)
    manifest = job.data().manifest
    told = [note for note in manifest["notes"] if "text of its own" in note]
    assert (manifest["template_text"], len(told)) == (count, bool(count))
    assert not count or (f"before {count} of 3 rows" in told[0] and text in told[0])


@pytest.mark.parametrize(
    ("rows", "changes", "says"),
    [
        ([], {}, "no rows"),
        ([{"instruction": "i" * 99, "output": "x"}], {"max_length": 9}, "no token with loss"),
        ([{"instruction": "a", "output": "x"}], {"batch": 2}, "do not fill one batch"),
        ([{"instruction": "a", "output": "x"}] * 9, {"epochs": 2, "warmup_steps": 19}, "are 18 steps of these rows"),
    ],
)
def test_preview_refuses_what_the_job_would(data_job, rows, changes, says):
    """What the data step refuses once the rows are read, its preview refuses too, in the same words."""
    spec = data_job.spec | {"train": data_job.write("t.jsonl", rows)} | changes
    process = data_job.start("tune_data", spec, "--preview", 1)
    _, err = process.communicate()
    assert process.returncode == 1
    assert says in err
    assert data_job.refused("tune_data", spec)[1] in err


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ('{"text": "a"},', "ends with a comma"),
        ('{"text": "a"} {"text": "b"}', "more than one value"),
        ("{'text': 'a'}", "single quotes, as Python prints them"),
        ('{"text": "a", "note": None}', "None, True or False"),
        ('{"text": "a', "ends within an object"),
        ('{"text": "a",', "ends within an object"),
        ('{"text" "a"}', "is no JSON at character 9"),
    ],
)
def test_lines_that_are_no_json(line, says):
    """What the line is, and what to do about it, in place of the decoder's own words."""
    _, problems = tried([("rows.jsonl:3", line.encode())], lambda row: row)
    assert len(problems) == 1
    assert problems[0].startswith("rows.jsonl:3: ")
    assert says in problems[0]


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("a.jsonl", '[{"text": "a"}]', "rename it to a.json"),
        ("a.jsonl", '[\n {"text": "a"}\n]', "rename it to a.json"),
        ("a.jsonl", '{\n "text": "a"\n}', "one whole row a line"),
        ("a.json", '{"text": "a"}\n{"text": "b"}\n', "rename it to a.jsonl"),
        ("a.jsonl", '{"text": "a", "text": "b"}\n', "key 'text' stands twice"),
    ],
)
def test_files_say_what_they_are(data_job, name, content, says):
    """A list called .jsonl, rows called .json, one object over several lines, a key that stands twice: named with the way out."""
    (data_job.folder / name).write_text(content)
    source = {"path": name, "name": f"~/mine/{name}"}
    word, detail = data_job.refused("tune_data", data_job.spec | {"train": source, "format": "text"})
    assert (word, detail.startswith(f"~/mine/{name}:1")) == ("bad_data", True)
    assert says in detail


def test_plain_text_lines(data_job):
    """A byte order mark is no text, a lone CR is part of its row, CR LF ends one; EOS that the text has is not doubled."""
    (data_job.folder / "t.txt").write_bytes(b"\xef\xbb\xbfa\rb\r\nc</s>\n")
    data_job.run("tune_data", data_job.spec | {"train": {"path": "t.txt"}, "format": "text"})
    assert data_job.data().ids == [[256, *b"a\rb", 257], [256, *b"c", 257]]
