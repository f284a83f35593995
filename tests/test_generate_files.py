"""Generated files: each batch is on the disk before the next is made, whatever ends the run."""

import contextlib
import json
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
import soundfile
import torch
from helpers.small_stack import Stack

from open_musiclm import cli
from open_musiclm.config import GenerationConfig
from open_musiclm.errors import UserError, UserNotice
from open_musiclm.evaluation.clips import find_clips
from open_musiclm.generation.edit_files import edit_files, regenerate_files
from open_musiclm.generation.edit_options import Variation
from open_musiclm.generation.generate_files import generate_files
from open_musiclm.generation.musiclm import MusicLM
from open_musiclm.generation.output import slug
from open_musiclm.generation.session import GenerationSession
from open_musiclm.generation.spool import SpooledWave
from open_musiclm.tokenizers.clap_embedder import spans_of

HZ = 24000
PROMPTS = ["slow piano", "slow_piano", "fast violin", "fast\u2028violin"]
SHORT = GenerationConfig(duration=0.4, num_samples=2, max_batch_size=2, return_coarse_wave=True, seed=3)


@pytest.fixture
def model(stack: Stack) -> MusicLM:
    return with_config(stack, SHORT)


def with_config(stack: Stack, config: GenerationConfig) -> MusicLM:
    made = stack.musiclm(("semantic", "coarse"))
    made.generation_config = config
    return made


def waves(folder: Path) -> list[str]:
    """The waves of a folder, each of which has its JSON; nothing else lies there."""
    found = sorted(path.stem for path in folder.glob("*.wav"))
    assert sorted(path.name for path in folder.iterdir()) == sorted(
        f"{name}.{kind}" for name in found for kind in ("wav", "json")
    )
    return found


class Stopped(BaseException):
    """What ends a run."""


def stop_after(monkeypatch: pytest.MonkeyPatch, sessions: int) -> None:
    """Lets generation end while it makes the batch after so many."""
    stream = GenerationSession.stream
    begun: list[int] = []

    def ending(self: GenerationSession, *arguments: object) -> Iterator[torch.Tensor]:
        begun.append(1)
        yield from stream(self, *arguments)
        if len(begun) > sessions:
            raise Stopped

    monkeypatch.setattr(GenerationSession, "stream", ending)


