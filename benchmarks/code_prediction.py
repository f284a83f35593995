"""How hard it is to predict the codes of a codec: nats per frame, given the previous frame.

A small network sees the codes of the previous frame and the coarser codes of the same frame, like an acoustic stage.
The codes are a token store's; one of a hundred sound files is held out.

    python benchmarks/code_prediction.py --model_config demo/configs/model.json --token_store results/demo_model/tokens
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from open_musiclm import cli
from open_musiclm.config import load_model_config
from open_musiclm.data.split import split
from open_musiclm.data.token_store import TokenStore
from open_musiclm.devices import matmul_autocast
from open_musiclm.errors import UserError

_HELD_OUT = 0.01
_FEWEST_STEPS = 20
_DIM, _HIDDEN, _BATCH, _RATE = 128, 512, 512, 3e-3


def arguments() -> argparse.ArgumentParser:
    parser = cli.plain_parser(__doc__)
    cli.add_model_config_argument(parser)
    parser.add_argument("--token_store", type=Path, required=True, help="folder that preprocess_data.py wrote")
    parser.add_argument("--steps", type=cli.positive_int, default=1500, help="steps of the network's training")
    return parser


def main(arguments: argparse.Namespace) -> None:
    config = load_model_config(arguments.model_config)
    store = TokenStore(arguments.token_store, config)
    paths = store.paths()
    held_out = set(split(sorted(set(paths)), _HELD_OUT, seed=0)[1])
    codes = [torch.cat([store.tokens(row, name) for name in ("coarse", "fine")], dim=1) for row in range(len(store))]
    training = [some for some, path in zip(codes, paths, strict=True) if path not in held_out]
    rest = [some for some, path in zip(codes, paths, strict=True) if path in held_out]
    nats = nats_per_frame(training, rest, config.encodec_cfg.codebook_size, arguments.steps)
    each, total = ", ".join(f"{value:.2f}" for value in nats), sum(nats)
    cli.print_stdout(f"{len(training)} crops; held out: {len(rest)}, {sum(map(len, rest))} frames")
    cli.print_stdout(f"{total:.2f} nats a frame ({each}), {total * config.encodec_cfg.output_hz:.0f} nats a second")


class _Predictor(nn.Module):
    def __init__(self, quantizers: int, codes: int) -> None:
        super().__init__()
        self.before = nn.ModuleList(nn.Embedding(codes, _DIM) for _ in range(quantizers))
        self.coarser = nn.ModuleList(nn.Embedding(codes, _DIM) for _ in range(quantizers - 1))
        self.networks = nn.ModuleList(
            nn.Sequential(nn.Linear(_DIM, _HIDDEN), nn.GELU(), nn.Dropout(0.1), nn.Linear(_HIDDEN, codes))
            for _ in range(quantizers)
        )

    def forward(
        self, before: Int[Tensor, "frames quantizers"], frame: Int[Tensor, "frames quantizers"]
    ) -> Float[Tensor, "quantizers"]:
        """The mean cross-entropy of each codebook, in nats."""
        hidden = torch.stack([table(before[:, place]) for place, table in enumerate(self.before)]).sum(0)
        losses = []
        for place, network in enumerate(self.networks):
            losses.append(F.cross_entropy(network(hidden), frame[:, place]))
            if place < len(self.coarser):
                hidden = hidden + self.coarser[place](frame[:, place])
        return torch.stack(losses)


def nats_per_frame(
    training: Sequence[Int[Tensor, "time quantizers"]],
    held_out: Sequence[Int[Tensor, "time quantizers"]],
    codebook_size: int,
    steps: int,
) -> list[float]:
    """Nats per codebook on held-out codes, the minimum over the training. Raises UserError if it is too short for its
    schedule, or nothing is held out."""
    if steps < _FEWEST_STEPS:
        raise UserError(f"{steps} steps are too few; take {_FEWEST_STEPS} or more")
    if not len(training) or not len(held_out):
        raise UserError("one sound is too few: some are held out; take more")
    torch.manual_seed(0)
    pairs, pairs_held_out = _pairs(training), _pairs(held_out)
    model = _Predictor(training[0].shape[1], codebook_size)
    optimizer = torch.optim.AdamW(model.parameters(), _RATE, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, _RATE, total_steps=steps, pct_start=0.1)
    best = [float("inf")]
    for step in range(1, steps + 1):
        places = torch.randint(len(pairs[0]), (_BATCH,))
        optimizer.zero_grad()
        with matmul_autocast("auto", torch.device("cpu")):
            loss = model(pairs[0][places], pairs[1][places]).sum()
        loss.backward()
        optimizer.step()
        schedule.step()
        if step % max(steps // 5, 1) == 0:
            with torch.no_grad():
                found = model.eval()(*pairs_held_out).tolist()
            model.train()
            best = min(best, found, key=sum)
    return best


def _pairs(codes: Sequence[Int[Tensor, "time quantizers"]]) -> tuple[Tensor, Tensor]:
    return torch.cat([some[:-1] for some in codes]).long(), torch.cat([some[1:] for some in codes]).long()


if __name__ == "__main__":
    cli.run(main, arguments())
