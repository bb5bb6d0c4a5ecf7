"""Render a job's data once: `python tune_data.py data.json [--preview ROWS]`, run in the job's folder.

Rows become token ids and labels (unshifted, -100 = no loss), truncated, packed if asked, in the order in which they are
trained, so that every trainer sees the same. What a row says and which parts carry loss: tune_rows.py, which lies beside
this file. data.json holds the keys of REQUIRED and DEFAULTS; `train` and `eval` are {"path": FILE} or {"hub": "org/name",
"split": "train", "revision": null}, and either epochs or steps is given.

Tokens    the text as a whole, so a token may straddle two parts: it belongs to the part in which it ends. Around a chat
          template's text nothing is put; around any other the tokenizer's own opening tokens (BOS, unless the text begins
          with it; no loss) and, with `add_eos`, EOS (with loss). The first token of a row never carries loss: nothing
          predicts it. Truncation at `max_length` cuts on the right, EOS too.
Packing   joins rows in file order, greedily, none split; attention crosses the joint, loss does not.
Order     epoch E is shuffled by random.Random(f"{seed}:{E}"), or file order, less the remainder that fills no batch.

The result is cache/data/KEY (a hash of spec, files, tokenizer and this code), made once, and `data` links to it:
    train.ids.npy train.labels.npy   int32, rows end to end
    train.starts.npy                 int64, where each row starts, and the end
    train.order.npy                  int64, row numbers; step k, from 0, trains entries k * batch onwards
    eval.*                           the same without order
    manifest.json report.txt         the figures, for programs and for people
With --preview nothing is written but JSON to stdout: [{"row": N, "tokens": [[text, id, carries loss], ...]}, ...].

Refusals go to stderr and, as {"reason": WORD, "detail": TEXT}, to reason.json; the exit code is then 1. Words: bad_spec,
no_data, gated_data, bad_data, bad_model, no_template, no_loss_tokens, too_long, no_steps, io_error.
"""
# ruff: noqa: PLC0415 - what is ready needs neither numpy nor tokenizers, and must be found in milliseconds

import hashlib
import json
import os
import sys
from array import array
from collections import namedtuple
from itertools import groupby, islice, pairwise
from types import SimpleNamespace

from tune_cache import made_once
from tune_rows import READERS, Refused, chat_renderer, download, rendered, token_text

NO_LOSS = -100
REQUIRED = ("train", "format", "max_length", "batch", "tokenizer")
DEFAULTS = {
    "eval": None,
    "columns": {},
    "template": "alpaca",
    "system": None,
    "pack": False,
    "train_on_prompt": False,
    "add_eos": True,
    "shuffle": True,
    "seed": 0,
    "epochs": None,
    "steps": None,
    "drop_empty": False,
}
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "generation_config.json", "config.json")
AT_ONCE = 256  # rows tokenized in one call: enough for every core, little in memory
Row = namedtuple("Row", "where text encoding opened ids labels truncated")


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
    wrong = [f"{key}: unknown key" for key in given if key not in REQUIRED and key not in DEFAULTS]
    wrong += [f"{key}: is missing" for key in REQUIRED if given.get(key) is None]
    if spec.format not in ("instruct", "chat", "text"):
        wrong.append(f"format: should be instruct, chat or text, got {spec.format!r}")
    for key in ("train", "eval"):
        source = given.get(key)
        if source is not None and not (isinstance(source, dict) and (source.get("path") or source.get("hub"))):
            wrong.append(f'{key}: should be {{"path": FILE}} or {{"hub": NAME}}, got {source!r}')
    for key, least in {"max_length": 2, "batch": 1, "epochs": 1, "steps": 1}.items():
        if (value := given.get(key)) is not None and (type(value) is not int or value < least):
            wrong.append(f"{key}: should be an integer of at least {least}, got {value!r}")
    if (spec.epochs is None) == (spec.steps is None):
        wrong.append("steps: give either epochs or steps")
    if spec.format == "text" and spec.system:
        wrong.append("system: plain text has no system prompt; put it into the rows")
    if spec.format == "instruct" and spec.template not in ("alpaca", "plain", "chat") and "{instruction}" not in spec.template:
        wrong.append(f"template: should be alpaca, plain, chat or a text with {{instruction}}, got {spec.template!r}")
    if wrong:
        raise Refused("bad_spec", "\n".join(f"{path}: {line}" for line in wrong))
    return spec


