"""Render a job's data once: `python tune_data.py data.json [--preview ROWS]`, run in the job's folder.

Rows become token ids, truncated, packed if asked, in the order in which they are trained, so that every trainer sees the same.
What a row says and what of it carries loss: tune_rows.py (instruct, completion, chat, text) and tune_pairs.py (preference,
rated, prompts), which lie beside this file. data.json holds the keys of REQUIRED and DEFAULTS; a source is {"path": FILE} or
{"hub": "org/name", "split": "train", "revision": null}; `train` is one or a list of them, each with a `weight` if wanted;
either epochs or steps is given.

Packing   joins rows in file order, greedily, none split, none with another source's; attention crosses the joint, loss does not.
Epoch     holds each row of a source `weight` times: 2.0 is twice, 0.5 a half of the rows, drawn anew by
          random.Random(f"{seed}:{E}:{source}"), 2.5 both. Where rows are packed, it is packed rows.
Order     epoch E is shuffled by random.Random(f"{seed}:{E}"), or file order, less the remainder that fills no batch.

The result is cache/data/KEY (a hash of spec, files, tokenizer and this code), made once, and `data` links to it:
    train.ids.npy train.labels.npy   int32, rows end to end, labels unshifted, -100 = no loss; where rows are texts to learn
    train.starts.npy                 int64, where each row starts, and the end
    train.pairs.jsonl                the same for preference (rated, prompts: train.rated.jsonl, train.prompts.jsonl), a row a line
    train.order.npy                  int64, row numbers; step k, from 0, trains entries k * batch onwards
    eval.*                           the same without order
    manifest.json report.txt         the figures, for programs and for people
With --preview nothing is written but JSON to stdout, a list of the first rows: {"row": N, "tokens": [[text, id, carries loss],
...]}; of tune_pairs.py's kinds {"row": N, "prompt": [...], "chosen": [...], "rejected": [...]}, and so on. The first LOOKED_AT
rows of each source are checked as all of them are otherwise; what a person should know of them goes to stderr.

Refusals go to stderr and, as {"reason": WORD, "detail": TEXT}, to reason.json; the exit code is then 1. Words: bad_spec,
no_data, gated_data, bad_data, bad_model, no_template, no_loss_tokens, no_stop_token, too_long, no_steps, io_error.
"""
# ruff: noqa: PLC0415 - what is ready needs neither numpy nor tokenizers, and must be found in milliseconds

import hashlib
import json
import os
import re
import sys
from itertools import chain
from types import SimpleNamespace

import tune_pairs
import tune_rows
from tune_cache import made_once
from tune_chat import ROLES
from tune_files import Refused, found, read_json, write_json
from tune_order import LOOKED_AT, by_step, check_steps, check_warmup, held_out, needed, ordered
from tune_tally import Tally
from tune_tokens import Tokens

ROOMS = {form: room for room in (tune_rows, tune_pairs) for form in room.FORMATS}
REQUIRED = ("train", "format", "max_length", "batch", "tokenizer")
DEFAULTS = {
    "eval": None,
    "eval_share": None,  # of the training rows, in place of eval
    "columns": {},
    "template": None,  # alpaca for instruct rows, plain for others
    "system": None,
    "loss_roles": ["assistant"],
    "pack": False,
    "train_on_prompt": False,
    "add_eos": True,
    "shuffle": True,
    "seed": 0,
    "epochs": None,
    "steps": None,
    "drop_empty": False,
    "warmup_steps": None,  # given with epochs: they must not be more than the steps
    "ignore": [],  # columns and message keys that are as if they were not there
    "require_stop": True,  # a token at which generation stops ends each turn of the assistant
    "chat_template": None,  # {"path": FILE} that goes before the tokenizer's own
}
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "generation_config.json", "config.json")
LEFT = {"output", "response", "completion", "answer", "prompt", "system", "text", "messages", "chosen", "rejected", "label"} | {
    *("context", "question", "query", "history"),
}
"""Words in braces that someone means to have replaced."""
MOST_WEIGHT = 1000  # as the recipe has it: an epoch is one list of row numbers
PARTS = (
    *("data", "rows", "pairs", "chat", "columns", "template", "turns", "skeleton", "files", "tokens", "tally"),
    *("order", "arrays", "reading", "workers"),
)
CODE = tuple(f"tune_{name}.py" for name in PARTS)