def test_every_prompt_is_written_before_the_next_is_made(
    model: MusicLM, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop_after(monkeypatch, sessions=3)
    found: list[str] = []
    results = generate_files(model, PROMPTS, str(tmp_path), {})
    with contextlib.suppress(Stopped):
        for written in results:
            found += [sample.path.stem for sample in written]
            assert waves(tmp_path) == sorted(found)
    assert found == [f"{slug(prompt)}_seed3_1" for prompt in PROMPTS[:3]]
    assert len(set(found)) == 3
    assert json.loads((tmp_path / f"{found[1]}.json").read_text())["prompt"] == "slow_piano"


def test_batches_that_cut_through_prompts_give_the_same(model: MusicLM, stack: Stack, tmp_path: Path) -> None:
    for written, other in zip(
        generate_files(model, PROMPTS[:3], tmp_path / "a", {}),
        generate_files(with_config(stack, SHORT.updated({"max_batch_size": 3})), PROMPTS[:3], tmp_path / "b", {}),
        strict=True,
    ):
        assert written[0].candidate.number == other[0].candidate.number
        torch.testing.assert_close(written[0].candidate.wave, other[0].candidate.wave, atol=1e-5, rtol=0)


def test_an_unwritable_folder_is_noticed_before_anything_is_made(
    model: MusicLM, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(GenerationSession, "stream", None)
    for results in (
        generate_files(model, PROMPTS, tmp_path / "file", {}),
        regenerate_files(model, [tmp_path / "a.wav"], "coarse", tmp_path / "file", {}),
    ):
        with pytest.raises(UserError, match="is a file, not a folder"):
            next(results)


def test_files_of_one_stem_are_regenerated_side_by_side(model: MusicLM, tmp_path: Path) -> None:
    sounds = [tmp_path / "a" / "x.wav", tmp_path / "b" / "x.flac"]
    for path in sounds:
        path.parent.mkdir()
        soundfile.write(path, 0.3 * torch.rand(HZ // 2).numpy(), HZ)
    edited = regenerate_files(model, [str(path) for path in sounds], "coarse", str(tmp_path / "made"), {})
    written = [sound.path for sound in edited]
    assert len(set(written)) == 2
    assert waves(tmp_path / "made") == sorted(path.stem for path in written)
    told = [json.loads(path.with_suffix(".json").read_text()) for path in written]
    assert [facts["prompt"] for facts in told] == ["x.wav", "x.flac"]
    assert [facts["settings"]["duration"] for facts in told] == [0.5, 0.5]


def test_long_music_goes_to_the_disk_as_it_is_made(
    stack: Stack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = GenerationConfig(duration=5.3, num_samples=1, max_batch_size=2, return_coarse_wave=True, loudness=-20.0)
    model, prompts = with_config(stack, config), PROMPTS[:3]
    usual = list(generate_files(model, prompts, tmp_path / "usual", {}))
    monkeypatch.setattr("open_musiclm.generation.generate_files.STREAMED_SECONDS", 5.0)
    monkeypatch.setattr("open_musiclm.tokenizers.clap_embedder._WINDOWS_IN_MEMORY", 1)
    monkeypatch.setattr("open_musiclm.tokenizers.clap_embedder._FEWEST_WINDOWS", 1)
    longest: list[int] = []
    append = SpooledWave.append
    monkeypatch.setattr(SpooledWave, "append", lambda spool, wave: longest.append(wave.shape[0]) or append(spool, wave))
    streamed = list(generate_files(model, prompts, tmp_path / "streamed", {}))
    assert max(longest) < 1.3 * HZ
    assert waves(tmp_path / "streamed") == waves(tmp_path / "usual")
    for (one,), (other,) in zip(usual, streamed, strict=True):
        assert one.path.name == other.path.name
        assert one.path.read_bytes() == other.path.read_bytes()
        assert one.candidate.score == pytest.approx(other.candidate.score, abs=2e-3)


@pytest.mark.parametrize(("num_samples", "streamed_seconds"), [(2, 60.0), (1, 0.1)])
def test_a_continuation_names_the_sound_that_it_begins_with(
    model: MusicLM, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, num_samples: int, streamed_seconds: float
) -> None:
    monkeypatch.setattr("open_musiclm.generation.generate_files.STREAMED_SECONDS", streamed_seconds)
    model.generation_config = SHORT.updated({"num_samples": num_samples, "num_top_matches": 1})
    given = tmp_path / "my song.wav"
    soundfile.write(given, 0.3 * torch.rand(HZ // 2).numpy(), HZ)
    out = tmp_path / "out"
    ((alone,),) = generate_files(model, ["slow piano"], out, {})
    ((continued,),) = generate_files(model, ["slow piano"], out, {}, str(given))
    assert waves(out) == ["my_song_continuation_slow_piano_seed3_1", "slow_piano_seed3_1"]
    told, other = (json.loads(own.path.with_suffix(".json").read_text()) for own in (continued, alone))
    assert (told["continuation_of"], told["given_seconds"], told["seconds"]) == (str(given), 0.5, 0.9)
    assert other.keys().isdisjoint(("continuation_of", "given_seconds"))
    assert {clip.path: clip.prompt for clip in find_clips(out)} == {continued.path: None, alone.path: "slow piano"}


def test_long_music_that_is_interrupted_leaves_nothing_half_done(
    stack: Stack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = GenerationConfig(duration=1.3, num_samples=1, max_batch_size=1, return_coarse_wave=True)
    monkeypatch.setattr("open_musiclm.generation.generate_files.STREAMED_SECONDS", 1.0)
    stop_after(monkeypatch, sessions=1)
    with pytest.raises(Stopped):
        list(generate_files(with_config(stack, config), PROMPTS, tmp_path, {}))
    assert waves(tmp_path) == ["slow_piano_seed0_1"]


def test_more_than_memory_should_hold_is_refused_with_the_limit(stack: Stack, tmp_path: Path) -> None:
    config = GenerationConfig(duration=3600.0, num_samples=4)
    with pytest.raises(UserError, match=r"duration 3600: 4 samples are 4\.0 hours .* at most 3 hours .* num_samples 1"):
        next(generate_files(with_config(stack, config), ["a"], tmp_path / "new", {}))
    assert not (tmp_path / "new").exists()


def test_the_given_sound_counts_as_what_memory_holds(
    model: MusicLM, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("open_musiclm.generation.generate_files.MOST_HELD_SECONDS", 3.0)
    given = tmp_path / "given.wav"
    soundfile.write(given, 0.3 * torch.rand(2 * HZ).numpy(), HZ)
    with pytest.raises(UserError, match=r"^duration 0\.4 after 2 s of given sound: 2 samples are .* num_samples 1"):
        next(generate_files(model, ["a"], tmp_path / "new", {}, given))
    with pytest.raises(UserError, match=r"given\.wav: 2 samples are .* lower max_batch_size, or vary a shorter sound"):
        next(edit_files(model, Variation(given, "coarse", 3), [], tmp_path / "new", {}))
    assert not (tmp_path / "new").exists()
    assert list(edit_files(model, Variation(given, "coarse", 1), [], tmp_path / "new", {}))


@pytest.mark.parametrize("samples", range(1, 60))
def test_spans_cover_a_wave_in_whole_windows(samples: int) -> None:
    spans = spans_of(samples, 12, 4)
    assert [position for start, end in spans for position in range(start, end)] == list(range(samples))
    assert all(end - start == 12 for start, end in spans[:-1])
    start, end = spans[-1]
    assert len(spans) == 1 or 4 <= end - start < 16


def test_a_prompt_that_clap_does_not_read_to_its_end_is_told_once(model: MusicLM) -> None:
    long = " ".join(["slow piano"] * 100)
    with pytest.warns(UserNotice, match=r"prompt 'slow piano .*the last \d+ are dropped") as told:
        model.embed_text([long, "short", long])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.embed_text([long])
    assert len(told) == 1
    assert model.tokenizer.clap.dropped_tokens(["short"]) == [0]


def test_what_is_there_is_told_when_a_run_ends_early(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def results() -> Iterator[int]:
        yield from (1, 2)
        raise UserError("the disk is full")

    with pytest.raises(UserError):
        cli.print_each(results(), 5, tmp_path, lambda number: [f"result {number}"])
    told = capsys.readouterr()
    assert told.out == "result 1\nresult 2\n"
    assert told.err == f"not finished: 2 of 5 are written, in {tmp_path}\n"


def test_of_what_is_refused_at_once_nothing_else_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def results() -> Iterator[int]:
        raise UserError("no such file")
        yield

    with pytest.raises(UserError):
        cli.print_each(results(), 5, tmp_path, lambda number: [f"result {number}"])
    assert capsys.readouterr().err == ""
