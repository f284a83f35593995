"""The whole analysis: reads labels, embeds sounds and captions, measures, and writes atlas.json and atlas.html."""

import os
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch

from open_musiclm.analysis.embeddings import SoundEmbeddings, embed_sounds, embed_texts
from open_musiclm.analysis.gap_tables import corrections_table, fit_corrections, gap_table, split_pairs
from open_musiclm.analysis.labels import LabelledSound, read_labels
from open_musiclm.analysis.loaded_models import Models
from open_musiclm.analysis.options import SEED, AtlasOptions
from open_musiclm.analysis.page import MapData, write_page
from open_musiclm.analysis.projection import pca_map, umap_map
from open_musiclm.analysis.report import Table
from open_musiclm.analysis.space import Space, caption_pairs, normalized, tokens_of
from open_musiclm.analysis.tag_tables import arithmetic_table, can_be_held_out, groups_of, probe_table
from open_musiclm.analysis.tags import Tag, check_group_by, usable_tags
from open_musiclm.analysis.text_tables import retrieval_table, token_tables
from open_musiclm.errors import UserError, UserNotice
from open_musiclm.files import prepare_folder, write_json
from open_musiclm.tokenizers.text_correction import TEXT_CORRECTION_NAME, TextCorrection
from open_musiclm.versions import versions

FEWEST_SOUNDS = 10


def analyze(models: Models, options: AtlasOptions) -> list[Table]:
    """All tables; writes atlas.json, atlas.html and text corrections into the results folder. Raises UserError."""
    sounds = _existing(read_labels(options.folder, options.labels))
    tags, refused = usable_tags(sounds, options.tags)  # so that a wrong name is found before the work
    check_group_by(sounds, options.group_by)
    prepare_folder(options.results_folder)
    mert = models.mert if "probes" in options.parts else None
    folder = options.results_folder / "embeddings"
    embeddings = embed_sounds([sound.path for sound in sounds], models.clap, mert, folder)
    for failure in embeddings.failures[:1]:
        others = f", and {len(embeddings.failures) - 1} others" if len(embeddings.failures) > 1 else ""
        warnings.warn(UserNotice(f"left out: {failure.reason}{others}"), stacklevel=2)
    if embeddings.failures:
        sounds = [sounds[number] for number in embeddings.numbers]
        tags, refused = usable_tags(sounds, options.tags)
    space = make_space(sounds, embeddings, models, options.captions)
    tables, skipped = _tables(space, embeddings, models, tags, options)
    skipped |= {f"tag {name}": reason for name, reason in refused.items()}
    for name, reason in skipped.items():
        warnings.warn(UserNotice(f"left out: {name}: {reason}"), stacklevel=2)
    _write(options, space, models, embeddings, tables, skipped)
    return tables


def make_space(sounds: Sequence[LabelledSound], embeddings: SoundEmbeddings, models: Models, captions: int) -> Space:
    """The embeddings and tokens of sounds and captions."""
    texts, pairs = caption_pairs(sounds, captions)
    dim = embeddings.clap.shape[1]
    vectors = normalized(embed_texts(texts, models.clap)) if texts else np.zeros((0, dim), np.float32)
    if models.quantizer is None:
        nothing = [np.zeros((count, 0), np.int64) for count in (len(sounds), len(texts))]
        return Space(sounds, texts, embeddings.clap, vectors, pairs, np.zeros((0, 1, dim), np.float32), *nothing)
    codebooks = models.quantizer.residual_vq.codebooks.float().cpu().numpy()
    tokens = [
        tokens_of(own, models.quantizer) if len(own) else np.zeros((0, len(codebooks)), np.int64)
        for own in (embeddings.clap, vectors)
    ]
    return Space(sounds, texts, embeddings.clap, vectors, pairs, codebooks, *tokens)


def _existing(sounds: Sequence[LabelledSound]) -> list[LabelledSound]:
    """The sounds whose files are there. Warns of others; raises UserError if there is none."""
    there = [sound for sound in sounds if os.path.isfile(sound.path)]  # False of any name that cannot be
    if len(there) < len(sounds):
        first = next(sound.path for sound in sounds if not os.path.isfile(sound.path))
        missing = f"{len(sounds) - len(there)} of {len(sounds)} labelled files are not there, such as {first}"
        if not there:
            raise UserError(f"{missing}; files are relative to the folder of sound")
        warnings.warn(UserNotice(missing), stacklevel=3)
    return there