def read_json(path, reason):
    """The JSON object in a file; refused for `reason` when there is none."""
    try:
        with open(path, encoding="utf-8") as file:
            value = json.load(file)
    except ValueError as error:
        raise Refused(reason, f"{path}: not JSON: {error}") from None
    if not isinstance(value, dict):
        raise Refused(reason, f"{path}: should hold an object, got {type(value).__name__}")
    return value


def write_json(path, value):
    """Write a value as JSON."""
    with open(path, "w", encoding="utf-8") as file:
        json.dump(value, file)


# Made once


def made(spec):
    """Make the data unless they are ready, and let `data` link to them; the report."""
    sources = {name: files_of(source) for name, source in (("train", spec.train), ("eval", spec.eval)) if source}
    folder = os.path.join("cache", "data", key_of(spec, sources))
    made_once(folder, lambda aside: write(spec, sources, aside))
    fresh = f".data.{os.getpid()}"
    os.symlink(folder, fresh)
    os.replace(fresh, "data")
    with open(os.path.join(folder, "report.txt"), encoding="utf-8") as file:
        return file.read()


def key_of(spec, sources):
    """Hash of all that decides the result: the spec, the rows, the tokenizer, and the code."""
    here = os.path.dirname(os.path.abspath(__file__))
    parts = {
        **sources,
        "tokenizer": [os.path.join(spec.tokenizer, name) for name in TOKENIZER_FILES],
        "code": [os.path.join(here, name) for name in ("tune_data.py", "tune_rows.py")],
    }
    wish = {key: value for key, value in vars(spec).items() if key not in ("train", "eval", "tokenizer")}
    digest = hashlib.sha256(json.dumps(wish, sort_keys=True).encode())
    for part, path in [(part, path) for part, paths in parts.items() for path in paths if os.path.exists(path)]:
        digest.update(f"\0{part} {os.path.basename(path)} {os.path.getsize(path)}\0".encode())
        with open(path, "rb") as file:
            while chunk := file.read(1 << 20):
                digest.update(chunk)
    return digest.hexdigest()[:32]


# Where the files are


def files_of(source):
    """The files of a source, all of which exist and have a reader."""
    paths = hub_files(source) if source.get("hub") else [source["path"]]
    for path in paths:
        if not os.path.isfile(path):
            raise Refused("no_data", f"{path}: no such file")
        if os.path.splitext(path)[1] not in READERS:
            raise Refused("bad_data", f"{path}: should end in one of {', '.join(READERS)}")
    return paths


def hub_files(source):
    """The files of one split of a data set on the hub, downloaded once; delete the folder to ask again what `main` is."""
    wish = [source["hub"], source.get("revision") or "main", source.get("split") or "train"]
    folder = os.path.join("cache", "datasets", hashlib.sha256(json.dumps(wish).encode()).hexdigest()[:32])

    def fill(aside):
        files, commit = download(*wish, aside)
        write_json(os.path.join(aside, "files.json"), {"files": files, "revision": commit})

    made_once(folder, fill)
    return [os.path.join(folder, path) for path in read_json(os.path.join(folder, "files.json"), "io_error")["files"]]


# Tokens


