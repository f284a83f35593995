"""Analyze CLAP's latent space on a folder of sound with captions or tags: tables, and a map with sound."""

import argparse
from pathlib import Path

from open_musiclm import cli
from open_musiclm.analysis.options import PARTS, AtlasOptions


def arguments() -> argparse.ArgumentParser:
    parser = cli.parser(__doc__)
    parser.set_defaults(results_folder=Path("results/atlas"))
    parser.add_argument("folder", type=Path, help="folder of sound")
    parser.add_argument("--labels", type=Path, help="captions and tags: .jsonl, .csv or FMA's tracks.csv; "
                        "by default captions.jsonl in the folder")  # fmt: skip
    parser.add_argument("--checkpoint_dir", default=None, help="a bundle: its CLAP, RVQ and MERT")
    parser.add_argument("--model_config", type=Path, default=None, help="JSON file with the model config")
    parser.add_argument("--rvq_path", type=Path, default=None, help="CLAP RVQ: a checkpoint or its results folder")
    parser.add_argument("--captions", type=cli.positive_int, default=5, help="captions of each sound, the first ones")
    parser.add_argument("--tags", nargs="+", default=None, help="tags to probe, a+b for both; by default all")
    parser.add_argument("--group_by", default=None, help="a tag whose sounds stay in one fold, such as the artist")
    parser.add_argument("--prompts", nargs="+", type=cli.prompt, default=[], help="further texts on the map")
    parser.add_argument("--map_sounds", type=cli.positive_int, default=1000, help="sounds on the map, at random")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS, help="what to measure")
    cli.add_trust_argument(parser)
    return parser


def main(arguments: argparse.Namespace) -> None:
    from open_musiclm.analysis.atlas import analyze
    from open_musiclm.analysis.loaded_models import load_models

    named = (arguments.checkpoint_dir, arguments.model_config, arguments.rvq_path, arguments.device)
    models = load_models(*named, "probes" in arguments.parts, arguments.trust_remote_code)
    names = ("folder", "results_folder", "labels", "captions", "tags", "group_by", "prompts", "map_sounds", "parts")
    options = AtlasOptions(**{name: getattr(arguments, name) for name in names})
    for table in analyze(models, options):
        for line in table.text():
            cli.print_stdout(line)
    cli.print_stdout(f"look at {arguments.results_folder / 'atlas.html'}")


if __name__ == "__main__":
    cli.run(main, arguments())