def _tables(
    space: Space, embeddings: SoundEmbeddings, models: Models, tags: Sequence[Tag], options: AtlasOptions
) -> tuple[list[Table], dict[str, str]]:
    """The tables of the requested parts, and the reasons for missing ones."""
    groups = groups_of(space.sounds, options.group_by)
    probed = [tag for tag in tags if can_be_held_out(tag, groups)]
    makers: dict[str, Callable[[], list[Table]]] = {
        "retrieval": lambda: [retrieval_table(space)],
        "tokens": lambda: token_tables(space),
        "gap": lambda: [gap_table(space)],
        "corrections": lambda: [_corrections(space, models, options.results_folder)],
        "probes": lambda: [probe_table(space, embeddings, probed, groups)],
        "arithmetic": lambda: [arithmetic_table(space, tags, lambda texts: embed_texts(texts, models.clap))],
    }
    tables: list[Table] = []
    skipped = {
        f"tag {tag.name}": f"folds by {options.group_by} hold out all sounds of each value at once"
        for tag in (tags if "probes" in options.parts else ())
        if not can_be_held_out(tag, groups)
    }
    asked = {*options.parts, *(["corrections"] if "gap" in options.parts else [])}
    for part in (part for part in makers if part in asked):
        reason = _lacking(part, space, probed if part == "probes" else tags)
        if reason:
            skipped[part] = reason
        else:
            tables += makers[part]()
    return tables, skipped


def _corrections(space: Space, models: Models, folder: Path) -> Table:
    """What corrections change; writes those that all pairs are fitted to, as a bundle takes them."""
    quantizer = models.quantizer
    for name, own in fit_corrections(space, space.pairs).items():
        correction = TextCorrection(torch.from_numpy(own.matrix), torch.from_numpy(own.shift))
        correction.save(
            folder / f"{name.split(',')[0].lower().replace(' ', '_')}_{TEXT_CORRECTION_NAME}", models.clap.clap
        )
    encode = None if quantizer is None else lambda texts: tokens_of(texts, quantizer)
    return corrections_table(space, *split_pairs(space), encode)


def _lacking(part: str, space: Space, tags: Sequence[Tag]) -> str | None:
    """The reasons why a part cannot be measured on these sounds."""
    captioned = len(np.unique(space.pairs[:, 0]))
    if part in ("retrieval", "tokens", "gap", "corrections") and captioned < FEWEST_SOUNDS:
        return f"sounds with captions: {captioned}; at least {FEWEST_SOUNDS} are needed"
    if part == "tokens" and space.levels == 0:
        return "there is no RVQ; give --rvq_path"
    if part == "corrections" and len(np.unique(split_pairs(space)[1][:, 1])) < FEWEST_SOUNDS // 2:
        return "almost all captions occur in both halves of the sounds, so none is left to measure on"
    if part in ("probes", "arithmetic") and len(space.sounds) < FEWEST_SOUNDS:
        return f"sounds: {len(space.sounds)}; at least {FEWEST_SOUNDS} are needed"
    if part == "probes" and not tags:
        return "no tag can be probed"
    if part == "arithmetic" and sum(not tag.is_number for tag in tags) < 2:
        return "two tags with categories are needed"
    return None


def _write(
    options: AtlasOptions,
    space: Space,
    models: Models,
    embeddings: SoundEmbeddings,
    tables: Sequence[Table],
    skipped: dict[str, str],
) -> None:
    card = {
        "folder": str(options.folder),
        "sounds": len(space.sounds),
        "captions": len(space.texts),
        "failures": {str(failure.path): failure.reason for failure in embeddings.failures},
        "window_seconds": models.clap.window_seconds,
        "rvq_levels": space.levels,
        "skipped": skipped,
        "versions": versions("scikit-learn", "numpy"),
        "tables": [table.json() for table in tables],
    }
    write_json(options.results_folder / "atlas.json", card)
    summary = [
        f"{len(space.sounds)} sounds and {len(space.texts)} captions of {options.folder}; "
        f"{len(embeddings.failures)} files could not be used.",
        *(f"Left out: {name}: {reason}." for name, reason in skipped.items()),
    ]
    data = map_data(space, models, options) if "map" in options.parts else MapData([], [], [], {})
    write_page(options.results_folder / "atlas.html", "CLAP's latent space", summary, data, tables)


def map_data(space: Space, models: Models, options: AtlasOptions) -> MapData:
    """Some sounds, the first caption of each, and the prompts, in two dimensions."""
    taken = np.sort(np.random.default_rng(SEED).permutation(len(space.sounds))[: options.map_sounds])
    texts = list(
        dict.fromkeys(space.texts_of_sound[number][0] for number in taken if len(space.texts_of_sound[number]))
    )
    points = [space.sound_vectors[taken], space.text_vectors[texts]]
    if options.prompts:
        points.append(embed_texts(options.prompts, models.clap))
    joined = np.concatenate(points)
    plane, share = pca_map(joined)
    projections = {f"PCA ({share:.0%} of the variance)": plane}
    umap = umap_map(joined)
    if umap is not None:
        projections["UMAP"] = umap
    return MapData(
        [space.sounds[number] for number in taken], [space.texts[n] for n in texts], list(options.prompts), projections
    )
