"""Scripts as real processes that start in milliseconds: forks of one that has imported everything.

What a process is like that has just been started is not seen this way: what it imports, and what it reads from its
environment while it imports. A few tests start one by `subprocess` for that.
"""

import atexit
import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from tempfile import TemporaryFile
from threading import Thread
from typing import IO

from helpers.paths import REPOSITORY

SERVER = Path(__file__).with_name("fork_server.py")


class Fork:
    """A process that runs `python WORDS`, as subprocess.Popen gives it, in a session of its own.

    `stdout` and `stderr` are read as text where no file was given for them; `stderr` may be subprocess.STDOUT.
    """

    def __init__(
        self,
        words: Sequence[object],
        cwd: Path | None = None,
        env: Mapping[str, str] | None = None,
        stdout: int | IO | None = None,
        stderr: int | IO | None = None,
    ) -> None:
        self.stdout, out = _stream(stdout)
        self.stderr, errors = (None, os.dup(out)) if stderr == subprocess.STDOUT else _stream(stderr)
        request = {"words": list(map(str, words)), "folder": str(cwd or Path.cwd())}
        self._report, report = socket.socketpair()
        with TemporaryFile("w+") as file, open(os.devnull) as nothing:
            json.dump(request | {"environment": dict(env or os.environ)}, file)
            file.seek(0)
            given = [file.fileno(), nothing.fileno(), out, errors, report.fileno()]
            socket.send_fds(_server(), [b"."], given)
        report.close()
        os.close(out)
        os.close(errors)
        self._lines = self._report.makefile()
        self.pid = int(self._lines.readline())
        self.returncode: int | None = None

    def poll(self) -> int | None:
        """The exit status, None while it runs."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.wait(0)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """The exit status; of a signal minus its number. Raises subprocess.TimeoutExpired."""
        if self.returncode is None:
            if not select.select([self._report], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired(str(self.pid), timeout or 0)
            self.returncode = int(self._lines.readline())
            self._lines.close()
            self._report.close()
        return self.returncode

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """Everything that it prints, until it ends; killed where that takes too long."""
        read = {"stdout": "", "stderr": ""}

        def drain(name: str, stream: IO[str]) -> None:
            read[name] = stream.read()

        streams = {"stdout": self.stdout, "stderr": self.stderr}
        threads = [Thread(target=drain, args=item) for item in streams.items() if item[1] and not item[1].closed]
        for thread in threads:
            thread.start()
        try:
            self.wait(timeout)
        finally:
            if self.returncode is None:
                os.killpg(self.pid, signal.SIGKILL)
            for thread in threads:
                thread.join()
            for stream in streams.values():
                if stream is not None:
                    stream.close()
        return read["stdout"], read["stderr"]

    def send_signal(self, number: int) -> None:
        """Nothing where it has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """SIGKILL."""
        self.send_signal(signal.SIGKILL)


def run(
    words: Sequence[object], cwd: Path | None = None, env: Mapping[str, str] | None = None, timeout: float = 200
) -> subprocess.CompletedProcess[str]:
    """Runs `python WORDS` to its end."""
    process = Fork(words, cwd, env)
    output, errors = process.communicate(timeout)
    assert process.returncode is not None
    return subprocess.CompletedProcess(list(words), process.returncode, output, errors)


def _stream(given: int | IO | None) -> tuple[IO[str] | None, int]:
    """What is read here of a stream, and the descriptor for the other process."""
    if given == subprocess.DEVNULL:
        return None, os.open(os.devnull, os.O_WRONLY)
    if given is None or given == subprocess.PIPE:
        ours, theirs = os.pipe()
        return open(ours), theirs
    return None, os.dup(given if isinstance(given, int) else given.fileno())


@cache
def _server() -> socket.socket:
    """The connection to this process's server, which ends when this end is closed."""
    ours, theirs = socket.socketpair()
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    words = [sys.executable, str(SERVER), str(theirs.fileno())]
    server = subprocess.Popen(words, env=environment, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL)
    theirs.close()

    def end() -> None:
        ours.close()
        server.wait(timeout=60)

    atexit.register(end)
    return ours
