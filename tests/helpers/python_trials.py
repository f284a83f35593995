"""Wrong calls of the Python door, by name; a UserError or a TypeError is how they should end."""

import functools
import os
import sys
from collections.abc import Callable
from typing import Any

import torch

from open_musiclm import GenerationConfig, Mixture, MusicLM, Prompt, Story
from open_musiclm.audio import Sound
from open_musiclm.errors import UserError

MISUSE = 2


@functools.cache
def model() -> MusicLM:
    """The bundle that the test names."""
    return MusicLM.from_pretrained(os.environ["TRIAL_BUNDLE"], device="cpu")


def generate(*arguments: Any, **named: Any) -> None:
    waves = model().generate(*arguments, **{"duration": 0.4, **named})
    assert all(bool(wave.isfinite().all()) for wave in waves)


def sound(wave: Any, sample_hz: Any = 24000) -> None:
    generate("a tune", audio_prompt=Sound(wave, sample_hz))


def infill(*arguments: Any, **named: Any) -> None:
    model().infill(Sound(torch.rand(24000), 24000), *arguments, **named)


TRIALS: dict[str, Callable[[], Any]] = {
    "prompt number": lambda: generate(1),
    "prompts of a number": lambda: generate([1]),
    "prompt None": lambda: generate(None),
    "prompts of None": lambda: generate([None]),
    "prompt bytes": lambda: generate(b"a tune"),
    "prompts of bytes": lambda: generate([b"a tune"]),
    "prompts nested": lambda: generate([["a tune"]]),
    "prompts a dictionary": lambda: generate({"a tune": 1}),
    "prompt a surrogate": lambda: generate("slow \ud800 tune"),
    "prompt empty": lambda: generate(""),
    "prompt of spaces": lambda: generate(" \t\n"),
    "prompts empty": lambda: generate([]),
    "prompts one empty": lambda: generate(["a tune", ""]),
    "prompt NUL": lambda: generate("a\0tune"),
    "prompt of 100,000 words": lambda: generate("tune " * 100_000),
    "prompts a generator": lambda: generate(text for text in ("a", "b")),
    "duration 0": lambda: generate("a", duration=0),
    "duration -1": lambda: generate("a", duration=-1),
    "duration NaN": lambda: generate("a", duration=float("nan")),
    "duration infinite": lambda: generate("a", duration=float("inf")),
    "duration 1e-9": lambda: generate("a", duration=1e-9),
    "duration 1e9": lambda: generate("a", duration=1e9),
    "duration 1e308": lambda: generate("a", duration=1e308),
    "duration a text": lambda: generate("a", duration="4"),
    "duration a list": lambda: generate("a", duration=[4]),
    "duration complex": lambda: generate("a", duration=4j),
    "duration huge": lambda: generate("a", duration=10**400),
    "samples 0": lambda: generate("a", num_samples=0),
    "samples -1": lambda: generate("a", num_samples=-1),
    "samples 1.5": lambda: generate("a", num_samples=1.5),
    "samples None": lambda: generate("a", num_samples=None),
    "samples a text": lambda: generate("a", num_samples="2"),
    "samples a billion": lambda: generate("a", num_samples=10**9),
    "samples huge": lambda: generate("a", num_samples=10**30),
    "config a dictionary": lambda: generate("a", config={"seed": 1}),
    "config a text": lambda: generate("a", config="generation_config.json"),
    "config key": lambda: GenerationConfig(sede=1),
    "config seed": lambda: GenerationConfig(seed=10**30),
    "config seed huge": lambda: GenerationConfig(seed=10**5000),
    "config seed a text": lambda: GenerationConfig(seed="1"),
    "config temperature": lambda: GenerationConfig(coarse_temperature=1e-45),
    "config temperature negative": lambda: GenerationConfig(coarse_temperature=-1.0),
    "config temperature NaN": lambda: GenerationConfig(coarse_temperature=float("nan")),
    "config top_k": lambda: GenerationConfig(top_k=0),
    "config top_p": lambda: GenerationConfig(top_p=0.0),
    "config scale": lambda: GenerationConfig(cfg_scale=[1.0, 2.0]),
    "config scale huge": lambda: GenerationConfig(cfg_scale=1e40),
    "config batch 0": lambda: GenerationConfig(max_batch_size=0),
    "config precision": lambda: GenerationConfig(precision="float8"),
    "config matches": lambda: GenerationConfig(num_samples=1, num_top_matches=2),
    "config position": lambda: GenerationConfig(1),
    "config updated key": lambda: GenerationConfig().updated({"sede": 1}),
    "guidance without training": lambda: generate("a", config=GenerationConfig(cfg_scale=3.0)),
    "sound empty": lambda: sound(torch.zeros(0)),
    "sound of a sample": lambda: sound(torch.zeros(1)),
    "sound of two axes": lambda: sound(torch.zeros(2, 24000)),
    "sound of integers": lambda: sound(torch.zeros(24000, dtype=torch.int16)),
    "sound NaN": lambda: sound(torch.full((24000,), float("nan"))),
    "sound infinite": lambda: sound(torch.full((24000,), float("inf"))),
    "sound silent": lambda: sound(torch.zeros(24000)),
    "sound a list": lambda: sound([0.1] * 24000),
    "sound None": lambda: sound(None),
    "sound rate 0": lambda: sound(torch.rand(24000), 0),
    "sound rate -1": lambda: sound(torch.rand(24000), -24000),
    "sound rate a fraction": lambda: sound(torch.rand(24000), 24000.5),
    "sound rate a text": lambda: sound(torch.rand(24000), "24000"),
    "sound rate huge": lambda: sound(torch.rand(24000), 10**12),
    "audio prompt a tensor": lambda: generate("a", audio_prompt=torch.rand(24000)),
    "audio prompt a path": lambda: generate("a", audio_prompt="a.wav"),
    "prompt of nothing": lambda: generate(Prompt()),
    "prompt text a number": lambda: generate(Prompt(1)),
    "prompt audio a number": lambda: generate(Prompt(audio=1)),
    "prompt audio absent": lambda: generate(Prompt(audio="nowhere.wav")),
    "prompt audio NUL": lambda: generate(Prompt(audio="a\0b")),
    "prompt audio NaN": lambda: generate(Prompt(audio=Sound(torch.full((24000,), float("nan")), 24000))),
    "prompt audio a tensor": lambda: generate(Prompt(audio=torch.rand(24000))),
    "prompt weight a text": lambda: generate(Prompt("a", weight="2")),
    "prompt weight None": lambda: generate(Mixture([Prompt("a", weight=None), "b"])),
    "prompt weight true": lambda: generate(Mixture([Prompt("a", weight=True), "b"])),
    "prompt weight huge": lambda: generate(Mixture([Prompt("a", weight=10**400), "b"])),
    "prompt weight complex": lambda: generate(Mixture([Prompt("a", weight=1j), "b"])),
    "mixture a text": lambda: generate(Mixture("a tune")),
    "mixture None": lambda: generate(Mixture(None)),
    "mixture of None": lambda: generate(Mixture([None])),
    "mixture of a list": lambda: generate(Mixture([["a", "b"]])),
    "mixture a dictionary": lambda: generate(Mixture({"a": 2})),
    "story None": lambda: generate(Story(None)),
    "story empty": lambda: generate(Story([])),
    "story a text": lambda: generate(Story("0:a")),
    "story of texts": lambda: generate(Story(["a", "b"])),
    "story of threes": lambda: generate(Story([(0, "a", 1)])),
    "story time a text": lambda: generate(Story([("0", "a")])),
    "story time None": lambda: generate(Story([(None, "a")])),
    "story time huge": lambda: generate(Story([(0, "a"), (10**400, "b")])),
    "story beyond the music": lambda: generate(Story([(0, "a"), (9, "b")])),
    "story in a story": lambda: generate(Story([(0, Story([(0, "a")]))])),
    "story in a mixture": lambda: generate(Mixture([Story([(0, "a")])])),
    "story crossfade a text": lambda: generate(Story([(0, "a"), (0.2, "b")], crossfade="1")),
    "story crossfade None": lambda: generate(Story([(0, "a"), (0.2, "b")], crossfade=None)),
    "embed a story": lambda: model().embed_prompts([Story([(0, "a"), (0.2, "b")])]),
    "embed prompts of a number": lambda: model().embed_prompts([1]),
    "negative prompt a number": lambda: GenerationConfig(negative_prompt=1, cfg_scale=3.0),
    "negative prompt empty": lambda: GenerationConfig(negative_prompt="", cfg_scale=3.0),
    "negative prompt unguided": lambda: GenerationConfig(negative_prompt="noise"),
    "model None": lambda: MusicLM.from_pretrained(None),
    "model a number": lambda: MusicLM.from_pretrained(7),
    "model empty": lambda: MusicLM.from_pretrained(""),
    "model NUL": lambda: MusicLM.from_pretrained("a\0b"),
    "model a root": lambda: MusicLM.from_pretrained("/"),
    "model a device": lambda: MusicLM.from_pretrained("/dev/zero"),
    "model absent": lambda: MusicLM.from_pretrained("./nowhere"),
    "model hub id": lambda: MusicLM.from_pretrained("a//b/c"),
    "device": lambda: MusicLM.from_pretrained(os.environ["TRIAL_BUNDLE"], device="abacus"),
    "device number": lambda: MusicLM.from_pretrained(os.environ["TRIAL_BUNDLE"], device=7),
    "precision": lambda: MusicLM.from_pretrained(os.environ["TRIAL_BUNDLE"], device="cpu", precision="float8"),
    "embed nothing": lambda: model().embed_text([]),
    "embed a number": lambda: model().embed_text([1]),
    "stream": lambda: list(model().stream([1], duration=0.4)),
    "infill backwards": lambda: infill(0.5, 0.2),
    "infill beyond": lambda: infill(0.5, 7),
    "infill texts": lambda: infill("0.2", "0.5"),
    "infill NaN": lambda: infill(float("nan"), 0.5),
    "infill nothing": lambda: infill(0.5, 0.5),
    "infill no candidate": lambda: infill(0.2, 0.5, num_candidates=0),
    "infill an empty prompt": lambda: infill(0.2, 0.5, ""),
    "infill a number": lambda: infill(0.2, 0.5, 7),
    "infill a path": lambda: model().infill("a.wav", 0.2, 0.5),
    "infill two channels": lambda: model().infill(Sound(torch.rand(2, 24000), 24000), 0.2, 0.5),
    "vary from a stage": lambda: model().vary(Sound(torch.rand(24000), 24000), "semantics"),
    "vary no time": lambda: model().vary(Sound(torch.rand(24000), 24000), num_samples=0),
    "vary a path": lambda: model().vary("a.wav"),
    "regenerate a stage": lambda: model().vary(Sound(torch.rand(24000), 24000), "semantics"),
}


def run(name: str) -> int:
    """Exit status as of a script: 2 where the call was refused."""
    try:
        TRIALS[name]()
    except (UserError, TypeError) as error:
        print(f"error: {error}", file=sys.stderr)
        return MISUSE
    return 0
