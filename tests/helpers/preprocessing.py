"""Preprocessing with a tokenizer that reads the time off ramps: the id of a token is its time step in the file."""

import json
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from helpers.forks import Fork
from helpers.paths import REPOSITORY
from helpers.small_stack import CPU, Stack
from helpers.small_tokens import FINGERPRINTS, time_config
from open_musiclm.audio import find_sounds
from open_musiclm.config import DataPreprocessorConfig, ModelConfig
from open_musiclm.data.preprocess import Preprocessor
from open_musiclm.data.preprocess_report import PreprocessReport
from open_musiclm.data.token_store import TokenStore
from open_musiclm.tokens import STREAM_NAMES

CONFIG = time_config()
SCRIPT = REPOSITORY / "scripts" / "preprocess_data.py"
TESTS = REPOSITORY / "tests"


@dataclass
class Clock:
    """Reads the time off ramps from 0 to 1 over `seconds`: tokens are indices of time steps in the file."""

    config: ModelConfig
    seconds: float
    pause: float = 0.0

    def clap_window_ids(self, waves: Sequence[Tensor], window: int, step: int) -> Tensor:
        """The second that a window starts at."""
        windows = torch.cat([wave.unfold(0, window, step) for wave in waves])
        middle = windows[:, window // 2] * self.seconds
        second = middle - self.config.global_cfg.clap_audio_length_seconds / 2
        return second.round().long().clamp(min=0)[:, None].expand(-1, 2)

    def semantic_ids(self, waves: Tensor) -> Tensor:
        """The normalised ramp goes from -sqrt(3) to sqrt(3); the last frame is lost as HuBERT loses it."""
        time.sleep(self.pause)
        times = (waves / np.sqrt(12) + 0.5) * self.seconds
        return self._steps(times, 320, 50)[:, :-1, None]

    def acoustic_ids(self, waves: Tensor) -> Tensor:
        return self._steps(waves * self.seconds, 320, 75)[:, :, None].expand(-1, -1, 5)

    def _steps(self, times: Tensor, hop: int, rate: int) -> Tensor:
        return (times[:, hop // 2 :: hop] * rate).floor().long().clamp(min=0)


def settings_of(folder: Path, **changes: object) -> DataPreprocessorConfig:
    given = {"folder": str(folder / "sound"), "results_folder": str(folder / "store"), "num_workers": 0}
    return DataPreprocessorConfig(**{**given, "max_audio_length_seconds": 5.0, **changes})


def preprocess(
    settings: DataPreprocessorConfig,
    seconds: float,
    process_index: int = 0,
    num_processes: int = 1,
    pause: float = 0.0,
    shard_bytes: int = 1 << 25,
) -> PreprocessReport:
    clock = Clock(CONFIG, seconds, pause)
    preprocessor = Preprocessor(
        CONFIG, settings, clock, FINGERPRINTS, CPU, process_index, num_processes, shard_bytes=shard_bytes
    )
    return preprocessor.run(find_sounds(Path(settings.folder)))


def content_of(folder: Path) -> dict[tuple[str, float], list]:
    """All rows by path and start, whatever shard they are in. Fails where a row is there twice."""
    store = TokenStore(folder / "store", CONFIG)
    rows = [store[row] for row in range(len(store))]
    content = {(row.path, row.start_seconds): [getattr(row, name).tolist() for name in STREAM_NAMES] for row in rows}
    assert len(content) == len(rows)
    return content


def script_command(stack: Stack, settings: DataPreprocessorConfig, training_config: Path) -> list[str]:
    """The script and its words, with the stack's tokenizers; writes the training config."""
    training_config.write_text(json.dumps({"data_preprocessor_cfg": settings.model_dump(mode="json")}))
    tokenizers = ["--rvq_path", str(stack.weights("clap_rvq")), "--kmeans_path", str(stack.weights("hubert_kmeans"))]
    configs = ["--model_config", str(stack.model_config), "--training_config", str(training_config)]
    return [str(SCRIPT), *configs, *tokenizers, "--device", "cpu"]


def start(settings: DataPreprocessorConfig, process: int = 0, processes: int = 1, pause: float = 0.0) -> Fork:
    """Preprocessing in a process of its own, which may be killed; its status is 3 where a signal interrupted it."""
    code = f"import sys; sys.path.insert(0, {str(TESTS)!r})\nfrom helpers.preprocessing import run_it\nrun_it()"
    return Fork(["-c", code, settings.model_dump_json(), process, processes, pause], stderr=subprocess.DEVNULL)


def run_it() -> None:
    """What `start` runs."""
    settings, process, processes, pause = sys.argv[1:]
    given = DataPreprocessorConfig.model_validate_json(settings)
    report = preprocess(given, 6.0, int(process), int(processes), float(pause), shard_bytes=1 << 13)
    sys.exit(3 if report.interrupted else 0)
