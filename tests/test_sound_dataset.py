"""Crops for training: the same instant at every rate, the same stream on every process, bad files replaced."""

import multiprocessing
import os
import pickle
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from helpers.sound_files import BAD, ODD, start_of, write_pulses, write_three_hours, write_tone
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from open_musiclm.audio import SoundError, wave_statistics
from open_musiclm.data.crops import Crop
from open_musiclm.data.example_order import ExampleSampler
from open_musiclm.data.sound_dataset import SoundBatch, SoundDataset, collate_sounds
from open_musiclm.data.split import split
from open_musiclm.data.statistics import StatisticsCache
from open_musiclm.errors import UserError

CLAP = Crop("clap", 2.0, 48000, normalized=False)
SEMANTIC = Crop("semantic", 1.0, 16000, normalized=True)
ACOUSTIC = Crop("acoustic", 1.0, 24000, normalized=False)
CROPS = [ACOUSTIC, CLAP, SEMANTIC]  # in any order
FEW = settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def _tones(folder: Path, count: int = 5) -> list[Path]:
    """Tones of different pitch, the first one shorter than a window."""
    return [write_tone(folder / f"{n}.wav", 1.5 + n, 16000, hz=200 + 50 * n) for n in range(count)]


@FEW
@given(
    file_hz=st.sampled_from([8000, 22050, 44100, 48000]),
    seed=st.integers(-5, 1000),
    outer=st.floats(0.8, 4.5),
    inner=st.floats(0.5, 0.8),
    length=st.sampled_from([4.5, 6.1]),
)
def test_crops_start_at_the_same_instant_at_every_rate(
    tmp_path: Path, file_hz: int, seed: int, outer: float, inner: float, length: float
) -> None:
    path = write_pulses(tmp_path / "pulses.wav", length, file_hz)
    crops = [
        Crop("inner", inner, 24000, normalized=False),
        Crop("outer", outer, 48000, normalized=False),
        Crop("normalized", inner, 16000, normalized=True),
    ]
    waves = SoundDataset([path], crops, seed)[0].waves
    statistics = wave_statistics(path)
    waves["normalized"] = waves["normalized"] * statistics.standard_deviation + statistics.mean
    assert {crop.name: round(crop.seconds * crop.sample_hz) for crop in crops} == {n: len(w) for n, w in waves.items()}
    starts = {crop.name: start_of(waves[crop.name].numpy(), crop.sample_hz) for crop in crops}
    assert starts["inner"] == pytest.approx(starts["normalized"], abs=0.5 / 16000)
    assert -1e-4 <= starts["outer"] <= starts["inner"] + 1e-4
    assert starts["inner"] + inner <= starts["outer"] + outer + 1e-3
    assert starts["outer"] + outer <= length + 1e-3


def test_crops_start_anywhere(tmp_path: Path) -> None:
    path = write_pulses(tmp_path / "pulses.wav", 6.0, 16000)
    dataset = SoundDataset([path], [CLAP, ACOUSTIC], seed=0)
    examples = [dataset[index].waves for index in range(60)]
    outer = np.array([start_of(waves["clap"].numpy(), 48000) for waves in examples])
    inner = np.array([start_of(waves["acoustic"].numpy(), 24000) for waves in examples]) - outer
    assert outer.min() < 0.4
    assert outer.max() > 3.6
    assert inner.min() < 0.1
    assert inner.max() > 0.9
    assert len(set(outer.round(3))) > 55


def test_a_file_shorter_than_the_window_is_repeated(tmp_path: Path) -> None:
    path = write_tone(tmp_path / "short.wav", 0.7, 24000, hz=100)
    wave = SoundDataset([path], [Crop("acoustic", 2.0, 24000, normalized=False)], seed=0)[3].waves["acoustic"]
    period = round(0.7 * 24000)
    torch.testing.assert_close(wave[: 2 * period], wave[:period].repeat(2))
    assert float(wave[-2400:].std()) > 0.1


