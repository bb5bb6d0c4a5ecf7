"""Which events are told to whom, as pure functions."""

import pytest

from orchestrator.notices.happenings import AGAIN, SILENT, harmless, host_notices, kinds_of, message, notices, watched
from orchestrator.store import Event, Job
from orchestrator.store.notices import Happened
from orchestrator.targets.closed import Closed

ALL = {"one": frozenset({"start", "end", "gate", "stuck", "host"})}


def happened(old, state, reason="", detail="", *, again=False, attempt=1):
    """An event of a job that is as the event left it."""
    times = {"submitted": 0.0, "started": 10.0, "ended": 130.0, "seen_at": 130.0}
    fixed = {"name": "r", "backend": "b", "target": "lab", "step": 5, "steps": 5, "phase_step": "", "priority": 0, "want": ""}
    end = {"reachable": True, "labels": {}, "tokens_per_second": None, "loss": None}
    job = Job(id="j", state=state, reason=reason, detail=detail, attempt=attempt, **times, **fixed, **end)
    return Happened(7, Event("j", attempt, 130.0, old, state, reason, detail), again, job)


@pytest.mark.parametrize(
    ("event", "kinds"),
    [
        (happened("", "QUEUED"), set()),
        (happened("STARTING", "PREPARING"), set()),
        (happened("PREPARING", "RUNNING"), {"start"}),
        (happened("READY", "RUNNING", detail="it does not answer; it is started again"), set()),
        (happened("PREPARING", "READY", detail="http://h:1"), {"start"}),
        (happened("RUNNING", "READY"), set()),
        (happened("RUNNING", "SUCCEEDED"), {"end"}),
        (happened("RUNNING", "FAILED", "nan_loss"), {"end"}),
        (happened("RUNNING", "FAILED", "out_of_memory", again=True), set()),
        (happened("RUNNING", "FAILED", "gate"), {"end", "gate"}),
        (happened("RUNNING", "RUNNING", "hang", "no step"), {"stuck"}),
        (happened("RUNNING", "FAILED", "hang"), {"end"}),
        (happened("RUNNING", "FAILED", "hang", again=True), set()),
        (happened("RUNNING", "KEPT", "exit_code"), {"end"}),
        (happened("KEPT", "FAILED", "exit_code"), set()),
        (happened("RUNNING", "RUNNING", detail="h: timed out"), {"host"}),
        (happened("CANCELLED", "CANCELLED", detail="h answers again"), set()),
        (happened("SUCCEEDED", "SUCCEEDED", "pruned"), set()),
    ],
)
def test_kinds(event, kinds):
    """Starts, ends for good, gates, attempts that hang, silent hosts; nothing else is news."""
    assert kinds_of(event) == kinds


def test_one_notice_for_each_service_that_wants_it():
    """A gate is told once to who wants ends and gates; it names the event's number, the job, the reason and how far it came."""
    wanted = {"both": frozenset({"end", "gate"}), "starts": frozenset({"start"}), "gates": frozenset({"gate"})}
    found = notices(happened("RUNNING", "FAILED", "gate", "loss 2.1 is above 2.0"), wanted)
    assert [each.service for each in found] == ["both", "gates"]
    assert found[0].line == "[7] j FAILED (gate), 5 of 5 steps, 2 min on lab: loss 2.1 is above 2.0"
    assert (found[0].topic, found[0].event, found[0].tone, found[0].due) == ("7", 7, "failure", 130.0)


def test_a_stuck_attempt_is_told_while_it_runs():
    """At once, in words that say that it has not ended yet; its end says what became of it."""
    [found] = notices(happened("RUNNING", "RUNNING", "hang", "no step for 30 minutes", attempt=2), ALL)
    assert found.line == "[7] j (attempt 2) is stuck: no step for 30 minutes; it is being stopped"
    assert (found.kind, found.tone, found.due) == ("job", "warning", 130.0)


def test_a_silent_host_is_told_after_a_while():
    """A hiccup of the network is no news: the notice is due later, and its sender looks again then."""
    [found] = notices(happened("RUNNING", "RUNNING", detail="gpu-3: timed out", attempt=2), ALL)
    assert found.due == 130.0 + SILENT
    assert "j (attempt 2): its host does not answer: gpu-3: timed out" in found.line


def test_a_closed_host_is_told_once_an_hour():
    """Told after a minute, also where it is being tried again in between; not again within an hour; a new closing begins anew."""
    closed = {"gpu-3": Closed("gpu-3: the disk is full", 5.0)}
    hosts = watched({}, closed, 0.0)
    assert host_notices(hosts, {}, ALL, 0.0) == []
    hosts = watched(hosts, {}, 30.0)  # it is being tried
    hosts = watched(hosts, {"gpu-3": Closed("gpu-3: the disk is full", 90.0)}, SILENT)
    [found] = host_notices(hosts, {}, ALL, SILENT)
    assert found.line == "host gpu-3: nothing is started there for now: the disk is full"
    assert found.event == 0
    assert host_notices(hosts, {"gpu-3": SILENT}, ALL, SILENT + AGAIN - 1) == []
    assert host_notices(hosts, {"gpu-3": SILENT}, ALL, SILENT + AGAIN) != []
    assert host_notices(hosts, {}, ALL, SILENT, ["gpu-3, gpu-4: 10.0.0.3: timed out"]) == []  # told with its job
    assert len(host_notices(hosts, {}, ALL, SILENT, ["gpu-4: not gpu-3: timed out"])) == 1
    assert watched(hosts, {}, 200.0) == {}


def test_text_of_a_job_is_harmless():
    """One line without controls, which calls nobody in a chat, of a bounded length."""
    text = harmless("a\x1b[2Jb\nc @everyone <!channel> me@x " + "y" * 1000)
    assert "\n" not in text
    assert "\x1b" not in text
    assert "@everyone" not in text
    assert "<!channel>" not in text
    assert len(text) == 400


def test_several_notices_are_one_message():
    """Title, all lines, and the worst of their tones."""
    assert message(["[1] a SUCCEEDED"], ["success"]) == ("tune: [1] a SUCCEEDED", "[1] a SUCCEEDED", "success")
    assert message(["[1] a", "[2] b"], ["failure", "success"]) == ("tune: 2 notices", "[1] a\n[2] b", "failure")
