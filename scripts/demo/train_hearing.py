"""Teach CLAP's audio tower to hear through the codec: what is coded is to have the embedding of what it was made from.

A CLAP that has heard clean sound only is all but deaf to what this codec leaves, and cannot choose among what the
stages generate. Its embeddings of clean sound stay near what they are, and with them the quantizer and all tokens. The
token store of `preprocess_data.py` is decoded with as many codebooks as the coarse stage writes, or all, some tokens
exchanged for others of the same clip, and in part only: drafts are judged by their first seconds already.
"""

import argparse
import random
from pathlib import Path

from open_musiclm import cli

SECONDS = (2.0, 3.0, 4.0, 6.0, 8.0, 10.0)
MOST_EXCHANGED = 0.3  # of the tokens
BATCH, CLEAN = 48, 16  # examples of each step
RATE, WEIGHT_DECAY, WARM_UP = 5e-4, 0.01, 20


def arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("source", type=Path, help="the clap directory to go on from")
    parser.add_argument("target", type=Path, help="the directory to write")
    parser.add_argument("--config", type=Path, required=True, help="the config that scripts/train_clap.py was given")
    parser.add_argument("--model_config", type=Path, required=True, help="names the codec")
    parser.add_argument("--tokens", type=Path, required=True, help="the store that scripts/preprocess_data.py wrote")
    parser.add_argument("--steps", type=cli.positive_int, default=600)
    return parser


def main(arguments: argparse.Namespace) -> None:
    import torch

    from open_musiclm.config import load_model_config
    from open_musiclm.config_files import load_section
    from open_musiclm.data.token_store import TokenStore
    from open_musiclm.tokenizers.encodec import Codec
    from open_musiclm.training.backbones.clap_tower import ClapDirectory, TowerOptimizer
    from open_musiclm.training.backbones.config import ClapTrainingConfig
    from open_musiclm.training.backbones.spectrograms import Spectrograms

    trainer = load_section(arguments.config, ClapTrainingConfig).trainer
    model_config = load_model_config(arguments.model_config)
    torch.manual_seed(trainer.seed)
    clap = ClapDirectory.load(arguments.source)
    kept = Path(trainer.spectrogram_folder) if trainer.spectrogram_folder else None
    spectrograms = Spectrograms(clap.extractor, kept)
    store = TokenStore(arguments.tokens, model_config)
    codec = Codec.load(model_config, torch.device("cpu"))
    clean, coded = heard(store, codec, spectrograms, Path(trainer.folder), random.Random(trainer.seed))
    with torch.no_grad():
        wanted = torch.cat([embeddings(clap.model, some) for some in clean.split(16)])

    optimizer = TowerOptimizer(clap.model, "audio", RATE, WEIGHT_DECAY, WARM_UP, arguments.steps)
    for step in range(arguments.steps):
        chosen = torch.randint(len(coded), (BATCH + CLEAN,))
        heard_now = torch.cat((coded[chosen[:BATCH]], clean[chosen[BATCH:]]))
        likeness = (embeddings(clap.model, heard_now) * wanted[chosen]).sum(dim=1)
        optimizer.learn((1 - likeness).mean())
        if (step + 1) % 50 == 0:
            coded_now, clean_now = likeness[:BATCH].mean().item(), likeness[BATCH:].mean().item()
            cli.say(f"step {step + 1}: cosine {coded_now:.3f} through the codec, {clean_now:.3f} of clean sound")
    clap.save(arguments.target)
    cli.say(f"wrote {arguments.target}")


def heard(store, codec, spectrograms, folder, chance):
    """Spectrograms [examples, frames, mels] in half precision: ten seconds of clean clips, and in the same places of
    the codec's reconstructions, which are shorter and repeated."""
    import torch
    from tqdm import tqdm

    from open_musiclm.audio import Sound, repeat_to, resampled

    clean, coded = [], []
    frame_hz = codec.sample_hz // codec.hop
    for row, name in enumerate(tqdm(store.paths(), desc="decoding")):
        whole = spectrograms.of(folder / name)
        codes = torch.cat([store.piece(row, kind, 0, None) for kind in ("coarse", "fine")], dim=1)
        books = (store.piece(row, "coarse", 0, None).shape[1], codes.shape[1])
        second = chance.randrange(max((len(whole) - spectrograms.frames) // 100, 0) + 1)
        clean.append(whole[100 * second : 100 * second + spectrograms.frames].half())
        frames = round(chance.choice(SECONDS) * frame_hz)
        part = codes[second * frame_hz : second * frame_hz + frames, : chance.choice(books)]
        with torch.no_grad():
            wave = codec.decode(exchanged(part, chance.random() * MOST_EXCHANGED)[None])[0]
            wave = resampled(Sound(wave, codec.sample_hz), spectrograms.sample_hz)
            coded.append(spectrograms.mel.whole(repeat_to(wave, spectrograms.mel.samples)[None])[0].half())
    return torch.stack(clean), torch.stack(coded)


def exchanged(codes, share):
    """Codes [time, quantizers] of which a `share` are those of another time."""
    import torch

    elsewhere = codes.gather(0, torch.randint(len(codes), codes.shape))
    return torch.where(torch.rand(codes.shape) < share, elsewhere, codes)


def embeddings(model, spectrograms):
    """Embeddings [examples, dim] of spectrograms [examples, frames, mels]."""
    return model.get_audio_features(spectrograms[:, None].float()).pooler_output


if __name__ == "__main__":
    cli.run(main, arguments())
