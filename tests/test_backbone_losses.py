"""Losses, codebooks and masks that EnCodec, CLAP and MERT are trained with."""

import math

import numpy as np
import torch
from encodec.quantization import ResidualVectorQuantizer
from hypothesis import given, settings
from hypothesis import strategies as st
from test_backbone_trainers import SMALL, tones

from open_musiclm.config.backbones import MertArchitecture
from open_musiclm.metrics.codec import log_spectral_distance, si_sdr
from open_musiclm.tokenizers.encodec_directory import build_encodec
from open_musiclm.training.backbones.clap_losses import Pairs, caption_numbers, contrastive_loss, retrieval_recall
from open_musiclm.training.backbones.codebooks import quantize_and_update
from open_musiclm.training.backbones.constant_q import ConstantQ
from open_musiclm.training.backbones.encodec_losses import Balancer, SpectrogramLoss
from open_musiclm.training.backbones.mert import MertTraining, build_mert
from open_musiclm.training.backbones.mert_losses import MertHeads, frames_at, mask_spans
from open_musiclm.training.backbones.rng import example_rngs, follow_examples, seed_dropout, step_rng
from open_musiclm.training.backbones.transform_codec import start_as_transform_codec


def rng(step: int = 0) -> np.random.Generator:
    return step_rng(0, step)


def test_commitment_reaches_the_encoder_from_every_codebook():
    torch.manual_seed(0)
    quantizer = ResidualVectorQuantizer(8, n_q=3, bins=8)
    latents = torch.randn(2, 8, 50)
    quantize_and_update(quantizer, latents, 3, 0.9, 0.1, rng())
    gradients = []
    for quantizers in (1, 2, 3):
        leaf = latents.clone().requires_grad_()
        frozen = [layer._codebook.embed.clone() for layer in quantizer.vq.layers]
        result = quantize_and_update(quantizer, leaf, quantizers, 0.999999, 0.0, rng())
        (gradient,) = torch.autograd.grad(result.commitment * quantizers, leaf)
        gradients.append(gradient)
        for layer, embed in zip(quantizer.vq.layers, frozen, strict=True):
            layer._codebook.embed.copy_(embed)
    assert (gradients[1] - gradients[0]).norm() > 0.1 * gradients[0].norm()
    assert (gradients[2] - gradients[1]).norm() > 0.1 * gradients[0].norm()


def test_quantizing_passes_gradients_straight_through_and_sums_the_codes():
    torch.manual_seed(0)
    quantizer = ResidualVectorQuantizer(4, n_q=2, bins=8)
    latents = torch.randn(2, 4, 30, requires_grad=True)
    quantize_and_update(quantizer, latents.detach(), 2, 0.9, 0.1, rng())
    before = [layer._codebook.embed.clone() for layer in quantizer.vq.layers]
    result = quantize_and_update(quantizer, latents, 2, 0.9, 0.1, rng())
    expected = sum(embed[result.codes[..., index]] for index, embed in enumerate(before))
    torch.testing.assert_close(result.latents.transpose(1, 2), expected)
    (gradient,) = torch.autograd.grad(result.latents.sum(), latents)
    torch.testing.assert_close(gradient, torch.ones_like(latents))


def test_dead_codes_come_back():
    torch.manual_seed(0)
    quantizer = ResidualVectorQuantizer(4, n_q=1, bins=32)
    narrow = 0.01 * torch.randn(4, 4, 100)
    quantize_and_update(quantizer, narrow, 1, 0.5, 0.1, rng())
    wide = 10 * torch.randn(4, 4, 100)
    for step in range(40):
        codes = quantize_and_update(quantizer, wide, 1, 0.8, 0.1, rng(step)).codes
    assert len(codes[..., 0].unique()) / 32 > 0.9


