"""Preprocessing speed: one file and one window at a time, compared with scripts/preprocess_data.py.

The plain loop reads a whole file, passes each CLAP window to transformers' extractor and ClapModel, and the file to all
layers of transformers' HubertModel with scikit-learn's k-means, and to the encodec package, one after the other.
Weights are random, architectures the released ones (or small ones with --sizes toy). Both make the tokens of the same
files; their agreement is printed (an argmin of two nearly equal distances may differ).

    python benchmarks/preprocess.py --device cpu --sizes full --files 4
"""

import argparse
import os
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import encodec
import numpy as np
import soundfile
import torch
from sklearn.cluster import KMeans
from torch import Tensor
from transformers import ClapConfig, ClapFeatureExtractor, ClapModel, HubertConfig, HubertModel, RobertaTokenizer

from open_musiclm import audio, cli
from open_musiclm.config import DataPreprocessorConfig, load_model_config
from open_musiclm.data.preprocess import Preprocessor
from open_musiclm.data.preprocess_report import PreprocessReport
from open_musiclm.data.shards import StoredTokens
from open_musiclm.data.token_store import TokenStore
from open_musiclm.devices import choose_device
from open_musiclm.tokenizers.clap import Clap
from open_musiclm.tokenizers.codec import Codec
from open_musiclm.tokenizers.encodec_directory import EncodecArchitecture, build_encodec
from open_musiclm.tokenizers.encodec_package import EncodecPackage
from open_musiclm.tokenizers.mert import Mert, SemanticTokenizer
from open_musiclm.tokenizers.music_tokenizer import MusicTokenizer
from open_musiclm.tokenizers.rvq import ClapQuantizer
from open_musiclm.tokens import STREAM_NAMES, token_streams

FILE_HZ = 44100
SHIPPED = Path(__file__).resolve().parents[1] / "configs" / "model" / "musiclm_small.json"


def arguments() -> argparse.ArgumentParser:
    parser = cli.plain_parser(__doc__)
    cli.add_device_argument(parser)
    parser.add_argument("--sizes", choices=("toy", "full"), default="full", help="of the backbones")
    parser.add_argument("--files", type=cli.positive_int, default=4, help="mp3 files to write and preprocess")
    parser.add_argument("--seconds", type=cli.positive_int, default=30, help="length of each file")
    parser.add_argument("--num_workers", type=cli.positive_int, default=2, help="processes that decode")
    return parser


def main(arguments: argparse.Namespace) -> None:
    device = choose_device(arguments.device)
    backbones = Backbones(arguments.sizes, device)
    cli.print_stdout(
        f"{arguments.sizes} size, {arguments.files} files of {arguments.seconds} s, {device}, "
        f"{torch.get_num_threads()} threads, {arguments.num_workers} workers, torch {torch.__version__}\n"
    )
    with tempfile.TemporaryDirectory() as folder:
        paths = _write_files(Path(folder) / "sound", arguments.files, arguments.seconds)
        backbones.tokenize_plainly(paths[0])  # the first use of each backbone is not timed
        backbones.seconds_of.clear()
        begun = _Clock()
        plain = [backbones.tokenize_plainly(path) for path in paths]
        plain_seconds, plain_cpu = begun.elapsed()
        begun = _Clock()
        report = _tokenize_fast(backbones, Path(folder), paths, arguments.num_workers, device)
        fast_seconds, fast_cpu = begun.elapsed()
        store = TokenStore(Path(folder) / "store", backbones.config)
        fast = {row.path: row for row in (store[number] for number in range(len(store)))}
        same = _agreement(plain, [fast[path.name] for path in paths])
    sound = arguments.files * arguments.seconds
    cli.print_stdout(f"{'':8}{'seconds':>10}{'of sound a second':>19}{'CPU seconds':>13}")
    cli.print_stdout(f"{'plain':8}{plain_seconds:10.2f}{sound / plain_seconds:19.2f}{plain_cpu:13.2f}")
    cli.print_stdout(f"{'here':8}{fast_seconds:10.2f}{sound / fast_seconds:19.2f}{fast_cpu:13.2f}")
    cli.print_stdout(
        f"\n{plain_seconds / fast_seconds:.2f} times as fast, with {plain_cpu / fast_cpu:.2f} times less CPU time"
    )
    cli.print_stdout(f"waited for decoding {report.waited_share:.1%} of the time")
    cli.print_stdout("equal tokens: " + ", ".join(f"{kind} {share:.2%}" for kind, share in same.items()))
    cli.print_stdout("the plain loop's seconds: " + ", ".join(f"{k} {s:.2f}" for k, s in backbones.seconds_of.items()))


