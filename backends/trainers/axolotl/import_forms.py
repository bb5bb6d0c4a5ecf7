"""What axolotl's types of rows are called in a recipe: format, columns, and the text around them. Part of import_data.py.

Sources: https://github.com/axolotl-ai-cloud/axolotl at the pinned tag (src/axolotl/prompters.py, prompt_strategies/, utils/data/wrappers.py).
"""

from __future__ import annotations

from typing import NamedTuple

from backends.dialect import Unfit, unmodelled
from backends.mapping.rows import Flat, Value, Variant

PAIRS = ("dpo", "ipo", "orpo", "simpo", "reward")
"""Methods with a better and a worse answer to each prompt."""


class Form(NamedTuple):
    """What a type of rows means."""

    format: str
    columns: Flat
    """Ours -> the column that is read."""
    template: str = ""
    """Text around an instruct row, where it is not Alpaca's."""
    more: Flat = {}  # noqa: RUF012  # never written to
    """Other leaves, and what is told of single keys."""
    exact: bool = False
    """data.py writes the same type again."""

    def leaves(self) -> Flat:
        """The leaves of it; columns that have our names are left out."""
        columns = {f"data.columns.{ours}": theirs for ours, theirs in self.columns.items() if theirs != ours}
        template = {"data.template": self.template} if self.template else {}
        return {"data.format": self.format, **columns, **template, **self.more}


_WITH = (
    "Below is an instruction that describes a task, paired with an input that provides further context. "
    "Write a response that appropriately completes the request."
)
_STYLES = {
    "chat": ("SYSTEM: {}\n", "USER: {instruction}\n{input}\nASSISTANT:"),
    "chatml": (
        "<|im_start|>system\n{}<|im_end|>\n",
        "<|im_start|>user\n{instruction}\n{input}<|im_end|>\n<|im_start|>assistant\n",
    ),
    "phi": ("<|system|>\n{}<|end|>\n", "<|user|>\n{instruction}<|end|>{input}<|assistant|>"),
    "instruct": ("{}\n\n", "### Instruction:\n{instruction}\n\n### Input:\n{input}\n\n### Response:\n"),
}
"""Style of Alpaca's rows -> text around the system text, text around the rest."""
_CONCISE = (
    "Below is an instruction from a USER that describes a task, paired with an input that provides further context. "
    "The ASSISTANT writes a response that concisely and appropriately completes the request.\n\n"
)

_INSTRUCT: dict[str, tuple[str, str, Flat]] = {
    "alpaca": ("instruct", _WITH, {}),
    "alpaca_instruct": ("instruct", _WITH, {}),
    "alpaca_instruct.load_no_prompt": ("instruct", "", {}),
    "alpaca_chat": ("chat", _WITH, {}),
    "alpaca_chat.load_concise": ("chat", _CONCISE, {}),
    "alpaca_chat.load_no_prompt": ("chat", "", {}),
    "alpaca_chat.load_qa": ("chat", _CONCISE, {"instruction": "question", "output": "answer"}),
    "alpaca_chat.load_camel_ai": ("chat", _CONCISE, {"instruction": "message_1", "output": "message_2"}),
    "gpteacher": ("instruct", _WITH, {"output": "response"}),
    "oasst": ("instruct", _WITH, {"instruction": "INSTRUCTION", "output": "RESPONSE"}),
}
"""Type -> its style unless it names another, the system text, its columns where they have not our names."""


def _template(style: str, system: str) -> str:
    before, around = _STYLES[style]
    return (before.replace("{}", system) if system else "") + around


def instruct(word: str) -> Form | None:
    """One of the types of Alpaca's rows; None where it is none of them."""
    name, _, style = word.partition(":")
    if name not in _INSTRUCT or (style and style not in _STYLES):
        return None
    usual, system, columns = _INSTRUCT[name]
    style = style or usual
    text = "" if (style, system) == ("instruct", _WITH) else _template(style, system)
    return Form("instruct", columns, text, exact=word == "alpaca")


_SHAREGPT = {"sharegpt": ("from", "value"), "sharegpt.load_role": ("role", "value"), "sharegpt_simple": ("from", "value")}
"""Types of older releases -> keys of a message."""


def renewed(each: Flat) -> Flat:
    """A data set in the words of the pinned release: ShareGPT's chats are a chat template's, with the names of a message's keys."""
    word = str(each.get("type") or "").partition(":")[0]
    if word not in _SHAREGPT:
        return each
    role, content = _SHAREGPT[word]
    rest = {
        key: value for key, value in each.items() if key not in ("type", "conversation", "strict", "field_human", "field_model")
    }
    names = {"message_property_mappings": {"role": role, "content": content}}
    return {"field_messages": "conversations", **names, **rest, "type": "chat_template"}


