"""Folders of sound to a token store: decoding in parallel workers, tokenizers on the device.

Files go in groups that never change, so that a run that was interrupted makes the same tokens as one that was not.
"""

import hashlib
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.data import DataLoader
from tqdm import tqdm

from open_musiclm.config import DataPreprocessorConfig, ModelConfig
from open_musiclm.data.crop_preparation import CropPreparation, PreparedFile, stored_name
from open_musiclm.data.crop_tokenizer import CropTokenizer, PendingTokens, Tokenizer
from open_musiclm.data.sound_dataset import SoundFailure
from open_musiclm.data.statistics import StatisticsCache
from open_musiclm.data.store_description import StoreDescription, shortest_seconds
from open_musiclm.data.token_store import SHARD_BYTES, TokenStoreWriter
from open_musiclm.data.workers import DEATHS, is_death, leave_signals_to_parent, opened
from open_musiclm.errors import UserError
from open_musiclm.interruption import Interruption

FILES_PER_GROUP = 4
STATISTICS_NAME = "statistics-{process:05d}.sqlite"  # SQLite is no place for many machines to write at once
FAILURES_NAME = "failed_sounds-{process:05d}.txt"


@dataclass
class PreprocessReport:
    """What a process has done: files and seconds written, files that were stored before, files that failed.

    `waited_seconds` is how long it waited for decoded sound, after the first files, of the `elapsed_seconds` in all.
    """

    files: int = 0
    seconds: int = 0
    stored_before: int = 0
    failures: list[SoundFailure] = field(default_factory=list)
    interrupted: bool = False
    waited_seconds: float = 0.0
    elapsed_seconds: float = 0.0

    @property
    def waited_share(self) -> float:
        """The share of the time that decoding was waited for: an upper bound of how long the device was idle for it."""
        return self.waited_seconds / max(self.elapsed_seconds, 1e-9)