@pytest.mark.parametrize("workers", [0, 2])
def test_the_stream_is_the_same_whoever_reads_it(tmp_path: Path, workers: int) -> None:
    paths = _tones(tmp_path)
    whole = SoundDataset(paths, CROPS, seed=4)
    expected = [whole[index].waves for index in range(6, 30)]
    found: list[dict[str, torch.Tensor]] = [{} for _ in expected]
    for process in range(2):
        dataset = SoundDataset(paths, CROPS, seed=4, statistics=StatisticsCache(tmp_path / "statistics.sqlite"))
        sampler = ExampleSampler(6, batch_size=3, process_index=process, num_processes=2)
        loader = DataLoader(dataset, 3, sampler=sampler, num_workers=workers, collate_fn=collate_sounds)
        for step, batch in enumerate(islice(loader, 4)):
            assert isinstance(batch, SoundBatch)
            assert batch.failures == []
            for place in range(3):
                found[step * 6 + process * 3 + place] = {name: wave[place] for name, wave in batch.waves.items()}
    for left, right in zip(found, expected, strict=True):
        assert left.keys() == right.keys()
        assert all(torch.equal(left[name], right[name]) for name in left)


@FEW
@given(start=st.integers(0, 100), batch=st.integers(1, 5), processes=st.integers(1, 4), batches=st.integers(1, 6))
def test_processes_share_the_example_indices(start: int, batch: int, processes: int, batches: int) -> None:
    own = [
        list(islice(ExampleSampler(start, batch, process, processes), batch * batches)) for process in range(processes)
    ]
    in_order = [index for k in range(batches) for indices in own for index in indices[k * batch : (k + 1) * batch]]
    assert in_order == list(range(start, start + batch * processes * batches))


def test_every_epoch_takes_every_file_once_in_its_own_order(tmp_path: Path) -> None:
    paths = [write_tone(tmp_path / f"{n}.wav", 1.0, 16000, hz=100 * (n + 1)) for n in range(6)]
    dataset = SoundDataset(paths, [Crop("acoustic", 1.0, 16000, normalized=False)], seed=1)

    def pitch(index: int) -> int:
        return int(np.argmax(np.abs(np.fft.rfft(dataset[index].waves["acoustic"].numpy()))))

    epochs = [[pitch(epoch * 6 + place) for place in range(6)] for epoch in range(4)]
    assert all(sorted(epoch) == [100, 200, 300, 400, 500, 600] for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) > 1


@pytest.mark.parametrize("crops", [CROPS, [CLAP]], ids=["normalized", "plain"])
def test_bad_files_are_replaced_and_reported(tmp_path: Path, crops: list[Crop]) -> None:
    bad = [write(tmp_path / name) for name, (write, _) in BAD.items() if name != "truncated.flac"]
    good = _tones(tmp_path, 2)
    dataset = SoundDataset([*bad, *good], crops, seed=2)
    again = SoundDataset([*bad, *good], crops, seed=2)
    examples = [dataset[index] for index in range(2 * len(dataset))]
    for index in reversed(range(len(examples))):  # read in another order, the same stream
        assert all(torch.equal(wave, again[index].waves[name]) for name, wave in examples[index].waves.items())
    failures = [failure for example in examples for failure in example.failures]
    assert {failure.path for failure in failures} == set(bad)
    assert all(str(failure.path) in failure.reason for failure in failures)
    assert all(float(wave.std()) > 0.05 for example in examples for wave in example.waves.values())


def test_a_truncated_file_fails_where_its_end_is_needed(tmp_path: Path) -> None:
    path = BAD["truncated.flac"][0](tmp_path / "truncated.flac")
    with pytest.raises(UserError, match=r"none of the 1 sound files can be used.*truncated\.flac"):
        SoundDataset([path], CROPS, seed=0)[0]


def test_odd_files_are_good_files(tmp_path: Path) -> None:
    paths = [write(tmp_path / name) for name, write in ODD.items()]
    dataset = SoundDataset(paths, CROPS, seed=2)
    for index in range(len(paths)):
        example = dataset[index]
        assert example.failures == []
        assert {name: len(wave) for name, wave in example.waves.items()} == {
            "clap": 96000,
            "semantic": 16000,
            "acoustic": 24000,
        }
        assert all(float(wave.std()) > 1e-4 for wave in example.waves.values())


def test_no_usable_file_is_an_error(tmp_path: Path) -> None:
    paths = [BAD[name][0](tmp_path / name) for name in ("empty.wav", "silent.wav")]
    with pytest.raises(UserError, match="none of the 2 sound files can be used"):
        SoundDataset(paths, [CLAP], seed=0)[0]
    with pytest.raises(UserError, match="no sound file is left"):
        SoundDataset([], [CLAP], seed=0)


