"""A process that runs scripts and Python calls one after the other, each as if alone, and reports how each ended.

Imports take seconds, so hundreds of inputs share them; a trial that hangs, needs too much memory or ends the process
costs the others nothing. Run as a process: reads a JSON list of words a line, answers with an outcome a line.
"""

import contextlib
import importlib
import importlib.util
import io
import json
import os
import resource
import subprocess
import sys
import time
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from select import select

from helpers.paths import REPOSITORY
from helpers.script_modules import load_script

CRASHED, HUNG = -1, -2
_GIGABYTE = 1 << 30
_MOST_MEMORY = 2 * _GIGABYTE  # above what the process has with everything imported
_ANSWER = "outcome "
# What every trial would import is not its own memory.
_IMPORTS = (
    "helpers.python_trials",
    "open_musiclm.generation.generate_files",
    "open_musiclm.training.train_stage",
    "open_musiclm.training.train_tokenizers",
    "open_musiclm.training.backbones.train",
    "open_musiclm.data.preprocess_sounds",
    "open_musiclm.checkpoints.bundle",
)


@dataclass(frozen=True)
class Outcome:
    """How a trial ended: its exit status (`CRASHED`, `HUNG`), what it printed, and its memory above the others'."""

    status: int
    output: str
    errors: str
    seconds: float = 0.0
    gigabytes: float = 0.0


class TrialProcess:
    """Runs trials; a process that crashed or hung is replaced by a new one."""

    def __init__(self, folder: Path, most_seconds: float) -> None:
        self.folder, self.most_seconds = folder, most_seconds
        self._process: subprocess.Popen[str] | None = None

    def run(self, words: Sequence[str]) -> Outcome:
        """The outcome of a script with its arguments, or of "python" and a name in helpers.python_trials."""
        process = self._process or self._start()
        assert process.stdin is not None
        process.stdin.write(json.dumps(list(words)) + "\n")
        process.stdin.flush()
        answer = self._answer(self.most_seconds)
        if answer is not None:
            return answer
        status = CRASHED if process.poll() is not None else HUNG
        errors = self.errors.read_text(errors="replace")
        self.close()
        return Outcome(status, "", errors[-2000:])

    def close(self) -> None:
        """Ends the process."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    @property
    def errors(self) -> Path:
        """What the process printed itself."""
        return self.folder / "trial_process_errors.txt"

    def _start(self) -> "subprocess.Popen[str]":
        paths = os.pathsep.join([str(REPOSITORY), str(REPOSITORY / "tests")])
        environment = {**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
        with self.errors.open("w") as errors:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "helpers.trial_process", str(self.folder)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                env=environment,
                cwd=self.folder,
            )
        started = self._answer(200)
        assert started is not None, self.errors.read_text()
        return self._process

    def _answer(self, seconds: float) -> Outcome | None:
        process, end = self._process, time.monotonic() + seconds
        assert process is not None
        assert process.stdout is not None
        while select([process.stdout], [], [], max(end - time.monotonic(), 0))[0]:
            line = process.stdout.readline()
            if line.startswith(_ANSWER):
                return Outcome(**json.loads(line.removeprefix(_ANSWER)))
            if not line:
                process.wait()
                return None
        return None


def _trial(words: Sequence[str], folder: Path) -> Outcome:
    """Runs a trial in this process."""
    begun, base = time.monotonic(), _resident("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    with _captured(folder) as (output, errors):
        try:
            status = _run(words)
        except BaseException:
            status = 1
            traceback.print_exc()
    gigabytes = (_resident("VmHWM") - base) / _GIGABYTE
    return Outcome(status, _text(output), _text(errors), time.monotonic() - begun, gigabytes)


def _run(words: Sequence[str]) -> int:
    from accelerate.state import AcceleratorState, PartialState

    from open_musiclm import cli

    if words[0] == "python":
        from helpers import python_trials

        return python_trials.run(words[1])
    sys.argv = [str(REPOSITORY / words[0]), *words[1:]]
    AcceleratorState._reset_state(reset_partial_state=True)
    PartialState._reset_state()
    try:
        module = load_script(words[0])
        cli.run(module.main, module.arguments())
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    return 0


@contextlib.contextmanager
def _captured(folder: Path) -> Iterator[tuple[Path, Path]]:
    """Everything that is printed goes to two files, also what libraries print below Python."""
    paths = folder / "output.txt", folder / "errors.txt"
    kept = [os.dup(descriptor) for descriptor in (1, 2)]
    streams = sys.stdout, sys.stderr
    for descriptor, path in zip((1, 2), paths, strict=True):
        new = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(new, descriptor)
        os.close(new)
    sys.stdout, sys.stderr = (
        io.TextIOWrapper(io.FileIO(descriptor, "w", closefd=False), "utf-8", "backslashreplace", write_through=True)
        for descriptor in (1, 2)
    )
    try:
        yield paths
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        sys.stdout, sys.stderr = streams
        for descriptor, old in zip((1, 2), kept, strict=True):
            os.dup2(old, descriptor)
            os.close(old)


def _text(path: Path) -> str:
    return path.read_bytes()[-20_000:].decode("utf-8", "replace")


def _resident(name: str) -> int:
    """Bytes of memory of this process by /proc's name: VmRSS now, VmHWM at most, VmSize all of its addresses."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line for line in lines if line.startswith(f"{name}:")).split()[1])


def main() -> None:
    folder = Path(sys.argv[1])
    for name in _IMPORTS:
        importlib.import_module(name)
    limit = _resident("VmSize") + _MOST_MEMORY + _GIGABYTE  # some is reserved and never used
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    outcome = Outcome(0, "", "")
    while True:
        print(_ANSWER + json.dumps(asdict(outcome)), flush=True)
        line = sys.stdin.readline()
        if not line:
            return
        outcome = _trial(json.loads(line), folder)


if __name__ == "__main__":
    main()
