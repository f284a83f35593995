"""Sound files to a token store: decoding in parallel workers, tokenizers on the device.

The groups of files that share a batch never change: an interrupted run gives the same tokens as an uninterrupted one.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import torch
from torch.utils.data import DataLoader
from tqdm import tqdm

from open_musiclm.config import DataPreprocessorConfig, ModelConfig
from open_musiclm.data.crop_preparation import CropPreparation, PreparedFile, stored_name
from open_musiclm.data.crop_tokenizer import CropTokenizer, PendingTokens, Tokenizer
from open_musiclm.data.preprocess_report import PreprocessReport
from open_musiclm.data.statistics import StatisticsCache
from open_musiclm.data.store_description import StoreDescription, crops_of, shortest_seconds
from open_musiclm.data.token_store_writer import SHARD_BYTES, TokenStoreWriter
from open_musiclm.data.workers import DEATHS, batches_of, is_death, leave_signals_to_parent
from open_musiclm.errors import UserError
from open_musiclm.interruption import Interruption
from open_musiclm.progress_bar import progress_bar
from open_musiclm.terminal import print_stderr

FILES_PER_GROUP = 4
STATISTICS_NAME = "statistics-{process:05d}.sqlite"  # SQLite does not support writing from many machines at once


class Preprocessor:
    """Tokenizes this process's share of sound files into the store at `settings.results_folder`.

    `fingerprints` identify the trained weights of the tokenizer. Raises UserError if configs contradict each other.
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
        self.description = StoreDescription(config, fingerprints, crops_of(settings))
        self.device = device
        self.process_index = process_index
        self.num_processes = num_processes
        self.shard_bytes = shard_bytes

    def run(self, paths: Sequence[Path]) -> PreprocessReport:
        """Tokenizes those of `paths` that the store lacks, until the end or a signal. Raises UserError.

        SIGINT, SIGTERM and SIGHUP end it after the files in work, with everything stored.
        """
        report = PreprocessReport()
        folder = Path(self.settings.results_folder)
        with Interruption() as interruption:
            with TokenStoreWriter(folder, self.description, self.process_index, self.shard_bytes) as writer:
                groups = self._groups(paths, writer.stored_paths(), report)
                if report.stored_before and self.process_index == 0:
                    self._warn_of_other_crops(writer.description, report.stored_before)
                self._store(paths, groups, writer, report, interruption)
            report.list_failures(folder, self.process_index)
        return report

    def _groups(self, paths: Sequence[Path], stored: set[str], report: PreprocessReport) -> list[list[int]]:
        """This process's files in groups of `FILES_PER_GROUP`, without those that are stored."""
        share = range(self.process_index, len(paths), self.num_processes)
        groups = [share[first : first + FILES_PER_GROUP] for first in range(0, len(share), FILES_PER_GROUP)]
        folder = Path(self.settings.folder)
        left = [[index for index in group if stored_name(paths[index], folder) not in stored] for group in groups]
        report.stored_before = len(share) - sum(map(len, left))
        return [group for group in left if group]

    def _warn_of_other_crops(self, begun: StoreDescription, files: int) -> None:
        differing = begun.other_crops(self.description.crops)
        if differing:
            print_stderr(
                f"warning: {self.settings.results_folder}: begun with other settings: {'; '.join(differing)}; "
                f"the {files} files there stay as they are; to change them, preprocess into another folder"
            )

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
        with progress_bar(sum(map(len, groups)), "preprocessing", "files", hidden=hidden) as bar:
            pending: tuple[list[PreparedFile], PendingTokens] | None = None
            statistics = writer.folder / STATISTICS_NAME.format(process=self.process_index)
            for files in self._awaited(self._prepared(paths, groups, statistics), report):
                started = self.crop_tokenizer.start([crop for file in files for crop in file.crops])
                # While the device works on these files, the tokens of those before are stored.
                if pending is not None:
                    self._keep(*pending, writer, report, bar)
                pending = files, started
                if interruption.requested:
                    report.interrupted = interruption.number
                    break
            if pending is not None:
                self._keep(*pending, writer, report, bar)
        report.elapsed_seconds = time.perf_counter() - begun

    def _awaited(self, groups: Iterator[list[PreparedFile]], report: PreprocessReport) -> Iterator[list[PreparedFile]]:
        """The same groups. Adds the time spent waiting for each but the first to the report."""
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
            yield from batches_of(loader)
        except DEATHS as error:
            if not is_death(error):
                raise
            raise UserError(
                "a data worker died (often for lack of memory); finished files are stored; lower "
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
            print_stderr(f"skipped: {failure.reason}")
        report.failures += failures
        report.files += len(files) - len(failures)
        report.seconds += sum(crop.seconds for file in files for crop in file.crops)
        speed = report.seconds / max(bar.format_dict["elapsed"], 1e-3)
        bar.set_postfix_str(f"{speed:.0f} s of sound per second", refresh=False)
        bar.update(len(files))
