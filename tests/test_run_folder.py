"""The results folder of a run: what it refuses, and what a failed start leaves."""

import errno
import importlib.machinery
import json
import os
import subprocess
import sys
import types
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from accelerate.commands.launch import launch_command_parser
from helpers import forks, small_training
from helpers.file_system import poor_file_system
from helpers.paths import REPOSITORY
from helpers.run_folders import STEPS, content, train
from helpers.small_stack import Stack

from open_musiclm.checkpoints import saved_steps
from open_musiclm.config import TrainingConfig
from open_musiclm.errors import UserError
from open_musiclm.locking import LOCK_NAME
from open_musiclm.training.options import RunOptions
from open_musiclm.training.run import Run
from open_musiclm.training.run_folder import command_line
from open_musiclm.training.train_stage import TokenizerPaths, train_stage


def test_a_second_run_is_refused(run: Path) -> None:
    code = f"import time; from pathlib import Path; from open_musiclm.locking import FolderLock\n\
FolderLock(Path({str(run)!r})); print(flush=True); time.sleep(600)"
    holder = forks.Fork(["-c", code])
    assert holder.stdout is not None
    holder.stdout.readline()
    before = content(run)
    for changes in ({"overwrite": True}, {"continue_from_dir": run, "steps": 8}):
        with pytest.raises(UserError, match=rf"--results_folder {run}: another run is writing there"):
            train(run, **changes)
    assert content(run) == before
    holder.kill()
    holder.communicate()
    train(run, continue_from_dir=run, steps=8)
    assert saved_steps(run)[-1] == 8
    assert not (run / LOCK_NAME).exists()


@pytest.mark.slow
def test_a_run_where_there_are_no_locks_and_no_syncs_of_folders(tmp_path: Path) -> None:
    environment = poor_file_system(tmp_path, locking_fails=errno.ENOSYS, folder_sync_fails=errno.EINVAL)
    script = [sys.executable, str(REPOSITORY / "tests/helpers/small_training.py")]
    words = ["--results_folder", str(tmp_path / "run"), "--steps", str(STEPS)]
    environment["PYTHONPATH"] = str(REPOSITORY)
    done = subprocess.run([*script, *words], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert saved_steps(tmp_path / "run") == [5, 6]


def test_a_start_that_fails_leaves_nothing(tmp_path: Path, stack: Stack, sounds: Path) -> None:
    section = {"stage": "coarse", "folder": str(sounds), "num_train_steps": 1, "batch_size": 1, "num_workers": 0}
    config = TrainingConfig.model_validate({"coarse_trainer_cfg": {**section, "valid_frac": 0.3}})
    missing = TokenizerPaths(tmp_path / "rvq", tmp_path / "kmeans")
    for folder in (tmp_path / "new" / "run", tmp_path / "empty"):
        (tmp_path / "empty").mkdir(exist_ok=True)
        for _ in range(2):  # the same command is not refused
            with pytest.raises(UserError, match=rf"{tmp_path}/rvq: no such checkpoint"):
                train_stage("coarse", stack.config, config, RunOptions("coarse", folder, device="cpu"), missing, None)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["empty"]
    assert list((tmp_path / "empty").iterdir()) == []


def test_what_a_killed_start_leaves_is_no_reason_to_refuse(tmp_path: Path) -> None:
    for name in (LOCK_NAME, "wave_statistics.sqlite"):
        (tmp_path / name).touch()
    train(tmp_path)
    assert saved_steps(tmp_path) == [5, 6]


def fake_wandb(monkeypatch: pytest.MonkeyPatch, login: Callable[[], bool]) -> None:
    wandb = types.ModuleType("wandb")
    wandb.__spec__ = importlib.machinery.ModuleSpec("wandb", None)
    wandb.login = login  # type: ignore[attr-defined]
    wandb.errors = types.SimpleNamespace(Error=KeyError)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "wandb", wandb)


def test_wandb_without_a_login_is_noticed_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def login() -> bool:
        raise KeyError("No API key configured")

    fake_wandb(monkeypatch, login)
    options = RunOptions("semantic", tmp_path / "run", log_with="wandb", device="cpu")
    config = small_training.trainer_config()
    with pytest.raises(UserError, match=r"--log_with wandb: 'No API key configured' \(run wandb login, .*offline"):
        Run.begin(options, small_training.model_config(), config, 0)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_wandb_writes_into_the_results_folder(tmp_path: Path) -> None:
    pytest.importorskip("wandb")
    code = f"""
import sys
sys.path[:0] = [{str(REPOSITORY / "tests")!r}]
from pathlib import Path
from helpers import forks, small_training
from open_musiclm.training.options import RunOptions
from open_musiclm.training.run import Run
from open_musiclm.training.run_folder import command_line
config = small_training.trainer_config()
options = RunOptions("semantic", Path("run"), log_with="wandb", device="cpu")
with Run.begin(options, small_training.model_config(), config, 0) as run:
    run.open_folder()
    run.accelerator.end_training()
"""
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "WANDB_MODE": "offline", "HOME": str(tmp_path / "home")}
    environment.pop("WANDB_DIR", None)
    (tmp_path / "work").mkdir()
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path / "work",
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert [entry.name for entry in (tmp_path / "work").iterdir()] == ["run"]
    assert list((tmp_path / "work" / "run" / "wandb").glob("offline-run-*"))


