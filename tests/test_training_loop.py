"""The loop, in one process: what it writes, keeps, refuses and skips, and how a signal ends it."""

import json
import shutil
import signal
import time
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from helpers.run_logs import logged
from helpers.small_training import MadeUpTokens, model_config, trainer_config, training_data
from safetensors.torch import load_file

from open_musiclm.checkpoints import load_weights, saved_steps
from open_musiclm.config import StageTrainerConfig
from open_musiclm.errors import UserError
from open_musiclm.interruption import Interrupted, Interruption
from open_musiclm.models.stages import build_stage, load_stage
from open_musiclm.training.loop import MAX_SKIPPED_IN_A_ROW, Loop
from open_musiclm.training.options import RunOptions
from open_musiclm.training.random_states import random_states, restore_random_states
from open_musiclm.training.run import Run
from open_musiclm.training.stage_trainer import StageTools, StageTrainer
from open_musiclm.training.trainer import StepResult

CPU = torch.device("cpu")


class BrokenTrainer(StageTrainer):
    """Weights become NaN for the steps of `broken` only, so that loss and gradient are not finite there."""

    broken: range = range(0)

    def train_step(self, batches: Iterator, step: int) -> StepResult:
        scale = self.stage.layout.transformer.norm.gamma
        kept = scale.detach().clone()
        if step in self.broken:
            scale.data.fill_(float("nan"))
        result = super().train_step(batches, step)
        if step in self.broken:
            scale.data.copy_(kept)
        return result


def train(
    folder: Path,
    config: StageTrainerConfig,
    options: RunOptions | None = None,
    broken: range = range(0),
) -> BrokenTrainer:
    options = options or RunOptions("semantic", folder, log_with="none", device="cpu")
    run = Run.begin(options, model_config(), config, config.seed, batches_per_step=config.grad_accum_every)
    tools = StageTools(model_config(), tokenizer=None, codec=None)
    trainer = BrokenTrainer(run.accelerator, build_stage("semantic", model_config()), tools, config)
    trainer.broken = broken
    Loop(trainer, training_data(config), run, config).train()
    return trainer


