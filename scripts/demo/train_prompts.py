"""Teach CLAP's text tower freer wordings: captions wrapped in phrases, turned about, with little words strewn in.

The audio tower stays as it is, and with it all tokens; the sounds' embeddings are computed once, so that 700 steps take
about a minute of one core. None of these phrases is in the prompts of scripts/demo/evaluate.py.
"""

import argparse
import random
from pathlib import Path

from open_musiclm import cli

PHRASES = (
    "can you make {}", "give me {}", "generate {}", "we need {} for a film", "{}, nothing else", "music: {}",
    "a recording of {}", "{} for the evening", "my favourite is {}", "let us have {}", "{} would be nice",
    "do you know {}?", "in the background {} is heard", "imagine {}", "here comes {}", "Make {}!", "compose {} now",
)  # fmt: skip
LITTLE_WORDS = (
    "the a an some any this that is was with and of for to in on by it its very really quite rather just such one kind "
    "style track part thing being piece music there which has have"
)
BATCH, LONGEST = 96, 77
RATE, WEIGHT_DECAY, WARM_UP = 1e-3, 0.05, 20
SCALE, CLOSENESS, DISTURBANCE = 14.0, 2.0, 0.02


def arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("source", type=Path, help="the clap directory that scripts/train_clap.py wrote")
    parser.add_argument("target", type=Path, help="the directory to write")
    parser.add_argument("--config", type=Path, required=True, help="the config that scripts/train_clap.py was given")
    parser.add_argument("--steps", type=cli.positive_int, default=700)
    return parser


def main(arguments: argparse.Namespace) -> None:
    import torch

    from open_musiclm.config_files import load_section
    from open_musiclm.data.sound_dataset import split
    from open_musiclm.training.backbones.clap_losses import Pairs, contrastive_loss
    from open_musiclm.training.backbones.clap_text import read_captions
    from open_musiclm.training.backbones.clap_tower import ClapDirectory, TowerOptimizer
    from open_musiclm.training.backbones.config import ClapTrainingConfig
    from open_musiclm.training.backbones.spectrograms import Spectrograms

    config = load_section(arguments.config, ClapTrainingConfig).trainer
    torch.manual_seed(config.seed)
    chance = random.Random(config.seed)
    clap = ClapDirectory.load(arguments.source)
    kept = Path(config.spectrogram_folder) if config.spectrogram_folder else None
    sounds = {sound.path: sound for sound in read_captions(Path(config.folder) / config.captions)}
    paths, _ = split(sorted(sounds), config.valid_frac, config.seed)
    heard = embeddings(clap.model, Spectrograms(clap.extractor, kept), paths)

    clap.model.text_model.train()
    optimizer = TowerOptimizer(clap.model, "text", RATE, WEIGHT_DECAY, WARM_UP, arguments.steps)
    for step in range(arguments.steps):
        chosen = torch.randint(len(paths), (BATCH,))
        texts = [reworded(chance.choice(sounds[paths[index]].captions), chance) for index in chosen]
        tokens = clap.tokenizer(texts, padding=True, truncation=True, max_length=LONGEST, return_tensors="pt")
        said = clap.model.get_text_features(tokens.input_ids, attention_mask=tokens.attention_mask).pooler_output
        near = heard[chosen] + DISTURBANCE * torch.randn(BATCH, heard.shape[1])
        near = near / near.norm(dim=1, keepdim=True)
        pairs = Pairs(near, said, chosen)
        loss = contrastive_loss(pairs, pairs, torch.tensor(SCALE))
        loss = loss + CLOSENESS * (1 - (near * said).sum(dim=1)).mean()
        optimizer.learn(loss)
        if (step + 1) % 100 == 0:
            cli.say(f"step {step + 1}: loss {loss.item():.3f}, cosine {(near * said).sum(dim=1).mean().item():.3f}")
    clap.save(arguments.target)
    cli.say(f"wrote {arguments.target}")


def embeddings(model, spectrograms, paths):
    """Embeddings [sounds, dim] of the middle ten seconds of each sound."""
    import torch

    found = []
    with torch.no_grad():
        for path in paths:
            whole = spectrograms.of(path).float()
            first = (len(whole) - spectrograms.frames) // 2
            crop = whole[first : first + spectrograms.frames]
            found.append(model.get_audio_features(crop[None, None]).pooler_output)
    return torch.cat(found)


def reworded(caption: str, chance: random.Random) -> str:
    """A caption as it is, in a phrase, with little words in between, or beginning somewhere in its middle."""
    kind = chance.random()
    if kind < 0.3:
        return caption
    if kind < 0.6:
        return chance.choice(PHRASES).format(caption)
    words = caption.replace(",", " ").split()
    if kind >= 0.8:
        first = chance.randrange(len(words))
        words = words[first:] + words[:first]
    for _ in range(chance.randint(0, 5)):
        words.insert(chance.randrange(len(words) + 1), chance.choice(LITTLE_WORDS.split()))
    text = " ".join(words)
    return chance.choice(PHRASES).format(text) if kind >= 0.92 else text


if __name__ == "__main__":
    cli.run(main, arguments())
