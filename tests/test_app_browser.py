"""The page in a real browser (playwright and chromium): type, hear, download, cancel, upload; all from this machine."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import soundfile
from helpers.app_serving import ServedApp, served_app
from helpers.small_stack import Stack

pytest.importorskip("gradio", reason="gradio is not installed")
playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
SECONDS = 2.5


@pytest.fixture(scope="module")
def app(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServedApp]:
    if CHROMIUM is None:
        pytest.skip("chromium is not installed")
    with served_app(stack, tmp_path_factory.mktemp("results")) as behind:
        yield behind


@pytest.fixture(scope="module")
def tab(app: ServedApp) -> Iterator[Any]:
    """The page with short music asked for; in the end nothing went wrong in it."""
    with playwright.sync_playwright() as running:
        browser = running.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        opened = browser.new_context(viewport={"width": 1200, "height": 900}).new_page()
        errors: list[str] = []
        opened.on("pageerror", lambda error: errors.append(str(error)))
        opened.on("dialog", lambda dialog: errors.append(dialog.message))
        opened.on(
            "request",
            lambda request: request.url.startswith((app.address, "data:", "blob:")) or errors.append(request.url),
        )
        opened.goto(app.address)
        for name, value in (("Duration (seconds)", SECONDS), ("Samples", 2)):
            field = opened.get_by_label(f"number input for {name}")
            field.fill(str(value))
            field.blur()
        yield opened
        browser.close()
        assert errors == []


def ask(tab: Any, prompt: str) -> None:
    tab.get_by_label("Prompt", exact=True).fill(prompt)
    tab.get_by_role("button", name="Generate").click()


def wait_until(tab: Any, condition: str) -> None:
    tab.wait_for_function(f"() => {condition}", timeout=60_000)


@pytest.mark.slow
def test_type_a_prompt_hear_and_download(app: ServedApp, tab: Any, tmp_path: Path) -> None:
    app.gate.opened.clear()
    ask(tab, "slow <img src=x onerror=alert(1)> piano")
    tab.locator(".live", has_text="playing").wait_for()  # while the model waits
    assert tab.locator("audio").count() == 0
    app.gate.opened.set()
    tab.locator("figure audio").nth(1).wait_for()
    wait_until(tab, f"[...document.querySelectorAll('figure audio')].slice(0, 2).every(a => a.duration == {SECONDS})")
    assert "similarity" in tab.locator("figcaption").first.inner_text()
    tab.get_by_text("how it was made").first.click()
    assert '"prompt": "slow <img src=x onerror=alert(1)> piano"' in tab.locator("pre").first.inner_text()
    wait_until(tab, "document.querySelector('figure img').naturalWidth > 100")
    with tab.expect_download() as download:
        tab.get_by_role("link", name="download").first.click()
    download.value.save_as(tmp_path / "sound.wav")
    assert download.value.suggested_filename.startswith("slow_img_src_x")
    assert soundfile.info(tmp_path / "sound.wav").duration == SECONDS


@pytest.mark.slow
def test_cancel(app: ServedApp, tab: Any) -> None:
    app.gate.opened.clear()
    before = app.gate.chunks
    ask(tab, "fast flute")
    tab.locator(".live", has_text="playing").wait_for()
    with tab.expect_response("**/cancel"):
        tab.get_by_role("button", name="Cancel").click()
    tab.get_by_text("cancelled", exact=True).wait_for()
    app.gate.opened.set()
    wait_until(tab, "document.querySelector('.live span').textContent === ''")
    ask(tab, "slow flute")  # runs as soon as the cancelled one has stopped
    tab.locator("summary", has_text="slow flute").wait_for(timeout=60_000)
    assert tab.locator("summary", has_text="fast flute").count() == 0
    assert app.gate.chunks <= before + 1 + 4


@pytest.mark.slow
def test_type_a_story(tab: Any) -> None:
    tab.get_by_label("Story").fill("slow piano")
    ask(tab, "")
    tab.get_by_text("story: 'slow piano' is not SECONDS:PROMPT").wait_for()
    tab.get_by_label("Story").fill("0:slow piano; 1:choir")
    tab.get_by_label("Crossfade (seconds)").fill("0.5")
    ask(tab, "")
    tab.locator("summary", has_text="0:slow piano; 1:choir; crossfade 0.5").wait_for(timeout=60_000)
    tab.get_by_label("Story").fill("")


@pytest.mark.slow
def test_what_is_wrong_is_said(tab: Any, capfd: pytest.CaptureFixture[str]) -> None:
    """On the page, and not on the terminal of who serves it."""
    ask(tab, " ")
    tab.get_by_text("a prompt is empty; describe the music in a few words").wait_for()
    guidance = tab.get_by_role("textbox", name="Guidance")
    usual = guidance.last.input_value()
    guidance.last.fill("much")
    ask(tab, "slow piano")
    tab.get_by_text("guidance 'much': expected one number, or three").wait_for()
    guidance.last.fill(usual)
    assert "Traceback" not in capfd.readouterr().err


@pytest.mark.slow
def test_a_bad_file_is_refused(tab: Any, tmp_path: Path) -> None:
    bad = tmp_path / "bad.wav"
    bad.write_bytes(b"no sound at all")
    with tab.expect_response("**/upload*"):
        tab.locator("input[type=file]").set_input_files(bad)
    ask(tab, "slow piano")
    tab.get_by_text("style sound: bad.wav: not a sound file").wait_for()
