"""New sound is brought to the loudness of what is around it."""

import math

import pytest
import torch

from open_musiclm.audio import leveled, levels_of

HZ = 24000


def noise(decibels: float, seconds: float = 2.0) -> torch.Tensor:
    """Steady noise of that RMS."""
    wave = torch.randn(round(seconds * HZ), generator=torch.Generator().manual_seed(0))
    return 10 ** (decibels / 20) * wave / wave.square().mean().sqrt()


def loudness(wave: torch.Tensor) -> float:
    return levels_of([wave], HZ).loudness


@pytest.mark.parametrize("seconds", [0.1, 1.0, 23.0])
@pytest.mark.parametrize("decibels", [-30.0, -36.0, -44.0])
def test_a_steady_sound_stays_as_loud_as_it_was(decibels: float, seconds: float) -> None:
    around, new = noise(-36.0), noise(decibels, seconds)
    assert loudness(leveled(new, around[None], around[None], HZ)) == pytest.approx(
        loudness(noise(-36.0, seconds)), abs=0.3
    )


def test_between_loud_and_quiet_the_gain_goes_from_one_to_the_other() -> None:
    wave = leveled(noise(-30.0, 4.0), noise(-24.0)[None], noise(-36.0)[None], HZ)
    parts = [20 * float(part.square().mean().sqrt().log10()) for part in wave.split(HZ // 2)]
    assert parts[0] == pytest.approx(-24, abs=1)
    assert parts[-1] == pytest.approx(-36, abs=1)
    assert parts == sorted(parts, reverse=True)


@pytest.mark.parametrize("silent", [torch.zeros(0), torch.zeros(HZ), noise(-70.0, 0.1)])
def test_a_side_of_which_nothing_can_be_said_does_not_count(silent: torch.Tensor) -> None:
    new, loud, silent = noise(-30.0), noise(-24.0)[None], silent[None]
    both = leveled(new, loud, loud, HZ)
    assert torch.equal(leveled(new, loud, silent, HZ), both)
    assert torch.equal(leveled(new, silent, loud, HZ), both)
    assert torch.equal(leveled(new, silent, silent, HZ), new)
    nothing = torch.zeros(HZ)
    assert torch.equal(leveled(nothing, loud, loud, HZ), nothing)


def channels(kind: str, first: torch.Tensor) -> torch.Tensor:
    """One channel or two."""
    other = torch.randn(first.shape, generator=torch.Generator().manual_seed(1)) * first.std()
    return {
        "mono": first[None],
        "dual mono": torch.stack((first, first)),
        "independent": torch.stack((first, other)),
        "almost cancelling": torch.stack((first, -0.8 * first)),
    }[kind]


CHANNELS = ["mono", "dual mono", "independent", "almost cancelling"]


@pytest.mark.parametrize("kind", CHANNELS)
def test_the_loudness_is_that_of_all_channels_together(kind: str) -> None:
    around = channels(kind, noise(-30.0))
    new = leveled(noise(-36.0), around, around, HZ).expand(len(around), -1)
    assert loudness(new) == pytest.approx(loudness(around), abs=0.2)


@pytest.mark.parametrize("kind", CHANNELS)
def test_blocks_of_several_channels_do_not_matter(kind: str) -> None:
    wave = channels(kind, noise(-30.0))
    whole, parts = levels_of([wave], HZ), levels_of(wave.split(7777, dim=1), HZ)
    assert (parts.rms, parts.peak) == (pytest.approx(whole.rms), pytest.approx(whole.peak, rel=1e-4))
    power = sum(10 ** (loudness(channel) / 10) for channel in wave)
    assert parts.loudness == pytest.approx(10 * math.log10(power), abs=0.01)


@pytest.mark.parametrize(("decibels", "gain"), [(-10.0, 12.0), (-70.0, -12.0)])
def test_gains_are_bounded(decibels: float, gain: float) -> None:
    new, around = noise(-40.0), noise(decibels)
    torch.testing.assert_close(leveled(new, around[None], around[None], HZ), new * 10 ** (gain / 20))


def test_no_gain_leads_to_clipping() -> None:
    new = noise(-40.0)
    new[::HZ] = 0.5
    assert levels_of([leveled(new, noise(-30.0)[None], noise(-30.0)[None], HZ)], HZ).peak <= 0.9
