"""The generation config: `generation_config.json` and the flags of the command line (no torch in here)."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, ValidationError, field_validator, model_validator

from open_musiclm.config.fields import (
    STAGE_NAMES,
    AtMost,
    BatchSize,
    NonNegativeFloat,
    PositiveFloat,
    PositiveInt,
    Precision,
    StageName,
)
from open_musiclm.config.json_files import Section, load_section, problems_of, section_from_content
from open_musiclm.config.prompt_text import prompt_problem
from open_musiclm.errors import UserError

GENERATION_CONFIG_NAME = "generation_config.json"
_LOWEST_TEMPERATURE = 1e-3
_MOST_GUIDANCE = 100
Seed = Annotated[int, Field(ge=-(2**63), lt=2**63)]
Duration = Annotated[PositiveFloat, Field(ge=1e-3), AtMost(86_400, "that is a whole day of music")]
Temperature = Annotated[NonNegativeFloat, AtMost(100, "all ids would be equally likely")]
Samples = Annotated[PositiveInt, AtMost(100_000, "each is generated and kept until the best are chosen")]


class GenerationConfig(Section):
    """Every bundle has one; scripts, the demo and Python use it by default.

    Guidance is classifier-free guidance (Ho and Salimans 2022). Search: `open_musiclm/generation/search.py`.
    """

    seed: Seed = Field(default=0, description="the same seed, prompt and sample number give the same music")
    duration: Duration = Field(default=4.0, description="seconds of new music")
    semantic_advance: Annotated[float, Field(gt=0, lt=1)] = Field(
        default=0.5,
        description="step of the semantic stage in music longer than its window, as a share of the window; the rest is "
        "context, so a smaller step is slower and has more context",
    )
    semantic_temperature: Temperature = Field(
        default=1.0, description="temperature of the semantic stage; 0: the most likely token"
    )
    coarse_temperature: Temperature = Field(
        default=0.95, description="temperature of the coarse stage; 0: the most likely token"
    )
    fine_temperature: Temperature = Field(
        default=0.4, description="temperature of the fine stage; 0: the most likely token"
    )
    top_k: PositiveInt | None = Field(
        default=None, description="sample from this number of most likely ids; else from a tenth of all"
    )
    top_p: Annotated[float, Field(gt=0, le=1)] | None = Field(
        default=None, description="sample from the smallest set of ids whose probabilities add up to this"
    )
    cfg_scale: float | list[float] = Field(
        default=1.0,
        description="guidance scale: above 1 a stage follows its conditioning more closely; one number or three, for "
        "the semantic, coarse and fine stage, from 0 to 100; only for stages trained with condition_dropout",
    )
    negative_prompt: str | None = Field(
        default=None,
        description="a text that guidance moves away from; needs a cfg_scale above 1",
    )
    return_coarse_wave: bool = Field(default=False, description="skip the fine stage: faster, lower sound quality")
    precision: Precision = Field(
        default="float32",
        description="precision of the stages' weights; bfloat16 is faster, float32 more exact",
    )
    max_batch_size: BatchSize = Field(default=16, description="samples generated at the same time")
    num_samples: Samples = Field(default=4, description="samples to choose from, per prompt")
    num_top_matches: PositiveInt = Field(default=1, description="samples to keep, per prompt")
    num_particles: PositiveInt | None = Field(
        default=None, exclude=True, description="accepted and ignored, for older bundles: particle search was removed"
    )

    @field_validator("semantic_temperature", "coarse_temperature", "fine_temperature")
    @classmethod
    def _no_overflow(cls, temperature: float) -> float:
        if 0 < temperature < _LOWEST_TEMPERATURE:
            raise ValueError(
                f"{temperature} is below {_LOWEST_TEMPERATURE}, where numbers overflow; 0 takes the most likely token"
            )
        return temperature

    loudness: Annotated[float, Field(ge=-60, le=0)] | None = Field(
        default=None,
        description="loudness of the written wave, LUFS; -16 is usual; peaks stay below -1 dBTP; else unchanged",
    )

    @field_validator("cfg_scale", mode="before")
    @classmethod
    def _tuple_as_list(cls, scale: object) -> object:
        return list(scale) if isinstance(scale, tuple) else scale

    @field_validator("cfg_scale")
    @classmethod
    def _one_scale_per_stage(cls, scale: float | list[float]) -> float | list[float]:
        if isinstance(scale, list) and len(scale) != len(STAGE_NAMES):
            raise ValueError(f"expected one number, or one for each of {', '.join(STAGE_NAMES)}")
        for number in scale if isinstance(scale, list) else [scale]:
            if not 0 <= number <= _MOST_GUIDANCE:  # above it only the difference would count
                raise ValueError(f"{number} is not from 0 to {_MOST_GUIDANCE}")
        return scale

    @field_validator("negative_prompt")
    @classmethod
    def _is_a_prompt(cls, text: str | None) -> str | None:
        problem = None if text is None else prompt_problem(text)
        if problem is not None:
            raise ValueError(problem)
        return text

    @model_validator(mode="after")
    def _negative_prompt_needs_guidance(self) -> "GenerationConfig":
        if self.negative_prompt is not None and all(self.guidance(stage) <= 1 for stage in STAGE_NAMES):
            raise ValueError(
                f"negative_prompt {self.negative_prompt[:40]!r} needs guidance: set a cfg_scale above 1 (3 is usual)"
            )
        return self

    @model_validator(mode="after")
    def _search_fits(self) -> "GenerationConfig":
        if self.num_top_matches > self.num_samples:
            raise ValueError(f"num_top_matches {self.num_top_matches} is above num_samples {self.num_samples}")
        return self

    @model_validator(mode="wrap")  # the last one, around all others
    @classmethod
    def _named_in_python(
        cls, fields: Any, validate: Callable[[Any], "GenerationConfig"], info: Any
    ) -> "GenerationConfig":
        """Raises UserError that names the field; of a file's content pydantic's error, to which its path is added."""
        try:
            return validate(fields)
        except ValidationError as error:
            if info.context is not None:
                raise
            raise UserError(f"GenerationConfig: {problems_of(error, cls)}") from error

    def updated(self, changes: Mapping[str, object]) -> "GenerationConfig":
        """A copy with other values of some fields. Raises UserError that names the field."""
        return section_from_content({**self.model_dump(), **changes}, "generation config", GenerationConfig)

    def temperature(self, stage: StageName) -> float:
        """The temperature of a stage."""
        return {
            "semantic": self.semantic_temperature,
            "coarse": self.coarse_temperature,
            "fine": self.fine_temperature,
        }[stage]

    def guidance(self, stage: StageName) -> float:
        """The guidance scale of a stage."""
        return self.cfg_scale[STAGE_NAMES.index(stage)] if isinstance(self.cfg_scale, list) else self.cfg_scale


def load_generation_config(path: Path | str) -> GenerationConfig:
    """A generation config from its file, or from the folder that has it. Raises UserError."""
    path = Path(path)
    return load_section(path / GENERATION_CONFIG_NAME if path.is_dir() else path, GenerationConfig)
