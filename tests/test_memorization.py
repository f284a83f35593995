"""Memorization measured on stages whose answer is known: one that has memorized its music, one that has not."""

import importlib.util
import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
from helpers.script_modules import load_script
from helpers.small_adapter import random_adapter
from helpers.small_stack import Stack

from open_musiclm.data.shards import StoredTokens
from open_musiclm.data.store_description import StoreDescription
from open_musiclm.data.token_store import TokenStore
from open_musiclm.data.token_store_writer import TokenStoreWriter
from open_musiclm.errors import UserError
from open_musiclm.evaluation.memorization import (
    MemorizationOptions,
    PromptLength,
    SemanticStage,
    continue_greedily,
    measure_memorization,
    random_segments,
    threshold_of,
)
from open_musiclm.evaluation.memorization_report import memorization_card
from open_musiclm.generation.decoding.flat_generator import FlatGenerator
from open_musiclm.generation.decoding.sampling import Sampling
from open_musiclm.generation.paths import AdapterPath, ModelPaths

SCRIPT = "scripts/measure_memorization.py"
HZ, ROWS, SECONDS = 50, 6, 9
EXTRA = importlib.util.find_spec("matplotlib") is not None and importlib.util.find_spec("librosa") is not None


class MemorizingStage(FlatGenerator):
    """Finds the context in music that it has seen, and goes on as the music does; `slips` changes every tenth token."""

    music: dict[tuple[int, ...], list[int]]
    slips = False

    def generate(
        self,
        conditioning: Sequence[torch.Tensor],
        context: torch.Tensor,
        frames: int,
        sampling: Sampling,
        rngs: Sequence[torch.Generator],
        advanced: Callable[[int], None],
        negative: torch.Tensor | None = None,
    ) -> torch.Tensor:
        assert sampling.temperature == 0
        made = []
        for clap, given in zip(conditioning[0], context[..., 0].tolist(), strict=True):
            start, known = self.music[tuple(clap.flatten().tolist())]
            last = given[-8:]
            place = start
            if given:
                places = range(start, len(known) - len(last) + 1)
                place = len(last) + next(at for at in places if self._same(known[at : at + len(last)], last))
            tokens = known[place : place + frames]
            if self.slips:
                tokens = [(token + 1) % 40 if at % 10 == 0 else token for at, token in enumerate(tokens)]
            made.append(tokens + [0] * (frames - len(tokens)))
        return torch.tensor(made).unsqueeze(-1)

    def _same(self, left: list[int], right: list[int]) -> bool:
        return sum(a != b for a, b in zip(left, right, strict=True)) <= (1 if self.slips else 0)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory, stack: Stack) -> TokenStore:
    """Six files of nine seconds with random tokens."""
    folder = tmp_path_factory.mktemp("long_tokens")
    generator = torch.Generator().manual_seed(1)

    def draw(codes: int, time: int, quantizers: int) -> torch.Tensor:
        return torch.randint(codes, (time, quantizers), generator=generator)

    with TokenStoreWriter(folder, StoreDescription(stack.config, {})) as writer:
        for number in range(ROWS):
            coarse, fine = (draw(64, SECONDS * 15, count) for count in (3, 5))
            clap, semantic = draw(40, SECONDS - 1, 3), draw(40, SECONDS * HZ - 1, 1)
            writer.add([StoredTokens(f"{number}.wav", 0.0, float(SECONDS), clap, semantic, coarse, fine)])
    return TokenStore(folder, stack.config)


def test_music_that_was_held_out_is_no_training_music(tmp_path: Path, stack: Stack, store: TokenStore) -> None:
    with TokenStoreWriter(tmp_path, StoreDescription(stack.config, {})) as writer:
        for row in range(ROWS):
            clap, semantic, coarse, fine = (store.tokens(row, name) for name in ("clap", "semantic", "coarse", "fine"))
            path = f"{'valid' if row % 2 else 'train'}/{row}.wav"
            writer.add([StoredTokens(path, 0.0, float(SECONDS), clap, semantic, coarse, fine)])
    found = random_segments(TokenStore(tmp_path, stack.config), SECONDS - 1, ROWS, seed=0)
    assert found.files == ROWS // 2
    allowed = [store.tokens(row, "clap").tolist() for row in range(0, ROWS, 2)]
    assert all(any(clap.tolist()[0] in row for row in allowed) for clap in found.clap)