def main(argv):
    """Exit code of the step: 0 made or found ready, 1 refused, 2 wrong words."""
    preview = len(argv) == 3 and argv[1] == "--preview" and argv[2].isdecimal()
    if len(argv) != 1 and not preview:
        print("usage: tune_data.py data.json [--preview ROWS]", file=sys.stderr)
        return 2
    sys.stdout.reconfigure(encoding="utf-8", errors="backslashreplace")
    try:
        spec = read_spec(argv[0])
        print(previewed(spec, int(argv[2])) if preview else made(spec))
    except (Refused, OSError) as error:
        reason = error.reason if isinstance(error, Refused) else "io_error"
        if not preview:
            write_json("reason.json", {"reason": reason, "detail": str(error)})
        print(f"tune_data: {error}", file=sys.stderr)
        return 1
    return 0


def read_spec(path):
    """The spec with every default filled in; everything wrong with it at once."""
    given = read_json(path, "bad_spec")
    spec = SimpleNamespace(**(dict.fromkeys(REQUIRED) | DEFAULTS | given))
    spec.template = spec.template or ("alpaca" if spec.format == "instruct" else "plain")
    wrong = [f"{key}: unknown key" for key in given if key not in REQUIRED and key not in DEFAULTS]
    wrong += [f"{key}: is missing" for key in REQUIRED if given.get(key) is None]
    if spec.format not in ROOMS:
        wrong.append(f"format: should be one of {', '.join(ROOMS)}, got {spec.format!r}")
    if (share := spec.eval_share) is not None and not (isinstance(share, float) and 0 < share < 1 and spec.eval is None):
        wrong.append(f"eval_share: should be a share between 0 and 1, without eval, got {share!r}")
    for key, least in {"max_length": 2, "batch": 1, "epochs": 1, "steps": 1}.items():
        if (value := given.get(key)) is not None and (type(value) is not int or value < least):
            wrong.append(f"{key}: should be an integer of at least {least}, got {value!r}")
    if (spec.epochs is None) == (spec.steps is None):
        wrong.append("steps: give either epochs or steps")
    wrong += [line for key in ("train", "eval") for line in source_problems(key, given.get(key))] + form_problems(spec)
    if wrong:
        raise Refused("bad_spec", "\n".join(f"{path}: {line}" for line in wrong))
    return spec


def source_problems(key, wish):
    """What is wrong with a source, or with each of a list of them."""
    if wish is None:
        return []
    wrong = [] if wish else [f"{key}: should name a source, got {wish!r}"]
    for one in wish if isinstance(wish, list) else [wish]:
        if not (isinstance(one, dict) and (one.get("path") or one.get("hub"))):
            wrong.append(f'{key}: should be {{"path": FILE}} or {{"hub": NAME}}, got {one!r}')
        elif type(one.get("weight", 1.0)) not in (int, float) or not 0 < one.get("weight", 1.0) <= MOST_WEIGHT:
            wrong.append(f"{key}: weight should be a number above 0 and at most {MOST_WEIGHT}, got {one['weight']!r}")
    return wrong


def form_problems(spec):
    """What is wrong with the settings of rows of this format."""
    wrong, answered = words_left(spec), spec.format in tune_pairs.FORMATS
    if spec.format in ("text", "completion") and spec.system:
        wrong.append("system: plain text has no system prompt; put it into the rows")
    if spec.format == "instruct" and spec.template not in ("alpaca", "plain", "chat") and "{instruction}" not in spec.template:
        wrong.append(f"template: should be alpaca, plain, chat or a text with {{instruction}}, got {spec.template!r}")
    if answered and spec.template not in ("plain", "chat"):
        wrong.append(f"template: should be plain or chat for format {spec.format}, got {spec.template!r}")
    for key in ("pack", "train_on_prompt"):
        if answered and getattr(spec, key):
            wrong.append(f"{key}: should be false for format {spec.format}, whose answers are compared one by one")
    roles = spec.loss_roles
    if not (isinstance(roles, list) and roles and all(role in ROLES for role in roles)):
        wrong.append(f"loss_roles: should be a list of {', '.join(ROLES)}, got {roles!r}")
    return wrong


