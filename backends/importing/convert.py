"""A native config of any trainer into a recipe, and what became of every key. The other direction of `base.plan`.

The rows are those of the trainer's own table turned around, after the import rows of its dialect where the wild has another
spelling. A row of the table is believed only if, turned forward again, it writes what was read: no key is taken for something
that it does not say. What the recipe's own parser refuses is reported as not modelled. Pure: files come as texts.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import NamedTuple

from backends.backend import Backend, ReadOnly
from backends.command_line import OUTSIDE
from backends.dialect import IDLE, NOTE, UNMODELLED, Beside, Dialect, ImportRow, IsFolder, Refused, Unfit
from backends.importing.entries import Fate as Fate  # noqa: PLC0414  # for those who read what convert returns
from backends.importing.entries import Imported as Imported  # noqa: PLC0414  # as above
from backends.importing.entries import KeyEntry as KeyEntry  # noqa: PLC0414  # as above
from backends.importing.entries import less_secrets
from backends.importing.recognise import is_unknown, opened, runner
from backends.importing.reversed_rows import believed, same
from backends.mapping.rows import ABSENT, Context, Flat, Row, Value
from backends.mapping.translate import reverse
from backends.models import MODELS
from backends.native_config import NativeConfig, flat
from backends.recipe.flat import REQUIRED, defaults, leaves, nest
from backends.recipe.parse import parse
from backends.recipe.paths import names_file
from backends.recipe.problems import RecipeError
from backends.recipe.schema import Recipe
from backends.recording import Recording, plain
from backends.registry import importer


def convert(
    text: str,
    *,
    name: str,
    wanted: str = "",
    beside: Beside = lambda _: None,
    sets: Sequence[str] = (),
    line: int = 0,
    is_folder: IsFolder = lambda _: False,
) -> Imported:
    """The recipe that a native config means.

    Args:
        text: the config.
        name: of the file, without folder: it names the recipe.
        wanted: the trainer, where the user names it.
        beside: texts of files that the config names.
        sets: `key=value` of the trainer's own command line, over the file.
        line: where in a script the command stands, from 1; 0: the first.
        is_folder: whether a folder is there: it holds its owner's weights.

    Raises:
        Unreadable: it is no text that a trainer could read.
        Refused: it is no training config, or none that a recipe can hold.
    """
    dialect, wild, because = opened(text, wanted, beside, sets, line, is_folder)
    return _Import(dialect, runner(dialect), wild).run(name, because)


class _LeftOver(NamedTuple):
    """What becomes of a key that no row has read."""

    fate: Fate
    why: str
    is_set: bool = False
    """Its own trainer is still given it, verbatim."""


class _Import:
    """One conversion. The recipe grows leaf by leaf, and for each key stands what became of it."""

    def __init__(self, dialect: Dialect, backend: Backend | ReadOnly, config: NativeConfig) -> None:
        self.dialect, self.backend = dialect, backend
        self.order = tuple(config.keys)
        self.wild, self.entries = less_secrets(config)
        looked = Recording(self.wild.keys)
        self.shape = dialect.shape(looked)
        self.chose = frozenset(looked.read)
        """Keys that chose the rows, and with them method.kind and method.adapter."""
        names = (key for key in self.wild.keys if ":" not in key)
        known = dialect.known_keys or backend.known_keys
        self.strange = frozenset(key for key in names if is_unknown(known, key, self.wild.keys))
        """Keys that the trainer does not know."""
        secrets = dict.fromkeys(name for each in self.entries.values() for name in each.leaves.get("secrets", ()))
        self.leaves: Flat = {"secrets": list(secrets)} if secrets else {}
        self.notes = list(self.wild.notes)
        self.own: set[str] = set()
        """Keys that import's own rows read."""
        self.sources: dict[str, tuple[str, ...]] = {}
        """Leaf -> the keys it comes from; none: from the trainer's default alone."""

    def run(self, name: str, because: str) -> Imported:
        for each in self.dialect.reads(self.shape):
            self.apply(each)
        context = self.context()
        for row in reverse(self.backend.table(self.shape)):
            self.cross(row, context)
        for key in self.wild.keys:
            self.settle(key)
        recipe, values = self.parsed(name)
        order = [self.entries[key] for key in self.order]
        assumed = {leaf: value for leaf, value in flat(values).items() if self.is_assumed(leaf)}
        return Imported(self.backend.name, because, recipe, values, tuple(order), assumed, self.sources, tuple(self.notes))

    def is_assumed(self, leaf: str) -> bool:
        """No key of the file says it: the trainer's default does."""
        return leaf in self.sources and not self.sources[leaf] and leaf not in self.chosen("")

    def value(self, key: str) -> Value:
        """As written, else the trainer's default."""
        if "*" in key:
            start = key.index("*")
            below = {each[start:]: self.wild.keys[each] for each in self.written([key])}
            return Recording(nest(below)) if below else ABSENT
        return self.wild.keys.get(key, ABSENT) if key in self.wild.keys else self.dialect.default(self.wild.keys, key)

    def written(self, keys: Sequence[str]) -> list[str]:
        """Those that stand in the file."""
        stars = [key for key in keys if "*" in key]
        if not stars:
            return [key for key in keys if key in self.wild.keys]
        return [key for key in self.wild.keys if key in keys or any(fnmatchcase(key, star) for star in stars)]

    def apply(self, row: ImportRow) -> None:
        """One of import's own rows."""
        values = {key: self.value(key) for key in (*row.keys, *row.also)}
        self.own |= set(row.keys)
        fate: Fate = "unmodelled"
        try:
            made = row.make(*values.values())
        except Unfit as unfit:
            made, why = unfit.carry, unfit.why
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
            made, why = {}, f"has a value that is not understood ({type(error).__name__})"
        else:
            fate, why = _fate(made), row.why
        made = {leaf: plain(value) for leaf, value in made.items() if value is not ABSENT}
        leaves = {leaf: value for leaf, value in made.items() if not leaf.startswith((IDLE, UNMODELLED, NOTE))}
        self.notes += [each.removeprefix(NOTE) for each in made if each.startswith(NOTE)]
        said = self.looked_at(row, values, leaves)
        for key in said:
            if f"{IDLE}{key}" in made:
                self.take({}, [key], "kept", made[f"{IDLE}{key}"])
            elif f"{UNMODELLED}{key}" in made:
                self.take({}, [key], "unmodelled", made[f"{UNMODELLED}{key}"])
            elif key in row.unread or not (leaves or fate == "unmodelled"):
                self.take({}, [key], "modelled" if key in self.chose else "kept", row.why or "nothing is asked for")
        self.take(leaves, said, fate, why)

    def looked_at(self, row: ImportRow, values: Flat, made: Flat) -> list[str]:
        """Keys of a row that it has read. What stands below a section and was not looked at is left to the rules; where the section
        is carried as it stands, it is not carried once more.
        """
        said = self.written([key for key in row.keys if "*" not in key])
        for key in row.keys:
            section, star, _ = key.partition(".*")
            if not star or not isinstance(values[key], Recording):
                continue
            read = {f"{section}.{name}" for name in values[key].read}
            below = self.written([key])
            said += [each for each in below if each in read]
            if f"native.{self.backend.name}.{section}" in made:
                for each in below:
                    if each not in read:
                        left = self.left_over(each)
                        self.take({}, [each], left.fate, left.why)
        return said

    def take(self, made: Flat, said: Sequence[str], fate: Fate, why: str) -> None:
        """Leaves of a row, and what became of its keys."""
        made = {leaf: value for leaf, value in made.items() if value is not ABSENT}
        for leaf, value in made.items():
            if leaf not in self.leaves:
                self.leaves[leaf], self.sources[leaf] = value, tuple(said)
        for key in said:
            if key not in self.entries:
                self.entries[key] = KeyEntry(key, self.wild.keys[key], fate, made, why, self.wild.line(key))

    def context(self) -> Context:
        """What the rows of the table may know."""
        entry = MODELS.get(str(self.leaves.get("model.id")))
        machine: Flat = {leaf: self.leaves.get(leaf, defaults()[leaf]) for leaf in leaves("resources")}
        hosts = machine["resources.hosts"]
        return Context(
            accelerator=self.leaves.get("resources.accelerator", "cuda"),
            devices=machine["resources.devices"] * hosts,
            hosts=hosts,
            model=entry._asdict() if entry else {},
            steps=self.leaves.get("train.steps"),
            rank=self.leaves.get("method.lora.rank") or 1,
            evaluates=any(self.leaves.get(leaf) is not None for leaf in ("data.eval", "data.eval_share")),
            variant=self.shape,
        )

    def cross(self, row: Row, context: Context) -> None:
        """A row of the trainer's table, turned around, for keys and leaves that no row of import's own has read."""
        main = [key for key in row.ours if ":" not in key]
        said = [key for key in self.written(main) if key not in self.entries]
        if not main or self.own & set(main) or any(leaf in self.leaves for leaf in row.theirs):
            return
        values = {key: self.value(key) for key in row.ours}
        if all(values[key] is ABSENT for key in main):
            return
        usual = {key: self.dialect.default(self.wild.keys, key) for key in said}
        found = believed(row, values, usual, context)
        if found is not None:
            found = {leaf: value for leaf, value in found.items() if value is not ABSENT}
            self.take(found, said, "modelled" if found else "kept", row.why)

    def settle(self, key: str) -> None:
        """What no row has read."""
        if key not in self.entries:
            left = self.left_over(key)
            self.take(self.verbatim(key) if left.is_set else {}, [key], left.fate, left.why)

    def left_over(self, key: str) -> _LeftOver:
        """What becomes of a key that no row has read."""
        value = self.wild.keys[key]
        rule, usual = self.dialect.rule(key, value), self.dialect.default(self.wild.keys, key)
        if key.startswith(OUTSIDE):
            return _LeftOver("unmodelled", "is set outside of the script: give it as KEY=VALUE")
        if value is None and usual in (None, ABSENT):
            return _LeftOver("kept", "null: nothing is asked for")
        if value is False and rule and rule.fate == "unmodelled":
            return _LeftOver("kept", "false: nothing is asked for", is_set=rule.carried)
        if rule and rule.fate == "job":
            return _LeftOver("kept", rule.why)
        if key in self.strange:
            return _LeftOver("unmodelled", f"{self.backend.package} knows no such key{self.guess(key)}")
        if names_file(value) and not (rule and value == usual):
            why = rule.why if rule else "no recipe equivalent"
            return _LeftOver("unmodelled", f"{why}; a file of yours, which does not come along")
        if rule and rule.fate == "kept":
            return _LeftOver("kept", rule.why, is_set=True)
        if rule and value == usual:
            return _LeftOver("kept", "the trainer's default")
        if rule:
            return _LeftOver("unmodelled", rule.why, is_set=rule.carried)
        return _LeftOver("unmodelled", "no recipe equivalent", is_set=True)

    def verbatim(self, key: str) -> Flat:
        """The key as it stands, for its own trainer; nothing where that is not run, or does not know it, or it stands in a list."""
        if isinstance(self.backend, ReadOnly):
            return {}
        own = ":" not in key and not re.search(r"\.\d", key) and key not in self.strange and not names_file(self.wild.keys[key])
        name = self.dialect.own_key(key) if own else ""
        return {f"native.{self.backend.name}.{name}": self.wild.keys[key]} if name else {}

    def guess(self, key: str) -> str:
        """What may be meant, where few are unknown: it takes a moment for each."""
        if later := self.dialect.later(key):
            return f"; {later}"
        found = (self.dialect.known_keys or self.backend.known_keys).hint(key) if len(self.strange) <= 10 else ""
        return f"; {found}" if found else ""

    def parsed(self, name: str) -> tuple[Recipe, dict[str, Value]]:
        """The recipe; a leaf that its parser refuses is taken out again, and its keys are not modelled."""
        for _ in range(len(leaves())):
            values = self.document(name)
            try:
                return parse(json.dumps(values), base="/"), values
            except RecipeError as error:
                for problem in error.problems:
                    self.refuse(problem.path, problem.rule)
        raise Refused("the leaves that its keys say do not fit together")

    def refuse(self, path: str, rule: str) -> None:
        """Take out the leaf that the parser names; its keys stay the trainer's own."""
        leaf = next((leaf for leaf in self.leaves if path == leaf or path.startswith(f"{leaf}.")), None)
        leaf = leaf or next((each for each in self.leaves if each.startswith(f"{path}.")), None)
        if leaf is None:
            told = [each for each in self.entries.values() if each.fate == "unmodelled" and each.why]
            blamed = min(told, key=lambda each: _last(each.key) != _last(path), default=None)
            raise Refused(f"no key says {path}, which {rule}" + (f" ({blamed.key}: {blamed.why})" if blamed else ""))
        del self.leaves[leaf]
        for key in self.sources.pop(leaf, ()):
            old, own = self.entries[key], {} if leaf.startswith("native.") else self.verbatim(key)
            said = {other: value for other, value in old.leaves.items() if other != leaf} | own
            self.leaves |= own
            self.entries[key] = KeyEntry(key, old.value, "unmodelled", said, f"{leaf} {rule}", old.line)

    def document(self, name: str) -> dict[str, Value]:
        """The recipe's values, in the schema's order."""
        usual, found = defaults(), {**self.leaves, **self.chosen(name)}
        order = (*leaves(), *sorted(leaf for leaf in found if leaf.startswith("native.")))
        kept = {
            leaf: found[leaf] for leaf in order if leaf in found and self.is_worth(leaf, found[leaf], usual.get(leaf, REQUIRED))
        }
        native = {leaf: value for leaf, value in kept.items() if leaf.startswith("native.")}
        sections = {leaf[: dot.start()] for leaf in native for dot in re.finditer(r"\.", leaf)}
        said = {leaf: value for leaf, value in kept.items() if leaf not in native}
        return nest(said) | nest({leaf: value for leaf, value in native.items() if leaf not in sections})

    def is_worth(self, leaf: str, value: Value, usual: Value) -> bool:
        """A leaf at our default is written where the file says it, but for what it only denies."""
        if leaf == "version" or not same(value, usual):
            return True
        return bool(self.sources.get(leaf)) and value not in (None, False)

    def chosen(self, name: str) -> Flat:
        """What the file as a whole says."""
        return {
            "version": 1,
            "name": _word(name),
            "method.kind": self.shape.kind,
            "method.adapter": self.shape.adapter,
            "data.rendering": "native" if self.shape.native else "shared",
            **({} if self.backend is importer(self.backend.name) else {"release": {self.backend.name: self.dialect.release}}),
        }


def _last(name: str) -> str:
    return name.rpartition(".")[2]


def _fate(made: Flat) -> Fate:
    return "kept" if made and all(leaf.startswith("native.") for leaf in made) else "modelled"


def _word(name: str) -> str:
    """A recipe's name out of a file's."""
    word = re.sub(r"[^A-Za-z0-9._-]+", "-", re.sub(r"\.(ya?ml|sh|json|py|ipynb)$", "", name)).strip("-._")[:63]
    return word if re.match(r"[A-Za-z0-9]", word) else "imported"
