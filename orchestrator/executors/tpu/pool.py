"""The slices of one target: asked for at the API, decided about, and kept in mind between two looks."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from orchestrator.agent.identity import state_id
from orchestrator.executors.tpu.api import ApiError, TpuApi
from orchestrator.executors.tpu.credentials import Token, find_token
from orchestrator.executors.tpu.lifecycle import Attempt, Create, Decision, Memory, SliceRules, decide, refused
from orchestrator.executors.tpu.results import FOLDER
from orchestrator.executors.tpu.section import PINNED
from orchestrator.executors.tpu.site import TpuSite
from orchestrator.executors.tpu.slices import SliceView, Worker, request_view, with_nodes, workers
from orchestrator.transports.base import TransportError

if TYPE_CHECKING:
    from orchestrator.agent.files import Json
    from orchestrator.home import Home
    from orchestrator.targets.model import Candidate


class Look(NamedTuple):
    """A whole list of a target's slices."""

    views: tuple[SliceView, ...]
    at: float
    """When it was asked for, in seconds since the epoch."""


def rules_of(home: Home, candidate: Candidate) -> SliceRules:
    """How slices of a target are dealt with. Requests are known as ours by their names, whichever controller asks."""
    site = TpuSite.of(candidate)
    mine = sha256(f"{state_id(str(home.path))} {candidate.name}".encode()).hexdigest()[:10]
    idle = 60.0 * site.queue.get("idle", 0)
    return SliceRules(site.places, site.queue.get("most", 1), idle, site.queued, f"tune-{mine}")


class Pool:
    """One target. `look`, `create` and `delete` wait and are for other threads; the rest is not."""

    def __init__(self, home: Home, candidate: Candidate, token: Token | None = None) -> None:
        self.home, self.site, self.rules = home, TpuSite.of(candidate), rules_of(home, candidate)
        self.candidate, self.name, self.devices = candidate, candidate.name, candidate.target.devices
        self.memory = Memory()
        self.troubles: dict[str, str] = {}
        """Slice -> why what a job left there is not here yet; empty when it is."""
        self.due = 0.0
        """When to look again, by the monotonic clock."""
        self.silent = ""
        """Why the API was not heard the last time."""
        self.views: tuple[SliceView, ...] = ()
        self._token = token
        self._kept: list[Json] | None = None
        self._workers: dict[tuple[str, float], tuple[Worker, ...]] = {}
        """Slice, and when it was made: one that was made anew under its name has other hosts."""

    def api(self) -> TpuApi:
        """The API for its project.

        Raises:
            TransportError: there are no credentials.
        """
        self._token = self._token or find_token()
        return TpuApi(self.site.project, self._token)

    def look(self) -> Look:
        """Ask for everything: all of the target's slices, or an error.

        Raises:
            TransportError: some part of it is not known.
        """
        at, api = time.time(), self.api()
        if not self.rules.ours:
            zone, name = self.site.zones[0], self.site.name
            nodes = [_node(api, zone, each) for each in self.site.nodes(name)]
            view = with_nodes(SliceView(name, zone), nodes)
            return Look((self._whole(api, view, nodes),) if any(nodes) else (), at)
        found = []
        for zone in dict.fromkeys(self.site.zones):
            for said in api.queued(zone):
                if str(said.get("name", "")).rpartition("/")[2].startswith(f"{self.rules.prefix}-"):
                    view, nodes = request_view(zone, said), []
                    if view.state == "ready":
                        nodes = [_node(api, zone, each) for each in self.site.nodes(view.name)]
                        view = with_nodes(view, nodes)
                    found.append(self._whole(api, view, nodes))
        return Look(tuple(found), at)

    def decide(self, attempts: Sequence[Attempt], look: Look) -> Decision:
        """What follows from a look."""
        self.silent, self.views = "", look.views
        decision = decide(self.rules, attempts, look.views, self.memory, look.at)
        self.memory = decision.memory
        held = {each.slice: f"{each.key[0]}/{each.key[1]} has it" for each in attempts if each.slice}
        held |= {view.name: f"{job}/{attempt} has it" for (job, attempt), view in decision.granted.items()}
        held |= {name: f"kept for what a job left there: {why}" for name, why in self.troubles.items() if why}
        self._keep([view for view in look.views if view not in decision.delete], held)
        return decision

    def _keep(self, views: Sequence[SliceView], held: Mapping[str, str]) -> None:
        """What `tune targets` says without asking the API; a full disk does without."""
        kept = [{**asdict(replace(view, workers=())), "held": held.get(view.name, "")} for view in views]
        if kept != self._kept:
            self._kept = kept
            with suppress(OSError):
                (self.home.path / FOLDER).mkdir(mode=0o700, exist_ok=True)
                _written(self.home.path / FOLDER / f"{self.name}.json", json.dumps(kept))

    def create(self, request: Create) -> None:
        """Send a request. One that is there already is ours: its answer was lost."""
        try:
            self.api().create(request.zone, request.name, self.site.body(request.zone, request.type, request.name))
        except ApiError as error:
            if not error.exists:
                raise

    def not_created(self, request: Create, error: Exception) -> None:
        """The API did not take a request, or nobody knows whether it did: then the list will tell."""
        if isinstance(error, ApiError) and error.code:
            self.memory = refused(self.memory, request, str(error), time.time())

    def delete(self, view: SliceView) -> None:
        """Give a slice back."""
        self.api().delete(view.zone, view.name)

    @property
    def holds(self) -> tuple[str, ...]:
        """Slices of ours that are asked for, or not given back yet: somebody has to stay until they are."""
        if not self.rules.ours:
            return ()
        return (*(view.name for view in self.views if view.state != "ending"), *self.memory.sent)

    def _whole(self, api: TpuApi, view: SliceView, nodes: Sequence[Json | None]) -> SliceView:
        """A view with its workers, whose host keys are pinned; one whose workers are not known yet is on its way."""
        if view.state != "ready":
            return view
        made = (view.name, view.began)
        try:
            if made not in self._workers:
                names = zip(self.site.nodes(view.name), nodes, strict=True)
                found = tuple(each for name, node in names if node for each in self._of_node(api, view.zone, name, node))
                self._pin(view.name, found)
                self._workers[made] = found
        except ApiError as error:
            return view.on_its_way(str(error))
        return replace(view, workers=self._workers[made])

    def _of_node(self, api: TpuApi, zone: str, name: str, node: Json) -> tuple[Worker, ...]:
        asks = self.site.iap or not self.site.known_hosts
        attributes = api.guest_attributes(zone, name, whole=self.site.iap) if asks else None
        found = workers(node, attributes, external=self.site.external, named=self.site.iap)
        if not found:
            raise ApiError("its workers have no addresses yet")
        return found

    def _pin(self, name: str, found: Sequence[Worker]) -> None:
        """Keep the keys of each worker in a file of its own."""
        folder = self.home.path / PINNED
        for number, worker in enumerate(found):
            if worker.keys:
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
                _written(folder / f"{name}-w-{number}", "".join(f"* {kind} {key}\n" for kind, key in worker.keys))


