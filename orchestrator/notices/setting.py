"""notify.yaml of the state folder: which services are told of what. A URL, which is a secret, never stands in it."""

from typing import Annotated, Literal, NamedTuple, get_args

from backends.recipe.building import Unsure, build
from backends.recipe.problems import RULES, RecipeError, nearest, value_at
from backends.recipe.section import Limits
from backends.recipe.yaml_source import Problem, Source, read
from orchestrator.home import Home
from orchestrator.notices.happenings import DEFAULT, Kind
from orchestrator.targets.schema import Keys, fits, text

DESKTOP = "desktop"
"""The service that needs no URL."""
URL_RULE = "should be the name of a variable (letters, digits and _), whose value is the URL: export it, or a line in secrets.env"

VariableName = Annotated[str, text(fits(r"[A-Za-z_][A-Za-z0-9_]*"), URL_RULE)]
ServiceName = Annotated[
    str,
    text(
        lambda name: fits(r"[A-Za-z0-9_-]{1,40}")(name) and name != DESKTOP,
        "should be letters, digits, - and _; desktop is taken",
    ),
]


class ServiceSection(Keys):
    """One service."""

    url: VariableName
    """Name of the environment variable, or of the line of secrets.env, that holds the Apprise URL."""
    events: Annotated[list[Kind], Limits(min_length=1)] = [*DEFAULT]
    """What it is told of."""


class NotifyFile(Keys):
    """The file."""

    version: Literal[1]
    services: dict[ServiceName, ServiceSection] = {}
    desktop: bool = True
    """Notices on the desktop of this machine, where it has one."""


class Audience(NamedTuple):
    """What is told to whom."""

    urls: dict[str, str]
    """Service -> name of the variable that holds its URL."""
    kinds: dict[str, frozenset[Kind]]
    """Service -> what it is told of; the desktop is one, too."""

    def without_desktop(self) -> "Audience":
        """Less the desktop: this machine has none."""
        return self._replace(kinds={name: kinds for name, kinds in self.kinds.items() if name != DESKTOP})


def load_notify(home: Home) -> Audience:
    """What the file says; without one the desktop alone is told.

    Raises:
        RecipeError: the file is wrong; with all problems. What stands where a URL's name belongs is not shown.
        OSError: it cannot be read.
    """
    path = home.notify
    if not path.exists():
        return Audience({}, {DESKTOP: frozenset(DEFAULT)})
    source = read(path.read_text("utf-8"), str(path))
    problems = list(source.problems)
    file: NotifyFile | None = None
    try:
        file = build(NotifyFile, source.values)
    except Unsure:
        file, found = _judged(source)
        problems += found if source.values or not problems else ()
    if problems or file is None:
        raise RecipeError(sorted(problems, key=lambda problem: problem.line or 0))
    kinds = {name: frozenset(each.events) for name, each in file.services.items()}
    return Audience(
        {name: each.url for name, each in file.services.items()}, kinds | ({DESKTOP: frozenset(DEFAULT)} if file.desktop else {})
    )


def _judged(source: Source) -> tuple[NotifyFile | None, list[Problem]]:
    """The file's sections, or what is wrong with them."""
    from backends.recipe.judging import judge  # noqa: PLC0415  # pydantic is heavy

    file, errors = judge(NotifyFile, source.values)
    problems = []
    for each in errors:
        parts = [str(part) for part in each["loc"] if part != "[key]"]
        at, last = ".".join(parts), parts[-1] if parts else ""
        make = RULES.get(each["type"])
        rule = make(each.get("ctx", {})) if make else str(each["msg"]).removeprefix("Value error, ")
        hint = ""
        if each["type"] == "extra_forbidden":
            known = [called for _, called in (NotifyFile if len(parts) == 1 else ServiceSection).section_names]
            rule, hint = "is not a key here", nearest(last, known) or f"known here: {', '.join(known)}"
        elif "events" in parts[2:3]:
            hint = f"known: {', '.join(get_args(Kind))}"
        secret = last == "url" or each["type"] == "extra_forbidden"
        problems.append(Problem(at, rule, ... if secret else value_at(source.values, at), source.line(at), hint, source.name))
    return file, problems