@given(scales=st.tuples(*[st.floats(1e-4, 1e4)] * 2), weight=st.floats(0.1, 10))
@settings(max_examples=20, deadline=None)
def test_a_loss_steers_by_its_weight_whatever_its_scale(scales, weight):
    wave = torch.zeros(3, 50, requires_grad=True)
    directions = torch.zeros(2, 50)
    directions[0, 0], directions[1, 1] = 1, 1
    balancer = Balancer({"one": weight, "other": 1.0})
    losses = {
        name: scale * (wave * direction).sum()
        for name, scale, direction in zip(("one", "other"), scales, directions, strict=True)
    }
    gradient = balancer.gradient(losses, wave)
    torch.testing.assert_close(gradient[0, 0] / gradient[0, 1], torch.tensor(weight), rtol=1e-3, atol=0)
    assert gradient.norm(dim=1).max() <= 1.001


def test_a_skipped_step_leaves_nothing_behind():
    balancer = Balancer({"one": 1.0})
    wave = torch.zeros(2, 5, requires_grad=True)
    assert not balancer.gradient({"one": (wave * math.nan).sum()}, wave).isfinite().any()
    assert balancer.gradient({"one": wave.sum()}, wave).isfinite().all()
    quantizer = ResidualVectorQuantizer(4, n_q=2, bins=8)
    latents = torch.randn(2, 4, 30)
    quantize_and_update(quantizer, latents, 2, 0.9, 0.1, rng())
    before = {name: tensor.clone() for name, tensor in quantizer.state_dict().items()}
    quantize_and_update(quantizer, latents * math.nan, 2, 0.9, 0.1, rng())
    after = quantizer.state_dict()
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())


def test_spectrogram_loss_is_least_for_the_wave_itself_and_its_gradient_is_finite_in_silence():
    torch.manual_seed(0)
    loss = SpectrogramLoss(24000, [64, 256])
    waves = tones(2, 0.3, 24000)
    assert loss(waves, waves) < loss(0.9 * waves, waves) < loss(torch.zeros_like(waves), waves)
    silence = torch.zeros(1, 2000, requires_grad=True)
    (gradient,) = torch.autograd.grad(loss(silence, torch.zeros(1, 2000)), silence)
    assert gradient.isfinite().all()


def test_an_untrained_codec_that_starts_as_a_transform_lets_the_sound_through():
    torch.manual_seed(0)
    model = build_encodec(SMALL)
    start_as_transform_codec(model, tones(8, 1.0, 24000))
    waves = tones(4, 0.4, 24000)
    with torch.no_grad():
        decoded = model.decoder(model.encoder(waves[:, None]))[:, 0]
    assert si_sdr(decoded, waves).mean() > 5


def test_codec_metrics_tell_a_perfect_copy_from_a_worse_one():
    torch.manual_seed(0)
    wave = tones(2, 0.5, 24000)
    noisy = wave + 0.1 * wave.std() * torch.randn_like(wave)
    assert si_sdr(0.5 * wave, wave).min() > 60
    assert abs(si_sdr(noisy, wave).mean() - 20) < 1
    assert log_spectral_distance(wave, wave).max() == 0
    assert log_spectral_distance(noisy, wave).min() > 1


@given(semitones=st.integers(0, 60))
@settings(max_examples=10, deadline=None)
def test_constant_q_has_each_pitch_in_its_bin(semitones):
    time = torch.arange(8000) / 16000
    wave = torch.sin(2 * torch.pi * 55 * 2 ** (semitones / 12) * time)
    frames = ConstantQ(16000, 320)(wave[None], 24)
    assert frames.shape == (1, 24, 84)
    assert frames[0, 12].argmax() == semitones


@given(frames=st.integers(1, 300), span=st.integers(1, 20))
@settings(max_examples=20, deadline=None)
def test_masks_have_a_span_in_every_example(frames, span):
    masked = mask_spans(example_rngs(frames, range(3)), frames, 0.02, span)
    assert masked.any(dim=1).all()
    assert masked.shape == (3, frames)
    assert torch.equal(masked[1:], mask_spans(example_rngs(frames, range(1, 3)), frames, 0.02, span))


def test_codec_tokens_at_another_rate_are_those_of_the_same_moment():
    codes = torch.arange(150)[None, :, None]
    assert frames_at(codes, 75, 50, 4)[0, :, 0].tolist() == [0, 2, 3, 5]