def test_a_failure_is_remembered(tmp_path: Path) -> None:
    bad, good = tmp_path / "bad.wav", write_tone(tmp_path / "good.wav", 3.0)
    bad.touch()
    dataset = SoundDataset([bad, good], [CLAP], seed=0)
    first = [dataset[index].failures for index in range(2)]
    write_tone(bad, 3.0)
    assert [dataset[index].failures for index in range(2)] == first
    assert sum(map(len, first)) == 1


def test_a_crop_of_three_hours_decodes_no_more_than_the_crop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_three_hours(tmp_path / "long.flac")
    decoded: list[int] = []
    read = soundfile.SoundFile.read

    def counted(file: soundfile.SoundFile, *arguments: Any, **options: Any) -> np.ndarray:
        block = read(file, *arguments, **options)
        decoded.append(len(block))
        return block

    monkeypatch.setattr(soundfile.SoundFile, "read", counted)
    dataset = SoundDataset([path], CROPS, seed=0)
    dataset[0]
    assert sum(decoded) >= 3 * 3600 * 2000  # the whole file, for its statistics
    for index in range(1, 6):
        decoded.clear()
        dataset[index]
        assert sum(decoded) == CLAP.seconds * 2000


@FEW
@given(count=st.integers(0, 40), valid_frac=st.floats(0, 0.99), seed=st.integers(-3, 5), shuffle=st.randoms())
def test_a_split_is_the_same_in_any_order(count: int, valid_frac: float, seed: int, shuffle: object) -> None:
    paths = [Path(f"{n}.wav") for n in range(count)]
    train, valid = split(paths, valid_frac, seed)
    assert sorted([*train, *valid]) == sorted(paths)
    assert (len(valid) > 0) == (valid_frac > 0 and count > 1)
    assert (len(train) > 0) == (count > 0)
    assert abs(len(valid) - valid_frac * count) <= 1
    shuffle.shuffle(paths)  # type: ignore[attr-defined]
    assert split(paths, valid_frac, seed) == (train, valid)


def _swap_content(path: Path, other: Path) -> None:
    """Other content under the same path, size and time of change."""
    status = path.stat()
    path.write_bytes(other.read_bytes())
    assert path.stat().st_size == status.st_size
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


@pytest.mark.parametrize("where", ["file", "memory"])
def test_statistics_are_remembered(tmp_path: Path, where: str) -> None:
    path = write_tone(tmp_path / "tone.wav", 1.0, hz=100)
    cache = StatisticsCache(tmp_path / "new" / "statistics.sqlite" if where == "file" else None)
    statistics = cache.of(path)
    assert statistics == wave_statistics(path)
    _swap_content(path, write_tone(tmp_path / "other.wav", 1.0, hz=333.3))
    assert wave_statistics(path) != statistics
    assert cache.of(path) == statistics
    assert (pickle.loads(pickle.dumps(cache)).of(path) == statistics) == (where == "file")
    os.utime(path, ns=(0, 0))
    assert cache.of(path) == wave_statistics(path)


def _ask(file: Path, paths: list[Path]) -> None:
    cache = StatisticsCache(file)
    for path in paths:
        cache.of(path)


def test_processes_share_statistics(tmp_path: Path) -> None:
    paths = [write_tone(tmp_path / f"{n}.wav", 0.1, hz=100 + 7 * n) for n in range(40)]
    file = tmp_path / "statistics.sqlite"
    processes = [multiprocessing.get_context("fork").Process(target=_ask, args=(file, paths)) for _ in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0] * 4
    expected = [wave_statistics(path) for path in paths]
    _swap_content(paths[0], paths[1])
    assert [StatisticsCache(file).of(path) for path in paths] == expected


def test_bad_statistics(tmp_path: Path) -> None:
    file = tmp_path / "statistics.sqlite"
    file.mkdir()
    with pytest.raises(UserError, match=r"statistics\.sqlite: .*not a regular file; remove it"):
        StatisticsCache(file)
    with pytest.raises(SoundError, match="cannot read"):
        StatisticsCache().of(tmp_path / "nowhere.wav")
