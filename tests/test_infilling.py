"""Infilling: what is outside stays to the last bit, joins do not click, and the candidate that fits best is kept."""

import json
from pathlib import Path
from subprocess import CompletedProcess

import numpy as np
import pytest
import soundfile
import torch
from helpers import forks
from helpers.paths import DEMO, REPOSITORY
from helpers.small_stack import Stack, build_stack
from hypothesis import given
from hypothesis import strategies as st

from open_musiclm import cli
from open_musiclm.audio import Patch, Sound, crossfaded, levels_of, read_sound
from open_musiclm.audio.reading import blocks_of
from open_musiclm.config import GenerationConfig
from open_musiclm.errors import UserError
from open_musiclm.generation.checks import check_segment
from open_musiclm.generation.decoding.flat_generator import FlatGenerator
from open_musiclm.generation.edit_files import edit_files
from open_musiclm.generation.edit_options import Infill
from open_musiclm.generation.infilling import Infilling
from open_musiclm.generation.musiclm import MusicLM
from open_musiclm.generation.planner import plan_gap

ROUGH = GenerationConfig(max_batch_size=4, return_coarse_wave=True)


@pytest.fixture(scope="module")
def model(stack: Stack) -> MusicLM:
    return stack.musiclm()


def song(seconds: float, sample_hz: int = 24000) -> Sound:
    time = torch.arange(round(seconds * sample_hz)) / sample_hz
    return Sound(0.3 * torch.sin(440 * 2 * torch.pi * time) + 0.1 * torch.sin(661 * 2 * torch.pi * time), sample_hz)


def assert_infilled(model: MusicLM, sound: Sound, start: float, end: float, config: GenerationConfig = ROUGH) -> None:
    """Only these seconds differ, and those do."""
    infilled = model.infill(sound, start, end, "slow piano", 2, config)
    first, last = round(start * sound.sample_hz), round(end * sound.sample_hz)
    assert (infilled.patch.first, infilled.patch.end) == (first, last)
    wave = infilled.wave
    assert wave.shape == sound.wave.shape
    assert torch.equal(wave[:first], sound.wave[:first])
    assert torch.equal(wave[last:], sound.wave[last:])
    assert float((wave[first:last] - sound.wave[first:last]).abs().mean()) > 1e-3


@pytest.mark.parametrize("sample_hz", [24000, 22050, 11127])
@pytest.mark.parametrize(("start", "end"), [(1.03, 1.4), (0, 0.4), (2.5, 3.0)])
def test_what_is_outside_stays_to_the_last_bit(model: MusicLM, sample_hz: int, start: float, end: float) -> None:
    assert_infilled(model, song(3.0, sample_hz), start, end)


def test_a_gap_may_be_longer_than_the_window(model: MusicLM) -> None:
    assert_infilled(model, song(4.0), 0.4, 2.7)


def test_a_whole_sound_may_be_made_anew(model: MusicLM) -> None:
    assert_infilled(model, song(0.5), 0, 0.5)


@pytest.mark.parametrize(("layout", "coarse_quantizers"), [("frames", 3), ("frames", 8), ("flat", 8)])
def test_every_layout_infills(tmp_path: Path, layout: str, coarse_quantizers: int) -> None:
    stack = build_stack(tmp_path, layout, coarse_quantizers)
    assert_infilled(stack.musiclm(stack.config.stage_names), song(2.0, 22050), 1.1, 1.4, GenerationConfig())


def test_the_new_seconds_depend_on_seed_prompt_and_sound(model: MusicLM) -> None:
    sound = song(2.0)
    first = model.infill(sound, 1, 1.3, "slow piano", 3, ROUGH)
    assert torch.equal(first.wave, model.infill(sound, 1, 1.3, "slow piano", 3, ROUGH.updated({"seed": 0})).wave)
    own_style = model.infill(sound, 1, 1.3, None, 3, ROUGH)
    others = [model.infill(sound, 1, 1.3, "slow piano", 3, ROUGH.updated({"seed": 1})), own_style]
    assert all(not torch.equal(first.wave, other.wave) for other in others)


def test_its_own_style_is_that_of_the_seconds_around(model: MusicLM) -> None:
    sound = song(4.0)
    other = Sound(sound.wave.clone(), sound.sample_hz)
    other.wave[2 * sound.sample_hz : 3 * sound.sample_hz] = 0.0
    assert torch.equal(model._style_around(sound, 2, 3), model._style_around(other, 2, 3))
    assert model._style_around(sound, 0, 4).shape == model._style_around(sound, 0, 1).shape  # nothing, or no start


