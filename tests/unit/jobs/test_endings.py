"""How a job's end is told: what the host knows of it comes before what the step says."""

import pytest

from orchestrator.executors.phases import merge_ranks
from orchestrator.jobs.lifecycle import Become, Facts, reconcile
from orchestrator.transports.base import AttemptStatus

FULL = {"cause": "disk_full", "evidence": "the disk of the work folder has 0 KiB of 3 MiB free"}
KILLED = {"cause": "out_of_memory", "evidence": "the kernel killed it for want of memory (oom_kill 3 -> 4)"}
ELSE = {"evidence": "the kernel counted no kill for want of memory (oom_kill 3 -> 3)"}


@pytest.mark.parametrize(
    ("facts", "reason", "words"),
    [
        ({"rc": 1, "last_words": "OSError: x", **FULL}, "disk_full", ["0 KiB of 3 MiB free", "exit code 1", "OSError: x"]),
        ({"rc": 1, "step_reason": ("bad_data", "row 3"), **FULL}, "disk_full", ["0 KiB of 3 MiB free", "row 3"]),
        ({"rc": 0, "verdict": ("too_few_steps", "2 of 3"), **FULL}, "disk_full", ["too_few_steps: 2 of 3"]),
        ({"signal": 7, **FULL}, "disk_full", ["signal 7"]),
        ({"signal": 9, **KILLED}, "out_of_memory", ["out of memory on the host", "signal 9", "oom_kill 3 -> 4"]),
        ({"rc": 1, "last_words": "x", **KILLED}, "out_of_memory", ["out of memory on the host", "exit code 1: x"]),
        ({"signal": 9}, "signal", ["signal 9: most likely out of memory on the host"]),
        ({"rc": 137, "last_words": "x"}, "exit_code", ["exit code 137: most likely out of memory on the host"]),
        ({"signal": 9, **ELSE}, "signal", ["not out of memory on the host", "oom_kill 3 -> 3"]),
        ({"signal": 15}, "signal", ["step train was ended by signal 15"]),
        ({"rc": 1, "step_reason": ("bad_data", "row 3")}, "bad_data", ["row 3"]),
        ({"rc": 1, "last_words": "x"}, "exit_code", ["step train ended with exit code 1: x"]),
    ],
)
def test_an_end_has_its_reason(facts, reason, words):
    """A failed attempt's reason is the host's where it knows one, and the detail has the evidence and what the step made of it."""
    [end] = reconcile(Facts("RUNNING", phase="exited", step="train", **facts))
    assert (end.state, end.reason) == ("FAILED", reason)
    assert all(each in end.detail for each in words), end.detail


def test_a_full_disk_after_a_success_is_no_failure():
    """Who trained to the end has succeeded, however little room is left."""
    [end] = reconcile(Facts("RUNNING", phase="exited", step="train", rc=0, **FULL))
    assert end.state == "SUCCEEDED"


@pytest.mark.parametrize(
    ("facts", "said"),
    [
        ({}, [("KEPT", "exit_code")]),
        ({"state": "KEPT"}, []),
        ({"state": "KEPT", "released": True}, ["cancel"]),
        ({"state": "KEPT", "want": "cancel"}, ["cancel"]),
        ({"condemned": ("drift", "lr is 1")}, ["cancel"]),
    ],
)
def test_what_has_failed_is_kept(facts, said):
    """Until somebody lets go: it is told why it failed and until when, once; what we stop ourselves is not kept."""
    found = reconcile(Facts(**{"state": "RUNNING", "phase": "kept", "step": "train", "rc": 1, "kept_until": "tomorrow", **facts}))
    assert [(each.state, each.reason) if isinstance(each, Become) else each.what for each in found] == said
    assert all("exit code 1; its devices are kept until tomorrow" in each.detail for each in found if isinstance(each, Become))


def test_what_is_kept_speaks_for_all_hosts():
    """One host that failed and is kept, beside one that still runs, has the others stopped; once they are, the job is kept."""
    kept = AttemptStatus("a", 1, "kept", rc=1, ended=2.0, kept_until=9.0)
    assert merge_ranks([AttemptStatus("a", 1, "running"), kept]) == ("failing", 1)
    assert merge_ranks([AttemptStatus("a", 1, "stopping"), kept])[0] == "stopping"
    assert merge_ranks([AttemptStatus("a", 1, "exited", rc=1, ended=1.0), kept]) == ("kept", 1)
    assert merge_ranks([AttemptStatus("a", 1, "exited", signal=15, why="stopped", ended=3.0), kept]) == ("kept", 1)
