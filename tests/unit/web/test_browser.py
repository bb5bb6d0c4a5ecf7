"""The page in a real browser: every view, every act, small screens, dark, live figures, and text that would be a script."""

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe

from orchestrator.client.submit import QueuedJob, enqueue_all
from orchestrator.store import open_store
from orchestrator.store.requests import SweepPoint
from tests.faults.conftest import here, shell_plan
from tests.unit.cli.test_race import script  # noqa: F401

pytestmark = pytest.mark.long
SHOTS = os.environ.get("TUNE_SCREENSHOTS", "")
"""Folder for pictures of each view; empty: none is kept."""


def serious(page):
    """What axe finds that keeps people out. It comes by the browser's own console, which the page's policy does not concern."""
    return [
        (each["id"], each["nodes"][0]["html"])
        for each in Axe().run(page).response["violations"]
        if each["impact"] in ("serious", "critical")
    ]


def sweep(lab, losses):
    """A sweep with a point for each loss, ended."""
    points = [SweepPoint("s", number, {"optim.lr": f"{number}e-4"}) for number in range(1, len(losses) + 1)]
    plans = [shell_plan(lab.training(3, loss=loss), steps=3) for loss in losses]
    queued = [QueuedJob(p.job, plan, [here(1)], labels={"sweep": "s"}, sweep=p) for p, plan in zip(points, plans, strict=True)]
    enqueue_all(lab.home, queued, {})
    for each in queued:
        lab.wait(each.id)


@pytest.fixture
def everything(lab, tune, script):  # noqa: F811
    """Jobs, a sweep, a race and a verification; paths of all views, by name."""
    for id in ("one", "two"):
        lab.submit(id, lab.training(30), steps=30)
        lab.wait(id)
    with open_store(lab.home.store) as store:
        rows = {"train": {"read": 6, "trained": 5, "cut": 1, "without_loss": 1, "unread": {"topic": 4}}}
        store.change("one", expect=None, now=1.0, rows=rows)
    sweep(lab, (2.5, 1.5))
    raced = tune.json("race", *script(), "--steps", "6", "--rounds", "1")["id"]
    checked = tune.json("verify", *script(), "--level", "1")["id"]
    return {
        "jobs": "",
        "job": "jobs/one",
        "compare": "compare?job=one&job=two",
        "sweep": "sweeps/s",
        "evidence": "evidence",
        "race": f"evidence/{raced}",
        "verify": f"evidence/{checked}",
        "targets": "targets",
        "submit": "submit",
    }


@pytest.mark.parametrize(("scheme", "width"), [("light", 1200), ("dark", 390)])
def test_every_view(dashboard, everything, page, scheme, width):
    """Each view is drawn without an error, light on a wide screen and dark on a phone, fits its width, and keeps nobody out."""
    running = dashboard()
    page.goto(running.entry)
    page.emulate_media(color_scheme=scheme)
    page.set_viewport_size({"width": width, "height": 800})
    for name, path in everything.items():
        page.goto(running.url + path)
        if name in ("job", "compare", "sweep", "race"):
            page.wait_for_selector("#charts canvas")
        if SHOTS:
            Path(SHOTS).mkdir(parents=True, exist_ok=True)
            page.screenshot(path=Path(SHOTS) / f"{name}-{scheme}-{width}.png", full_page=True)
        assert page.evaluate("document.documentElement.scrollWidth") <= width, name
        assert serious(page) == [], (scheme, width, name)


