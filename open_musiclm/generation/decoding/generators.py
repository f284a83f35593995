"""The generator of a stage, by its token layout."""

import torch

from open_musiclm.generation.decoding.flat_generator import FlatGenerator
from open_musiclm.generation.decoding.frames_generator import FramesGenerator
from open_musiclm.generation.decoding.stage_generator import StageGenerator
from open_musiclm.models.flat_layout import FlatLayout
from open_musiclm.models.frames_layout import FramesLayout
from open_musiclm.models.stages import Stage
from open_musiclm.models.token_layout import TokenLayout

_GENERATORS: dict[type[TokenLayout], type[FlatGenerator] | type[FramesGenerator]] = {
    FlatLayout: FlatGenerator,
    FramesLayout: FramesGenerator,
}


def stage_generator(stage: Stage, precision: torch.dtype = torch.float32) -> StageGenerator:
    """A stage arranged for generation with its weights in `precision`."""
    return _GENERATORS[type(stage.layout)](stage, precision)
