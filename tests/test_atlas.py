"""scripts/analyze_clap.py as its user runs it: whole atlases of small corpora, and what is wrong with others."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from helpers import forks
from helpers.paths import REPOSITORY
from helpers.small_stack import Stack
from safetensors.torch import load, save

from open_musiclm.analysis.atlas import analyze
from open_musiclm.analysis.embeddings import embed_sounds
from open_musiclm.analysis.loaded_models import Models, load_models
from open_musiclm.analysis.options import AtlasOptions
from open_musiclm.audio import Sound
from open_musiclm.errors import UserError, UserNotice
from open_musiclm.tokenizers.clap_embedder import ClapEmbedder

SAMPLE_HZ = 16000
COUNT = 24


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Low and high tones, even and pulsating, of 0.4 to 3 s, with captions and tags."""
    folder = tmp_path_factory.mktemp("corpus")
    rng = np.random.default_rng(0)
    lines = []
    for number in range(COUNT):
        pitch, pulse = ("low", "high")[number % 2], ("even", "pulsating")[number // 2 % 2]
        seconds = rng.uniform(0.4, 3)
        time = np.arange(round(seconds * SAMPLE_HZ)) / SAMPLE_HZ
        hz = {"low": 200, "high": 2500}[pitch] * rng.uniform(0.9, 1.1)
        envelope = 1.0 if pulse == "even" else (np.sin(2 * np.pi * 4 * time) > 0)
        soundfile.write(folder / f"{number}.wav", 0.3 * envelope * np.sin(2 * np.pi * hz * time), SAMPLE_HZ)
        tags = {"pitch": pitch, "pulse": pulse, "seconds": float(seconds), "album": number // 4, "title": f"<{number}>"}
        lines.append({"file": f"{number}.wav", "captions": [f"{pulse} {pitch} tone {number}", f"{pitch}"], **tags})
    (folder / "captions.jsonl").write_text("\n".join(map(json.dumps, lines)))
    return folder


@pytest.fixture(scope="module")
def models(stack: Stack) -> Models:
    return load_models(str(stack.folder), None, None, "cpu", with_mert=True)


def script(*words: object) -> subprocess.CompletedProcess[str]:
    return forks.run([REPOSITORY / "scripts" / "analyze_clap.py", *words, "--device", "cpu"])


def test_the_script_measures_everything(corpus: Path, stack: Stack, tmp_path: Path) -> None:
    words = (corpus, "--checkpoint_dir", stack.folder, "--results_folder", tmp_path, "--prompts", "a tone", "--parts")
    done = script(*words, "retrieval", "tokens", "gap", "probes", "arithmetic")
    assert done.returncode == 0, done.stderr
    card = json.loads((tmp_path / "atlas.json").read_text())
    tables = {table["title"]: table["lines"] for table in card["tables"]}
    assert list(tables) == ["Retrieval", "CLAP tokens", "The most used codes", "The modality gap",
                            "Corrections of the text embedding", "Linear probes", "Arithmetic"]  # fmt: skip
    assert all(title in done.stdout for title in tables)
    assert (card["sounds"], card["captions"], card["rvq_levels"]) == (COUNT, COUNT + 2, 3)
    assert [line["embedding"] for line in tables["Retrieval"]][::2] == [
        "as it is", "first 1 of the RVQ", "first 2 of the RVQ", "first 3 of the RVQ"
    ]  # fmt: skip
    left = [line["energy left, sounds"] for line in tables["CLAP tokens"]]
    assert left == sorted(left, reverse=True)
    probes = {line["tag"]: line for line in tables["Linear probes"]}
    assert set(probes) == {"pitch", "pulse", "seconds"}
    assert probes["pitch"]["CLAP"]["value"] > 0.9  # any spectrogram tells it
    assert {f"MERT {layer}" for layer in range(4)} <= probes["pitch"].keys()
    assert set(card["skipped"]) == {"tag album", "tag title"}
    assert all(f"left out: {name}: {reason}" in done.stderr for name, reason in card["skipped"].items())
    assert {line["changes"] for line in tables["Arithmetic"]} == {"pitch", "pulse"}


def atlas(corpus: Path, models: Models, results: Path, **options: object) -> dict:
    analyze(models, AtlasOptions(corpus, results, **options))
    return json.loads((results / "atlas.json").read_text())


@pytest.fixture
def copy(corpus: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(corpus, tmp_path / "copy"))


def test_embeddings_are_kept_by_content(
    copy: Path, models: Models, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = embed_sounds(sorted(copy.glob("*.wav")), models.clap, models.mert, tmp_path / "kept")
    (copy / "0.wav").rename(copy / "99.wav")
    embedded: list[int] = []
    embed = models.clap.embed_sound
    monkeypatch.setattr(models.clap, "embed_sound", lambda sound: [embedded.append(1), embed(sound)][1])
    moved = [*sorted(copy.glob("*.wav")), copy / "99.wav"]
    second = embed_sounds(moved, models.clap, models.mert, tmp_path / "kept")
    assert embedded == []
    np.testing.assert_array_equal(second.clap[-1], first.clap[0])
    np.testing.assert_array_equal(second.layer(1)[-1], first.layer(1)[0])
    (copy / "99.wav").write_bytes((copy / "1.wav").read_bytes()[:-2000])
    changed = embed_sounds(moved, models.clap, models.mert, tmp_path / "kept")
    assert embedded == [1]
    assert not np.array_equal(changed.clap[-1], first.clap[0])


def test_embeddings_of_other_models_and_settings_are_not_mixed_up(
    corpus: Path, stack: Stack, models: Models, tmp_path: Path
) -> None:
    """The weights are the same: what differs is the window, CLAP's front end, MERT's rate, and an activation."""
    path = [corpus / "0.wav"]
    first = embed_sounds(path, models.clap, models.mert, tmp_path / "kept")
    others = [load_models(str(stack.folder), None, None, "cpu", with_mert=True) for _ in range(4)]
    others[0] = Models(ClapEmbedder(others[0].clap.clap, 1.0, 48000), None, models.mert)
    others[1].clap.clap.mel._filters.mul_(2)
    assert others[2].mert is not None
    assert others[3].mert is not None
    others[2].mert.sample_hz, others[2].mert.window = 8000, 16000
    others[3].mert.model.config.layer_norm_eps = 0.1
    for layer in others[3].mert.model.encoder.layers:
        layer.layer_norm.eps = 0.1
    for number, other in enumerate(others):
        found = embed_sounds(path, other.clap, other.mert, tmp_path / "kept")
        assert np.array_equal(found.clap, first.clap) == (number >= 2)
        assert np.array_equal(found.layer(2), first.layer(2)) == (number < 2)


@pytest.mark.parametrize("damage", ["text", "cut", "bytes", "edited", "foreign", "pipe"])
def test_damaged_embeddings_are_computed_again(corpus: Path, models: Models, tmp_path: Path, damage: str) -> None:
    paths = sorted(corpus.glob("*.wav"))[:2]
    first = embed_sounds(paths, models.clap, models.mert, tmp_path)
    for kept in tmp_path.rglob("*.safetensors"):
        content = kept.read_bytes()
        kept.unlink()
        if damage == "pipe":
            os.mkfifo(kept)
        elif damage in ("edited", "foreign"):
            vectors = load(content)
            kept.write_bytes(save({**vectors, "vectors": vectors["vectors"] * 2} if damage == "edited" else {}))
        else:
            damaged = {"text": b"no vectors", "cut": content[:-7], "bytes": content[:-5] + b"\x01" + content[-4:]}
            kept.write_bytes(damaged[damage])
    again = embed_sounds(paths, models.clap, models.mert, tmp_path)
    np.testing.assert_array_equal(again.clap, first.clap)
    np.testing.assert_array_equal(again.layer(2), first.layer(2))


def test_what_failed_is_tried_again(
    corpus: Path, models: Models, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = [corpus / "0.wav", corpus / "1.wav"]

    def lacks_memory(sound: Sound) -> torch.Tensor:
        raise MemoryError

    with monkeypatch.context() as patch:
        patch.setattr(models.clap, "embed_sound", lacks_memory)
        with pytest.raises(UserError, match=r"none of the 2 sound files can be used; .* more memory than there is"):
            embed_sounds(paths, models.clap, None, tmp_path)
    found = embed_sounds([*paths, corpus / "none.wav"], models.clap, None, tmp_path)
    assert list(found.numbers) == [0, 1]
    assert [failure.path.name for failure in found.failures] == ["none.wav"]


def test_groups_stay_in_one_fold(corpus: Path, models: Models, tmp_path: Path) -> None:
    card = atlas(corpus, models, tmp_path, parts=("probes",), group_by="album", tags=("pitch+pulse",))
    (line,) = card["tables"][0]["lines"]
    assert line["CLAP"]["groups"] == COUNT // 4
    with pytest.raises(UserError, match="--group_by artist: no sound has this tag; there are 'pitch', 'pulse', 'sec"):
        atlas(corpus, models, tmp_path, group_by="artist")


def test_groups_that_leave_nothing_to_learn_from(copy: Path, models: Models, tmp_path: Path) -> None:
    lines = [json.loads(line) for line in (copy / "captions.jsonl").read_text().splitlines()]
    labelled(copy, *({**line, "label": "one"} for line in lines))
    names = ("pulse", "pitch", "seconds")
    card = atlas(copy, models, tmp_path, parts=("probes",), group_by="label", tags=names)
    assert card["tables"] == []
    reason = "folds by label hold out all sounds of each value at once"
    assert card["skipped"] == {"probes": "no tag can be probed", **{f"tag {name}": reason for name in names}}
    card = atlas(copy, models, tmp_path, parts=("probes",), group_by="pitch", tags=names)
    assert [line["tag"] for line in card["tables"][0]["lines"]] == ["pulse", "seconds"]
    labelled(copy, {**lines[0], "label": "one"}, *lines[1:])
    with pytest.warns(UserNotice, match="--group_by label: 23 of 24 sounds lack it; each of them is its own group"):
        card = atlas(copy, models, tmp_path, parts=("probes",), group_by="label", tags=("pulse",))
    assert card["tables"][0]["lines"][0]["CLAP"]["groups"] == COUNT


def test_without_an_rvq(corpus: Path, models: Models, tmp_path: Path) -> None:
    card = atlas(corpus, Models(models.clap, None, None), tmp_path, parts=("retrieval", "tokens", "gap", "probes"))
    assert card["skipped"]["tokens"] == "there is no RVQ; give --rvq_path"
    assert len(card["tables"][0]["lines"]) == 2
    assert "equal tokens, all" not in card["tables"][2]["lines"][0]


def labelled(folder: Path, *lines: dict) -> Path:
    (folder / "captions.jsonl").write_text("\n".join(map(json.dumps, lines)))
    return folder


def test_one_short_clip_is_an_atlas_of_one(models: Models, tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", np.sin(np.arange(800)), 8000)
    card = atlas(labelled(tmp_path, {"file": "a.wav", "caption": "short"}), models, tmp_path / "results")
    assert card["tables"] == []
    assert card["skipped"]["retrieval"] == "sounds with captions: 1; at least 10 are needed"
    assert '"file":"a.wav"' in (tmp_path / "results" / "atlas.html").read_text()


def test_files_that_cannot_be_used_are_told_once(
    corpus: Path, models: Models, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "umap", None)  # its import takes long
    lines = [json.loads(line) for line in (corpus / "captions.jsonl").read_text().splitlines()]
    folder = labelled(tmp_path, *lines, {"file": "gone.wav", "caption": "lost"}, {"file": "bad.wav", "caption": "x"})
    for line in lines:
        (folder / line["file"]).symlink_to(corpus / line["file"])
    (folder / "bad.wav").write_text("no sound")
    with pytest.warns(UserNotice) as told:
        card = atlas(folder, models, tmp_path / "results", parts=("retrieval", "map"), map_sounds=5)
    messages = [str(one.message) for one in told if issubclass(one.category, UserNotice)]
    assert any("1 of 26 labelled files are not there, such as" in message for message in messages)
    assert any(message.startswith(f"left out: {folder / 'bad.wav'}") for message in messages)
    assert (card["sounds"], list(card["failures"])) == (COUNT, [str(folder / "bad.wav")])


def test_embeddings_that_are_not_finite(
    corpus: Path, stack: Stack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    models = load_models(str(stack.folder), None, None, "cpu", with_mert=False)
    monkeypatch.setattr(models.clap, "embed_sound", lambda sound: torch.full((16,), torch.nan))
    with pytest.raises(UserError, match=r"none of the 24 sound files can be used; .*its embedding is not finite"):
        atlas(corpus, models, tmp_path)


@pytest.mark.parametrize(
    ("lines", "words", "told"),
    [
        ([], [], "describes no sound"),
        ([{"file": "gone.wav"}], [], "1 of 1 labelled files are not there"),
        ([{"file": "a.wav"}], ["--tags", "genre"], "--tags genre: no sound has 'genre'"),
        ([{"file": "a.wav"}], ["--labels", "none.csv"], "none.csv: cannot read"),
    ],
)
def test_one_line_says_what_is_wrong(
    lines: list, words: list, told: str, models: Models, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.wav").write_bytes(b"")
    labels = Path(words[1]) if words[:1] == ["--labels"] else None
    tags = words[1:] if words[:1] == ["--tags"] else None
    with pytest.raises(UserError, match=re.escape(told)):
        analyze(models, AtlasOptions(labelled(tmp_path, *lines), tmp_path / "results", labels=labels, tags=tags))


def test_misuse_of_the_script(tmp_path: Path) -> None:
    done = script(tmp_path)
    assert done.returncode == 2
    assert done.stderr == "error: missing --model_config, or --checkpoint_dir with a bundle\n"