def test_what_is_told_of_data_sweeps_and_evidence(dashboard, everything, page):
    """The page tells what became of a job's rows, ranks a sweep, and shows a race and a verification as they were told; each job names
    what it is part of.
    """
    running = dashboard()
    page.goto(running.entry)
    page.goto(running.url)
    assert "2 SUCCEEDED" in page.inner_text("#job-s")
    page.click("#job-s a")
    page.wait_for_url("**/sweeps/s")
    rows = page.inner_text("#points").splitlines()[1:]  # of the table itself, whose rows may be replaced at any moment
    assert [row.split()[:4] for row in rows] == [["1", "s.2", "2e-4", "1.5"], ["2", "s.1", "1e-4", "2.5"]]
    page.goto(f"{running.url}jobs/s.2")
    assert page.get_attribute("text=Part of >> a", "href").endswith("/sweeps/s")
    page.goto(f"{running.url}jobs/one")
    told = page.inner_text(".rows")
    assert told == "train: 6 rows read, 5 trained; 1 cut at max_length, 1 left out without loss; unread: topic (4)"
    page.goto(running.url + everything["race"])
    assert page.inner_text("#laps tbody th") == "command"
    assert "no winner" in page.inner_text("main")
    page.goto(running.url + everything["verify"])
    assert page.inner_text("#levels tbody tr").split()[:4] == ["1", "round", "trip", "command"]
    page.goto(f"{running.url}evidence")
    assert page.locator("tbody tr").count() == 2


def test_figures_are_live(dashboard, lab, page):
    """A running job's row and page follow it without a reload, to its end."""
    lab.submit("go", lab.training(3) + "while [ ! -e on ]; do sleep 0.05; done\n" + lab.training(3), steps=3)
    lab.wait("go", until=lambda job: job.step == 3)
    running = dashboard()
    page.goto(running.entry)
    page.wait_for_selector("#job-go >> text=RUNNING")
    other = page.context.new_page()
    other.goto(f"{running.url}jobs/go")
    other.wait_for_selector("#state >> text=RUNNING")
    (lab.home.jobs / "go/1/work/on").touch()
    page.wait_for_selector("#job-go >> text=SUCCEEDED", timeout=60_000)
    other.wait_for_selector("#state >> text=SUCCEEDED", timeout=60_000)


def test_acting_on_jobs(dashboard, lab, page):
    """Another priority, cancel, retry and pull from a job's page do what the commands do; a sweep is cancelled as one."""
    lab.submit("a", "sleep 100")
    lab.wait("a", state="RUNNING")
    lab.submit("b", lab.training(3), steps=3)
    points = [SweepPoint("s", number, {"optim.lr": "1e-4"}) for number in (1, 2)]
    jobs = [QueuedJob(p.job, shell_plan("true"), [here(1)], labels={"sweep": "s"}, sweep=p) for p in points]
    enqueue_all(lab.home, jobs, {})
    running = dashboard()
    page.goto(running.entry)
    page.goto(f"{running.url}sweeps/s")
    page.click("button:has-text('Cancel all')")
    assert {lab.wait(each.id).state for each in jobs} == {"CANCELLED"}
    page.goto(f"{running.url}jobs/b")
    page.fill("input[name=priority]", "7")
    page.click("button:has-text('Set')")
    page.wait_for_selector("input[name=priority][value='7']")
    assert lab.job("b").priority == 7
    page.goto(f"{running.url}jobs/a")
    page.click("button:has-text('Cancel')")
    page.wait_for_selector("#state >> text=CANCELLED", timeout=60_000)
    lab.wait("b", state="SUCCEEDED")
    page.goto(f"{running.url}jobs/b")
    page.click("button:has-text('Pull results')")
    page.wait_for_selector("text=Results are in")
    assert (lab.home.path / "pulled/b/work/checkpoint/config.json").exists()
    page.click("button:has-text('Retry')")
    page.wait_for_url("**/jobs/b")
    assert lab.wait("b", until=lambda job: job.attempt == 2 and job.ended).state == "SUCCEEDED"


def test_submitting(dashboard, lab, page, tmp_path):
    """A recipe is tried dry, corrected, tried again with its dry run beside it, and submitted."""
    (tmp_path / "rows.jsonl").write_text('{"text": "a"}\n')
    running = dashboard()
    page.goto(running.entry)
    page.goto(f"{running.url}submit")
    page.fill("textarea", "version: 1\nname: x\n")
    page.click("text=Dry run")
    assert "recipe.yaml" in page.inner_text("[role=alert]")
    page.fill("textarea", RECIPE)
    page.select_option("select[name=to]", "litgpt")
    page.click("text=Dry run")
    page.wait_for_selector("h2:has-text('Dry run')")
    assert "litgpt.yaml" in page.inner_text("pre.log")
    assert lab.log() == ""
    page.fill("input[name=id]", "mine")
    page.click("button:has-text('Submit')")
    page.wait_for_url("**/jobs/mine")
    page.click("button:has-text('Cancel')")
    assert lab.wait("mine").state == "CANCELLED"


