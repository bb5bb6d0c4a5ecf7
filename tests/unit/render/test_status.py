"""Jobs in a table and as a document."""

import json

import pytest

from orchestrator.render.status import (
    EVENTS,
    eta_seconds,
    events_table,
    rows_lines,
    status_json,
    status_json_text,
    status_screen,
    status_table,
)
from orchestrator.render.text import columns, iso
from orchestrator.store import Event, Job, NewJob, open_store

NOW = 1_000_000.0


QUEUED = Job(
    id="", name="quickstart", backend="litgpt", target="local", state="QUEUED", reason="", detail="", attempt=1, step=None,
    steps=None, phase_step="", submitted=NOW - 240, started=None, ended=None, seen_at=None, priority=0, want="", reachable=True,
    labels={}, tokens_per_second=None, loss=None,
)  # fmt: skip
TRAINING = QUEUED._replace(
    id="a-1", state="RUNNING", phase_step="train", step=50, steps=150, started=NOW - 110, seen_at=NOW - 10, loss=2.302585,
    tokens_per_second=12345.6,
)  # fmt: skip
ENDED = QUEUED._replace(ended=NOW - 1, step=12, steps=150)
JOBS = (
    TRAINING,
    QUEUED._replace(id="a-2", state="RUNNING", phase_step="data", submitted=NOW - 3),
    TRAINING._replace(id="a-3", target="gpu-box", reachable=False, seen_at=NOW - 40, started=NOW - 140, steps=None),
    ENDED._replace(id="a-4", state="FAILED", reason="loss is nan", detail="at step 12\x1b[5m", loss=float("nan")),
    ENDED._replace(id="a-5", state="LOST", step=None, reason="the host rebooted", submitted=NOW - 86_400 * 5),
    ENDED._replace(id="a-6", backend="torchtune", state="SUCCEEDED", step=150, phase_step="export", reachable=False),
    QUEUED._replace(id="a-7", reachable=False),
)

TABLE = """\
ID   NAME        TRAINER    TARGET   STATE         STEP   LOSS   TOK/S         ETA    AGE
a-1  quickstart  litgpt     local    RUNNING     50/150  2.303  12,346  3 min 10 s  4 min
a-2  quickstart  litgpt     local    RUNNING       data      -       -           -    3 s
a-3  quickstart  litgpt     gpu-box  RUNNING       50/?  2.303  12,346           -  4 min  unreachable for 40 s
a-4  quickstart  litgpt     local    FAILED      12/150    nan       -           -  4 min  loss is nan: at step 12
a-5  quickstart  litgpt     local    LOST             -      -       -           -    5 d  the host rebooted
a-6  quickstart  torchtune  local    SUCCEEDED  150/150      -       -           -  4 min
a-7  quickstart  litgpt     local    QUEUED           -      -       -           -  4 min  unreachable"""


def test_table():
    """One line a job: where it is, how fast, how long still, and why it failed or that its host does not answer."""
    assert status_table(JOBS, NOW) == TABLE


def test_table_without_notes():
    """Where nothing needs more words, there is no column for them."""
    assert status_table([QUEUED._replace(id="a-7")], NOW).splitlines() == [
        "ID   NAME        TRAINER  TARGET  STATE   STEP  LOSS  TOK/S  ETA    AGE",
        "a-7  quickstart  litgpt   local   QUEUED     -     -      -    -  4 min",
    ]
    assert status_table([], NOW) == "ID  NAME  TRAINER  TARGET  STATE  STEP  LOSS  TOK/S  ETA  AGE"


