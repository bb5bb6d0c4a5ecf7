"""The recipe: what a training shall be, whoever does it. The meaning of every leaf is fixed here, not by a trainer."""

from typing import Annotated, Literal

from backends.recipe.flat import Flat, Value
from backends.recipe.section import Limits, Section, as_plain
from backends.recipe.sections.after import After
from backends.recipe.sections.base import Whole
from backends.recipe.sections.data import Data
from backends.recipe.sections.method import Method
from backends.recipe.sections.model import Model
from backends.recipe.sections.running import Checkpoint, Log, Resources, Retry
from backends.recipe.sections.training import Eval, Optim, Train


class Recipe(Section):
    """One training, whoever does it."""

    version: Literal[1]
    """Of this schema."""
    name: Annotated[str, Limits(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$")]
    """Of the job: letters, digits, `.`, `_`, `-`."""
    description: str | None = None
    """For people."""
    model: Model
    method: Method = Method()
    data: Data
    train: Train
    optim: Optim
    eval: Eval = Eval()
    checkpoint: Checkpoint = Checkpoint()
    log: Log = Log()
    resources: Resources = Resources()
    retry: Retry = Retry()
    after: After = After()
    secrets: list[Annotated[str, Limits(pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,99}$")]] = []
    """Names of environment variables that the job needs and that are shown to no one."""
    release: dict[str, Annotated[str, Limits(pattern=r"^[0-9]+(\.[0-9]+)*$")]] = {}
    """Trainer -> the release of it to run, as text: `{axolotl: "0.21"}`. Without: the one whose keys and lock tune has as its default."""
    native: dict[str, dict[str, Value]] = {}
    """Trainer -> keys of its config, set as they are over everything else; `~key: null` takes one away. All are in the report."""

    _written: frozenset[str] = frozenset()
    _base: str = ""
    _source: tuple[str, str, tuple[str, ...]] = ("", "<recipe>", ())

    def read_from(self, source: tuple[str, str, tuple[str, ...]], written: frozenset[str], base: str) -> "Recipe":
        """The same recipe, which knows where it comes from; see the properties of these names."""
        made = self.replace()
        made.__dict__.update(_source=source, _written=written, _base=base)
        return made

    @property
    def written(self) -> frozenset[str]:
        """Leaves that the user wrote; the others are our defaults."""
        return self._written

    @property
    def base(self) -> str:
        """Folder (absolute) to which paths in the recipe are relative."""
        return self._base

    @property
    def source(self) -> tuple[str, str, tuple[str, ...]]:
        """The text that it was read from, how errors call that, and what was set over it: enough to read it again."""
        return self._source

    def flat(self) -> Flat:
        """All leaves by dotted name, in the schema's order."""
        out: Flat = {}
        _flatten(self, "", out)
        return out


_NOT_PLAIN = (Section, list)


def _flatten(section: Section, above: str, out: Flat) -> None:
    values = section.__dict__
    for name, called in section.section_names:
        value = values[name]
        if not isinstance(value, _NOT_PLAIN):
            out[above + called] = value
        elif isinstance(value, Section) and not isinstance(value, Whole):
            _flatten(value, f"{above}{called}.", out)
        else:
            out[above + called] = as_plain(value)
