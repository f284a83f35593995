"""libmpg123's warnings stay out of a log, and everything else that is written to stderr stays in it."""

import ctypes
import io
import os
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import soundfile

from open_musiclm import audio
from open_musiclm.audio.c_stderr import c_stderr_hidden

SYSTEMS = {"linux": "stderr", "darwin": "__stderrp"}
pytestmark = pytest.mark.skipif(sys.platform not in SYSTEMS, reason="nothing is hidden there")


def _print_in_c(line: str) -> None:
    library = ctypes.CDLL(None)
    library.fprintf.argtypes = [ctypes.c_void_p, ctypes.c_char_p]
    library.fflush.argtypes = [ctypes.c_void_p]
    stderr = ctypes.c_void_p.in_dll(library, SYSTEMS[sys.platform])
    library.fprintf(stderr, line.encode())
    library.fflush(stderr)


@pytest.fixture
def noisy(tmp_path: Path) -> Path:
    """An mp3 with junk in it and a wrong number of bytes in its tag."""
    content = io.BytesIO()
    wave = np.random.default_rng(0).normal(0, 0.1, 3 * 16000)
    soundfile.write(content, wave, 16000, format="MP3", subtype="MPEG_LAYER_III")
    path = tmp_path / "noisy.mp3"
    path.write_bytes(content.getvalue()[:9000] + b"q" * 300 + content.getvalue()[9000:] + b"APETAGEX" + bytes(9000))
    return path


def test_no_warning_of_the_decoder_is_printed(noisy: Path, capfd: pytest.CaptureFixture[str]) -> None:
    soundfile.read(noisy)
    assert "mpeg" in capfd.readouterr().err.lower()  # else nothing would be tested
    audio.read_sound(noisy)
    audio.wave_statistics(noisy)
    audio.read_window(noisy, 20000, 10000)
    assert capfd.readouterr().err == ""


def test_what_others_print_stays(capfd: pytest.CaptureFixture[str]) -> None:
    with c_stderr_hidden():
        with c_stderr_hidden():
            _print_in_c("dropped\n")
        _print_in_c("dropped, too\n")
        os.write(2, b"of the descriptor\n")
        print("of Python", file=sys.stderr, flush=True)
    _print_in_c("of C\n")
    assert capfd.readouterr().err.splitlines() == ["of the descriptor", "of Python", "of C"]


def test_threads_and_forks(capfd: pytest.CaptureFixture[str]) -> None:
    """The last thread that leaves shows it again; a forked process has it at once."""
    entered, leave = threading.Event(), threading.Event()

    def hide() -> None:
        with c_stderr_hidden():
            entered.set()
            leave.wait(60)

    thread = threading.Thread(target=hide)
    thread.start()
    assert entered.wait(60)
    with c_stderr_hidden():
        pass
    _print_in_c("dropped\n")
    child = os.fork()
    if child == 0:
        _print_in_c("of the child\n")
        os._exit(0)
    os.waitpid(child, 0)
    leave.set()
    thread.join()
    _print_in_c("of the parent\n")
    assert capfd.readouterr().err.splitlines() == ["of the child", "of the parent"]
