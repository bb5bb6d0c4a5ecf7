"""Who is told of what happens to jobs: whether that works, and a message to try it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, NamedTuple

from orchestrator.client.errors import InvalidRequest
from orchestrator.client.progress import Say
from orchestrator.home import Home
from orchestrator.store import open_store

if TYPE_CHECKING:
    from orchestrator.notices.setting import Audience

# `submit` imports this room always and has such a file seldom, so the rest is imported where it is used.

EXTRA = "notices need the extra tunesmith[notify]: pip install 'tunesmith[notify]'"


class Delivery(NamedTuple):
    """What became of a message to a service."""

    service: str
    why: str
    """It was not delivered; empty where it was."""


def tell_notices(home: Home, say: Say) -> None:
    """Say, before jobs start, of which services that notify.yaml names it is known already that they will not be told.

    Raises:
        InvalidRecipe: the file is wrong.
    """
    if home.notify.exists():
        from orchestrator.notices.services import has_apprise  # noqa: PLC0415

        unset = _unset(home, _audience(home))
        troubles = [f"{service} is not told: {why}" for service, why in unset.items()] if has_apprise() else [EXTRA]
        for each in troubles:
            say(f"warning: {home.notify}: {each}")


def describe_notices(home: Home) -> str:
    """One line for `tune doctor`: who is told of what, and what waits.

    Raises:
        InvalidRecipe: notify.yaml is wrong.
    """
    from orchestrator.notices.services import has_apprise  # noqa: PLC0415

    wanted = _present(home)
    if not has_apprise():
        return f"none: {EXTRA}"
    if not wanted.kinds:
        return f"none: {home.notify} names services"
    unset = _unset(home, wanted)
    told = [f"{service} ({unset.get(service) or ', '.join(sorted(kinds))})" for service, kinds in wanted.kinds.items()]
    waits = []
    if home.exists():
        with open_store(home.store, home.owner) as store:
            waits = [
                f"{count} wait for {name}{f': {why}' if why else ''}" for name, (count, why) in store.notices.waiting().items()
            ]
    return "; ".join([", ".join(told), *waits])


def try_notices(home: Home) -> list[Delivery]:
    """Send a message to each service, and to the desktop where there is one.

    Raises:
        InvalidRequest: the extra is not installed, or there is nobody to tell.
        InvalidRecipe: notify.yaml is wrong.
    """
    from orchestrator.notices.services import deliver, has_apprise  # noqa: PLC0415

    wanted = _present(home)
    if not has_apprise():
        raise InvalidRequest(EXTRA)
    if not wanted.kinds:
        raise InvalidRequest(f"nobody is told of anything: name services in {home.notify}; see docs/notices.md")
    text = ("tune: a test", "If you can read this, notices of your jobs arrive here.", "info")
    return [Delivery(service, deliver(service, wanted.urls.get(service, ""), home, *text)) for service in wanted.kinds]


def _audience(home: Home) -> Audience:
    from backends.recipe.problems import RecipeError  # noqa: PLC0415
    from orchestrator.client.recipes import invalid  # noqa: PLC0415
    from orchestrator.notices.setting import load_notify  # noqa: PLC0415

    try:
        return load_notify(home)
    except RecipeError as error:
        raise invalid(error.problems) from None


def _present(home: Home) -> Audience:
    from orchestrator.notices.services import has_desktop  # noqa: PLC0415

    wanted = _audience(home)
    return wanted if has_desktop(os.environ) else wanted.without_desktop()


def _unset(home: Home, wanted: Audience) -> dict[str, str]:
    """Service -> why its URL is not known."""
    from orchestrator.notices.services import url_of  # noqa: PLC0415

    found = {}
    for service, variable in wanted.urls.items():
        try:
            if not url_of(variable, home, os.environ):
                found[service] = f"{variable} is not set: a line {variable}=URL in {home.secrets} (mode 0600)"
        except PermissionError as error:
            found[service] = str(error)
    return found
