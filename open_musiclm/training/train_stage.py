"""Trains a stage, for the three stage scripts."""

import math
import warnings
from dataclasses import dataclass
from pathlib import Path

import torch

from open_musiclm.config import ModelConfig, StageName, StageTrainerConfig, TrainingConfig, require
from open_musiclm.data.store_fingerprints import fingerprints_at
from open_musiclm.errors import UserError, UserNotice
from open_musiclm.tokenizers.codec import Codec
from open_musiclm.tokenizers.music_tokenizer import MusicTokenizer
from open_musiclm.training.checkpointing import TrainingState, read_state
from open_musiclm.training.continuation_accuracy import MEMORIZATION_NAME, report_continuation_accuracy
from open_musiclm.training.data_stream import TrainingData
from open_musiclm.training.generated_evaluation import StageEvaluator
from open_musiclm.training.loop import Loop
from open_musiclm.training.options import RunOptions
from open_musiclm.training.preflight import check_preflight
from open_musiclm.training.run import Run
from open_musiclm.training.stage_examples import crops_data, preprocessed_data
from open_musiclm.training.stage_trainer import TRAINERS, StageTools
from open_musiclm.training.starting_stage import starting_stage, with_lora_rank


@dataclass(frozen=True)
class TokenizerPaths:
    """The CLAP quantizer and the k-means, each a checkpoint or a results folder; None if it was not given.

    `trust_remote_code` lets Python code run that comes with MERT.
    """

    rvq_path: Path | None
    kmeans_path: Path | None
    trust_remote_code: bool = False


def train_stage(
    name: StageName,
    model_config: ModelConfig,
    training_config: TrainingConfig,
    options: RunOptions,
    tokenizers: TokenizerPaths,
    fine_tune_from: Path | None,
    lora_rank: int | None = None,
) -> Path | None:
    """Trains stage `name`, new or from the weights at `fine_tune_from`, with the `{name}_trainer_cfg` section.

    With a `lora_rank`, or a `lora` in the section, an adapter of those weights is trained.

    Returns the results folder; None in all processes but the main one. Raises UserError, and Interrupted
    after a signal.
    """
    model_config.check_stage(name)
    training_config = with_lora_rank(training_config, name, lora_rank)
    config = require(training_config, f"{name}_trainer_cfg", StageTrainerConfig)
    _check_tokenizers(config, tokenizers)
    with Run.begin(
        options,
        model_config,
        training_config,
        config.seed,
        config.precision,
        config.grad_accum_every,
        outputs=(MEMORIZATION_NAME,),
    ) as run:
        accelerator = run.accelerator
        stage, file = starting_stage(config, model_config, fine_tune_from, run.checkpoint, accelerator.device)
        data = _data(config, model_config, tokenizers, run)
        config = _ending_after_passes(config, data, run)
        _check_validation(config, data)
        tools = stage_tools(model_config, config, tokenizers, accelerator.device)
        check_preflight(config, model_config, stage, run)
        trainer = TRAINERS[name](accelerator, stage, tools, config, file)
        loop = Loop(trainer, data, run, config, config.early_stop_patience)
        loop.train()
        if not accelerator.is_main_process:
            return None
        if config.early_stop_patience is not None or loop.state.losses.overfits:
            report_continuation_accuracy(trainer, data, run.folder)
        return run.folder


def _data(config: StageTrainerConfig, model_config: ModelConfig, tokenizers: TokenizerPaths, run: Run) -> TrainingData:
    if not config.use_preprocessed_data:
        return crops_data(config, model_config, run.wave_statistics())
    given = fingerprints_at(tokenizers.rvq_path, tokenizers.kmeans_path, model_config)
    return preprocessed_data(config, model_config, given)


def stage_tools(
    model_config: ModelConfig, config: StageTrainerConfig, tokenizers: TokenizerPaths, device: torch.device
) -> StageTools:
    """The tokenizers where tokens are made in training, and the codec where waves are wanted and can be made.

    Raises UserError.
    """
    evaluator = None
    if config.evaluate_every is not None:
        assert tokenizers.rvq_path is not None
        evaluator = StageEvaluator.load(model_config, config, tokenizers.rvq_path, device)
    wanted = config.save_reconstructed_wave and config.stage != "semantic"
    if config.use_preprocessed_data:
        codec = Codec.load(model_config, device) if wanted else None
        return StageTools(model_config, None, _decoding(codec, model_config, config), evaluator)
    assert tokenizers.rvq_path is not None
    assert tokenizers.kmeans_path is not None
    tokenizer = MusicTokenizer.load(
        model_config, tokenizers.rvq_path, tokenizers.kmeans_path, device, tokenizers.trust_remote_code
    )
    codec = _decoding(tokenizer.codec if wanted else None, model_config, config)
    return StageTools(model_config, tokenizer, codec, evaluator)


def _decoding(codec: Codec | None, model_config: ModelConfig, config: StageTrainerConfig) -> Codec | None:
    """The codec, None if it cannot decode this stage's tokens, which a warning says."""
    key = f"{config.stage}_trainer_cfg: save_reconstructed_wave"
    try:
        if codec is not None:
            codec.check_decodes(model_config.quantizers_up_to(config.stage), key)
    except UserError as error:
        warnings.warn(UserNotice(f"samples get no waves: {error}"), stacklevel=2)
        return None
    return codec


def _ending_after_passes(config: StageTrainerConfig, data: TrainingData, run: Run) -> StageTrainerConfig:
    """The config with the steps after which `repeat` passes over the training files are made, where these are fewer.

    Examples that a resumed run took before count, whatever its batch size and number of processes were.
    """
    if config.repeat is None:
        return config
    done = TrainingState() if run.checkpoint is None else read_state(run.checkpoint)
    left = max(config.repeat * len(data.training) - done.draws, 0)  # type: ignore[arg-type]
    examples = config.batch_size * config.grad_accum_every * run.accelerator.num_processes
    steps = min(max(done.step + math.ceil(left / examples), 1), config.num_train_steps)
    return config.model_copy(update={"num_train_steps": steps})


def _check_validation(config: StageTrainerConfig, data: TrainingData) -> None:
    """Raises UserError if a key needs validation and there is none."""
    keys = [key for key in ("early_stop_patience", "evaluate_every") if getattr(config, key) is not None]
    if keys and data.validation is None:
        raise UserError(
            f"{config.stage}_trainer_cfg: {keys[0]}: there is no validation set; raise valid_frac, give sound files "
            "that can be read, or leave this key out"
        )


def _check_tokenizers(config: StageTrainerConfig, tokenizers: TokenizerPaths) -> None:
    """Raises UserError if a path is missing that computing tokens in training, or `evaluate_every`, needs."""
    if config.use_preprocessed_data:
        if config.evaluate_every is not None and tokenizers.rvq_path is None:
            raise UserError("missing --rvq_path, which evaluate_every takes")
        return
    missing = [f"--{name}" for name, path in vars(tokenizers).items() if path is None]
    if missing:
        raise UserError(f"missing {', '.join(missing)}")
