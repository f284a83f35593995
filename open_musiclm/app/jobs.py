"""Jobs: requested generations. One runs at a time; its sound can be played during generation; it can be cancelled."""

import secrets
import traceback
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from open_musiclm.app.history import History
from open_musiclm.app.limits import Limits
from open_musiclm.app.live_sound import LiveSound
from open_musiclm.audio import samples_of
from open_musiclm.audio.spectrogram import write_spectrogram
from open_musiclm.config import GenerationConfig
from open_musiclm.errors import UserError
from open_musiclm.generation.musiclm import MusicLM
from open_musiclm.generation.output import Provenance, write_generated
from open_musiclm.generation.progress import Progress
from open_musiclm.generation.prompts.prompt_checks import check_prompts, check_stories
from open_musiclm.generation.prompts.story import AnyPrompt, during
from open_musiclm.generation.scorers import ClapScorer


class Cancelled(Exception):
    """A job was stopped before it was finished."""


@dataclass(frozen=True)
class Result:
    """One sample of a finished job: its sound, with a JSON and a picture of the same name beside it."""

    sound: Path
    similarity: float


class Job(Progress):
    """A generation: its request, the sound so far, and in the end its results.

    As the generation's `Progress` it receives what each stage has generated, and stops it after a window.
    """

    def __init__(self, prompt: AnyPrompt, config: GenerationConfig, sample_hz: int) -> None:
        self.id = secrets.token_urlsafe(12)
        self.prompt: AnyPrompt = prompt
        self.config = config
        samples = samples_of(config.duration, sample_hz)
        self.sounds = [LiveSound(samples, sample_hz) for _ in range(config.num_samples)]
        self.results: list[Result] = []
        self.stages: dict[str, tuple[float, float]] = {}  # seconds made, and to be made
        self._stopped, self._over = False, False
        self._error: BaseException | None = None

    def begin(self, stage: str, seconds: float) -> None:
        """A stage will make `seconds` of music; of several batches the seconds add up."""
        made, total = self.stages.get(stage, (0.0, 0.0))
        self.stages[stage] = (made, total + seconds)

    def advance(self, stage: str, seconds: float) -> None:
        """It has made `seconds` more. Raises Cancelled."""
        made, total = self.stages[stage]
        self.stages[stage] = (min(made + seconds, total), total)
        self.check()

    def check(self) -> None:
        """Raises Cancelled where the job was asked to stop."""
        if self._stopped:
            raise Cancelled

    def cancel(self) -> None:
        """Stops the job at its next window; nothing happens where it is finished."""
        self._stopped = True

    def end(self, error: BaseException | None = None) -> None:
        """Ends the job: readers of its sounds stop."""
        for sound in self.sounds:
            sound.end()
            if error is None:  # files have it now
                sound.forget()
        self.prompt = str(self.prompt)  # only its name is needed now, and a style sound may be large
        self._error = error
        self._over = True

    @property
    def is_over(self) -> bool:
        """Whether the job has ended, in whatever way."""
        return self._over

    def finished(self) -> bool:
        """Whether the job is over. Raises what ended it: Cancelled, UserError."""
        if self._error is not None:
            raise self._error
        return self._over


class JobRunner:
    """Runs jobs with one model, one after the other, and keeps the newest results."""

    def __init__(self, model: MusicLM, paths: Mapping[str, str], limits: Limits, history: History) -> None:
        self.model, self.paths, self.limits, self.history = model, paths, limits, history
        self._scorer = ClapScorer(model)
        self._thread = ThreadPoolExecutor(max_workers=1)

    def start(self, prompt: object, changes: Mapping[str, object]) -> Job:
        """A job that runs as soon as those before it are over; `changes` of the model's generation config.

        Nothing is searched for: every sample is a result. Raises UserError.
        """
        (checked,) = check_prompts([prompt])
        config = self.limits.within(self.model.generation_config).updated({"num_top_matches": 1, **changes})
        self.limits.check(config)
        check_stories([checked], config.duration)
        job = Job(checked, config, self.model.sample_hz)
        self.history.add(job)
        self._thread.submit(self._run, job)
        return job

    def close(self) -> None:
        """Stops all jobs and waits until the running one has stopped."""
        for job in self.history.jobs():
            job.cancel()
        self._thread.shutdown()

    def _run(self, job: Job) -> None:
        try:
            job.check()
            self._write(job, self._generate(job))
        except BaseException as error:
            self.history.remove(job)
            if not isinstance(error, Cancelled | UserError):
                traceback.print_exception(error)
            # the frames that a traceback holds have the job's tensors, and the job would hold them
            error.__cause__ = error.__context__ = None
            job.end(error.with_traceback(None))
        else:
            job.end()

    def _generate(self, job: Job) -> Float[Tensor, "batch samples"]:
        """The waves of all samples; each chunk can be played at once."""
        chunks: list[list[Tensor]] = [[] for _ in job.sounds]
        stream = self.model.stream(job.prompt, None, job.config.num_samples, job.config, progress=job)
        for batch, chunk in stream:
            for number, wave in enumerate(chunk.cpu(), start=batch * job.config.max_batch_size):
                chunks[number].append(wave)
                job.sounds[number].append(wave)
            job.check()
        return torch.stack([torch.cat(own) for own in chunks])

    def _write(self, job: Job, waves: Float[Tensor, "batch samples"]) -> None:
        """Writes every sample with its picture and its JSON."""
        folder = self.history.folder_of(job)
        scores = self._scorer.score([during(job.prompt, 0, job.config.duration)] * len(waves), waves).tolist()
        for number, (wave, score) in enumerate(zip(waves, scores, strict=True)):
            provenance = Provenance(job.prompt, number, {self._scorer.name: score}, job.config, self.paths)
            sound = write_generated(folder, str(number + 1), wave, self.model.sample_hz, provenance)
            write_spectrogram(sound.with_suffix(".png"), wave, self.model.sample_hz)
            job.results.append(Result(sound, score))
