"""The result of a preprocessing run, and its summary for the terminal."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from open_musiclm.data.failures import SoundFailure
from open_musiclm.errors import UserError

FAILURES_NAME = "failed_sounds-{process:05d}.txt"
FAILURES_SHOWN = 10


@dataclass
class PreprocessReport:
    """What a process did: files and seconds written, files that were stored before, files that failed.

    `interrupted` is the number of the signal that ended it early, 0 if none did.
    `captioned` counts the sound files, of all processes, whose captions have tokens in the store.
    `waited_seconds` is how long it waited for decoded sound, after the first files, of the `elapsed_seconds` in all.
    """

    files: int = 0
    seconds: int = 0
    stored_before: int = 0
    failures: list[SoundFailure] = field(default_factory=list)
    interrupted: int = 0
    waited_seconds: float = 0.0
    elapsed_seconds: float = 0.0
    captioned: int = 0

    @property
    def waited_share(self) -> float:
        """The share of the time spent waiting for decoding: an upper bound of the device's idle time for it."""
        return self.waited_seconds / max(self.elapsed_seconds, 1e-9)

    def summary(self, folder: str) -> Iterator[str]:
        """Lines about the run; `folder` is that of the store."""
        yield from (f"could not use {failure.reason}" for failure in self.failures[:FAILURES_SHOWN])
        if len(self.failures) > FAILURES_SHOWN:
            yield f"and {len(self.failures) - FAILURES_SHOWN} more, all listed in {folder}"
        yield (
            f"wrote the tokens of {self.files} files ({self.seconds} s of sound) to {folder}; "
            f"{self.stored_before} were there before, {len(self.failures)} could not be used; "
            f"waited for decoding {self.waited_share:.0%} of the time"
        )
        if self.captioned:
            yield f"wrote the CLAP tokens of the captions of {self.captioned} files"

    def list_failures(self, folder: Path, process_index: int) -> None:
        """Writes the failures of this run to a file of this process. Raises UserError."""
        file = folder / FAILURES_NAME.format(process=process_index)
        try:
            if self.failures:
                lines = "".join(f"{failure.reason}\n" for failure in self.failures)
                file.write_text(lines, encoding="utf-8", errors="backslashreplace")
            elif not self.interrupted:
                file.unlink(missing_ok=True)
        except OSError as error:
            raise UserError(f"{file}: cannot write: {error.strerror}") from error
