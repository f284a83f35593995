"""Memorization as in MusicLM (Agostinelli et al. 2023, section 6), for any semantic stage and token store.

The semantic stage gets the CLAP tokens of a segment of music and its first T seconds of semantic tokens, and continues
greedily for five seconds. A match is exact if these tokens equal those of the music, approximate if the cost of
matching both sequences is below a threshold that wrong pairs hardly ever reach.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from open_musiclm.config import ModelConfig
from open_musiclm.data.store_fingerprints import fingerprints_at
from open_musiclm.data.token_dataset import split_rows
from open_musiclm.data.token_store import TokenStore
from open_musiclm.devices import choose_device
from open_musiclm.errors import UserError
from open_musiclm.generation.decoding.generators import stage_generator
from open_musiclm.generation.decoding.sampling import Sampling
from open_musiclm.generation.decoding.stage_generator import StageGenerator
from open_musiclm.generation.loading import load_stages, open_paths
from open_musiclm.generation.paths import ModelPaths
from open_musiclm.generation.planner import TickGrid, advance, plan_windows
from open_musiclm.generation.progress import Progress
from open_musiclm.generation.tracks import ClapTrack, GeneratedTrack, StageInputs
from open_musiclm.metrics.transport import centroid_distances, matching_cost
from open_musiclm.progress_bar import with_progress
from open_musiclm.tokenizers.mert import load_centroids

CONTINUATION_SECONDS = 5
_BATCH = 32


@dataclass(frozen=True)
class MemorizationOptions:
    """Seconds of music that the stage is given, most segments, the share of wrong pairs that may match, the number of
    wrong pairs per right pair, and the seed.

    Raises UserError for a single segment: wrong pairs need two.
    """

    prompt_seconds: Sequence[int]
    examples: int
    false_positives: float
    permutations: int
    seed: int

    def __post_init__(self) -> None:
        if self.examples < 2:
            raise UserError(f"examples: expected at least 2 (wrong pairs need two), found {self.examples}")


@dataclass(frozen=True)
class SemanticStage:
    """A semantic stage for generation, the centroids of its tokens, its config, where it is from, and the fingerprints
    of its quantizer and its k-means."""

    stage: StageGenerator
    centroids: Float[Tensor, "codes dim"]
    config: ModelConfig
    paths: Mapping[str, str]
    fingerprints: Mapping[str, str]

    @classmethod
    def load(cls, paths: ModelPaths, device: str | None) -> "SemanticStage":
        """That of a model with its adapters merged, without the rest of the model. Raises UserError."""
        paths, _ = open_paths(paths)
        config, found = paths.read_model_config(), paths.resolved(["semantic"])
        stage = load_stages(paths, config, ["semantic"], choose_device(device))["semantic"]
        centroids = load_centroids(found["kmeans_path"], config)
        fingerprints = fingerprints_at(found["rvq_path"], found["kmeans_path"], config)
        return cls(stage_generator(stage), centroids, config, paths.described(["semantic"]), fingerprints)

    def store(self, folder: Path) -> TokenStore:
        """The token store in a folder. Raises UserError, also if its tokens are of other weights than this model's."""
        store = TokenStore(folder, self.config)
        store.description.check_fingerprints(folder, self.fingerprints)
        return store


@dataclass(frozen=True)
class PromptLength:
    """What came of prompts of one length: the cost of each right pair and of wrong pairs, and the exact matches."""

    seconds: int
    costs: Float[Tensor, "examples"]
    wrong_costs: Float[Tensor, "wrong"]
    exact: Float[Tensor, "examples"]
    different_tokens: float


@dataclass(frozen=True)
class Segments:
    """Segments of a store, from different sound files if possible: CLAP and semantic tokens."""

    clap: Int[Tensor, "examples 1 quantizers"]
    semantic: Int[Tensor, "examples time 1"]
    files: int