def test_contrast_is_least_when_each_sound_has_its_own_caption():
    own = torch.eye(4)
    captions = caption_numbers(["a", "b", "c", "a"])
    same = captions[:, None] == captions
    scale = torch.tensor(10.0)
    shared = own.clone()
    shared[3] = shared[0]
    pairs = Pairs(shared, shared, captions)
    wrong = Pairs(shared, shared.roll(1, 0), captions)
    right = contrastive_loss(pairs, pairs, scale)
    assert right < contrastive_loss(wrong, wrong, scale)
    assert right < 0.75
    assert retrieval_recall(shared, shared, same) == {1: 1.0, 5: 1.0, 10: 1.0}
    assert retrieval_recall(own, own.roll(1, 0), torch.eye(4, dtype=torch.bool))[1] == 0.0
    assert retrieval_recall(torch.ones(4, 4), torch.ones(4, 4), torch.eye(4, dtype=torch.bool))[1] == 0.0


def test_contrast_of_parts_is_that_of_the_whole():
    torch.manual_seed(0)
    audio, text = (torch.nn.functional.normalize(torch.randn(6, 8), dim=1) for _ in range(2))
    pairs = Pairs(audio, text, torch.tensor([0, 1, 2, 0, 3, 4]))
    logits, fits = 5 * audio @ text.T, pairs.captions[:, None] == pairs.captions
    targets = fits / fits.sum(dim=1, keepdim=True)
    expected = sum(torch.nn.functional.cross_entropy(scores, targets) for scores in (logits, logits.T)) / 2
    scale = torch.tensor(5.0)
    torch.testing.assert_close(contrastive_loss(pairs, pairs, scale), expected)
    parts = [contrastive_loss(Pairs(*(x[part] for x in pairs)), pairs, scale) for part in ([0, 1], [2, 3], [4, 5])]
    torch.testing.assert_close(torch.stack(parts).mean(), expected)


def test_dropout_of_a_transformers_model_follows_the_examples():
    torch.manual_seed(0)
    model = build_mert(MertArchitecture(feature_dim=16, layers=2, heads=2, feed_forward_dim=16, dropout=0.3))
    follow_examples(model.train())
    waves, seeds = torch.randn(3, 4000), torch.tensor([7, 8, 9], dtype=torch.int32)

    def features(part: slice, rest: int = 0) -> torch.Tensor:
        seed_dropout(model, seeds[part] + rest)
        with torch.no_grad():
            return model(waves[part], mask_time_indices=torch.zeros(3, 12, dtype=torch.bool)[part]).last_hidden_state

    whole = features(slice(3))
    torch.testing.assert_close(features(slice(1, 3)), whole[1:], rtol=0, atol=1e-5)
    assert (features(slice(3), 1) - whole).abs().max() > 0.1


@torch.no_grad()
def test_frames_that_are_not_masked_are_predicted_only_where_that_is_wanted():
    torch.manual_seed(0)
    model = build_mert(MertArchitecture(feature_dim=16, layers=1, heads=2, feed_forward_dim=16, dropout=0.0)).eval()
    heads = MertHeads(16, 2, 8, 5)
    codes, pitches = torch.randint(8, (2, 12, 2)), torch.randn(2, 12, 5)
    masked = mask_spans([rng(), rng(1)], 12, 0.2, 3)
    task = (torch.randn(2, 4000), codes, pitches, masked, torch.zeros(2, dtype=torch.int32))
    inside, outside = MertTraining(model, heads, predicts_unmasked=True)(*task)
    alone, nothing = MertTraining(model, heads, predicts_unmasked=False)(*task)
    assert nothing is None
    torch.testing.assert_close(inside, alone)
    changed = torch.where(masked[..., None], pitches, pitches + 1)
    again, outside_again = MertTraining(model, heads, predicts_unmasked=True)(task[0], codes, changed, *task[3:])
    torch.testing.assert_close(again, inside)
    assert outside_again.pitches != outside.pitches
