"""The correction of text embeddings that a bundle may bring: from the atlas to the tokens of prompts."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from helpers import forks
from helpers.evaluating import write_noises
from helpers.paths import REPOSITORY
from helpers.small_stack import Stack

from open_musiclm import Mixture, MusicLM, Prompt
from open_musiclm.analysis.atlas import analyze
from open_musiclm.analysis.loaded_models import load_models
from open_musiclm.analysis.options import AtlasOptions
from open_musiclm.audio import Sound, read_sound
from open_musiclm.errors import UserError
from open_musiclm.generation.scorers import ClapScorer
from open_musiclm.tokenizers.clap import Clap
from open_musiclm.tokenizers.text_correction import TEXT_CORRECTION_NAME, TextCorrection

SOUND = Sound(0.1 * torch.randn(32000, generator=torch.Generator().manual_seed(0)), 16000)


@pytest.fixture(scope="module")
def plain(stack: Stack) -> MusicLM:
    return MusicLM.from_pretrained(stack.folder, "cpu")


@pytest.fixture(scope="module")
def shift(plain: MusicLM) -> torch.Tensor:
    """So large that texts become what it points to."""
    return 20 * plain.embed_sound(SOUND)


@pytest.fixture(scope="module")
def corrected(stack: Stack, plain: MusicLM, shift: torch.Tensor, tmp_path_factory: pytest.TempPathFactory) -> MusicLM:
    """The model of a bundle that scripts/bundle.py packed with the correction."""
    folder = tmp_path_factory.mktemp("corrected")
    TextCorrection(torch.eye(len(shift)), shift).save(folder / "some.safetensors", plain.tokenizer.clap)
    words = [
        *stack.arguments(),
        "--text_correction",
        folder / "some.safetensors",
        "--results_folder",
        folder / "bundle",
    ]
    done = forks.run([REPOSITORY / "scripts" / "bundle.py", *words])
    assert done.returncode == 0, done.stderr
    assert f"wrote {folder / 'bundle' / TEXT_CORRECTION_NAME}" in done.stdout
    return MusicLM.from_pretrained(folder / "bundle", "cpu")


def test_texts_are_moved_before_they_are_quantized(plain: MusicLM, corrected: MusicLM, shift: torch.Tensor) -> None:
    texts = ["slow piano", "fast violin tune"]
    moved = torch.nn.functional.normalize(plain.embed_text(texts) + shift, dim=1)
    expected = plain.tokenizer.quantizer.encode(moved).unsqueeze(1)
    assert torch.equal(corrected.clap_tokens(texts), expected)
    assert not torch.equal(plain.clap_tokens(texts), expected)
    half = torch.nn.functional.normalize(moved[0] + plain.embed_sound(SOUND), dim=0)
    mixture = Mixture(["slow piano", Prompt(audio=SOUND)])
    assert torch.equal(corrected.clap_tokens([mixture])[0, 0], plain.tokenizer.quantizer.encode(half[None])[0])
    style = Prompt(audio=SOUND)
    assert torch.equal(corrected.clap_tokens([style]), plain.clap_tokens([style]))


def test_scores_are_those_of_the_plain_texts(plain: MusicLM, corrected: MusicLM) -> None:
    waves = SOUND.wave.unsqueeze(0)
    scores = [ClapScorer(model).score(["slow piano"], waves) for model in (plain, corrected)]
    torch.testing.assert_close(scores[0], scores[1])


def test_the_atlas_writes_the_corrections_that_it_measures(stack: Stack, tmp_path: Path) -> None:
    write_noises(tmp_path / "sounds", 12, 0.4, seed=1)
    lines = [{"file": f"{number}.wav", "caption": f"noise {number}"} for number in range(12)]
    (tmp_path / "sounds/captions.jsonl").write_text("\n".join(map(json.dumps, lines)))
    models = load_models(str(stack.folder), None, None, "cpu", with_mert=False)
    analyze(models, AtlasOptions(tmp_path / "sounds", tmp_path / "results", parts=("gap",)))
    clap = models.clap.clap
    found = {
        name: TextCorrection.load(tmp_path / "results" / f"{name}_{TEXT_CORRECTION_NAME}", clap)
        for name in ("mean_shift", "pls", "cca")
    }
    texts = clap.embed_text([line["caption"] for line in lines])
    paths = [tmp_path / "sounds" / line["file"] for line in lines]
    sounds = torch.stack([models.clap.embed_sound(read_sound(path)) for path in paths])
    torch.testing.assert_close(found["mean_shift"].shift, (sounds - texts).mean(0), atol=1e-4, rtol=0)
    moved = torch.nn.functional.normalize(texts + found["mean_shift"].shift, dim=1)
    torch.testing.assert_close(found["mean_shift"](texts), moved)
    before = float((texts * sounds).sum(1).mean())
    for correction in found.values():
        assert float((correction(texts) * sounds).sum(1).mean()) > before


@pytest.mark.parametrize("damage", ["another CLAP", "another size", "weights", "NaN", "text"])
def test_a_file_that_is_no_correction_of_this_clap(damage: str, stack: Stack, plain: MusicLM, tmp_path: Path) -> None:
    bundle = Path(shutil.copytree(stack.folder, tmp_path / "bundle"))
    path, clap = bundle / TEXT_CORRECTION_NAME, plain.tokenizer.clap
    dim = clap.embedding_dim
    if damage == "another CLAP":
        other = Clap.load(stack.config, torch.device("cpu"))
        torch.nn.init.normal_(other.model.text_projection.linear2.weight)
        TextCorrection(torch.eye(dim), torch.zeros(dim)).save(path, other)
    elif damage == "another size":
        TextCorrection(torch.eye(dim + 1), torch.zeros(dim + 1)).save(path, clap)
    elif damage == "NaN":
        TextCorrection(torch.eye(dim), torch.full((dim,), torch.nan)).save(path, clap)
    elif damage == "weights":
        shutil.copy(stack.weights("clap_rvq"), path)
    else:
        path.write_text("no weights")
    told = {"another CLAP": "made for another CLAP than this model's", "another size": "made for another CLAP than",
            "weights": "not a correction of text embeddings; scripts/analyze_clap.py writes one",
            "NaN": "'shift' holds NaN or infinity", "text": "not a whole safetensors file"}  # fmt: skip
    with pytest.raises(UserError, match=f"{TEXT_CORRECTION_NAME}: {told[damage]}"):
        MusicLM.from_pretrained(bundle, "cpu")
