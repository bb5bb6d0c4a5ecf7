"""The recipes that come along: listed, shown, copied with the files they name."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from orchestrator.client.errors import AlreadyExists, NotFound, did_you_mean

_BY_COMMAND = "a script of yours that trains it runs by the trainer `command` (docs/adding-a-trainer.md)"
UNTRAINED = {
    "embed": f"a model for embeddings learns by a loss that compares the vectors of whole texts, which no trainer here has; {_BY_COMMAND}",
    "rerank": "a model that ranks texts is trained as a reward model, from pairs: `tune recipes --task reward`",
    "vision": f"no trainer is given pictures here: rows are text; {_BY_COMMAND}",
    "image": f"no trainer is given pictures here: rows are text; {_BY_COMMAND}",
    "audio": f"no trainer is given sound here: rows are text; {_BY_COMMAND}",
}
"""How a word begins that people look for -> why no recipe is about it."""


class LibraryRecipe(NamedTuple):
    """What a list says of a recipe."""

    name: str
    family: str
    """Its folder; empty: the first to try."""
    model: str
    method: str
    adapter: str
    devices: int
    """Of all hosts."""
    accelerator: str
    about: str
    memory_gib: float | None = None
    """Of one device, in the trainer that takes least, as `tune fit` computes it; None: not asked for, or not known."""


def library() -> Path:
    """The folder of recipes that come along: in the wheel, or beside the source."""
    packaged = Path(__file__).parents[1] / "library"
    return packaged if packaged.is_dir() else Path(__file__).parents[2] / "recipes"


def recipes() -> list[LibraryRecipe]:
    """All of them: the first to try, the families, the rehearsals."""
    found = [_facts(name, path) for name, path in _known().items()]
    return sorted(found, key=block)


def recipe_names() -> list[str]:
    """Their names alone, without reading them: `llama-3.1-8b/lora`."""
    return list(_known())


def fitting(found: Sequence[LibraryRecipe], memory_gib: float) -> list[LibraryRecipe]:
    """Those whose training takes no more of a device than it has; without those of which that is not known.

    Args:
        found: recipes of the list.
        memory_gib: of one device.
    """
    counted = [each._replace(memory_gib=taken(each.name)) for each in found]
    return [each for each in counted if each.memory_gib is not None and each.memory_gib <= memory_gib]


def about(found: Sequence[LibraryRecipe], words: Sequence[str]) -> list[LibraryRecipe]:
    """Those in whose name, model, method or description each of these words begins a word: `tool` finds tools.

    Args:
        found: recipes of the list.
        words: in whatever case; a final s says nothing.
    """
    wanted = [re.compile(rf"(?<![a-z0-9]){re.escape(word.lower().rstrip('s'))}") for word in words if word.strip("sS")]
    texts = [" ".join((each.name, each.model, each.method, each.adapter, each.about)).lower() for each in found]
    return [each for each, text in zip(found, texts, strict=True) if all(word.search(text) for word in wanted)]


def untrained(words: Sequence[str]) -> str | None:
    """Why nothing here is about one of these words, where that has a reason."""
    return next((why for word in words for stem, why in UNTRAINED.items() if word.lower().startswith(stem)), None)


def taken(name: str) -> float | None:
    """GiB of one device, in the trainer that takes least; None where that is not known of any.

    Raises:
        NotFound: there is no recipe of that name.
    """
    from backends.backend import Inexpressible  # noqa: PLC0415  # heavy, and a list alone needs none
    from backends.compile import plan  # noqa: PLC0415
    from backends.memory.estimate import GIB  # noqa: PLC0415
    from backends.recipe.parse import parse  # noqa: PLC0415
    from backends.registry import BACKENDS  # noqa: PLC0415
    from backends.target import Target  # noqa: PLC0415
    from orchestrator.client.fit import memory_fit  # noqa: PLC0415

    path = find_recipe(name)
    recipe = parse(path.read_text("utf-8"), name=str(path), base=str(path.parent.absolute()))
    asked = recipe.resources
    where = Target("there", "cuda" if asked.accelerator == "any" else asked.accelerator, asked.devices, hosts=asked.hosts)
    found = []
    for backend in BACKENDS.values():
        try:
            found.append(memory_fit(recipe, plan(backend, recipe, where), where).parts)
        except Inexpressible:
            continue
    return min((parts.total / GIB for parts in found if parts), default=None)


def block(recipe: LibraryRecipe) -> int:
    """Which part of the list a recipe belongs to."""
    return {"": 0, "rehearsal": 2}.get(recipe.family, 1)


def find_recipe(name: str) -> Path:
    """The file of a recipe that comes along: `llama-3.1-8b/lora`.

    Raises:
        NotFound: there is none of that name.
    """
    known = _known()
    short = name.removesuffix(".yaml").removeprefix("recipes/")
    if short not in known:
        raise NotFound(name or "NAME", "is not one of the recipes", hint=did_you_mean(name, known) or "`tune recipes` lists them")
    return known[short]


def copy_recipe(name: str, into: str | Path = ".") -> list[Path]:
    """Copy a recipe and the files beside it that it names, so that the copy runs as it is. Nothing is written when something
    else is in the way; a file that is there already with the same bytes is not.

    Returns:
        The files that were written.

    Raises:
        NotFound: there is no such recipe.
        AlreadyExists: something else is in the way.
    """
    source, folder = find_recipe(name), Path(into)
    text = source.read_text("utf-8")
    copy = folder / source.name
    wanted = {}
    for start, end, word, file in reversed(_named_files(text, source)):
        text = text[:start] + word + text[end:]
        wanted[folder / "data" / file.name] = file.read_bytes()
    wanted[copy] = text.replace(f"recipes/{_name(source)}.yaml", str(copy)).encode()
    for there, content in wanted.items():
        if there.exists() and (there == copy or there.read_bytes() != content):
            raise AlreadyExists(str(there), "is there already; nothing was copied")
    written = [there for there in wanted if not there.exists()]
    for there in written:
        there.parent.mkdir(parents=True, exist_ok=True)
        there.write_bytes(wanted[there])
    return written


def _known() -> dict[str, Path]:
    return {_name(path): path for path in sorted(library().rglob("*.yaml"))}


def _name(path: Path) -> str:
    return str(path.relative_to(library()).with_suffix(""))


def _facts(name: str, path: Path) -> LibraryRecipe:
    from backends.recipe.parse import parse  # noqa: PLC0415  # pydantic is heavy

    recipe = parse(path.read_text("utf-8"), name=str(path), base=str(path.parent.absolute()))
    return LibraryRecipe(
        name=name,
        family=name.rpartition("/")[0],
        model=recipe.model.id if recipe.model.init == "pretrained" else "random",
        method=recipe.method.kind,
        adapter=recipe.method.adapter,
        devices=recipe.resources.devices * recipe.resources.hosts,
        accelerator=recipe.resources.accelerator,
        about=recipe.description or "",
    )


def _named_files(text: str, source: Path) -> list[tuple[int, int, str, Path]]:
    """Files that a recipe names, in its order: where in the text, from and to; what stands there in a copy; the file itself. A
    reward keeps the name of its function.
    """
    import yaml  # noqa: PLC0415

    found = []
    for node in _texts(yaml.compose(text)):
        path, colon, function = node.value.partition(".py:")
        file = source.parent / (f"{path}.py" if colon else path)
        if "/" in path and not path.startswith(("/", "~")) and file.is_file():
            word = f"./data/{file.name}:{function}" if colon else f"data/{file.name}"
            found.append((node.start_mark.index, node.end_mark.index, word, file))
    return found


def _texts(node: Any) -> Iterator[Any]:
    """All values below a YAML node that hold no others."""
    if isinstance(node.value, str):
        yield node
    for item in node.value if isinstance(node.value, list) else ():
        yield from _texts(item[1] if isinstance(item, tuple) else item)
