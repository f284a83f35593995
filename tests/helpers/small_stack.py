"""A whole small model with random weights on disk: configs, backbones, quantizer, k-means and the three stages."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from helpers.small_backbones import MERT_FEATURES, build_codec, build_mert
from helpers.small_clap import CLAP_DIM, build_clap
from open_musiclm.checkpoints import save_weights, weights_name
from open_musiclm.config import STAGE_NAMES, ModelConfig, StageName, load_model_config
from open_musiclm.generation.musiclm import MusicLM
from open_musiclm.models.stages import Stage, build_stage, load_stage
from open_musiclm.tokenizers.encodec_directory import EncodecArchitecture
from open_musiclm.tokenizers.music_tokenizer import MusicTokenizer
from open_musiclm.tokenizers.rvq import ClapQuantizer

CPU = torch.device("cpu")
CODEC = EncodecArchitecture(
    dimension=8, n_filters=2, ratios=(8, 8, 5, 5), lstm=1, n_q=8, bins=64, target_bandwidths=(0.27, 0.72)
)
STAGE = {"dim": 32, "depth": 1, "heads": 2}
MODEL = {
    # Short windows, and 15 acoustic frames a second instead of 75, keep generation short.
    "global_cfg": {
        "semantic_audio_length_seconds": 2.0,
        "coarse_audio_length_seconds": 1.2,
        "fine_audio_length_seconds": 0.8,
        "clap_audio_length_seconds": 2.0,
        "num_coarse_quantizers": 3,
        "num_fine_quantizers": 5,
    },
    "clap_rvq_cfg": {"model_name": "./clap", "rq_num_quantizers": 3, "codebook_size": 40},
    "hubert_kmeans_cfg": {"model_name": "./mert", "embed_layer": 2, "codebook_size": 40},
    "encodec_cfg": {"model_name": "./encodec", "bandwidth": 0.72, "codebook_size": 64, "output_hz": 15},
    "semantic_cfg": STAGE,
    "coarse_cfg": STAGE,
    "fine_cfg": STAGE,
}


@dataclass(frozen=True)
class Stack:
    """Where everything lies, and its config."""

    folder: Path
    config: ModelConfig

    @property
    def model_config(self) -> Path:
        return self.folder / "model_config.json"

    def weights(self, kind: str) -> Path:
        return self.folder / weights_name(kind)

    def arguments(self) -> list[str]:
        """What an inference script is given, part by part."""
        argument_of = {"clap_rvq": "rvq", "hubert_kmeans": "kmeans"}
        kinds = [*STAGE_NAMES, "clap_rvq", "hubert_kmeans"]
        parts = [(f"--{argument_of.get(kind, kind)}_path", str(self.weights(kind))) for kind in kinds]
        return [word for part in [*parts, ("--model_config", str(self.model_config))] for word in part]

    def tokenizer(self) -> MusicTokenizer:
        return MusicTokenizer.load(self.config, self.weights("clap_rvq"), self.weights("hubert_kmeans"), CPU)

    def stages(self, names: Sequence[StageName] = STAGE_NAMES) -> dict[StageName, Stage]:
        return {name: load_stage(self.weights(name), name, self.config, CPU) for name in names}

    def musiclm(self, names: Sequence[StageName] = STAGE_NAMES) -> MusicLM:
        return MusicLM(self.config, self.stages(names), self.tokenizer())


def build_backbones(folder: Path, mert_hz: int = 16000) -> Path:
    """Writes the three backbones and the model config that names them; returns the config's path.

    A MERT of 16 kHz has 50 tokens a second, as MERT v0; of 24 kHz 75, as MERT v1.
    """
    build_clap(folder / "clap")
    build_mert(folder / "mert", mert_hz)
    build_codec(folder / "encodec", CODEC)
    path = folder / "model_config.json"
    mert = {**MODEL["hubert_kmeans_cfg"], "target_sample_hz": mert_hz, "output_hz": mert_hz // 320}
    path.write_text(json.dumps({**MODEL, "hubert_kmeans_cfg": mert}))
    return path


def build_stack(folder: Path, token_layout: str = "flat", coarse_quantizers: int = 3) -> Stack:
    """Writes a whole model with random weights; with 8 coarse quantizers there is no fine stage."""
    path = build_backbones(folder)
    content = json.loads(path.read_text())
    for section in ("coarse_cfg", "fine_cfg"):
        content[section] = {**content[section], "token_layout": token_layout}
    content["global_cfg"] |= {"num_coarse_quantizers": coarse_quantizers, "num_fine_quantizers": 8 - coarse_quantizers}
    path.write_text(json.dumps(content))
    return build_weights(path)


def build_weights(model_config: Path) -> Stack:
    """Writes random weights of every trained part beside a model config."""
    config = load_model_config(model_config)
    stack = Stack(model_config.parent, config)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(11)
        for name in config.stage_names:
            stage = build_stage(name, config)
            save_weights(stack.weights(name), name, stage.layout.state_dict(), config)
        centroids = torch.randn(config.hubert_kmeans_cfg.codebook_size, MERT_FEATURES)
        save_weights(stack.weights("hubert_kmeans"), "hubert_kmeans", {"centroids": centroids}, config)
        quantizer = ClapQuantizer(config.clap_rvq_cfg, CLAP_DIM)
        quantizer.update(torch.nn.functional.normalize(torch.randn(64, CLAP_DIM), dim=-1))
        save_weights(stack.weights("clap_rvq"), "clap_rvq", quantizer.state_dict(), config)
    return stack
