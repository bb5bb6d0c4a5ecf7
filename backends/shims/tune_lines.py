"""Runs a program and writes what a pattern finds in its output as JSON lines. Standard library of Python 3.8 or newer.

    tune_lines.py PATTERN OUT PROGRAM [ARGUMENT...]

The output goes on to our own, byte by byte. Each named group is a key; a number is written as one. Matching happens here, in
the job, so that a pattern that takes for ever holds up nobody else. The exit code is the program's.
"""

import json
import os
import re
import signal
import subprocess
import sys

LONGEST = 10_000
"""Characters of a line that are looked at."""
KEPT = 4 * LONGEST
"""Bytes of a line that are kept: a character has four at most."""


def found(pattern, line):
    """What the pattern's groups hold, or None."""
    match = pattern.search(line[:LONGEST])
    return {name: number(text) for name, text in match.groupdict().items() if text is not None} if match else None


def number(text):
    """A whole number, a number, or the text; thousands may be marked by commas."""
    plain = text.replace(",", "")
    for kind in (int, float):
        try:
            return kind(plain)
        except ValueError:
            pass
    return text


def pieces(stream):
    """Its bytes as they come."""
    while True:
        data = os.read(stream.fileno(), 1 << 16)
        if not data:
            return
        yield data


def lines(texts):
    """Whole lines, of which the beginning is kept; a carriage return, by which progress bars redraw, ends one too."""
    rest = b""
    for data in texts:
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
        first, *others = re.split(rb"[\r\n]", data)
        rest += first[: KEPT - len(rest)]  # never all of a long line: to join it anew for each piece takes its square in time
        for line in others:
            yield rest
            rest = line[:KEPT]
    yield rest


def main(words):
    """Run it to its end."""
    pattern, out, *argv = words
    for name in (signal.SIGTERM, signal.SIGINT):
        signal.signal(name, lambda *_: None)  # the program gets it too, and we stay to read its last words
    os.makedirs(os.path.dirname(out) or ".", exist_ok=True)
    compiled = re.compile(pattern)
    try:
        program = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    except OSError as error:
        sys.exit(f"{argv[0]}: {error.strerror}")
    with open(out, "a", encoding="utf-8") as file:
        for line in lines(pieces(program.stdout)):
            values = found(compiled, line.decode("utf-8", "replace"))
            if values:
                file.write(json.dumps(values) + "\n")
                file.flush()
    code = program.wait()
    sys.exit(code if code >= 0 else 128 - code)


if __name__ == "__main__":
    main(sys.argv[1:])
