"""Trains CLAP so that instrument names and tempi match sounds, clean ones and those that went through the codec.

A CLAP that was trained on clean sound only hardly recognises what the demo's codec leaves of it, and cannot choose
among generated samples. Both towers of a trained CLAP are trained further. The CLAP quantizer and the tokens are made
after this step.
"""

import random
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from demo.backbones.code_loss import CodeLoss
from demo.backbones.matching_data import MatchingData, coded_spectrograms
from demo.backbones.matching_losses import matching_losses
from demo.corpus.corpus import read_clips
from open_musiclm.config import ModelConfig
from open_musiclm.config.backbones import ClapTrainerConfig
from open_musiclm.data.caption_lines import CAPTIONS_NAME
from open_musiclm.errors import UserError
from open_musiclm.interruption import Interruption
from open_musiclm.tokenizers.clap_directory import ClapDirectory, ClapParts
from open_musiclm.tokenizers.codec import Codec
from open_musiclm.tokenizers.rvq import ClapQuantizer
from open_musiclm.training.backbones.spectrograms import Spectrograms
from open_musiclm.training.optimizer import Schedule

RATE, WEIGHT_DECAY, LARGEST_GRADIENT = 1.5e-3, 0.05, 1.0
WARM_UP, CONSTANT_SHARE = 50, 0.3
SAVE_EVERY, REPORT_EVERY = 200, 20  # steps


@dataclass(frozen=True)
class MatchingOptions:
    """`trainer` is the config of the CLAP training before: its folder, spectrograms and seed are used.

    `freeze_text` leaves the text tower as it is. With a `rvq_path`, which needs that, sounds are also brought to codes
    of their family (`CodeLoss`)."""

    trainer: ClapTrainerConfig
    model_config: ModelConfig
    steps: int
    batch_size: int
    freeze_text: bool = False
    rvq_path: Path | None = None


def train_instrument_matching(
    source: Path, target: Path, options: MatchingOptions, report: Callable[[str], None]
) -> None:
    """Trains the clap directory `source`, or continues from the last step saved in `target`.

    `target` holds one clap directory, step_00000200 and so on. `report` receives lines of progress. Raises UserError,
    and Interrupted where a signal ended the training after it had saved.
    """
    step, newest = newest_step(target)
    if newest is not None and step >= options.steps:
        report(f"{newest}: finished already, nothing to do")
        return
    torch.manual_seed(options.trainer.seed + step)
    rng = random.Random(options.trainer.seed + step)
    clap = ClapDirectory(newest or source, "the CLAP to train").load()
    data, code_loss = _data(clap, options, rng), _code_loss(clap, options)
    clap.model.train()
    if options.freeze_text:
        _freeze(clap.model.text_model, clap.model.text_projection)
    update = _optimizer_step(clap.model, options.steps, step)
    with Interruption() as interruption:
        while step < options.steps and not interruption.requested:
            spectrograms, clips = data.batch(options.batch_size, rng)
            sounds = clap.model.get_audio_features(spectrograms[:, None]).pooler_output
            losses = matching_losses(clap, sounds, clips, rng)
            if code_loss is not None:
                losses["codes"] = code_loss(sounds, clips)
            update(torch.stack(list(losses.values())).sum())
            step += 1
            if step % REPORT_EVERY == 0:
                report(f"step {step}: " + ", ".join(f"{name} {loss.item():.3f}" for name, loss in losses.items()))
            if step % SAVE_EVERY == 0 or step == options.steps or interruption.requested:
                newest = _save(clap, target, step)
    if step < options.steps:
        report(f"stopped after step {step}; the same command continues the training")
        interruption.end()
    report(f"wrote {newest}")


def _code_loss(clap: ClapParts, options: MatchingOptions) -> CodeLoss | None:
    if options.rvq_path is None:
        return None
    if not options.freeze_text:
        raise UserError("--rvq_path: needs --freeze_text: what a code means is taken from the sentences nearest to it")
    quantizer = ClapQuantizer.load(options.rvq_path, options.model_config, torch.device("cpu"))
    quantizer.check_fits(clap.model.config.projection_dim, options.rvq_path)
    return CodeLoss(clap, quantizer)


def newest_step(target: Path) -> tuple[int, Path | None]:
    """The last step that was saved and its clap directory; 0 and None if there is none."""
    saved = sorted(target.glob("step_" + 8 * "[0-9]"))
    return (int(saved[-1].name.removeprefix("step_")), saved[-1]) if saved else (0, None)


def _data(clap: ClapParts, options: MatchingOptions, rng: random.Random) -> MatchingData:
    folder, kept = Path(options.trainer.folder), options.trainer.spectrogram_folder
    clips = list(read_clips(folder).values())
    if not clips:
        raise UserError(f"{folder}: no {CAPTIONS_NAME}; make a corpus with scripts/make_demo_corpus.py")
    spectrograms = Spectrograms(clap.extractor, Path(kept) if kept else None)
    windows = options.model_config.global_cfg
    codebooks = (windows.num_coarse_quantizers, windows.num_coarse_quantizers + windows.num_fine_quantizers)
    codec = Codec.load(options.model_config, torch.device("cpu"))
    paths = [folder / clip.file for clip in clips]
    return MatchingData(folder, clips, spectrograms, coded_spectrograms(paths, codec, codebooks, spectrograms, rng))


def _save(clap: ClapParts, target: Path, step: int) -> Path:
    """Writes a step's clap directory atomically, and removes the one before."""
    _, before = newest_step(target)
    unfinished, finished = target / "unfinished", target / f"step_{step:08d}"
    clap.save(unfinished)
    unfinished.rename(finished)
    if before is not None:
        shutil.rmtree(before)
    return finished


def _freeze(*modules: torch.nn.Module) -> None:
    for module in modules:
        module.eval().requires_grad_(False)


def _optimizer_step(model: torch.nn.Module, steps: int, taken: int) -> Callable[[Tensor], None]:
    """A function that takes an optimizer step for a loss; `taken` of the `steps` were taken before."""
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.eval()  # its statistics of mel bands are those of clean sound
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=WEIGHT_DECAY)
    schedule = Schedule(RATE, WARM_UP, CONSTANT_SHARE, steps)

    def update(loss: Tensor) -> None:
        nonlocal taken
        for group in optimizer.param_groups:
            group["lr"] = schedule.at(taken)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), LARGEST_GRADIENT)
        optimizer.step()
        taken += 1

    return update
