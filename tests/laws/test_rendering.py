"""Laws of chats: tokens are those of transformers, whatever the file's format; nothing goes unread in silence; replies end."""

import json
import os
import random
import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tests.laws import chat_templates as styles

BACKENDS = Path(__file__).parents[2] / "backends"
TINY = {"family": "llama", "vocab_size": 320, "hidden_size": 32, "intermediate_size": 48, "layers": 2, "heads": 4, "kv_heads": 2}
TINY |= {"head_dim": None, "max_length": 4096, "rope_theta": 10000.0, "norm_eps": 1e-5, "tied": False}
TOOLS = [
    {"type": "function", "function": {"name": "add", "parameters": {"type": "object", "properties": {"a": {"type": "integer"}}}}}
]


def user(text):
    """A turn of the user."""
    return {"role": "user", "content": text}


def answer(text, **more):
    """A turn of the assistant."""
    return {"role": "assistant", "content": text, **more}


def call(**arguments):
    """A call of a tool."""
    return [{"type": "function", "function": {"name": "add", "arguments": arguments}}]


CHATS = [
    {"messages": [user("hi"), answer("hello you")]},
    {"messages": [user("a"), answer("b"), user("c"), answer("d")]},
    {"messages": [user("assistant"), answer("user", weight=1), user("x"), answer("<think>\nhm\n</think>\n\nyes")]},
]
CALLS = [
    {
        "messages": [user("1 + 1"), answer("", tool_calls=call(a=1)), {"role": "tool", "content": "2"}, answer("two")],
        "tools": TOOLS,
    },
    {"messages": [user("q"), answer("", tool_calls=call(b="é")), {"role": "tool", "content": "2", "name": None}, answer("z")]},
    {"messages": [user("q"), answer("a", tool_calls=None)], "tools": None},
]