def random_segments(store: TokenStore, seconds: int, count: int, seed: int) -> Segments:
    """`count` segments of `seconds` at random whole seconds of rows that are long enough, one per file.

    Where the sound was in folders `train` and `valid`, rows of `train`. Raises UserError if no row is long enough.
    """
    hz = store.description.model_config.hubert_kmeans_cfg.output_hz
    rng = np.random.default_rng(seed)
    clap: list[Tensor] = []
    semantic: list[Tensor] = []
    seen: set[int] = set()
    paths = store.path_numbers()
    for row in rng.permutation(split_rows(store, 0.0, seed)[0]).tolist():
        if len(clap) == count:
            break
        if int(paths[row]) in seen:
            continue
        tokens, windows = store.tokens(row, "semantic"), store.tokens(row, "clap")
        starts = min((len(tokens) - seconds * hz + 1) // hz, len(windows) - 1)
        if len(tokens) < seconds * hz - 1 or starts < 0:
            continue
        start = int(rng.integers(starts + 1))
        seen.add(int(paths[row]))
        clap.append(windows[start : start + 1])
        semantic.append(tokens[start * hz : (start + seconds) * hz - 1])
    if not clap:
        raise UserError(
            f"{store.folder}: no crop of {seconds} s or more; give shorter --prompt_seconds (the longest prompt and "
            f"{CONTINUATION_SECONDS} s have to fit), or preprocess with a longer max_audio_length_seconds"
        )
    return Segments(torch.stack(clap), torch.stack(semantic), len(seen))


def measure_memorization(
    stage: StageGenerator, centroids: Float[Tensor, "codes dim"], store: TokenStore, options: MemorizationOptions
) -> list[PromptLength]:
    """The result for each prompt length, on the same segments. Raises UserError."""
    longest = max(options.prompt_seconds) + CONTINUATION_SECONDS
    segments = random_segments(store, longest, options.examples, options.seed)
    if len(segments.clap) < 2:
        raise UserError(f"{store.folder}: only one sound file is long enough; wrong pairs need two")
    distances = centroid_distances(centroids)
    config, found = store.description.model_config, []
    hz = config.hubert_kmeans_cfg.output_hz
    for seconds in sorted(set(options.prompt_seconds)):
        target = segments.semantic[:, seconds * hz : (seconds + CONTINUATION_SECONDS) * hz - 1, 0]
        prompts = segments.semantic[:, : seconds * hz]
        made = []
        parts = list(zip(segments.clap.split(_BATCH), prompts.split(_BATCH), strict=True))
        for clap, prompt in with_progress(parts, len(parts), f"{seconds} s given", "batches"):
            made.append(continue_greedily(stage, config, clap, prompt, CONTINUATION_SECONDS))
        found.append(_compared(seconds, torch.cat(made), target, distances, options))
    return found


def threshold_of(wrong_costs: Float[Tensor, "wrong"], false_positives: float) -> float:
    """The largest cost below which at most that share of wrong pairs lies."""
    ordered = wrong_costs.sort().values
    return float(ordered[min(math.floor(false_positives * len(ordered)), len(ordered) - 1)])


def _compared(
    seconds: int,
    made: Int[Tensor, "examples time"],
    target: Int[Tensor, "examples time"],
    distances: Float[np.ndarray, "codes codes"],
    options: MemorizationOptions,
) -> PromptLength:
    costs = [matching_cost(left, right, distances) for left, right in zip(made, target, strict=True)]
    rng, count = np.random.default_rng(options.seed), len(made)
    shifts = rng.permutation(np.arange(1, count))[: options.permutations]
    wrong = [
        matching_cost(made[place], target[(place + int(shift)) % count], distances)
        for shift in shifts
        for place in range(count)
    ]
    different = sum(len(tokens.unique()) for tokens in made) / count
    exact = (made == target).all(dim=1).double()
    return PromptLength(seconds, torch.tensor(costs).double(), torch.tensor(wrong).double(), exact, different)


def continue_greedily(
    stage: StageGenerator,
    config: ModelConfig,
    clap_tokens: Int[Tensor, "batch 1 quantizers"],
    prompt: Int[Tensor, "batch given 1"],
    seconds: int,
) -> Int[Tensor, "batch made"]:
    """The semantic tokens of the `seconds` after a prompt of whole seconds, on the CPU; without the last one, which
    every segment of semantic tokens lacks.

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
