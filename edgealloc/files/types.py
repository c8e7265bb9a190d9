"""Numbers and words of files as types, with their ranges; what every format is made of."""

from __future__ import annotations

from typing import Annotated

from pydantic import ConfigDict, Discriminator, Field, Tag

__all__ = ["CLOSED", "MANY", "ONE", "Finite", "Keep", "NonNegative", "OneOrMany", "Positive", "Share", "Text"]

ONE, MANY = "<number>", "<list>"  # tags of the two forms of a value, dropped from fault paths


def _form(value: object) -> str:
    return MANY if isinstance(value, list) else ONE


Finite = Annotated[float, Field(allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NonNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Keep = Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
Text = Annotated[str, Field(min_length=1)]
OneOrMany = Annotated[
    Annotated[NonNegative, Tag(ONE)] | Annotated[list[NonNegative], Tag(MANY)], Discriminator(_form)
]
CLOSED = ConfigDict(extra="forbid", strict=True)
