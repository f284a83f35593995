"""The demo corpus: what its captions say is what sounds; the same seed gives the same; it goes on where it stopped."""

import json
import multiprocessing
import re
import subprocess
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from demo.corpus import rendering
from demo.corpus import soundfont as soundfonts
from demo.corpus.arrangement import Arrangement, register_of
from demo.corpus.captions import IMPRESSIONS_PER_CLIP, REGISTER_WORDS, WORDINGS_PER_CLIP, captions_for
from demo.corpus.corpus import clip_name, make_corpus
from demo.corpus.excerpt import excerpt, felt_beat
from demo.corpus.harmony import Key, chords_for, key_of
from demo.corpus.instruments import INSTRUMENTS, Instrument
from demo.corpus.orchestration import Voice, orchestrate
from demo.corpus.rendering import SAMPLE_HZ, render
from demo.corpus.scores import Note, Score
from demo.new_instrument import STEEL_DRUMS, render_clip
from open_musiclm.audio import read_sound, sound_info
from open_musiclm.data.caption_lines import CAPTIONS_NAME
from open_musiclm.errors import UserError
from open_musiclm.locking import FolderLock

FORK = multiprocessing.get_context("fork")
BY_NAME = {instrument.name: instrument for instrument in INSTRUMENTS}
THREE_CLIPS_HOURS = 45 / 3600


@pytest.fixture(scope="session")
def soundfont() -> Path:
    pytest.importorskip("tinysoundfont", reason="the demo extra is not installed")
    try:
        return soundfonts.find_soundfont()
    except UserError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def corpus(soundfont: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("music21", reason="the demo extra is not installed")
    folder = tmp_path_factory.mktemp("corpus")
    make_corpus(folder, THREE_CLIPS_HOURS, 3, soundfont, workers=1)
    return folder


def lines(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / CAPTIONS_NAME).read_text(encoding="utf-8").splitlines()]


def sounds(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.glob("*.flac")}


def scale(tonic: int, steps: Sequence[int], length: float = 0.5) -> tuple[Note, ...]:
    return tuple(Note(place * length, length, tonic + step) for place, step in enumerate(steps))


def score_of(*parts: tuple[Note, ...]) -> Score:
    return Score("test", parts, beat=1.0, bar=4.0, mode=None)


def test_every_clip_has_its_line_and_every_line_its_clip(corpus: Path) -> None:
    described = lines(corpus)
    assert {line["file"] for line in described} == set(sounds(corpus))
    assert sum(line["seconds"] for line in described) >= THREE_CLIPS_HOURS * 3600
    for line in described:
        info = sound_info(corpus / line["file"])
        assert 12 <= line["seconds"] <= 20
        assert info.frames == round(line["seconds"] * SAMPLE_HZ)
        assert line["captions"][0] == line["caption"]
        families = {BY_NAME[name].family for name in line["instruments"]}
        assert line["instrument_family"] == (families.pop() if len(families) == 1 else "mixed")
        for caption in line["captions"][:WORDINGS_PER_CLIP]:
            for name in line["instruments"]:
                assert any(called in caption for called in BY_NAME[name].names)


