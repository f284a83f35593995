"""The newest jobs and their files; older ones are removed."""

import shutil
import threading
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from open_musiclm.app.jobs import Job


class History:
    """Jobs by their ids, which cannot be guessed, each in a folder of its own.

    Keeps the newest `most`, and those that are not over.
    """

    def __init__(self, folder: Path, most: int) -> None:
        self.folder, self.most = folder, most
        self._jobs: dict[str, Job] = {}
        self._lock = threading.Lock()

    def add(self, job: "Job") -> None:
        """Adds a job, and drops the oldest that are over where there are too many."""
        with self._lock:
            self._jobs[job.id] = job
            over = [old for old in self._jobs.values() if old.is_over]
            dropped = over[: max(len(self._jobs) - self.most, 0)]
        for old in dropped:
            self.remove(old)

    def remove(self, job: "Job") -> None:
        """Stops a job and removes its files."""
        with self._lock:
            self._jobs.pop(job.id, None)
        job.cancel()
        shutil.rmtree(self.folder_of(job), ignore_errors=True)

    def find(self, id: str) -> "Job | None":
        """The job of this id, if it is kept."""
        return self._jobs.get(id)

    def jobs(self) -> "list[Job]":
        """All that are kept, the oldest first."""
        with self._lock:
            return list(self._jobs.values())

    def folder_of(self, job: "Job") -> Path:
        """Where the files of a job are."""
        return self.folder / job.id
