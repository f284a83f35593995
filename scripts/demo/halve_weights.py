"""Copy a backbone's directory with its weights in half precision; the loaders compute in float32 all the same."""

import argparse
import shutil
from pathlib import Path

from open_musiclm import cli

WEIGHTS_NAME = "model.safetensors"


def arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("source", type=Path, help="a directory that a training wrote: encodec, clap or mert")
    parser.add_argument("target", type=Path, help="the directory to write")
    return parser


def main(arguments: argparse.Namespace) -> None:
    import torch
    from safetensors.torch import load_file, save_file

    from open_musiclm.errors import UserError

    if not (arguments.source / WEIGHTS_NAME).is_file():
        raise UserError(f"{arguments.source}: holds no {WEIGHTS_NAME}; give a directory that a training wrote")
    tensors = load_file(arguments.source / WEIGHTS_NAME)
    halved = {name: tensor.half() if tensor.dtype == torch.float32 else tensor for name, tensor in tensors.items()}
    shutil.copytree(arguments.source, arguments.target, dirs_exist_ok=True)
    save_file(halved, arguments.target / WEIGHTS_NAME, {"format": "pt"})
    size = sum(file.stat().st_size for file in arguments.target.iterdir())
    cli.say(f"wrote {arguments.target}, {size / 1e6:.1f} MB")


if __name__ == "__main__":
    cli.run(main, arguments())
