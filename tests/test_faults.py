"""What befalls a run: twenty kills, a full disk, a folder that cannot be written, workers and files that vanish."""

import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import time
from argparse import Namespace
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from helpers import forks, small_training
from helpers.paths import REPOSITORY
from helpers.small_stack import Stack

from open_musiclm.checkpoints import saved_steps
from open_musiclm.config import StageTrainerConfig, TrainerConfig
from open_musiclm.data.statistics import StatisticsCache
from open_musiclm.errors import UserError
from open_musiclm.training.data_stream import TrainingStream
from open_musiclm.training.failure_list import FailureList
from open_musiclm.training.loop import Loop
from open_musiclm.training.sound_data import sound_data
from open_musiclm.training.stage_examples import clap_crop, preprocessed_data

SCRIPT = REPOSITORY / "tests" / "helpers" / "small_training.py"
KILLS = 20
STEPS = 100
UNFINISHED = "checkpoints/.unfinished_*"


def arguments(folder: Path, **changes: object) -> Namespace:
    parsed = small_training.arguments().parse_args(["--results_folder", str(folder), "--steps", str(STEPS)])
    return Namespace(**{**vars(parsed), **changes})


def start(folder: Path, *words: object) -> forks.Fork:
    """A run in `folder` that goes on where there is a checkpoint and begins anew where there is none."""
    begun = ["--continue_from_dir", folder] if saved_steps(folder) else ["--overwrite"]
    given = [SCRIPT, "--results_folder", folder, "--steps", STEPS, *begun, *words]
    return forks.Fork(given, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def losses(folder: Path) -> list[tuple[int, float]]:
    """Step and loss of every whole line of the log."""
    path = folder / "log.jsonl"
    lines = path.read_text().splitlines(keepends=True) if path.exists() else []
    numbers = [json.loads(line) for line in lines if line.endswith("\n")]
    return [(line["step"], line["loss"]) for line in numbers if "loss" in line]


def wait_for(condition: Callable[[], bool], process: forks.Fork) -> None:
    deadline = time.monotonic() + 90
    while not condition() and process.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.0005)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[int, float]]:
    folder = tmp_path_factory.mktemp("uninterrupted") / "run"
    assert (start(folder).wait(), len(losses(folder))) == (0, STEPS)
    return losses(folder)


@pytest.mark.slow
def test_twenty_kills_change_nothing(tmp_path: Path, uninterrupted: list[tuple[int, float]]) -> None:
    folder, rng = tmp_path / "run", random.Random()
    while_writing = 0
    for kill in range(KILLS):
        before = len(losses(folder))
        process = start(folder, "--slow_seconds", 0.004)
        if kill % 2:
            wait_for(lambda: any(folder.glob(UNFINISHED)), process)
            time.sleep(rng.uniform(0, 0.004))
        else:
            wait_for(lambda before=before: len(losses(folder)) != before, process)
            time.sleep(rng.uniform(0, 0.4))
        process.kill()
        assert process.wait() == -signal.SIGKILL, "the run ended before it was killed"
        while_writing += any(folder.glob(UNFINISHED))
        steps = [step for step, _ in losses(folder)]
        assert not steps or steps[-1] - max(saved_steps(folder), default=0) <= 5
    assert while_writing, "no kill fell into the writing of a checkpoint"
    assert start(folder).wait() == 0
    assert losses(folder) == uninterrupted
    assert not any(folder.glob(UNFINISHED))


@contextlib.contextmanager
def mounted(folder: Path, options: str) -> Iterator[Path]:
    """A file system in memory; skips the test where one may not be mounted."""
    folder.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)], check=False).returncode:
        pytest.skip("mounting a small file system needs root")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def train_here(folder: Path, **changes: object) -> None:
    AcceleratorState._reset_state(reset_partial_state=True)
    small_training.main(arguments(folder, **changes))


