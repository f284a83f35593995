"""The hierarchy: a prompt, or a given wave, to a wave (DESIGN sections 1 and 4).

A prompt's walk: text to CLAP tokens, then three tracks of tokens, each pulled window by window by the next,
then EnCodec's decoder. Sound comes out window by window; a whole wave is the joined chunks.
"""

from collections.abc import Iterator, Mapping, Sequence
from functools import partial

import torch
from jaxtyping import Float, Int
from torch import Tensor

from demo.rhythm.scorer import RhythmEar
from open_musiclm.audio import Sound
from open_musiclm.config import ModelConfig, StageName
from open_musiclm.errors import UserError
from open_musiclm.generation.scorers import Listener
from open_musiclm.generation.search import Closeness, best_sketches, compete
from open_musiclm.generation.session import Options, Parts, Piece, Progress, Row, rows_of
from open_musiclm.generation.stage_generator import StageGenerator
from open_musiclm.models.stages import Stage
from open_musiclm.tokenizers.music_tokenizer import MusicTokenizer


class MusicLM:
    """The three stages and the tokenizers around them."""

    def __init__(
        self,
        config: ModelConfig,
        stages: Mapping[StageName, Stage],
        tokenizer: MusicTokenizer,
        precision: torch.dtype = torch.float32,
        ear: RhythmEar | None = None,
    ) -> None:
        """`stages` may lack those that will not be asked for; they generate with their weights in `precision`.

        With an `ear`, sketches may compete, see `generate_best`, and `listener` hears rhythm too.
        """
        generators = {name: StageGenerator(stage, precision) for name, stage in stages.items()}
        self.parts = Parts(config, generators, tokenizer)
        self.config = config
        self.tokenizer = tokenizer
        self.listener = Listener(config, tokenizer, ear)
        self.sample_hz = config.encodec_cfg.sample_hz

    def generate(
        self,
        prompts: str | Sequence[str],
        duration: float,
        num_samples: int = 1,
        options: Options | None = None,
        given: Sound | None = None,
        progress: Progress | None = None,
    ) -> list[Float[Tensor, "samples"]]:
        """Waves of exactly `duration` seconds at `sample_hz`: all samples of the first prompt, then of the next.

        With a `given` sound each is that sound followed by `duration` seconds of new music.
        Raises UserError for a bad duration, prompt or number.
        """
        waves: list[Float[Tensor, "samples"]] = []
        for batch in _by_batch(self.stream(prompts, duration, num_samples, options, given, progress)):
            waves += list(batch)
        return waves

    def generate_best(
        self,
        prompts: str | Sequence[str],
        duration: float,
        num_samples: int,
        num_drafts: int,
        options: Options | None = None,
        given: Sound | None = None,
        progress: Progress | None = None,
        num_sketches: int | None = None,
    ) -> list[Float[Tensor, "samples"]]:
        """As `generate`, but each sample is what is left of `num_drafts` whose coarse waves competed for CLAP's favour
        (`models/competition.py`); the fine stage finishes these only.

        With an ear for rhythm it chooses among `num_sketches` of each sample what the drafts are made of; of less
        than 4 s none is made. Raises UserError, also where the drafts of a sample do not fit into a batch.
        """
        options = options or Options()
        if not 1 <= num_drafts <= options.max_batch_size:
            raise UserError(
                f"num_drafts {num_drafts}: expected at least 1 and at most max_batch_size, {options.max_batch_size}; "
                "the drafts of a sample compete within one batch"
            )
        if num_sketches is not None and not 1 <= num_sketches <= options.max_batch_size:
            raise UserError(f"num_sketches {num_sketches}: expected at least 1 and at most max_batch_size, too")
        rows, at_once = rows_of(prompts, num_samples * num_drafts), options.max_batch_size // num_drafts * num_drafts
        self._check(duration, options)
        waves: list[Float[Tensor, "samples"]] = []
        for first in range(0, len(rows), at_once):
            drafts = self._piece(rows[first : first + at_once], duration, options, progress)
            known = drafts.known(given)
            sketches = None
            if num_sketches is not None and self.listener.hears_rhythm(duration):
                samples = [Row(row.prompt, row.number // num_drafts) for row in drafts.rows[::num_drafts]]
                sketches = self._sketched(samples, num_sketches, num_drafts, duration, options, given, progress)
            left, coarse = compete(drafts, known, num_drafts, self._closeness(drafts), sketches)
            winners = self._piece([drafts.rows[row] for row in left], duration, options, progress)
            waves += list(torch.cat(list(winners.finishing(coarse, known, given)), dim=1).cpu())
        return waves

    def stream(
        self,
        prompts: str | Sequence[str],
        duration: float,
        num_samples: int = 1,
        options: Options | None = None,
        given: Sound | None = None,
        progress: Progress | None = None,
    ) -> Iterator[tuple[int, Float[Tensor, "batch samples"]]]:
        """(number of the batch, next chunk of sound of all its rows), window by window; see `generate`."""
        return self._stream(rows_of(prompts, num_samples), duration, options or Options(), given, progress)

    def _stream(
        self, rows: Sequence[Row], duration: float, options: Options, given: Sound | None, progress: Progress | None
    ) -> Iterator[tuple[int, Float[Tensor, "batch samples"]]]:
        self._check(duration, options)
        for number, first in enumerate(range(0, len(rows), options.max_batch_size)):
            piece = self._piece(rows[first : first + options.max_batch_size], duration, options, progress)
            chunks = piece.from_nothing() if given is None else piece.continuing(given)
            for chunk in chunks:
                yield number, chunk

    def _check(self, duration: float, options: Options) -> None:
        if not 0 < duration < float("inf"):
            raise UserError(f"duration {duration}: expected a number of seconds above 0")
        for name, generator in self.parts.stages.items():
            generator.check(options.sampling.get(name, generator.default_sampling))

    def _piece(self, rows: Sequence[Row], duration: float, options: Options, progress: Progress | None) -> Piece:
        clap_ids = self.clap_ids_of_text([row.prompt for row in rows])
        return Piece(self.parts, list(rows), clap_ids, duration, options, progress or Progress())

    def _sketched(
        self,
        samples: Sequence[Row],
        num_sketches: int,
        num_drafts: int,
        duration: float,
        options: Options,
        given: Sound | None,
        progress: Progress | None,
    ) -> Int[Tensor, "drafts time 1"]:
        """The semantic tokens of the drafts of `samples`."""
        chosen: list[Tensor] = []
        at_once = options.max_batch_size // num_sketches
        for first in range(0, len(samples), at_once):
            rows = [
                Row(sample.prompt, sample.number * num_sketches + number)
                for sample in samples[first : first + at_once]
                for number in range(num_sketches)
            ]
            piece = self._piece(rows, duration, options, progress)
            promise = partial(self.listener.promise, self.listener.embed_text([row.prompt for row in rows]))
            chosen.append(best_sketches(piece, piece.known(given), num_sketches, num_drafts, promise))
        return torch.cat(chosen)

    def _closeness(self, piece: Piece) -> Closeness:
        """How close CLAP finds waves of all rows to their prompts."""
        return partial(self.listener.similarities, self.listener.embed_text([row.prompt for row in piece.rows]))

    def regenerate(
        self,
        given: Sound,
        first_stage: StageName,
        name: str,
        options: Options | None = None,
        progress: Progress | None = None,
    ) -> Float[Tensor, "samples"]:
        """A given sound made anew from the coarse or from the fine stage on; what comes before is heard from it.

        `name` (of its file) is what the random streams depend on, besides the seed.
        """
        embedding = self.listener.embed_sound(given).unsqueeze(0)
        clap_ids = self.tokenizer.quantizer.encode(embedding).unsqueeze(1)
        piece = Piece(self.parts, [Row(name, 0)], clap_ids, given.seconds, options or Options(), progress or Progress())
        return torch.cat(list(piece.regenerating(given, first_stage)), dim=1)[0].cpu()

    def clap_ids_of_text(self, prompts: Sequence[str]) -> Int[Tensor, "batch 1 quantizers"]:
        """CLAP tokens of prompts, through the text tower."""
        return self.tokenizer.quantizer.encode(self.listener.embed_text(prompts)).unsqueeze(1)


def _by_batch(
    chunks: Iterator[tuple[int, Float[Tensor, "batch _"]]],
) -> Iterator[Float[Tensor, "batch samples"]]:
    """Joins the chunks of each batch along time."""
    current = 0
    joined: list[Tensor] = []
    for number, chunk in chunks:
        if number != current:
            yield torch.cat(joined, dim=1)
            current, joined = number, []
        joined.append(chunk.cpu())
    yield torch.cat(joined, dim=1)