def _node(api: TpuApi, zone: str, name: str) -> Json | None:
    try:
        return api.node(zone, name)
    except ApiError as error:
        if error.absent:
            return None
        raise


def _written(path: Path, text: str) -> None:
    """A file, whole or not at all."""
    aside = path.with_suffix(".new")
    aside.write_text(text, "utf-8")
    aside.replace(path)


def remembered(home: Home, candidate: Candidate, now: float) -> list[str]:
    """A line for each slice of a target as it was seen last, without asking the API."""
    with suppress(OSError, ValueError, TypeError, LookupError):
        kept = json.loads((home.path / FOLDER / f"{candidate.name}.json").read_text("utf-8"))
        held = {each["name"]: each.pop("held") for each in kept}
        views = [SliceView(**{**each, "workers": ()}) for each in kept]
        return slice_lines(views, TpuSite.of(candidate), now, {name: words for name, words in held.items() if words})
    return []


def trouble(error: Exception) -> str:
    """What is told while the API cannot be asked."""
    return str(error) if isinstance(error, TransportError) else f"{type(error).__name__}: {error}"


def cost(view: SliceView, site: TpuSite, now: float) -> float | None:
    """What a slice has cost by now, where the target states a price."""
    if site.price is None or not view.began:
        return None
    return site.price * site.chips * max(0.0, now - view.began) / 3600


def slice_lines(views: Sequence[SliceView], site: TpuSite, now: float, held: Mapping[str, str]) -> list[str]:
    """A line for each slice: what it is, since when, for whom, what it cost."""
    lines = []
    for view in views:
        minutes = (now - (view.began or view.created or now)) / 60
        age = f"{minutes / 60:.1f} h" if minutes >= 90 else f"{minutes:.0f} min"
        spent = cost(view, site, now)
        words = [f"{view.name}: {view.type} in {view.zone}, {view.words}", f"for {age}"]
        words += [f"cost {spent:.2f} by now"] if spent is not None else []
        words += [held.get(view.name, "")] if view.name in held else ["no job has it"] if view.state == "ready" else []
        lines.append(", ".join(words))
    return lines