def test_events_fit():
    """A terminal gets what there is room for: of one job not its name, and a detail below its line, in full; a pipe gets all of it."""
    why = "host key not in known_hosts (ssh-ed25519 SHA256:abc); connection refused by 10.0.0.7"
    found = [Event("job-a", 1, NOW, "", "QUEUED", "", why), Event("job-a", 2, NOW, "FAILED", "STOPPING", "exit_code", "short")]
    head, first, second = events_table(found).splitlines()
    assert [head.split(), first.endswith(f"  {why}"), "job-a" in second] == [[*EVENTS, "DETAIL"], True, True]
    for width in (44, 60, 100):
        lines = events_table(found, width=width).splitlines()
        assert max(map(columns, lines)) <= width
        assert " ".join(" ".join(lines).split()).count(why) == 1
    assert "DETAIL" not in events_table([found[0]._replace(detail="")])
    assert events_table([]).split() == list(EVENTS)


def test_table_fits():
    """In a narrow terminal names and notes are cut; ids, states and figures are not."""
    lines = status_table([JOBS[3]._replace(id="a-job-with-a-long-id", name="n" * 70)], NOW, width=100).splitlines()
    assert lines[1] == "a-job-with-a-long-id  nnnnn...  litgpt   local   FAILED  12/150   nan      -    -  4 min  loss is..."
    assert len(lines[1]) == 100


def test_table_colour():
    """Colour is added to the state's word; without it, the same text is left."""
    text = status_table(JOBS, NOW, colour=True)
    assert "\x1b[31mFAILED   \x1b[0m   12/150" in text
    assert "QUEUED     " in text
    plain = text
    for code in ("\x1b[31m", "\x1b[32m", "\x1b[36m", "\x1b[0m"):
        plain = plain.replace(code, "")
    assert plain == TABLE


def test_eta():
    """The time left follows the pace up to the last look and shrinks as time passes, to zero and not below."""
    assert eta_seconds(TRAINING, NOW) == 190
    assert eta_seconds(TRAINING, NOW + 100) == 90
    assert eta_seconds(TRAINING, NOW + 1000) == 0


def test_eta_unknown():
    """Nothing is promised before the first step, after the last, or for a job that does not run."""
    rows = [
        TRAINING._replace(step=0), TRAINING._replace(step=None), TRAINING._replace(steps=None), TRAINING._replace(step=150),
        TRAINING._replace(state="STOPPING"), TRAINING._replace(started=None), TRAINING._replace(seen_at=None),
    ]  # fmt: skip
    assert [eta_seconds(row, NOW) for row in rows] == [None] * len(rows)


def test_json():
    """The document has every fact of a job under a stable name."""
    assert status_json([TRAINING], NOW) == [
        {
            "id": "a-1", "name": "quickstart", "trainer": "litgpt", "target": "local", "state": "RUNNING", "reason": "",
            "detail": "", "attempt": 1, "step": 50, "steps": 150, "phase_step": "train", "eta_s": 190.0, "loss": 2.302585,
            "tokens_per_second": 12345.6, "submitted": iso(NOW - 240), "started": iso(NOW - 110), "ended": None,
            "seen_at": iso(NOW - 10),
            "reachable": True, "labels": {}, "rows": {},
        }
    ]  # fmt: skip


def test_json_is_json():
    """A loss that is not a number becomes null: strict readers take the document."""
    text = json.dumps(status_json(JOBS, NOW), allow_nan=False)
    assert json.loads(text)[3]["loss"] is None


def test_the_text_is_the_document():
    """It is written without it, and is the same: whatever texts, labels and figures a job has."""
    strange = TRAINING._replace(detail='a "b" \\ é\n%s', labels={"a": "1", 'é"': "%d"}, rows={"train": {"read": 3}}, loss=1e-9)
    jobs = [*JOBS, strange, QUEUED._replace(id="inf", loss=float("inf"), steps=10**12)]
    assert json.loads(status_json_text(jobs, NOW)) == status_json(jobs, NOW)
    assert status_json_text(jobs, NOW) == json.dumps(status_json(jobs, NOW), separators=(",\n ", ": "))
    assert status_json_text([], NOW) == "[]"