@pytest.fixture(scope="module")
def both(tmp_path_factory, trainer_python):
    """A function that sends cases, [{template, rows}], through the data step and through transformers."""
    python, folder = trainer_python("axolotl"), tmp_path_factory.mktemp("rendering")
    for script in (*BACKENDS.glob("shims/tune_*.py"), Path(__file__).with_name("rendering_truth.py")):
        shutil.copy(script, folder)
    (folder / "model.json").write_text(json.dumps({"init": "random", "folder": "models/tiny", "seed": 0, "architecture": TINY}))

    def ran(*argv):
        env = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")} | {"HF_HUB_OFFLINE": "1"}
        done = subprocess.run([python, *argv], cwd=folder, env=env, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr[-3000:]
        return done.stdout

    ran("tune_model.py", "model.json", "--tokenizer-only")
    place = folder / "models/tiny-tokenizer" / "tokenizer.json"
    raw = json.loads(place.read_text())
    first = raw["added_tokens"][0]
    raw["added_tokens"] += [first | {"id": 261 + n, "content": text} for n, text in enumerate(styles.SPECIAL)]
    place.write_text(json.dumps(raw))

    def send(cases):
        (folder / "cases.json").write_text(json.dumps(cases))
        return json.loads(ran("rendering_truth.py", "cases.json", "models/tiny-tokenizer").splitlines()[-1])

    return send


@pytest.mark.trainer
def test_tokens_are_those_of_transformers(both):
    """In every style ids equal apply_chat_template's, from JSON lines as from parquet, with tools, calls and null keys too."""
    templates = {**styles.SOUND, **styles.ENDLESS}
    rows = {name: [*CHATS[:2], *(CALLS if name in styles.TOOLED else CHATS[2:])] for name in templates}
    answers = both([{"template": text, "rows": rows[name]} for name, text in templates.items()])
    for name, found in zip(templates, answers, strict=True):
        for row, one in zip(rows[name], found, strict=True):
            if name == "deepseek_r1" and row is CHATS[2]:
                assert "does not write all of its content" in one["refused"]
            else:
                assert one.get("ids") == one["truth"] == one["parquet"], (name, row, one)


@pytest.mark.trainer
def test_replies_end(both):
    """Each style's replies are judged: those that end, and those of which some reply does not."""
    answers = both([{"template": text, "rows": CHATS[:2]} for text in (*styles.SOUND.values(), *styles.ENDLESS.values())])
    judged = dict(zip((*styles.SOUND, *styles.ENDLESS), ([one["endless"] for one in found] for found in answers), strict=True))
    assert len(styles.SOUND) >= 18
    assert {name for name, turns in judged.items() if any(turns)} == set(styles.ENDLESS)


@pytest.mark.trainer
def test_a_turn_is_what_the_model_is_to_write(both):
    """What carries loss begins behind what the template writes to have a turn generated, and holds the turn's end."""
    due = {
        "deepseek_r1": "b</s>d</s>",
        "qwen_3": "b<|im_end|>\n<think>\n\n</think>\n\nd<|im_end|>\n",
        "qwen_35": "b<|im_end|>\n\n</think>\n\nd<|im_end|>\n",
        "gpt_oss": "<|channel|>final<|message|>b<|end|><|channel|>final<|message|>d<|return|>",
        "mistral_v3": " b</s> d</s>",
        "chatml_marked": "b<|im_end|>d<|im_end|>",
        "command_r": "b<|END_OF_TURN_TOKEN|>d<|END_OF_TURN_TOKEN|>",
    }
    answers = both([{"template": styles.SOUND[name], "rows": CHATS[1:2]} for name in due])
    assert {name: one["learned"] for name, (one,) in zip(due, answers, strict=True)} == due


ODD = ["x", " y ", "\n", "user", "assistant\n", "<think>\nhm\n</think>\n\nz", "</think>z", "<think>\n", "z\n\n", "\n<think>"]


@pytest.mark.trainer
def test_turns_are_placed_where_a_search_finds_them(both):
    """In every style, for contents that repeat, are white space, words of the template or thoughts, in chats of one to three turns: what
    is known of chats with the same roles gives the very turns that a search in the text gives.
    """
    draw = random.Random(5)
    chats = []
    for turns in (1, 2, 3) * 12:
        said = [one for _ in range(turns) for one in (user(draw.choice(ODD) + "q"), answer(draw.choice(ODD)))]
        chats.append({"messages": [{"role": "system", "content": "S"}, *said] if draw.random() < 0.3 else said})
    templates = {**styles.SOUND, **styles.ENDLESS}
    found = dict(zip(templates, both([{"template": text, "rows": chats} for text in templates.values()]), strict=True))
    rendered = {name: [one for one in answers if "refused" not in one] for name, answers in found.items()}
    assert {name for name, answers in rendered.items() if not all(one["searched"] for one in answers)} == set()
    placed = {name for name, answers in rendered.items() if sum(one["placed"] for one in answers) > len(answers) / 3}
    assert placed >= {"chatml", "llama_31", "qwen_25", "zephyr", "gemma_3", "mistral_v7", "phi_4", "granite", "olmo_2"}


TEXT = st.text(
    st.characters(codec="utf-8", exclude_characters="<>[]{}\x00\ufdd0\ufdd1\ue000\ue001\ue002"), min_size=1, max_size=12
)
TEXT = TEXT.filter(lambda text: text == text.strip() != "")
KEY = st.sampled_from(["colour", "note", "score"])
PLACE = st.sampled_from(["row", "message", "call", "function"])


@st.composite
def rows_with_a_key(draw):
    """A row with an unknown key somewhere, and the path by which it should be named."""
    key, place = draw(KEY), draw(PLACE)
    value = draw(st.one_of(TEXT, st.integers(), st.booleans()))
    calls = call(a=draw(st.integers(0, 9)))
    row = {
        "messages": [user(draw(TEXT)), answer("", tool_calls=calls), {"role": "tool", "content": draw(TEXT)}, answer(draw(TEXT))]
    }
    where = {"row": row, "message": row["messages"][draw(st.integers(0, 3))], "call": calls[0], "function": calls[0]["function"]}
    where[place][key] = value
    above = {
        "row": "",
        "message": "messages[].",
        "call": "messages[].tool_calls[].",
        "function": "messages[].tool_calls[].function.",
    }
    return row, above[place] + key


@settings(max_examples=3, deadline=None, phases=[Phase.generate], suppress_health_check=list(HealthCheck))
@given(st.lists(rows_with_a_key(), min_size=30, max_size=60))
@pytest.mark.trainer
def test_an_unknown_key_is_named(both, drawn):
    """Wherever an unknown key stands in a row, it is named, and the row's tokens are those of transformers all the same."""
    (found,) = both([{"template": styles.QWEN_25, "rows": [row for row, _ in drawn], "parquet": False}])
    for (row, path), one in zip(drawn, found, strict=True):
        assert path in one["unread"], (row, path, one)
        assert one["ids"] == one["truth"]
