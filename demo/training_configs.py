"""Write the configs of a whole training of the demo into a folder, for demo/train.sh.

Models lie beside the configs, as their copies in demo/configs have them in demo/bundle. With --share 0.01 each training
has a hundredth of its steps: a trial of the whole chain. An existing config is not replaced, so a training resumes with
the config that it began with.
"""

import argparse
from pathlib import Path
from typing import Any

from open_musiclm import cli

CONFIGS = Path(__file__).resolve().parent / "configs"
MODELS = ("model", "model_short_windows")
TRAININGS = (
    "train_spectral_codec", "train_vocos", "train_clap", "train_mert", "training_short_windows", "training_bundle",
)  # fmt: skip
STEPS = ("num_train_steps", "adversarial_from_step", "lr_warmup")
BACKBONES = "../bundle/"


def arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("target", type=Path, help="the folder to write to")
    parser.add_argument("--share", type=cli.positive_float, default=1.0, help="share of the steps of each training")
    return parser


def main(arguments: argparse.Namespace) -> None:
    from open_musiclm.config.json_files import read_json
    from open_musiclm.files import prepare_folder, write_json

    prepare_folder(arguments.target)
    for name in (*MODELS, *TRAININGS):
        target = arguments.target / f"{name}.json"
        if not target.exists():
            write_json(target, beside_models(shortened(read_json(CONFIGS / f"{name}.json"), arguments.share)))


def shortened(config: Any, share: float) -> Any:
    """A config with that share of its trainings' steps, at least one."""
    if isinstance(config, dict):
        return {
            key: max(round(share * value), 1) if key in STEPS else shortened(value, share)
            for key, value in config.items()
        }
    return config


def beside_models(config: Any) -> Any:
    """A config whose backbones lie beside it."""
    if isinstance(config, dict):
        return {key: beside_models(value) for key, value in config.items()}
    return f"./{config.removeprefix(BACKBONES)}" if isinstance(config, str) and config.startswith(BACKBONES) else config


if __name__ == "__main__":
    cli.run(main, arguments())
