"""The page of an evaluation in a real browser, wide and narrow (with playwright and chromium)."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.evaluating import needs_extra

from open_musiclm.evaluation.clips import EvaluationClip
from open_musiclm.evaluation.compare import Comparison
from open_musiclm.evaluation.distances import FAD, KAD
from open_musiclm.evaluation.measured_set import MeasuredSet
from open_musiclm.evaluation.page import evaluation_page
from open_musiclm.metrics.intervals import Estimate

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


def comparison(name: str, seed: int) -> Comparison:
    """A set with two figures, of which one is none, and the loudness of each clip."""
    clips = [EvaluationClip(Path(f"{number}.wav"), "slow piano") for number in range(40)]
    figures = [FAD.figure(Estimate(0.0123, 0.01, 0.02), 40, 40, "few vectors"), KAD.absent("none: too few", 40, 40)]
    loudness = torch.from_numpy(np.random.default_rng(seed).normal(-20, 2, 40))
    return Comparison(MeasuredSet(Path("results") / name, clips, {}, []), figures, {"loudness": loudness})


@needs_extra
@pytest.mark.slow
@pytest.mark.parametrize("width", [1280, 400])
def test_the_page_is_whole_and_fits(width: int, tmp_path: Path) -> None:
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if CHROMIUM is None:
        pytest.skip("chromium is not installed")
    sets = {f"a_rather_long_name_{number}": comparison(f"set {number}", number) for number in range(3)}
    settings = dict.fromkeys(("seed", "bootstrap_replicates", "seconds_of_each_clip", "most_clips", "date"), 0)
    card = {"command": ["evaluate.py", "x" * 300], "models": {}, "versions": {"torch": "2"}, **settings}
    page = tmp_path / "evaluation.html"
    page.write_text(evaluation_page(comparison("reference", 9), sets, ["a warning " * 30], card), encoding="utf-8")
    with playwright.sync_playwright() as running:
        browser = running.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        tab = browser.new_context(offline=True, viewport={"width": width, "height": 900}).new_page()
        told: list[str] = []
        tab.on("pageerror", lambda error: told.append(str(error)))
        tab.on("console", lambda message: told.append(message.text))
        tab.goto(page.as_uri())
        assert tab.evaluate("document.documentElement.scrollWidth") == width
        images = tab.evaluate("[...document.images].map((image) => [image.naturalWidth, image.clientWidth])")
        assert images
        assert all(natural > 500 and 250 < shown <= width for natural, shown in images)
        assert tab.locator("table.figures td").first.is_visible()
        browser.close()
    assert told == []
