"""The figures of benchmarks/code_prediction.py and benchmarks/frame_rates.py."""

import math
import sys
from pathlib import Path

import pytest
import torch
from helpers.paths import DEMO, REPOSITORY

from open_musiclm import audio

sys.path.insert(0, str(REPOSITORY / "benchmarks"))

import frame_rates
from code_prediction import nats_per_frame

SIZE = 4


def test_what_a_frame_tells_of_the_next_is_predicted() -> None:
    random = torch.Generator().manual_seed(0)
    codes = torch.randint(SIZE, (2, 2000, 2), generator=random)
    codes[..., 0] = torch.arange(2000) % SIZE  # follows from the frame before; the other codebook is random
    certain, uncertain = nats_per_frame(codes[:1], codes[1:], SIZE, steps=60)
    assert certain < 0.1
    assert uncertain == pytest.approx(math.log(SIZE), abs=0.1)


def test_frame_rates_are_compared(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number in range(2):
        noise = torch.randn(60000, generator=torch.Generator().manual_seed(number)) * torch.linspace(0, 0.2, 60000)
        audio.write_wave(tmp_path / f"{number}.wav", noise, 24000)
    trained = str(DEMO / "bundle/encodec")
    command = ["25:3x2", "75:1x2", trained, "--clips", str(tmp_path), "--training", str(tmp_path), "--seconds", "2.5"]
    frame_rates.main(frame_rates.arguments().parse_args([*command, "--prediction_steps", "20"]))
    rows = [line.strip("| ").split(" | ") for line in capsys.readouterr().out.splitlines()[2:]]
    assert [row[:3] for row in rows] == [
        ["25", "3 x 2", "0.07"], ["75", "1 x 2", "0.07"], ["25", "6 x 1024", "1.50"]
    ]  # fmt: skip
    assert all(0 < float(row[3]) < 3 for row in rows)
    with pytest.raises(SystemExit):
        frame_rates.arguments().parse_args(["37:3x2", *command[3:]])
