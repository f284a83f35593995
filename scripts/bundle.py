"""Pack the five trained parts and the model config into one folder for --checkpoint_dir, and push it if asked."""

import argparse
from pathlib import Path

from open_musiclm import cli
from open_musiclm.config import load_generation_config
from open_musiclm.errors import UserError


def arguments() -> argparse.ArgumentParser:
    parser = cli.parser(__doc__)
    cli.add_model_config_argument(parser)
    cli.add_checkpoint_arguments(parser)
    parser.add_argument(
        "--generation_config", type=Path, default=None, help="JSON file with how to generate; default: the defaults"
    )
    parser.add_argument("--push_to_hub", default=None, metavar="ID", help="upload the bundle to this hub id too")
    return parser


def main(arguments: argparse.Namespace) -> None:
    cli.require_arguments(arguments, ["results_folder", *(f"{part}_path" for part in (*cli.STAGES, "rvq", "kmeans"))])
    from open_musiclm.checkpoints.bundle import KINDS, pack

    flag_of = {"clap_rvq": "rvq_path", "hubert_kmeans": "kmeans_path"}
    paths = {kind: getattr(arguments, flag_of.get(kind, f"{kind}_path")) for kind in KINDS}
    config = load_generation_config(arguments.generation_config) if arguments.generation_config else None
    for path in pack(arguments.model_config, paths, arguments.results_folder, config):
        cli.say(f"wrote {path}")
    if arguments.push_to_hub:
        from huggingface_hub import HfApi
        from huggingface_hub.errors import HfHubHTTPError, HFValidationError

        try:
            HfApi().create_repo(arguments.push_to_hub, exist_ok=True)
            HfApi().upload_folder(repo_id=arguments.push_to_hub, folder_path=arguments.results_folder)
        except (HfHubHTTPError, HFValidationError, OSError) as error:
            raise UserError(f"--push_to_hub {arguments.push_to_hub}: {str(error).splitlines()[0]}") from error
        cli.say(f"pushed to {arguments.push_to_hub}")
    cli.say(f"generate with: python scripts/infer_top_match.py PROMPT --checkpoint_dir {arguments.results_folder}")


if __name__ == "__main__":
    cli.run(main, arguments())
