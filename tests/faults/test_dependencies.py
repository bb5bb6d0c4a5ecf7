"""Jobs that wait for other jobs: they start once these have become what they wait for, or end and say why not."""

import pytest

from .test_submitted import HELD, folder  # noqa: F401

WAITS = "waits for holder to succeed"


@pytest.fixture
def queued(tune, lab, folder):  # noqa: F811
    """Submit the recipe behind a job, `holder`, that has the machine and would succeed; `free` lets it go."""

    def submit(id, *more, code=0):
        return tune("submit", "recipe.yaml", "--id", id, *HELD, *more, code=code)

    lab.submit("holder", "while [ ! -e free ]; do sleep 0.05; done; " + lab.training(1), steps=1)
    lab.wait("holder", state="RUNNING")
    submit.free = (lab.home.jobs / "holder/1/work/free").touch
    yield submit
    submit.free()


def test_they_start_in_their_order(lab, queued):
    """A job waits for one, another for both, through a new controller too; one that waits for none goes before them."""
    queued("second", "--after", "holder")
    queued("third", "--after", "second", "--after", "hold")
    queued("free")
    assert [lab.job(id).detail for id in ("second", "third")] == [WAITS, "waits for second to succeed"]
    lab.kill_controllers()
    queued("woken", "--after", "holder:ended")
    queued.free()
    assert [lab.wait(id).state for id in ("holder", "second", "third", "free", "woken")] == ["SUCCEEDED"] * 5
    holder, second, third = (lab.job(id) for id in ("holder", "second", "third"))
    assert holder.ended <= second.started
    assert second.ended <= third.started


def test_what_can_never_start_ends(tune, lab, queued):
    """The other ended otherwise: the job is CANCELLED, with the reason and the way out, and so is what waits for it; what waits for that
    end, or for any, starts.
    """
    queued("after", "--after", "holder")
    queued("last", "--after", "after")
    queued("sad", "--after", "holder:failed")
    queued("any", "--after", "holder:ended")
    queued("ready", "--after", "holder:ready")
    tune("cancel", "holder")
    why = "holder ended CANCELLED (cancelled); `tune retry {}` runs it all the same".format
    for id in ("after", "ready"):
        job = lab.wait(id)
        assert (job.state, job.reason, job.detail) == ("CANCELLED", "dependency", why(id))
    assert lab.wait("last").detail == "after ended CANCELLED (dependency); `tune retry last` runs it all the same"
    assert [lab.wait(id).state for id in ("sad", "any")] == ["SUCCEEDED"] * 2
    tune("retry", "last")
    assert lab.wait("last", attempt=2, state="SUCCEEDED")


def test_who_holds_it_lets_it_go(tune, lab, queued):
    """A hold outlasts what the job waits for; a release lets it start whatever it waits for."""
    queued("held", "--after", "holder", "--hold")
    queued("released", "--after", "holder:failed")
    tune("release", "released")
    queued.free()
    assert lab.wait("released").state == "SUCCEEDED"
    assert lab.wait("holder").state == "SUCCEEDED"
    queued("probe", "--after", "holder")  # it has ended: nothing is waited for
    assert lab.wait("probe").state == "SUCCEEDED"
    assert lab.job("held").state == "QUEUED"
    tune("release", "held")
    assert lab.wait("held").state == "SUCCEEDED"


def test_what_cannot_be_waited_for_is_refused(tune, lab, queued):
    """No such job, no such outcome, the same job for two outcomes, one that has ended otherwise: nothing is submitted."""
    for words, said in (
        (("--after", "nobody"), "nobody: no such job"),
        (("--after", "holder:done"), "should be JOB or JOB:OUTCOME with one of succeeded, failed, ended, ready"),
        (("--after", "holder", "--after", "hold:failed"), "holder is waited for twice, to succeed too"),
    ):
        assert said in queued("new", *words, code=2).stderr
    queued.free()
    lab.wait("holder")
    assert "holder has ended SUCCEEDED: this job would never start" in queued("new", "--after", "holder:failed", code=2).stderr
    assert lab.job("new") is None
