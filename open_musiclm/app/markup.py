"""HTML of jobs: progress, results, history. Everything that a person typed is escaped."""

import html
from collections.abc import Sequence

from open_musiclm.app.files import address
from open_musiclm.app.jobs import Job
from open_musiclm.generation.output import slug

STYLE = """
.jobs audio { width: 100%; height: 2.5rem; margin: .25rem 0; }
.jobs figure { margin: 0 0 1.5rem; }
.jobs figcaption { display: flex; gap: 1rem; flex-wrap: wrap; align-items: baseline; }
.jobs img { width: 100%; height: 9rem; display: block; border-radius: .4rem; margin: .4rem 0; }
.jobs pre { max-height: 20rem; overflow: auto; font-size: .75rem; }
.jobs progress { width: 100%; accent-color: var(--color-accent); }
.live:has(span:empty) { display: none; }
.live button, .live button:hover { all: unset; cursor: pointer; text-decoration: underline; margin-left: 1rem; }
.jobs .quiet { opacity: .7; }
.jobs details { margin: .4rem 0; }
"""


def progress(job: Job) -> str:
    """How much of the music each stage has made."""
    now = dict(job.stages)  # the thread that generates may add one
    stages = ", ".join(f"{name} {made:.1f} of {total:.1f} s" for name, (made, total) in now.items())
    made, total = (sum(values) for values in zip((0.0, 1e-9), *now.values(), strict=True))
    return _jobs(f'<progress value="{made:.3f}" max="{total:.3f}"></progress><div class="quiet">{stages}</div>')


def status_line(text: str) -> str:
    """One line for the person at the page."""
    return _jobs(f"<div>{html.escape(text)}</div>")


def results(job: Job) -> str:
    """Player, picture, similarity, downloads and JSON of every sample of a finished job."""
    return _jobs("".join(_figure(job, number, "metadata") for number in range(1, len(job.results) + 1)))


def history(jobs: Sequence[Job]) -> str:
    """Finished jobs, the newest first, to be opened again."""
    return _jobs("".join(_entry(job) for job in reversed(jobs)) or '<div class="quiet">nothing yet</div>')


def _figure(job: Job, number: int, preload: str) -> str:
    result = job.results[number - 1]
    description = html.escape(result.sound.with_suffix(".json").read_text(encoding="utf-8"))
    sound, picture, settings = (address(job, number, kind) for kind in ("wav", "png", "json"))
    name = f"{slug(str(job.prompt))}_seed{job.config.seed}_{number}"
    return (
        f"<figure><figcaption><b>sample {number}</b> <span>similarity {result.similarity:.3f}</span>"
        f'<a href="{sound}" download="{name}.wav">download</a>'
        f'<a href="{settings}" download="{name}.json">JSON</a></figcaption>'
        f'<img loading="lazy" src="{picture}" alt="spectrogram of sample {number}: time to the right, pitch upwards">'
        f'<audio controls preload="{preload}" src="{sound}"></audio>'
        f"<details><summary>how it was made</summary><pre>{description}</pre></details></figure>"
    )


def _entry(job: Job) -> str:
    title = (
        f'{html.escape(str(job.prompt))} <span class="quiet">seed {job.config.seed}, {job.config.duration:g} s</span>'
    )
    figures = "".join(_figure(job, number, "none") for number in range(1, len(job.results) + 1))
    return f"<details><summary>{title}</summary>{figures}</details>"


def _jobs(content: str) -> str:
    return f'<div class="jobs">{content}</div>'
