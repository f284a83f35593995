"""The onset bank: onset strength lies where a note is struck, even if pitch and timbre stay."""

import math
from pathlib import Path

import pytest
import torch
from helpers.small_backbones import model_config
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from demo.backbones.onset_bank import start_as_onset_bank
from open_musiclm.config import HubertKmeansConfig
from open_musiclm.config.backbones import MertArchitecture
from open_musiclm.errors import UserError
from open_musiclm.tokenizers.mert import Mert
from open_musiclm.training.backbones.mert import build_mert

SAMPLE_HZ, SECONDS = 16000, 4
LEFT_OUT = 3  # frames: a file's beginning is an onset too


@pytest.fixture(scope="module", params=[320, 640])
def mert(request, tmp_path_factory) -> Mert:
    """As the tokenizer loads it."""
    folder: Path = tmp_path_factory.mktemp("mert")
    torch.manual_seed(0)
    model = build_mert(MertArchitecture(samples_per_frame=request.param, feature_projection_norm=False))
    start_as_onset_bank(model)
    model.save_pretrained(folder)
    settings = HubertKmeansConfig(
        model_name=str(folder), embed_layer=2, seq_len_multiple_of=request.param, output_hz=SAMPLE_HZ // request.param
    )
    return Mert.load(model_config(settings), torch.device("cpu"))


def struck(hz: float, strikes: int, seconds: float = SECONDS, hiss: float = 0.001) -> Tensor:
    """[1, samples]: one note, struck again and again, each time dying away; of unit variance."""
    time = torch.arange(round(seconds * SAMPLE_HZ)) / SAMPLE_HZ
    since = (time + 0.5 * seconds / strikes) % (seconds / strikes)
    note = sum(torch.sin(2 * math.pi * hz * k * time) / k for k in (1, 2, 3, 4)) * torch.exp(-9 * since)
    wave = note + hiss * torch.randn(len(time), generator=torch.Generator().manual_seed(0))
    return (wave / wave.std())[None]


def onset_strength(mert: Mert, wave: Tensor) -> Tensor:
    """[time]: the feature that varies most."""
    features = mert.features(wave)[0, LEFT_OUT:]
    return features[:, features.std(dim=0).argmax()]


@given(hz=st.floats(150, 1500), strikes=st.integers(2, 12))
@settings(max_examples=15, deadline=None)
def test_onset_strength_lies_where_the_same_note_is_struck_again(mert: Mert, hz: float, strikes: int):
    strength = onset_strength(mert, struck(hz, strikes))
    hop = SECONDS / (len(strength) + LEFT_OUT)
    strikes_at = (torch.arange(strikes) + 0.5) * SECONDS / strikes
    near = ((torch.arange(LEFT_OUT, len(strength) + LEFT_OUT)[:, None] * hop - strikes_at).abs() < 1.5 * 0.04).any(
        dim=1
    )
    above = strength - strength.median()
    assert above[near].sum() > 0.9 * above.clamp_min(0).sum()


def test_a_note_that_is_held_has_no_onsets(mert: Mert):
    once = onset_strength(mert, struck(440, 1))
    time = torch.arange(SECONDS * SAMPLE_HZ) / SAMPLE_HZ
    held = torch.sin(2 * math.pi * 440 * time)[None] * math.sqrt(2)
    place = once.argmax()
    channel = mert.features(struck(440, 1))[0, LEFT_OUT:].std(dim=0).argmax()
    assert mert.features(held)[0, LEFT_OUT:-2, channel].max() < once.min() + 0.1 * (once[place] - once.min())


def test_a_note_that_fades_moves_steadily_away_from_how_it_began(mert: Mert):
    time = torch.arange(SECONDS * SAMPLE_HZ) / SAMPLE_HZ
    fading = torch.sin(2 * math.pi * 440 * time)[None] * torch.exp(-time)
    features = mert.features(fading / fading.std())[0, LEFT_OUT:]
    away = (features - features[0]).norm(dim=1)
    assert torch.corrcoef(torch.stack((away, torch.arange(len(away)).float())))[0, 1] > 0.98


@pytest.mark.parametrize(
    ("setting", "value"), [("layers", 1), ("feed_forward_dim", 100), ("feature_dim", 64), ("front_end_channels", 48)]
)
def test_too_small_a_model_is_refused_by_name(setting: str, value: int):
    architecture = MertArchitecture.model_validate({"feature_projection_norm": False, setting: value})
    with pytest.raises(UserError, match=f"{setting} {value} is too small for onsets"):
        start_as_onset_bank(build_mert(architecture))
