"""Measure the effect of an adapter for a new instrument on its own prompts and on others."""

import argparse
from pathlib import Path

from demo.defaults import BUNDLE
from demo.new_instrument import STEEL_DRUMS
from open_musiclm import cli


def arguments() -> argparse.ArgumentParser:
    parser = cli.parser(__doc__)
    parser.add_argument("--held_out", type=Path, required=True, help="clips of the instrument that were not trained on")
    parser.add_argument("--classifier_corpus", type=Path, nargs="+", required=True, help="demo corpora")
    parser.add_argument("--training_tokens", type=Path, required=True, help="the token store of the training")
    parser.add_argument("--num_own", type=cli.positive_int, default=24, help="prompts for the instrument")
    parser.add_argument("--num_control", type=cli.positive_int, default=99, help="prompts for other instruments")
    cli.add_model_arguments(parser)
    cli.add_generation_arguments(parser, ("duration", *cli.SAMPLING_FIELDS))
    parser.set_defaults(results_folder=Path("results/steel_drums/measures"), checkpoint_dir=str(BUNDLE))
    return parser


def main(arguments: argparse.Namespace) -> None:
    cli.require_arguments(arguments, ["adapter_path"])
    from demo.adapter_measures import Reference, generate, measure
    from open_musiclm.audio import write_wave
    from open_musiclm.data.token_store import TokenStore
    from open_musiclm.files import write_json

    adapted, _ = cli.load_model(arguments)
    plain, _ = cli.load_model(argparse.Namespace(**vars(arguments) | {"adapter_path": ["off"], "adapter_weight": None}))
    tokens = TokenStore(arguments.training_tokens, plain.config)
    reference = Reference.read(STEEL_DRUMS.names, arguments.held_out, arguments.classifier_corpus, tokens)
    sets = {}
    for name, model in (("before", plain), ("after", adapted)):
        sets[name] = generate(model, reference, arguments.num_own, arguments.num_control)
        for kind, waves in (("own", sets[name].own), ("control", sets[name].control)):
            for number, wave in enumerate(waves):
                write_wave(arguments.results_folder / f"{name}_{kind}_{number:03d}.flac", wave, plain.sample_hz)
    report = measure(plain, sets["before"], sets["after"], reference)
    write_json(arguments.results_folder / "measures.json", report)
    for key, value in report.items():
        cli.print_stdout(f"{key}: {value}")


if __name__ == "__main__":
    cli.run(main, arguments())
