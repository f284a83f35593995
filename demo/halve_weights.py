"""Copy a backbone or a bundle with its weights in half precision; the loaders still compute in float32.

The codebooks of CLAP's quantizer and the k-means keep their precision: they are small, and tokens depend on them.
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

    source, target = arguments.source.resolve(), arguments.target.resolve()
    if target.is_relative_to(source) or source.is_relative_to(target):
        raise UserError(f"{arguments.target}: is {arguments.source}, inside it or around it; name another directory")
    files = sorted(arguments.source.rglob("*.safetensors"))
    if not files:
        raise UserError(f"{arguments.source}: holds no .safetensors; give a directory that a training wrote")
    shutil.copytree(arguments.source, arguments.target, dirs_exist_ok=True)
    for file in files:
        if file.name not in KEPT:
            halve(file, arguments.target / file.relative_to(arguments.source))
    size = sum(file.stat().st_size for file in arguments.target.rglob("*") if file.is_file())
    cli.print_stdout(f"wrote {arguments.target}, {size / 1e6:.1f} MB")


def halve(source: Path, target: Path) -> None:
    """Writes the tensors of one file in half precision, with its metadata. Raises UserError."""
    import torch
    from safetensors import SafetensorError

    from open_musiclm.checkpoints.tensor_files import read_tensors
    from open_musiclm.checkpoints.weights import save_tensors
    from open_musiclm.errors import UserError
    from open_musiclm.files import atomic_write

    tensors, metadata = read_tensors(source)
    halved = {name: tensor.half() if tensor.dtype == torch.float32 else tensor for name, tensor in tensors.items()}
    with atomic_write(target) as temporary:
        try:
            save_tensors(halved, temporary, metadata)
        except SafetensorError as error:  # how safetensors reports a full disk
            raise UserError(f"{target}: cannot write: {error}") from error


if __name__ == "__main__":
    cli.run(main, arguments())
