"""Code that comes with a model runs only with the consent of the person who starts the program."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import forks
from helpers.golden_cases import CPU
from helpers.mert_remote_code import add_remote_code
from helpers.paths import REPOSITORY
from helpers.script_modules import load_script
from helpers.small_stack import Stack

from open_musiclm import MusicLM
from open_musiclm.config import load_model_config
from open_musiclm.errors import UserError
from open_musiclm.tokenizers.music_tokenizer import MusicTokenizer

LOADERS = [
    *(f"scripts/{name}.py" for name in ("infer", "infer_coarse", "infer_fine", "infer_top_match", "preprocess_data")),
    *(f"scripts/train_{name}.py" for name in ("semantic_stage", "coarse_stage", "fine_stage", "hubert_kmeans")),
    "demo/generate.py",
    "demo/evaluate.py",
    "demo/measure_prompting.py",
]


@pytest.mark.parametrize("script", LOADERS)
def test_every_script_that_may_load_a_mert_has_the_flag(script: str) -> None:
    assert "--trust_remote_code" in load_script(script).arguments().format_help()


@pytest.fixture
def bundle(tmp_path: Path, stack: Stack) -> Path:
    """A bundle whose MERT brings code that leaves a file behind, and whose config says that this is fine."""
    folder = Path(shutil.copytree(stack.folder, tmp_path / "bundle"))
    config = folder / "mert" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"deepnorm": True}))
    add_remote_code(folder / "mert")
    for file in (folder / "mert").glob("*.py"):
        witness = f"import pathlib\npathlib.Path({str(tmp_path / 'ran')!r}).touch()\n"
        file.write_text(witness + file.read_text())
    (folder / "generation_config.json").write_text("{}")
    return folder


def _say_so(bundle: Path) -> None:
    path = bundle / "model_config.json"
    content = json.loads(path.read_text())
    content["hubert_kmeans_cfg"]["trust_remote_code"] = True
    path.write_text(json.dumps(content))


def test_code_beside_weights_runs_in_python_only_if_trusted(tmp_path: Path, bundle: Path) -> None:
    with pytest.raises(UserError, match=r"deepnorm, for which Python code .*--trust_remote_code"):
        MusicLM.from_pretrained(bundle, device="cpu")
    _say_so(bundle)
    config = load_model_config(bundle / "model_config.json")
    paths = bundle / "clap_rvq.safetensors", bundle / "hubert_kmeans.safetensors"
    with pytest.raises(UserError, match=r"trust_remote_code: true in a config .*--trust_remote_code") as error:
        MusicLM.from_pretrained(bundle, device="cpu")
    assert "\n" not in str(error.value)
    with pytest.raises(UserError, match="trust_remote_code: true in a config allows nothing by itself"):
        MusicTokenizer.load(config, *paths, CPU)
    assert not (tmp_path / "ran").exists()
    model = MusicLM.from_pretrained(bundle, device="cpu", trust_remote_code=True)
    assert type(model.tokenizer.semantic.mert.model).__name__ == "MERTModel"
    assert (tmp_path / "ran").exists()


def test_code_beside_weights_runs_in_a_script_only_if_trusted(tmp_path: Path, bundle: Path) -> None:
    _say_so(bundle)
    command = ["scripts/infer_top_match.py", "a tune", "--checkpoint_dir", str(bundle), "--device", "cpu"]
    command += ["--duration", "1", "--num_samples", "1", "--num_top_matches", "1"]
    command += ["--results_folder", str(tmp_path / "results")]
    refused = forks.run(command, cwd=REPOSITORY)
    assert (refused.returncode, refused.stderr.count("\n")) == (2, 1), refused.stderr
    assert "--trust_remote_code" in refused.stderr
    assert not (tmp_path / "ran").exists()
    words = [sys.executable, *command, "--trust_remote_code"]  # anew: where code is kept is read at the import
    done = subprocess.run(words, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "ran").exists()
