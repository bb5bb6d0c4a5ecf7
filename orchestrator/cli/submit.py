"""`tune submit`: decide, check, hand over."""

from __future__ import annotations

import json
import os
import re
import sys
import time
from dataclasses import asdict
from hashlib import sha256
from typing import TYPE_CHECKING

from orchestrator.cli import DONE, WRONG, Stop
from orchestrator.daemon.client import wake
from orchestrator.home import Home, read_secrets

if TYPE_CHECKING:
    import argparse
    from collections.abc import Mapping, Sequence

    from backends.plan import Plan
    from backends.recipe.schema import Recipe
    from orchestrator.targets.model import Place

JOB_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


def submit(said: argparse.Namespace) -> int:
    """Plan a recipe and run it; prints the job's id."""
    home = Home.find()
    if home.exists() and not said.dry_run:
        wake(home)  # it starts while we read the recipe
    from orchestrator.cli.arguments import check_inputs, places, recipe  # noqa: PLC0415  # pydantic is heavy
    from orchestrator.cli.track import labelled  # noqa: PLC0415

    wish, where, labels = recipe(said), places(said, ask=not said.dry_run), labelled(said.label)
    if said.id and not JOB_ID.fullmatch(said.id):
        raise Stop(WRONG, f"--id {said.id}: should be letters, digits, . _ and -, beginning with a letter or digit")
    decided = _alike(said, wish, where)
    if said.dry_run:
        _show(decided, said)
        return DONE
    check_inputs(decided)
    home.make()
    values = secret_values(decided.secrets, home)
    check_python(decided)
    if not said.to:
        print(f"trainer: {decided.backend} (the first that can express this recipe; --to chooses)", file=sys.stderr)
    job = said.id or f"{wish.name}-{os.urandom(3).hex()}"
    added = enqueue(home, job, decided, where, values, said.priority, labels)
    if not added:
        print(f"{job} was submitted before; nothing new is started", file=sys.stderr)
    if said.json:
        print(
            json.dumps({"id": job, "new": added, "backend": decided.backend, "target": names(where), "digest": decided.digest()})
        )
    else:
        print(job, flush=True)
    if said.follow:
        from orchestrator.cli.follow import follow  # noqa: PLC0415  # rich is heavy

        return follow(home, job)
    return DONE


def _alike(said: argparse.Namespace, wish: Recipe, where: Sequence[Place]) -> Plan:
    """The one plan for all targets that may take the job.

    Raises:
        Stop: they would need different plans.
    """
    from orchestrator.cli.arguments import decide  # noqa: PLC0415

    plans = {place.name: decide(said, wish, place.such(wish.resources.devices)) for place in where}
    (first, decided), *others = plans.items()
    for name, other in others:
        if other.digest() != decided.digest():
            mine, its = decided.as_dict(), other.as_dict()
            parts = ", ".join(part for part in mine if mine[part] != its[part])
            raise Stop(WRONG, f"--on {said.on}: {first} and {name} need different plans ({parts})\n\nhint: submit to one of them")
    return decided


def names(where: Sequence[Place]) -> str:
    """Targets in words."""
    return ",".join(place.name for place in where)


def _show(decided: Plan, said: argparse.Namespace) -> None:
    from orchestrator.render.plan import plan_text  # noqa: PLC0415

    if said.json:
        print(json.dumps(decided.as_dict(), indent=1))
    else:
        print(plan_text(decided, verbose=said.verbose))


def check_python(decided: Plan) -> None:
    """An interpreter of the user's must have the trainer, in the supported range. A command may do without any."""
    environment = decided.environment
    if environment.lock or not environment.python or (environment.python.startswith("/") and not environment.requires):
        return
    from orchestrator.agent.provision import ProvisionError  # noqa: PLC0415
    from orchestrator.staging.interpreter import check_interpreter  # noqa: PLC0415

    if not environment.python.startswith("/"):
        raise Stop(WRONG, f"there is no lock for {environment.name} on {environment.accelerator}: name a `python:` of the target")
    try:
        check_interpreter(environment.python, environment.requires)
    except ProvisionError as error:
        raise Stop(WRONG, str(error)) from None


def secret_values(names: tuple[str, ...], home: Home) -> dict[str, str]:
    """Values of the secrets that a job needs, from the environment or the secrets file.

    Raises:
        Stop: one has no value; named before anything starts.
    """
    try:
        kept = read_secrets(home.secrets) if names else {}
    except PermissionError as error:
        raise Stop(WRONG, str(error)) from None
    values = {name: os.environ.get(name) or kept.get(name, "") for name in names}
    missing = [name for name, value in values.items() if not value]
    if missing:
        why = (
            "the model is gated: accept its licence on the hub and set a token"
            if "HF_TOKEN" in missing
            else "the recipe names it"
        )
        raise Stop(
            WRONG,
            f"secret {missing[0]}: has no value ({why})\n\nhint: export {missing[0]}=..., or a line in {home.secrets} (mode 0600)",
        )
    return values


def enqueue(
    home: Home,
    job: str,
    decided: Plan,
    where: Sequence[Place],
    values: dict[str, str],
    priority: int,
    labels: Mapping[str, str] | None = None,
) -> bool:
    """Put a job into the store and see that a controller takes it; False when it was there already."""
    from orchestrator.store import Duplicate, NewJob, open_store  # noqa: PLC0415
    from orchestrator.store.requests import packed  # noqa: PLC0415

    request = {
        "plan": decided.as_dict(),
        "places": [{"target": asdict(place.target), "hosts": [asdict(host) for host in place.hosts]} for place in where],
    }
    target, steps = names(where), decided.promise.steps
    digest = sha256(f"{decided.digest()} {target}".encode()).hexdigest()
    new = NewJob(job, decided.recipe, decided.backend, target, digest, packed(request), priority, labels or {}, steps)
    if values:  # before the job can be seen: whoever starts it has them then
        wake(home, {job: values})
    with open_store(home.store) as store:
        try:
            added = store.add_job(new, time.time())
        except Duplicate as error:
            raise Stop(WRONG, f"{error}\n\nhint: choose another --id") from None
    wake(home)
    return added
