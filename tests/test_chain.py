"""The whole chain by its scripts, as a user runs them: from a folder of sound to waves for a prompt.

With a MERT of 24 kHz and 75 tokens a second, as MERT v1: the other tests have v0's rates.
"""

import json
from pathlib import Path

import pytest
import soundfile
import torch
from helpers import forks
from helpers.paths import REPOSITORY, on_cpu
from helpers.small_stack import build_backbones

pytestmark = pytest.mark.slow
STAGES = ("semantic", "coarse", "fine")


class Workplace:
    """A folder of music, small backbones, configs, and the scripts run in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.model_config = build_backbones(folder / "model", mert_hz=24000)
        self.training_config = folder / "training.json"
        self.training_config.write_text(json.dumps(self._training()))
        self._write_music(folder / "music")

    def run(self, script: str, *arguments: str, status: int = 0) -> str:
        """Runs a script in the folder; returns what it printed."""
        ended = forks.run([REPOSITORY / "scripts" / script, *arguments, *on_cpu(script)], cwd=self.folder)
        assert ended.returncode == status, f"{script}: {ended.stdout}\n{ended.stderr}"
        assert "Traceback" not in ended.stderr
        return ended.stdout + ended.stderr

    def configs(self) -> list[str]:
        return ["--model_config", str(self.model_config), "--training_config", str(self.training_config)]

    def tokenizers(self) -> list[str]:
        return ["--rvq_path", "results/clap_rvq", "--kmeans_path", "results/hubert_kmeans"]

    def parts(self, *stages: str) -> list[str]:
        """What an inference script is given."""
        paths = [word for stage in stages for word in (f"--{stage}_path", f"results/{stage}")]
        return [*paths, *self.tokenizers(), "--model_config", str(self.model_config)]

    def _training(self) -> dict:
        common = {
            "batch_size": 2,
            "num_train_steps": 2,
            "save_model_every": 2,
            "save_results_every": 2,
            "num_workers": 1,
        }
        stage = {"folder": "tokens", "use_preprocessed_data": True, "valid_frac": 0.3, "lr_warmup": 1, **common}
        return {
            "clap_rvq_trainer_cfg": {"folder": "music", "accumulate_batches": 24, **common},
            "hubert_kmeans_trainer_cfg": {
                "folder": "music",
                "feature_extraction_num_steps": 2,
                "feature_extraction_batch_size": 2,
            },
            **{f"{name}_trainer_cfg": {"stage": name, **stage} for name in STAGES},
            "data_preprocessor_cfg": {"folder": "music", "results_folder": "tokens"},
        }

    def _write_music(self, folder: Path) -> None:
        """Notes over noise in several formats and rates, and files that cannot be used."""
        folder.mkdir()
        generator = torch.Generator().manual_seed(0)
        for number, (suffix, rate) in enumerate((("flac", 44100), ("wav", 22050), ("ogg", 48000), ("mp3", 44100))):
            time = torch.arange(rate * (3 + number)) / rate
            notes = torch.sin(2 * torch.pi * (220 * 2 ** (time.floor() / 5 + number / 7)) * time)
            wave = 0.3 * notes + 0.05 * torch.randn(time.shape, generator=generator)
            soundfile.write(folder / f"tune{number}.{suffix}", wave.numpy(), rate)
        (folder / "broken.wav").write_bytes(b"this is no sound")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Workplace:
    """After all the training scripts in sequence."""
    place = Workplace(tmp_path_factory.mktemp("chain"))
    place.run("train_clap_rvq.py", *place.configs(), "--results_folder", "results/clap_rvq")
    place.run("train_hubert_kmeans.py", *place.configs(), "--results_folder", "results/hubert_kmeans")
    told = place.run("preprocess_data.py", *place.configs(), *place.tokenizers())
    assert "broken.wav" in told
    for stage in STAGES:
        told = place.run(
            f"train_{stage}_stage.py", *place.configs(), *place.tokenizers(), "--results_folder", f"results/{stage}"
        )
        assert f"results/{stage}" in told
    return place


def waves_in(folder: Path) -> list[Path]:
    waves = sorted(folder.glob("*.wav"))
    assert all(wave.with_suffix(".json").exists() for wave in waves)
    return waves


def test_top_match(trained: Workplace) -> None:
    prompts = ['a/b: "c"', "느린 피아노 " * 50]
    told = trained.run(
        "infer_top_match.py",
        *prompts,
        *trained.parts(*STAGES),
        *("--num_samples", "3", "--num_top_matches", "2", "--duration", "0.7", "--results_folder", "out"),
    )
    waves = waves_in(trained.folder / "out")
    assert len(waves) == 4
    assert all(str(wave.name) in told for wave in waves)
    assert {soundfile.info(wave).frames for wave in waves} == {round(0.7 * 24000)}
    stories = [json.loads(wave.with_suffix(".json").read_text()) for wave in waves]
    assert {story["prompt"] for story in stories} == set(prompts)
    first = [story["similarity"] for story in stories if story["prompt"] == prompts[0]]
    assert first == sorted(first, reverse=True)
    assert all("semantic_path" in story["paths"] and story["versions"]["torch"] for story in stories)
    assert all(story["settings"]["cfg_scale"] == 1 and story["settings"]["num_samples"] == 3 for story in stories)


def test_continuation_and_coarse_wave(trained: Workplace) -> None:
    given = trained.folder / "music" / "tune1.wav"
    arguments = ("--duration", "0.5", "--input_audio", str(given), "--return_coarse_wave", "--results_folder", "on")
    trained.run("infer_top_match.py", "a tune", *trained.parts("semantic", "coarse"), *arguments, "--num_samples", "2")
    (wave,) = waves_in(trained.folder / "on")
    assert soundfile.info(wave).frames == 4 * 24000 + 12000


def test_list_of_prompts(trained: Workplace) -> None:
    (trained.folder / "prompts.txt").write_text("one tune\n\nanother tune\n", encoding="utf-8")
    arguments = ("--prompts_file", "prompts.txt", "--duration", "0.3", "--results_folder", "list")
    trained.run("infer.py", *trained.parts(*STAGES), *arguments)
    assert len(waves_in(trained.folder / "list")) == 2


@pytest.mark.parametrize("stage", ["coarse", "fine"])
def test_regeneration(trained: Workplace, stage: str) -> None:
    needed = STAGES[STAGES.index(stage) :]
    arguments = ("--results_folder", f"again_{stage}")
    trained.run(f"infer_{stage}.py", "music/tune0.flac", "music/tune1.wav", *trained.parts(*needed), *arguments)
    waves = waves_in(trained.folder / f"again_{stage}")
    assert [soundfile.info(wave).frames for wave in waves] == [3 * 24000, 4 * 24000]


def test_one_folder_holds_it_all(trained: Workplace) -> None:
    trained.run("bundle.py", *trained.parts(*STAGES), "--results_folder", "bundle")
    moved = trained.folder / "elsewhere"
    (trained.folder / "bundle").rename(moved)
    arguments = ("--checkpoint_dir", str(moved), "--duration", "0.3", "--num_samples", "1", "--results_folder", "b")
    trained.run("infer_top_match.py", "a tune", *arguments)
    own = ("--duration", "0.3", "--num_samples", "1", "--results_folder", "parts")
    trained.run("infer_top_match.py", "a tune", *trained.parts(*STAGES), *own)
    (bundled,), (apart,) = waves_in(trained.folder / "b"), waves_in(trained.folder / "parts")
    assert bundled.read_bytes() == apart.read_bytes()
    config = json.loads((moved / "model_config.json").read_text())
    assert config["clap_rvq_cfg"]["model_name"] == "./clap"


def test_a_results_folder_is_never_overwritten_unasked(trained: Workplace) -> None:
    again = (
        "train_semantic_stage.py",
        *trained.configs(),
        *trained.tokenizers(),
        "--results_folder",
        "results/semantic",
    )
    before = sorted((trained.folder / "results/semantic").rglob("*.safetensors"))
    told = trained.run(*again, status=2)
    assert "results/semantic" in told.splitlines()[-1]
    assert sorted((trained.folder / "results/semantic").rglob("*.safetensors")) == before


@pytest.mark.parametrize(
    ("swap", "named"),
    [
        (("--semantic_path", "results/coarse"), "results/coarse"),
        (("--semantic_path", "music/tune1.wav"), "tune1.wav"),
        (("--rvq_path", "results/hubert_kmeans"), "results/hubert_kmeans"),
    ],
)
def test_checkpoints_of_another_kind_are_named(trained: Workplace, swap: tuple[str, str], named: str) -> None:
    parts = trained.parts(*STAGES)
    parts[parts.index(swap[0]) + 1] = swap[1]
    told = trained.run("infer_top_match.py", "a tune", *parts, "--duration", "0.2", status=2)
    assert named in told.splitlines()[-1]