@pytest.mark.parametrize("seconds", [0.45, 2.0])
def test_silence_is_infilled_in_its_own_style(model: MusicLM, seconds: float) -> None:
    silent = Sound(torch.zeros(round(seconds * 24000)), 24000)
    assert model.infill(silent, 0.1, 0.3, None, 1, ROUGH).wave.abs().max() > 0


def test_batches_of_candidates_do_not_matter(model: MusicLM) -> None:
    sound = song(2.0)
    together = model.infill(sound, 1, 1.3, "slow piano", 5, ROUGH.updated({"max_batch_size": 5}))
    apart = model.infill(sound, 1, 1.3, "slow piano", 5, ROUGH.updated({"max_batch_size": 2}))
    assert together.log_likelihoods == pytest.approx(apart.log_likelihoods, abs=1e-4)
    assert together.chosen == apart.chosen == int(np.argmax(together.log_likelihoods))
    assert len(set(together.log_likelihoods)) == 5
    torch.testing.assert_close(together.wave, apart.wave, atol=1e-4, rtol=0)


def test_nothing_is_chosen_where_nothing_follows(model: MusicLM) -> None:
    assert model.infill(song(2.0), 1.6, 2.0, None, 4, ROUGH).log_likelihoods == []


def test_nothing_is_chosen_where_only_the_lost_token_follows() -> None:
    """The demo's semantic tokens take as long as the codec's frames, 40 ms, and MERT loses the last one of a sound."""
    model = MusicLM.from_pretrained(DEMO / "bundle", device="cpu")
    assert model.infill(song(2.0), 1.6, 1.96, None, 3, ROUGH).log_likelihoods == []
    assert len(model.infill(song(2.0), 1.6, 1.92, None, 3, ROUGH).log_likelihoods) == 3


def test_the_context_before_the_gap_is_what_the_stage_does_not_advance(stack: Stack, model: MusicLM) -> None:
    """A window has two seconds, ten ticks."""
    half, quarter = (Infilling(stack.config, model.tokenizer, song(8.0), 3.0, 5.0, share).gap for share in (None, 0.25))
    assert (half.start, half.start - half.origin) == (15, 5)
    assert quarter.start - quarter.origin == 8


@torch.no_grad()
def test_candidates_are_scored_by_the_likelihood_of_what_follows(stack: Stack, model: MusicLM) -> None:
    """As the training forward has it, in a window that ends with what follows."""
    infilling = Infilling(stack.config, model.tokenizer, song(4.0), 2.0, 2.6)
    stage, clap = stack.stages(["semantic"])["semantic"], model.clap_tokens(["slow piano"])
    candidates = torch.randint(40, (3, 10 * (infilling.gap.end - infilling.gap.origin), 1))  # a tick is 0.2 s
    session = model.session([], ROUGH, clap_tokens=clap.expand(3, -1, -1))
    found = infilling.log_likelihoods(session, candidates)
    window = infilling.with_following(candidates)[:, 10 * (infilling.first - infilling.gap.origin) :]
    assert window.shape[1] == 99  # two seconds
    logits, _ = stage.training_logits([clap.expand(3, -1, -1), window], [False, True])
    following = window.shape[1] - (infilling.with_following(candidates).shape[1] - candidates.shape[1])
    assert logits[-1] is not None
    scores = logits[-1][:, :-1, :-1].log_softmax(-1).gather(-1, window).squeeze(-1)[:, following:].mean(dim=1)
    torch.testing.assert_close(found, scores, atol=1e-4, rtol=0)


def test_a_likelihood_of_several_quantizers_is_that_of_the_training_forward(stack: Stack) -> None:
    stage = stack.stages(["coarse"])["coarse"]
    ids = [torch.randint(40, (2, 1, 3)), torch.randint(40, (2, 39, 1)), torch.randint(64, (2, 12, 3))]
    with torch.no_grad():
        logits, labels = stage.training_logits(ids, [False, False, True])
    assert logits[-1] is not None
    scores = logits[-1][:, :36, :-1].log_softmax(-1).gather(-1, labels[-1][:, :36, None]).squeeze(-1)
    found = FlatGenerator(stage).log_likelihood(ids[:2], ids[2], known=5)
    torch.testing.assert_close(found, scores[:, 15:].mean(dim=1), atol=1e-4, rtol=0)