def test_clips_are_neither_silent_nor_clipped(corpus: Path) -> None:
    for name in sounds(corpus):
        wave = read_sound(corpus / name).wave
        assert 10 ** (-9.5 / 20) < float(wave.abs().max()) < 10 ** (-1.5 / 20)
        quarters = wave[: len(wave) // 4 * 4].reshape(4, -1)
        assert float(quarters.std(dim=1).min()) > 1e-3


def test_the_same_on_two_processes_and_after_a_kill(corpus: Path, soundfont: Path, tmp_path: Path) -> None:
    first, *_, last = sorted(sounds(corpus))
    (tmp_path / first).write_bytes(sounds(corpus)[first])  # this clip is whole, with its line
    (tmp_path / last).write_bytes(b"fLaC")  # this one's line was not written yet
    text = (corpus / CAPTIONS_NAME).read_text(encoding="utf-8")
    cut_short = text.splitlines()[1][:60]
    (tmp_path / CAPTIONS_NAME).write_text(text.splitlines()[0] + "\n" + cut_short, encoding="utf-8")
    before = (tmp_path / first).stat().st_mtime_ns
    make_corpus(tmp_path, THREE_CLIPS_HOURS, 3, soundfont, workers=2)
    assert sounds(tmp_path) == sounds(corpus)
    assert (tmp_path / CAPTIONS_NAME).read_text(encoding="utf-8") == text
    assert (tmp_path / first).stat().st_mtime_ns == before


def test_captions_of_other_sounds_are_not_lost(soundfont: Path, tmp_path: Path) -> None:
    own = '{"file": "mine.wav", "caption": "my own tune"}\n'
    (tmp_path / "captions.jsonl").write_text(own)
    with pytest.raises(UserError, match="captions of other sounds"):
        make_corpus(tmp_path, 0.01, 0, soundfont, 1)
    assert (tmp_path / "captions.jsonl").read_text() == own


def test_a_corpus_has_one_writer_and_a_seed_one_soundfont(soundfont: Path, tmp_path: Path) -> None:
    (clip,) = make_corpus(tmp_path, 1 / 3600, 4, soundfont, workers=1)
    assert clip.soundfont == soundfont.name
    with pytest.raises(UserError, match=rf"seed 4 played by {re.escape(soundfont.name)}, not by other\.sf2"):
        make_corpus(tmp_path, 1 / 3600, 4, tmp_path / "other.sf2", workers=1)
    with FolderLock(tmp_path):
        other = FORK.Process(target=_refused, args=(tmp_path, soundfont))
        other.start()
        other.join()
        assert other.exitcode == 0


def _refused(folder: Path, soundfont: Path) -> None:
    with pytest.raises(UserError, match="another run is writing there"):
        make_corpus(folder, 1 / 3600, 5, soundfont, workers=1)


def test_captions_of_a_new_instrument_are_of_the_notes_it_plays(
    soundfont: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its notes are moved into its range, so their register is no longer the score's."""
    pytest.importorskip("music21", reason="the demo extra is not installed")
    played: list[tuple[Voice, ...]] = []

    def silence(voices: tuple[Voice, ...], seconds: float, *_: object) -> np.ndarray:
        played.append(voices)
        return np.zeros(round(seconds * SAMPLE_HZ), dtype=np.float32)

    monkeypatch.setattr(rendering, "render", silence)
    for number in range(12):
        words = render_clip(tmp_path, STEEL_DRUMS, number, 3, soundfont).with_suffix(".txt").read_text()
        named = {register for register, own in REGISTER_WORDS.items() if any(word in words for word in own)}
        assert named <= {register_of(played[-1])}


def test_seeds_differ_and_live_side_by_side(corpus: Path, soundfont: Path, tmp_path: Path) -> None:
    clips = make_corpus(tmp_path, 1 / 3600, 4, soundfont, workers=1)
    assert [clip.file for clip in clips] == [clip_name(4, 0)]
    make_corpus(tmp_path, 1 / 3600, 3, soundfont, workers=1)
    assert [line["seed"] for line in lines(tmp_path)] == [3, 4]
    assert sounds(tmp_path)[clip_name(3, 0)] == sounds(corpus)[clip_name(3, 0)]
    assert sounds(tmp_path)[clip_name(4, 0)] != sounds(tmp_path)[clip_name(3, 0)]


def test_a_note_sounds_at_its_pitch_and_its_time(soundfont: Path) -> None:
    voice = Voice(BY_NAME["flute"], (Note(1.0, 1.0, 81),), leads=True)
    wave = render([voice], 3.0, soundfont, np.random.default_rng(0))
    assert np.abs(wave[: round(0.95 * SAMPLE_HZ)]).max() < 1e-3
    sounding = wave[round(1.2 * SAMPLE_HZ) : round(1.9 * SAMPLE_HZ)]
    loudest = int(np.argmax(np.abs(np.fft.rfft(sounding)))) * SAMPLE_HZ / len(sounding)
    octaves = np.log2(loudest / 880)
    assert abs(octaves - round(octaves)) < 0.03


def test_every_instrument_of_a_mix_is_heard(soundfont: Path) -> None:
    notes = scale(60, range(8))
    low = [Voice(BY_NAME["tuba"], scale(36, range(8)), leads=False)]
    high = Voice(BY_NAME["glockenspiel"], scale(84, range(8)), leads=True)
    wave = render([high, *low], len(notes) / 2, soundfont, np.random.default_rng(0))
    power = np.abs(np.fft.rfft(wave)) ** 2
    split_at = 500 * len(wave) // SAMPLE_HZ
    assert 0.02 < power[:split_at].sum() / power.sum() < 0.98


@given(tonic=st.integers(48, 71), minor=st.booleans())
def test_key_of_a_tune_in_a_clear_key(tonic: int, minor: bool) -> None:
    steps = (0, 3 if minor else 4, 7, 5, 3 if minor else 4, 2, 0, 7, 8 if minor else 9, 7, 11, 12, 0)
    assert key_of(scale(tonic, steps)) == Key(tonic % 12, "minor" if minor else "major")


def test_no_key_where_there_is_none() -> None:
    assert key_of(scale(60, range(12))) is None
    assert key_of(scale(60, (0, 0, 7))) is None


@given(tonic=st.integers(48, 71))
def test_chords_fit_their_melody(tonic: int) -> None:
    melody = scale(tonic, (0, 4, 7, 4, 5, 9, 12, 9, 7, 11, 14, 11), length=1.0)
    roots = [chord.root for chord in chords_for(melody, Key(tonic % 12, "major"), span=4.0, until=12.0)]
    assert roots == [tonic % 12, (tonic + 5) % 12, (tonic + 7) % 12]


@given(seed=st.integers(0, 1000), quarters=st.floats(4, 60))
def test_an_excerpt_fills_its_length_and_no_more(seed: int, quarters: float) -> None:
    score = score_of(scale(60, (0, 4, 7, 4, 5, 9, 12, 9) * 4, length=1.0), scale(48, (0, 5) * 8, length=2.0))
    parts = excerpt(score, quarters, np.random.default_rng(seed))
    assert min(note.onset for part in parts for note in part) == 0
    assert quarters - 1 <= max(note.end for part in parts for note in part) <= quarters + 1e-9


@pytest.mark.parametrize(("length", "beat"), [(0.25, 0.5), (0.5, 1.0), (1.0, 1.0), (2.0, 2.0)])
def test_a_felt_beat_holds_one_to_three_notes(length: float, beat: float) -> None:
    assert felt_beat(score_of(scale(60, (0, 2, 4, 5) * 10, length))) == beat


@settings(max_examples=50)
@given(seed=st.integers(0, 10_000), voices=st.integers(1, 4))
def test_instruments_stay_in_their_range_and_differ(seed: int, voices: int) -> None:
    parts = tuple(scale(72 - 8 * part, (0, 4, 7, 12, -14, 25)) for part in range(voices))
    found = orchestrate(parts, Key(0, "major"), 1.0, np.random.default_rng(seed))
    names = [voice.instrument.name for voice in found]
    assert 1 <= len(names) == len(set(names)) <= 4
    for voice in found:
        assert all(voice.instrument.lowest <= note.pitch <= voice.instrument.highest for note in voice.notes)


def test_no_instrument_of_a_family_rarely_has_the_melody() -> None:
    """A model cannot play what it never heard: once a bassoon had the melody in none of 900 clips."""
    rng = np.random.default_rng(0)
    melody = (scale(72, (0, 4, 7, 12, -14, 25)),)
    leads = Counter(orchestrate(melody, Key(0, "major"), 1.0, rng)[0].instrument for _ in range(3000))
    for family in {instrument.family for instrument in INSTRUMENTS} - {"bass"}:
        counts = [leads[instrument] for instrument in INSTRUMENTS if instrument.family == family]
        assert min(counts) >= sum(counts) / len(counts) / 3


@settings(max_examples=50)
@given(
    seed=st.integers(0, 10_000),
    tempo=st.sampled_from(("slow", "medium", "fast")),
    mode=st.sampled_from(("major", "minor")),
    players=st.lists(st.sampled_from(INSTRUMENTS), min_size=1, max_size=4, unique=True),
)
def test_captions_contradict_no_fact(seed: int, tempo: str, mode: str, players: list[Instrument]) -> None:
    voices = tuple(Voice(player, (), leads=place == 0) for place, player in enumerate(players))
    arrangement = Arrangement("test", voices, 100, tempo, mode, "sparse", "high")  # type: ignore[arg-type]
    captions = captions_for(arrangement, np.random.default_rng(seed))
    assert len(set(captions)) == len(captions)
    tempi = {"slow": {"slow", "unhurried"}, "medium": {"mid-tempo", "moderate"}, "fast": {"fast", "quick"}}
    other_tempi = set().union(*(words for name, words in tempi.items() if name != tempo))
    wrong = {*other_tempi, "dense", "low", "minor" if mode == "major" else "major"}
    for caption in captions:
        assert not wrong & set(caption.replace(",", "").split())
    named = [[any(name in caption for name in player.names) for player in players] for caption in captions]
    assert all(all(players) for players in named[:WORDINGS_PER_CLIP])
    assert not any(any(players) for players in named[WORDINGS_PER_CLIP:])
    assert len(captions) == WORDINGS_PER_CLIP + IMPRESSIONS_PER_CLIP


def test_a_missing_soundfont_names_the_remedies(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"none\.sf2.*--soundfont"):
        soundfonts.find_soundfont(tmp_path / "none.sf2")
    monkeypatch.setattr(soundfonts.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(soundfonts, "SYSTEM_FOLDERS", (tmp_path / "nowhere",))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(soundfonts.shutil, "which", lambda name: None)
    with pytest.raises(UserError, match=r"pip install.*apt-get install.*--soundfont"):
        soundfonts.find_soundfont()


def test_debian_package_is_unpacked_into_the_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def apt(command: list, **_: object) -> subprocess.CompletedProcess:
        if command[0] == "apt-get":
            (Path(_["cwd"]) / "font.deb").write_bytes(b"")  # type: ignore[arg-type]
        else:
            (Path(command[-1]) / "font.sf2").write_bytes(b"RIFF")
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(soundfonts.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(soundfonts, "SYSTEM_FOLDERS", ())
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(soundfonts.shutil, "which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setattr(soundfonts.subprocess, "run", apt)
    found = soundfonts.find_soundfont()
    assert found.is_relative_to(tmp_path)
    assert found.read_bytes() == b"RIFF"


def test_a_file_that_is_no_soundfont(tmp_path: Path) -> None:
    pytest.importorskip("tinysoundfont", reason="the demo extra is not installed")
    broken = tmp_path / "broken.sf2"
    broken.write_bytes(b"not a soundfont")
    with pytest.raises(UserError, match=r"broken\.sf2"):
        render([Voice(BY_NAME["flute"], scale(72, (0, 2)), True)], 1.0, broken, np.random.default_rng(0))
