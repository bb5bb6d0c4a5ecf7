"""The page in a real browser: every view, every act, small screens, dark, live figures, and text that would be a script."""

import json
import shutil
import subprocess
import tarfile

import pytest

pytestmark = pytest.mark.long


@pytest.fixture(scope="session")
def axe(shared_home):
    """axe-core, the accessibility checker, out of its npm package."""
    folder = shared_home / "cache" / "axe"
    if not list(folder.glob("*.tgz")):
        if shutil.which("npm") is None:
            pytest.skip("fetching axe-core needs npm")
        folder.mkdir(parents=True, exist_ok=True)
        subprocess.run(["npm", "pack", "--silent", "axe-core@4"], cwd=folder, check=True, capture_output=True)
    with tarfile.open(next(folder.glob("*.tgz"))) as archive:
        return archive.extractfile("package/axe.min.js").read().decode()


def serious(page, axe):
    """What axe finds that keeps people out."""
    page.evaluate(axe)  # by the browser's own console, which the page's policy does not concern
    found = page.evaluate("axe.run().then((result) => result.violations)")
    return [(each["id"], each["nodes"][0]["html"]) for each in found if each["impact"] in ("serious", "critical")]


def test_every_view(dashboard, lab, page, axe):
    """The list, a job, the comparison, machines and the form are drawn without an error, in light and dark, wide and on a phone, and
    keep nobody out.
    """
    for id in ("one", "two"):
        lab.submit(id, lab.training(30), steps=30)
        lab.wait(id)
    running = dashboard()
    page.goto(running.entry)
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        for width in (1200, 390):
            page.set_viewport_size({"width": width, "height": 800})
            for path in ("", "jobs/one", "compare?job=one&job=two", "targets", "submit"):
                page.goto(running.url + path)
                if "one" in path:
                    page.wait_for_selector("#charts canvas")
                assert page.evaluate("document.documentElement.scrollWidth") <= width, path
                assert serious(page, axe) == [], (scheme, width, path)


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


def test_acting(dashboard, lab, page):
    """Cancel, retry and pull from a job's page do what the commands do; a recipe is tried dry, corrected and submitted."""
    lab.submit("a", "sleep 100")
    lab.wait("a", state="RUNNING")
    running = dashboard()
    page.goto(running.entry)
    page.goto(f"{running.url}jobs/a")
    page.click("button:has-text('Cancel')")
    page.wait_for_selector("#state >> text=CANCELLED", timeout=60_000)
    page.goto(f"{running.url}submit")
    page.fill("textarea", "version: 1\nname: x\n")
    page.click("text=Dry run")
    assert "recipe.yaml" in page.inner_text("[role=alert]")
    page.fill("textarea", RECIPE)
    page.select_option("select[name=to]", "litgpt")
    page.click("text=Dry run")
    page.wait_for_selector("h2:has-text('Dry run')")
    assert "litgpt.yaml" in page.inner_text("pre.log")


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
    """Names, logs and labels that hold scripts are shown as they are, in the page and in a shared file."""
    evil = "<img src=x onerror=document.title='run'><script>document.title='run'</script>"
    lab.submit("a", f'echo "{evil}"; exit 3', name=evil)
    lab.wait("a")
    running = dashboard()
    page.goto(running.entry)
    for path in ("", "jobs/a", "jobs/a/log"):
        page.goto(running.url + path)
        page.wait_for_timeout(500)
        assert page.title() != "run"
    (tmp_path / "a.html").write_text(page.request.get(f"{running.url}jobs/a/share.html").text())
    page.goto(f"file://{tmp_path}/a.html")
    assert page.title() != "run"
