"""clusters.yaml: what it says becomes places; what is wrong with it is said at once, with lines; nothing in it reaches ssh raw."""

import json
import os
import random
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from backends.compile import plan
from backends.recipe.parse import parse as recipe_of
from backends.recipe.problems import RecipeError
from backends.recipe.yaml_source import read
from backends.registry import BACKENDS
from backends.target import Target
from orchestrator.executors.registry import kinds
from orchestrator.home import Home
from orchestrator.render.plan import problem_text
from orchestrator.targets import load
from orchestrator.targets.inventory import Known, Snapshot, keep, recall
from orchestrator.targets.model import Candidate, Targets
from orchestrator.transports.base import Device, HostFacts, Lease, SshAddress

ROOT = Path(__file__).parents[3]

GOOD = """\
version: 1
defaults: {user: ml, identity: keys/lab, env: {HF_HOME: /data/hf, A: "1"}}
targets:
  lab:
    kind: ssh
    hosts:
      - a.lab
      - {address: b.lab, port: 2222, devices: 4, inside: 10.0.0.2, env: {A: "2"}}
    jump: gate.lab
    accelerator: cuda
    devices: 8
    memory_gib: 80
  boxes:
    kind: ssh
    hosts: [c.lab, d.lab]
    user: root
    provision: offline
groups: {any: [lab, boxes]}
"""
FACTS = HostFacts(
    hostname="c", folder="/home/root/.tune", python="3.11.2", machine="x86_64", libc="glibc 2.36", cpus=8, memory=1 << 36,
    free=1 << 40, boot="b", clock=1.0, skew=0.1, uv="",
)  # fmt: skip
GPUS = (Device(0, "H100", 80.0), Device(1, "A100", 40.0))


def parsed(text: str, known=None, others=dict) -> Targets:
    """The places that a text tells of, as if it lay in /there."""
    return load.parse(text, "clusters.yaml", Path("/there"), known or {}, others)


def complaints(text: str) -> dict:
    """What is wrong, by line and path."""
    with pytest.raises(RecipeError) as caught:
        parsed(text)
    return {(p.line, p.path): p for p in caught.value.problems}


def test_places():
    """Hosts get what they say, then what their target says, then the defaults; variables one by one; files are found beside."""
    lab = parsed(GOOD).candidates["lab"]
    assert lab.target == Target("lab", "cuda", 8, 80.0, "", None, 2)
    a, b = lab.usable
    assert (a.name, a.devices, a.address, a.env) == ("a.lab", 8, "a.lab", {"HF_HOME": "/data/hf", "A": "1"})
    assert (b.name, b.devices, b.address, b.env) == ("b.lab:2222", 4, "10.0.0.2", {"HF_HOME": "/data/hf", "A": "2"})
    assert b.ssh == SshAddress("b.lab", user="ml", port=2222, identity="/there/keys/lab", jump="gate.lab")
    assert not lab.unknown


def test_large_enough():
    """A wide job sees only the machines that have as many devices; one that is too wide sees what there is."""
    lab = parsed(GOOD).candidates["lab"]
    assert [(lab.such(n).devices, lab.such(n).hosts) for n in (1, 4, 5, 8, 9)] == [(8, 2), (8, 2), (8, 1), (8, 1), (8, 2)]


def test_local_is_always_there():
    """This machine is a target, written or not, with or without a file."""
    assert list(parsed(GOOD).candidates) == ["local", "lab", "boxes"]
    text = "version: 1\ntargets:\n  local: {kind: local, accelerator: cpu, devices: 3, threads: 2, env: {X: y}}\n"
    [local] = parsed(text).candidates.values()
    assert local.target == Target("local", "cpu", 3, None, "", 2, 1)
    assert [(node.name, node.devices, node.env, node.ssh) for node in local.usable] == [("local", 3, {"X": "y"}, None)]


def test_groups():
    """A name, a group, several with commas: each target once, in the order written."""
    layout = parsed(GOOD)
    assert [[place.name for place in layout.chosen(words)] for words in ("lab", "any", "boxes,any,local")] == [
        ["lab"],
        ["lab", "boxes"],
        ["boxes", "lab", "local"],
    ]
    with pytest.raises(KeyError, match="lbb"):
        layout.chosen("lab,lbb")


