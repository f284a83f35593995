"""Names and files of generated music."""

import json
import resource
from pathlib import Path

import pytest
import soundfile
import torch
from hypothesis import given
from hypothesis import strategies as st

from open_musiclm.audio import write_wave
from open_musiclm.config import GenerationConfig
from open_musiclm.errors import UserError
from open_musiclm.generation.output import MAX_SLUG_BYTES, Provenance, slug, write_generated

CONFIG = GenerationConfig(seed=3, top_k=128, cfg_scale=[4.0, 2.5, 1.0])
PROVENANCE = Provenance("a tune", 1, {"similarity": 0.25}, CONFIG, {"semantic_path": "x"})


@given(st.text(min_size=1))
def test_any_prompt_makes_a_file_name(text: str) -> None:
    name = slug(text)
    assert name
    assert not set(name) & set('/\\:*?"<>|.\0\n ')
    assert len(name.encode()) <= MAX_SLUG_BYTES + 9


@given(st.text(min_size=1, max_size=200), st.text(min_size=1, max_size=200))
def test_different_prompts_get_different_names(left: str, right: str) -> None:
    if left.strip() != right.strip() and left.replace(" ", "_") != right.replace(" ", "_"):
        assert slug(left) != slug(right)


def test_plain_prompts_stay_readable() -> None:
    assert slug("fast violin tune") == "fast_violin_tune"
    assert slug('a/b: "c"').startswith("a_b_c_")
    assert slug("느린 피아노 " * 60).startswith("느린_피아노")


def test_a_wave_comes_with_its_story(tmp_path: Path) -> None:
    path = write_generated(tmp_path / "new", "tune", torch.linspace(-0.5, 0.5, 2400), 24000, PROVENANCE)
    assert soundfile.info(path).frames == 2400
    story = json.loads(path.with_suffix(".json").read_text())
    assert story["prompt"] == "a tune"
    assert story["seconds"] == pytest.approx(0.1)
    assert (story["similarity"], story["seed"], story["sample"]) == (0.25, 3, 1)
    assert GenerationConfig.model_validate({**story["settings"], "seed": 3}) == CONFIG
    assert {"torch", "open_musiclm", "python"} <= story["versions"].keys()


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")
    with pytest.raises(UserError, match="file"):
        write_generated(blocked, "tune", torch.zeros(10), 24000, PROVENANCE)


@pytest.mark.parametrize("suffix", [".wav", ".flac"])
@pytest.mark.parametrize("limit", [0, 1000, 5000])
def test_a_wave_that_does_not_fit_says_why(tmp_path: Path, suffix: str, limit: int) -> None:
    """As on a full disk: the system's own words, and nothing is left."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    try:
        with pytest.raises(UserError) as caught:
            write_wave(tmp_path / f"tune{suffix}", torch.rand(24000), 24000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert str(caught.value) == f"{tmp_path}/tune{suffix}: cannot write: File too large"
    assert list(tmp_path.iterdir()) == []
