"""What the inference scripts share: from paths and a generation config to ranked waves on disk."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from open_musiclm.audio import Sound, read_sound
from open_musiclm.config import GenerationConfig, StageName
from open_musiclm.generation.musiclm import MusicLM
from open_musiclm.generation.output import Provenance, slug, write_generated
from open_musiclm.generation.progress import StageBars
from open_musiclm.generation.scorers import ClapScorer, Scorer
from open_musiclm.generation.search import Candidate, best_of_n


@dataclass(frozen=True)
class Written:
    """A candidate and the path of its wave."""

    candidate: Candidate
    path: Path


def generate_files(
    model: MusicLM,
    prompts: Sequence[str],
    results_folder: Path,
    paths: Mapping[str, str],
    input_audio: Path | None = None,
    scorer: Scorer | None = None,
) -> list[list[Written]]:
    """Writes the `num_top_matches` best of `num_samples` of each prompt, as the model's generation config says.

    `paths` is what the JSONs say about where the model comes from. Raises UserError.
    """
    scorer = scorer or ClapScorer(model)
    audio_prompt = read_sound(input_audio) if input_audio else None
    with StageBars() as bars:
        ranked = best_of_n(model, prompts, scorer, None, audio_prompt, bars)
    return [write_candidates(model, own, scorer.name, results_folder, paths) for own in ranked]


def write_candidates(
    model: MusicLM, candidates: Sequence[Candidate], score_name: str, folder: Path, paths: Mapping[str, str]
) -> list[Written]:
    """Writes the first `num_top_matches` candidates of a prompt under names made from it. Raises UserError."""
    config = model.generation_config
    written = []
    for rank, candidate in enumerate(candidates[: config.num_top_matches], start=1):
        provenance = Provenance(candidate.prompt, candidate.number, {score_name: candidate.score}, config, paths)
        name = f"{slug(candidate.prompt)}_seed{config.seed}_{rank}"
        path = write_generated(folder, name, candidate.wave, model.sample_hz, provenance)
        written.append(Written(candidate, path))
    return written


def regenerate_files(
    model: MusicLM, sounds: Sequence[Path], first_stage: StageName, results_folder: Path, paths: Mapping[str, str]
) -> Iterator[Path]:
    """Regenerates sound files from `first_stage` on; yields the waves' paths. Raises UserError."""
    config: GenerationConfig = model.generation_config
    for source in sounds:
        sound = read_sound(source)
        with StageBars() as bars:
            wave = model.regenerate(sound, first_stage, source.name, config, bars)
        similarity = float(model.embed_sound(sound) @ model.embed_sound(Sound(wave, model.sample_hz)))
        provenance = Provenance(source.name, 0, {"similarity": similarity}, config, paths)
        name = f"{slug(source.stem)}_seed{config.seed}_{first_stage}"
        yield write_generated(results_folder, name, wave, model.sample_hz, provenance)
