"""Where rows come from: files of the job, or a split of a data set on the hub; read one by one, each with its place.

Files: .jsonl (an object a line), .json (one list), .parquet (where pyarrow is installed), .txt (a line a row, as {text});
    blank lines are skipped.
"""
# ruff: noqa: PLC0415 - the hub's client and pyarrow only where a file needs them

import hashlib
import json
import os
from collections import namedtuple
from itertools import chain, islice

from tune_cache import made_once

MOST_PROBLEMS = 20
Source = namedtuple("Source", "name paths weight")


class Refused(Exception):
    """What the user can mend: one word for programs, one text for people."""

    def __init__(self, reason, detail):
        super().__init__(detail)
        self.reason = reason


class BadRow(ValueError):
    """What is wrong with one row; reported with its place, many at once."""


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


# Where the files are


def found(wish):
    """The Source that {"path"} or {"hub", "split", "revision"} names, maybe with a weight; all its files exist and have a reader."""
    paths = hub_files(wish) if wish.get("hub") else [wish["path"]]
    for path in paths:
        if not os.path.isfile(path):
            raise Refused("no_data", f"{path}: no such file")
        if os.path.splitext(path)[1] not in READERS:
            raise Refused("bad_data", f"{path}: should end in one of {', '.join(READERS)}")
    return Source(wish.get("hub") or wish["path"], paths, wish.get("weight", 1.0))


def hub_files(wish):
    """The files of one split of a data set on the hub, downloaded once; delete the folder to ask again what `main` is."""
    asked = [wish["hub"], wish.get("revision") or "main", wish.get("split") or "train"]
    folder = os.path.join("cache", "datasets", hashlib.sha256(json.dumps(asked).encode()).hexdigest()[:32])

    def fill(aside):
        files, commit = download(*asked, aside)
        write_json(os.path.join(aside, "files.json"), {"files": files, "revision": commit})

    made_once(folder, fill)
    return [os.path.join(folder, path) for path in read_json(os.path.join(folder, "files.json"), "io_error")["files"]]


def download(name, revision, split, folder):
    """Fetch one split of a data set of the hub: its files' paths inside the folder, and the commit."""
    from huggingface_hub import HfApi, errors, snapshot_download

    try:
        info = HfApi().dataset_info(name, revision=revision)
        files = split_files([file.rfilename for file in info.siblings], split)
        patterns = [file.replace("[", "[[]") for file in files]
        snapshot_download(name, repo_type="dataset", revision=info.sha, local_dir=folder, allow_patterns=patterns)
        if lost := [file for file in files if not os.path.exists(os.path.join(folder, file))]:
            raise ConnectionError(f"the download broke off before {lost[0]}")
    except errors.GatedRepoError:
        raise Refused(
            "gated_data",
            f"{name}: is gated: accept its terms at https://huggingface.co/datasets/{name}, then set "
            "HF_TOKEN to a token of that account and name it under `secrets`",
        ) from None
    except Exception as error:  # unknown, private, out of reach: the client's errors differ by version
        if getattr(error, "errno", None):  # the disk's, not the hub's
            raise
        line = str(error).strip().partition("\n")[0]
        raise Refused(
            "no_data",
            f"{name}: not on the hub, or private, or the hub is out of reach: mind the spelling, name "
            f"HF_TOKEN under `secrets`, or give a path ({line})",
        ) from None
    if len({os.path.dirname(file) for file in files}) != 1:
        where = f"lies in several folders: {', '.join(files[:9])}" if files else "is in no .jsonl, .json or .parquet file"
        raise Refused("no_data", f"{name}: split {split!r} {where}; download the files wanted and give a path")
    return files, info.sha


def split_files(files, split):
    """A split's files, in one format: those which it names, or whose folder it names; a lone file is `train`."""

    def belongs(file):
        return any(part.partition(mark)[0] == split for part in file.split("/") for mark in ".-_")

    by_format = [sorted(file for file in files if file.endswith(suffix)) for suffix in (".jsonl", ".json", ".parquet")]
    named = ([file for file in some if belongs(file)] for some in by_format)
    lone = list(chain(*by_format))
    return next(filter(None, named), lone if len(lone) == 1 and split == "train" else [])


def json_lines(path):
    """Rows of a file with a JSON object a line, still as text."""
    with open(path, "rb") as file:
        yield from ((f"{path}:{number}", line) for number, line in enumerate(file, 1) if line.strip())


def json_list(path):
    """Rows of a file that holds one JSON list."""
    try:
        with open(path, "rb") as file:
            rows = json.loads(file.read())
    except (ValueError, RecursionError) as error:
        raise Refused("bad_data", f"{path}: not JSON: {error}") from None
    if not isinstance(rows, list):
        raise Refused("bad_data", f"{path}: should hold one list of rows; a file with a row a line is called .jsonl")
    yield from ((f"{path}: row {number}", row) for number, row in enumerate(rows, 1))


def parquet(path):
    """Rows of a parquet file."""
    try:
        from pyarrow.parquet import ParquetFile
    except ImportError:
        raise Refused("bad_data", f"{path}: needs pyarrow, which this trainer's environment lacks; give .jsonl") from None
    try:
        rows = chain.from_iterable(batch.to_pylist() for batch in ParquetFile(path).iter_batches())
        yield from ((f"{path}: row {number}", row) for number, row in enumerate(rows, 1))
    except ValueError as error:  # pyarrow.ArrowInvalid is one
        raise Refused("bad_data", f"{path}: not parquet: {error}") from None


def text_lines(path):
    """Rows of a plain text, a line each."""
    with open(path, encoding="utf-8", errors="surrogateescape") as file:
        yield from ((f"{path}:{number}", {"text": line.rstrip("\n")}) for number, line in enumerate(file, 1) if line.strip())


READERS = {".jsonl": json_lines, ".json": json_list, ".parquet": parquet, ".txt": text_lines}


def each(paths, make, most=None):
    """(place, make(row)) of the rows, the first `most`; in the end the first bad ones, if there are any, all at once."""
    problems = []
    rows = chain.from_iterable(READERS[os.path.splitext(path)[1]](path) for path in paths)
    for where, row in islice(rows, most):
        try:
            made = make(whole(json.loads(row) if isinstance(row, bytes) else row))
        except UnicodeError:
            problems.append(f"{where}: holds what is no UTF-8 text, or half a surrogate pair")
        except (ValueError, RecursionError) as error:
            problems.append(f"{where}: {error}")
        else:
            yield where, made
        if len(problems) == MOST_PROBLEMS:
            problems.append("(there may be more)")
            break
    if problems:
        raise Refused("bad_data", "\n".join(problems))


def whole(row):
    """The row, if it is one."""
    if not isinstance(row, dict):
        raise BadRow(f"should be an object with columns, got {type(row).__name__}")
    return row


def cell(row, columns, name):
    """What stands in our column `name`, by the file's name for it; refused when there is none."""
    theirs = columns.get(name) or name
    if theirs not in row:
        raise BadRow(f"has no column {theirs!r}, only {', '.join(map(repr, row))} (data.columns names them)")
    return row[theirs]


def text_cell(row, columns, name, optional=False):
    """The text in our column `name`; "" when an optional one is absent or null."""
    theirs = columns.get(name) or name
    if optional and row.get(theirs) is None:
        return ""
    value = cell(row, columns, name)
    if not isinstance(value, str):
        raise BadRow(f"column {theirs!r}: should be text, got {type(value).__name__}")
    return value
