"""Train a CLAP further, so that instrument names and tempi match sounds (demo/backbones/instrument_matching.py).

The target holds a clap directory for the last step that was saved, step_00000200 and so on; the same command again
continues from it. None of the sentences is in the prompts of demo/evaluate.py.
"""

import argparse
from pathlib import Path

from open_musiclm import cli


def arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("source", type=Path, help="the clap directory that scripts/train_clap.py wrote")
    parser.add_argument("target", type=Path, help="the directory to write to")
    parser.add_argument("--config", type=Path, required=True, help="the config that scripts/train_clap.py was given")
    parser.add_argument("--model_config", type=Path, required=True, help="names the codec")
    parser.add_argument("--steps", type=cli.positive_int, default=2500)
    parser.add_argument("--batch_size", type=cli.positive_int, default=64, help="examples of a step")
    parser.add_argument(
        "--freeze_text",
        action="store_true",
        help="train the audio tower alone: the tokens of captions stay as they are",
    )
    parser.add_argument(
        "--rvq_path", type=Path, default=None, help="a CLAP quantizer: bring sounds to codes of their instrument family"
    )
    return parser


def main(arguments: argparse.Namespace) -> None:
    from demo.backbones.instrument_matching import MatchingOptions, train_instrument_matching
    from open_musiclm.config import load_model_config
    from open_musiclm.config.backbones import ClapTrainingConfig
    from open_musiclm.config.json_files import load_section

    trainer = load_section(arguments.config, ClapTrainingConfig).trainer
    model_config = load_model_config(arguments.model_config)
    options = MatchingOptions(
        trainer, model_config, arguments.steps, arguments.batch_size, arguments.freeze_text, arguments.rvq_path
    )
    train_instrument_matching(arguments.source, arguments.target, options, cli.print_stdout)


if __name__ == "__main__":
    cli.run(main, arguments())
