"""Field types that several config sections share."""

from typing import Annotated, Literal

from pydantic import Field

PositiveInt = Annotated[int, Field(gt=0)]
NonNegativeInt = Annotated[int, Field(ge=0)]
PositiveFloat = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NonNegativeFloat = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Probability = Annotated[float, Field(ge=0, lt=1)]
Share = Annotated[float, Field(ge=0, le=1)]
Precision = Literal["float32", "bfloat16"]
TrainingPrecision = Literal["auto", "float32", "bfloat16"]
StageName = Literal["semantic", "coarse", "fine"]


def accept_renamed_key(section: object, old: str, new: str) -> object:
    """A section's raw content with key `old` called `new`; content that has both, or is no section, as it is."""
    if not isinstance(section, dict) or old not in section or new in section:
        return section
    return {new if key == old else key: value for key, value in section.items()}
