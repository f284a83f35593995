"""Pack the trained parts and the model config into one folder for --checkpoint_dir; optionally push it to the hub."""

import argparse
import shlex
from pathlib import Path

from open_musiclm import cli
from open_musiclm.config import load_generation_config, load_model_config


def arguments() -> argparse.ArgumentParser:
    parser = cli.plain_parser(__doc__)
    parser.add_argument("--results_folder", type=Path, required=True, help="folder of the bundle, a new one")
    cli.add_model_config_argument(parser)
    cli.add_checkpoint_arguments(parser)
    cli.add_adapter_arguments(parser)
    parser.add_argument(
        "--generation_config",
        type=Path,
        default=None,
        help="JSON file with the generation config, or a folder that has one; default: the defaults",
    )
    parser.add_argument("--text_correction", type=Path, default=None, help="file that scripts/analyze_clap.py wrote")
    parser.add_argument("--push_to_hub", default=None, metavar="ID", help="upload the bundle to this hub id too")
    return parser


def main(arguments: argparse.Namespace) -> None:
    config = load_model_config(arguments.model_config)
    cli.check_fine_arguments(arguments, config)
    cli.require_arguments(arguments, [f"{part}_path" for part in (*config.stage_names, "rvq", "kmeans")])
    from open_musiclm.checkpoints.bundle import bundle_kinds, pack, push
    from open_musiclm.generation.bundled_adapters import load_adapters

    flag_of = {"clap_rvq": "rvq_path", "hubert_kmeans": "kmeans_path"}
    paths = {kind: getattr(arguments, flag_of.get(kind, f"{kind}_path")) for kind in bundle_kinds(config)}
    how = load_generation_config(arguments.generation_config) if arguments.generation_config else None
    found = load_adapters(cli.adapter_paths_from(arguments) or ())
    adapters = [(item.adapter.path, item.weight) for item in found]
    for path in pack(arguments.model_config, paths, arguments.results_folder, how, adapters, arguments.text_correction):
        cli.print_stdout(f"wrote {path}, {path.stat().st_size / 1e6:.1f} MB")
    if arguments.push_to_hub:
        cli.print_stdout(f"pushing these files to {arguments.push_to_hub}")
        push(arguments.results_folder, arguments.push_to_hub)
        cli.print_stdout(f"pushed to {arguments.push_to_hub}")
    folder = shlex.quote(str(arguments.results_folder))
    cli.print_stdout(f"generate with: python scripts/infer_top_match.py PROMPT --checkpoint_dir {folder}")


if __name__ == "__main__":
    cli.run(main, arguments())
