"""All tokenizers of a small model."""

from pathlib import Path

import pytest
import torch
from helpers.golden_cases import CPU
from helpers.released_layout import released_rvq, write_released_kmeans
from helpers.small_backbones import MERT_FEATURES, build_codec, build_mert, model_config
from helpers.small_clap import CLAP_DIM, build_clap

from open_musiclm.config import ClapRvqConfig, EncodecConfig, HubertKmeansConfig, ModelConfig
from open_musiclm.errors import UserError
from open_musiclm.tokenizers.music_tokenizer import MusicTokenizer
from open_musiclm.tokenizers.rvq import ClapQuantizer

SECTION = ClapRvqConfig(rq_num_quantizers=3, codebook_size=8)


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> ModelConfig:
    folder = tmp_path_factory.mktemp("backbones")
    return model_config(
        SECTION.model_copy(update={"model_name": str(build_clap(folder / "clap"))}),
        HubertKmeansConfig(model_name=str(build_mert(folder / "mert")), embed_layer=2, codebook_size=8),
        EncodecConfig(model_name=str(build_codec(folder / "encodec")), bandwidth=2.4, codebook_size=16),
    )


def _write_rvq(path: Path, dim: int) -> Path:
    quantizer = ClapQuantizer(SECTION, dim)
    quantizer.update(torch.nn.functional.normalize(torch.randn(64, dim), dim=-1))
    torch.save(released_rvq(quantizer), path)
    return path


def test_a_moment_of_sound_as_three_kinds_of_tokens(config: ModelConfig, tmp_path: Path) -> None:
    rvq = _write_rvq(tmp_path / "clap.rvq.950_no_fusion.pt", CLAP_DIM)
    kmeans = write_released_kmeans(torch.randn(8, MERT_FEATURES), tmp_path / "kmeans_10s_no_fusion.joblib")
    tokenizer = MusicTokenizer.load(config, rvq, kmeans, CPU)
    seconds = 2
    tokens = {
        "clap": tokenizer.clap_ids(0.1 * torch.randn(2, seconds * tokenizer.clap.sample_hz)),
        "semantic": tokenizer.semantic_ids(torch.randn(2, seconds * tokenizer.semantic.mert.sample_hz)),
        "acoustic": tokenizer.acoustic_ids(0.1 * torch.randn(2, seconds * tokenizer.codec.sample_hz)),
    }
    shapes = {kind: tuple(ids.shape) for kind, ids in tokens.items()}
    assert shapes == {"clap": (2, 1, 3), "semantic": (2, 50 * seconds - 1, 1), "acoustic": (2, 75 * seconds, 8)}
    sizes = {"clap": 8, "semantic": 8, "acoustic": 16}
    assert all(ids.dtype == torch.int64 and int(ids.min()) >= 0 for ids in tokens.values())
    assert all(int(ids.max()) < sizes[kind] for kind, ids in tokens.items())


def test_a_quantizer_of_another_clap(config: ModelConfig, tmp_path: Path) -> None:
    rvq = _write_rvq(tmp_path / "clap.rvq.1.pt", CLAP_DIM + 1)
    kmeans = write_released_kmeans(torch.randn(8, MERT_FEATURES), tmp_path / "kmeans.joblib")
    with pytest.raises(UserError, match=f"of {CLAP_DIM + 1} numbers, the config's CLAP has {CLAP_DIM}"):
        MusicTokenizer.load(config, rvq, kmeans, CPU)
