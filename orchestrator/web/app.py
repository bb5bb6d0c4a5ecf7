"""Routes of the page. Each gives what `views` tells to a template, or a form to `orchestrator.client`; errors become a page."""

from __future__ import annotations

import asyncio
import functools
import json
import time
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, RedirectResponse, Response, StreamingResponse
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from orchestrator.client import actions, output, queueing
from orchestrator.client.errors import NotFound, TunesmithError
from orchestrator.render.sweep import sweep_of
from orchestrator.render.text import number
from orchestrator.web import views
from orchestrator.web.access import COOKIE, HEADERS, Access, Role
from orchestrator.web.feed import Feed
from orchestrator.web.inline import STYLE

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

HERE = Path(__file__).parent
FRESH = 1.0
"""Seconds for which what a viewer was shown is shown to others: many viewers cost what one does."""
LARGEST = 1 << 20
"""Bytes of a form."""


def app(access: Access, *, root_path: str = "", base: Path | None = None) -> Starlette:
    """The page as an ASGI application.

    Args:
        access: who may look and act.
        root_path: the path under which a reverse proxy has it, such as `/tune`.
        base: folder to which paths of submitted recipes are relative; None: the current one.
    """
    page = Page(access, root_path.rstrip("/"), base or Path.cwd())
    routes = [
        Route("/", page.jobs),
        Route("/login", page.login, methods=["GET", "POST"]),
        Route("/events", page.events),
        Route("/compare", page.compare),
        Route("/curves.json", page.curves),
        Route("/targets", page.targets),
        Route("/evidence", page.evidence),
        Route("/evidence/{id}", page.one_evidence),
        Route("/sweeps/{id}", page.sweep),
        Route("/sweeps/{id}/cancel", page.cancel_sweep, methods=["POST"]),
        Route("/submit", page.submit, methods=["GET", "POST"]),
        Route("/jobs/{id}", page.job),
        Route("/jobs/{id}/log", page.log),
        Route("/jobs/{id}/share.html", page.share),
        Route("/jobs/{id}/{action}", page.act, methods=["POST"]),
        Mount("/static", StaticFiles(directory=HERE / "static")),
    ]
    return Starlette(
        routes=routes,
        middleware=[Middleware(Guard, access=access, root_path=page.root), Middleware(GZipMiddleware, minimum_size=1000)],
        exception_handlers={TunesmithError: page.wrong, 404: page.no_such_page},
    )


