"""Variations of a sound: as long as it is, different from each other, and the same whatever the batch."""

import argparse
import json
from pathlib import Path

import pytest
import soundfile
import torch
from helpers import forks
from helpers.paths import REPOSITORY
from helpers.small_stack import Stack

from open_musiclm import cli
from open_musiclm.audio import Sound
from open_musiclm.cli.prompts import add_prompt_arguments
from open_musiclm.config import GenerationConfig
from open_musiclm.errors import UserError
from open_musiclm.generation.edit_options import Variation
from open_musiclm.generation.musiclm import MusicLM
from open_musiclm.generation.session import Request

ROUGH = GenerationConfig(max_batch_size=4, return_coarse_wave=True)
NOISE = Sound(0.3 * torch.rand(19845, generator=torch.Generator().manual_seed(0)) - 0.15, 22050)


@pytest.fixture(scope="module")
def model(stack: Stack) -> MusicLM:
    return stack.musiclm()


@pytest.mark.parametrize("first_stage", ["semantic", "coarse", "fine"])
def test_variations_differ_and_do_not_depend_on_the_batch(model: MusicLM, first_stage: str) -> None:
    together = list(model.vary(NOISE, first_stage, 3, config=ROUGH))
    apart = list(model.vary(NOISE, first_stage, 3, config=ROUGH.updated({"max_batch_size": 1})))
    assert [wave.shape for wave in together] == [(round(0.9 * 24000),)] * 3
    for one, other in zip(together, apart, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=0)
    assert not torch.equal(together[0], together[1])
    assert not torch.equal(together[1], together[2])
    (other_seed,) = model.vary(NOISE, first_stage, config=ROUGH.updated({"seed": 1}))
    assert not torch.equal(other_seed, together[0])