def of_rows(each: Flat, at: str) -> Form:
    """What a data set for fine-tuning has for rows.

    Args:
        each: the data set's keys.
        at: what its keys begin with in the config.

    Raises:
        Unfit: a recipe has no format for them.
    """
    kind = each.get("type")
    if isinstance(kind, dict):
        return _own_prompt(kind, f"{at}type.")
    word = str(kind)
    if word in ("completion", "pretrain"):
        field = each.get("field") if word == "completion" else each.get("text_column")
        return Form("text", {"text": field or "text"}, exact=word == "completion")
    if word == "chat_template":
        roles = each.get("roles_to_train")
        more = {"data.loss_roles": roles} if isinstance(roles, list) and roles != ["assistant"] else {}
        return Form("chat", {"messages": each.get("field_messages") or "messages"}, more=more, exact=True)
    if word.partition(":")[0] in _SHAREGPT:
        return Form("chat", {"messages": each.get("field_messages") or "conversations"})
    if found := instruct(word):
        return found
    raise Unfit(f"{kind!r} rows have no format in a recipe")


def _own_prompt(kind: Flat, at: str) -> Form:
    """Columns of the user's own, with a text around them. A key without value takes the place of a default with nothing."""
    named = {ours: kind.get(f"field_{ours}") or ours for ours in ("instruction", "input", "output") if f"field_{ours}" in kind}
    system, around = kind.get("system_prompt"), kind.get("system_format") if "system_format" in kind else "{system}"
    text, other = (kind.get(key) for key in ("format", "no_input_format"))
    text = "{instruction} {input} " if text is None else text
    before = str(around or "").replace("{system}", str(system)) if system else ""
    if "{instruction}" not in text:
        raise Unfit("a text around each row without {instruction}")
    if before + text == "{instruction}" and other in (None, text):
        columns = {"prompt": named.get("instruction", "instruction"), "completion": named.get("output", "output")}
        return Form("completion", columns, exact=other == text and set(kind) <= _WRITTEN)
    more = {}
    if other is not None and other != text.replace("{input}", ""):
        more = unmodelled(f"{at}no_input_format", "rows without input get a text of their own, which a recipe's template has not")
    return Form("instruct", named, before + text, more)


_WRITTEN = {"field_instruction", "field_output", "format", "no_input_format"}


_TEXTS = ("chatml", "llama3")
_PROMPTS = {
    "intel": "question",
    "icr": "input",
    "prompt_pairs": "prompt",
    "ultra": "prompt",
    "default": "prompt",
    "argilla": "instruction",
}
"""Part of a type's name after the template -> the column with the prompt."""
_WHOLE = ("argilla_chat",)
"""Parts of names whose answers are whole conversations."""


def of_pairs(each: Flat, at: str, variant: Variant) -> Form:
    """What a data set for a preference method has for rows.

    Raises:
        Unfit: a recipe has no format for them.
    """
    form = "rated" if variant.kind == "kto" else "preference"
    answers = ("completion",) if form == "rated" else ("chosen", "rejected")
    kind = each.get("type")
    fields = {ours: theirs for ours in answers if isinstance(theirs := each.get(f"field_{ours}"), str)}
    if isinstance(kind, dict):
        return _own_pairs(kind, form, answers, f"{at}type.")
    package, _, word = str(kind).partition(".")
    word = word or "default"
    if kind is None or package == "passthrough":
        return Form(form, fields)
    if package in _TEXTS and word in _PROMPTS:
        return Form(form, {"prompt": _PROMPTS[word], **fields})
    if package in _TEXTS and word in _WHOLE and form == "preference":
        return Form(form, fields)
    if package == "chat_template" and word == "default" and variant.kind in ("dpo", "ipo", "simpo"):
        return Form(form, {"prompt": each.get("field_messages") or "messages", **fields})
    if package == "chat_template" and form == "preference":
        return Form(form, fields)
    if package == "bradley_terry":
        return Form(form, {"prompt": "input", **fields})
    raise Unfit(f"{kind!r} rows have no format in a recipe")


def _own_pairs(kind: Flat, form: str, answers: tuple[str, ...], at: str) -> Form:
    """Columns of the user's own. Text around them is not a recipe's: it asks in the model's chat template."""
    names = ("prompt", *answers, *(("label",) if form == "rated" else ()))
    columns = {ours: kind.get(f"field_{ours}") or ours for ours in names}
    more: Flat = {}
    for name in ("prompt", *answers):
        text: Value = kind.get(f"{name}_format")
        if text not in (None, "", f"{{{name}}}"):
            more |= unmodelled(f"{at}{name}_format", f"text around the {name}: recipes leave it to the model's chat template")
    return Form(form, columns, more=more, exact=not more and set(kind) == _written_pairs(names, answers))


def _written_pairs(names: tuple[str, ...], answers: tuple[str, ...]) -> set[str]:
    return {*(f"field_{name}" for name in names), *(f"{name}_format" for name in ("prompt", *answers))}
