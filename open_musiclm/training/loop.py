"""The loop of every `Trainer`: steps, validation, samples, checkpoints, resuming, signals."""

import math
import time
from collections.abc import Iterator, Mapping
from itertools import takewhile
from typing import Any

import torch
from accelerate.utils import set_seed
from safetensors import SafetensorError

from open_musiclm.checkpoints import saved_steps
from open_musiclm.config import TrainerConfig
from open_musiclm.errors import UserError
from open_musiclm.interruption import Interrupted, Interruption
from open_musiclm.terminal import print_stderr
from open_musiclm.training.checkpointing import TrainingState, restore_checkpoint, save_checkpoint, write_best
from open_musiclm.training.data_stream import TrainingData, TrainingStream, ValidationSet
from open_musiclm.training.early_stop import LossHistory
from open_musiclm.training.failure_list import FailureList
from open_musiclm.training.run import Run
from open_musiclm.training.run_folder import FAILURES_NAME, SAMPLES_FOLDER
from open_musiclm.training.tracking import RunLog, peak_memory_gb
from open_musiclm.training.trainer import IndexedBatch, StepResult, Trainer

MAX_SKIPPED_IN_A_ROW = 10


class Loop:
    """Trains `trainer` on `data` for `config.num_train_steps` steps in `run`'s folder.

    With `early_stop_patience` it ends after so many validations in a row without a lower loss; the results folder then
    means the checkpoint with the lowest loss.

    On the same number of processes, a resumed run has the losses of an uninterrupted one. Raises UserError; checkpoints
    on disk stay intact.
    """

    def __init__(
        self,
        trainer: Trainer,
        data: TrainingData,
        run: Run,
        config: TrainerConfig,
        early_stop_patience: int | None = None,
    ) -> None:
        self.trainer, self.data, self.run, self.config = trainer, data, run, config
        self.patience = early_stop_patience
        self.accelerator = run.accelerator
        self.state = TrainingState(validated_step=0)
        self.failures = FailureList(run.folder / FAILURES_NAME, self.accelerator)
        self.failures.add(data.unusable)
        self.validation = None
        if data.validation is not None:
            self.validation = ValidationSet(data, self.accelerator, self.failures, config)
        self._validated: tuple[int, Mapping[str, float]] | None = None
        self._validation_failed = False
        self._skipped_in_a_row = 0
        self.interruption = Interruption()

    def train(self) -> None:
        """Runs to the last step and saves. Raises Interrupted where a signal ended it before, after saving too."""
        set_seed(self.config.seed, device_specific=True)
        if self.run.checkpoint is not None:
            self._restore()
        self.run.open_folder()
        if self.run.resumes_in_place and self.accelerator.is_main_process:
            write_best(self.run.folder, self.state)
        self.log = RunLog(
            self.accelerator, self.run.folder, self.trainer.name, self.state.step, self.config.num_train_steps
        )
        if self.state.step >= self.config.num_train_steps:
            self.log.print(
                f"nothing was trained: step {self.state.step} is made already, and num_train_steps is "
                f"{self.config.num_train_steps}, or repeat ends there; raise them to continue"
            )
        elif self._is_done():
            self.log.print("nothing was trained: this run stopped early; raise early_stop_patience to continue")
        stopped_by = 0
        self.stream = TrainingStream(self.data, self.accelerator, self.failures, self.state.draws)
        try:
            with self.interruption:
                if self._lacks_validation():
                    self._validate()
                    self._note_best()
                while not self._is_done() and not stopped_by:
                    self._step()
                    stopped_by = self._max_over_processes(self.interruption.number)
                finished = self._is_done()
                self._save(validated=finished)
            self.failures.report()
            self._report_early_stop()
        finally:
            self.stream.close()
            self.log.close()
        if not finished:
            self.log.print(f"stopped after step {self.state.step}; resume with: {self.run.resume_command()}")
            self.accelerator.wait_for_everyone()  # a launcher ends all processes when the first one ends
            raise Interrupted(stopped_by)

    def _max_over_processes(self, here: int) -> int:
        """The largest of the processes' numbers: all processes call this, and all get the same answer."""
        if self.accelerator.num_processes == 1:
            return here
        return int(self.accelerator.gather(torch.tensor([here], device=self.accelerator.device)).max())

    def _is_done(self) -> bool:
        return self.state.step >= self.config.num_train_steps or self.state.losses.should_stop(self.patience)

    def _report_early_stop(self) -> None:
        losses = self.state.losses
        if losses.should_stop(self.patience):
            self.log.print(
                f"stopped early after step {self.state.step}: no lower validation loss in {losses.validations_since} "
                f"validations; the folder stands for its best checkpoint, of step {self.state.best_step}"
            )

    def _step(self) -> None:
        begun, waited = time.perf_counter(), self.stream.waited_seconds
        result = self.trainer.train_step(self.stream.take(self.trainer.batches_per_step), self.state.step)
        first_index = self.state.draws
        self.state = self.state.after_step(self.stream.position, result.loss)
        seconds = time.perf_counter() - begun
        amount = result.amount * self.accelerator.num_processes
        self.log.step(
            self.state.step,
            {
                "loss": result.loss,
                **result.metrics,
                f"{self.trainer.unit.replace(' ', '_')}_per_second": amount / seconds,
                "data_wait_share": (self.stream.waited_seconds - waited) / seconds,
                "memory_gb": peak_memory_gb(self.accelerator.device),
            },
        )
        self._count_skipped(result, first_index)
        if self.state.step % self.config.save_results_every == 0:
            self._validate()
            self._write_samples()
        if self.trainer.evaluate_every is not None and self.state.step % self.trainer.evaluate_every == 0:
            self._evaluate()
        is_best = self.patience is not None and self.state.losses.is_lowest(self.state.step)
        if self.state.step % self.config.save_model_every == 0 or is_best:
            self._save(validated=True)

    def _count_skipped(self, result: StepResult, first_index: int) -> None:
        if not result.skipped:
            self._skipped_in_a_row = 0
            return
        self._skipped_in_a_row += 1
        self.state = self.state.after_skip()
        batch = f"examples {first_index} to {self.state.draws - 1} of the training stream"
        self.log.print(f"step {self.state.step}: loss or gradient is not finite ({batch}): skipped")
        if self._skipped_in_a_row >= MAX_SKIPPED_IN_A_ROW:
            raise UserError(
                f"{self.trainer.name}: the loss was not finite {MAX_SKIPPED_IN_A_ROW} times in a row, last in step "
                f"{self.state.step} ({batch}); these steps changed no weights. Lower lr, or set precision "
                "to float32, and resume from the last checkpoint"
            )

    def _validate(self) -> None:
        """Validates after this step, once; a signal ends this early, without a result."""
        if self.validation is None or self._is_validated():
            return
        values = self.trainer.validate(self._until_interrupted(self.validation))
        if self._max_over_processes(self._validation_failed):
            self.validation = None
            return
        if self._max_over_processes(self.interruption.requested):
            return
        self._validated = (self.state.step, values)
        self.log.validated(self.state.step, values)
        overfitted = self.state.losses.overfits
        self.state = self.state.after_validation(values["loss"])
        if self.state.losses.overfits and not overfitted:
            self.log.print(self.state.losses.describe())

    def _until_interrupted(self, validation: ValidationSet) -> Iterator[IndexedBatch[Any]]:
        """The batches of the validation set up to a signal, one at least, or to where none can be made any more."""
        try:
            for batch in validation:
                yield batch
                if self.interruption.requested:
                    return
        except UserError as error:
            self._fail_validation(error)

    def _fail_validation(self, error: UserError) -> None:
        """Continues without validation if all validation files are gone: the trained weights matter more."""
        if not self._validation_failed:
            print_stderr(f"{self.trainer.name}: continues without validation: {error}")
        self._validation_failed = True

    def _is_validated(self) -> bool:
        return self._validated is not None and self._validated[0] == self.state.step

    def _write_samples(self) -> None:
        if self.validation is None or not self._is_validated():
            return
        if not self.accelerator.is_main_process:
            self.trainer.run_beside_samples()
            return
        folder = self.run.folder / SAMPLES_FOLDER / f"step_{self.state.step:08d}"
        try:
            batch = next(iter(self.validation)).batch
        except UserError as error:
            self._fail_validation(error)
            self.trainer.run_beside_samples()
            return
        try:
            self.log.waves(self.state.step, self.trainer.write_samples(batch, folder))
        except (OSError, SafetensorError, UserError) as error:
            self.log.warn_once("samples", error)

    def _evaluate(self) -> None:
        """What is generated from the validation set, in numbers; a signal ends this early, without a result."""
        if self.validation is None or not self.accelerator.is_main_process:
            return
        batches = takewhile(lambda _: not self.interruption.requested, self.validation)
        try:
            with torch.random.fork_rng(devices=[]):  # a loader draws a seed
                values = self.trainer.evaluate(batches)
        except UserError as error:
            if not self.interruption.requested:
                self.log.warn_once("the evaluation", error)
        else:
            if not self.interruption.requested:
                self.log.evaluated(self.state.step, values)

    def _save(self, validated: bool) -> None:
        """Writes the checkpoint of this step, if it does not exist yet."""
        is_saved = self.accelerator.is_main_process and self.state.step in saved_steps(self.run.folder)
        if self._max_over_processes(is_saved):  # of another machine the list of a shared folder may be older
            return
        if validated:
            self._validate()
        self._note_best()
        folder = save_checkpoint(self.run.folder, self.trainer, self.state, self.accelerator, self.config.keep_last)
        self.log.print(f"saved {folder}")

    def _note_best(self) -> None:
        """Makes this step the best one, if its validation says so."""
        if self._validated is not None and self._is_validated():
            loss, best = self._validated[1]["loss"], self.state.best_validation_loss
            if math.isfinite(loss) and (best is None or not best <= loss):
                self.state = self.state.with_best(self.state.step, loss, self.patience is not None)

    def _lacks_validation(self) -> bool:
        """Whether a signal ended the validation that was due after the restored step."""
        step, validated = self.state.step, self.state.validated_step
        was_due = 0 in (step % self.config.save_results_every, step % self.config.save_model_every)
        return step > 0 and was_due and validated not in (None, step)

    def _restore(self) -> None:
        assert self.run.checkpoint is not None
        self.state = restore_checkpoint(self.run.checkpoint, self.trainer, self.accelerator)
        if not self.run.resumes_in_place:
            self.state = self.state.with_best(None, None).with_losses(LossHistory())
        elif self.state.best_step not in saved_steps(self.run.folder):  # removed since, for a better one
            self.state = self.state.with_best(None, None)
        else:  # early_stop_patience may have come or gone since
            best, loss = self.state.best_step, self.state.best_validation_loss
            self.state = self.state.with_best(best, loss, self.patience is not None)