def load_tokenizer(spec):
    """The tokenizer, bare, with what stands around a row (opening, closing ids), the id of padding, and the chat template."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    from tokenizers import Tokenizer

    folder = spec.tokenizer
    try:
        tokenizer = Tokenizer.from_file(os.path.join(folder, "tokenizer.json"))
    except Exception as error:  # the library raises bare Exception
        raise Refused("bad_model", f"{folder}/tokenizer.json: {error}") from None
    tokenizer.no_truncation()
    tokenizer.no_padding()
    opening = opening_ids(tokenizer)
    tokenizer.post_processor = None  # it would trim white space off the tokens' places in the text
    config, model, ids = special_ids(folder, tokenizer)
    if isinstance(config.get("add_bos_token"), bool):  # decides over the post-processor, as in transformers 5
        opening = [ids["bos"]] if config["add_bos_token"] and ids["bos"] is not None else []
    chat = spec.format == "chat" or (spec.format == "instruct" and spec.template == "chat")
    if spec.add_eos and not chat and ids["eos"] is None:
        raise Refused("bad_model", f"{folder}: names no EOS token: set data.add_eos to false, or mend tokenizer_config.json")
    return SimpleNamespace(
        encode=lambda texts: tokenizer.encode_batch(texts, add_special_tokens=False),
        name=tokenizer.id_to_token,
        opening=[] if chat else opening,
        closing=[ids["eos"]] if spec.add_eos and not chat else [],
        pad=next(one for one in (ids["pad"], ids["eos"], 0) if one is not None),
        chat=chat_renderer(folder, config) if chat else None,
        vocabulary=model.get("vocab_size"),
        positions=model.get("max_position_embeddings"),
    )


def opening_ids(tokenizer):
    """The special tokens that the tokenizer itself puts before a text."""
    probe = tokenizer.encode("a")
    return probe.ids[: next((at for at, special in enumerate(probe.special_tokens_mask) if not special), 0)]


def special_ids(folder, tokenizer):
    """The tokenizer's and the model's configuration, and the ids of bos, eos and pad by the first file that names them."""

    def read(name):
        path = os.path.join(folder, name)
        return read_json(path, "bad_model") if os.path.exists(path) else {}

    config, model, ids = read("tokenizer_config.json"), read("config.json"), {}
    try:
        generation = read("generation_config.json")
    except Refused:  # Llama 3.2's was published with a comma too many
        generation = {}
    for kind in ("bos", "eos", "pad"):
        text = token_text(config.get(f"{kind}_token"))
        found = [tokenizer.token_to_id(text) if text else None, *(facts.get(f"{kind}_token_id") for facts in (generation, model))]
        found = [one[0] if isinstance(one, list) and one else one for one in found]
        ids[kind] = next((one for one in found if isinstance(one, int)), None)
    return config, model, ids


def encoded(rows, spec, tokenizer):
    """Each (place, text, spans) as a Row of ids and labels."""
    rows = iter(rows)
    while some := list(islice(rows, AT_ONCE)):
        encodings = tokenizer.encode([text for _, text, _ in some])
        yield from (labelled(row, encoding, spec, tokenizer) for row, encoding in zip(some, encodings, strict=True))


def labelled(row, encoding, spec, tokenizer):
    """The tokens of one text with those around it, the labels, both cut at max_length."""
    (where, text, spans), ids, opening = row, encoding.ids, tokenizer.opening
    labels = [NO_LOSS] * len(ids)
    for start, end in spans:
        within = slice(token_at(encoding, start, text), token_at(encoding, end, text))
        labels[within] = ids[within]
    if ids[: len(opening)] == opening:
        opening = []
    ids = [*opening, *ids, *tokenizer.closing]
    labels = [*[NO_LOSS] * len(opening), *labels, *tokenizer.closing]
    labels[:1] = [NO_LOSS] * len(labels[:1])
    most = spec.max_length
    return Row(where, text, encoding, len(opening), ids[:most], labels[:most], len(ids) > most)


def token_at(encoding, position, text):
    """The first token that holds the character at `position`, or one behind it; the count of tokens where there is none."""
    held = (encoding.char_to_token(at) for at in range(position, len(text)))
    return next((token for token in held if token is not None), len(encoding.ids))


def pieces(row, tokenizer):
    """Each token's (text, id, carries loss); a character of several tokens is shown with the first of them."""
    texts, done = [tokenizer.name(token) for token in row.ids[: row.opened]], 0
    for _, end in row.encoding.offsets:
        texts.append(row.text[done:end])
        done = max(done, end)
    texts += [tokenizer.name(token) for token in tokenizer.closing]
    return [(text, token, label != NO_LOSS) for text, token, label in zip(texts, row.ids, row.labels, strict=False)]


