"""CLAP tokens from a residual vector quantizer that was trained here."""

from pathlib import Path

import pytest
import torch
from helpers.golden_cases import CPU
from helpers.small_backbones import model_config
from hypothesis import given, settings
from hypothesis import strategies as st

from open_musiclm.checkpoints import save_weights
from open_musiclm.config import ClapRvqConfig
from open_musiclm.errors import UserError
from open_musiclm.tokenizers.rvq import ClapQuantizer

DIM = 12
SECTION = ClapRvqConfig(rq_num_quantizers=3, codebook_size=8, threshold_ema_dead_code=0.5)


def _embeddings(count: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.nn.functional.normalize(torch.randn(count, DIM, generator=generator), dim=-1)


@pytest.fixture(scope="module")
def quantizer() -> ClapQuantizer:
    torch.manual_seed(0)
    quantizer = ClapQuantizer(SECTION, DIM)
    for seed in range(20):
        quantizer.update(_embeddings(256, seed))
    return quantizer


def _reconstructed(quantizer: ClapQuantizer, tokens: torch.Tensor) -> torch.Tensor:
    return sum(codebook[tokens[:, index]] for index, codebook in enumerate(quantizer.residual_vq.codebooks))


def test_updates_follow_the_embeddings() -> None:
    torch.manual_seed(0)
    quantizer = ClapQuantizer(ClapRvqConfig(rq_num_quantizers=3, codebook_size=8), DIM)
    assert not quantizer.trained
    quantizer.update(_embeddings(256))
    assert quantizer.trained
    embeddings = torch.nn.functional.normalize(_embeddings(256, seed=1) + torch.arange(DIM) / DIM, dim=-1)
    errors = [float(quantizer.update(embeddings)) for _ in range(60)]
    assert errors[-1] < 0.5 * errors[0]
    quantized = _reconstructed(quantizer, quantizer.encode(embeddings))
    assert float((quantized - embeddings).square().mean()) == pytest.approx(float(quantizer.update(embeddings)))


def test_encoding_moves_no_codebook(quantizer: ClapQuantizer) -> None:
    before = quantizer.residual_vq.codebooks.clone()
    quantizer.train()
    quantizer.encode(_embeddings(64, seed=99))
    assert torch.equal(quantizer.residual_vq.codebooks, before)


def test_each_codebook_lowers_what_is_left_over(quantizer: ClapQuantizer) -> None:
    embeddings, tokens = _embeddings(256, seed=5), quantizer.encode(_embeddings(256, seed=5))
    left, errors = embeddings, [float(embeddings.square().mean())]
    for index, codebook in enumerate(quantizer.residual_vq.codebooks):
        nearest = (left.unsqueeze(1) - codebook).square().sum(-1).argmin(-1)
        assert torch.equal(tokens[:, index], nearest)
        left = left - codebook[nearest]
        errors.append(float(left.square().mean()))
    assert errors == sorted(errors, reverse=True)


@settings(max_examples=30, deadline=None)
@given(count=st.integers(1, 60), seed=st.integers(0, 1000))
def test_tokens_do_not_depend_on_the_batch(quantizer: ClapQuantizer, count: int, seed: int) -> None:
    embeddings = _embeddings(count, seed)
    alone = torch.cat([quantizer.encode(embedding.unsqueeze(0)) for embedding in embeddings])
    in_batch = quantizer.encode(embeddings)
    assert in_batch.shape == (count, 3)
    assert torch.equal(alone, in_batch)


def test_a_saved_quantizer_gives_the_same_tokens(quantizer: ClapQuantizer, tmp_path: Path) -> None:
    path, config = tmp_path / "clap_rvq.safetensors", model_config(SECTION)
    save_weights(path, "clap_rvq", quantizer.state_dict(), config)
    loaded = ClapQuantizer.load(path, config, CPU)
    embeddings = _embeddings(50, seed=7)
    assert torch.equal(loaded.encode(embeddings), quantizer.encode(embeddings))
    assert float(loaded.update(embeddings)) == pytest.approx(float(quantizer.update(embeddings)))


def test_an_untrained_quantizer_is_refused(tmp_path: Path) -> None:
    path, config = tmp_path / "clap_rvq.safetensors", model_config(SECTION)
    save_weights(path, "clap_rvq", ClapQuantizer(SECTION, DIM).state_dict(), config)
    with pytest.raises(UserError, match=r"clap_rvq\.safetensors: .*never trained"):
        ClapQuantizer.load(path, config, CPU)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"rq_num_quantizers": 2}, "unexpected residual_vq.layers.2"),
        ({"rq_num_quantizers": 4}, "missing residual_vq.layers.3"),
        ({"codebook_size": 16}, r"is \[.*\], not \["),
    ],
)
def test_a_quantizer_of_another_shape(quantizer: ClapQuantizer, tmp_path: Path, changes: dict, words: str) -> None:
    path = tmp_path / "clap_rvq.safetensors"
    save_weights(path, "clap_rvq", quantizer.state_dict(), model_config(SECTION))
    with pytest.raises(UserError, match=words):
        ClapQuantizer.load(path, model_config(SECTION.model_copy(update=changes)), CPU)


def test_tokens_stand_for_the_sum_of_their_codes(quantizer: ClapQuantizer) -> None:
    tokens = quantizer.encode(_embeddings(5))
    torch.testing.assert_close(quantizer.decode(tokens), _reconstructed(quantizer, tokens))
