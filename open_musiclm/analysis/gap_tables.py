"""Tables of the gap between sounds and texts, and of what corrections of the texts change."""

from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Float, Int

from open_musiclm.analysis.confidence import mean_estimate
from open_musiclm.analysis.modality_gap import Correction, cca, distance_of_means, mean_shift, overlap, pls
from open_musiclm.analysis.report import Cell, Table
from open_musiclm.analysis.retrieval import rank
from open_musiclm.analysis.space import Space, normalized
from open_musiclm.analysis.token_statistics import agreement, reconstructions

_COMPONENTS = 32
_PAIRS_OF_A_COMPONENT = 4
_COLUMNS = ("correction", "cosine of pairs", "overlap", "recall at 10", "mAP at 10")
_TOKEN_COLUMNS = ("equal tokens, level 1", "equal tokens, all", "text tokens changed", "recall at 10 by tokens")
Encode = Callable[[Float[np.ndarray, "vectors dim"]], Int[np.ndarray, "vectors levels"]]


def gap_table(space: Space) -> Table:
    """How far sounds and texts lie apart."""
    sounds, texts = space.pairs.T
    cosines = (space.sound_vectors[sounds] * space.text_vectors[texts]).sum(axis=1)
    means = [vectors.mean(axis=0, dtype=np.float64) for vectors in (space.sound_vectors, space.text_vectors)]
    lines: list[list[Cell]] = [
        ["distance of the means of sounds and texts", distance_of_means(space.sound_vectors, space.text_vectors)],
        ["mean cosine of a sound and its caption", mean_estimate(cosines.astype(np.float64), sounds)],
        ["mean cosine of any sound and any caption", float(means[0] @ means[1])],
        ["mean cosine of any two sounds", float(means[0] @ means[0])],
        ["mean cosine of any two captions", float(means[1] @ means[1])],
        ["overlap (0: apart, 1: mixed)", mean_estimate(overlap(space.sound_vectors, space.text_vectors))],
    ]
    note = "Overlap: of the ten nearest neighbours of a point, how many are of the other kind, by a perfect mixture."
    return Table("The modality gap", note, ("measure", "value"), lines)


def split_pairs(space: Space) -> tuple[Int[np.ndarray, "fitted 2"], Int[np.ndarray, "held_out 2"]]:
    """The pairs of half the sounds, and those of the other half whose captions the first does not have."""
    fitted_to = np.random.default_rng(0).permutation(len(space.sounds))[: len(space.sounds) // 2]
    is_fitted = np.isin(space.pairs[:, 0], fitted_to)
    seen = np.isin(space.pairs[:, 1], space.pairs[is_fitted, 1])
    return space.pairs[is_fitted], space.pairs[~is_fitted & ~seen]


def fit_corrections(space: Space, pairs: Int[np.ndarray, "pairs 2"]) -> dict[str, Correction]:
    """The corrections of the texts that these pairs are fitted to, by name."""
    components = min(_COMPONENTS, space.sound_vectors.shape[1], max(len(pairs) // _PAIRS_OF_A_COMPONENT, 1))
    given = space.text_vectors[pairs[:, 1]], space.sound_vectors[pairs[:, 0]]
    return {
        "mean shift": mean_shift(*given),
        f"PLS, {components} components": pls(*given, components),
        f"CCA, {components} components": cca(*given, components),
    }


def corrections_table(
    space: Space, fitted: Int[np.ndarray, "fitted 2"], held_out: Int[np.ndarray, "held_out 2"], encode: Encode | None
) -> Table:
    """What corrections that are fitted to some pairs change on others; `encode` gives the tokens of texts, if any."""
    lines: list[list[Cell]] = [["none", *_measures(space, held_out, space.text_vectors, encode)]]
    for name, correct in fit_corrections(space, fitted).items():
        lines.append([name, *_measures(space, held_out, correct(space.text_vectors), encode)])
    note = (
        f"Fitted to {len(np.unique(fitted[:, 0]))} sounds; measured on {len(np.unique(held_out[:, 0]))} others and "
        f"{len(np.unique(held_out[:, 1]))} captions that the fitted half does not have. Recall and mAP: text to sound. "
        "By tokens: sounds and texts as the whole RVQ has them. Intervals: 95 %, over sounds."
    )
    columns = _COLUMNS if encode is None else (*_COLUMNS, *_TOKEN_COLUMNS)
    return Table("Corrections of the text embedding", note, columns, lines)


def _measures(
    space: Space, pairs: Int[np.ndarray, "pairs 2"], texts: Float[np.ndarray, "texts dim"], encode: Encode | None
) -> Sequence[Cell]:
    """The cells of a line, of these pairs, with other embeddings of the texts."""
    items, sounds = np.unique(pairs[:, 0], return_inverse=True)
    queries, first = np.unique(pairs[:, 1], return_index=True)
    relevant = [sounds[pairs[:, 1] == query] for query in queries]
    owners = sounds[first]
    ranking = rank(texts[queries], space.sound_vectors[items], relevant)
    cosines = (texts[pairs[:, 1]] * space.sound_vectors[pairs[:, 0]]).sum(axis=1).astype(np.float64)
    cells: list[Cell] = [
        mean_estimate(cosines, sounds),
        mean_estimate(overlap(space.sound_vectors[items], texts[queries])),
        mean_estimate(ranking.recall(10), owners),
        mean_estimate(ranking.average_precision, owners),
    ]
    if encode is None:
        return cells
    tokens = encode(texts)
    agreed = agreement(space.sound_tokens[pairs[:, 0]], tokens[pairs[:, 1]])
    said = [*reconstructions(tokens[queries], space.codebooks)][-1]
    ranking = rank(normalized(said), space.quantized(space.levels).sound_vectors[items], relevant)
    return [
        *cells,
        mean_estimate(agreed.equal[:, 0], sounds),
        mean_estimate(agreed.equal.mean(axis=1), sounds),
        float((tokens != space.text_tokens)[pairs[:, 1]].mean()),
        mean_estimate(ranking.recall(10), owners),
    ]
