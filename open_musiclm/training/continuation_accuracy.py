"""Continuation accuracy of a trained stage, a quick sign of memorization: the share of tokens it continues exactly.

The stage is given an example's conditioning and the first half of its tokens, and decodes the rest greedily, as in
MusicLM (Agostinelli et al. 2023, section 6). The same with unseen examples shows how much is not memorization.
`open_musiclm/evaluation/memorization.py` measures a semantic stage as the paper does.
"""

from collections.abc import Sequence
from pathlib import Path

import torch
from accelerate.utils import send_to_device
from pydantic import Field

from open_musiclm.checkpoints import chosen_step, step_folder
from open_musiclm.config.json_files import Section
from open_musiclm.files import write_json
from open_musiclm.generation.decoding.generators import stage_generator
from open_musiclm.generation.decoding.sampling import Sampling
from open_musiclm.models.lora import without_adapter
from open_musiclm.models.stages import Ids, Stage
from open_musiclm.terminal import print_stderr
from open_musiclm.training.data_stream import TrainingData
from open_musiclm.training.distributed import is_sharded
from open_musiclm.training.stage_trainer import StageTrainer

MEMORIZATION_NAME = "memorization.json"
_EXAMPLES = 16
_MUCH = 0.1  # more of the tokens than of unseen ones


class ContinuationAccuracy(Section):
    """The shares of tokens of training and of unseen examples that greedy decoding continues exactly."""

    examples: int
    training: float = Field(ge=0, le=1)
    unseen_examples: int = 0
    unseen: float | None = None


def report_continuation_accuracy(trainer: StageTrainer, data: TrainingData, folder: Path) -> None:
    """Measures the checkpoint that a results folder means, prints the result, and writes memorization.json.

    In process 0 only; the trainer has the weights of that checkpoint afterwards. Raises UserError.
    """
    step = chosen_step(folder)
    if is_sharded(trainer.stage) or step is None:
        reason = "without a checkpoint" if step is None else "where the weights are sharded"
        print_stderr(f"{trainer.name}: memorization is not measured {reason}")
        return
    trainer.read_weights(step_folder(folder, step))
    stage = without_adapter(trainer.stage).eval()
    training = _share(trainer, stage, [data.training[index] for index in range(_EXAMPLES)], data)
    found = ContinuationAccuracy(examples=_EXAMPLES, training=training)
    if data.validation is not None:
        examples = [data.validation[index] for index in range(min(_EXAMPLES, data.validation_examples))]
        unseen = _share(trainer, stage, examples, data)
        found = found.model_copy(update={"unseen_examples": len(examples), "unseen": unseen})
    write_json(folder / MEMORIZATION_NAME, found.model_dump())
    print_stderr(f"{trainer.name}: {_sentence(found)}")


def continuation_accuracy(stage: Stage, ids: Sequence[Ids]) -> float:
    """The share of the second half of the last sequence that greedy decoding after the first half gives exactly."""
    *conditioning, tokens = ids
    half = tokens.shape[1] // 2
    rngs = [torch.Generator() for _ in range(len(tokens))]  # greedy decoding ignores them
    made = stage_generator(stage).generate(
        conditioning, tokens[:, :half], tokens.shape[1] - half, Sampling(temperature=0), rngs, lambda: None
    )
    return float((made == tokens[:, half:]).float().mean())


def _share(trainer: StageTrainer, stage: Stage, examples: list, data: TrainingData) -> float:
    parts = [
        data.collate(examples[first : first + data.batch_size]) for first in range(0, len(examples), data.batch_size)
    ]
    batches = (trainer.tokens_of(send_to_device(part, trainer.accelerator.device)) for part in parts)
    shares = [(continuation_accuracy(stage, ids), len(ids[-1])) for ids in batches]
    return sum(share * count for share, count in shares) / sum(count for _, count in shares)


def _sentence(found: ContinuationAccuracy) -> str:
    training = f"memorization: continues {found.training:.1%} of the tokens of {found.examples} training examples"
    if found.unseen is None:
        return f"{training} exactly; there are no unseen ones to compare with"
    verdict = "it memorizes" if found.training > found.unseen + _MUCH else "no sign of memorization"
    return f"{training}, and {found.unseen:.1%} of {found.unseen_examples} unseen ones exactly: {verdict}"
