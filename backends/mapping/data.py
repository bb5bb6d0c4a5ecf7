"""The section data: rows become tokens once, in the data step, or are read by the trainer itself."""

from __future__ import annotations

from collections.abc import Sequence

from backends.mapping.rows import Context, Flat, Row, Values, cannot, couple, everywhere, handled_by_us, same
from backends.recipe.flat import defaults
from backends.recipe.leaves import LEAVES, template_for_null
from backends.recipe.paths import is_hub, is_template_file, suffix

DATA = "data.json"
"""The spec of the step that renders rows to tokens."""


def shared_data(*lengths: str) -> tuple[Row, ...]:
    """The data section, rendered once: rows into the data step's spec. The trainer then sees only token ids. `lengths` are
    native keys that get data.max_length too.
    """
    return (
        _rows_from("data.train", "data.train_split", "train"),
        _rows_from("data.eval", "data.eval_split", "eval"),
        same("data.eval_share", f"{DATA}:eval_share"),
        couple(
            ("data.format", "data.template"),
            (f"{DATA}:format", f"{DATA}:template"),
            lambda form, text, _: (form, text or template_for_null(form)),
            lambda form, text, _: (form, None if text == template_for_null(form) else text),
            why="unset means alpaca for instruct rows and the model's chat template for chat rows",
        ),
        *(same(f"data.columns.{c}", f"{DATA}:columns.{c}") for c in COLUMNS),
        same("data.loss_roles", f"{DATA}:loss_roles"),
        same("data.system", f"{DATA}:system"),
        handled_by_us("data.rendering", "rows become tokens once, in the data step, the same for every trainer"),
        everywhere("data.max_length", f"{DATA}:max_length", *lengths),
        same("data.pack", f"{DATA}:pack"),
        same("data.train_on_prompt", f"{DATA}:train_on_prompt"),
        same("data.add_eos", f"{DATA}:add_eos"),
        same("data.drop_empty", f"{DATA}:drop_empty"),
        _chat_template(),
        same("data.ignore", f"{DATA}:ignore"),
        same("data.require_stop", f"{DATA}:require_stop"),
        same("data.shuffle", f"{DATA}:shuffle"),
        same("train.epochs", f"{DATA}:epochs"),
        same("train.steps", f"{DATA}:steps"),
    )


COLUMNS = tuple(leaf.rpartition(".")[2] for leaf in LEAVES if leaf.startswith("data.columns."))
"""Names that the data step knows columns by."""


CHAT_TEMPLATE = "chat_template.jinja"
"""Where the job finds a chat template: among the plan's own files if it is shipped, else among the inputs."""


def chat_template_path(name: str) -> str:
    """Where the job finds the chat template that a recipe names."""
    return f"inputs/{CHAT_TEMPLATE}" if is_template_file(name) else CHAT_TEMPLATE


def _chat_template() -> Row:
    return couple(
        ("data.chat_template",),
        (f"{DATA}:chat_template",),
        lambda name, _: ({"path": chat_template_path(name), "name": name} if name else None,),
        lambda spec, _: (spec["name"] if spec else None,),
        why="rows are rendered with it, and it goes into the model that is trained",
    )


def unchecked(see: str) -> tuple[Row, ...]:
    """What the data step checks of rows, where the trainer reads them by itself: nothing is taken away, nothing checked."""
    return (
        cannot("data.chat_template", "the trainer has templates of its own; use data.rendering: shared", see=see),
        cannot("data.ignore", "the trainer reads each row by itself", see=see),
        handled_by_us("data.require_stop", "checked where data.rendering is shared; here the trainer's own template decides"),
    )


def _rows_from(leaf: str, split: str, key: str) -> Row:
    """A source of rows: the user's files, linked into the job's folder, or data sets of the hub."""

    def to(rows: Rows, part: str, _: Context) -> Values:
        specs = sources(leaf, rows, part)
        return (specs if isinstance(rows, list) else specs[0] if specs else None,)

    def back(spec: list[Flat] | Flat | None, _: Context) -> Values:
        if spec is None:
            return None, defaults()[split]
        if isinstance(spec, list):
            return [{"path": _source_name(s), "split": s["split"], "weight": s["weight"]} for s in spec], defaults()[split]
        return _source_name(spec), spec["split"]

    return couple(
        (leaf, split), (f"{DATA}:{key}",), to, back, why="a file is brought to the host, a hub data set downloaded there"
    )


Rows = str | list[Flat] | None
"""Value of `data.train` or `data.eval`."""


def sources(leaf: str, rows: Rows, split: str) -> list[Flat]:
    """Each source of a leaf: `{"hub", "split"}` or `{"path": where the job finds it, "name": as written, "split"}`, in a list
    also `weight`.
    """
    if rows is None:
        return []
    if isinstance(rows, str):
        return [{"hub": rows, "split": split} if is_hub(rows) else {"path": input_path(leaf, rows), "name": rows, "split": split}]
    return [
        {
            **({"hub": s["path"]} if is_hub(s["path"]) else {"path": input_path(leaf, s["path"], f"-{n}"), "name": s["path"]}),
            "split": s["split"],
            "weight": s["weight"],
        }
        for n, s in enumerate(rows)
    ]


def _source_name(spec: Flat) -> str:
    return str(spec.get("hub", spec.get("name")))


def input_path(leaf: str, name: str, number: str = "") -> str:
    """Where the job finds a data file of the user's, relative to its folder."""
    return f"inputs/{'train' if leaf == 'data.train' else 'val'}{number}{suffix(name)}"


def reward_files(rewards: Sequence[str]) -> dict[str, str]:
    """Where the job finds the files with reward functions -> the files as written. Each keeps no name of its own: what is
    imported is ours to name.
    """
    files = dict.fromkeys(each.rpartition(":")[0] for each in rewards)
    return {f"tune_rewards_{n}.py": file for n, file in enumerate(files)}
