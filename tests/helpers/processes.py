"""Scripts as real processes, one or several at once, ended whatever happens."""

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from helpers.paths import REPOSITORY

# accelerate starts several processes on one machine by this option only, GPUs or not
MULTI_GPU = ("--multi_gpu",)
SHARDED = ("--use_fsdp", "--fsdp_version", "2")


def run_script(script: Path, words: Sequence[object], processes: int = 1, how: Sequence[str] = MULTI_GPU) -> str:
    """Runs a script to its end, by `accelerate launch` where there are several processes; returns what it printed."""
    launcher = [sys.executable]
    if processes > 1:
        launcher += ["-m", "accelerate.commands.launch", *how, "--num_processes", str(processes)]
        launcher += ["--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no"]
        launcher += ["--main_process_port", "0"]
    process = subprocess.Popen(
        [*launcher, str(script), *map(str, words)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPOSITORY)},
        start_new_session=True,
    )
    try:
        output, _ = process.communicate(timeout=200)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode == 0, output
    return output
