"""CLAP's front end against transformers' ClapFeatureExtractor, whose random crops are made to be the middle ones."""

from unittest import mock

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from transformers import ClapFeatureExtractor

from open_musiclm.audio import to_int16_and_back
from open_musiclm.errors import UserError
from open_musiclm.tokenizers.clap_mel import ClapMel

WINDOW = 480_000
FRAMES = 1001
TRUNCATIONS = ("rand_trunc", "fusion")


def extracted(extractor: ClapFeatureExtractor, waves: torch.Tensor) -> torch.Tensor:
    """The extractor's spectrograms, clip by clip."""
    with (
        mock.patch("numpy.random.randint", lambda first, last: (last - 1 - first) // 2),
        mock.patch("numpy.random.choice", lambda third: third[len(third) // 2]),
    ):
        clips = [extractor(wave.numpy(), sampling_rate=48000)["input_features"][0] for wave in waves]
    return torch.from_numpy(np.stack(clips))


def difference(truncation: str, waves: torch.Tensor, lowest_hz: float = 50) -> float:
    extractor = ClapFeatureExtractor(frequency_min=lowest_hz, truncation=truncation)
    found = ClapMel(extractor)(waves).spectrograms
    expected = extracted(extractor, waves)
    assert found.shape == expected.shape == (len(waves), 4 if truncation == "fusion" else 1, FRAMES, 64)
    return float((found - expected).abs().max())


def noise(samples: int, batch: int = 2, seed: int = 0) -> torch.Tensor:
    return 0.3 * torch.randn(batch, samples, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("truncation", TRUNCATIONS)
@pytest.mark.parametrize(
    "samples", [1, 700, WINDOW // 3, WINDOW // 2 + 1, WINDOW - 1, WINDOW, WINDOW + 1, WINDOW + 479, WINDOW + 480]
)
def test_lengths_about_the_window(truncation: str, samples: int) -> None:
    assert difference(truncation, noise(samples)) < 1e-3


@settings(max_examples=12, deadline=None)
@given(samples=st.integers(1, 3 * WINDOW), truncation=st.sampled_from(TRUNCATIONS), seed=st.integers(0, 99))
@example(samples=132150, truncation="fusion", seed=0)
def test_any_length(samples: int, truncation: str, seed: int) -> None:
    # A band of noise may lie nearly 70 dB below its frame, where float32 leaves 0.005 dB open.
    assert difference(truncation, noise(samples, batch=1, seed=seed)) < 1e-2


TIME = torch.arange(WINDOW) / 48000
PURE = {
    "sine": torch.sin(2 * np.pi * 440 * TIME),
    "sine above every filter": torch.sin(2 * np.pi * 19000 * TIME),
    "chirp": torch.sin(2 * np.pi * TIME * (100 + 200 * TIME)),
    "chord that dies away": sum(torch.sin(2 * np.pi * hz * TIME) for hz in (220, 277, 330)) * torch.exp(-TIME) / 3,
    "square": torch.sign(torch.sin(2 * np.pi * 100 * TIME)),
    "constant": torch.ones(WINDOW),
    "silence": torch.zeros(WINDOW),
    "click": torch.nn.functional.one_hot(torch.tensor(1000), WINDOW).float(),
}


@pytest.mark.parametrize("truncation", TRUNCATIONS)
@pytest.mark.parametrize("name", PURE)
def test_sound_of_few_frequencies(truncation: str, name: str) -> None:
    """Beside a loud tone float32 loses what is left in the other bands, 100 dB below."""
    wave = PURE[name].unsqueeze(0)
    assert difference(truncation, torch.cat([wave, to_int16_and_back(wave)])) < 1e-3


def test_settings_are_the_extractors(tmp_path) -> None:
    assert difference("rand_trunc", noise(WINDOW), lowest_hz=0) < 1e-3
    at_50, at_0 = (
        ClapMel(ClapFeatureExtractor(frequency_min=hz, truncation="rand_trunc"))(noise(WINDOW)).spectrograms
        for hz in (50, 0)
    )
    assert (at_50 - at_0).abs().max() > 1


@pytest.mark.parametrize(
    ("truncation", "samples", "longer"),
    [
        ("fusion", 100, False),
        ("fusion", WINDOW, False),
        ("fusion", WINDOW + 479, False),
        ("fusion", WINDOW + 480, True),
        ("rand_trunc", 3 * WINDOW, False),
    ],
)
def test_only_fused_sound_is_longer(truncation: str, samples: int, longer: bool) -> None:
    features = ClapMel(ClapFeatureExtractor(truncation=truncation))(noise(samples, batch=3))
    assert features.is_longer.tolist() == [[longer]] * 3


def test_clips_do_not_touch_one_another() -> None:
    mel = ClapMel(ClapFeatureExtractor(frequency_min=50, truncation="fusion"))
    waves = torch.cat([noise(WINDOW, 2), PURE["sine"].unsqueeze(0)])
    torch.testing.assert_close(mel(waves).spectrograms[1:2], mel(waves[1:2]).spectrograms, rtol=0, atol=0)


def real_sound(samples: int) -> torch.Tensor:
    """Decaying notes over noise, a silence, and a tone alone."""
    time = torch.arange(samples) / 48000
    notes = sum(torch.sin(2 * np.pi * hz * time) for hz in (220.0, 331.7, 1245.0)) * torch.exp(-(time % 0.7) * 5)
    wave = 0.2 * notes + 0.01 * noise(samples, batch=1)[0]
    wave[samples // 3 : samples // 2] = 0
    wave[samples // 2 : samples // 2 + 90_000] = 0.5 * torch.sin(2 * np.pi * 440 * time[:90_000])
    return to_int16_and_back(wave)


@pytest.mark.parametrize("truncation", TRUNCATIONS)
@pytest.mark.parametrize(
    ("seconds", "window", "step"),
    [
        (13.2, 10, 1),
        (10, 10, 1),
        (14, 12, 1),
        (14, 12.011, 1),
        (12, 10, 0.5),
        (5, 3, 1),
        (12, 10, 0.9999),
        (31, 10, 20),
    ],
)
def test_windows_share_frames(truncation: str, seconds: float, window: float, step: float) -> None:
    """Whatever the windows, they are those of one clip at a time; the last four cases share nothing or little."""
    mel = ClapMel(ClapFeatureExtractor(frequency_min=50, truncation=truncation))
    samples, hop = round(window * 48000), round(step * 48000)
    wave = real_sound(round(seconds * 48000))
    found, expected = mel.windows(wave, samples, hop), mel(wave.unfold(0, samples, hop))
    torch.testing.assert_close(found.spectrograms, expected.spectrograms, rtol=0, atol=1e-4)
    assert torch.equal(found.is_longer, expected.is_longer)


def test_a_frame_of_many_windows_is_computed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    mel = ClapMel(ClapFeatureExtractor(truncation="rand_trunc"))
    frames, rfft = [], torch.fft.rfft

    def counted(some: torch.Tensor, out: torch.Tensor) -> torch.Tensor:
        frames.append(some[..., 0].numel())
        return rfft(some, out=out)

    monkeypatch.setattr("torch.fft.rfft", counted)
    assert len(mel.windows(noise(30 * 48000, batch=1)[0], WINDOW, 48000).spectrograms) == 21
    assert sum(frames) < 1.1 * 3001


@pytest.mark.parametrize("wrong", [{"padding": "pad"}, {"truncation": "bogus"}])
def test_settings_that_clap_was_not_trained_with(wrong: dict) -> None:
    with pytest.raises(UserError, match=r"preprocessor_config\.json pads by"):
        ClapMel(ClapFeatureExtractor(**wrong))
