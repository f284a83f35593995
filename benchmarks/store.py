"""A store of many short tracks: seconds to write, open, split and resume it, and examples per second of one worker.

Writes a synthetic store of random tokens below --folder, which is kept for the next run (a million rows of four
seconds take about 5 GB).

    python benchmarks/store.py --folder /tmp/store --rows 1000000
"""

import argparse
import time
from pathlib import Path

import torch

from open_musiclm import cli
from open_musiclm.config import STAGE_NAMES, GlobalConfig, ModelConfig, load_model_config
from open_musiclm.data.shards import StoredTokens
from open_musiclm.data.store_description import DESCRIPTION_NAME, StoreDescription
from open_musiclm.data.token_dataset import TokenDataset, split_rows
from open_musiclm.data.token_store import TokenStore
from open_musiclm.data.token_store_writer import TokenStoreWriter
from open_musiclm.errors import UserError
from open_musiclm.tokens import token_streams

SHIPPED = Path(__file__).resolve().parents[1] / "configs" / "model" / "musiclm_small.json"
EXAMPLES = 3000


def arguments() -> argparse.ArgumentParser:
    parser = cli.plain_parser(__doc__)
    parser.add_argument("--folder", type=Path, required=True, help="where the store is, or is written to")
    parser.add_argument("--rows", type=cli.positive_int, default=1_000_000, help="tracks of one row each")
    parser.add_argument("--seconds", type=cli.positive_int, default=4, help="length of a track")
    return parser


def main(arguments: argparse.Namespace) -> None:
    config = _config(float(arguments.seconds))
    if not (arguments.folder / DESCRIPTION_NAME).exists():
        begun = time.perf_counter()
        _write(arguments.folder, config, arguments.rows, arguments.seconds)
        cli.print_stdout(f"written in {time.perf_counter() - begun:.1f} s")
    size = sum(path.stat().st_size for path in arguments.folder.glob("*.arrow"))
    shards = len(list(arguments.folder.glob("*.arrow")))
    begun = time.perf_counter()
    store = TokenStore(arguments.folder, config)
    if len(store) != arguments.rows:
        raise UserError(f"{arguments.folder}: has {len(store):,} rows instead of {arguments.rows:,}; remove the folder")
    opened = time.perf_counter()
    train, valid = split_rows(store, 0.05, seed=42)
    split_at = time.perf_counter()
    with TokenStoreWriter(arguments.folder, StoreDescription(config, {})) as writer:
        writer.stored_paths()
    resumed = time.perf_counter()
    cli.print_stdout(f"{len(store):,} rows, {shards} shards, {size / 1e9:.2f} GB, {size / len(store):,.0f} bytes a row")
    cli.print_stdout(
        f"opened in {opened - begun:.3f} s, split into {len(train):,} and {len(valid):,} in {split_at - opened:.3f} s"
    )
    cli.print_stdout(f"resumed preprocessing has the list of stored files after {resumed - split_at:.3f} s")
    for stage in STAGE_NAMES:
        dataset = TokenDataset(store, train, stage, config, seed=0)
        begun = time.perf_counter()
        dataset[0]
        first = time.perf_counter()
        for index in range(1, 1 + EXAMPLES):
            dataset[index]
        rate = EXAMPLES / (time.perf_counter() - first)
        cli.print_stdout(
            f"{stage:10}first example {first - begun:.3f} s, then {rate:,.0f} examples a second in one process"
        )


def _config(seconds: float) -> ModelConfig:
    """The shipped config, with windows that fit such tracks."""
    windows = GlobalConfig(
        semantic_audio_length_seconds=seconds,
        coarse_audio_length_seconds=seconds,
        fine_audio_length_seconds=seconds / 2,
        clap_audio_length_seconds=seconds,
    )
    return load_model_config(SHIPPED).model_copy(update={"global_cfg": windows})


def _write(folder: Path, config: ModelConfig, rows: int, seconds: int) -> None:
    generator = torch.Generator().manual_seed(0)
    tokens = {
        name: torch.randint(stream.codebook_size, (stream.frames(seconds), stream.quantizers), generator=generator)
        for name, stream in token_streams(config).items()
    }
    with TokenStoreWriter(folder, StoreDescription(config, {})) as writer:
        for row in range(rows):
            writer.add([StoredTokens(f"{row // 1000:04}/{row:07}.mp3", 0.0, float(seconds), **tokens)])


if __name__ == "__main__":
    cli.run(main, arguments())
