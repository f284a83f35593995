"""Tables of retrieval and of CLAP tokens."""

import numpy as np
from jaxtyping import Int

from open_musiclm.analysis.options import SEED
from open_musiclm.analysis.report import Cell, Table, mean_cell
from open_musiclm.analysis.retrieval import RECALL_AT, Ranking, rank
from open_musiclm.analysis.space import Space
from open_musiclm.analysis.token_statistics import (
    agreement,
    most_used,
    nearest,
    perplexity,
    reconstructions,
    residual_energy,
    usage,
)

MOST_QUERIES = 10_000
_CODES_SHOWN, _NEAREST_SHOWN = 5, 3


def retrieval_table(space: Space) -> Table:
    """Retrieval in both directions, before the RVQ and after its first levels."""
    lines = []
    for levels in range(space.levels + 1):
        quantized = space.quantized(levels)
        name = "as it is" if levels == 0 else f"first {levels} of the RVQ"
        queries = _some(len(space.texts))
        groups = np.array([own[0] for own in space.sounds_of_text])[queries]
        relevant = [space.sounds_of_text[query] for query in queries]
        ranking = rank(quantized.text_vectors[queries], quantized.sound_vectors, relevant)
        lines.append(["text to sound", name, *_recalls(ranking, groups)])
        queries = np.array([query for query, own in enumerate(space.texts_of_sound) if len(own)])
        queries = queries[_some(len(queries))]
        relevant = [space.texts_of_sound[query] for query in queries]
        ranking = rank(quantized.sound_vectors[queries], quantized.text_vectors, relevant)
        lines.append(["sound to text", name, *_recalls(ranking, queries)])
    note = (
        f"{len(space.sounds)} sounds, {len(space.texts)} distinct captions; at most {MOST_QUERIES} queries of a "
        "direction, at random. Every sound with the caption, and every caption of the sound, is right. Equally "
        "similar items are in random order. Intervals: 95 %, over sounds."
    )
    return Table("Retrieval", note, ("direction", "embedding", "queries", *_RECALL_COLUMNS), lines)


_RECALL_COLUMNS = (
    *(column for depth in RECALL_AT for column in (f"recall at {depth}", f"chance level at {depth}")),
    "median rank",
    "mAP at 10",
)


def _recalls(ranking: Ranking, groups: Int[np.ndarray, "queries"]) -> list[Cell]:
    cells: list[Cell] = [len(groups)]
    for number, depth in enumerate(RECALL_AT):
        cells += [mean_cell(ranking.recall(depth), groups), float(ranking.chance[:, number].mean())]
    return [*cells, float(np.median(ranking.places)), mean_cell(ranking.average_precision, groups)]


def _some(count: int) -> Int[np.ndarray, "_"]:
    return np.sort(np.random.default_rng(SEED).permutation(count)[:MOST_QUERIES])


def token_tables(space: Space) -> list[Table]:
    """Per level of the RVQ: agreement, energy left, usage; and the codes that are used most."""
    sounds, texts = space.pairs.T
    agreed = agreement(space.sound_tokens[sounds], space.text_tokens[texts])
    left = [
        residual_energy(vectors, tokens, space.codebooks)
        for vectors, tokens in ((space.sound_vectors, space.sound_tokens), (space.text_vectors, space.text_tokens))
    ]
    codes = space.codebooks.shape[1]
    lines: list[list[Cell]] = [
        [
            level + 1,
            mean_cell(agreed.equal[:, level], sounds),
            float(agreed.chance[level]),
            mean_cell(agreed.equal_so_far[:, level], sounds),
            float(left[0][level]),
            float(left[1][level]),
            *(
                measure(tokens[:, level], codes)
                for tokens in (space.sound_tokens, space.text_tokens)
                for measure in (usage, perplexity)
            ),
        ]
        for level in range(space.levels)
    ]
    note = (
        f"{len(sounds)} pairs of a sound and a caption; codebooks of {codes}. Energy left: the squared error after the "
        "level, by the energy about the mean. Usage: the share of the codes that occur; a small set of sounds "
        "limits it. Perplexity: the number of equally frequent codes of the same entropy. Intervals: 95 %, over sounds."
    )
    columns = ("level", "equal", "chance level", "equal up to here", "energy left, sounds", "energy left, texts",
               "usage, sounds", "perplexity, sounds", "usage, texts", "perplexity, texts")  # fmt: skip
    return [Table("CLAP tokens", note, columns, lines), _codes_table(space)]


def _codes_table(space: Space) -> Table:
    lines: list[list[Cell]] = []
    residuals = [space.sound_vectors, space.text_vectors]
    quantized = zip(*(reconstructions(tokens, space.codebooks) for tokens in (space.sound_tokens, space.text_tokens)),
               strict=True)  # fmt: skip
    for level, after in enumerate(quantized):
        for code, count in most_used(space.sound_tokens[:, level], _CODES_SHOWN):
            near = [nearest(space.codebooks[level, code], vectors, _NEAREST_SHOWN) for vectors in residuals]
            lines.append(
                [
                    level + 1,
                    code,
                    count,
                    int((space.text_tokens[:, level] == code).sum()),
                    ", ".join(space.sounds[number].path.name for number in near[0]),
                    "; ".join(space.texts[number] for number in near[1]),
                ]
            )
        residuals = [space.sound_vectors - after[0], space.text_vectors - after[1]]
    note = "The codes that most sounds have, and the sounds and captions whose remainder before the level is nearest."
    return Table(
        "The most used codes", note, ("level", "code", "sounds", "texts", "nearest sounds", "nearest captions"), lines
    )