class Guard:
    """Lets in requests that mean us and prove a role; puts the headers on every answer."""

    def __init__(self, inner: ASGIApp, *, access: Access, root_path: str) -> None:
        self.inner, self.access, self.root = inner, access, root_path

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI 3.0."""
        from starlette.requests import Request  # noqa: PLC0415

        if scope["type"] != "http":
            await self.inner(scope, receive, send)
            return

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                own = [(name.lower().encode(), value.encode()) for name, value in HEADERS.items()]
                message = {**message, "headers": [*message["headers"], *own]}
            await send(message)

        scope = below(scope, self.root)
        answer = self._refusal(request := Request(scope))
        if answer is None:
            scope["state"] = {"role": self.access.role_in(request.cookies.get(COOKIE, ""))}
        await (answer or self.inner)(scope, receive, with_headers)

    def _refusal(self, request: Request) -> Response | None:
        """What is answered to a request that is not let in: a name that is not ours, a token to be changed for a cookie, no role."""
        if request.headers.get("host", "") not in self.access.hosts:
            return PlainTextResponse("this server is not called so (--allow-host adds a name)", 421)
        if token := request.query_params.get("token", ""):
            return entered(self.access, self.access.role_of(token), self.root)
        path = request.url.path.removeprefix(self.root)
        if path.startswith(("/static/", "/login")) or self.access.role_in(request.cookies.get(COOKIE, "")):
            return None
        return RedirectResponse(f"{self.root}/login", 303)


def below(scope: Scope, root: str) -> Scope:
    """A request as one below the root path, whether the reverse proxy passed that on or cut it off."""
    path = scope["path"]
    if not path.startswith(f"{root}/"):
        path = f"{root}/" if path == root else root + path
    return {**scope, "root_path": root, "path": path}


def entered(access: Access, role: Role, root: str) -> Response:
    """Into the page with a cookie, or back to the form."""
    if not role:
        return RedirectResponse(f"{root}/login?wrong=1", 303)
    answer = RedirectResponse(f"{root}/", 303)
    answer.set_cookie(COOKIE, access.cookie(role), httponly=True, samesite="strict", path=f"{root}/")
    return answer


class Page:
    """The handlers. Those that are no coroutines run in threads, since they read the store."""

    def __init__(self, access: Access, root: str, base: Path) -> None:
        self.access, self.root, self.base = access, root, base
        self.feed = Feed()
        self._kept: dict[tuple[object, ...], tuple[float, Any]] = {}
        self.templates = Environment(loader=FileSystemLoader(HERE / "templates"), autoescape=True, undefined=StrictUndefined)
        self.templates.globals["style"] = STYLE
        self.templates.filters.update(
            number=number, json=functools.partial(json.dumps, ensure_ascii=False, default=str), url=quote
        )

    def jobs(self, request: Request) -> Response:
        """The list."""
        return self._shown(request, "jobs.html", views.listing(request.query_params))

    def job(self, request: Request) -> Response:
        """One job."""
        return self._shown(request, "job.html", views.one(request.path_params["id"]))

    def compare(self, request: Request) -> Response:
        """Several jobs side by side."""
        ids = request.query_params.getlist("job")
        if len(ids) < 2:
            return self._message(request, 400, "Compare", "Choose two or more jobs in the list.")
        return self._shown(request, "compare.html", views.compared(ids))

    def sweep(self, request: Request) -> Response:
        """A sweep's points, the best first."""
        return self._shown(request, "sweep.html", views.sweep(request.path_params["id"], request.query_params))

    def evidence(self, request: Request) -> Response:
        """Races and verifications."""
        return self._shown(request, "evidence.html", views.evidence_list())

    def one_evidence(self, request: Request) -> Response:
        """One of them."""
        kind, found = views.one_evidence(request.path_params["id"])
        return self._shown(request, f"{kind}.html", found)

    def curves(self, request: Request) -> Response:
        """Points of jobs, thinned for the width that is asked for."""
        ids, width = tuple(request.query_params.getlist("job")), request.query_params.get("width", "")
        pixels = int(width) if width.isdecimal() and len(width) < 6 else 800
        return JSONResponse(self._fresh(("curves", ids, pixels), lambda: views.curves(ids, pixels)))

    def log(self, request: Request) -> Response:
        """The end of a log as text without what would steer a terminal."""
        id = request.path_params["id"]
        data, size = self._fresh(("log", id), lambda: output.log_tail(id, views.TAIL))
        head = f"... {size - len(data):,} bytes before this\n" if size > len(data) else ""
        return PlainTextResponse(head + views.plain(data))

    def targets(self, request: Request) -> Response:
        """Machines."""
        check = request.query_params.get("check") == "1" and request.state.role == "act"
        return self._shown(request, "targets.html", views.targets(check=check))

    def share(self, request: Request) -> Response:
        """A job as one file."""
        from orchestrator.web.share import share  # noqa: PLC0415

        id = request.path_params["id"]
        return HTMLResponse(share(id), headers={"Content-Disposition": f"attachment; filename*=UTF-8''{quote(id)}.html"})

    async def login(self, request: Request) -> Response:
        """Take a token from a form."""
        if request.method == "POST":
            role = self.access.role_of(str((await self._form(request)).get("token", "")))
            return entered(self.access, role, self.root)
        return self._shown(request, "login.html", {"wrong": request.query_params.get("wrong", "")}, status=401)

    async def events(self, _request: Request) -> Response:
        """Changed jobs as server-sent events: rows of the list, rendered here. It begins once changes are told, so that a page which asks anew
        when it hears the beginning misses none.
        """
        return StreamingResponse(self._events(), media_type="text/event-stream", headers={"Cache-Control": "no-store"})

    async def _events(self) -> AsyncIterator[str]:
        row = self.templates.get_template("row.html")
        news = self.feed.listen()
        await anext(news)  # changes are told from here on
        yield "retry: 2000\n\n"
        async for changed in news:
            now = time.time()
            for job in changed:
                shown = views.JobRow.of(job, now)
                html = row.render(row=shown, root=self.root)
                data = {"id": job.id, "state": job.state, "step": job.step, "sweep": sweep_of(job), "html": html}
                yield f"event: job\ndata: {json.dumps(data)}\n\n"
            if not changed:
                yield ": still here\n\n"

    async def submit(self, request: Request) -> Response:
        """A recipe with its dry run beside it; submitted when that is asked for."""
        from orchestrator.web import submitting  # noqa: PLC0415  # pydantic is heavy

        form: Mapping[str, str] = {}
        if request.method == "POST":
            form = await self._form(request)
            if why := self._no(request, form):
                return why
        found = await asyncio.to_thread(submitting.submitted if form.get("do") == "submit" else submitting.shown, form, self.base)
        if found.submitted:
            return RedirectResponse(f"{self.root}/jobs/{quote(found.submitted)}", 303)
        return await asyncio.to_thread(self._shown, request, "submit.html", {**asdict(found), **submitting.choices()})

    async def act(self, request: Request) -> Response:
        """Cancel, retry, another priority, pull."""
        form = await self._form(request)
        if why := self._no(request, form):
            return why
        id, action = request.path_params["id"], request.path_params["action"]
        do: dict[str, Callable[[], object]] = {
            "cancel": lambda: actions.cancel([id], wait=False),
            "retry": lambda: actions.retry(id, from_checkpoint=form.get("from_checkpoint") == "1"),
            "priority": lambda: queueing.prioritize([id], int(form.get("priority") or 0)),
            "pull": lambda: views.pulled(id),
        }
        if action not in do:
            raise NotFound(action, "is nothing that can be done with a job")
        await asyncio.to_thread(do[action])
        return RedirectResponse(f"{self.root}/jobs/{quote(id)}", 303)

    async def cancel_sweep(self, request: Request) -> Response:
        """End all jobs of a sweep."""
        form, id = await self._form(request), request.path_params["id"]
        if why := self._no(request, form):
            return why
        await asyncio.to_thread(actions.cancel, [id], wait=False)
        return RedirectResponse(f"{self.root}/sweeps/{quote(id)}", 303)

    def wrong(self, request: Request, error: Exception) -> Response:
        """What the client refused, in its words."""
        if not isinstance(error, TunesmithError):
            raise error
        status = 404 if isinstance(error, NotFound) else 400
        return self._message(request, status, "Not done", str(error))

    def no_such_page(self, request: Request, _error: Exception) -> Response:
        """An address without a page."""
        return self._message(request, 404, "No such page", request.url.path)

    def _no(self, request: Request, form: Mapping[str, str]) -> Response | None:
        headers = request.headers
        why = self.access.may_post(request.state.role, headers.get("origin", ""), headers.get("host", ""), form.get("mark", ""))
        return self._message(request, 403, "Refused", why) if why else None

    async def _form(self, request: Request) -> dict[str, str]:
        from urllib.parse import parse_qsl  # noqa: PLC0415

        body = b""
        async for piece in request.stream():
            body += piece
            if len(body) > LARGEST:
                raise NotFound("form", f"is larger than {LARGEST:,} bytes")
        return dict(parse_qsl(body.decode("utf-8", "replace"), keep_blank_values=True))

    def _message(self, request: Request, status: int, title: str, text: str) -> Response:
        return self._shown(request, "message.html", {"title": title, "text": text}, status=status)

    def _fresh(self, key: tuple[object, ...], make: Callable[[], Any]) -> Any:
        """What was made for another viewer a moment ago, or made now."""
        now = time.monotonic()
        kept = self._kept.get(key)
        if kept and now - kept[0] < FRESH:
            return kept[1]
        self._kept = {name: each for name, each in self._kept.items() if now - each[0] < FRESH}
        made = make()
        self._kept[key] = now, made
        return made

    def _shown(self, request: Request, template: str, values: Mapping[str, object], *, status: int = 200) -> Response:
        role = getattr(request.state, "role", "")
        around = {
            "root": self.root,
            "role": role,
            "mark": self.access.form_mark() if role == "act" else "",
            "path": request.url.path,
        }
        return HTMLResponse(self.templates.get_template(template).render(**around, **values), status)
