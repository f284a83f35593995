"""Evaluation of music that was asked for by more than a text: CLAP scores are those that generation ranked it by."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from helpers.evaluating import needs_extra, run, write_noises
from helpers.small_stack import Stack

from open_musiclm import Mixture, MusicLM, Prompt, Story
from open_musiclm.config import GenerationConfig
from open_musiclm.errors import UserNotice
from open_musiclm.evaluation.clip_prompts import embed_clip_prompts
from open_musiclm.evaluation.clips import find_clips
from open_musiclm.evaluation.distances import Resampling
from open_musiclm.evaluation.embeddings import ClapMeasure
from open_musiclm.evaluation.prompt_figures import adherence_figures, cycle_figure
from open_musiclm.evaluation.vectors import ClipVectors
from open_musiclm.generation.edit_files import regenerate_files
from open_musiclm.generation.generate_files import generate_files

NAMES = ("mixture", "style", "both", "story", "text")


@pytest.fixture(scope="module")
def model(stack: Stack) -> MusicLM:
    model = stack.musiclm()
    model.generation_config = GenerationConfig(duration=1.5, num_samples=1, num_top_matches=1, return_coarse_wave=True)
    return model


@pytest.fixture(scope="module")
def generated(model: MusicLM, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wave of each kind of prompt, and the style sound, slow_1.wav, beside the folder."""
    folder = tmp_path_factory.mktemp("asked")
    style = write_noises(folder / "styles", 1, 2.0, seed=3) / "0.wav"
    style = style.rename(style.with_name("slow_1.wav"))
    inner = Mixture([Prompt("choir", audio=style, weight=0.5), "harp"], weight=2)
    prompts = [
        Mixture([Prompt("slow piano", weight=2), inner]),
        Prompt(audio=style),
        Prompt("fast piano", style),
        Story([(0, "slow piano"), (0.5, Prompt("fast violin tune", style)), (1.2, "choir")], crossfade=0.25),
        "fast violin tune",
    ]
    written = [own[0].path for own in generate_files(model, prompts, folder / "waves", {})]
    for name, path in zip(NAMES, written, strict=True):
        for ending in (".wav", ".json"):
            path.with_suffix(ending).rename(path.with_name(name + ending))
    return folder / "waves"


@needs_extra
def test_every_kind_of_prompt_is_embedded_as_it_was_asked_for(generated: Path, stack: Stack, tmp_path: Path) -> None:
    reference = write_noises(tmp_path / "reference", 2, 1.0, seed=4)
    words = ["--metrics", "prompts", "--cache_folder", tmp_path / "cache", "--results_folder", tmp_path / "results"]
    run(generated, "--reference", reference, "--checkpoint_dir", stack.folder, *words)
    lines = [json.loads(line) for line in (tmp_path / "results/clips.jsonl").read_text().splitlines()]
    found = {Path(line["file"]).stem: line for line in lines}
    for name in NAMES:
        told = json.loads((generated / f"{name}.json").read_text())
        assert found[name]["prompt"] == told["prompt"]
        assert found[name]["clap_score"] == pytest.approx(told["similarity"], abs=0.02), name  # of 16 bits
    figures = json.loads((tmp_path / "results/card.json").read_text())["sets"]["waves"]["figures"]
    assert figures["clap_score"]["clips"] == figures["cycle_consistency"]["clips"] == len(NAMES)
    assert figures["clap_score"]["note"].endswith("; of a story its prompts, each weighted by how long it is asked for")


@pytest.fixture(scope="module")
def clap(model: MusicLM) -> ClapMeasure:
    return ClapMeasure(model.tokenizer.clap, model.embedder.window_seconds, "small")


def test_what_counts_of_a_story_is_what_was_asked_for_in_those_seconds(generated: Path, clap: ClapMeasure) -> None:
    (story,) = (clip for clip in find_clips(generated) if clip.path.stem == "story")
    asked = embed_clip_prompts([story, story, story], [0.5, 0.25, 1.5], clap)
    (text,) = clap.embedder.embed_text(["slow piano"])
    torch.testing.assert_close(asked.vectors[asked.own[:2]], torch.stack([text, text]))
    assert float(asked.vectors[asked.own[2]] @ text) < 0.999


@pytest.mark.parametrize("damage", ["gone", "changed"])
def test_without_its_style_sound_a_clip_has_no_score(
    damage: str, generated: Path, clap: ClapMeasure, tmp_path: Path
) -> None:
    copy = Path(shutil.copytree(generated, tmp_path / "waves"))
    style = tmp_path / "slow_1.wav"
    for path in copy.glob("*.json"):
        path.write_text(path.read_text().replace(str(generated.parent / "styles/slow_1.wav"), str(style)))
    if damage == "changed":
        write_noises(tmp_path / "others", 1, 1.0, seed=9).joinpath("0.wav").rename(style)
    clips = find_clips(copy)
    asked = embed_clip_prompts(clips, [1.5] * len(clips), clap)
    assert [clips[place].path.stem for place in asked.clips] == ["text"]
    left_out = "; 4 clips left out, whose style sounds have gone or have changed"
    assert asked.note.endswith(left_out)
    (copy / "text.json").unlink()
    clips = find_clips(copy)
    asked = embed_clip_prompts(clips, [1.5] * len(clips), clap)
    whole = ClipVectors(torch.zeros(len(clips), 16), torch.arange(len(clips)))
    for figure in (cycle_figure(asked, whole, Resampling(0, 2)), *adherence_figures(asked, whole, Resampling(0, 2))[0]):
        assert figure.value is None
        assert figure.note.startswith("none: no clip has a prompt")
        assert figure.note.endswith(left_out)


def test_names_of_files_are_no_texts(generated: Path, model: MusicLM, tmp_path: Path) -> None:
    """A style sound's name names no tempo, and an edited sound's name is no prompt."""
    clips = {clip.path.stem: clip for clip in find_clips(generated)}
    assert [name for name in NAMES if clips[name].text is not None] == ["text"]
    (edited,) = regenerate_files(model, [generated / "text.wav"], "coarse", tmp_path, {})
    assert [(clip.path, clip.prompt) for clip in find_clips(tmp_path)] == [(edited.path, None)]


@pytest.mark.parametrize(
    ("told", "message"),
    [
        ({"parts": "slow"}, r"0\.json: parts: Input should be a valid list, found 'slow'"),
        ({"parts": [{"text": "a", "weight": "2"}]}, r"0\.json: parts: 0: weight: Input should be a valid number"),
        ({"story": [{"seconds": 0}]}, r"0\.json: story: 0: parts: missing"),
    ],
)
def test_a_json_that_describes_no_prompt(told: dict, message: str, tmp_path: Path) -> None:
    """Music of others may have JSON of its own."""
    folder = write_noises(tmp_path / "sounds", 2, 0.2, seed=5)
    (folder / "0.json").write_text(json.dumps({"prompt": "a", **told}))
    (folder / "1.json").write_text(json.dumps({"prompt": "slow piano"}))
    with pytest.warns(UserNotice, match=rf"{message}.*; the clip counts as one without a prompt"):
        clips = find_clips(folder)
    assert [clip.prompt for clip in clips] == [None, "slow piano"]


def test_a_damaged_json_describes_no_prompt(tmp_path: Path) -> None:
    folder = write_noises(tmp_path / "sounds", 1, 0.2, seed=5)
    (folder / "0.json").write_text("[1")
    with pytest.warns(UserNotice, match=r"0\.json: not valid JSON.*; the clip counts as one without a prompt"):
        assert find_clips(folder)[0].prompt is None
