"""Every script as it is run: quick help, and misuse that ends with one line and exit status 2."""

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import documentation, forks
from helpers.paths import REPOSITORY, WITHOUT_MODEL
from helpers.script_modules import load_script

from open_musiclm import cli
from open_musiclm.app.limits import Limits
from open_musiclm.config import GenerationConfig
from open_musiclm.errors import UserError

SCRIPTS = sorted((REPOSITORY / "scripts").glob("*.py"))
HEAVY = ("torch", "torchaudio", "transformers", "numpy", "scipy", "sklearn", "accelerate", "pyarrow", "encodec")
TRAINED = ["semantic", "coarse", "fine", "rvq", "kmeans"]
PATHS = [word for part in TRAINED for word in (f"--{part}_path", "nowhere")]
MODEL = ["--model_config", str(REPOSITORY / "configs/model/musiclm_small.json")]


@pytest.fixture(scope="module")
def without_libraries(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """An environment in which importing a heavy library ends the process."""
    folder = tmp_path_factory.mktemp("blocked")
    for library in HEAVY:
        (folder / f"{library}.py").write_text(f'raise SystemExit("{library} is imported")\n')
    return {**os.environ, "PYTHONPATH": f"{folder}{os.pathsep}{REPOSITORY}"}


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.name)
def test_help_imports_no_heavy_library(script: Path, without_libraries: dict[str, str]) -> None:
    command = [sys.executable, str(script), "--help"]
    answer = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, env=without_libraries)
    assert answer.returncode == 0, answer.stderr
    assert ("--device" in answer.stdout) == (script.stem not in WITHOUT_MODEL)
    assert ("--results_folder" in answer.stdout) == (script.stem not in {"average_weights", "merge_adapter"})


def test_the_package_imports_no_heavy_library(without_libraries: dict[str, str]) -> None:
    command = [sys.executable, "-c", "import open_musiclm"]
    assert subprocess.run(command, timeout=120, check=False, env=without_libraries).returncode == 0


@pytest.mark.slow
def test_generation_starts_without_what_it_does_not_need() -> None:
    """In a new process: what nothing imports there is not missed."""
    command = "import sys\nfrom open_musiclm import cli\nwith cli.hidden(cli.UNUSED_PACKAGES):\n"
    command += " import open_musiclm.generation.loading, open_musiclm.generation.generate_files\n"
    command += "assert not [name for name in cli.UNUSED_PACKAGES if name in sys.modules]"
    done = subprocess.run([sys.executable, "-c", command], capture_output=True, text=True, cwd=REPOSITORY, check=False)
    assert done.returncode == 0, done.stderr


def test_generation_leaves_out_what_it_does_not_need() -> None:
    """A library that is imported where it is there is not, while the model is loaded; what is imported stays."""
    command = "import sys, json\nfrom open_musiclm import cli\nwith cli.hidden(('colorsys', 'json')):\n import json"
    command += "\n try:\n  import colorsys\n except ImportError: print('left out')\nimport colorsys"
    done = subprocess.run([sys.executable, "-c", command], capture_output=True, text=True, cwd=REPOSITORY, check=False)
    assert (done.returncode, done.stdout) == (0, "left out\n"), done.stderr
    assert set(cli.UNUSED_PACKAGES) == {"scipy", "torchvision"}


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.name)
def test_the_documentation_mentions_every_script(script: Path) -> None:
    assert f"scripts/{script.name}" in documentation.text()


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ([""], "prompt"),
        (["a tune", "--duration", "0"], "--duration"),
        (["a tune", "--duration", "-1"], "--duration"),
        (["a tune", "--num_samples", "2", "--num_top_matches", "3"], "--num_top_matches"),
        (["a tune", "--top_p", "1.5"], "--top_p"),
        (["a tune", "--cfg_scale", "4,2"], "--cfg_scale"),
        (["a tune", "--device", "abacus"], "--device abacus"),
        (["a tune"], "nowhere"),
    ],
)
def test_misuse_of_inference_is_one_clear_line(arguments: list[str], named: str) -> None:
    answer = forks.run([REPOSITORY / "scripts" / "infer_top_match.py", *arguments, *PATHS, *MODEL])
    assert answer.returncode == 2
    assert named in answer.stderr.splitlines()[-1]
    assert "Traceback" not in answer.stderr


def test_help_tells_each_default_once() -> None:
    """Also a default of 0, and none where there is none."""
    text = " ".join(load_script("scripts/make_demo_corpus.py").arguments().format_help().split())
    assert "another seed gives other music (default: 0)" in text
    assert "default: None" not in text
    text = " ".join(load_script("scripts/infer_top_match.py").arguments().format_help().split())
    assert all(of_one.count("default") < 2 for of_one in text.split(" --")[1:])


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("scripts/app.py", ["--num_samples", "1"]),
        ("demo/generate.py", ["a", "--num_samples", "1"]),
        ("scripts/infer.py", ["a"]),
    ],
)
def test_a_flag_that_a_script_lacks_never_contradicts_another(script: str, words: list[str]) -> None:
    """The bundle keeps two of four samples, and the script can only say how many samples there are."""
    parsed = load_script(script).arguments().parse_args(words)
    config = cli.generation_config_from(parsed, GenerationConfig(num_samples=4, num_top_matches=2))
    assert (config.num_samples, config.num_top_matches) == (1, 1)
    assert Limits(samples=1).within(GenerationConfig(num_samples=4, num_top_matches=2)).num_top_matches == 1


