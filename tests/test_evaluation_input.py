"""What an evaluation is given: bad input is one clear line; captions, prompts and clips are found."""

import importlib.util
import json
import tempfile
import warnings
from pathlib import Path

import pytest
import torch
from helpers.evaluating import clap_measure, needs_extra, run, write_noises
from helpers.small_stack import Stack

from open_musiclm.errors import UserError, UserNotice
from open_musiclm.evaluation.cache import MeasureCache
from open_musiclm.evaluation.clips import find_clips, read_prompts
from open_musiclm.evaluation.distances import Resampling
from open_musiclm.evaluation.measured_set import measure_set
from open_musiclm.evaluation.options import EvaluationOptions
from open_musiclm.evaluation.sound_measures import LevelMeasure
from open_musiclm.evaluation.vectors import VectorFile


@needs_extra
@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["{empty}", "--reference", "{sounds}"], r"empty: no sound file in this folder"),
        (["{sounds}", "--reference", "{empty}"], r"empty: no sound file in this folder"),
        (["{sounds}", "--reference", "{missing}"], r"missing: no such folder of sound"),
        (["{sounds}", "--reference", "a\0b"], r"a\\0b: no such folder of sound"),
        (["{sounds}", "--reference", "{loop}"], r"loop: no such folder of sound"),
        (["--reference", "{sounds}"], r"nothing to evaluate: name a folder of sound, or give --prompts"),
        (["{sounds}", "--reference", "{sounds}"], r"no model to embed with: give --checkpoint_dir"),
        (["{sounds}", "--reference", "{sounds}", "--seed", "-1"], r"--seed -1: expected 0 to 4294967295"),
        (["{sounds}", "--reference", "{sounds}", "--seed", "4294967296"], r"--seed 4294967296: expected 0 to"),
        (["{sounds}", "--reference", "{sounds}", "--num_prompts", "5"], r"--num_prompts: needs --prompts"),
        (["{sounds}", "--reference", "{sounds}", "--metrics", "kl"], r"PaSST is not installed; pip install"),
        (["--reference", "{sounds}", "--prompts", "{empty}/none.txt"], r"none\.txt: cannot read: No such file"),
        (
            ["{broken}", "--reference", "{sounds}", "--metrics", "levels"],
            r"none of its 1 sounds can be read; the first",
        ),
    ],
)
def test_bad_input_is_one_clear_line(
    words: list[str], message: str, tmp_path: Path, sounds: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    places = {"empty": tmp_path / "empty", "missing": tmp_path / "missing", "broken": tmp_path / "broken"}
    places["empty"].mkdir()
    places["loop"] = tmp_path / "loop"
    places["loop"].symlink_to("loop")
    places["broken"].mkdir()
    (places["broken"] / "a.wav").write_bytes(b"no sound")
    find_spec = importlib.util.find_spec

    def without_passt(name: str, package: str | None = None) -> object:
        return None if name == "hear21passt" else find_spec(name, package)

    monkeypatch.setattr(importlib.util, "find_spec", without_passt)
    filled = [word.format(sounds=sounds, **places) for word in words]
    with pytest.raises(UserError, match=message) as raised:
        run(*filled, "--cache_folder", tmp_path / "cache", "--results_folder", tmp_path / "results")
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("name", "value"),
    [("seconds", "1e-9"), ("seconds", "1e308"), ("seconds", "nan"), ("bootstrap", "1"), ("bootstrap", "1000000000"),
     ("max_clips", "0"), ("num_prompts", "9" * 5000)],
)  # fmt: skip
def test_numbers_without_sense(name: str, value: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        run("clips", "--reference", "others", f"--{name}", value)
    assert f"error: argument --{name}: " in capsys.readouterr().err
    if name == "seconds":
        with pytest.raises(UserError, match=r"seconds: expected 0\.1 to 86400, found"):
            EvaluationOptions([], Path(), [], Path(), Path(), Resampling(0, 2), seconds=float(value))


def test_embeddings_that_are_not_finite_are_refused(tmp_path: Path, stack: Stack) -> None:
    folder = write_noises(tmp_path / "sounds", 1, 1.0, seed=7)
    measure = clap_measure(stack)
    torch.nn.init.constant_(measure.clap.model.audio_projection.linear2.weight, float("nan"))
    with pytest.raises(UserError, match=r"0\.wav: what small makes of it is not finite; are the weights damaged"):
        measure_set(folder, find_clips(folder), {"clap": measure}, MeasureCache(tmp_path / "cache"))
    assert not list((tmp_path / "cache").rglob("*.safetensors"))


def test_captions_and_prompts_that_are_none(tmp_path: Path) -> None:
    folder = write_noises(tmp_path / "sounds", 1, 1.0, seed=8)
    captions = folder / "captions.jsonl"
    for line, message in (
        ('{"file": "0.wav"}', r"captions\.jsonl:1: lacks \"caption\""),
        ('["0.wav"]', r'captions\.jsonl:1: expected \{"file"'),
        ('{"file": "0.wav", "caption": "a", "bpm": -3}', r"bpm: expected a number above 0"),
        ("{", r"captions\.jsonl:1: not valid JSON"),
    ):
        captions.write_text(line)
        with pytest.raises(UserError, match=message):
            find_clips(folder)
    captions.write_text('{"file": "0.wav", "caption": "one"}\n{"file": "1.wav", "caption": "two"}\n')
    assert read_prompts(captions, 1) == ["one"]
    (tmp_path / "prompts.txt").write_text("\n a tune \n\nanother\na tune\n")
    assert read_prompts(tmp_path / "prompts.txt") == ["a tune", "another"]
    (tmp_path / "prompts.txt").write_text("\n")
    with pytest.raises(UserError, match="holds no prompt"):
        read_prompts(tmp_path / "prompts.txt")


def test_captions_name_files_in_any_way(tmp_path: Path) -> None:
    folder = write_noises(tmp_path / "sounds", 2, 0.2, seed=8)
    lines = [
        {"file": "./0.wav", "caption": "one"},
        {"file": "x" * 4000, "caption": "two"},
        {"file": "2.wav", "caption": "3"},
    ]
    (folder / "captions.jsonl").write_text("\n".join(map(json.dumps, lines)))
    with pytest.warns(UserNotice, match="2 of 3 captions name files that are not there"):
        clips = find_clips(folder)
    assert [clip.prompt for clip in clips] == ["one", None]


def test_captions_are_read_as_training_reads_them(tmp_path: Path) -> None:
    folder = write_noises(tmp_path / "sounds", 2, 0.2, seed=8)
    write_noises(folder / "below", 1, 0.2, seed=9)
    (folder / "captions.jsonl").write_text(json.dumps({"file": "0.wav", "captions": ["one", "other"], "bpm": 90}))
    (folder / "below" / "captions.jsonl").write_text(json.dumps({"file": "0.wav", "captions": "three"}))
    (folder / "1.txt").write_text("two\nother\n")
    clips = {str(clip.path.relative_to(folder)): (clip.prompt, clip.bpm) for clip in find_clips(folder)}
    assert clips == {"0.wav": ("one", 90.0), "1.wav": ("two", None), "below/0.wav": ("three", None)}


@pytest.mark.parametrize("words", [["--duration", 4], ["--semantic_path", "a"], ["--adapter_path", "a"]])
def test_what_is_for_generated_sound_needs_prompts(words: list, sounds: Path, tmp_path: Path) -> None:
    reference = write_noises(tmp_path / "reference", 1, 0.2, seed=3)
    with pytest.raises(UserError, match=f"{words[0]}: is for what --prompts generates"):
        run(sounds, "--reference", reference, "--metrics", "levels", *words)


def test_a_full_disk_for_temporary_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "TemporaryFile", lambda: open("/dev/full", "r+b", buffering=0))  # noqa: SIM115
    with pytest.raises(UserError, match=r"cannot write temporary files: No space left on device; name another folder"):
        VectorFile().append(torch.ones(3, 4))


def test_clips_are_drawn_and_cut(tmp_path: Path) -> None:
    folder = write_noises(tmp_path / "sounds", 9, 1.0, seed=9)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        drawn = find_clips(folder, most=4, seed=1)
    assert len(drawn) == 4
    assert drawn == find_clips(folder, most=4, seed=1)
    assert drawn != find_clips(folder, most=4, seed=2)
    cut = measure_set(folder, drawn, {"levels": LevelMeasure()}, MeasureCache(tmp_path / "cache"), seconds=0.25)
    level = cut.get("levels", "level")
    assert level is not None
    assert level.vectors[:, LevelMeasure.SECONDS].tolist() == [0.25] * 4
