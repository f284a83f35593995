"""Turn a folder of sound into a store of CLAP, semantic and acoustic tokens. Run again, it goes on where it stopped."""

import argparse
import shlex
import sys

from open_musiclm import cli

FAILURES_SHOWN = 10


def arguments() -> argparse.ArgumentParser:
    parser = cli.parser(__doc__)
    cli.add_config_arguments(parser)
    cli.add_tokenizer_arguments(parser, required=True)
    parser.add_argument(
        "--filter_fma", action="store_true", help="leave out FMA's unpopular experimental tracks (needs its metadata)"
    )
    return parser


def main(arguments: argparse.Namespace) -> None:
    from pathlib import Path

    from accelerate import PartialState

    from open_musiclm.audio import find_sounds
    from open_musiclm.config import DataPreprocessorConfig, load_model_config, load_training_config, require
    from open_musiclm.data.fma import filter_fma
    from open_musiclm.data.preprocess import Preprocessor, fingerprint
    from open_musiclm.devices import choose_device
    from open_musiclm.errors import UserError
    from open_musiclm.tokenizers.music_tokenizer import MusicTokenizer

    config = load_model_config(arguments.model_config)
    settings = require(load_training_config(arguments.training_config), "data_preprocessor_cfg", DataPreprocessorConfig)
    if arguments.results_folder is not None:
        settings = settings.model_copy(update={"results_folder": str(arguments.results_folder)})
    paths = find_sounds(Path(settings.folder))
    if arguments.filter_fma:
        paths = filter_fma(paths, settings.metadata_folder)
    device = choose_device(arguments.device)
    state = PartialState(cpu=device.type == "cpu")
    if arguments.device is None and state.num_processes > 1:
        device = state.device
    tokenizer = MusicTokenizer.load(config, arguments.rvq_path, arguments.kmeans_path, device)
    fingerprints = {
        "clap_rvq": fingerprint(tokenizer.quantizer.residual_vq.codebooks),
        "hubert_kmeans": fingerprint(tokenizer.semantic.centroids),
    }
    preprocessor = Preprocessor(
        config, settings, tokenizer, fingerprints, device, state.process_index, state.num_processes
    )
    report = preprocessor.run(paths)
    for failure in report.failures[:FAILURES_SHOWN]:
        cli.say(f"could not use {failure.reason}")
    if len(report.failures) > FAILURES_SHOWN:
        cli.say(f"and {len(report.failures) - FAILURES_SHOWN} more, all listed in {settings.results_folder}")
    if len(report.failures) == len(paths):
        raise UserError(f"{settings.folder}: none of its {len(paths)} sound files could be used")
    cli.say(
        f"wrote the tokens of {report.files} files ({report.seconds} s of sound) to {settings.results_folder}; "
        f"{report.stored_before} were there before, {len(report.failures)} could not be used; "
        f"waited for decoding {report.waited_share:.0%} of the time"
    )
    if report.interrupted:
        cli.say(f"interrupted; go on with: python {shlex.join(sys.argv)}")


if __name__ == "__main__":
    cli.run(main, arguments())