@pytest.mark.parametrize("says", [None, "", "{}", '{"starts": []}', '{"starts": 3}', "[]", "{", '{"starts": [1]}'])
def test_only_the_folder_of_a_run_is_cleared(tmp_path: Path, says: str | None) -> None:
    files = {"samples/one.wav": "mine", "checkpoints/best": "mine", "model_config.json": "{}", "notes.txt": "mine"}
    if says is not None:
        files["run.json"] = says
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    before = content(tmp_path)
    with pytest.raises(
        UserError, match=rf"--results_folder {tmp_path}: --overwrite clears only .*remove checkpoints, model_config"
    ):
        train(tmp_path, overwrite=True)
    assert content(tmp_path) == before


def test_overwriting_where_nothing_is_removed(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    train(tmp_path, overwrite=True)
    assert (tmp_path / "notes.txt").read_text() == "mine"
    assert saved_steps(tmp_path) == [5, 6]


def test_fewer_steps_than_were_made_train_nothing_and_say_so(run: Path, capfd: pytest.CaptureFixture[str]) -> None:
    before = content(run / "checkpoints")
    train(run, continue_from_dir=run, steps=4)
    assert "nothing was trained: step 6 is made already, and num_train_steps is 4" in capfd.readouterr().err
    assert content(run / "checkpoints") == before


def test_going_back_removes_what_later_steps_wrote(run: Path) -> None:
    for step in (5, 6):
        (run / "samples" / f"step_{step:08d}").mkdir(parents=True, exist_ok=True)
    train(run, continue_from_dir=run, continue_from_step=5, steps=5, overwrite=True)
    assert [path.name for path in (run / "samples").iterdir()] == ["step_00000005"]


def test_the_only_validation_file_disappears_and_training_goes_on(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Gone(small_training.MadeUpTokens):
        """Its only file is there for the first validation."""

        taken = 0

        def __getitem__(self, index: int) -> list[torch.Tensor]:
            Gone.taken += 1
            if Gone.taken > 10:
                raise UserError("none of the 1 sound files can be used; the first one is a.wav: No such file")
            return super().__getitem__(index)

    data = small_training.training_data

    def with_gone(*arguments: object) -> object:
        return data(*arguments).__class__(**{**vars(data(*arguments)), "validation": Gone()})

    monkeypatch.setattr(small_training, "training_data", with_gone)
    train(tmp_path / "run", steps=30)
    assert saved_steps(tmp_path / "run")[-1] == 30
    output = capfd.readouterr().err
    assert output.count("continues without validation: none of the 1 sound files can be used") == 1
    lines = [json.loads(line) for line in (tmp_path / "run/log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "validation_loss" in line] == [5]
    assert len([line for line in lines if "loss" in line]) == 30


@pytest.mark.parametrize(
    "error", [OSError(errno.ENOSPC, "No space left on device"), UserError("x: cannot write: full")]
)
def test_samples_that_cannot_be_written_end_nothing(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def refused(*_: object) -> list[Path]:
        raise error

    monkeypatch.setattr("open_musiclm.training.stage_trainer.StageTrainer.write_samples", refused)
    train(tmp_path / "run", steps=30)
    assert saved_steps(tmp_path / "run")[-1] == 30
    assert capfd.readouterr().err.count("cannot write samples, continues without: ") == 1


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        ({"WORLD_SIZE": "4", "GROUP_WORLD_SIZE": "1"}, {"multi_gpu": True, "num_processes": 4}),
        (
            {"WORLD_SIZE": "2", "ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2"},
            {"use_fsdp": True, "fsdp_version": "2", "num_processes": 2},
        ),
        (
            {"WORLD_SIZE": "8", "GROUP_WORLD_SIZE": "2", "GROUP_RANK": "1", "MASTER_ADDR": "a", "MASTER_PORT": "29"},
            {"num_processes": 8, "num_machines": 2, "machine_rank": 1, "main_process_ip": "a", "main_process_port": 29},
        ),
    ],
)
def test_the_command_of_a_launched_run_names_its_processes(
    told: dict[str, str], expected: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("WORLD_SIZE", "GROUP_WORLD_SIZE", "ACCELERATE_USE_FSDP", "FSDP_VERSION"):
        monkeypatch.delenv(name, raising=False)
    for name, value in told.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, "argv", ["scripts/train_semantic_stage.py", "--results_folder", "run"])
    launcher, launch, *words = command_line()
    assert (launcher, launch) == ("accelerate", "launch")
    parsed = vars(launch_command_parser().parse_args(words))
    assert {name: parsed[name] for name in expected} == expected
    assert parsed["training_script"] == "scripts/train_semantic_stage.py"
    assert parsed["training_script_args"] == ["--results_folder", "run"]