def test_full_disk(tmp_path: Path, uninterrupted: list[tuple[int, float]]) -> None:
    with mounted(tmp_path / "disk", "size=600k") as disk:
        folder = disk / "run"
        with pytest.raises(UserError, match=r"cannot write.*No space left on device"):
            train_here(folder)
        assert saved_steps(folder)
        assert not any(folder.glob(UNFINISHED))
        subprocess.run(["mount", "-o", "remount,size=20m", str(disk)], check=True)
        train_here(folder, continue_from_dir=folder)
        assert losses(folder) == uninterrupted


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")  # of tensorboard
def test_disk_that_is_full_for_some_steps_ends_nothing(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Samples, curves and lines of the log do not fit; the lines are written when there is space again."""
    steps = Loop._step

    def step(loop: Loop) -> None:
        ballast = tmp_path / "disk" / "ballast"
        if loop.state.step == 7:
            with contextlib.suppress(OSError), ballast.open("wb", buffering=0) as file:
                while file.write(bytes(1 << 10)):
                    pass
        if loop.state.step == 27:
            ballast.unlink()
        steps(loop)

    monkeypatch.setattr(Loop, "_step", step)
    config = partial(small_training.trainer_config, save_model_every=30, save_results_every=5)
    monkeypatch.setattr(small_training, "trainer_config", config)
    with mounted(tmp_path / "disk", "size=3m") as disk:
        train_here(disk / "run", steps=30, log_with="tensorboard")
        assert [number for number, _ in losses(disk / "run")] == list(range(1, 31))
        assert saved_steps(disk / "run") == [30]
    output = capfd.readouterr().err
    assert output.count("cannot write samples, continues without: ") == 1
    assert output.count("cannot write the curves, continues without: ") == 1
    assert output.count("log.jsonl, continues without: No space left on device") == 1


def test_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"--results_folder .*/file/run: cannot .*Not a directory"):
        train_here(tmp_path / "file" / "run")
    with (
        mounted(tmp_path / "disk", "ro") as disk,
        pytest.raises(UserError, match=r"--results_folder .*: cannot write there: Read-only file system"),
    ):
        train_here(disk / "run")


@pytest.mark.slow
def test_worker_that_is_killed_is_replaced(tmp_path: Path, uninterrupted: list[tuple[int, float]]) -> None:
    folder = tmp_path / "run"
    process = start(folder, "--workers", 2, "--slow_seconds", 0.001)
    wait_for(lambda: len(losses(folder)) > 3, process)
    os.kill(children(process.pid)[0], signal.SIGKILL)
    assert process.wait() == 0
    assert losses(folder) == uninterrupted


def children(process: int) -> list[int]:
    """The workers of a process (Linux)."""
    parents = {}
    for entry in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            fields = entry.read_text().rsplit(")", 1)[1].split()
            parents[int(entry.parent.name)] = int(fields[1])
    return sorted(child for child, parent in parents.items() if parent == process)


@pytest.mark.parametrize("workers", [0, 2])
def test_files_that_disappear(tmp_path: Path, stack: Stack, sounds: Path, tokens: Path, workers: int) -> None:
    """A sound is replaced by another and told of; without its tokens a store is of no use, and says so."""
    accelerator = Accelerator(cpu=True)
    shutil.copytree(sounds, tmp_path / "sounds")
    crops = [clap_crop(stack.config)]
    statistics = StatisticsCache(tmp_path / "statistics.sqlite")
    config = TrainerConfig(
        folder=str(tmp_path / "sounds"), num_train_steps=1, batch_size=2, num_workers=workers, valid_frac=0.0
    )
    data = sound_data(config, crops, statistics)
    (tmp_path / "sounds/3.wav").unlink()
    failures = FailureList(tmp_path / "failed", accelerator)
    with contextlib.closing(TrainingStream(data, accelerator, failures, 0)) as stream:
        batches = list(stream.take(8))
    assert all(len(batch.batch.waves["clap"]) == 2 for batch in batches)
    assert str(tmp_path / "sounds/3.wav") in failures.reasons

    shutil.copytree(tokens, tmp_path / "tokens")
    section = {"stage": "coarse", "folder": str(tmp_path / "tokens"), "num_train_steps": 1, "batch_size": 2, "lr": 1.0}
    data = preprocessed_data(StageTrainerConfig(**section, num_workers=workers), stack.config, {})
    shard = next((tmp_path / "tokens").glob("*.arrow"), None) or next((tmp_path / "tokens").rglob("*.parquet"))
    shard.unlink()
    with (
        contextlib.closing(TrainingStream(data, accelerator, failures, 0)) as stream,
        pytest.raises(UserError, match=shard.name),
    ):
        list(stream.take(1))