def previewed(spec, most):
    """The first rows, token by token, as JSON."""
    tokenizer = load_tokenizer(spec)
    rows = encoded(rendered(files_of(spec.train), spec, tokenizer.chat, most), spec, tokenizer)
    return json.dumps([{"row": number, "tokens": pieces(row, tokenizer)} for number, row in enumerate(rows, 1)])


# The data as a whole


def write(spec, sources, folder):
    """Fill the folder: arrays, manifest, report."""
    import numpy as np

    tokenizer = load_tokenizer(spec)
    data = {name: collected(name, paths, spec, tokenizer) for name, paths in sources.items()}
    order = np.asarray(ordered(len(data["train"].starts) - 1, spec))
    np.save(os.path.join(folder, "train.order.npy"), order)
    for name, one in data.items():
        for kind in ("ids", "labels", "starts"):
            np.save(os.path.join(folder, f"{name}.{kind}.npy"), np.asarray(getattr(one, kind)))
    counts = {name: counted(one, tokenizer, name) for name, one in data.items()}
    train = data["train"]
    digest = hashlib.sha256()
    for part in (order, train.ids, train.labels):
        digest.update(part)
    about = {"pad_id": tokenizer.pad, "eval": counts.get("eval"), "sha256": digest.hexdigest()}
    manifest = {**counts["train"], **by_step(train, order, spec), **about}
    write_json(os.path.join(folder, "manifest.json"), manifest)
    with open(os.path.join(folder, "report.txt"), "w", encoding="utf-8", errors="backslashreplace") as file:
        file.write(report(manifest, spec, train.sample))


def collected(name, paths, spec, tokenizer):
    """All rows end to end, with their counts and the first one to show; refused when rows without loss are not accepted."""
    data = SimpleNamespace(ids=array("i"), labels=array("i"), starts=array("q", [0]), rows_in=0, truncated=0, empty=[], sample="")
    for row in encoded(rendered(paths, spec, tokenizer.chat), spec, tokenizer):
        data.rows_in += 1
        if row.labels.count(NO_LOSS) == len(row.labels):
            data.empty.append(row.where)
            continue
        data.sample = data.sample or f"{row.where}\n{marked(pieces(row, tokenizer))}"
        data.truncated += row.truncated
        data.ids.extend(row.ids)
        data.labels.extend(row.labels)
        data.starts.append(len(data.ids))
    if not data.rows_in:
        raise Refused("bad_data", f"{', '.join(paths)}: no rows")
    if len(data.empty) == data.rows_in or (data.empty and not spec.drop_empty):
        raise Refused(
            "no_loss_tokens",
            f"{name}: {len(data.empty)} of {data.rows_in} rows have no token with loss within "
            f"max_length, {spec.max_length}: {', '.join(data.empty[:10])}: raise data.max_length, mend the rows, "
            "or let such rows be dropped (drop_empty), unless it is all of them",
        )
    if spec.pack:
        data.starts = packed(data.starts, spec.max_length)
    return data


def packed(starts, most):
    """The starts of joined rows: as many whole rows one after another as fit into `most` tokens."""
    kept = array("q", [0])
    for start, end in pairwise(starts):
        if end - kept[-1] > most:
            kept.append(start)
    kept.append(starts[-1])
    return kept


