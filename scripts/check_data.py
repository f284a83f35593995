"""Check a folder of sound before training: which files can be used, and whether they are enough for each config."""

import argparse
import itertools
from pathlib import Path

from open_musiclm import cli

CONFIGS = Path(__file__).resolve().parents[1] / "configs"


def arguments() -> argparse.ArgumentParser:
    parser = cli.plain_parser(__doc__)
    parser.add_argument(
        "--results_folder", type=Path, default=None, help="folder that the lines are also written to, as check_data.txt"
    )
    parser.add_argument("folder", type=Path, help="folder of sound")
    parser.add_argument(
        "--model_config", type=Path, default=None, help="check this config only; default: all shipped ones"
    )
    parser.add_argument(
        "--training_config", type=Path, default=None, help="check this config only; default: all shipped ones"
    )
    return parser


def main(arguments: argparse.Namespace) -> None:
    from open_musiclm.config import load_model_config, load_training_config
    from open_musiclm.data.check import check_data

    configs = {}
    for model, training in config_pairs(arguments.model_config, arguments.training_config):
        title = f"{model.parent.name}/{model.name} with {training.parent.name}/{training.name}"
        configs[title] = (load_model_config(model), load_training_config(training))
    for line in check_data(arguments.folder, configs, arguments.results_folder):
        cli.print_stdout(line)


def config_pairs(model: Path | None, training: Path | None) -> list[tuple[Path, Path]]:
    """The given configs; for one that is not given each shipped one. The demo's two are one pair."""
    models = [model] if model else sorted((CONFIGS / "model").glob("*.json"))
    trainings = [training] if training else sorted((CONFIGS / "training").glob("*.json"))
    demo = (CONFIGS / "demo" / "model.json", CONFIGS / "demo" / "training.json")
    is_wanted = not (model or training) and demo[0].exists()
    return [*itertools.product(models, trainings), *([demo] if is_wanted else [])]


if __name__ == "__main__":
    cli.run(main, arguments())
