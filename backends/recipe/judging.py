"""Sections as pydantic's models: what is wrong with values, in pydantic's errors, and the JSON Schema. Slow to load, so only when asked."""

from __future__ import annotations

from types import UnionType
from typing import TYPE_CHECKING, Annotated, ClassVar, TypeVar, Union, get_args, get_origin

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, ValidationError, create_model, model_validator
from pydantic import Field as FieldInfo

from backends.recipe.flat import Value
from backends.recipe.section import AfterCheck, BeforeCheck, Field, Limits, Section

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails
    from typing_extensions import Self

_Section = TypeVar("_Section", bound=Section)


class _Model(BaseModel):
    """What `Section` promises, in pydantic's terms."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)
    section: ClassVar[type[Section]] = Section

    @model_validator(mode="after")
    def _whole(self) -> Self:
        _section_of(self).check_whole()
        return self


def judge(section: type[_Section], values: Value) -> tuple[_Section | None, list[ErrorDetails]]:
    """The section that plain values say, or everything that is wrong with them."""
    try:
        return _section_of(model_of(section).model_validate(values)), []
    except ValidationError as error:
        return None, error.errors(include_url=False)


def model_of(section: type[Section]) -> type[_Model]:
    """A section as a model."""
    if section in _MODELS:
        return _MODELS[section]
    keys: dict[str, Value] = {field.name: (_translated(field.annotated), _info(field)) for field in section.section_fields}
    made = create_model(section.__name__, __base__=_Model, __doc__=section.__doc__, __module__=section.__module__, **keys)
    made.section = section
    return _MODELS.setdefault(section, made)


_MODELS: dict[type[Section], type[_Model]] = {}
"""Those that were made."""


def _info(field: Field) -> Value:
    default = ... if field.is_required else _model_values(field.default)
    return FieldInfo(default, alias=field.called) if field.called != field.name else FieldInfo(default)


def _model_values(default: Value) -> Value:
    """A default as the model has it."""
    return model_of(type(default)).model_validate(default.plain()) if isinstance(default, Section) else default


def _translated(kind: Value) -> Value:
    """A type of sections as one of models."""
    origin: Value = get_origin(kind)
    inner = get_args(kind)
    if origin is Annotated:
        return Annotated[(_translated(inner[0]), *map(_constraint, inner[1:]))]
    if origin in (Union, UnionType):
        return Union[tuple(map(_translated, inner))]  # noqa: UP007  # of as many as there are
    if origin in (list, dict):
        return origin[tuple(map(_translated, inner))]
    return model_of(kind) if isinstance(kind, type) and issubclass(kind, Section) else kind


def _constraint(by: Limits | BeforeCheck | AfterCheck) -> Value:
    if isinstance(by, Limits):
        return FieldInfo(**{name: limit for name, limit in by._asdict().items() if limit is not None})
    return BeforeValidator(by.convert) if isinstance(by, BeforeCheck) else AfterValidator(by.convert)


def _section_of(value: Value) -> Value:
    """What a model holds, in sections again."""
    if isinstance(value, _Model):
        return value.section(**{name: _section_of(getattr(value, name)) for name in value.model_fields_set})
    return [_section_of(item) for item in value] if isinstance(value, list) else value
