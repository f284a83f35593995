"""Folders of sound to a token store: decoding in parallel workers, tokenizers on the device.

Files go in groups that never change, so that a run that was interrupted makes the same tokens as one that was not.
"""

import hashlib
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.utils.data import DataLoader
from tqdm import tqdm

from open_musiclm.config import DataPreprocessorConfig, ModelConfig
from open_musiclm.data.crop_preparation import CropPreparation, PreparedFile, SoundCrop, stored_name
from open_musiclm.data.sound_dataset import SoundFailure
from open_musiclm.data.statistics import StatisticsCache
from open_musiclm.data.store_description import StoreDescription, shortest_seconds
from open_musiclm.data.token_store import SHARD_BYTES, StoredTokens, TokenStoreWriter
from open_musiclm.data.workers import leave_signals_to_parent
from open_musiclm.errors import UserError
from open_musiclm.interruption import Interruption

FILES_PER_GROUP = 4
STATISTICS_NAME = "statistics.sqlite"
FAILURES_NAME = "failed_sounds-{process:05d}.txt"


@runtime_checkable
class Tokenizer(Protocol):
    """What is needed of a MusicTokenizer: each kind of tokens from waves at the config's rate for it."""

    def clap_ids(self, waves: Float[Tensor, "batch samples"]) -> Int[Tensor, "batch 1 quantizers"]: ...

    def semantic_ids(self, waves: Float[Tensor, "batch samples"]) -> Int[Tensor, "batch time 1"]: ...

    def acoustic_ids(self, waves: Float[Tensor, "batch samples"]) -> Int[Tensor, "batch time quantizers"]: ...


@dataclass
class PreprocessReport:
    """What a process has done: files and seconds written, files that were stored before, files that failed."""

    files: int = 0
    seconds: int = 0
    stored_before: int = 0
    failures: list[SoundFailure] = field(default_factory=list)
    interrupted: bool = False


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
        self.tokenizer = tokenizer
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

    @torch.no_grad()
    def tokenize(self, crops: Sequence[SoundCrop]) -> list[StoredTokens]:
        """The tokens of crops, in their order. CLAP hears every window, one a second."""
        clap = self._clap_ids(crops)
        semantic = self._by_length(crops, "semantic")
        acoustic = self._by_length(crops, "acoustic")
        coarse = self.config.global_cfg.num_coarse_quantizers
        fine = coarse + self.config.global_cfg.num_fine_quantizers
        return [
            StoredTokens(
                crop.path,
                float(crop.start_seconds),
                float(crop.seconds),
                clap[number],
                semantic[number],
                acoustic[number][:, :coarse],
                acoustic[number][:, coarse:fine],
            )
            for number, crop in enumerate(crops)
        ]

    def _clap_ids(self, crops: Sequence[SoundCrop]) -> list[Int[Tensor, "windows quantizers"]]:
        """Windows of all crops together, `clap_batch_size` at a time."""
        rate = self.config.clap_rvq_cfg.sample_hz
        window = round(self.config.global_cfg.clap_audio_length_seconds * rate)
        views = [crop.waves["clap"].unfold(0, window, rate) for crop in crops]
        if not views:
            return []
        places = [(number, index) for number, view in enumerate(views) for index in range(len(view))]
        ids = []
        for first in range(0, len(places), self.settings.clap_batch_size):
            batch = places[first : first + self.settings.clap_batch_size]
            waves = torch.stack([views[number][index] for number, index in batch])
            ids.append(self.tokenizer.clap_ids(waves.to(self.device)).squeeze(1).cpu())
        return list(torch.cat(ids).split([len(view) for view in views]))

    def _by_length(self, crops: Sequence[SoundCrop], kind: str) -> list[Int[Tensor, "time quantizers"]]:
        """Tokens of the whole crops; equally long ones share a batch, for padding would change them."""
        encode = self.tokenizer.semantic_ids if kind == "semantic" else self.tokenizer.acoustic_ids
        found: dict[int, Tensor] = {}
        numbers = sorted(range(len(crops)), key=lambda number: crops[number].seconds)
        for _, equal in groupby(numbers, key=lambda number: crops[number].seconds):
            batch = list(equal)
            for first in range(0, len(batch), FILES_PER_GROUP):
                some = batch[first : first + FILES_PER_GROUP]
                ids = encode(torch.stack([crops[number].waves[kind] for number in some]).to(self.device)).cpu()
                found.update(zip(some, ids, strict=True))
        return [found[number] for number in range(len(crops))]

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
        with tqdm(total=sum(map(len, groups)), desc="preprocessing", unit="file", disable=hidden) as bar:
            for files in self._prepared(paths, groups, writer.folder / STATISTICS_NAME):
                writer.add(self.tokenize([crop for file in files for crop in file.crops]))
                self._count(files, report, bar)
                if interruption.asked:
                    report.interrupted = True
                    return

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
        )
        try:
            yield from loader
        except RuntimeError as error:
            if "DataLoader worker" not in str(error):
                raise
            raise UserError(
                "a data worker died (often for lack of memory); what was done is stored; lower "
                "data_preprocessor_cfg.num_workers and run the same command again"
            ) from error

    def _count(self, files: Sequence[PreparedFile], report: PreprocessReport, bar: tqdm) -> None:
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
