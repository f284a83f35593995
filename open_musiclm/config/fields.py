"""Field types that several config sections share, each with its bounds."""

from dataclasses import dataclass
from typing import Annotated, Any, Literal, get_args

from pydantic import Field, GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic_core import CoreSchema, core_schema

# Where no field has a bound of its own; docs/configs.md says them once.
LARGEST_INT = 2**31 - 1
LARGEST_FLOAT = 1e9


@dataclass(frozen=True)
class AtMost:
    """The upper bound of a field, and the reason that its error message gives."""

    limit: float
    why: str

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_after_validator_function(self._checked, handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return {**handler(schema), "maximum": self.limit}

    def _checked(self, value: float) -> float:
        if value > self.limit:
            raise ValueError(f"{value} is above {self.limit}: {self.why}")
        return value


_ABOVE_ZERO = Field(gt=0, le=LARGEST_FLOAT, allow_inf_nan=False)

PositiveInt = Annotated[int, Field(gt=0, le=LARGEST_INT)]
NonNegativeInt = Annotated[int, Field(ge=0, le=LARGEST_INT)]
PositiveFloat = Annotated[float, _ABOVE_ZERO]
NonNegativeFloat = Annotated[float, Field(ge=0, le=LARGEST_FLOAT, allow_inf_nan=False)]
Probability = Annotated[float, Field(ge=0, lt=1)]
Share = Annotated[float, Field(ge=0, le=1)]

WindowSeconds = Annotated[float, _ABOVE_ZERO, AtMost(3600, "a window is computed and held in memory as a whole")]
SampleRate = Annotated[int, Field(gt=0), AtMost(1_000_000, "no sound has so many samples a second")]
FrameRate = Annotated[int, Field(gt=0), AtMost(10_000, "every frame is a token or more")]
CodebookSize = Annotated[int, Field(gt=0), AtMost(1 << 20, "every code has a row of weights")]
Quantizers = Annotated[int, Field(gt=0), AtMost(256, "every quantizer has a codebook of its own")]
Width = Annotated[int, Field(gt=0), AtMost(1 << 16, "weights grow with its square")]
Layers = Annotated[int, Field(gt=0), AtMost(1024, "every layer has weights of its own")]
BatchSize = Annotated[int, Field(gt=0), AtMost(1 << 16, "a batch is held in memory as a whole")]
Workers = Annotated[int, Field(ge=0), AtMost(256, "each is a process of its own")]
# accelerate adds the number of the process, and numpy's seeds end below 2 ** 32
TrainingSeed = Annotated[int, Field(ge=0), AtMost(2**32 - 2**16, "seeds have 32 bits")]

Precision = Literal["float32", "bfloat16"]
TrainingPrecision = Literal["auto", "float32", "bfloat16"]
StageName = Literal["semantic", "coarse", "fine"]
STAGE_NAMES: tuple[StageName, ...] = get_args(StageName)  # in the order they run


def accept_renamed_key(section: object, old: str, new: str) -> object:
    """A section's raw content with key `old` called `new`; content that has both, or is no section, as it is."""
    if not isinstance(section, dict) or old not in section or new in section:
        return section
    return {new if key == old else key: value for key, value in section.items()}
