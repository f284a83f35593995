"""The atlas's page: it holds all it needs; in a real browser a click plays a sound (with playwright and chromium)."""

import base64
import io
import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from open_musiclm.analysis.labels import LabelledSound
from open_musiclm.analysis.page import MapData, write_page
from open_musiclm.analysis.report import Table
from open_musiclm.metrics.intervals import Estimate

EVIL = '</script><script>alert("x")</script>'
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@pytest.fixture
def page(tmp_path: Path) -> Path:
    """Three sounds in the corners of the map, two captions and a prompt."""
    sounds = []
    for number, mode in enumerate(("major", "minor", "major")):
        path = tmp_path / f"{number}.wav"
        soundfile.write(path, 0.3 * np.sin(np.arange(66150) * (number + 1) / 30), 22050)
        tags = {"mode": (mode,), "instruments": ("harp", "flute"), "title": (EVIL,)}
        sounds.append(LabelledSound(path, (f"caption {number}",), tags))
    points = np.array([[0, 0], [1, 0], [1, 1], [0.5, 0.3], [0.2, 0.9], [0.5, 0.7]])
    projections = {"PCA": points, "UMAP": points[::-1] * 7 + 3}
    table = Table(EVIL, "a note", ("what", "value"), [[EVIL, Estimate(0.5, 0.25, 0.75, 9)], ["two", 2]])
    data = MapData(sounds, ["caption 0", "caption 1"], ["slow <piano>"], projections)
    write_page(tmp_path / "atlas.html", "atlas & map", [EVIL], data, [table])
    for sound in sounds:
        sound.path.unlink()
    return tmp_path / "atlas.html"


def test_the_page_holds_all_it_needs(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert not re.search(r"<[^>]*(src|href)=|@import|url\(|https?:", text)
    assert text.count("<script") == 2  # nothing of a tag or a table became one
    data = json.loads(re.search(r'<script id="data".*?>(.*?)</script>', text, re.DOTALL)[1])  # type: ignore[index]
    assert data["tags"] == ["mode", "instruments", "title"]
    assert data["sounds"][1]["tags"] == {"mode": "minor", "instruments": "harp, flute", "title": EVIL}
    assert data["projections"]["PCA"] == data["projections"]["UMAP"][::-1]
    wave, sample_hz = soundfile.read(io.BytesIO(base64.b64decode(data["sounds"][0]["sound"])))
    assert len(wave) / sample_hz == pytest.approx(3, abs=0.2)
    assert "<td>0.500 <small>[0.250, 0.750]</small></td>" in text


@pytest.fixture
def opened(page: Path) -> Iterator[Any]:
    """The page in a browser without a network, and what went wrong in it."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if CHROMIUM is None:
        pytest.skip("chromium is not installed")
    with playwright.sync_playwright() as running:
        browser = running.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--autoplay-policy=no-user-gesture-required"]
        )
        tab = browser.new_context(offline=True, viewport={"width": 1000, "height": 900}).new_page()
        errors: list[str] = []
        tab.on("pageerror", lambda error: errors.append(str(error)))
        tab.on("dialog", lambda dialog: errors.append(dialog.message))
        tab.goto(page.as_uri())
        yield tab
        browser.close()
        assert errors == []


def click(tab: Any, number: int) -> None:
    x, y = tab.evaluate(f"screen({number})")
    tab.locator("canvas").click(position={"x": x, "y": y})


@pytest.mark.slow
def test_a_click_plays_the_sound(opened: Any) -> None:
    for number in (0, 2):
        click(opened, number)
        assert opened.text_content("#playing").startswith(f"playing {number}.wav · caption {number} · mode: major")
        opened.wait_for_function("() => { const a = document.querySelector('audio'); return a.currentTime > 0; }")
        assert opened.evaluate("document.querySelector('audio').duration") == pytest.approx(3, abs=0.2)
    click(opened, 5)  # a prompt plays nothing
    assert opened.text_content("#playing").startswith("playing 2.wav")
    opened.set_viewport_size({"width": 400, "height": 800})  # a telephone's: all marks are there, nothing overflows
    click(opened, 1)
    assert opened.text_content("#playing").startswith("playing 1.wav")
    assert opened.evaluate("document.documentElement.scrollWidth") == 400
    places = opened.evaluate("kinds.map((_, number) => screen(number))")
    assert all(0 < x < 400 and 0 < y < 400 for x, y in (places[number] for number in (0, 1, 2, 5)))


@pytest.mark.slow
def test_what_is_hidden_takes_no_room(opened: Any) -> None:
    opened.evaluate("data.projections.PCA[5] = [9, 9]; draw()")  # a prompt far from all sounds

    def width_of_sounds() -> float:
        places = opened.evaluate("[0, 1, 2].map((number) => screen(number)[0])")
        return max(places) - min(places)

    with_prompt = width_of_sounds()
    opened.uncheck("#prompts")
    assert width_of_sounds() > 5 * with_prompt


@pytest.mark.slow
def test_colours_marks_and_movement(opened: Any) -> None:
    assert opened.locator("#projection option").all_text_contents() == ["PCA", "UMAP"]
    assert opened.locator("#legend button").all_text_contents() == ["major (2)", "minor (1)"]

    def ink() -> int:
        """How many pixels of the map are not empty."""
        pixels = "context.getImageData(0, 0, canvas.width, canvas.height).data"
        return opened.evaluate(f"[...{pixels}].filter((value, n) => n % 4 === 3 && value).length")

    everything = ink()
    opened.locator("#legend button").nth(1).click()
    only_minor = ink()
    assert 0 < only_minor < everything
    opened.check("#captions")
    assert ink() > only_minor
    opened.select_option("#tag", "title")
    assert opened.locator("#legend button").all_text_contents() == [f"{EVIL} (3)"]
    before = opened.evaluate("screen(1)")
    opened.select_option("#projection", "UMAP")
    assert opened.evaluate("screen(1)") != before
    x, y = opened.evaluate("screen(2)")
    opened.locator("canvas").hover(position={"x": x, "y": y})
    assert opened.text_content("#tip").startswith("2.wav · caption 2")
    opened.mouse.wheel(0, -300)
    opened.wait_for_function("() => view.scale > 1.5")
    assert opened.evaluate("screen(2)") == pytest.approx([x, y], abs=1)  # the wheel keeps what is under it
    opened.click("#reset")
    assert opened.evaluate("screen(2)") == pytest.approx([x, y])
