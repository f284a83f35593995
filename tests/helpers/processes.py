"""Scripts on one process or on several, ended whatever happens."""

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from socket import create_server

from helpers import forks
from helpers.paths import REPOSITORY

# accelerate starts several processes on one machine by this option only, GPUs or not
MULTI_GPU = ("--multi_gpu",)
SHARDED = ("--use_fsdp", "--fsdp_version", "2")
SHARDED_ENVIRONMENT = {"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2"}  # of a process that is launched so
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPOSITORY)}


def run_script(
    script: Path, words: Sequence[object], processes: int = 1, environment: Mapping[str, str] | None = None
) -> str:
    """Runs a script to its end; returns what it printed.

    Several processes are told of each other as `accelerate launch --multi_gpu` does it.
    """
    with create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    together = {"WORLD_SIZE": processes, "LOCAL_WORLD_SIZE": processes, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    with ExitStack() as stack:
        started = []
        for rank in range(processes):
            place = {**together, "RANK": rank, "LOCAL_RANK": rank} if processes > 1 else {}
            variables = {**ENVIRONMENT, **(environment or {}), **{name: str(value) for name, value in place.items()}}
            started.append(forks.Fork([script, *words], env=variables, stderr=subprocess.STDOUT))
            stack.callback(started[-1].kill)
        printed = [process.communicate(timeout=200)[0] for process in started]
        assert [process.returncode for process in started] == [0] * processes, "\n".join(printed)
    return "".join(printed)


def launch_script(script: Path, words: Sequence[object], processes: int, how: Sequence[str] = MULTI_GPU) -> str:
    """Runs a script by `accelerate launch`, each process started anew; returns what it printed."""
    launcher = [sys.executable, "-m", "accelerate.commands.launch", *how, "--num_processes", str(processes)]
    launcher += ["--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", "0"]
    words = [*launcher, str(script), *map(str, words)]
    ended = subprocess.run(
        words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=ENVIRONMENT, timeout=200, check=False
    )
    assert ended.returncode == 0, ended.stdout
    return ended.stdout
