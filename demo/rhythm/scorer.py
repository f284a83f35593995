"""Scores how well a text fits the rhythm of music, from MERT's features.

CLAP pools patches of a spectrogram and hardly tells tempi apart. Where MERT's features hold onsets (demo/backbones),
their first principal direction is the strength of onsets, and its autocorrelation the tempo. Canonical correlations
(Hotelling 1936) find what texts say about such descriptors, and the Gaussian model behind them (Bach and Jordan 2005)
gives how much likelier a rhythm is with a text than without.
"""

from pathlib import Path

import torch
from jaxtyping import Float
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor, nn

from demo.rhythm.descriptors import describe_rhythm, descriptor_count
from open_musiclm.checkpoints.tensor_files import read_tensors
from open_musiclm.config import ModelConfig
from open_musiclm.errors import UserError
from open_musiclm.files import atomic_write

FILE_NAME = "rhythm_scorer.safetensors"
_KIND = "rhythm_scorer"
_EARLIER_KIND, _EARLIER_FILE_NAME = "rhythm_ear", "rhythm_ear.safetensors"
_REMEDY = "make one with scripts/train_rhythm_ear.py"
_LARGEST_DEVIATION = 4.0  # standard deviations; descriptors are clamped there


class RhythmScorer(nn.Module):
    """The parameters that demo/rhythm/training.py fits; `frame_hz` is the rate of MERT's features."""

    def __init__(self, frame_hz: int, features: int, text_dim: int, components: int) -> None:
        super().__init__()
        self.frame_hz = frame_hz
        count = descriptor_count(frame_hz)
        shapes = {
            "direction": (features,),
            "rhythm_mean": (count,),
            "rhythm_spread": (count,),
            "text_mean": (text_dim,),
            "rhythm_directions": (count, components),
            "text_directions": (text_dim, components),
            "correlations": (components,),
        }
        for name, shape in shapes.items():
            self.register_buffer(name, torch.zeros(shape))
        self.direction: Tensor
        self.rhythm_mean: Tensor
        self.rhythm_spread: Tensor
        self.text_mean: Tensor
        self.rhythm_directions: Tensor
        self.text_directions: Tensor
        self.correlations: Tensor

    @classmethod
    def load(cls, path: Path, config: ModelConfig, device: torch.device) -> "RhythmScorer":
        """Reads a file, or the one in a folder, that `save` or an earlier version wrote. Raises UserError."""
        file = find_scorer(path)
        tensors = _read(file)
        try:
            sizes = (len(tensors["direction"]), len(tensors["text_mean"]), len(tensors["correlations"]))
            scorer = cls(config.hubert_kmeans_cfg.output_hz, *sizes)
            scorer.load_state_dict(tensors)
        except (KeyError, TypeError, RuntimeError) as error:
            reason = str(error).strip().splitlines()[-1].strip()
            raise UserError(f"{file}: not a rhythm scorer for this model config ({reason}); {_REMEDY}") from error
        return scorer.to(device)

    def save(self, path: Path) -> None:
        """Writes a safetensors file atomically. Raises UserError."""
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in self.state_dict().items()}
        with atomic_write(path) as temporary:
            try:
                save_file(tensors, temporary, {"kind": _KIND})
            except SafetensorError as error:  # how safetensors reports a full disk
                raise UserError(f"{path}: cannot write: {error}") from error

    def check(self, path: Path, features: int, text_dim: int) -> None:
        """Raises UserError where this scorer, from `path`, was fitted to backbones of other sizes."""
        found = (len(self.direction), len(self.text_mean))
        if found != (features, text_dim):
            raise UserError(
                f"{path}: this rhythm scorer takes features of {found[0]} and texts of {found[1]} numbers, the "
                f"config's MERT and CLAP have {features} and {text_dim}; {_REMEDY}"
            )

    def score(
        self, texts: Float[Tensor, "batch dim"], features: Float[Tensor, "batch time features"], window: int
    ) -> Float[Tensor, "batch"]:
        """How many nats likelier the rhythm of each sequence of features is with its text than without.

        `texts` are CLAP embeddings, the features are the centroids of semantic tokens. Of more than `window` frames it
        is the mean over windows, of which the last starts earlier rather than being shorter.
        """
        parts = list(features.split(window, dim=1))
        if parts[-1].shape[1] < window:
            parts[-1] = features[:, -window:]
        rhythms = [describe_rhythm(part, self.direction, self.frame_hz) for part in parts]
        return torch.stack([self.information(texts, rhythm) for rhythm in rhythms]).mean(dim=0)

    def information(
        self, texts: Float[Tensor, "batch dim"], rhythms: Float[Tensor, "batch descriptors"]
    ) -> Float[Tensor, "batch"]:
        """The pointwise mutual information, in nats, of each text embedding and rhythm.

        It is the sum over the canonical pairs (u, v) of correlation r of log p(u, v) / (p(u) p(v)).
        """
        deviations = (rhythms - self.rhythm_mean) / self.rhythm_spread
        u = deviations.clamp(-_LARGEST_DEVIATION, _LARGEST_DEVIATION) @ self.rhythm_directions
        v = (texts - self.text_mean) @ self.text_directions
        r = self.correlations
        exponent = r * u * v - r.square() * (u.square() + v.square()) / 2
        return (exponent / (1 - r.square()) - (1 - r.square()).log() / 2).sum(dim=1)


def find_scorer(path: Path) -> Path:
    """The file that `path` names: itself, or the one in a folder. Raises UserError."""
    if not path.is_dir():
        return path
    for name in (FILE_NAME, _EARLIER_FILE_NAME):
        if (path / name).exists():
            return path / name
    raise UserError(f"{path}: holds no {FILE_NAME}; {_REMEDY}")


def _read(file: Path) -> dict[str, Tensor]:
    tensors, metadata = read_tensors(file)
    kind = metadata.get("kind")
    if kind not in (_KIND, _EARLIER_KIND):
        raise UserError(f"{file}: holds {kind or 'other'} weights; a rhythm scorer is needed here, {_REMEDY}")
    return tensors
