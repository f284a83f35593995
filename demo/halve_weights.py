"""Copy a backbone or a bundle with its weights in half precision; the loaders compute in float32 all the same.

The codebooks of CLAP's quantizer and the k-means keep their precision: they are small, and much depends on them.
"""

import argparse
import shutil
from pathlib import Path

from open_musiclm import cli

KEPT = ("clap_rvq.safetensors", "hubert_kmeans.safetensors")


def arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("source", type=Path, help="a directory that a training, or scripts/bundle.py, wrote")
    parser.add_argument("target", type=Path, help="the directory to write")
    return parser


def main(arguments: argparse.Namespace) -> None:
    from open_musiclm.errors import UserError

    files = sorted(arguments.source.rglob("*.safetensors"))
    if not files:
        raise UserError(f"{arguments.source}: holds no .safetensors; give a directory that a training wrote")
    shutil.copytree(arguments.source, arguments.target, dirs_exist_ok=True)
    for file in files:
        if file.name not in KEPT:
            halve(file, arguments.target / file.relative_to(arguments.source))
    size = sum(file.stat().st_size for file in arguments.target.rglob("*") if file.is_file())
    cli.say(f"wrote {arguments.target}, {size / 1e6:.1f} MB")


def halve(source: Path, target: Path) -> None:
    """Writes the tensors of one file in half precision, with its metadata."""
    import torch
    from safetensors import safe_open
    from safetensors.torch import load_file

    from open_musiclm.checkpoints.weights import save_tensors

    with safe_open(source, "pt") as opened:
        metadata = opened.metadata()
    tensors = load_file(source)
    halved = {name: tensor.half() if tensor.dtype == torch.float32 else tensor for name, tensor in tensors.items()}
    save_tensors(halved, target, metadata or {})


if __name__ == "__main__":
    cli.run(main, arguments())