class Preprocessor:
    """Tokenizes sound files into the store at `settings.results_folder`, this process its share of them.

    `fingerprints` name the trained weights within the tokenizer. Raises UserError where configs contradict.
    """

    def __init__(
        self,
        config: ModelConfig,
        settings: DataPreprocessorConfig,
        tokenizer: Tokenizer,
        fingerprints: Mapping[str, str],
        device: torch.device,
        process_index: int = 0,
        num_processes: int = 1,
        shard_bytes: int = SHARD_BYTES,
    ) -> None:
        if settings.max_audio_length_seconds < shortest_seconds(config):
            raise UserError(
                f"data_preprocessor_cfg: max_audio_length_seconds: {settings.max_audio_length_seconds}, but the model "
                f"config's longest window is {shortest_seconds(config)} s; crops must hold it"
            )
        self.config = config
        self.settings = settings
        self.crop_tokenizer = CropTokenizer(config, tokenizer, device, settings.clap_batch_size)
        self.description = StoreDescription(config, fingerprints)
        self.device = device
        self.process_index = process_index
        self.num_processes = num_processes
        self.shard_bytes = shard_bytes

    def run(self, paths: Sequence[Path]) -> PreprocessReport:
        """Tokenizes what the store lacks of `paths`, until the end or a signal. Raises UserError.

        SIGINT and SIGTERM end it after the files at hand, with everything stored.
        """
        report = PreprocessReport()
        folder = Path(self.settings.results_folder)
        with Interruption() as interruption:
            with TokenStoreWriter(folder, self.description, self.process_index, self.shard_bytes) as writer:
                groups = self._groups(paths, writer.stored_paths(), report)
                self._store(paths, groups, writer, report, interruption)
            self._list_failures(folder, report)
        return report

    def _groups(self, paths: Sequence[Path], stored: set[str], report: PreprocessReport) -> list[list[int]]:
        """This process's files in groups of `FILES_PER_GROUP`, without those that are stored."""
        share = range(self.process_index, len(paths), self.num_processes)
        groups = [share[first : first + FILES_PER_GROUP] for first in range(0, len(share), FILES_PER_GROUP)]
        folder = Path(self.settings.folder)
        left = [[index for index in group if stored_name(paths[index], folder) not in stored] for group in groups]
        report.stored_before = len(share) - sum(map(len, left))
        return [group for group in left if group]

    def _store(
        self,
        paths: Sequence[Path],
        groups: list[list[int]],
        writer: TokenStoreWriter,
        report: PreprocessReport,
        interruption: Interruption,
    ) -> None:
        hidden = self.process_index > 0
        begun = time.perf_counter()
        with tqdm(total=sum(map(len, groups)), desc="preprocessing", unit="file", disable=hidden) as bar:
            behind: tuple[list[PreparedFile], PendingTokens] | None = None
            statistics = writer.folder / STATISTICS_NAME.format(process=self.process_index)
            for files in self._awaited(self._prepared(paths, groups, statistics), report):
                started = self.crop_tokenizer.start([crop for file in files for crop in file.crops])
                # While the device works at these files the tokens of those before are stored.
                if behind is not None:
                    self._keep(*behind, writer, report, bar)
                behind = files, started
                if interruption.asked:
                    report.interrupted = True
                    break
            if behind is not None:
                self._keep(*behind, writer, report, bar)
        report.elapsed_seconds = time.perf_counter() - begun

    def _awaited(self, groups: Iterator[list[PreparedFile]], report: PreprocessReport) -> Iterator[list[PreparedFile]]:
        """The same groups, with the time counted that each but the first is waited for."""
        first = True
        while True:
            begun = time.perf_counter()
            files = next(groups, None)
            if files is None:
                return
            report.waited_seconds += 0.0 if first else time.perf_counter() - begun
            first = False
            yield files

    def _prepared(
        self, paths: Sequence[Path], groups: list[list[int]], statistics: Path
    ) -> Iterator[list[PreparedFile]]:
        preparation = CropPreparation(paths, self.config, self.settings, StatisticsCache(statistics))
        loader = DataLoader(
            preparation,
            batch_sampler=groups,
            num_workers=min(self.settings.num_workers, len(groups)),
            collate_fn=list,
            worker_init_fn=leave_signals_to_parent,
            pin_memory=self.device.type == "cuda",
        )
        try:
            yield from opened(loader)
        except DEATHS as error:
            if not is_death(error):
                raise
            raise UserError(
                "a data worker died (often for lack of memory); what was done is stored; lower "
                "data_preprocessor_cfg.num_workers and run the same command again"
            ) from error

    def _keep(
        self,
        files: Sequence[PreparedFile],
        tokens: PendingTokens,
        writer: TokenStoreWriter,
        report: PreprocessReport,
        bar: tqdm,
    ) -> None:
        writer.add(tokens.rows())
        failures = [file.failure for file in files if file.failure]
        for failure in failures:
            tqdm.write(f"skipped: {failure.reason}", file=sys.stderr)
        report.failures += failures
        report.files += len(files) - len(failures)
        report.seconds += sum(crop.seconds for file in files for crop in file.crops)
        bar.update(len(files))
        elapsed = bar.format_dict["elapsed"]
        bar.set_postfix_str(f"{report.seconds / max(elapsed, 1e-3):.0f} s of sound per second")

    def _list_failures(self, folder: Path, report: PreprocessReport) -> None:
        """Writes the failures of this run to a file of this process. Raises UserError."""
        file = folder / FAILURES_NAME.format(process=self.process_index)
        try:
            if report.failures:
                file.write_text("".join(f"{failure.reason}\n" for failure in report.failures), encoding="utf-8")
            elif not report.interrupted:
                file.unlink(missing_ok=True)
        except OSError as error:
            raise UserError(f"{file}: cannot write: {error.strerror}") from error


def fingerprint(weights: Tensor) -> str:
    """A name for trained weights that changes when they do."""
    content = weights.detach().float().cpu().contiguous().numpy()
    return hashlib.sha256(str(content.shape).encode() + content.tobytes()).hexdigest()[:16]
