"""A semantic stage of a few thousand weights trained on made-up tokens: run as a process that tests may kill.

python tests/helpers/small_training.py RESULTS_FOLDER [--steps 30] [--continue_from_dir ...] ...
"""

import argparse
import os
import signal
import sys
import time
from pathlib import Path

import torch
from accelerate.state import AcceleratorState
from accelerate.utils import DistributedType, FullyShardedDataParallelPlugin
from torch.utils.data import Dataset

from open_musiclm import cli
from open_musiclm.config import (
    ClapRvqConfig,
    CoarseConfig,
    EncodecConfig,
    FineConfig,
    GlobalConfig,
    HubertKmeansConfig,
    ModelConfig,
    SemanticConfig,
    StageTrainerConfig,
)
from open_musiclm.models.stages import build_stage
from open_musiclm.training import tracking
from open_musiclm.training.data_stream import TrainingData
from open_musiclm.training.distributed import whole_weights
from open_musiclm.training.loop import Loop
from open_musiclm.training.options import RunOptions
from open_musiclm.training.run import Run
from open_musiclm.training.stage_trainer import StageTools, StageTrainer

CODES = 16


class MadeUpTokens(Dataset):
    """Every example has its own CLAP tokens and a semantic sequence that follows from them."""

    def __init__(self, slow_seconds: float = 0.0, dies_at: int | None = None) -> None:
        self.slow_seconds = slow_seconds
        self.dies_at = dies_at

    def __getitem__(self, index: int) -> list[torch.Tensor]:
        time.sleep(self.slow_seconds)
        if index == self.dies_at:
            os.kill(os.getpid(), signal.SIGKILL)
        generator = torch.Generator().manual_seed(index)
        clap = torch.randint(CODES, (1, 2), generator=generator)
        return [clap, (torch.arange(10).unsqueeze(1) + clap.sum()) % CODES]


class MadeUpFrames(MadeUpTokens):
    """The same for a coarse stage in the frames layout, which gets semantic tokens at its own rate."""

    def __getitem__(self, index: int) -> list[torch.Tensor]:
        clap, semantic = super().__getitem__(index)
        coarse = (torch.arange(15).unsqueeze(1) + torch.arange(3) + clap.sum()) % CODES
        return [clap, semantic[:9], coarse]


def collate(examples: list[list[torch.Tensor]]) -> list[torch.Tensor]:
    return [torch.stack(tokens) for tokens in zip(*examples, strict=True)]


def model_config(dim: int = 16) -> ModelConfig:
    return ModelConfig(
        global_cfg=GlobalConfig(),
        clap_rvq_cfg=ClapRvqConfig(rq_num_quantizers=2, codebook_size=CODES),
        hubert_kmeans_cfg=HubertKmeansConfig(codebook_size=CODES),
        encodec_cfg=EncodecConfig(codebook_size=CODES),
        semantic_cfg=SemanticConfig(dim=dim, depth=1, heads=2, relative_position_bias_type="t5"),
        coarse_cfg=CoarseConfig(
            dim=dim, depth=1, heads=2, token_layout="frames", conditioning_kernel=3, scheduled_sampling=0.85
        ),
        fine_cfg=FineConfig(dim=16, depth=1, heads=2),
    )


def trainer_config(**changes: object) -> StageTrainerConfig:
    """30 steps of 2 batches of 4, a checkpoint every 5."""
    values = {
        "stage": "semantic",
        "folder": "made up",
        "num_train_steps": 30,
        "batch_size": 4,
        "grad_accum_every": 2,
        "lr": 1e-2,
        "lr_warmup": 5,
        "save_model_every": 5,
        "save_results_every": 10,
        "num_workers": 0,
        "save_reconstructed_wave": False,
        "precision": "float32",
    }
    return StageTrainerConfig.model_validate({**values, **changes})


def training_data(
    config: StageTrainerConfig, training: Dataset | None = None, validation: Dataset | None = None
) -> TrainingData:
    return TrainingData(
        training=training or MadeUpTokens(),
        validation=validation or MadeUpTokens(),
        validation_examples=9,  # of two processes one has more of them
        collate=collate,
        batch_size=config.batch_size,
        num_workers=config.num_workers,
    )


def main(arguments: argparse.Namespace) -> None:
    torch.set_num_threads(1)
    tracking.SECONDS_BETWEEN_LINES = arguments.seconds_between_lines
    config = trainer_config(
        stage="coarse" if arguments.frames else "semantic",
        num_train_steps=arguments.steps,
        num_workers=arguments.workers,
        batch_size=arguments.batch_size,
        ema_decay=arguments.ema_decay,
    )
    options = RunOptions(
        config.stage,
        arguments.results_folder,
        overwrite=arguments.overwrite,
        log_with=arguments.log_with,
        device="cpu",
        continue_from=arguments.continue_from_dir,
        continue_from_step=arguments.continue_from_step,
    )
    with Run.begin(options, model_config(), config, config.seed, batches_per_step=config.grad_accum_every) as run:
        train(run, config, arguments)


def train(run: Run, config: StageTrainerConfig, arguments: argparse.Namespace) -> None:
    if arguments.sharded:
        shard_on_cpus(run)
    tools = StageTools(model_config(), tokenizer=None, codec=None)
    trainer = StageTrainer(run.accelerator, build_stage(config.stage, model_config()), tools, config)
    kind = MadeUpFrames if arguments.frames else MadeUpTokens
    tokens = kind(arguments.slow_seconds, arguments.dies_at)
    Loop(trainer, training_data(config, tokens, kind()), run, config).train()
    if arguments.sharded:
        state, weights = trainer.optimizer.state_dict(), whole_weights(trainer.stage)
        print(f"process {run.accelerator.process_index} gathers {len(state)} and {len(weights)}", flush=True)


def shard_on_cpus(run: Run) -> None:
    """accelerate shards on GPUs only, though torch does it on CPUs as well: tells it that these are as good."""
    run.accelerator.state.fsdp_plugin = FullyShardedDataParallelPlugin()  # as `accelerate launch` has set it up
    AcceleratorState._shared_state["distributed_type"] = DistributedType.FSDP
    assert run.accelerator.is_fsdp2


def arguments() -> argparse.ArgumentParser:
    parser = cli.parser(__doc__)
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--batch_size", type=int, default=4)
    parser.add_argument("--frames", action="store_true")
    parser.add_argument("--ema_decay", type=float, default=None)
    parser.add_argument("--sharded", action="store_true")
    parser.add_argument("--slow_seconds", type=float, default=0.0)
    parser.add_argument("--dies_at", type=int, default=None)
    parser.add_argument("--seconds_between_lines", type=float, default=tracking.SECONDS_BETWEEN_LINES)
    cli.add_run_arguments(parser)
    parser.set_defaults(log_with="none")
    parser.add_argument("--continue_from_dir", type=Path, default=None)
    parser.add_argument("--continue_from_step", type=int, default=None)
    return parser


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))
    cli.run(main, arguments())