def test_the_decoder_gets_the_coarse_tokens_that_the_fine_stage_got(
    model: MusicLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A codec's first tokens of a crop depend on where it begins, so every moment of the sound is encoded once."""
    codec, encoded, decoded = model.tokenizer.codec, [], []
    encode, decode = codec.encode, codec.decode
    monkeypatch.setattr(codec, "encode", lambda wave: encoded.append(encode(wave)) or encoded[-1])
    monkeypatch.setattr(codec, "decode", lambda tokens: decoded.append(tokens) or decode(tokens))
    window = model.config.window_seconds("fine")
    sound = Sound(NOISE.wave.repeat(5)[: round(2.5 * window * NOISE.sample_hz)], NOISE.sample_hz)
    list(model.vary(sound, "fine", config=GenerationConfig()))
    known, coarse = torch.cat(encoded, dim=1), model.config.global_cfg.num_coarse_quantizers
    assert len(encoded) == 3
    assert len(known[0, :, 0].unique()) > 3
    assert len(decoded) > 1
    for tokens in decoded:
        own = tokens[0, :, :coarse]
        places = known[0, :, :coarse].unfold(0, len(own), 1).transpose(1, 2)
        assert (places == own).all(dim=2).all(dim=1).any()


def test_from_the_semantic_stage_on_the_style_is_all_that_is_left(model: MusicLM) -> None:
    """As new music with the CLAP tokens of the sound."""
    (varied,) = model.vary(NOISE, "semantic", name="a", config=ROUGH)
    tokens = model.tokenizer.quantizer.encode(model.embed_sound(NOISE)[None]).unsqueeze(1)
    session = model.session([Request("a", 0)], ROUGH.updated({"duration": NOISE.seconds}), clap_tokens=tokens)
    assert torch.equal(varied, session.waves()[0])


def test_the_script_says_what_it_varied(stack: Stack, tmp_path: Path) -> None:
    source, out = tmp_path / "my song.wav", tmp_path / "out"
    soundfile.write(source, torch.stack((NOISE.wave, 0.5 * NOISE.wave), dim=1).numpy(), 22050)
    words = [*stack.arguments()[2:], "--return_coarse_wave", "--device", "cpu"]  # without the semantic stage
    words += ["--results_folder", out]
    words += ["--variation_of", source, "--first_stage", "coarse", "--num_variations", "2"]
    done = forks.run([REPOSITORY / "scripts" / "infer.py", *words])
    assert done.returncode == 0, done.stderr
    paths = sorted(out.glob("*.wav"))
    assert [path.name for path in paths] == [f"my_song_coarse_variation_seed0_{number}.wav" for number in (1, 2)]
    stories = [json.loads(path.with_suffix(".json").read_text()) for path in paths]
    assert [story["sample"] for story in stories] == [0, 1]
    assert {(story["variation_of"], story["first_stage"], story["seconds"]) for story in stories} == {
        (str(source), "coarse", 0.9)
    }
    assert all(f"similarity {story['similarity']:.3f}" in done.stdout for story in stories)


def parsed(*words: str) -> argparse.Namespace:
    parser = cli.parser("")
    parser.add_argument("prompts", nargs="*")
    parser.add_argument("--prompts_file", type=Path)
    add_prompt_arguments(parser)
    cli.add_edit_arguments(parser)
    cli.add_audio_prompt_argument(parser)
    cli.add_generation_arguments(parser, (*cli.LENGTH_FIELDS, *cli.SAMPLING_FIELDS, *cli.OUTPUT_FIELDS))
    return parser.parse_args(words)


def test_a_variation_starts_with_the_semantic_stage_unless_told_otherwise() -> None:
    assert cli.edit_from(parsed("--variation_of", "a.wav")) == Variation(Path("a.wav"), "semantic", 1)


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["--first_stage", "fine"], "--first_stage: needs --variation_of"),
        (["--num_variations", "2"], "--num_variations: needs --variation_of"),
        (["a tune", "--variation_of", "a.wav"], "a prompt: cannot be combined with --variation_of"),
        (["--variation_of", "a.wav", "--input_audio", "b.wav"], "--input_audio: cannot"),
        (["--variation_of", "a.wav", "--regenerate", "1-2"], "--regenerate: cannot"),
        (["--variation_of", "a.wav", "--duration", "2"], "--duration: cannot"),
        (["--variation_of", "a.wav", "--style_audio", "b.wav"], "--style_audio: cannot"),
        (["--variation_of", "a.wav", "--mix"], "--mix: cannot"),
    ],
)
def test_arguments_that_leave_nothing_to_vary_are_refused(words: list[str], named: str) -> None:
    with pytest.raises(UserError, match=f"^{named}"):
        cli.edit_from(parsed(*words))


@pytest.mark.parametrize(
    ("first_stage", "flags"),
    [
        ("coarse", ["--semantic_temperature", "0"]),
        ("coarse", ["--semantic_advance", "0.3"]),
        ("fine", ["--semantic_temperature", "0.1"]),
        ("fine", ["--coarse_temperature", "0.1"]),
        ("fine", ["--return_coarse_wave"]),
    ],
)
def test_flags_of_stages_that_do_not_run_are_refused(first_stage: str, flags: list[str]) -> None:
    words = ["--variation_of", "a.wav", "--first_stage", first_stage, *flags]
    with pytest.raises(UserError, match=f"^{flags[0]}: cannot be combined with --first_stage {first_stage}: .* run"):
        cli.edit_from(parsed(*words))


def test_flags_of_stages_that_run_are_accepted() -> None:
    flags = ("--semantic_temperature", "0.1", "--semantic_advance", "0.3", "--coarse_temperature", "0.1")
    assert cli.edit_from(parsed("--variation_of", "a.wav", *flags, "--return_coarse_wave"))
    words = ("--first_stage", "coarse", "--coarse_temperature", "0", "--return_coarse_wave")
    assert cli.edit_from(parsed("--variation_of", "a.wav", *words))
