"""The usual script or notebook that fine-tunes with Unsloth, read as data: which calls it has, and with what arguments.

The text is parsed and nothing of it is run. An argument is known where it is written out, is a name to which the program once gives
such a value, the default of an option of the program's own, or follows from these by plain arithmetic; any other is computed, which
is said with its line.
"""

from __future__ import annotations

import ast
import json
import operator
import re
from collections.abc import Callable, Iterator
from typing import NamedTuple

from backends.command_line import OUTSIDE
from backends.mapping.rows import Flat, Value
from backends.native_config import LARGEST, NativeConfig, Unreadable
from backends.recipe.secrets import is_secret
from backends.recipe.yaml_source import DEEPEST

MODEL, LORA, TRAINER, ROWS, TEMPLATE = "from_pretrained", "get_peft_model", "SFTTrainer", "load_dataset", "get_chat_template"
ARGUMENTS = ("SFTConfig", "TrainingArguments", "UnslothTrainingArguments")
"""Classes of the trainer's arguments."""
PLACES = {
    MODEL: ("model_name", "max_seq_length", "dtype", "load_in_4bit"),
    LORA: ("", "r", "target_modules", "lora_alpha", "lora_dropout"),
    TRAINER: ("", "args"),
    ROWS: ("path", "name"),
    TEMPLATE: ("", "chat_template"),
    **dict.fromkeys(ARGUMENTS, ("output_dir",)),
}
"""Function -> what its arguments without a name are; empty: an object of the program's."""
_OBJECTS = {
    "model", "tokenizer", "processing_class", "args", "train_dataset", "eval_dataset", "data_collator", "formatting_func",
    "callbacks", "compute_metrics", "quantization_config",
}  # fmt: skip
"""Arguments that are objects of the program's, and say nothing that a config could."""
_OTHERS = re.compile(r"(?:DPO|ORPO|KTO|CPO|GRPO|RLOO|PPO|Reward|GKD)Trainer|SentenceTransformerTrainer|FastVisionModel")
_BEGINS = re.compile(r"^\s*(?:from unsloth[\w.]* import|import unsloth)\b", re.MULTILINE)
FOUND = "launch:rows", "launch:answers", "launch:trainer"
"""What else a program says: what its rows are, whether answers alone carry loss, another trainer than that of fine-tuning."""


class _Called(NamedTuple):
    """One call that is read."""

    name: str
    node: ast.Call


def read_program(text: str) -> NativeConfig | None:
    """The keys that a program's calls say, `function.argument`; None where it is no program that imports Unsloth.

    Raises:
        Unreadable: it does, and is no Python.
    """
    source = _source(text)
    if not _BEGINS.search(source):
        return None
    if len(source) > LARGEST:
        raise Unreadable(f"should have at most {LARGEST:,} characters, it has {len(source):,}", hint="is it one training?")
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise Unreadable(f"should be Python: {error}", line=getattr(error, "lineno", None)) from None
    return _Program(tree, source).config()


def _source(text: str) -> str:
    """Of a notebook the code of its cells, without lines for the shell; else the text."""
    if text.lstrip()[:1] == "{" and '"cells"' in text:
        try:
            cells = json.loads(text).get("cells")
        except (ValueError, RecursionError, AttributeError):
            return ""
        code = [each for each in cells if isinstance(each, dict)] if isinstance(cells, list) else []
        text = "\n".join(_code(each.get("source")) for each in code if each.get("cell_type") == "code")
    return "\n".join("pass" if line.startswith(("!", "%")) else line for line in text.split("\n"))


def _code(source: Value) -> str:
    lines = "".join(map(str, source)) if isinstance(source, list) else str(source)
    return "pass" if lines.startswith("%%") else lines


