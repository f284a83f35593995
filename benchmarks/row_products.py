"""Products of a few vectors with a block's matrices on a CPU: PyTorch's, generation's (PackedLinear), int8 weights.

Each figure is the speed of the products with all matrices of a model's blocks, in gigabytes of weights per second;
`sum` is the speed of a sum that reads the same bytes.

    python benchmarks/row_products.py --model_config configs/model/musiclm_small.json
"""

import argparse
import statistics
import time
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional

from open_musiclm import cli
from open_musiclm.config import load_model_config
from open_musiclm.generation.decoding.packed_linear import PackedLinear
from open_musiclm.models.stages import build_stage

ROWS = (1, 4, 8, 12)
INT8_COLUMNS = 64


def arguments() -> argparse.ArgumentParser:
    parser = cli.plain_parser(__doc__)
    cli.add_model_config_argument(parser)
    parser.add_argument(
        "--repetitions", type=cli.positive_int, default=15, help="number of timed runs; the median is printed"
    )
    return parser


@torch.inference_mode()
def main(arguments: argparse.Namespace) -> None:
    stage = build_stage("semantic", load_model_config(arguments.model_config))
    matrices = [weight.detach() for weight in stage.layout.transformer.blocks.parameters() if weight.ndim == 2]
    cli.print_stdout(f"{arguments.model_config}, {torch.get_num_threads()} threads, torch {torch.__version__}, GB/s\n")
    cli.print_stdout("| precision | rows | PyTorch | generation's | sum | int8 weights |")
    cli.print_stdout("| --- | --- | --- | --- | --- | --- |")
    for precision in (torch.float32, torch.bfloat16):
        weights = [matrix.to(precision) for matrix in matrices]
        size = sum(weight.nbytes for weight in weights)
        packed = [PackedLinear(weight) for weight in weights]
        eighth = [_int8(weight) for weight in weights] if precision == torch.bfloat16 else None
        content = torch.ones(size // 4)
        for rows in ROWS:
            inputs = [torch.randn(rows, weight.shape[1]).to(precision) for weight in weights]
            works: list[Callable[[], object]] = [
                partial(_plain_products, inputs, weights),
                partial(_generations_products, inputs, packed),
                content.sum,
            ]
            if eighth is not None:
                wide = [functional.pad(x, (0, -x.shape[1] % INT8_COLUMNS)) for x in inputs]
                works.append(partial(_int8_products, wide, eighth))
            speeds = [_gigabytes_per_second(work, size, arguments.repetitions) for work in works]
            cli.print_stdout(f"| {str(precision).removeprefix('torch.')} | {rows} | {' | '.join(speeds)} |")


def _plain_products(inputs: list[Tensor], weights: list[Tensor]) -> list[Tensor]:
    return list(map(functional.linear, inputs, weights))


def _generations_products(inputs: list[Tensor], products: list[PackedLinear]) -> list[Tensor]:
    return [product(x) for product, x in zip(products, inputs, strict=True)]


def _int8(weight: Tensor) -> tuple[Tensor, Tensor]:
    """A weight as int8 with one scale per output; PyTorch's product needs whole blocks of columns."""
    weight = functional.pad(weight, (0, -weight.shape[1] % INT8_COLUMNS))
    scale = weight.float().abs().amax(dim=1) / 127
    return (weight.float() / scale.unsqueeze(1)).round().to(torch.int8), scale.to(weight.dtype)


def _int8_products(inputs: list[Tensor], weights: list[tuple[Tensor, Tensor]]) -> list[Tensor]:
    return [torch._weight_int8pack_mm(x, *weight) for x, weight in zip(inputs, weights, strict=True)]


def _gigabytes_per_second(work: Callable[[], object], size: int, repetitions: int) -> str:
    work()
    seconds = []
    for _ in range(repetitions):
        begun = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - begun)
    return f"{size / statistics.median(seconds) / 1e9:.0f}"


if __name__ == "__main__":
    cli.run(main, arguments())
