"""The functions of the page and of the HTTP API."""

import asyncio
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from pathlib import Path
from typing import Any

import gradio

from open_musiclm.app import markup
from open_musiclm.app.client_prompt import client_prompt
from open_musiclm.app.files import address
from open_musiclm.app.jobs import Cancelled, Job, JobRunner
from open_musiclm.app.uploads import read_upload
from open_musiclm.errors import UserError

_SECONDS_BETWEEN_UPDATES = 0.3
_NO_NEGATIVE_PROMPT = ("", "off")


class Handlers:
    """One set for all sessions; what a session remembers are the ids of its finished jobs."""

    def __init__(self, runner: JobRunner, uploads: Path) -> None:
        self.runner, self.uploads = runner, uploads

    async def generate_on_page(
        self,
        prompt: str,
        story: str,
        crossfade: float | None,
        style: str | None,
        negative: str,
        seed: float,
        duration: float,
        num_samples: float,
        guidance: str,
        ids: list[str],
    ) -> AsyncGenerator[tuple[object, ...], None]:
        """Updates of the status, the live sound, the results, the history and the ids of this session."""
        unchanged = gradio.skip()
        changes: dict[str, object] = {"seed": int(seed or 0), "duration": duration, "num_samples": num_samples}
        if guidance.strip():
            changes["cfg_scale"] = _guidance(guidance)
        changes["negative_prompt"] = negative if negative.strip() else None
        told = story if story.strip() else None
        asked = prompt if prompt.strip() or (style is None and told is None) else None
        first = True
        async with aclosing(self._follow((asked, told, crossfade if told else None), style, changes)) as updates:
            async for job, finished in updates:
                if finished:
                    ids = [*ids, job.id]
                    yield markup.status_line("finished"), unchanged, markup.results(job), self.history(ids), ids
                else:
                    shown = (address(job, 1, "wav"), "") if first else (unchanged, unchanged)
                    yield markup.progress(job), *shown, unchanged, unchanged
                first = False

    async def generate(
        self,
        prompt: str | None = None,  # over HTTP it may be anything, as all others
        seed: int | None = None,
        duration: float | None = None,
        num_samples: int | None = None,
        guidance: float | list[float] | None = None,
        negative_prompt: str | None = None,
        style_sound: dict[str, Any] | None = None,
        story: str | None = None,
        crossfade: float | None = None,
    ) -> AsyncGenerator[dict[str, Any], None]:
        """Generates music for a prompt, a style sound, or both; what is left out is the model's own default.

        Instead of a prompt, `story` has several with the second that each begins at, "0:calm piano; 15:fast violins",
        and `crossfade` the seconds that a change takes.
        Answers while it generates, and at last with the finished results. Every sample has the addresses of its sound
        (a wav that can be read while it is made), and in the end of its spectrogram and its JSON.
        """
        given: dict[str, object] = {"seed": seed, "duration": duration, "num_samples": num_samples}
        given |= {"cfg_scale": guidance, "negative_prompt": negative_prompt}
        style = style_sound.get("path") or "" if isinstance(style_sound, dict) else style_sound
        changes = {name: value for name, value in given.items() if value is not None}
        if isinstance(negative_prompt, str) and negative_prompt.strip() in _NO_NEGATIVE_PROMPT:
            changes["negative_prompt"] = None
        last = None
        async with aclosing(self._follow((prompt, story, crossfade), style, changes)) as updates:
            async for job, finished in updates:
                now = _described(job, finished)
                if now != last:
                    yield now
                last = now

    def history(self, ids: list[str]) -> str:
        """The finished jobs of a session that are still kept."""
        return markup.history([job for job in map(self.runner.history.find, ids) if job is not None])

    async def _follow(
        self, asked: tuple[Any, Any, Any], style: object, changes: Mapping[str, object]
    ) -> AsyncGenerator[tuple[Job, bool], None]:
        """Yields the job and whether it is finished, repeatedly; closing the generator stops the job.

        `asked` is prompt, story and crossfade; `style` the path of an upload.
        """
        limits = self.runner.limits
        most = (limits.upload_seconds, limits.upload_hz)
        try:
            sound = None if style is None else await asyncio.to_thread(read_upload, self.uploads, style, *most)
            job = self.runner.start(client_prompt(*asked, sound), changes)
            try:
                while not job.finished():
                    yield job, False
                    await asyncio.sleep(_SECONDS_BETWEEN_UPDATES)
                yield job, True
            finally:
                job.cancel()
        except UserError as error:
            raise gradio.Error(str(error), print_exception=False) from error
        except Cancelled as error:
            raise gradio.Error("cancelled", print_exception=False) from error


def _guidance(text: str) -> float | list[float]:
    """Guidance as it is typed: one number, or one for each stage. Raises gradio.Error."""
    try:
        numbers = [float(part) for part in text.split(",")]
    except ValueError as error:
        message = f"guidance {text!r}: expected one number, or three, as 4, 2.5, 1"
        raise gradio.Error(message, print_exception=False) from error
    return numbers if len(numbers) > 1 else numbers[0]


def _described(job: Job, finished: bool) -> dict[str, Any]:
    samples = []
    for number, sound in enumerate(job.sounds, start=1):
        sample: dict[str, Any] = {"sound": address(job, number, "wav"), "seconds": round(sound.seconds, 3)}
        if finished:
            sample["spectrogram"], sample["json"] = (address(job, number, kind) for kind in ("png", "json"))
            sample["similarity"] = round(job.results[number - 1].similarity, 6)
        samples.append(sample)
    return {"finished": finished, "samples": samples}
