"""Where rows come from: files of the job, or a split of a data set on the hub; read one by one, each with its place.

Files: .jsonl (an object a line), .json (one list), .parquet (where pyarrow is installed), .txt (a line a row, as {text});
    blank lines are skipped, and so is a byte order mark. A line ends with LF or CR LF; a lone CR is part of its row.
Null:  parquet fills every key that a row lacks and another row has. A key within a column that holds null there is absent.
"""
# ruff: noqa: PLC0415 - the hub's client and pyarrow only where a file needs them

import hashlib
import json
import os
from collections import namedtuple
from itertools import chain

from tune_cache import made_once

BOM = b"\xef\xbb\xbf"
Source = namedtuple("Source", "name files weight")
Source.__doc__ = "Where rows come from: its name as the recipe has it, its Files, and how often each row comes in an epoch."
File = namedtuple("File", "path name")
File.__doc__ = "A file of rows: where the job finds it, and how the user knows it."


class Refused(Exception):
    """What the user can mend: one word for programs, one text for people."""

    def __init__(self, reason, detail):
        super().__init__(detail)
        self.reason = reason

    def __reduce__(self):
        """As it goes from a process to another."""
        return Refused, (self.reason, str(self))


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
    """The Source that {"path", "name"} or {"hub", "split", "revision"} names, maybe with a weight; all its files can be read."""
    name = wish.get("hub") or wish.get("name") or wish["path"]
    files = hub_files(wish) if wish.get("hub") else [File(wish["path"], name)]
    for path, shown in files:
        if not os.path.isfile(path):
            raise Refused("no_data", f"{shown}: no such file")
        if os.path.splitext(path)[1] not in READERS:
            raise Refused("bad_data", f"{shown}: should end in one of {', '.join(READERS)}: write its rows as one of them")
        with open(path, "rb") as file:
            if file.read(2) in (b"\xff\xfe", b"\xfe\xff"):
                raise Refused("bad_data", f"{shown}: is UTF-16: write it as UTF-8 (iconv -f UTF-16 -t UTF-8)")
    return Source(name, files, wish.get("weight", 1.0))


def hub_files(wish):
    """The files of one split of a data set on the hub, downloaded once; delete the folder to ask again what `main` is."""
    asked = [wish["hub"], wish.get("revision") or "main", wish.get("split") or "train"]
    folder = os.path.join("cache", "datasets", hashlib.sha256(json.dumps(asked).encode()).hexdigest()[:32])

    def fill(aside):
        files, commit = download(*asked, aside)
        write_json(os.path.join(aside, "files.json"), {"files": files, "revision": commit})

    made_once(folder, fill)
    names = read_json(os.path.join(folder, "files.json"), "io_error")["files"]
    return [File(os.path.join(folder, name), f"{wish['hub']}/{name}") for name in names]


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


def json_lines(file):
    """Rows of a file with a JSON object a line, still as text."""
    with open(file.path, "rb") as lines:
        rows = ((f"{file.name}:{number}", line) for number, line in enumerate(lines, 1) if line.strip())
        first = next(rows, None)
        if first:
            refuse_list(file, first[1])
            yield first
        yield from rows


def refuse_list(file, line):
    """Refuse a file whose first line says that it is no object a line."""
    start = line.removeprefix(BOM).strip()
    if start.startswith(b"[") and (start == b"[" or start.startswith((b"[{", b"[ {")) or not start.endswith(b"]")):
        raise Refused(
            "bad_data", f"{file.name}:1: begins one JSON list of rows, as .json files hold it: {renamed(file.name, '.json')}"
        )
    if start == b"{":
        raise Refused(
            "bad_data",
            f"{file.name}:1: begins an object that goes on over several lines; a .jsonl file has one whole row a line: write "
            f"each row on one line (jq -c . {file.name}), or put all rows into one list and {renamed(file.name, '.json')}",
        )


def renamed(name, suffix):
    """The advice to call a file otherwise."""
    return f"rename it to {os.path.splitext(os.path.basename(name))[0]}{suffix} and name that in the recipe"


def json_list(file):
    """Rows of a file that holds one JSON list."""
    with open(file.path, "rb") as stream:
        raw = stream.read()
    try:
        rows = json.loads(raw, object_pairs_hook=unique)
    except (ValueError, RecursionError) as error:
        if is_object(raw.removeprefix(BOM).strip().partition(b"\n")[0]):
            raise object_a_line(file) from None
        raise Refused("bad_data", f"{file.name}: not JSON: {error}") from None
    if isinstance(rows, dict):
        listed = [key for key, value in rows.items() if isinstance(value, list) and value and isinstance(value[0], dict)]
        if len(listed) == 1 and listed[0] not in ("messages", "conversations"):
            raise Refused(
                "bad_data",
                f"{file.name}: holds an object whose {listed[0]!r} is a list of rows: write that list alone "
                f"(jq '.[{json.dumps(listed[0])}]' {file.name})",
            )
        if b"\n" not in raw.strip():
            raise object_a_line(file)
    if not isinstance(rows, list):
        raise Refused("bad_data", f"{file.name}: should hold one list of rows, [{{...}}, {{...}}], got {type(rows).__name__}")
    yield from ((f"{file.name}: row {number}", row) for number, row in enumerate(rows, 1))


def object_a_line(file):
    """The complaint about JSON lines that are called .json."""
    return Refused("bad_data", f"{file.name}:1: holds a JSON object a line, as .jsonl files do: {renamed(file.name, '.jsonl')}")


def is_object(line):
    """Whether a line is one JSON object."""
    try:
        return isinstance(json.loads(line), dict)
    except (ValueError, RecursionError):
        return False


def unique(pairs):
    """An object of JSON; refused when a key stands in it twice, since one of the two would be lost."""
    made = dict(pairs)
    if len(made) != len(pairs):
        names = [name for name, _ in pairs]
        raise BadRow(f"key {next(name for name in names if names.count(name) > 1)!r} stands twice in one object: keep one")
    return made


def parquet(file):
    """Rows of a parquet file."""
    try:
        rows = chain.from_iterable(batch.to_pylist() for batch in parquet_file(file).iter_batches(batch_size=1024))
        for number, row in enumerate(rows, 1):
            yield f"{file.name}: row {number}", {name: without_nulls(value) for name, value in row.items()}
    except ValueError as error:  # pyarrow.ArrowInvalid is one
        raise Refused("bad_data", f"{file.name}: not parquet: {error}") from None


def parquet_file(file):
    """A parquet file, opened."""
    try:
        from pyarrow.parquet import ParquetFile
    except ImportError:
        raise Refused("bad_data", f"{file.name}: needs pyarrow, which this trainer's environment lacks; give .jsonl") from None
    try:
        return ParquetFile(file.path)
    except ValueError as error:
        raise Refused("bad_data", f"{file.name}: not parquet: {error}") from None


def without_nulls(value):
    """A value less the keys of its objects that hold null."""
    if isinstance(value, dict):
        return {key: without_nulls(item) for key, item in value.items() if item is not None}
    return [without_nulls(item) for item in value] if isinstance(value, list) else value


def text_lines(file):
    """Rows of a plain text, a line each."""
    with open(file.path, encoding="utf-8-sig", errors="surrogateescape", newline="\n") as lines:
        rows = ((number, line.removesuffix("\n").removesuffix("\r")) for number, line in enumerate(lines, 1))
        yield from ((f"{file.name}:{number}", {"text": line}) for number, line in rows if line.strip())


READERS = {".jsonl": json_lines, ".json": json_list, ".parquet": parquet, ".txt": text_lines}
