"""What all sections share."""

from typing import Annotated

from backends.recipe.section import Limits, Section

Positive = Annotated[int, Limits(gt=0)]
Share = Annotated[float, Limits(ge=0, le=1)]
Word = Annotated[str, Limits(min_length=1, max_length=200)]


class Whole(Section):
    """A mapping that is translated as one value: it is one leaf."""