class _Program:
    """One program: its names, its calls, and the keys that they say."""

    def __init__(self, tree: ast.Module, source: str) -> None:
        self.source = source
        self.names: dict[str, ast.expr | None] = {}
        """Name -> what it stands for; None where it is given more than once."""
        self.calls = list[_Called]()
        self.keys: Flat = {}
        self.lines: dict[str, int] = {}
        self.notes = list[str]()
        for node in _reached(tree.body):
            self.note_name(node)
            if isinstance(node, ast.Call):
                self.calls.append(_Called(_name(node.func), node))

    def note_name(self, node: ast.AST) -> None:
        """A name that is given a value."""
        if isinstance(node, ast.Assign):
            targets = node.targets
        elif isinstance(node, ast.AnnAssign | ast.AugAssign):
            targets = [node.target]
        else:
            return
        value = None if isinstance(node, ast.AugAssign) else node.value
        for target in targets:
            if isinstance(target, ast.Name):
                self.names[target.id] = None if target.id in self.names else value

    def config(self) -> NativeConfig:
        """The keys of all calls that are read, the first of each function."""
        for name in PLACES:
            found = [each.node for each in self.calls if each.name == name]
            if found:
                self.take(name, found[0])
            if len(found) > 1 and name != TEMPLATE:
                more = ", ".join(str(each.lineno) for each in found[1:])
                self.notes.append(f"{name} is called again in line {more}: the call in line {found[0].lineno} is read")
        self.rows()
        if other := next((each.name for each in self.calls if _OTHERS.fullmatch(each.name)), ""):
            self.keys[FOUND[2]] = other
        return NativeConfig(self.keys, self.lines, tuple(self.notes), self.source)

    def take(self, name: str, call: ast.Call) -> None:
        """The arguments of one call."""
        for place, node in zip(PLACES[name], call.args, strict=False):
            if place:
                self.argument(name, place, node)
        for each in call.keywords:
            if each.arg is None:
                self.notes.append(f"line {each.value.lineno}: {name} takes arguments by **, which are not known here")
            elif each.arg not in _OBJECTS:
                self.argument(name, each.arg, each.value)

    def argument(self, name: str, argument: str, node: ast.expr) -> None:
        """One argument; one that is computed is told with its line."""
        key = f"{name}.{argument}"
        try:
            self.keys[key] = self.value(node)
        except (ValueError, RecursionError):
            text = (ast.get_source_segment(self.source, node) or "")[:60]
            self.keys[f"{OUTSIDE}{key}"] = "***" if is_secret(key, text) else text
            key = f"{OUTSIDE}{key}"
            self.notes.append(f"line {node.lineno}: {name}.{argument} is computed: give it as {name}.{argument}=VALUE")
        self.lines[key] = node.lineno

    def value(self, node: ast.expr, depth: int = 0) -> Value:
        """What is written out, or follows from that by plain arithmetic.

        Raises:
            ValueError: it is computed.
        """
        if depth > DEEPEST:
            raise ValueError("nested too deep")
        if isinstance(node, ast.Name) and (given := self.names.get(node.id)):
            return self.value(given, depth + 1)
        if isinstance(node, ast.Call) and _name(node.func) in ("is_bfloat16_supported", "is_bf16_supported"):
            return True
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
            return not self.value(node.operand, depth + 1)
        if isinstance(node, ast.IfExp):
            return self.value(node.body if self.value(node.test, depth + 1) else node.orelse, depth + 1)
        if isinstance(node, ast.BinOp) and type(node.op) in _ARITHMETIC:
            return _worked_out(node.op, self.value(node.left, depth + 1), self.value(node.right, depth + 1))
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            return node.attr if node.value.id == "torch" else self.option(node.value.id, node.attr)
        try:
            found = ast.literal_eval(node)
        except (TypeError, MemoryError, RecursionError):
            raise ValueError("computed") from None
        return _plain(found)

    def option(self, name: str, attribute: str) -> Value:
        """The default of an option of the program's own command line: `args.rank` after `parse_args()`.

        Raises:
            ValueError: it is none, or has none.
        """
        given = self.names.get(name)
        if not isinstance(given, ast.Call) or "parse_" not in _name(given.func):
            raise ValueError("an attribute")
        found = [each.node for each in self.calls if each.name == "add_argument" and _option(each.node) == attribute]
        usual = [word.value for call in found for word in call.keywords if word.arg == "default"]
        if len(found) != 1 or not usual:
            raise ValueError("no default")
        value = _plain(ast.literal_eval(usual[0]))
        if value is None:
            raise ValueError("no default")
        shown = "***" if is_secret(attribute, value) else value
        told = f"{name}.{attribute} = {shown}: the default of the program's own option"
        self.notes += [told] if told not in self.notes else []
        return value

    def rows(self) -> None:
        """What the rows are, by what is done with them: that is code, so the reader is told to look."""
        called = {each.name for each in self.calls}
        if called & {"apply_chat_template", "standardize_sharegpt", "standardize_data_formats", TEMPLATE, "to_sharegpt"}:
            self.keys[FOUND[0]] = "chat"
        elif "### Instruction" in self.source:
            self.keys[FOUND[0]] = "instruct"
        if "train_on_responses_only" in called:
            self.keys[FOUND[1]] = True
        code = {each.node.lineno for each in self.calls if each.name in ("map", "filter", "from_generator", "from_list")}
        made = sorted(
            code | {word.value.lineno for each in self.calls for word in each.node.keywords if word.arg == "formatting_func"}
        )
        if made:
            lines = ", ".join(map(str, made))
            self.notes.append(f"line {lines}: rows are made by code of the program's, which is not run here: look at data.format")


def _plain(value: object) -> Value:
    """A value as YAML has them.

    Raises:
        ValueError: there is none such.
    """
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    if isinstance(value, dict):
        return {str(key): _plain(each) for key, each in value.items()}
    if value is None or isinstance(value, str | int | float):
        return value
    raise ValueError("no plain value")


def _reached(body: list[ast.stmt]) -> Iterator[ast.AST]:
    """All nodes in their order, without what stands under `if False`."""
    waiting: list[ast.AST] = list(reversed(body))
    while waiting:
        node = waiting.pop()
        yield node
        below = list(ast.iter_child_nodes(node))
        if isinstance(node, ast.If) and isinstance(node.test, ast.Constant) and not node.test.value:
            below = list(node.orelse)
        waiting += reversed(below)


def _name(node: ast.expr) -> str:
    """The last word of what is called."""
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""


def _option(call: ast.Call) -> str:
    """The attribute that an option of argparse becomes."""
    words = [each.value for each in call.args if isinstance(each, ast.Constant) and isinstance(each.value, str)]
    long = next((word for word in words if word.startswith("--")), "")
    return long.lstrip("-").replace("-", "_")


_ARITHMETIC: dict[type[ast.operator], Callable[[float, float], float]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
}


def _worked_out(op: ast.operator, one: Value, other: Value) -> float:
    """Two plain numbers together.

    Raises:
        ValueError: they are none, or too large.
    """
    numbers = [
        each for each in (one, other) if isinstance(each, int | float) and not isinstance(each, bool) and abs(each) < 2**53
    ]
    if len(numbers) < 2:
        raise ValueError("no plain numbers")
    try:
        return _ARITHMETIC[type(op)](*numbers)
    except ArithmeticError:
        raise ValueError("no number") from None