ONE_STAGE = ["--model_config", str(REPOSITORY / "configs/model/musiclm_small_frames_one_stage.json")]
PARTS = [*ONE_STAGE, "--rvq_path", "nowhere", "--kmeans_path", "nowhere"]


@pytest.mark.parametrize(
    ("script", "words", "told"),
    [
        ("bundle", ["--results_folder", "new", *ONE_STAGE, "--fine_path", "a"], "--fine_path: this model has no fine"),
        ("infer", ["a", *PARTS, "--fine_path", "a"], "--fine_path: this model has no fine stage"),
        ("infer", ["a", *PARTS, "--fine_temperature", "0"], "--fine_temperature: this model has no fine stage"),
        ("infer_top_match", ["a", *PARTS, "--return_coarse_wave"], "--return_coarse_wave: this model has no fine"),
        ("infer_coarse", ["a.wav", *PARTS, "--return_coarse_wave"], "--return_coarse_wave: this model has no fine"),
        ("infer_top_match", ["a", *PARTS, "--no-return_coarse_wave"], "missing --semantic_path"),
        ("infer_fine", ["a.wav", *PARTS, "--fine_path", "a"], "this model has no fine stage: its coarse stage"),
        (
            "convert_checkpoint",
            ["a.pt", "--kind", "coarse", *ONE_STAGE, "--output", "b", "--results_folder", "c"],
            "--output and --results_folder: exclude each other",
        ),
        (
            "make_demo_corpus",
            ["--output", "a", "--results_folder", "b", "--soundfont", "nowhere"],
            "--output and --results_folder: exclude each other",
        ),
    ],
)
def test_an_argument_without_effect_is_refused(script: str, words: list[str], told: str) -> None:
    module = load_script(f"scripts/{script}.py")
    with pytest.raises(UserError, match=f"^{told}"):
        module.main(module.arguments().parse_args(words))


def test_a_folder_without_a_generation_config_is_refused(tmp_path: Path) -> None:
    module = load_script("scripts/bundle.py")
    words = ["--results_folder", str(tmp_path / "new"), *PATHS, *MODEL, "--generation_config", str(tmp_path)]
    with pytest.raises(UserError, match=r"generation_config\.json: cannot read"):
        module.main(module.arguments().parse_args(words))


@pytest.mark.parametrize(
    ("script", "config"),
    [
        ("train_semantic_stage", "musiclm_small"),
        ("train_coarse_stage", "musiclm_small"),
        ("train_coarse_stage", "musiclm_small_frames_one_stage"),
        ("train_fine_stage", "musiclm_small"),
        ("train_hubert_kmeans", "musiclm_small"),
        ("train_clap_rvq", "musiclm_small"),
    ],
)
def test_the_next_command_can_be_copied_whatever_the_paths_are(
    script: str, config: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is read as a shell reads it, by the script that it names."""
    folder = tmp_path / "my $music's"
    folder.mkdir()
    model, training = folder / "model config.json", folder / "training.json"
    shutil.copy(REPOSITORY / f"configs/model/{config}.json", model)
    shutil.copy(REPOSITORY / "configs/training/train_musiclm_fma.json", training)
    written = folder / "checkpoints/kmeans.safetensors"
    monkeypatch.setattr(cli, "train_stage_from", lambda *given: folder)
    for name, result in (("train_clap_rvq", folder), ("train_hubert_kmeans", written)):
        monkeypatch.setattr(f"open_musiclm.training.train_tokenizers.{name}", lambda *given, result=result: result)
    module = load_script(f"scripts/{script}.py")
    words = ["--model_config", str(model), "--training_config", str(training), "--results_folder", str(folder)]
    module.main(module.arguments().parse_args(words))
    program, next_script, *given = shlex.split(capsys.readouterr().out.splitlines()[-1].removeprefix("next: "))
    assert program == "python"
    parsed = load_script(next_script).arguments().parse_args(given)
    assert parsed.model_config == model
    paths = {str(value) for value in vars(parsed).values()}
    own = {"train_hubert_kmeans": {str(written.parent)}, "train_fine_stage": {str(folder)}}
    assert paths >= own.get(script, {str(folder)} if config.endswith("one_stage") else {str(training)})


@pytest.mark.parametrize("command", documentation.commands())
def test_documented_commands_have_arguments_that_exist(command: str) -> None:
    _, script, *words = shlex.split(command)
    parsed = load_script(script).arguments().parse_args(words)
    shipped = [path for path in vars(parsed).values() if isinstance(path, Path) and path.parts[0] == "configs"]
    assert all((REPOSITORY / path).exists() for path in shipped)
