"""What is said of a plan, of a report and of a recipe's problems: whole texts."""

from dataclasses import replace

from backends.plan import Environment, File, Input, Plan, Promise, Step
from backends.recipe.yaml_source import Problem
from backends.report import Line, Report
from orchestrator.render.plan import brief, plan_text, problem_text, report_text

LINES = (
    Line("name", "same"),
    Line("data.pack", "lost", {}, "LitGPT pads every sample; it has no packing", "never", "https://example.org/base.py#L1"),
    Line("train.compile", "lost", {}, "not written yet", "todo"),
    Line("eval.batches", "lost", {}, "no such option", "waiting", accepted=True),
    Line("optim.lr", "same", {"optimizer.init_args.lr": 3e-4}),
    Line("optim.warmup_steps", "converted", {"train.lr_warmup_steps": 10, "data.json:x": "long " * 40}, "counted in micro steps"),
    Line("train.precision", "approximated", {"precision": "bf16-true"}, "weights are rounded as well"),
    Line("train.seed", "defaulted", {"seed": 0}),
    Line("native.litgpt.foo", "native", {"foo": [1, None, True]}),
)

SHORT = """\
not supported:
  todo     train.compile  not written yet
  never    data.pack      LitGPT pads every sample; it has no
                          packing
                          see https://example.org/base.py#L1

not supported, accepted by name:
  waiting  eval.batches  no such option

approximated:
  train.precision  precision = "bf16-true"
                   weights are rounded as well

native keys:
  native.litgpt.foo  foo = [1, null, true]

converted:
  optim.warmup_steps  train.lr_warmup_steps = 10
                      data.json:x = "long long long long lo...
                      counted in micro steps

2 same, 1 defaulted, 1 converted, 1 approximated, 3 lost (1 accepted), 1 native

hint: to run without them: --accept data.pack --accept train.compile"""

QUIET = """\
defaulted:
  train.seed  seed = 0

same:
  name
  optim.lr  optimizer.init_args.lr = 0.0003

"""

PLAN = Plan(
    recipe="quickstart",
    backend="litgpt",
    environment=Environment("litgpt", "3.11", "litgpt==0.5.13 \\\n    --hash=sha256:00\n    # via -r litgpt.in\ntorch==2.9.0\n"),
    files=(File("litgpt.yaml", "lr: 1\n\nname: '\x1b[31m'\n"), File("shims/tune_data.py", "print(1)\n")),
    steps=(
        Step("model", ("env/bin/python", "tune_model.py", "model.json")),
        Step("train", ("env/bin/python", "-m", "litgpt", "it's")),
    ),
    inputs=(Input("inputs/train.jsonl", "/home/ann/my data.jsonl"),),
    env=(("OMP_NUM_THREADS", "1"), ("NOTE", "two words")),
    secrets=("HF_TOKEN",),
    promise=Promise(1500, ("out/*.safetensors",)),
    watch=("logs/*.csv",),
    reading={},
    report=Report((Line("name", "same"),)),
)

DRY = """\
plan DIGEST: quickstart by litgpt on 1 device

environment
  litgpt, cpu, python 3.11, 2 locked packages (sha256 3c2fcbfd939907eb)

inputs
  inputs/train.jsonl <- /home/ann/my data.jsonl

variables
  OMP_NUM_THREADS=1
  NOTE='two words'
  HF_TOKEN=***

files
  litgpt.yaml
      lr: 1

      name: '\\x1b[31m'
  shims/tune_data.py (9 bytes, sha256 cc42155088fca573)

steps
  model  env/bin/python tune_model.py model.json
  train  env/bin/python -m litgpt 'it'"'"'s'

promise
  1,500 optimizer steps
  out/*.safetensors

metrics from
  logs/*.csv

1 same"""


def test_report():
    """Losses come first, by what can be done about them; what crossed as it was is only counted; the way out comes last."""
    assert report_text(Report(LINES), width=62) == SHORT


def test_report_verbose():
    """Asked for everything, the report adds defaults and what crossed as it was, and keeps the rest."""
    before, after = SHORT.split("2 same, ")
    assert report_text(Report(LINES), width=62, verbose=True) == f"{before}{QUIET}2 same, {after}"


def test_report_one_loss():
    """One loss has one name to accept."""
    text = report_text(Report((Line("data.pack", "lost", {}, "no", "never"),)))
    assert text == "not supported:\n  never    data.pack  no\n\n1 lost\n\nhint: to run without it: --accept data.pack"


def test_report_firm():
    """What cannot be accepted is not offered, nothing is offered twice, and a key of the user's own is not dropped but written."""
    lost = Line("method.kind", "lost", {}, "no", "never"), Line("data.pack", "lost", {}, "no", "never")
    last = report_text(Report((*lost, lost[1])), firm={"method.kind"}).splitlines()[-1]
    assert last == "hint: to run without it: --accept data.pack; the others cannot be accepted"
    assert "hint" not in report_text(Report(lost[:1]), firm={"method.kind"})
    key = Line("native.litgpt.foo", "lost", {"foo": 1}, "no such key", "never")
    assert report_text(Report((key,))).endswith("hint: to write it anyway: --accept native.litgpt.foo")


