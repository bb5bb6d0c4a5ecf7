"""What all sections share."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Positive = Annotated[int, Field(gt=0)]
Share = Annotated[float, Field(ge=0, le=1)]
Word = Annotated[str, Field(min_length=1, max_length=200)]


class Section(BaseModel):
    """A part of the recipe. Unknown keys are errors, values keep their type. The text below a field is its meaning; `schema` reads
    that, and only when it is asked for.
    """

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


class Whole(Section):
    """A mapping that is translated as one value: it is one leaf."""
