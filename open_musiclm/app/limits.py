"""Limits of a request, and of all results together: they protect a small machine."""

from dataclasses import dataclass

from open_musiclm.config import GenerationConfig
from open_musiclm.errors import UserError

MEGABYTE = 1 << 20


@dataclass(frozen=True)
class Limits:
    """Upper limits: seconds and samples of a request, requests that wait, results and bytes that are kept."""

    duration: float = 30.0
    samples: int = 4
    waiting: int = 8
    results: int = 40  # of all sessions; the files of older ones are removed
    upload_bytes: int = 20 * MEGABYTE
    upload_seconds: float = 300.0
    upload_hz: int = 96_000  # an upload of a higher rate may have as many samples, so fewer seconds
    uploads_bytes: int = 200 * MEGABYTE  # of all uploads together; older ones are removed
    uploads_files: int = 1000
    request_bytes: int = MEGABYTE  # of a request that is no upload

    def within(self, config: GenerationConfig) -> GenerationConfig:
        """The config with no more seconds and samples than are allowed: the defaults of a request."""
        samples = min(config.num_samples, self.samples)
        kept = min(config.num_top_matches, samples)
        seconds = min(config.duration, self.duration)
        return config.updated({"duration": seconds, "num_samples": samples, "num_top_matches": kept})

    def check(self, config: GenerationConfig) -> None:
        """Raises UserError if a request asks for more."""
        if config.duration > self.duration:
            raise UserError(f"duration {config.duration:g}: at most {self.duration:g} s are allowed here")
        if config.num_samples > self.samples:
            raise UserError(f"num_samples {config.num_samples}: at most {self.samples} are allowed here")
