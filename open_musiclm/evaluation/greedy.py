"""The likeliest semantic tokens after given ones, window by window as in generation."""

import torch
from jaxtyping import Int
from torch import Tensor

from open_musiclm.config import ModelConfig
from open_musiclm.generation.clap_track import ClapTrack
from open_musiclm.generation.planner import TickGrid, advance, plan_windows
from open_musiclm.generation.progress import Progress
from open_musiclm.generation.sampling import Sampling
from open_musiclm.generation.stage_generator import StageGenerator
from open_musiclm.generation.tracks import GeneratedTrack, StageInputs


def continue_greedily(
    stage: StageGenerator,
    config: ModelConfig,
    clap_tokens: Int[Tensor, "batch 1 quantizers"],
    prompt: Int[Tensor, "batch given 1"],
    seconds: int,
) -> Int[Tensor, "batch made"]:
    """The semantic tokens of the `seconds` after a prompt of whole seconds, without the last one, which every stretch
    of semantic tokens lacks; on the CPU.

    Where prompt and continuation are longer than the stage's window, it slides, as in generation.
    """
    device = stage.transformer.norm.device
    grid = TickGrid(config.token_grid)
    given = prompt.shape[1] // config.hubert_kmeans_cfg.output_hz
    start, end = grid.ticks(given), grid.ticks(given + seconds)
    window = grid.ticks(config.window_seconds("semantic"))
    windows = plan_windows(start, end, window, window - advance("semantic", window))
    rngs = [torch.Generator().manual_seed(0) for _ in prompt]  # drawn from, and of no effect at temperature 0
    inputs = StageInputs(Sampling(temperature=0.0), rngs, ClapTrack.constant(clap_tokens.to(device)), None, window)
    track = GeneratedTrack(stage, inputs, grid, windows, prompt.to(device), Progress())
    return track.tokens(start, end)[..., 0].cpu()
