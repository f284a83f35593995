"""The page: the request on the left, results on the right."""

from pathlib import Path
from typing import Any

import gradio

from open_musiclm.app import markup
from open_musiclm.app.handlers import Handlers
from open_musiclm.config import GenerationConfig

_ONE_AT_A_TIME = "generation"
_LIVE = '<div class="jobs live" data-sound="${value}"><span></span> <button>stop the sound</button></div>'
_LIVE_SCRIPT = Path(__file__).with_name("live.js")


def build_page(handlers: Handlers) -> gradio.Blocks:
    """The page and the API of the same functions; not launched yet."""
    limits = handlers.runner.limits
    with gradio.Blocks(title="Open MusicLM", analytics_enabled=False) as page:
        gradio.Markdown("# Open MusicLM")
        with gradio.Row():
            with gradio.Column(scale=2):
                inputs = _inputs(handlers.runner.model.generation_config, limits.duration, limits.samples)
                with gradio.Row():
                    generate = gradio.Button("Generate", variant="primary")
                    cancel = gradio.Button("Cancel")
            with gradio.Column(scale=3):
                status = gradio.HTML()
                live = gradio.HTML("", html_template=_LIVE, js_on_load=_LIVE_SCRIPT.read_text(encoding="utf-8"))
                results = gradio.HTML()
                gradio.Markdown("### History of this session")
                history = gradio.HTML(handlers.history([]))
        ids = gradio.State([])
        running = gradio.on(
            [generate.click, inputs[0].submit, inputs[1].submit],
            handlers.generate_on_page,
            [*inputs, ids],
            [status, live, results, history, ids],
            concurrency_id=_ONE_AT_A_TIME,
            concurrency_limit=1,
            trigger_mode="once",
            show_progress="hidden",
            api_visibility="private",
        )
        stopped = cancel.click(None, cancels=running, queue=False, api_visibility="private")
        stopped.then(  # then: an update that was under way comes first
            lambda: (markup.status_line("cancelled"), ""), outputs=[status, live], queue=False, api_visibility="private"
        )
        gradio.api(handlers.generate, concurrency_id=_ONE_AT_A_TIME, concurrency_limit=1)
    page.queue(max_size=limits.waiting, api_open=False)  # no call may pass the queue by
    return page


def _inputs(config: GenerationConfig, most_seconds: float, most_samples: int) -> list[Any]:
    """What `Handlers.generate_on_page` takes, with the model's own defaults."""
    scales = config.cfg_scale if isinstance(config.cfg_scale, list) else [config.cfg_scale]
    return [
        gradio.Textbox(label="Prompt", placeholder="slow and gentle piano", max_length=1000),
        gradio.Textbox(
            label="Story",
            info="instead of a prompt: several, each with the second it begins at",
            placeholder="0:calm piano; 4:fast violins",
            max_length=5000,
        ),
        gradio.Number(0, label="Crossfade (seconds)", info="how long a change of the story takes"),
        gradio.Audio(label="Style sound", sources=["upload"], type="filepath", editable=False, buttons=[]),
        gradio.Textbox(
            config.negative_prompt or "",
            label="Negative prompt",
            info="guidance moves away from this text",
            max_length=1000,
        ),
        gradio.Number(config.seed, label="Seed", precision=0, info="the same seed gives the same music"),
        _limited("Duration (seconds)", config.duration, most_seconds, 0.5),
        _limited("Samples", config.num_samples, most_samples, 1),
        gradio.Textbox(
            ", ".join(f"{scale:g}" for scale in scales),
            label="Guidance",
            info="above 1 follows the prompt more closely; one number, or one each for semantic, coarse and fine stage",
        ),
    ]


def _limited(label: str, default: float, most: float, step: float) -> gradio.Slider | gradio.Number:
    """A slider from 1, or from a smaller default, to `most`; if that leaves one value, a number that stays as it is."""
    value = min(default, most)
    least = min(1, value)
    if least == most:
        return gradio.Number(value, label=label, interactive=False)
    return gradio.Slider(least, most, value, step=step, label=label)