def test_what_is_detected():
    """What clusters.yaml leaves open is what the host said; nobody knows before it was asked."""
    boxes = parsed(GOOD).candidates["boxes"]
    assert [node.name for node in boxes.unknown] == ["c.lab", "d.lab"]
    assert boxes.usable == ()
    way = boxes.nodes[0].key
    boxes = parsed(GOOD, {way: FACTS}).candidates["boxes"]
    assert (boxes.target, [node.name for node in boxes.unknown]) == (Target("boxes", "cpu", 1, None), ["d.lab"])
    seen = HostFacts(**{**vars(FACTS), "devices": GPUS})
    boxes = parsed(GOOD, {way: seen}).candidates["boxes"]
    assert boxes.target == Target("boxes", "cuda", 2, 40.0)
    assert [host.offline for host in boxes.usable] == [True]
    fewer = GOOD.replace("provision: offline", "devices: 1\n    memory_gib: 30")
    assert parsed(fewer, {way: seen}).candidates["boxes"].target == Target("boxes", "cuda", 1, 30.0)


def test_an_odd_host_out():
    """Where one host has no devices although its siblings do, jobs do not go there."""
    ways = [node.key for node in parsed(GOOD).candidates["boxes"].nodes]
    boxes = parsed(GOOD, {ways[0]: FACTS, ways[1]: HostFacts(**{**vars(FACTS), "devices": GPUS})}).candidates["boxes"]
    assert ([host.name for host in boxes.usable], boxes.target.hosts) == (["d.lab"], 1)


def test_facts_are_kept(tmp_path):
    """What hosts said is there for the next command, private to the user, beside what others said; garbage is as if unsaid."""
    home = Home(tmp_path / "home")
    assert recall(home) == {}
    used = (Lease(1, "ft-1", 2, "anna", "cuda"),)
    keep(home, {"@a:": Snapshot(FACTS, ())}, 5.0)
    keep(home, {"@b:": Snapshot(HostFacts(**{**vars(FACTS), "devices": GPUS}), used)}, 6.0)
    assert recall(home) == {"@a:": Known(FACTS, 5.0), "@b:": Known(HostFacts(**{**vars(FACTS), "devices": GPUS}), 6.0, used)}
    file = home.path / "hosts.json"
    assert file.stat().st_mode & 0o777 == 0o600
    kept = json.loads(file.read_text())
    del kept["hosts"]["@a:"]["facts"]["uv"]
    file.write_text(json.dumps(kept))
    assert list(recall(home)) == ["@b:"]
    for key, value in (("cpus", "many"), ("devices", [{"index": "x"}]), ("devices", 3), ("memory", None), ("extra", {})):
        kept["hosts"]["@b:"]["facts"] = {**vars(FACTS), "devices": [], key: value}
        file.write_text(json.dumps(kept))
        assert list(recall(home)) == (["@b:"] if key == "extra" else [])
    for garbage in ("", "[]", "{", '{"hosts": 3}', "\udcff"):
        file.write_bytes(garbage.encode("utf-8", "surrogateescape"))
        assert recall(home) == {}
    assert [path.name for path in home.path.glob("hosts*")] == ["hosts.json"]


def test_many_mistakes():
    """All mistakes are said at once, each with its line, the rule, the value and the nearest known name."""
    found = complaints("""\
version: 1
defaults: {usr: ml}
targets:
  lab:
    kind: ssh
    hosts: [a.lab, {address: b.lab, port: 222222, devises: 4}]
    accelerator: cida
    devices: eight
    env: {1X: a, B: 4}
  c: {kind: shh}
  d: 3
  e: {kind: ssh}
  f: {kind: ssh, hosts: []}
groups: {any: [lbb], lab: [e]}
""")
    assert {place: problem.hint for place, problem in found.items()} == {
        (2, "defaults.usr"): "did you mean user?",
        (6, "targets.lab.hosts.1.port"): "",
        (6, "targets.lab.hosts.1.devises"): "did you mean devices?",
        (7, "targets.lab.accelerator"): "did you mean cuda?",
        (8, "targets.lab.devices"): "",
        (9, "targets.lab.env.1X"): "",
        (9, "targets.lab.env.B"): 'write it in quotes: "..."',
        (10, "targets.c.kind"): "did you mean ssh?",
        (11, "targets.d"): "",
        (12, "targets.e.hosts"): "",
        (13, "targets.f.hosts"): "",
        (14, "groups.any.0"): "did you mean lab?",
        (14, "groups.lab"): "",
    }
    assert found[8, "targets.lab.devices"].rule == "should be a whole number, or detect"
    assert found[6, "targets.lab.hosts.1.port"].value == 222222


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("address", "-oProxyCommand=id"), ("address", "a b"), ("address", "a;id"), ("address", "$(id)"), ("address", "a\nb"),
        ("address", "../a"), ("address", "u@a"), ("address", "a:22"), ("address", ""), ("user", "-l"), ("user", "a b"), ("user", "a`id`"), ("user", ""),
        ("jump", "-W"), ("jump", "a b"), ("jump", "a;b"), ("inside", "-x"), ("folder", "tune"), ("folder", "~user/x"),
        ("folder", "/a\nb"), ("folder", "$HOME/x"), ("interpreter", "-c"), ("interpreter", "~/bin/python3"), ("interpreter", "a\nb"),
        ("python", "~/x/bin/python"), ("python", "venv/bin/python"), ("identity", "a\0b"), ("identity", "~nobody/key"), ("port", 0), ("port", True),
        ("port", "22"), ("devices", 0), ("devices", 1.5), ("memory_gib", -1), ("threads", 0), ("accelerator", "tpu"),
        ("env", {"CUDA_VISIBLE_DEVICES": "0"}), ("env", {"TUNE_JOB": "x"}), ("env", {"A=B": "x"}), ("env", {"A": "x\0"}),
        ("provision", "maybe"), ("name", "-x"), ("name", "a b"), ("env", {"CUDA_DEVICE_ORDER": "x"}), ("occupied", "no"),
    ],
)  # fmt: skip
def test_hostile_values(key, value):
    """What ssh or a shell could take for something else is refused, with its line."""
    host = {"address": "a.lab", key: value}
    entry = json.dumps({"kind": "ssh", "hosts": [host]}, ensure_ascii=True)
    [(line, path)] = complaints(f"version: 1\ntargets:\n  lab: {entry}\n")
    assert line == 3
    assert path.startswith(f"targets.lab.hosts.0.{key}")


