"""The token streams of a model: the table of sizes and rates for stages, stores, datasets and the planner.

stream     rate                  quantizers              lost frames
clap       one for a window      rq_num_quantizers       0
semantic   MERT's output_hz      1                       1 (HuBERT's convolutions)
coarse     the codec's output_hz num_coarse_quantizers   0
fine       the codec's output_hz num_fine_quantizers     0
"""

from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

from open_musiclm.config import ModelConfig, StageName

StreamName = Literal["clap", "semantic", "coarse", "fine"]

STREAM_NAMES: tuple[StreamName, ...] = ("clap", "semantic", "coarse", "fine")
# The conditioning streams of each stage, in order, and last the predicted one.
STAGE_STREAMS: dict[StageName, tuple[StreamName, ...]] = {
    "semantic": ("clap", "semantic"),
    "coarse": ("clap", "semantic", "coarse"),
    "fine": ("clap", "coarse", "fine"),
}


@dataclass(frozen=True)
class TokenStream:
    """One kind of token: its codebook size, the tokens of a frame, and how many frames a second there are.

    `frame_hz` is None for CLAP, whose one frame covers a whole window. `lost_frames` is how many of a segment's last
    frames its tokenizer loses.
    """

    name: StreamName
    codebook_size: int
    quantizers: int
    frame_hz: int | None
    lost_frames: int = 0

    @property
    def end_id(self) -> int:
        """The id that ends a sequence: `codebook_size`, the first id that is not a token."""
        return self.codebook_size

    def frames(self, seconds: float | Fraction) -> int:
        """The number of frames in a segment of `seconds`, which must be a whole number of frame times."""
        if self.frame_hz is None:
            return 1
        return max(round(seconds * self.frame_hz) - self.lost_frames, 0)


def token_streams(config: ModelConfig) -> dict[StreamName, TokenStream]:
    """Every stream of a model, by name."""
    clap, mert, codec, windows = config.clap_rvq_cfg, config.hubert_kmeans_cfg, config.encodec_cfg, config.global_cfg
    streams = (
        TokenStream("clap", clap.codebook_size, clap.rq_num_quantizers, None),
        TokenStream("semantic", mert.codebook_size, 1, mert.output_hz, lost_frames=1),
        TokenStream("coarse", codec.codebook_size, windows.num_coarse_quantizers, codec.output_hz),
        TokenStream("fine", codec.codebook_size, windows.num_fine_quantizers, codec.output_hz),
    )
    return {stream.name: stream for stream in streams}


def stage_streams(stage: StageName, config: ModelConfig) -> tuple[TokenStream, ...]:
    """The streams of a stage: its conditioning, then what it predicts."""
    streams = token_streams(config)
    return tuple(streams[name] for name in STAGE_STREAMS[stage])
