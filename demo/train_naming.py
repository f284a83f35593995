"""Teach CLAP to name what it hears, instrument and pace, in clean sound and in what the codec leaves of it.

Both towers of a trained CLAP go on, with the losses of `training/backbones/naming.py`. A CLAP that has heard clean
sound only is all but deaf to what this codec leaves, and cannot choose among what the stages generate. The quantizer
and the tokens are made after this. None of the wordings is in the prompts of scripts/demo/evaluate.py.

The target holds a clap directory for the last step that was saved, step_00000200 and so on; the same command again goes
on from it.
"""

import argparse
import random
import shutil
from pathlib import Path

from open_musiclm import cli

CLEAN_SHARE = 25 / 64  # of the examples of a step; the others are coded sound
RATE, WEIGHT_DECAY, LARGEST_GRADIENT = 1.5e-3, 0.05, 1.0
WARM_UP, CONSTANT_SHARE = 50, 0.3
SAVE_EVERY = 200  # steps
SECONDS = (2.0, 4.0, 6.0, 8.0, 10.0)  # of coded sound; it is repeated to what CLAP hears at once
MOST_EXCHANGED = 0.3  # of the codec's tokens
LOUDER_OR_QUIETER_DB, MOST_BANDS_HIGHER, MOST_BANDS_HIDDEN = 6.0, 2, 7


def arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("source", type=Path, help="the clap directory that scripts/train_clap.py wrote")
    parser.add_argument("target", type=Path, help="the directory to write to")
    parser.add_argument("--config", type=Path, required=True, help="the config that scripts/train_clap.py was given")
    parser.add_argument("--model_config", type=Path, required=True, help="names the codec")
    parser.add_argument("--steps", type=cli.positive_int, default=2500)
    parser.add_argument("--batch_size", type=cli.positive_int, default=64, help="examples of a step")
    return parser


def main(arguments: argparse.Namespace) -> None:
    import torch

    from demo.backbones.naming import naming_losses
    from demo.corpus.corpus import read_clips
    from open_musiclm.config import load_model_config
    from open_musiclm.config.backbones import ClapTrainingConfig
    from open_musiclm.config.json_files import load_section
    from open_musiclm.errors import UserError
    from open_musiclm.interruption import Interruption
    from open_musiclm.tokenizers.codec import Codec
    from open_musiclm.training.backbones.clap_directory import ClapDirectory
    from open_musiclm.training.backbones.spectrograms import Spectrograms

    trainer = load_section(arguments.config, ClapTrainingConfig).trainer
    step, newest = newest_of(arguments.target)
    if step >= arguments.steps:
        cli.say(f"{newest}: there already, nothing to do")
        return
    torch.manual_seed(trainer.seed + step)
    chance = random.Random(trainer.seed + step)
    clap = ClapDirectory.load(newest or arguments.source)
    folder = Path(trainer.folder)
    clips = list(read_clips(folder).values())
    if not clips:
        raise UserError(f"{folder}: no captions.jsonl with sound beside it; make a corpus with make_demo_corpus.py")
    spectrograms = Spectrograms(
        clap.extractor, Path(trainer.spectrogram_folder) if trainer.spectrogram_folder else None
    )
    config = load_model_config(arguments.model_config)
    codec, windows = Codec.load(config, torch.device("cpu")), config.global_cfg
    books = (windows.num_coarse_quantizers, windows.num_coarse_quantizers + windows.num_fine_quantizers)
    coded = coded_spectrograms([folder / clip.file for clip in clips], codec, books, spectrograms, chance)

    learn = learner(clap.model, arguments.steps, step)
    with Interruption() as interruption:
        while step < arguments.steps and not interruption.asked:
            chosen = [chance.randrange(len(clips)) for _ in range(arguments.batch_size)]
            losses = naming_losses(clap, *batch_of(chosen, clips, folder, coded, spectrograms, chance), chance)
            learn(sum(losses.values()))
            step += 1
            if step % 20 == 0:
                cli.say(f"step {step}: " + ", ".join(f"{name} {loss.item():.3f}" for name, loss in losses.items()))
            if step % SAVE_EVERY == 0 or step == arguments.steps or interruption.asked:
                save(clap, arguments.target, step)
    if step < arguments.steps:
        cli.say(f"stopped after step {step}; the same command again goes on")
        raise KeyboardInterrupt
    cli.say(f"wrote {newest_of(arguments.target)[1]}")


