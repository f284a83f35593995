"""Tables of linear probes and of arithmetic, for every tag."""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
from jaxtyping import Float, Int
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from open_musiclm.analysis.arithmetic import Steps, cell_means, means_of_other_contexts, take_steps
from open_musiclm.analysis.embeddings import SoundEmbeddings
from open_musiclm.analysis.labels import LabelledSound
from open_musiclm.analysis.probes import MOST_SOUNDS, probe
from open_musiclm.analysis.report import Cell, Table, mean_cell
from open_musiclm.analysis.space import Space
from open_musiclm.analysis.tags import Tag

MOST_COMBINATIONS = 1000
_FEWEST_PRESENT = 0.5
EmbedTexts = Callable[[Sequence[str]], Float[np.ndarray, "texts dim"]]


def groups_of(sounds: Sequence[LabelledSound], tag: str | None) -> Int[np.ndarray, "sounds"]:
    """A group number for each sound: sounds that share a value of `tag`, directly or through others, are one group; a
    sound without the tag is its own group."""
    values: dict[str, int] = {}
    pairs = [
        (number, values.setdefault(value, len(values)))
        for number, sound in enumerate(sounds)
        for value in (sound.tags.get(tag, ()) if tag is not None else ())
    ]
    of_sounds, of_values = np.array(pairs, dtype=np.int64).reshape(-1, 2).T
    count = len(sounds) + len(values)
    links = coo_array((np.ones(len(pairs)), (of_sounds, len(sounds) + of_values)), (count, count))
    return connected_components(links, directed=False)[1][: len(sounds)].astype(np.int64)


def can_be_held_out(tag: Tag, groups: Int[np.ndarray, "sounds"]) -> bool:
    """Whether folds of whole groups can predict the tag: numbers need two groups, categories a value in two groups."""
    of_members = groups[tag.members]
    if tag.is_number:
        return len(np.unique(of_members)) > 1
    return any(len(np.unique(of_members[tag.values == value])) > 1 for value in np.unique(tag.values))


def probe_table(
    space: Space, embeddings: SoundEmbeddings, tags: Sequence[Tag], groups: Int[np.ndarray, "sounds"]
) -> Table:
    """Probes of CLAP, of its quantized embeddings, and of each layer of MERT, for every tag."""
    names = ["CLAP", *(["CLAP tokens"] if space.levels else []), *(f"MERT {n}" for n in range(embeddings.num_layers))]
    lines: list[list[Cell]] = [
        [tag.name, "R squared" if tag.is_number else "accuracy", len(tag.members), _values(tag)] for tag in tags
    ]
    chances: dict[str, float] = {}
    for vectors in _representations(space, embeddings):
        for line, tag in zip(lines, tags, strict=True):
            result = probe(vectors[tag.members], tag.values, groups[tag.members])
            chances[tag.name] = result.chance
            line.append(mean_cell(result.scores, result.groups))
    for line, tag in zip(lines, tags, strict=True):
        line.insert(4, chances[tag.name])
    note = (
        "Logistic regression (accuracy; chance level: the most frequent value) or ridge regression (R squared) of "
        f"standardized embeddings, five folds; at most {MOST_SOUNDS} sounds of a tag. MERT: the mean over time of each "
        "layer, 0 is the input of the first. CLAP tokens: the sum of the codes. Intervals: 95 %, over the groups that "
        "folds keep whole."
    )
    return Table("Linear probes", note, ("tag", "measure", "sounds", "values", "chance level", *names), lines)


def _representations(space: Space, embeddings: SoundEmbeddings) -> Iterator[Float[np.ndarray, "sounds dim"]]:
    """One at a time, so that one layer is in memory."""
    yield space.sound_vectors
    if space.levels:
        yield space.quantized(space.levels).sound_vectors
    for layer in range(embeddings.num_layers):
        yield embeddings.layer(layer)


def _values(tag: Tag) -> int:
    return len(np.unique(tag.values))


def arithmetic_table(space: Space, tags: Sequence[Tag], embed_texts: EmbedTexts) -> Table:
    """For every pair of categorical tags: steps from one value of the first to another, in the context of a value of
    the second."""
    lines: list[list[Cell]] = []
    categories = [tag for tag in tags if not tag.is_number and "+" not in tag.name]
    for changed in categories:
        for context in categories:
            if changed.name != context.name and _are_combined(changed, context):
                for kind, steps in _steps(space, changed, context, embed_texts).items():
                    if len(steps.nearest):
                        lines.append([changed.name, context.name, kind, *_rates(steps)])
    note = (
        "From 'slow piano' along 'fast' minus 'slow': is 'fast piano' the nearest of all combinations? Texts: prompts "
        "of two values. Sounds: means of the sounds of a combination; the direction is that of all other contexts. "
        "Texts on sounds: a mean of sounds along a direction of texts. Intervals: 95 %, over contexts."
    )
    columns = ("changes", "in the context of", "of", "steps", "nearest", "stays at the start",
               "nearest without the start", "chance level without the start")  # fmt: skip
    return Table("Arithmetic", note, columns, lines)


def _are_combined(one: Tag, other: Tag) -> bool:
    """Whether at least half of the combinations have sounds (an instrument has only one family)."""
    _, of_one, of_other = np.intersect1d(one.members, other.members, return_indices=True)
    present = len({*zip(one.values[of_one].tolist(), other.values[of_other].tolist(), strict=True)})
    combinations = _values(one) * _values(other)
    return combinations <= MOST_COMBINATIONS and present >= _FEWEST_PRESENT * combinations


def _steps(space: Space, changed: Tag, context: Tag, embed_texts: EmbedTexts) -> dict[str, Steps]:
    values, contexts = np.unique(changed.values), np.unique(context.values)
    shape = (len(values), len(contexts))
    words = embed_texts([*values])[:, None].repeat(shape[1], axis=1)
    prompts = embed_texts([f"{value} {other}" for value in values for other in contexts]).reshape(*shape, -1)
    both, of_changed, of_context = np.intersect1d(changed.members, context.members, return_indices=True)
    cells = cell_means(
        space.sound_vectors[both],
        np.searchsorted(values, changed.values[of_changed]),
        np.searchsorted(contexts, context.values[of_context]),
        shape,
    )
    return {
        "texts": take_steps(prompts, words, prompts),
        "sounds": take_steps(cells, means_of_other_contexts(cells), cells),
        "texts on sounds": take_steps(cells, words, cells),
    }


def _rates(steps: Steps) -> list[Cell]:
    return [
        len(steps.nearest),
        mean_cell(steps.nearest, steps.contexts),
        float(steps.stays.mean()),
        mean_cell(steps.nearest_but_start, steps.contexts),
        steps.chance_without_start,
    ]
