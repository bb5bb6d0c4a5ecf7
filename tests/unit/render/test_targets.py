"""Targets in a table and as a document."""

import json

from orchestrator.render.targets import TargetRow, check_table, targets_json, targets_table
from orchestrator.targets.model import Candidate, Targets
from orchestrator.targets.node import Node
from orchestrator.transports.base import Device, HostFacts, SshAddress

NOW = 1_000_000.0
FACTS = HostFacts(
    hostname="a", folder="/home/ml/.tune", python="3.11.2", machine="x86_64", libc="glibc 2.36", cpus=64, memory=1 << 39,
    free=812 << 30, boot="b", clock=NOW, skew=3600.0, uv="", devices=(Device(0, "H100", 79.6), Device(1, "H100", 79.6)),
)  # fmt: skip
HERE = Node("local", 2)
A = Node("a.lab", 2, "cuda", 79.6, ssh=SshAddress("a.lab", user="ml", port=22))
B = Node("b.lab:2222", 8, "cuda", 80.0, ssh=SshAddress("b.lab", port=2222))
C = Node("c.lab", 0, ssh=SshAddress("c.lab"))
CANDIDATES = [Candidate.of("local", "local", [HERE]), Candidate.of("lab", "ssh", [A, B]), Candidate.of("new", "ssh", [C])]
ROWS = [
    TargetRow("local", "local", HERE, use={1: "one\x1b[5m-1"}, waiting=3),
    TargetRow("lab", "ssh", A, FACTS, NOW - 130, waiting=12),
    TargetRow(
        "lab", "ssh", B, None, None, {0: "two-2", 1: "two-2", 2: "two-2", 4: "three-3", 5: "two-2", 9: "two-2"}, waiting=12
    ),
    TargetRow("new", "ssh", C, fault="c.lab: not reached\x1b[2J\nand why"),
]
GROUPS = {"any": ("lab", "new")}

TABLE = """\
TARGET  MACHINE     KIND   ACCELERATOR  DEVICES  MEMORY    FREE  LOOKED AT  IN USE BY
local   local       local  cpu                2  -            1  -          1 one-1
lab     a.lab       ssh    cuda               2  79.6 GiB     2  2 min ago
lab     b.lab:2222  ssh    cuda               8  80 GiB       3  -          0-2+5+9 two-2, 4 three-3
new     c.lab       ssh    ?                  ?  ?            ?  -          unknown: tune targets check new

waiting: 3 for local, 12 for lab
group any: lab, new"""

CHECKED = """\
TARGET  MACHINE     CHECK   ACCELERATOR  DEVICES  MEMORY    PYTHON  CPUS  DISK FREE  CLOCK      UV             HELD BY
local   local       ok      cpu                2  -         -          -          -  -          -              1 one-1
lab     a.lab       ok      cuda               2  79.6 GiB  3.11.2    64    812 GiB  1 h ahead  brought along
lab     b.lab:2222  ok      cuda               8  80 GiB    -          -          -  -          -              0-2+5+9 two-2, 4 three-3
new     c.lab       FAILED  ?                  ?  ?         -          -          -  -          -

c.lab: not reached\\x1b[2J
and why"""


def test_table():
    """One line a machine: what it has, how much of it is free, which job has which device; who waits; the groups."""
    assert targets_table(ROWS, GROUPS, NOW) == TABLE
    assert "\n\n" not in targets_table([ROWS[1]._replace(waiting=0)], {}, NOW)


def test_check_table():
    """What the machines answered, and in full why one cannot be used; nothing that a host says moves the cursor."""
    assert check_table(ROWS) == CHECKED


def test_narrow():
    """In a narrow terminal only the jobs' names are cut."""
    lines = targets_table(ROWS, {}, NOW, width=90).splitlines()
    assert lines[3].endswith("...")
    assert max(map(len, lines[:5])) == 90


def test_narrower():
    """Where cutting is not enough whole columns are left out, and no line is wider than the terminal; the machine and what is free stay."""
    lines = targets_table(ROWS, {}, NOW, width=60).split("\n\n")[0].splitlines()
    assert max(map(len, lines)) <= 60
    assert {"TARGET", "MACHINE", "FREE"} <= set(lines[0].split())
    assert "LOOKED" not in lines[0]


def test_json():
    """The document has every fact under a stable name, and null for what nobody knows."""
    local, lab, new = json.loads(json.dumps(targets_json(CANDIDATES, ROWS, GROUPS, checked=True)))
    assert (local["kind"], local["devices"], local["waiting"], local["groups"]) == ("local", 2, 3, [])
    assert (lab["accelerator"], lab["devices"], lab["memory_gib"], lab["groups"]) == ("cuda", 8, 79.6, ["any"])
    a, b = lab["hosts"]
    assert (a["name"], a["address"], a["port"], a["user"], a["seen_at"]) == ("a.lab", "a.lab", 22, "ml", NOW - 130)
    assert (a["facts"]["python"], a["facts"]["skew"], a["fault"], a["in_use"]) == ("3.11.2", 3600.0, None, [])
    assert b["in_use"][3] == {"device": 4, "job": "three-3"}
    assert (new["accelerator"], new["devices"], new["hosts"][0]["devices"]) == (None, None, None)
    assert new["hosts"][0]["fault"].startswith("c.lab: not reached")
    assert all("fault" not in host for each in targets_json(CANDIDATES, ROWS, {}, checked=False) for host in each["hosts"])


def test_an_empty_layout():
    """No rows, no failure."""
    assert targets_table([], Targets({}).groups, NOW).startswith("TARGET")