def words_left(spec):
    """What is wrong with the words in braces of a template: one that nothing replaces would be learned as it stands."""
    if spec.format != "instruct":
        return []
    wrong = []
    for braces, name in re.findall(r"(\{+ *(\w+) *\}+)", spec.template):
        if name in ("instruction", "input"):  # replaced, also where a column has the same name
            if braces != f"{{{name}}}":
                wrong.append(f"template: {braces} would be left as text in part: write {{{name}}}")
        elif name.lower() in (*LEFT, "instruction", "input") or name in spec.columns.values():
            wrong.append(
                f"template: {braces} would be left as text: only {{instruction}} and {{input}} are replaced; the output follows "
                "the template by itself, and data.system is put before it"
            )
    return wrong


# Made once


def made(spec):
    """Make the data unless they are ready, and let `data` link to them; the report."""
    folder = ready(spec)
    fresh = f".data.{os.getpid()}"
    os.symlink(folder, fresh)
    os.replace(fresh, "data")
    with open(os.path.join(folder, "report.txt"), encoding="utf-8") as file:
        return file.read()


def ready(spec):
    """The folder with the data of a spec, made unless it is there."""
    sources = {key: sources_of(wish) for key, wish in (("train", spec.train), ("eval", spec.eval)) if wish}
    folder = os.path.join("cache", "data", key_of(spec, sources))
    made_once(folder, lambda aside: write(spec, sources, aside))
    return folder


def sources_of(wish):
    """The Sources that a wish, or a list of them, names."""
    return [found(one) for one in (wish if isinstance(wish, list) else [wish])]


def key_of(spec, sources):
    """Hash of all that decides the result: the spec, the rows, the tokenizer, and the code."""
    here = os.path.dirname(os.path.abspath(__file__))
    parts = {
        **{
            f"{key} {n} {one.weight}": [file.path for file in one.files]
            for key, some in sources.items()
            for n, one in enumerate(some)
        },
        "tokenizer": [os.path.join(spec.tokenizer, name) for name in TOKENIZER_FILES],
        "template": [spec.chat_template["path"]] if spec.chat_template else [],
        "code": [os.path.join(here, name) for name in CODE],
    }
    wish = {key: value for key, value in vars(spec).items() if key not in ("train", "eval", "tokenizer")}
    digest = hashlib.sha256(json.dumps(wish, sort_keys=True).encode())
    for part, path in [(part, path) for part, paths in parts.items() for path in paths if os.path.exists(path)]:
        digest.update(f"\0{part} {os.path.basename(path)} {os.path.getsize(path)}\0".encode())
        with open(path, "rb") as file:
            while chunk := file.read(1 << 20):
                digest.update(chunk)
    return digest.hexdigest()[:32]


# The data as a whole


def previewed(spec, count):
    """The first rows, token by token, as JSON; refused as the whole is, as far as it is read."""
    room, tokens = ROOMS[spec.format], tokens_of(spec)
    for name, sources in ((key, sources_of(wish)) for key, wish in (("eval", spec.eval), ("train", spec.train)) if wish):
        tally = Tally(name, room.NOUNS[spec.format], room.LACK)
        first = room.previewed(sources, spec, tokens, tally, count, max(count, LOOKED_AT))
        tally.check(sources, spec)
        whole = all(rows < max(count, LOOKED_AT) for rows in tally.read.values())
        if name == "train" and whole and not (spec.pack or spec.eval_share) and len(sources) == 1 and sources[0].weight == 1:
            check_steps(spec, tally.rows_in - tally.empty.count)
        for line in tally.notes(tokens):
            print(line, file=sys.stderr)
        if not whole:
            print(f"{name}: the first {max(count, LOOKED_AT):,} rows of each source were read", file=sys.stderr)
    return json.dumps(first)


