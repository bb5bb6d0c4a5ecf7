"""A job as one HTML file that needs no network and no server: facts, curves, events, the report, the end of the log."""

from __future__ import annotations

import json
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from orchestrator.client import jobs, output
from orchestrator.render.points import metrics_json
from orchestrator.render.text import number
from orchestrator.web import views
from orchestrator.web.inline import own, sums

HERE = Path(__file__).parent
SCRIPTS = ("uplot.js", "charts.js")
STYLES = ("uplot.css", "page.css")


def share(name: str) -> str:
    """The file's text. Its scripts are named by their sums in its own policy, so that no text of a job can become one."""
    values, id = views.one(name), jobs.get(name).id
    log = views.plain(output.log_tail(id, views.TAIL)[0])
    scripts, styles = [own(each) for each in SCRIPTS], [own(each) for each in STYLES]
    templates = Environment(loader=FileSystemLoader(HERE / "templates"), autoescape=True, undefined=StrictUndefined)
    templates.filters.update(number=number)
    points = {**views.curves([id], views.WIDEST), "all": metrics_json(id, output.points([id])[id])["points"]}
    return templates.get_template("share.html").render(
        **values,
        log=log,
        policy=f"default-src 'none'; img-src data:; script-src {sums(*scripts)}; style-src {sums(*styles)}",
        scripts=scripts,
        styles=styles,
        data=Markup(json.dumps(points).replace("<", "\\u003c")),  # noqa: S704  # JSON that cannot end its element
    )
