"""Names and files of generated music."""

import json
import resource
import warnings
from dataclasses import replace
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest
import soundfile
import torch
from hypothesis import given
from hypothesis import strategies as st

import open_musiclm
from open_musiclm import versions
from open_musiclm.audio import levels_of, write_wave
from open_musiclm.config import GenerationConfig
from open_musiclm.errors import UserError, UserNotice
from open_musiclm.generation.output import MAX_SLUG_BYTES, Provenance, slug, slugs_of_files, write_generated

CONFIG = GenerationConfig(seed=3, top_k=128, cfg_scale=[4.0, 2.5, 1.0])
PROVENANCE = Provenance("a tune", 1, {"similarity": 0.25}, CONFIG, {"semantic_path": "x"})
TONE = 0.1 * torch.sin(torch.arange(24000) * 0.3)


@given(st.text(min_size=1))
def test_any_prompt_makes_a_file_name(text: str) -> None:
    name = slug(text)
    assert name
    assert not set(name) & set('/\\:*?"<>|.\0\n ')
    assert len(name.encode()) <= MAX_SLUG_BYTES + 9


@given(st.text(min_size=1, max_size=200), st.text(min_size=1, max_size=200))
def test_different_prompts_get_different_names(left: str, right: str) -> None:
    if left != right:
        assert slug(left) != slug(right)


@pytest.mark.parametrize("other", ["slow_piano", "Slow piano", " slow piano", "slow  piano", "slow-piano"])
def test_names_of_prompts_that_look_alike_differ(other: str) -> None:
    assert slug("slow piano") == "slow_piano"
    assert slug(other) != "slow_piano"


def test_accents_written_in_two_ways_differ() -> None:
    assert slug("caf\u00e9") != slug("cafe\u0301")


def test_files_of_one_stem_get_names_of_their_own() -> None:
    paths = [Path("a/x.wav"), Path("b/x.flac"), Path("my_tune.wav"), Path("a/x.wav"), Path("\udcff.wav")]
    names = slugs_of_files(paths)
    assert names[2] == "my_tune"
    assert names[0] == names[3]
    assert len(set(names)) == 4
    assert slugs_of_files([Path("a/x.wav")]) == ["x"]


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


def test_a_wave_never_lies_without_its_json(tmp_path: Path) -> None:
    (tmp_path / "tune.json").mkdir()  # so that it cannot be written
    with pytest.raises(UserError, match=r"tune\.json: cannot write"):
        write_generated(tmp_path, "tune", TONE, 24000, PROVENANCE)
    assert [path.name for path in tmp_path.iterdir()] == ["tune.json"]


def test_the_json_holds_paths_that_are_not_utf8(tmp_path: Path) -> None:
    provenance = replace(PROVENANCE, prompt="\udcff.wav")
    path = write_generated(tmp_path, "tune", TONE, 24000, provenance)
    assert json.loads(path.with_suffix(".json").read_bytes())["prompt"] == "\udcff.wav"


def test_the_versions_are_told_where_the_package_is_not_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(name: str) -> str:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(versions, "version", missing)
    path = write_generated(tmp_path, "tune", TONE, 24000, PROVENANCE)
    told = json.loads(path.with_suffix(".json").read_text())["versions"]
    assert (told["open_musiclm"], told["torch"]) == (open_musiclm.__version__, "unknown")


@pytest.mark.parametrize("scale", [1.0, 0.01])
def test_the_wave_has_the_loudness_that_is_asked_for(tmp_path: Path, scale: float) -> None:
    asked = replace(PROVENANCE, config=CONFIG.updated({"loudness": -20.0}))
    path = write_generated(tmp_path, "tune", scale * TONE, 24000, asked)
    written, _ = soundfile.read(path, dtype="float32")
    assert levels_of([torch.from_numpy(written)], 24000).loudness == pytest.approx(-20, abs=0.1)
    story = json.loads(path.with_suffix(".json").read_text())
    gain = 10 ** (story["gain_db"] / 20)
    assert story["rms"] * gain == pytest.approx(float(torch.from_numpy(written).square().mean().sqrt()), rel=0.01)


def test_a_nearly_silent_wave_is_told(tmp_path: Path) -> None:
    with pytest.warns(UserNotice, match=r"quiet\.wav is nearly silent: RMS 0\.0007"):
        write_generated(tmp_path, "quiet", 0.01 * TONE, 24000, PROVENANCE)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        write_generated(tmp_path, "loud", TONE, 24000, PROVENANCE)


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
