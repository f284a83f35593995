"""Every backbone trained by two real processes and by one: the same batches give the same curves."""

import json
from pathlib import Path

import pytest
import torch
from helpers.processes import run_script
from helpers.small_backbones import ENCODEC, build_codec, model_config

from open_musiclm.audio import write_wave
from open_musiclm.config import EncodecConfig

SCRIPT = Path(__file__).parent / "helpers" / "backbones_training.py"
STEPS = 4
ARCHITECTURES = {
    "encodec": {"dimension": 16, "n_filters": 4, "lstm": 1, "n_q": 4, "bins": 16, "target_bandwidths": [1.2]},
    "clap": {"embedding_dim": 16, "text_dim": 16, "text_layers": 1, "text_heads": 2}
    | {"audio_dim": 8, "audio_depths": [1, 1], "audio_heads": [1, 2]},
    "mert": {"feature_dim": 16, "layers": 2, "heads": 2, "feed_forward_dim": 16, "front_end_channels": 8}
    | {"position_kernel": 8, "position_groups": 2, "dropout": 0.2},
    "spectral_codec": {"dim": 8, "code_layers": 1, "dimension": 8, "n_q": 2, "bins": 16}
    | {"resolutions": [{"window": 1024, "lowest_hz": 100, "highest_hz": 8000, "bands_per_octave": 4}]},
    "vocos": {"quantizers": [3, 8], "dim": 16, "intermediate_dim": 16, "layers": 1, "n_fft": 640},
}
TRAINERS = {
    "encodec": {"crop_seconds": 0.4, "spectrogram_windows": [64, 256], "adversarial_weight": 3.0}
    | {"feature_matching_weight": 3.0, "adversarial_from_step": 1, "discriminator_filters": 2, "init": "transform"},
    "clap": {},
    "mert": {"crop_seconds": 0.5, "unmasked_weight": 1.0},
    "spectral_codec": {"crop_seconds": 0.4, "init": "principal_components"},
    "vocos": {"crop_seconds": 0.4, "adversarial_weight": 0.3, "feature_matching_weight": 1.0}
    | {"adversarial_from_step": 1, "discriminator_periods": [], "discriminator_windows": [512]}
    | {"discriminator_channels": 4},
}
# AdamW moves a weight whose gradient is a rounding error by the whole rate, up or down: .1 % of the discriminator's. So
# its losses, and the gradients that take part in them, agree less exactly.
OF_A_DISCRIMINATOR = ("adversarial", "feature_matching", "gradient_norm")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten tones of random pitch with captions, two of which are alike, and a codec."""
    folder = tmp_path_factory.mktemp("processes")
    generator, lines = torch.Generator().manual_seed(0), []
    time = torch.arange(24000) / 24000
    for number in range(10):
        pitch = 110 * 2 ** (3 * torch.rand(1, generator=generator))
        wave = 0.5 * torch.sin(2 * torch.pi * pitch * time) + 0.01 * torch.randn(24000, generator=generator)
        write_wave(folder / "sounds" / f"{number}.wav", wave, 24000)
        lines.append(json.dumps({"file": f"{number}.wav", "caption": f"tone number {number % 4}"}))
    (folder / "sounds/captions.jsonl").write_text("\n".join(lines))
    build_codec(folder / "codec")
    return folder


def train(folder: Path, name: str, processes: int, steps: int, *words: object) -> Path:
    """Trains the backbones on a global batch of four; returns the folder of their results."""
    configs = folder / f"{name}_configs"
    configs.mkdir()
    codec = EncodecConfig(model_name=str(folder / "codec"), bandwidth=2.4, codebook_size=ENCODEC.bins)
    (configs / "model.json").write_text(model_config(codec).model_dump_json())
    shared = {"folder": str(folder / "sounds"), "num_train_steps": steps, "batch_size": 4 // processes, "lr": 1e-3}
    shared |= {
        "constant_share": 1.0,
        "precision": "float32",
        "num_workers": 0,
        "valid_frac": 0.3,
        "save_model_every": 2,
    }
    for kind, architecture in ARCHITECTURES.items():
        content = {"architecture": architecture, "trainer": {**shared, **TRAINERS[kind], "save_results_every": 2}}
        if kind == "vocos":
            content["trainer"]["codes_folder"] = str(folder / "codes")
        (configs / f"{kind}.json").write_text(json.dumps(content))
    run_script(SCRIPT, [configs, folder / name, *words], processes)
    return folder / name


def lines(results: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (results / "log.jsonl").read_text().splitlines()]


def of_the_machine(name: str) -> bool:
    """Whether a number of the log says something about time or memory."""
    return name.endswith("per_second") or name in ("data_wait_share", "memory_gb", "seconds_to_end")


@pytest.mark.slow
def test_backbones_have_one_curve_and_go_on_with_it(folder: Path) -> None:
    alone = train(folder, "alone", 1, STEPS)
    both = train(folder, "both", 2, STEPS // 2)
    train(folder, "on_one_again", 1, STEPS, "--continue_from", both)
    for kind in ARCHITECTURES:
        begun, whole = lines(both / kind), lines(alone / kind)
        resumed = lines(folder / "on_one_again" / kind)
        found = [*begun, *[line for line in resumed if line["step"] > STEPS // 2]]
        assert [line["step"] for line in found] == [line["step"] for line in whole]
        for expected, line in zip(whole, found, strict=True):
            assert line.keys() == expected.keys()
            for name in (name for name in line if not of_the_machine(name)):
                most = 1e-3 if name in OF_A_DISCRIMINATOR else 1e-4
                assert line[name] == pytest.approx(expected[name], abs=most, rel=most), (kind, line["step"], name)