def test_from_the_store(tmp_path):
    """What a real store gives is what is shown."""
    with open_store(tmp_path / "store.db") as store:
        store.add_job(NewJob("a-1", "quickstart", "litgpt", "local", "d", "{}", planned_steps=150), NOW)
        store.change("a-1", expect=["QUEUED"], attempt=1, now=NOW, state="RUNNING", phase_step="train", started=NOW)
        store.record("a-1", 1, [(3, "loss", 2.5, "loss"), (3, "tokens_per_second", 800.0, "tps")], NOW + 1, {})
        jobs = store.jobs()
    assert status_table(jobs, NOW + 2).splitlines() == [
        "ID   NAME        TRAINER  TARGET  STATE     STEP  LOSS  TOK/S   ETA  AGE",
        "a-1  quickstart  litgpt   local   RUNNING  3/150   2.5    800  48 s  2 s",
    ]
    assert status_json(jobs, NOW + 2)[0]["step"] == 3


def test_what_became_of_the_rows():
    """A line for each set: only what is not 0 is told, and a column's name does not steer the terminal."""
    train = {"read": 1200, "trained": 1190, "cut": 3, "cut_end": 1, "without_loss": 10, "unread": {"a\x1b[5m": 4, "b": 1000}}
    job = QUEUED._replace(rows={"train": train, "eval": {"read": 2, "trained": 2, "cut": 0, "unread": {}}})
    assert rows_lines(job) == [
        "train: 1,200 rows read, 1,190 trained; 3 cut at max_length, 1 cut without their end, 10 left out without loss; "
        "unread: a (4), b (1,000)",
        "eval: 2 rows read, 2 looked at",
    ]
    assert rows_lines(QUEUED) == []
    assert status_json([job], NOW)[0]["rows"] == job.rows


def test_labels():
    """Labels stand in a column of their own where some job has some."""
    jobs = [QUEUED._replace(id="a-7", labels={"team": "nlp", "sweep": "3"}), QUEUED._replace(id="a-8")]
    assert [line.rpartition("4 min")[2].strip() for line in status_table(jobs, NOW).splitlines()[1:]] == ["team=nlp sweep=3", ""]


def test_screen():
    """A screen counts all jobs, shows what is at work, then who waits, then who ended last, and no more than fits."""
    many = [QUEUED._replace(id=f"q-{n}", submitted=NOW - 100 + n) for n in range(300)]
    done = [ENDED._replace(id=f"e-{n}", state="SUCCEEDED", ended=NOW - n) for n in range(50)]
    lines = status_screen([*done, *reversed(many), *JOBS[:3]], NOW, size=(120, 24)).splitlines()
    assert lines[0] == "353 jobs: 300 QUEUED, 3 RUNNING, 50 SUCCEEDED"
    assert len(lines) == 23
    assert [line.split()[0] for line in lines[2:7]] == ["a-1", "a-3", "a-2", "q-0", "q-1"]
    assert lines[-1] == "and 333 more: 283 QUEUED, 50 SUCCEEDED"
    short = status_screen([*done[:3], many[0]], NOW, size=(120, 24)).splitlines()
    assert [line.split()[0] for line in short[2:]] == ["q-0", "e-0", "e-1", "e-2"]
    assert status_screen([], NOW, size=(80, 24)).splitlines()[0] == "no such jobs"
    assert len(status_screen(many, NOW, size=(80, 2)).splitlines()) == 4


@pytest.mark.parametrize("width", [40, 60, 80, 100, 120])
def test_no_line_is_wider_than_the_terminal(width):
    """A narrow terminal goes without columns, never without an id or a state, and no line wraps."""
    jobs = [job._replace(id=f"support-bot-{n}", labels={"team": "a" * 30}) for n, job in enumerate(JOBS)]
    lines = status_table(jobs, NOW, width=width).splitlines()
    assert max(map(columns, lines)) <= width
    assert all(job.id in line and job.state in line for job, line in zip(jobs, lines[1:], strict=True))