@pytest.fixture
def memorizer(stack: Stack, store: TokenStore) -> MemorizingStage:
    generator = MemorizingStage(stack.stages(["semantic"])["semantic"])
    generator.music = {
        tuple(clap.tolist()): (second * HZ, store.tokens(row, "semantic").flatten().tolist())
        for row in range(ROWS)
        for second, clap in enumerate(store.tokens(row, "clap"))
    }
    return generator


def options(**changes: object) -> MemorizationOptions:
    values = {"prompt_seconds": [0, 1, 3], "examples": 6, "false_positives": 1e-4, "permutations": 3, "seed": 0}
    return MemorizationOptions(**{**values, **changes})  # type: ignore[arg-type]


CENTROIDS = torch.randn(40, 8, generator=torch.Generator().manual_seed(2))


def test_what_is_known_by_heart_matches_exactly(memorizer: MemorizingStage, store: TokenStore) -> None:
    found = measure_memorization(memorizer, CENTROIDS, store, options())
    assert [length.seconds for length in found] == [0, 1, 3]
    for length in found:
        assert length.exact.tolist() == [1.0] * 6
        assert length.costs.tolist() == [0.0] * 6
        assert len(length.wrong_costs) == 18
        assert float(length.wrong_costs.min()) > 0
    rows = memorization_card({"training": found}, options(), {})["stores"]["training"]
    assert all(row["exact"][0] == row["approximate"][0] == 1 for row in rows)


def test_an_exact_match_is_approximate_too_where_wrong_pairs_cost_nothing() -> None:
    """Loops and silence are equal in other segments as well, so the threshold is 0."""
    length = PromptLength(1, torch.tensor([0.0, 0.5]), torch.zeros(20_000), torch.tensor([1.0, 0.0]), 3.0)
    card = memorization_card({"training": [length]}, options(), {})
    (row,) = card["stores"]["training"]
    assert card["threshold"] == 0
    assert row["exact"][0] == row["approximate"][0] == 0.5


def test_slips_match_approximately(memorizer: MemorizingStage, store: TokenStore) -> None:
    memorizer.slips = True
    found = measure_memorization(memorizer, CENTROIDS, store, options(prompt_seconds=[2]))
    card = memorization_card({"training": found}, options(), {})
    (row,) = card["stores"]["training"]
    assert row["exact"][0] == 0
    assert row["approximate"][0] == 1
    assert card["wrong_pairs_below_threshold"] == 0
    assert "18 wrong pairs are too few" in card["warnings"][0]


def test_a_stage_that_knows_nothing_matches_nothing(stack: Stack, store: TokenStore) -> None:
    stage = FlatGenerator(stack.stages(["semantic"])["semantic"])
    (length,) = measure_memorization(stage, CENTROIDS, store, options(prompt_seconds=[1]))
    assert length.exact.sum() == 0
    card = memorization_card({"training": [length]}, options(), {})
    assert card["stores"]["training"][0]["approximate"][0] <= 0.5


def test_the_threshold_lets_no_more_wrong_pairs_through_than_allowed() -> None:
    costs = torch.arange(1000).double()
    assert threshold_of(costs, 0.01) == 10
    assert float((costs < threshold_of(costs, 0.01)).double().mean()) == 0.01
    assert threshold_of(costs, 1e-6) == 0
    assert threshold_of(costs, 1.0) == 999


