"""Tables of the gap between sounds and texts, and of corrections of the texts."""

from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Float, Int

from open_musiclm.analysis.modality_gap import AffineMap, cca, distance_of_means, mean_shift, overlap, pls
from open_musiclm.analysis.options import SEED
from open_musiclm.analysis.report import Cell, Table, mean_cell
from open_musiclm.analysis.retrieval import rank
from open_musiclm.analysis.space import Space, normalized
from open_musiclm.analysis.token_statistics import agreement, decode_tokens

_COMPONENTS = 32
_PAIRS_OF_A_COMPONENT = 4
MOST_FITTED, MOST_HELD_OUT = 20_000, 10_000
_COLUMNS = ("correction", "cosine of pairs", "overlap", "recall at 10", "mAP at 10")
_TOKEN_COLUMNS = ("equal tokens, level 1", "equal tokens, all", "text tokens changed", "recall at 10 by tokens")
Correct = Callable[[Float[np.ndarray, "texts dim"]], Float[np.ndarray, "texts dim"]]
Encode = Callable[[Float[np.ndarray, "vectors dim"]], Int[np.ndarray, "vectors levels"]]


def gap_table(space: Space) -> Table:
    """The distance between sounds and texts."""
    cosines, sounds = space.cosines(), space.pairs[:, 0]
    means = [vectors.mean(axis=0, dtype=np.float64) for vectors in (space.sound_vectors, space.text_vectors)]
    lines: list[list[Cell]] = [
        ["distance of the means of sounds and texts", distance_of_means(space.sound_vectors, space.text_vectors)],
        ["mean cosine of a sound and its caption", mean_cell(cosines, sounds)],
        ["mean cosine of any sound and any caption", float(means[0] @ means[1])],
        ["mean cosine of any two sounds", _mean_of_two(means[0], len(space.sound_vectors))],
        ["mean cosine of any two captions", _mean_of_two(means[1], len(space.text_vectors))],
        ["overlap (0: apart, 1: mixed)", mean_cell(overlap(space.sound_vectors, space.text_vectors))],
    ]
    note = "Overlap: share of the other kind among a point's ten nearest neighbours, divided by that of a full mixture."
    return Table("The modality gap", note, ("measure", "value"), lines)


def _mean_of_two(mean: Float[np.ndarray, "dim"], count: int) -> Cell:
    """The mean cosine of two different ones of `count` unit vectors with this mean."""
    return float((count * mean @ mean - 1) / (count - 1)) if count > 1 else "none"


def split_pairs(space: Space) -> tuple[Int[np.ndarray, "fitted 2"], Int[np.ndarray, "held_out 2"]]:
    """Pairs of half the sounds, and pairs of the other half whose captions the first does not have.

    At most 20,000 and 10,000 pairs, taken at random.
    """
    rng = np.random.default_rng(SEED)
    fitted_to = rng.permutation(len(space.sounds))[: len(space.sounds) // 2]
    is_fitted = np.isin(space.pairs[:, 0], fitted_to)
    seen = np.isin(space.pairs[:, 1], space.pairs[is_fitted, 1])
    fitted, held_out = np.flatnonzero(is_fitted), np.flatnonzero(~is_fitted & ~seen)
    chosen = (rng.permutation(fitted)[:MOST_FITTED], rng.permutation(held_out)[:MOST_HELD_OUT])
    return space.pairs[np.sort(chosen[0])], space.pairs[np.sort(chosen[1])]


def fit_corrections(space: Space, pairs: Int[np.ndarray, "pairs 2"]) -> dict[str, AffineMap]:
    """The corrections of the texts that these pairs, at most 20,000 at random, are fitted to, by name."""
    if len(pairs) > MOST_FITTED:
        pairs = np.random.default_rng(0).permutation(pairs)[:MOST_FITTED]
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
    """The effect of corrections, fitted to some pairs, on others; `encode` gives the tokens of texts, if any."""
    lines: list[list[Cell]] = [["none", *_measures(space, held_out, lambda texts: texts, encode)]]
    for name, correct in fit_corrections(space, fitted).items():
        lines.append([name, *_measures(space, held_out, correct, encode)])
    note = (
        f"Fitted to {len(np.unique(fitted[:, 0]))} sounds; measured on {len(np.unique(held_out[:, 0]))} others and "
        f"{len(np.unique(held_out[:, 1]))} captions that the fitted half does not have. Recall and mAP: text to sound. "
        "By tokens: sounds and texts as the whole RVQ has them. Intervals: 95 %, over sounds."
    )
    columns = _COLUMNS if encode is None else (*_COLUMNS, *_TOKEN_COLUMNS)
    return Table("Corrections of the text embedding", note, columns, lines)


def _measures(
    space: Space, pairs: Int[np.ndarray, "pairs 2"], correct: Correct, encode: Encode | None
) -> Sequence[Cell]:
    """The cells of a line: these pairs with corrected texts."""
    items, sounds = np.unique(pairs[:, 0], return_inverse=True)
    queries, first, texts = np.unique(pairs[:, 1], return_index=True, return_inverse=True)
    relevant = [sounds[texts == query] for query in range(len(queries))]
    corrected, vectors, owners = correct(space.text_vectors[queries]), space.sound_vectors[items], sounds[first]
    ranking = rank(corrected, vectors, relevant)
    cells: list[Cell] = [
        mean_cell((corrected[texts] * vectors[sounds]).sum(axis=1).astype(np.float64), sounds),
        mean_cell(overlap(vectors, corrected)),
        mean_cell(ranking.recall(10), owners),
        mean_cell(ranking.average_precision, owners),
    ]
    if encode is None:
        return cells
    of_sounds, of_texts = space.sound_tokens[items], encode(corrected)
    agreed = agreement(of_sounds[sounds], of_texts[texts])
    quantized = [normalized(decode_tokens(tokens, space.codebooks)) for tokens in (of_texts, of_sounds)]
    return [
        *cells,
        mean_cell(agreed.equal[:, 0], sounds),
        mean_cell(agreed.equal.mean(axis=1), sounds),
        float((of_texts != space.text_tokens[queries]).mean()),
        mean_cell(rank(quantized[0], quantized[1], relevant).recall(10), owners),
    ]
