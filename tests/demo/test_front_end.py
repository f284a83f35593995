"""The front end of the onset bank: every tone has a band of its own."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from demo.backbones.front_end import FEWEST_CHANNELS, set_front_end
from open_musiclm.config.backbones import MertArchitecture
from open_musiclm.training.backbones.mert import build_mert

SAMPLE_HZ = 16000


@pytest.fixture(scope="module", params=[320, 640])
def model(request):
    torch.manual_seed(0)
    model = build_mert(MertArchitecture(samples_per_frame=request.param)).eval()
    return model, set_front_end(model)


def tone(hz: float, phase: float = 0.0, seconds: float = 1.0) -> torch.Tensor:
    time = torch.arange(round(seconds * SAMPLE_HZ)) / SAMPLE_HZ
    return torch.sin(2 * math.pi * hz * time + phase)[None]


@torch.no_grad()
def features(model, wave: torch.Tensor) -> torch.Tensor:
    """[time, bands]: loudness."""
    hubert, sums = model
    return hubert.feature_extractor(wave)[0].T @ sums.T


def likeness(one: torch.Tensor, other: torch.Tensor) -> float:
    return float(torch.cosine_similarity(one.mean(dim=0), other.mean(dim=0), dim=0))


@given(phase=st.floats(0.0, 6.28), hz=st.floats(200, 6500))
@settings(max_examples=15, deadline=None)
def test_a_tone_has_the_same_features_whatever_its_phase(model, phase, hz):
    assert likeness(features(model, tone(hz)), features(model, tone(hz, phase))) > 0.98


@pytest.mark.parametrize("hz", [200, 300, 450, 650, 900, 1300, 2500, 5000])
def test_tones_a_fifth_apart_are_told_apart(model, hz):
    assert likeness(features(model, tone(hz)), features(model, tone(1.5 * hz))) < 0.8


def test_a_note_that_changes_shows_at_once(model):
    wave = torch.cat((tone(440), tone(660)), dim=1)
    found = features(model, wave)
    rate = round(len(found) / 2)
    before, after = found[rate // 5 : -rate * 6 // 5].mean(dim=0), found[rate * 6 // 5 : -rate // 5].mean(dim=0)
    nearer_after = (found - after).norm(dim=1) < (found - before).norm(dim=1)
    assert not nearer_after[rate // 10 : rate - 2].any()
    assert nearer_after[rate + 2 : -rate // 10].all()


def test_wider_front_ends_work_too():
    torch.manual_seed(0)
    wide = build_mert(MertArchitecture(front_end_channels=FEWEST_CHANNELS + 32)).eval()
    bands = (wide, set_front_end(wide))
    assert likeness(features(bands, tone(440)), features(bands, tone(660))) < 0.8