@given(st.integers(0, 400), st.integers(1, 400), st.integers(0, 400), st.integers(4, 250), st.data())
def test_gaps_are_planned_within_the_sound_and_the_window(
    start: int, length: int, after: int, window: int, data: st.DataObject
) -> None:
    following, context = data.draw(st.integers(1, window // 2)), window // 2
    gap = plan_gap(start, start + length, start + length + after, window, context, following)
    assert (gap.start, gap.end) == (start, start + length)
    assert gap.known_end - gap.end == min(after, following)
    assert 0 <= gap.origin <= start
    assert gap.start - gap.origin >= min(context, start)
    assert gap.known_end - gap.origin <= window or gap.start - gap.origin <= context


def jump(wave: torch.Tensor, place: int) -> float:
    """The largest step from sample to sample within 2 ms of a place."""
    return float(wave[place - 48 : place + 48].diff().abs().max())


@pytest.mark.parametrize(("start", "end"), [(1.0, 1.3), (1.237, 1.5)])
def test_joins_do_not_click(model: MusicLM, start: float, end: float) -> None:
    sound = song(2.0)
    infilled = model.infill(sound, start, end, None, 1, ROUGH)
    own = float(sound.wave.diff().abs().max())
    new = torch.from_numpy(infilled.patch.wave)
    largest = max(own, float(new.diff().abs().max()))
    places = [infilled.patch.first, infilled.patch.end]
    assert max(jump(infilled.wave, place) for place in places) <= largest
    # and the first and the last new sample are the sound's own
    assert all(torch.equal(infilled.wave[place - 1 : place + 1], sound.wave[place - 1 : place + 1]) for place in places)


def test_a_steady_sound_stays_as_loud_as_it_was(model: MusicLM) -> None:
    """This model's own sound is 9 dB louder."""
    sound = song(4.0)
    quiet = Sound(0.2 * sound.wave, sound.sample_hz)
    infilled = model.infill(quiet, 1.5, 2.5, "slow piano", 1, ROUGH)
    around, new = (levels_of([wave], 24000).loudness for wave in (quiet.wave, torch.from_numpy(infilled.patch.wave)))
    assert new == pytest.approx(around, abs=0.5)


@pytest.mark.parametrize("right", [None, 1.0, "other noise", -0.8])
def test_a_file_stays_as_loud_as_it_was_in_all_its_channels(
    model: MusicLM, tmp_path: Path, right: float | str | None
) -> None:
    """The right channel is another noise, or so many times the left one."""
    noise = 0.03 * np.random.default_rng(0).normal(size=(2, 4 * 24000))
    other = noise[1] if isinstance(right, str) else (right or 0.0) * noise[0]
    wave = noise[0] if right is None else np.stack((noise[0], other), axis=1)
    soundfile.write(tmp_path / "song.wav", wave, 24000, subtype="FLOAT")
    model.generation_config = ROUGH
    (edited,) = edit_files(model, Infill(tmp_path / "song.wav", 1.5, 2.5, 1), ["slow piano"], tmp_path / "out", {})
    made = torch.from_numpy(soundfile.read(edited.path, dtype="float32", always_2d=True)[0].T)
    around, new = (levels_of([part], 24000).loudness for part in (made[:, :36000], made[:, 36500:59500]))
    assert new == pytest.approx(around, abs=0.5)


def test_a_patch_that_is_not_faded_would_click() -> None:
    wave = np.full(480, -0.4)
    block = np.full((2400, 2), 0.3)
    hard, soft = Patch(1000, wave, np.ones(480)), crossfaded(wave, 1000, 2400, 24000)
    assert np.abs(np.diff(hard.onto(block, 0), axis=0)).max() == pytest.approx(0.7)
    assert np.abs(np.diff(soft.onto(block, 0), axis=0)).max() < 0.7 / 100
    in_parts = [soft.onto(part, first) for first, part in zip(range(0, 2400, 300), np.split(block, 8), strict=True)]
    assert np.array_equal(np.concatenate(in_parts), soft.onto(block, 0))


KINDS = {
    "stereo_16.wav": ("PCM_16", 22050, 2),
    "mono_24.flac": ("PCM_24", 44100, 1),
    "float.wav": ("FLOAT", 24000, 2),
    "eight_bits.wav": ("PCM_U8", 16000, 1),
    "compressed.mp3": ("MPEG_LAYER_III", 22050, 2),
}


def write_song(path: Path, subtype: str, sample_hz: int, channels: int) -> Path:
    """Noise at full scale, other noise in each channel."""
    wave = np.random.default_rng(0).uniform(-1, 1, (3 * sample_hz, channels)).clip(-1, 0.999)
    soundfile.write(path, wave, sample_hz, subtype=subtype)
    return path


@pytest.mark.parametrize("name", KINDS)
def test_a_file_keeps_its_channels_and_every_sample_outside(model: MusicLM, tmp_path: Path, name: str) -> None:
    subtype, sample_hz, channels = KINDS[name]
    source = write_song(tmp_path / name, subtype, sample_hz, channels)
    model.generation_config = ROUGH.updated({"loudness": -16.0})
    (edited,) = edit_files(model, Infill(source, 1.0, 1.5, 2), ["slow piano"], tmp_path / "out", {})
    dtype = "float32" if subtype in ("FLOAT", "MPEG_LAYER_III") else "int32"
    before, after = (soundfile.read(path, dtype=dtype, always_2d=True)[0] for path in (source, edited.path))
    if subtype == "MPEG_LAYER_III":  # decoded as everywhere else: after a seek, as here, its last bit is another
        before = np.concatenate(list(blocks_of(source))).astype("float32")
    first, last = sample_hz, round(1.5 * sample_hz)
    assert before.shape == after.shape
    assert np.array_equal(before[:first], after[:first])
    assert np.array_equal(before[last:], after[last:])
    inside = after[first:last]
    middle = inside[len(inside) // 4 : -len(inside) // 4]
    assert (middle == middle[:, :1]).all()  # the same new sound in all channels
    assert not np.array_equal(inside, before[first:last])
    story = json.loads(edited.path.with_suffix(".json").read_text())
    assert story["infilling_of"] == str(source)
    assert story["regenerated_seconds"] == [1.0, 1.5]
    assert (story["sample_hz"], story["settings"]["loudness"], story["gain_db"]) == (sample_hz, None, 0)
    assert story["log_likelihood"] == max(story["log_likelihoods"])


def test_ranges_that_differ_little_are_files_of_their_own(model: MusicLM, tmp_path: Path) -> None:
    source = write_song(tmp_path / "song.wav", "PCM_16", 24000, 1)
    model.generation_config = ROUGH
    for start in (1.0000001, 1.0000002):
        list(edit_files(model, Infill(source, start, 1.5, 1), [], tmp_path / "out", {}))
    assert len(list((tmp_path / "out").glob("*.wav"))) == 2


@pytest.mark.parametrize(("start", "end"), [(7.9, 8.0), (1.1, 1.2), (0.0, 0.1)])
def test_a_tenth_of_a_second_is_long_enough(start: float, end: float) -> None:
    check_segment(song(8.0), start, end)


@pytest.mark.parametrize(("start", "end"), [(1.1, 1.199), (7.95, 8.0)])
def test_less_than_a_tenth_of_a_second_is_too_short(start: float, end: float) -> None:
    with pytest.raises(UserError, match=r"at least 0\.1 s can be regenerated"):
        check_segment(song(8.0), start, end)


def infer(stack: Stack, *words: object) -> CompletedProcess[str]:
    rough = ["--return_coarse_wave", "--device", "cpu"]
    return forks.run([REPOSITORY / "scripts" / "infer.py", *stack.arguments(), *rough, *words])


def test_the_script_regenerates_seconds_for_each_prompt(stack: Stack, tmp_path: Path) -> None:
    source = write_song(tmp_path / "song.wav", "PCM_16", 22050, 1)
    words = ["--input_audio", source, "--regenerate", "2.5-", "--results_folder", tmp_path / "out"]
    done = infer(stack, "slow piano", "a choir", *words)
    assert done.returncode == 0, done.stderr
    names = sorted(path.name for path in (tmp_path / "out").glob("*.wav"))
    assert names == ["song_2.5-3_a_choir_seed0.wav", "song_2.5-3_slow_piano_seed0.wav"]
    waves = [read_sound(tmp_path / "out" / name).wave for name in names]
    assert torch.equal(waves[0][:55125], waves[1][:55125])
    assert not torch.equal(waves[0], waves[1])
    done = infer(stack, *words[:3], "9-12")
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1] == f"error: {source}: seconds 9 to 12: the sound ends after 3.00 s"


@pytest.mark.parametrize(
    "text", ["18-12", "12-12", "12", "-", "-12", "a-b", "nan-3", "1e3-2e3", "12--18", "9" * 400 + "-"]
)
def test_ranges_are_two_times(text: str) -> None:
    parser = cli.parser("")
    cli.add_edit_arguments(parser)
    with pytest.raises(SystemExit, match="2"):
        parser.parse_args([f"--regenerate={text}"])


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["--regenerate", "1-2"], "--input_audio"),
        (["--regenerate", "1-2", "--input_audio", "a.wav", "--duration", "4"], "--duration"),
        (["--regenerate", "1-2", "--input_audio", "a.wav", "--loudness", "-16"], "--loudness"),
        (["--num_candidates", "3"], "--regenerate"),
    ],
)
def test_arguments_that_do_not_go_together_are_refused(words: list[str], named: str) -> None:
    parser = cli.parser("")
    cli.add_edit_arguments(parser)
    cli.add_audio_prompt_argument(parser)
    cli.add_generation_arguments(parser, ("duration", "loudness"))
    with pytest.raises(UserError, match=named):
        cli.edit_from(parser.parse_args(words))
