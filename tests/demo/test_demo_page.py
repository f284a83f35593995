"""The page that `make demo` writes, and the bundle of the repository, from which it generates."""

import base64
import io
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from helpers import forks
from helpers.paths import REPOSITORY
from PIL import Image

from demo.page import PageSample, write_page
from open_musiclm.audio import write_wave
from open_musiclm.audio.spectrogram import write_spectrogram
from open_musiclm.generation.search import Candidate

SAMPLE_HZ = 24000


def tone(hz: float, seconds: float = 1.0) -> torch.Tensor:
    return 0.5 * torch.sin(2 * torch.pi * hz * torch.arange(round(seconds * SAMPLE_HZ)) / SAMPLE_HZ)


class Sources(HTMLParser):
    """Everything that the page shows or plays, and its text."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, str]] = []
        self.text = ""

    def handle_starttag(self, tag, attrs):
        self.found += [(tag, value) for name, value in attrs if name in ("src", "href")]

    def handle_data(self, data):
        self.text += data


def sources(page: Path) -> Sources:
    parser = Sources()
    parser.feed(page.read_text(encoding="utf-8"))
    return parser


def content(source: str) -> io.BytesIO:
    return io.BytesIO(base64.b64decode(source.partition("base64,")[2], validate=True))


def test_the_page_holds_all_it_shows(tmp_path):
    waves = [tone(220.0), tone(880.0)]
    samples = []
    for number, wave in enumerate(waves):
        sound, picture = tmp_path / f"{number}.wav", tmp_path / f"{number}.png"
        write_wave(sound, wave, SAMPLE_HZ)
        write_spectrogram(picture, wave, SAMPLE_HZ)
        samples.append(PageSample(sound, picture, str(Candidate("", 0, wave, 0.5 - number))))
    prompt = '<script>alert("x")</script> & a tune'
    write_page(tmp_path / "page.html", prompt, "a <tiny> model", samples)
    for sample in samples:
        sample.sound.unlink()
    page = sources(tmp_path / "page.html")
    assert [tag for tag, _ in page.found] == ["img", "audio"] * 2
    assert prompt in page.text
    assert "a <tiny> model" in page.text
    assert "1. similarity 0.500 (0.wav)" in page.text
    assert "2. similarity -0.500 (1.wav)" in page.text
    for (_, picture), (_, sound), wave in zip(page.found[::2], page.found[1::2], waves, strict=True):
        assert Image.open(content(picture)).size[1] > 100
        played, sample_hz = soundfile.read(content(sound), dtype="float32")
        assert sample_hz == SAMPLE_HZ
        torch.testing.assert_close(torch.from_numpy(played), wave, rtol=0, atol=1e-4)


GENERATE = [str(REPOSITORY / "demo/generate.py"), "--device", "cpu"]


def test_a_page_for_every_prompt(stack, tmp_path):
    words = ["slow piano", "fast / flute", "--checkpoint_dir", stack.folder, "--duration", "1.5", "--num_samples", "2"]
    done = forks.run([*GENERATE, *words, "--cfg_scale", "1", "--results_folder", tmp_path])
    assert done.returncode == 0, done.stderr
    pages = [Path(path) for path in re.findall(r"listen: (.+)", done.stdout)]
    assert len(set(pages)) == 2
    for page in pages:
        assert [tag for tag, _ in sources(page).found] == ["img", "audio"] * 2


@pytest.mark.slow
def test_the_bundle_in_the_repository_makes_sound(tmp_path):
    words = ["slow piano", "--duration", "2", "--num_samples", "2", "--results_folder", str(tmp_path)]
    done = forks.run([*GENERATE, *words])
    assert done.returncode == 0, done.stderr
    waves = sorted(tmp_path.glob("*.wav"))
    assert len(waves) == 2
    for path in waves:
        wave, sample_hz = soundfile.read(path, dtype="float32")
        assert len(wave) == 2 * sample_hz
        assert 0.01 < np.abs(wave).max() <= 1
        assert np.sqrt(np.square(wave).mean()) > 0.001
        assert -1 <= json.loads(path.with_suffix(".json").read_text())["similarity"] <= 1