def test_segments_are_of_different_files_and_aligned(store: TokenStore) -> None:
    segments = random_segments(store, 8, 10, seed=3)
    assert len(segments.clap) == segments.files == ROWS
    assert segments.semantic.shape == (ROWS, 8 * HZ - 1, 1)
    rows = [store.tokens(row, "semantic").flatten().tolist() for row in range(ROWS)]
    for clap, semantic in zip(segments.clap, segments.semantic[..., 0].tolist(), strict=True):
        (row, start), *_ = [
            (row, second)
            for row in range(ROWS)
            for second in range(2)
            if rows[row][second * HZ : second * HZ + 8 * HZ - 1] == semantic
        ]
        assert clap.tolist() == store.tokens(row, "clap", start, 1).tolist()
    with pytest.raises(UserError, match=r"no crop of 15 s or more; give shorter --prompt_seconds"):
        random_segments(store, 15, 10, seed=0)


@pytest.mark.parametrize(
    ("name", "value"),
    [("num_examples", "1"), ("prompt_seconds", "-1"), ("seed", "4294967296"), ("false_positives", "0")],
)
def test_numbers_without_sense(name: str, value: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        load_script(SCRIPT).arguments().parse_args(["--tokens", "tokens", f"--{name}", value])
    assert f"error: argument --{name}: {value} is not " in capsys.readouterr().err
    with pytest.raises(UserError, match=r"examples: expected at least 2 \(wrong pairs need two\), found 1"):
        options(examples=1)


@pytest.mark.parametrize("argument", [["--coarse_path", "coarse"], ["--fine_path", "fine"], ["--trust_remote_code"]])
def test_parts_that_are_not_loaded_have_no_arguments(argument: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        load_script(SCRIPT).arguments().parse_args(["--tokens", "tokens", *argument])
    assert f"unrecognized arguments: {argument[0]}" in capsys.readouterr().err


@pytest.mark.skipif(not EXTRA, reason="needs the extra evaluate")
def test_the_script_writes_a_card_and_a_page(stack: Stack, store: TokenStore, tmp_path: Path) -> None:
    module = load_script(SCRIPT)
    words = ["--tokens", store.folder, "--unseen_tokens", store.folder, "--num_examples", 3, "--prompt_seconds", 0, 2]
    words += ["--permutations", 2, "--results_folder", tmp_path / "results", "--device", "cpu"]
    module.main(module.arguments().parse_args(list(map(str, [*words, "--checkpoint_dir", stack.folder]))))
    card = json.loads((tmp_path / "results/memorization.json").read_text())
    assert card["stores"].keys() == {"training", "unseen"}
    assert [row["stretches"] for row in card["stores"]["training"]] == [3, 3]
    assert card["wrong_pairs"] == 12
    page = (tmp_path / "results/memorization.html").read_text()
    assert page.count("data:image/png;base64,") == 2


def test_tokens_of_another_kmeans_are_refused(stack: Stack, store: TokenStore, tmp_path: Path) -> None:
    shutil.copytree(store.folder, tmp_path / "other")
    story = tmp_path / "other/store.json"
    story.write_text(json.dumps(json.loads(story.read_text()) | {"fingerprints": {"hubert_kmeans": "other"}}))
    semantic = SemanticStage.load(ModelPaths(bundle=str(stack.folder)), "cpu")
    assert len(semantic.store(store.folder)) == ROWS
    with pytest.raises(UserError, match="made with another checkpoint of hubert_kmeans"):
        semantic.store(tmp_path / "other")


def test_the_semantic_stage_has_its_adapters(stack: Stack, tmp_path: Path) -> None:
    _, adapter = random_adapter(stack, "semantic", tmp_path)
    paths = ModelPaths(bundle=str(stack.folder), adapters=[AdapterPath(adapter.path, 0.5)])
    adapted, plain = (SemanticStage.load(found, "cpu") for found in (paths, ModelPaths(bundle=str(stack.folder))))
    assert adapted.paths["adapter_path"] == f"{adapter.path} x 0.5"
    assert "adapter_path" not in plain.paths
    clap, given = torch.zeros(2, 1, 3, dtype=torch.long), torch.zeros(2, 50, 1, dtype=torch.long)
    continued = [continue_greedily(own.stage, own.config, clap, given, 1) for own in (adapted, plain)]
    assert not torch.equal(*continued)
