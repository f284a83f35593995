"""Damaged or edited files of a run: each is named, and nothing else of the run changes."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from helpers.run_folders import content, train
from safetensors.torch import load_file, save_file

from open_musiclm.errors import UserError


def state(**changes: object) -> str:
    return json.dumps({"step": 6, "draws": 48, "skipped_steps": 0, "best_step": 6, "best_validation_loss": 1} | changes)


DAMAGED_STATES = ["", "{", "[]", "3", "null", '{"step": 6}}', "\ufeff{", "[" * 5000, state(more=1)]
DAMAGED_STATES += [state(step=value) for value in (None, -1, 6.5, "6", True, [6], {})]
DAMAGED_STATES += [state(draws="48"), state(skipped_steps=None), state(best_step="x"), state(best_validation_loss="x")]


@pytest.mark.parametrize("text", DAMAGED_STATES)
def test_a_damaged_state_is_named(run: Path, text: str) -> None:
    file = run / "checkpoints/step_00000006/state.json"
    file.write_text(text)
    refused_by(run, file)


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"starts": 3}', '{"starts": [3]}', "{}", "[" * 5000])
def test_a_damaged_run_json_is_named(run: Path, text: str) -> None:
    (run / "run.json").write_text(text)
    refused_by(run, run / "run.json")


@pytest.mark.parametrize("text", ["", "{", "[]", '{"step": "6"}', '{"step": 900, "validation_loss": 1.0}', "[" * 5000])
def test_a_damaged_best_is_written_again(run: Path, text: str) -> None:
    best = json.loads((run / "checkpoints/best.json").read_text())
    (run / "checkpoints/best.json").write_text(text)
    train(run, continue_from_dir=run, steps=7)
    again = json.loads((run / "checkpoints/best.json").read_text())
    assert again["validation_loss"] <= best["validation_loss"]


@pytest.mark.parametrize(
    "line", [b"", b"{", b"[]", b"3", b'{"step": "x"}', b'{"loss": 1}', b"\xff\xfe", b"[" * 5000, b'{"step": null}']
)
def test_lines_that_are_none_of_a_log_are_dropped(run: Path, line: bytes) -> None:
    log = run / "log.jsonl"
    whole = log.read_bytes()
    log.write_bytes(whole + line + b"\n" + whole[:9])
    train(run, continue_from_dir=run, steps=7)
    assert log.read_bytes().startswith(whole)
    assert [json.loads(text)["step"] for text in log.read_bytes()[len(whole) :].splitlines()] == [7, 7]


def test_a_log_that_is_a_folder_is_named(run: Path) -> None:
    (run / "log.jsonl").unlink()
    (run / "log.jsonl").mkdir()
    refused_by(run, run / "log.jsonl")


def with_state(change: Callable[[dict], object]) -> Callable[[Path], object]:
    def edit(file: Path) -> None:
        whole = torch.load(file, weights_only=True)
        torch.save(change(whole), file)

    return edit


def first_of(whole: dict, **values: object) -> dict:
    whole["state"][0].update(values)
    return whole


def cut_short(file: Path) -> None:
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def spoilt(whole: dict, name: str, bad: float = float("nan")) -> torch.Tensor:
    """A tensor of the first weight's state with one wrong number."""
    value = whole["state"][0][name].clone()
    value.view(-1)[-1] = bad
    return value


DAMAGED_OPTIMIZERS: dict[str, Callable[[Path], object]] = {
    "absent": Path.unlink,
    "empty": lambda file: file.write_bytes(b""),
    "cut short": cut_short,
    "text": lambda file: file.write_text("{}"),
    "a list": with_state(lambda whole: [whole]),
    "a tensor": with_state(lambda whole: torch.zeros(3)),
    "no keys": with_state(lambda whole: {}),
    "a state that is a list": with_state(lambda whole: {**whole, "state": []}),
    "groups that are a number": with_state(lambda whole: {**whole, "param_groups": 3}),
    "one group": with_state(lambda whole: {**whole, "param_groups": whole["param_groups"][:1]}),
    "a number of no weight": with_state(lambda whole: {**whole, "state": {999: whole["state"][0]}}),
    "a name for a number": with_state(lambda whole: {**whole, "state": {"x": whole["state"][0]}}),
    "values that are a list": with_state(lambda whole: {**whole, "state": {0: [1, 2, 3]}}),
    "another shape": with_state(lambda whole: first_of(whole, exp_avg=torch.zeros(2, 2))),
    "no tensor": with_state(lambda whole: first_of(whole, exp_avg="x")),
    "whole numbers": with_state(lambda whole: first_of(whole, step=torch.tensor(3))),
    "another name": with_state(lambda whole: first_of(whole, momentum=torch.zeros(3))),
    "NaN": with_state(lambda whole: first_of(whole, step=torch.tensor(float("nan")))),
    "NaN in a weight's average": with_state(lambda whole: first_of(whole, exp_avg=spoilt(whole, "exp_avg"))),
    "infinity": with_state(lambda whole: first_of(whole, exp_avg_sq=spoilt(whole, "exp_avg_sq", float("inf")))),
    "a negative square": with_state(lambda whole: first_of(whole, exp_avg_sq=spoilt(whole, "exp_avg_sq", -1.0))),
    "a negative step": with_state(lambda whole: first_of(whole, step=torch.tensor(-1.0))),
}


@pytest.mark.parametrize("damage", DAMAGED_OPTIMIZERS)
def test_a_damaged_optimizer_is_named(run: Path, damage: str) -> None:
    file = run / "checkpoints/step_00000006/optimizer.pt"
    DAMAGED_OPTIMIZERS[damage](file)
    refused_by(run, file)


DAMAGED_RANDOM_STATES: dict[str, Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]] = {
    "nothing": lambda states: {},
    "no torch": lambda states: {name: value for name, value in states.items() if name != "torch"},
    "short torch": lambda states: {**states, "torch": states["torch"][:10]},
    "floats for torch": lambda states: {**states, "torch": states["torch"].float()},
    "empty python": lambda states: {**states, "python": torch.zeros(0)},
    "short python": lambda states: {**states, "python": states["python"][:5]},
    "floats for python": lambda states: {**states, "python": states["python"].double() + 0.5},
    "negative python": lambda states: {**states, "python": -states["python"]},
    "two for one": lambda states: {**states, "python_gauss": torch.zeros(2)},
    "short numpy": lambda states: {**states, "numpy": states["numpy"][:3]},
    "one position": lambda states: {**states, "numpy_position": torch.zeros(1)},
    "a position beyond": lambda states: {**states, "numpy_position": torch.tensor([1 << 40, 0])},
}


@pytest.mark.parametrize("damage", [*DAMAGED_RANDOM_STATES, "cut short", "absent"])
def test_damaged_random_states_are_named(run: Path, damage: str) -> None:
    file = run / "checkpoints/step_00000006/random_0.safetensors"
    if damage == "cut short":
        cut_short(file)
    elif damage == "absent":
        file.unlink()
    else:
        save_file(DAMAGED_RANDOM_STATES[damage](load_file(file)), file)
    refused_by(run, file)


def refused_by(run: Path, file: Path) -> None:
    """Going on is refused by one line that names the file and what to do, and nothing is changed."""
    before = content(run)
    with pytest.raises(UserError, match=r"(resume from another checkpoint|remove (this file|it) and)") as refused:
        train(run, continue_from_dir=run, steps=8)
    assert str(file) in str(refused.value)
    assert "\n" not in str(refused.value)
    assert len(str(refused.value)) < 600
    assert content(run) == before