@pytest.mark.parametrize(
    "host",
    [
        {"address": "fe80::1%eth0"}, {"address": "my_alias"}, {"address": "a", "user": "DOM\\me"},
        {"address": "a", "user": "me@corp.example"}, {"address": "a", "jump": "u@gate:22,inner"}, {"address": "a", "jump": "none"},
        {"address": "a", "folder": "/data/my runs/$x"}, {"address": "a", "folder": "~"}, {"address": "a", "interpreter": "/opt/p y"},
        {"address": "a", "devices": "detect", "memory_gib": "detect"}, {"address": "a", "env": {"A": "x y\n$(z)"}},
    ],
)  # fmt: skip
def test_odd_values_that_are_right(host):
    """Names and paths that are odd, and lawful, are taken as they are."""
    [node] = parsed(f"version: 1\ntargets:\n  t: {json.dumps({'kind': 'ssh', 'hosts': [host]})}\n").candidates["t"].nodes
    assert node.ssh.name == host["address"]
    for key in ("user", "jump", "folder", "interpreter"):
        assert getattr(node.ssh, key) == host.get(key, getattr(SshAddress(""), key))


@pytest.mark.parametrize(
    ("entry", "path", "rule"),
    [
        ("{kind: ssh, hosts: [a, a]}", "targets.t.hosts.1", "no other host"),
        ("{kind: ssh, hosts: [a, {address: b, name: a}]}", "targets.t.hosts.1", "no other host"),
        ("{kind: ssh, hosts: [local]}", "targets.t.hosts.0", "nor this machine"),
        ("{kind: ssh, hosts: [{address: b, name: x}]}", "targets.t.hosts.0", "than targets.s.hosts.0, or the same address"),
        ("{kind: ssh, hosts: [{address: z, name: x, user: u, jump: j}]}", "targets.t.hosts.0", "or the same user and jump"),
        ("{kind: ssh, hosts: [a, {address: b, python: /x}]}", "targets.t.hosts.1.python", "one plan"),
        ("{kind: ssh, hosts: [{address: a, accelerator: cpu}, b]}", "targets.t.hosts.1.accelerator", "one plan"),
        ("{kind: ssh, hosts: [3]}", "targets.t.hosts.0", "section"),
        ("{kind: local, user: x}", "targets.t.user", "not a key"),
        ("{kind: local, python: ~nobody/bin/python}", "targets.t.python", "your own home"),
        ("{kind: local, python: {litgpt: ~nobody/bin/python}}", "targets.t.python.litgpt", "your own home"),
        ("{kind: local, python: {litgtp: /bin/python}}", "targets.t.python.litgtp", "paths by trainer: litgpt, torchtune"),
        ("{kind: ssh, hosts: [{address: b, python: {litgpt: bin/python}}]}", "targets.t.hosts.0.python.litgpt", "absolute path"),
        ("{kind: ssh, hosts: [{address: b, python: 3}]}", "targets.t.hosts.0.python", "should be a path, or paths by"),
        ("{kind: [ssh]}", "targets.t.kind", "local or ssh"),
        ("{hosts: [a]}", "targets.t.kind", "required"),
        ("{kind: ssh, hosts: [{address: 'b:2222'}]}", "targets.t.hosts.0.address", "port are keys of their own"),
    ],
)
def test_rules_between_keys(entry, path, rule):
    """One plan is made for all hosts of a target, and one name is one machine."""
    text = f"version: 1\ntargets:\n  s: {{kind: ssh, hosts: [{{address: z, name: x}}]}}\n  t: {entry}\n"
    assert rule in complaints(text)[4, path].rule