def test_the_loss_falls_and_the_folder_is_complete(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    train(folder, trainer_config(), RunOptions("semantic", folder, device="cpu"))
    losses, validation = logged(folder), logged(folder, "validation_loss")
    assert len(losses) == 30
    assert losses[-1] < losses[0] / 3
    assert logged(folder, "learning_rate")[:6] == pytest.approx([0.002, 0.004, 0.006, 0.008, 0.01, 0.01])
    for key in ("gradient_norm", "tokens_per_second", "data_wait_share", "memory_gb", "seconds_to_end"):
        assert len(logged(folder, key)) == 30
    best = json.loads((folder / "checkpoints/best.json").read_text())
    assert best["validation_loss"] == min(validation)
    assert set(saved_steps(folder)) == {20, 25, 30} | {best["step"]}
    assert json.loads((folder / "run.json").read_text())["starts"][0]["seed"] == 0
    assert json.loads((folder / "model_config.json").read_text())["semantic_cfg"]["dim"] == 16
    assert list((folder / "tracker").rglob("events.out.*"))
    tokens = load_file(folder / "samples/step_00000030/tokens.safetensors")
    assert tokens["predicted"].shape == tokens["true"].shape == (4, 10, 1)


def test_weights_are_for_inference_too(tmp_path: Path) -> None:
    trainer = train(tmp_path / "run", trainer_config(num_train_steps=2))
    stage = load_stage(tmp_path / "run", "semantic", model_config(), CPU)
    for name, value in trainer.stage.layout.state_dict().items():
        assert torch.equal(stage.layout.state_dict()[name], value), name
    assert load_weights(tmp_path / "run", "semantic").model_config == model_config()


def test_folder_with_something_in_it_is_refused_and_overwriting_keeps_what_is_not_a_runs(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    train(folder, trainer_config(num_train_steps=6))
    (folder / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match=r"not empty.*--overwrite"):
        train(folder, trainer_config(num_train_steps=3))
    assert saved_steps(folder) == [5, 6]
    train(folder, trainer_config(num_train_steps=3), RunOptions("semantic", folder, True, "none", "cpu"))
    assert saved_steps(folder) == [3]
    assert len(logged(folder)) == 3
    assert (folder / "notes.txt").read_text() == "mine"


def test_a_run_that_cannot_begin_removes_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    train(folder, trainer_config(num_train_steps=3))
    config = trainer_config(num_train_steps=3)
    Run.begin(
        RunOptions("semantic", folder, True, "none", "cpu"), model_config(), config, config.seed, batches_per_step=2
    )
    assert saved_steps(folder) == [3]


def test_going_on_where_later_checkpoints_are(tmp_path: Path) -> None:
    folder, elsewhere = tmp_path / "run", tmp_path / "other"
    train(folder, trainer_config(num_train_steps=15, keep_last=5))
    before = logged(folder)

    def options(into: Path, overwrite: bool = False, step: int = 5) -> RunOptions:
        return RunOptions("semantic", into, overwrite, "none", "cpu", folder, step)

    config = trainer_config(num_train_steps=15, keep_last=5)
    with pytest.raises(UserError, match=r"holds later checkpoints \(up to step 15\)"):
        train(folder, config, options(folder))
    with pytest.raises(UserError, match=r"--continue_from_step 7: .* has 5, 10, 15"):
        train(folder, config, options(folder, step=7))
    train(elsewhere, config, options(elsewhere))
    assert logged(elsewhere) == before[5:]
    assert saved_steps(folder) == [5, 10, 15]
    train(folder, config, options(folder, overwrite=True))
    assert logged(folder) == before


def test_loss_that_is_not_finite_changes_nothing(tmp_path: Path) -> None:
    config = trainer_config(num_train_steps=8)
    trainer = train(tmp_path / "run", config, broken=range(2, 4))
    lines = [json.loads(line) for line in (tmp_path / "run/log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "loss" in line and line["loss"] is None] == [3, 4]
    assert all(value.isfinite().all() for value in trainer.stage.state_dict().values())
    state = json.loads((tmp_path / "run/checkpoints/step_00000008/state.json").read_text())
    assert state["skipped_steps"] == 2


def test_loss_that_stays_not_finite_ends_the_run(tmp_path: Path) -> None:
    first, last = 6, 6 + MAX_SKIPPED_IN_A_ROW
    with pytest.raises(
        UserError,
        match=rf"not finite {MAX_SKIPPED_IN_A_ROW} times in a row, last in step {last} "
        rf"\(examples {(last - 1) * 8} to {last * 8 - 1} of the training stream\)",
    ):
        train(tmp_path / "run", trainer_config(save_model_every=4), broken=range(first, 30))
    assert saved_steps(tmp_path / "run")


def test_a_first_validation_loss_of_nan_is_not_the_best(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    validate, losses = StageTrainer.validate, []

    def nan_at_first(self: StageTrainer, batches: Iterable) -> dict[str, float]:
        metrics = {**validate(self, batches)}
        losses.append(metrics["loss"] if losses else float("nan"))
        return {**metrics, "loss": losses[-1]}

    monkeypatch.setattr(StageTrainer, "validate", nan_at_first)
    train(tmp_path / "run", trainer_config(num_train_steps=15))
    best = json.loads((tmp_path / "run/checkpoints/best.json").read_text())
    assert best["validation_loss"] == min(losses[1:])
    assert logged(tmp_path / "run", "validation_loss") == [None, *losses[1:]]


def test_disk_that_refuses_leaves_the_last_checkpoint_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "run"
    save = torch.save

    def full(state: object, file: object) -> None:
        if saved_steps(folder) == [5]:
            raise OSError(28, "No space left on device")
        save(state, file)

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(UserError, match=r"step_00000010: cannot write .*No space left.*checkpoint of step 5 is intact"):
        train(folder, trainer_config())
    assert [entry.name for entry in (folder / "checkpoints").glob("*step*")] == ["step_00000005"]


def test_results_folder_is_that_of_the_run_that_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    config = trainer_config(num_train_steps=3)
    train(tmp_path / "run", config)
    new = Run.begin(RunOptions("semantic", log_with="none", device="cpu"), model_config(), config, 0)
    assert new.folder == Path("results/semantic")
    for source in (tmp_path / "run", tmp_path / "run/checkpoints/step_00000003"):
        options = RunOptions("semantic", log_with="none", device="cpu", continue_from=source)
        assert Run.begin(options, model_config(), config, 0).folder == tmp_path / "run"


def test_a_copy_of_a_checkpoint_goes_on_in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once the run wrote beside the copy's folder, and removed files there."""
    monkeypatch.chdir(tmp_path)
    config = trainer_config(num_train_steps=3)
    train(tmp_path / "run", config)
    copy = shutil.copytree(tmp_path / "run/checkpoints/step_00000003", tmp_path / "home/backup/step_00000003")
    options = RunOptions("semantic", log_with="none", device="cpu", continue_from=copy)
    run = Run.begin(options, model_config(), config, 0)
    assert (run.folder, run.resumes_in_place) == (Path("results/semantic"), False)


def test_random_states_come_back() -> None:
    import random

    import numpy as np

    def draw() -> tuple:
        return random.random(), random.gauss(0, 1), np.random.rand(), np.random.randn(), torch.rand(3).tolist()  # noqa: NPY002

    random.gauss(0, 1)  # so that a second one is kept for the next call
    states = random_states(CPU)
    first = draw()
    draw()
    restore_random_states(states, CPU)
    assert draw() == first


def test_signal_ends_a_long_validation(tmp_path: Path) -> None:
    folder, config = tmp_path / "run", trainer_config()
    asked_for: list[int] = []

    class Stopped(MadeUpTokens):
        def __getitem__(self, index: int) -> list[torch.Tensor]:
            asked_for.append(index)
            if index == 5:
                signal.raise_signal(signal.SIGTERM)
            return super().__getitem__(index)

    run = Run.begin(
        RunOptions("semantic", folder, log_with="none", device="cpu"), model_config(), config, config.seed, "float32", 2
    )
    trainer = StageTrainer(
        run.accelerator, build_stage("semantic", model_config()), StageTools(model_config(), None, None), config
    )
    data = replace(training_data(config), validation=Stopped(), validation_examples=1000)
    with pytest.raises(Interrupted) as stopped:
        Loop(trainer, data, run, config).train()
    assert stopped.value.exit_status == 143
    assert max(asked_for) < 20
    assert saved_steps(folder) == [5]
    assert not logged(folder, "validation_loss")


def test_signal_ends_what_is_generated_for_an_evaluation(tmp_path: Path) -> None:
    evaluated: list[object] = []

    class Stopped(StageTrainer):
        def evaluate(self, batches: Iterable) -> dict[str, float]:
            signal.raise_signal(signal.SIGTERM)
            evaluated.extend(batches)
            return {"fad": 1.0}

    config = trainer_config(num_train_steps=15)
    run = Run.begin(RunOptions("semantic", tmp_path / "run", log_with="none", device="cpu"), model_config(), config, 0)
    tools = StageTools(model_config(), tokenizer=None, codec=None)
    trainer = Stopped(run.accelerator, build_stage("semantic", model_config()), tools, config)
    trainer.evaluate_every = 1
    with pytest.raises(Interrupted):
        Loop(trainer, training_data(config), run, config).train()
    assert evaluated == []
    assert saved_steps(tmp_path / "run") == [1]
    assert not logged(tmp_path / "run", "generated_fad")


def test_a_validation_that_a_signal_ended_is_made_when_the_run_goes_on(tmp_path: Path) -> None:
    class Stopped(StageTrainer):
        def validate(self, batches: Iterable) -> dict[str, float]:
            signal.raise_signal(signal.SIGTERM)
            return dict(super().validate(batches))

    config = trainer_config(num_train_steps=15)
    train(tmp_path / "whole", config)
    folder = tmp_path / "stopped"
    options = RunOptions("semantic", folder, log_with="none", device="cpu")
    run = Run.begin(options, model_config(), config, config.seed, batches_per_step=config.grad_accum_every)
    tools = StageTools(model_config(), tokenizer=None, codec=None)
    trainer = Stopped(run.accelerator, build_stage("semantic", model_config()), tools, config)
    with pytest.raises(Interrupted):
        Loop(trainer, training_data(config), run, config).train()
    assert saved_steps(folder) == [5]
    assert not logged(folder, "validation_loss")
    train(folder, config, replace(options, continue_from=folder))
    for key in ("loss", "validation_loss"):
        assert logged(folder, key) == logged(tmp_path / "whole", key)
    best = [json.loads((path / "checkpoints/best.json").read_text()) for path in (folder, tmp_path / "whole")]
    assert best[0] == best[1]


def test_the_best_checkpoint_of_a_run_that_begins_again_is_one_that_is_there(tmp_path: Path) -> None:
    """The best one before step 15 is removed for that of step 20, and then the run goes on from step 15."""
    losses = {5: 1.0, 10: 2.0, 15: 3.0, 20: 0.5}

    class Told(StageTrainer):
        def validate(self, batches: Iterable) -> dict[str, float]:
            return {**super().validate(batches), "loss": losses[loop.state.step]}

    config, folder = trainer_config(num_train_steps=20, keep_last=2), tmp_path / "run"
    tools = StageTools(model_config(), tokenizer=None, codec=None)
    options = RunOptions("semantic", folder, log_with="none", device="cpu")
    for again in (False, True):
        if again:
            losses[20] = 4.0
            options = replace(options, overwrite=True, continue_from=folder, continue_from_step=15)
        run = Run.begin(options, model_config(), config, config.seed, batches_per_step=config.grad_accum_every)
        trainer = Told(run.accelerator, build_stage("semantic", model_config()), tools, config)
        loop = Loop(trainer, training_data(config), run, config)
        loop.train()
    best = json.loads((folder / "checkpoints/best.json").read_text())
    assert best["step"] in saved_steps(folder)
    assert best["validation_loss"] == losses[best["step"]]


def test_compiling_on_a_cpu_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"semantic_trainer_cfg: compile: .* set it false"):
        train(tmp_path / "run", trainer_config(compile=True))


def test_signal_is_remembered_and_a_second_ctrl_c_stops() -> None:
    before = signal.getsignal(signal.SIGINT)
    with Interruption() as interruption:
        assert not interruption.requested
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)  # the same press, passed on by a launcher
        assert interruption.requested
        time.sleep(1.1)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) == before
