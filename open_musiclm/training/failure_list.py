"""The sound files that a run could not use."""

from collections.abc import Sequence
from pathlib import Path

from accelerate import Accelerator
from accelerate.utils import gather_object

from open_musiclm.data.failures import SoundFailure
from open_musiclm.files import atomic_write
from open_musiclm.terminal import print_stderr

SHOWN_AT_THE_END = 10


class FailureList:
    """Sound files that could not be used: one message each, and a list at the end and in `file`."""

    def __init__(self, file: Path, accelerator: Accelerator) -> None:
        self.file = file
        self.accelerator = accelerator
        self.reasons: dict[str, str] = {}

    def add(self, failures: Sequence[SoundFailure]) -> None:
        """Adds what failed in a batch."""
        for failure in failures:
            if str(failure.path) not in self.reasons:
                self.reasons[str(failure.path)] = failure.reason
                print_stderr(f"skipped: {failure.reason}")

    def report(self) -> None:
        """Lists the files of all processes (every process calls this), in the file after those of earlier starts.

        Raises UserError.
        """
        gathered: dict[str, str] = dict(gather_object(list(self.reasons.items())))
        if not gathered or not self.accelerator.is_main_process:
            return
        found = [gathered[path] for path in sorted(gathered)]
        earlier = self.file.read_text(encoding="utf-8").splitlines() if self.file.exists() else []
        lines = list(dict.fromkeys([*earlier, *found]))
        with atomic_write(self.file) as temporary:
            temporary.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8", errors="backslashreplace")
        print_stderr(f"{len(found)} sound files could not be used, see {self.file}:")
        for line in found[:SHOWN_AT_THE_END]:
            print_stderr(f"  {line}")
