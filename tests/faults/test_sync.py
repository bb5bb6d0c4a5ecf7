"""What `tune sync` has nothing to send of."""

from tests.waiting import until


def test_what_cannot_be_sent_is_told(lab, tune):
    """A job that there is not, one that still works, and one that wrote no run: each named, with the way out."""
    lab.submit("a", "touch began; until test -e go; do sleep 0.05; done;" + lab.training(2), steps=2)
    work = lab.home.jobs / "a/1/work"
    until((work / "began").exists)
    assert "its run still grows\n\nhint: `tune wait a`" in tune("sync", "a", code=2).stderr
    assert "nope: no such job" in tune("sync", "nope", code=2).stderr
    (work / "go").touch()
    assert lab.wait("a").state == "SUCCEEDED"
    said = tune("sync", "a", code=2).stderr
    assert "a: left no offline run of a tracker" in said
    assert "log.wandb_mode: offline" in said