class _Clock:
    """Wall time, and the CPU time of this process and of the workers that it has ended."""

    def __init__(self) -> None:
        self.begun, self.used = time.perf_counter(), sum(os.times()[:4])

    def elapsed(self) -> tuple[float, float]:
        return time.perf_counter() - self.begun, sum(os.times()[:4]) - self.used


@dataclass(frozen=True)
class _Sizes:
    """What differs between the sizes."""

    clap: ClapConfig
    hubert: HubertConfig
    codec: EncodecArchitecture


def _sizes(name: str) -> _Sizes:
    released = EncodecArchitecture()
    if name == "full":
        return _Sizes(ClapConfig(), HubertConfig(), released)
    tower = {"hidden_size": 64, "patch_embeds_hidden_size": 8, "depths": [1] * 4, "num_attention_heads": [1, 2, 2, 4]}
    hubert = HubertConfig(
        hidden_size=64, num_hidden_layers=12, num_attention_heads=2, intermediate_size=128, conv_dim=[32] * 7
    )
    return _Sizes(ClapConfig(audio_config=tower), hubert, released.model_copy(update={"n_filters": 4, "lstm": 1}))


class Backbones:
    """Random weights, as upstream's modules for the plain loop and as ours over the same modules."""

    def __init__(self, sizes: str, device: torch.device) -> None:
        torch.manual_seed(0)
        chosen = _sizes(sizes)
        self.config = load_model_config(SHIPPED)
        self.device = device
        self.seconds_of: dict[str, float] = {}
        self.clap = ClapModel(chosen.clap).eval().to(device)
        self.extractor = ClapFeatureExtractor(frequency_min=50, truncation="rand_trunc")
        self.hubert = HubertModel(chosen.hubert).eval().to(device)
        self.encodec = _encodec(chosen.codec).to(device)
        section = self.config.hubert_kmeans_cfg
        centroids = torch.randn(section.codebook_size, chosen.hubert.hidden_size)
        self.kmeans = KMeans(len(centroids), init=centroids.numpy(), n_init=1, max_iter=1).fit(centroids.numpy())
        self.quantizer = ClapQuantizer(self.config.clap_rvq_cfg, chosen.clap.projection_dim)
        for number, layer in enumerate(self.quantizer.residual_vq.layers):
            layer._codebook.embed.copy_(0.03 * 0.8**number * torch.randn(layer._codebook.embed.shape))
        self.quantizer.to(device)
        upper = HubertModel(chosen.hubert).eval()
        upper.load_state_dict(self.hubert.state_dict())
        centroids = torch.from_numpy(self.kmeans.cluster_centers_).float()
        self.tokenizer = MusicTokenizer(
            Clap(self.clap, RobertaTokenizer(), self.extractor).to(device),
            self.quantizer,
            SemanticTokenizer(Mert(upper, section), centroids).to(device),
            Codec(EncodecPackage(self.encodec, chosen.codec), self.config.num_acoustic_quantizers),
        )

    @torch.no_grad()
    def tokenize_plainly(self, path: Path) -> StoredTokens:
        """One file, one window and one model after the other."""
        section, codec, clap_hz = (
            self.config.hubert_kmeans_cfg,
            self.config.encodec_cfg,
            self.config.clap_rvq_cfg.sample_hz,
        )
        with self._timed("decoding"):
            sound = audio.read_sound(path)
            seconds = int(sound.seconds)
            statistics = audio.statistics_of(sound.wave)
            wave = sound.wave[: seconds * sound.sample_hz]
            for_clap, normal, acoustic = (
                audio.resampled(audio.Sound(some, sound.sample_hz), sample_hz)
                for some, sample_hz in (
                    (wave, clap_hz),
                    (audio.normalize(wave, statistics), section.target_sample_hz),
                    (wave, codec.sample_hz),
                )
            )
        with self._timed("CLAP"):
            length = round(self.config.global_cfg.clap_audio_length_seconds * clap_hz)
            clap = torch.cat([self._clap_ids(window, clap_hz) for window in for_clap.unfold(0, length, clap_hz)])
        with self._timed("MERT"):
            states = self.hubert(normal[None].to(self.device), output_hidden_states=True).hidden_states
            features = states[section.embed_layer][0]
            features = (features - features.mean(-1, keepdim=True)) / (features.var(-1, keepdim=True) + 1e-7).sqrt()
            semantic = torch.from_numpy(self.kmeans.predict(features.cpu().numpy())).long()[:, None]
        with self._timed("EnCodec"):
            codes = self.encodec.encode(acoustic[None, None].to(self.device))[0][0][0].t().cpu()
        coarse = token_streams(self.config)["coarse"].quantizers
        return StoredTokens(path.name, 0.0, float(seconds), clap, semantic, codes[:, :coarse], codes[:, coarse:])

    def _clap_ids(self, window: Tensor, sample_hz: int) -> Tensor:
        wave = audio.to_int16_and_back(window).numpy()
        features = self.extractor(wave, sampling_rate=sample_hz, return_tensors="pt").input_features.to(self.device)
        is_longer = torch.zeros(1, 1, dtype=torch.bool, device=self.device)
        return self.quantizer.encode(self.clap.get_audio_features(features, is_longer).pooler_output).cpu()

    @contextmanager
    def _timed(self, part: str) -> Iterator[None]:
        begun = time.perf_counter()
        yield
        self.seconds_of[part] = self.seconds_of.get(part, 0.0) + time.perf_counter() - begun