def test_an_interpreter_by_trainer():
    """A target has one interpreter, or one by trainer: who is not named gets an environment of its lock. It outlives JSON."""
    entry = "{kind: ssh, hosts: [a], python: {torchtune: /t/bin/python, axolotl: /a/bin/python}}"
    lab = parsed(f"version: 1\ntargets:\n  lab: {entry}\n").candidates["lab"]
    lab = Candidate.from_dict(json.loads(json.dumps(lab.as_dict())))
    assert [lab.target.interpreter(name) for name in ("torchtune", "axolotl", "litgpt")] == ["/t/bin/python", "/a/bin/python", ""]
    one = parsed("version: 1\ntargets:\n  lab: {kind: ssh, hosts: [a], python: /one}\n").candidates["lab"].target
    assert (one.python, one.pythons, one.interpreter("litgpt")) == ("/one", (), "/one")
    recipe = recipe_of((ROOT / "recipes" / "quickstart.yaml").read_text())
    for name, own in (("torchtune", "/t/bin/python"), ("litgpt", "env/bin/python")):
        made = plan(BACKENDS[name], recipe, replace(lab.target, devices=1, hosts=1))
        assert {step.argv[0] for step in made.steps} == {own}
        assert bool(made.environment.lock) == (name == "litgpt")


@pytest.mark.parametrize(
    "text", ["", "a", "version: 2\ntargets: {}", "version: 1", "version: 1\ntargets: 3", "targets: {}", "[1]"]
)
def test_a_file_that_is_none(text):
    """Whatever the file holds, there is a complaint and no traceback."""
    assert complaints(text)


def test_odd_documents():
    """Values of any kind anywhere give places or complaints, never another error; 400 documents of one seed."""
    chance, outcomes = random.Random(6), set()
    for _ in range(400):
        values = read(GOOD).values
        for _ in range(chance.randint(1, 3)):
            section, key = chance.choice(list(leaves(values)))
            section[key] = chance.choice(
                [None, -1, 1.5, True, "", "x", "-x", "\0", [], {}, [[]], {"a": 1}, {"": ""}, "lab", ["lab"]]
            )
        try:
            layout = parsed(json.dumps(values))
        except RecipeError as error:
            outcomes.add(bool(problem_text(error.problems)))
        else:
            outcomes.add(str(sorted(place.name for place in layout.chosen(",".join([*layout.candidates, *layout.groups])))))
    assert {True, "['boxes', 'lab', 'local']"} <= outcomes
    assert False not in outcomes


def leaves(values):
    """All places in a document where a value stands, sections too."""
    for key, value in values.items() if isinstance(values, dict) else enumerate(values):
        yield values, key
        if isinstance(value, dict | list):
            yield from leaves(value)


def test_the_example():
    """The clusters.yaml that comes along is lawful, and so is what it shows in comments."""
    text = (ROOT / "clusters.yaml").read_text()
    assert list(parsed(text).candidates) == ["local"]
    layout = parsed(re.sub(r"(?m)^# (?=[ a-z])", "", text), others=kinds)
    assert (list(layout.candidates), list(layout.groups)) == (["local", "lab", "cpus", "ray"], ["any"])


SLOW = (
    *(
        "pydantic",
        "dataclasses",
        "inspect",
        "difflib",
        "importlib.metadata",
        "email",
        "shutil",
        "subprocess",
        "socket",
        "tempfile",
    ),
    *(
        "asyncio",
        "concurrent.futures",
        "rich",
        "fabric",
        "orchestrator.executors",
        "orchestrator.agent.provision",
        "backends.stages",
    ),
)
"""What a plan has no need of, and takes as long to load as a bare Python or longer."""


@pytest.mark.parametrize("words", [["translate", "--to", "litgpt"], ["submit", "--dry-run"]], ids=" ".join)
def test_a_plan_loads_only_what_it_uses(words, tmp_path):
    """A command that plans by a recipe and a clusters.yaml that are right loads one trainer and none of the slow modules."""
    (tmp_path / "clusters.yaml").write_text(GOOD)
    argv = [words[0], str(ROOT / "recipes" / "quickstart.yaml"), *words[1:]]
    code = f"import sys; from orchestrator.cli import run; code = run({argv}); print(*sys.modules, sep=chr(10), file=sys.stderr)"
    env = {**os.environ, "PYTHONPATH": str(ROOT), "TUNE_HOME": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=env, capture_output=True, text=True, check=True)
    loaded = set(done.stderr.split())
    assert loaded & {*SLOW} == set()
    trainers = {name.split(".")[2] for name in loaded if name.startswith("backends.trainers.")}
    assert trainers == {"litgpt"}
    assert "litgpt" in done.stdout
