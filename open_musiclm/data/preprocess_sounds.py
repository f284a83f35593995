"""Preprocessing as a whole: trained tokenizers are loaded, and sound files become a token store."""

from collections.abc import Sequence
from pathlib import Path

from accelerate import PartialState

from open_musiclm.audio import find_sounds
from open_musiclm.config import DataPreprocessorConfig, ModelConfig, load_training_config, require
from open_musiclm.data.caption_tokens import write_caption_tokens
from open_musiclm.data.fma import filter_fma
from open_musiclm.data.preprocess import Preprocessor
from open_musiclm.data.preprocess_report import PreprocessReport
from open_musiclm.data.store_fingerprints import tokenizer_fingerprints
from open_musiclm.data.unreadable_sounds import print_unreadable
from open_musiclm.devices import choose_device
from open_musiclm.errors import UserError
from open_musiclm.tokenizers.music_tokenizer import MusicTokenizer


def load_settings(training_config: Path, results_folder: Path | None) -> DataPreprocessorConfig:
    """The section of a training config, with another results folder where one is given. Raises UserError."""
    settings = require(load_training_config(training_config), "data_preprocessor_cfg", DataPreprocessorConfig)
    return settings if results_folder is None else settings.model_copy(update={"results_folder": str(results_folder)})


def find_usable(settings: DataPreprocessorConfig, filter_by_fma: bool) -> list[Path]:
    """The sound files of `settings.folder`; if asked, without those that FMA's metadata rules out. Raises UserError."""
    paths = find_sounds(Path(settings.folder))
    print_unreadable(Path(settings.folder))
    usable = filter_fma(paths, settings.metadata_folder) if filter_by_fma else paths
    if not usable:
        raise UserError(f"{settings.folder}: FMA's metadata leaves none of its {len(paths)} sound files")
    return usable


def preprocess_sounds(
    paths: Sequence[Path],
    config: ModelConfig,
    settings: DataPreprocessorConfig,
    rvq_path: Path,
    kmeans_path: Path,
    device_name: str | None = None,
    trust_remote_code: bool = False,
) -> PreprocessReport:
    """Writes the tokens of sound files to `settings.results_folder`, on the processes that accelerate started.

    Without `device_name`, each of several processes uses a device of its own. `trust_remote_code` lets Python code run
    that comes with MERT. Returns what this process did. Raises UserError, also if a single process can
    use no file.
    """
    device = choose_device(device_name)
    state = PartialState(cpu=device.type == "cpu")
    if device_name is None and state.num_processes > 1:
        device = state.device
    tokenizer = MusicTokenizer.load(config, rvq_path, kmeans_path, device, trust_remote_code)
    preprocessor = Preprocessor(
        config, settings, tokenizer, tokenizer_fingerprints(tokenizer), device, state.process_index, state.num_processes
    )
    report = preprocessor.run(paths)
    if state.process_index == 0:
        report.captioned = write_caption_tokens(Path(settings.results_folder), Path(settings.folder), paths, tokenizer)
    if report.failures and len(report.failures) == len(paths):
        raise UserError(
            f"{settings.folder}: none of its {len(paths)} sound files could be used; the first one is "
            f"{report.failures[0].reason}"
        )
    return report