def newest_of(target):
    """The last step that was saved and its clap directory; 0 and None where there is none."""
    saved = sorted(target.glob("step_" + 8 * "[0-9]"))
    return (int(saved[-1].name.removeprefix("step_")), saved[-1]) if saved else (0, None)


def save(clap, target, step):
    """Writes a step's clap directory, which appears whole, and removes the one before."""
    _, before = newest_of(target)
    unfinished = target / "unfinished"
    clap.save(unfinished)
    unfinished.rename(target / f"step_{step:08d}")
    if before is not None:
        shutil.rmtree(before)


def batch_of(chosen, clips, folder, coded, spectrograms, chance):
    """Spectrograms [batch, frames, mels] of the chosen clips, clean or coded, and these clips."""
    import torch

    first = round(CLEAN_SHARE * len(chosen))
    clean = [part_of(spectrograms.of(folder / clips[n].file), spectrograms.frames, chance) for n in chosen[:first]]
    heard = [disturbed(one, chance) for one in [*clean, *(coded[number] for number in chosen[first:])]]
    return torch.stack(heard), [clips[number] for number in chosen]


def coded_spectrograms(paths, codec, books, spectrograms, chance):
    """Spectrograms [frames, mels] in half precision of a part of each file through the codec, with so many codebooks,
    one of `books`, and some of the tokens exchanged for others of the same part."""
    import torch
    from tqdm import tqdm

    from demo.token_exchange import exchanged
    from open_musiclm.audio import Sound, fit_length, read_sound, repeat_to, resampled, samples_of

    found, generator = [], torch.Generator().manual_seed(chance.randrange(2**31))
    for path in tqdm(paths, desc="through the codec"):
        wave = resampled(read_sound(path), codec.sample_hz)
        length = samples_of(chance.choice(SECONDS), codec.sample_hz)
        first = chance.randrange(max(len(wave) - length, 0) + 1)
        with torch.no_grad():
            codes = codec.encode(fit_length(wave[first:], length)[None])[0]
            codes = exchanged(codes[:, : chance.choice(books)], chance.random() * MOST_EXCHANGED, len(codes), generator)
            part = resampled(Sound(codec.decode(codes[None])[0], codec.sample_hz), spectrograms.sample_hz)
            found.append(spectrograms.mel.whole(repeat_to(part, spectrograms.mel.samples)[None])[0].half())
    return found


def part_of(spectrogram, frames, chance):
    """So many frames of a spectrogram [time, mels], from anywhere."""
    first = chance.randrange(max(len(spectrogram) - frames, 0) + 1)
    return spectrogram[first : first + frames]


def disturbed(spectrogram, chance):
    """A spectrogram [time, mels] louder or quieter, turned about in time, transposed, with some bands hidden."""
    import torch

    changed = spectrogram.float().roll(chance.randrange(len(spectrogram)), 0) + chance.uniform(
        -LOUDER_OR_QUIETER_DB, LOUDER_OR_QUIETER_DB
    )
    bands = torch.arange(changed.shape[1]) - chance.randint(-MOST_BANDS_HIGHER, MOST_BANDS_HIGHER)
    changed = changed[:, bands.clamp(0, changed.shape[1] - 1)]
    hidden = chance.randint(0, MOST_BANDS_HIDDEN)
    first = chance.randrange(changed.shape[1] - hidden)
    changed[:, first : first + hidden] = changed.mean()
    return changed


def learner(model, steps, taken):
    """A function that takes one step down the gradient of a loss, at a rate that rises, stays and falls; so many of the
    steps were taken before."""
    import torch

    from open_musiclm.training.schedule import Schedule

    model.train()
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.eval()  # it knows what a mel band is like in clean sound
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=WEIGHT_DECAY)
    schedule = Schedule(RATE, WARM_UP, CONSTANT_SHARE, steps)

    def learn(loss):
        nonlocal taken
        for group in optimizer.param_groups:
            group["lr"] = schedule.at(taken)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), LARGEST_GRADIENT)
        optimizer.step()
        taken += 1

    return learn


if __name__ == "__main__":
    cli.run(main, arguments())
