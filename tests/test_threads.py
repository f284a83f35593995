"""The number of threads of decode steps."""

import pytest
import torch

from open_musiclm.generation.decoding.threads import STEPS_BETWEEN_TRIALS, TRIED_STEPS, AdaptiveThreads


class Machine:
    """A clock that each step moves on by what its number of threads costs."""

    def __init__(self, cost: dict[int, float]) -> None:
        self.cost, self.now, self.used = cost, 0.0, list[int]()

    def clock(self) -> float:
        return self.now

    def step(self) -> None:
        self.used.append(torch.get_num_threads())
        self.now += self.cost[self.used[-1]]


@pytest.mark.parametrize(("cost", "best"), [({4: 1, 2: 2, 1: 4}, 4), ({4: 50, 2: 9, 1: 4}, 1), ({4: 5, 2: 3, 1: 4}, 2)])
def test_the_fastest_number_is_used(cost: dict[int, float], best: int) -> None:
    machine, before = Machine(cost), torch.get_num_threads()
    threads = AdaptiveThreads(4, machine.clock)
    trial = 3 * (TRIED_STEPS + 1)
    for _ in range(trial + STEPS_BETWEEN_TRIALS):
        threads.run(machine.step)
    assert set(machine.used[trial:]) == {best}
    assert torch.get_num_threads() == before


def test_a_machine_that_becomes_busy_is_noticed() -> None:
    machine = Machine({2: 1.0, 1: 2.0})
    threads = AdaptiveThreads(2, machine.clock)
    for _ in range(STEPS_BETWEEN_TRIALS):
        threads.run(machine.step)
    assert threads.best == 2
    machine.cost = {2: 80.0, 1: 2.2}
    for _ in range(2 * STEPS_BETWEEN_TRIALS):
        threads.run(machine.step)
    assert threads.best == 1
    assert machine.used[-50:] == [1] * 50


def test_one_delayed_step_decides_nothing() -> None:
    machine = Machine({2: 1.0, 1: 2.0})
    threads = AdaptiveThreads(2, machine.clock)
    for number in range(STEPS_BETWEEN_TRIALS):
        threads.run(machine.step)
        if number == 0:
            machine.cost[2] = 40.0
        elif number == 1:
            machine.cost[2] = 1.0
    assert threads.best == 2


def test_a_step_that_fails_leaves_the_number_as_it_was() -> None:
    before = torch.get_num_threads()
    threads = AdaptiveThreads(before + 1)
    with pytest.raises(ZeroDivisionError):
        threads.run(lambda: 1 // 0)
    assert torch.get_num_threads() == before
