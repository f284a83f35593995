"""Folders of sound: links, hidden files, kinds that cannot be read, depth; and files that say nothing useful."""

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile
from helpers import forks
from helpers.sound_files import write_tone

from open_musiclm import audio
from open_musiclm.audio import SoundError, find_sounds, find_unreadable_sounds
from open_musiclm.config import DataPreprocessorConfig, TrainerConfig
from open_musiclm.data.check_files import check_folder
from open_musiclm.data.crops import Crop
from open_musiclm.data.prepare.prepare import PrepareOptions, prepare_dataset
from open_musiclm.data.prepare.sources import ClipOptions
from open_musiclm.data.preprocess_sounds import find_usable
from open_musiclm.data.sound_dataset import SoundDataset
from open_musiclm.data.split import split
from open_musiclm.data.statistics import StatisticsCache
from open_musiclm.errors import UserError
from open_musiclm.training.sound_data import sound_data

ROOT = Path(__file__).resolve().parents[1]
HZ = 16000


def _touch(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def test_a_file_counts_once_however_many_links_lead_to_it(tmp_path: Path) -> None:
    folder, outside = tmp_path / "music", tmp_path / "outside"
    _touch(*(folder / "a" / f"{n}.wav" for n in range(10)), outside / "far.wav")
    (folder / "a" / "self").symlink_to(folder / "a")
    (folder / "a" / "parent").symlink_to(folder)
    (folder / "Again").symlink_to(folder / "a")  # before "a" in order
    (folder / "far").symlink_to(outside)
    (folder / "a" / "zz.wav").symlink_to("0.wav")
    (folder / "a" / "loop.wav").symlink_to("loop.wav")
    os.link(folder / "a" / "1.wav", folder / "b.wav")
    found = find_sounds(folder)
    expected = {*(folder / "a" / f"{n}.wav" for n in range(10)), folder / "a" / "loop.wav", folder / "far" / "far.wav"}
    assert set(found) == expected
    train, valid = split(found, 0.3, 0)
    assert not {os.path.realpath(path) for path in train} & {os.path.realpath(path) for path in valid}


def test_hidden_files_are_left_out(tmp_path: Path) -> None:
    """macOS writes ._x.wav beside x.wav on foreign disks."""
    _touch(tmp_path / ".hidden" / "x" / "a.wav", tmp_path / "._a.wav", tmp_path / "a.wav")
    assert find_sounds(tmp_path) == [tmp_path / "a.wav"]
    _touch(tmp_path / ".hidden" / "b.wav")
    assert len(find_sounds(tmp_path / ".hidden")) == 2  # who names it means it


def test_kinds_that_cannot_be_read_are_counted_and_named(tmp_path: Path) -> None:
    _touch(tmp_path / "a.m4a", tmp_path / "b" / "B.AAC", tmp_path / "c.wma", tmp_path / "cover.jpg")
    with pytest.raises(UserError, match=r"3 of a kind that cannot be read, such as .*a\.m4a"):
        find_sounds(tmp_path)
    write_tone(tmp_path / "tone.wav", 1.0)
    assert [path.name for path in find_unreadable_sounds(tmp_path)] == ["a.m4a", "B.AAC", "c.wma"]
    problems = {file.path.name: file.problem for file in check_folder(tmp_path)}
    assert problems.pop("tone.wav") is None
    assert all(name in problem and "convert it" in problem for name, problem in problems.items() if problem)
    assert set(problems) == {"a.m4a", "B.AAC", "c.wma"}


def _prepare(folder: Path) -> None:
    options = PrepareOptions(ClipOptions(HZ, seconds=2.0, loudness=None), "file", valid_frac=0.0, seed=0, workers=1)
    prepare_dataset(folder, folder.parent / "prepared", options)


def _preprocess(folder: Path) -> None:
    settings = DataPreprocessorConfig(folder=str(folder), results_folder=str(folder.parent / "store"))
    find_usable(settings, filter_by_fma=False)


def _train(folder: Path) -> None:
    config = TrainerConfig(folder=str(folder), num_train_steps=1, batch_size=1, num_workers=0, valid_frac=0.0)
    sound_data(config, [Crop("clap", 1.0, HZ, normalized=False)], StatisticsCache())


@pytest.mark.parametrize("use", [_prepare, _preprocess, _train])
def test_one_line_tells_how_many_files_cannot_be_read(
    use: Callable[[Path], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    music = tmp_path / "music"
    write_tone(music / "tone.wav", 3.0)
    use(music)
    assert "cannot be read" not in capfd.readouterr().err
    _touch(music / "a.m4a")
    use(music)
    one = f"{music}: 1 sound file has a format that cannot be read here; convert it; scripts/check_data.py lists it"
    assert one in capfd.readouterr().err.splitlines()
    _touch(music / "b.wma")
    use(music)
    assert capfd.readouterr().err.count("2 sound files have formats that cannot be read here") == 1
    monkeypatch.setenv("RANK", "1")
    use(music)
    assert "cannot be read" not in capfd.readouterr().err


@pytest.fixture
def deep(tmp_path: Path) -> Iterator[Path]:
    """A folder that is removed by a program that can: pytest's own cleaning recurses."""
    yield tmp_path / "deep"
    subprocess.run(["rm", "-rf", str(tmp_path / "deep")], check=True)


def test_a_thousand_folders_in_each_other(deep: Path) -> None:
    deepest = deep
    for _ in range(1000):
        deepest.mkdir()
        deepest = deepest / "d"
    write_tone(deep / "tone.wav", 1.0).rename(deepest.parent / "tone.wav")  # libsndfile takes no such long name
    assert find_sounds(deep) == [deepest.parent / "tone.wav"]
    assert check_folder(deep)[0].problem is None


def test_folders_too_deep_for_the_file_system_are_one_line(deep: Path) -> None:
    before = os.getcwd()
    try:
        deep.mkdir()
        os.chdir(deep)
        for _ in range(30):
            os.mkdir("d" * 200)
            os.chdir("d" * 200)
    finally:
        os.chdir(before)
    with pytest.raises(UserError, match="cannot read this folder: File name too long") as caught:
        find_sounds(deep)
    assert len(str(caught.value)) < 300


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_folder_without_permission(tmp_path: Path) -> None:
    _touch(tmp_path / "a.wav", tmp_path / "mine" / "b.wav")
    (tmp_path / "mine").chmod(0)
    try:
        with pytest.raises(UserError, match="mine: cannot read this folder: Permission denied"):
            find_sounds(tmp_path)
    finally:
        (tmp_path / "mine").chmod(0o700)


@pytest.mark.parametrize("door", [audio.sound_info, audio.read_sound, audio.wave_statistics])
def test_a_name_with_nul_and_what_is_no_file(tmp_path: Path, door) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(UserError, match="no such folder"):
        find_sounds(tmp_path / "a\0b")
    with pytest.raises(SoundError, match=r"a\\x00b\.wav': a file name that no file can have"):
        door(tmp_path / "a\0b.wav")
    os.mkfifo(tmp_path / "fifo.wav")
    with pytest.raises(SoundError, match="not a file"):
        door(tmp_path / "fifo.wav")
    with pytest.raises(SoundError, match="not a file"):
        door(tmp_path)


def _one_sample(path: Path) -> Path:
    soundfile.write(path, np.array([0.5]), HZ)
    return path


def _without_header(path: Path) -> Path:
    path.write_bytes(np.random.default_rng(0).bytes(20_000))
    return path


def _scaled_like_integers(path: Path) -> Path:
    soundfile.write(path, np.random.default_rng(0).normal(0, 5000, 3 * HZ), HZ, subtype="FLOAT")
    return path


def _cancelling(path: Path) -> Path:
    wave = np.random.default_rng(0).normal(0, 0.1, (3 * HZ, 1))
    soundfile.write(path, np.concatenate([wave, -wave], axis=1), HZ, subtype="FLOAT")
    return path


USELESS = {
    "one_sample.wav": (_one_sample, "too short: 1 samples at 16000 Hz"),
    "headerless.au": (_without_header, "has no header"),
    "headerless.wav": (_without_header, "not a sound file"),
    "integers.wav": (_scaled_like_integers, r"a peak of [\d,]+, where 1 is full scale: .*divide them by 32,768"),
    "cancelling.wav": (_cancelling, "channels cancel each other.*use a single channel"),
}


@pytest.mark.parametrize("name", USELESS)
def test_every_door_names_a_useless_file(tmp_path: Path, name: str) -> None:
    write, message = USELESS[name]
    path = write(tmp_path / name)
    with pytest.raises(SoundError, match=message):  # --input_audio, infer_coarse, infer_fine
        audio.read_sound(path)
    assert [file.problem for file in check_folder(tmp_path) if file.problem]
    crops = [Crop("clap", 1.0, HZ, normalized=False)]
    with pytest.raises(UserError, match=message):
        SoundDataset([path], crops, seed=0)[0]
    write_tone(tmp_path / "tone.flac", 1.0)
    paths = find_sounds(tmp_path)
    dataset = SoundDataset(paths, crops, seed=0)
    failures = [failure for index in range(2) for failure in dataset[index].failures]
    assert {failure.path for failure in failures} == {path}


def test_a_file_without_a_header_or_a_known_suffix(tmp_path: Path) -> None:
    with pytest.raises(SoundError, match="not a sound file"):
        audio.read_sound(_without_header(tmp_path / "headerless.raw"))


def test_floats_somewhat_above_full_scale_are_used(tmp_path: Path) -> None:
    path = tmp_path / "loud.wav"
    soundfile.write(path, np.random.default_rng(0).normal(0, 2, HZ), HZ, subtype="FLOAT")
    assert float(audio.read_sound(path).wave.abs().max()) > 5


def test_the_script_names_them_and_succeeds(tmp_path: Path) -> None:
    for name, (write, _) in USELESS.items():
        write(tmp_path / name)
    _touch(tmp_path / "song.m4a")
    write_tone(tmp_path / "tone.wav", 1.0)
    (tmp_path / "loop").symlink_to(tmp_path)
    done = forks.run([ROOT / "scripts" / "check_data.py", tmp_path])
    assert done.returncode == 0, done.stderr
    assert "files     7, of which 1" in done.stdout
    assert all(done.stdout.count(f"/{name}: ") == 1 for name in (*USELESS, "song.m4a"))
