"""Rows through the data step's own code and through transformers, side by side. Runs in a trainer's interpreter.

`python rendering_truth.py CASES FOLDER`: CASES is JSON, [{"template", "rows", "parquet"}]; FOLDER holds a tokenizer. Prints JSON, for each row of
each case {"refused": why} or {"ids", "truth": those of transformers, "parquet": those of the row from a parquet file, "endless": turns
that no token ends, "learned": what carries loss, "unread", "turns", "searched": whether turns are where a search finds them, "placed":
whether the template lets them be placed without one}.
"""

# ruff: noqa: PLC0415 - what only a trainer's interpreter has

import datetime
import json
import sys
from pathlib import Path
from types import SimpleNamespace

import tune_files
from transformers import PreTrainedTokenizerFast
from transformers.utils import chat_template_utils
from tune_files import BadRow, File
from tune_rows import render
from tune_template import Template, loaded
from tune_tokens import Tokens, labelled

SPEC = {
    "format": "chat",
    "template": "chat",
    "columns": {},
    "system": None,
    "train_on_prompt": False,
    "loss_roles": ["assistant"],
}


class Still(datetime.datetime):
    """The data step's clock stands still, so that the same rows are the same tokens on any day."""

    @classmethod
    def now(cls, tz=None):
        """That day."""
        return cls(2024, 7, 26, tzinfo=tz)


chat_template_utils.datetime = Still


def truth(tokenizer, template, row):
    """What transformers makes of the row."""
    messages = [{key: value for key, value in one.items() if value is not None or key == "content"} for one in row["messages"]]
    made = tokenizer.apply_chat_template(
        messages,
        tools=row.get("tools"),
        documents=row.get("documents"),
        chat_template=template,
        return_dict=False,
        **(row.get("chat_template_kwargs") or {}),
    )
    return list(made)


def from_parquet(rows):
    """The rows as a parquet file gives them back: each with every key that any of them has."""
    import pyarrow
    from pyarrow import parquet

    names = dict.fromkeys(name for row in rows for name in row)
    parquet.write_table(pyarrow.Table.from_pylist([dict.fromkeys(names) | row for row in rows]), "rows.parquet")
    return [row for _, row in tune_files.parquet(File("rows.parquet", "rows.parquet"))]


def ours(tokens, template, row):
    """What the data step makes of it."""
    chat = Template(lambda: template)
    try:
        made = render(row, SimpleNamespace(**SPEC, ignore=[]), chat)
    except BadRow as error:
        return {"refused": str(error)}
    searched = Template(lambda: template)
    searched.skeletons = None
    other = render(row, SimpleNamespace(**SPEC, ignore=[]), searched)
    row = labelled("", made, tokens.encode([made.text])[0], tokens, 1 << 30)
    learned = "".join(made.text[start:end] for start, end in made.spans)
    return {
        "ids": list(row.ids),
        "endless": row.endless,
        "learned": learned,
        "unread": made.unread,
        "turns": len(made.turns),
        "searched": ends(other) == ends(made),
        "placed": len(chat.skeletons) == 1 and None not in chat.skeletons.values(),
    }


def ends(made):
    """Where the loss of a row lies, and where its turns end."""
    return made.text, made.spans, [(one.number, one.end, one.forgets) for one in made.turns]


def main(cases, folder):
    """Answer."""
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
    tokens = Tokens(folder, add_eos=True)
    out = []
    for case in json.loads(Path(cases).read_text()):
        path = Path(folder, "case.jinja")
        path.write_text(case["template"])
        template = loaded(folder, tokens.config, str(path))
        rows = []
        for row, back in zip(
            case["rows"], from_parquet(case["rows"]) if case.get("parquet", True) else case["rows"], strict=True
        ):
            answer = ours(tokens, template, row)
            answer["parquet"] = ours(tokens, template, back).get("ids")
            if "ids" in answer:
                answer["truth"] = truth(tokenizer, case["template"], row)
            rows.append(answer)
        out.append(rows)
    print(json.dumps(out))


if __name__ == "__main__":
    main(*sys.argv[1:])