def test_report_expressible():
    """Without a loss there is no hint; without lines there is a sentence."""
    assert report_text(Report((Line("a", "same"), Line("b", "defaulted")))) == "1 same, 1 defaulted"
    assert report_text(Report()) == "nothing to report"


def test_report_untrusted():
    """Text of a recipe cannot bring escape sequences or lines of its own."""
    text = report_text(Report((Line("native.x", "native", {"k\x1b[2J": "v\n\x1b[0m"}, "why\x1b[1m", see="http://x\n1 same"),)))
    assert text.splitlines() == [
        "native keys:",
        r'  native.x  k\x1b[2J = "v\n\u001b[0m"',
        r"            why\x1b[1m",
        r"            see http://x\n1 same",
        "",
        "1 native",
    ]


def test_plan():
    """The dry run is the whole plan: every file's text, every argv ready for a shell, secrets by name, our shims by sum."""
    assert plan_text(PLAN) == DRY.replace("DIGEST", PLAN.digest()[:12])


def test_plan_verbose():
    """Asked for everything, the dry run has the shims' text too."""
    text = plan_text(PLAN, verbose=True)
    assert "  shims/tune_data.py\n      print(1)\n" in text
    assert text.endswith("same:\n  name\n\n1 same")


def test_plan_same_bytes():
    """The same plan gives the same text, and another plan another one."""
    assert plan_text(PLAN) == plan_text(replace(PLAN))
    assert plan_text(PLAN).splitlines()[0] != plan_text(replace(PLAN, devices=2)).splitlines()[0]


def test_plan_own_interpreter():
    """An interpreter of the user's is named, with what it must have; a part that is empty is not shown."""
    own = Environment("litgpt", "/usr/bin/python", requires="litgpt>=0.5.13,<0.6")
    text = plan_text(replace(PLAN, environment=own, inputs=(), devices=8, promise=Promise(None, ())))
    assert "environment\n  litgpt, as installed for /usr/bin/python, needs litgpt>=0.5.13,<0.6\n\nvariables\n" in text
    assert "promise\n  the optimizer steps that the data step counts\n\n" in text
    assert "on 8 devices" in text


def test_plan_file_cannot_pose():
    """A file's text stays in its place: it cannot look like another part of the plan."""
    text = plan_text(replace(PLAN, files=(File("a", "x\rsteps\n  fake  rm\u2028y\n"),)))
    assert "files\n  a\n      x\\rsteps\n        fake  rm\\u2028y\n\nsteps\n  model" in text


def test_problems():
    """Each problem is a line with file, line, path, rule and value; then the hints, each with its path and only once."""
    text = problem_text(
        [
            Problem("method.lora.rank", "should be a positive integer", "16x", 14, "", "r.yaml"),
            Problem("optim.lrr", "is not a key of the recipe", 3e-4, 20, "did you mean lr?", "r.yaml"),
            Problem("optim.lrr", "is not a key of the recipe", 3e-4, 21, "did you mean lr?", "r.yaml"),
            Problem("train", "is required", ..., None, "", "r.yaml"),
            Problem("", "should be a mapping of sections", ..., 1, "begin with version: 1", "r.yaml"),
        ]
    )
    assert text == (
        'r.yaml:14: method.lora.rank: should be a positive integer, got "16x"\n'
        "r.yaml:20: optim.lrr: is not a key of the recipe, got 0.0003\n"
        "r.yaml:21: optim.lrr: is not a key of the recipe, got 0.0003\n"
        "r.yaml: train: is required\n"
        "r.yaml:1: should be a mapping of sections\n"
        "\n"
        "hint: optim.lrr: did you mean lr?\n"
        "hint: begin with version: 1"
    )


def test_problem_alone():
    """A single problem's hint needs no path; a null is a value, not its absence."""
    problem = Problem("optim.lr", "should be a number", None, 3, "write 3e-4", "r.yaml")
    assert problem_text([problem]) == "r.yaml:3: optim.lr: should be a number, got null\n\nhint: write 3e-4"
    assert problem_text([replace(problem, hint="")]) == "r.yaml:3: optim.lr: should be a number, got null"


def test_brief():
    """A value is written as JSON writes it, in one line of bounded length."""
    assert [brief(value) for value in ("16x", True, None, [1, 2.5], {"a": {1}})] == [
        '"16x"', "true", "null", "[1, 2.5]", '{"a": "{1}"}',
    ]  # fmt: skip
    assert brief("x" * 100) == '"' + "x" * 56 + "..."