RECIPE = """version: 1
name: small
model: {id: none, init: random, architecture: {hidden_size: 32, intermediate_size: 64, layers: 1, heads: 2, kv_heads: 1, max_length: 256}}
data: {train: rows.jsonl, format: text, max_length: 64}
train: {steps: 2, batch: {global: 2}, precision: fp32}
optim: {lr: 1e-3, warmup_steps: 1}
"""


def test_a_shared_file_needs_no_network(dashboard, lab, tune, page, tmp_path):
    """The file of a job opens from the disk, offline, draws its curves, and has the points of `tune metrics --json`."""
    lab.submit("one", lab.training(30), steps=30)
    lab.wait("one")
    tune("dashboard", "one", "--share", str(tmp_path / "one.html"))
    page.context.set_offline(True)
    page.goto(f"file://{tmp_path}/one.html")
    page.wait_for_selector("#charts canvas")
    kept = json.loads(page.text_content("#data"))["all"]
    assert kept == tune.json("metrics", "one")["points"]


def test_a_script_in_a_name_does_not_run(dashboard, lab, page, tmp_path):
    """Names, labels, log lines and names of files that hold scripts are shown as they are, in the page and in a shared file."""
    evil = "<img src=x onerror=document.title='run'><script>document.title='run'</script>"
    plan = shell_plan(f'echo "{evil}"; {lab.training(1)}', steps=1, name=evil)
    plan = replace(plan, promise=replace(plan.promise, files=(f"{evil.replace('/', '')}.json",)))
    enqueue_all(lab.home, [QueuedJob("a", plan, [here(1)], labels={"team": evil})], {})
    job = lab.wait("a")
    assert job.reason == "no_checkpoint"
    assert "<img" in job.detail
    running = dashboard()
    page.goto(running.entry)
    for path in ("", "?q=%3Cscript%3Edocument.title%3D%27run%27%3C/script%3E", "jobs/a", "jobs/a/log"):
        page.goto(running.url + path)
        page.wait_for_timeout(500)
        assert page.title() != "run"
        assert page.locator("img").count() == 0
    page.goto(running.url)
    assert f"team={evil}" in page.inner_text("#job-a .note")
    (tmp_path / "a.html").write_text(page.request.get(f"{running.url}jobs/a/share.html").text())
    page.goto(f"file://{tmp_path}/a.html")
    assert page.title() != "run"
    assert page.locator("img").count() == 0


def focused(page):
    """What has the keyboard, in words, and whether that can be seen."""
    return page.evaluate(
        """() => {
            const it = document.activeElement, style = getComputedStyle(it)
            const seen = style.outlineStyle !== "none" || style.boxShadow !== "none"
            return [it.tagName, (it.getAttribute("aria-label") || it.name || it.textContent).trim(), seen]
        }"""
    )


def test_by_the_keyboard_alone(dashboard, lab, page):
    """What has the focus is seen; a job is found, opened and cancelled without a mouse, and the first key leads past the head."""
    lab.submit("a", "sleep 100")
    lab.wait("a", state="RUNNING")
    running = dashboard()
    page.goto(running.entry)
    page.keyboard.press("Tab")
    assert focused(page) == ["A", "Skip to content", True]
    page.keyboard.press("Enter")
    assert page.evaluate("location.hash") == "#main"
    for wanted in (["INPUT", "q", True], ["A", "a", True]):
        for _ in range(20):
            page.keyboard.press("Tab")
            if focused(page) == wanted:
                break
        assert focused(page) == wanted
    page.keyboard.press("Enter")
    page.wait_for_url("**/jobs/a")
    for _ in range(20):
        page.keyboard.press("Tab")
        if focused(page)[1] == "Cancel":
            break
    assert focused(page) == ["BUTTON", "Cancel", True]
    page.keyboard.press("Enter")
    page.wait_for_selector("#state >> text=CANCELLED", timeout=60_000)
