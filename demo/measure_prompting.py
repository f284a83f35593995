"""Measure mixtures of two instruments, and style sounds, by the instrument families in the generated music."""

import argparse
from pathlib import Path

from demo.defaults import BUNDLE
from open_musiclm import cli


def arguments() -> argparse.ArgumentParser:
    parser = cli.parser(__doc__)
    corpora = "demo corpora that the classifier is fitted to; default: the model's CLAP finds the families"
    parser.add_argument("--classifier_corpus", type=Path, nargs="+", default=[], help=corpora)
    parser.add_argument("--style_corpus", type=Path, default=None, help="a demo corpus of another soundfont")
    parser.add_argument("--num_pairs", type=cli.positive_int, default=50, help="pairs of instruments to mix")
    parser.add_argument("--num_styles", type=cli.positive_int, default=50, help="clips to use as style sounds")
    cli.add_model_arguments(parser)
    cli.add_generation_arguments(parser, ("duration", "num_samples", *cli.SAMPLING_FIELDS))
    parser.set_defaults(results_folder=Path("results/demo/prompting"), checkpoint_dir=str(BUNDLE))
    return parser


def main(arguments: argparse.Namespace) -> None:
    model, _ = cli.load_model(arguments)
    from demo.classifier_training import fit_classifier, labelled_clips
    from demo.prompting_measures import best_waves, clap_classifier, measure_mixtures, measure_styles
    from open_musiclm.files import prepare_folder, write_json

    prepare_folder(arguments.results_folder)
    styles = labelled_clips(arguments.style_corpus) if arguments.style_corpus else []
    generate, classify = best_waves(model), clap_classifier(model)
    seconds = model.generation_config.duration
    if clips := [clip for folder in arguments.classifier_corpus for clip in labelled_clips(folder)]:
        coarse = model.config.global_cfg.num_coarse_quantizers
        classify = fit_classifier(model.tokenizer, coarse, clips, seconds).families
    report = {"mixtures": measure_mixtures(generate, classify, arguments.num_pairs)}
    if styles:
        report["styles"] = measure_styles(generate, classify, styles, arguments.num_styles, seconds)
    for section, measures in report.items():
        for name, value in measures.items():
            cli.print_stdout(f"{section}, {name}: {value}")
    write_json(arguments.results_folder / "prompting.json", report)


if __name__ == "__main__":
    cli.run(main, arguments())
