"""Random changes of sound before it is tokenized, for more variety from little music."""

from typing import Annotated

from pydantic import Field

from open_musiclm.config.json_files import Section


class AugmentConfig(Section):
    """Each example gets random changes, uniform between minus and plus the bound. All are off by default."""

    gain_db: Annotated[float, Field(ge=0, le=24)] = Field(default=0.0, description="Largest change of the level, dB.")
    pitch_semitones: Annotated[float, Field(ge=0, le=3)] = Field(
        default=0.0, description="Largest change of the pitch, semitones."
    )
    tempo: Annotated[float, Field(ge=0, le=0.2)] = Field(
        default=0.0, description="Largest change of the tempo, as a share of it."
    )
