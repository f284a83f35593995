"""Measure whether the model follows prompts better with a correction of text embeddings, by the demo's classifier."""

import argparse
from pathlib import Path

from demo.defaults import BUNDLE
from open_musiclm import cli


def arguments() -> argparse.ArgumentParser:
    parser = cli.parser(__doc__)
    parser.add_argument("--text_correction", type=Path, required=True, help="file that scripts/analyze_clap.py wrote")
    parser.add_argument("--classifier_corpus", type=Path, nargs="+", required=True, help="demo corpora")
    parser.add_argument("--num_prompts", type=cli.positive_int, default=99, help="number of prompts")
    cli.add_model_arguments(parser)
    cli.add_generation_arguments(parser, ("duration", "num_samples", *cli.SAMPLING_FIELDS))
    parser.set_defaults(results_folder=Path("results/demo/text_correction"), checkpoint_dir=str(BUNDLE))
    return parser


def main(arguments: argparse.Namespace) -> None:
    model, _ = cli.load_model(arguments)
    from demo.classifier_training import fit_classifier, labelled_clips
    from demo.correction_measures import changed_prompts, generate_pairs, measure_pairs
    from demo.prompts import control_prompts
    from open_musiclm.files import prepare_folder, write_json
    from open_musiclm.tokenizers.text_correction import TextCorrection

    prepare_folder(arguments.results_folder)
    config, correction = model.generation_config, TextCorrection.load(arguments.text_correction, model.tokenizer.clap)
    prompts = changed_prompts(model, correction, control_prompts(arguments.num_prompts, config.seed))
    cli.print_stdout(f"the correction changes the CLAP tokens of {len(prompts)} of {arguments.num_prompts} prompts")
    made = generate_pairs(model, correction, prompts, config.num_samples, arguments.results_folder)
    clips = [clip for folder in arguments.classifier_corpus for clip in labelled_clips(folder)]
    coarse = model.config.global_cfg.num_coarse_quantizers
    classifier = fit_classifier(model.tokenizer, coarse, clips, config.duration)
    report = measure_pairs(classifier, prompts, made)
    for name, value in report.items():
        cli.print_stdout(f"{name}: {value}")
    write_json(arguments.results_folder / "text_correction.json", report)


if __name__ == "__main__":
    cli.run(main, arguments())
