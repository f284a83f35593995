"""Data streams of a training run: where they resume, the validation set, and workers that die."""

import multiprocessing
import time
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from helpers.small_training import MadeUpTokens, collate, trainer_config, training_data
from torch.utils.data import DataLoader

from open_musiclm.errors import UserError
from open_musiclm.training.data_stream import TrainingStream, ValidationSet, validation_positions
from open_musiclm.training.failure_list import FailureList


@pytest.mark.parametrize("workers", [0, 2])
def test_stream_goes_on_where_it_was(tmp_path: Path, workers: int) -> None:
    data = training_data(trainer_config(num_workers=workers))
    accelerator = Accelerator(cpu=True)
    failures = FailureList(tmp_path / "failed", accelerator)
    with closing(TrainingStream(data, accelerator, failures, 0)) as stream:
        whole = list(stream.take(5))
    with closing(TrainingStream(data, accelerator, failures, 12)) as stream:
        resumed = list(stream.take(2))
    for expected, found in zip(whole[3:], resumed, strict=True):
        assert expected.indices == found.indices
        assert all(torch.equal(a, b) for a, b in zip(expected.batch, found.batch, strict=True))


def test_validation_is_the_whole_set_each_time(tmp_path: Path) -> None:
    accelerator = Accelerator(cpu=True)
    data = replace(training_data(trainer_config()), validation_examples=1003)
    validation = ValidationSet(data, accelerator, FailureList(tmp_path / "f", accelerator), trainer_config())
    first, second = list(validation), list(validation)
    assert [index for batch in first for index in batch.indices] == list(range(1003))
    assert sum(len(batch.batch[0]) for batch in first) == 1003
    assert all(torch.equal(a.batch[0], b.batch[0]) for a, b in zip(first, second, strict=True))


def test_validation_may_be_a_part_of_the_set_chosen_once_at_random(tmp_path: Path) -> None:
    class Placed(Accelerator):
        """As if in one of several processes."""

        process_index, num_processes = 0, 1

        def __init__(self, index: int, processes: int) -> None:
            super().__init__(cpu=True)
            self.process_index, self.num_processes = index, processes

    def positions(seed: int, processes: int) -> list[list[int]]:
        config = trainer_config(max_validation_examples=30, seed=seed)
        data = replace(training_data(config), validation_examples=1000)
        failures = FailureList(tmp_path / "f", Accelerator(cpu=True))
        parts = [ValidationSet(data, Placed(index, processes), failures, config) for index in range(processes)]
        for batch in (batch for part in parts for batch in part):
            expected = collate([MadeUpTokens()[index] for index in batch.indices])
            assert all(torch.equal(a, b) for a, b in zip(batch.batch, expected, strict=True))
        return [[index for batch in part for index in batch.indices] for part in parts]

    (alone,), (one, other) = positions(0, 1), positions(0, 2)
    assert len(set(alone)) == 30
    assert max(alone) > 500  # not the first ones
    assert sorted(one + other) == alone
    assert positions(1, 1) != [alone]
    assert validation_positions(20, 30, seed=0) == list(range(20))


def test_worker_that_dies_does_not_disturb_a_step(tmp_path: Path) -> None:
    accelerator = Accelerator(cpu=True)
    failures = FailureList(tmp_path / "f", accelerator)
    expected = list(TrainingStream(training_data(trainer_config()), accelerator, failures, 0).take(16))
    stream = TrainingStream(training_data(trainer_config(num_workers=2)), accelerator, failures, 0)
    assert len(list(DataLoader(range(2), num_workers=1))) == 2  # sets PyTorch's handler of dead workers, for good
    found = list(stream.take(1))
    multiprocessing.active_children()[0].kill()
    time.sleep(0.3)  # a step's work
    found += stream.take(15)
    stream.close()
    for one, other in zip(expected, found, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(one.batch, other.batch, strict=True))


def test_worker_that_dies_ends_with_a_clear_line(tmp_path: Path) -> None:
    config = trainer_config(num_workers=1)
    data = training_data(config, MadeUpTokens(dies_at=9))
    accelerator = Accelerator(cpu=True)
    with (
        closing(TrainingStream(data, accelerator, FailureList(tmp_path / "f", accelerator), 0)) as stream,
        pytest.raises(UserError, match=r"data workers died 3 times in a row, after [12] batches .*num_workers"),
    ):
        list(stream.take(5))
