"""Rows one after the other, or some at a time, made into what is wanted of them; what is wrong with the first bad ones, at once."""

import json
import os
from itertools import chain, islice

from tune_files import READERS, BadRow, Refused, json_list, parquet_file, unique

AT_ONCE = 256  # rows that are made in one call: enough for a tokenizer, little in memory
MOST_PROBLEMS = 20


def raw(files, most=None, wanted=None):
    """(place, row) of the files' rows as their readers give them: the first `most`, or those whose numbers are `wanted`, in order."""
    rows = islice(chain.from_iterable(reader(file)(file) for file in files), most)
    if wanted is None:
        yield from rows
        return
    numbered = enumerate(rows)
    for number in wanted:
        yield next(row for at, row in numbered if at == number)


def reader(file):
    """What reads a file."""
    return READERS[os.path.splitext(file.path)[1]]


def count_rows(files):
    """How many rows the files have."""
    return sum(counted(file) for file in files)


def counted(file):
    """How many rows a file has, without reading them where that can be."""
    suffix = os.path.splitext(file.path)[1]
    if suffix == ".parquet":
        return parquet_file(file).metadata.num_rows
    if suffix == ".json":
        return sum(1 for _ in json_list(file))
    with open(file.path, "rb") as lines:
        return sum(not line.isspace() for line in lines)


def batched(rows, size=AT_ONCE):
    """Lists of as many rows as are made in one call."""
    rows = iter(rows)
    while some := list(islice(rows, size)):
        yield some


def tried(rows, make):
    """([(place, make(row))], [what is wrong with one, with its place]) of (place, row)."""
    good, problems = [], []
    for where, row in rows:
        try:
            good.append((where, make(whole(parsed(row) if isinstance(row, bytes) else row))))
        except UnicodeError:
            problems.append(f"{where}: holds what is no UTF-8 text, or half a surrogate pair: write the file as UTF-8")
        except json.JSONDecodeError as error:
            problems.append(f"{where}: {no_json(error)}")
        except (ValueError, RecursionError) as error:
            problems.append(f"{where}: {error}")
    return good, problems


DECODER = json.JSONDecoder(object_pairs_hook=unique)


def parsed(line):
    """The value of a line of JSON, as `json.loads` reads bytes."""
    return DECODER.decode(line.decode(json.detect_encoding(line), "surrogatepass"))


def no_json(error):
    """What is wrong with a line that is no JSON, and what to do about it."""
    left = error.doc[error.pos :].strip()
    if left == "," and "Extra" in error.msg:
        return "ends with a comma: lines of JSON have none between them"
    if left[:1] in ("{", "[") and "Extra" in error.msg:
        return "holds more than one value: give each a line of its own"
    if left.startswith("'"):
        return "has texts in single quotes, as Python prints them: write rows with json.dumps"
    if left.startswith(("None", "True", "False")):
        return "has None, True or False, as Python prints them: write rows with json.dumps"
    if not left or "Unterminated" in error.msg:
        return "ends within an object: it is cut off, or goes over several lines, which should be one"
    return f"is no JSON at character {error.pos + 1}: {error.msg}"


def check_good(problems):
    """Refuse rows of which some are bad: the first of them at once."""
    if problems:
        more = ["(there may be more)"] if len(problems) >= MOST_PROBLEMS else []
        raise Refused("bad_data", "\n".join(problems[:MOST_PROBLEMS] + more))


def each(files, make, most=None, wanted=None):
    """(place, make(row)) of the rows, as `raw` takes them; in the end the first bad ones, if there are any, all at once."""
    problems = []
    for some in batched(raw(files, most, wanted)):
        good, bad = tried(some, make)
        yield from good
        problems += bad
        if len(problems) >= MOST_PROBLEMS:
            break
    check_good(problems)


def whole(row):
    """The row, if it is one."""
    if not isinstance(row, dict):
        raise BadRow(f"should be an object with columns, got {type(row).__name__}")
    return row