def ordered(rows, spec):
    """Row numbers in the order in which they are trained, whole batches only."""
    import random

    per_epoch = rows // spec.batch * spec.batch
    if not per_epoch:
        raise Refused(
            "no_steps",
            f"{rows} {'packed ' * spec.pack}rows do not fill one batch of {spec.batch}: set "
            f"train.batch.global to at most {rows}, or give more rows",
        )
    total = spec.steps * spec.batch if spec.steps else spec.epochs * per_epoch
    order = array("q")
    for epoch in range(-(-total // per_epoch)):
        numbers = list(range(rows))
        if spec.shuffle:
            random.Random(f"{spec.seed}:{epoch}").shuffle(numbers)  # noqa: S311 - an order, not a secret
        order.extend(numbers[:per_epoch])
    return order[:total]


def counted(data, tokenizer, name):
    """The figures of one set; refused when the model cannot hold what is in it."""
    import numpy as np

    longest = int(np.diff(data.starts).max())
    if tokenizer.positions and longest > tokenizer.positions:
        raise Refused(
            "too_long",
            f"{name}: a row has {longest} tokens, but the model holds {tokenizer.positions} positions: "
            f"set data.max_length to at most {tokenizer.positions}",
        )
    largest = int(np.asarray(data.ids).max())
    if tokenizer.vocabulary and largest >= tokenizer.vocabulary:
        raise Refused(
            "bad_model",
            f"{name}: the tokenizer makes id {largest}, but the model's vocab_size is "
            f"{tokenizer.vocabulary}: tokenizer and model do not belong together",
        )
    return {
        "rows": len(data.starts) - 1,
        "rows_in": data.rows_in,
        "tokens": len(data.ids),
        "loss_tokens": len(data.labels) - data.labels.count(NO_LOSS),
        "truncated": data.truncated,
        "dropped_empty": len(data.empty),
        "longest": longest,
    }


def by_step(data, order, spec):
    """The schedule, and how many tokens each step trains."""
    import numpy as np

    rows = len(data.starts) - 1
    per_epoch, steps = rows // spec.batch, len(order) // spec.batch
    loss = np.add.reduceat(np.asarray(data.labels) != NO_LOSS, data.starts[:-1], dtype=np.int64)
    return {
        "steps": steps,
        "epochs": steps / per_epoch,
        "batch": spec.batch,
        "left_out_per_epoch": rows % spec.batch,
        "tokens_per_step": np.diff(data.starts)[order].reshape(steps, spec.batch).sum(1).tolist(),
        "loss_tokens_per_step": loss[order].reshape(steps, spec.batch).sum(1).tolist(),
    }


def report(manifest, spec, sample):
    """The figures for people, and one row with what carries loss between brackets."""

    def line(name, one):
        return (
            f"{name}: {one['rows']:,} {'packed ' * spec.pack}rows of {one['rows_in']:,}, {one['tokens']:,} tokens, "
            f"{one['loss_tokens']:,} with loss, {one['truncated']:,} rows truncated at {spec.max_length:,}, "
            f"{one['dropped_empty']:,} dropped without loss, longest {one['longest']:,}"
        )

    sets = [line("train", manifest), *([line("eval", manifest["eval"])] if manifest["eval"] else [])]
    steps = (
        f"steps: {manifest['steps']:,}, each of {spec.batch:,} rows; epochs: {manifest['epochs']:.4g}; "
        f"rows left out of each epoch: {manifest['left_out_per_epoch']:,}"
    )
    return "\n".join([*sets, steps, f"one row, loss between ⟦ ⟧: {sample}"])


def marked(tokens):
    """The text of tokens with those that carry loss between brackets; control characters are shown, not obeyed."""
    runs = ((loss, "".join(text for text, _, _ in run)) for loss, run in groupby(tokens, key=lambda token: token[2]))
    text = "".join(f"⟦{run}⟧" if loss else run for loss, run in runs)
    return "".join(letter if letter.isprintable() or letter == "\n" else repr(letter)[1:-1] for letter in text)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
