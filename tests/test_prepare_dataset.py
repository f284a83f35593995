"""scripts/prepare_dataset.py: what is kept, what is left out, how it is divided, and that a kill loses nothing."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile
from helpers.paths import REPOSITORY, SCRIPTS
from test_trainers import run

from open_musiclm.audio import read_sound
from open_musiclm.data.prepare.manifest import MANIFEST_NAME
from open_musiclm.data.split import split_folder
from open_musiclm.errors import UserError

HZ = 16000


def tune(number: int, seconds: float) -> np.ndarray:
    """A melody of its own for every number, with some noise."""
    rng = np.random.default_rng(number)
    notes = [np.sin(np.arange(HZ // 4) * 2 * np.pi * hz / HZ) for hz in rng.uniform(300, 1500, round(4 * seconds))]
    return (0.3 * np.concatenate(notes) + rng.normal(0, 0.01, round(4 * seconds) * (HZ // 4))).astype(np.float32)


@pytest.fixture
def music(tmp_path: Path) -> Path:
    """Three albums; a copy of a song as quieter ogg, a text, silence, and a file that is cut short."""
    folder = tmp_path / "music"
    for number, name in enumerate(["a/one.wav", "a/two.flac", "b/three.wav", "c/four.wav"]):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(folder / name, tune(number, 7), HZ)
    soundfile.write(folder / "c" / "copy.ogg", 0.4 * np.concatenate((np.zeros(900), tune(0, 7))), HZ)
    pause = np.concatenate((tune(8, 3), np.zeros(4 * HZ), tune(9, 3)))
    soundfile.write(folder / "b" / "pause.wav", np.stack((pause, 0.5 * pause), axis=1), HZ)
    soundfile.write(folder / "b" / "silent.wav", np.zeros(5 * HZ), HZ)
    (folder / "a" / "broken.flac").write_bytes(b"no sound")
    (folder / "a" / "two.txt").write_text("a slow tune\na calm tune\n")
    return folder


def prepare(music: Path, output: Path, *words: object) -> list[dict]:
    run("prepare_dataset", music, "--results_folder", output, "--workers", 1, "--seconds", 4, *words)
    return lines_of(output)


def lines_of(output: Path) -> list[dict]:
    return [json.loads(line) for line in (output / MANIFEST_NAME).read_text().splitlines()[1:]]


def contents(folder: Path) -> dict[str, bytes]:
    """All files but what a killed process left unfinished, whose names begin with a dot."""
    files = [path for path in folder.rglob("*") if path.is_file() and path.name[0] != "."]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def test_a_tree_of_music_becomes_clips(tmp_path: Path, music: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output, before = tmp_path / "out", contents(music)
    lines = prepare(music, output, "--sample_hz", 24000, "--valid_frac", 0.3, "--loudness", -20)
    results = {line["source"]: line["result"] for line in lines}
    assert results == {
        "a/broken.flac": "unusable",
        "a/one.wav": "written",
        "a/two.flac": "written",
        "b/pause.wav": "written",
        "b/silent.wav": "unusable",
        "b/three.wav": "written",
        "c/copy.ogg": "duplicate",
        "c/four.wav": "written",
    }
    assert "c/copy.ogg: the same sound as a/one.wav" in capsys.readouterr().out
    clips = {line["source"]: line["clips"] for line in lines if "clips" in line}
    assert [clip["seconds"] for clip in clips["a/one.wav"]] == [3.5, 3.5]
    assert [clip["start_seconds"] for clip in clips["b/pause.wav"]] == [0.0, 7.0]
    found = {path.relative_to(output).as_posix() for path in output.rglob("*.flac")}
    assert found == {clip["file"] for several in clips.values() for clip in several}
    sound = read_sound(output / clips["a/one.wav"][0]["file"])
    assert (sound.sample_hz, len(sound.wave)) == (24000, 84000)
    captions = [(output / clip["file"]).with_suffix(".txt").read_text() for clip in clips["a/two.flac"]]
    assert captions == ["a slow tune\na calm tune\n"] * 2
    assert contents(music) == before
    training, validation = split_folder(sorted(output.rglob("*.flac")), output, 0.05, 0)
    albums = [{path.parent.name for path in side} for side in (training, validation)]
    assert not albums[0] & albums[1]
    assert len(albums[1]) == 1


def test_what_cannot_become_clips(tmp_path: Path, music: Path) -> None:
    with pytest.raises(UserError, match=r"--seconds 0\.5: too short for a clip; give at least 2"):
        prepare(music, tmp_path / "short", "--seconds", 0.5)
    assert not (tmp_path / "short").exists()
    silent = tmp_path / "silent"
    soundfile.write(tmp_path / "a.wav", np.zeros(5 * HZ), HZ)
    silent.mkdir()
    (tmp_path / "a.wav").rename(silent / "a.wav")
    with pytest.raises(UserError, match="silent: no file of it can be used"):
        prepare(silent, tmp_path / "none")


def test_a_run_goes_on_after_a_kill(tmp_path: Path, music: Path) -> None:
    """Killed in the middle, with a half written line and a clip without a line, it ends with the same files."""
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    prepare(music, whole)
    command = [sys.executable, SCRIPTS / "prepare_dataset.py", music, "--results_folder", killed]
    process = subprocess.Popen(
        [*command, "--workers", "2", "--seconds", "4"],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        while process.poll() is None and not list(killed.rglob("*.flac")):
            time.sleep(0.05)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    manifest = killed / MANIFEST_NAME
    manifest.write_bytes(manifest.read_bytes() + b'{"source": "c/fo')
    prepare(music, killed)
    assert contents(killed) == contents(whole)
    prepare(music, killed)
    assert contents(killed) == contents(whole)


def test_nothing_is_overwritten(tmp_path: Path, music: Path) -> None:
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / "mine.txt").write_text("mine")
    with pytest.raises(UserError, match=r"not empty, and without a manifest.jsonl"):
        prepare(music, foreign)
    with pytest.raises(UserError, match="is inside the folder of music"):
        prepare(music, music / "out")
    output = tmp_path / "out"
    prepare(music, output)
    with pytest.raises(UserError, match="--sample_hz 48000 there, 24000 here"):
        prepare(music, output, "--sample_hz", 24000)
    lines = (output / MANIFEST_NAME).read_text().splitlines()
    clip = output / json.loads(lines[-1])["clips"][0]["file"]
    (output / MANIFEST_NAME).write_text("\n".join(lines[:-1]) + "\n")
    soundfile.write(clip, np.zeros(HZ), HZ)
    with pytest.raises(UserError, match="already exists with another sound; nothing is overwritten"):
        prepare(music, output)


def test_sources_that_come_later_join_their_side(tmp_path: Path, music: Path) -> None:
    output = tmp_path / "out"
    before = {line["source"]: line for line in prepare(music, output, "--valid_frac", 0.3)}
    soundfile.write(music / "a" / "five.wav", tune(5, 4), HZ)
    (music / "d").mkdir()
    soundfile.write(music / "d" / "six.wav", tune(6, 4), HZ)
    after = {line["source"]: line for line in prepare(music, output, "--valid_frac", 0.3)}
    assert {name: after[name] for name in before} == before
    sides = {name: {clip["file"].split("/")[0] for clip in line.get("clips", ())} for name, line in after.items()}
    assert sides["a/five.wav"] == sides["a/one.wav"]
    assert len(sides["d/six.wav"]) == 1


def test_validation_is_a_share_of_the_files_not_of_the_folders(tmp_path: Path) -> None:
    music = tmp_path / "music"
    for number in range(6):
        place = music / ("small" if number == 0 else "big") / f"{number}.wav"
        place.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(place, tune(number, 3), HZ)
    for seed in range(3):
        lines = prepare(music, tmp_path / f"out{seed}", "--split_by", "folder", "--seed", seed)
        held_out = [line["source"] for line in lines if line["clips"][0]["file"].startswith("valid/")]
        assert held_out == ["small/0.wav"]


def test_spellings_of_an_artist_are_one_group(tmp_path: Path) -> None:
    music, out = tmp_path / "music", tmp_path / "out"
    music.mkdir()

    def write(name: str, artist: str, number: int) -> None:
        with soundfile.SoundFile(music / name, "w", HZ, 1, format="FLAC") as file:
            file.artist = artist
            file.write(tune(number, 3))

    for number, artist in enumerate(["The Band", "the band", "Other"]):
        write(f"{number}.flac", artist, number)
    groups = {line["source"]: line["group"] for line in prepare(music, out, "--split_by", "artist")}
    assert groups == {"0.flac": "The Band", "1.flac": "The Band", "2.flac": "Other"}
    write("3.flac", "THE BAND", 3)
    assert prepare(music, out, "--split_by", "artist")[-1]["group"] == "The Band"


def test_no_clip_is_shorter_than_two_seconds(tmp_path: Path) -> None:
    (tmp_path / "music").mkdir()
    soundfile.write(tmp_path / "music" / "a.wav", tune(1, 3.25), HZ)
    (line,) = prepare(tmp_path / "music", tmp_path / "out", "--seconds", 2)
    assert [clip["seconds"] for clip in line["clips"]] == [2.0]


def test_names_that_collide_or_are_no_unicode(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    music, output = tmp_path / "music", tmp_path / "out"
    music.mkdir()
    for number, name in enumerate(["a.flac", "a.wav", "A_wav.flac", "a_WAV.ogg"]):
        soundfile.write(music / name, tune(number, 4), HZ)
    soundfile.write(music / "copy.wav", tune(9, 2), HZ)
    soundfile.write(music / "of.wav", tune(9, 2), HZ)  # of two seconds, which is the least
    strange = os.fsencode(music) + b"/caf\xe9.wav"
    shutil.copy(music / "a.wav", os.fsdecode(strange))
    for _ in range(2):
        lines = prepare(music, output, "--split_by", "file", "--valid_frac", 0)
        assert r"left out: b'caf\xe9.wav': a file name that is not valid Unicode" in capsys.readouterr().out
        found = {line["source"]: [clip["file"] for clip in line.get("clips", ())] for line in lines}
        stems = {clips[0].removesuffix("_000.flac").casefold() for clips in found.values() if clips}
        assert len(stems) == 5
        assert {line["source"] for line in lines if line["result"] == "duplicate"} == {"of.wav"}
    soundfile.write(music / "A.ogg", tune(7, 4), HZ)
    assert sorted(line["source"] for line in prepare(music, output, "--split_by", "file", "--valid_frac", 0)) == sorted(
        ["A.ogg", *found]
    )


def test_captions_are_one_line_each(tmp_path: Path) -> None:
    music, output = tmp_path / "music", tmp_path / "out"
    music.mkdir()
    soundfile.write(music / "a.wav", tune(1, 4), HZ)
    (music / "captions.jsonl").write_text(json.dumps({"file": "a.wav", "captions": ["slow piano\nwith  strings", "b"]}))
    prepare(music, output)
    assert (output / "train/a_000.txt").read_text() == "slow piano with strings\nb\n"
    (music / "captions.jsonl").write_text(json.dumps({"file": "a.wav", "caption": "long " * 2500}))
    with pytest.raises(UserError, match=r"captions\.jsonl:1: a caption of more than 10000 characters"):
        prepare(music, tmp_path / "other")
