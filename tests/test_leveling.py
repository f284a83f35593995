"""New sound is brought to the loudness of what is around it."""

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
    assert loudness(leveled(new, around, around, HZ)) == pytest.approx(loudness(noise(-36.0, seconds)), abs=0.3)


def test_between_loud_and_quiet_the_gain_goes_from_one_to_the_other() -> None:
    wave = leveled(noise(-30.0, 4.0), noise(-24.0), noise(-36.0), HZ)
    parts = [20 * float(part.square().mean().sqrt().log10()) for part in wave.split(HZ // 2)]
    assert parts[0] == pytest.approx(-24, abs=1)
    assert parts[-1] == pytest.approx(-36, abs=1)
    assert parts == sorted(parts, reverse=True)


@pytest.mark.parametrize("silent", [torch.zeros(0), torch.zeros(HZ), noise(-70.0, 0.1)])
def test_a_side_of_which_nothing_can_be_said_does_not_count(silent: torch.Tensor) -> None:
    new, loud = noise(-30.0), noise(-24.0)
    both = leveled(new, loud, loud, HZ)
    assert torch.equal(leveled(new, loud, silent, HZ), both)
    assert torch.equal(leveled(new, silent, loud, HZ), both)
    assert torch.equal(leveled(new, silent, silent, HZ), new)
    nothing = torch.zeros(HZ)
    assert torch.equal(leveled(nothing, loud, loud, HZ), nothing)


@pytest.mark.parametrize(("decibels", "gain"), [(-10.0, 12.0), (-70.0, -12.0)])
def test_gains_are_bounded(decibels: float, gain: float) -> None:
    new, around = noise(-40.0), noise(decibels)
    torch.testing.assert_close(leveled(new, around, around, HZ), new * 10 ** (gain / 20))


def test_no_gain_leads_to_clipping() -> None:
    new = noise(-40.0)
    new[::HZ] = 0.5
    assert levels_of([leveled(new, noise(-30.0), noise(-30.0), HZ)], HZ).peak <= 0.9