def tokens_of(spec):
    """The model's tokenizer, with what the spec says of it."""
    return Tokens(spec.tokenizer, spec.add_eos, spec.chat_template and spec.chat_template["path"])


def write(spec, sources, folder):
    """Fill the folder: rows, order, manifest, report."""
    import numpy as np

    tokens, collected, held = tokens_of(spec), ROOMS[spec.format].collected, held_out(sources["train"], spec)
    few = needed(sources["train"], spec, held and held.trained)
    train = collected("train", sources["train"], spec, tokens, folder, few[1] if few else held and held.trained)
    if few and train.empty:  # which rows there are then follows from what is in all of them
        few, train = None, collected("train", sources["train"], spec, tokens, folder, held and held.trained)
    sets = {"train": train} | {
        name: collected(name, some, spec, tokens, folder) for name, some in sources.items() if name != "train"
    }
    if held:
        sets["eval"] = collected("eval", sources["train"], spec, tokens, folder, held.evaluated)
    parts, order = (few[0], few[2]) if few else (train.parts, np.asarray(ordered(train.parts, spec)))
    np.save(os.path.join(folder, "train.order.npy"), order)
    check_warmup(spec, len(order) // spec.batch)
    digest = hashlib.sha256()
    for part in chain([order], train.content):  # one by one: together they are as large as all rows
        digest.update(part)
    counts = {name: one.counted(tokens) for name, one in sets.items()}
    named = [{"name": source.name, "rows": rows, "weight": source.weight} for source, rows in parts]
    about = {
        "format": spec.format,
        "sources": named,
        "pad_id": tokens.pad,
        "seed": spec.seed,
        "eval": counts.get("eval"),
        "sha256": digest.hexdigest(),
    }
    manifest = {**counts["train"], **by_step(train, parts, order, spec), **about}
    if few:
        whole = sum(rows for _, rows in parts)
        manifest["notes"].append(
            f"train: {len(set(order.tolist())):,} of {whole:,} {train.noun} are trained in {manifest['steps']:,} steps; "
            f"{train.rows_in:,} were read and checked"
        )
    if left := manifest["left_out_per_epoch"]:
        manifest["notes"].append(f"train: {left:,} {train.noun} left out of each epoch: they fill no batch")
    manifest["notes"] += counts["eval"]["notes"] if "eval" in counts else []
    write_json(os.path.join(folder, "manifest.json"), manifest)
    with open(os.path.join(folder, "report.txt"), "w", encoding="utf-8", errors="backslashreplace") as file:
        file.write(report(manifest, spec, train))


def report(manifest, spec, train):
    """The figures for people, and one row with what carries loss between brackets."""

    def line(name, one):
        longest = "".join(f", {key.replace('_', ' ')} {one[key]:,}" for key in train.longest)
        return (
            f"{name}: {one['rows']:,} {'packed ' * spec.pack}{train.noun} of {one['rows_in']:,}, {one['tokens']:,} tokens, "
            f"{one['loss_tokens']:,} with loss, {one['truncated']:,} {train.noun} truncated at {spec.max_length:,}, "
            f"{one['dropped_empty']:,} dropped without loss{longest}"
        )

    sets = [line("train", manifest), *([line("eval", manifest["eval"])] if manifest["eval"] else [])]
    if len(train.parts) > 1:
        sets += [f"  {one['name']}: {one['rows']:,} of them, {one['weight']:g} times an epoch" for one in manifest["sources"]]
    steps = (
        f"steps: {manifest['steps']:,}, each of {spec.batch:,} rows; epochs: {manifest['epochs']:.4g}; "
        f"rows left out of each epoch: {manifest['left_out_per_epoch']:,}"
    )
    return "\n".join([*sets, steps, *manifest["notes"], f"one row, loss between ⟦ ⟧: {train.sample}"])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