def _tokenize_fast(
    backbones: Backbones, folder: Path, paths: Sequence[Path], num_workers: int, device: torch.device
) -> PreprocessReport:
    settings = DataPreprocessorConfig(
        folder=str(folder / "sound"),
        results_folder=str(folder / "store"),
        random_crop=False,
        max_audio_length_seconds=3600.0,
        num_workers=num_workers,
    )
    return Preprocessor(backbones.config, settings, backbones.tokenizer, {}, device).run(paths)


@torch.no_grad()
def _encodec(architecture: EncodecArchitecture) -> encodec.EncodecModel:
    """An EnCodec whose random codes have the deviation of its embeddings of noise; untrained ones are all zero."""
    model = build_encodec(architecture).eval()
    model.set_target_bandwidth(6.0)
    deviation, mean = torch.std_mean(model.encoder(0.1 * torch.randn(1, 1, architecture.sample_hz)), dim=(0, 2))
    for number, layer in enumerate(model.quantizer.vq.layers):
        codes = deviation * 0.8**number * torch.randn(layer._codebook.embed.shape)
        layer._codebook.embed.copy_(codes + mean if number == 0 else codes)
    return model


def _write_files(folder: Path, files: int, seconds: int) -> list[Path]:
    """Notes that die away, over noise; mp3."""
    folder.mkdir()
    generator = np.random.default_rng(0)
    times = np.arange(seconds * FILE_HZ) / FILE_HZ
    for number in range(files):
        notes = sum(np.sin(2 * np.pi * hz * times) for hz in generator.uniform(100, 2000, 4))
        wave = 0.1 * notes * np.exp(-4 * (times % 0.5)) + 0.02 * generator.standard_normal(len(times))
        soundfile.write(folder / f"{number:05}.mp3", wave, FILE_HZ)
    return sorted(folder.iterdir())


def _agreement(plain: Sequence[StoredTokens], fast: Sequence[StoredTokens]) -> dict[str, float]:
    """The share of equal tokens, by kind."""
    return {
        kind: float(
            torch.cat(
                [
                    (getattr(one, kind) == getattr(other, kind)).flatten().float()
                    for one, other in zip(plain, fast, strict=True)
                ]
            ).mean()
        )
        for kind in STREAM_NAMES
    }


if __name__ == "__main__":
    cli.run(main, arguments())
