"""Exchanged tokens come from the same codebook, and from no farther away than asked."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from demo.token_corruption import corrupted


@given(st.integers(1, 40), st.integers(1, 4), st.floats(0, 1), st.integers(0, 50), st.integers(0, 2**31))
def test_tokens_stay_in_their_codebook_and_within_reach(time, quantizers, share, reach, seed):
    generator = torch.Generator().manual_seed(seed)
    codes = torch.arange(time * quantizers).view(time, quantizers)  # each tells its step and its codebook
    found = corrupted(codes, share, reach, generator)
    assert torch.equal(found % quantizers, codes % quantizers)
    assert ((found - codes).abs() <= reach * quantizers).all()


def test_tokens_come_from_all_steps_alike():
    codes = torch.arange(100)[:, None].repeat(1, 300)
    found = corrupted(codes, 1.0, 100, torch.Generator().manual_seed(0))
    share = found.flatten().bincount(minlength=100) / found.numel()
    assert share.min() > 0.005
    assert share.max() < 0.015  # the first and the last step too


def test_the_given_share_is_corrupted():
    codes = torch.arange(3000).view(1000, 3)
    found = corrupted(codes, 0.3, 1000, torch.Generator().manual_seed(0))
    assert 0.27 < (found != codes).float().mean() < 0.33
    assert torch.equal(corrupted(codes, 0.0, 1000, torch.Generator().manual_seed(0)), codes)
